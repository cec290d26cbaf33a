//! Identification of outer IPv4 headers that may be fragmented on their way.

/// A source of IPv4 identifications: one a worker, each with numbers of its own, so that two packets in flight between the
/// same addresses do not have the same one.
///
/// Only packets without "don't fragment" need any (RFC 6864). There are 65,536, so above some thousand such packets a
/// second they come round while fragments may still be on their way, and reassembly can mix two packets (RFC 4963): a
/// reason more to have no fragments.
#[derive(Clone, Copy, Debug)]
pub struct Identification {
    next: u16,
    step: u16,
}

impl Identification {
    /// The numbers of worker `worker` (from 0) of `workers`.
    ///
    /// ```
    /// # use xfwd::stages::balance::way::Identification;
    /// let mut second_of_three = Identification::new(1, 3);
    /// assert_eq!([second_of_three.take(), second_of_three.take()], [1, 5]);
    /// ```
    pub fn new(worker: u16, workers: u16) -> Self {
        // A power of two, so that the numbers of two workers stay apart when they wrap.
        Self { next: worker, step: workers.max(1).checked_next_power_of_two().unwrap_or(1) }
    }

    /// The next number.
    #[inline]
    pub fn take(&mut self) -> u16 {
        let number = self.next;
        self.next = number.wrapping_add(self.step);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_no_number_however_long_they_run() {
        let mut owner = vec![None; 65_536];
        for worker in 0..3 {
            let mut numbers = Identification::new(worker, 3);
            for _ in 0..100_000 {
                let owner = &mut owner[usize::from(numbers.take())];
                assert_eq!(*owner.get_or_insert(worker), worker);
            }
        }
    }

    #[test]
    fn one_worker_uses_all_numbers_before_one_comes_again() {
        let mut numbers = Identification::new(0, 1);
        for expected in 0..=u16::MAX {
            assert_eq!(numbers.take(), expected);
        }
        assert_eq!(numbers.take(), 0);
    }
}
