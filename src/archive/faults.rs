//! For tests: faults put between the archive and the kernel.

use std::fmt::Debug;
use std::io;

use super::disk::Operation;

/// What becomes of an operation.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is done.
    Go,
    /// It is a write, and is done in part.
    Short,
    /// It is not done.
    Fail(io::Error),
    /// It is done and reported as failed.
    FailAfter(io::Error),
}

/// Decides what becomes of each operation.
pub(crate) trait Fault: Debug + Send + Sync {
    /// Asked once before every operation.
    fn verdict(&self, operation: Operation) -> Verdict;

    /// The part of `bytes` that a write which was let through writes.
    fn shorten<'a>(&self, bytes: &'a [u8]) -> &'a [u8];
}
