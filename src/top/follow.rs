//! Follows the active file of a daemon: from its last windows on, through rotation, truncation and
//! removal.
//!
//! The writer appends whole batches of lines and, when one fails half-way, cuts the file back to
//! the last whole line. So only whole lines are consumed, and what stands behind the last newline
//! is read again when there is more. A file that became shorter is read again from its beginning,
//! and so is every file of which it is not certain how much was read: that each window is taken
//! once is the intake's business ([`super::window::Intake`]).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::archive::names::{Kind, Moment, Names};
use crate::archive::reader::lines::{self, MAX_LINE};

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;
/// Chunks that are read before others get their turn: 64 MiB.
const CHUNKS: usize = 256;

/// What following yields.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A line without its newline.
    Line {
        /// Its bytes.
        bytes: &'a [u8],
        /// Whether a newline ended it.
        complete: bool,
    },
    /// Something in the file is no line; what, as a sentence.
    Damage(String),
    /// Something happened to the file.
    Note(Note),
}

/// What can happen to a file that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It cannot be opened, and is tried again and again.
    Waiting(String),
    /// It is there now.
    Appeared,
    /// A new file took its name; the old one was read to its end.
    Rotated,
    /// Rotated files that were made since then, and are read now.
    Segments(usize),
    /// It became shorter and is read again.
    Truncated,
    /// Its last name was removed.
    Removed,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting(why) => write!(f, "waiting for it: {why}"),
            Self::Appeared => f.write_str("it is there now"),
            Self::Rotated => f.write_str("it was rotated; going on with the new one"),
            Self::Segments(1) => f.write_str("it was rotated; 1 more segment was made since"),
            Self::Segments(n) => write!(f, "it was rotated; {n} more segments were made since"),
            Self::Truncated => f.write_str("it was truncated; it is read again from its beginning"),
            Self::Removed => f.write_str("it was removed; waiting for a new one"),
        }
    }
}

/// A file that is followed by name.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    /// The names of its rotated files; none if its name cannot be that of an output.
    names: Option<Names>,
    open: Option<Open>,
    /// That there is no file has been said.
    said_waiting: bool,
}

/// The file that has, or had, the name.
#[derive(Debug)]
struct Open {
    file: File,
    id: (u64, u64),
    /// End of the last line that was consumed.
    offset: u64,
    /// Size at which there was no further line.
    exhausted: u64,
    /// Inside of a line that is too long.
    skipping: bool,
    /// Time of its first record, once it has one: the rotated file will have it in its name.
    first: Option<Moment>,
    said_removed: bool,
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        // A look before opening: opening a FIFO waits for somebody who writes into it.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let file = File::open(path)?;
        let id = id_of(&file.metadata()?);
        let (offset, exhausted) = (0, 0);
        Ok(Self { file, id, offset, exhausted, skipping: false, first: None, said_removed: false })
    }

    /// Looks for the time of the first record.
    fn look_at_first(&mut self) {
        let mut head = [0; 64];
        if self.first.is_none()
            && let Ok(length) = self.file.read_at(&mut head, 0)
        {
            self.first = crate::archive::first_moment(&head[..length]);
        }
    }

    /// Reads the lines behind the last one that was consumed; true if there may be more.
    fn read(&mut self, each: &mut dyn FnMut(Event<'_>)) -> io::Result<bool> {
        let size = self.file.metadata()?.size();
        if size < self.offset {
            (self.offset, self.exhausted, self.skipping, self.first) = (0, 0, false, None);
            each(Event::Note(Note::Truncated));
        }
        if size == self.exhausted {
            return Ok(false);
        }
        let mut buffer = Vec::new();
        for _ in 0..CHUNKS {
            let begin = buffer.len();
            buffer.resize(begin + CHUNK, 0);
            let length = self.file.read_at(&mut buffer[begin..], self.offset + begin as u64)?;
            buffer.truncate(begin + length);
            if length == 0 {
                self.exhausted = self.offset + buffer.len() as u64;
                return Ok(false);
            }
            let consumed = self.consume(&buffer, begin, each);
            buffer.drain(..consumed);
            self.offset += consumed as u64;
        }
        Ok(true)
    }

    /// Passes on the whole lines of `buffer`, in which there is no newline before `from`; returns
    /// how long they are together.
    fn consume(&mut self, buffer: &[u8], from: usize, each: &mut dyn FnMut(Event<'_>)) -> usize {
        let mut consumed = 0;
        let mut search = from;
        while let Some(length) = buffer[search..].iter().position(|&byte| byte == b'\n') {
            let end = search + length;
            if !std::mem::take(&mut self.skipping) {
                each(Event::Line { bytes: &buffer[consumed..end], complete: true });
            }
            (consumed, search) = (end + 1, end + 1);
        }
        if buffer.len() - consumed > MAX_LINE {
            if !std::mem::replace(&mut self.skipping, true) {
                let text = format!("a line is longer than {} MiB", MAX_LINE >> 20);
                each(Event::Damage(text));
            }
            consumed = buffer.len();
        }
        consumed
    }

    /// What stands behind the last line when nobody will write any more.
    fn read_torn(&self, each: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        let length = self.file.metadata()?.size().saturating_sub(self.offset);
        let mut torn = vec![0; usize::try_from(length).unwrap_or(MAX_LINE).min(MAX_LINE)];
        let length = self.file.read_at(&mut torn, self.offset)?;
        if length > 0 && !self.skipping {
            each(Event::Line { bytes: &torn[..length], complete: false });
        }
        Ok(())
    }

    /// Goes behind the last whole line and returns the last `count` of those before.
    fn last_lines(&mut self, count: usize) -> io::Result<VecDeque<Vec<u8>>> {
        let size = self.file.metadata()?.size();
        let mut begin = size;
        // From the end backwards, until there are so many newlines and the one before.
        let mut tail = Vec::new();
        let mut newlines = 0;
        while begin > 0 && newlines <= count && tail.len() < (CHUNKS * CHUNK) {
            let length = begin.min(CHUNK as u64);
            begin -= length;
            let mut chunk = vec![0; length as usize];
            self.file.read_exact_at(&mut chunk, begin)?;
            newlines += chunk.iter().filter(|&&byte| byte == b'\n').count();
            tail.splice(0..0, chunk);
        }
        let Some(last) = tail.iter().rposition(|&byte| byte == b'\n') else {
            return Ok(VecDeque::new());
        };
        self.offset = begin + last as u64 + 1;
        let mut lines: VecDeque<_> = tail[..last].split(|&byte| byte == b'\n').collect();
        if begin > 0 {
            // It began before.
            lines.pop_front();
        }
        let surplus = lines.len().saturating_sub(count);
        Ok(lines.into_iter().skip(surplus).map(<[u8]>::to_vec).collect())
    }
}

fn id_of(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Follow {
    /// Begins to follow `path`, which need not be there, and passes on its last `history` lines;
    /// if it has fewer, also those of the files that were rotated before.
    pub fn new(path: &Path, history: usize, each: &mut dyn FnMut(Event<'_>)) -> Self {
        let names = Names::new(path).ok();
        let mut follow = Self { path: path.to_owned(), names, open: None, said_waiting: false };
        let mut lines = VecDeque::new();
        match Open::at(path) {
            Ok(mut open) => {
                match open.last_lines(history) {
                    Ok(last) => lines = last,
                    // Then it is read from the beginning.
                    Err(error) => each(Event::Damage(format!("cannot be read: {error}"))),
                }
                open.look_at_first();
                follow.open = Some(open);
            }
            Err(error) => follow.say_waiting(&error, each),
        }
        let before = follow.open.as_ref().and_then(|open| open.first);
        for (_, rotated) in follow.rotated(None, before).into_iter().rev() {
            let missing = history.saturating_sub(lines.len());
            if missing == 0 {
                break;
            }
            let earlier = last_lines_of(&rotated, missing);
            earlier.into_iter().rev().for_each(|line| lines.push_front(line));
        }
        for line in &lines {
            each(Event::Line { bytes: line, complete: true });
        }
        follow
    }

    /// Passes on what is new since the last time.
    pub fn poll(&mut self, each: &mut dyn FnMut(Event<'_>)) {
        if let Err(error) = self.step(each) {
            // The file itself fails, for example on a network file system: begin anew with it.
            self.open = None;
            self.say_waiting(&error, each);
        }
    }

    fn step(&mut self, each: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        let Some(open) = &mut self.open else {
            match Open::at(&self.path) {
                Ok(open) => {
                    self.open = Some(open);
                    if std::mem::take(&mut self.said_waiting) {
                        each(Event::Note(Note::Appeared));
                    }
                }
                Err(error) => {
                    self.say_waiting(&error, each);
                    return Ok(());
                }
            }
            return self.step(each);
        };
        open.look_at_first();
        if open.read(each)? {
            return Ok(());
        }
        match fs::metadata(&self.path) {
            Ok(there) if id_of(&there) == open.id => {
                open.said_removed = false;
                Ok(())
            }
            Ok(_) => self.go_on_with_new(each),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A daemon whose file was moved or removed may still write into it.
                if !open.said_removed && open.file.metadata()?.nlink() == 0 {
                    open.said_removed = true;
                    each(Event::Note(Note::Removed));
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the rest of the old file, the segments that were made since, and opens the new file.
    fn go_on_with_new(&mut self, each: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        // Opened before the directory is listed: what is rotated after that is this file, or later.
        let mut new = match Open::at(&self.path) {
            Ok(new) => new,
            // Gone again: then the next look will tell.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        new.look_at_first();
        let Some(mut old) = self.open.take() else { return Ok(()) };
        // Whoever renamed it has written to it before: what is there now is all of it.
        while old.read(each)? {}
        old.read_torn(each)?;
        old.look_at_first();
        let between = match old.first {
            Some(first) => self.rotated(Some(first), new.first),
            // It never had a record, and nothing says what was rotated since.
            None => BTreeMap::new(),
        };
        each(Event::Note(match between.len() {
            0 if old.said_removed => Note::Appeared,
            0 => Note::Rotated,
            several => Note::Segments(several),
        }));
        for path in between.values() {
            read_whole(path, each);
        }
        self.open = Some(new);
        Ok(())
    }

    /// The rotated files whose first record is later than `after` and earlier than `before`, in
    /// order of time; an archive only where there is no segment.
    fn rotated(&self, after: Option<Moment>, before: Option<Moment>) -> BTreeMap<Moment, PathBuf> {
        let mut found = BTreeMap::new();
        let Some(names) = &self.names else { return found };
        let Ok(entries) = fs::read_dir(names.directory()) else { return found };
        for entry in entries.flatten() {
            let Some((moment, kind)) = entry.file_name().to_str().and_then(|n| names.parse(n))
            else {
                continue;
            };
            if kind == Kind::Partial
                || after.is_some_and(|after| moment <= after)
                || before.is_some_and(|before| moment >= before)
            {
                continue;
            }
            if kind == Kind::Segment || !found.contains_key(&moment) {
                found.insert(moment, entry.path());
            }
        }
        found
    }

    fn say_waiting(&mut self, error: &io::Error, each: &mut dyn FnMut(Event<'_>)) {
        if !std::mem::replace(&mut self.said_waiting, true) {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "there is no such file yet".into(),
                _ => error.to_string(),
            };
            each(Event::Note(Note::Waiting(why)));
        }
    }
}

/// Opens a rotated file, or its archive when it was compressed since it was found.
fn open_rotated(path: &Path) -> io::Result<File> {
    File::open(path).or_else(|error| {
        let mut archive = path.to_owned().into_os_string();
        archive.push(".gz");
        File::open(archive).map_err(|_| error)
    })
}

/// The last `count` lines of a rotated file; damage between them is of no concern here.
fn last_lines_of(path: &Path, count: usize) -> VecDeque<Vec<u8>> {
    let mut last = VecDeque::new();
    if let Ok(file) = open_rotated(path) {
        lines::for_each_line(file, |_, event| {
            if let lines::Event::Line { bytes, complete: true } = event {
                if last.len() == count {
                    last.pop_front();
                }
                last.push_back(bytes.to_vec());
            }
        });
    }
    last
}

fn read_whole(path: &Path, each: &mut dyn FnMut(Event<'_>)) {
    match open_rotated(path) {
        Ok(file) => lines::for_each_line(file, |_, event| match event {
            lines::Event::Line { bytes, complete } => each(Event::Line { bytes, complete }),
            lines::Event::Damage(what) => {
                each(Event::Damage(format!("{}: {what}", path.display())));
            }
        }),
        Err(error) => each(Event::Damage(format!("{} cannot be read: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// What a poll yields: lines, `~` behind a torn one, notes in brackets.
    fn shown(events: &mut Vec<String>) -> impl FnMut(Event<'_>) {
        |event| {
            events.push(match event {
                Event::Line { bytes, complete } => {
                    let torn = if complete { "" } else { "~" };
                    format!("{}{torn}", String::from_utf8_lossy(bytes))
                }
                Event::Damage(what) => format!("!{what}"),
                Event::Note(note) => format!("[{note:?}]"),
            });
        }
    }

    fn start(path: &Path, history: usize) -> (Follow, Vec<String>) {
        let mut events = Vec::new();
        let follow = Follow::new(path, history, &mut shown(&mut events));
        (follow, events)
    }

    fn poll(follow: &mut Follow) -> Vec<String> {
        let mut events = Vec::new();
        follow.poll(&mut shown(&mut events));
        events
    }

    fn append(path: &Path, text: &str) {
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn only_whole_lines_and_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.jsonl");
        append(&path, "one\ntwo\nthree\nfo");
        let (mut follow, events) = start(&path, 2);
        assert_eq!(events, ["two", "three"]);
        assert_eq!(poll(&mut follow), [""; 0]);
        append(&path, "u");
        assert_eq!(poll(&mut follow), [""; 0]);
        append(&path, "r\nfive\nsi");
        assert_eq!(poll(&mut follow), ["four", "five"]);
        append(&path, "x\n");
        assert_eq!(poll(&mut follow), ["six"]);
        assert_eq!(poll(&mut follow), [""; 0]);
    }

    #[test]
    fn history_is_found_from_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.jsonl");
        let lines: Vec<String> = (0..50_000).map(|n| format!("line {n:05}")).collect();
        append(&path, &(lines.join("\n") + "\n"));
        for count in [0, 1, 30_000, 50_000, 60_000] {
            let (mut follow, events) = start(&path, count);
            assert_eq!(events, lines[50_000 - count.min(50_000)..], "{count}");
            assert_eq!(poll(&mut follow), [""; 0]);
        }
    }

    #[test]
    fn waits_for_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.jsonl");
        let (mut follow, events) = start(&path, 5);
        assert_eq!(events, ["[Waiting(\"there is no such file yet\")]"]);
        assert_eq!(poll(&mut follow), [""; 0]);
        append(&path, "one\n");
        assert_eq!(poll(&mut follow), ["[Appeared]", "one"]);
    }

    #[test]
    fn no_regular_file_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (_, events) = start(dir.path(), 5);
        assert_eq!(events, ["[Waiting(\"it is no regular file\")]"]);
    }

    #[test]
    fn rotation_by_hand() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.jsonl");
        append(&path, "one\n");
        let (mut follow, _) = start(&path, 0);
        fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        // Whoever had it open still writes into it.
        append(&dir.path().join("elsewhere"), "two\nto");
        assert_eq!(poll(&mut follow), ["two"]);
        append(&path, "three\n");
        assert_eq!(poll(&mut follow), ["to~", "[Rotated]"]);
        assert_eq!(poll(&mut follow), ["three"]);
    }

    #[test]
    fn truncation_and_removal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.jsonl");
        append(&path, "one\ntwo\n");
        let (mut follow, _) = start(&path, 9);
        fs::write(&path, "2\n").unwrap();
        assert_eq!(poll(&mut follow), ["[Truncated]", "2"]);
        fs::write(&path, "").unwrap();
        assert_eq!(poll(&mut follow), ["[Truncated]"]);
        append(&path, "3\n");
        assert_eq!(poll(&mut follow), ["3"]);
        fs::remove_file(&path).unwrap();
        assert_eq!(poll(&mut follow), ["[Removed]"]);
        assert_eq!(poll(&mut follow), [""; 0]);
        append(&path, "4\n");
        assert_eq!(poll(&mut follow), ["[Appeared]"]);
        assert_eq!(poll(&mut follow), ["4"]);
    }

    #[test]
    fn endless_lines_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.jsonl");
        append(&path, "one\n");
        let (mut follow, _) = start(&path, 9);
        append(&path, &"x".repeat(MAX_LINE + CHUNK + 5));
        assert_eq!(poll(&mut follow), ["!a line is longer than 16 MiB"]);
        append(&path, "still\ntwo\n");
        assert_eq!(poll(&mut follow), ["two"]);
    }
}
