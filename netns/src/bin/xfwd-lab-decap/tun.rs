//! The device by which inner packets arrive at the host's stack.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    mem,
    os::fd::AsRawFd as _,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::libc;

/// A tun device; it is gone when this is dropped.
pub struct Tun(File);

impl Tun {
    /// Makes a device of this name, up, that takes packets from wherever they come.
    pub fn open(name: &str, mtu: u32) -> Result<Self> {
        let path = "/dev/net/tun";
        let file = File::options().read(true).write(true).open(path).context(path)?;
        // SAFETY: plain data, for which all zeroes is a valid value.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        ensure!(name.len() < request.ifr_name.len(), "the device name {name} is too long");
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: TUNSETIFF takes an ifreq, whose name ends with a zero.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        ensure!(result >= 0, "TUNSETIFF {name}: {}", io::Error::last_os_error());

        for scope in ["all", name] {
            let path = format!("/proc/sys/net/ipv4/conf/{scope}/rp_filter");
            fs::write(&path, "0").context(path)?;
        }
        let mut ip = Command::new("ip");
        ip.args(["link", "set", "dev", name, "mtu", &mtu.to_string(), "up"]);
        let output = ip.output().context("ip link set")?;
        ensure!(output.status.success(), "ip link set: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self(file))
    }

    /// The host receives a packet.
    pub fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        // One write is one packet.
        self.0.write(packet).map(drop)
    }
}
