//! The record: one window of one host as one line of JSON. Pure data; nothing here touches the
//! system.
//!
//! The shape is a contract (version 1); `docs/record.schema.json` states it, and every record that
//! a test produces is validated against it. The first five keys are those of the script that this
//! program grew out of and keep their meaning for ever. Readers ignore keys they do not know.

use serde::{Deserialize, Serialize};

/// Version of the record's shape, in its key `schema`.
pub const SCHEMA_VERSION: u32 = 1;

/// One window of one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// End of the window: Unix seconds on the wall clock, to the microsecond.
    pub timestamp: f64,
    /// The same instant as ISO 8601 with microseconds and offset `+00:00`.
    pub iso_timestamp: String,
    /// Configured length of a window, in seconds.
    pub interval_s: f64,
    /// Devices that completed or requeued a request in this window, ascending by `device_id`.
    pub latency_histogram: Vec<DeviceLatency>,
    /// Devices that had a request in flight at some time in this window, ascending by `device_id`.
    pub inflight: Vec<DeviceInflight>,
    /// [`SCHEMA_VERSION`].
    pub schema: u32,
    /// Host name (`uname -n`).
    pub host: String,
    /// The kernel's boot id (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// Number of this window in this run of the daemon, from 0, without gaps.
    pub seq: u64,
    /// True length of the window on the monotonic clock, in seconds.
    pub window_s: f64,
    /// What could not be measured or kept in this window.
    pub audit: Audit,
}

/// Latency of one device in one window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceLatency {
    /// The kernel's `dev_t` of the disk: `major << 20 | minor`.
    pub device_id: u32,
    /// Kernel name of the disk, for example `nvme0n1`.
    pub device_name: String,
    /// Requests finally completed in this window, all operations: the sum of the buckets' counts.
    pub total: u64,
    /// Non-empty log2 slots, ascending.
    pub buckets: Vec<SlotCount>,
    /// The same requests by operation.
    pub ops: Operations,
    /// Requests that the driver gave back to the queue after they had been issued.
    pub requeues: u64,
}

/// One log2 slot of a latency histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotCount {
    /// Base-2 logarithm of the latency in whole microseconds; slot 0 is 0-1 µs.
    pub slot: u32,
    /// Requests in this slot.
    pub count: u64,
    /// Smallest latency of the slot, in microseconds, inclusive.
    pub bucket_low: u64,
    /// Largest latency of the slot, in microseconds, inclusive.
    pub bucket_high: u64,
}

/// Statistics by operation; an operation with no completion in the window is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Operations {
    /// `REQ_OP_READ`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<OperationStats>,
    /// `REQ_OP_WRITE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<OperationStats>,
    /// `REQ_OP_FLUSH`: cache flushes sent to the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush: Option<OperationStats>,
    /// `REQ_OP_DISCARD` and `REQ_OP_SECURE_ERASE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard: Option<OperationStats>,
    /// Everything else: write-zeroes, zone operations, passthrough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<OperationStats>,
}

/// Statistics of one operation of one device in one window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OperationStats {
    /// Requests finally completed.
    pub total: u64,
    /// Bytes of those requests, partial completions included.
    pub bytes: u64,
    /// Sum of their latencies, in microseconds.
    pub sum_us: f64,
    /// Largest of their latencies, in microseconds.
    pub max_us: f64,
    /// Requests that completed with an error.
    pub errors: u64,
    /// `detail = "fine"`: non-empty `[bucket index, count]` pairs, ascending; the index is that of
    /// [`crate::histogram`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine: Option<Vec<(u16, u64)>>,
    /// `detail = "log2"`: non-empty `[slot, count]` pairs, ascending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<Vec<(u16, u64)>>,
}

/// Requests of one device that were issued and not finally completed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceInflight {
    /// The kernel's `dev_t` of the disk: `major << 20 | minor`.
    pub device_id: u32,
    /// Kernel name of the disk.
    pub device_name: String,
    /// Requests in flight at the end of the window.
    pub count: u64,
    /// Time-weighted mean over the window.
    pub mean: f64,
    /// Largest number in flight at one time in the window.
    pub max: u64,
    /// Age of the oldest request in flight at the end of the window, in microseconds; 0 when none.
    pub oldest_us: f64,
}

/// What could not be measured or kept, counted per window. All zero on a healthy host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Completions without a start record that were not expected, for example of requests that
    /// were in flight when the program attached.
    pub untracked_completions: u64,
    /// Requests that found no place in the in-flight table and were not measured.
    pub inflight_table_full: u64,
    /// Requests of a device or operation that found no histogram and were not measured.
    pub device_table_full: u64,
    /// Times that the kernel skipped a program (`recursion_misses` of the BPF program).
    pub probe_misses: u64,
    /// Snapshots that the writer had to drop since the previous line in the file.
    pub dropped_snapshots: u64,
}

impl Operations {
    /// The operations' names in the record, in their order there.
    pub const NAMES: [&'static str; 5] = ["read", "write", "flush", "discard", "other"];

    /// The operations that are present, with their names, in the order of [`Self::NAMES`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &OperationStats)> {
        let all = [&self.read, &self.write, &self.flush, &self.discard, &self.other];
        Self::NAMES.into_iter().zip(all).filter_map(|(name, stats)| Some((name, stats.as_ref()?)))
    }

    /// The place of operation number `index` (in the order of [`Self::NAMES`]).
    ///
    /// # Panics
    /// When `index` is 5 or more.
    pub fn slot_mut(&mut self, index: usize) -> &mut Option<OperationStats> {
        match index {
            0 => &mut self.read,
            1 => &mut self.write,
            2 => &mut self.flush,
            3 => &mut self.discard,
            4 => &mut self.other,
            _ => panic!("operation {index} does not exist"),
        }
    }
}

impl Record {
    /// Appends the record to `line` as one line of JSON, with its newline.
    pub fn write_line(&self, line: &mut Vec<u8>) {
        // Serialising plain data into memory fails neither for want of keys that are strings nor
        // for I/O.
        if serde_json::to_writer(&mut *line, self).is_ok() {
            line.push(b'\n');
        }
    }
}
