//! `xfwd which`: the backend of a flow and the shares of a table, and that it agrees with the data path. Neither root nor a lab
//! is needed.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helper functions too"
)]

#[path = "support/xfwd.rs"]
mod running;

use std::path::{Path, PathBuf};
use std::process::Command;

use running::ConfigFile;
use serde_json::Value;
use xfwd::packet::FiveTuple;
use xfwd::stages::balance::maglev::Table;

/// The file itself is one of the things tested.
fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/balance.toml")
}

/// Exit status, standard output and standard error.
fn which(config: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_xfwd")).arg("which").arg(config).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn flow(protocol: &str, src: &str, dst: &str) -> (i32, String, String) {
    which(&example(), &["--proto", protocol, "--src", src, "--dst", dst])
}

fn json(arguments: &[&str]) -> Value {
    let (status, said, _) = which(&example(), &[arguments, &["--json"]].concat());
    assert_eq!(status, 0, "{said}");
    serde_json::from_str(&said).unwrap()
}

#[test]
fn a_flow_has_a_backend_and_a_reason() {
    let (status, said, _) = flow("tcp", "198.18.1.7:40000", "198.18.10.1:80");
    assert_eq!(
        said,
        "tcp 198.18.1.7:40000 > 198.18.10.1:80
service  web: tcp 198.18.10.1 port 80, which has this address
hash     0x4a77d312b666e3ea of addresses, ports and protocol (affinity 5tuple)
slot     19,064 of the 65,537 of its table
backend  198.18.0.11 by dsr, weight 2, up
This holds for a new flow while all backends are healthy.
"
    );
    assert_eq!(status, 0);
}

#[test]
fn the_longest_prefix_that_has_the_port_is_told() {
    let (_, said, _) = flow("tcp", "198.18.1.7:40000", "198.18.10.1:22");
    let prefix =
        "everything-else: tcp 198.18.10.0/24 all ports, the longest prefix with this address and port\n";
    assert!(said.contains(&format!("service  {prefix}")), "{said}");
    let (_, said, _) = flow("tcp", "198.18.1.7:40000", "198.18.10.1:443");
    assert!(said.contains("service  shop: tcp 198.18.10.1 port 443, which has this address\n"), "{said}");
    assert!(said.contains(":8443 by nat, weight 1, up\n"), "{said}");
}

#[test]
fn by_source_every_connection_of_a_client_has_the_same_backend() {
    let backend = |port: u16| {
        let (src, dst) =
            (format!("[2001:db8:5::7]:{port}"), format!("[2001:db8:10::21]:{}", 50_000 + port % 1_000));
        json(&["--proto", "tcp", "--src", &src, "--dst", &dst])["backend"]["address"].clone()
    };
    assert!((40_000..40_008).all(|port| backend(port) == backend(40_000)));
}

/// What the command says is what the table of the data path says, built here by hand from weights and states.
#[test]
fn it_agrees_with_the_table() {
    let backends = [[198, 18, 0, 11], [198, 18, 0, 12], [198, 18, 0, 13]];
    let table = Table::build(&[(backends[0], 2), (backends[1], 0), (backends[2], 1)], 65_537).unwrap();
    for port in [40_000, 40_001, 40_002, 40_003, 50_000] {
        let answer =
            json(&["--proto", "tcp", "--src", &format!("198.18.1.7:{port}"), "--dst", "198.18.10.1:80"]);
        let mapped = |address: [u8; 4]| std::net::Ipv4Addr::from(address).to_ipv6_mapped().octets();
        let (src, dst) = (mapped([198, 18, 1, 7]), mapped([198, 18, 10, 1]));
        let hash = FiveTuple { src, dst, src_port: port, dst_port: 80, protocol: 6 }.flow_hash();
        assert_eq!(answer["hash"], format!("{hash:#018x}"));
        let backend = backends[usize::from(table.lookup(hash))];
        assert_eq!(answer["backend"]["address"], std::net::Ipv4Addr::from(backend).to_string());
        assert_eq!((&answer["service"]["name"], &answer["table_size"]), (&"web".into(), &65_537.into()));
        assert_eq!(answer["forward"], "dsr");
    }
}

#[test]
fn a_flow_of_no_service_ends_with_status_1_and_a_reason() {
    for (protocol, dst, reason) in [
        ("tcp", "198.18.99.1:80", "none has the VIP 198.18.99.1"),
        ("udp", "198.18.10.1:80", "tcp 198.18.10.1 port 80 (and 2 more) has another protocol"),
        ("udp", "198.18.10.53:80", "udp 198.18.10.53 port 53 does not have port 80"),
    ] {
        let (status, said, _) = flow(protocol, "198.18.1.7:40000", dst);
        assert_eq!(said, format!("{protocol} 198.18.1.7:40000 > {dst}: of no service: {reason}\n"));
        assert_eq!(status, 1);
    }
    let arguments = ["--proto", "tcp", "--src", "198.18.1.7:40000", "--dst", "198.18.99.1:80", "--json"];
    let (status, said, _) = which(&example(), &arguments);
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((status, &answer["service"]), (1, &Value::Null));
    assert_eq!(answer["reason"], "none has the VIP 198.18.99.1");
}

#[test]
fn services_that_are_not_in_the_pipeline_get_nothing() {
    let service = "[[service]]\nname = \"web\"\nvip = \"198.18.10.1\"\nprotocol = \"tcp\"\nport = 80\nforward = \"dsr\"\n\
                   [[service.backend]]\naddress = \"198.18.0.11\"\n";
    let bounce = "[dataplane]\nsteer = \"all\"\n[bounce]\n";
    let ask = |text: &str, arguments: &[&str]| which(ConfigFile::new(text).path(), arguments);
    let flow = ["--proto", "tcp", "--src", "198.18.1.7:40000", "--dst", "198.18.10.1:80"];
    let unused = format!("{service}{bounce}[pipeline]\nstages = [\"bounce\"]\n");
    for (config, reason) in
        [(bounce, "the config has none"), (&unused, "`stages` of `[pipeline]` does not name `balance`")]
    {
        let (status, said, _) = ask(config, &flow);
        assert_eq!(said, format!("tcp 198.18.1.7:40000 > 198.18.10.1:80: of no service: {reason}\n"));
        assert_eq!(status, 1);
    }
    let (status, _, said) = ask(bounce, &["--shares"]);
    assert_eq!((status, said.as_str()), (2, "error: the config has no service\n"));
}

#[test]
fn wrong_questions_end_with_status_2() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "the following required arguments were not provided:\n  --proto <tcp|udp>"),
        (
            &["--proto", "tcp", "--src", "198.18.1.7:1"],
            "required arguments were not provided:\n  --dst <ADDRESS:PORT>",
        ),
        (&["--proto", "icmp", "--src", "198.18.1.7:1", "--dst", "198.18.10.1:80"], "must be `tcp` or `udp`"),
        (
            &["--proto", "tcp", "--src", "198.18.1.7", "--dst", "198.18.10.1:80"],
            "must be an address and a port, such as `198.18.1.7:40000`",
        ),
        (
            &["--proto", "tcp", "--src", "[2001:db8::7]:1", "--dst", "198.18.10.1:80"],
            "`--src [2001:db8::7]:1` and `--dst 198.18.10.1:80` are of different IP versions: no packet has both",
        ),
        (&["--shares", "--proto", "tcp"], "'--shares' cannot be used with '--proto <tcp|udp>'"),
        (
            &["--service", "web", "--proto", "tcp", "--src", "198.18.1.7:1", "--dst", "198.18.10.1:80"],
            "the argument '--service <NAME>' cannot be used with",
        ),
        (
            &["--shares", "--service", "wbe"],
            "error: no service has the name `wbe`; there are web, media, dns, shop, everything-else\n",
        ),
    ];
    for (arguments, says) in cases {
        let (status, stdout, said) = which(&example(), arguments);
        assert_eq!((status, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(said.starts_with("error: ") && said.contains(says), "{arguments:?}: {said}");
    }
    let (status, _, said) = which(Path::new("no/such.toml"), &["--shares"]);
    assert_eq!(
        (status, said.as_str()),
        (2, "error: cannot read no/such.toml: No such file or directory (os error 2)\n")
    );
}

#[test]
fn shares_of_the_table_follow_the_weights() {
    let answer = json(&["--shares"]);
    let services = answer["services"].as_array().unwrap();
    assert_eq!(services.len(), 5);
    for service in services {
        let backends = service["backends"].as_array().unwrap();
        let slots: u64 = backends.iter().map(|backend| backend["slots"].as_u64().unwrap()).sum();
        assert_eq!(slots, service["table_size"].as_u64().unwrap());
        for backend in backends {
            let percent = |key: &str| backend[key].as_f64().unwrap();
            assert!((percent("table_percent") - percent("weight_percent")).abs() < 0.01, "{backend}");
        }
    }
    assert_eq!(services[0]["backends"][1]["slots"], 0, "the backend is drained");
}

#[test]
fn shares_of_one_service_as_a_table() {
    let (status, said, _) = which(&example(), &["--shares", "--service", "web"]);
    assert_eq!(status, 0);
    let rows: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    let row = |text: &'static str| text.split(' ').collect::<Vec<_>>();
    assert_eq!(rows[1], row("service backend state weight slots of the table of the weights"));
    assert_eq!(rows[3], row("web 198.18.0.11 up 2 43,692 66.7 % 66.7 %"));
    assert_eq!(rows[5], row("web 198.18.0.12 drain 1 0 0.0 % 0.0 %"));
    assert_eq!(rows[7], row("web 198.18.0.13 up 1 21,845 33.3 % 33.3 %"));
    assert_eq!(rows.len(), 9, "{said}");
}
