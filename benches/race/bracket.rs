//! The bracket: what stands between two programs on one tracepoint, in nanoseconds.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result};
use blkiolatd::probe::memory::{Shared, SharedArray};
use libbpf_rs::{Link, MapCore, Object, ObjectBuilder};

/// `LONGEST_NS` in `benches/bpf/race.bpf.c`.
const LONGEST_NS: usize = 16384;
const HOOKS: usize = 2;

/// `struct times`.
#[repr(C)]
struct Times {
    begun_ns: AtomicU64,
    longer: AtomicU64,
    count: [AtomicU32; LONGEST_NS],
}

// SAFETY: all fields are atomics; the map's value size is compared with the type's when it is mapped.
unsafe impl Shared for Times {}

/// The race's own programs, loaded.
pub struct Programs {
    object: Object,
    times: SharedArray<Times>,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Programs")
    }
}

/// How often each time was measured, at issue and at completion.
#[derive(Clone, Debug)]
pub struct Counts {
    hooks: [Vec<u64>; HOOKS],
    longer: [u64; HOOKS],
}

impl Programs {
    /// # Errors
    /// When the kernel refuses them.
    pub fn load(path: &Path) -> Result<Self> {
        let mut open = ObjectBuilder::default()
            .open_file(path)
            .with_context(|| format!("{} (make bench builds it)", path.display()))?;
        let cpus = libbpf_rs::num_possible_cpus().context("number of CPUs")?;
        for mut map in open.maps_mut().filter(|map| map.name() == "times") {
            map.set_max_entries((cpus * HOOKS) as u32)?;
        }
        let object = open.load().context("the kernel refused the race's own programs")?;
        let times = object.maps().find(|map| map.name() == "times").context("no map `times`")?;
        let times = SharedArray::map(&times)?;
        Ok(Self { object, times })
    }

    /// Attaches `NAME_complete`, then `NAME_issue`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(&self, name: &str) -> Result<Vec<Link>> {
        ["complete", "issue"]
            .iter()
            .map(|hook| {
                let full = format!("{name}_{hook}");
                let program = self.object.progs_mut().find(|program| program.name() == &*full);
                let program = program.with_context(|| format!("no program {full}"))?;
                program.attach().with_context(|| format!("cannot attach {full}"))
            })
            .collect()
    }

    /// Whether the kernel keeps statistics of programs, which every program pays for.
    pub fn statistics_are_on(&self) -> bool {
        let fds = self.object.progs_mut().map(|program| program.as_fd().as_raw_fd());
        fds.collect::<Vec<_>>().into_iter().any(|fd| {
            let mut info = libbpf_sys::bpf_prog_info::default();
            let mut length = size_of_val(&info) as u32;
            // SAFETY: the descriptor is open, and the kernel writes `length` bytes at most.
            let result =
                unsafe { libbpf_sys::bpf_prog_get_info_by_fd(fd, &raw mut info, &raw mut length) };
            result == 0 && info.run_cnt > 0
        })
    }

    /// What was measured so far.
    pub fn counts(&self) -> Counts {
        let mut counts =
            Counts { hooks: [vec![0; LONGEST_NS], vec![0; LONGEST_NS]], longer: [0; 2] };
        for (index, times) in self.times.as_slice().iter().enumerate() {
            let hook = index % HOOKS;
            counts.longer[hook] += times.longer.load(Relaxed);
            for (sum, count) in counts.hooks[hook].iter_mut().zip(&times.count) {
                *sum += u64::from(count.load(Relaxed));
            }
        }
        counts
    }
}

impl Counts {
    /// Mean time at `hook` since `before`, the longest `trimmed` of all events left out: those
    /// were interrupted. `None` when there were fewer than a hundred.
    pub fn mean_ns(&self, before: &Self, hook: usize, trimmed: f64) -> Option<f64> {
        let counts: Vec<u64> = self.hooks[hook]
            .iter()
            .zip(&before.hooks[hook])
            .map(|(now, before)| now - before)
            .collect();
        let longer = self.longer[hook] - before.longer[hook];
        crate::statistics::trimmed_mean(&counts, longer, trimmed)
    }
}
