//! The record: one window of one host as one line of JSON. Pure data; nothing here touches the
//! system.
//!
//! The shape is a contract (version 1); `docs/record.schema.json` states it, and every record that
//! a test produces is validated against it. The first five keys are those of the script that this
//! program grew out of and keep their meaning for ever. Readers ignore keys they do not know.

use serde::{Deserialize, Serialize};

use crate::config::Detail;
use crate::histogram;
use crate::snapshot::{DeviceWindow, OperationWindow, Snapshot};

/// Version of the record's shape, in its key `schema`.
pub const SCHEMA_VERSION: u32 = 1;

/// Where in the kernel a record was measured.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Requests, of disks that have request queues. Not written: a record without a layer is of this one.
    #[default]
    Request,
    /// Bios, of disks without request queues: device mapper, md, zram, NVMe multipath heads.
    Bio,
}

impl Layer {
    /// Whether this is [`Self::Request`].
    #[must_use]
    pub fn is_request(&self) -> bool {
        *self == Self::Request
    }
}

/// One window of one layer of one host.
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
    /// Where it was measured; absent for requests.
    #[serde(default, skip_serializing_if = "Layer::is_request")]
    pub layer: Layer,
    /// Number of this window in this run of the daemon, from 0, without gaps in each layer.
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
    /// `detail = "fine"`: index and count of the buckets that are not empty, ascending; the index is that of
    /// [`crate::histogram`].
    #[serde(default, skip_serializing_if = "Option::is_none", with = "columns")]
    pub fine: Option<Vec<(u16, u64)>>,
    /// `detail = "log2"`: number and count of the slots that are not empty, ascending.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "columns")]
    pub slots: Option<Vec<(u16, u64)>>,
}

/// Pairs as two columns, `[[index, ...], [count, ...]]`: a quarter less when compressed than `[[index, count], ...]`.
mod columns {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{Serialize, Serializer};

    type Pairs = Option<Vec<(u16, u64)>>;

    struct Indexes<'a>(&'a [(u16, u64)]);
    struct Counts<'a>(&'a [(u16, u64)]);

    impl Serialize for Indexes<'_> {
        fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
            json.collect_seq(self.0.iter().map(|pair| pair.0))
        }
    }

    impl Serialize for Counts<'_> {
        fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
            json.collect_seq(self.0.iter().map(|pair| pair.1))
        }
    }

    #[allow(clippy::ref_option, reason = "the signature that serde asks for")]
    pub fn serialize<S: Serializer>(pairs: &Pairs, json: S) -> Result<S::Ok, S::Error> {
        let columns = pairs.as_deref().map(|pairs| (Indexes(pairs), Counts(pairs)));
        columns.serialize(json)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(json: D) -> Result<Pairs, D::Error> {
        let Some((indexes, counts)) = Option::<(Vec<u16>, Vec<u64>)>::deserialize(json)? else {
            return Ok(None);
        };
        if indexes.len() != counts.len() {
            return Err(Error::custom("the columns of a histogram have different lengths"));
        }
        Ok(Some(indexes.into_iter().zip(counts).collect()))
    }
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
    /// Times that the kernel skipped a program (`recursion_misses` of the BPF program), and completions that were missed
    /// otherwise and found missing.
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

/// What a record says besides its window.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// Host name.
    pub host: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Configured length of a window, in seconds.
    pub interval_s: f64,
    /// How much of a histogram is kept.
    pub detail: Detail,
}

impl Record {
    /// The record of a window of `layer` that ended at `end` on the wall clock. Devices are named by
    /// `name_of(slot)`; those without a name there are left out.
    #[must_use]
    pub fn new<'a>(
        layer: Layer,
        snapshot: &Snapshot,
        end: jiff::Timestamp,
        seq: u64,
        context: &Context,
        name_of: impl Fn(usize) -> Option<&'a str>,
    ) -> Self {
        let mut windows: Vec<(&str, DeviceWindow)> = Vec::new();
        for device in &snapshot.devices {
            let Some(name) = name_of(device.slot) else { continue };
            // A disk that was taken away and came back, or changed its medium, has two slots.
            let twin = windows.iter_mut().find(|(other_name, other)| {
                *other_name == name && other.device_id == device.device_id
            });
            match twin {
                Some((_, twin)) => twin.merge(device),
                None => windows.push((name, device.clone())),
            }
        }
        windows.sort_by(|(a_name, a), (b_name, b)| {
            a.device_id.cmp(&b.device_id).then_with(|| a_name.cmp(b_name))
        });
        let devices = || windows.iter().map(|(name, window)| (*name, window));
        Self {
            timestamp: end.as_microsecond() as f64 / 1e6,
            iso_timestamp: end.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string(),
            interval_s: context.interval_s,
            latency_histogram: devices()
                .filter(|(_, window)| window.requeues > 0 || window.total() > 0)
                .map(|(name, window)| DeviceLatency::new(name, window, context.detail))
                .collect(),
            inflight: devices()
                .filter(|(_, window)| window.inflight.max > 0)
                .map(|(name, window)| DeviceInflight::new(name, window))
                .collect(),
            schema: SCHEMA_VERSION,
            host: context.host.clone(),
            boot_id: context.boot_id.clone(),
            layer,
            seq,
            window_s: (snapshot.length_ns as f64 / 1e3).round() / 1e6,
            audit: Audit {
                untracked_completions: snapshot.losses.untracked_completions,
                inflight_table_full: snapshot.losses.inflight_table_full,
                device_table_full: snapshot.losses.device_table_full,
                probe_misses: snapshot.probe_misses,
                dropped_snapshots: 0,
            },
        }
    }
}

impl DeviceLatency {
    fn new(name: &str, window: &DeviceWindow, detail: Detail) -> Self {
        let buckets = window.slots().into_iter().map(|(slot, count)| {
            let (bucket_low, bucket_high) = histogram::slot_bounds_us(slot);
            SlotCount { slot: slot as u32, count, bucket_low, bucket_high }
        });
        let mut ops = Operations::default();
        for (index, operation) in window.operations.iter().enumerate() {
            *ops.slot_mut(index) =
                operation.as_ref().map(|operation| OperationStats::new(operation, detail));
        }
        Self {
            device_id: window.device_id,
            device_name: name.to_owned(),
            total: window.total(),
            buckets: buckets.collect(),
            ops,
            requeues: window.requeues,
        }
    }
}

impl OperationStats {
    fn new(window: &OperationWindow, detail: Detail) -> Self {
        let (fine, slots) = match detail {
            Detail::Fine => (Some(window.fine.clone()), None),
            Detail::Log2 => {
                let slots = histogram::slots_of_fine(window.fine());
                (None, Some(slots.into_iter().map(|(slot, count)| (slot as u16, count)).collect()))
            }
        };
        Self {
            total: window.total,
            bytes: window.bytes,
            sum_us: window.sum_ns as f64 / 1e3,
            max_us: window.max_ns as f64 / 1e3,
            errors: window.errors,
            fine,
            slots,
        }
    }
}

impl DeviceInflight {
    fn new(name: &str, window: &DeviceWindow) -> Self {
        Self {
            device_id: window.device_id,
            device_name: name.to_owned(),
            count: window.inflight.count,
            mean: (window.inflight.mean * 1e4).round() / 1e4,
            max: window.inflight.max,
            oldest_us: window.inflight.oldest_ns as f64 / 1e3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::InflightWindow;

    fn device(slot: usize, device_id: u32, fine: &[(u16, u64)]) -> DeviceWindow {
        let read = OperationWindow {
            total: fine.iter().map(|f| f.1).sum(),
            bytes: 344_064,
            sum_ns: 6_210_500,
            max_ns: 131_250,
            errors: 0,
            fine: fine.to_vec(),
        };
        DeviceWindow {
            slot,
            device_id,
            operations: [Some(read), None, None, None, None],
            inflight: InflightWindow { count: 1, mean: 0.83, max: 12, oldest_ns: 84_200 },
            ..DeviceWindow::default()
        }
    }

    fn record(devices: Vec<DeviceWindow>, detail: Detail) -> Record {
        let snapshot = Snapshot { length_ns: 5_000_300_000, devices, ..Snapshot::default() };
        let context =
            Context { host: "db-17".into(), boot_id: "b".into(), interval_s: 5.0, detail };
        let end = jiff::Timestamp::from_microsecond(1_691_397_912_123_000).unwrap();
        Record::new(Layer::Request, &snapshot, end, 42, &context, |slot| {
            Some(["sda", "sdb"][slot % 2])
        })
    }

    #[test]
    fn has_the_shape_of_the_contract() {
        let mut line = Vec::new();
        record(vec![device(0, 8 << 20, &[(73, 12), (74, 15)])], Detail::Fine).write_line(&mut line);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            concat!(
                r#"{"timestamp":1691397912.123,"iso_timestamp":"2023-08-07T08:45:12.123000+00:00","#,
                r#""interval_s":5.0,"latency_histogram":[{"device_id":8388608,"device_name":"sda","#,
                r#""total":27,"buckets":[{"slot":4,"count":27,"bucket_low":16,"bucket_high":31}],"#,
                r#""ops":{"read":{"total":27,"bytes":344064,"sum_us":6210.5,"max_us":131.25,"#,
                r#""errors":0,"fine":[[73,74],[12,15]]}},"requeues":0}],"#,
                r#""inflight":[{"device_id":8388608,"device_name":"sda","count":1,"mean":0.83,"#,
                r#""max":12,"oldest_us":84.2}],"schema":1,"host":"db-17","boot_id":"b","seq":42,"#,
                r#""window_s":5.0003,"audit":{"untracked_completions":0,"inflight_table_full":0,"#,
                r#""device_table_full":0,"probe_misses":0,"dropped_snapshots":0}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn the_layer_is_named_unless_it_is_that_of_requests() {
        let line = |layer| {
            let mut line = Vec::new();
            Record { layer, ..Record::default() }.write_line(&mut line);
            String::from_utf8(line).unwrap()
        };
        assert!(!line(Layer::Request).contains("layer"));
        assert!(line(Layer::Bio).contains(r#","layer":"bio","seq":0,"#));
        for layer in [Layer::Request, Layer::Bio] {
            assert_eq!(serde_json::from_str::<Record>(&line(layer)).unwrap().layer, layer);
        }
        let named = line(Layer::Bio).replace("bio", "request");
        assert_eq!(serde_json::from_str::<Record>(&named).unwrap().layer, Layer::Request);
    }

    #[test]
    fn log2_detail_keeps_slots() {
        let record = record(vec![device(0, 8 << 20, &[(73, 12), (80, 15)])], Detail::Log2);
        let read = record.latency_histogram[0].ops.read.as_ref().unwrap();
        assert_eq!((&read.fine, &read.slots), (&None, &Some(vec![(4, 12), (5, 15)])));
    }

    #[test]
    fn devices_ascend_and_two_slots_of_one_disk_are_one() {
        let record = record(
            vec![
                device(1, 9 << 20, &[(1, 1)]),
                device(0, 8 << 20, &[(1, 1), (9, 2)]),
                device(2, 8 << 20, &[(1, 4), (3, 1)]),
            ],
            Detail::Fine,
        );
        let ids: Vec<_> = record.latency_histogram.iter().map(|d| d.device_id >> 20).collect();
        assert_eq!(ids, [8, 9]);
        let read = record.latency_histogram[0].ops.read.as_ref().unwrap();
        assert_eq!(read.fine.as_deref(), Some(&[(1, 5), (3, 1), (9, 2)][..]));
        assert_eq!((read.total, record.inflight[0].count), (8, 2));
    }
}
