//! Bounds-checked access to the bytes of a packet.
//!
//! A packet may lie in several buffers. Only the first, the linear part, can be read; headers have to be
//! there. The length of the packet is that of all its buffers.

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_get_buff_len, programs::XdpContext};

/// One packet, from the Ethernet header on.
pub struct Packet {
    start: usize,
    /// One past the last byte of the linear part.
    linear_end: usize,
    context: *mut xdp_md,
}

impl Packet {
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self {
            start: context.data(),
            linear_end: context.data_end(),
            context: context.ctx,
        }
    }

    /// The receive queue it came by.
    #[inline(always)]
    pub fn queue(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.context).rx_queue_index }
    }

    /// `N` bytes from `offset`, when all of them are in the linear part.
    #[inline(always)]
    pub fn bytes<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let first = self.start + offset;
        if first + N > self.linear_end {
            return None;
        }
        // SAFETY: the bytes from `first` to `first + N` lie between start and end of the linear part, as the
        // verifier proves for every path that gets here; a byte array may be aligned in any way.
        Some(unsafe { &*(first as *const [u8; N]) })
    }

    /// Whether the linear part reaches to `end` (an offset).
    #[inline(always)]
    pub fn is_linear_to(&self, end: usize) -> bool {
        self.start + end <= self.linear_end
    }

    /// Whether the packet, in all its buffers, reaches to `end` (an offset). The helper is called only for
    /// what is not in the linear part.
    #[inline(always)]
    pub fn reaches(&self, end: usize) -> bool {
        // SAFETY: the helper takes the context, which is valid while the program runs.
        self.is_linear_to(end) || end as u64 <= unsafe { bpf_xdp_get_buff_len(self.context) }
    }

    /// Bytes of the packet, in all its buffers.
    #[inline(always)]
    pub fn length(&self) -> u64 {
        // SAFETY: the helper takes the context, which is valid while the program runs.
        unsafe { bpf_xdp_get_buff_len(self.context) }
    }
}
