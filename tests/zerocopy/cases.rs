//! What xfwd is asked to do, with which packets, and what must come back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use etherparse::{IpNumber, Ipv4Header, PacketBuilder, SlicedPacket, TransportSlice, UdpHeader};
use xfwd_netns::vm::MAC as SUBJECT_MAC;
use xfwd_netns::{MacAddress, TAG_BYTES, tag};

/// MAC address of the outside end of the cable.
pub const OUTSIDE_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
/// Backends: address and MAC address.
pub const BACKENDS: [(&str, MacAddress); 3] = [
    ("198.18.0.11", MacAddress([2, 0, 0, 0, 0, 0x11])),
    ("198.18.0.12", MacAddress([2, 0, 0, 0, 0, 0x12])),
    ("198.18.0.13", MacAddress([2, 0, 0, 0, 0, 0x13])),
];
const VIP: [u8; 4] = [198, 18, 10, 1];
/// Frames of a case.
const FRAMES: u32 = 2000;
/// The longest frame of a link with MTU 1,500.
const LONGEST: u32 = 1514;
/// The most that a tunnel puts in front of an IPv4 packet here: an IPv4 and a UDP header.
const OUTER_BYTES: u32 = 28;
/// Flows that they belong to.
const FLOWS: u32 = 64;

/// `mode` of `[dataplane]`.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    Auto,
    ZeroCopy,
    Copy,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Auto, Self::ZeroCopy, Self::Copy];

    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
        }
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered, and the answer passes [`Case::check`].
    Answered,
    /// The XDP program drops it.
    DroppedByKernel,
    /// A worker drops it.
    DroppedByWorker,
}

/// A config, the packets sent to it, what becomes of each, and what each answer must be.
pub struct Case {
    pub name: &'static str,
    config: fn() -> String,
    pub frames: fn() -> Vec<Vec<u8>>,
    pub check: fn(sent: &[u8], answer: &[u8]) -> Result<(), String>,
    /// The fate of frame `number`, and the rules of the filter that count it.
    pub fate: fn(number: u32, sent: &[u8]) -> (Fate, Vec<&'static str>),
}

/// All that the data path can do. What a stage to come must do in zero-copy has its place here.
pub const CASES: &[Case] = &[
    Case {
        name: "bounce-l2",
        config: || bounce("l2"),
        frames: || frames(any_packet),
        check: bounced_at_l2,
        fate: |_, _| (Fate::Answered, Vec::new()),
    },
    Case {
        name: "bounce-l4",
        config: || bounce("l4"),
        frames: || frames(any_packet),
        check: bounced_at_l4,
        fate: |_, _| (Fate::Answered, Vec::new()),
    },
    Case {
        name: "balance",
        config: || balance("dsr"),
        frames: || frames(packet_to_service),
        check: balanced,
        fate: |_, _| (Fate::Answered, Vec::new()),
    },
    Case {
        name: "ipip",
        config: || balance("ipip"),
        frames: || frames_up_to(LONGEST - OUTER_BYTES, packet_to_service),
        check: |sent, answer| tunnelled(sent, answer, IpNumber::IPV4),
        fate: |_, _| (Fate::Answered, Vec::new()),
    },
    Case {
        name: "gue",
        config: || balance("gue"),
        frames: || frames_up_to(LONGEST - OUTER_BYTES, packet_to_service),
        check: |sent, answer| tunnelled(sent, answer, IpNumber::UDP),
        fate: |_, _| (Fate::Answered, Vec::new()),
    },
    Case {
        name: "filter",
        config: filter,
        frames: || frames(packet_to_filter),
        check: let_through,
        fate: filtered,
    },
];

/// To backends in a VLAN of the machine, which veth has not everywhere: [`VLAN`] is set up by the machine only.
pub const TO_A_VLAN: Case = Case {
    name: "vlan",
    config: || balance("dsr").replace("198.18.0.1", "198.19.0.1"),
    frames: || frames_up_to(LONGEST - 4, packet_to_service),
    check: tagged,
    fate: |_, _| (Fate::Answered, Vec::new()),
};
/// The VLAN of [`TO_A_VLAN`], and the addresses of its backends, in the order of [`BACKENDS`].
pub const VLAN: (u8, [&str; 3]) = (5, ["198.19.0.11", "198.19.0.12", "198.19.0.13"]);

impl Case {
    pub fn config(&self, mode: Mode) -> String {
        (self.config)().replace("[dataplane]", &format!("[dataplane]\nmode = \"{}\"", mode.name()))
    }

    /// Name of the file with that config.
    pub fn file(&self, mode: Mode) -> String {
        format!("{}-{}.toml", self.name, mode.name())
    }
}

fn bounce(layer: &str) -> String {
    format!("[dataplane]\nsteer = \"all\"\n\n[bounce]\nlayer = \"{layer}\"\n")
}

fn balance(forward: &str) -> String {
    let mut config = "[dataplane]\n".to_owned();
    let [a, b, c, d] = VIP;
    for (name, protocol, port) in [("web", "tcp", 80), ("dns", "udp", 53)] {
        let _ = write!(
            config,
            "\n[[service]]\nname = \"{name}\"\nvip = \"{a}.{b}.{c}.{d}\"\nprotocol = \"{protocol}\"\nport = {port}\n\
             forward = \"{forward}\"\n"
        );
        for (index, (address, _)) in BACKENDS.iter().enumerate() {
            let _ =
                write!(config, "\n[[service.backend]]\naddress = \"{address}\"\nweight = {}\n", index + 1);
        }
    }
    config
}

/// Burst of the policer of [`filter`], bytes.
const BURST: usize = 1500;

/// Rules of every kind and place: those that need only an address or a port, one that takes the loop over the table of the
/// XDP program, and three of the worker. Flows are told apart by source address and source port, see [`packet`].
fn filter() -> String {
    bounce("l4")
        + &format!(
            r#"
[[filter]]
name = "by-source"
src = ["198.18.64.8/29", "2001:db8:1::8/125"]
action = "drop"

[[filter]]
name = "by-port"
protocol = "udp"
dst_port = 53
action = "drop"

[[filter]]
name = "by-table"
src_port = "10016-10023"
tcp_flags = {{ set = "ack" }}
action = "drop"

[[filter]]
name = "counted"
src = "198.18.64.0/24"
action = "count"

[[filter]]
name = "policed"
src = ["198.18.64.40/30", "2001:db8:1::28/126"]
# A byte a second: what passes is the burst.
rate = "8 bit/s"
burst = {BURST}
per = "src/32/128"
action = "drop"

[[filter]]
name = "sent-back"
src = ["198.18.64.48/29", "2001:db8:1::30/125"]
action = "bounce"

[[filter]]
name = "behind"
protocol = "tcp"
src_port = "10052-10059"
action = "drop"
"#
        )
}

/// What [`filter`] does with frame `number`, told anew and not by its rules.
fn filtered(number: u32, sent: &[u8]) -> (Fate, Vec<&'static str>) {
    let (flow, is_tcp, is_ipv4) = (number % FLOWS, number & 2 != 0, number & 1 == 0);
    // All frames of a policed flow are of one size, and none else has its bucket.
    let is_in_burst = (number / FLOWS) < (BURST / sent.len()) as u32;
    let (fate, rule) = match flow {
        8..16 => return (Fate::DroppedByKernel, vec!["by-source"]),
        24..32 if !is_tcp => return (Fate::DroppedByKernel, vec!["by-port"]),
        16..24 if is_tcp => return (Fate::DroppedByKernel, vec!["by-table"]),
        40..44 if !is_in_burst => (Fate::DroppedByWorker, Some("policed")),
        48..56 => (Fate::Answered, Some("sent-back")),
        56..60 if is_tcp => (Fate::DroppedByWorker, Some("behind")),
        _ => (Fate::Answered, None),
    };
    (fate, is_ipv4.then_some("counted").into_iter().chain(rule).collect())
}

fn frames(packet: fn(u32, &[u8]) -> Vec<u8>) -> Vec<Vec<u8>> {
    frames_up_to(LONGEST, packet)
}

/// Frames of all lengths up to that many bytes.
fn frames_up_to(longest: u32, packet: fn(u32, &[u8]) -> Vec<u8>) -> Vec<Vec<u8>> {
    (0..FRAMES)
        .map(|number| {
            // From the shortest frame of Ethernet, since shorter ones come back padded, with their tag not at the end (42
            // bytes are the shortest headers), to the longest (74 are the longest headers).
            let (shortest, longest) = (60 - 42 - TAG_BYTES as u32, longest - 74 - TAG_BYTES as u32);
            let length = shortest + (number * 37) % (longest - shortest + 1);
            let mut payload: Vec<u8> = (0..length).map(|at| (number + at * 7) as u8).collect();
            payload.extend(tag(number));
            packet(number, &payload)
        })
        .collect()
}

/// TCP and UDP, IPv4 and IPv6, to addresses that are nobody's.
fn any_packet(number: u32, payload: &[u8]) -> Vec<u8> {
    packet(number, payload, 7777)
}

/// To what [`filter`] tells apart.
fn packet_to_filter(number: u32, payload: &[u8]) -> Vec<u8> {
    match number % FLOWS {
        24..32 => packet(number, payload, 53),
        40..44 => packet(number, &[&[number as u8; 88][..], &tag(number)].concat(), 7777),
        _ => packet(number, payload, 7777),
    }
}

/// A packet of flow `number % FLOWS`, which shows in the last byte of its source address and in its source port.
fn packet(number: u32, payload: &[u8], dst_port: u16) -> Vec<u8> {
    let flow = number % FLOWS;
    let (host, port) = (flow as u8, 10_000 + flow as u16);
    let link = PacketBuilder::ethernet2(OUTSIDE_MAC.0, SUBJECT_MAC.0);
    let network = if number & 1 == 0 {
        link.ipv4([198, 18, 64, host], [198, 18, 65, 1], 64)
    } else {
        let address = |subnet, host| [0x20, 1, 0xd, 0xb8, 0, subnet, 0, 0, 0, 0, 0, 0, 0, 0, 0, host];
        link.ipv6(address(1, host), address(2, 1), 64)
    };
    let mut frame = Vec::new();
    if number & 2 == 0 {
        network.udp(port, dst_port).write(&mut frame, payload)
    } else {
        network.tcp(port, dst_port, number, 65_535).ack(1).write(&mut frame, payload)
    }
    .expect("lengths fit");
    frame
}

/// To the services of [`balance`].
fn packet_to_service(number: u32, payload: &[u8]) -> Vec<u8> {
    let flow = number % FLOWS;
    let (host, port) = (flow as u8, 20_000 + flow as u16);
    let network = PacketBuilder::ethernet2(OUTSIDE_MAC.0, SUBJECT_MAC.0).ipv4([198, 18, 64, host], VIP, 64);
    let mut frame = Vec::new();
    if number & 1 == 0 {
        network.udp(port, 53).write(&mut frame, payload)
    } else if number < 2 * FLOWS {
        network.tcp(port, 80, number, 65_535).syn().write(&mut frame, payload)
    } else {
        network.tcp(port, 80, number, 65_535).ack(1).write(&mut frame, payload)
    }
    .expect("lengths fit");
    frame
}

fn bounced_at_l2(sent: &[u8], answer: &[u8]) -> Result<(), String> {
    let mut expected = sent.to_vec();
    expected[..12].rotate_left(6);
    same(&expected, answer)
}

fn bounced_at_l4(sent: &[u8], answer: &[u8]) -> Result<(), String> {
    let mut expected = sent.to_vec();
    expected[..12].rotate_left(6);
    let ports = if sent[12..14] == [0x08, 0x00] {
        expected[26..34].rotate_left(4);
        34
    } else {
        expected[22..54].rotate_left(16);
        54
    };
    expected[ports..ports + 4].rotate_left(2);
    same(&expected, answer)
}

/// Bounced, either by the rule of [`filter`] that does so, which leaves IP alone, or by the stage behind it.
fn let_through(sent: &[u8], answer: &[u8]) -> Result<(), String> {
    let ports = if sent[12..14] == [0x08, 0x00] { 34 } else { 54 };
    match u16::from_be_bytes([sent[ports], sent[ports + 1]]) {
        10_048..10_056 => bounced_at_l2(sent, answer),
        _ => bounced_at_l4(sent, answer),
    }
}

/// Sent on to a backend, with nothing changed but MAC addresses. That a flow keeps to one backend follows from [`on_veth`]
/// and is checked there.
fn balanced(sent: &[u8], answer: &[u8]) -> Result<(), String> {
    let backend = BACKENDS.iter().find(|(_, mac)| mac.0 == answer[..6]);
    let (_, mac) = backend.ok_or("it went to no backend")?;
    let mut expected = sent.to_vec();
    expected[..6].copy_from_slice(&mac.0);
    expected[6..12].copy_from_slice(&SUBJECT_MAC.0);
    same(&expected, answer)
}

/// Sent on to a backend within outer headers, with one hop less.
fn tunnelled(sent: &[u8], answer: &[u8], protocol: IpNumber) -> Result<(), String> {
    let (address, mac) =
        BACKENDS.iter().find(|(_, mac)| mac.0 == answer[..6]).ok_or("it went to no backend")?;
    same(&[&SUBJECT_MAC.0[..], &[8, 0]].concat(), &answer[6..14]).map_err(|why| format!("{mac}: {why}"))?;
    let (outer, payload) = Ipv4Header::from_slice(&answer[14..]).map_err(|error| error.to_string())?;
    let destination = Ipv4Addr::from(outer.destination).to_string();
    if (outer.protocol, destination.as_str()) != (protocol, address) || outer.time_to_live != 64 {
        return Err(format!("outer header {outer:?}"));
    }
    if outer.header_checksum != outer.calc_header_checksum()
        || usize::from(outer.total_len) != answer.len() - 14
    {
        return Err(format!("outer checksum or length: {outer:?}"));
    }
    let inner = if protocol == IpNumber::UDP {
        let (udp, inner) = UdpHeader::from_slice(payload).map_err(|error| error.to_string())?;
        if (udp.destination_port, usize::from(udp.length)) != (6080, payload.len()) || udp.checksum != 0 {
            return Err(format!("{udp:?}"));
        }
        inner
    } else {
        payload
    };
    let (mut header, rest) = Ipv4Header::from_slice(&sent[14..]).map_err(|error| error.to_string())?;
    header.time_to_live -= 1;
    header.header_checksum = header.calc_header_checksum();
    let mut expected = Vec::new();
    header.write(&mut expected).map_err(|error| error.to_string())?;
    expected.extend(rest);
    same(&expected, inner)
}

/// As [`balanced`], with the tag of [`VLAN`].
fn tagged(sent: &[u8], answer: &[u8]) -> Result<(), String> {
    same(&[0x81, 0, 0, VLAN.0], answer.get(12..16).unwrap_or_default())?;
    balanced(sent, &[&answer[..12], &answer[16..]].concat())
}

fn same(expected: &[u8], answer: &[u8]) -> Result<(), String> {
    if answer == expected { Ok(()) } else { Err(format!("expected {expected:02x?}")) }
}

/// The answer to each frame of a case, of those that are answered.
pub type Answers = Vec<Option<Vec<u8>>>;

/// What veth answers to a case: found out by `ask` once, and then remembered.
pub fn on_veth(case: &Case, ask: impl FnOnce() -> Answers) -> &'static [Option<Vec<u8>>] {
    static ANSWERS: Mutex<BTreeMap<&str, &[Option<Vec<u8>>]>> = Mutex::new(BTreeMap::new());
    let mut answers = ANSWERS.lock().unwrap();
    answers.entry(case.name).or_insert_with(|| {
        let answers = ask();
        if case.name == "balance" {
            expect_spread(&answers);
        }
        Vec::leak(answers)
    })
}

/// All packets of a flow went to one backend, and every backend got some.
fn expect_spread(answers: &[Option<Vec<u8>>]) {
    let mut backends = BTreeMap::new();
    for answer in answers.iter().flatten() {
        let flow = flow(answer);
        let backend = *backends.entry(flow.clone()).or_insert(&answer[..6]);
        assert_eq!(backend, &answer[..6], "flow {flow} went to two backends");
    }
    for (address, mac) in BACKENDS {
        assert!(backends.values().any(|backend| *backend == mac.0), "backend {address} got nothing");
    }
}

fn flow(frame: &[u8]) -> String {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (protocol, port) = match packet.transport.unwrap() {
        TransportSlice::Udp(udp) => ("udp", udp.source_port()),
        TransportSlice::Tcp(tcp) => ("tcp", tcp.source_port()),
        other => panic!("{other:?}"),
    };
    format!("{protocol} {:?}:{port}", &frame[26..30])
}
