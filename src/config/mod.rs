//! The config file: `lb.toml` in, a validated [`Plan`] out. Pure but for [`load`], which reads
//! the file, and for the set files that it names.
//!
//! All errors found are reported at once, each with line, column, and what would be right:
//!
//! ```text
//! error: unknown key `wieght` in `[[service.backend]]`
//!   --> lb.toml:14:1
//!    |
//! 14 | wieght = 2
//!    | ^^^^^^ did you mean `weight`?
//! ```
//!
//! The document is read by hand from the tree that the `toml` crate parses, not by serde's derive: that would
//! stop at the first unknown key or wrong type. Each section has a file: its types, how it is read, what is
//! checked.
#![forbid(unsafe_code)]

mod addresses;
mod balance;
mod bounce;
mod choice;
mod dataplane;
mod deny;
mod diagnostic;
mod duration;
pub(crate) mod filter;
mod nat;
mod pipeline;
mod plan;
mod reader;
#[cfg(test)]
mod reference;
mod registry;
mod service;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use crate::stages::balance::{Affinity, BackendState, Forward, NoBackend};
pub use balance::BalanceSettings;
pub use bounce::Bounce;
pub use dataplane::{Dataplane, InvalidSize, Steer};
pub use diagnostic::{Diagnostic, Severity};
#[cfg(feature = "cli")]
pub(crate) use duration::show as show_time;
pub use nat::{LEAST_PORTS_PER_WORKER, NatSettings, PoolTooSmall};
pub use pipeline::StageKind;
pub use plan::{Plan, SteeringPlan};
pub use registry::{CustomStage, Registry, SectionError, StageFactory};
pub use service::{Backend, HealthCheck, HealthKind, Protocol, Service, Through};

/// A config that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        reason: std::io::Error,
    },
    /// The file is not a valid config.
    #[error("{}", join(.0))]
    Invalid(
        /// The errors, in the order of the file; one at least.
        Vec<Diagnostic>,
    ),
}

impl ConfigError {
    /// What is wrong, in the order of the file; empty when the file cannot be read.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Invalid(diagnostics) => diagnostics,
        }
    }
}

fn join(diagnostics: &[Diagnostic]) -> String {
    let texts: Vec<String> = diagnostics.iter().map(Diagnostic::to_string).collect();
    texts.join("\n\n")
}

/// Reads and validates a config file.
///
/// # Errors
///
/// [`ConfigError`] when the file cannot be read or is not a valid config.
pub fn load(path: &Path) -> Result<Plan, ConfigError> {
    Registry::new().load(path)
}

/// Validates a config given as text; `name` is the file name that messages show. Set files that it names are read,
/// relative to the directory of `name`.
///
/// ```
/// let plan = xfwd::config::parse("example", "[dataplane]\nsteer = \"all\"\n[bounce]")?;
/// assert_eq!(plan.dataplane.ring_size, 2048);
///
/// let error = xfwd::config::parse("example", "[bounce]\nlayer = \"l5\"").unwrap_err();
/// assert_eq!((error.diagnostics()[0].line, error.diagnostics()[0].column), (2, 9));
/// # Ok::<(), xfwd::config::ConfigError>(())
/// ```
///
/// # Errors
///
/// [`ConfigError::Invalid`] when `text` is not a valid config.
pub fn parse(name: &str, text: &str) -> Result<Plan, ConfigError> {
    Registry::new().parse(name, text)
}
