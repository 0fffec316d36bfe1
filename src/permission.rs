//! What this process may do: the capabilities that BPF needs, and giving them up.

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// The capabilities that loading and attaching need (CAP_BPF and CAP_PERFMON, 5.8).
const NEEDED: [(&str, CapabilitySet); 2] =
    [("CAP_BPF", CapabilitySet::BPF), ("CAP_PERFMON", CapabilitySet::PERFMON)];

/// Names of the capabilities that are needed and missing. CAP_SYS_ADMIN stands for all of them.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    let Ok(sets) = capabilities(None) else { return Vec::new() };
    if sets.effective.contains(CapabilitySet::SYS_ADMIN) {
        return Vec::new();
    }
    let missing = NEEDED.iter().filter(|(_, capability)| !sets.effective.contains(*capability));
    missing.map(|&(name, _)| name).collect()
}

/// The kernel's lockdown mode where it forbids what the programs do; `None` where it does not.
#[must_use]
pub fn lockdown() -> Option<&'static str> {
    let text = std::fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    text.contains("[confidentiality]").then_some("confidentiality")
}

/// Gives up, in this thread and those it starts, the capabilities that are needed no longer once the
/// programs are attached. `still_works` does what a running daemon does to its maps; where it needs
/// CAP_BPF (the kernel asks it of every call of bpf(2) before 5.19), that one is kept.
///
/// Root keeps what it has: its capabilities also open the files of others.
///
/// Returns the names of the capabilities that remain.
///
/// # Errors
/// When the kernel refuses to change the capabilities.
pub fn give_up(still_works: impl Fn() -> bool) -> rustix::io::Result<Vec<&'static str>> {
    let mut sets = capabilities(None)?;
    if rustix::process::geteuid().is_root() {
        return Ok(held(sets.effective));
    }
    // First only from the effective set, from where they can be taken back.
    sets.effective = CapabilitySet::empty();
    sets.inheritable = CapabilitySet::empty();
    set_capabilities(None, sets)?;
    let kept = if still_works() { CapabilitySet::empty() } else { CapabilitySet::BPF };
    sets.effective = kept & sets.permitted;
    sets.permitted = sets.effective;
    set_capabilities(None, sets)?;
    Ok(held(sets.effective))
}

fn held(effective: CapabilitySet) -> Vec<&'static str> {
    NEEDED.iter().filter(|(_, c)| effective.contains(*c)).map(|&(name, _)| name).collect()
}
