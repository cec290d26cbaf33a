//! What can go wrong with the XDP program, and what to do about it.

use std::{error::Error, io};

use aya::{maps::MapError, util::KernelVersion};
use caps::{CapSet, Capability};
use thiserror::Error;
use xfwd_ebpf_types::MAX_QUEUES;

/// The largest MTU with which a packet fits the one page that drivers give it in native mode: 4,096 bytes
/// less 256 of headroom, 320 for `skb_shared_info`, 14 of Ethernet header and 8 of VLAN tags.
const MTU_OF_ONE_PAGE: u32 = 3_498;
/// The MTU that every driver with native XDP takes.
pub(super) const USUAL_MTU: u32 = 1_500;

/// Why the XDP program could not be loaded, attached or changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum XdpError {
    /// The embedded object lacks a program or map: it does not belong to this library.
    #[error("the embedded XDP object has no `{name}` of the right type; rebuild it with scripts/build-ebpf")]
    Object {
        /// The program or map.
        name: &'static str,
    },

    /// EPERM from any of the calls, or EACCES from the verifier without CAP_PERFMON, which reading a packet
    /// at a computed offset takes.
    #[error(
        "{call} is not permitted; run as root or with the capabilities CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN \
         and CAP_NET_RAW"
    )]
    NotPermitted {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },

    /// The kernel lacks what the program needs.
    #[error("loading the XDP program failed: it needs Linux 5.18 or newer, this is {running}")]
    KernelTooOld {
        /// The running kernel.
        running: String,
        /// What the kernel said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },

    /// Creating a map or loading the program failed.
    #[error("loading the XDP program failed")]
    Load {
        /// What the kernel said, with the verifier's log.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },

    /// The verifier of an older kernel gives up on the program with filter rules.
    #[error(
        "this kernel's verifier gives up on the XDP program with filter rules: Linux 6.12 is known to take it, Linux 6.1 not to; \
         without `[[filter]]` it runs here"
    )]
    RulesRefused {
        /// What the kernel said, with the verifier's log.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },

    /// More entries than a map holds.
    #[error("{wanted} entries are too many for the map {map}, which holds {capacity}")]
    MapFull {
        /// The map.
        map: &'static str,
        /// Entries that should be in it.
        wanted: usize,
        /// Entries it holds.
        capacity: u32,
    },

    /// A queue number that the map of sockets has no place for.
    #[error(
        "queue {queue} is too high: at most {MAX_QUEUES} queues of an interface can be steered, from 0 on"
    )]
    QueueTooHigh {
        /// The queue.
        queue: u32,
    },

    /// A map could not be read or written.
    #[error("bpf() on map {map}, {element}, failed")]
    Map {
        /// The map.
        map: &'static str,
        /// The element.
        element: String,
        /// What the kernel said.
        #[source]
        source: MapError,
    },

    /// EBUSY or EEXIST: the interface has an XDP program.
    #[error(
        "{interface} already has an XDP program (`bpftool net show dev {interface}` names it); stop whatever attached it, or \
         remove it with `ip link set dev {interface} xdp off`"
    )]
    Occupied {
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },

    /// EOPNOTSUPP in native mode.
    #[error(
        "the driver of {interface} does not run XDP programs, or not with its MTU of {mtu} or its present offloads (switch LRO \
         off: `ethtool -K {interface} lro off`); mode = \"generic\" works with every driver, slower"
    )]
    NoNativeXdp {
        /// The interface.
        interface: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },

    /// EINVAL or ERANGE in native mode with an MTU above the usual.
    #[error(
        "the driver of {interface} refuses the XDP program, most likely since its MTU of {mtu} is too large: \
         `ip link set dev {interface} mtu {USUAL_MTU}`, or, with most drivers, up to {MTU_OF_ONE_PAGE}; mode = \"generic\" takes any, \
         slower"
    )]
    MtuTooLarge {
        /// The interface.
        interface: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },

    /// ENOSPC in native mode, the veth driver's answer to too few queues.
    #[error(
        "{interface} has fewer receive queues than its peer has transmit queues; a veth takes an XDP program only \
         with at least as many (`ethtool -L {interface} rx N`)"
    )]
    TooFewQueues {
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },

    /// ENODEV, or EINVAL for an interface whose MTU cannot be read: there is no such interface in this
    /// network namespace.
    #[error("{interface} (index {ifindex}) is not an interface of this network namespace")]
    NoInterface {
        /// The interface.
        interface: String,
        /// Its index.
        ifindex: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },

    /// Attaching failed for another reason.
    #[error(
        "bpf(BPF_LINK_CREATE) for {interface} in {mode} mode failed; `dmesg` may tell what the driver refuses"
    )]
    Attach {
        /// The interface.
        interface: String,
        /// The mode.
        mode: super::XdpMode,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },

    /// A packet could not be run through the program.
    #[error(
        "bpf(BPF_PROG_TEST_RUN) of {program} with {packet_bytes} bytes failed; fewer than 14 bytes are never taken"
    )]
    TestRun {
        /// The program.
        program: &'static str,
        /// Length of the packet in bytes.
        packet_bytes: usize,
        /// What the kernel said.
        #[source]
        source: aya::programs::ProgramError,
    },
}

impl XdpError {
    /// Sorts an error of loading.
    pub(super) fn loading(source: Box<dyn Error + Send + Sync>) -> Self {
        let call = "loading the XDP program by bpf()";
        let lacks_perfmon =
            || !caps::has_cap(None, CapSet::Effective, Capability::CAP_PERFMON).unwrap_or(true);
        if is_refused(&*source, libc::EPERM) || (is_refused(&*source, libc::EACCES) && lacks_perfmon()) {
            return Self::NotPermitted { call, source };
        }
        match KernelVersion::current() {
            Ok(running) if running < KernelVersion::new(5, 18, 0) => Self::KernelTooOld {
                running: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                    .map_or_else(|_| "older".to_owned(), |release| release.trim().to_owned()),
                source,
            },
            _ => Self::Load { source },
        }
    }

    /// Sorts an error of reading or writing a map.
    pub(super) fn map(map: &'static str, element: String, source: MapError) -> Self {
        if is_refused(&source, libc::EPERM) {
            return Self::NotPermitted { call: "bpf() on a map", source: source.into() };
        }
        Self::Map { map, element, source }
    }
}

/// Whether the kernel's answer somewhere behind `error` was `errno`. aya hands on a missing map element as an
/// error of its own.
pub(super) fn is_refused(error: &(dyn Error + 'static), errno: i32) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error() == Some(errno);
        }
        if let Some(MapError::KeyNotFound | MapError::ElementNotFound) = error.downcast_ref() {
            return errno == libc::ENOENT;
        }
        // These are transparent: their source is the source of what they hold.
        if let Some(MapError::SyscallError(error)) = error.downcast_ref() {
            return error.io_error.raw_os_error() == Some(errno);
        }
        next = error.source();
    }
    false
}
