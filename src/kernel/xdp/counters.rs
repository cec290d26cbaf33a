//! The program's counters.

use xfwd_ebpf_types::{Cause, CauseClass, Outcome};

/// Packets by cause, summed over all CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCounters {
    packets: [u64; Cause::COUNTERS as usize],
}

impl Default for KernelCounters {
    fn default() -> Self {
        Self { packets: [0; Cause::COUNTERS as usize] }
    }
}

impl KernelCounters {
    /// Packets with this cause.
    pub fn get(&self, cause: Cause) -> u64 {
        self.packets[cause as usize]
    }

    /// Packets whose headers are broken in this way. Always 0 for [`Outcome::Ip`] and [`Outcome::NotIp`].
    pub fn malformed(&self, outcome: Outcome) -> u64 {
        self.packets[Cause::malformed_index(outcome) as usize]
    }

    /// Every counter with what becomes of its packets and a short name, in a fixed order; those at 0 too.
    pub fn iter(&self) -> impl Iterator<Item = (CauseClass, &'static str, u64)> + '_ {
        let causes = Cause::ALL.iter().map(|&cause| (cause.class(), cause.name(), self.get(cause)));
        let malformed = Outcome::ALL
            .iter()
            .filter(|outcome| outcome.is_malformed())
            .map(|&outcome| (CauseClass::Malformed, outcome.name(), self.malformed(outcome)));
        causes.chain(malformed)
    }

    /// Packets of all causes of a class.
    pub fn total(&self, class: CauseClass) -> u64 {
        self.iter().filter(|&(of, _, _)| of == class).map(|(_, _, packets)| packets).sum()
    }

    pub(in crate::kernel) fn add(&mut self, index: u32) {
        self.packets[index as usize] += 1;
    }

    pub(super) fn set(&mut self, index: u32, packets: u64) {
        self.packets[index as usize] = packets;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_belongs_to_a_class() {
        let mut counters = KernelCounters::default();
        for index in 0..Cause::COUNTERS {
            counters.set(index, 1);
        }
        // Two places are never counted in: an outcome that is not malformed has a place, too.
        let well_formed = Outcome::ALL.iter().filter(|outcome| !outcome.is_malformed());
        assert_eq!(counters.iter().count() + well_formed.count(), Cause::COUNTERS as usize);
        assert_eq!(counters.total(CauseClass::Steered), 4);
    }

    #[test]
    fn names_are_unique() {
        let counters = KernelCounters::default();
        let mut names: Vec<_> = counters.iter().map(|(_, name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), counters.iter().count());
    }
}
