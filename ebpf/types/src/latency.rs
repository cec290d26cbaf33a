//! Histograms of times in an array of counters, log-linear as HdrHistogram's (<https://hdrhistogram.org>): each power of two
//! is cut into the same number of equal parts, so that a value is known to the same relative error wherever it is.
//!
//! 64 parts make that error at most 1/64 of the value, and half of it if the middle of a bucket is taken.

/// Number of parts of a power of two, as bits.
const PART_BITS: u32 = 6;
/// Values have fewer bits than this: up to 137 s, in nanoseconds.
const VALUE_BITS: u32 = 37;
/// Number of buckets: 64 for the values below 64, and as many for each further power of two.
pub const BUCKETS: usize = ((VALUE_BITS - PART_BITS + 1) << PART_BITS) as usize;

/// The bucket of a value; what is too large is in the last one.
#[inline(always)]
pub const fn bucket(value: u64) -> usize {
    if value >> VALUE_BITS != 0 {
        return BUCKETS - 1;
    }
    let mut shift = 0;
    // The highest of the bits above the parts, by halving; a loop of one bit a turn would be longer.
    let mut rest = value >> PART_BITS;
    let mut step = 16;
    while step > 0 {
        if rest >> step != 0 {
            rest >>= step;
            shift += step;
        }
        step /= 2;
    }
    // `rest` is now 0 for a value below 64, otherwise 1.
    ((shift as usize) << PART_BITS) + (value >> shift) as usize
}

/// The least value of a bucket, and how many values it holds.
///
/// # Panics
///
/// If there is no such bucket.
pub const fn values(bucket: usize) -> (u64, u64) {
    assert!(bucket < BUCKETS);
    let parts = 1 << PART_BITS;
    if bucket < 2 * parts {
        return (bucket as u64, 1);
    }
    let shift = bucket / parts - 1;
    (((bucket % parts + parts) as u64) << shift, 1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_without_gap_and_each_value_is_in_its_own() {
        let mut next = 0;
        for number in 0..BUCKETS {
            let (least, width) = values(number);
            assert_eq!(least, next, "bucket {number}");
            assert_eq!((bucket(least), bucket(least + width - 1)), (number, number));
            assert!(width * 64 <= least.max(64), "bucket {number} is too wide");
            next = least + width;
        }
        assert_eq!(next, 1 << VALUE_BITS);
    }

    #[test]
    fn what_is_too_large_is_in_the_last_bucket() {
        assert_eq!(bucket(1 << VALUE_BITS), BUCKETS - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
