//! What is told at the end.

use std::fmt;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use xfwd_netns::trafficgen::{Counts, Sent};

/// Percentiles that are shown.
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

pub struct Report {
    pub sent: Sent,
    pub received: Option<Counts>,
    /// From when a packet was due until it came back.
    pub latency: Option<Histogram<u64>>,
    /// From when a packet was due until it left.
    pub lateness: Option<Histogram<u64>>,
    /// Most packets per second that the generator can make of this traffic.
    pub limit: Option<f64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sent { packets, refused, elapsed } = &self.sent;
        let seconds = elapsed.as_secs_f64();
        writeln!(f, "sent      {packets:>12} packets in {seconds:.3} s, {:.0} pps", self.sent.pps())?;
        if let Some(limit) = self.limit {
            let share = self.sent.pps() * 100.0 / limit;
            writeln!(
                f,
                "limit     {limit:>12.0} pps of this traffic into a dropping peer; {share:.0}% of it were sent"
            )?;
        }
        if let Some(refused) = refused.filter(|refused| *refused > 0) {
            writeln!(f, "refused   {refused:>12} packets by the interface")?;
        }
        let Some(received) = &self.received else {
            return Ok(());
        };
        let total = received.total();
        let share = total.ours as f64 * 100.0 / (*packets).max(1) as f64;
        let (all, ours) = (total.packets, total.ours);
        writeln!(f, "received  {all:>12} packets, {ours} of them answers ({share:.2}% of those sent)")?;
        for (class, counters) in received.iter().filter(|(_, counters)| counters.packets > 0) {
            let (name, packets, bytes) = (class.name(), counters.packets, counters.bytes);
            write!(f, "  {name:<10} {packets:>9} packets {bytes:>14} bytes")?;
            if counters.bad_checksum > 0 {
                write!(f, ", {} with a wrong checksum", counters.bad_checksum)?;
            }
            writeln!(f)?;
        }
        let histograms = [("latency", &self.latency), ("late", &self.lateness)];
        let histograms =
            histograms.into_iter().filter_map(|(name, histogram)| Some((name, histogram.as_ref()?)));
        for (name, histogram) in histograms.filter(|(_, histogram)| !histogram.is_empty()) {
            write!(f, "{name:<9}")?;
            for (percentile, value) in PERCENTILES {
                let microseconds = histogram.value_at_percentile(value) as f64 / 1e3;
                write!(f, " {percentile} {microseconds:.1}")?;
            }
            writeln!(f, " max {:.1} µs, of {} packets", histogram.max() as f64 / 1e3, histogram.len())?;
        }
        Ok(())
    }
}

impl Report {
    pub fn to_json(&self) -> Value {
        let received = self.received.as_ref().map(|counts| {
            let total = counts.total();
            let classes: serde_json::Map<_, _> = counts
                .iter()
                .map(|(class, counters)| {
                    let counters = json!({
                        "packets": counters.packets,
                        "bytes": counters.bytes,
                        "ours": counters.ours,
                        "bad_checksum": counters.bad_checksum,
                    });
                    (class.name().to_owned(), counters)
                })
                .collect();
            json!({ "packets": total.packets, "bytes": total.bytes, "ours": total.ours, "classes": classes })
        });
        json!({
            "sent": {
                "packets": self.sent.packets,
                "refused": self.sent.refused,
                "seconds": self.sent.elapsed.as_secs_f64(),
                "pps": self.sent.pps(),
            },
            "limit_pps": self.limit,
            "received": received,
            "latency_ns": self.latency.as_ref().map(nanoseconds),
            "late_ns": self.lateness.as_ref().map(nanoseconds),
        })
    }
}

fn nanoseconds(histogram: &Histogram<u64>) -> Value {
    let mut values = json!({ "packets": histogram.len(), "min": histogram.min(), "max": histogram.max() });
    for (name, percentile) in PERCENTILES {
        values[name] = histogram.value_at_percentile(percentile).into();
    }
    values
}
