//! Live rates, once a second: a block that is redrawn on a terminal, a plain line elsewhere.

use console::Term;

use super::output::{rate, say};
use crate::runtime::{QueueSnapshot, Snapshot};

pub(super) struct Live {
    last: Snapshot,
    terminal: Option<Term>,
    /// Lines of the block that stands on the terminal.
    drawn: usize,
}

impl Live {
    pub(super) fn new(first: Snapshot) -> Self {
        let terminal = Term::stderr();
        Self { last: first, terminal: terminal.is_term().then_some(terminal), drawn: 0 }
    }

    /// Shows what has happened since the last time.
    pub(super) fn show(&mut self, now: Snapshot) {
        let mut lines = vec![total_line(&self.last, &now)];
        if let Some(terminal) = &self.terminal {
            lines.extend(queue_lines(&self.last, &now));
            let _ = terminal.clear_last_lines(self.drawn);
            for line in &lines {
                let _ = terminal.write_line(&console::truncate_str(line, terminal.size().1.into(), "…"));
            }
            self.drawn = lines.len();
        } else {
            lines.iter().for_each(say);
        }
        self.last = now;
    }

    /// Leaves the block where it is, so that something else can be written below it.
    pub(super) fn interrupt(&mut self) {
        self.drawn = 0;
    }
}

fn total_line(before: &Snapshot, now: &Snapshot) -> String {
    let seconds = (now.seconds - before.seconds).max(1e-3);
    let per_second = |of: fn(&Snapshot) -> u64| rate((of(now) - of(before)) as f64 / seconds);
    format!(
        "{:>4.0} s  rx {}pps {}bit/s  bounce {}  forward {}  drop {}  lost {}  host {}",
        now.seconds,
        spaced(&per_second(|s| s.totals.packets)),
        spaced(&per_second(|s| s.totals.bytes * 8)),
        per_second(|s| s.totals.verdicts.bounce),
        per_second(|s| s.totals.verdicts.forward),
        per_second(|s| {
            s.totals.verdicts.drop + s.interfaces.iter().map(|interface| interface.dropped).sum::<u64>()
        }),
        per_second(|s| s.totals.lost),
        per_second(|s| s.interfaces.iter().map(|interface| interface.passed + interface.malformed).sum()),
    )
}

fn queue_lines(before: &Snapshot, now: &Snapshot) -> Vec<String> {
    let seconds = (now.seconds - before.seconds).max(1e-3);
    now.workers
        .iter()
        .zip(&before.workers)
        .map(|(now_row, before_row)| {
            let packets = now_row.counters.rx_packets - before_row.counters.rx_packets;
            let of_worker = |snapshot: &Snapshot| -> u64 {
                snapshot
                    .queues
                    .iter()
                    .filter(|queue| queue.worker == now_row.worker)
                    .map(QueueSnapshot::lost)
                    .sum()
            };
            format!(
                "        worker {}: rx {}pps  lost {}",
                now_row.worker,
                spaced(&rate(packets as f64 / seconds)),
                rate((of_worker(now) - of_worker(before)) as f64 / seconds)
            )
        })
        .collect()
}

/// `12.3 k` stands before its unit as it is, `950` wants a space.
fn spaced(number: &str) -> String {
    if number.ends_with(|last: char| last.is_ascii_digit()) {
        format!("{number} ")
    } else {
        number.to_owned()
    }
}
