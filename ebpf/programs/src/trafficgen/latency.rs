//! Histograms in maps, one of each CPU.

use aya_ebpf::btf_maps::PerCpuArray;
use xfwd_ebpf_types::latency::{BUCKETS, bucket};

/// Counts a value in nanoseconds.
#[inline(always)]
pub fn record(histogram: &PerCpuArray<[u64; BUCKETS], 1>, value: u64) {
    if let Some(buckets) = histogram.get_ptr_mut(0) {
        let place = bucket(value) % BUCKETS;
        // SAFETY: the element belongs to this CPU, and the place is inside of it by the line above.
        unsafe { *buckets.cast::<u64>().add(place) += 1 };
    }
}
