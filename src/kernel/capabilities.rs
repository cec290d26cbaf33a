//! Privileges and limits of this process, checked before anything else so that the first error is the one to mend.
//! What the kernel refuses without each, found on Linux 6.18 by taking them away one by one:
//!
//! | missing | refused |
//! |---|---|
//! | CAP_NET_ADMIN | making the XSKMAP, loading and attaching the program, asking for neighbours |
//! | CAP_BPF (CAP_SYS_ADMIN does too) | making any map, loading the program |
//! | CAP_PERFMON (CAP_SYS_ADMIN does too) | loading a program that reads packets at offsets which it has computed, as behind IPv4 options: the verifier's guard against speculation has no answer for those |
//! | CAP_NET_RAW | opening an AF_XDP socket |
//! | CAP_IPC_LOCK | registering a UMEM larger than `RLIMIT_MEMLOCK` (ENOBUFS), 8 MiB by default |
//!
//! Source: capabilities(7).

#![forbid(unsafe_code)]

use std::fmt;

use caps::{CapSet, Capability, errors::CapsError};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// Checks that this thread may load and attach an XDP program and open AF_XDP sockets.
///
/// # Errors
///
/// [`MissingCapabilities`].
pub fn check() -> Result<(), MissingCapabilities> {
    match missing(|capability| caps::has_cap(None, CapSet::Effective, capability)) {
        missing if missing.is_empty() => Ok(()),
        missing => Err(MissingCapabilities { missing }),
    }
}

/// A capability that xfwd needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Needed {
    /// `CAP_NET_ADMIN`.
    NetAdmin,
    /// `CAP_NET_RAW`.
    NetRaw,
    /// `CAP_BPF`, which `CAP_SYS_ADMIN` includes.
    Bpf,
    /// `CAP_PERFMON`, which `CAP_SYS_ADMIN` includes.
    Perfmon,
}

impl Needed {
    const ALL: [Self; 4] = [Self::NetAdmin, Self::NetRaw, Self::Bpf, Self::Perfmon];

    fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::Bpf => "CAP_BPF",
            Self::Perfmon => "CAP_PERFMON",
        }
    }

    fn purpose(self) -> &'static str {
        match self {
            Self::NetAdmin => "to load and attach the XDP program, and to ask for neighbours",
            Self::NetRaw => "to open AF_XDP sockets",
            Self::Bpf => "to load the XDP program and to make its maps",
            Self::Perfmon => "to load a program that reads packets at computed offsets",
        }
    }

    fn satisfied_by(self) -> &'static [Capability] {
        match self {
            Self::NetAdmin => &[Capability::CAP_NET_ADMIN],
            Self::NetRaw => &[Capability::CAP_NET_RAW],
            Self::Bpf => &[Capability::CAP_BPF, Capability::CAP_SYS_ADMIN],
            Self::Perfmon => &[Capability::CAP_PERFMON, Capability::CAP_SYS_ADMIN],
        }
    }
}

/// Capabilities that this process lacks. `Display` names each, what it is for, and how to give them; with them
/// CAP_IPC_LOCK, without which the next run would only fail later, at the packet buffers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingCapabilities {
    /// Those missing; never empty.
    pub missing: Vec<Needed>,
}

impl std::error::Error for MissingCapabilities {}

impl fmt::Display for MissingCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this process lacks privileges:\n")?;
        for needed in &self.missing {
            write!(f, "\n    {:<14} {}", needed.name(), needed.purpose())?;
        }
        f.write_str(
            "\n\nRun it with sudo; or give them to the command once with\n\
             \n    sudo setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock+ep $(command -v xfwd)\n\
             \nor, in a systemd unit,\n\
             \n    AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_BPF CAP_PERFMON CAP_IPC_LOCK\n",
        )
    }
}

/// A capability that cannot be read, because the kernel does not know it, is not there.
fn missing(has: impl Fn(Capability) -> Result<bool, CapsError>) -> Vec<Needed> {
    let lacks =
        |needed: &Needed| !needed.satisfied_by().iter().any(|capability| has(*capability).unwrap_or(false));
    Needed::ALL.into_iter().filter(lacks).collect()
}

/// What came of [`raise_memlock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemlockOutcome {
    /// The limit is gone.
    Unlimited,
    /// The limit stays, and does not matter: the process has CAP_IPC_LOCK.
    NotNeeded,
    /// The limit stays. The sockets' memory (UMEM) must fit in it together; `Display` says how to raise it.
    Limited {
        /// The limit in bytes.
        limit_bytes: u64,
    },
}

impl fmt::Display for MemlockOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("locked memory is not limited"),
            Self::NotNeeded => f.write_str("the limit of locked memory does not apply (CAP_IPC_LOCK)"),
            Self::Limited { limit_bytes } => write!(
                f,
                "locked memory is limited to {limit_bytes} bytes, in which all packet buffers must fit: give \
                 CAP_IPC_LOCK, or raise it with `ulimit -l unlimited` or, in a systemd unit, `LimitMEMLOCK=infinity`"
            ),
        }
    }
}

/// Tries to lift the limit of locked memory (`RLIMIT_MEMLOCK`), which the kernel counts packet buffers (UMEM) against,
/// and before Linux 5.11 maps and programs too. Failing is not an error by itself: see [`MemlockOutcome`].
pub fn raise_memlock() -> MemlockOutcome {
    if setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok() {
        return MemlockOutcome::Unlimited;
    }
    // Without CAP_SYS_RESOURCE the hard limit stays, and the soft one may rise to it.
    let limit_bytes = match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((soft, hard)) => match setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard) {
            Ok(()) => hard,
            Err(_) => soft,
        },
        Err(_) => 0,
    };
    if limit_bytes == RLIM_INFINITY {
        MemlockOutcome::Unlimited
    } else if caps::has_cap(None, CapSet::Effective, Capability::CAP_IPC_LOCK).unwrap_or(false) {
        MemlockOutcome::NotNeeded
    } else {
        MemlockOutcome::Limited { limit_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_set_is_enough_and_sys_admin_stands_for_two() {
        use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, CAP_SYS_ADMIN};
        let with = |held: &'static [Capability]| missing(move |capability| Ok(held.contains(&capability)));
        assert_eq!(with(&[CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON]), []);
        assert_eq!(with(&[CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN]), []);
        assert_eq!(with(&[CAP_SYS_ADMIN]), [Needed::NetAdmin, Needed::NetRaw]);
        assert_eq!(with(&[CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF]), [Needed::Perfmon]);
    }

    #[test]
    fn message_names_each_missing_one_and_the_mends() {
        let error = MissingCapabilities { missing: vec![Needed::NetRaw, Needed::Bpf] };
        assert_eq!(
            error.to_string(),
            "this process lacks privileges:\n\
             \n    CAP_NET_RAW    to open AF_XDP sockets\
             \n    CAP_BPF        to load the XDP program and to make its maps\n\
             \nRun it with sudo; or give them to the command once with\n\
             \n    sudo setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock+ep $(command -v xfwd)\n\
             \nor, in a systemd unit,\n\
             \n    AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_BPF CAP_PERFMON CAP_IPC_LOCK\n"
        );
    }
}
