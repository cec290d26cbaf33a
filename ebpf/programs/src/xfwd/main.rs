//! The XDP program of xfwd: it decides which packets leave the kernel through an AF_XDP socket and which
//! stay with the host network stack.
//!
//! `xfwd_steer` is attached to an interface. `xfwd_parse` never is: tests run it to compare this parser with
//! the one in user space.
//!
//! Whatever goes wrong passes: a packet with broken headers, a queue without a socket, a map that cannot be
//! read. A machine that is managed over the same interface stays reachable, unless it was asked for every frame there is
//! (`steer = "everything"`); then only a queue without a socket passes.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod filter;
mod maps;
mod packet;
mod parse;
mod steer;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

use crate::packet::Packet;

/// Steers or passes one packet, and counts why.
#[xdp(frags)]
pub fn xfwd_steer(context: XdpContext) -> u32 {
    steer::steer(&Packet::new(&context))
}

/// Writes what the parser found to the map `PARSED`; for `BPF_PROG_TEST_RUN`.
#[xdp(frags)]
pub fn xfwd_parse(context: XdpContext) -> u32 {
    let headers = parse::parse(&Packet::new(&context));
    if let Some(parsed) = maps::PARSED.get_ptr_mut(0) {
        // SAFETY: the pointer is the map's only element, which the verifier knows to be as large as Headers.
        unsafe { *parsed = headers };
    }
    xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses a program with an endless loop.
    loop {}
}

/// The kernel keeps some of its functions for programs whose licence is compatible with the GPL, which MIT
/// is; this is how it knows the pair.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
