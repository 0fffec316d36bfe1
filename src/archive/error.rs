//! What can go wrong, by what the caller does about it.

use std::io;
use std::path::{Path, PathBuf};

use super::names::BadName;

/// Why an output could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The path cannot be that of an output.
    #[error(
        "cannot record to {path:?}: {reason}; give the path of a file, for example /var/log/blkiolatd/blkiolat.jsonl"
    )]
    Name {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        reason: BadName,
    },
    /// Another process records there.
    #[error(
        "cannot record to {path:?}: another blkiolatd does so already (it holds the lock {lock:?}); stop it, or give each its own path"
    )]
    Locked {
        /// The active file.
        path: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// Something is there that is not a file of ours, and that is left alone.
    #[error(
        "cannot record to {path:?}: it is {what}, which is not touched; move it away or record elsewhere"
    )]
    Foreign {
        /// What stands in the way.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// The operating system says no; the next attempt may fare better.
    #[error("cannot record to {path:?}: {operation}: {source}{}", hint(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OpenError {
    /// Whether trying again makes sense without anybody's help: a disk may come back, a wrong
    /// path does not become right. A lock may be released, but two daemons on one path are a
    /// mistake that must be seen.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Io { .. })
    }

    pub(crate) fn io(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), operation, source }
    }
}

/// Why lines could not be written. They are kept, and tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The output could not be opened (again).
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Writing would take space that must stay free.
    #[error(
        "recording pauses: {free} bytes are free on the file system of {path:?} and retention.min_free_space keeps {floor}; it resumes when there is space"
    )]
    NoSpace {
        /// The active file.
        path: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes that stay free.
        floor: u64,
    },
    /// The operating system says no.
    #[error("cannot write {path:?}: {operation}: {source}{}", hint(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl WriteError {
    /// What makes two of these the same fault.
    pub(crate) fn kind(&self) -> (&'static str, i32) {
        match self {
            Self::Open(OpenError::Name { .. }) => ("name", 0),
            Self::Open(OpenError::Locked { .. }) => ("locked", 0),
            Self::Open(OpenError::Foreign { .. }) => ("foreign", 0),
            Self::NoSpace { .. } => ("space", 0),
            Self::Open(OpenError::Io { operation, source, .. })
            | Self::Io { operation, source, .. } => (operation, source.raw_os_error().unwrap_or(0)),
        }
    }
}

/// What to do about the errors that people meet, as the end of a message.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; make the directory (it is not made for you, so that an unmounted file system is noticed)"
        }
        io::ErrorKind::PermissionDenied => "; give the daemon's user write access to the directory",
        io::ErrorKind::StorageFull => "; free some space",
        io::ErrorKind::ReadOnlyFilesystem => "; remount it writable, or record elsewhere",
        io::ErrorKind::QuotaExceeded => "; raise the quota, or remove files",
        io::ErrorKind::NotADirectory => "; a part of the path is not a directory",
        _ => "",
    }
}
