//! What xfwd is asked to do, with which packets, and what must come back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
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

/// A config, the packets sent to it, and what each answer must be.
pub struct Case {
    pub name: &'static str,
    config: fn() -> String,
    pub frames: fn() -> Vec<Vec<u8>>,
    pub check: fn(sent: &[u8], answer: &[u8]) -> Result<(), String>,
}

/// All that the data path can do. What a stage to come must do in zero-copy has its place here: a config, frames, and
/// a check of each answer. (A filter drops, so its case will need answers that must not come: `Exchange::answers` has
/// `None` for those.)
pub const CASES: &[Case] = &[
    Case { name: "bounce-l2", config: || bounce("l2"), frames: || frames(any_packet), check: bounced_at_l2 },
    Case { name: "bounce-l4", config: || bounce("l4"), frames: || frames(any_packet), check: bounced_at_l4 },
    Case { name: "balance", config: balance, frames: || frames(packet_to_service), check: balanced },
];

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

fn balance() -> String {
    let mut config = "[dataplane]\n".to_owned();
    let [a, b, c, d] = VIP;
    for (name, protocol, port) in [("web", "tcp", 80), ("dns", "udp", 53)] {
        let _ = write!(
            config,
            "\n[[service]]\nname = \"{name}\"\nvip = \"{a}.{b}.{c}.{d}\"\nprotocol = \"{protocol}\"\nport = {port}\n\
             forward = \"dsr\"\n"
        );
        for (index, (address, _)) in BACKENDS.iter().enumerate() {
            let _ =
                write!(config, "\n[[service.backend]]\naddress = \"{address}\"\nweight = {}\n", index + 1);
        }
    }
    config
}

fn frames(packet: fn(u32, &[u8]) -> Vec<u8>) -> Vec<Vec<u8>> {
    (0..FRAMES)
        .map(|number| {
            // From the shortest frame of Ethernet, since shorter ones come back padded, with their tag not at the end (42
            // bytes are the shortest headers), to the longest of a link with MTU 1,500 (74 are the longest headers).
            let (shortest, longest) = (60 - 42 - TAG_BYTES as u32, 1514 - 74 - TAG_BYTES as u32);
            let length = shortest + (number * 37) % (longest - shortest + 1);
            let mut payload: Vec<u8> = (0..length).map(|at| (number + at * 7) as u8).collect();
            payload.extend(tag(number));
            packet(number, &payload)
        })
        .collect()
}

/// TCP and UDP, IPv4 and IPv6, to addresses that are nobody's.
fn any_packet(number: u32, payload: &[u8]) -> Vec<u8> {
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
        network.udp(port, 7777).write(&mut frame, payload)
    } else {
        network.tcp(port, 7777, number, 65_535).ack(1).write(&mut frame, payload)
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

fn same(expected: &[u8], answer: &[u8]) -> Result<(), String> {
    if answer == expected { Ok(()) } else { Err(format!("expected {expected:02x?}")) }
}

/// What veth answers to a case: found out by `ask` once, and then remembered.
pub fn on_veth(case: &Case, ask: impl FnOnce() -> Vec<Vec<u8>>) -> &'static [Vec<u8>] {
    static ANSWERS: Mutex<BTreeMap<&str, &[Vec<u8>]>> = Mutex::new(BTreeMap::new());
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
fn expect_spread(answers: &[Vec<u8>]) {
    let mut backends = BTreeMap::new();
    for answer in answers {
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
