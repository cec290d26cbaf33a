//! Where a rule runs, and why.

use std::fmt;

/// Where a rule runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// In the XDP program.
    Kernel,
    /// In the worker.
    Worker(WhyWorker),
    /// Nowhere: its action is `continue`.
    Nowhere,
}

impl Place {
    /// Whether it runs in the worker.
    pub fn is_worker(&self) -> bool {
        matches!(self, Self::Worker(_))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str("kernel"),
            Self::Worker(why) => write!(f, "worker: {why}"),
            Self::Nowhere => f.write_str("nowhere: `continue` does nothing"),
        }
    }
}

/// Why a rule cannot run in the XDP program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhyWorker {
    /// It sends the packet back.
    Bounce,
    /// It has a rate.
    Rate,
    /// Another stage looks at packets before the filter.
    NotFirst {
        /// The first stage.
        stage: String,
    },
    /// An earlier rule that may match the same packet runs in the worker.
    Behind {
        /// Name of that rule.
        rule: String,
    },
    /// There are too many earlier rules in the worker to compare it with.
    BehindMany {
        /// With how many a rule is compared.
        compared: usize,
    },
    /// It does not fit the rest of the table.
    Table {
        /// Entries it needs.
        needed: usize,
        /// Entries that are free.
        free: usize,
    },
    /// It needs more prefix lists than the table can look at.
    Sets {
        /// How many there are.
        capacity: usize,
    },
}

impl fmt::Display for WhyWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bounce => {
                f.write_str("the XDP program drops and accepts, only a worker sends packets back")
            }
            Self::Rate => f.write_str("policers run in the worker"),
            Self::NotFirst { stage } => write!(f, "the stage `{stage}` stands before the filter"),
            Self::Behind { rule } => {
                write!(
                    f,
                    "it stands behind `{rule}`, which runs in the worker and may match the same packets"
                )
            }
            Self::BehindMany { compared } => {
                write!(f, "it stands behind more than {compared} rules that run in the worker")
            }
            Self::Table { needed, free } => write!(
                f,
                "its combination of conditions takes {needed} of the XDP program's {} table entries, and {free} are left",
                xfwd_ebpf_types::filter::MAX_ENTRIES
            ),
            Self::Sets { capacity } => write!(
                f,
                "it combines a prefix list with other conditions, and the XDP program knows only {capacity} such lists"
            ),
        }
    }
}
