//! A made-up fleet: hosts of several kinds, some with a disk that ails, some with a gap.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Disk, Plan, windows_in};
use crate::config::Detail;

/// 2026-11-01T00:00:00Z.
const START_US: i64 = 1_793_491_200_000_000;
/// Seconds of a day.
const DAY_S: u64 = 86_400;
/// Where the daemon's default configuration rotates.
const SEGMENT_BYTES: usize = 64 << 20;

/// A fleet whose archives can be written.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Number of hosts.
    pub hosts: u64,
    /// Days of each.
    pub days: u64,
    /// Disks of each.
    pub disks: u64,
    /// Length of a window, s, at least 1; it should divide a day.
    pub window_s: u64,
    /// Requests per disk and window at the busiest time of the day.
    pub requests: u64,
    /// Where the random numbers begin.
    pub seed: u64,
}

impl Fleet {
    /// Writes the archives, on all cores: a directory for each host with its rotated, compressed
    /// segments, as if collected from `/var/log/blkiolatd`.
    ///
    /// # Errors
    /// When a directory or file cannot be written.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let next = AtomicU64::new(0);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let work = || -> io::Result<()> {
            loop {
                let job = next.fetch_add(1, Ordering::Relaxed);
                let (host, day) = (job / self.days.max(1), job % self.days.max(1));
                if host >= self.hosts {
                    return Ok(());
                }
                self.write_day(directory, host, day)?;
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    const fn windows_a_day(&self) -> u64 {
        DAY_S / self.window_s
    }

    /// What host number `host` is and does.
    fn plan(&self, host: u64) -> Plan {
        let kind = host % 8;
        let disks = (0..self.disks).map(|place| {
            let letter = char::from(b'a' + (place % 26) as u8);
            let (name, major, median_ns) = match kind {
                // Solid-state SATA, spinning, and the rest NVMe of two generations.
                5 | 6 => (format!("sd{letter}"), 8, 250_000),
                7 => (format!("sd{letter}"), 8, 5_000_000),
                0 | 1 => (format!("nvme{place}n1"), 259, 25_000),
                _ => (format!("nvme{place}n1"), 259, 80_000),
            };
            // A spinning disk does less.
            let requests = if kind == 7 { self.requests / 4 } else { self.requests };
            Disk { name, id: major << 20 | (place as u32 * 16), median_ns, requests, slow: None }
        });
        Plan {
            seed: self.seed.wrapping_mul(1_000_003).wrapping_add(host),
            host: format!("host-{host:05}"),
            start_us: START_US,
            window_us: self.window_s as i64 * 1_000_000,
            windows: self.windows_a_day() * self.days,
            detail: Detail::Fine,
            disks: disks.collect(),
        }
    }

    fn write_day(&self, directory: &Path, host: u64, day: u64) -> io::Result<()> {
        let mut plan = self.plan(host);
        let directory = directory.join(&plan.host);
        fs::create_dir_all(&directory)?;
        let windows = self.windows_a_day();
        let first = day * windows;
        let share = |from: u64, to: u64| first + windows * from / 24..first + windows * to / 24;
        if host % 16 == 3
            && let Some(disk) = plan.disks.first_mut()
        {
            let slow = share(14, 16);
            disk.slow = Some((slow.start, slow.end));
        }
        let lost: Range<u64> = if host % 25 == 1 { share(3, 4) } else { 0..0 };
        let (mut lines, mut begin_us) = (Vec::new(), 0);
        for (record, _) in windows_in(&plan, first..first + windows) {
            if lost.contains(&record.seq) {
                continue;
            }
            if lines.is_empty() {
                begin_us = START_US + (record.seq as i64 + 1) * plan.window_us;
            }
            record.write_line(&mut lines);
            if lines.len() >= SEGMENT_BYTES {
                write_segment(&directory, begin_us, &lines)?;
                lines.clear();
            }
        }
        if lines.is_empty() { Ok(()) } else { write_segment(&directory, begin_us, &lines) }
    }
}

/// Writes an archive that is named by the time of its first record.
fn write_segment(directory: &Path, begin_us: i64, lines: &[u8]) -> io::Result<()> {
    let time = Timestamp::from_microsecond(begin_us).map_err(io::Error::other)?;
    let time = TimeZone::UTC.to_datetime(time);
    let name = time.strftime("blkiolat-%Y%m%dT%H%M%S%.3fZ.jsonl.gz").to_string();
    let mut encoder = GzEncoder::new(File::create(directory.join(name))?, Compression::new(6));
    encoder.write_all(lines)?;
    encoder.finish().map(drop)
}
