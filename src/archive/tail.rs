//! The end of a file of lines, and how it is put right. The decisions are pure.

use std::fs::File;
use std::io;

use super::disk::Disk;
use super::names::Moment;

/// How every line of ours begins. The key is the first one for ever (see [`crate::record`]).
pub(crate) const BEGINNING: &[u8] = b"{\"timestamp\":";

/// What follows the last newline of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing: the last line is whole.
    Whole,
    /// A part of a line of ours, or zeros where a power failure kept the data from the disk.
    Torn,
    /// Something that we did not write.
    Foreign,
}

/// Judges a tail by its first bytes (at least as many as [`BEGINNING`] has, unless it is shorter).
pub(crate) fn judge(tail: &[u8]) -> Tail {
    if tail.is_empty() {
        return Tail::Whole;
    }
    let text = tail.iter().position(|byte| *byte == 0).map_or(tail, |zero| &tail[..zero]);
    if text.starts_with(BEGINNING) || BEGINNING.starts_with(text) {
        Tail::Torn
    } else {
        Tail::Foreign
    }
}

/// The time of a record, from the beginning of its line.
pub(crate) fn moment(line: &[u8]) -> Option<Moment> {
    let rest = line.strip_prefix(BEGINNING)?;
    let end = rest.iter().position(|byte| matches!(byte, b',' | b'}'))?;
    // The original script puts a space after the colon; its files can be continued.
    let seconds: f64 = std::str::from_utf8(&rest[..end]).ok()?.trim().parse().ok()?;
    seconds.is_finite().then(|| Moment::from_seconds(seconds))
}

/// Bytes that are read at a time.
const CHUNK: u64 = 64 << 10;

/// Makes a file of `size` bytes end with a whole line; returns its new size.
///
/// A torn line is cut off, and so are whole ones before it that have zeros in them, which only a
/// power failure leaves. A foreign one is ended with a newline instead: it is not ours to remove.
pub(crate) fn repair(disk: &Disk, file: &File, size: u64) -> io::Result<u64> {
    let start = line_start(disk, file, size)?;
    let mut first = [0; BEGINNING.len()];
    let length = usize::try_from(size - start).unwrap_or(usize::MAX).min(first.len());
    let length = disk.read_at(file, &mut first[..length], start)?;
    let mut end = match judge(&first[..length]) {
        Tail::Whole => size,
        Tail::Torn => start,
        Tail::Foreign => {
            disk.append(file, b"\n")?;
            return Ok(size + 1);
        }
    };
    while end > 0 {
        let start = line_start(disk, file, end - 1)?;
        if !has_zero(disk, file, start, end)? {
            break;
        }
        end = start;
    }
    if end < size {
        disk.truncate(file, end)?;
    }
    Ok(end)
}

/// Where the line begins that ends at `end`: after the last newline before it.
fn line_start(disk: &Disk, file: &File, end: u64) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK as usize];
    let mut until = end;
    while until > 0 {
        let from = until.saturating_sub(CHUNK);
        let length = disk.read_at(file, &mut buffer[..(until - from) as usize], from)?;
        if let Some(newline) = buffer[..length].iter().rposition(|byte| *byte == b'\n') {
            return Ok(from + newline as u64 + 1);
        }
        until = from;
    }
    Ok(0)
}

fn has_zero(disk: &Disk, file: &File, start: u64, end: u64) -> io::Result<bool> {
    let mut buffer = vec![0; CHUNK as usize];
    let mut from = start;
    while from < end {
        let length = (end - from).min(CHUNK) as usize;
        let length = disk.read_at(file, &mut buffer[..length], from)?;
        if length == 0 {
            break;
        }
        if buffer[..length].contains(&0) {
            return Ok(true);
        }
        from += length as u64;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::disk::{Progress, Purpose};
    use std::sync::Arc;

    fn repaired(content: &[u8]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, content).unwrap();
        let disk = Disk::new(Arc::new(Progress::new()));
        let at = disk.open_directory(dir.path()).unwrap();
        let file = disk.open(&at, "f", Purpose::Append).unwrap();
        let size = repair(&disk, &file, content.len() as u64).unwrap();
        let result = std::fs::read(&path).unwrap();
        assert_eq!(result.len() as u64, size);
        result
    }

    #[test]
    fn tails() {
        assert_eq!(judge(b""), Tail::Whole);
        for torn in [&b"{"[..], b"{\"time", b"{\"timestamp\":12", b"\0\0\0", b"{\"ti\0\0"] {
            assert_eq!(judge(torn), Tail::Torn, "{torn:?}");
        }
        for foreign in [&b"hello"[..], b"{\"time\":", b"x\0\0", b" {\"timestamp\":1"] {
            assert_eq!(judge(foreign), Tail::Foreign, "{foreign:?}");
        }
    }

    #[test]
    fn moments() {
        let line = b"{\"timestamp\":1691400312.123,\"iso_timestamp\":\"x\"}";
        assert_eq!(moment(line).map(Moment::millis), Some(1_691_400_312_123));
        assert_eq!(moment(b"{\"timestamp\": 1, \"iso").map(Moment::millis), Some(1000));
        assert_eq!(moment(b"{\"timestamp\":1}").map(Moment::millis), Some(1000));
        for bad in [&b"{\"timestamp\":inf,"[..], b"{\"timestamp\":", b"{}", b"{\"timestamp\":x,"] {
            assert_eq!(moment(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn every_cut_of_a_file_is_repaired_to_its_whole_lines() {
        let lines = b"{\"timestamp\":1.5,\"a\":1}\n{\"timestamp\":2.5,\"a\":2}\n";
        for cut in 0..=lines.len() {
            let whole = lines[..cut].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
            assert_eq!(repaired(&lines[..cut]), &lines[..whole], "cut at {cut}");
        }
    }

    #[test]
    fn zeros_go_and_foreign_text_stays() {
        let line = b"{\"timestamp\":1.5}\n".as_slice();
        let with = |tail: &[u8]| [line, tail].concat();
        assert_eq!(repaired(&with(&[0; 5000])), line);
        assert_eq!(repaired(&with(b"\0\0\0\"x\":1}\n\0\0")), line);
        assert_eq!(repaired(&with(b"{\"timestamp\":2,\0\0}\n")), line);
        assert_eq!(repaired(&with(b"note")), with(b"note\n"));
        assert_eq!(repaired(b"\0\0\0"), b"");
    }

    #[test]
    fn lines_longer_than_a_chunk() {
        let long = [BEGINNING, &vec![b'1'; 200_000], b"}\n"].concat();
        let two = [long.as_slice(), &long[..150_000]].concat();
        assert_eq!(repaired(&two), long);
    }
}
