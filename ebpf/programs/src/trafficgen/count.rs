//! Counts what arrives, by class, and keeps it from the host stack.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
    btf_maps::PerCpuArray,
    helpers::{bpf_ktime_get_ns, bpf_xdp_get_buff_len},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use xfwd_ebpf_types::{
    MAX_VLAN_TAGS,
    latency::BUCKETS,
    trafficgen::{Class, ClassCounters, CounterVerdict, MARKER, MARKER_LENGTH},
};

use crate::{fold, latency::record, setting};

#[btf_map]
static CLASSES: PerCpuArray<ClassCounters, { Class::ALL.len() }> = PerCpuArray::new();

/// How long ago each stamped packet was due, in ns.
#[btf_map]
static LATENCY: PerCpuArray<[u64; BUCKETS], 1> = PerCpuArray::new();

/// A [`CounterVerdict`] as number.
#[unsafe(no_mangle)]
static VERDICT: u32 = 0;
/// 1: verify checksums.
#[unsafe(no_mangle)]
static VALIDATE: u32 = 0;
/// TCP is ours if it goes to or comes from this port; 0: any.
#[unsafe(no_mangle)]
static TCP_PORT: u32 = 0;

/// 1: our UDP and ICMP packets have a time stamp, and how long they took is kept.
#[unsafe(no_mangle)]
static STAMPED: u32 = 0;

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
    /// Offset of the transport header.
    transport: usize,
    ours: bool,
    protocol: u8,
    /// Bytes of the transport header and what is behind it.
    length: usize,
    /// Sum of the pseudo header, in memory byte order.
    pseudo: u32,
    bad_checksum: bool,
}

#[xdp(frags)]
pub fn count(ctx: XdpContext) -> u32 {
    let found = forget_path(&ctx, classify(&ctx));
    let bad_checksum = found.bad_checksum || transport_is_bad(&ctx, &found);
    let Some(counters) = CLASSES.get_ptr_mut(found.class as u32) else {
        return XDP_ABORTED;
    };
    // SAFETY: the element belongs to this CPU; user space only reads it.
    let counters = unsafe { &mut *counters };
    counters.packets += 1;
    // SAFETY: the context is the one this program was called with.
    counters.bytes += unsafe { bpf_xdp_get_buff_len(ctx.as_ptr().cast()) };
    counters.ours += u64::from(found.ours);
    counters.bad_checksum += u64::from(bad_checksum);
    if found.class as u32 == Class::Control as u32 {
        return XDP_PASS;
    }
    if setting!(STAMPED) != 0 && found.ours && is_stamped(found.class) {
        if let Some(stamp) = at::<[u16; 4]>(&ctx, found.transport + 8 + MARKER_LENGTH) {
            let mut due = 0;
            // SAFETY: `at` has checked that the frame has these bytes.
            for word in unsafe { *stamp } {
                due = due << 16 | u64::from(u16::from_be(word));
            }
            // SAFETY: the helper has no arguments.
            record(&LATENCY, unsafe { bpf_ktime_get_ns() }.saturating_sub(due));
        }
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

/// Whether packets of this class can have a time stamp.
#[inline(always)]
fn is_stamped(class: Class) -> bool {
    matches!(class, Class::Ipv4Udp | Class::Ipv4Icmp | Class::Ipv6Udp | Class::Ipv6Icmp)
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

/// What was found, unchanged; the verifier then knows no more about it than how large it is.
///
/// What is constant in each way in which headers can follow one another would make it go through the checksum's loop and all
/// that is behind it once for each of them, and give up. Where neither checksums nor stamps are asked for there is nothing
/// to forget.
#[inline(always)]
fn forget_path(ctx: &XdpContext, found: Found) -> Found {
    if setting!(VALIDATE) == 0 && setting!(STAMPED) == 0 {
        return found;
    }
    let unknown = u64::from(ctx.rx_queue_index());
    let forget = |mut value: u64| {
        // SAFETY: arithmetic on registers; the two instructions undo each other. The compiler would see it of an
        // expression, and leave both out.
        unsafe {
            asm!(
                "{0} ^= {1}",
                "{0} ^= {1}",
                inout(reg) value,
                in(reg) unknown,
                options(pure, nomem, nostack),
            );
        }
        value
    };
    Found {
        // Ethernet, two tags and the longest header of IPv4 are 82 bytes: it can be added to a packet pointer.
        transport: forget(found.transport as u64) as usize & 0x7f,
        ours: forget(found.ours.into()) & 1 != 0,
        protocol: forget(found.protocol.into()) as u8,
        length: forget(found.length as u64) as usize & 0xffff,
        pseudo: forget(found.pseudo.into()) as u32,
        bad_checksum: forget(found.bad_checksum.into()) & 1 != 0,
        ..found
    }
}

#[inline(always)]
fn classify(ctx: &XdpContext) -> Found {
    const CONTROL: Found = Found {
        class: Class::Control,
        transport: 0,
        ours: false,
        protocol: 0,
        length: 0,
        pseudo: 0,
        bad_checksum: false,
    };
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
    let (mut pseudo, mut bad_checksum) = (0, false);
    if setting!(VALIDATE) != 0 {
        let mut sum = 0;
        for word in header {
            sum += u32::from(*word);
        }
        // Options are not summed up.
        bad_checksum = header_length == 20 && fold(sum) != 0xffff;
        if protocol != ICMP {
            pseudo = u32::from(u16::from(protocol).to_be()) + u32::from((length as u16).to_be());
            for word in &header[6..] {
                pseudo += u32::from(*word);
            }
        }
    }
    Some(Found {
        class,
        transport: offset + header_length,
        ours: is_ours(ctx, offset + header_length, protocol),
        protocol,
        length,
        pseudo,
        bad_checksum,
    })
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
    let mut pseudo = 0;
    if setting!(VALIDATE) != 0 {
        pseudo = u32::from(u16::from(protocol).to_be()) + u32::from(header[2]);
        for word in &header[4..] {
            pseudo += u32::from(*word);
        }
    }
    Some(Found {
        class,
        transport: offset + 40,
        ours: is_ours(ctx, offset + 40, protocol),
        protocol,
        length: usize::from(header[2].to_be()),
        pseudo,
        bad_checksum: false,
    })
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

/// Whether the checksum of UDP, TCP or ICMP is wrong, if that is asked for. The sum of the pseudo header is in memory byte
/// order (a one's complement sum is right in either, RFC 1071). Packets that do not fit the loop are not judged.
#[inline(always)]
fn transport_is_bad(ctx: &XdpContext, found: &Found) -> bool {
    let Found { transport, length, protocol, pseudo, .. } = *found;
    if setting!(VALIDATE) == 0
        || !matches!(protocol, UDP | TCP | ICMP | ICMPV6)
        || length > MAX_CHECKED_WORDS * 2
    {
        return false;
    }
    if protocol == UDP && matches!(u16_at(ctx, transport + 6), Some(0)) {
        return false;
    }
    let (start, end) = (ctx.data() + transport, ctx.data_end());
    let mut sum = u32::from(fold(pseudo));
    let mut index = 0;
    while index < MAX_CHECKED_WORDS {
        let place = start + index * 2;
        if index * 2 + 2 <= length {
            if place + 2 > end {
                return false;
            }
            // Folded each time: with a sum that grows the verifier would look at everything behind the loop anew for
            // every length.
            // SAFETY: inside the frame by the check above; headers are at even offsets.
            sum = (sum & 0xffff) + (sum >> 16) + u32::from(unsafe { *(place as *const u16) });
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
