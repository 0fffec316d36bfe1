//! Lines on their way to the active file: collected, written in batches, rotated, with room made
//! for them. Runs on the writer thread; has no thread and no waiting of its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::active::{Active, Name};
use super::complaint::Complaint;
use super::compress::Pass;
use super::disk::Disk;
use super::error::{OpenError, WriteError};
use super::names::{Kind, Moment, Names};
use super::place::{Inventory, Place};
use super::retention::{self, Calendar, Stored};
use super::rotation;
use super::settings::Settings;
use crate::record::Record;

/// Bytes of collected lines from which they are written, however few they are: `flush_every` may
/// be large, and memory is not.
const MAX_PENDING: usize = 4 << 20;

/// The directory is listed again after this time, to see what others did in it.
const LIST_AGAIN: Duration = Duration::from_secs(60);

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// The time on the wall and on the monotonic clock.
pub(crate) type Clock = Box<dyn Fn() -> (Moment, Instant) + Send>;

/// See the module.
pub(crate) struct Recorder {
    disk: Disk,
    settings: Settings,
    clock: Clock,
    /// Called with what there is to compress.
    compress: Box<dyn FnMut(Pass) + Send>,
    output: Option<Output>,
    /// Directories that were left while something was still being compressed there.
    left: Vec<Weak<Place>>,
    /// Whole lines, encoded.
    pending: Vec<u8>,
    lines: usize,
    /// Time of the first of them.
    pending_first: Option<Moment>,
    rotation_asked: bool,
    /// There is a segment that compression was not told of.
    segment_waits: bool,
    calendar: Calendar,
    rotation_trouble: Complaint,
    removal_trouble: Complaint,
    totals: Totals,
}

/// An open output.
struct Output {
    place: Arc<Place>,
    /// None after the file went away and before it is made again.
    active: Option<Active>,
    stored: Vec<Stored>,
    /// [`Place::changes`] when `stored` was read, and when that was.
    stored_as_of: (u64, Instant),
}

impl Recorder {
    /// A recorder that has opened nothing yet.
    pub(crate) fn new(
        disk: Disk,
        settings: Settings,
        clock: Clock,
        compress: Box<dyn FnMut(Pass) + Send>,
    ) -> Self {
        Self {
            disk,
            settings,
            clock,
            compress,
            output: None,
            left: Vec::new(),
            pending: Vec::new(),
            lines: 0,
            pending_first: None,
            rotation_asked: false,
            segment_waits: false,
            calendar: Calendar::default(),
            rotation_trouble: Complaint::default(),
            removal_trouble: Complaint::default(),
            totals: Totals::default(),
        }
    }

    /// Opens the output: takes the lock, repairs the active file, has interrupted compression
    /// finished. Does nothing when it is open, or recording is off.
    pub(crate) fn open(&mut self) -> Result<(), OpenError> {
        if self.output.is_none() && self.settings.output.enabled {
            self.output = Some(self.open_at(&self.settings.output.path)?);
            self.start_compression();
        }
        Ok(())
    }

    /// Collects the line of a record. Write them when [`is_full`](Self::is_full).
    pub(crate) fn append(&mut self, record: &Record) {
        if self.is_off() {
            return;
        }
        self.pending_first.get_or_insert_with(|| Moment::from_seconds(record.timestamp));
        record.write_line(&mut self.pending);
        self.lines += 1;
    }

    /// Whether there are enough lines for a flush.
    pub(crate) fn is_full(&self) -> bool {
        self.lines >= self.settings.output.flush_every as usize || self.pending.len() >= MAX_PENDING
    }

    /// Whether records are discarded.
    pub(crate) fn is_off(&self) -> bool {
        !self.settings.output.enabled
    }

    /// Has the next [`flush`](Self::flush) set the active file aside after it has written.
    pub(crate) fn rotate_next(&mut self) {
        self.rotation_asked = !self.is_off();
    }

    /// Writes the collected lines; all of them or, after an error, none.
    pub(crate) fn flush(&mut self) -> Result<(), WriteError> {
        let result = self.write_pending();
        // Not before retention has made room for the archive, too.
        if std::mem::take(&mut self.segment_waits) {
            self.start_compression();
        }
        result
    }

    fn write_pending(&mut self) -> Result<(), WriteError> {
        if self.is_off() {
            self.forget_pending();
            return Ok(());
        }
        let now = (self.clock)();
        self.open()?;
        if self.lines == 0 && !self.rotation_asked {
            return Ok(());
        }
        self.look(now)?;
        if let Some(first) = self.pending_first {
            self.rotate_if_due(first, now)?;
            self.make_room(now)?;
            self.write(first, now.1)?;
        }
        if self.rotation_asked {
            self.rotation_asked = !self.rotate(now)?;
        }
        Ok(())
    }

    /// Takes new settings. On an error recording goes on where it was, if it was, with everything
    /// but the path as in the new settings.
    pub(crate) fn reconfigure(&mut self, settings: Settings) -> Result<(), OpenError> {
        if self.lines > 0
            && (settings.output.path != self.settings.output.path || !settings.output.enabled)
        {
            // They belong to the old file. If it cannot take them, the new one does.
            if let Err(error) = self.flush() {
                tracing::warn!("{error}; {} records go where the new settings say", self.lines);
            }
        }
        let old = std::mem::replace(&mut self.settings, settings);
        if self.is_off() {
            self.forget_pending();
            self.close();
            return Ok(());
        }
        if self.settings.output.path != old.output.path && self.output.is_some() {
            match self.open_at(&self.settings.output.path) {
                Ok(output) => {
                    self.close();
                    self.output = Some(output);
                }
                Err(error) => {
                    self.settings.output.path = old.output.path;
                    return Err(error);
                }
            }
        }
        self.open()?;
        self.start_compression();
        Ok(())
    }

    /// Lets go of all files and of the lock. What is pending stays pending.
    pub(crate) fn close(&mut self) {
        if let Some(mut output) = self.output.take()
            && let Some(active) = &mut output.active
        {
            // The best that can be done; the next start does it otherwise.
            let _ = active.mend(&self.disk, (self.clock)().0);
            self.left.retain(|place| place.strong_count() > 0);
            self.left.push(Arc::downgrade(&output.place));
        }
    }

    /// The active file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.settings.output.path
    }

    /// What was written so far.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// Lines that wait for a flush.
    pub(crate) fn unflushed(&self) -> usize {
        self.lines
    }

    fn forget_pending(&mut self) {
        self.pending.clear();
        self.lines = 0;
        self.pending_first = None;
        self.rotation_asked = false;
    }

    fn open_at(&self, path: &Path) -> Result<Output, OpenError> {
        let names =
            Names::new(path).map_err(|reason| OpenError::Name { path: path.to_owned(), reason })?;
        let held = self.left.iter().filter_map(Weak::upgrade).find(|place| place.names == names);
        let place = match held {
            // Its lock is ours still; taking it a second time would fail.
            Some(place) if place.is_intact(&self.disk).is_ok_and(|intact| intact) => place,
            _ => Arc::new(Place::open(&self.disk, names)?),
        };
        let now = (self.clock)();
        let active = Active::open(&self.disk, &place, now)?;
        let mut output =
            Output { place, active: Some(active), stored: Vec::new(), stored_as_of: (0, now.1) };
        self.list(&mut output, now.1).map_err(OpenError::io(path, "list the directory"))?;
        Ok(output)
    }

    fn list(&self, output: &mut Output, now: Instant) -> std::io::Result<Inventory> {
        let changes = output.place.changes();
        let mut inventory = output.place.inventory(&self.disk)?;
        output.stored = std::mem::take(&mut inventory.stored);
        output.stored_as_of = (changes, now);
        Ok(inventory)
    }

    fn limits(&self) -> retention::Limits {
        retention::Limits::new(&self.settings.retention, self.settings.rotation.gzip_level)
    }

    fn start_compression(&mut self) {
        let limits = self.limits();
        if let Some(output) = &self.output {
            let level = self.settings.rotation.gzip_level;
            (self.compress)(Pass { place: output.place.clone(), level, limits });
        }
    }

    fn error(&self, operation: &'static str) -> impl FnOnce(std::io::Error) -> WriteError + use<> {
        let path: PathBuf = self.settings.output.path.clone();
        move |source| WriteError::Io { path, operation, source }
    }

    /// Sees to it that the path leads to our file, whatever was done to it meanwhile.
    fn look(&mut self, now: (Moment, Instant)) -> Result<(), WriteError> {
        let Some(output) = &mut self.output else { return Ok(()) };
        match output.place.is_intact(&self.disk) {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(
                    "{:?} or the lock in it was removed or replaced; recording starts there anew",
                    output.place.names.directory()
                );
                self.close();
                self.open()?;
            }
            Err(error) => return Err(self.error("stat")(error)),
        }
        let Some(output) = &mut self.output else { return Ok(()) };
        if let Some(active) = &mut output.active {
            match active.look(&self.disk, &output.place, now.0) {
                Ok(Name::Ours) => {}
                Ok(Name::Gone) => {
                    tracing::warn!(
                        "{:?} was moved or removed; recording starts a new file there",
                        self.settings.output.path
                    );
                    // Whoever has it now should have whole lines.
                    let _ = active.mend(&self.disk, now.0);
                    output.active = None;
                }
                Err(error) => return Err(self.error("repair the end")(error)),
            }
        }
        self.reopen_active(now)
    }

    fn reopen_active(&mut self, now: (Moment, Instant)) -> Result<(), WriteError> {
        if let Some(output) = &mut self.output
            && output.active.is_none()
        {
            output.active = Some(Active::open(&self.disk, &output.place, now)?);
        }
        Ok(())
    }

    fn rotate_if_due(&mut self, next: Moment, now: (Moment, Instant)) -> Result<(), WriteError> {
        let limits = rotation::Limits::new(&self.settings.rotation, &self.settings.retention);
        let due =
            self.output.as_ref().and_then(|output| output.active.as_ref()).is_some_and(|active| {
                rotation::due(active.candidate(now.1), self.pending.len() as u64, next, &limits)
            });
        if due {
            self.rotate(now)?;
        }
        Ok(())
    }

    /// Sets the active file aside and begins a new one. False when it could not be renamed, which
    /// is no reason not to write to it. An error when there is no active file afterwards.
    fn rotate(&mut self, now: (Moment, Instant)) -> Result<bool, WriteError> {
        let Some(mut output) = self.output.take() else { return Ok(false) };
        let renamed = self.set_aside(&mut output, now.1);
        self.output = Some(output);
        match renamed {
            Ok(true) => {
                if self.rotation_trouble.resolved() {
                    tracing::info!("rotation of {:?} works again", self.settings.output.path);
                }
                self.segment_waits = true;
                self.reopen_active(now)?;
                Ok(true)
            }
            Ok(false) => Ok(true),
            Err(error) => {
                let kind = ("rotate", error.raw_os_error().unwrap_or(0));
                if self.rotation_trouble.raise(kind, now.1) {
                    tracing::error!(
                        "cannot rotate {:?}: {error}; it goes on growing",
                        self.settings.output.path
                    );
                }
                Ok(false)
            }
        }
    }

    /// Renames the active file to its segment's name; false when it is empty.
    fn set_aside(&self, output: &mut Output, now: Instant) -> std::io::Result<bool> {
        let Some(first) = output.active.as_ref().and_then(Active::first) else { return Ok(false) };
        let inventory = self.list(output, now)?;
        let mut taken = inventory.taken;
        loop {
            let Some(moment) = rotation::free_name(first, |moment| taken.contains(&moment)) else {
                return Err(std::io::Error::other("there is no free name left"));
            };
            let names = &output.place.names;
            let name = names.name(moment, Kind::Segment);
            match self.disk.rename(&*output.place, names.active(), &name) {
                Ok(()) => {
                    output.active = None;
                    output.stored_as_of.0 = u64::MAX;
                    return Ok(true);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    taken.push(moment);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes what retention does not keep, and finds out whether there is room to write.
    fn make_room(&mut self, now: (Moment, Instant)) -> Result<(), WriteError> {
        let limits = self.limits();
        let growth = self.pending.len() as u64;
        let today = self.calendar.now(now.0, now.1);
        let Some(mut output) = self.output.take() else { return Ok(()) };
        let result = self.make_room_in(&mut output, growth, &limits, today, now.1);
        self.output = Some(output);
        let space = result.map_err(|(operation, error)| self.error(operation)(error))?;
        match space {
            None => Ok(()),
            Some(free) => Err(WriteError::NoSpace {
                path: self.settings.output.path.clone(),
                free: free.free,
                floor: limits.floor(free),
            }),
        }
    }

    /// The file system's space when there is too little of it.
    fn make_room_in(
        &mut self,
        output: &mut Output,
        growth: u64,
        limits: &retention::Limits,
        today: Moment,
        now: Instant,
    ) -> Result<Option<super::disk::Space>, (&'static str, std::io::Error)> {
        let listed = |error| ("list the directory", error);
        let place = output.place.clone();
        let _held = place.hold_names(&self.disk);
        let space = self.disk.space(&*output.place).map_err(|error| ("statvfs", error))?;
        let active = output.active.as_ref().map_or(0, Active::size);
        let stale = output.stored_as_of.0 != output.place.changes()
            || now.saturating_duration_since(output.stored_as_of.1) >= LIST_AGAIN;
        if stale {
            self.list(output, now).map_err(listed)?;
        }
        let decide =
            |stored: &[Stored]| retention::plan(stored, active, growth, space, today, limits);
        let mut plan = decide(&output.stored);
        if plan.remove > 0 && !stale {
            // Nothing is removed on account of files that are no longer there.
            self.list(output, now).map_err(listed)?;
            plan = decide(&output.stored);
        }
        for file in output.stored.drain(..plan.remove) {
            let name = output.place.names.name(file.first, file.kind);
            match self.disk.remove(&*output.place, &name) {
                Ok(_) => tracing::debug!("removed {name}: retention"),
                Err(error) => {
                    output.stored_as_of.0 = u64::MAX;
                    let kind = ("remove", error.raw_os_error().unwrap_or(0));
                    if self.removal_trouble.raise(kind, now) {
                        let path = output.place.path(&name);
                        tracing::error!("cannot remove {path:?}: {error}");
                    }
                    // What the plan counted on is not there: ask again.
                    let space = self.disk.space(&*output.place).map_err(|e| ("statvfs", e))?;
                    let floor = limits.floor(space);
                    let tight = floor > 0 && space.free < floor.saturating_add(growth);
                    return Ok(tight.then_some(space));
                }
            }
        }
        Ok(plan.pause.then_some(space))
    }

    fn write(&mut self, first: Moment, now: Instant) -> Result<(), WriteError> {
        let Some(output) = &mut self.output else { return Ok(()) };
        let Some(active) = &mut output.active else { return Ok(()) };
        let sync = self.settings.output.fsync;
        active
            .append(&self.disk, &output.place, &self.pending, first, sync, now)
            .map_err(|(operation, error)| self.error(operation)(error))?;
        self.totals.records += self.lines as u64;
        self.totals.bytes += self.pending.len() as u64;
        self.pending.clear();
        self.lines = 0;
        self.pending_first = None;
        Ok(())
    }
}
