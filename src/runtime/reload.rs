//! Going on by another plan.

use thiserror::Error;

use super::StartError;
use crate::config::Plan;
use crate::kernel::addresses::AddressError;
use crate::kernel::xdp::XdpError;

/// A plan that cannot be gone on by. The one before goes on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// Something differs that is set when a run starts.
    #[error(
        "`{0}` differs from what runs: only `[[service]]` can change while running; restart xfwd to change the rest"
    )]
    NeedsRestart(&'static str),
    /// The services cannot be balanced.
    #[error(transparent)]
    Services(#[from] StartError),
    /// The host's addresses could not be read.
    #[error(transparent)]
    Addresses(#[from] AddressError),
    /// The XDP program could not be told. New services may be left to the host.
    #[error(transparent)]
    Xdp(#[from] XdpError),
}

impl ReloadError {
    /// Whether a plan differs from the one that runs in something that cannot change.
    pub(super) fn check(runs: &Plan, next: &Plan) -> Result<(), Self> {
        let differs = |same: bool, section| if same { Ok(()) } else { Err(Self::NeedsRestart(section)) };
        differs(runs.dataplane == next.dataplane, "[dataplane]")?;
        differs(runs.filter == next.filter, "[[filter]]")?;
        differs(runs.deny_file == next.deny_file, "[deny]")?;
        differs(runs.bounce == next.bounce, "[bounce]")?;
        differs(runs.stages == next.stages, "[pipeline]")?;
        for (one, other) in [(runs, next), (next, runs)] {
            let differing = one.custom.iter().find(|stage| !other.custom.contains(stage));
            differing.map_or(Ok(()), |stage| Err(Self::NeedsRestart(stage.name())))?;
        }
        differs(runs.steered == next.steered, "what leaves the kernel")?;
        differs(runs.balance == next.balance, "[balance]")?;
        differs(runs.nat == next.nat, "[nat]")
    }
}
