//! The `xfwd` command with one stage more: `[ttl_guard]`, which drops what has come from too far.
//!
//! Usage: as `xfwd` itself, such as `custom_stage --iface eth0 examples/custom_stage.toml`, or `custom_stage check
//! examples/custom_stage.toml`. `[pipeline]` of the config says where the stage stands; what its section gets wrong is
//! shown with file, line and column like everything else; what it counts is in the summary, also as JSON.
//!
//! Services that only neighbours may use protect themselves like this (GTSM, RFC 5082): nobody who is not on the link can send
//! a packet that arrives with a TTL of 255, since every router on the way takes one off.

use std::process::ExitCode;

use serde::Deserialize;
use xfwd::config::{Registry, SectionError, StageFactory};
use xfwd::packet::{Ipv4, Ipv6, Outcome};
use xfwd::prelude::*;

/// The section. Serde reads it; a key that is not here is an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Routers that a packet may have passed.
    hops: u8,
}

impl Settings {
    /// What serde cannot know is checked here, and told with the key that it is about.
    fn least_ttl(&self) -> Result<u8, SectionError> {
        match u8::MAX.checked_sub(self.hops).filter(|least| *least > 0) {
            Some(least) => Ok(least),
            None => Err(SectionError::new("so every packet would pass")
                .key("hops")
                .label("must be 0 to 254")
                .help("0 lets only neighbours in")),
        }
    }
}

struct TtlGuard {
    least: u8,
    too_far: StageCounter,
}

impl Stage for TtlGuard {
    fn name(&self) -> &str {
        "ttl_guard"
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        batch.each_undecided(|packet| match ttl(packet) {
            Some(ttl) if ttl < self.least => {
                self.too_far.add(1);
                Verdict::Drop(DropReason::Rule)
            }
            // The next stage decides.
            _ => Verdict::Continue,
        });
    }
}

/// TTL or hop limit; what is not IP, or broken, has none.
fn ttl(packet: &Packet<'_>) -> Option<u8> {
    let headers = packet.headers();
    let network = packet.bytes().get(headers.network_offset.into()..)?;
    match (headers.outcome(), headers.ip_version) {
        (Outcome::Ip, 4) => Some(Ipv4::new_checked(network).ok()?.ttl()),
        (Outcome::Ip, 6) => Some(Ipv6::new_checked(network).ok()?.hop_limit()),
        _ => None,
    }
}

fn main() -> ExitCode {
    let registry = Registry::new().stage("ttl_guard", |settings: Settings| {
        let least = settings.least_ttl()?;
        Ok(StageFactory::new(move |worker| TtlGuard { least, too_far: worker.counter("too-far") }))
    });
    xfwd::cli::main_with(&registry)
}
