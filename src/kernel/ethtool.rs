//! Driver, channels and RSS of an interface, by the ethtool ioctl.
//!
//! Three fixed structures and one call. The newer generic-netlink interface has no driver name, and the crate for it
//! (`ethtool`) needs an async runtime.
//!
//! Source: `include/uapi/linux/ethtool.h`, netdevice(7).

use std::{io, os::fd::AsRawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GRXFHINDIR: u32 = 0x38;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

nix::ioctl_readwrite_bad!(siocethtool, libc::SIOCETHTOOL, libc::ifreq);

/// How an interface may be divided into queues. Some drivers (most NICs) count `combined` channels, each with a
/// receive and a transmit queue; some (veth) count receive and transmit queues apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Channels {
    /// Receive-only channels in use.
    pub rx: u32,
    /// Combined channels in use.
    pub combined: u32,
    /// The most receive-only channels that the driver allows.
    pub max_rx: u32,
    /// The most combined channels that the driver allows.
    pub max_combined: u32,
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct RawChannels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct RawDriver {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware_version: [u8; 32],
    bus_info: [u8; 32],
    eeprom_version: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// The head of `struct ethtool_rxfh_indir`; with `size` 0 the kernel writes no table behind it.
#[repr(C)]
struct RawIndirection {
    command: u32,
    size: u32,
}

/// The driver's name.
///
/// `None`: the driver does not say.
pub(crate) fn driver(interface: &str) -> io::Result<Option<String>> {
    let mut raw = RawDriver {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        firmware_version: [0; 32],
        bus_info: [0; 32],
        eeprom_version: [0; 32],
        reserved: [0; 12],
        counts: [0; 5],
    };
    // SAFETY: RawDriver has the layout of struct ethtool_drvinfo, which ETHTOOL_GDRVINFO writes at most.
    let supported = unsafe { ask(interface, &mut raw) }?;
    let name = raw.driver.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok((supported && !name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned()))
}

/// The channels in use and the most there may be.
///
/// `None`: the driver has no notion of channels.
pub(crate) fn channels(interface: &str) -> io::Result<Option<Channels>> {
    let mut raw = RawChannels { command: ETHTOOL_GCHANNELS, ..RawChannels::default() };
    // SAFETY: RawChannels has the layout of struct ethtool_channels, which ETHTOOL_GCHANNELS writes at most.
    let supported = unsafe { ask(interface, &mut raw) }?;
    Ok(supported.then_some(Channels {
        rx: raw.rx,
        combined: raw.combined,
        max_rx: raw.max_rx,
        max_combined: raw.max_combined,
    }))
}

/// Whether receive-side scaling has an indirection table, that is, whether `ethtool -X` works.
pub(crate) fn has_rss_table(interface: &str) -> io::Result<bool> {
    let mut raw = RawIndirection { command: ETHTOOL_GRXFHINDIR, size: 0 };
    // SAFETY: with size 0, ETHTOOL_GRXFHINDIR writes back the table's size and nothing behind the head.
    let supported = unsafe { ask(interface, &mut raw) }?;
    Ok(supported && raw.size > 0)
}

/// Runs one ethtool command on an interface of the calling thread's network namespace. `false`: the driver does not
/// support it.
///
/// # Safety
///
/// `data` starts with an ethtool command number, and has the layout which that command reads and writes.
unsafe fn ask<T>(interface: &str, data: &mut T) -> io::Result<bool> {
    // The last byte stays zero: the kernel wants a terminated name.
    if interface.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(interface.as_bytes()) {
        *to = from.cast_signed();
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: std::ptr::from_mut(data).cast() },
    };
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the request points at `data`, which outlives the call and, as the caller vouches, fits its command.
    match unsafe { siocethtool(socket.as_raw_fd(), &raw mut request) } {
        Ok(_) => Ok(true),
        Err(nix::errno::Errno::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_size() {
        assert_eq!(size_of::<RawChannels>(), 36);
        assert_eq!(size_of::<RawDriver>(), 196);
        assert_eq!(size_of::<RawIndirection>(), 8);
    }

    #[test]
    fn loopback_has_no_channels() {
        assert_eq!(channels("lo").unwrap(), None);
        assert!(!has_rss_table("lo").unwrap());
    }

    #[test]
    fn missing_interface_is_named_by_errno() {
        let error = channels("no-such-if").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert_eq!(driver("a-name-longer-than-any").unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
