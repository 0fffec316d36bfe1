//! Where windows come from: a file that is followed, a pipe, or files that are replayed.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::follow::{Event, Follow};
use super::pace::{Pace, Speed};
use super::window::{Intake, Taken, Window};
use crate::archive::reader::lines::{self, for_each_line};
use crate::archive::reader::{Input, TimeRange, files};

/// How often a file is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a replay waits for its reader.
const SHORT: Duration = Duration::from_millis(10);
/// Lines that a reader is ahead.
const AHEAD: usize = 64;
/// Windows that are passed on before others get their turn.
const TURN: usize = 256;

/// What a source yields.
#[derive(Debug, PartialEq)]
pub enum Update {
    /// The next window, and its line as it stands in the file.
    Window(Box<Window>, Vec<u8>),
    /// A line that could not be used, or another damage; what and where.
    Damaged(String),
    /// Something happened to the file.
    Note(String),
    /// There is no more.
    End,
}

/// Where to read.
#[derive(Debug)]
pub enum Source {
    /// An active file, with so many windows that it has already.
    Follow(PathBuf, usize),
    /// Standard input or a FIFO, as it comes.
    Stream(Input),
    /// Files and directories, at a speed.
    Replay(Vec<PathBuf>, Speed),
}

/// Yields windows when they are due.
#[derive(Debug)]
pub struct Player {
    intake: Intake,
    from: From,
    /// Read and not passed on.
    updates: Vec<Update>,
    /// There was something the last time, so that there may be more.
    busy: bool,
}

#[derive(Debug)]
enum From {
    Follow(Follow),
    Thread {
        lines: Receiver<Message>,
        /// None for a stream, which is not delayed.
        pace: Option<Pace>,
        next: Option<(Box<Window>, Vec<u8>)>,
        ended: bool,
    },
}

/// A line, or damage, with its place.
#[derive(Debug)]
enum Message {
    Line { bytes: Vec<u8>, complete: bool, place: String },
    Damage(String),
}

impl Player {
    /// Begins to read.
    ///
    /// # Errors
    /// When nothing is found that could be replayed.
    pub fn new(source: Source, mut intake: Intake) -> Result<Self, String> {
        let mut updates = Vec::new();
        let from = match source {
            Source::Follow(path, history) => From::Follow(Follow::new(&path, history, &mut |e| {
                updates.extend(take_event(&mut intake, e));
            })),
            Source::Stream(input) => thread_of(vec![input], None)?,
            Source::Replay(paths, speed) => {
                let found = files::find(&paths, &TimeRange::default());
                if let Some((path, error)) = found.errors.first() {
                    return Err(format!("{path} cannot be read: {error}"));
                }
                if found.inputs.is_empty() {
                    let paths: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
                    return Err(format!("no .jsonl or .jsonl.gz file in {}", paths.join(", ")));
                }
                thread_of(found.inputs, Some(Pace::new(speed)))?
            }
        };
        Ok(Self { intake, from, updates, busy: true })
    }

    /// What is due `now`, at most some hundred windows. A replay that is `paused` yields nothing.
    pub fn advance(&mut self, now: Instant, paused: bool) -> Vec<Update> {
        let mut updates = std::mem::take(&mut self.updates);
        match &mut self.from {
            From::Follow(follow) => {
                let intake = &mut self.intake;
                follow.poll(&mut |event| updates.extend(take_event(intake, event)));
                self.busy = false;
            }
            From::Thread { pace: Some(_), .. } if paused => self.busy = false,
            From::Thread { .. } => {
                self.busy = false;
                for _ in 0..TURN {
                    if !self.is_due(now, &mut updates) {
                        break;
                    }
                    updates.extend(self.take_next(now));
                    self.busy = true;
                }
            }
        }
        updates
    }

    /// The next window of a replay, due or not.
    pub fn next(&mut self, now: Instant) -> Vec<Update> {
        let mut updates = std::mem::take(&mut self.updates);
        self.fill(&mut updates);
        updates.extend(self.take_next(now));
        updates
    }

    /// How long there will be nothing to do.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        match &self.from {
            _ if self.busy => Duration::ZERO,
            From::Follow(_) | From::Thread { pace: None, .. } => LOOK,
            From::Thread { ended: true, .. } => LOOK,
            From::Thread { next: None, .. } => SHORT,
            From::Thread { pace: Some(pace), next: Some((window, _)), .. } => {
                pace.wait(window.end_us, window.length_us, now).min(LOOK)
            }
        }
    }

    /// Speed of a replay; none if it is none.
    #[must_use]
    pub fn speed(&self) -> Option<Speed> {
        match &self.from {
            From::Thread { pace: Some(pace), .. } => Some(pace.speed()),
            _ => None,
        }
    }

    /// Changes the speed of a replay.
    pub fn change_speed(&mut self, change: impl FnOnce(Speed) -> Speed) {
        if let From::Thread { pace: Some(pace), .. } = &mut self.from {
            pace.set_speed(change(pace.speed()));
        }
    }

    /// Whether what there was to replay, or the pipe, has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.from, From::Thread { ended: true, next: None, .. })
    }

    /// Whether everything was passed on that a followed file has by now.
    #[must_use]
    pub fn is_up_to_date(&self) -> bool {
        matches!(self.from, From::Follow(_)) && !self.busy
    }

    /// Reads until there is a window to pass on or nothing more has been read.
    fn fill(&mut self, updates: &mut Vec<Update>) {
        let From::Thread { lines, next, ended, .. } = &mut self.from else { return };
        while next.is_none() && !*ended {
            match lines.try_recv() {
                Ok(Message::Damage(what)) => updates.push(Update::Damaged(what)),
                Ok(Message::Line { bytes, complete, place }) => {
                    match self.intake.take(&bytes, complete) {
                        Taken::Window(window) => *next = Some((window, bytes)),
                        Taken::Nothing => {}
                        Taken::Damaged(what) => {
                            updates.push(Update::Damaged(format!("{place} {what}")));
                        }
                    }
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    *ended = true;
                    updates.push(Update::End);
                }
            }
        }
    }

    fn is_due(&mut self, now: Instant, updates: &mut Vec<Update>) -> bool {
        self.fill(updates);
        match &self.from {
            From::Thread { pace, next: Some((window, _)), .. } => pace
                .as_ref()
                .is_none_or(|pace| pace.wait(window.end_us, window.length_us, now).is_zero()),
            _ => false,
        }
    }

    fn take_next(&mut self, now: Instant) -> Option<Update> {
        let From::Thread { pace, next, .. } = &mut self.from else { return None };
        let (window, line) = next.take()?;
        if let Some(pace) = pace {
            let late = pace.late(window.end_us, window.length_us, now);
            pace.shown(window.end_us, now, late);
        }
        Some(Update::Window(window, line))
    }
}

fn take_event(intake: &mut Intake, event: Event<'_>) -> Option<Update> {
    match event {
        Event::Line { bytes, complete } => match intake.take(bytes, complete) {
            Taken::Window(window) => Some(Update::Window(window, bytes.to_vec())),
            Taken::Nothing => None,
            Taken::Damaged(what) => Some(Update::Damaged(format!("a line {what}"))),
        },
        Event::Damage(what) => Some(Update::Damaged(what)),
        Event::Note(note) => Some(Update::Note(note.to_string())),
    }
}

/// Reads in a thread, which ends with its input or when nobody listens any more.
fn thread_of(inputs: Vec<Input>, pace: Option<Pace>) -> Result<From, String> {
    let (sender, lines) = mpsc::sync_channel(AHEAD);
    thread::Builder::new()
        .name("blkiolat-read".into())
        .spawn(move || inputs.iter().for_each(|input| read(input, &sender)))
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    Ok(From::Thread { lines, pace, next: None, ended: false })
}

fn read(input: &Input, sender: &SyncSender<Message>) {
    let name = input.name();
    let opened: io::Result<Box<dyn io::Read>> = match input {
        Input::Stdin => Ok(Box::new(io::stdin())),
        Input::File(path) => std::fs::File::open(path).map(|file| Box::new(file) as _),
    };
    let stream = match opened {
        Ok(stream) => stream,
        Err(error) => {
            let _ = sender.send(Message::Damage(format!("{name} cannot be opened: {error}")));
            return;
        }
    };
    for_each_line(stream, |number, event| {
        let place = format!("{name}: line {number}");
        // An error means that nobody listens any more; then the program is about to end.
        let _ = sender.send(match event {
            lines::Event::Line { bytes, complete } => {
                Message::Line { bytes: bytes.to_vec(), complete, place }
            }
            lines::Event::Damage(what) => Message::Damage(format!("{place} {what}")),
        });
    });
}

#[cfg(test)]
mod tests {
    use super::super::window::tests::{line, record};
    use super::*;

    fn player(dir: &std::path::Path, speed: Speed) -> Player {
        Player::new(Source::Replay(vec![dir.into()], speed), Intake::default()).unwrap()
    }

    fn write(dir: &std::path::Path, seqs: std::ops::Range<u64>) {
        let mut text = Vec::new();
        for seq in seqs {
            text.extend(line(&record(seq, &[("sda", 100)])));
            text.push(b'\n');
        }
        text.extend(b"no record\n");
        std::fs::write(dir.join("copy.jsonl"), text).unwrap();
    }

    fn seqs(updates: &[Update]) -> Vec<u64> {
        let window = |update: &Update| match update {
            Update::Window(window, _) => Some(window.seq),
            _ => None,
        };
        updates.iter().filter_map(window).collect()
    }

    /// Advances at time `now` until the reader has been heard.
    fn heard(
        player: &mut Player,
        now: Instant,
        is_enough: impl Fn(&[Update]) -> bool,
    ) -> Vec<Update> {
        let mut updates = Vec::new();
        while !is_enough(&updates) {
            updates.extend(player.advance(now, false));
            thread::yield_now();
        }
        updates
    }

    #[test]
    fn everything_at_once() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 0..700);
        let mut player = player(dir.path(), Speed::Max);
        let now = Instant::now();
        let updates = heard(&mut player, now, |updates| updates.last() == Some(&Update::End));
        assert_eq!(seqs(&updates), (0..700).collect::<Vec<_>>());
        let damage: Vec<_> = updates.iter().filter(|u| matches!(u, Update::Damaged(_))).collect();
        assert_eq!(damage.len(), 1);
        assert!(format!("{damage:?}").contains("copy.jsonl: line 701 is no record"));
        assert!(player.has_ended());
    }

    #[test]
    fn at_a_speed_paused_and_step_by_step() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 0..10);
        let mut player = player(dir.path(), Speed::Times(2.0));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(seqs(&heard(&mut player, start, |updates| !updates.is_empty())), [0]);
        // The next one has been read when something is to be waited for.
        while player.wait(start) != LOOK {
            assert_eq!(player.advance(start, false), []);
        }
        assert_eq!(player.advance(at(999), false), []);
        assert_eq!(player.advance(at(1000), true), []);
        assert_eq!(seqs(&heard(&mut player, at(1000), |updates| !updates.is_empty())), [1]);
        let mut next = Vec::new();
        while next.is_empty() {
            next = player.next(at(1001));
        }
        assert_eq!(seqs(&next), [2]);
        player.change_speed(Speed::faster);
        assert_eq!(player.speed(), Some(Speed::Times(5.0)));
    }

    #[test]
    fn nothing_to_replay() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::Replay(vec![dir.path().into()], Speed::Max);
        let error = Player::new(source, Intake::default()).unwrap_err();
        assert!(error.starts_with("no .jsonl"), "{error}");
        let source = Source::Replay(vec!["/nonexistent/x".into()], Speed::Max);
        let error = Player::new(source, Intake::default()).unwrap_err();
        assert!(error.contains("/nonexistent/x"), "{error}");
    }
}
