//! What holds for every packet, however broken: checked by the parser's tests and by the fuzz target.

use xfwd::packet::{FiveTuple, Fragment, Headers, Outcome, flow_hash_of, parse};
use xfwd::stages::filter::Facts;

/// Parses the packet as a whole, and its parts as first buffer of it, and checks what was found.
///
/// # Panics
///
/// When a promise is broken.
pub fn check(packet: &[u8]) {
    let whole = parse(packet, packet.len());
    check_headers(packet, packet.len(), &whole);
    for part in [packet.len() / 2, packet.len().min(60), packet.len().saturating_sub(1)] {
        let linear = &packet[..part];
        check_headers(linear, packet.len(), &parse(linear, packet.len()));
        check_headers(linear, part, &parse(linear, part));
    }
    // Bytes behind the IP packet are padding, whatever they are.
    let longer = [packet, &[0xa5; 7]].concat();
    if whole.end != 0 {
        assert_eq!(parse(&longer, longer.len()), whole, "padding changes something");
    }
}

/// What was found in `linear`, the first buffer of a packet of `len` bytes.
pub fn check_headers(linear: &[u8], len: usize, headers: &Headers) {
    let [network, transport, payload] =
        [headers.network_offset, headers.transport_offset, headers.payload_offset].map(usize::from);
    let outcome = headers.outcome();
    assert!(network <= linear.len() && transport <= linear.len() && payload <= linear.len());
    assert!(headers.end as usize <= len);
    assert!(usize::from(headers.vlan_count) <= headers.vlan_tci.len());
    if payload != 0 {
        assert!(network < transport && transport < payload && payload <= headers.end as usize);
        assert!(!outcome.is_malformed());
    }
    if headers.fragment() == Fragment::Later {
        assert_eq!((transport, headers.src_port, headers.dst_port), (0, 0, 0));
    }
    if transport == 0 {
        assert_eq!((headers.tcp_flags, headers.icmp_type, headers.icmp_code), (0, 0, 0));
    }
    assert!(headers.ip_options <= 1 && headers.zero == [0; 3]);
    let tuple = FiveTuple::of(linear, headers);
    assert_eq!(tuple.is_some(), outcome == Outcome::Ip);
    assert_eq!(tuple.map(|tuple| tuple.flow_hash()), flow_hash_of(linear, headers));
    check_facts(headers, outcome, &Facts::of(linear, headers));
}

/// A fact is had only if the header it comes from is.
fn check_facts(headers: &Headers, outcome: Outcome, facts: &Facts) {
    assert_eq!(facts.malformed, outcome.is_malformed());
    assert_eq!(facts.ip_version, headers.ip_version);
    if facts.ip_version == 0 {
        assert_eq!((facts.src, facts.dst), ([0; 16], [0; 16]));
        assert_eq!(
            (facts.protocol, facts.length, facts.fragment, facts.ip_options),
            (None, None, None, None)
        );
    }
    assert_eq!(facts.length.is_some(), headers.end != 0);
    if facts.protocol.is_none() {
        assert_eq!((facts.ports, facts.tcp_flags, facts.icmp), (None, None, None));
    }
    assert!(facts.tcp_flags.is_none() || facts.ports.is_some());
    assert!(facts.icmp.is_none() || facts.ports.is_none());
    if outcome == Outcome::Ip {
        assert!(facts.protocol.is_some() && facts.fragment.is_some() && facts.ip_options.is_some());
    }
    if outcome == Outcome::NotIp {
        assert!(facts.vlan.is_some());
    }
}
