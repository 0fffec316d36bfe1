//! From facts to a plan: which programs are loaded and how large their maps are. Pure.

use super::facts::{BioFacts, ClassicFormats, Facts, Machine};
use crate::config::ProbeChoice;

/// Ways of one set of the in-flight table (`WAYS` in `bpf/blkiolat.h`).
pub const WAYS: u32 = 4;
/// Entries of the device cache (`CACHE_ENTRIES` in `bpf/blkiolat.h`).
pub const CACHE_ENTRIES: u32 = 4096;
/// Disks that are remembered as not to be measured.
pub const IGNORED_DEVICES: u32 = 1024;
/// Bytes of one `struct cell`, `struct flow`, `struct device` and in-flight entry.
const CELL_BYTES: u64 = 2176;
const FLOW_BYTES: u64 = 64;
const DEVICE_BYTES: u64 = 128;
const INFLIGHT_BYTES: u64 = 16;
/// What a bio has beside its in-flight entry (`struct bio_loads`).
const BIO_LOAD_BYTES: u64 = 8;
/// What an element of a preallocated hash costs beside key and value, rounded up.
const HASH_ELEMENT_BYTES: u64 = 64;
/// Places for bios in flight, of which there can be more than requests: nothing but memory bounds them.
const BIO_PLACES: u32 = 1 << 16;
/// Bios that may find their set full.
const BIO_OVERFLOW: u32 = 1 << 14;
/// log2 of the distance between two bios in memory, rounded down: with what their owners put around them they
/// are 128 to 512 bytes apart.
const BIO_SHIFT: u32 = 7;
/// Cells may take this much memory; beyond it CPUs share stripes.
const CELL_BUDGET_BYTES: u64 = 40 << 20;

/// Which programs measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// BTF-typed tracepoints, requests told apart by address.
    Btf {
        /// Where `struct request` stands among the arguments of issue and requeue.
        request_argument: usize,
        /// Whether places are claimed by compare-and-exchange.
        atomic_exchange: bool,
    },
    /// Classic tracepoints, requests told apart by device, sector and operation.
    Tracepoint(ClassicFormats),
    /// The bio layer: BTF-typed tracepoints, bios told apart by address.
    Bio(BioKind),
}

/// What the programs of the bio layer have to know of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BioKind {
    /// [`BioFacts::cloned_flag`].
    pub cloned_flag: u32,
    /// [`BioFacts::chain_flag`].
    pub chain_flag: u32,
    /// [`BioFacts::flush_sequence_flag`].
    pub flush_sequence_flag: u32,
}

impl ProbeKind {
    /// The name that the configuration uses.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Btf { .. } => "btf",
            Self::Tracepoint(_) => "tracepoint",
            Self::Bio(_) => "bio",
        }
    }
}

/// Sizes of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// log2 of the number of stripes.
    pub stripe_shift: u32,
    /// Whether several contexts can update one stripe at the same time.
    pub shared_stripes: bool,
    /// How long a CPU leaves the maximum in flight unchecked, in nanoseconds.
    pub max_check_ns: u64,
    /// Sets of the in-flight table; a power of two.
    pub inflight_sets: u32,
    /// log2 of the distance between two requests in memory, rounded down.
    pub inflight_shift: u32,
    /// Requests that may find their set full.
    pub overflow: u32,
    /// Requests in flight of the classic probe.
    pub pending: u32,
    /// Devices.
    pub slots: u32,
    /// Histograms: one for each operation that a device has used.
    pub cells: u32,
}

/// What will be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which programs.
    pub kind: ProbeKind,
    /// How large.
    pub sizes: Sizes,
}

impl Plan {
    /// Makes the plan for a machine.
    ///
    /// # Errors
    /// When the chosen probe, or under `auto` every probe, cannot work here: says why and what to do.
    pub fn new(facts: &Facts, choice: ProbeChoice) -> Result<Self, String> {
        let kind = match choice {
            ProbeChoice::Btf => btf_kind(facts)?,
            ProbeChoice::Tracepoint => classic_kind(facts)?,
            ProbeChoice::Auto => btf_kind(facts).or_else(|btf| {
                classic_kind(facts)
                    .map_err(|classic| format!("probe btf: {btf}; probe tracepoint: {classic}"))
            })?,
        };
        let (guarded, request_size) = match (&kind, &facts.btf) {
            (ProbeKind::Btf { .. }, Ok(btf)) => (btf.recursion_guard, btf.request_size),
            // trace_call_bpf() lets one program run at a time on a CPU (e1abf2cc8d5d, 4.1).
            _ => (true, 0),
        };
        Ok(Self { kind, sizes: Sizes::new(&facts.machine, guarded, request_size) })
    }

    /// Makes the plan of the bio layer, which is a second set of programs and maps.
    ///
    /// # Errors
    /// When it cannot work here: says why and what to do.
    pub fn bio(facts: &Facts) -> Result<Self, String> {
        let (btf, bio) = match (&facts.btf, &facts.bio) {
            (Ok(btf), Ok(bio)) => (btf, bio),
            (Err(reason), _) => {
                return Err(format!("the bio layer needs the kernel's BTF: {reason}"));
            }
            (_, Err(reason)) => return Err(format!("the bio layer cannot be had: {reason}")),
        };
        if bio.queue_arguments != ["bio *"]
            || bio.complete_arguments != ["request_queue *", "bio *"]
        {
            return Err(format!(
                "this kernel's tracepoints have unknown arguments: block_bio_queue({}), \
                 block_bio_complete({}); please report it with `blkiolatd doctor`",
                bio.queue_arguments.join(", "),
                bio.complete_arguments.join(", ")
            ));
        }
        let &BioFacts { cloned_flag, chain_flag, flush_sequence_flag, .. } = bio;
        let kind = ProbeKind::Bio(BioKind { cloned_flag, chain_flag, flush_sequence_flag });
        let sizes = Sizes {
            inflight_sets: BIO_PLACES / WAYS,
            inflight_shift: BIO_SHIFT,
            overflow: BIO_OVERFLOW,
            ..Sizes::new(&facts.machine, btf.recursion_guard, 0)
        };
        Ok(Self { kind, sizes })
    }

    /// The same plan with tables no larger than a test wants them.
    #[must_use]
    pub fn shrunk(mut self, tables: &TestTables) -> Self {
        let shrink = |size: &mut u32, to: Option<u32>| *size = to.unwrap_or(*size).min(*size);
        shrink(&mut self.sizes.inflight_sets, tables.sets);
        shrink(&mut self.sizes.overflow, tables.overflow);
        shrink(&mut self.sizes.pending, tables.pending);
        shrink(&mut self.sizes.slots, tables.devices);
        shrink(&mut self.sizes.cells, tables.histograms);
        self
    }

    /// Bytes of kernel memory that the maps take, as a sum of its parts, largest first.
    #[must_use]
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        let sizes = &self.sizes;
        let stripes = 1u64 << sizes.stripe_shift;
        let mut parts = vec![
            ("histograms", u64::from(sizes.cells) * stripes * CELL_BYTES),
            ("flows", u64::from(sizes.slots) * stripes * FLOW_BYTES),
            (
                "devices",
                u64::from(sizes.slots) * (DEVICE_BYTES + 4)
                    + u64::from(sizes.slots + IGNORED_DEVICES) * (8 + 4 + HASH_ELEMENT_BYTES)
                    + u64::from(CACHE_ENTRIES) * 8
                    + u64::from(sizes.cells) * (4 + 4 + 4 + HASH_ELEMENT_BYTES),
            ),
        ];
        parts.push(match self.kind {
            ProbeKind::Btf { .. } => (
                "in flight",
                u64::from(sizes.inflight_sets) * u64::from(WAYS) * INFLIGHT_BYTES
                    + u64::from(sizes.overflow) * (8 + 16 + HASH_ELEMENT_BYTES),
            ),
            ProbeKind::Bio(_) => (
                "in flight",
                u64::from(sizes.inflight_sets)
                    * u64::from(WAYS)
                    * (INFLIGHT_BYTES + BIO_LOAD_BYTES)
                    + u64::from(sizes.overflow) * (8 + 24 + HASH_ELEMENT_BYTES),
            ),
            ProbeKind::Tracepoint(_) => {
                ("in flight", u64::from(sizes.pending) * (16 + 16 + HASH_ELEMENT_BYTES))
            }
        });
        parts.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        parts
    }
}

/// Smaller tables than a machine would get, so that a test sees them full. For tests only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestTables {
    /// Sets of the in-flight table; a power of two.
    pub sets: Option<u32>,
    /// Requests, or bios, that may find their set full.
    pub overflow: Option<u32>,
    /// Requests in flight of the classic probe.
    pub pending: Option<u32>,
    /// Devices.
    pub devices: Option<u32>,
    /// Histograms.
    pub histograms: Option<u32>,
}

impl std::str::FromStr for TestTables {
    type Err = String;

    /// Reads `sets=1,overflow=64,pending=8,devices=1,histograms=2`, any of them.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut tables = Self::default();
        for pair in text.split(',') {
            let (name, number) =
                pair.split_once('=').ok_or_else(|| format!("{pair:?}: expected NAME=NUMBER"))?;
            let place = match name {
                "sets" => &mut tables.sets,
                "overflow" => &mut tables.overflow,
                "pending" => &mut tables.pending,
                "devices" => &mut tables.devices,
                "histograms" => &mut tables.histograms,
                _ => {
                    return Err(format!(
                        "{name:?}: expected sets, overflow, pending, devices or histograms"
                    ));
                }
            };
            let number = number.parse().map_err(|error| format!("{name}: {number:?}: {error}"))?;
            if !(1..=1 << 20).contains(&number) {
                return Err(format!("{name}: {number}: expected 1 to {}", 1 << 20));
            }
            *place = Some(number);
        }
        match tables.sets {
            Some(sets) if !sets.is_power_of_two() => {
                Err(format!("sets: {sets}: expected a power of two"))
            }
            _ => Ok(tables),
        }
    }
}

fn btf_kind(facts: &Facts) -> Result<ProbeKind, String> {
    let btf = facts.btf.as_ref().map_err(Clone::clone)?;
    let position = btf.issue_arguments.iter().position(|argument| argument == "request *");
    let complete = btf.complete_arguments.first().map(String::as_str);
    match (position, complete) {
        (Some(request_argument @ 0..=1), Some("request *")) => {
            Ok(ProbeKind::Btf { request_argument, atomic_exchange: facts.atomic_exchange })
        }
        _ => Err(format!(
            "this kernel's tracepoints have unknown arguments: block_rq_issue({}), \
             block_rq_complete({}); please report it with `blkiolatd doctor`",
            btf.issue_arguments.join(", "),
            btf.complete_arguments.join(", ")
        )),
    }
}

fn classic_kind(facts: &Facts) -> Result<ProbeKind, String> {
    facts.classic.clone().map(ProbeKind::Tracepoint)
}

impl Sizes {
    /// Sizes for a machine. `guarded`: a program cannot interrupt itself on a CPU.
    /// `request_size`: bytes of `struct request`, 0 when unknown.
    #[must_use]
    pub fn new(machine: &Machine, guarded: bool, request_size: usize) -> Self {
        // Room for what is plugged in later: 128 disks, and three operations for 64 of them.
        let slots = (machine.disks.saturating_add(128)).min(0x7ffe);
        let cells = (machine.disks.saturating_mul(3).saturating_add(192)).min(0x7fff);

        let possible = machine.possible_cpus.next_power_of_two();
        let online = machine.online_cpus.next_power_of_two();
        // A machine may be able to grow to many more CPUs than it has: it shares stripes then.
        let wanted = if possible <= online.saturating_mul(4) { possible } else { online };
        let fitting = (CELL_BUDGET_BYTES / (u64::from(cells) * CELL_BYTES)).max(1).ilog2();
        let stripe_shift = wanted.ilog2().min(fitting);
        let stripes = 1u32 << stripe_shift;

        // Four places for each request that can be in flight keep overflows rare.
        let places = (machine.request_capacity.saturating_mul(4))
            .clamp(1 << 14, 1 << 20)
            .next_power_of_two() as u32;
        Self {
            stripe_shift,
            shared_stripes: !guarded || stripes < machine.possible_cpus,
            // Comparing reads one cache line per stripe, most of which another CPU has changed: about
            // 0.1 us each, so that this keeps it near one hundredth of a CPU's time.
            max_check_ns: u64::from(stripes) * 8_000,
            inflight_sets: places / WAYS,
            // Requests are allocated in whole cache lines (blk_mq_alloc_rqs, blk_alloc_flush_queue).
            inflight_shift: if request_size == 0 {
                6
            } else {
                request_size.next_multiple_of(64).ilog2()
            },
            overflow: 4096,
            pending: (machine.request_capacity.saturating_mul(2)).clamp(1 << 14, 1 << 18) as u32,
            slots,
            cells,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::BtfFacts;
    use super::*;

    fn machine(cpus: u32, disks: u32, request_capacity: u64) -> Machine {
        Machine { possible_cpus: cpus, online_cpus: cpus, disks, request_capacity }
    }

    fn facts(issue: &[&str]) -> Facts {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Facts {
            kernel_release: "test".into(),
            btf: Ok(BtfFacts {
                issue_arguments: owned(issue),
                complete_arguments: owned(&["request *", "blk_status_t", "unsigned int"]),
                request_size: 320,
                recursion_guard: true,
            }),
            bio: Ok(BioFacts {
                queue_arguments: owned(&["bio *"]),
                complete_arguments: owned(&["request_queue *", "bio *"]),
                cloned_flag: 2,
                chain_flag: 8,
                flush_sequence_flag: 2,
            }),
            atomic_exchange: true,
            classic: Ok(ClassicFormats::default()),
            machine: machine(4, 8, 2048),
        }
    }

    fn bytes(machine: Machine) -> u64 {
        let mut facts = facts(&["request *"]);
        facts.machine = machine;
        Plan::new(&facts, ProbeChoice::Auto).unwrap().memory().iter().map(|&(_, bytes)| bytes).sum()
    }

    #[test]
    fn follows_the_arguments_of_the_kernel() {
        let new = Plan::new(&facts(&["request *"]), ProbeChoice::Auto).unwrap();
        assert_eq!(new.kind, ProbeKind::Btf { request_argument: 0, atomic_exchange: true });
        let old = Plan::new(&facts(&["request_queue *", "request *"]), ProbeChoice::Auto).unwrap();
        assert_eq!(old.kind, ProbeKind::Btf { request_argument: 1, atomic_exchange: true });
    }

    #[test]
    fn unknown_arguments_fall_back_and_are_an_error_when_forced() {
        let strange = facts(&["bio *"]);
        let plan = Plan::new(&strange, ProbeChoice::Auto).unwrap();
        assert_eq!(plan.kind.name(), "tracepoint");
        let error = Plan::new(&strange, ProbeChoice::Btf).unwrap_err();
        assert!(error.contains("block_rq_issue(bio *)"), "{error}");
    }

    #[test]
    fn no_probe_says_why_for_both() {
        let mut nothing = facts(&["request *"]);
        nothing.btf = Err("no BTF".into());
        nothing.classic = Err("no tracefs".into());
        let error = Plan::new(&nothing, ProbeChoice::Auto).unwrap_err();
        assert!(error.contains("no BTF") && error.contains("no tracefs"), "{error}");
    }

    #[test]
    fn the_bio_layer_says_what_it_needs() {
        let mut facts = facts(&["request *"]);
        assert_eq!(Plan::bio(&facts).unwrap().kind.name(), "bio");
        let Ok(bio) = &mut facts.bio else { panic!("no facts") };
        bio.complete_arguments.pop();
        let error = Plan::bio(&facts).unwrap_err();
        assert!(error.contains("block_bio_complete(request_queue *)"), "{error}");
        facts.bio = Err("too old".into());
        assert_eq!(Plan::bio(&facts).unwrap_err(), "the bio layer cannot be had: too old");
        facts.btf = Err("no BTF".into());
        assert!(Plan::bio(&facts).unwrap_err().ends_with("needs the kernel's BTF: no BTF"));
    }

    #[test]
    fn tests_make_tables_smaller_and_never_larger() {
        let plan = Plan::new(&facts(&["request *"]), ProbeChoice::Auto).unwrap();
        let small = plan.shrunk(&"sets=2,devices=1,overflow=1048576".parse().unwrap()).sizes;
        assert_eq!((small.inflight_sets, small.slots), (2, 1));
        assert_eq!((small.overflow, small.cells), (plan.sizes.overflow, plan.sizes.cells));
        for wrong in
            ["", "sets", "sets=", "sets=0", "sets=3", "sets=-1", "cells=1", "devices=1048577"]
        {
            assert!(wrong.parse::<TestTables>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        assert!(bytes(machine(4, 8, 8 * 256)) <= 4 << 20);
        assert!(bytes(machine(256, 64, 64 * 64 * 1023)) <= 64 << 20);
        assert!(bytes(machine(4096, 4000, u64::MAX)) <= 128 << 20);
    }

    #[test]
    fn stripes_are_private_only_when_every_cpu_has_its_own() {
        let small = Sizes::new(&machine(4, 8, 2048), true, 320);
        assert_eq!(
            (small.stripe_shift, small.shared_stripes, small.max_check_ns),
            (2, false, 32_000)
        );
        assert!(Sizes::new(&machine(4, 8, 2048), false, 320).shared_stripes);
        let large = Sizes::new(&machine(256, 64, 65_536), true, 320);
        assert!(large.shared_stripes && large.stripe_shift < 8);
        let may_grow = Machine { possible_cpus: 240, ..machine(4, 8, 2048) };
        let sizes = Sizes::new(&may_grow, true, 320);
        assert_eq!((sizes.stripe_shift, sizes.shared_stripes), (2, true));
    }

    #[test]
    fn shift_never_puts_two_requests_at_one_place() {
        for size in [200, 256, 320, 511, 512] {
            let sizes = Sizes::new(&machine(4, 8, 2048), true, size);
            assert!(1usize << sizes.inflight_shift <= size.next_multiple_of(64));
        }
    }
}
