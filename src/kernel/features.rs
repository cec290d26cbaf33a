//! What the running kernel can do, by its release number.
//!
//! A release number is a hint: distributions bring features back to older kernels. It is used where asking the kernel
//! itself would need a device or has side effects, and it words the error when a call was refused.

#![forbid(unsafe_code)]

use std::fmt;

/// A feature that newer kernels have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// `XDP_MAX_TX_SKB_BUDGET`: more than 32 transmit descriptors a system call in copy mode.
    TxBudget,
    /// `XDP_USE_SG`: packets of several frames on AF_XDP sockets.
    MultiBuffer,
}

impl Feature {
    /// The first release that has it: major, minor.
    #[must_use]
    pub const fn since(self) -> (u32, u32) {
        match self {
            Self::TxBudget => (6, 17),
            Self::MultiBuffer => (6, 6),
        }
    }

    /// Whether the running kernel has it, by its release number.
    ///
    /// # Errors
    ///
    /// [`Unsupported`], which says what is needed and what runs.
    pub fn check(self) -> Result<(), Unsupported> {
        self.check_on(kernel_release())
    }

    fn check_on(self, running: (u32, u32)) -> Result<(), Unsupported> {
        if running >= self.since() { Ok(()) } else { Err(Unsupported { feature: self, running }) }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TxBudget => "a transmit budget of more than 32 packets a call (XDP_MAX_TX_SKB_BUDGET)",
            Self::MultiBuffer => "multi-buffer AF_XDP (XDP_USE_SG)",
        })
    }
}

/// The running kernel is too old for a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{feature} needs Linux {}.{}; this is Linux {}.{}", .feature.since().0, .feature.since().1, .running.0, .running.1)]
pub struct Unsupported {
    /// What is missing.
    pub feature: Feature,
    /// The release that runs: major, minor.
    pub running: (u32, u32),
}

/// The release of the running kernel by uname(2): major, minor. `(0, 0)` if its text does not start with two numbers.
#[must_use]
pub fn kernel_release() -> (u32, u32) {
    let Ok(names) = nix::sys::utsname::uname() else {
        return (0, 0);
    };
    parse_release(&names.release().to_string_lossy()).unwrap_or_default()
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
    fn old_kernel_is_told_what_is_needed() {
        assert_eq!(Feature::MultiBuffer.check_on((6, 6)), Ok(()));
        assert_eq!(Feature::MultiBuffer.check_on((10, 0)), Ok(()));
        assert_eq!(
            Feature::TxBudget.check_on((6, 8)).unwrap_err().to_string(),
            "a transmit budget of more than 32 packets a call (XDP_MAX_TX_SKB_BUDGET) needs Linux 6.17; this is \
             Linux 6.8"
        );
    }
}
