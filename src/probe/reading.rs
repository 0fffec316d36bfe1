//! What the probe has counted, at one moment. Plain data.

use crate::histogram::BUCKETS;
use crate::probe::OPERATIONS;

/// Everything that the probe has counted since it was loaded, and what is in flight now.
///
/// Counters only grow and wrap around; their differences are taken by [`crate::snapshot`].
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// When it was read, in nanoseconds of `CLOCK_MONOTONIC`, the clock of the BPF programs.
    pub at_ns: u64,
    /// By device slot; `None` for a slot that is free.
    pub devices: Vec<Option<DeviceReading>>,
    /// What could not be measured.
    pub losses: Losses,
    /// Times that the kernel skipped a program, as far as it counts them, and completions that were found missing.
    pub probe_misses: u64,
}

/// What could not be measured, since load.
#[allow(missing_docs, reason = "the names are those of the record's audit")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    pub untracked_completions: u64,
    pub inflight_table_full: u64,
    pub device_table_full: u64,
}

/// One device.
#[derive(Clone, Debug, Default)]
pub struct DeviceReading {
    /// Tells one use of the slot from the next.
    pub generation: u32,
    /// What the programs know the disk by.
    pub identity: u64,
    /// `major << 20 | minor`.
    pub device_id: u32,
    /// The kernel's name of the disk; empty when the probe cannot see it.
    pub name: String,
    /// Whether anything but `inflight` may differ from the last reading.
    pub changed: bool,
    /// Requests issued for the first time.
    pub issued: u64,
    /// Requests finally completed.
    pub completed: u64,
    /// Requests given back to the queue after they had been issued.
    pub requeues: u64,
    /// Most requests in flight at one time since the last reading.
    pub max_inflight: u64,
    /// What is in flight now.
    pub inflight: Inflight,
    /// By operation, in the order of [`crate::record::Operations::NAMES`].
    pub operations: [Option<Box<OperationReading>>; OPERATIONS],
}

/// Requests in flight at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inflight {
    /// How many.
    pub count: u64,
    /// Sum of their ages, in nanoseconds.
    pub age_sum_ns: u64,
    /// Age of the oldest, in nanoseconds; 0 when there is none.
    pub oldest_ns: u64,
    /// Age of the oldest of those that the kernel counts in `/sys/block/X/inflight` too; 0 when there
    /// is none. It leaves out flushes, passthrough, and what the driver gave back.
    pub oldest_counted_ns: u64,
}

impl Inflight {
    /// Adds a request that was issued at `start_ns`; `counted`: the kernel counts it too.
    pub fn add(&mut self, start_ns: u64, now_ns: u64, counted: bool) {
        let age = now_ns.saturating_sub(start_ns);
        self.count += 1;
        self.age_sum_ns += age;
        self.oldest_ns = self.oldest_ns.max(age);
        if counted {
            self.oldest_counted_ns = self.oldest_counted_ns.max(age);
        }
    }
}

/// One operation of one device.
#[derive(Clone, Debug)]
pub struct OperationReading {
    /// Bytes completed.
    pub bytes: u64,
    /// Sum of latencies, in nanoseconds.
    pub sum_ns: u64,
    /// Largest latency since the last reading, in nanoseconds.
    pub max_ns: u64,
    /// Requests that completed with an error.
    pub errors: u64,
    /// Requests by latency; the index is that of [`crate::histogram`].
    pub buckets: [u32; BUCKETS],
}

impl Default for OperationReading {
    fn default() -> Self {
        Self { bytes: 0, sum_ns: 0, max_ns: 0, errors: 0, buckets: [0; BUCKETS] }
    }
}
