//! `blkiolatd doctor`: everything that measuring depends on, at once, and how to mend it.

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};

use crate::cli::exit;
use crate::config::ProbeChoice;
use crate::device::Sysfs;
use crate::permission;
use crate::probe::facts::{ClassicFormats, Facts, try_bpf};
use crate::probe::plan::Plan;
use crate::probe::{Probe, Storage};

/// What the examination found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `run` will measure.
    Works,
    /// Root or a capability is missing.
    NotPermitted,
    /// No probe works here.
    Fails,
}

impl Verdict {
    /// The exit code of `blkiolatd doctor`.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Works => exit::SUCCESS,
            Self::NotPermitted => exit::NOT_PERMITTED,
            Self::Fails => exit::FAILURE,
        }
    }
}

/// Examines the machine and writes what it finds.
///
/// # Errors
/// Those of `out`.
pub fn examine(out: &mut impl Write) -> io::Result<Verdict> {
    libbpf_rs::set_print(None);
    let facts = Facts::read();
    let missing = permission::missing();
    let mut line = |key: &str, value: &dyn Display| writeln!(out, "{key:<14}{value}");

    line("kernel", &facts.kernel_release)?;
    match &facts.btf {
        Ok(btf) => {
            line("BTF", &format!("yes; struct request has {} bytes", btf.request_size))?;
            line("", &format!("block_rq_issue({})", btf.issue_arguments.join(", ")))?;
            line("", &format!("block_rq_complete({})", btf.complete_arguments.join(", ")))?;
            line(
                "",
                &if btf.recursion_guard {
                    "the kernel counts programs that interrupt themselves (audit: probe_misses)"
                } else {
                    "programs may interrupt themselves: counters are updated atomically"
                },
            )?;
        }
        Err(reason) => line("BTF", &format!("no: {reason}; the tracepoint probe needs none"))?,
    }
    match &facts.classic {
        Ok(ClassicFormats { issue, complete, .. }) => {
            line("tracefs", &"yes; offsets in the tracepoints' records:")?;
            line(
                "",
                &format!(
                    "block_rq_issue: dev {}, sector {}, bytes {}, rwbs {}",
                    issue.dev, issue.sector, issue.bytes, issue.rwbs
                ),
            )?;
            line(
                "",
                &format!(
                    "block_rq_complete: dev {}, sector {}, nr_sector {}, error {}, rwbs {}",
                    complete.dev,
                    complete.sector,
                    complete.nr_sector,
                    complete.error,
                    complete.rwbs
                ),
            )?;
        }
        Err(reason) => {
            line("tracefs", &format!("no: {reason}; only the tracepoint probe needs it"))?
        }
    }
    line(
        "capabilities",
        &if missing.is_empty() {
            "CAP_BPF and CAP_PERFMON are held".to_owned()
        } else {
            format!(
                "{} missing: run as root, or see AmbientCapabilities= in the unit",
                missing.join(" and ")
            )
        },
    )?;
    line(
        "lockdown",
        &match permission::lockdown() {
            None => "does not forbid BPF".to_owned(),
            Some(mode) => format!("{mode}: forbids BPF to read kernel memory; boot without it"),
        },
    )?;
    line(
        "bpf(2)",
        &match try_bpf() {
            Ok(()) => "works".to_owned(),
            Err(error) => format!("refused: {error}"),
        },
    )?;
    line("memlock", &memlock())?;
    let machine = &facts.machine;
    line("CPUs", &format!("{} online, {} possible", machine.online_cpus, machine.possible_cpus))?;
    let mut names = Sysfs::new("/".into()).disk_names();
    names.sort();
    line(
        "disks",
        &format!(
            "{} ({}); {} requests can be in flight",
            machine.disks,
            names.join(", "),
            machine.request_capacity
        ),
    )?;

    let mut works = false;
    for choice in [ProbeChoice::Btf, ProbeChoice::Tracepoint] {
        works |= try_probe(out, &facts, choice)?;
    }
    // Not tried: some kernels take long to verify its programs, and most hosts do not use it.
    match Plan::bio(&facts) {
        Ok(plan) => {
            writeln!(out, "{:<14}for disks without request queues: sampling.bio or --bio", "bio")?;
            sizes(out, &plan)?;
        }
        Err(reason) => writeln!(out, "{:<14}cannot be used: {reason}", "bio")?,
    }
    let verdict = match works {
        true => Verdict::Works,
        false if !missing.is_empty() => Verdict::NotPermitted,
        false => Verdict::Fails,
    };
    let text = match (verdict, Plan::new(&facts, ProbeChoice::Auto)) {
        (Verdict::Works, Ok(plan)) => {
            format!("`blkiolatd run` will use probe {}", plan.kind.name())
        }
        (Verdict::Works, Err(reason)) => reason,
        (Verdict::NotPermitted, _) => "not permitted; mend the capabilities first".into(),
        (Verdict::Fails, _) => "nothing can be measured here; see above for each reason".into(),
    };
    writeln!(out, "{:<14}{text}", "verdict")?;
    Ok(verdict)
}

/// Plans, loads and attaches a probe for a moment, and says how that went.
fn try_probe(out: &mut impl Write, facts: &Facts, choice: ProbeChoice) -> io::Result<bool> {
    let key = match choice {
        ProbeChoice::Tracepoint => "tracepoint",
        _ => "btf",
    };
    let tried = try_plan(out, facts, key, Plan::new(facts, choice))?;
    if choice == ProbeChoice::Tracepoint && tried.is_some() {
        writeln!(
            out,
            "{:<14}approximate: the kernel skips such a program when it interrupts another (counted since 6.7)",
            ""
        )?;
    }
    Ok(tried == Some(true))
}

/// The same for a plan: whether it attached; `None` when there is none.
fn try_plan(
    out: &mut impl Write,
    facts: &Facts,
    key: &str,
    plan: Result<Plan, String>,
) -> io::Result<Option<bool>> {
    let plan = match plan {
        Ok(plan) => plan,
        Err(reason) => {
            writeln!(out, "{key:<14}cannot be used: {reason}")?;
            return Ok(None);
        }
    };
    let mut storage = Storage::default();
    let attached = Probe::load(plan, facts, &mut storage).and_then(|mut probe| probe.attach());
    match &attached {
        Ok(()) => writeln!(out, "{key:<14}loads and attaches")?,
        Err(error) => writeln!(out, "{key:<14}fails: {error:#}")?,
    }
    sizes(out, &plan)?;
    Ok(Some(attached.is_ok()))
}

/// How much room a probe has, and what that takes.
fn sizes(out: &mut impl Write, plan: &Plan) -> io::Result<()> {
    let sizes = &plan.sizes;
    writeln!(
        out,
        "{:<14}{} devices, {} histograms, {} stripes{}",
        "",
        sizes.slots,
        sizes.cells,
        1u32 << sizes.stripe_shift,
        if sizes.shared_stripes { " (shared)" } else { "" }
    )?;
    let parts = plan.memory();
    let total: u64 = parts.iter().map(|&(_, bytes)| bytes).sum();
    let parts: Vec<String> =
        parts.iter().map(|(name, bytes)| format!("{name} {} KiB", bytes / 1024)).collect();
    writeln!(out, "{:<14}kernel memory {} KiB: {}", "", total / 1024, parts.join(", "))?;
    Ok(())
}

fn memlock() -> String {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = limits.lines().find(|line| line.starts_with("Max locked memory"));
    let soft = limit.and_then(|line| line.split_whitespace().nth(3)).unwrap_or("unknown");
    format!("{soft} bytes; only kernels before 5.11 count BPF maps here (LimitMEMLOCK=infinity)")
}
