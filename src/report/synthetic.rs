//! Records of made-up hosts, the same for the same seed on every machine: for tests, benchmarks
//! and pictures. The arithmetic is that of integers, so no mathematics library can change it.

pub mod fleet;

use std::collections::BTreeMap;
use std::ops::Range;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::Detail;
use crate::histogram;
use crate::record::{
    Audit, DeviceInflight, DeviceLatency, OperationStats, Operations, Record, SCHEMA_VERSION,
    SlotCount,
};

/// A made-up host.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the random numbers begin.
    pub seed: u64,
    /// Host name.
    pub host: String,
    /// Begin of the first window, µs since the Unix epoch.
    pub start_us: i64,
    /// Length of a window, µs.
    pub window_us: i64,
    /// Number of windows.
    pub windows: u64,
    /// Kind of histogram.
    pub detail: Detail,
    /// Its disks.
    pub disks: Vec<Disk>,
}

/// A made-up disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Kernel name.
    pub name: String,
    /// `dev_t`.
    pub id: u32,
    /// Median latency of a read, ns; those of the other operations follow from it.
    pub median_ns: u64,
    /// Requests in a window of the busiest time of the day.
    pub requests: u64,
    /// Windows (by number, end exclusive) in which it is 16 times as slow.
    pub slow: Option<(u64, u64)>,
}

/// One request, as the histogram saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Place of the disk in the plan.
    pub disk: usize,
    /// Place of the operation in [`Operations::NAMES`].
    pub operation: usize,
    /// Its latency, ns.
    pub ns: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Whether it failed.
    pub failed: bool,
}

/// The random numbers of Sebastiano Vigna's splitmix64.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which must not be 0; its bias is of no concern here.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// About normal around 0, with a standard deviation of about 0.58 × 2^16: the sum of four
    /// uniform numbers.
    fn bell(&mut self) -> i64 {
        let bits = self.next();
        (0..4).map(|i| ((bits >> (16 * i)) & 0xffff) as i64).sum::<i64>() - 2 * 0xffff
    }
}

/// `ns × 2^(log2 / 2^16)`, with straight lines between powers of two.
fn scale(ns: u64, log2: i64) -> u64 {
    let (whole, part) = (log2 >> 16, (log2 & 0xffff) as u64);
    let mantissa = (u128::from(ns) * u128::from(0x1_0000 + part)) >> 16;
    let scaled = if whole >= 0 { mantissa << whole.min(40) } else { mantissa >> (-whole).min(63) };
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// The plan's records, in order, each with the requests that it was made from.
pub fn windows(plan: &Plan) -> impl Iterator<Item = (Record, Vec<Request>)> + '_ {
    windows_in(plan, 0..plan.windows)
}

/// The records of some of the plan's windows. The random numbers depend on where the range begins,
/// so that its parts can be made apart.
pub fn windows_in(
    plan: &Plan,
    range: Range<u64>,
) -> impl Iterator<Item = (Record, Vec<Request>)> + '_ {
    let mut random = Random(plan.seed ^ range.start.rotate_left(32));
    range.map(move |seq| {
        let mut requests = Vec::new();
        for (place, disk) in plan.disks.iter().enumerate() {
            fill(&mut requests, &mut random, place, disk, plan.window_us, seq);
        }
        (record(plan, seq, &requests), requests)
    })
}

fn fill(
    requests: &mut Vec<Request>,
    random: &mut Random,
    place: usize,
    disk: &Disk,
    window_us: i64,
    seq: u64,
) {
    // The load rises and falls once a day between a quarter and all of it.
    let day = 86_400_000_000 / window_us.max(1) as u64;
    let phase = seq % day.max(1);
    let rise = phase.min(day.saturating_sub(phase)) * 1024 / (day / 2).max(1);
    let most = disk.requests * (256 + rise * 768 / 1024) / 1024;
    let count = if most == 0 { 0 } else { most / 2 + random.below(most) };
    let slow = disk.slow.is_some_and(|(from, to)| (from..to).contains(&seq));
    for _ in 0..count {
        let (operation, octaves, bytes) = match random.below(64) {
            0 => (2, 4, 0),
            1 => (3, 2, 1 << 20),
            2..=23 => (1, -1, 16_384),
            _ => (0, 0, 4096 << random.below(3)),
        };
        // One request in 256 meets something that takes 8 times as long: a second, small mode.
        let tail = if random.below(256) == 0 { 3 << 16 } else { 0 };
        let trouble = if slow { 4 << 16 } else { 0 };
        let log2 = random.bell() / 2 + (octaves << 16) + tail + trouble;
        requests.push(Request {
            disk: place,
            operation,
            ns: scale(disk.median_ns, log2),
            bytes,
            failed: slow && random.below(512) == 0,
        });
    }
}

/// The record of window `seq` that completed `requests`.
#[must_use]
pub fn record(plan: &Plan, seq: u64, requests: &[Request]) -> Record {
    let end_us = plan.start_us + (seq as i64 + 1) * plan.window_us;
    let mut latency_histogram = Vec::new();
    let mut inflight = Vec::new();
    for (place, disk) in plan.disks.iter().enumerate() {
        let of_disk: Vec<_> = requests.iter().filter(|request| request.disk == place).collect();
        if of_disk.is_empty() {
            continue;
        }
        let mut ops = Operations::default();
        let mut slots = BTreeMap::new();
        for operation in 0..Operations::NAMES.len() {
            let those: Vec<_> =
                of_disk.iter().copied().filter(|request| request.operation == operation).collect();
            for request in &those {
                *slots.entry(histogram::slot_of_us(request.ns / 1000)).or_insert(0) += 1;
            }
            if !those.is_empty() {
                *ops.slot_mut(operation) = Some(stats(&those, plan.detail));
            }
        }
        let sum_ns: u64 = of_disk.iter().map(|request| request.ns).sum();
        let longest = of_disk.iter().map(|request| request.ns).max().unwrap_or(0);
        latency_histogram.push(DeviceLatency {
            device_id: disk.id,
            device_name: disk.name.clone(),
            total: of_disk.len() as u64,
            buckets: slots.into_iter().map(slot_count).collect(),
            ops,
            requeues: of_disk.iter().filter(|request| request.failed).count() as u64,
        });
        // Little's law gives the mean; the rest is only plausible.
        let mean = (sum_ns / 1000) as f64 / plan.window_us as f64;
        inflight.push(DeviceInflight {
            device_id: disk.id,
            device_name: disk.name.clone(),
            count: mean as u64,
            mean,
            max: mean as u64 + 1 + seq % 4,
            oldest_us: if mean >= 1.0 { longest as f64 / 2000.0 } else { 0.0 },
        });
    }
    let time = Timestamp::from_microsecond(end_us).unwrap_or_default();
    Record {
        timestamp: end_us as f64 / 1e6,
        iso_timestamp: TimeZone::UTC
            .to_datetime(time)
            .strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00")
            .to_string(),
        interval_s: plan.window_us as f64 / 1e6,
        latency_histogram,
        inflight,
        schema: SCHEMA_VERSION,
        host: plan.host.clone(),
        boot_id: format!("{:08x}-0000-4000-8000-000000000000", plan.seed as u32),
        layer: crate::record::Layer::Request,
        seq,
        window_s: plan.window_us as f64 / 1e6,
        audit: Audit::default(),
    }
}

fn stats(requests: &[&Request], detail: Detail) -> OperationStats {
    let mut counts = BTreeMap::new();
    for request in requests {
        let place = match detail {
            Detail::Fine => histogram::bucket_of_ns(request.ns),
            Detail::Log2 => histogram::slot_of_us(request.ns / 1000),
        };
        *counts.entry(place as u16).or_insert(0) += 1;
    }
    let counts = Some(counts.into_iter().collect());
    let (fine, slots) = match detail {
        Detail::Fine => (counts, None),
        Detail::Log2 => (None, counts),
    };
    OperationStats {
        total: requests.len() as u64,
        bytes: requests.iter().map(|request| request.bytes).sum(),
        sum_us: requests.iter().map(|request| request.ns).sum::<u64>() as f64 / 1e3,
        max_us: requests.iter().map(|request| request.ns).max().unwrap_or(0) as f64 / 1e3,
        errors: requests.iter().filter(|request| request.failed).count() as u64,
        fine,
        slots,
    }
}

fn slot_count((slot, count): (usize, u64)) -> SlotCount {
    let (bucket_low, bucket_high) = histogram::slot_bounds_us(slot);
    SlotCount { slot: slot as u32, count, bucket_low, bucket_high }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::reader::{Parser, Wanted};

    fn plan(seed: u64, detail: Detail) -> Plan {
        Plan {
            seed,
            host: "db-17".into(),
            start_us: 1_795_305_600_000_000,
            window_us: 5_000_000,
            windows: 20,
            detail,
            disks: vec![Disk {
                name: "nvme0n1".into(),
                id: 259 << 20,
                median_ns: 80_000,
                requests: 300,
                slow: Some((10, 12)),
            }],
        }
    }

    #[test]
    fn same_seed_same_records() {
        let lines = |seed| {
            let mut line = Vec::new();
            for (record, _) in windows(&plan(seed, Detail::Fine)) {
                record.write_line(&mut line);
            }
            line
        };
        assert_eq!(lines(1), lines(1));
        assert_ne!(lines(1), lines(2));
    }

    #[test]
    fn readers_accept_them_and_the_schema_does() {
        let schema = serde_json::from_str(include_str!("../../docs/record.schema.json")).unwrap();
        let schema = jsonschema::draft202012::new(&schema).unwrap();
        for detail in [Detail::Fine, Detail::Log2] {
            let mut requests = 0;
            for (record, made_of) in windows(&plan(3, detail)) {
                let mut line = Vec::new();
                record.write_line(&mut line);
                let mut parser = Parser::default();
                let view = parser.parse(&line, &Wanted::default()).unwrap().unwrap();
                assert_eq!(view.devices().next().unwrap().total, made_of.len() as u64);
                assert!(schema.is_valid(&serde_json::from_slice(&line).unwrap()));
                requests += made_of.len();
            }
            assert!(requests > 1000);
        }
    }

    #[test]
    fn scaling_by_powers_of_two() {
        assert_eq!(scale(80_000, 0), 80_000);
        assert_eq!(scale(80_000, 4 << 16), 1_280_000);
        assert_eq!(scale(80_000, -(1 << 16)), 40_000);
        assert_eq!(scale(80_000, 1 << 15), 120_000);
    }
}
