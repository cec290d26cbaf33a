//! The promise to aya that the shared types may be read from and written to maps as bytes.
//!
//! It holds for a type that is `repr(C)`, has no padding (whose bytes would be uninitialized memory handed to
//! the kernel), and is valid with any bytes (the kernel may hand back any). All of them are made of integers
//! only, so the last is so; that there is no padding is asserted below, when this module is compiled.

#![allow(unsafe_code)]

use crate::deny::{Bucket, DenySettings};
use crate::filter::{Class, EndpointKey, Entry, FilterSettings, FlowKey, Line, RuleCounter};
use crate::{Gate, Headers, NetworkKey, PortKey, ServiceKey, Settings};

/// Whether fields of these sizes fill the type: then there is no room for padding.
const fn fills<T>(field_bytes: &[usize]) -> bool {
    let mut sum = 0;
    let mut index = 0;
    while index < field_bytes.len() {
        sum += field_bytes[index];
        index += 1;
    }
    sum == size_of::<T>()
}

/// Takes a type apart, so that the list of its fields cannot be out of date, and adds up their sizes.
macro_rules! pod {
    ($type:ident { $($field:ident),* $(,)? }) => {
        const _: () = {
            const fn size_of_field<T>(_: &T) -> usize {
                size_of::<T>()
            }
            const fn field_bytes(value: &$type) -> [usize; [$(stringify!($field)),*].len()] {
                let $type { $($field),* } = value;
                [$(size_of_field($field)),*]
            }
            // SAFETY: only integers, for which zero is a value.
            const ZERO: $type = unsafe { core::mem::zeroed() };
            assert!(fills::<$type>(&field_bytes(&ZERO)), "the type has padding");
        };
        // SAFETY: `repr(C)`, made of integers only, and without padding, as the assertion above proves.
        unsafe impl aya::Pod for $type {}
    };
}

pod!(Settings { steer, room, networks, services });
pod!(ServiceKey { address, port, protocol, scope });
pod!(NetworkKey { length, address });
pod!(PortKey { length, network, protocol, scope, port });
pod!(Gate { closed, fill, shed, rest });
pod!(Headers {
    outcome,
    ip_version,
    protocol,
    fragment,
    vlan_count,
    tcp_flags,
    icmp_type,
    icmp_code,
    vlan_tci,
    ethertype,
    network_offset,
    transport_offset,
    payload_offset,
    src_port,
    dst_port,
    ip_options,
    zero,
    end,
});
pod!(DenySettings { used });
pod!(Bucket { blocks });
pod!(Line { words });
pod!(Class { verdict, sets });
pod!(RuleCounter { packets, bytes });
pod!(FilterSettings {
    active,
    src_v4,
    dst_v4,
    src_v6,
    dst_v6,
    protocols,
    tcp_ports,
    udp_ports,
    sctp_ports,
    endpoints,
    flows,
    entries,
    src_rules,
});
pod!(EndpointKey { address, port, protocol, ip_version });
pod!(FlowKey { src, dst, src_port, dst_port, protocol, ip_version, zero });
pod!(Entry {
    src,
    src_mask,
    dst,
    dst_mask,
    protocols,
    needs,
    src_sets,
    dst_sets,
    length_min,
    length_max,
    verdict,
    effect,
    next,
    src_port,
    dst_port,
    vlan,
    icmp_type,
    icmp_code,
    flags_mask,
    flags,
    zero,
});
