//! One layer as the daemon keeps it: its programs, the disks that they saw, and the windows between readings.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use crate::device::{Action, Change, Filter, Registry};
use crate::probe::facts::Facts;
use crate::probe::plan::Plan;
use crate::probe::reading::Reading;
use crate::probe::{Probe, Storage, monotonic_ns};
use crate::record::{self, Context, Record};
use crate::snapshot::Sampler;

/// A layer that is measured.
#[derive(Debug)]
pub(super) struct Layer<'obj> {
    layer: record::Layer,
    probe: Probe<'obj>,
    reading: Reading,
    registry: Registry,
    sampler: Sampler,
}

impl<'obj> Layer<'obj> {
    /// Loads and attaches the programs of `plan`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn start(
        layer: record::Layer,
        plan: Plan,
        facts: &Facts,
        filter: Filter,
        storage: &'obj mut Storage,
    ) -> Result<Self> {
        let hint = "`blkiolatd doctor` says more, --log-level debug shows the verifier's log";
        let mut probe = Probe::load(plan, facts, storage).context(hint)?;
        let mut registry = Registry::new(PathBuf::from("/"), filter);
        let unwanted = registry.unwanted(|device_id, diskseq| probe.identity(device_id, diskseq));
        act(layer, &probe, &unwanted);
        probe.attach().context(hint)?;
        let sampler = Sampler::new(monotonic_ns());
        let bytes: u64 = plan.memory().iter().map(|&(_, bytes)| bytes).sum();
        tracing::info!(probe = plan.kind.name(), map_kib = bytes / 1024, "attached");
        Ok(Self { layer, probe, reading: Reading::default(), registry, sampler })
    }

    /// Whether the programs' maps can be changed: what the daemon must still be allowed to do.
    pub(super) fn is_usable(&self) -> bool {
        self.probe.forget(u64::MAX >> 16).is_ok()
    }

    /// The include patterns that no disk matches now.
    pub(super) fn unmatched(&self) -> Vec<String> {
        self.registry.unmatched()
    }

    /// Reads what was counted until now.
    ///
    /// # Errors
    /// When the kernel refuses to show a map or a program; nothing is lost then.
    pub(super) fn read(&mut self) -> Result<()> {
        self.probe.read(&mut self.reading)
    }

    /// The record of the window that ended with the last [`Self::read`].
    pub(super) fn window(&mut self, end: Timestamp, seq: u64, context: &Context) -> Record {
        let actions = self.registry.update(&self.reading);
        let snapshot = self.sampler.window(&self.reading);
        let registry = &self.registry;
        let name_of = |slot| registry.shown_name(slot);
        let record = Record::new(self.layer, &snapshot, end, seq, context, name_of);
        act(self.layer, &self.probe, &actions);
        record
    }

    /// Looks whether disks are gone, after the kernel reported `change`.
    pub(super) fn disks_changed(&mut self, change: &Change) {
        let actions = self.registry.disks_changed(change, monotonic_ns());
        act(self.layer, &self.probe, &actions);
    }

    /// Puts another filter in force.
    pub(super) fn set_filter(&mut self, filter: Filter) {
        let actions = self.registry.set_filter(filter);
        act(self.layer, &self.probe, &actions);
    }
}

fn act(layer: record::Layer, probe: &Probe<'_>, actions: &[Action]) {
    for action in actions {
        let done = match *action {
            Action::Ignore { identity } => probe.ignore(identity),
            Action::Forget { identity } => probe.forget(identity),
            Action::Reclaim { slot } => probe.reclaim(slot),
            // A disk without request queues may count nothing in flight while there is (brd, md before 5.14).
            Action::DropStale { .. } if layer == record::Layer::Bio => Ok(()),
            Action::DropStale { slot, before_ns } => {
                tracing::warn!(slot, "the kernel has nothing in flight: completions were missed");
                probe.drop_stale(slot, before_ns)
            }
        };
        if let Err(error) = done {
            tracing::warn!("{action:?}: {error:#}");
        }
    }
}
