//! Loading the BPF object as a [`Plan`] wants it: sizes, constants and which programs.

use anyhow::{Context, Result, anyhow};
use libbpf_rs::OpenProgramMut;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use super::Storage;
use super::facts::Facts;
use super::memory::{Cell, Flow};
use super::plan::{CACHE_ENTRIES, IGNORED_DEVICES, Plan, ProbeKind};
use super::record_types::RecordTypes;
use super::skeleton::{BlkiolatSkel, BlkiolatSkelBuilder, OpenBlkiolatSkel};

/// Loads the maps and the programs of `plan`; nothing is attached.
///
/// # Errors
/// When the kernel refuses; the error's source is the kernel's own answer.
pub(super) fn load<'obj>(
    plan: &Plan,
    facts: &Facts,
    storage: &'obj mut Storage,
) -> Result<BlkiolatSkel<'obj>> {
    raise_memlock_limit();
    let types = match &plan.kind {
        ProbeKind::Btf { .. } | ProbeKind::Bio(_) => None, // the kernel's
        ProbeKind::Tracepoint(formats) => {
            Some(RecordTypes::new(formats).context("cannot describe the tracepoints' records")?)
        }
    };
    let options = libbpf_sys::bpf_object_open_opts {
        sz: size_of::<libbpf_sys::bpf_object_open_opts>() as libbpf_sys::size_t,
        btf_custom_path: types.as_ref().map_or(std::ptr::null(), |types| types.path().as_ptr()),
        ..Default::default()
    };
    let mut open = BlkiolatSkelBuilder::default()
        .open_opts(options, &mut storage.0)
        .context("cannot open the BPF object")?;
    configure(&mut open, plan)?;
    open.load()
        .with_context(|| format!("the kernel ({}) refused the BPF programs", facts.kernel_release))
}

/// Kernels before 5.11 account BPF memory to RLIMIT_MEMLOCK. Where raising it is refused, a newer
/// kernel does not care, and an older one will say so at load.
fn raise_memlock_limit() {
    let unlimited = rustix::process::Rlimit { current: None, maximum: None };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited) {
        tracing::debug!(%error, "RLIMIT_MEMLOCK stays as it is; only kernels before 5.11 mind");
    }
}

/// Sets sizes, constants and what is loaded.
fn configure(open: &mut OpenBlkiolatSkel<'_>, plan: &Plan) -> Result<()> {
    let sizes = &plan.sizes;
    let stripes = 1u32 << sizes.stripe_shift;
    let btf = matches!(plan.kind, ProbeKind::Btf { .. });
    let bio = matches!(plan.kind, ProbeKind::Bio(_));
    let classic = matches!(plan.kind, ProbeKind::Tracepoint(_));
    let maps = &mut open.maps;
    for (map, entries) in [
        (&mut maps.inflight, sizes.inflight_sets),
        (&mut maps.inflight_overflow, sizes.overflow),
        (&mut maps.bio_loads, sizes.inflight_sets),
        (&mut maps.bio_overflow, sizes.overflow),
        (&mut maps.pending, sizes.pending),
        (&mut maps.devices, sizes.slots),
        (&mut maps.device_slots, sizes.slots + IGNORED_DEVICES),
        (&mut maps.device_cache, CACHE_ENTRIES),
        (&mut maps.flows, sizes.slots),
        (&mut maps.cells, sizes.cells),
        (&mut maps.free_slots, sizes.slots),
        (&mut maps.free_cells, sizes.cells),
        (&mut maps.assigned_cells, sizes.cells),
    ] {
        map.set_max_entries(entries).context("cannot size a BPF map")?;
    }
    maps.flows.set_value_size(stripes * size_of::<Flow>() as u32)?;
    maps.cells.set_value_size(stripes * size_of::<Cell>() as u32)?;
    maps.inflight.set_autocreate(btf || bio)?;
    maps.inflight_overflow.set_autocreate(btf)?;
    maps.bio_loads.set_autocreate(bio)?;
    maps.bio_overflow.set_autocreate(bio)?;
    maps.pending.set_autocreate(classic)?;

    let constants =
        maps.rodata_data.as_deref_mut().ok_or_else(|| anyhow!("the BPF object has no .rodata"))?;
    constants.stripe_mask = stripes - 1;
    constants.inflight_mask = sizes.inflight_sets - 1;
    constants.inflight_shift = sizes.inflight_shift;
    constants.shared_stripes = sizes.shared_stripes.into();
    constants.max_check_ns = sizes.max_check_ns;
    if let ProbeKind::Bio(kind) = &plan.kind {
        constants.bio_cloned_flag = kind.cloned_flag;
        constants.bio_chain_flag = kind.chain_flag;
        constants.rq_flush_seq_flag = kind.flush_sequence_flag;
    }

    let programs = &mut open.progs;
    let load = |program: &mut OpenProgramMut<'_>, kind: ProbeKind| {
        program.set_autoload(plan.kind == kind);
    };
    let of =
        |request_argument, atomic_exchange| ProbeKind::Btf { request_argument, atomic_exchange };
    load(&mut programs.btf_issue, of(0, true));
    load(&mut programs.btf_issue_no_cmpxchg, of(0, false));
    let first = matches!(plan.kind, ProbeKind::Btf { request_argument: 0, .. });
    programs.btf_issue_queue.set_autoload(btf && !first);
    programs.btf_requeue.set_autoload(first);
    programs.btf_requeue_queue.set_autoload(btf && !first);
    programs.btf_complete.set_autoload(btf);
    programs.classic_issue.set_autoload(classic);
    programs.classic_requeue.set_autoload(classic);
    programs.classic_complete.set_autoload(classic);
    programs.bio_queue.set_autoload(bio);
    programs.bio_complete.set_autoload(bio);
    programs.bio_request_complete.set_autoload(bio);
    Ok(())
}
