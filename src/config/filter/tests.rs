//! What is said about each thing that can be wrong with a rule, word for word.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::{Plan, parse};
use crate::stages::filter::{Action, FragmentKind, Per, Rate, RateLimit, TcpFlags};

/// Makes a config of which nothing else is to be said.
const REST: &str = "[bounce]\n[dataplane]\nsteer = \"all\"\n";

fn plan(rules: &str) -> Plan {
    parse("lb.toml", &format!("{rules}{REST}")).unwrap()
}

/// The text of the error, or of the warnings of a valid config.
fn report(rules: &str) -> String {
    report_of("lb.toml", &format!("{rules}{REST}"))
}

fn report_of(name: &str, text: &str) -> String {
    match parse(name, text) {
        Ok(plan) => plan.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"),
        Err(error) => error.to_string(),
    }
}

macro_rules! reports {
    ($($name:ident: $text:expr, $expected:expr;)*) => {$(
        #[test]
        fn $name() {
            let found = report($text);
            assert!(found == $expected.trim(), "found\n{found}\n");
        }
    )*};
}

reports! {
    prefixes: r#"[[filter]]
name = "a"
action = "drop"
src = ["10.1.2.3/8", "10.0.0.0/33", 7, "local", "::ffff:10.0.0.0/104"]
"#, r#"
error: `src` has bits set behind its prefix
 --> lb.toml:4:8
  |
4 | src = ["10.1.2.3/8", "10.0.0.0/33", 7, "local", "::ffff:10.0.0.0/104"]
  |        ^^^^^^^^^^^^ did you mean `10.0.0.0/8`?

error: the prefix length of `src` is out of range
 --> lb.toml:4:22
  |
4 | src = ["10.1.2.3/8", "10.0.0.0/33", 7, "local", "::ffff:10.0.0.0/104"]
  |                      ^^^^^^^^^^^^^ must be 0 to 32

error: `src` must be a string, or an array of strings
 --> lb.toml:4:37
  |
4 | src = ["10.1.2.3/8", "10.0.0.0/33", 7, "local", "::ffff:10.0.0.0/104"]
  |                                     ^ this is an integer

error: `src` is not an address or prefix
 --> lb.toml:4:40
  |
4 | src = ["10.1.2.3/8", "10.0.0.0/33", 7, "local", "::ffff:10.0.0.0/104"]
  |                                        ^^^^^^^ expected one such as `198.18.0.0/15` or `2001:db8::/32`

error: `src` is an IPv4-mapped IPv6 prefix
 --> lb.toml:4:49
  |
4 | src = ["10.1.2.3/8", "10.0.0.0/33", 7, "local", "::ffff:10.0.0.0/104"]
  |                                                 ^^^^^^^^^^^^^^^^^^^^^ write `10.0.0.0/8`
"#;

    numbers: r#"[[filter]]
name = "a"
action = "drop"
src = []
dst_port = [70000, "20-10", "1-70000", "http", 1.5]
vlan = [0, "non"]
length = 10
"#, r#"
error: `src` is an empty list
 --> lb.toml:4:7
  |
4 | src = []
  |       ^^ which matches nothing: leave the key out, or name a value

error: `dst_port` is out of range
 --> lb.toml:5:13
  |
5 | dst_port = [70000, "20-10", "1-70000", "http", 1.5]
  |             ^^^^^ must be 0 to 65535

error: `dst_port` is a reversed range
 --> lb.toml:5:20
  |
5 | dst_port = [70000, "20-10", "1-70000", "http", 1.5]
  |                    ^^^^^^^ write `"10-20"`

error: `dst_port` is out of range
 --> lb.toml:5:29
  |
5 | dst_port = [70000, "20-10", "1-70000", "http", 1.5]
  |                             ^^^^^^^^^ must be 0 to 65535

error: `dst_port` is not a number or range
 --> lb.toml:5:40
  |
5 | dst_port = [70000, "20-10", "1-70000", "http", 1.5]
  |                                        ^^^^^^ expected one such as `65535` or `"0-65535"`

error: `dst_port` must be a number, a range such as "1-9", or a list of them
 --> lb.toml:5:48
  |
5 | dst_port = [70000, "20-10", "1-70000", "http", 1.5]
  |                                                ^^^ this is a float

error: `vlan` is out of range
 --> lb.toml:6:9
  |
6 | vlan = [0, "non"]
  |         ^ must be 1 to 4094

error: `vlan` is not a number or range
 --> lb.toml:6:12
  |
6 | vlan = [0, "non"]
  |            ^^^^^ expected one such as `4094` or `"1-4094"`, or `"none"`

error: `length` is out of range
 --> lb.toml:7:10
  |
7 | length = 10
  |          ^^ must be 20 to 65575
"#;

    words: r#"[[filter]]
name = "a"
action = "deny"
protocol = ["tpc", 300, "quic"]
tcp_flags = { set = ["syn", "sin"], clear = "syn" }
fragment = "last"
not = {}
"#, r#"
error: unknown value `deny` for `action`
 --> lb.toml:3:10
  |
3 | action = "deny"
  |          ^^^^^^ known: `drop`, `accept`, `continue`, `bounce`, `count`

error: unknown value `tpc` for `protocol`
 --> lb.toml:4:13
  |
4 | protocol = ["tpc", 300, "quic"]
  |             ^^^^^ did you mean `tcp`?

error: `protocol` is out of range
 --> lb.toml:4:20
  |
4 | protocol = ["tpc", 300, "quic"]
  |                    ^^^ must be 0 to 255

error: unknown value `quic` for `protocol`
 --> lb.toml:4:25
  |
4 | protocol = ["tpc", 300, "quic"]
  |                         ^^^^^^ write its number
  |
  = help: known names: `icmp`, `igmp`, `ipip`, `tcp`, `udp`, `ipv6`, `gre`, `esp`, `ah`, `icmpv6`, `ospf`, `vrrp`, `sctp`

error: a flag stands in both `set` and `clear`
 --> lb.toml:5:13
  |
5 | tcp_flags = { set = ["syn", "sin"], clear = "syn" }
  |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ no packet can meet that

error: unknown value `sin` for `set`
 --> lb.toml:5:29
  |
5 | tcp_flags = { set = ["syn", "sin"], clear = "syn" }
  |                             ^^^^^ did you mean `fin`?

error: unknown value `last` for `fragment`
 --> lb.toml:6:12
  |
6 | fragment = "last"
  |            ^^^^^^ known: `no`, `any`, `first`, `later`

error: `not` is empty
 --> lb.toml:7:7
  |
7 | not = {}
  |       ^^ every packet meets no condition, so the rule would match none
"#;

    names: r#"[[filter]]
action = "drop"
srcport = 7
[[filter]]
name = "a"
[[filter]]
name = "a"
action = "drop"
"#, r#"
error: `[[filter]]` lacks the key `name`
 --> lb.toml:1:1
  |
1 | [[filter]]
  | ^^^^^^^^^^ add for example `name = "bogons"`

error: unknown key `srcport` in `[[filter]]`
 --> lb.toml:3:1
  |
3 | srcport = 7
  | ^^^^^^^ did you mean `src_port`?

error: `[[filter]]` lacks the key `action`
 --> lb.toml:4:1
  |
4 | [[filter]]
  | ^^^^^^^^^^ add for example `action = "drop"`

error: two rules have the name `a`
 --> lb.toml:7:8
  |
7 | name = "a"
  |        ^^^ the first is in line 5
"#;

    policers: r#"[[filter]]
name = "a"
action = "drop"
rate = "10 MB/s"
per = "dst"
burst = 0
[[filter]]
name = "b"
action = "drop"
per = "src"
"#, r#"
error: `rate` is not a rate
 --> lb.toml:4:8
  |
4 | rate = "10 MB/s"
  |        ^^^^^^^^^ expected one such as `1000 pps`, `20 kpps`, `500 kbit/s` or `1.5 Gbit/s`

error: unknown value `dst` for `per`
 --> lb.toml:5:7
  |
5 | per = "dst"
  |       ^^^^^ expected `src`, `src/24` (of IPv4), `src/24/56` (of IPv4 and IPv6) or `flow`

error: `burst` is out of range
 --> lb.toml:6:9
  |
6 | burst = 0
  |         ^ must be 1 to 4294967295

error: `per` without `rate`
  --> lb.toml:10:7
   |
10 | per = "src"
   |       ^^^^^ add for example `rate = "1000 pps"`
"#;

    missing_set_file: r#"[[filter]]
name = "a"
action = "drop"
src_set = "missing.txt"
"#, r#"
error: the set file missing.txt cannot be read: No such file or directory (os error 2)
 --> lb.toml:4:11
  |
4 | src_set = "missing.txt"
  |           ^^^^^^^^^^^^^ paths are relative to the config file
"#;

    never_reached: r#"[[filter]]
name = "wide"
action = "drop"
src = "10.0.0.0/8"
[[filter]]
name = "narrow"
action = "accept"
src = "10.1.0.0/16"
protocol = "tcp"
"#, r#"
warning: the rule `narrow` is never reached
 --> lb.toml:6:8
  |
6 | name = "narrow"
  |        ^^^^^^^^ `wide` in line 2 matches all that it matches: drop
"#;

    overlap: r#"[[filter]]
name = "low"
action = "drop"
dst_port = "1-1000"
[[filter]]
name = "high"
action = "accept"
dst_port = "900-2000"
"#, r#"
warning: the rules `low` and `high` overlap
 --> lb.toml:6:8
  |
6 | name = "high"
  |        ^^^^^^ what both match, `low` in line 2 decides: drop
"#;

    no_warning_where_rules_are_meant: r#"[[filter]]
name = "friend"
action = "accept"
src = "10.1.0.0/16"
[[filter]]
name = "limit"
action = "drop"
protocol = "udp"
rate = "100 pps"
[[filter]]
name = "tap"
action = "count"
[[filter]]
name = "low"
action = "drop"
protocol = "udp"
dst_port = "1-1000"
[[filter]]
name = "wide"
action = "drop"
src = "10.0.0.0/8"
"#, r#""#;

    matches_no_packet: r#"[[filter]]
name = "pings"
action = "drop"
protocol = "icmp"
dst_port = 7
[[filter]]
name = "families"
action = "drop"
src = "10.0.0.0/8"
dst = "2001:db8::/32"
"#, r#"
warning: the rule `pings` matches no packet
 --> lb.toml:2:8
  |
2 | name = "pings"
  |        ^^^^^^^ ports are those of `tcp`, `udp` and `sctp`

warning: the rule `families` matches no packet
 --> lb.toml:7:8
  |
7 | name = "families"
  |        ^^^^^^^^^^ `src` and `dst` are of different IP versions
"#;
}

#[test]
fn every_field() {
    let plan = plan(
        r#"[[filter]]
name = "all"
src = ["10.0.0.0/8", "2001:db8::/32"]
dst = "192.0.2.1"
protocol = ["udp", 6, 0x84]
src_port = 53
dst_port = [443, "1024-2047", "2048-4095", 80]
vlan = ["none", "100-199", 7]
tcp_flags = { set = ["syn", "ece"], clear = "ack" }
icmp_type = [8, "0-3"]
icmp_code = 0
length = "20-1500"
fragment = "first"
ip_options = true
malformed = false
action = "drop"
rate = "20 kpps"
burst = 64
per = "src/24"
not = { src = "10.1.0.0/16", fragment = false }
"#,
    );
    let rule = &plan.filter[0];
    let m = &rule.matches;
    assert_eq!(m.src.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "2001:db8::/32"]);
    assert_eq!(m.dst[0].to_string(), "192.0.2.1/32");
    assert_eq!(m.protocol, [6, 17, 132]);
    assert_eq!((&m.src_port[..], &m.dst_port[..]), (&[53..=53][..], &[80..=80, 443..=443, 1024..=4095][..]));
    assert_eq!(m.vlan, [0..=0, 7..=7, 100..=199]);
    assert_eq!(m.tcp_flags, Some(TcpFlags { set: 0x42, clear: 0x10 }));
    assert_eq!((&m.icmp_type[..], &m.icmp_code[..]), (&[0..=3, 8..=8][..], &[0..=0][..]));
    assert_eq!((m.length.clone(), m.fragment), (Some(20..=1500), Some(FragmentKind::First)));
    assert_eq!((m.ip_options, m.malformed), (Some(true), Some(false)));
    let rate =
        Rate { limit: RateLimit::PacketsPerSecond(20_000), burst: 64, per: Per::Src { ipv4: 24, ipv6: 64 } };
    assert_eq!((rule.action, rule.rate), (Action::Drop, Some(rate)));
    let not = rule.not.as_ref().unwrap();
    assert_eq!((not.src[0].to_string(), not.fragment), ("10.1.0.0/16".to_owned(), Some(FragmentKind::No)));
    assert_eq!(plan.stages.iter().map(ToString::to_string).collect::<Vec<_>>(), ["filter", "bounce"]);
}

#[test]
fn a_filter_that_nothing_follows() {
    let rule = "[[filter]]\nname = \"a\"\naction = \"drop\"\n";
    // Alone it is a filter for the host: what the XDP program does not drop, the host gets.
    assert_eq!(report_of("lb.toml", rule), "");
    assert_eq!(
        report_of("lb.toml", &format!("{rule}[dataplane]\nsteer = \"all\"\n")),
        "\
warning: nothing follows `filter`
 --> lb.toml:1:1
  |
1 | [[filter]]
  | ^^^^^^^^^^ what it lets through is dropped: a packet that left the kernel cannot be given back
  |
  = help: add `[[service]]` or `[bounce]`"
    );
}

/// A directory of its own for each test, removed when it ends.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("xfwd-set-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), content).unwrap();
    }

    /// The report of a config in this directory with a rule whose `src_set` is `set.txt`; paths are relative to it.
    fn report(&self) -> String {
        let rule = "[[filter]]\nname = \"a\"\naction = \"drop\"\nsrc_set = \"set.txt\"\n";
        let config = self.0.join("lb.toml").display().to_string();
        report_of(&config, &format!("{rule}{REST}")).replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_set_file_is_read_once_beside_the_config() {
    let directory = Directory::new("shared");
    directory.write(
        "set.txt",
        "# our own\n10.0.0.0/8 ; internal\r\n\n2001:db8::/32\t# documentation\n192.0.2.1\n10.0.0.0/8",
    );
    let rules = "[[filter]]\nname = \"a\"\naction = \"drop\"\nsrc_set = \"set.txt\"\n\
                 [[filter]]\nname = \"b\"\naction = \"drop\"\ndst_set = \"set.txt\"\n";
    let config = directory.0.join("lb.toml").display().to_string();
    let plan = parse(&config, &format!("{rules}{REST}")).unwrap();
    let [a, b] = &plan.filter[..] else { panic!("two rules") };
    let (a, b) = (a.matches.src_set.as_ref().unwrap(), b.matches.dst_set.as_ref().unwrap());
    let prefixes: Vec<_> = a.prefixes().iter().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]);
    assert!(std::sync::Arc::ptr_eq(a, b));
}

#[test]
fn wrong_lines_of_a_set_file_are_shown_with_their_place() {
    let directory = Directory::new("wrong");
    directory.write("set.txt", b"10.0.0.0/8\n  10.1.2.3/8 # typo\n\xff\xfe\nexample.org\n");
    assert_eq!(
        directory.report(),
        "\
error: this has bits set behind its prefix
 --> set.txt:2:3
  |
2 |   10.1.2.3/8 # typo
  |   ^^^^^^^^^^ did you mean `10.0.0.0/8`?

error: this is not text
 --> set.txt:3:1
  |
3 | ��
  | ^^ expected a prefix, or `#` and a comment

error: this is not an address or prefix
 --> set.txt:4:1
  |
4 | example.org
  | ^^^^^^^^^^^ expected one such as `198.18.0.0/15` or `2001:db8::/32`"
    );
}

#[test]
fn a_file_of_another_format_is_not_shown_line_by_line() {
    let directory = Directory::new("format");
    directory.write("set.txt", "address,reason\n".repeat(1000));
    let report = directory.report();
    assert_eq!(report.matches("this is not an address or prefix").count(), 10);
    assert!(report.contains("error: 990 more lines are wrong\n  --> set.txt:11:1"), "{report}");
}

#[test]
fn a_set_that_is_too_large_or_empty() {
    let directory = Directory::new("large");
    let prefixes: String =
        (0..=1 << 20).map(|n: u32| format!("{}\n", std::net::Ipv4Addr::from_bits(n))).collect();
    directory.write("set.txt", prefixes);
    assert_eq!(
        directory.report(),
        "\
error: the set set.txt is too large
 --> lb.toml:4:11
  |
4 | src_set = \"set.txt\"
  |           ^^^^^^^^^ 1048577 prefixes; at most 1048576
  |
  = help: join neighbouring prefixes, or split the file and use a rule for each part"
    );
    directory.write("set.txt", "# nothing yet\n");
    assert_eq!(
        directory.report(),
        "\
warning: the set set.txt is empty
 --> lb.toml:4:11
  |
4 | src_set = \"set.txt\"
  |           ^^^^^^^^^ no address is in it, so the condition never holds"
    );
}

/// The promise is under a second; this is without optimization. The best of some tries, since the machine may do
/// other things.
#[test]
fn a_hundred_thousand_prefixes_load_in_under_a_second() {
    let directory = Directory::new("fast");
    let line = |n: u32| format!("{}/24 # list {n}\n", std::net::Ipv4Addr::from_bits(n << 8));
    directory.write("set.txt", (0..100_000).map(line).collect::<String>());
    let mut times = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        assert_eq!(directory.report(), "");
        times.push(start.elapsed());
        if start.elapsed() < Duration::from_secs(1) {
            return;
        }
    }
    panic!("{times:?}");
}

#[test]
fn the_example_is_right() {
    let plan = parse("examples/filter.toml", include_str!("../../../examples/filter.toml")).unwrap();
    assert_eq!(plan.warnings, []);
    assert_eq!((plan.filter.len(), plan.filter[2].matches.src_set.as_ref().unwrap().len()), (10, 3));
}

#[test]
fn the_deny_list_is_looked_at_before_the_start() {
    let directory = Directory::new("deny");
    let text = "[bounce]\n[deny]\nfile = \"deny.txt\"\n[dataplane]\nsteer = \"all\"\n";
    let report = || report_of(&directory.0.join("lb.toml").display().to_string(), text);
    assert!(report().contains("cannot read"));
    directory.write("deny.txt", "192.0.2.1 10m\n192.0.2.1/24\n");
    assert!(report().contains("line 2: `192.0.2.1/24`: bits are set behind the prefix"));
    directory.write("deny.txt", "192.0.2.1 10m\n");
    assert_eq!(report(), "");
}
