//! What the running kernel can do.
//!
//! Where the kernel can be asked without a device and without side effects, it is asked, once a process; distributions
//! bring features back to older kernels. Elsewhere its release number is the answer. What a driver can do is
//! [`netdev`]'s to tell.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use serde::Serialize;

use super::netdev;
use crate::port::xsk::options;

/// A feature that newer kernels have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// AF_XDP sockets.
    Sockets,
    /// `XDP_USE_NEED_WAKEUP`: system calls only when the kernel asks for one.
    NeedWakeup,
    /// XDP programs held by a bpf_link, so that they go with the process.
    Link,
    /// `SO_PREFER_BUSY_POLL`: system calls of the worker run the driver's receive loop.
    PreferBusyPoll,
    /// Drivers tell what they can do with XDP, by generic netlink.
    DriverFeatures,
    /// `XDP_USE_SG`: packets of several frames on AF_XDP sockets.
    MultiBuffer,
    /// `XDP_MAX_TX_SKB_BUDGET`: more than 32 transmit descriptors a system call in copy mode.
    TxBudget,
}

impl Feature {
    /// Every feature, the oldest first.
    pub const ALL: [Self; 7] = [
        Self::Sockets,
        Self::NeedWakeup,
        Self::Link,
        Self::PreferBusyPoll,
        Self::DriverFeatures,
        Self::MultiBuffer,
        Self::TxBudget,
    ];

    /// The first release that has it: major, minor.
    #[must_use]
    pub const fn since(self) -> (u32, u32) {
        match self {
            Self::Sockets => (4, 18),
            Self::NeedWakeup => (5, 4),
            Self::Link => (5, 9),
            Self::PreferBusyPoll => (5, 11),
            Self::DriverFeatures => (6, 3),
            Self::MultiBuffer => (6, 6),
            Self::TxBudget => (6, 17),
        }
    }

    /// The name that the kernel's sources give it.
    #[must_use]
    pub const fn kernel_name(self) -> &'static str {
        match self {
            Self::Sockets => "AF_XDP",
            Self::NeedWakeup => "XDP_USE_NEED_WAKEUP",
            Self::Link => "BPF_LINK_TYPE_XDP",
            Self::PreferBusyPoll => "SO_PREFER_BUSY_POLL",
            Self::DriverFeatures => "NETDEV_CMD_DEV_GET",
            Self::MultiBuffer => "XDP_USE_SG",
            Self::TxBudget => "XDP_MAX_TX_SKB_BUDGET",
        }
    }

    /// Whether the running kernel has it.
    ///
    /// # Errors
    ///
    /// [`Unsupported`], which says what is needed and what runs.
    pub fn check(self) -> Result<(), Unsupported> {
        self.probe().result
    }

    /// Whether the running kernel has it, and how that is known. Found out once a process.
    pub fn probe(self) -> Probe {
        static PROBES: OnceLock<[Probe; Feature::ALL.len()]> = OnceLock::new();
        let probes = PROBES.get_or_init(|| Feature::ALL.map(|feature| feature.find_out(feature.ask())));
        probes[self as usize]
    }

    fn find_out(self, asked: Option<bool>) -> Probe {
        let running = kernel_release();
        let (supported, evidence) = match asked {
            Some(supported) => (supported, Evidence::Asked),
            None => (running >= self.since(), Evidence::Release),
        };
        let result = if supported { Ok(()) } else { Err(Unsupported { feature: self, running }) };
        Probe { feature: self, result, evidence }
    }

    /// What the kernel answers, if it can be asked and this process may.
    fn ask(self) -> Option<bool> {
        let ask_socket =
            |ask: fn(&dyn AsFd) -> io::Result<()>, unknown| match ask(&options::unbound_socket().ok()?) {
                Ok(()) => Some(true),
                Err(error) => Some(error.raw_os_error() != Some(unknown)),
            };
        match self {
            Self::Sockets => match options::unbound_socket() {
                Ok(_) => Some(true),
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Some(false),
                Err(_) => None,
            },
            // Other errors, such as that the socket has no tx ring yet, come from a kernel that knows the option.
            Self::PreferBusyPoll => {
                ask_socket(|socket| options::prefer_busy_poll(socket.as_fd()), libc::ENOPROTOOPT)
            }
            Self::TxBudget => {
                ask_socket(|socket| options::set_tx_budget(socket.as_fd(), 32), libc::ENOPROTOOPT)
            }
            Self::DriverFeatures => netdev::family("netdev").ok().map(|family| family.is_some()),
            // These could only be tried out on an interface.
            Self::NeedWakeup | Self::Link | Self::MultiBuffer => None,
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.kernel_name();
        match self {
            Self::Sockets => write!(f, "AF_XDP sockets"),
            Self::NeedWakeup => write!(f, "system calls only when needed ({name})"),
            Self::Link => write!(f, "XDP programs that go with their process ({name})"),
            Self::PreferBusyPoll => write!(f, "busy polling ({name})"),
            Self::DriverFeatures => write!(f, "asking drivers what they can do ({name})"),
            Self::MultiBuffer => write!(f, "multi-buffer AF_XDP ({name})"),
            Self::TxBudget => write!(f, "a transmit budget of more than 32 packets a call ({name})"),
        }
    }
}

/// Whether the running kernel has a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// The feature.
    pub feature: Feature,
    /// Whether the kernel has it.
    pub result: Result<(), Unsupported>,
    /// How that is known.
    pub evidence: Evidence,
}

/// How it is known whether the kernel has a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Evidence {
    /// The kernel was asked.
    Asked,
    /// By its release number.
    Release,
}

/// The running kernel lacks a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{feature} needs Linux {}.{}; this is Linux {}.{}", .feature.since().0, .feature.since().1, .running.0, .running.1)]
#[non_exhaustive]
pub struct Unsupported {
    /// What is missing.
    pub feature: Feature,
    /// The release that runs: major, minor.
    pub running: (u32, u32),
}

impl Unsupported {
    /// In a few words: `needs Linux 6.17: XDP_MAX_TX_SKB_BUDGET`.
    #[must_use]
    pub fn brief(&self) -> String {
        let (major, minor) = self.feature.since();
        format!("needs Linux {major}.{minor}: {}", self.feature.kernel_name())
    }
}

/// Huge pages of the default size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HugePages {
    /// How many there are.
    pub total: u64,
    /// How many nobody uses.
    pub free: u64,
    /// Size of one, in KiB.
    pub size_kib: u64,
}

/// The huge pages of the system, by `/proc/meminfo`.
///
/// # Errors
///
/// If it cannot be read.
pub fn huge_pages() -> io::Result<HugePages> {
    Ok(parse_huge_pages(&std::fs::read_to_string("/proc/meminfo")?))
}

fn parse_huge_pages(meminfo: &str) -> HugePages {
    let value = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    };
    HugePages {
        total: value("HugePages_Total"),
        free: value("HugePages_Free"),
        size_kib: value("Hugepagesize"),
    }
}

/// The release of the running kernel by uname(2): major, minor. `(0, 0)` if its text does not start with two numbers.
#[must_use]
pub fn kernel_release() -> (u32, u32) {
    parse_release(&kernel_release_text()).unwrap_or_default()
}

/// The release of the running kernel as uname(2) has it, such as `6.1.0-21-cloud-amd64`. Empty if it cannot be read.
#[must_use]
pub fn kernel_release_text() -> String {
    nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default()
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_texts_of_distributions_are_read() {
        for (text, release) in [
            ("6.18.44", Some((6, 18))),
            ("5.14.0-427.13.1.el9_4.x86_64", Some((5, 14))),
            ("6.6-rc1", Some((6, 6))),
            ("6.1.0-21-cloud-amd64", Some((6, 1))),
            ("six", None),
            ("6", None),
            ("", None),
        ] {
            assert_eq!(parse_release(text), release, "{text}");
        }
    }

    #[test]
    fn running_kernel_has_a_release() {
        assert!(kernel_release() > (4, 0));
    }

    #[test]
    fn kernel_that_lacks_a_feature_is_told_what_is_needed() {
        let probe = Feature::TxBudget.find_out(Some(false));
        let unsupported = Unsupported { running: (6, 8), ..probe.result.unwrap_err() };
        assert_eq!(
            unsupported.to_string(),
            "a transmit budget of more than 32 packets a call (XDP_MAX_TX_SKB_BUDGET) needs Linux 6.17; this is \
             Linux 6.8"
        );
        assert_eq!(unsupported.brief(), "needs Linux 6.17: XDP_MAX_TX_SKB_BUDGET");
    }

    #[test]
    fn answer_of_the_kernel_counts_more_than_its_release() {
        let probe = Feature::Sockets.find_out(Some(false));
        assert_eq!((probe.result.is_ok(), probe.evidence), (false, Evidence::Asked));
        let probe = Feature::Sockets.find_out(None);
        assert_eq!((probe.result.is_ok(), probe.evidence), (true, Evidence::Release));
    }

    #[test]
    fn features_are_in_order_and_found_by_their_number() {
        assert!(Feature::ALL.is_sorted_by_key(|feature| feature.since()));
        for (index, feature) in Feature::ALL.iter().enumerate() {
            assert_eq!((*feature as usize, feature.probe().feature), (index, *feature));
        }
    }

    #[test]
    fn huge_pages_are_read() {
        let meminfo = "MemTotal:  16384 kB\nAnonHugePages:   4096 kB\nHugePages_Total:     512\nHugePages_Free:      500\n\
                       Hugepagesize:       2048 kB\n";
        assert_eq!(parse_huge_pages(meminfo), HugePages { total: 512, free: 500, size_kib: 2048 });
        assert_eq!(parse_huge_pages(""), HugePages::default());
    }
}
