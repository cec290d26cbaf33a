//! Makes packets out of live frames.
//!
//! A frame comes back to the generator as its last receiver left it, so nothing in it can be relied on: all headers are
//! written anew, from a template, and checksums are computed from the template's sum and the fields that vary.

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP},
    btf_maps::PerCpuArray,
    helpers::{bpf_ktime_get_ns, bpf_redirect},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use xfwd_ebpf_types::trafficgen::{
    GeneratorState, MAX_HEADER_LENGTH, MIN_FRAME_LENGTH, PACING_FRACTION_BITS,
};

use crate::{fold, setting};

#[btf_map]
static STATE: PerCpuArray<GeneratorState, 1> = PerCpuArray::new();

/// The headers (and marker) of every packet, with 0 in the fields that vary.
#[unsafe(no_mangle)]
static TEMPLATE: [u64; MAX_HEADER_LENGTH / 8] = [0; MAX_HEADER_LENGTH / 8];
/// How many bytes of the template count; even, as all headers are.
#[unsafe(no_mangle)]
static HEADER_LENGTH: u32 = 0;
/// Where packets go.
#[unsafe(no_mangle)]
static IFINDEX: u32 = 0;
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
static ADDRESS_AT: u32 = 0;
/// Offset of the source port, or ICMP identifier.
#[unsafe(no_mangle)]
static PORT_AT: u32 = 0;
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

/// How far the generator may fall behind its rate (while user space prepares the next run, say) and still catch up.
const MAX_LAG: u64 = 200_000_000 << PACING_FRACTION_BITS;

#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    let Some(state) = STATE.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: the element belongs to this CPU, and user space writes it only between runs.
    let state = unsafe { &mut *state };
    if state.remaining == 0 || !is_due(state) {
        return XDP_DROP;
    }
    if write_headers(&ctx, state).is_none() {
        return XDP_ABORTED;
    }
    advance(state);
    let interface = setting!(IFINDEX);
    // SAFETY: the helper takes any number and checks it.
    unsafe { bpf_redirect(interface, 0) as u32 }
}

/// Whether pacing lets a packet go now; if so, its time is used up.
#[inline(always)]
fn is_due(state: &mut GeneratorState) -> bool {
    let interval = setting!(INTERVAL);
    if interval == 0 {
        return true;
    }
    // SAFETY: the helper has no arguments.
    let elapsed = unsafe { bpf_ktime_get_ns() }.wrapping_sub(state.start_ns) << PACING_FRACTION_BITS;
    // Behind the plan, packets go at no more than twice the rate instead of in one burst.
    if elapsed < state.due || elapsed < state.last.wrapping_add(interval / 2) {
        return false;
    }
    state.last = elapsed;
    state.due = state.due.wrapping_add(interval);
    if elapsed - state.due.min(elapsed) > MAX_LAG {
        state.due = elapsed - MAX_LAG;
    }
    true
}

#[inline(always)]
fn write_headers(ctx: &XdpContext, state: &GeneratorState) -> Option<()> {
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

    let address_sum = (address >> 16) + (address & 0xffff);
    let ip_checksum_at = setting!(IP_CHECKSUM_AT);
    if ip_checksum_at != 0 {
        put(data, end, ip_checksum_at, (!fold(setting!(IP_SUM) + address_sum)).to_be())?;
    }
    let mut sum = setting!(SUM) + port + (sequence >> 16) + (sequence & 0xffff);
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
