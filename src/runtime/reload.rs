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
    NeedsRestart(String),
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
        let differs = |same: bool, section: &str| match same {
            true => Ok(()),
            false => Err(Self::NeedsRestart(section.to_owned())),
        };
        differs(runs.dataplane == next.dataplane, "[dataplane]")?;
        differs(runs.filter == next.filter, "[[filter]]")?;
        differs(runs.deny_file == next.deny_file, "[deny]")?;
        differs(runs.bounce == next.bounce, "[bounce]")?;
        // Before the list of stages, which changes with a section that is gone or new.
        for (one, other) in [(runs, next), (next, runs)] {
            let differing = one.custom.iter().find(|stage| !other.custom.contains(stage));
            differing.map_or(Ok(()), |stage| differs(false, &format!("[{}]", stage.name())))?;
        }
        differs(runs.stages == next.stages, "[pipeline]")?;
        differs(runs.steered == next.steered, "what leaves the kernel")?;
        differs(runs.balance == next.balance, "[balance]")?;
        differs(runs.nat == next.nat, "[nat]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Registry, StageFactory};
    use crate::stages::bounce::{Bounce, Layer};

    const RUNS: &str = "[mirror]\nlayer = 2\n[bounce]\n[dataplane]\nsteer = \"all\"\n";

    /// What a reload says of a config, when [`RUNS`] runs.
    fn check(next: &str) -> Result<(), String> {
        let registry = Registry::new()
            .stage("mirror", |_: toml::Table| Ok(StageFactory::new(|_| Bounce::new(Layer::L2))));
        let [runs, next] = [RUNS, next].map(|text| registry.parse("lb.toml", text).unwrap());
        ReloadError::check(&runs, &next).map_err(|error| error.to_string())
    }

    #[test]
    fn a_section_of_a_registered_stage_cannot_change_while_running() {
        let told = "`[mirror]` differs from what runs: only `[[service]]` can change while running; restart xfwd to \
                    change the rest";
        for next in [
            RUNS.replace("layer = 2", "layer = 3"),
            RUNS.replace("layer = 2", "layer = 2\nport = 7"),
            RUNS.replace("layer = 2", ""),
            RUNS.replace("[mirror]\nlayer = 2\n", ""),
        ] {
            assert_eq!(check(&next), Err(told.to_owned()), "{next}");
        }
    }

    #[test]
    fn a_section_that_has_moved_in_its_file_is_the_same() {
        let moved = RUNS.replace("[mirror]\nlayer = 2\n", "")
            + "# It was above.\n[mirror]\n  layer  =  2 # as before\n";
        assert_eq!(check(&moved), Ok(()));
        assert_eq!(check(RUNS), Ok(()));
    }
}
