//! The port of one AF_XDP socket.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use arrayvec::ArrayVec;
use xfwd_ebpf_types::RoomMark;
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue, Umem};

use super::brand::Brand;
use super::fragments::Fragments;
use super::gate::Gate;
use super::kick::{self, Kick};
use crate::hints::prefetch;
use crate::pipeline::{BATCH_SIZE, Span};
use crate::port::{FramePool, InFlight, Port, PortCounters, PortError, Received};

/// Packets that one kick sends in copy mode at least (the kernel's `TX_BATCH_SIZE`): bounds the number of kicks that
/// what is queued can need.
const KICK_BUDGET: u64 = 32;
/// The fill ring is topped up in portions of this size, so that its shared index is not written for every packet.
const REFILL_PORTION: u64 = 64;
/// Most ports of one worker: so many sockets it can wait for.
pub const MAX_PORTS: usize = 16;

/// The right to one frame of one UMEM. Not `Clone`, and made only out of what a ring gave back. It is of use to the ports that
/// were opened together with it, and to no others.
#[repr(transparent)]
pub struct XskFrame(FrameDesc);

impl XskFrame {
    /// The frame of a descriptor that came from a ring of the UMEM with this brand, or was cut out of that UMEM.
    #[inline(always)]
    pub(super) fn new(mut desc: FrameDesc, brand: Brand) -> Self {
        desc.set_options(brand.put_on(desc.options()));
        Self(desc)
    }

    #[inline(always)]
    fn is_of(&self, brand: Brand) -> bool {
        brand.is_on(self.0.options())
    }

    /// Where the frame lies in the UMEM, in bytes from its start.
    pub fn address(&self) -> usize {
        self.0.addr()
    }

    /// The descriptors of some frames, as `xsk-rs` takes them.
    fn descs(frames: &[XskFrame]) -> &[FrameDesc] {
        // SAFETY: `XskFrame` is `repr(transparent)` over `FrameDesc`, so the slices have the same layout.
        unsafe { &*(std::ptr::from_ref(frames) as *const [FrameDesc]) }
    }
}

/// Room in front of the packet in `received`, which is all that was received into a frame.
#[inline(always)]
fn room(mark: RoomMark, received: &[u8]) -> usize {
    let Some(word) = received.first_chunk() else { return 0 };
    match mark.room(u64::from_le_bytes(*word)) {
        // Larger than what was received is no room that a program has made.
        Some(room) if room < received.len() => room,
        _ => 0,
    }
}

/// One AF_XDP socket with its four rings.
pub struct XskPort {
    interface: String,
    queue: u32,
    umem: Umem,
    /// That of all frames of `umem`.
    brand: Brand,
    /// A pool had frames of another UMEM, which cannot be told where it is found.
    met_foreign_frame: bool,
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    fill_size: u64,
    tx_size: u64,
    busy_poll: bool,
    in_flight: InFlight,
    counters: PortCounters,
    scratch: [FrameDesc; BATCH_SIZE],
    fragments: Fragments<XskFrame>,
    room_mark: Option<RoomMark>,
    gate: Option<Gate>,
}

/// The rings of one socket, as `xsk-rs` gives them.
pub(super) struct Rings {
    pub rx: RxQueue,
    pub tx: TxQueue,
    pub fill: FillQueue,
    pub completion: CompQueue,
}

impl XskPort {
    pub(super) fn new(
        interface: &str,
        queue: u32,
        (umem, brand): (Umem, Brand),
        rings: Rings,
        busy_poll: bool,
    ) -> Self {
        let Rings { rx, mut tx, mut fill, completion } = rings;
        Self {
            interface: interface.to_owned(),
            queue,
            umem,
            brand,
            met_foreign_frame: false,
            fill_size: u64::from(fill.nb_free_exact()),
            tx_size: u64::from(tx.nb_free_exact()),
            rx,
            tx,
            fill,
            completion,
            busy_poll,
            in_flight: InFlight::default(),
            counters: PortCounters::default(),
            scratch: [FrameDesc::default(); BATCH_SIZE],
            fragments: Fragments::new(),
            room_mark: None,
            gate: None,
        }
    }

    /// Looks for room in front of received packets, which XDP programs that were loaded with this mark have made
    /// ([`kernel::xdp::room_mark`](crate::kernel::xdp::room_mark)). Without a mark a packet begins where its frame begins.
    pub fn set_room_mark(&mut self, mark: RoomMark) {
        self.room_mark = Some(mark);
    }

    /// Closes the gate of the queue, the port's own, while the rx ring is full. Without one the kernel finds out for each packet.
    pub fn set_gate(&mut self, mut gate: Gate) {
        // Rx and tx ring have the same size.
        gate.set_ring(self.tx_size as u32);
        self.gate = Some(gate);
    }

    /// Name of the interface.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Queue of the interface.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// The socket, to be put into an XSKMAP or asked for its options.
    pub fn socket(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open for as long as `self.rx` holds it.
        unsafe { BorrowedFd::borrow_raw(self.fd()) }
    }

    fn fd(&self) -> RawFd {
        self.rx.fd().as_raw_fd()
    }

    /// Where the bytes of a frame begin in memory.
    #[inline(always)]
    fn start(&self, frame: &XskFrame) -> *const u8 {
        // SAFETY: the frame belongs to this UMEM and is ours: nobody writes to it meanwhile.
        unsafe { self.umem.data(&frame.0) }.contents().as_ptr()
    }

    /// Kicks until the tx ring is empty, nothing moves any more, or what was queued cannot need another kick.
    fn kick(&mut self) -> Result<(), PortError> {
        let mut queued = self.queued();
        let mut kicks_left = queued.div_ceil(KICK_BUDGET) + 1;
        while queued > 0 && kicks_left > 0 && self.tx.needs_wakeup() {
            kicks_left -= 1;
            self.counters.tx_kicks += 1;
            let before = queued;
            match kick::send(self.fd()) {
                Kick::Done => return Ok(()),
                Kick::Again => self.counters.tx_again += 1,
                Kick::DroppedBusy => self.counters.tx_dropped_busy += 1,
                Kick::NoMemory => {
                    self.counters.tx_no_memory += 1;
                    return Ok(());
                }
                Kick::LinkDown => {
                    self.counters.tx_link_down += 1;
                    return Ok(());
                }
                Kick::Unbound => return Err(self.unbound()),
                Kick::Failed(source) => return Err(self.system("sendto", source)),
            }
            queued = self.queued();
            if queued == before {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Frames on the tx ring that the kernel has not taken yet.
    fn queued(&mut self) -> u64 {
        self.tx_size - u64::from(self.tx.nb_free_exact())
    }

    fn unbound(&self) -> PortError {
        PortError::Unbound { interface: self.interface.clone(), queue: self.queue }
    }

    fn foreign(&self) -> PortError {
        PortError::ForeignFrame { interface: self.interface.clone(), queue: self.queue }
    }

    fn system(&self, call: &'static str, source: io::Error) -> PortError {
        PortError::System { interface: self.interface.clone(), queue: self.queue, call, source }
    }
}

impl Port for XskPort {
    type Frame = XskFrame;

    #[inline]
    fn receive(&mut self, received: &mut Received<XskFrame>) {
        let room = received.room().min(BATCH_SIZE);
        if let Some(gate) = &mut self.gate {
            gate.watch(self.rx.nb_avail_exact());
        }
        // SAFETY: the descriptors are overwritten with what the rx ring holds, which are frames of this UMEM: the fill
        // ring was given no other.
        let count = unsafe { self.rx.consume(&mut self.scratch[..room]) };
        self.in_flight.to_fill -= count as u64;
        for index in 0..count {
            // The kernel has given this frame back, so it is ours again.
            let frame = XskFrame::new(self.scratch[index], self.brand);
            if self.room_mark.is_some() {
                // `buffer` reads it: with all of them on their way, it does not wait for each.
                prefetch(self.start(&frame));
            }
            let (len, more) = (frame.0.lengths().data() as u32, frame.0.has_more_frames());
            if more || self.fragments.is_in_packet() {
                self.fragments.add(frame, len, more, received);
            } else {
                received.push(frame, len);
            }
        }
    }

    #[inline]
    fn buffer<'a>(&'a self, frame: &'a mut XskFrame) -> (&'a mut [u8], Span) {
        if !frame.is_of(self.brand) {
            return (&mut [], Span { start: 0, end: 0 });
        }
        let end = frame.0.lengths().data();
        // SAFETY: the frame belongs to this UMEM, as its brand says, and `&mut XskFrame` is the only right to it: neither the
        // kernel nor anything else here touches it.
        let mut data = unsafe { self.umem.data_mut(&mut frame.0) };
        // As long as it can be: what lies behind the packet is the frame's, too.
        data.cursor().set_pos(usize::MAX);
        let bytes = data.contents_mut();
        let (start, capacity) = (bytes.as_mut_ptr(), bytes.len());
        data.cursor().set_pos(end);
        // SAFETY: same bytes as above. Their lifetime is that of the borrow of the frame and of the UMEM, while
        // `DataMut` would tie it to itself.
        let buffer = unsafe { std::slice::from_raw_parts_mut(start, capacity) };
        let start = self.room_mark.map_or(0, |mark| room(mark, &buffer[..end]));
        (buffer, Span { start, end })
    }

    fn place(&self, frame: &mut XskFrame, Span { start, end }: Span) {
        // Another UMEM's frame has an empty buffer.
        let (buffer, _) = self.buffer(frame);
        if start >= end || end > buffer.len() {
            return;
        }
        if start != 0 {
            // A descriptor's address cannot be changed with `xsk-rs`, so the packet goes to where it points.
            buffer.copy_within(start..end, 0);
        }
        // SAFETY: as above: another UMEM's frame has not come here.
        unsafe { self.umem.data_mut(&mut frame.0) }.cursor().set_pos(end - start);
    }

    fn place_new(&self, frame: &mut XskFrame, span: Span) {
        // It may have been one of several frames of a packet that was dropped, and still say so.
        if frame.is_of(self.brand) {
            frame.0.set_options(self.brand.put_on(0));
        }
        self.place(frame, span);
    }

    fn transmit(&mut self, backlog: &mut VecDeque<XskFrame>) -> Result<(), PortError> {
        if self.met_foreign_frame {
            return Err(self.foreign());
        }
        loop {
            let room = self.tx.nb_free(backlog.len().min(self.tx_size as usize) as u32) as usize;
            let offered = backlog.len().min(room);
            let mut count = 0;
            for XskFrame(desc) in backlog.iter_mut().take(offered) {
                if !self.brand.is_on(desc.options()) {
                    break;
                }
                desc.set_options(Brand::take_off(desc.options()));
                count += 1;
            }
            if count == 0 && offered > 0 {
                return Err(self.foreign());
            }
            if count > 0 {
                let (front, back) = backlog.as_slices();
                let front = &front[..front.len().min(count)];
                let back = &back[..count - front.len()];
                // SAFETY: these frames are ours and of this UMEM, and are moved to the kernel: they leave the backlog below.
                let moved = unsafe {
                    self.tx.produce(XskFrame::descs(front)) + self.tx.produce(XskFrame::descs(back))
                };
                debug_assert_eq!(moved, count, "there was room");
                backlog.drain(..moved);
                self.in_flight.to_send += moved as u64;
                self.counters.tx_frames += moved as u64;
            }
            let queued = self.queued();
            if queued == 0 || !self.tx.needs_wakeup() {
                return Ok(());
            }
            self.kick()?;
            // What did not fit may fit now, if the kernel took something.
            if backlog.is_empty() || self.queued() == queued {
                return Ok(());
            }
        }
    }

    #[inline]
    fn complete(&mut self, pool: &mut FramePool<XskFrame>) -> usize {
        let mut total = 0;
        while self.in_flight.to_send > 0 {
            // SAFETY: the descriptors are overwritten with what the completion ring holds, which are frames that
            // were put on a tx ring of this UMEM.
            let count = unsafe { self.completion.consume(&mut self.scratch) };
            for desc in &self.scratch[..count] {
                // The kernel is done with this frame, so it is ours again.
                pool.put(XskFrame::new(*desc, self.brand));
            }
            self.in_flight.to_send -= count as u64;
            total += count;
            if count < self.scratch.len() {
                break;
            }
        }
        self.counters.tx_completed += total as u64;
        total
    }

    #[inline]
    fn refill(&mut self, pool: &mut FramePool<XskFrame>) {
        self.fragments.reclaim(pool);
        // What the kernel has not given back may still be on the fill ring.
        let room = self.fill_size - self.in_flight.to_fill;
        if room >= REFILL_PORTION {
            // The kernel puts a frame on the rx ring before it says that it has taken it off the fill ring, so there
            // may be less room for a moment; and of more than there is room for `produce` takes none at all.
            let room = room.min(self.fill.nb_free(room as u32).into());
            let moved = pool.offer(room as usize, |frames| {
                let own = frames.iter().position(|frame| !frame.is_of(self.brand)).unwrap_or(frames.len());
                self.met_foreign_frame |= own < frames.len();
                // SAFETY: these frames are ours and of this UMEM, and are moved to the kernel: `offer` removes what was
                // produced.
                unsafe { self.fill.produce(XskFrame::descs(&frames[..own])) }
            });
            self.in_flight.to_fill += moved as u64;
        }
        if self.busy_poll || self.fill.needs_wakeup() {
            kick::receive(self.fd());
        }
    }

    fn in_flight(&self) -> InFlight {
        InFlight { held: self.fragments.held(), ..self.in_flight }
    }

    fn counters(&self) -> PortCounters {
        PortCounters { rx_too_many_fragments: self.fragments.given_up(), ..self.counters }
    }

    fn wait(ports: &mut [Self], timeout: Duration) -> Result<(), PortError> {
        if let Some(port) = ports.iter().find(|port| port.met_foreign_frame) {
            return Err(port.foreign());
        }
        let mut fds: ArrayVec<libc::pollfd, MAX_PORTS> = ports
            .iter()
            .map(|port| libc::pollfd { fd: port.fd(), events: libc::POLLIN, revents: 0 })
            .collect();
        let milliseconds = timeout.as_millis() as i32;
        // SAFETY: `fds` is an array of `fds.len()` elements that lives through the call.
        let answer = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, milliseconds) };
        if answer < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                _ => Err(ports[0].system("poll", error)),
            };
        }
        match fds.iter().position(|fd| fd.revents & (libc::POLLERR | libc::POLLNVAL) != 0) {
            Some(index) => Err(ports[index].unbound()),
            None => Ok(()),
        }
    }
}
