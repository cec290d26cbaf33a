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
/// Bytes of Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 42;

/// What it says when packets are handled.
pub const READY: &str = "receiving on";
/// What stands before the number of packets that it has received, at the end.
pub const RECEIVED: &str = "received ";

/// The number that it has said.
pub fn counted(stdout: &str) -> Option<u64> {
    stdout.lines().find_map(|line| line.strip_prefix(RECEIVED)?.parse().ok())
}

/// Receives every packet of queue 0 until SIGTERM or an error, and says how many it has received. With `reads` it looks at the headers of
/// each, as whoever wants to know what was received has to.
pub fn receive(interface: &str, reads: bool) -> Result<(), Box<dyn std::error::Error>> {
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
        if reads {
            for desc in &batch[..count] {
                // SAFETY: the frame has been received, and is not on the fill ring yet.
                let data = unsafe { umem.data(desc) };
                let sum =
                    data.contents().iter().take(HEADERS).fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
                std::hint::black_box(sum);
            }
        }
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
