//! The thread that compresses, so that writing never waits for it.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::complaint::Complaint;
use super::compress::{self, Pass, Problem};
use super::disk::Disk;
use crate::heap;

/// After this time a pass with problems that may pass is repeated, if nothing starts one earlier.
const AGAIN: Duration = Duration::from_secs(60);

/// The running thread `blkiolatd-gzip`.
#[derive(Debug)]
pub(crate) struct Compressor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    /// At most one per directory.
    passes: VecDeque<Pass>,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Compressor {
    /// Starts the thread.
    pub(crate) fn spawn(disk: Disk) -> io::Result<Self> {
        heap::return_large_blocks();
        let shared = Arc::new(Shared {
            inner: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let theirs = shared.clone();
        thread::Builder::new().name("blkiolatd-gzip".into()).spawn(move || {
            let ending = Ending(theirs);
            lower_priority();
            work(&ending.0, &disk);
        })?;
        Ok(Self { shared })
    }

    /// Gives the thread something to do, when it has done the rest. Never waits.
    pub(crate) fn starter(&self) -> impl FnMut(Pass) + Send + use<> {
        let shared = self.shared.clone();
        move |pass| {
            let mut inner = shared.lock();
            inner.passes.retain(|waiting| !Arc::ptr_eq(&waiting.place, &pass.place));
            inner.passes.push_back(pass);
            shared.changed.notify_all();
        }
    }

    /// Has the thread stop and waits for it, until `deadline` at most. What it was at is done
    /// again after the next start.
    pub(crate) fn stop(&self, deadline: Instant) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut inner = self.shared.lock();
        self.shared.changed.notify_all();
        while !inner.ended {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            let woken = self.shared.changed.wait_timeout(inner, left);
            inner = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Says that the thread has ended, also when it panics.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.ended = true;
        inner.passes.clear();
        self.0.changed.notify_all();
    }
}

/// Leaves the processor, and the disk, to others. On Linux this is per thread, and a thread's I/O
/// priority follows from it unless the unit sets another (best effort, lowest level). The idle
/// class is not asked for: on a busy disk it could keep segments from ever being compressed.
fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::debug!("compression runs at normal priority: {error}");
    }
}

fn work(shared: &Shared, disk: &Disk) {
    let mut complaint = Complaint::default();
    // Weak: a directory that the recorder has left must not stay locked for a repetition's sake.
    let mut again: Option<(Instant, Repetition)> = None;
    loop {
        let Some(pass) = next(shared, &mut again) else { return };
        let problems = compress::run(disk, &pass, &shared.stop);
        for (name, problem) in &problems {
            if matches!(problem, Problem::Stopped) {
                continue;
            }
            let path = pass.place.path(name);
            if complaint.raise(problem.kind(), Instant::now()) {
                tracing::warn!("{path:?} stays as it is for now: {problem}");
            } else {
                tracing::debug!("{path:?} stays as it is for now: {problem}");
            }
        }
        if problems.is_empty() && complaint.resolved() {
            tracing::info!("compression has caught up");
        }
        // The others are looked at again when the next segment comes.
        let retry = problems.iter().any(|(_, problem)| problem.may_pass());
        again = retry.then(|| (Instant::now() + AGAIN, Repetition::new(&pass)));
    }
}

/// A pass that does not hold its directory.
struct Repetition {
    place: Weak<super::place::Place>,
    level: u32,
    limits: super::retention::Limits,
}

impl Repetition {
    fn new(pass: &Pass) -> Self {
        Self { place: Arc::downgrade(&pass.place), level: pass.level, limits: pass.limits }
    }

    fn pass(&self) -> Option<Pass> {
        Some(Pass { place: self.place.upgrade()?, level: self.level, limits: self.limits })
    }
}

/// Waits for the next pass; none when the thread is to end.
fn next(shared: &Shared, again: &mut Option<(Instant, Repetition)>) -> Option<Pass> {
    let mut inner = shared.lock();
    loop {
        if shared.stop.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(pass) = inner.passes.pop_front() {
            return Some(pass);
        }
        let now = Instant::now();
        inner = match again {
            Some((at, repetition)) if *at <= now => {
                let pass = repetition.pass();
                *again = None;
                if pass.is_some() {
                    return pass;
                }
                continue;
            }
            Some((at, _)) => {
                let woken = shared.changed.wait_timeout(inner, *at - now);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            None => shared.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
        };
    }
}
