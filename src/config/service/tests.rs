//! What is said about each thing that can be wrong with a service, word for word.

use std::fmt::Write;
use std::time::Duration;

use super::*;
use crate::config::{BalanceSettings, Plan, parse};

/// The text of the error, or of the warnings of a valid config.
fn report(text: &str) -> String {
    match parse("lb.toml", text) {
        Ok(plan) => plan.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"),
        Err(error) => error.to_string(),
    }
}

fn plan(text: &str) -> Plan {
    parse("lb.toml", text).unwrap_or_else(|error| panic!("{error}"))
}

/// A service with these further keys, and one backend.
fn service(name: &str, vip: &str, port: &str, more: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nprotocol = \"tcp\"\nport = {port}\n{more}\n\
         [[service.backend]]\naddress = \"198.18.0.11\"\n"
    )
}

fn web(more: &str) -> String {
    service("web", "198.18.10.1", "80", more)
}

fn health(keys: &str) -> String {
    web("forward = \"dsr\"") + "[service.health]\n" + keys
}

macro_rules! reports {
    ($($name:ident: $text:expr, $expected:expr;)*) => {$(
        #[test]
        fn $name() {
            let found = report(&$text);
            assert!(found == $expected.trim(), "found\n{found}\n");
        }
    )*};
}

reports! {
    // VIP and ports.

    vip_with_bits_behind_its_prefix: service("web", "198.18.10.7/24", "80", "forward = \"dsr\""), r#"
error: `vip` has bits set behind its prefix
 --> lb.toml:3:7
  |
3 | vip = "198.18.10.7/24"
  |       ^^^^^^^^^^^^^^^^ did you mean `198.18.10.0/24`, or `198.18.10.7` alone?"#;

    vip_with_a_port: service("web", "198.18.10.7:80", "80", "forward = \"dsr\""), r#"
error: `vip` is not an address or prefix
 --> lb.toml:3:7
  |
3 | vip = "198.18.10.7:80"
  |       ^^^^^^^^^^^^^^^^ without port: `198.18.10.7`"#;

    vip_that_holds_addresses_no_host_has: service("web", "192.0.0.0/2", "80", "forward = \"dsr\""), r#"
error: `vip` holds multicast addresses
 --> lb.toml:3:7
  |
3 | vip = "192.0.0.0/2"
  |       ^^^^^^^^^^^^^ expected unicast addresses"#;

    vip_that_holds_everything: service("web", "::/0", "80", "forward = \"ipip\""), r#"
error: `vip` holds the unspecified address
 --> lb.toml:3:7
  |
3 | vip = "::/0"
  |       ^^^^^^ expected unicast addresses"#;

    ports_that_are_none: service("web", "198.18.10.1", "\"http\"", "forward = \"dsr\""), r#"
error: `port` is not a range of ports
 --> lb.toml:5:8
  |
5 | port = "http"
  |        ^^^^^^ expected one such as `8000-8100` or `all`"#;

    ports_reversed: service("web", "198.18.10.1", "\"8100-8000\"", "forward = \"dsr\""), r#"
error: `port` is a reversed range
 --> lb.toml:5:8
  |
5 | port = "8100-8000"
  |        ^^^^^^^^^^^ write `"8000-8100"`"#;

    ports_out_of_range: service("web", "198.18.10.1", "\"0-70000\"", "forward = \"dsr\""), r#"
error: `port` is out of range
 --> lb.toml:5:8
  |
5 | port = "0-70000"
  |        ^^^^^^^^^ must be 1 to 65535"#;

    ports_of_a_wrong_type: service("web", "198.18.10.1", "[80, 443]", "forward = \"dsr\""), r#"
error: `port` must be a port, a range such as "8000-8100", or "all"
 --> lb.toml:5:8
  |
5 | port = [80, 443]
  |        ^^^^^^^^^ this is an array"#;

    a_port_within_the_range_of_another_service: service("web", "198.18.10.1", "80", "forward = \"dsr\"")
        + &service("low", "198.18.10.1", "\"1-1023\"", "forward = \"dsr\""), r#"
error: services `web` and `low` both take tcp 198.18.10.1 port 80
  --> lb.toml:11:7
   |
11 | vip = "198.18.10.1"
   |       ^^^^^^^^^^^^^ the first is in line 3"#;

    all_ports_beside_one: service("any", "198.18.10.0/24", "\"all\"", "forward = \"dsr\"")
        + &service("web", "198.18.10.0/24", "80", "forward = \"dsr\"")
        + &service("tls", "198.18.10.0/24", "443", "forward = \"dsr\""), r#"
error: services `any` and `web` both take tcp 198.18.10.0/24 port 80
  --> lb.toml:11:7
   |
11 | vip = "198.18.10.0/24"
   |       ^^^^^^^^^^^^^^^^ the first is in line 3

error: services `any` and `tls` both take tcp 198.18.10.0/24 port 443
  --> lb.toml:19:7
   |
19 | vip = "198.18.10.0/24"
   |       ^^^^^^^^^^^^^^^^ the first is in line 3"#;

    ranges_that_overlap: service("a", "198.18.10.1", "\"8000-8100\"", "forward = \"dsr\"")
        + &service("b", "198.18.10.1", "\"8100-8200\"", "forward = \"dsr\""), r#"
error: services `a` and `b` both take tcp 198.18.10.1 port 8100
  --> lb.toml:11:7
   |
11 | vip = "198.18.10.1"
   |       ^^^^^^^^^^^^^ the first is in line 3"#;

    a_longer_prefix_within_a_shorter_one_is_fine: service("any", "198.18.0.0/16", "\"all\"", "forward = \"dsr\"")
        .replace("198.18.0.11", "198.19.0.11")
        + &service("web", "198.18.10.0/24", "80", "forward = \"dsr\"").replace("198.18.0.11", "198.19.0.11"), r#"
"#;

    // Ways.

    keys_of_another_way: web("forward = \"dsr\"\ngue_port = 6081") + "port = 8080\n", r#"
error: `gue_port` for service `web` of `forward = "dsr"`
 --> lb.toml:7:12
  |
7 | gue_port = 6081
  |            ^^^^ only `forward = "gue"` has one

error: backend 198.18.0.11 of service `web` has a `port`
  --> lb.toml:10:8
   |
10 | port = 8080
   |        ^^^^ `forward = "dsr"` leaves the port as it is
   |
   = help: remove it, or use `forward = "nat"`"#;

    nat_without_its_section: web("forward = \"nat\""), r#"
error: service `web` needs `[nat]`
 --> lb.toml:6:11
  |
6 | forward = "nat"
  |           ^^^^^ from which address shall its packets go to the backends?
  |
  = help: add `[nat]` with for example `addresses = ["198.18.0.2"]`"#;

    nat_without_an_address_of_the_family: web("forward = \"nat\"") + "[nat]\naddresses = [\"2001:db8::2\"]\n", r#"
error: `[nat]` has no IPv4 address for service `web`
 --> lb.toml:6:11
  |
6 | forward = "nat"
  |           ^^^^^ its packets need one to go to the backends from"#;

    nat_with_a_backend_of_the_other_family: web("forward = \"nat\"").replace("198.18.0.11", "2001:db8::11")
        + "[nat]\naddresses = [\"198.18.0.2\"]\n", r#"
error: backend 2001:db8::11 of the IPv4 service `web` is an IPv6 address
 --> lb.toml:8:11
  |
8 | address = "2001:db8::11"
  |           ^^^^^^^^^^^^^^ `forward = "nat"` needs an IPv4 address
  |
  = help: `forward = "ipip"` and `"gue"` carry either family to either"#;

    nat_addresses_that_are_taken: web("forward = \"nat\"")
        + "[nat]\naddresses = [\"198.18.10.1\", \"198.18.0.11\", \"198.18.0.2\", \"198.18.0.2\", \"127.0.0.1\"]\n", r#"
error: the address 198.18.10.1 of `[nat]` is also a VIP
  --> lb.toml:10:14
   |
10 | addresses = ["198.18.10.1", "198.18.0.11", "198.18.0.2", "198.18.0.2", "127.0.0.1"]
   |              ^^^^^^^^^^^^^ service `web` has 198.18.10.1
   |
   = help: replies of backends could not be told from packets of clients

error: the address 198.18.0.11 of `[nat]` is also a backend
  --> lb.toml:10:29
   |
10 | addresses = ["198.18.10.1", "198.18.0.11", "198.18.0.2", "198.18.0.2", "127.0.0.1"]
   |                             ^^^^^^^^^^^^^ of service `web`

error: `addresses` has 198.18.0.2 twice
  --> lb.toml:10:58
   |
10 | addresses = ["198.18.10.1", "198.18.0.11", "198.18.0.2", "198.18.0.2", "127.0.0.1"]
   |                                                          ^^^^^^^^^^^^ remove this

error: `addresses` is a loopback address
  --> lb.toml:10:72
   |
10 | addresses = ["198.18.10.1", "198.18.0.11", "198.18.0.2", "198.18.0.2", "127.0.0.1"]
   |                                                                        ^^^^^^^^^^^ expected a unicast address"#;

    nat_without_addresses: web("forward = \"nat\"") + "[nat]\naddresses = []\n", r#"
error: `addresses` is empty
  --> lb.toml:10:13
   |
10 | addresses = []
   |             ^^ add for example `"198.18.0.2"`"#;

    nat_with_few_ports: web("forward = \"nat\"") + "[nat]\naddresses = [\"198.18.0.2\"]\nports = \"40000-40062\"\n", r#"
error: the port pool of `[nat]` is too small
  --> lb.toml:11:9
   |
11 | ports = "40000-40062"
   |         ^^^^^^^^^^^^^ 63 ports; each worker needs 64
   |
   = help: the default is `ports = "1024-32767"`"#;

    nat_that_is_not_used: web("forward = \"dsr\"") + "[nat]\naddresses = [\"198.18.0.2\"]\n", r#"
warning: `[nat]` is not used
 --> lb.toml:9:1
  |
9 | [nat]
  | ^^^^^ no service has `forward = "nat"`"#;

    tunnels_take_either_family: web("forward = \"ipip\"").replace("198.18.0.11", "2001:db8::11")
        + &service("gue", "2001:db8:10::1", "80", "forward = \"gue\"\ngue_port = 6081"), r#"
"#;

    // Backends.

    a_backend_within_the_vip_of_another_service: web("forward = \"dsr\"")
        + &service("any", "198.18.0.0/24", "\"all\"", "forward = \"dsr\"").replace("198.18.0.11", "198.18.1.11"), r#"
error: backend 198.18.0.11 of service `web` is also a VIP
 --> lb.toml:8:11
  |
8 | address = "198.18.0.11"
  |           ^^^^^^^^^^^^^ service `any` has 198.18.0.0/24
  |
  = help: give the server's own address: packets for a VIP come back to the balancer"#;

    nobody_gets_flows: web("forward = \"dsr\"") + "weight = 0\n[[service.backend]]\naddress = \"198.18.0.12\"\nstate = \"drain\"\n\
         [[service.backend]]\naddress = \"198.18.0.13\"\nstate = \"down\"\n", r#"
error: no backend of service `web` gets flows
 --> lb.toml:3:7
  |
3 | vip = "198.18.10.1"
  |       ^^^^^^^^^^^^^ each has `weight = 0`, or its `state` is `drain` or `down`
  |
  = help: leave the service out, or give one backend a weight"#;

    some_get_no_flows: web("forward = \"dsr\"") + "weight = 0\n[[service.backend]]\naddress = \"198.18.0.12\"\n", r#"
"#;

    unknown_state: web("forward = \"dsr\"") + "state = \"drained\"\n", r#"
error: unknown value `drained` for `state`
 --> lb.toml:9:9
  |
9 | state = "drained"
  |         ^^^^^^^^^ did you mean `drain`?"#;

    // Table, limits.

    table_size_that_is_no_prime: web("forward = \"dsr\"\ntable_size = 65536"), r#"
error: `table_size` of service `web` is not a prime number
 --> lb.toml:7:14
  |
7 | table_size = 65536
  |              ^^^^^ the next is 65537"#;

    table_size_out_of_range: web("forward = \"dsr\"\ntable_size = 7"), r#"
error: `table_size` is out of range
 --> lb.toml:7:14
  |
7 | table_size = 7
  |              ^ must be 251 to 6553577"#;

    table_that_is_small: web("forward = \"dsr\"\ntable_size = 251")
        + "[[service.backend]]\naddress = \"198.18.0.12\"\n[[service.backend]]\naddress = \"198.18.0.13\"\n", r#"
warning: the table of service `web` is small for 3 backends
 --> lb.toml:7:14
  |
7 | table_size = 251
  |              ^^^ 251 slots: shares are uneven
  |
  = help: `table_size = 307` has 100 for each"#;

    limits: web("forward = \"dsr\"\nmss = 500\nslow_start = 30\naffinity = \"source\"\nno_backend = \"reset\""), r#"
error: `mss` is out of range
 --> lb.toml:7:7
  |
7 | mss = 500
  |       ^^^ must be 536 to 65495

error: `slow_start` must be a time with its unit, such as "30s"
 --> lb.toml:8:14
  |
8 | slow_start = 30
  |              ^^ this is an integer
  |
  = help: in seconds that is `"30s"`

error: unknown value `source` for `affinity`
 --> lb.toml:9:12
  |
9 | affinity = "source"
  |            ^^^^^^^^ known: `5tuple`, `src`

error: unknown value `reset` for `no_backend`
  --> lb.toml:10:14
   |
10 | no_backend = "reset"
   |              ^^^^^^^ known: `drop`, `reject`"#;

    mss_for_udp: web("forward = \"dsr\"\nmss = 1400").replace("\"tcp\"", "\"udp\""), r#"
error: `mss` for service `web` of `protocol = "udp"`
 --> lb.toml:7:7
  |
7 | mss = 1400
  |       ^^^^ only TCP has a maximum segment size"#;

    // Health.

    health_without_type: health("interval = \"1s\""), r#"
error: `[service.health]` lacks the key `type`
 --> lb.toml:9:1
  |
9 | [service.health]
  | ^^^^^^^^^^^^^^^^ add for example `type = "tcp"`"#;

    health_keys_that_do_not_fit_the_type: health("type = \"tcp\"\npath = \"/\"\nverify = true\n"), r#"
error: `path` means nothing for the `tcp` check of service `web`
  --> lb.toml:11:8
   |
11 | path = "/"
   |        ^^^ remove this
   |
   = help: keys of `type = "tcp"`: `type`, `interval`, `timeout`, `rise`, `fall`, `port`, `through`

error: `verify` means nothing for the `tcp` check of service `web`
  --> lb.toml:12:10
   |
12 | verify = true
   |          ^^^^ remove this
   |
   = help: keys of `type = "tcp"`: `type`, `interval`, `timeout`, `rise`, `fall`, `port`, `through`"#;

    health_values: health("type = \"http\"\ninterval = \"10ms\"\nrise = 0\npath = \"health\"\nhost = \"a b\"\nstatus = [200, \"600\"]\n"), r#"
error: `interval` is out of range
  --> lb.toml:11:12
   |
11 | interval = "10ms"
   |            ^^^^^^ must be `100ms` to `1h`

error: `rise` is out of range
  --> lb.toml:12:8
   |
12 | rise = 0
   |        ^ must be 1 to 100

error: `path` does not begin with `/`
  --> lb.toml:13:8
   |
13 | path = "health"
   |        ^^^^^^^^ did you mean `/health`?

error: `host` is not the name of a host
  --> lb.toml:14:8
   |
14 | host = "a b"
   |        ^^^^^ expected one such as `www.example.org`

error: `status` is out of range
  --> lb.toml:15:16
   |
15 | status = [200, "600"]
   |                ^^^^^ must be 100 to 599"#;

    health_path_with_a_space: health("type = \"http\"\npath = \"/a b\"\n"), r#"
error: `path` has a character that no URL has
  --> lb.toml:11:8
   |
11 | path = "/a b"
   |        ^^^^^^ write spaces and what is not ASCII with `%`, as in `%20`"#;

    health_timeout_above_the_interval: health("type = \"tcp\"\ntimeout = \"3s\"\n"), r#"
error: the health check of service `web` takes longer than its interval
  --> lb.toml:11:11
   |
11 | timeout = "3s"
   |           ^^^^ `timeout` is 3s, `interval` 2s
   |
   = help: a try must have ended when the next begins"#;

    health_interval_below_the_timeout: health("type = \"tcp\"\ninterval = \"500ms\"\n"), r#"
error: the health check of service `web` takes longer than its interval
  --> lb.toml:11:12
   |
11 | interval = "500ms"
   |            ^^^^^^^ `timeout` is 1s, `interval` 500ms
   |
   = help: a try must have ended when the next begins"#;

    health_times: health("type = \"tcp\"\ninterval = \"soon\"\ntimeout = 1\n"), r#"
error: `interval` is not a time
  --> lb.toml:11:12
   |
11 | interval = "soon"
   |            ^^^^^^ expected one such as `200ms`, `30s`, `15m`, `2h` or `1d`

error: `timeout` must be a time with its unit, such as "30s"
  --> lb.toml:12:11
   |
12 | timeout = 1
   |           ^ this is an integer
   |
   = help: in seconds that is `"1s"`"#;

    health_port_of_a_range: service("web", "198.18.10.1", "\"8000-8100\"", "forward = \"dsr\"")
        + "[service.health]\ntype = \"http\"\n", r#"
error: at which port of backend 198.18.0.11 shall the health check of service `web` try?
 --> lb.toml:9:1
  |
9 | [service.health]
  | ^^^^^^^^^^^^^^^^ add for example `port = 8000`
  |
  = help: a service with one port needs no `port` here: that is tried"#;

    health_of_a_range_that_needs_no_port: service("web", "198.18.10.1", "\"all\"", "forward = \"dsr\"")
        + "[service.health]\ntype = \"icmp\"\n", r#"
"#;

    health_port_of_a_range_known_by_its_backends: service("web", "198.18.10.1", "\"8000-8100\"", "forward = \"nat\"")
        + "port = 8080\n[service.health]\ntype = \"http\"\n[nat]\naddresses = [\"198.18.0.2\"]\n", r#"
"#;

    health_through_a_path_of_nat: web("forward = \"nat\"")
        + "[service.health]\ntype = \"tcp\"\nthrough = \"path\"\n[nat]\naddresses = [\"198.18.0.2\"]\n", r#"
error: service `web` cannot be checked through its path
  --> lb.toml:11:11
   |
11 | through = "path"
   |           ^^^^^^ by `forward = "nat"` the address is the path
   |
   = help: use `through = "address"`, which is the default"#;

    health_through_a_path_of_another_version: service("web", "198.18.10.1", "80", "forward = \"ipip\"").replace("198.18.0.11", "2001:db8::11")
        + "[service.health]\ntype = \"tcp\"\nthrough = \"path\"\n", r#"
error: service `web` cannot be checked through its path
  --> lb.toml:11:11
   |
11 | through = "path"
   |           ^^^^^^ a backend is of another IP version than the VIP
   |
   = help: use `through = "address"`, which is the default"#;

    health_through_a_path_of_udp: health("type = \"tcp\"\nthrough = \"path\"\n").replace("\"tcp\"\nport", "\"udp\"\nport"), r#"
error: service `web` cannot be checked through its path
  --> lb.toml:11:11
   |
11 | through = "path"
   |           ^^^^^^ only TCP answers a SYN
   |
   = help: use `through = "address"`, which is the default"#;

    health_through_a_path_of_a_prefix: service("web", "198.18.10.0/24", "80", "forward = \"dsr\"")
        + "[service.health]\ntype = \"tcp\"\nthrough = \"path\"\n", r#"
error: service `web` cannot be checked through its path
  --> lb.toml:11:11
   |
11 | through = "path"
   |           ^^^^^^ the VIP is a prefix: there is no one address to try
   |
   = help: use `through = "address"`, which is the default"#;

    health_command_that_is_none: health("type = \"command\"\n"), r#"
error: `[service.health]` lacks the key `command`
 --> lb.toml:9:1
  |
9 | [service.health]
  | ^^^^^^^^^^^^^^^^ add for example `command = ["/usr/local/bin/check"]`"#;

    health_command_without_its_directory: health("type = \"command\"\ncommand = [\"check\", \"-v\"]\n"), r#"
error: `command` is not an absolute path
  --> lb.toml:11:12
   |
11 | command = ["check", "-v"]
   |            ^^^^^^^ the directory that `xfwd` runs in, and its `PATH`, do not count"#;

    health_command_that_is_empty: health("type = \"command\"\ncommand = []\n"), r#"
error: `command` names no program
  --> lb.toml:11:11
   |
11 | command = []
   |           ^^ add for example `"/usr/local/bin/check"`"#;

    // What all services share.

    balance_values: web("forward = \"dsr\"")
        + "[balance]\nconnections = 1000\nsyn_timeout = \"0s\"\nudp_timeout = \"8d\"\ntunnel_source = \"198.18.0.2\"\n", r#"
error: `connections` is out of range
  --> lb.toml:10:15
   |
10 | connections = 1000
   |               ^^^^ must be 1024 to 67108864

error: `syn_timeout` is out of range
  --> lb.toml:11:15
   |
11 | syn_timeout = "0s"
   |               ^^^^ must be `1s` to `7d`

error: `udp_timeout` is out of range
  --> lb.toml:12:15
   |
12 | udp_timeout = "8d"
   |               ^^^^ must be `1s` to `7d`

error: unknown key `tunnel_source` in `[balance]`
  --> lb.toml:13:1
   |
13 | tunnel_source = "198.18.0.2"
   | ^^^^^^^^^^^^^ did you mean `tunnel_sources`?"#;

    tunnel_sources: web("forward = \"dsr\"")
        + "[balance]\ntunnel_sources = [\"198.18.0.2\", \"2001:db8::2\", \"198.18.0.3\", \"ff02::1\", \"eth0\"]\n", r#"
error: `tunnel_sources` has two IPv4 addresses
  --> lb.toml:10:48
   |
10 | tunnel_sources = ["198.18.0.2", "2001:db8::2", "198.18.0.3", "ff02::1", "eth0"]
   |                                                ^^^^^^^^^^^^ the first is 198.18.0.2

error: `tunnel_sources` is a multicast address
  --> lb.toml:10:62
   |
10 | tunnel_sources = ["198.18.0.2", "2001:db8::2", "198.18.0.3", "ff02::1", "eth0"]
   |                                                              ^^^^^^^^^ expected a unicast address

error: `tunnel_sources` is not an IP address
  --> lb.toml:10:73
   |
10 | tunnel_sources = ["198.18.0.2", "2001:db8::2", "198.18.0.3", "ff02::1", "eth0"]
   |                                                                         ^^^^^^ expected one such as `198.18.10.1` or `2001:db8::1`"#;

    balance_without_a_service: "[balance]\n[bounce]\n[dataplane]\nsteer = \"all\"\n", r#"
warning: `[balance]` is not used
 --> lb.toml:1:1
  |
1 | [balance]
  | ^^^^^^^^^ there is no `[[service]]`"#;
}

#[test]
fn every_key_of_a_service() {
    let text = r#"
[[service]]
name = "web"
vip = "2001:db8:10::/64"
protocol = "tcp"
port = "8000-8100"
forward = "nat"
affinity = "src"
table_size = 655_373
no_backend = "reject"
slow_start = "30s"
mss = 1400
[service.health]
type = "https"
interval = "500ms"
timeout = "200ms"
rise = 3
fall = 5
port = 8443
path = "/health?deep=1"
host = "www.example.org"
status = [204, "200-202", 203]
verify = true
[[service.backend]]
address = "2001:db8::11"
weight = 0
port = 8080
[[service.backend]]
address = "2001:db8::12"
state = "drain"
[[service.backend]]
address = "2001:db8::13"
[balance]
connections = 67_108_864
syn_timeout = "5s"
established_timeout = "2h"
closing_timeout = "30s"
udp_timeout = "1m"
icmp_rate = 0
tunnel_sources = ["2001:db8::2", "198.18.0.2"]
[nat]
addresses = ["2001:db8::2"]
ports = "10000-19999"
"#;
    let plan = plan(text);
    assert_eq!(plan.warnings, []);
    let [service] = &plan.services[..] else { panic!("{plan:?}") };
    let backend = |host: u8, weight, port, state| {
        let address = format!("2001:db8::{host}").parse().unwrap();
        Backend { address, weight, port, state }
    };
    let expected = Service {
        name: "web".to_owned(),
        vip: "2001:db8:10::/64".parse().unwrap(),
        protocol: Protocol::Tcp,
        ports: 8000..=8100,
        forward: Forward::Nat,
        affinity: Affinity::Src,
        table_size: 655_373,
        no_backend: NoBackend::Reject,
        slow_start: Some(Duration::from_secs(30)),
        mss: Some(1400),
        gue_port: 6080,
        health: Some(HealthCheck {
            kind: HealthKind::Https,
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(200),
            rise: 3,
            fall: 5,
            port: Some(8443),
            path: "/health?deep=1".to_owned(),
            host: Some("www.example.org".to_owned()),
            status: vec![200..=204],
            verify: true,
            command: Vec::new(),
            through: Through::Address,
        }),
        backends: vec![
            backend(11, 0, Some(8080), crate::config::BackendState::Up),
            backend(12, 1, None, crate::config::BackendState::Drain),
            backend(13, 1, None, crate::config::BackendState::Up),
        ],
    };
    assert_eq!(*service, expected);
    assert_eq!(service.backends.iter().map(Backend::share).collect::<Vec<_>>(), [0, 0, 1]);
    assert!(service.table().unwrap().slots().iter().all(|backend| *backend == 2));
    let balance = BalanceSettings {
        connections: 64 << 20,
        syn_timeout: Duration::from_secs(5),
        established_timeout: Duration::from_secs(7200),
        closing_timeout: Duration::from_secs(30),
        udp_timeout: Duration::from_secs(60),
        icmp_rate: 0,
        tunnel_sources: vec!["2001:db8::2".parse().unwrap(), "198.18.0.2".parse().unwrap()],
    };
    assert_eq!(plan.balance, balance);
    let nat = plan.nat.unwrap();
    assert_eq!((nat.ports.clone(), nat.ports_per_address()), (10_000..=19_999, 10_000));
    assert_eq!(
        plan.balance.tunnel_source("2001:db8::11".parse().unwrap()),
        Some("2001:db8::2".parse().unwrap())
    );
}

#[test]
fn a_pool_of_ports_is_shared_by_the_workers() {
    let nat =
        plan(&(web("forward = \"nat\"") + "[nat]\naddresses = [\"198.18.0.2\"]\nports = \"40000-40255\"\n"))
            .nat
            .unwrap();
    assert_eq!(nat.check_workers(4), Ok(()));
    assert_eq!(
        nat.check_workers(5).unwrap_err().to_string(),
        "the port pool of `[nat]` is too small: 256 ports on each address are 51 for each of 5 workers, and 64 are \
         needed: widen `ports` to 320 or more, or use fewer queues"
    );
}

#[test]
fn where_a_backend_is_checked() {
    let port = |text: &str| {
        let plan = plan(text);
        plan.services[0].health_port(&plan.services[0].backends[0])
    };
    let nat = "[nat]\naddresses = [\"198.18.0.2\"]\n";
    assert_eq!(port(&health("type = \"tcp\"")), Some(80));
    assert_eq!(port(&health("type = \"tcp\"\nport = 81")), Some(81));
    let of_backend = web("forward = \"nat\"") + "port = 8080\n[service.health]\ntype = \"tcp\"\n";
    assert_eq!(port(&(of_backend.clone() + nat)), Some(8080));
    assert_eq!(port(&(of_backend + "port = 81\n" + nat)), Some(81));
}

#[test]
fn the_empty_status_is_an_error_and_the_default_is_200() {
    assert_eq!(plan(&health("type = \"http\"")).services[0].health.as_ref().unwrap().status, [200..=200]);
    assert!(report(&health("type = \"http\"\nstatus = []")).contains("`status` is an empty list"));
}

/// A thousand services with ten backends each; if anything compared each with each, this would take minutes.
#[test]
fn a_thousand_services_of_ten_backends_are_read() {
    let mut text = String::new();
    for index in 0..1_000 {
        let (high, low) = (index / 250, index % 250);
        let name = format!("s{index}");
        write!(text, "[[service]]\nname = \"{name}\"\nvip = \"198.18.{high}.{low}\"\nprotocol = \"tcp\"\nport = 80\nforward = \"ipip\"\n")
            .unwrap();
        for host in 0..10 {
            writeln!(text, "[[service.backend]]\naddress = \"198.19.{}.{host}\"", index % 256).unwrap();
        }
    }
    let all = plan(&text);
    assert_eq!((all.services.len(), all.warnings.len()), (1_000, 0));
    let lookup = all.service_lookup();
    for (index, service) in all.services.iter().enumerate() {
        assert_eq!(lookup.find(&service.vip.mapped().0, 6, 80), Some(index));
    }

    // Also when every line of it is wrong.
    let error = parse("lb.toml", &text.replace("198.19.", "198.18.0.0.")).unwrap_err();
    assert_eq!(error.diagnostics().len(), 10_000);
}
