//! Makes packets out of live frames.
//!
//! A frame comes back to the generator as its last receiver left it, so nothing in it can be relied on: all headers are
//! written anew, from a template, and checksums are computed from the template's sum and the fields that vary.
//!
//! Where lengths take turns, frames are as long as the longest, and their tails are cut off: a live frame gets its length
//! back before it is used again.

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS},
    btf_maps::PerCpuArray,
    helpers::{bpf_ktime_get_ns, bpf_redirect, bpf_xdp_adjust_tail},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use xfwd_ebpf_types::{
    latency::BUCKETS,
    trafficgen::{
        GeneratorState, Length, MAX_HEADER_LENGTH, MAX_LENGTHS, MAX_TURNS, MIN_FRAME_LENGTH,
        PACING_FRACTION_BITS,
    },
};

use crate::{fold, latency::record, setting};

#[btf_map]
static STATE: PerCpuArray<GeneratorState, 1> = PerCpuArray::new();

/// How much later than it was due each stamped packet left the generator, in ns.
#[btf_map]
static LATE: PerCpuArray<[u64; BUCKETS], 1> = PerCpuArray::new();

/// The headers (and marker) of every packet, with 0 in the fields that vary.
#[unsafe(no_mangle)]
pub static TEMPLATE: [u64; MAX_HEADER_LENGTH / 8] = [0; MAX_HEADER_LENGTH / 8];
/// How many bytes of the template count; even, as all headers are.
#[unsafe(no_mangle)]
static HEADER_LENGTH: u32 = 0;
/// Where packets go.
#[unsafe(no_mangle)]
pub static IFINDEX: u32 = 0;
/// Number of flows.
#[unsafe(no_mangle)]
static FLOWS: u64 = 1;
/// Number of source addresses that the flows share.
#[unsafe(no_mangle)]
static ADDRESSES: u64 = 1;
/// Low 32 bits of the first source address, host byte order.
#[unsafe(no_mangle)]
static FIRST_ADDRESS: u32 = 0;
/// First source port, or ICMP identifier.
#[unsafe(no_mangle)]
static FIRST_PORT: u32 = 0;
/// Offset of the low 32 bits of the source address.
#[unsafe(no_mangle)]
pub static ADDRESS_AT: u32 = 0;
/// Offset of the source port, or ICMP identifier.
#[unsafe(no_mangle)]
pub static PORT_AT: u32 = 0;
/// Offset of the sequence number.
#[unsafe(no_mangle)]
static SEQUENCE_AT: u32 = 0;
/// Offset of the IPv4 header checksum; 0: IPv6, there is none.
#[unsafe(no_mangle)]
static IP_CHECKSUM_AT: u32 = 0;
/// Sum (RFC 1071) of the IPv4 header in the template.
#[unsafe(no_mangle)]
static IP_SUM: u32 = 0;
/// Offset of the checksum of UDP, TCP or ICMP.
#[unsafe(no_mangle)]
static CHECKSUM_AT: u32 = 0;
/// Sum of what that checksum covers, in the template and the payload behind it.
#[unsafe(no_mangle)]
static SUM: u32 = 0;
/// 1: that checksum covers the source address (all but ICMP in IPv4).
#[unsafe(no_mangle)]
static SUM_HAS_ADDRESS: u32 = 0;
/// 1: UDP, where a computed 0 goes out as 0xffff (RFC 768).
#[unsafe(no_mangle)]
static IS_UDP: u32 = 0;
/// Time between two packets in 1/256 ns; 0: as fast as it goes.
#[unsafe(no_mangle)]
static INTERVAL: u64 = 0;
/// Offset of the time stamp; 0: none.
#[unsafe(no_mangle)]
static STAMP_AT: u32 = 0;
/// How many lengths take turns; 0: all packets have the length of the template.
#[unsafe(no_mangle)]
static TURNS: u64 = 0;
/// Which of `LENGTHS` each turn has.
#[unsafe(no_mangle)]
static ORDER: [u8; MAX_TURNS] = [0; MAX_TURNS];
/// The lengths that take turns.
#[unsafe(no_mangle)]
static LENGTHS: [[u32; Length::WORDS]; MAX_LENGTHS] = [[0; Length::WORDS]; MAX_LENGTHS];
/// Offset of the total or payload length of IP.
#[unsafe(no_mangle)]
static IP_LENGTH_AT: u32 = 0;
/// Offset of the length of UDP; 0: another protocol.
#[unsafe(no_mangle)]
static TRANSPORT_LENGTH_AT: u32 = 0;
/// 1: the frame goes to the host stack of this namespace, where the program `spread` takes it from the interface `lo`.
#[unsafe(no_mangle)]
static SPREAD: u32 = 0;

/// The time of one packet in so many is taken, less one.
const TIMED: u64 = 63;
/// How far the generator may fall behind its rate (while user space prepares the next run, say) and still catch up.
const MAX_LAG: u64 = 200_000_000 << PACING_FRACTION_BITS;
/// How many packets in a row may make up for lost time, as the time that they have at twice the rate. A flush of the interface and what the
/// other end then does take a microsecond in which nothing is made: with one packet a flush, most rates could not be kept.
const BURST: u64 = 4_000 << PACING_FRACTION_BITS;

#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    let Some(state) = STATE.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: the element belongs to this CPU, and user space writes it only between runs.
    let state = unsafe { &mut *state };
    if state.remaining == 0 {
        return XDP_DROP;
    }
    let Some(due_ns) = due(state) else {
        return XDP_DROP;
    };
    let length = length_of(state);
    if cut(&ctx, length).is_none() || write_headers(&ctx, state, length, due_ns).is_none() {
        return XDP_ABORTED;
    }
    advance(state);
    if setting!(SPREAD) != 0 {
        return XDP_PASS;
    }
    let interface = setting!(IFINDEX);
    // SAFETY: the helper takes any number and checks it.
    unsafe { bpf_redirect(interface, 0) as u32 }
}

/// The time at which this packet was due, if pacing lets one go now; its time is used up then. Without pacing it is the
/// present, if anybody asks for it, and 0 otherwise.
#[inline(always)]
fn due(state: &mut GeneratorState) -> Option<u64> {
    let interval = setting!(INTERVAL);
    let stamped = setting!(STAMP_AT) != 0;
    if interval == 0 && !stamped && state.sent & TIMED != 0 && state.remaining != 1 && state.first_ns != 0 {
        return Some(0);
    }
    // SAFETY: the helper has no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if interval == 0 {
        take_time(state, now);
        return Some(now);
    }
    if state.start_ns == 0 {
        state.start_ns = now;
    }
    let elapsed = now.wrapping_sub(state.start_ns) << PACING_FRACTION_BITS;
    // Behind the plan, packets go at no more than twice the rate, in short bursts (the generic cell rate algorithm of ITU-T I.371).
    if elapsed < state.due || elapsed < state.next {
        return None;
    }
    let due_ns = state.start_ns + (state.due >> PACING_FRACTION_BITS);
    state.next = state.next.max(elapsed.saturating_sub(BURST)).wrapping_add(interval / 2);
    state.due = state.due.wrapping_add(interval);
    take_time(state, now);
    if stamped {
        // Nothing is forgiven: each packet says how late it is.
        record(&LATE, now.saturating_sub(due_ns));
    } else if elapsed - state.due.min(elapsed) > MAX_LAG {
        state.due = elapsed - MAX_LAG;
    }
    Some(due_ns)
}

/// Notes when this packet is sent.
#[inline(always)]
fn take_time(state: &mut GeneratorState, now: u64) {
    if state.first_ns == 0 {
        state.first_ns = now;
    }
    state.latest_ns = now;
}

/// The length of this packet, where lengths take turns; otherwise all 0. Not an `Option`: LLVM would carry the fields of
/// `None` along uninitialized, which the verifier refuses.
#[inline(always)]
fn length_of(state: &GeneratorState) -> Length {
    if setting!(TURNS) == 0 {
        return Length::default();
    }
    let turn = state.turn as usize % MAX_TURNS;
    // SAFETY: inside the static by the line above.
    let number = unsafe { (&raw const ORDER).cast::<u8>().add(turn).read_volatile() };
    let number = usize::from(number) % MAX_LENGTHS;
    // SAFETY: inside the static by the line above.
    let [frame, ip, transport, ip_sum, sum] =
        unsafe { (&raw const LENGTHS).cast::<[u32; Length::WORDS]>().add(number).read_volatile() };
    Length { frame, ip, transport, ip_sum, sum }
}

/// Cuts the tail off, down to this length.
#[inline(always)]
fn cut(ctx: &XdpContext, length: Length) -> Option<()> {
    if setting!(TURNS) == 0 {
        return Some(());
    }
    let longer = (ctx.data_end() - ctx.data()) as i32 - length.frame as i32;
    if longer > 0 {
        // SAFETY: the context is the one this program was called with; the helper checks the number.
        let result = unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), -longer) };
        if result != 0 {
            return None;
        }
    }
    Some(())
}

#[inline(always)]
fn write_headers(ctx: &XdpContext, state: &GeneratorState, length: Length, due_ns: u64) -> Option<()> {
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + MIN_FRAME_LENGTH > end {
        return None;
    }
    // SAFETY: the static has these bytes; offsets are multiples of the alignment.
    let template = &raw const TEMPLATE;
    const WORDS: usize = MIN_FRAME_LENGTH / 8;
    let mut index = 0;
    while index < WORDS {
        // SAFETY: below 60 bytes, which the check above has proven to be in the frame; frames are 8-byte aligned.
        unsafe { *((data + index * 8) as *mut u64) = template.cast::<u64>().add(index).read_volatile() };
        index += 1;
    }
    // SAFETY: bytes 56 to 59, as above.
    unsafe { *((data + WORDS * 8) as *mut u32) = template.cast::<u32>().add(WORDS * 2).read_volatile() };
    let header_length = setting!(HEADER_LENGTH) as usize;
    let mut at = MIN_FRAME_LENGTH;
    while at < MAX_HEADER_LENGTH {
        if at < header_length {
            // SAFETY: `at` is even and inside the template.
            let value = unsafe { template.cast::<u16>().add(at / 2).read_volatile() };
            put(data, end, at as u32, value)?;
        }
        at += 2;
    }

    let address = setting!(FIRST_ADDRESS).wrapping_add(state.address as u32);
    let port = setting!(FIRST_PORT).wrapping_add(state.port as u32) & 0xffff;
    let sequence = state.sent as u32;
    put_u32(data, end, setting!(ADDRESS_AT), address)?;
    put(data, end, setting!(PORT_AT), (port as u16).to_be())?;
    put_u32(data, end, setting!(SEQUENCE_AT), sequence)?;

    let (mut ip_sum, mut sum) = (setting!(IP_SUM), setting!(SUM));
    if setting!(TURNS) != 0 {
        (ip_sum, sum) = (length.ip_sum, length.sum);
        put(data, end, setting!(IP_LENGTH_AT), (length.ip as u16).to_be())?;
        let transport_length_at = setting!(TRANSPORT_LENGTH_AT);
        if transport_length_at != 0 {
            put(data, end, transport_length_at, (length.transport as u16).to_be())?;
        }
    }
    let stamp_at = setting!(STAMP_AT);
    if stamp_at != 0 {
        let (high, low) = ((due_ns >> 32) as u32, due_ns as u32);
        put_u32(data, end, stamp_at, high)?;
        put_u32(data, end, stamp_at + 4, low)?;
        sum += (high >> 16) + (high & 0xffff) + (low >> 16) + (low & 0xffff);
    }

    let address_sum = (address >> 16) + (address & 0xffff);
    let ip_checksum_at = setting!(IP_CHECKSUM_AT);
    if ip_checksum_at != 0 {
        put(data, end, ip_checksum_at, (!fold(ip_sum + address_sum)).to_be())?;
    }
    sum += port + (sequence >> 16) + (sequence & 0xffff);
    if setting!(SUM_HAS_ADDRESS) != 0 {
        sum += address_sum;
    }
    let mut checksum = !fold(sum);
    if setting!(IS_UDP) != 0 && checksum == 0 {
        checksum = 0xffff;
    }
    put(data, end, setting!(CHECKSUM_AT), checksum.to_be())
}

/// Counts the packet and chooses the flow of the next one.
#[inline(always)]
fn advance(state: &mut GeneratorState) {
    state.sent += 1;
    state.remaining -= 1;
    state.flow += 1;
    state.address += 1;
    let turns = setting!(TURNS);
    if turns != 0 {
        state.turn += 1;
        if state.turn >= turns {
            state.turn = 0;
        }
    }
    if state.flow >= setting!(FLOWS) {
        state.flow = 0;
        state.address = 0;
        state.port = 0;
    } else if state.address >= setting!(ADDRESSES) {
        state.address = 0;
        state.port += 1;
    }
}

/// Writes two bytes that are in network order already.
#[inline(always)]
fn put(data: usize, end: usize, at: u32, value: u16) -> Option<()> {
    let place = data + at as usize;
    if place + 2 > end {
        return None;
    }
    // SAFETY: inside the frame by the check above; fields of headers are at even offsets.
    unsafe { *(place as *mut u16) = value };
    Some(())
}

/// Writes a number in network order, as two halves since it need not be aligned to more.
#[inline(always)]
fn put_u32(data: usize, end: usize, at: u32, value: u32) -> Option<()> {
    put(data, end, at, ((value >> 16) as u16).to_be())?;
    put(data, end, at + 2, (value as u16).to_be())
}
