//! `dns_responder`, asked by `dig`, whose opinion of what a DNS message looks like is its own.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use xfwd_netns::clients::dns;
use xfwd_netns::topology::{self, INTERFACE, Pair, host_v4, host_v6};
use xfwd_netns::{Namespace, commands_or_skip, lab_or_skip};

use crate::client;
use crate::example::{Example, PATIENCE};

const ZONE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/dns_responder/example.zone");
const SOA: &str = "example. 300 IN SOA ns.example. hostmaster.example. 2026010101 7200 3600 1209600 300";

/// What dig has understood.
#[derive(Debug, PartialEq)]
struct Answer {
    status: String,
    flags: String,
    /// As in a zone file, with one space between words.
    records: Vec<String>,
}

impl Answer {
    fn new(status: &str, flags: &str, records: &[&str]) -> Self {
        let records = records.iter().map(|record| (*record).to_owned()).collect();
        Self { status: status.to_owned(), flags: flags.to_owned(), records }
    }
}

/// Asks once, over UDP unless said otherwise. Panics when there is no answer, or one that dig finds something wrong with.
fn dig(host: &Namespace, server: SocketAddr, question: &str) -> Answer {
    let mut command = Command::new("dig");
    command.arg(format!("@{}", server.ip())).args(["-p", &server.port().to_string()]);
    command.args(["+tries=1", "+time=10", "+norecurse", "+ignore", "+notcp"]).args(question.split(' '));
    let output = host.output(&mut command).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{question}: {text}");
    assert!(!text.contains("WARNING") && !text.contains("bad"), "{question}: {text}");
    let between = |from: &str, to: &str| {
        let rest = text.split_once(from).unwrap_or_else(|| panic!("{question}: {text}")).1;
        rest.split(to).next().unwrap().to_owned()
    };
    let records = text.lines().filter(|line| !line.is_empty() && !line.starts_with(';'));
    Answer {
        status: between("status: ", ","),
        flags: between(";; flags: ", ";"),
        records: records.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect(),
    }
}

/// The zone of the example and a name with so many addresses that they do not fit an answer without EDNS.
fn long_zone() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dns_responder.zone");
    let addresses: String = (1..=40).map(|host| format!("pool A 198.51.100.{host}\n")).collect();
    std::fs::write(&path, std::fs::read_to_string(ZONE).unwrap() + &addresses).unwrap();
    path
}

/// The numbers of the summary, in its order.
fn counts(summary: &str) -> Vec<(&str, u64)> {
    summary
        .lines()
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, count)| (name, count.parse().unwrap()))
        .collect()
}

#[test]
fn dns_responder_says_what_stands_in_its_zone() {
    lab_or_skip!();
    commands_or_skip!("dig", "dnsmasq");
    let pair = topology::pair(2).unwrap();
    let zone = long_zone();
    let www = ["www.example. 300 IN A 192.0.2.80", "www.example. 300 IN A 192.0.2.81"];
    let questions: &[(&str, Answer)] = &[
        ("www.example A", Answer::new("NOERROR", "qr aa", &www)),
        // As it was asked, not as it is in the file.
        ("WwW.eXample AAAA", Answer::new("NOERROR", "qr aa", &["WwW.eXample. 300 IN AAAA 2001:db8::80"])),
        ("example TXT", Answer::new("NOERROR", "qr aa", &["example. 3600 IN TXT \"v=spf1 mx -all\""])),
        ("example MX", Answer::new("NOERROR", "qr aa", &["example. 3600 IN MX 10 mail.example."])),
        (
            "_sip._udp.example SRV",
            Answer::new("NOERROR", "qr aa", &["_sip._udp.example. 3600 IN SRV 0 5 5060 www.example."]),
        ),
        (
            "ftp.example A",
            Answer::new("NOERROR", "qr aa", &["ftp.example. 3600 IN CNAME www.example.", www[0], www[1]]),
        ),
        ("ftp.example CNAME", Answer::new("NOERROR", "qr aa", &["ftp.example. 3600 IN CNAME www.example."])),
        (
            "ftp.example MX",
            Answer::new("NOERROR", "qr aa", &["ftp.example. 3600 IN CNAME www.example.", SOA]),
        ),
        (
            "blog.example A",
            Answer::new("NOERROR", "qr aa", &["blog.example. 3600 IN CNAME pages.example.net."]),
        ),
        ("www.example ANY", Answer::new("NOERROR", "qr aa", &www)),
        // A name without records of this type, one of which only more of it is in the zone, and one that is not there.
        ("www.example MX", Answer::new("NOERROR", "qr aa", &[SOA])),
        ("_udp.example A", Answer::new("NOERROR", "qr aa", &[SOA])),
        ("nobody.example A", Answer::new("NXDOMAIN", "qr aa", &[SOA])),
        ("www.example.net A", Answer::new("REFUSED", "qr", &[])),
        ("version.bind CH TXT", Answer::new("REFUSED", "qr", &[])),
        ("www.example MAILB", Answer::new("NOTIMP", "qr", &[])),
        ("+opcode=notify www.example SOA", Answer::new("NOTIMP", "qr", &[])),
        ("+edns=1 +noednsnegotiation www.example A", Answer::new("BADVERS", "qr", &[])),
        ("+noedns www.example A", Answer::new("NOERROR", "qr aa", &www)),
        ("+noedns pool.example A", Answer::new("NOERROR", "qr aa tc", &[])),
        ("+bufsize=600 pool.example A", Answer::new("NOERROR", "qr aa tc", &[])),
    ];
    for (from, to) in [
        (IpAddr::from(host_v4(Pair::GENERATOR)), IpAddr::from(host_v4(Pair::SUBJECT))),
        (host_v6(Pair::GENERATOR).into(), host_v6(Pair::SUBJECT).into()),
    ] {
        let server = SocketAddr::new(to, 53);
        // Gets nothing by UDP while the example runs, and everything by TCP.
        let _host = dns::serve(&pair.subject, "host", server).unwrap();
        let arguments = [INTERFACE, &server.to_string(), zone.to_str().unwrap(), "2"];
        let responder = Example::start(&pair.subject, "dns_responder", &arguments, "answering on");
        for (question, expected) in questions {
            assert_eq!(dig(&pair.generator, server, question), *expected, "{question} from {from}");
        }
        let pool = dig(&pair.generator, server, "pool.example A");
        assert_eq!((pool.status.as_str(), pool.records.len()), ("NOERROR", 40));
        assert_eq!(dns::dig(&pair.generator, server, true, PATIENCE).unwrap(), "host");
        assert_eq!(
            counts(&responder.stop()),
            [("answered", 16), ("dropped", 0), ("no such name", 1), ("refused", 5), ("truncated", 2)]
        );
    }
}

#[test]
fn dns_responder_drops_what_is_no_question() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let server = SocketAddr::new(host_v4(Pair::SUBJECT).into(), 53);
    let responder = Example::start(
        &pair.subject,
        "dns_responder",
        &[INTERFACE, &server.to_string(), ZONE],
        "answering on",
    );

    let head = |flags: u16, questions: u16| {
        [0x1234, flags, questions, 0, 0, 0].iter().flat_map(|half| half.to_be_bytes()).collect::<Vec<u8>>()
    };
    let good = [head(0, 1), b"\x03www\x07example\0\0\x01\0\x01".to_vec()].concat();
    let bad = [
        vec![],
        b"hello".to_vec(),
        head(0, 0),
        // No name, one that has no end, one that is longer than the message, one that points to itself.
        head(0, 1),
        [head(0, 1), b"\x03www".to_vec()].concat(),
        [head(0, 1), b"\x3fwww\0\0\x01\0\x01".to_vec()].concat(),
        [head(0, 1), b"\xc0\x0c\0\x01\0\x01".to_vec()].concat(),
        // An answer.
        [head(0x8000, 1), good[12..].to_vec()].concat(),
    ];
    let client = client(&pair.generator, host_v4(Pair::GENERATOR));
    bad.iter().for_each(|datagram| assert_eq!(client.send_to(datagram, server).unwrap(), datagram.len()));
    // All of one flow: what they were answered would come before this.
    let answer = crate::ask(&client, server, &good).unwrap();
    assert_eq!((&answer[..8], answer.len()), (&b"\x12\x34\x84\0\0\x01\0\x02"[..], good.len() + 2 * 16));
    // Two questions are a question, but not one to be answered (RFC 9619): format error.
    let two = crate::ask(&client, server, &[head(0, 2), good[12..].to_vec(), good[12..].to_vec()].concat())
        .unwrap();
    assert_eq!((&two[..8], two.len()), (&b"\x12\x34\x80\x01\0\x01\0\0"[..], good.len()));
    // Three fragments.
    client.send_to(&[&good[..], &[0; 3_000]].concat(), server).unwrap();
    assert_eq!(crate::ask(&client, server, &good).unwrap(), answer);

    let fragments = 3;
    assert_eq!(
        counts(&responder.stop()),
        [
            ("answered", 2),
            ("dropped", bad.len() as u64 + fragments),
            ("no such name", 0),
            ("refused", 1),
            ("truncated", 0)
        ]
    );
}

#[test]
fn dns_responder_refuses_zones_that_it_would_answer_wrongly() {
    let refused = |text: &str| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dns_responder_refused.zone");
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new(crate::example::program("dns_responder"));
        let output = command.args(["lo", "127.0.0.1:53"]).arg(&path).output().unwrap();
        assert!(!output.status.success(), "{text}");
        String::from_utf8(output.stderr).unwrap()
    };
    let apex = "$ORIGIN example.\n@ 60 SOA ns host 1 2 3 4 5\n";
    for (record, reason) in [
        ("* 60 A 192.0.2.1", "delegations and wildcards are not served"),
        ("below 60 NS ns.example.net.", "delegations and wildcards are not served"),
        ("www.example.net. 60 A 192.0.2.1", "www.example.net A is not of the zone example"),
        ("$INCLUDE more.zone", "$INCLUDE is not followed"),
        ("www 60 A 192.0.2.256", "expected IPv4 address"),
    ] {
        let said = refused(&format!("{apex}{record}\n"));
        assert!(said.contains(reason), "{record}: {said}");
    }
    assert!(refused("www.example. 60 A 192.0.2.1\n").contains("the first record of a zone is its SOA"));
}
