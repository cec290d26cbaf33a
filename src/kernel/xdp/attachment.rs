//! Attaching the program to an interface by a bpf_link.
//!
//! aya's own attach is not used: where the kernel answers EINVAL (which is also some drivers' answer to a
//! large MTU) it falls back to attaching by netlink, and an attachment made that way outlives the process.

use std::{
    fmt, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use super::{XdpError, error::USUAL_MTU};
use crate::kernel::link::Link;

/// `BPF_LINK_CREATE` of `enum bpf_cmd`.
const BPF_LINK_CREATE: libc::c_long = 28;
/// `BPF_XDP` of `enum bpf_attach_type`.
const BPF_XDP: u32 = 37;
/// `XDP_FLAGS_SKB_MODE` of `linux/if_link.h`.
const SKB_MODE: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE` of `linux/if_link.h`.
const DRIVER_MODE: u32 = 1 << 2;

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum XdpMode {
    /// In the driver, before the kernel makes a socket buffer of the packet.
    Native,
    /// In the network stack, behind the driver: with every driver, but slower.
    Generic,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// An attached program: closing the descriptor detaches it.
pub(super) struct Attachment {
    _link: OwnedFd,
}

impl Attachment {
    pub(super) fn new(
        program: BorrowedFd<'_>,
        ifindex: u32,
        interface: &str,
        mode: XdpMode,
    ) -> Result<Self, XdpError> {
        match create_link(program, ifindex, mode) {
            Ok(link) => Ok(Self { _link: link }),
            Err(source) => {
                // Read only now: it serves the message alone.
                let mtu = Link::by_index(ifindex).map(|link| link.mtu).ok();
                Err(classify(source, ifindex, interface, mode, mtu))
            }
        }
    }
}

/// What the kernel's answer means. `mtu` is none when there is no such interface.
fn classify(source: io::Error, ifindex: u32, interface: &str, mode: XdpMode, mtu: Option<u32>) -> XdpError {
    let interface = interface.to_owned();
    let is_native = mode == XdpMode::Native;
    match source.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => XdpError::Occupied { interface, source },
        Some(libc::EPERM) => XdpError::NotPermitted { call: "bpf(BPF_LINK_CREATE)", source: source.into() },
        Some(libc::ENODEV | libc::EINVAL) if mtu.is_none() => {
            XdpError::NoInterface { interface, ifindex, source }
        }
        Some(libc::EOPNOTSUPP) if is_native => {
            XdpError::NoNativeXdp { interface, mtu: mtu.unwrap_or(0), source }
        }
        // Drivers agree neither on the number nor on the limit: igb refuses what fits into a page, too.
        Some(libc::ERANGE | libc::EINVAL | libc::E2BIG)
            if is_native && mtu.is_some_and(|mtu| mtu > USUAL_MTU) =>
        {
            XdpError::MtuTooLarge { interface, mtu: mtu.unwrap_or(0), source }
        }
        Some(libc::ENOSPC) if is_native => XdpError::TooFewQueues { interface, source },
        _ => XdpError::Attach { interface, mode, source },
    }
}

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` reads for XDP; the kernel takes what is missing for 0.
#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

fn create_link(program: BorrowedFd<'_>, ifindex: u32, mode: XdpMode) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type: BPF_XDP,
        flags: match mode {
            XdpMode::Native => DRIVER_MODE,
            XdpMode::Generic => SKB_MODE,
        },
    };
    // SAFETY: the kernel reads as many bytes as the third argument says, which is the size of what the second
    // points to, and writes none.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw const attributes, size_of::<LinkCreate>())
    };
    match i32::try_from(result) {
        // SAFETY: the kernel has just opened this descriptor for us, and nothing else knows it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sort(errno: i32, mode: XdpMode, mtu: u32) -> XdpError {
        classify(io::Error::from_raw_os_error(errno), 7, "ens1f0", mode, Some(mtu))
    }

    #[test]
    fn answers_of_the_kernel_become_advice() {
        use XdpMode::{Generic, Native};
        let text = sort(libc::EBUSY, Native, 1_500).to_string();
        assert!(text.contains("ens1f0 already has an XDP program"), "{text}");
        let text = sort(libc::EOPNOTSUPP, Native, 1_500).to_string();
        assert!(text.contains("mode = \"generic\""), "{text}");
        for mtu in [9_000, 3_400] {
            let text = sort(libc::EINVAL, Native, mtu).to_string();
            assert!(text.contains(&format!("MTU of {mtu} ")) && text.contains("3498"), "{text}");
        }
        let text = sort(libc::EPERM, Generic, 1_500).to_string();
        assert!(text.contains("CAP_NET_ADMIN"), "{text}");
    }

    #[test]
    fn einval_with_a_usual_mtu_is_not_blamed_on_the_mtu() {
        assert!(matches!(sort(libc::EINVAL, XdpMode::Native, 1_500), XdpError::Attach { .. }));
    }
}
