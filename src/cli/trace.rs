//! `xfwd trace CONFIG in.pcap`: packet by packet, what it is, what becomes of it, and who says so.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::replay::{Input, Opened};
use crate::config::Registry;
use crate::offline::{Fate, Place, RunError, Verdict};
use crate::packet::Fragment;
use crate::packet::protocol::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMP, ICMPV6, SCTP, TCP, UDP};

/// What is traced.
#[derive(Args)]
pub(super) struct TraceArgs {
    #[command(flatten)]
    input: Input,
    /// One JSON object a line: what is written anyway if standard output is not a terminal.
    #[arg(long)]
    json: bool,
    /// A line of text for each packet, also where standard output is not a terminal.
    #[arg(long, conflicts_with = "json")]
    text: bool,
}

pub(super) fn trace(args: &TraceArgs, registry: &Registry) -> ExitCode {
    let Opened { plan, options, mut offline, mut capture } = match args.input.open(registry) {
        Ok(opened) => opened,
        Err(status) => return status,
    };
    offline.explain(&plan, &options);
    let names = offline.rules().to_vec();
    let as_text = args.text || (!args.json && io::stdout().is_terminal());
    let mut out = BufWriter::new(io::stdout().lock());
    let mut first = None;
    let ended = offline.run(&mut capture, |fate| {
        let since = fate.time.saturating_sub(*first.get_or_insert(fate.time));
        let line = Line::of(fate, since, &names);
        if as_text {
            writeln!(out, "{}", line.text())
        } else {
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")
        }
    });
    let flushed = out.flush().map_err(RunError::Output);
    args.input.finish(ended.and(flushed))
}

/// A packet in words. Fields are `null` where the packet has no such thing.
#[derive(Serialize)]
struct Line<'f> {
    n: u64,
    /// Seconds since the first packet.
    time: f64,
    len: u32,
    /// Bytes of it that the capture has.
    captured: u32,
    vlan: Vec<u16>,
    l3: Option<String>,
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    proto: Option<Protocol>,
    src_port: Option<u16>,
    dst_port: Option<u16>,
    tcp_flags: Option<Vec<&'static str>>,
    fragment: &'static str,
    malformed: Option<&'static str>,
    r#where: Place,
    verdict: Verdict,
    by: Option<&'f str>,
    backend: Option<IpAddr>,
    /// Why, where there is a counter for it.
    reason: Option<&'static str>,
    /// All rules that acted on it.
    rules: Vec<&'f str>,
}

/// By the name that a config may use, else by number.
#[derive(Serialize)]
#[serde(untagged)]
enum Protocol {
    Name(&'static str),
    Number(u8),
}

/// VLAN id in a tag's control information.
const VLAN_ID: u16 = 0x0fff;
/// Flags by bit, from the lowest (RFC 9293).
const TCP_FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

impl<'f> Line<'f> {
    fn of(fate: &'f Fate<'_>, since: Duration, names: &'f [String]) -> Self {
        let (headers, facts) = (fate.headers, fate.facts);
        let address = |address| {
            let address = Ipv6Addr::from(address);
            match facts.ip_version {
                4 => Some(address.to_canonical()),
                6 => Some(IpAddr::V6(address)),
                _ => None,
            }
        };
        let outcome = headers.outcome();
        let flags = |bits: u8| (0..8).filter(|bit| bits >> bit & 1 != 0).map(|bit| TCP_FLAGS[bit]).collect();
        Self {
            n: fate.number,
            time: since.as_secs_f64(),
            len: fate.len,
            captured: fate.captured,
            vlan: headers.vlan_tci[..usize::from(headers.vlan_count)]
                .iter()
                .map(|tci| tci & VLAN_ID)
                .collect(),
            l3: (headers.network_offset != 0).then(|| match headers.ethertype {
                ETHERTYPE_IPV4 => "ipv4".to_owned(),
                ETHERTYPE_IPV6 => "ipv6".to_owned(),
                ETHERTYPE_ARP => "arp".to_owned(),
                other => format!("{other:#06x}"),
            }),
            src: address(facts.src),
            dst: address(facts.dst),
            proto: facts.protocol.map(|protocol| match protocol {
                TCP => Protocol::Name("tcp"),
                UDP => Protocol::Name("udp"),
                ICMP => Protocol::Name("icmp"),
                ICMPV6 => Protocol::Name("icmpv6"),
                SCTP => Protocol::Name("sctp"),
                other => Protocol::Number(other),
            }),
            src_port: facts.ports.map(|(port, _)| port),
            dst_port: facts.ports.map(|(_, port)| port),
            tcp_flags: facts.tcp_flags.map(flags),
            fragment: match headers.fragment() {
                Fragment::No => "no",
                Fragment::First => "first",
                Fragment::Later => "later",
            },
            malformed: outcome.is_malformed().then(|| outcome.name()),
            r#where: fate.place,
            verdict: fate.verdict,
            by: fate.by,
            backend: fate.backend,
            reason: fate.reason,
            rules: fate.rules.iter().map(|rule| names[*rule].as_str()).collect(),
        }
    }

    /// `12 0.004513 tcp 192.0.2.7:40000 > 198.18.10.1:80 [syn] 60 bytes: bounce to 198.18.0.11 by web`.
    fn text(&self) -> String {
        let mut text = format!("{:>6} {:>12.6}", self.n, self.time);
        for vlan in &self.vlan {
            let _ = write!(text, " vlan {vlan}");
        }
        match (&self.proto, &self.l3) {
            (Some(Protocol::Name(name)), _) => _ = write!(text, " {name}"),
            (Some(Protocol::Number(number)), Some(l3)) => _ = write!(text, " {l3} protocol {number}"),
            (_, Some(l3)) => _ = write!(text, " {l3}"),
            _ => text.push_str(" ethernet"),
        }
        if let (Some(src), Some(dst)) = (self.src, self.dst) {
            let at = |address: IpAddr, port: Option<u16>| match port {
                Some(port) => SocketAddr::new(address, port).to_string(),
                None => address.to_string(),
            };
            let _ = write!(text, " {} > {}", at(src, self.src_port), at(dst, self.dst_port));
        }
        if let Some(flags) = &self.tcp_flags {
            let _ = write!(text, " [{}]", flags.join(" "));
        }
        if self.fragment != "no" {
            let _ = write!(text, " {} fragment", self.fragment);
        }
        if let Some(malformed) = self.malformed {
            let _ = write!(text, " malformed ({malformed})");
        }
        let _ = write!(text, " {} bytes", self.len);
        if self.captured < self.len {
            let _ = write!(text, " ({} captured)", self.captured);
        }
        let _ = write!(text, ": {}", self.verdict);
        if let Some(backend) = self.backend {
            let _ = write!(text, " to {backend}");
        }
        if let Some(by) = self.by {
            let _ = write!(text, " by {by}");
        }
        let _ = write!(text, " in the {}", self.r#where);
        if let Some(reason) = self.reason.filter(|reason| Some(*reason) != self.malformed) {
            let _ = write!(text, " ({reason})");
        }
        text
    }
}
