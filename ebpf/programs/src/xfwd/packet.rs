//! Bounds-checked access to the bytes of a packet.
//!
//! A packet may lie in several buffers. Only the first, the linear part, can be read; headers have to be
//! there. The length of the packet is that of all its buffers.

use core::arch::asm;

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use xfwd_ebpf_types::RoomMark;

/// Drivers have no smaller buffers for packets that take several: they hold 2,048 bytes, less what is kept in front and behind.
const MIN_BUFFER: usize = 1_024;

/// One packet, from the Ethernet header on.
pub struct Packet {
    start: usize,
    /// One past the last byte of the linear part.
    linear_end: usize,
    /// What the kernel knows the packet by.
    pub context: *mut xdp_md,
}

impl Packet {
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self { start: context.data(), linear_end: context.data_end(), context: context.ctx }
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

    /// The headers of an IPv4 packet without VLAN tags whose fixed header is there; `None` for any other.
    #[inline(always)]
    pub fn plain_ipv4(&self) -> Option<PlainIpv4<'_>> {
        let headers: &[u8; 34] = self.bytes(0)?;
        let kind = u32::from_ne_bytes([headers[12], headers[13], headers[14], headers[15]]);
        // The ethertype and the IP version, by one load and one comparison: of a mask that the compiler knows it would make three.
        let mut kind = u64::from(kind);
        // SAFETY: arithmetic on a register.
        unsafe { asm!("{0} &= 0xf0ffff", inout(reg) kind, options(pure, nomem, nostack)) };
        (kind == 0x40_0008).then_some(PlainIpv4(headers))
    }

    /// Bytes of such a packet, where they are known without asking the kernel: if it is in one buffer. Else 0.
    ///
    /// One that goes on in a second buffer has filled the first, which is larger than [`MIN_BUFFER`] with every driver; or the
    /// driver puts headers into a buffer of their own, and then the first one ends before the IP packet does. What such a
    /// driver puts there of Ethernet padding is not counted if the IP packet is nothing but headers.
    #[inline(always)]
    pub fn length_at_once(&self, ipv4: &PlainIpv4<'_>) -> u64 {
        let linear = self.linear_end - self.start;
        if linear < MIN_BUFFER && ipv4.end() <= linear { linear as u64 } else { 0 }
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

    /// Puts `room` bytes in front of the packet, the first of which say so, or none where the driver has no more. The
    /// packet's bytes cannot be read afterwards.
    #[inline(always)]
    pub fn make_room(&self, room: u8) {
        // SAFETY: the helper takes the context, which is valid while the program runs.
        if unsafe { bpf_xdp_adjust_head(self.context, -i32::from(room)) } != 0 {
            return;
        }
        // SAFETY: as above.
        let (start, end) = unsafe { ((*self.context).data as usize, (*self.context).data_end as usize) };
        if start + size_of::<u64>() > end {
            // Not reached: the packet is longer, and the room is at its front.
            return;
        }
        // SAFETY: a static is always readable. Without `volatile` the compiler would use the 0 below.
        let mark = RoomMark::new(unsafe { core::ptr::read_volatile(&raw const ROOM_MARK) });
        // SAFETY: the eight bytes from `start` on lie in the linear part, as the verifier proves.
        unsafe { *(start as *mut [u8; 8]) = mark.word(room).to_le_bytes() };
    }
}

/// Ethernet header and fixed IPv4 header, one behind the other.
pub struct PlainIpv4<'a>(&'a [u8; 34]);

impl PlainIpv4<'_> {
    /// The source address.
    #[inline(always)]
    pub fn source(&self) -> u32 {
        u32::from_be_bytes([self.0[26], self.0[27], self.0[28], self.0[29]])
    }

    /// Where the IP packet ends, by its own total length.
    #[inline(always)]
    fn end(&self) -> usize {
        14 + usize::from(u16::from_be_bytes([self.0[16], self.0[17]]))
    }
}

/// The mark of this process; written by user space before the program is loaded.
#[unsafe(no_mangle)]
static ROOM_MARK: u64 = 0;
