//! The directory of an output, held open and locked.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::disk::{Disk, Facts, Operation, Purpose, is};
use super::error::OpenError;
use super::names::{Kind, Moment, Names};
use super::retention::Stored;

/// A directory that we record in. While one of these exists, no other process records there.
///
/// The lock is `flock` on a file of its own: it goes with the process, however that ends, so a
/// file that is left over never stands in the way. The active file itself would not do, because
/// rotation and administrators rename it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) names: Names,
    disk: Disk,
    dir: OwnedFd,
    id: (u64, u64),
    /// None on a file system that has no locks.
    lock: Option<(File, Facts)>,
    /// Grows when segments were compressed or removed behind the recorder's back.
    changes: AtomicU64,
    /// Held while stored files change names, or are removed for what they were listed as.
    names_held: Mutex<()>,
}

impl Place {
    /// Opens the directory and takes the lock. Makes no directory: when the file system that
    /// belongs there is not mounted, the one below must not be filled instead.
    pub(crate) fn open(disk: &Disk, names: Names) -> Result<Self, OpenError> {
        let dir = disk
            .open_directory(names.directory())
            .map_err(OpenError::io(names.directory(), "open the directory"))?;
        let facts = disk.facts(&dir).map_err(OpenError::io(names.directory(), "fstat"))?;
        if facts.mode & 0o1002 == 0o0002 {
            tracing::warn!(
                "anybody can write to {:?} and so remove or replace records; chmod o-w it",
                names.directory()
            );
        }
        let lock = lock(disk, &dir, &names)?;
        let changes = AtomicU64::new(0);
        Ok(Self {
            names,
            disk: disk.clone(),
            dir,
            id: facts.id,
            lock,
            changes,
            names_held: Mutex::default(),
        })
    }

    /// Whether the path still leads to this directory, and the lock is still there to be seen by
    /// others.
    pub(crate) fn is_intact(&self, disk: &Disk) -> std::io::Result<bool> {
        if disk.facts_of(self.names.directory())?.is_none_or(|facts| facts.id != self.id) {
            return Ok(false);
        }
        let Some((_, locked)) = &self.lock else { return Ok(true) };
        let there = disk.facts_at(&self.dir, &self.names.lock())?;
        Ok(there.is_some_and(|facts| facts.id == locked.id))
    }

    /// Segments and archives that are here, oldest first, and partial archives. Only regular
    /// files: whatever else bears such a name is not ours.
    pub(crate) fn inventory(&self, disk: &Disk) -> std::io::Result<Inventory> {
        let mut found = Inventory::default();
        for name in disk.list(&self.dir)? {
            let Some(name) = name.to_str() else { continue };
            let Some((first, kind)) = self.names.parse(name) else { continue };
            found.taken.push(first);
            let Some(facts) = disk.facts_at(&self.dir, name)? else { continue };
            if facts.kind != FileType::RegularFile {
                continue;
            }
            match kind {
                Kind::Partial => found.partial.push(first),
                Kind::Segment | Kind::Archive => {
                    found.stored.push(Stored { first, kind, size: facts.size });
                }
            }
        }
        found.stored.sort_unstable();
        Ok(found)
    }

    /// The path of a file here, for messages.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.names.directory().join(name)
    }

    /// Keeps segments and archives from getting or losing their names until the guard goes: what was
    /// listed under it is still so. Retention lists and removes, and compression names an archive and
    /// removes its segment, each under one guard; neither compresses or syncs meanwhile.
    pub(crate) fn hold_names(&self, disk: &Disk) -> MutexGuard<'_, ()> {
        disk.behind(Operation::Rename, || {
            self.names_held.lock().unwrap_or_else(PoisonError::into_inner)
        })
    }

    /// Tells the recorder that files have come or gone.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// How often [`changed`](Self::changed) was called.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Drop for Place {
    /// Removes the lock's file while the lock is held, so that nothing is left behind. A process
    /// that has it open already finds that it lost its name, and makes a new one.
    fn drop(&mut self) {
        let Some((_, ours)) = &self.lock else { return };
        let name = self.names.lock();
        let there = self.disk.facts_at(&self.dir, &name);
        if there.is_ok_and(|there| there.is_some_and(|f| f.id == ours.id && f.size == 0)) {
            // If it stays, it does no harm.
            let _ = self.disk.remove(&self.dir, &name);
        }
    }
}

/// What is in a directory.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) stored: Vec<Stored>,
    pub(crate) partial: Vec<Moment>,
    /// Moments whose names are in use, by whatever.
    pub(crate) taken: Vec<Moment>,
}

/// Attempts to lock a file that others keep removing.
const LOCK_ATTEMPTS: usize = 100;

fn lock(disk: &Disk, dir: &OwnedFd, names: &Names) -> Result<Option<(File, Facts)>, OpenError> {
    let name = names.lock();
    let path = names.directory().join(&name);
    for _ in 0..LOCK_ATTEMPTS {
        let file = match disk.open(dir, &name, Purpose::Lock) {
            Ok(file) => file,
            Err(error) if is(&error, &[Errno::LOOP]) => {
                return Err(OpenError::Foreign { path, what: "a symbolic link".to_owned() });
            }
            Err(error) => return Err(OpenError::io(&path, "open the lock file")(error)),
        };
        let ours = disk.facts(&file).map_err(OpenError::io(&path, "fstat"))?;
        if ours.kind != FileType::RegularFile {
            return Err(OpenError::Foreign { path, what: kind_name(ours.kind).to_owned() });
        }
        match disk.lock(&file) {
            Ok(true) => {}
            Ok(false) => return Err(OpenError::Locked { path: names.active_path(), lock: path }),
            Err(error) if is(&error, &[Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOLCK]) => {
                tracing::warn!(
                    "{path:?} cannot be locked ({error}): see to it that only one daemon records there"
                );
                return Ok(None);
            }
            Err(error) => return Err(OpenError::io(&path, "flock")(error)),
        }
        // Who held the lock before may have removed the file after we opened it; a lock on a file
        // without a name keeps nobody out.
        let there = disk.facts_at(dir, &name).map_err(OpenError::io(&path, "stat"))?;
        if there.is_some_and(|there| there.id == ours.id) {
            return Ok(Some((file, ours)));
        }
    }
    Err(OpenError::Io {
        path,
        operation: "lock",
        source: std::io::Error::other("the lock file is being replaced all the time"),
    })
}

/// A kind of file in words.
pub(crate) fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Unknown => "a file of an unknown kind",
    }
}
