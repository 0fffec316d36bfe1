//! The user-space half of a window: reading the maps, taking the difference, writing the line; and
//! how many bytes a day of lines takes. `make bench` runs it; reading real maps needs root.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use blkiolatd::config::{Detail, ProbeChoice};
use blkiolatd::histogram::{BUCKETS, bucket_of_ns};
use blkiolatd::probe::facts::{Facts, Machine};
use blkiolatd::probe::memory::{Cell, Device, Flow, SharedArray};
use blkiolatd::probe::plan::Plan;
use blkiolatd::probe::reading::{DeviceReading, Reading};
use blkiolatd::probe::{OPERATIONS, Probe, Storage};
use blkiolatd::record::{Context, Layer, Record};
use blkiolatd::report::synthetic;
use blkiolatd::snapshot::{Sampler, Snapshot};
use criterion::Criterion;
use libbpf_rs::{MapCore, MapHandle};

/// Buckets of each histogram that change from window to window: what a busy disk shows.
const BUSY_BUCKETS: usize = 60;

fn main() -> Result<()> {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for devices in [10, 1000] {
        decode(&mut criterion, devices);
    }
    encode(&mut criterion);
    for devices in [10, 1000] {
        read(&mut criterion, devices)?;
    }
    criterion.final_summary();
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/bytes.json");
    let bytes = serde_json::json!({
        "fine": day(Detail::Fine)?,
        "log2": day(Detail::Log2)?,
    });
    fs::create_dir_all(results.parent().context("target")?)?;
    fs::write(&results, bytes.to_string()).with_context(|| results.display().to_string())
}

/// A latency in the middle of each of the buckets that change.
fn busy_buckets() -> impl Iterator<Item = usize> {
    let first = bucket_of_ns(20_000);
    first..(first + BUSY_BUCKETS).min(BUCKETS)
}

/// A reading in which everything has changed since the last one.
fn advance(reading: &mut Reading) {
    reading.at_ns += 5_000_000_000;
    for device in reading.devices.iter_mut().flatten() {
        device.changed = true;
        for operation in device.operations.iter_mut() {
            let operation = operation.get_or_insert_default();
            for bucket in busy_buckets() {
                operation.buckets[bucket] = operation.buckets[bucket].wrapping_add(40);
            }
            operation.bytes += 4096 * 2400;
            operation.sum_ns += 2400 * 80_000;
            operation.max_ns = 900_000;
        }
    }
}

fn reading_of(devices: usize) -> Reading {
    let device = |number: usize| DeviceReading {
        generation: 1,
        identity: number as u64,
        device_id: (259 << 20) + number as u32,
        name: format!("nvme{number}n1"),
        ..DeviceReading::default()
    };
    let mut reading =
        Reading { devices: (0..devices).map(|n| Some(device(n))).collect(), ..Reading::default() };
    advance(&mut reading);
    reading
}

/// From two readings to a window.
fn decode(criterion: &mut Criterion, devices: usize) {
    let mut reading = reading_of(devices);
    let mut sampler = Sampler::new(0);
    sampler.window(&reading);
    criterion.bench_function(&format!("decode_{devices}"), |bencher| {
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                advance(&mut reading);
                let start = Instant::now();
                std::hint::black_box(sampler.window(&reading));
                spent += start.elapsed();
            }
            spent
        });
    });
}

fn window_of(devices: usize) -> Snapshot {
    let mut reading = reading_of(devices);
    let mut sampler = Sampler::new(0);
    sampler.window(&reading);
    advance(&mut reading);
    sampler.window(&reading)
}

fn context(detail: Detail) -> Context {
    Context { host: "db-17".into(), boot_id: "4f0f7a0e".into(), interval_s: 5.0, detail }
}

/// From a window to a line of JSON.
fn encode(criterion: &mut Criterion) {
    let snapshot = window_of(4);
    for (name, detail) in [("encode_4_fine", Detail::Fine), ("encode_4_log2", Detail::Log2)] {
        let context = context(detail);
        let mut line = Vec::new();
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                line.clear();
                let end = jiff::Timestamp::UNIX_EPOCH;
                let record =
                    Record::new(Layer::Request, &snapshot, end, 7, &context, |_| Some("nvme0n1"));
                record.write_line(&mut line);
                line.len()
            });
        });
    }
}

/// From the kernel's maps to a window.
fn read(criterion: &mut Criterion, devices: usize) -> Result<()> {
    let mut facts = Facts::read();
    // Enough histograms for every operation of every disk; a plan counts on three each.
    facts.machine = Machine { disks: devices as u32 * 2, ..facts.machine };
    let plan = Plan::new(&facts, ProbeChoice::Btf).map_err(|reason| anyhow!(reason))?;
    let mut storage = Storage::default();
    let probe = Probe::load(plan, &facts, &mut storage)?;
    let maps = Maps::of_this_process()?;
    maps.fill(devices);
    let stripes = 1usize << plan.sizes.stripe_shift;
    let (mut reading, mut sampler) = (Reading::default(), Sampler::new(0));
    criterion.bench_function(&format!("read_{devices}"), |bencher| {
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                maps.advance(devices, stripes);
                let start = Instant::now();
                let result = probe.read(&mut reading).map(|()| sampler.window(&reading));
                spent += start.elapsed();
                // What is timed must have happened.
                assert!(result.is_ok_and(|window| window.devices.len() == devices));
            }
            spent
        });
    });
    Ok(())
}

/// The probe's maps, through another door.
struct Maps {
    devices: SharedArray<Device>,
    flows: SharedArray<Flow>,
    cells: SharedArray<Cell>,
}

impl Maps {
    fn of_this_process() -> Result<Self> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc/self/fdinfo")?.flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let id = text.lines().find_map(|line| line.strip_prefix("map_id:"));
            if let Some(id) = id.and_then(|id| id.trim().parse().ok()) {
                found.push(MapHandle::from_map_id(id)?);
            }
        }
        let named = |name: &str| {
            // The last one: maps of an earlier probe may still be open.
            found.iter().rfind(|map| map.name() == name).with_context(|| format!("no map {name}"))
        };
        Ok(Self {
            devices: SharedArray::map(named("devices")?)?,
            flows: SharedArray::map(named("flows")?)?,
            cells: SharedArray::map(named("cells")?)?,
        })
    }

    /// Makes this many disks, with histograms for all operations.
    fn fill(&self, devices: usize) {
        for (number, device) in self.devices.as_slice().iter().take(devices).enumerate() {
            device.identity.store(number as u64 + 1, Relaxed);
            device.major.store(259, Relaxed);
            device.minor.store(number as u32, Relaxed);
            for (operation, cell) in device.cell.iter().enumerate() {
                cell.store((number * OPERATIONS + operation + 1) as u32, Relaxed);
            }
            device.generation.store(1, Relaxed);
        }
    }

    /// Counts in every histogram of every stripe.
    fn advance(&self, devices: usize, stripes: usize) {
        for flow in self.flows.as_slice().iter().take(devices * stripes) {
            flow.issued.fetch_add(12_000, Relaxed);
            flow.completed.fetch_add(12_000, Relaxed);
        }
        for cell in self.cells.as_slice().iter().take(devices * OPERATIONS * stripes) {
            for bucket in busy_buckets() {
                cell.buckets[bucket].fetch_add(40, Relaxed);
            }
            cell.bytes.fetch_add(4096 * 2400, Relaxed);
            cell.sum_ns.fetch_add(2400 * 80_000, Relaxed);
            cell.max_ns.store(900_000, Relaxed);
        }
    }
}

/// Bytes that a day of four busy disks takes in windows of 5 s, raw and with gzip -6.
///
/// One window in 8 is made, 2,160 in all, so that the whole day with its rise and fall takes part.
fn day(detail: Detail) -> Result<serde_json::Value> {
    const ONE_IN: u64 = 8;
    let disk = |number: u32, median_ns| synthetic::Disk {
        name: format!("nvme{number}n1"),
        id: (259 << 20) + number,
        median_ns,
        // 2,000 a second at the busiest time.
        requests: 10_000,
        slow: None,
    };
    let plan = synthetic::Plan {
        seed: 5,
        host: "db-17".into(),
        start_us: 1_795_305_600_000_000,
        window_us: 5_000_000 * ONE_IN as i64,
        windows: 86_400 / 5 / ONE_IN,
        detail,
        disks: vec![disk(0, 80_000), disk(1, 90_000), disk(2, 150_000), disk(3, 2_000_000)],
    };
    let mut lines = Vec::new();
    let mut requests = 0;
    for (record, made_of) in synthetic::windows(&plan) {
        requests += made_of.len() as u64;
        record.write_line(&mut lines);
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    gzip.write_all(&lines)?;
    Ok(serde_json::json!({
        "raw": lines.len() as u64 * ONE_IN,
        "gzipped": gzip.finish()?.len() as u64 * ONE_IN,
        "requests": requests * ONE_IN,
        "disks": plan.disks.len(),
    }))
}
