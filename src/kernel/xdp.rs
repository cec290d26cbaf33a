//! The XDP program of one interface and its maps: loading, attaching, steering, counters.
//!
//! [`Steering`] says which packets leave the kernel and is plain data. [`XdpProgram`] puts it into the
//! kernel:
//!
//! 1. [`XdpProgram::load`] creates the maps, fills them and loads the program; no packet is touched yet.
//! 2. AF_XDP sockets are bound and their fill rings primed (elsewhere), then [`XdpProgram::insert_socket`]
//!    puts each under its queue.
//! 3. [`XdpProgram::attach`] lets packets through the program, as the last step: from then on they can be
//!    received.
//!
//! A queue without a socket passes its packets to the host network stack. Dropping the program detaches it,
//! and so does the end of the process, however it comes about: the attachment is a bpf_link that lives as
//! long as its file descriptor.
//!
//! The program needs Linux 5.18, for packets in several buffers. Its source is `ebpf/programs/src/xfwd`; the
//! object built from it is part of this library.

mod attachment;
mod batch;
mod counters;
mod deny;
mod error;
mod filter;
mod gates;
mod room;
mod services;
mod steering;
mod tables;
mod test_run;
mod variable;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, PerCpuArray, XskMap},
    programs::{ProgramError, Xdp},
};
use xfwd_ebpf_types::{Cause, MAX_QUEUES};

pub(in crate::kernel) use self::services::{Numbers, Wanted, compile};
use self::{attachment::Attachment, error::is_refused, filter::FilterMaps, gates::Gates, tables::Tables};
pub use self::{
    attachment::XdpMode,
    counters::KernelCounters,
    deny::DenyMaps,
    error::XdpError,
    filter::RuleCount,
    room::room_mark,
    steering::{SteeredKind, SteeredService, Steering, address_key, service_key},
    test_run::XdpAction,
};
use super::filter::KernelPlan;

/// The object that `scripts/build-ebpf` builds.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/ebpf/objects/xfwd.bpf.o"));

/// Name of the program that is attached, as `bpftool prog` shows it.
pub const PROGRAM_NAME: &str = "xfwd_steer";

/// Loaded maps and program of one interface. Dropping it detaches the program.
pub struct XdpProgram {
    // Declared first and so dropped first: packets stop coming before the maps go.
    attachment: Option<Attachment>,
    sockets: XskMap<MapData>,
    gates: Gates,
    tables: Tables,
    filter: FilterMaps,
    counters: PerCpuArray<MapData, u64>,
    deny_multiplier: u64,
    object: Ebpf,
}

impl XdpProgram {
    /// Creates the maps, fills them by `steering`, and loads the program, without a filter. Nothing is attached yet.
    ///
    /// # Errors
    ///
    /// As [`load_with`](Self::load_with).
    pub fn load(steering: &Steering) -> Result<Self, XdpError> {
        Self::load_with(steering, &KernelPlan::default())
    }

    /// Creates the maps, fills them by `steering` and `filter`, and loads the program. Nothing is attached yet.
    ///
    /// # Errors
    ///
    /// [`XdpError::NotPermitted`] without CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (or root),
    /// [`XdpError::KernelTooOld`] before Linux 5.18, [`XdpError::MapFull`] for more services or addresses
    /// than the maps hold, [`XdpError::RulesRefused`] where the kernel takes the program only without rules,
    /// [`XdpError::Load`] otherwise.
    pub fn load_with(steering: &Steering, filter: &KernelPlan) -> Result<Self, XdpError> {
        let mut loader = EbpfLoader::new();
        filter::size(&mut loader, filter);
        let has_rules = u32::from(!filter.places.is_empty());
        loader.override_global("FILTER_HAS_RULES", &has_rules, true);
        let source_verdicts = filter::source_verdicts(filter);
        loader.override_global("FILTER_SRC_VERDICTS", &source_verdicts, true);
        let deny_multiplier = deny::multiplier();
        loader.override_global("DENY_MULTIPLIER", &deny_multiplier, true);
        let room_mark = room_mark().word(0);
        loader.override_global("ROOM_MARK", &room_mark, true);
        // The program reads no structure of the kernel, so nothing of it is relocated by the kernel's own BTF, which takes
        // longer to read than all the rest takes (seconds in an emulated machine).
        let mut object = loader.btf(None).load(OBJECT).map_err(|source| XdpError::loading(source.into()))?;
        deny::place(&mut object)?;
        let mut program = Self {
            attachment: None,
            sockets: take_map(&mut object, "XSKS")?,
            gates: Gates::take(&mut object)?,
            tables: Tables::new(&mut object)?,
            filter: FilterMaps::new(&mut object, filter)?,
            counters: take_map(&mut object, "COUNTERS")?,
            deny_multiplier,
            object,
        };
        program.tables.apply(steering)?;
        let steer = program.program_mut(PROGRAM_NAME)?;
        steer.load().map_err(|source| {
            // The verifier's answer to a program that takes too long to follow.
            if has_rules != 0 && is_refused(&source, libc::E2BIG) {
                XdpError::RulesRefused { source: source.into() }
            } else {
                XdpError::loading(source.into())
            }
        })?;
        Ok(program)
    }

    /// Puts an AF_XDP socket under the receive queue it is bound to; one that is there already is replaced at
    /// once, with no packet passing in between. The kernel drops packets when the socket is bound to another
    /// queue or interface.
    ///
    /// The kernel keeps a reference: close the socket or [remove](Self::remove_socket) it to free the queue.
    ///
    /// # Errors
    ///
    /// [`XdpError::QueueTooHigh`] from queue [`MAX_QUEUES`] on, [`XdpError::Map`] when `socket` is no AF_XDP
    /// socket.
    pub fn insert_socket(&mut self, queue: u32, socket: &impl AsRawFd) -> Result<(), XdpError> {
        if queue >= MAX_QUEUES {
            return Err(XdpError::QueueTooHigh { queue });
        }
        self.sockets
            .set(queue, socket.as_raw_fd(), 0)
            .map_err(|source| XdpError::map("XSKS", format!("queue {queue}"), source))
    }

    /// Takes the socket of a queue away: its packets pass to the host network stack. A queue without a socket
    /// is fine.
    ///
    /// # Errors
    ///
    /// [`XdpError::QueueTooHigh`] from queue [`MAX_QUEUES`] on, [`XdpError::Map`] when the kernel refuses.
    pub fn remove_socket(&mut self, queue: u32) -> Result<(), XdpError> {
        if queue >= MAX_QUEUES {
            return Err(XdpError::QueueTooHigh { queue });
        }
        match self.sockets.unset(queue) {
            Err(source) if !is_refused(&source, libc::ENOENT) => {
                Err(XdpError::map("XSKS", format!("queue {queue}"), source))
            }
            _ => Ok(()),
        }
    }

    /// The map of the queues' gates, for [`Gate::new`](crate::port::xsk::Gate::new).
    pub fn gates(&self) -> BorrowedFd<'_> {
        self.gates.descriptor()
    }

    /// Packets for a queue that were dropped since its worker had closed the gate.
    ///
    /// # Errors
    ///
    /// [`XdpError::QueueTooHigh`] from queue [`MAX_QUEUES`] on, [`XdpError::Map`] when the kernel refuses.
    pub fn shed(&self, queue: u32) -> Result<u64, XdpError> {
        if queue >= MAX_QUEUES {
            return Err(XdpError::QueueTooHigh { queue });
        }
        self.gates.shed(queue)
    }

    /// Attaches the program to an interface (index, and name for messages) in exactly the given mode. An
    /// attachment that this program had before is given up first.
    ///
    /// # Errors
    ///
    /// [`XdpError::Occupied`] when another XDP program is there, [`XdpError::NoNativeXdp`],
    /// [`XdpError::MtuTooLarge`], [`XdpError::TooFewQueues`], [`XdpError::NotPermitted`],
    /// [`XdpError::NoInterface`], or [`XdpError::Attach`] for what else the kernel says. Nothing is attached
    /// then.
    pub fn attach(&mut self, ifindex: u32, interface: &str, mode: XdpMode) -> Result<(), XdpError> {
        self.detach();
        let program = self.program(PROGRAM_NAME)?;
        let descriptor = program.fd().map_err(|source| XdpError::loading(source.into()))?;
        let attachment = Attachment::new(descriptor.as_fd(), ifindex, interface, mode)?;
        self.attachment = Some(attachment);
        Ok(())
    }

    /// Detaches the program; without an attachment nothing happens. When this returns, packets pass to the
    /// host network stack.
    pub fn detach(&mut self) {
        self.attachment = None;
    }

    /// Whether [`attach`](Self::attach) has succeeded and [`detach`](Self::detach) has not been called since.
    pub fn is_attached(&self) -> bool {
        self.attachment.is_some()
    }

    /// Number of the program in the kernel, as `bpftool prog` and `ip link` show it.
    ///
    /// # Errors
    ///
    /// [`XdpError::Load`] when the kernel does not tell.
    pub fn id(&self) -> Result<u32, XdpError> {
        let info = self.program(PROGRAM_NAME)?.info();
        Ok(info.map_err(|source| XdpError::loading(source.into()))?.id())
    }

    /// Changes what is steered to `steering` while packets flow. What stays is not touched, and new entries are
    /// inserted before old ones are removed: a packet that both steer is steered at every moment between.
    ///
    /// # Errors
    ///
    /// [`XdpError::MapFull`] or [`XdpError::Map`]; what was changed until then stays changed, and the next
    /// call goes on from there.
    pub fn set_steering(&mut self, steering: &Steering) -> Result<(), XdpError> {
        self.tables.apply(steering)
    }

    /// Packets by cause since the program was loaded, summed over all CPUs. The counters are read one after
    /// another while packets flow, so a sum of several may be off by the packets of that moment.
    ///
    /// # Errors
    ///
    /// [`XdpError::Map`] when the kernel refuses.
    pub fn counters(&self) -> Result<KernelCounters, XdpError> {
        let mut counters = KernelCounters::default();
        for index in 0..Cause::COUNTERS {
            let by_cpu = self
                .counters
                .get(&index, 0)
                .map_err(|source| XdpError::map("COUNTERS", format!("counter {index}"), source))?;
            counters.set(index, by_cpu.iter().sum());
        }
        // The program counts a drop once, for its rule.
        counters.set(Cause::DroppedRule as u32, self.filter.dropped()?);
        Ok(counters)
    }

    /// The maps of the deny list; `None` when they were taken before, or cannot be mapped into memory (which is logged).
    pub fn take_deny_maps(&mut self) -> Option<DenyMaps> {
        DenyMaps::take(&mut self.object, self.deny_multiplier)
    }

    /// What each rule of the filter did in the XDP program, in the order of the list, since the program was loaded;
    /// empty without a filter, 0 for rules that run in the worker.
    ///
    /// # Errors
    ///
    /// [`XdpError::Map`] when the kernel refuses.
    pub fn rule_counts(&self) -> Result<Vec<RuleCount>, XdpError> {
        self.filter.counts()
    }

    fn program(&self, name: &'static str) -> Result<&Xdp, XdpError> {
        self.object.program(name).and_then(|program| program.try_into().ok()).ok_or(XdpError::Object { name })
    }

    fn program_mut(&mut self, name: &'static str) -> Result<&mut Xdp, XdpError> {
        self.object
            .program_mut(name)
            .and_then(|program| program.try_into().ok())
            .ok_or(XdpError::Object { name })
    }

    /// Loads one of the object's programs, if it is not loaded.
    fn load_program(&mut self, name: &'static str) -> Result<&Xdp, XdpError> {
        match self.program_mut(name)?.load() {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => self.program(name),
            Err(source) => Err(XdpError::loading(source.into())),
        }
    }
}

/// A map of the object as its typed view.
fn take_map<T: TryFrom<Map>>(object: &mut Ebpf, name: &'static str) -> Result<T, XdpError> {
    object.take_map(name).and_then(|map| map.try_into().ok()).ok_or(XdpError::Object { name })
}
