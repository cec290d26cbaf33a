//! `xfwd-lab-decap`: takes the outer headers off what a backend gets through a tunnel, for kernels without tunnel devices.
//!
//! Sockets receive IPv4 and IPv6 in IPv4 and IPv6 (protocols 4 and 41) and GUE variant 1 (UDP, whose payload is an IP
//! packet); what passes the checks of a kernel's tunnel is written to a tun device, so that the host's own stack goes on
//! with the inner packet. Where the host has a VIP on `lo`, it answers the client directly.
//!
//! The interface that packets arrive by must have GRO off: the kernel would merge inner TCP segments, without finishing
//! their checksums.

mod counts;
mod ecn;
mod inner;
mod outer;
mod tun;

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::SignalFd,
    },
};

use counts::Counts;
use outer::{Outer, Received};
use tun::Tun;

/// The longest IP packet, and one byte more, which tells a packet that was cut.
const BUFFER_BYTES: usize = 65_536;

/// Takes the outer headers off packets from tunnels, and gives the inner ones to this host's stack.
///
/// Says `ready`, and prints what it counted as JSON when SIGINT or SIGTERM ends it.
#[derive(Parser)]
#[command(name = "xfwd-lab-decap", version)]
struct Arguments {
    /// UDP port of GUE.
    #[arg(long, default_value_t = 6080)]
    gue_port: u16,
    /// Name of the tun device that inner packets arrive by.
    #[arg(long, default_value = "decap0")]
    device: String,
    /// MTU of the tun device, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1500)]
    mtu: u32,
    /// Take GUE over IPv6 without a UDP checksum (RFC 6935), too.
    #[arg(long)]
    zero_checksum6: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block().context("sigprocmask")?;
    let signals = SignalFd::new(&signals).context("signalfd")?;
    let mut tun = Tun::open(&arguments.device, arguments.mtu)?;
    let sockets = Outer::all(arguments.gue_port, arguments.zero_checksum6)?;
    println!("ready");

    let mut counts = Counts::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let mut files: Vec<PollFd> =
            sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        files.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        match poll(&mut files, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => _ = result.context("poll")?,
        }
        let ready: Vec<bool> = files.iter().map(|file| file.any().unwrap_or(true)).collect();
        for (socket, _) in sockets.iter().zip(&ready).filter(|(_, ready)| **ready) {
            while let Some(received) = socket.receive(&mut buffer)? {
                pass_on(&received, &mut buffer, &mut tun, &mut counts);
            }
        }
        if ready.last() == Some(&true) {
            counts.print()?;
            io::stdout().flush()?;
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn pass_on(received: &Received, buffer: &mut [u8], tun: &mut Tun, counts: &mut Counts) {
    let packet = &mut buffer[received.inner.clone()];
    let checked = if received.is_ours {
        inner::check(packet, received.version).and_then(|version| {
            inner::take_over_ecn(packet, received.traffic_class)?;
            Ok(version)
        })
    } else {
        Err(inner::Refused::NotOurs)
    };
    match checked {
        Ok(version) => match tun.write(packet) {
            Ok(()) => counts.received(received, version),
            Err(error) => {
                eprintln!("tun: {error}");
                counts.refused("kernel");
            }
        },
        Err(refused) => counts.refused(refused.name()),
    }
}
