//! The few operations on files that the archive needs, and nothing else.
//!
//! Everything goes through [`Disk`], for three reasons: an interrupted call is repeated in one
//! place, [`Progress`] shows which call a thread is in (a stuck disk is seen, not guessed), and a
//! test can fail, shorten or cut off the n-th operation.
//!
//! Files are reached through the descriptor of their directory and by their bare name, and no
//! symbolic link is followed at that name, so that nobody who can write to a directory above
//! makes the daemon write elsewhere between two calls.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{self as sys, AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Operation {
    OpenDirectory = 1,
    Open,
    Create,
    Lock,
    Read,
    Write,
    Truncate,
    SyncData,
    SyncDirectory,
    Rename,
    Remove,
    List,
    Stat,
    Space,
}

impl Operation {
    pub(crate) const ALL: [Self; 14] = [
        Self::OpenDirectory,
        Self::Open,
        Self::Create,
        Self::Lock,
        Self::Read,
        Self::Write,
        Self::Truncate,
        Self::SyncData,
        Self::SyncDirectory,
        Self::Rename,
        Self::Remove,
        Self::List,
        Self::Stat,
        Self::Space,
    ];

    /// The system call's name, for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OpenDirectory => "open directory",
            Self::Open => "open",
            Self::Create => "create",
            Self::Lock => "flock",
            Self::Read => "read",
            Self::Write => "write",
            Self::Truncate => "truncate",
            Self::SyncData => "fdatasync",
            Self::SyncDirectory => "fsync of the directory",
            Self::Rename => "rename",
            Self::Remove => "unlink",
            Self::List => "list directory",
            Self::Stat => "stat",
            Self::Space => "statvfs",
        }
    }
}

/// Which call a thread is in, readable by others at any time.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    /// [`Operation`] or 0.
    operation: AtomicU8,
    /// Nanoseconds from `start` to the beginning of the call, or of the last one.
    since: AtomicU64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), operation: AtomicU8::new(0), since: AtomicU64::new(0) }
    }

    fn enter(&self, operation: Operation) {
        let elapsed = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.since.store(elapsed, Ordering::Relaxed);
        self.operation.store(operation as u8, Ordering::Release);
    }

    fn leave(&self) {
        self.operation.store(0, Ordering::Release);
    }

    /// The call that the thread is in, and when it began.
    pub(crate) fn current(&self) -> Option<(Operation, Instant)> {
        let operation = self.operation.load(Ordering::Acquire);
        let operation = Operation::ALL.into_iter().find(|known| *known as u8 == operation)?;
        Some((operation, self.last_start()))
    }

    /// When the last call began; the thread's start if there was none.
    pub(crate) fn last_start(&self) -> Instant {
        self.start + Duration::from_nanos(self.since.load(Ordering::Relaxed))
    }
}

/// What tells one file from another, and what was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Device and inode number.
    pub(crate) id: (u64, u64),
    pub(crate) kind: FileType,
    /// Names that this file has.
    pub(crate) links: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// Permission bits.
    pub(crate) mode: u32,
}

impl From<sys::Stat> for Facts {
    #[allow(clippy::unnecessary_cast)] // The fields' types differ between architectures.
    fn from(stat: sys::Stat) -> Self {
        Self {
            id: (stat.st_dev as u64, stat.st_ino as u64),
            kind: FileType::from_raw_mode(stat.st_mode),
            links: stat.st_nlink as u64,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode as u32 & 0o7777,
        }
    }
}

/// Space of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// What an unprivileged process can still fill.
    pub(crate) free: u64,
    /// Its whole size.
    pub(crate) total: u64,
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Reading.
    Read,
    /// Reading and appending; it exists.
    Append,
    /// Holding a lock; made if it is missing.
    Lock,
}

/// The operations. Cheap to clone; each thread has its own `progress`.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    progress: Arc<Progress>,
    #[cfg(test)]
    pub(crate) fault: Option<Arc<dyn super::faults::Fault>>,
}

/// Our files: the daemon's user may write, its group may read.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP);

impl Disk {
    pub(crate) fn new(progress: Arc<Progress>) -> Self {
        Self {
            progress,
            #[cfg(test)]
            fault: None,
        }
    }

    fn call<T>(
        &self,
        operation: Operation,
        mut action: impl FnMut() -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        self.progress.enter(operation);
        let result = loop {
            match self.attempt(operation, &mut action) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.progress.leave();
        result
    }

    /// Waits for another thread that may be in this operation. The wait shows as the operation itself: who is held up
    /// by a stuck disk at second hand is not hung either.
    pub(crate) fn behind<T>(&self, operation: Operation, wait: impl FnOnce() -> T) -> T {
        self.progress.enter(operation);
        let result = wait();
        self.progress.leave();
        result
    }

    #[cfg(not(test))]
    fn attempt<T>(
        &self,
        _: Operation,
        action: &mut impl FnMut() -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        Ok(action()?)
    }

    #[cfg(test)]
    fn attempt<T>(
        &self,
        operation: Operation,
        action: &mut impl FnMut() -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        use super::faults::Verdict;
        let Some(fault) = &self.fault else { return Ok(action()?) };
        match fault.verdict(operation) {
            Verdict::Go | Verdict::Short => Ok(action()?),
            Verdict::Fail(error) => Err(error),
            Verdict::FailAfter(error) => action().map_err(io::Error::from).and(Err(error)),
        }
    }

    /// Opens a directory. Symbolic links on the way to it are followed: where logs go is the
    /// administrator's choice.
    pub(crate) fn open_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.call(Operation::OpenDirectory, || sys::open(path, flags, Mode::empty()))
    }

    /// Opens what must be a regular file without following a link or waiting for a FIFO's other
    /// end. The caller looks at its [`Facts`] before it trusts it.
    pub(crate) fn open(&self, dir: impl AsFd, name: &str, purpose: Purpose) -> io::Result<File> {
        let common = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let flags = match purpose {
            Purpose::Read => OFlags::RDONLY,
            Purpose::Append => OFlags::RDWR | OFlags::APPEND,
            Purpose::Lock => OFlags::RDWR | OFlags::CREATE,
        };
        self.call(Operation::Open, || sys::openat(&dir, name, common | flags, FILE_MODE))
            .map(File::from)
    }

    /// Makes a file that does not exist, for appending.
    pub(crate) fn create(&self, dir: impl AsFd, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        self.call(Operation::Create, || sys::openat(&dir, name, flags, FILE_MODE)).map(File::from)
    }

    /// Takes the exclusive lock; false when another process has it.
    pub(crate) fn lock(&self, file: &File) -> io::Result<bool> {
        match self
            .call(Operation::Lock, || sys::flock(file, FlockOperation::NonBlockingLockExclusive))
        {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads into `buffer` from `offset` until it is full or the file ends.
    pub(crate) fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + filled as u64;
            match self
                .call(Operation::Read, || rustix::io::pread(file, &mut buffer[filled..], at))?
            {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    /// Appends all of `bytes`, in as many calls as it takes. On an error an unknown part of them
    /// may be in the file.
    pub(crate) fn append(&self, file: &File, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.call(Operation::Write, || {
                #[cfg(test)]
                if let Some(fault) = &self.fault {
                    return rustix::io::write(file, fault.shorten(bytes));
                }
                rustix::io::write(file, bytes)
            })?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Cuts the file to `size` bytes.
    pub(crate) fn truncate(&self, file: &File, size: u64) -> io::Result<()> {
        self.call(Operation::Truncate, || sys::ftruncate(file, size))
    }

    /// Waits until the file's bytes, and its size, are on the disk.
    pub(crate) fn sync_data(&self, file: &File) -> io::Result<()> {
        self.call(Operation::SyncData, || sys::fdatasync(file))
    }

    /// Waits until the directory's names are on the disk.
    pub(crate) fn sync_directory(&self, dir: impl AsFd) -> io::Result<()> {
        match self.call(Operation::SyncDirectory, || sys::fsync(&dir)) {
            // Some file systems (FUSE, 9p) cannot: their names are then as safe as they get.
            Err(error) if is(&error, &[Errno::INVAL, Errno::OPNOTSUPP]) => Ok(()),
            result => result,
        }
    }

    /// Gives a file another name in its directory; an error if that name is taken.
    pub(crate) fn rename(&self, dir: impl AsFd, from: &str, to: &str) -> io::Result<()> {
        let dir = dir.as_fd();
        match self.call(Operation::Rename, || {
            sys::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE)
        }) {
            // Not every file system knows NOREPLACE. Nobody else makes these names while we hold
            // the lock, so looking first is as good.
            Err(error) if is(&error, &[Errno::INVAL, Errno::NOSYS]) => {
                if self.facts_at(dir, to)?.is_some() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                self.call(Operation::Rename, || sys::renameat(dir, from, dir, to))
            }
            result => result,
        }
    }

    /// Removes a name (never a directory); true if it was there.
    pub(crate) fn remove(&self, dir: impl AsFd, name: &str) -> io::Result<bool> {
        match self.call(Operation::Remove, || sys::unlinkat(&dir, name, AtFlags::empty())) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The names in a directory, in no order.
    pub(crate) fn list(&self, dir: impl AsFd) -> io::Result<Vec<OsString>> {
        self.call(Operation::List, || {
            let mut names = Vec::new();
            for entry in sys::Dir::read_from(&dir)? {
                names.push(OsString::from_vec(entry?.file_name().to_bytes().to_vec()));
            }
            Ok(names)
        })
    }

    /// Facts about an open file or directory.
    pub(crate) fn facts(&self, file: impl AsFd) -> io::Result<Facts> {
        self.call(Operation::Stat, || sys::fstat(&file)).map(Facts::from)
    }

    /// Facts about what has this name, a link itself and not its target; none if nothing has it.
    pub(crate) fn facts_at(&self, dir: impl AsFd, name: &str) -> io::Result<Option<Facts>> {
        let stat =
            self.call(Operation::Stat, || sys::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW));
        absent_is_none(stat)
    }

    /// Facts about what `path` leads to; none if it leads to nothing.
    pub(crate) fn facts_of(&self, path: &Path) -> io::Result<Option<Facts>> {
        absent_is_none(self.call(Operation::Stat, || sys::stat(path)))
    }

    /// Space of the file system that the directory is on.
    pub(crate) fn space(&self, dir: impl AsFd) -> io::Result<Space> {
        let stat = self.call(Operation::Space, || sys::fstatvfs(&dir))?;
        Ok(Space {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
}

fn absent_is_none(stat: io::Result<sys::Stat>) -> io::Result<Option<Facts>> {
    match stat {
        Ok(stat) => Ok(Some(stat.into())),
        Err(error) if is(&error, &[Errno::NOENT, Errno::NOTDIR]) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `error` is one of these.
pub(crate) fn is(error: &io::Error, numbers: &[Errno]) -> bool {
    numbers.iter().any(|number| error.raw_os_error() == Some(number.raw_os_error()))
}
