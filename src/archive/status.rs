//! What can be known about the writer from outside.

use std::time::{Duration, Instant};

/// What the writer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The output has not been opened yet.
    Opening,
    /// Records are written.
    Recording,
    /// Records wait: the last attempt to write or open failed, the next one is to come.
    Waiting,
    /// `output.enabled` is false: records are discarded.
    Off,
    /// The thread has ended.
    Ended,
}

/// A call that the writer thread is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InCall {
    /// The call's name, for example `fdatasync`.
    pub operation: &'static str,
    /// When it began.
    pub since: Instant,
}

/// An error, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// What went wrong and what to do.
    pub message: String,
    /// When it began: of several attempts in a row that failed, the first.
    pub since: Instant,
    /// Whether it is over.
    pub over: bool,
}

/// What the writer did and does, at one moment.
#[derive(Clone, Debug)]
pub struct WriterStatus {
    /// What it is doing.
    pub state: State,
    /// Records that are in files (handed to the kernel, synced if so configured).
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that were dropped because the queue was full.
    pub dropped: u64,
    /// Records that wait in the queue.
    pub queued: usize,
    /// Lines that are collected for the next flush.
    pub unflushed: usize,
    /// The last error, also when it is over.
    pub last_error: Option<LastError>,
    /// When the thread last began something new, a call included.
    pub last_progress: Instant,
    /// Whether the thread waits for something to do, or for the next attempt.
    pub idle: bool,
    /// The call that the thread is in, if it is in one.
    pub in_call: Option<InCall>,
}

impl WriterStatus {
    /// Whether the thread does its work, as far as it is up to it: it waits for records, or for
    /// the kernel (a stuck disk must not get the daemon killed), or did something within `limit`.
    /// False once the thread has ended, whatever ended it.
    pub fn healthy(&self, now: Instant, limit: Duration) -> bool {
        self.state != State::Ended
            && (self.idle
                || self.in_call.is_some()
                || now.saturating_duration_since(self.last_progress) < limit)
    }
}
