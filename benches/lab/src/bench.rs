//! What all measurements share: the settings, the cores, the files of this run, and what the generator can do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::machine;
use crate::offer::Traffic;

/// How thorough a run is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Fewer points, shorter measurements.
    pub quick: bool,
    /// Turns of each case; `None`: what the case asks for.
    pub runs: Option<usize>,
    /// Length of one measurement.
    pub time: Duration,
}

impl Settings {
    /// How long packets are sent before anything is counted: the first ones find everything cold.
    pub fn warm_up(&self) -> Duration {
        (self.time / 4).max(Duration::from_millis(100))
    }
}

/// Who works where. On a veth the driver of the subject's interface works on the generator's core, since sending is receiving there.
#[derive(Clone, Debug)]
pub struct Cores {
    /// The generator's.
    pub generator: usize,
    /// Those of the subject's workers.
    pub subject: Vec<usize>,
}

impl Cores {
    /// The core of the subject's worker `index`; workers share cores if there are too few.
    pub fn of_worker(&self, index: usize) -> usize {
        self.subject[index % self.subject.len()]
    }

    /// Takes the first core for the generator, and for the subject all that do not share a physical core with it, if there are any.
    pub fn choose() -> Result<Self> {
        let all = machine::allowed_cores()?;
        ensure!(
            all.len() >= 2,
            "generator and subject need a core each: this process may use {} only",
            all.len()
        );
        let generator = all[0];
        let siblings = machine::siblings(generator);
        let rest: Vec<usize> = all.into_iter().filter(|core| *core != generator).collect();
        let apart: Vec<usize> = rest.iter().copied().filter(|core| !siblings.contains(core)).collect();
        Ok(Self { generator, subject: if apart.is_empty() { rest } else { apart } })
    }
}

/// A run of the lab.
pub struct Bench {
    /// How thorough it is.
    pub settings: Settings,
    /// Who works where.
    pub cores: Cores,
    /// What the generator can do at most, packets a second, by traffic: measured into an XDP program that drops everything.
    pub limits: RefCell<BTreeMap<Traffic, f64>>,
    scratch: PathBuf,
}

impl Bench {
    /// A run with a folder of its own for configs and the like, removed with it.
    pub fn new(settings: Settings, cores: Cores) -> Result<Self> {
        let scratch = std::env::temp_dir().join(format!("xfwd-bench-{}", std::process::id()));
        fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
        Ok(Self { settings, cores, limits: RefCell::default(), scratch })
    }

    /// Writes a file of a measurement, over the one that had the name before.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.scratch.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.scratch);
    }
}
