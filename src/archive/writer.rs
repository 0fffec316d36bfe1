//! The writer thread and the handle to it.
//!
//! The thread owns every file. What sampling sees is a [`WriterHandle`], none of whose methods
//! waits for a disk except [`WriterHandle::flush`] and [`WriterHandle::close`], which say so and
//! take a time limit. A disk that is full, gone or stuck shows in [`WriterHandle::status`] and as
//! dropped records, never as a delay.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use super::complaint::Complaint;
use super::compressor::Compressor;
use super::disk::{Disk, Progress};
use super::error::{OpenError, WriteError};
use super::names::Moment;
use super::queue::{self, Item, MAX_BYTES, MAX_WINDOWS, Queue};
use super::recorder::Recorder;
use super::settings::Settings;
pub use super::status::{InCall, LastError, State, WriterStatus};
use crate::record::Record;

/// Wait before the first new attempt after a failure; doubled after each further one.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Longest wait between attempts: how long recording may go on to rest after the disk is back.
const LAST_RETRY: Duration = Duration::from_secs(5);
/// How long [`Start::Patient`] waits for a disk that does not answer at all.
const OPEN_WAIT: Duration = Duration::from_secs(10);

/// Dropped records are mentioned in the log no more often than this.
const QUIET: Duration = Duration::from_secs(60);

/// What happens when the output cannot be opened at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// [`Writer::spawn`] fails: for a terminal, where somebody reads the message.
    Strict,
    /// As `Strict` for what no waiting mends ([`OpenError::may_pass`] is false); otherwise the
    /// writer starts all the same and keeps trying: for the daemon, which a full disk must not
    /// keep from starting. Records wait in the queue meanwhile.
    Patient,
}

/// The writer, before it runs.
#[derive(Debug)]
pub struct Writer;

/// A running writer. Dropping it without [`close`](Self::close) abandons what is not yet written.
#[derive(Debug)]
pub struct WriterHandle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Records could not be written before the time was up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{lost} records were not written: {reason}")]
pub struct CloseError {
    /// How many.
    pub lost: u64,
    /// Why.
    pub reason: String,
}

/// The lines were not all written when the time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not everything was written in time")]
pub struct NotFlushed;

enum Command {
    Reconfigure(Settings, oneshot::Sender<Result<(), OpenError>>),
    Rotate,
    Flush(mpsc::Sender<()>),
}

impl queue::Command for Command {
    fn supersedes(&self, earlier: &Self) -> bool {
        matches!(
            (self, earlier),
            (Self::Reconfigure(..), Self::Reconfigure(..)) | (Self::Rotate, Self::Rotate)
        )
    }
}

struct Shared {
    inner: Mutex<Inner>,
    /// Told when there is something to do.
    work: Condvar,
    /// Told when the thread ends.
    ended: Condvar,
    progress: Arc<Progress>,
}

struct Inner {
    queue: Queue<Command>,
    /// Set by `close`: write what is there, but not beyond this time.
    deadline: Option<Instant>,
    status: WriterStatus,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that runs under the lock can leave it half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Starts the thread `blkiolatd-write` and waits until it has opened the output: taken the
    /// lock, repaired what an earlier run left, opened the active file. With
    /// `settings.output.enabled` false it discards records until a [`reconfigure`].
    ///
    /// [`reconfigure`]: WriterHandle::reconfigure
    ///
    /// # Errors
    /// When the output cannot be opened, as `start` has it, or the thread not be started.
    pub fn spawn(settings: Settings, start: Start) -> Result<WriterHandle, OpenError> {
        let progress = Arc::new(Progress::new());
        Self::spawn_on(Disk::new(progress.clone()), progress, settings, start)
    }

    fn spawn_on(
        disk: Disk,
        progress: Arc<Progress>,
        settings: Settings,
        start: Start,
    ) -> Result<WriterHandle, OpenError> {
        let now = Instant::now();
        let status = WriterStatus {
            state: State::Opening,
            records: 0,
            bytes: 0,
            dropped: 0,
            queued: 0,
            unflushed: 0,
            last_error: None,
            last_progress: now,
            idle: false,
            in_call: None,
        };
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                queue: Queue::new(MAX_WINDOWS, MAX_BYTES),
                deadline: None,
                status,
            }),
            work: Condvar::new(),
            ended: Condvar::new(),
            progress,
        });
        let path = settings.output.path.clone();
        let (opened, first_attempt) = mpsc::channel();
        let compressor = Compressor::spawn(Disk::new(Arc::new(Progress::new())))
            .map_err(OpenError::io(&path, "start the compression thread"))?;
        let clock = || (Moment::from_system(SystemTime::now()), Instant::now());
        let recorder =
            Recorder::new(disk, settings, Box::new(clock), Box::new(compressor.starter()));
        let task = Task {
            shared: shared.clone(),
            recorder,
            compressor,
            complaint: Complaint::default(),
            retry: None,
            retry_wait: FIRST_RETRY,
            flushes: Vec::new(),
            dropped_reported: (None, 0),
        };
        let thread = thread::Builder::new()
            .name("blkiolatd-write".into())
            .spawn(move || task.run(start, &opened))
            .map_err(OpenError::io(&path, "start the writer thread"))?;
        let handle = WriterHandle { shared, thread: Some(thread) };
        let outcome = match start {
            Start::Strict => first_attempt.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Start::Patient => first_attempt.recv_timeout(OPEN_WAIT),
        };
        match outcome {
            Ok(Err(error)) => Err(error),
            // A disk that does not answer: the writer waits for it.
            Ok(Ok(())) | Err(RecvTimeoutError::Timeout) => Ok(handle),
            Err(RecvTimeoutError::Disconnected) => Err(OpenError::Io {
                path,
                operation: "run the writer thread",
                source: std::io::Error::other("it ended at once"),
            }),
        }
    }
}

impl WriterHandle {
    /// Hands over a window with one record. As [`push_window`](Self::push_window).
    pub fn push(&self, record: Record) {
        self.push_window(vec![record]);
    }

    /// Hands over the records of a window, one for each layer. Never waits for a disk; when the queue is
    /// full, its oldest window is dropped and counted in `audit.dropped_snapshots` of all records of the
    /// next one that is written.
    pub fn push_window(&self, records: Vec<Record>) {
        let mut inner = self.shared.lock();
        inner.queue.push(records);
        drop(inner);
        self.shared.work.notify_one();
    }

    /// Puts new settings in force, after the records pushed so far and before those that follow.
    /// (While recording fails, at once: they may be what mends it.)
    ///
    /// The answer comes when the output is open under the new settings. After an error, recording
    /// goes on at the old path, with everything else as in the new settings; if the old path did
    /// not work either, the new one is tried again and again. The receiver fails when later
    /// settings came before these were looked at, or the writer ended.
    pub fn reconfigure(&self, settings: Settings) -> oneshot::Receiver<Result<(), OpenError>> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Reconfigure(settings, reply));
        answer
    }

    /// Sets the active file aside after the records pushed so far, if there are any in it.
    pub fn rotate_now(&self) {
        self.command(Command::Rotate);
    }

    /// Waits until all records pushed so far are written, at most for `timeout`.
    ///
    /// # Errors
    /// When that takes longer.
    pub fn flush(&self, timeout: Duration) -> Result<(), NotFlushed> {
        let (reply, answer) = mpsc::channel();
        self.command(Command::Flush(reply));
        answer.recv_timeout(timeout).map_err(|_| NotFlushed)
    }

    /// What the writer did and does. Takes no time to speak of.
    pub fn status(&self) -> WriterStatus {
        let in_call = self
            .shared
            .progress
            .current()
            .map(|(operation, since)| InCall { operation: operation.name(), since });
        let inner = self.shared.lock();
        let queue = &inner.queue;
        let status = inner.status.clone();
        WriterStatus {
            queued: queue.len(),
            dropped: queue.dropped(),
            last_progress: status.last_progress.max(self.shared.progress.last_start()),
            in_call,
            ..status
        }
    }

    /// Writes everything that was pushed, flushes and ends the thread; tries for `timeout` at
    /// most, also when the disk is stuck.
    ///
    /// # Errors
    /// When records could not be written in that time; says how many.
    pub fn close(mut self, timeout: Duration) -> Result<(), CloseError> {
        let deadline = Instant::now() + timeout;
        let mut inner = self.shared.lock();
        inner.deadline = Some(deadline);
        self.shared.work.notify_one();
        while inner.status.state != State::Ended {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            inner = self
                .shared
                .ended
                .wait_timeout(inner, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let ended = inner.status.state == State::Ended;
        let lost = (inner.queue.records() + inner.status.unflushed) as u64;
        let reason = match &inner.status.last_error {
            Some(error) if !error.over => error.message.clone(),
            _ => match self.shared.progress.current() {
                Some((operation, _)) => format!("{} did not return in time", operation.name()),
                None => "there was no time".to_owned(),
            },
        };
        drop(inner);
        if let Some(thread) = self.thread.take()
            && ended
        {
            // The thread's very last act was to say that it ends.
            let _ = thread.join();
        }
        if lost == 0 { Ok(()) } else { Err(CloseError { lost, reason }) }
    }

    fn command(&self, command: Command) {
        self.shared.lock().queue.push_command(command);
        self.shared.work.notify_one();
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.shared.lock().deadline.get_or_insert_with(Instant::now);
            self.shared.work.notify_one();
        }
    }
}

/// The thread's side.
struct Task {
    shared: Arc<Shared>,
    recorder: Recorder,
    compressor: Compressor,
    complaint: Complaint,
    /// When to try again what failed; while it is set nothing is taken from the queue.
    retry: Option<Instant>,
    retry_wait: Duration,
    /// Who waits for the next flush.
    flushes: Vec<mpsc::Sender<()>>,
    /// Dropped records that the log has mentioned, and when it last did.
    dropped_reported: (Option<Instant>, u64),
}

enum Work {
    Item(Item<Command>),
    Retry,
    /// Nothing is left to take, and nothing more will come.
    Finish,
    /// The time is up.
    GiveUp,
}

/// Says that the thread has ended, also when it panics.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().status.state = State::Ended;
        self.0.ended.notify_all();
    }
}

impl Task {
    fn run(mut self, start: Start, opened: &mpsc::Sender<Result<(), OpenError>>) {
        let _ending = Ending(self.shared.clone());
        match self.recorder.open() {
            Ok(()) => {
                self.succeeded();
                self.note();
                let _ = opened.send(Ok(()));
            }
            Err(error) if start == Start::Patient && error.may_pass() => {
                self.failed(&WriteError::Open(error));
                self.note();
                let _ = opened.send(Ok(()));
            }
            Err(error) => {
                self.compressor.stop(Instant::now());
                let _ = opened.send(Err(error));
                return;
            }
        }
        loop {
            match self.next() {
                Work::Item(Item::Window(records)) => {
                    records.iter().for_each(|record| self.recorder.append(record));
                    if self.recorder.is_full() {
                        self.flush();
                    }
                }
                Work::Item(Item::Command(Command::Rotate)) => {
                    self.recorder.rotate_next();
                    self.flush();
                }
                Work::Item(Item::Command(Command::Flush(reply))) => {
                    self.flushes.push(reply);
                    self.flush();
                }
                Work::Item(Item::Command(Command::Reconfigure(settings, reply))) => {
                    let result = self.recorder.reconfigure(settings);
                    if let Err(error) = &result {
                        tracing::error!("{error}; recording goes on as before");
                    }
                    // Nobody may be waiting for the answer.
                    let _ = reply.send(result);
                    self.flush();
                }
                Work::Retry => self.flush(),
                Work::Finish => {
                    self.flush();
                    if self.retry.is_none() {
                        break;
                    }
                }
                Work::GiveUp => break,
            }
        }
        let deadline = self.shared.lock().deadline.unwrap_or_else(Instant::now);
        self.compressor.stop(deadline);
        self.recorder.close();
        self.note();
    }

    /// Waits for something to do.
    fn next(&mut self) -> Work {
        self.note();
        let shared = self.shared.clone();
        let mut inner = shared.lock();
        let work = loop {
            let now = Instant::now();
            let deadline = inner.deadline;
            if deadline.is_some_and(|deadline| deadline <= now) {
                break Work::GiveUp;
            }
            let until = match self.retry {
                Some(retry) => {
                    let mends = |c: &Command| matches!(c, Command::Reconfigure(..));
                    if let Some(command) = inner.queue.take_command(mends) {
                        break Work::Item(Item::Command(command));
                    }
                    if retry <= now {
                        break Work::Retry;
                    }
                    Some(deadline.map_or(retry, |deadline| deadline.min(retry)))
                }
                None => {
                    if let Some(item) = inner.queue.pop() {
                        break Work::Item(item);
                    }
                    if deadline.is_some() {
                        break Work::Finish;
                    }
                    None
                }
            };
            inner.status.idle = true;
            inner = match until {
                Some(until) => {
                    let wait = until.saturating_duration_since(now);
                    let woken = shared.work.wait_timeout(inner, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => shared.work.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        };
        inner.status.idle = false;
        inner.status.last_progress = Instant::now();
        // Counted here, under the same lock as the pop, so that a record is always in one of the
        // two places where `close` counts what is lost.
        if let Work::Item(Item::Window(records)) = &work {
            inner.status.unflushed += records.len();
        }
        work
    }

    fn flush(&mut self) {
        match self.recorder.flush() {
            Ok(()) => {
                self.succeeded();
                self.note();
                for reply in self.flushes.drain(..) {
                    // The caller may have run out of time.
                    let _ = reply.send(());
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    fn succeeded(&mut self) {
        self.retry = None;
        self.retry_wait = FIRST_RETRY;
        if self.complaint.resolved() {
            tracing::info!("recording to {:?} again", self.recorder.path());
        }
        let mut inner = self.shared.lock();
        if let Some(error) = &mut inner.status.last_error {
            error.over = true;
        }
        let dropped = inner.queue.dropped();
        drop(inner);
        let news = dropped - self.dropped_reported.1;
        // A disk that is merely too slow would otherwise have this said at every flush.
        if news > 0 && self.dropped_reported.0.is_none_or(|at| at.elapsed() >= QUIET) {
            tracing::warn!(
                dropped = news,
                "{news} snapshots were dropped, as the disk was not ready for them"
            );
            self.dropped_reported = (Some(Instant::now()), dropped);
        }
    }

    fn failed(&mut self, error: &WriteError) {
        let now = Instant::now();
        self.retry = Some(now + self.retry_wait);
        self.retry_wait = (self.retry_wait * 2).min(LAST_RETRY);
        let message = error.to_string();
        let mut inner = self.shared.lock();
        if self.complaint.raise(error.kind(), now) {
            let (queued, dropped) = (inner.queue.len(), inner.queue.dropped());
            drop(inner);
            tracing::error!(
                "{message}; {queued} snapshots wait in memory, {dropped} were dropped so far"
            );
            inner = self.shared.lock();
        }
        let since = match &inner.status.last_error {
            Some(last) if !last.over => last.since,
            _ => now,
        };
        inner.status.last_error = Some(LastError { message, since, over: false });
    }

    /// Shows the recorder's figures to others.
    fn note(&mut self) {
        let mut inner = self.shared.lock();
        let status = &mut inner.status;
        let totals = self.recorder.totals();
        status.records = totals.records;
        status.bytes = totals.bytes;
        status.unflushed = self.recorder.unflushed();
        status.state = if self.retry.is_some() {
            State::Waiting
        } else if self.recorder.is_off() {
            State::Off
        } else {
            State::Recording
        };
    }
}
