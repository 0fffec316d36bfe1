//! The one histogram that everything shares: log-linear, in units of 125 ns.
//!
//! Pure arithmetic; nothing here touches the system. `bpf/histogram.h` computes the same index in
//! the kernel, and a test runs that header against this module.
//!
//! A latency of `n` nanoseconds is `u = n / 125` units (rounded down). Below [`SUB_BUCKETS`] units
//! each unit has a bucket of its own; above, each octave `[2^e, 2^(e+1))` is cut into
//! [`SUB_BUCKETS`] equal buckets, so a bucket is at most 1/16 of its lower bound wide. Because
//! 1 µs is 2^3 units, every power-of-two microsecond is a bucket boundary, and the log2 slots
//! of the record are exact sums of buckets.

/// Length of one histogram unit, in nanoseconds.
pub const UNIT_NS: u64 = 125;
/// Histogram units in one microsecond.
pub const UNITS_PER_US: u64 = 8;
/// Buckets per octave.
pub const SUB_BUCKETS: u64 = 16;
/// Base-2 logarithm of [`SUB_BUCKETS`].
const SUB_BITS: u32 = 4;
/// First exponent that is not resolved: 2^36 units are 8,589.9 s.
pub const MAX_EXPONENT: u32 = 36;
/// Number of buckets. The last one, [`OVERFLOW_BUCKET`], takes everything from 2^36 units on.
pub const BUCKETS: usize = ((MAX_EXPONENT - SUB_BITS + 1) as u64 * SUB_BUCKETS) as usize + 1;
/// Index of the bucket that takes every latency of 2^36 units (8,589.9 s) or more.
pub const OVERFLOW_BUCKET: usize = BUCKETS - 1;
/// Number of log2 slots that a histogram can fill: slot 33 takes what overflows.
pub const SLOTS: usize = (MAX_EXPONENT - 3) as usize + 1;

/// Index of the bucket that holds a latency of `units` (of 125 ns each). Range: `0..BUCKETS`.
#[must_use]
pub const fn bucket_of_units(units: u64) -> usize {
    if units < SUB_BUCKETS {
        return units as usize;
    }
    let exponent = units.ilog2();
    if exponent >= MAX_EXPONENT {
        return OVERFLOW_BUCKET;
    }
    let sub = (units >> (exponent - SUB_BITS)) & (SUB_BUCKETS - 1);
    ((exponent - SUB_BITS + 1) as u64 * SUB_BUCKETS + sub) as usize
}

/// Index of the bucket that holds a latency of `ns` nanoseconds. Range: `0..BUCKETS`.
#[must_use]
pub const fn bucket_of_ns(ns: u64) -> usize {
    bucket_of_units(ns / UNIT_NS)
}

/// Smallest latency of bucket `index`, in units of 125 ns.
///
/// An index of [`BUCKETS`] or more is treated as [`OVERFLOW_BUCKET`].
#[must_use]
pub const fn bucket_low_units(index: usize) -> u64 {
    let index = if index > OVERFLOW_BUCKET { OVERFLOW_BUCKET as u64 } else { index as u64 };
    if index < SUB_BUCKETS {
        return index;
    }
    let octave = index / SUB_BUCKETS - 1;
    (SUB_BUCKETS + index % SUB_BUCKETS) << octave
}

/// Width of bucket `index`, in units of 125 ns; `None` for the overflow bucket, which has no end.
#[must_use]
pub const fn bucket_width_units(index: usize) -> Option<u64> {
    if index >= OVERFLOW_BUCKET {
        None
    } else if (index as u64) < SUB_BUCKETS {
        Some(1)
    } else {
        Some(1 << (index as u64 / SUB_BUCKETS - 1))
    }
}

/// Bounds of bucket `index` in nanoseconds, `low..high` (high exclusive, `u64::MAX` for the
/// overflow bucket).
#[must_use]
pub const fn bucket_bounds_ns(index: usize) -> (u64, u64) {
    let low = bucket_low_units(index);
    match bucket_width_units(index) {
        Some(width) => (low * UNIT_NS, (low + width) * UNIT_NS),
        None => (low * UNIT_NS, u64::MAX),
    }
}

/// Log2 slot of bucket `index`: the base-2 logarithm of the latency in whole microseconds.
/// Slot 0 is 0-1 µs, slot 5 is 32-63 µs.
#[must_use]
pub const fn slot_of_bucket(index: usize) -> usize {
    slot_of_us(bucket_low_units(index) / UNITS_PER_US)
}

/// Log2 slot of a latency in whole microseconds. Range: `0..SLOTS`.
#[must_use]
pub const fn slot_of_us(us: u64) -> usize {
    if us < 2 {
        return 0;
    }
    let slot = us.ilog2() as usize;
    if slot >= SLOTS { SLOTS - 1 } else { slot }
}

/// Bounds of log2 slot `slot` in microseconds, both inclusive: slot 0 is (0, 1), slot 5 is
/// (32, 63). `slot` must be less than 64.
#[must_use]
pub const fn slot_bounds_us(slot: usize) -> (u64, u64) {
    let low = if slot == 0 { 0 } else { 1u64 << slot };
    let high = if slot >= 63 { u64::MAX } else { (1u64 << (slot + 1)) - 1 };
    (low, high)
}

/// Sums fine buckets into log2 slots. `fine` yields `(bucket index, count)`; the result is
/// ascending and holds only slots with a count.
pub fn slots_of_fine(fine: impl IntoIterator<Item = (usize, u64)>) -> Vec<(usize, u64)> {
    let mut slots = [0u64; SLOTS];
    for (index, count) in fine {
        slots[slot_of_bucket(index)] += count;
    }
    (0..SLOTS).filter(|&slot| slots[slot] > 0).map(|slot| (slot, slots[slot])).collect()
}

/// The `quantile` (0 to 1) of a histogram, in nanoseconds: the midpoint of the bucket that holds
/// the request of rank `ceil(quantile * total)`, which is at most 1/32 of the true value away
/// (half a unit below 2 µs). `fine` must be ascending by index. `None` when the histogram is empty.
///
/// A rank that falls into the overflow bucket gives that bucket's lower bound.
pub fn quantile_ns(fine: &[(usize, u64)], quantile: f64) -> Option<f64> {
    let total: u64 = fine.iter().map(|&(_, count)| count).sum();
    if total == 0 {
        return None;
    }
    let rank = ((quantile.clamp(0.0, 1.0) * total as f64).ceil() as u64).clamp(1, total);
    let mut seen = 0;
    for &(index, count) in fine {
        seen += count;
        if seen >= rank {
            let low = bucket_low_units(index) as f64;
            let half = bucket_width_units(index).unwrap_or(0) as f64 / 2.0;
            return Some((low + half) * UNIT_NS as f64);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges() {
        assert_eq!(bucket_of_ns(0), 0);
        assert_eq!(bucket_of_ns(124), 0);
        assert_eq!(bucket_of_ns(125), 1);
        assert_eq!(bucket_of_units(15), 15);
        assert_eq!(bucket_of_units(16), 16);
        assert_eq!(bucket_of_units(31), 31);
        assert_eq!(bucket_of_units(32), 32);
        assert_eq!(bucket_of_units(33), 32);
        assert_eq!(bucket_of_units((1 << 36) - 1), OVERFLOW_BUCKET - 1);
        assert_eq!(bucket_of_units(1 << 36), OVERFLOW_BUCKET);
        assert_eq!(bucket_of_units(u64::MAX), OVERFLOW_BUCKET);
        assert_eq!(BUCKETS, 529);
        assert_eq!(slot_of_bucket(OVERFLOW_BUCKET), SLOTS - 1);
        assert_eq!(slot_bounds_us(0), (0, 1));
        assert_eq!(slot_bounds_us(1), (2, 3));
        assert_eq!(slot_bounds_us(5), (32, 63));
    }

    #[test]
    fn buckets_tile_the_axis() {
        for index in 0..OVERFLOW_BUCKET {
            let low = bucket_low_units(index);
            let width = bucket_width_units(index).unwrap();
            assert_eq!(bucket_of_units(low), index);
            assert_eq!(bucket_of_units(low + width - 1), index);
            assert_eq!(bucket_low_units(index + 1), low + width);
            assert!(index < SUB_BUCKETS as usize || width * SUB_BUCKETS <= low);
        }
    }

    #[test]
    fn every_power_of_two_microsecond_is_a_boundary() {
        for slot in 1..SLOTS {
            let low = slot_bounds_us(slot).0 * UNITS_PER_US;
            assert_eq!(bucket_low_units(bucket_of_units(low)), low);
        }
    }

    proptest! {
        #[test]
        fn latency_lies_in_its_bucket(ns in prop_oneof![0u64..1 << 20, 0u64..1 << 44, any::<u64>()]) {
            let (low, high) = bucket_bounds_ns(bucket_of_ns(ns));
            prop_assert!(low <= ns && (ns < high || high == u64::MAX));
        }

        #[test]
        fn log2_slots_are_exact_sums(latencies in prop::collection::vec(0u64..1 << 40, 0..200)) {
            let mut fine = vec![0u64; BUCKETS];
            let mut expected = vec![0u64; SLOTS];
            for &ns in &latencies {
                fine[bucket_of_ns(ns)] += 1;
                expected[slot_of_us(ns / 1000)] += 1;
            }
            let slots = slots_of_fine(fine.into_iter().enumerate());
            let expected: Vec<_> = expected.into_iter().enumerate().filter(|&(_, c)| c > 0).collect();
            prop_assert_eq!(slots, expected);
        }

        #[test]
        fn quantile_error_is_bounded(
            mut latencies in prop::collection::vec(2_000u64..1 << 42, 1..300),
            quantile in 0.0f64..=1.0,
        ) {
            latencies.sort_unstable();
            let mut fine = vec![0u64; BUCKETS];
            for &ns in &latencies {
                fine[bucket_of_ns(ns)] += 1;
            }
            let fine: Vec<_> = fine.into_iter().enumerate().filter(|&(_, c)| c > 0).collect();
            let rank = ((quantile * latencies.len() as f64).ceil() as usize).clamp(1, latencies.len());
            let truth = latencies[rank - 1] as f64;
            let estimate = quantile_ns(&fine, quantile).unwrap();
            prop_assert!((estimate - truth).abs() <= truth / 32.0 + UNIT_NS as f64,
                "estimate {estimate} truth {truth}");
        }
    }
}
