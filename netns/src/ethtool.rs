//! The few ethtool requests a lab needs (`linux/ethtool.h`), so that the `ethtool` command need not be installed.
//!
//! All of them act on an interface of the calling thread's network namespace.

use std::{collections::BTreeMap, io, net::UdpSocket, os::fd::AsRawFd};

use crate::error::{Error, Result};

const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// A feature that is set by one of ethtool's older, single-purpose requests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Feature {
    TxChecksum,
    Tso,
    Gso,
    Gro,
}

impl Feature {
    /// `ETHTOOL_STXCSUM`, `ETHTOOL_STSO`, `ETHTOOL_SGSO`, `ETHTOOL_SGRO`.
    const fn command(self) -> u32 {
        match self {
            Feature::TxChecksum => 0x17,
            Feature::Tso => 0x1f,
            Feature::Gso => 0x24,
            Feature::Gro => 0x2c,
        }
    }

    const fn call(self) -> &'static str {
        match self {
            Feature::TxChecksum => "ETHTOOL_STXCSUM",
            Feature::Tso => "ETHTOOL_STSO",
            Feature::Gso => "ETHTOOL_SGSO",
            Feature::Gro => "ETHTOOL_SGRO",
        }
    }
}

/// Turns a feature of `interface` on or off.
pub(crate) fn set_feature(interface: &str, feature: Feature, on: bool) -> Result<()> {
    // struct ethtool_value
    let mut request = [feature.command(), u32::from(on)];
    ioctl(interface, feature.call(), &mut request)
}

/// Reads the driver's own statistics, by name (`ethtool -S`).
pub(crate) fn statistics(interface: &str) -> Result<BTreeMap<String, u64>> {
    const ETHTOOL_GSTRINGS: u32 = 0x1b;
    const ETHTOOL_GSTATS: u32 = 0x1d;
    const ETHTOOL_GSSET_INFO: u32 = 0x37;
    const ETH_SS_STATS: u32 = 1;
    const ETH_GSTRING_LEN: usize = 32;

    // struct ethtool_sset_info: cmd, reserved, sset_mask (u64), data[1]
    let mut set = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_STATS, 0, 0];
    ioctl(interface, "ETHTOOL_GSSET_INFO", &mut set)?;
    let count = set[4] as usize;

    // struct ethtool_gstrings: cmd, string_set, len, data[len * 32]
    let mut names = vec![0u32; 3 + count * ETH_GSTRING_LEN / 4];
    names[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_STATS, set[4]]);
    ioctl(interface, "ETHTOOL_GSTRINGS", &mut names)?;

    // struct ethtool_stats: cmd, n_stats, data[n_stats] (u64)
    let mut values = vec![0u64; 1 + count];
    values[0] = u64::from_ne_bytes(pair(ETHTOOL_GSTATS, set[4]));
    ioctl(interface, "ETHTOOL_GSTATS", &mut values)?;

    let names: Vec<u8> = names[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let named = names
        .chunks_exact(ETH_GSTRING_LEN)
        .zip(&values[1..])
        .map(|(name, value)| {
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            (String::from_utf8_lossy(name).into_owned(), *value)
        });
    Ok(named.collect())
}

/// Two `u32` as they lie one behind the other in memory.
fn pair(first: u32, second: u32) -> [u8; 8] {
    let [a, b, c, d] = first.to_ne_bytes();
    let [e, f, g, h] = second.to_ne_bytes();
    [a, b, c, d, e, f, g, h]
}

/// Calls `SIOCETHTOOL` with a request whose first word is the command and whose length the command fixes.
fn ioctl<T: Copy>(interface: &str, call: &'static str, request: &mut [T]) -> Result<()> {
    let failed = |source| Error::System {
        call,
        subject: interface.to_owned(),
        source,
    };
    // Any socket does; it chooses the network namespace.
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
    // SAFETY: `ifreq` is plain data, for which all zeroes is a valid value.
    let mut interface_request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= interface_request.ifr_name.len() {
        return Err(failed(io::Error::from_raw_os_error(libc::ENODEV)));
    }
    for (to, from) in interface_request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    interface_request.ifr_ifru.ifru_data = request.as_mut_ptr().cast();
    // SAFETY: the name ends with a zero, and `ifru_data` points to `request`, which is as long as its command says:
    // the callers above build each request by its struct in linux/ethtool.h.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut interface_request) };
    if result < 0 {
        Err(Error::last_os(call, interface))
    } else {
        Ok(())
    }
}
