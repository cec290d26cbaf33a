//! How long packets take, from histograms that the XDP programs keep.
//!
//! # Coordinated omission
//!
//! Who measures a delay from the moment of sending measures nothing while sending is held up, which is when delays are worst:
//! the measurement is coordinated with what it measures (Gil Tene, "How NOT to Measure Latency"; `wrk2` and HdrHistogram
//! have the correction from there). Here it cannot happen: a paced generator has a plan in which packet `n` is due at the
//! start plus `n` intervals, and the stamp in a packet is the time when it was *due*, not that when it left. A packet that
//! leaves late, for whatever reason, has that delay in its latency, and none is left out of the plan. How much of it is the
//! generator's own fault can be told apart: [`Generator::lateness`](super::Generator::lateness).
//!
//! Without a rate there is no plan, and a stamp is the time at which the packet was made.

use aya::maps::{MapData, PerCpuArray};
use hdrhistogram::Histogram;
use xfwd_ebpf_types::latency::{BUCKETS, values};

use super::object::take_map;
use crate::error::{Error, Result};

/// A histogram of nanoseconds in a map, summed up over all CPUs when it is read.
pub(super) struct Latencies {
    name: &'static str,
    map: PerCpuArray<MapData, [u64; BUCKETS]>,
}

impl Latencies {
    pub fn take(ebpf: &mut aya::Ebpf, name: &'static str) -> Result<Self> {
        Ok(Self { name, map: take_map(ebpf, name)? })
    }

    /// Each value is the middle of its bucket, at most 0.8 % from what it was.
    pub fn read(&self) -> Result<Histogram<u64>> {
        let failed = |source| Error::Map { map: self.name, source: Box::new(source) };
        let mut sums = vec![0; BUCKETS];
        for buckets in self.map.get(&0, 0).map_err(failed)?.iter() {
            for (sum, count) in sums.iter_mut().zip(buckets) {
                *sum += count;
            }
        }
        let mut histogram = Histogram::new(3).map_err(|_| Error::Object(self.name))?;
        for (bucket, count) in sums.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            let (least, width) = values(bucket);
            // It grows with its values, so none is too large.
            let middle = least + (width - 1) / 2;
            histogram.record_n(middle, count).map_err(|_| Error::Object(self.name))?;
        }
        Ok(histogram)
    }

    pub fn clear(&mut self) -> Result<()> {
        let failed = |source| Error::Map { map: self.name, source: Box::new(source) };
        let cpus = self.map.get(&0, 0).map_err(failed)?.len();
        let zeroes = vec![[0; BUCKETS]; cpus].try_into().map_err(|source| Error::System {
            call: "bpf_map_update_elem",
            subject: self.name.to_owned(),
            source,
        })?;
        self.map.set(0, zeroes, 0).map_err(failed)
    }
}
