//! What a missed completion leaves in the daemon's tables. The kernel cannot be made to skip a program, so it is put there
//! as the program would have left it.

use std::fs;

use blkiolatd::probe::monotonic_ns;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::counts::ATTEMPTS;
use crate::daemon::{Daemon, Launch};
use crate::fio::Fio;
use crate::fixture::{Loop, Mode, needs, run};

const SECOND: u64 = 1_000_000_000;
/// In a start time: sysfs does not count such a request (`START_UNCOUNTED` in `bpf/blkiolat.h`).
const UNCOUNTED: u64 = 1;
/// Sectors of 512 bytes, where the first of the records begins that [`Tables::leave`] makes of 64 KiB each.
const SECTOR: u64 = 256;

/// The tables of a daemon.
struct Tables {
    maps: Vec<MapHandle>,
    slot: u16,
    device_id: u32,
}

impl Tables {
    /// Those of `daemon`, which has seen `disk`, at that by `probe`.
    fn of(daemon: &Daemon, probe: &str, disk: &Loop) -> Self {
        let mut maps = Vec::new();
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid())).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
            let id = text.lines().find_map(|line| line.strip_prefix("map_id:"));
            maps.extend(id.map(|id| MapHandle::from_map_id(id.trim().parse().unwrap()).unwrap()));
        }
        let device_id = disk.device_id();
        let mut tables = Self { maps, slot: 0, device_id };
        let identity = match probe {
            "btf" => disk.read("diskseq").parse().unwrap(),
            _ => u64::from(device_id),
        };
        let slot = tables.map("device_slots").lookup(&identity.to_ne_bytes(), MapFlags::ANY);
        let slot = slot.unwrap().expect("the disk has been seen");
        tables.slot = u32::from_ne_bytes(slot.try_into().unwrap()).try_into().unwrap();
        tables
    }

    fn map(&self, name: &str) -> &MapHandle {
        // The kernel keeps 15 characters of a name.
        let named = |map: &&MapHandle| map.name().to_str() == Some(&name[..name.len().min(15)]);
        self.maps.iter().find(named).expect(name)
    }

    /// Leaves a record of a read for each of these start times in a table: `inflight`, `inflight_overflow` or `pending`.
    fn leave(&self, table: &str, start_ns: &[u64]) {
        for (number, start_ns) in (0u64..).zip(start_ns) {
            let address = 0xdead + number;
            let inflight = [address << 16 | u64::from(self.slot) << 1, *start_ns];
            let inflight = inflight.map(u64::to_ne_bytes).concat();
            let (key, value) = if table == "inflight_overflow" {
                (address.to_ne_bytes().to_vec(), inflight)
            } else if table == "inflight" {
                // `struct inflight_set` 0, way by way; the address is that of no request.
                let set = 0u32.to_ne_bytes().to_vec();
                let mut ways = self.map(table).lookup(&set, MapFlags::ANY).unwrap().unwrap();
                let way = &mut ways[number as usize * 16..][..16];
                assert_eq!(way[..8], [0; 8], "the place is taken");
                way.copy_from_slice(&inflight);
                (set, ways)
            } else {
                // `struct pending_key` of a read, and `struct pending`.
                let mut key = (SECTOR + number * 128).to_ne_bytes().to_vec();
                key.extend(self.device_id.to_ne_bytes());
                key.extend([0; 4]);
                let mut value = start_ns.to_ne_bytes().to_vec();
                value.extend((64u32 << 10).to_ne_bytes());
                value.extend([self.slot.to_ne_bytes(), [0; 2]].concat());
                (key, value)
            };
            self.map(table).update(&key, &value, MapFlags::ANY).unwrap();
        }
    }
}

/// Reads 4 KiB.
fn read(disk: &Loop, sector: u64) {
    let skip = format!("skip={}", sector / 8);
    let source = format!("if={}", disk.node());
    run(&["dd", &source, "of=/dev/null", "bs=4k", "count=1", "iflag=direct", &skip]);
    disk.stat();
}

/// The kernel counts nothing in flight, so it is not; a flush or passthrough it does not count.
#[test]
fn what_a_missed_completion_leaves_is_dropped_and_reported() {
    needs!("fio");
    let disk = Loop::new(8, Mode::Buffered);
    let tables = [("btf", "inflight"), ("btf", "inflight_overflow"), ("tracepoint", "pending")];
    for (probe, table) in tables {
        let mut launch = Launch::of(&[&disk]).arguments(&["--probe", probe]);
        if table == "inflight_overflow" {
            launch = launch.tables("sets=1,overflow=4096");
        }
        let mut daemon = launch.start();
        // The overflow is looked at only once it was used.
        let job = "--rw=randread --bs=4k --ioengine=libaio --iodepth=64 --number_ios=512 --size=8m";
        let before = disk.stat();
        Fio::new().job(&disk, job).run();
        let reads = disk.stat().since(before).reads;
        let long_ago = (monotonic_ns() - 20 * SECOND) & !UNCOUNTED;
        daemon.wait_windows(3);
        Tables::of(&daemon, probe, &disk).leave(table, &[long_ago, long_ago | UNCOUNTED]);
        daemon.wait_windows(5);
        let run = daemon.stop();
        let mut counts: Vec<u64> = Vec::new();
        counts.extend(run.records.iter().flat_map(|record| &record.inflight).map(|d| d.count));
        counts.dedup();
        assert!(counts.ends_with(&[2, 1]), "{table}: requests in flight {counts:?}");
        let missed: u64 = run.records.iter().map(|record| record.audit.probe_misses).sum();
        assert!(missed >= 1, "{table}");
        let read = run.totals(&disk.name).read.requests;
        assert!((reads - missed + 1..=reads).contains(&read), "{table}: {read} of {reads} reads");
    }
}

/// Probe tracepoint knows a request by its sector: one that comes to that of a missed completion is not taken for it.
#[test]
fn a_request_in_the_place_of_a_missed_completion_is_measured_right() {
    needs!("dd");
    let disk = Loop::new(8, Mode::Buffered);
    for attempt in 1.. {
        let daemon = Launch::of(&[&disk]).arguments(&["--probe", "tracepoint"]).start();
        read(&disk, 0);
        Tables::of(&daemon, "tracepoint", &disk).leave("pending", &[monotonic_ns() - 5 * SECOND]);
        read(&disk, SECTOR);
        let run = daemon.stop();
        let totals = run.totals(&disk.name);
        let missed: u64 = run.records.iter().map(|record| record.audit.probe_misses).sum();
        if missed != 1 && attempt < ATTEMPTS {
            println!("again: {missed} missed");
            continue;
        }
        let found = (totals.read.requests, totals.read.bytes, missed);
        assert_eq!(found, (2, 8192, 1), "{totals:?}");
        assert!(totals.read.max_us < 5e6, "{totals:?}");
        break;
    }
}
