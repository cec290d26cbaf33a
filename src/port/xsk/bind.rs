//! Opening sockets: one UMEM, one socket a queue, in the best mode that the user allows.

use std::io;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use thiserror::Error;
use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{FrameDesc, Socket, Umem};

use super::brand::Brand;
use super::options;
use super::port::{MAX_PORTS, Rings, XskFrame, XskPort};
use crate::port::{FramePool, Port};
use crate::words::choices;

/// Bytes of one frame. 4,096 because igb (Linux 7.3) binds in zero-copy with 2,048 as well, and then hands out longer
/// packets in pieces.
pub(super) const FRAME_SIZE: u32 = 4_096;
/// Largest MTU whose packets fit into one buffer on every known driver: a page less 256 bytes of headroom, 320 of
/// `skb_shared_info`, 14 of Ethernet header and 8 of VLAN tags.
pub const MAX_SINGLE_BUFFER_MTU: u32 = 4_096 - 256 - 320 - 14 - 8;
/// How long a queue that was just closed may answer `EBUSY`: the kernel frees a socket's queue after a grace period.
const BUSY_PATIENCE: Duration = Duration::from_millis(1_500);
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// Most packets that one kick is allowed to send in copy mode, where the kernel lets us choose.
const TX_BUDGET: u32 = 1_024;

choices! {
    /// Which mode the user allows.
    #[derive(Default)]
    pub enum Mode {
        /// Zero-copy where the driver has it, else copy. Never generic.
        #[default]
        Auto = "auto",
        /// Zero-copy or nothing.
        ZeroCopy = "zero-copy",
        /// Copy, with the program in the driver.
        Copy = "copy",
        /// Copy, with the program behind the driver (`xdpgeneric`): works everywhere, slowly.
        Generic = "generic",
    }
}

choices! {
    /// In which mode the kernel bound a socket.
    pub enum BoundMode {
        /// The driver writes into the UMEM itself.
        ZeroCopy = "zero-copy",
        /// The kernel copies each packet once.
        Copy = "copy",
        /// The kernel makes an skb first, then copies.
        Generic = "generic",
    }
}

/// One socket to be opened.
#[derive(Clone, Debug)]
pub struct QueueRequest {
    /// Name of the interface.
    pub interface: String,
    /// Queue of the interface.
    pub queue: u32,
    /// Worker that will own the socket.
    pub worker: usize,
}

/// What to open.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// The sockets.
    pub queues: Vec<QueueRequest>,
    /// Number of workers.
    pub workers: usize,
    /// Which mode the user allows.
    pub mode: Mode,
    /// Frames of each socket's share.
    pub frames_per_queue: u32,
    /// Descriptors of an rx or tx ring.
    pub ring_size: u32,
    /// Whether packets may span several frames.
    pub multi_buffer: bool,
    /// Whether to use huge pages when there are enough.
    pub huge_pages: bool,
    /// Whether to ask for busy polling.
    pub busy_poll: bool,
}

/// What one socket got.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct QueueReport {
    /// Name of the interface.
    pub interface: String,
    /// Queue of the interface.
    pub queue: u32,
    /// How the kernel bound it, read back from the kernel.
    pub mode: BoundMode,
    /// Whether packets may span several frames.
    pub multi_buffer: bool,
    /// Packets that one kick may send in copy mode, where the kernel lets us choose.
    pub tx_budget: Option<u32>,
    /// Whether busy polling is on.
    pub busy_poll: bool,
}

/// Sockets ready for traffic: bound, with primed fill rings.
#[non_exhaustive]
pub struct Opened {
    /// For each worker: its ports, in the order of the request.
    pub ports: Vec<Vec<XskPort>>,
    /// For each worker: its frames.
    pub pools: Vec<FramePool<XskFrame>>,
    /// What each socket got, in the order of the request.
    pub reports: Vec<QueueReport>,
    /// Whether the UMEM lies in huge pages.
    pub huge_pages: bool,
    /// Why zero-copy was not had, when it was tried and refused.
    pub zero_copy_refused: Option<String>,
}

/// Why sockets could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The UMEM could not be made.
    #[error(
        "cannot register {} MiB of packet memory (UMEM): {source}; a lower `frames_per_queue` needs less, and \
         CAP_IPC_LOCK or a higher `ulimit -l` lifts the limit on locked memory",
        bytes >> 20
    )]
    Umem {
        /// Its size in bytes.
        bytes: u64,
        /// What the kernel answered.
        source: io::Error,
    },
    /// Another socket has the queue.
    #[error(
        "interface {interface} queue {queue} is in use by another AF_XDP socket; `ss --xdp -p -e` names the process \
         that has it"
    )]
    QueueBusy {
        /// Name of the interface.
        interface: String,
        /// Queue of the interface.
        queue: u32,
    },
    /// `mode = "zero-copy"`, and the driver has none.
    #[error(
        "interface {interface} queue {queue}: the driver refuses zero-copy ({source}); `mode = \"auto\"` or \
         `mode = \"copy\"` would do, with one copy a packet"
    )]
    ZeroCopyRefused {
        /// Name of the interface.
        interface: String,
        /// Queue of the interface.
        queue: u32,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel would not create or bind the socket.
    #[error("interface {interface} queue {queue}: cannot open an AF_XDP socket: {source}")]
    Socket {
        /// Name of the interface.
        interface: String,
        /// Queue of the interface.
        queue: u32,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A number that the kernel, or a worker, does not take.
    #[error("{0}")]
    Size(String),
}

/// Creates the UMEM and the sockets, primes the fill rings, and reads back what the kernel did.
///
/// # Errors
///
/// [`BindError`]; nothing stays open then.
pub fn open(request: &OpenRequest) -> Result<Opened, BindError> {
    check_workers(request)?;
    let mut refused = None;
    if matches!(request.mode, Mode::Auto | Mode::ZeroCopy) {
        match open_patiently(request, BindFlags::XDP_ZEROCOPY) {
            Ok(opened) => return Ok(opened),
            Err(BindError::Socket { interface, queue, source }) if means_no_zero_copy(&source) => {
                if request.mode == Mode::ZeroCopy {
                    return Err(BindError::ZeroCopyRefused { interface, queue, source });
                }
                refused = Some(format!("{interface} queue {queue}: {source}"));
            }
            Err(error) => return Err(error),
        }
    }
    let mut opened = open_patiently(request, BindFlags::XDP_COPY)?;
    opened.zero_copy_refused = refused;
    Ok(opened)
}

fn check_workers(request: &OpenRequest) -> Result<(), BindError> {
    let of_worker = |worker| request.queues.iter().filter(|queue| queue.worker == worker).count();
    for QueueRequest { interface, queue, worker } in &request.queues {
        let (worker, workers) = (*worker, request.workers);
        if worker >= workers {
            let name = format!("interface {interface} queue {queue}");
            return Err(BindError::Size(format!(
                "{name} is for worker {worker} of {workers}, counted from 0"
            )));
        }
        if of_worker(worker) > MAX_PORTS {
            return Err(BindError::Size(format!("worker {worker} has more than {MAX_PORTS} sockets")));
        }
    }
    Ok(())
}

/// A driver without zero-copy answers `EOPNOTSUPP`, some with conditions of their own (virtio without an IOMMU) `EINVAL`.
fn means_no_zero_copy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
}

/// Tries again while a queue is busy, for as long as one that was just closed can be.
fn open_patiently(request: &OpenRequest, flags: BindFlags) -> Result<Opened, BindError> {
    let deadline = Instant::now() + BUSY_PATIENCE;
    loop {
        match open_once(request, flags) {
            Err(BindError::QueueBusy { .. }) if Instant::now() < deadline => std::thread::sleep(BUSY_PAUSE),
            result => return result,
        }
    }
}

fn open_once(request: &OpenRequest, flags: BindFlags) -> Result<Opened, BindError> {
    let brand = Brand::new().ok_or_else(|| {
        BindError::Size(
            "this process has made more packet memories (UMEMs) than can be told apart".to_owned(),
        )
    })?;
    let (umem, descs, huge_pages) = create_umem(request)?;
    let mut ports: Vec<Vec<XskPort>> = (0..request.workers).map(|_| Vec::new()).collect();
    let mut shares: Vec<Vec<XskFrame>> = (0..request.workers).map(|_| Vec::new()).collect();
    let mut reports = Vec::new();

    let mut descs = descs.into_iter();
    for queue in &request.queues {
        let port = open_socket(request, queue, (&umem, brand), flags)?;
        reports.push(set_options(request, queue, &port)?);
        let share = descs.by_ref().take(request.frames_per_queue as usize);
        shares[queue.worker].extend(share.map(|desc| XskFrame::new(desc, brand)));
        ports[queue.worker].push(port);
    }
    let mut pools: Vec<_> = shares.into_iter().map(FramePool::new).collect();
    for (ports, pool) in ports.iter_mut().zip(&mut pools) {
        ports.iter_mut().for_each(|port| port.refill(pool));
    }
    Ok(Opened { ports, pools, reports, huge_pages, zero_copy_refused: None })
}

fn create_umem(request: &OpenRequest) -> Result<(Umem, Vec<FrameDesc>, bool), BindError> {
    let size = |what: &str, value: u32| {
        QueueSize::new(value).map_err(|error| BindError::Size(format!("{what}: {error}")))
    };
    let config = UmemConfig::builder()
        .frame_size(FrameSize::new(FRAME_SIZE).expect("a valid constant"))
        // Twice the rx ring: frames on the rx ring still count as being on the fill ring while its consumer index is stale.
        .fill_queue_size(size("fill ring", request.ring_size.saturating_mul(2))?)
        .comp_queue_size(size("completion ring", request.ring_size.saturating_mul(2))?)
        .build()
        .map_err(|error| BindError::Size(error.to_string()))?;
    let frames = u32::try_from(request.queues.len())
        .ok()
        .and_then(|queues| queues.checked_mul(request.frames_per_queue))
        .ok_or_else(|| {
            let (queues, frames) = (request.queues.len(), request.frames_per_queue);
            BindError::Size(format!("{queues} queues of {frames} frames are more than one UMEM can have"))
        })?;
    let frames = NonZeroU32::new(frames).ok_or_else(|| BindError::Size("no queue to open".to_owned()))?;
    let create = |huge| Umem::new(config, frames, huge);
    if request.huge_pages
        && let Ok((umem, descs)) = create(true)
    {
        return Ok((umem, descs, true));
    }
    match create(false) {
        Ok((umem, descs)) => Ok((umem, descs, false)),
        Err(error) => Err(BindError::Umem {
            bytes: u64::from(frames.get()) * u64::from(FRAME_SIZE),
            source: source_of(&error),
        }),
    }
}

fn open_socket(
    request: &OpenRequest,
    queue: &QueueRequest,
    (umem, brand): (&Umem, Brand),
    mode: BindFlags,
) -> Result<XskPort, BindError> {
    let ring =
        QueueSize::new(request.ring_size).map_err(|error| BindError::Size(format!("ring_size: {error}")))?;
    let mut flags = mode | BindFlags::XDP_USE_NEED_WAKEUP;
    if request.multi_buffer {
        flags |= BindFlags::XDP_USE_SG;
    }
    let config = SocketConfig::builder()
        .rx_queue_size(ring)
        .tx_queue_size(ring)
        .bind_flags(flags)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .build();
    let (interface, id) = (queue.interface.clone(), queue.queue);
    let name: Interface = interface.parse().map_err(|_| BindError::Socket {
        interface: interface.clone(),
        queue: id,
        source: io::Error::from_raw_os_error(libc::ENODEV),
    })?;
    // SAFETY: no program is loaded by libxdp (the flag above), which is what this call asks for when a UMEM is shared.
    let opened = unsafe { Socket::new(config, umem, &name, id) };
    match opened {
        Ok((tx, rx, Some((fill, completion)))) => {
            let rings = Rings { rx, tx, fill, completion };
            Ok(XskPort::new(&interface, id, (umem.clone(), brand), rings, request.busy_poll))
        }
        // Only a queue that this UMEM is bound to already has no rings of its own.
        Ok((_, _, None)) => Err(BindError::QueueBusy { interface, queue: id }),
        Err(error) => {
            let source = source_of(&error);
            Err(match source.raw_os_error() {
                Some(libc::EBUSY) => BindError::QueueBusy { interface, queue: id },
                _ => BindError::Socket { interface, queue: id, source },
            })
        }
    }
}

fn set_options(
    request: &OpenRequest,
    queue: &QueueRequest,
    port: &XskPort,
) -> Result<QueueReport, BindError> {
    let failed =
        |source| BindError::Socket { interface: queue.interface.clone(), queue: queue.queue, source };
    options::close_on_exec(port.socket()).map_err(failed)?;
    let zero_copy = options::is_zero_copy(port.socket()).map_err(failed)?;
    let budget = TX_BUDGET.min(request.ring_size);
    // Older kernels do not know this option: they send 32 packets a kick, and `transmit` kicks again.
    let tx_budget = options::set_tx_budget(port.socket(), budget).is_ok().then_some(budget);
    let busy_poll = request.busy_poll && options::prefer_busy_poll(port.socket()).is_ok();
    Ok(QueueReport {
        interface: queue.interface.clone(),
        queue: queue.queue,
        mode: match (zero_copy, request.mode) {
            (true, _) => BoundMode::ZeroCopy,
            (false, Mode::Generic) => BoundMode::Generic,
            (false, _) => BoundMode::Copy,
        },
        multi_buffer: request.multi_buffer,
        tx_budget: tx_budget.filter(|_| !zero_copy),
        busy_poll,
    })
}

/// The system's error inside an error of `xsk-rs`.
fn source_of(error: &dyn std::error::Error) -> io::Error {
    error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error)
        .map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}
