//! What is said about each thing that can be wrong, word for word.

use crate::port::xsk::Mode;
use crate::stages::bounce::Layer;
use crate::worker::Idle;
use std::path::Path;

use proptest::prelude::*;

use super::*;

const WEB: &str = r#"[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
"#;

/// The text of the error, or of the warnings of a valid config.
fn report(text: &str) -> String {
    match parse("lb.toml", text) {
        Ok(plan) => join(&plan.warnings),
        Err(error) => error.to_string(),
    }
}

macro_rules! reports {
    ($($name:ident: $text:expr, $expected:expr;)*) => {$(
        #[test]
        fn $name() {
            let found = report(&$text);
            assert!(found == $expected.trim_start(), "found\n{found}\n");
        }
    )*};
}

reports! {
    syntax_error: r#"[dataplane]
mode = fast
[bounce
"#, r#"
error: invalid boolean, expected `false`
 --> lb.toml:2:8
  |
2 | mode = fast
  |        ^^^^

error: unclosed table, expected `]`
 --> lb.toml:3:8
  |
3 | [bounce
  |        ^"#;

    wrong_types: r#"[dataplane]
mode = 1
busy_poll = "no"
ring_size = "big"
[pipeline]
stages = "bounce"
[bounce]
layer = ["l2"]
"#, r#"
error: `mode` must be a string
 --> lb.toml:2:8
  |
2 | mode = 1
  |        ^ this is an integer

error: `busy_poll` must be `true` or `false`
 --> lb.toml:3:13
  |
3 | busy_poll = "no"
  |             ^^^^ this is a string

error: `ring_size` must be an integer
 --> lb.toml:4:13
  |
4 | ring_size = "big"
  |             ^^^^^ this is a string

error: `stages` must be an array of strings
 --> lb.toml:6:10
  |
6 | stages = "bounce"
  |          ^^^^^^^^ this is a string

error: `layer` must be a string
 --> lb.toml:8:9
  |
8 | layer = ["l2"]
  |         ^^^^^^ this is an array"#;

    service_that_is_no_array: r#"[service]
name = "web"
"#, r#"
error: `service` must be an array of tables
 --> lb.toml:1:1
  |
1 | [service]
  | ^^^^^^^^^ this is a table
  |
  = help: write `[[service]]`"#;

    section_that_is_no_table: r#"dataplane = "fast"
[[bounce]]
"#, r#"
error: `dataplane` must be a table
 --> lb.toml:1:13
  |
1 | dataplane = "fast"
  |             ^^^^^^ this is a string
  |
  = help: write `[dataplane]`

error: `bounce` must be one table
 --> lb.toml:2:1
  |
2 | [[bounce]]
  | ^^^^^^^^^^ this is an array
  |
  = help: write `[bounce]`"#;

    unknown_key_near_a_known_one: format!("{WEB}{}", r#"wieght = 2
"#), r#"
error: unknown key `wieght` in `[[service.backend]]`
 --> lb.toml:9:1
  |
9 | wieght = 2
  | ^^^^^^ did you mean `weight`?"#;

    unknown_key_near_none: format!("{WEB}{}", r#"colour = 2
"#), r#"
error: unknown key `colour` in `[[service.backend]]`
 --> lb.toml:9:1
  |
9 | colour = 2
  | ^^^^^^
  |
  = help: known keys: `address`, `weight`, `port`, `state`"#;

    misspelt_required_key_is_reported_once: r#"[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
adress = "198.18.0.11"
"#, r#"
error: unknown key `adress` in `[[service.backend]]`
 --> lb.toml:8:1
  |
8 | adress = "198.18.0.11"
  | ^^^^^^ did you mean `address`?"#;

    misspelt_section: r#"[[servise]]
name = "web"
"#, r#"
error: unknown section `servise`
 --> lb.toml:1:3
  |
1 | [[servise]]
  |   ^^^^^^^ did you mean `service`?"#;

    unknown_section: format!("{WEB}{}", r#"[logging]
level = 1
"#), r#"
error: unknown section `logging`
 --> lb.toml:9:2
  |
9 | [logging]
  |  ^^^^^^^
  |
  = help: known sections: `dataplane`, `deny`, `filter`, `service`, `balance`, `nat`, `bounce`, `pipeline`"#;

    unknown_enum_values: r#"[dataplane]
mode = "zerocopy"
idle = "sleep"
[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "sctp"
port = 80
forward = "dst"
[[service.backend]]
address = "198.18.0.11"
"#, r#"
error: unknown value `zerocopy` for `mode`
 --> lb.toml:2:8
  |
2 | mode = "zerocopy"
  |        ^^^^^^^^^^ did you mean `zero-copy`?

error: unknown value `sleep` for `idle`
 --> lb.toml:3:8
  |
3 | idle = "sleep"
  |        ^^^^^^^ known: `adaptive`, `busy`, `poll`

error: unknown value `sctp` for `protocol`
 --> lb.toml:7:12
  |
7 | protocol = "sctp"
  |            ^^^^^^ known: `tcp`, `udp`

error: unknown value `dst` for `forward`
 --> lb.toml:9:11
  |
9 | forward = "dst"
  |           ^^^^^ did you mean `dsr`?"#;

    bad_addresses: r#"[[service]]
name = "web"
vip = "198.18.10.1/24"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11:80"
[[service.backend]]
address = "backend-2"
[[service.backend]]
address = "::ffff:198.18.0.12"
"#, r#"
error: `vip` has bits set behind its prefix
 --> lb.toml:3:7
  |
3 | vip = "198.18.10.1/24"
  |       ^^^^^^^^^^^^^^^^ did you mean `198.18.10.0/24`, or `198.18.10.1` alone?

error: `address` is not an IP address
 --> lb.toml:8:11
  |
8 | address = "198.18.0.11:80"
  |           ^^^^^^^^^^^^^^^^ without port: `198.18.0.11`

error: `address` is not an IP address
  --> lb.toml:10:11
   |
10 | address = "backend-2"
   |           ^^^^^^^^^^^ expected one such as `198.18.10.1` or `2001:db8::1`

error: `address` is an IPv4-mapped IPv6 address
  --> lb.toml:12:11
   |
12 | address = "::ffff:198.18.0.12"
   |           ^^^^^^^^^^^^^^^^^^^^ write `198.18.0.12`"#;

    port_zero: r#"[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 0
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
"#, r#"
error: `port` is out of range
 --> lb.toml:5:8
  |
5 | port = 0
  |        ^ must be 1 to 65535"#;

    port_too_large: r#"[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 70_000
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
"#, r#"
error: `port` is out of range
 --> lb.toml:5:8
  |
5 | port = 70_000
  |        ^^^^^^ must be 1 to 65535"#;

    port_negative: r#"[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = -1
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
"#, r#"
error: `port` is out of range
 --> lb.toml:5:8
  |
5 | port = -1
  |        ^^ must be 1 to 65535"#;

    duplicate_name: format!("{WEB}{}", r#"[[service]]
name = "web"
vip = "198.18.10.2"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
"#), r#"
error: two services have the name `web`
  --> lb.toml:10:8
   |
10 | name = "web"
   |        ^^^^^ the first is in line 2"#;

    duplicate_endpoint: format!("{WEB}{}", r#"[[service]]
name = "shop"
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
"#), r#"
error: services `web` and `shop` both take tcp 198.18.10.1 port 80
  --> lb.toml:11:7
   |
11 | vip = "198.18.10.1"
   |       ^^^^^^^^^^^^^ the first is in line 3"#;

    same_vip_and_port_for_both_protocols_is_fine: format!("{WEB}{}", r#"[[service]]
name = "quic"
vip = "198.18.10.1"
protocol = "udp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
"#), r#"
"#;

    empty_backend_list: r#"[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "dsr"
backend = []
"#, r#"
error: service `web` has no backend
 --> lb.toml:7:11
  |
7 | backend = []
  |           ^^
  |
  = help: add `[[service.backend]]` with an `address` for each server"#;

    missing_backend: r#"[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "dsr"
"#, r#"
error: service `web` has no backend
 --> lb.toml:1:1
  |
1 | [[service]]
  | ^^^^^^^^^^^
  |
  = help: add `[[service.backend]]` with an `address` for each server"#;

    missing_keys: r#"[[service]]
[[service.backend]]
weight = 3
"#, r#"
error: `[[service]]` lacks the key `name`
 --> lb.toml:1:1
  |
1 | [[service]]
  | ^^^^^^^^^^^ add for example `name = "web"`

error: `[[service]]` lacks the key `vip`
 --> lb.toml:1:1
  |
1 | [[service]]
  | ^^^^^^^^^^^ add for example `vip = "198.18.10.1"`

error: `[[service]]` lacks the key `protocol`
 --> lb.toml:1:1
  |
1 | [[service]]
  | ^^^^^^^^^^^ add for example `protocol = "tcp"`

error: `[[service]]` lacks the key `port`
 --> lb.toml:1:1
  |
1 | [[service]]
  | ^^^^^^^^^^^ add for example `port = 80`

error: `[[service]]` lacks the key `forward`
 --> lb.toml:1:1
  |
1 | [[service]]
  | ^^^^^^^^^^^ add for example `forward = "dsr"`

error: `[[service.backend]]` lacks the key `address`
 --> lb.toml:2:1
  |
2 | [[service.backend]]
  | ^^^^^^^^^^^^^^^^^^^ add for example `address = "198.18.0.11"`"#;

    weight_zero: format!("{WEB}{}", r#"weight = 0
"#), r#"
error: no backend of service `web` gets flows
 --> lb.toml:3:7
  |
3 | vip = "198.18.10.1"
  |       ^^^^^^^^^^^^^ each has `weight = 0`, or its `state` is `drain` or `down`
  |
  = help: leave the service out, or give one backend a weight"#;

    weight_too_large: format!("{WEB}{}", r#"weight = 65536
"#), r#"
error: `weight` is out of range
 --> lb.toml:9:10
  |
9 | weight = 65536
  |          ^^^^^ must be 0 to 65535"#;

    backend_twice: format!("{WEB}{}", r#"[[service.backend]]
address = "198.18.0.11"
"#), r#"
error: service `web` has the backend 198.18.0.11 twice
  --> lb.toml:10:11
   |
10 | address = "198.18.0.11"
   |           ^^^^^^^^^^^^^ the first is in line 8
   |
   = help: to send it more, raise its `weight`"#;

    mixed_families: r#"[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "2001:db8::11"
"#, r#"
error: backend 2001:db8::11 of the IPv4 service `web` is an IPv6 address
 --> lb.toml:8:11
  |
8 | address = "2001:db8::11"
  |           ^^^^^^^^^^^^^^ `forward = "dsr"` needs an IPv4 address
  |
  = help: `forward = "ipip"` and `"gue"` carry either family to either"#;

    vip_that_is_no_unicast_address: r#"[[service]]
name = "s0"
vip = "224.0.0.1"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
[[service]]
name = "s1"
vip = "0.0.0.0"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
[[service]]
name = "s2"
vip = "127.0.0.1"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
[[service]]
name = "s3"
vip = "255.255.255.255"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
"#, r#"
error: `vip` is a multicast address
 --> lb.toml:3:7
  |
3 | vip = "224.0.0.1"
  |       ^^^^^^^^^^^ expected a unicast address

error: `vip` is the unspecified address
  --> lb.toml:11:7
   |
11 | vip = "0.0.0.0"
   |       ^^^^^^^^^ expected a unicast address

error: `vip` is a loopback address
  --> lb.toml:19:7
   |
19 | vip = "127.0.0.1"
   |       ^^^^^^^^^^^ expected a unicast address

error: `vip` is the broadcast address
  --> lb.toml:27:7
   |
27 | vip = "255.255.255.255"
   |       ^^^^^^^^^^^^^^^^^ expected a unicast address"#;

    vip_as_backend: r#"[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.10.1"
"#, r#"
error: backend 198.18.10.1 of service `web` is also a VIP
 --> lb.toml:8:11
  |
8 | address = "198.18.10.1"
  |           ^^^^^^^^^^^^^ service `web` has 198.18.10.1
  |
  = help: give the server's own address: packets for a VIP come back to the balancer"#;

    empty_name: r#"[[service]]
name = " "
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
"#, r#"
error: `name` is empty
 --> lb.toml:2:8
  |
2 | name = " "
  |        ^^^ metrics and messages call the service by it"#;

    empty_file: r#""#, r#"
error: there is nothing to do
--> lb.toml
 = help: add `[[service]]` to balance load, `[[filter]]` or `[deny]` to drop packets, or `[bounce]` to send them back where they came from"#;

    nothing_but_dataplane: r#"[dataplane]
mode = "copy"
"#, r#"
error: there is nothing to do
--> lb.toml
 = help: add `[[service]]` to balance load, `[[filter]]` or `[deny]` to drop packets, or `[bounce]` to send them back where they came from"#;

    stage_without_section: r#"[pipeline]
stages = ["balance", "bounce"]
[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
"#, r#"
error: the stage `bounce` has no section
 --> lb.toml:2:22
  |
2 | stages = ["balance", "bounce"]
  |                      ^^^^^^^^ add `[bounce]`, or remove this"#;

    section_without_stage: format!("{WEB}{}", r#"[bounce]
[pipeline]
stages = ["balance"]
"#), r#"
warning: `[bounce]` is not used
 --> lb.toml:9:1
  |
9 | [bounce]
  | ^^^^^^^^ `stages` of `[pipeline]` does not name `bounce`"#;

    unknown_stage: format!("{WEB}{}", r#"[pipeline]
stages = ["balanse", "mirror"]
"#), r#"
error: unknown value `balanse` for `stages`
  --> lb.toml:10:11
   |
10 | stages = ["balanse", "mirror"]
   |           ^^^^^^^^^ did you mean `balance`?

error: unknown value `mirror` for `stages`
  --> lb.toml:10:22
   |
10 | stages = ["balanse", "mirror"]
   |                      ^^^^^^^^ known: `filter`, `balance`, `bounce`"#;

    stage_twice: format!("{WEB}{}", r#"[pipeline]
stages = ["balance", "balance"]
"#), r#"
error: the stage `balance` stands twice in `stages`
  --> lb.toml:10:22
   |
10 | stages = ["balance", "balance"]
   |                      ^^^^^^^^^ remove this"#;

    empty_stages: format!("{WEB}{}", r#"[pipeline]
stages = []
"#), r#"
error: `stages` is empty
  --> lb.toml:10:10
   |
10 | stages = []
   |          ^^
   |
   = help: without `stages`, all sections of the file are used"#;

    bounce_that_nothing_reaches: r#"[bounce]
"#, r#"
warning: no packet reaches `bounce`
 --> lb.toml:1:1
  |
1 | [bounce]
  | ^^^^^^^^ all packets are left to the host
  |
  = help: set `steer = "all"` in `[dataplane]`, or add `[[service]]`"#;

    deny_list_behind_which_nothing_stands: r#"[deny]
file = "examples/deny.txt"
[dataplane]
steer = "all"
"#, r#"
warning: nothing takes the packets that leave the kernel
 --> lb.toml:1:1
  |
1 | [deny]
  | ^^^^^^ with `steer = "all"` all that is not for this host is dropped
  |
  = help: without `steer`, the deny list protects the host; or add `[[filter]]`, `[[service]]` or `[bounce]`"#;

    balance_behind_bounce: format!("{WEB}{}", r#"[bounce]
[pipeline]
stages = ["bounce", "balance"]
"#), r#"
warning: no packet reaches `balance`
  --> lb.toml:11:21
   |
11 | stages = ["bounce", "balance"]
   |                     ^^^^^^^^^ `bounce` stands before it and sends every packet back"#;

    ring_sizes: r#"[dataplane]
ring_size = 3000
frames_per_queue = 100
[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
"#, r#"
error: `ring_size` must be a power of two
 --> lb.toml:2:13
  |
2 | ring_size = 3000
  |             ^^^^ such as 2048 or 4096

error: `frames_per_queue` is out of range
 --> lb.toml:3:20
  |
3 | frames_per_queue = 100
  |                    ^^^ must be 1024 to 1048576"#;

    frames_too_few_for_the_ring: r#"[dataplane]
ring_size = 4096
[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
"#, r#"
error: 8192 frames are too few for a ring of 4096
 --> lb.toml:2:13
  |
2 | ring_size = 4096
  |             ^^^^ `frames_per_queue` must be at least 16384
  |
  = help: the fill ring holds twice `ring_size`, the tx ring once, and some are in work; the defaults are 8192 and 2048"#;

    frames_too_few_as_written: r#"[dataplane]
frames_per_queue = 1024
ring_size = 512
[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
"#, r#"
error: 1024 frames are too few for a ring of 512
 --> lb.toml:2:20
  |
2 | frames_per_queue = 1024
  |                    ^^^^ `frames_per_queue` must be at least 2048
  |
  = help: the fill ring holds twice `ring_size`, the tx ring once, and some are in work; the defaults are 8192 and 2048"#;

    columns_count_characters: r#"[dataplane]
mode = "auto" # größer
"größe" = 1
[bounce]
layer = "ä\u00e4"
"#, r#"
error: unknown key `größe` in `[dataplane]`
 --> lb.toml:3:1
  |
3 | "größe" = 1
  | ^^^^^^^
  |
  = help: known keys: `mode`, `idle`, `steer`, `busy_poll`, `frames_per_queue`, `ring_size`, `huge_pages`

error: unknown value `ää` for `layer`
 --> lb.toml:5:9
  |
5 | layer = "ä\u00e4"
  |         ^^^^^^^^^ known: `l2`, `l3`, `l4`"#;
}

#[test]
fn everything_wrong_is_reported_in_the_order_of_the_file() {
    let text = format!("{WEB}wieght = 2\n[bounce]\nlayer = \"l5\"\n[dataplane]\nmode = \"fast\"\n");
    let error = parse("lb.toml", &text).unwrap_err();
    let places: Vec<_> = error.diagnostics().iter().map(|d| (d.line, d.column, d.length)).collect();
    assert_eq!(places, [(9, 1, 6), (11, 9, 4), (13, 8, 6)]);
}

#[test]
fn unreadable_file() {
    let error = load(Path::new("no/such/lb.toml")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read no/such/lb.toml: No such file or directory (os error 2)");
    assert!(error.diagnostics().is_empty());
}

#[test]
fn colours_mark_the_same_text() {
    let error = parse("lb.toml", "[bounce]\nlayer = \"l5\"").unwrap_err();
    let colored = error.diagnostics()[0].to_colored_string();
    assert!(colored.contains("\x1b[") && colored.contains("lb.toml:2:9"), "{colored}");
}

#[test]
fn defaults() {
    let plan = parse("lb.toml", WEB).unwrap();
    assert_eq!(plan.dataplane, Dataplane::default());
    assert_eq!(plan.stages, [StageKind::Balance]);
    assert_eq!(plan.bounce, None);
    let [service] = &plan.services[..] else { panic!("{plan:?}") };
    assert_eq!(
        (service.protocol.number(), service.single_port(), service.forward),
        (6, Some(80), Forward::Dsr)
    );
    let address = "198.18.0.11".parse().unwrap();
    assert_eq!(service.backends, [Backend { address, weight: 1, port: None, state: BackendState::Up }]);
    assert_eq!((service.affinity, service.no_backend), (Affinity::FiveTuple, NoBackend::Drop));
    assert_eq!((service.table_size, service.gue_port), (65_537, 6080));
    assert_eq!((service.slow_start, service.mss, &service.health), (None, None, &None));
    assert_eq!((plan.balance, plan.nat), (BalanceSettings::default(), None));
}

#[test]
fn every_key() {
    let text = format!(
        "{WEB}weight = 65_535
        [dataplane]
        mode = 'zero-copy'
        idle = 'busy'
        steer = 'all'
        busy_poll = true
        frames_per_queue = 0x10000
        ring_size = 16384
        huge_pages = false
        [bounce]
        layer = 'l4'
        [pipeline]
        stages = ['balance', 'bounce']"
    );
    let plan = parse("lb.toml", &text).unwrap();
    assert_eq!(plan.warnings, []);
    let expected = Dataplane {
        mode: Mode::ZeroCopy,
        idle: Idle::Busy,
        steer: Steer::All,
        busy_poll: true,
        frames_per_queue: 65_536,
        ring_size: 16_384,
        huge_pages: false,
    };
    assert_eq!(plan.dataplane, expected);
    assert_eq!(plan.bounce, Some(Bounce { layer: Layer::L4 }));
    assert_eq!(plan.stages, [StageKind::Balance, StageKind::Bounce]);
    assert_eq!(plan.services[0].backends[0].weight, 65_535);
}

#[test]
fn names_are_those_of_the_file() {
    let plan = parse("lb.toml", WEB).unwrap();
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["dataplane"]["mode"], "auto");
    assert_eq!(json["services"][0]["protocol"], "tcp");
    assert_eq!(json["stages"][0], StageKind::Balance.to_string());
}

#[test]
fn steering_follows_from_services_and_stages() {
    let web = "198.18.10.1".parse().unwrap();
    let steering = |text: &str| parse("lb.toml", text).unwrap().steering();
    let only_web =
        SteeringPlan { all: false, everything: false, services: vec![(web, Protocol::Tcp, 80..=80)] };
    assert_eq!(steering(WEB), only_web);
    let all = SteeringPlan { all: true, everything: false, services: Vec::new() };
    assert_eq!(steering("[dataplane]\nsteer = 'all'\n[bounce]"), all);
    assert_eq!(
        steering(&format!("{WEB}[dataplane]\nsteer = 'all'\n[bounce]\n[pipeline]\nstages = ['bounce']")),
        all
    );
    let everything = SteeringPlan { all: false, everything: true, services: Vec::new() };
    assert_eq!(steering("[dataplane]\nsteer = 'everything'\n[bounce]"), everything);
}

#[test]
fn shipped_examples_are_valid_and_without_warnings() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for (file, stages) in [
        ("lb.toml", [StageKind::Balance]),
        ("balance.toml", [StageKind::Balance]),
        ("bounce.toml", [StageKind::Bounce]),
    ] {
        let plan = load(&examples.join(file)).unwrap();
        assert_eq!((&plan.stages[..], &plan.warnings[..]), (&stages[..], &[][..]), "{file}");
        assert_eq!(
            plan.dataplane,
            Dataplane { steer: plan.dataplane.steer, ..Dataplane::default() },
            "{file}"
        );
    }
}

proptest! {
    #[test]
    fn broken_files_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), "\\PC|\n|\""), 1..8),
        all: bool,
    ) {
        let example = [include_str!("../../examples/lb.toml"), include_str!("../../examples/balance.toml")][usize::from(all)].replace('\n', "\r\n");
        let mut text: Vec<char> = example.chars().collect();
        for (at, insert) in edits {
            let at = at.index(text.len());
            text.splice(at..(at + 2).min(text.len()), insert.chars());
        }
        report(&text.into_iter().collect::<String>());
    }

    #[test]
    fn arbitrary_text_never_panics(text in "(\\[|\\]|=|\"|[a-z]|\n|\\PC){0,60}") {
        report(&text);
    }
}

#[test]
fn a_deny_list_alone_is_a_config() {
    let plan = parse("lb.toml", "[deny]\nfile = \"examples/deny.txt\"\n").unwrap();
    assert_eq!(plan.deny_file.as_deref(), Some(Path::new("examples/deny.txt")));
    assert!(plan.stages.is_empty() && plan.warnings.is_empty(), "{plan:?}");
    let steering = plan.steering();
    assert!(!steering.all && steering.services.is_empty(), "nothing leaves the kernel");
}

#[test]
fn filter_that_does_not_fit_the_maps() {
    // Six hosts in each /16, spread so that few share a line of the map.
    let hosts = (0..=0xffff_u32).flat_map(|upper| (0..6).map(move |host| upper << 16 | host << 13 | 1));
    let text: String = hosts.map(|bits| format!("{}\n", std::net::Ipv4Addr::from_bits(bits))).collect();
    let path = std::env::temp_dir().join(format!("xfwd-config-{}-hosts.txt", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let found = report(&format!(
        "[[filter]]\nname = \"small\"\ndst_port = 23\naction = \"drop\"\n\
         [[filter]]\nname = \"sources\"\nsrc_set = {path:?}\naction = \"drop\"\n\
         [[filter]]\nname = \"destinations\"\ndst_set = {path:?}\naction = \"drop\"\n"
    ));
    std::fs::remove_file(&path).unwrap();
    for expected in [
        "error: the filter is too large\n --> lb.toml:9:1\n",
        "the rule `destinations` is the largest",
        "lines of the XDP program's map, which holds 2097152",
    ] {
        assert!(found.contains(expected), "found\n{found}\n");
    }
}

#[test]
fn deny_list_that_does_not_fit_the_maps() {
    let path = std::env::temp_dir().join(format!("xfwd-config-{}-deny.txt", std::process::id()));
    let prefixes: String =
        (0..65_537_u32).map(|index| format!("{}/31\n", std::net::Ipv4Addr::from_bits(index << 1))).collect();
    // Twice the same is once.
    let fits = prefixes.lines().take(65_536).chain(["0.0.0.0/31"]).collect::<Vec<_>>().join("\n");
    let config = format!("[deny]\nfile = {path:?}\n");
    std::fs::write(&path, fits).unwrap();
    let nothing = report(&config);
    std::fs::write(&path, prefixes).unwrap();
    let found = report(&config).replace(&path.display().to_string(), "deny.txt");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(nothing, "");
    assert!(found.starts_with("error: the deny list deny.txt is too large\n --> lb.toml:2:8\n"), "{found}");
    assert!(found.contains("65537 IPv4 prefixes; at most 65536"), "{found}");
}
