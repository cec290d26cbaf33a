//! Sets of prefixes, as a file holds them.

use std::path::{Path, PathBuf};

use super::Prefix;

/// Most prefixes a set holds: what a map of the XDP program has room for.
pub const MAX_SET_PREFIXES: usize = 1 << 20;

/// Prefixes of a set file: sorted, each once. Rules share a set by [`Arc`](std::sync::Arc).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixSet {
    file: PathBuf,
    prefixes: Vec<Prefix>,
}

impl PrefixSet {
    /// A set of these prefixes; `file` is where they came from, for messages.
    pub fn new(file: impl Into<PathBuf>, mut prefixes: Vec<Prefix>) -> Self {
        prefixes.sort_unstable();
        prefixes.dedup();
        Self { file: file.into(), prefixes }
    }

    /// The file it was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The prefixes, in order.
    pub fn prefixes(&self) -> &[Prefix] {
        &self.prefixes
    }

    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }
}
