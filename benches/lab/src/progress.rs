//! A progress bar on a terminal, lines elsewhere.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::case::Unit;
use crate::report::figure;

/// How often the bar shows that time passes.
const TICK: Duration = Duration::from_millis(200);

/// Shows how far a run is, on standard error.
pub struct Progress {
    bar: ProgressBar,
    lines: bool,
    turn: RefCell<String>,
}

impl Progress {
    /// Of so many turns.
    pub fn new(turns: usize) -> Self {
        let lines = !std::io::stderr().is_terminal();
        let bar = if lines { ProgressBar::hidden() } else { ProgressBar::new(turns as u64) };
        bar.set_length(turns as u64);
        if let Ok(style) =
            ProgressStyle::with_template("{elapsed_precise} {bar:32} {pos}/{len} left {eta}  {msg}")
        {
            bar.set_style(style);
        }
        if !lines {
            bar.enable_steady_tick(TICK);
        }
        Self { bar, lines, turn: RefCell::default() }
    }

    /// A turn begins.
    pub fn begin(&self, case: &str, subject: &str, round: usize) {
        let turn = format!("{case}, round {round}: {subject}");
        self.bar.set_message(turn.clone());
        self.turn.replace(turn);
    }

    /// The turn is over, with this figure, if there is one.
    pub fn done(&self, value: Option<(f64, Unit)>) {
        self.bar.inc(1);
        if let Some((value, unit)) = value.filter(|_| self.lines) {
            let (at, of) = (self.bar.position(), self.bar.length().unwrap_or_default());
            eprintln!("{at}/{of} {} {}", self.turn.borrow(), figure(value, unit));
        }
    }

    /// Something that has to be read.
    pub fn say(&self, line: &str) {
        if self.lines { eprintln!("{line}") } else { self.bar.println(line) }
    }

    /// All turns are over.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
