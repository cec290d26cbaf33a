//! The smallest receiver: as `examples/bare_xsk_bounce.rs`, but every packet is dropped by giving its frame back to the fill ring.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use signal_hook::consts::SIGTERM;
use xsk_rs::config::{BindFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{FrameDesc, Socket, Umem};

const FRAMES: u32 = 4_096;
const RING: u32 = 2_048;
const BATCH: usize = 64;
const TIMEOUT_MS: i32 = 100;

/// What it says when packets are handled.
pub const READY: &str = "receiving on";
/// What stands before the number of packets that it has received, at the end.
pub const RECEIVED: &str = "received ";

/// Receives every packet of queue 0 until SIGTERM or an error, and says how many it has received.
pub fn receive(interface: &str) -> Result<(), Box<dyn std::error::Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, Arc::clone(&stop))?;
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
    let (_tx, mut rx, rings) = unsafe { Socket::new(socket_config, &umem, &interface.parse()?, 0)? };
    let (mut fill, _completion) = rings.ok_or("the queue is bound already")?;
    // SAFETY: a frame is on one ring or in one list at a time, and all of them belong to `umem`; so below.
    let primed = unsafe { fill.produce(&free) };
    free.drain(..primed);
    println!("{READY} {interface}");

    let mut batch = [FrameDesc::default(); BATCH];
    let mut received = 0_u64;
    while !stop.load(Relaxed) {
        // SAFETY: see above.
        let count = match unsafe { rx.poll_and_consume(&mut batch, TIMEOUT_MS) } {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        received += count as u64;
        let mut given = 0;
        while given < count {
            // The fill ring has room for every frame there is.
            // SAFETY: see above.
            given += unsafe { fill.produce(&batch[given..count]) };
        }
    }
    println!("{RECEIVED}{received}");
    Ok(())
}
