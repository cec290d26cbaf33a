//! The smallest bouncer: one AF_XDP socket on queue 0, nothing but `xsk-rs`. Swaps MAC addresses and sends every packet
//! back. It is what `benches/bounce.rs` measures xfwd against.
//!
//! What it leaves out: it stops receiving while its tx ring is full, ends only by a signal, knows one queue, and takes
//! every packet of it from the host.
//!
//! Usage: `bare_xsk_bounce IF`; then send to the other end of the wire, with `xfwd-trafficgen` for example.

use xsk_rs::config::{BindFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{FrameDesc, Socket, Umem};

const FRAMES: u32 = 8_192;
const RING: u32 = 2_048;
const BATCH: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    bounce(&std::env::args().nth(1).ok_or("usage: bare_xsk_bounce IF")?)
}

/// Bounces every packet of queue 0 until an error.
pub fn bounce(interface: &str) -> Result<(), Box<dyn std::error::Error>> {
    let ring = QueueSize::new(RING)?;
    let umem_config =
        UmemConfig::builder().fill_queue_size(QueueSize::new(2 * RING)?).comp_queue_size(ring).build()?;
    let (umem, mut free) = Umem::new(umem_config, FRAMES.try_into()?, false)?;
    let socket_config = SocketConfig::builder()
        .rx_queue_size(ring)
        .tx_queue_size(ring)
        .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    // SAFETY: the UMEM has no other socket.
    let (mut tx, mut rx, rings) = unsafe { Socket::new(socket_config, &umem, &interface.parse()?, 0)? };
    let (mut fill, mut completion) = rings.ok_or("the queue is bound already")?;

    // SAFETY: a frame is on one ring or in one list at a time, and all of them belong to `umem`; so below.
    let primed = unsafe { fill.produce(&free[..2 * RING as usize]) };
    free.drain(..primed);
    println!("bouncing on {interface}");

    let mut batch = [FrameDesc::default(); BATCH];
    let mut done = [FrameDesc::default(); BATCH];
    loop {
        // SAFETY: see above.
        let received = unsafe { rx.poll_and_consume(&mut batch, 100)? };
        for desc in &mut batch[..received] {
            // SAFETY: the frame has just been received, so nobody else has it.
            let mut data = unsafe { umem.data_mut(desc) };
            if let Some((macs, _)) = data.contents_mut().split_at_mut_checked(12) {
                let (destination, source) = macs.split_at_mut(6);
                destination.swap_with_slice(source);
            }
        }
        let mut sent = 0;
        while sent < received {
            // SAFETY: see above.
            sent += unsafe { tx.produce(&batch[sent..received]) };
            if tx.needs_wakeup() {
                tx.wakeup()?;
            }
            // SAFETY: see above.
            let count = unsafe { completion.consume(&mut done) };
            free.extend_from_slice(&done[..count]);
        }
        while free.len() >= BATCH {
            // SAFETY: see above.
            let filled = unsafe { fill.produce(&free[free.len() - BATCH..]) };
            free.truncate(free.len() - filled);
            if filled == 0 {
                break;
            }
        }
    }
}
