//! Disks by name: which are measured, what they are called, and when they are gone.

mod filter;
mod sysfs;
mod uevents;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::probe::reading::Reading;
pub use filter::{Filter, FilterError};
pub use sysfs::{Disk, Sysfs};
pub use uevents::{Change, Uevents};

/// How long a disk that is gone may still have requests in flight. What is there after that was
/// left behind by a completion that the kernel did not show.
const GONE_GRACE_NS: u64 = 60_000_000_000;
/// Age from which a request in flight is doubted if the kernel says that the disk is idle.
const DOUBTFUL_AGE_NS: u64 = 10_000_000_000;
/// How long a slot rests before it is used again: every BPF program that still had it has ended.
const RECLAIM_GRACE_NS: u64 = 100_000_000;

/// What the probe is to do about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Measure this disk no longer.
    Ignore {
        /// What the probe knows it by.
        identity: u64,
    },
    /// Forget this disk: it is gone, or to be judged again.
    Forget {
        /// What the probe knows it by.
        identity: u64,
    },
    /// Forget the requests of this slot that were issued before this time: their completions were
    /// missed.
    DropStale {
        /// Number of the slot.
        slot: usize,
        /// `CLOCK_MONOTONIC`, in nanoseconds.
        before_ns: u64,
    },
    /// Free this slot.
    Reclaim {
        /// Its number.
        slot: usize,
    },
}

/// The disks that the probe has seen, by slot.
#[derive(Debug)]
pub struct Registry {
    sysfs: Sysfs,
    filter: Filter,
    entries: Vec<Option<Entry>>,
    /// Disks that the probe was told to ignore.
    ignored: Vec<Ignored>,
    /// Names by number, as the kernel announced them last: the classic probe knows a disk by its number alone, and
    /// when its name is looked for, at the end of a window, sysfs may not have it any more. A disk that is gone can
    /// have requests for minutes.
    announced: BTreeMap<u32, String>,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    identity: u64,
    device_id: u32,
    name: String,
    /// Whether the name is only what its number suggests: neither the kernel nor sysfs said it.
    provisional: bool,
    wanted: bool,
    /// The disk in sysfs when it was first seen; `None` for one that is not published there.
    disk: Option<Disk>,
    /// Since when the slot waits to be freed (`CLOCK_MONOTONIC`, ns), and for what.
    leaving: Option<Leaving>,
}

impl Entry {
    /// Itself as one that is left out.
    fn ignored(&self) -> Ignored {
        Ignored {
            identity: self.identity,
            device_id: self.device_id,
            name: self.name.clone(),
            provisional: self.provisional,
            disk: self.disk.clone(),
        }
    }
}

#[derive(Debug)]
struct Ignored {
    identity: u64,
    device_id: u32,
    name: String,
    provisional: bool,
    disk: Option<Disk>,
}

#[derive(Clone, Copy, Debug)]
struct Leaving {
    since_ns: u64,
    gone: bool,
}

impl Registry {
    /// A registry of the disks under `root` (`/` but for tests).
    #[must_use]
    pub fn new(root: PathBuf, filter: Filter) -> Self {
        Self {
            sysfs: Sysfs::new(root),
            filter,
            entries: Vec::new(),
            ignored: Vec::new(),
            announced: BTreeMap::new(),
        }
    }

    /// The disks that are here now and are not to be measured, by what the probe knows them by
    /// (`identity` of number and `diskseq`), so that it can ignore them from the start.
    pub fn unwanted(&mut self, identity: impl Fn(u32, Option<u64>) -> Option<u64>) -> Vec<Action> {
        for (device_id, disk) in self.sysfs.disks() {
            self.announced.insert(device_id, disk.name.clone());
            if !self.filter.accepts(&disk.name)
                && let Some(identity) = identity(device_id, disk.diskseq)
            {
                let name = disk.name.clone();
                let disk = Some(disk);
                self.ignored.push(Ignored { identity, device_id, name, provisional: false, disk });
            }
        }
        self.ignored.iter().map(|disk| Action::Ignore { identity: disk.identity }).collect()
    }

    /// The name of the disk in `slot`, if it is to be shown.
    #[must_use]
    pub fn shown_name(&self, slot: usize) -> Option<&str> {
        let entry = self.entries.get(slot)?.as_ref()?;
        entry.wanted.then_some(entry.name.as_str())
    }

    /// Looks whether disks are gone, or other disks have taken their numbers, after the kernel
    /// reported `change`. What they counted until now is still read.
    pub fn disks_changed(&mut self, change: &Change, now_ns: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        let gone = |device_id: u32, disk: Option<&Disk>| match change {
            Change::Came(changed, _) | Change::Changed(changed) if device_id != *changed => false,
            Change::Gone(went, _) if device_id != *went => false,
            // It went before it could be looked up, so it is not the one that is there now.
            Change::Gone(..) if disk.is_none() => true,
            _ => self.sysfs.is_gone(device_id, disk),
        };
        self.ignored.retain(|ignored| {
            let gone = gone(ignored.device_id, ignored.disk.as_ref());
            if gone {
                actions.push(Action::Forget { identity: ignored.identity });
            }
            !gone
        });
        for entry in self.entries.iter_mut().flatten() {
            if entry.leaving.is_none() && gone(entry.device_id, entry.disk.as_ref()) {
                actions.push(Action::Forget { identity: entry.identity });
                entry.leaving = Some(Leaving { since_ns: now_ns, gone: true });
            }
        }
        match change {
            Change::Came(number, name) => {
                self.announced.insert(*number, name.clone());
                self.name_published(now_ns, &mut actions);
            }
            Change::Gone(number, name) => {
                self.announced.insert(*number, name.clone());
            }
            Change::Changed(_) => {}
            Change::Unknown => {
                let here = self.sysfs.disks().into_iter();
                self.announced.extend(here.map(|(number, disk)| (number, disk.name)));
                self.name_published(now_ns, &mut actions);
            }
        }
        actions
    }

    /// Names the disks that had requests before they were published, and so stand under their number, or the name that
    /// another disk had with it: SCSI asks a disk what it can do before it gives it a name. Those that were left out
    /// are judged again.
    fn name_published(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let (sysfs, filter) = (&self.sysfs, &self.filter);
        self.ignored.retain(|ignored| {
            let judge_again = ignored.provisional
                && sysfs.disk(ignored.device_id).is_some_and(|disk| filter.accepts(&disk.name));
            if judge_again {
                actions.push(Action::Forget { identity: ignored.identity });
            }
            !judge_again
        });
        for entry in self.entries.iter_mut().flatten() {
            if entry.provisional
                && entry.leaving.is_none()
                && let Some(disk) = sysfs.disk(entry.device_id)
            {
                entry.name.clone_from(&disk.name);
                entry.provisional = false;
                entry.wanted = filter.accepts(&entry.name);
                entry.disk = Some(disk);
                if !entry.wanted {
                    actions.push(Action::Ignore { identity: entry.identity });
                    self.ignored.push(entry.ignored());
                    entry.leaving = Some(Leaving { since_ns: now_ns, gone: false });
                }
            }
        }
    }

    /// Puts another filter in force. Disks that were left out are judged again when they are next
    /// used.
    pub fn set_filter(&mut self, filter: Filter) -> Vec<Action> {
        self.filter = filter;
        let mut actions = Vec::new();
        self.ignored.retain(|ignored| {
            let wanted = self.filter.accepts(&ignored.name);
            if wanted {
                actions.push(Action::Forget { identity: ignored.identity });
            }
            !wanted
        });
        for entry in self.entries.iter_mut().flatten() {
            let wanted = self.filter.accepts(&entry.name);
            if entry.wanted && !wanted && entry.leaving.is_none() {
                actions.push(Action::Ignore { identity: entry.identity });
                self.ignored.push(entry.ignored());
                entry.leaving = Some(Leaving { since_ns: 0, gone: false });
            }
            entry.wanted = wanted;
        }
        actions
    }

    /// Learns from a reading which disks there are. Call it before the reading becomes a window, and
    /// carry the actions out after it: what a disk counted until now still belongs to the window.
    pub fn update(&mut self, reading: &Reading) -> Vec<Action> {
        let now_ns = reading.at_ns;
        let mut actions = Vec::new();
        self.entries.resize_with(reading.devices.len(), || None);
        for (slot, (device, entry)) in reading.devices.iter().zip(&mut self.entries).enumerate() {
            let Some(device) = device else {
                *entry = None;
                continue;
            };
            let known = entry.as_ref().is_some_and(|entry| entry.generation == device.generation);
            if !known {
                let disk = self.sysfs.disk(device.device_id);
                let provisional = device.name.is_empty() && disk.is_none();
                let name = if !device.name.is_empty() {
                    device.name.clone()
                } else if let Some(disk) = &disk {
                    disk.name.clone()
                } else {
                    let announced = self.announced.get(&device.device_id);
                    announced.cloned().unwrap_or_else(|| number(device.device_id))
                };
                let wanted = self.filter.accepts(&name);
                let entry = entry.insert(Entry {
                    generation: device.generation,
                    identity: device.identity,
                    device_id: device.device_id,
                    name,
                    provisional,
                    wanted,
                    disk,
                    leaving: None,
                });
                if !wanted {
                    actions.push(Action::Ignore { identity: device.identity });
                    self.ignored.push(entry.ignored());
                    entry.leaving = Some(Leaving { since_ns: now_ns, gone: false });
                }
                continue;
            }
            let Some(known) = entry else { continue };
            if device.inflight.oldest_counted_ns > DOUBTFUL_AGE_NS
                && self.sysfs.is_idle(&known.name) == Some(true)
            {
                // It was idle a moment ago: what was in flight long before is not there.
                let before_ns = now_ns.saturating_sub(DOUBTFUL_AGE_NS);
                actions.push(Action::DropStale { slot, before_ns });
            }
            if let Some(leaving) = &mut known.leaving {
                if leaving.since_ns == 0 {
                    leaving.since_ns = now_ns;
                }
                let age = now_ns.saturating_sub(leaving.since_ns);
                let drained = device.inflight.count == 0 || (leaving.gone && age > GONE_GRACE_NS);
                if drained && !device.changed && age > RECLAIM_GRACE_NS {
                    actions.push(Action::Reclaim { slot });
                }
            }
        }
        actions
    }

    /// The include patterns that no disk on this machine matches.
    #[must_use]
    pub fn unmatched(&self) -> Vec<String> {
        let names = self.sysfs.disk_names();
        self.filter.unmatched(&names)
    }
}

/// What stands for a name where none is published.
fn number(device_id: u32) -> String {
    format!("{}:{}", device_id >> 20, device_id & 0xfffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::reading::{DeviceReading, Inflight};
    use std::fs;

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        let owned = |globs: &[&str]| globs.iter().map(|&glob| glob.to_owned()).collect::<Vec<_>>();
        Filter::new(&owned(include), &owned(exclude), &Sysfs::new("/nonexistent".into())).unwrap()
    }

    fn reading(at_ns: u64, identity: u64, name: &str, inflight: u64) -> Reading {
        let device = DeviceReading {
            generation: 1,
            identity,
            device_id: 8 << 20,
            name: name.into(),
            inflight: Inflight { count: inflight, ..Inflight::default() },
            ..DeviceReading::default()
        };
        Reading { at_ns, devices: vec![Some(device)], ..Reading::default() }
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_disk_that_is_left_out_is_ignored_and_its_slot_freed() {
        let mut registry = Registry::new("/nonexistent".into(), filter(&["*"], &["loop*"]));
        let actions = registry.update(&reading(SECOND, 7, "loop0", 2));
        assert_eq!(actions, [Action::Ignore { identity: 7 }]);
        assert_eq!(registry.shown_name(0), None);
        assert_eq!(registry.update(&reading(2 * SECOND, 7, "loop0", 1)), []);
        assert_eq!(
            registry.update(&reading(3 * SECOND, 7, "loop0", 0)),
            [Action::Reclaim { slot: 0 }]
        );
    }

    #[test]
    fn another_filter_judges_again() {
        let mut registry = Registry::new("/nonexistent".into(), filter(&["*"], &["loop*"]));
        registry.update(&reading(SECOND, 7, "loop0", 0));
        assert_eq!(registry.set_filter(filter(&["*"], &[])), [Action::Forget { identity: 7 }]);
        let mut registry = Registry::new("/nonexistent".into(), filter(&["*"], &[]));
        registry.update(&reading(SECOND, 7, "sda", 0));
        assert_eq!(registry.shown_name(0), Some("sda"));
        assert_eq!(registry.set_filter(filter(&["*"], &["sd*"])), [Action::Ignore { identity: 7 }]);
        assert_eq!(registry.shown_name(0), None);
    }

    #[test]
    fn unwanted_disks_are_known_from_the_start() {
        let root = tempfile::tempdir().unwrap();
        for (name, dev, diskseq) in [("loop0", "7:0", "5"), ("sda", "8:0", "6")] {
            let disk = root.path().join("sys/block").join(name);
            fs::create_dir_all(&disk).unwrap();
            fs::write(disk.join("dev"), format!("{dev}\n")).unwrap();
            fs::write(disk.join("diskseq"), format!("{diskseq}\n")).unwrap();
        }
        let mut registry = Registry::new(root.path().into(), filter(&["*"], &["loop*"]));
        assert_eq!(registry.unwanted(|_, diskseq| diskseq), [Action::Ignore { identity: 5 }]);
        assert_eq!(registry.set_filter(filter(&["*"], &["loop*"])), [], "nothing changes for it");
        assert_eq!(registry.set_filter(filter(&["*"], &[])), [Action::Forget { identity: 5 }]);
    }

    #[test]
    fn a_disk_that_is_ignored_and_goes_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("sys/block/loop0");
        fs::create_dir_all(&disk).unwrap();
        fs::create_dir_all(root.path().join("sys/dev/block")).unwrap();
        std::os::unix::fs::symlink("../../block/loop0", root.path().join("sys/dev/block/7:0"))
            .unwrap();
        fs::write(disk.join("dev"), "7:0\n").unwrap();
        fs::write(disk.join("diskseq"), "5\n").unwrap();
        let mut registry = Registry::new(root.path().into(), filter(&["*"], &["loop*"]));
        registry.unwanted(|_, diskseq| diskseq);
        let change = Change::Changed(7 << 20);
        assert_eq!(registry.disks_changed(&change, SECOND), []);
        fs::write(disk.join("diskseq"), "6\n").unwrap();
        assert_eq!(registry.disks_changed(&change, SECOND), [Action::Forget { identity: 5 }]);
        assert_eq!(registry.disks_changed(&change, SECOND), []);
    }

    #[test]
    fn a_request_that_the_kernel_knows_nothing_of_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("sys/block/sda");
        fs::create_dir_all(disk.join("queue")).unwrap();
        fs::write(disk.join("queue/iostats"), "1\n").unwrap();
        fs::write(disk.join("inflight"), "       1        0\n").unwrap();
        let mut registry = Registry::new(root.path().into(), filter(&["*"], &[]));
        let mut hung = reading(60 * SECOND, 3, "sda", 1);
        registry.update(&hung);
        hung.devices[0].as_mut().unwrap().inflight.oldest_counted_ns = 20 * SECOND;
        assert_eq!(registry.update(&hung), [], "the kernel has one in flight");
        fs::write(disk.join("inflight"), "       0        0\n").unwrap();
        assert_eq!(registry.update(&hung), [Action::DropStale { slot: 0, before_ns: 50 * SECOND }]);
        fs::write(disk.join("queue/iostats"), "0\n").unwrap();
        assert_eq!(registry.update(&hung), [], "the kernel does not count");
        fs::write(disk.join("queue/iostats"), "1\n").unwrap();
        hung.devices[0].as_mut().unwrap().inflight =
            Inflight { count: 1, oldest_ns: 20 * SECOND, ..Inflight::default() };
        assert_eq!(registry.update(&hung), [], "a flush, or one given back: never counted");
    }

    #[test]
    fn a_disk_that_went_before_it_was_looked_up_has_its_name() {
        let number = 8 << 20;
        let came = Change::Came(number, "sda".into());
        let gone = Change::Gone(number, "sda".into());
        let mut registry = Registry::new("/nonexistent".into(), filter(&["*"], &[]));
        registry.disks_changed(&came, SECOND);
        registry.update(&reading(SECOND, 5, "", 1));
        assert_eq!(
            registry.shown_name(0),
            Some("sda"),
            "it went, and the kernel is about to say so"
        );
        assert_eq!(registry.disks_changed(&gone, SECOND), [Action::Forget { identity: 5 }]);

        let mut registry = Registry::new("/nonexistent".into(), filter(&["*"], &[]));
        registry.disks_changed(&gone, SECOND);
        registry.update(&Reading::default());
        registry.update(&reading(SECOND, 5, "", 1));
        assert_eq!(
            registry.shown_name(0),
            Some("sda"),
            "requests that were asked for before it went"
        );

        let mut registry = Registry::new("/nonexistent".into(), filter(&["*"], &[]));
        registry.update(&reading(SECOND, 5, "", 1));
        assert_eq!(registry.shown_name(0), Some("8:0"), "a hidden disk, which is never announced");
    }

    /// `sda`, number 8:0, published under a root.
    fn publish_sda(root: &std::path::Path) {
        let disk = root.join("sys/block/sda");
        fs::create_dir_all(&disk).unwrap();
        fs::create_dir_all(root.join("sys/dev/block")).unwrap();
        fs::write(disk.join("dev"), "8:0\n").unwrap();
        fs::write(disk.join("diskseq"), "3\n").unwrap();
        std::os::unix::fs::symlink("../../block/sda", root.join("sys/dev/block/8:0")).unwrap();
    }

    #[test]
    fn a_disk_with_requests_before_it_is_published_gets_its_name_then() {
        for change in [Change::Came(8 << 20, "sda".into()), Change::Unknown] {
            let root = tempfile::tempdir().unwrap();
            let new =
                |include, exclude| Registry::new(root.path().into(), filter(include, exclude));
            let mut all = new(&["*"], &[]);
            let mut without_it = new(&["*"], &["sd*"]);
            let mut only_it = new(&["sd*"], &[]);
            let early = reading(SECOND, 5, "", 1);
            assert_eq!(all.update(&early), []);
            assert_eq!(without_it.update(&early), []);
            assert_eq!(only_it.update(&early), [Action::Ignore { identity: 5 }]);
            assert_eq!(all.shown_name(0), Some("8:0"));
            publish_sda(root.path());
            assert_eq!(all.disks_changed(&change, SECOND), []);
            assert_eq!(all.shown_name(0), Some("sda"));
            assert_eq!(without_it.disks_changed(&change, SECOND), [Action::Ignore { identity: 5 }]);
            assert_eq!(without_it.shown_name(0), None);
            assert_eq!(only_it.disks_changed(&change, SECOND), [Action::Forget { identity: 5 }]);
            assert_eq!(only_it.disks_changed(&change, SECOND), []);
            // It has come for good: when it goes, that is seen.
            fs::remove_file(root.path().join("sys/dev/block/8:0")).unwrap();
            let gone = Change::Gone(8 << 20, "sda".into());
            assert_eq!(all.disks_changed(&gone, SECOND), [Action::Forget { identity: 5 }]);
        }
    }

    #[test]
    fn a_disk_does_not_keep_the_name_of_the_one_before_with_its_number() {
        let root = tempfile::tempdir().unwrap();
        let new = |include| Registry::new(root.path().into(), filter(include, &[]));
        let (mut all, mut only_it) = (new(&["*"]), new(&["sda"]));
        for registry in [&mut all, &mut only_it] {
            registry.disks_changed(&Change::Gone(8 << 20, "old".into()), SECOND);
            registry.update(&reading(SECOND, 5, "", 1));
        }
        assert_eq!(all.shown_name(0), Some("old"), "as far as is known");
        publish_sda(root.path());
        let came = Change::Came(8 << 20, "sda".into());
        assert_eq!(all.disks_changed(&came, SECOND), []);
        assert_eq!(all.shown_name(0), Some("sda"));
        assert_eq!(only_it.disks_changed(&came, SECOND), [Action::Forget { identity: 5 }]);
        // What the kernel itself calls by a name keeps it: a hidden path has no number of its own.
        let mut hidden = new(&["*"]);
        fs::remove_file(root.path().join("sys/dev/block/8:0")).unwrap();
        hidden.update(&reading(SECOND, 5, "nvme0c0n1", 1));
        std::os::unix::fs::symlink("../../block/sda", root.path().join("sys/dev/block/8:0"))
            .unwrap();
        assert_eq!(hidden.disks_changed(&came, SECOND), []);
        assert_eq!(hidden.shown_name(0), Some("nvme0c0n1"));
    }

    #[test]
    fn names_are_learnt_anew_when_reports_were_lost() {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("sys/block/sda");
        fs::create_dir_all(&disk).unwrap();
        fs::write(disk.join("dev"), "8:0\n").unwrap();
        let mut registry = Registry::new(root.path().into(), filter(&["*"], &[]));
        registry.disks_changed(&Change::Unknown, SECOND);
        fs::remove_dir_all(&disk).unwrap();
        registry.update(&reading(SECOND, 5, "", 1));
        assert_eq!(registry.shown_name(0), Some("sda"));
    }

    #[test]
    fn a_disk_that_is_gone_keeps_its_name_until_it_has_drained() {
        let root = tempfile::tempdir().unwrap();
        publish_sda(root.path());
        let disk = root.path().join("sys/block/sda");
        let mut registry = Registry::new(root.path().into(), filter(&["*"], &[]));
        registry.update(&reading(SECOND, 3, "", 1));
        assert_eq!(registry.shown_name(0), Some("sda"));
        let change = Change::Changed(8 << 20);
        assert_eq!(registry.disks_changed(&change, SECOND), []);
        // Another disk takes the number: same name, other diskseq.
        fs::write(disk.join("diskseq"), "4\n").unwrap();
        assert_eq!(registry.disks_changed(&Change::Changed(9 << 20), SECOND), []);
        assert_eq!(registry.disks_changed(&change, SECOND), [Action::Forget { identity: 3 }]);
        assert_eq!(registry.shown_name(0), Some("sda"));
        assert_eq!(registry.update(&reading(4 * SECOND, 3, "", 1)), []);
        assert_eq!(registry.update(&reading(5 * SECOND, 3, "", 0)), [Action::Reclaim { slot: 0 }]);
    }
}
