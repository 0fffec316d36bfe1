//! Lines of one plain or gzip-compressed stream, in bounded memory, past damage.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

/// Longest line that is read, in bytes; a record of a thousand busy disks is a tenth of it.
pub const MAX_LINE: usize = 16 << 20;
/// Size of the buffers for compressed and for plain bytes.
const BUFFER: usize = 128 << 10;
/// First bytes of a gzip member: its magic number and the one method there is.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// What a stream yields.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A line without its newline. `complete` is false for a last line that has none.
    Line {
        /// The line's bytes.
        bytes: &'a [u8],
        /// Whether a newline ended it.
        complete: bool,
    },
    /// Something that is no line; reading goes on behind it if anything is left.
    Damage(String),
}

/// Calls `each` with the number (from 1) and content of every line of `input`, which may be plain
/// or gzip-compressed (any number of members; told apart by content). Damage is passed to `each`
/// with the number of the line it struck.
pub fn for_each_line<R: Read>(input: R, mut each: impl FnMut(u64, Event<'_>)) {
    let mut input = BufReader::with_capacity(BUFFER, input);
    // A pipe may hand out one byte at first, and that one is enough: no record begins with it.
    let compressed = match peek(&mut input) {
        Ok(start) => start.first() == Some(&MAGIC[0]),
        Err(error) => return each(1, Event::Damage(format!("cannot be read: {error}"))),
    };
    if compressed {
        let members = Members { state: State::Between(Pushback::new(input)), quiet: false };
        read_lines(BufReader::with_capacity(BUFFER, members), each);
    } else {
        read_lines(input, each);
    }
}

fn peek<R: Read>(input: &mut BufReader<R>) -> io::Result<&[u8]> {
    loop {
        match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(input.buffer()),
        }
    }
}

fn read_lines(mut input: impl BufRead, mut each: impl FnMut(u64, Event<'_>)) {
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        number += 1;
        // Nearly every line lies in the buffer as a whole and is not copied.
        let whole = match input.fill_buf() {
            Ok(buffer) => memchr::memchr(b'\n', buffer).inspect(|&length| {
                each(number, Event::Line { bytes: &buffer[..length], complete: true });
            }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(error) if report(number, &error, &mut each) => continue,
            Err(_) => return,
        };
        if let Some(length) = whole {
            input.consume(length + 1);
            continue;
        }
        match input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) if line.last() == Some(&b'\n') => {
                line.pop();
                each(number, Event::Line { bytes: &line, complete: true });
            }
            Ok(length) if length > MAX_LINE => {
                each(number, Event::Damage(format!("is longer than {} MiB", MAX_LINE >> 20)));
                if let Err(error) = input.skip_until(b'\n')
                    && !report(number, &error, &mut each)
                {
                    return;
                }
            }
            Ok(_) => each(number, Event::Line { bytes: &line, complete: false }),
            Err(error) => {
                if !report(number, &error, &mut each) {
                    return;
                }
            }
        }
    }
}

/// Passes on an error and says whether reading can go on: after damage to a gzip member it can,
/// because [`Members`] then stands at the next one or at the end.
fn report(number: u64, error: &io::Error, each: &mut impl FnMut(u64, Event<'_>)) -> bool {
    let damaged = error.kind() == io::ErrorKind::InvalidData;
    let text = if damaged { error.to_string() } else { format!("cannot be read: {error}") };
    each(number, Event::Damage(text));
    damaged
}

/// The plain bytes of consecutive gzip members. Damage is an error of kind `InvalidData`, after
/// which the next read continues with the next member that can be found.
struct Members<R> {
    state: State<R>,
    /// Set after damage until a member yields bytes, so that a false trail is not one more report.
    quiet: bool,
}

enum State<R> {
    Between(Pushback<R>),
    Inside(Box<GzDecoder<Pushback<R>>>),
    Lost(Pushback<R>),
    End,
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, State::End) {
                State::End => return Ok(0),
                State::Between(mut input) => {
                    skip_zeros(&mut input)?;
                    if input.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    self.state = State::Inside(Box::new(GzDecoder::new(input)));
                }
                State::Lost(mut input) => {
                    if find_member(&mut input)? {
                        self.state = State::Inside(Box::new(GzDecoder::new(input)));
                    }
                }
                State::Inside(mut decoder) => match decoder.read(out) {
                    Ok(0) => self.state = State::Between(decoder.into_inner()),
                    Ok(length) => {
                        self.quiet = false;
                        self.state = State::Inside(decoder);
                        return Ok(length);
                    }
                    Err(error) => {
                        let Some(text) = damage(&error) else { return Err(error) };
                        self.state = State::Lost(decoder.into_inner());
                        if !std::mem::replace(&mut self.quiet, true) {
                            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                        }
                    }
                },
            }
        }
    }
}

/// What the decoder found wrong with the data; `None` for an error of the file itself.
fn damage(error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Some("the gzip data ends early".into()),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Some(format!("the gzip data is corrupt ({error})"))
        }
        _ => None,
    }
}

/// Padding with zeros after a member is no damage; gzip(1) ignores it too.
fn skip_zeros(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let zeros = buffer.iter().take_while(|&&byte| byte == 0).count();
        let more = zeros == buffer.len() && zeros > 0;
        input.consume(zeros);
        if !more {
            return Ok(());
        }
    }
}

/// Goes to the next [`MAGIC`]; false when there is none.
fn find_member<R: BufRead>(input: &mut Pushback<R>) -> io::Result<bool> {
    let mut matched = 0;
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(false);
        }
        let mut used = 0;
        for &byte in buffer {
            used += 1;
            matched = match (byte == MAGIC[matched], byte == MAGIC[0]) {
                (true, _) => matched + 1,
                (false, true) => 1,
                (false, false) => 0,
            };
            if matched == MAGIC.len() {
                break;
            }
        }
        input.consume(used);
        if matched == MAGIC.len() {
            input.front = MAGIC.to_vec();
            return Ok(true);
        }
    }
}

/// A reader in front of which bytes can be put back.
struct Pushback<R> {
    front: Vec<u8>,
    inner: R,
}

impl<R> Pushback<R> {
    fn new(inner: R) -> Self {
        Self { front: Vec::new(), inner }
    }
}

impl<R: BufRead> BufRead for Pushback<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.front.is_empty() { self.inner.fill_buf() } else { Ok(&self.front) }
    }

    fn consume(&mut self, amount: usize) {
        if self.front.is_empty() {
            self.inner.consume(amount);
        } else {
            self.front.drain(..amount);
        }
    }
}

impl<R: BufRead> Read for Pushback<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(out)?;
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Lines as text (with `~` when incomplete) and damage with `!`, each with its number.
    fn read(input: impl Read) -> Vec<String> {
        let mut events = Vec::new();
        for_each_line(input, |number, event| {
            events.push(match event {
                Event::Line { bytes, complete } => {
                    let end = if complete { "" } else { "~" };
                    format!("{number}:{}{end}", String::from_utf8_lossy(bytes))
                }
                Event::Damage(text) => format!("{number}!{text}"),
            });
        });
        events
    }

    /// Hands out one byte per read, like a slow pipe.
    struct Dribble<'a>(&'a [u8]);

    impl Read for Dribble<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let length = out.len().min(1);
            self.0.read(&mut out[..length])
        }
    }

    /// Lines that do not compress away, so that a member has a middle to damage.
    fn noisy_lines(name: char, count: usize) -> String {
        let mut state = 1u64;
        (0..count)
            .map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                format!("{name}{i}-{state:016x}\n")
            })
            .collect()
    }

    #[test]
    fn plain_lines() {
        assert_eq!(read(&b""[..]), [""; 0]);
        assert_eq!(read(&b"a\n\nb\n"[..]), ["1:a", "2:", "3:b"]);
        assert_eq!(read(&b"a\nto"[..]), ["1:a", "2:to~"]);
    }

    #[test]
    fn members_one_after_the_other() {
        let mut bytes = gzip(b"a\nb");
        bytes.extend(gzip(b"c\nd\n"));
        bytes.extend([0; 700]);
        assert_eq!(read(&bytes[..]), ["1:a", "2:bc", "3:d"]);
        assert_eq!(read(&bytes[..2]), ["1!the gzip data ends early"]);
    }

    #[test]
    fn damaged_member_is_reported_and_the_next_one_used() {
        let first = gzip(noisy_lines('a', 2000).as_bytes());
        let middle = first.len() / 2;
        let mut bytes = first.clone();
        for byte in &mut bytes[middle..middle + 64] {
            *byte = 0xff;
        }
        bytes.extend(gzip(b"last\n"));
        let events = read(&bytes[..]);
        let damage: Vec<_> = events.iter().filter(|e| e.contains('!')).collect();
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert!(damage[0].contains("corrupt"));
        assert!(events[0].starts_with("1:a0-"));
        assert!(events.last().unwrap().ends_with(":last"), "{:?}", events.last());
    }

    #[test]
    fn wrong_checksum_and_early_end() {
        let text = noisy_lines('a', 50);
        let whole = gzip(text.as_bytes());
        let mut flipped = whole.clone();
        let crc = flipped.len() - 8;
        flipped[crc] ^= 1;
        flipped.extend(gzip(b"next\n"));
        let events = read(&flipped[..]);
        assert_eq!(events.len(), 52);
        assert!(events[50].starts_with("51!the gzip data is corrupt"), "{}", events[50]);
        assert_eq!(events[51], "52:next");

        let events = read(&whole[..whole.len() / 2]);
        assert_eq!(events.iter().filter(|e| e.contains("!the gzip data ends early")).count(), 1);
        assert!(events.len() > 10 && events.len() < 51);
    }

    #[test]
    fn garbage_behind_a_member() {
        let mut bytes = gzip(b"a\n");
        bytes.extend(b"garbage that is no gzip member \x1f\x8b");
        let events = read(&bytes[..]);
        assert_eq!(events[0], "1:a");
        assert_eq!(events.len(), 2, "{events:?}");
        assert!(events[1].starts_with("2!the gzip data is corrupt"));
    }

    #[test]
    fn endless_line_is_skipped_in_bounded_memory() {
        let long = io::repeat(b'x').take(3 * MAX_LINE as u64);
        let events = read((&b"a\n"[..]).chain(long).chain(&b"\nb\n"[..]));
        assert_eq!(events, ["1:a", "2!is longer than 16 MiB", "3:b"]);
    }

    #[test]
    fn error_of_the_file_ends_it() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("no medium"))
            }
        }
        assert_eq!(read((&b"a\n"[..]).chain(Broken)), ["1:a", "2!cannot be read: no medium"]);
        assert_eq!(read(Broken), ["1!cannot be read: no medium"]);
    }

    proptest! {
        /// However a text is cut into members and reads, its lines are the same.
        #[test]
        fn cuts_do_not_matter(text in "[ab\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..4)) {
            let expected = read(text.as_bytes());
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let members: Vec<u8> =
                cuts.windows(2).flat_map(|w| gzip(&text.as_bytes()[w[0]..w[1]])).collect();
            prop_assert_eq!(&read(&members[..]), &expected);
            prop_assert_eq!(&read(Dribble(&members)), &expected);
        }

        /// No damage makes the reader fail, hang or invent more than the lines around it.
        #[test]
        fn any_damage_is_survived(at in 0usize..4000, byte in any::<u8>(), cut in 0usize..4000) {
            let mut bytes = gzip(noisy_lines('a', 60).as_bytes());
            let split = bytes.len();
            bytes.extend(gzip(noisy_lines('b', 60).as_bytes()));
            let at = at % split;
            let changed = bytes[at] != byte;
            bytes[at] = byte;
            bytes.truncate(bytes.len() - cut % split.min(bytes.len()));
            let events = read(&bytes[..]);
            prop_assert!(!events.is_empty());
            if !changed && bytes.len() == 2 * split {
                prop_assert_eq!(events.len(), 120);
            }
        }
    }
}
