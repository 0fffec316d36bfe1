//! The active file: whole lines, at its end.

use std::fs::File;
use std::io;
use std::time::Instant;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::disk::{Disk, Facts, Purpose, is};
use super::error::OpenError;
use super::names::Moment;
use super::place::{Place, kind_name};
use super::rotation::Candidate;
use super::tail;

/// The active file, open.
///
/// It is opened for appending (`O_APPEND`) and not written at an offset of ours: when somebody
/// truncates it, as logrotate's `copytruncate` does, the next line then lands at its new end and
/// not behind a hole of zeros.
#[derive(Debug)]
pub(crate) struct Active {
    file: File,
    id: (u64, u64),
    /// Bytes of whole lines in it, as far as we know.
    size: u64,
    /// Time of its first record.
    first: Option<Moment>,
    /// When this run opened it, or wrote the first record into it.
    since: Instant,
    /// Behind `size` there may be a part of a batch that failed.
    torn: bool,
    /// The file's name is not known to be on the disk: we made it, or an earlier run did and was
    /// killed before it could sync the directory.
    unsynced_name: bool,
}

/// What became of the active file's name since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// It still leads to our file.
    Ours,
    /// It leads to nothing or to another file: somebody moved or removed ours.
    Gone,
}

impl Active {
    /// Opens the active file and repairs its end, or makes it. What is there and was not written
    /// by us is refused, not touched.
    pub(crate) fn open(
        disk: &Disk,
        place: &Place,
        now: (Moment, Instant),
    ) -> Result<Self, OpenError> {
        let name = place.names.active();
        let path = place.path(name);
        let foreign = |what: &str| OpenError::Foreign { path: path.clone(), what: what.to_owned() };
        // A look before opening: opening a device or a FIFO can itself do something.
        match disk.facts_at(place, name).map_err(OpenError::io(&path, "stat"))? {
            None => {
                return match disk.create(place, name) {
                    Ok(file) => {
                        let facts = disk.facts(&file).map_err(OpenError::io(&path, "fstat"))?;
                        Ok(Self::new(file, facts, now.1))
                    }
                    Err(error) => Err(OpenError::io(&path, "create")(error)),
                };
            }
            Some(facts) if facts.kind != FileType::RegularFile => {
                return Err(foreign(kind_name(facts.kind)));
            }
            Some(_) => {}
        }
        let file = match disk.open(place, name, Purpose::Append) {
            Ok(file) => file,
            Err(error) if is(&error, &[Errno::LOOP]) => return Err(foreign("a symbolic link")),
            Err(error) => return Err(OpenError::io(&path, "open")(error)),
        };
        let facts = disk.facts(&file).map_err(OpenError::io(&path, "fstat"))?;
        if facts.kind != FileType::RegularFile {
            return Err(foreign(kind_name(facts.kind)));
        }
        if facts.links > 1 {
            return Err(foreign("a file with other names too (hard links)"));
        }
        let mut active = Self::new(file, facts, now.1);
        if !active.begins_as_ours(disk).map_err(OpenError::io(&path, "read"))? {
            return Err(foreign("a file that blkiolatd did not write"));
        }
        active.settle(disk, now.0).map_err(OpenError::io(&path, "repair the end"))?;
        if active.size < facts.size {
            tracing::warn!(
                "{path:?} ended in a torn line; {} bytes were cut off",
                facts.size - active.size
            );
        }
        Ok(active)
    }

    fn new(file: File, facts: Facts, since: Instant) -> Self {
        let (id, size) = (facts.id, facts.size);
        Self { file, id, size, first: None, since, torn: false, unsynced_name: true }
    }

    fn begins_as_ours(&self, disk: &Disk) -> io::Result<bool> {
        let mut first = [0; tail::BEGINNING.len()];
        let length = disk.read_at(&self.file, &mut first, 0)?;
        Ok(tail::judge(&first[..length]) != tail::Tail::Foreign)
    }

    /// Repairs the end and learns size and first record anew.
    fn settle(&mut self, disk: &Disk, now: Moment) -> io::Result<()> {
        let size = disk.facts(&self.file)?.size;
        self.size = tail::repair(disk, &self.file, size)?;
        self.torn = false;
        self.first = match self.size {
            0 => None,
            _ => {
                let mut line = [0; 64];
                let length = disk.read_at(&self.file, &mut line, 0)?;
                Some(tail::moment(&line[..length]).unwrap_or(now))
            }
        };
        Ok(())
    }

    /// Looks whether the file is still the one that its name leads to, and takes note of what
    /// others did to its length.
    pub(crate) fn look(&mut self, disk: &Disk, place: &Place, now: Moment) -> io::Result<Name> {
        let there = disk.facts_at(place, place.names.active())?;
        if there.is_none_or(|there| there.id != self.id) {
            return Ok(Name::Gone);
        }
        let size = disk.facts(&self.file)?.size;
        if self.torn {
            self.mend(disk, now)?;
        } else if size != self.size {
            let path = place.path(place.names.active());
            tracing::warn!("somebody changed the length of {path:?} from {} to {size}", self.size);
            self.settle(disk, now)?;
        }
        Ok(Name::Ours)
    }

    /// Cuts off what a failed write left behind the last whole line.
    pub(crate) fn mend(&mut self, disk: &Disk, now: Moment) -> io::Result<()> {
        if !self.torn {
            return Ok(());
        }
        if disk.facts(&self.file)?.size < self.size {
            // Somebody truncated it as well.
            return self.settle(disk, now);
        }
        disk.truncate(&self.file, self.size)?;
        self.torn = false;
        Ok(())
    }

    /// Appends a batch of whole lines, the first of them of `first`; all of it or, after an error,
    /// nothing: what got into the file is cut off again, at the latest by the next
    /// [`look`](Self::look).
    ///
    /// A failed `fdatasync` counts as a failed write: the kernel then forgets which pages did not
    /// reach the disk, so that only cutting the batch off and writing it again makes the next
    /// `fdatasync` speak the truth about it.
    pub(crate) fn append(
        &mut self,
        disk: &Disk,
        place: &Place,
        batch: &[u8],
        first: Moment,
        sync: bool,
        now: Instant,
    ) -> Result<(), (&'static str, io::Error)> {
        if sync && self.unsynced_name {
            disk.sync_directory(place).map_err(|e| ("fsync of the directory", e))?;
            self.unsynced_name = false;
        }
        self.torn = true;
        let written = disk.append(&self.file, batch).map_err(|e| ("write", e)).and_then(|()| {
            if sync {
                disk.sync_data(&self.file).map_err(|e| ("fdatasync", e))?;
            }
            Ok(())
        });
        if let Err(error) = written {
            // Tried at once, so that a reader sees the torn line as briefly as possible. If it
            // fails too, `torn` remembers.
            let _ = self.mend(disk, first);
            return Err(error);
        }
        self.torn = false;
        self.size += batch.len() as u64;
        if self.first.is_none() {
            self.first = Some(first);
            self.since = now;
        }
        Ok(())
    }

    /// What rotation decides by.
    pub(crate) fn candidate(&self, now: Instant) -> Candidate {
        Candidate {
            size: self.size,
            first: self.first,
            held: now.saturating_duration_since(self.since),
        }
    }

    /// Bytes of whole lines.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Time of the first record; none while the file is empty.
    pub(crate) fn first(&self) -> Option<Moment> {
        self.first
    }
}
