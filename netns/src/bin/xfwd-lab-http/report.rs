//! What a client has seen.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::json;

const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

/// Counts of requests, and the latency of those that succeeded.
pub struct Report {
    succeeded: u64,
    backends: BTreeMap<String, u64>,
    failures: BTreeMap<String, u64>,
    latency_us: Histogram<u64>,
}

impl Report {
    pub fn new() -> Result<Self> {
        // Three digits, from 1 µs to a minute; what takes longer is shown as a minute.
        let latency_us = Histogram::new_with_max(60_000_000, 3)?;
        Ok(Self {
            succeeded: 0,
            backends: BTreeMap::new(),
            failures: BTreeMap::new(),
            latency_us,
        })
    }

    /// Adds one request: the first line of its answer, or why there was none.
    pub fn add(&mut self, answer: Result<String, String>, took: Duration) {
        match answer {
            Ok(name) => {
                self.succeeded += 1;
                *self.backends.entry(name).or_default() += 1;
                self.latency_us
                    .saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            }
            Err(reason) => *self.failures.entry(reason).or_default() += 1,
        }
    }

    pub fn has_failures(&self) -> bool {
        !self.failures.is_empty()
    }

    pub fn print(&self, elapsed: Duration, as_json: bool) {
        let failed: u64 = self.failures.values().sum();
        let seconds = elapsed.as_secs_f64();
        let per_second = self.succeeded as f64 / seconds;
        let latency =
            PERCENTILES.map(|percentile| (percentile, self.latency_us.value_at_percentile(percentile)));
        let slowest = self.latency_us.max();
        if as_json {
            let mut latency: serde_json::Map<_, _> = latency
                .iter()
                .map(|(percentile, us)| (format!("p{percentile}"), json!(us)))
                .collect();
            latency.insert("max".to_owned(), json!(slowest));
            let report = json!({
                "succeeded": self.succeeded,
                "failed": failed,
                "seconds": seconds,
                "per_second": per_second,
                "backends": self.backends,
                "failures": self.failures,
                "latency_us": latency,
            });
            println!("{report}");
            return;
        }
        println!(
            "{} succeeded, {failed} failed in {seconds:.2} s ({per_second:.0}/s)",
            self.succeeded
        );
        for (name, count) in &self.backends {
            let share = *count as f64 * 100.0 / self.succeeded as f64;
            println!("  {name:<24} {count:>8}  {share:5.1}%");
        }
        for (reason, count) in &self.failures {
            println!("  failed: {reason:<16} {count:>8}");
        }
        if self.succeeded > 0 {
            let shown: Vec<String> = latency
                .iter()
                .map(|(percentile, us)| format!("p{percentile} {us} µs"))
                .collect();
            println!("latency: {}, max {slowest} µs", shown.join(", "));
        }
    }
}
