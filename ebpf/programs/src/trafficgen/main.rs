//! The XDP programs of the lab's traffic generator.
//!
//! * `generate` runs on live frames (`BPF_PROG_RUN` with `BPF_F_TEST_XDP_LIVE_FRAMES`): it writes the headers of the
//!   next packet and redirects the frame to the interface `IFINDEX`.
//! * `spread` is attached to the ingress of `lo`, if queues of the other end are to be chosen: it takes the frames that
//!   `generate` has given to the host stack, and sends each on the queue of its flow.
//! * `count` is attached to an interface, classifies and counts what arrives, and drops it.
//!
//! All settings are read-only globals that user space overrides before loading: the verifier knows their values and
//! removes the branches not taken.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod count;
mod generate;
mod latency;
mod spread;

/// Reads a global that user space may have overridden; without `volatile` the compiler would use the 0 below.
macro_rules! setting {
    ($name:ident) => {
        // SAFETY: a static is always readable.
        unsafe { core::ptr::read_volatile(&raw const $name) }
    };
}
pub(crate) use setting;

/// Adds the carries of a one's complement sum (RFC 1071) that is below 2^32.
#[inline(always)]
pub(crate) fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
