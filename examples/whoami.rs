//! The `xfwd` command with a service more: `[whoami]`, which tells whoever asks by UDP from which address and port the question came. The
//! guide grows it step by step (`docs/writing-a-stage.md`).
//!
//! Usage: as `xfwd` itself, such as `whoami --iface eth0 examples/whoami.toml` or `whoami replay examples/whoami.toml in.pcap`. Then,
//! from another machine, `nc -u 198.18.0.2 9999` and a line of 48 characters or more.
//!
//! An answer is never longer than its question, unless `amplify = true`: whoever forges the source address of a question sends its
//! answer to somebody else, and shall not gain by it.

use std::io::{Cursor, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use serde::Deserialize;
use xfwd::config::{Registry, SectionError, StageFactory};
use xfwd::packet::FiveTuple;
use xfwd::prelude::*;

// ANCHOR: settings
/// The section `[whoami]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Address of this host, and the port to answer at.
    address: SocketAddr,
    /// Whether a question may be shorter than its answer.
    #[serde(default)]
    amplify: bool,
}
// ANCHOR_END: settings

// ANCHOR: stage
struct WhoAmI {
    address: SocketAddr,
    amplify: bool,
    answered: StageCounter,
    too_short: StageCounter,
}

impl Stage for WhoAmI {
    fn name(&self) -> &str {
        "whoami"
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        batch.each_undecided(|packet| self.judge(packet));
    }
}

impl WhoAmI {
    fn judge(&self, packet: &mut Packet<'_>) -> Verdict {
        let Some(flow) = FiveTuple::of(packet.bytes(), packet.headers()) else {
            return Verdict::Continue;
        };
        if flow.destination() != self.address || packet.udp().is_none() {
            // Not for this stage: the next one decides.
            return Verdict::Continue;
        }
        // Longest: `[`, 39 characters of an IPv6 address, `]:`, five digits and the end of the line.
        let mut text = Cursor::new([0; 48]);
        if writeln!(text, "{}", flow.source()).is_err() {
            return Verdict::Drop(DropReason::NotAnswered);
        }
        let length = text.position() as usize;
        if !self.amplify && packet.payload().is_none_or(|question| question.len() < length) {
            self.too_short.add(1);
            return Verdict::Drop(DropReason::NotAnswered);
        }
        match packet.reply_udp(&text.get_ref()[..length]) {
            Ok(()) => {
                self.answered.add(1);
                Verdict::Bounce
            }
            Err(_) => Verdict::Drop(DropReason::NotAnswered),
        }
    }
}
// ANCHOR_END: stage

// ANCHOR: main
fn main() -> ExitCode {
    let registry = Registry::new().stage("whoami", |settings: Settings| {
        let Settings { address, amplify } = settings;
        if address.port() == 0 {
            return Err(SectionError::new("nobody can send to port 0").key("address"));
        }
        let factory = StageFactory::new(move |worker| WhoAmI {
            address,
            amplify,
            answered: worker.counter("answered"),
            too_short: worker.counter("too-short"),
        });
        Ok(factory.steer(SteeredService::udp(address)))
    });
    xfwd::cli::main_with(&registry)
}
// ANCHOR_END: main
