//! Counts what arrives, by class, and keeps it from the host stack.

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
    btf_maps::PerCpuArray,
    helpers::bpf_xdp_get_buff_len,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use xfwd_ebpf_types::{
    MAX_VLAN_TAGS,
    trafficgen::{Class, ClassCounters, CounterVerdict, MARKER},
};

use crate::{fold, setting};

#[btf_map]
static CLASSES: PerCpuArray<ClassCounters, { Class::ALL.len() }> = PerCpuArray::new();

/// A [`CounterVerdict`] as number.
#[unsafe(no_mangle)]
static VERDICT: u32 = 0;
/// 1: verify checksums.
#[unsafe(no_mangle)]
static VALIDATE: u32 = 0;
/// TCP is ours if it goes to or comes from this port; 0: any.
#[unsafe(no_mangle)]
static TCP_PORT: u32 = 0;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Longest transport header and payload whose checksum is verified, in 16-bit words: what fits an MTU of 1,500.
const MAX_CHECKED_WORDS: usize = 750;

/// What was found in one packet.
struct Found {
    class: Class,
    ours: bool,
    bad_checksum: bool,
}

#[xdp(frags)]
pub fn count(ctx: XdpContext) -> u32 {
    let found = classify(&ctx);
    let Some(counters) = CLASSES.get_ptr_mut(found.class as u32) else {
        return XDP_ABORTED;
    };
    // SAFETY: the element belongs to this CPU; user space only reads it.
    let counters = unsafe { &mut *counters };
    counters.packets += 1;
    // SAFETY: the context is the one this program was called with.
    counters.bytes += unsafe { bpf_xdp_get_buff_len(ctx.as_ptr().cast()) };
    counters.ours += u64::from(found.ours);
    counters.bad_checksum += u64::from(found.bad_checksum);
    if found.class as u32 == Class::Control as u32 {
        return XDP_PASS;
    }
    const DROP: u32 = CounterVerdict::Drop as u32;
    const DROP_OURS: u32 = CounterVerdict::DropOurs as u32;
    const REFLECT: u32 = CounterVerdict::Reflect as u32;
    match setting!(VERDICT) {
        DROP => XDP_DROP,
        DROP_OURS if found.ours => XDP_DROP,
        REFLECT if found.ours => reflect(&ctx),
        _ => XDP_PASS,
    }
}

/// Swaps the MAC addresses and sends the frame back.
#[inline(always)]
fn reflect(ctx: &XdpContext) -> u32 {
    let Some(addresses) = at::<[[u16; 3]; 2]>(ctx, 0) else {
        return XDP_ABORTED;
    };
    // SAFETY: `at` has checked that the frame has these bytes.
    unsafe { (*addresses).swap(0, 1) };
    XDP_TX
}

#[inline(always)]
fn classify(ctx: &XdpContext) -> Found {
    const CONTROL: Found = Found { class: Class::Control, ours: false, bad_checksum: false };
    let mut offset = 12;
    let mut ethertype = 0;
    let mut tags = 0;
    while tags <= MAX_VLAN_TAGS {
        let Some(found) = u16_at(ctx, offset) else {
            return CONTROL;
        };
        ethertype = found;
        offset += 2;
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            break;
        }
        offset += 2;
        tags += 1;
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(ctx, offset).unwrap_or(CONTROL),
        ETHERTYPE_IPV6 => ipv6(ctx, offset).unwrap_or(CONTROL),
        _ => CONTROL,
    }
}

#[inline(always)]
fn ipv4(ctx: &XdpContext, offset: usize) -> Option<Found> {
    // SAFETY: `at` has checked that the frame has these bytes.
    let header = unsafe { &*at::<[u16; 10]>(ctx, offset)? };
    let multicast = header[8].to_be() >> 12 == 0xe;
    if multicast {
        return None;
    }
    let header_length = usize::from(header[0].to_be() >> 8 & 0xf) * 4;
    if header_length < 20 {
        return None;
    }
    let protocol = header[4].to_be() as u8;
    let length = usize::from(header[1].to_be()).wrapping_sub(header_length);
    let class = match protocol {
        UDP => Class::Ipv4Udp,
        TCP => Class::Ipv4Tcp,
        ICMP => Class::Ipv4Icmp,
        _ => Class::Ipv4Other,
    };
    let mut bad_checksum = false;
    if setting!(VALIDATE) != 0 && header_length == 20 {
        let mut sum = 0;
        for word in header {
            sum += u32::from(*word);
        }
        let pseudo = if protocol == ICMP {
            0
        } else {
            let mut sum = u32::from(u16::from(protocol).to_be()) + u32::from((length as u16).to_be());
            for word in &header[6..] {
                sum += u32::from(*word);
            }
            sum
        };
        bad_checksum = fold(sum) != 0xffff || transport_is_bad(ctx, offset + 20, length, protocol, pseudo);
    }
    Some(Found { class, ours: is_ours(ctx, offset + header_length, protocol), bad_checksum })
}

#[inline(always)]
fn ipv6(ctx: &XdpContext, offset: usize) -> Option<Found> {
    // SAFETY: `at` has checked that the frame has these bytes.
    let header = unsafe { &*at::<[u16; 20]>(ctx, offset)? };
    let multicast = header[12].to_be() >> 8 == 0xff;
    let protocol = (header[3].to_be() >> 8) as u8;
    let neighbour_discovery = protocol == ICMPV6
        && matches!(u16_at(ctx, offset + 40), Some(start) if (133..=137).contains(&(start >> 8)));
    if multicast || neighbour_discovery {
        return None;
    }
    let class = match protocol {
        UDP => Class::Ipv6Udp,
        TCP => Class::Ipv6Tcp,
        ICMPV6 => Class::Ipv6Icmp,
        _ => Class::Ipv6Other,
    };
    let mut bad_checksum = false;
    if setting!(VALIDATE) != 0 {
        let length = usize::from(header[2].to_be());
        let mut pseudo = u32::from(u16::from(protocol).to_be()) + u32::from(header[2]);
        for word in &header[4..] {
            pseudo += u32::from(*word);
        }
        bad_checksum = transport_is_bad(ctx, offset + 40, length, protocol, pseudo);
    }
    Some(Found { class, ours: is_ours(ctx, offset + 40, protocol), bad_checksum })
}

/// Whether a traffic generator made this packet: UDP and ICMP by the marker in the payload, TCP by its port.
#[inline(always)]
fn is_ours(ctx: &XdpContext, transport: usize, protocol: u8) -> bool {
    match protocol {
        UDP | ICMP | ICMPV6 => match at::<[u16; 2]>(ctx, transport + 8) {
            // SAFETY: `at` has checked that the frame has these bytes.
            Some(marker) => {
                let [first, second] = unsafe { *marker };
                first == u16::from_ne_bytes([MARKER[0], MARKER[1]])
                    && second == u16::from_ne_bytes([MARKER[2], MARKER[3]])
            }
            None => false,
        },
        TCP => {
            let port = setting!(TCP_PORT) as u16;
            // Both ports by one check: of two, LLVM makes an OR of pointers, which the verifier refuses.
            match at::<[u16; 2]>(ctx, transport) {
                Some(ports) => {
                    // SAFETY: `at` has checked that the frame has these bytes.
                    let [source, destination] = unsafe { *ports }.map(u16::from_be);
                    port == 0 || source == port || destination == port
                }
                None => false,
            }
        }
        _ => false,
    }
}

/// Whether the checksum of UDP, TCP or ICMP is wrong. `length` is that of header and payload, `pseudo` the sum of the
/// pseudo header in memory byte order (a one's complement sum is right in either, RFC 1071). Packets that do not fit
/// the loop are not judged.
#[inline(always)]
fn transport_is_bad(ctx: &XdpContext, transport: usize, length: usize, protocol: u8, pseudo: u32) -> bool {
    if !matches!(protocol, UDP | TCP | ICMP | ICMPV6) || length > MAX_CHECKED_WORDS * 2 {
        return false;
    }
    if protocol == UDP && matches!(u16_at(ctx, transport + 6), Some(0)) {
        return false;
    }
    let (start, end) = (ctx.data() + transport, ctx.data_end());
    let mut sum = pseudo;
    let mut index = 0;
    while index < MAX_CHECKED_WORDS {
        let place = start + index * 2;
        if index * 2 + 2 <= length {
            if place + 2 > end {
                return false;
            }
            // SAFETY: inside the frame by the check above; headers are at even offsets.
            sum += u32::from(unsafe { *(place as *const u16) });
        } else {
            if index * 2 + 1 == length && place + 1 <= end {
                // SAFETY: inside the frame by the check above.
                sum += u32::from(u16::from_ne_bytes([unsafe { *(place as *const u8) }, 0]));
            }
            break;
        }
        index += 1;
    }
    fold(sum) != 0xffff
}

/// A pointer to a `T` in the frame, if the frame is that long.
#[inline(always)]
fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let place = ctx.data() + offset;
    if place + size_of::<T>() > ctx.data_end() {
        return None;
    }
    Some(place as *mut T)
}

/// Two bytes of the frame in host order.
#[inline(always)]
fn u16_at(ctx: &XdpContext, offset: usize) -> Option<u16> {
    // SAFETY: `at` has checked that the frame has these bytes; callers use even offsets.
    Some(u16::from_be(unsafe { *at::<u16>(ctx, offset)? }))
}
