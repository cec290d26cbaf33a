//! What the balancer answers itself, and what it changes in packets that go on.

use etherparse::{SlicedPacket, TransportSlice};
use xfwd::pipeline::DropReason;
use xfwd::stages::balance::{BackendState, BalanceOptions, BalancedService, Forward, NoBackend};

use crate::packets::{
    FAMILIES, Family, Packet, TCP, Transport, UDP, data, from_client, icmp, read_icmp, syn, udp,
};
use crate::rig::{Rig, chosen, mac, nat_options, options, service, web, with};

const FORWARDS: [Forward; 4] = [Forward::Dsr, Forward::Ipip, Forward::Gue, Forward::Nat];

/// Both families over each other where the way takes that.
fn ways() -> impl Iterator<Item = (Forward, Family, Family)> {
    FORWARDS.into_iter().flat_map(|forward| {
        let pairs = FAMILIES.into_iter().flat_map(|client| FAMILIES.map(|backend| (client, backend)));
        pairs
            .filter(move |(client, backend)| !forward.keeps_family() || client.is_ipv4 == backend.is_ipv4)
            .map(move |(client, backend)| (forward, client, backend))
    })
}

fn overhead(forward: Forward, backend: Family) -> usize {
    match forward {
        Forward::Ipip => backend.ip_bytes(),
        Forward::Gue => backend.ip_bytes() + 8,
        _ => 0,
    }
}

fn all_down(mut service: BalancedService, no_backend: NoBackend) -> BalancedService {
    service.no_backend = no_backend;
    service.backends.iter_mut().for_each(|backend| backend.state = BackendState::Down);
    service
}

#[test]
fn without_a_backend_a_flow_is_dropped_or_refused() {
    for (forward, family) in
        [Forward::Dsr, Forward::Nat].into_iter().flat_map(|way| FAMILIES.map(|f| (way, f)))
    {
        let services = |no_backend| {
            let dns = with(service(family.vip(), UDP, 53, forward), family, 0..3);
            [web(family, forward), dns].map(|service| all_down(service, no_backend))
        };
        let mut rig = Rig::new(services(NoBackend::Drop));
        for packet in [syn(family, 1_024), udp(family, 1_024)] {
            rig.pass(&packet.bytes()).assert_dropped(DropReason::NoBackend);
        }

        let mut rig = Rig::new(services(NoBackend::Reject));
        let asked = syn(family, 1_024);
        let out = rig.pass(&asked.bytes());
        out.assert_answered();
        let answer = SlicedPacket::from_ethernet(&out.bytes).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = answer.transport else { panic!("no TCP") };
        assert!(tcp.rst() && tcp.acknowledgment_number() == 1_001 + asked.payload.len() as u32);
        assert_eq!((tcp.source_port(), tcp.destination_port()), (80, 1_024));

        let asked = udp(family, 1_024);
        let out = rig.pass_at(0, 0, 48, &asked.bytes());
        out.assert_answered();
        let unreachable = if family.is_ipv4 { (3, 3) } else { (1, 4) };
        assert_eq!(read_icmp(&out.bytes), (family.vip(), family.client(), unreachable, 0, asked.ip()));
        let refused: u64 = rig.control.stage_counters().map(|side| side.answers.refused.get()).sum();
        assert_eq!(refused, 2);
    }
}

#[test]
fn a_packet_without_a_hop_left_is_answered_unless_it_only_passes_the_link() {
    for (forward, client, backend) in ways() {
        let mut rig = Rig::new([with(service(client.vip(), TCP, 80, forward), backend, 0..3)]);
        for room in [0, 64] {
            let packet = Packet { hops: 1, ..syn(client, 1_024) };
            let out = rig.pass_at(0, 0, room, &packet.bytes());
            if forward == Forward::Dsr {
                out.backend();
                continue;
            }
            out.assert_answered();
            let exceeded = if client.is_ipv4 { (11, 0) } else { (3, 0) };
            let expected = (client.vip(), client.client(), exceeded, 0, packet.ip());
            assert_eq!(read_icmp(&out.bytes), expected, "{forward:?}");
        }
    }
}

#[test]
fn a_packet_without_a_hop_left_that_is_too_big_as_well_has_no_hop_left() {
    let mut rig = Rig::new([web(FAMILIES[0], Forward::Ipip)]);
    let packet = Packet { hops: 1, payload: vec![0; 1_460], ..data(FAMILIES[0], 1_024) };
    assert_eq!(read_icmp(&rig.pass(&packet.bytes()).bytes).2, (11, 0));
}

#[test]
fn a_packet_that_is_too_big_for_its_way_is_answered_with_the_size_that_is_not() {
    for (forward, client, backend) in ways() {
        let mut rig = Rig::new([with(service(client.vip(), TCP, 80, forward), backend, 0..3)]);
        let fits = 1_500 - overhead(forward, backend);
        let of_size =
            |bytes: usize| Packet { payload: vec![7; bytes - client.ip_bytes() - 20], ..data(client, 1_024) };
        for room in [0, 64] {
            let what = format!("{forward:?} {client:?} over {backend:?}");
            let out = rig.pass_at(0, 0, room, &of_size(fits).bytes());
            out.backend();
            let packet = of_size(fits + 1);
            let out = rig.pass_at(0, 0, room, &packet.bytes());
            out.assert_answered();
            let (from, to, kind, word, quoted) = read_icmp(&out.bytes);
            let too_big = if client.is_ipv4 { (3, 4) } else { (2, 0) };
            assert_eq!((from, to, kind), (client.vip(), client.client(), too_big), "{what}");
            assert_eq!(word as usize, fits, "{what}");
            assert!(!quoted.is_empty() && out.bytes.len() <= 14 + 1_280);
        }
        let counted: u64 = rig.control.stage_counters().map(|side| side.answers.too_big.get()).sum();
        assert_eq!(counted, 2);
    }
}

#[test]
fn a_packet_that_may_be_fragmented_and_is_too_big_is_dropped_since_nobody_would_listen() {
    let mut rig = Rig::new([web(FAMILIES[0], Forward::Ipip)]);
    let mut bytes = Packet { payload: vec![7; 1_450], ..data(FAMILIES[0], 1_024) }.bytes();
    bytes[20] = 0;
    let mut ip = etherparse::Ipv4Header::from_slice(&bytes[14..]).unwrap().0;
    ip.header_checksum = ip.calc_header_checksum();
    bytes[14..34].copy_from_slice(&ip.to_bytes());
    rig.pass(&bytes).assert_dropped(DropReason::TooBig);
}

#[test]
fn the_maximum_segment_size_of_a_syn_is_limited_by_every_way_and_that_of_a_syn_ack_by_nat() {
    for (forward, client, backend) in ways() {
        let limited = BalancedService {
            mss: Some(1_300),
            ..with(service(client.vip(), TCP, 80, forward), backend, 0..3)
        };
        let mut rig = Rig::new([limited]);
        for (flags, announced, expected) in [("S", 1_460, 1_300), ("S", 900, 900), ("A", 1_460, 1_460)] {
            let packet = from_client(client, 1_024, 80, Transport::Tcp(flags, Some(announced)));
            let out = rig.pass(&packet.bytes());
            assert_eq!(mss(&out.bytes, client), expected, "{forward:?} {flags}");
            if forward != Forward::Nat {
                continue;
            }
            let reply = crate::nat::reply_to(&out.bytes, Transport::Tcp("SA", Some(1_460)));
            let back = rig.pass_at(0, (out.backend() % 2) as u8, 0, &reply.bytes());
            assert_eq!(mss(&back.bytes, client), 1_300, "SYN-ACK");
        }
    }
}

/// The maximum segment size of the innermost TCP header; its checksum is right.
fn mss(bytes: &[u8], client: Family) -> u16 {
    let tcp_bytes = 24 + b"what the client says".len();
    let ip = &bytes[bytes.len() - client.ip_bytes() - tcp_bytes..];
    let sliced = SlicedPacket::from_ip(ip).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
    let header = tcp.to_header();
    let checksum = match sliced.net.unwrap() {
        etherparse::NetSlice::Ipv4(ip) => {
            tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
        }
        etherparse::NetSlice::Ipv6(ip) => {
            tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
        }
        _ => panic!("no IP"),
    };
    assert_eq!(header.checksum, checksum.unwrap());
    let size = header.options_iterator().find_map(|option| match option {
        Ok(etherparse::TcpOptionElement::MaximumSegmentSize(size)) => Some(size),
        _ => None,
    });
    size.unwrap()
}

#[test]
fn a_vip_answers_pings_and_no_other_address_does() {
    for family in FAMILIES {
        let mut rig = Rig::new([web(family, Forward::Ipip)]);
        let (request, reply) = if family.is_ipv4 { ((8, 0), (0, 0)) } else { ((128, 0), (129, 0)) };
        for room in [0, 64] {
            let asked = icmp(family.client(), family.vip(), request, 0x0007_0009, b"ping");
            let out = rig.pass_at(0, 0, room, &asked);
            out.assert_answered();
            let expected = (family.vip(), family.client(), reply, 0x0007_0009, b"ping".to_vec());
            assert_eq!(read_icmp(&out.bytes), expected);
        }
        let other = icmp(family.client(), family.router(), request, 7, b"ping");
        assert_eq!(rig.pass(&other).verdict, xfwd::pipeline::Verdict::Continue);
        let reply = icmp(family.client(), family.vip(), reply, 7, b"ping");
        assert_eq!(rig.pass(&reply).verdict, xfwd::pipeline::Verdict::Continue);
    }
}

#[test]
fn answers_are_limited_and_those_not_given_are_counted() {
    let family = FAMILIES[0];
    let options = BalanceOptions { answers_per_second: 100, ..nat_options(1) };
    let mut rig = Rig::with(options, [web(family, Forward::Dsr)]);
    let ping = icmp(family.client(), family.vip(), (8, 0), 1, b"ping");
    let answered = (0..50).filter(|_| rig.pass(&ping).verdict == xfwd::pipeline::Verdict::Bounce).count();
    assert_eq!(answered, 10, "a tenth of a second's at once");
    rig.pass(&ping).assert_dropped(DropReason::NotAnswered);
    let suppressed: u64 = rig.control.stage_counters().map(|side| side.answers.suppressed.get()).sum();
    assert_eq!(suppressed, 41);
}

#[test]
fn a_packet_in_several_buffers_goes_on_if_there_is_room_in_front() {
    use xfwd::pipeline::Span;
    for (forward, client, backend) in ways() {
        let service = with(service(client.vip(), TCP, 80, forward), backend, 0..1);
        let mut rig = Rig::with(nat_options(1), [service]);
        let far = crate::rig::egress(backend, 0);
        rig.control
            .set_egress([(backend.backend(0), Some(xfwd::stages::balance::Egress { mtu: 9_000, ..far }))]);
        let packet = Packet { payload: vec![7; 5_000], ..data(client, 1_024) };
        let whole = packet.bytes();
        for room in [0, 64] {
            let mut buffer = [vec![0xaa; room], whole[..2_000].to_vec()].concat();
            let span = Span { start: room, end: room + 2_000 };
            let out = rig.pass_buffer(0, 0, &mut buffer, span, whole.len());
            if room == 0 && overhead(forward, backend) > 0 {
                out.assert_dropped(DropReason::NoRoom);
            } else {
                assert_eq!((out.backend(), &out.bytes[..6]), (0, &mac(0)[..]), "{forward:?} {client:?}");
                assert_eq!(out.bytes.len(), 2_000 + overhead(forward, backend));
            }
        }
    }
}

#[test]
fn nat_without_a_pool_drops_and_a_tunnel_without_an_own_address_too() {
    let family = FAMILIES[0];
    let mut rig = Rig::with(options(1), [web(family, Forward::Nat)]);
    rig.pass(&syn(family, 1_024).bytes()).assert_dropped(DropReason::NoSession);
    let service = web(family, Forward::Gue);
    let mut rig = Rig::new([service.clone()]);
    let backend = chosen(&service, family, &syn(family, 1_024).tuple());
    let hop = xfwd::stages::balance::Egress { source: None, ..crate::rig::egress(family, backend) };
    rig.control.set_egress([(family.backend(backend), Some(hop))]);
    rig.pass(&syn(family, 1_024).bytes()).assert_dropped(DropReason::NoNeighbour);
}
