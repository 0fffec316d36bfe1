//! One window: the difference of two readings. Pure arithmetic.

use crate::histogram::{self, BUCKETS};
use crate::probe::OPERATIONS;
use crate::probe::reading::{DeviceReading, Losses, OperationReading, Reading};

/// What happened between two readings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// End of the window, in nanoseconds of `CLOCK_MONOTONIC`.
    pub end_ns: u64,
    /// Length of the window, in nanoseconds.
    pub length_ns: u64,
    /// Devices that had a request complete, requeued or in flight, in no particular order.
    pub devices: Vec<DeviceWindow>,
    /// What could not be measured in this window.
    pub losses: Losses,
    /// Times that the kernel skipped a program, and completions found missing, in this window.
    pub probe_misses: u64,
}

/// One device in one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceWindow {
    /// Where the probe keeps it.
    pub slot: usize,
    /// `major << 20 | minor`.
    pub device_id: u32,
    /// The kernel's name as the probe knows it; may be empty.
    pub name: String,
    /// Requests given back to the queue.
    pub requeues: u64,
    /// Requests in flight over the window.
    pub inflight: InflightWindow,
    /// By operation, in the order of [`crate::record::Operations::NAMES`]; `None` without a completion.
    pub operations: [Option<OperationWindow>; OPERATIONS],
}

/// Requests in flight over one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct InflightWindow {
    /// At the end of the window.
    pub count: u64,
    /// Time-weighted mean.
    pub mean: f64,
    /// Largest number at one time.
    pub max: u64,
    /// Age of the oldest at the end of the window, in nanoseconds.
    pub oldest_ns: u64,
}

/// One operation of one device in one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OperationWindow {
    /// Requests completed.
    pub total: u64,
    /// Bytes completed.
    pub bytes: u64,
    /// Sum of latencies, in nanoseconds.
    pub sum_ns: u64,
    /// Largest latency, in nanoseconds.
    pub max_ns: u64,
    /// Requests that completed with an error.
    pub errors: u64,
    /// Non-empty `(bucket, count)`, ascending.
    pub fine: Vec<(u16, u64)>,
}

impl DeviceWindow {
    /// Requests completed, all operations.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.operations.iter().flatten().map(|operation| operation.total).sum()
    }

    /// Counts by log2 slot, all operations, ascending.
    #[must_use]
    pub fn slots(&self) -> Vec<(usize, u64)> {
        histogram::slots_of_fine(self.operations.iter().flatten().flat_map(OperationWindow::fine))
    }
}

impl DeviceWindow {
    /// Adds what another slot of the same disk saw in the same window.
    pub fn merge(&mut self, other: &Self) {
        self.requeues += other.requeues;
        self.inflight.count += other.inflight.count;
        self.inflight.mean += other.inflight.mean;
        self.inflight.max = self.inflight.max.max(other.inflight.max).max(self.inflight.count);
        self.inflight.oldest_ns = self.inflight.oldest_ns.max(other.inflight.oldest_ns);
        for (mine, theirs) in self.operations.iter_mut().zip(&other.operations) {
            match (mine, theirs) {
                (Some(mine), Some(theirs)) => mine.merge(theirs),
                (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
                (_, None) => {}
            }
        }
    }
}

impl OperationWindow {
    fn merge(&mut self, other: &Self) {
        self.total += other.total;
        self.bytes += other.bytes;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
        self.errors += other.errors;
        let mut counts: std::collections::BTreeMap<u16, u64> = self.fine.iter().copied().collect();
        for &(bucket, count) in &other.fine {
            *counts.entry(bucket).or_default() += count;
        }
        self.fine = counts.into_iter().collect();
    }

    /// Non-empty `(bucket, count)`, ascending.
    pub fn fine(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.fine.iter().map(|&(bucket, count)| (usize::from(bucket), count))
    }
}

/// Turns readings into windows: every completion falls into exactly one.
#[derive(Debug, Default)]
pub struct Sampler {
    at_ns: u64,
    losses: Losses,
    probe_misses: u64,
    devices: Vec<Option<Previous>>,
}

/// What the last reading said of a device.
#[derive(Debug, Default)]
struct Previous {
    generation: u32,
    requeues: u64,
    inflight_count: u64,
    age_sum_ns: u64,
    operations: [Option<Box<OperationReading>>; OPERATIONS],
}

impl Sampler {
    /// A sampler whose first window begins at `start_ns` (`CLOCK_MONOTONIC`), before which nothing
    /// was counted.
    #[must_use]
    pub fn new(start_ns: u64) -> Self {
        Self { at_ns: start_ns, ..Self::default() }
    }

    /// The window from the last reading to this one.
    pub fn window(&mut self, reading: &Reading) -> Snapshot {
        let length_ns = reading.at_ns.saturating_sub(self.at_ns);
        let mut snapshot = Snapshot {
            end_ns: reading.at_ns,
            length_ns,
            devices: Vec::new(),
            losses: Losses {
                untracked_completions: reading
                    .losses
                    .untracked_completions
                    .wrapping_sub(self.losses.untracked_completions),
                inflight_table_full: reading
                    .losses
                    .inflight_table_full
                    .wrapping_sub(self.losses.inflight_table_full),
                device_table_full: reading
                    .losses
                    .device_table_full
                    .wrapping_sub(self.losses.device_table_full),
            },
            probe_misses: reading.probe_misses.wrapping_sub(self.probe_misses),
        };
        self.devices.resize_with(reading.devices.len(), || None);
        for (slot, (now, before)) in reading.devices.iter().zip(&mut self.devices).enumerate() {
            let Some(now) = now else {
                *before = None;
                continue;
            };
            if before.as_ref().is_none_or(|before| before.generation != now.generation) {
                *before = Some(Previous { generation: now.generation, ..Previous::default() });
            }
            if let Some(before) = before
                && let Some(window) = device_window(slot, length_ns, now, before)
            {
                snapshot.devices.push(window);
            }
        }
        self.at_ns = reading.at_ns;
        self.losses = reading.losses;
        self.probe_misses = reading.probe_misses;
        snapshot
    }
}

/// The window of one device; `None` when it has nothing to say. Leaves `before` at `now`.
fn device_window(
    slot: usize,
    length_ns: u64,
    now: &DeviceReading,
    before: &mut Previous,
) -> Option<DeviceWindow> {
    let mut window = DeviceWindow {
        slot,
        device_id: now.device_id,
        name: now.name.clone(),
        requeues: now.requeues.wrapping_sub(before.requeues),
        ..DeviceWindow::default()
    };
    let mut sum_ns = 0;
    if now.changed {
        for (index, total) in now.operations.iter().enumerate() {
            let Some(total) = total else { continue };
            let previous = before.operations[index].get_or_insert_default();
            window.operations[index] = operation_window(total, previous);
            sum_ns += window.operations[index].as_ref().map_or(0, |operation| operation.sum_ns);
        }
    }
    window.inflight = InflightWindow {
        count: now.inflight.count,
        mean: mean_inflight(length_ns, sum_ns, now.inflight.age_sum_ns, before.age_sum_ns),
        // A request in flight all the time is issued in no window but its first.
        max: now.max_inflight.max(now.inflight.count).max(before.inflight_count),
        oldest_ns: now.inflight.oldest_ns,
    };
    window.inflight.mean = window.inflight.mean.min(window.inflight.max as f64);
    let was_inflight = before.inflight_count > 0;
    before.requeues = now.requeues;
    before.inflight_count = now.inflight.count;
    before.age_sum_ns = now.inflight.age_sum_ns;
    let busy = was_inflight
        || window.inflight.max > 0
        || window.requeues > 0
        || window.operations.iter().any(Option::is_some);
    busy.then_some(window)
}

/// Time-weighted mean of the requests in flight: the time that all of them together spent there
/// within the window, over its length. A request that completed spent its whole latency, of which
/// the age that it had when the window began is not the window's.
fn mean_inflight(length_ns: u64, completed_ns: u64, ages_now_ns: u64, ages_before_ns: u64) -> f64 {
    if length_ns == 0 {
        return 0.0;
    }
    let spent = i128::from(completed_ns) + i128::from(ages_now_ns) - i128::from(ages_before_ns);
    // The ages are read a few microseconds after the sums: a request may lie between.
    spent.max(0) as f64 / length_ns as f64
}

/// The window of one operation; `None` without a completion. Leaves `before` at `now`, unless
/// there was none: bytes of a request that has completed in part wait for its window.
fn operation_window(
    now: &OperationReading,
    before: &mut OperationReading,
) -> Option<OperationWindow> {
    let mut fine = Vec::new();
    let mut total = 0;
    for index in 0..BUCKETS {
        let count = now.buckets[index].wrapping_sub(before.buckets[index]);
        if count > 0 {
            before.buckets[index] = now.buckets[index];
            fine.push((index as u16, u64::from(count)));
            total += u64::from(count);
        }
    }
    let &(highest, _) = fine.last()?;
    let (low, high) = histogram::bucket_bounds_ns(usize::from(highest));
    let window = OperationWindow {
        total,
        bytes: now.bytes.wrapping_sub(before.bytes),
        sum_ns: now.sum_ns.wrapping_sub(before.sum_ns),
        // A completion can fall between the reading of the buckets and that of the maximum, and
        // CPUs that share a stripe can overwrite each other's: the highest bucket bounds both.
        max_ns: now.max_ns.clamp(low, high - 1),
        errors: now.errors.wrapping_sub(before.errors),
        fine,
    };
    before.bytes = now.bytes;
    before.sum_ns = now.sum_ns;
    before.errors = now.errors;
    Some(window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::bucket_of_ns;
    use crate::probe::reading::Inflight;
    use proptest::prelude::*;

    /// A reading of one device after the given `(operation, latency in ns)` completed.
    fn reading(at_ns: u64, completed: &[(usize, u64)], inflight: Inflight) -> Reading {
        let mut device = DeviceReading {
            generation: 1,
            identity: 7,
            device_id: 8 << 20,
            name: "sda".into(),
            changed: true,
            issued: completed.len() as u64 + inflight.count,
            completed: completed.len() as u64,
            inflight,
            ..DeviceReading::default()
        };
        for &(operation, ns) in completed {
            let total = device.operations[operation].get_or_insert_default();
            total.bytes = total.bytes.wrapping_add(4096);
            total.sum_ns = total.sum_ns.wrapping_add(ns);
            total.max_ns = total.max_ns.max(ns);
            total.buckets[bucket_of_ns(ns)] += 1;
        }
        Reading { at_ns, devices: vec![Some(device)], ..Reading::default() }
    }

    #[test]
    fn first_window_counts_everything_since_load() {
        let mut sampler = Sampler::new(1_000);
        let snapshot = sampler.window(&reading(6_000, &[(0, 800), (1, 300)], Inflight::default()));
        assert_eq!(snapshot.length_ns, 5_000);
        assert_eq!(snapshot.devices[0].total(), 2);
        assert_eq!(snapshot.devices[0].operations[0].as_ref().unwrap().max_ns, 800);
    }

    #[test]
    fn an_idle_device_is_left_out() {
        let mut sampler = Sampler::new(0);
        let mut quiet = reading(10, &[(0, 800)], Inflight::default());
        sampler.window(&quiet);
        quiet.at_ns = 20;
        quiet.devices[0].as_mut().unwrap().changed = false;
        assert!(sampler.window(&quiet).devices.is_empty());
    }

    #[test]
    fn a_hung_request_is_seen_in_every_window() {
        let mut sampler = Sampler::new(0);
        let second = 1_000_000_000;
        for window in 1..4u64 {
            let age = window * second;
            let hung =
                Inflight { count: 1, age_sum_ns: age, oldest_ns: age, ..Inflight::default() };
            let snapshot = sampler.window(&reading(age, &[], hung));
            let inflight = snapshot.devices[0].inflight;
            assert_eq!((inflight.count, inflight.max, inflight.oldest_ns), (1, 1, age));
            assert!((inflight.mean - 1.0).abs() < 1e-9);
            assert_eq!(snapshot.devices[0].total(), 0);
        }
        // It completes half-way through the fourth window.
        let snapshot =
            sampler.window(&reading(4 * second, &[(0, 7 * second / 2)], Inflight::default()));
        let inflight = snapshot.devices[0].inflight;
        assert!((inflight.mean - 0.5).abs() < 1e-9);
        assert_eq!((inflight.count, inflight.max), (0, 1));
        assert_eq!(snapshot.devices[0].total(), 1);
    }

    #[test]
    fn a_slot_used_by_another_disk_starts_at_zero() {
        let mut sampler = Sampler::new(0);
        sampler.window(&reading(10, &[(0, 800), (0, 900)], Inflight::default()));
        let mut other = reading(20, &[(0, 800)], Inflight::default());
        other.devices[0].as_mut().unwrap().generation = 3;
        assert_eq!(sampler.window(&other).devices[0].total(), 1);
    }

    #[test]
    fn counters_may_wrap() {
        let mut sampler = Sampler::new(0);
        let mut first = reading(10, &[(0, 800)], Inflight::default());
        let bucket = bucket_of_ns(800);
        let set = |reading: &mut Reading, count: u32, sum: u64| {
            let total = reading.devices[0].as_mut().unwrap().operations[0].as_mut().unwrap();
            total.buckets[bucket] = count;
            total.sum_ns = sum;
        };
        set(&mut first, u32::MAX, u64::MAX - 99);
        sampler.window(&first);
        let mut second = reading(20, &[(0, 800)], Inflight::default());
        set(&mut second, 1, 1500);
        let snapshot = sampler.window(&second);
        let read = snapshot.devices[0].operations[0].as_ref().unwrap();
        assert_eq!((read.total, read.sum_ns), (2, 1600));
    }

    #[test]
    fn maximum_lies_in_the_highest_bucket() {
        let mut before = OperationReading::default();
        let mut now = OperationReading { max_ns: 5, ..OperationReading::default() };
        now.buckets[bucket_of_ns(1_000_000)] = 1;
        let window = operation_window(&now, &mut before).unwrap();
        assert_eq!(bucket_of_ns(window.max_ns), bucket_of_ns(1_000_000));
    }

    proptest! {
        #[test]
        fn windows_add_up(
            latencies in prop::collection::vec((0usize..OPERATIONS, 0u64..1 << 34), 0..200),
            cuts in prop::collection::vec(0usize..200, 0..10),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(latencies.len())).collect();
            cuts.push(latencies.len());
            cuts.sort_unstable();
            let mut sampler = Sampler::new(0);
            let (mut total, mut sum, mut bytes) = (0, 0, 0);
            for (index, &cut) in cuts.iter().enumerate() {
                let at = (index as u64 + 1) * 1_000_000;
                let snapshot = sampler.window(&reading(at, &latencies[..cut], Inflight::default()));
                for operation in snapshot.devices.iter().flat_map(|d| d.operations.iter().flatten()) {
                    total += operation.total;
                    sum += operation.sum_ns;
                    bytes += operation.bytes;
                    prop_assert_eq!(operation.fine.iter().map(|f| f.1).sum::<u64>(), operation.total);
                }
            }
            prop_assert_eq!(total, latencies.len() as u64);
            prop_assert_eq!(bytes, 4096 * latencies.len() as u64);
            prop_assert_eq!(sum, latencies.iter().map(|l| l.1).sum::<u64>());
        }
    }
}
