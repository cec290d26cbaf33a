//! `vxlan_gateway` against the kernel's own VXLAN endpoint, with Wireshark as the judge of what is on the wire.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use xfwd_netns::clients::{curl, iperf3, requests};
use xfwd_netns::topology::INTERFACE;
use xfwd_netns::{
    Capture, Lab, Namespace, Requirement, VethOptions, commands_or_skip, dissect, lab_or_skip, skip,
};

use crate::example::{Example, PATIENCE};

const VNI: &str = "42";
const VXLAN: u16 = 4_789;
const PORT: u16 = 8080;
/// Ends of the tunnel.
const HERE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 2);
/// Hosts of the network that it carries: one behind the gateway, the other is the far end itself.
const HOST: [&str; 2] = ["198.18.100.1", "2001:db8:100::1"];
const FAR: [&str; 2] = ["198.18.100.2", "2001:db8:100::2"];

/// ```text
/// host eth0 ── inner gateway outer ── eth0 far (vx0)
/// ```
struct Network {
    host: Namespace,
    gateway: Namespace,
    far: Namespace,
    _lab: Lab,
}

impl Network {
    /// With this MTU of the underlay.
    fn new(mtu: u32) -> xfwd_netns::Result<Self> {
        let lab = Lab::new("vxlan")?;
        let [host, gateway, far] = ["host", "gateway", "far"].map(|name| lab.namespace(name).unwrap());
        let cable = VethOptions { queues: 2, ..VethOptions::default() };
        lab.veth(&host, INTERFACE, &gateway, "inner", &cable)?;
        lab.veth(&far, INTERFACE, &gateway, "outer", &VethOptions { mtu, ..cable })?;
        gateway.address("outer", &format!("{HERE}/24"))?;
        far.address(INTERFACE, &format!("{THERE}/24"))?;
        let network = Self { host, gateway, far, _lab: lab };
        network.far_device("vx0", VNI, "1500")?;
        for (namespace, device, addresses) in [(&network.host, INTERFACE, HOST), (&network.far, "vx0", FAR)] {
            namespace.address(device, &format!("{}/24", addresses[0]))?;
            namespace.address(device, &format!("{}/64", addresses[1]))?;
        }
        Ok(network)
    }

    /// A VXLAN device of the kernel at the far end.
    fn far_device(&self, name: &str, vni: &str, mtu: &str) -> xfwd_netns::Result<()> {
        let (local, remote, port) = (THERE.to_string(), HERE.to_string(), VXLAN.to_string());
        let kind = ["type", "vxlan", "id", vni, "local", &local, "remote", &remote, "dstport", &port];
        self.far.ip(["link", "add", name, "mtu", mtu].into_iter().chain(kind))?;
        self.far.up(name)
    }

    fn start(&self) -> Example {
        let arguments = ["inner", "outer", VNI, &THERE.to_string(), "2"];
        Example::start(&self.gateway, "vxlan_gateway", &arguments, "tunnelling inner to")
    }
}

/// A network, or the end of the test on a kernel without VXLAN.
macro_rules! network_or_skip {
    ($mtu:expr) => {{
        lab_or_skip!();
        commands_or_skip!("ping", "tshark", "iperf3", "curl");
        match Network::new($mtu) {
            Ok(network) => network,
            Err(error) if error.to_string().contains("Unknown device type") => {
                skip(module_path!(), &Requirement::Kernel("VXLAN devices (CONFIG_VXLAN)".to_owned()));
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }};
}

fn pings(from: &Namespace, to: &str, more: &[&str]) -> bool {
    let mut ping = Command::new("ping");
    from.output(ping.args(["-i", "0.1", "-W", "5"]).args(more).arg(to)).unwrap().status.success()
}

#[test]
fn vxlan_gateway_carries_a_segment_to_the_endpoint_of_the_kernel() {
    let network = network_or_skip!(1_600);
    let (host, far) = (&network.host, &network.far);
    let gateway = network.start();
    let recording = far.run(|| Capture::open(INTERFACE)).unwrap().record();

    let listen = FAR.map(|address| SocketAddr::new(address.parse().unwrap(), PORT));
    let _server = requests::serve_http(far, "far", &listen).unwrap();
    let mac = far.mac("vx0").unwrap().to_string();
    for (index, server) in listen.into_iter().enumerate() {
        let (to, back) = (FAR[index], HOST[index]);
        assert!(pings(host, to, &["-c", "3"]) && pings(far, back, &["-c", "3"]), "{to} and {back}");
        // The largest that the inner MTU allows.
        let bytes = if server.is_ipv4() { "1472" } else { "1452" };
        assert!(pings(host, to, &["-c", "2", "-M", "do", "-s", bytes]), "{bytes} bytes to {to}");
        // ARP and neighbour discovery went through the tunnel, too.
        let found = host.ip(["neigh", "show", "to", to, "dev", INTERFACE]).unwrap();
        assert!(found.contains(&mac), "{found}");
        for _ in 0..8 {
            assert_eq!(curl::get(host, server, "/", PATIENCE).unwrap().server(), "far");
        }
    }
    let frames = recording.stop().unwrap();
    judge(&dissect::assert_frames_well_formed(&frames));

    // Bulk, both ways.
    let address = SocketAddr::new(FAR[0].parse().unwrap(), 5201);
    let _server = iperf3::serve(far, address).unwrap();
    for reverse in [false, true] {
        let kind = iperf3::Kind::Tcp { connections: 4 };
        let amount = iperf3::Amount::For(Duration::from_secs(1));
        let options = iperf3::Options { kind, amount, reverse };
        let sent = iperf3::run(host, address, &options).unwrap();
        assert!(sent.received_bytes > 1 << 20, "{sent:?}");
    }
    // The address of the underlay is still the host's.
    assert!(pings(far, &HERE.to_string(), &["-c", "1"]));
    let said = gateway.stop();
    assert!(said.contains(" 0 too long"), "{said}");
}

/// Every frame that came from the gateway is whole VXLAN.
fn judge(seen: &dissect::Dissected) {
    let tunnelled = |layers: &str| {
        let found: Vec<_> = seen.with_layers(&format!("udp:vxlan:eth:ethertype:{layers}")).collect();
        assert!(!found.is_empty(), "{layers} has been inside");
        found
    };
    let mut ports = BTreeSet::new();
    for layers in ["arp", "ip:icmp", "ip:tcp", "ipv6:icmpv6", "ipv6:tcp"] {
        for packet in tunnelled(layers) {
            assert_eq!(packet.field("vxlan.vni"), Some(VNI), "{packet}");
            assert_eq!(packet.field("vxlan.flags"), Some("0x0800"), "{packet}");
            assert_eq!(packet.field("udp.dstport"), Some("4789"), "{packet}");
            assert_eq!(packet.field("udp.checksum"), Some("0x0000"), "{packet}");
            assert_eq!(packet.field("ip.src"), Some("198.19.0.1"), "{packet}");
            assert_eq!(packet.field("ip.ttl"), Some("64"), "{packet}");
            let number = |text: &str| text.parse::<usize>().unwrap();
            let source = number(packet.field("udp.srcport").unwrap());
            assert!(source >= 49_152, "{packet}");
            let datagram = number(packet.field("udp.length").unwrap());
            assert_eq!(number(packet.field("ip.len").unwrap()), 20 + datagram, "{packet}");
            // What is inside fills it: UDP, VXLAN and Ethernet headers are in between.
            let inside = match layers.split(':').next().unwrap() {
                "ip" => number(packet.fields("ip.len")[1]),
                "ipv6" => 40 + number(packet.field("ipv6.plen").unwrap()),
                _ => 28,
            };
            assert_eq!(datagram, 8 + 8 + 14 + inside, "{packet}");
            if layers == "ip:tcp" {
                ports.insert((source, packet.field("tcp.srcport").unwrap().to_owned()));
            }
        }
    }
    let flows: BTreeSet<_> = ports.iter().map(|(_, flow)| flow).collect();
    let outer: BTreeSet<_> = ports.iter().map(|(port, _)| port).collect();
    assert_eq!(ports.len(), flows.len(), "a flow keeps its port: {ports:?}");
    assert!(outer.len() > flows.len() / 2, "flows have ports of their own: {ports:?}");
}

#[test]
fn vxlan_gateway_drops_what_the_underlay_cannot_carry_and_says_so() {
    let network = network_or_skip!(1_500);
    let gateway = network.start();
    assert!(
        gateway.said().contains("warning: an MTU of 1550 is needed towards 198.19.0.2"),
        "{}",
        gateway.said()
    );
    // 1,450 bytes of IP and 50 more are 1,500.
    let size = |bytes| pings(&network.host, FAR[0], &["-c", "1", "-W", "1", "-M", "do", "-s", bytes]);
    assert!(size("1422"), "it fits");
    assert!(!size("1423"), "one too many");
    assert!(size("56"), "it goes on");
    let said = gateway.stop();
    assert!(said.contains(" 1 too long"), "{said}");
}

#[test]
fn vxlan_gateway_takes_nothing_but_its_network_and_from_nobody_but_the_other_end() {
    let network = network_or_skip!(1_600);
    let (host, far) = (&network.host, &network.far);
    let gateway = network.start();
    assert!(pings(host, FAR[0], &["-c", "1"]));

    // A datagram for a socket of the host, as it would be inside.
    const INSIDE: u16 = 9_000;
    let listener = host.run(|| UdpSocket::bind((HOST[0], INSIDE))).unwrap();
    let inner = |text: &[u8]| {
        let link =
            etherparse::PacketBuilder::ethernet2(far.mac("vx0").unwrap().0, host.mac(INTERFACE).unwrap().0);
        let (from, to): (Ipv4Addr, Ipv4Addr) = (FAR[0].parse().unwrap(), HOST[0].parse().unwrap());
        let mut frame = Vec::new();
        link.ipv4(from.octets(), to.octets(), 64).udp(9_001, INSIDE).write(&mut frame, text).unwrap();
        frame
    };
    let header = |flags, vni| vec![flags, 0, 0, 0, 0, 0, vni, 0];
    far.address(INTERFACE, "198.19.0.3/24").unwrap();
    let socket_of = |address: IpAddr| far.run(|| UdpSocket::bind((address, 0))).unwrap();
    let (right, stranger) = (socket_of(THERE.into()), socket_of("198.19.0.3".parse().unwrap()));
    let mut wrong = 0;
    for (socket, header, frame) in [
        (&right, header(0x08, 43), inner(b"of another network")),
        (&right, header(0, 42), inner(b"without the flag")),
        (&stranger, header(0x08, 42), inner(b"from somebody else")),
        (&right, vec![0x08, 0, 0], Vec::new()),
        (&right, header(0x08, 42), vec![2; 13]),
        (&right, header(0x08, 42), [&[2; 12][..], &[0x81, 0, 0, 5, 8, 0], &[0; 40]].concat()),
        // A network of 24 bits, of which the last eight are right.
        (&right, vec![0x08, 0, 0, 0, 1, 0, 42, 0], inner(b"of yet another network")),
    ] {
        socket.send_to(&[header, frame].concat(), (HERE, VXLAN)).unwrap();
        wrong += 1;
    }
    // Reserved bits are to be ignored. It is sent last, so none of the others has got through.
    right.send_to(&[vec![0xff, 1, 2, 3, 0, 0, 42, 9], inner(b"right")].concat(), (HERE, VXLAN)).unwrap();
    listener.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = listener.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.port()), (&b"right"[..], 9_001));

    let said = gateway.stop();
    let dropped: u32 = said.rsplit(", ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(dropped, wrong, "{said}");
}
