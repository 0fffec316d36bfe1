//! The formula of the maps' memory against the kernel's own account, on machines of other sizes, too.

use std::collections::BTreeMap;
use std::fs;

use blkiolatd::config::ProbeChoice;
use blkiolatd::probe::facts::{Facts, Machine};
use blkiolatd::probe::plan::Plan;
use blkiolatd::probe::{Probe, Storage};

use crate::fixture::needs;

/// Bytes of the maps that this process has open, by the `memlock` of their fdinfo.
fn kernel_bytes() -> u64 {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo").unwrap().flatten() {
        // Other threads' descriptors come and go.
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().parse::<u64>().ok()
        };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    maps.values().sum()
}

#[test]
fn the_formula_is_what_the_kernel_accounts() {
    needs!();
    let facts = Facts::read();
    let machine = |cpus, disks, request_capacity| Machine {
        possible_cpus: cpus,
        online_cpus: cpus,
        disks,
        request_capacity,
    };
    const MIB: u64 = 1 << 20;
    let machines = [
        (facts.machine, u64::MAX),
        (machine(4, 8, 8 * 256), 4 * MIB),
        (machine(256, 64, 64 * 64 * 1023), 64 * MIB),
    ];
    for choice in [ProbeChoice::Btf, ProbeChoice::Tracepoint] {
        for (machine, limit) in machines {
            let facts = Facts { machine, ..facts.clone() };
            let plan = Plan::new(&facts, choice).unwrap();
            let formula: u64 = plan.memory().iter().map(|&(_, bytes)| bytes).sum();
            let mut storage = Storage::default();
            let probe = Probe::load(plan, &facts, &mut storage).unwrap();
            let kernel = kernel_bytes();
            drop(probe);
            assert!(
                kernel.abs_diff(formula) <= kernel / 20,
                "{choice:?}, {machine:?}: {formula} by the formula, {kernel} by the kernel"
            );
            assert!(kernel <= limit, "{choice:?}, {machine:?}: {kernel} bytes");
        }
    }
}
