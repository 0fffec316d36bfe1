//! How the cost per request changes with the number of disks, requests in flight, CPUs and the
//! kind of histogram.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::load::{Disk, Shape};
use crate::machine::text_of;
use crate::rounds::{Cache, Lengths, Results, net, race};
use crate::statistics::Spread;
use crate::subject::{BIOLATENCY, BTF, BTF_LOG2, FLOOR, NOTHING, ORIGINAL, Stage, Subject};

/// Requests that a loop device takes at once (the kernel's module parameter `hw_queue_depth`).
const LOOP_DEPTH: u32 = 128;
const MOST_DISKS: usize = 64;

/// The cost of several subjects at one point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    pub x: u32,
    /// By subject's name: nanoseconds per request.
    pub costs: Vec<(String, Spread)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Scaling {
    pub disks: Vec<Point>,
    pub depth: Vec<Point>,
    pub cpus: Vec<Point>,
    /// x is 0 for `fine`, 1 for `log2`; the kernel's part is the same.
    pub detail: Vec<(String, Spread)>,
}

const SUBJECTS: [Subject; 5] = [NOTHING, FLOOR, BTF, BIOLATENCY, ORIGINAL];

/// # Errors
/// When the disks cannot be made, or after Ctrl-C.
pub fn measure(stage: &Stage, rounds: usize) -> Result<Scaling> {
    let lengths = Lengths {
        rounds,
        hot: Duration::from_millis(150),
        cold: Duration::ZERO,
        rate: Duration::ZERO,
    };
    let all: Vec<Disk> = (0..MOST_DISKS).map(|_| Disk::new(8)).collect::<Result<_>>()?;
    let point = |x, count: usize, shape| -> Result<Point> {
        eprintln!("  {count} disks, {shape:?}");
        let results = race(stage, &SUBJECTS, &all[..count], shape, lengths)?;
        Ok(Point { x, costs: costs(&results) })
    };
    let mut scaling = Scaling::default();
    for count in [1u32, 2, 4, 8, 16, 32, 64] {
        let depth = (64 / count).max(1);
        let shape = Shape { depth, batch: depth.min(8), ..Shape::HOT };
        scaling.disks.push(point(count, count as usize, shape)?);
    }
    for depth in [1u32, 4, 16, 64, 256, 1024, 4096] {
        let count = depth.div_ceil(LOOP_DEPTH);
        let each = depth / count;
        let shape = Shape { depth: each, batch: each.min(8), ..Shape::HOT };
        scaling.depth.push(point(depth, count as usize, shape)?);
    }
    {
        let _one = OneCpu::new()?;
        let shape = Shape { cpus: Some("0"), ..Shape::HOT };
        scaling.cpus.push(point(1, 1, shape)?);
    }
    scaling.cpus.push(point(crate::machine::online_cpus() as u32, 1, Shape::HOT)?);
    let subjects = [NOTHING, BTF, BTF_LOG2];
    let lengths = Lengths { rounds: rounds * 5, ..lengths };
    scaling.detail = costs(&race(stage, &subjects, &all[..1], Shape::HOT, lengths)?);
    Ok(scaling)
}

fn costs(results: &Results) -> Vec<(String, Spread)> {
    let entries = results.entries.iter().filter(|entry| entry.id != NOTHING.id);
    entries
        .filter_map(|entry| Some((entry.name.clone(), net(results, &entry.id, Cache::Hot)?)))
        .collect()
}

/// Keeps loop devices' workers on CPU 0 until it is dropped: they are in an unbound workqueue.
struct OneCpu {
    path: PathBuf,
    before: String,
}

impl OneCpu {
    fn new() -> Result<Self> {
        let path = PathBuf::from("/sys/devices/virtual/workqueue/cpumask");
        let before = text_of(&path)?;
        fs::write(&path, "1").with_context(|| path.display().to_string())?;
        Ok(Self { path, before })
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.before) {
            eprintln!("{}: {error}; it was {}", self.path.display(), self.before);
        }
    }
}
