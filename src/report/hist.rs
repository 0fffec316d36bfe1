//! A histogram that merges exactly and takes only as much memory as its range of latencies needs.

use serde::{Deserialize, Serialize};

use crate::archive::reader::OperationView;
use crate::histogram;

/// Counts by bucket, from the first non-empty one to the last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    first: usize,
    counts: Vec<u64>,
}

impl Counts {
    fn add(&mut self, index: usize, count: u64) {
        if count == 0 {
            return;
        }
        if self.counts.is_empty() {
            self.first = index;
        }
        if index < self.first {
            let missing = self.first - index;
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.first = index;
        }
        let place = index - self.first;
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] = self.counts[place].saturating_add(count);
    }

    fn iter(&self) -> impl Iterator<Item = (usize, u64)> {
        let counts = self.counts.iter().enumerate();
        counts.filter(|&(_, &count)| count > 0).map(|(place, &count)| (self.first + place, count))
    }
}

/// The latencies of any number of windows: fine buckets where the records had them, log2 slots
/// where the records had only those (`detail = "log2"`).
///
/// [`Hist::merge`] is exact, commutative and associative: a merged range has the counts that one
/// record of the whole range would have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hist {
    fine: Counts,
    slots: Counts,
}

impl Hist {
    /// Adds the histogram of one operation in one record.
    pub fn add(&mut self, operation: &OperationView<'_>) {
        let counts = if operation.fine { &mut self.fine } else { &mut self.slots };
        for &(index, count) in operation.pairs {
            counts.add(index.into(), count);
        }
    }

    /// Adds `count` requests to fine bucket `index` (less than [`histogram::BUCKETS`]).
    pub fn add_fine(&mut self, index: usize, count: u64) {
        self.fine.add(index, count);
    }

    /// Adds every count of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (index, count) in other.fine.iter() {
            self.fine.add(index, count);
        }
        for (slot, count) in other.slots.iter() {
            self.slots.add(slot, count);
        }
    }

    /// Number of requests.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.fine.iter().chain(self.slots.iter()).fold(0, |sum, (_, n)| sum.saturating_add(n))
    }

    /// Whether all requests are in fine buckets. Otherwise percentiles come from log2 slots and
    /// are correspondingly coarse.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.slots.counts.is_empty()
    }

    /// Non-empty fine buckets, ascending; without the requests that are only known by slot.
    pub fn fine(&self) -> impl Iterator<Item = (usize, u64)> {
        self.fine.iter()
    }

    /// Requests by log2 slot: all of them, exactly.
    #[must_use]
    pub fn slots(&self) -> [u64; histogram::SLOTS] {
        let mut all = [0u64; histogram::SLOTS];
        let fine = self.fine.iter().map(|(index, n)| (histogram::slot_of_bucket(index), n));
        for (slot, count) in fine.chain(self.slots.iter()) {
            all[slot] = all[slot].saturating_add(count);
        }
        all
    }

    /// The `quantile` (0 to 1), ns; `None` when empty. From fine buckets it is
    /// [`histogram::quantile_ns`]; if any request is only known by slot, it is the middle of the
    /// slot that holds the rank, which is at most 1.5 times, and at least 0.75 times, the true
    /// value (from 2 µs on). `max_ns`, the largest latency, is known exactly and never exceeded.
    #[must_use]
    pub fn quantile_ns(&self, quantile: f64, max_ns: u64) -> Option<f64> {
        let estimate = if self.is_fine() {
            let fine: Vec<_> = self.fine.iter().collect();
            histogram::quantile_ns(&fine, quantile)?
        } else {
            self.slot_quantile_ns(quantile)?
        };
        Some(estimate.min(max_ns as f64))
    }

    fn slot_quantile_ns(&self, quantile: f64) -> Option<f64> {
        let total = self.total();
        let rank = ((quantile.clamp(0.0, 1.0) * total as f64).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0u64;
        for (slot, &count) in self.slots().iter().enumerate() {
            seen = seen.saturating_add(count);
            if count > 0 && seen >= rank {
                let (low, high) = histogram::slot_bounds_us(slot);
                return Some((low + high + 1) as f64 / 2.0 * 1000.0);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(latencies: &[u64]) -> Hist {
        let mut hist = Hist::default();
        for &ns in latencies {
            hist.add_fine(histogram::bucket_of_ns(ns), 1);
        }
        hist
    }

    fn slots_of(latencies: &[u64]) -> Hist {
        let mut hist = Hist::default();
        for &ns in latencies {
            hist.slots.add(histogram::slot_of_us(ns / 1000), 1);
        }
        hist
    }

    fn rank(latencies: &[u64], quantile: f64) -> f64 {
        let mut sorted = latencies.to_vec();
        sorted.sort_unstable();
        let rank = ((quantile * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
        sorted[rank - 1] as f64
    }

    const NS: std::ops::Range<u64> = 0..1 << 42;

    proptest! {
        #[test]
        fn merge_is_that_of_all_latencies(
            a in prop::collection::vec(NS, 0..60),
            b in prop::collection::vec(NS, 0..60),
            c in prop::collection::vec(NS, 0..60),
        ) {
            let all = of(&[a.clone(), b.clone(), c.clone()].concat());
            let (a, b, c) = (of(&a), of(&b), of(&c));
            let mut left = a.clone();
            left.merge(&b);
            left.merge(&c);
            let mut right = c.clone();
            right.merge(&b);
            let mut outer = a;
            outer.merge(&right);
            prop_assert_eq!(&left, &all);
            prop_assert_eq!(&outer, &all);
            for q in [0.0, 0.5, 0.99, 1.0] {
                prop_assert_eq!(left.quantile_ns(q, u64::MAX), all.quantile_ns(q, u64::MAX));
            }
        }

        #[test]
        fn slots_are_the_same_from_both(latencies in prop::collection::vec(NS, 0..200)) {
            prop_assert_eq!(of(&latencies).slots(), slots_of(&latencies).slots());
        }

        #[test]
        fn coarse_percentiles_keep_their_bound(
            latencies in prop::collection::vec(2_000u64..1 << 42, 1..200),
            quantile in 0.0f64..=1.0,
            fine in 0usize..200,
        ) {
            let mut hist = of(&latencies[..fine.min(latencies.len() - 1)]);
            hist.merge(&slots_of(&latencies[fine.min(latencies.len() - 1)..]));
            prop_assert!(!hist.is_fine());
            let max = *latencies.iter().max().unwrap();
            let (truth, estimate) =
                (rank(&latencies, quantile), hist.quantile_ns(quantile, max).unwrap());
            prop_assert!(estimate <= truth * 1.5 && estimate >= truth * 0.75,
                "estimate {} truth {}", estimate, truth);
        }
    }

    #[test]
    fn empty_and_exact_maximum() {
        assert_eq!(Hist::default().quantile_ns(0.5, 0), None);
        assert_eq!(of(&[1_000_000]).quantile_ns(0.99, 1_000_000), Some(1_000_000.0));
    }
}
