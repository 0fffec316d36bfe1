//! Names of the files: pure functions of the active file's name and a time.
//!
//! The names say everything, there is no index beside them. With the active file
//! `blkiolat.jsonl`:
//!
//! | name | what |
//! |---|---|
//! | `blkiolat.jsonl` | the active file |
//! | `blkiolat-20261122T154500.123Z.jsonl` | a segment: rotated, not yet compressed |
//! | `blkiolat-20261122T154500.123Z.jsonl.gz` | an archive: complete and synced |
//! | `blkiolat-20261122T154500.123Z.jsonl.gz.tmp` | an archive in the making |
//! | `.blkiolat.lock` | held by the daemon that writes here |
//!
//! Nothing that does not have exactly one of these shapes is ever touched.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SUFFIX: &str = ".jsonl";
/// Characters of `20261122T154500.123Z`.
const TIME_LENGTH: usize = 20;

/// A moment on the wall clock in whole milliseconds since 1970, limited to the years 0 to 9999 so
/// that its written form always has the same length and sorts as the moments do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(i64);

impl Moment {
    /// 0000-01-01T00:00:00.000Z
    const MIN: i64 = -62_167_219_200_000;
    /// 9999-12-30T21:59:59.999Z, just below the latest that jiff knows.
    const MAX: i64 = 253_402_207_199_999;

    /// The moment `millis` milliseconds after 1970 began, or the nearest that can be written.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(Self::MIN, Self::MAX))
    }

    /// The moment `seconds` after 1970 began (a record's `timestamp`).
    pub fn from_seconds(seconds: f64) -> Self {
        // Through whole microseconds, which a record's time has: 0.123 s times 1000 may be a little
        // less than 123. The cast saturates, and takes NaN to 0.
        Self::from_millis(((seconds * 1e6).round() as i64).div_euclid(1000))
    }

    /// The moment of `time`.
    pub fn from_system(time: std::time::SystemTime) -> Self {
        let millis = match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        };
        Self::from_millis(millis)
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// The next moment, one millisecond later; none after the last one.
    pub fn next(self) -> Option<Self> {
        (self.0 < Self::MAX).then(|| Self(self.0 + 1))
    }

    /// The moment that [`Display`](fmt::Display) wrote as `text`.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != TIME_LENGTH
            || bytes[8] != b'T'
            || bytes[15] != b'.'
            || bytes[19] != b'Z'
            || !bytes
                .iter()
                .enumerate()
                .all(|(i, b)| matches!(i, 8 | 15 | 19) || b.is_ascii_digit())
        {
            return None;
        }
        let number = |from: usize, to: usize| text[from..to].parse::<i16>().ok();
        let small = |from: usize, to: usize| text[from..to].parse::<i8>().ok();
        let time = DateTime::new(
            number(0, 4)?,
            small(4, 6)?,
            small(6, 8)?,
            small(9, 11)?,
            small(11, 13)?,
            small(13, 15)?,
            i32::from(number(16, 19)?) * 1_000_000,
        )
        .ok()?;
        let millis = time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond();
        (Self::MIN..=Self::MAX).contains(&millis).then_some(Self(millis))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Timestamp::from_millisecond(self.0).unwrap_or_default();
        let time = TimeZone::UTC.to_datetime(time);
        write!(
            f,
            "{:04}{:02}{:02}T{:02}{:02}{:02}.{:03}Z",
            time.year(),
            time.month(),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.millisecond()
        )
    }
}

/// What a file of ours is, told from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Rotated and not compressed.
    Segment,
    /// Compressed and complete.
    Archive,
    /// An archive in the making; a stray unless somebody is making it.
    Partial,
}

/// The names of one output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    directory: PathBuf,
    active: String,
    stem: String,
}

/// Why a path cannot be an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// It ends in `/`, `.` or `..`, or is empty.
    #[error("it does not name a file")]
    NoFile,
    /// Its last part is not UTF-8.
    #[error("its last part is not valid UTF-8")]
    NotUtf8,
    /// Segments and archives would have names that no file system takes.
    #[error("its last part is longer than 200 bytes")]
    TooLong,
}

impl Names {
    /// The names that go with the active file `path`.
    ///
    /// # Errors
    /// When `path` does not end in a usable file name.
    pub fn new(path: &Path) -> Result<Self, BadName> {
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(BadName::NoFile);
        }
        let active = path.file_name().ok_or(BadName::NoFile)?;
        let active = active.to_str().ok_or(BadName::NotUtf8)?;
        if active.len() > 200 {
            return Err(BadName::TooLong);
        }
        let stem = match active.strip_suffix(SUFFIX) {
            Some(stem) if !stem.is_empty() => stem,
            _ => active,
        };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Ok(Self { directory, active: active.to_owned(), stem: stem.to_owned() })
    }

    /// The directory of all of them.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The active file's name.
    pub fn active(&self) -> &str {
        &self.active
    }

    /// The active file's path.
    pub fn active_path(&self) -> PathBuf {
        self.directory.join(&self.active)
    }

    /// The lock file's name.
    pub fn lock(&self) -> String {
        format!(".{}.lock", self.stem)
    }

    /// The name of the file of this `kind` whose first record is of `first`.
    pub fn name(&self, first: Moment, kind: Kind) -> String {
        let end = match kind {
            Kind::Segment => "",
            Kind::Archive => ".gz",
            Kind::Partial => ".gz.tmp",
        };
        format!("{}-{first}{SUFFIX}{end}", self.stem)
    }

    /// What the file called `name` is, and the moment in its name; none if it is not ours.
    pub fn parse(&self, name: &str) -> Option<(Moment, Kind)> {
        let rest = name.strip_prefix(self.stem.as_str())?.strip_prefix('-')?;
        let (time, end) = rest.split_at_checked(TIME_LENGTH)?;
        let kind = match end.strip_prefix(SUFFIX)? {
            "" => Kind::Segment,
            ".gz" => Kind::Archive,
            ".gz.tmp" => Kind::Partial,
            _ => return None,
        };
        Some((Moment::parse(time)?, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(path: &str) -> Names {
        Names::new(Path::new(path)).unwrap()
    }

    #[test]
    fn the_names_of_the_design() {
        let names = names("/var/log/blkiolatd/blkiolat.jsonl");
        let first = Moment::from_seconds(1_795_362_300.123_9);
        assert_eq!(names.name(first, Kind::Segment), "blkiolat-20261122T154500.123Z.jsonl");
        assert_eq!(names.name(first, Kind::Archive), "blkiolat-20261122T154500.123Z.jsonl.gz");
        assert_eq!(names.name(first, Kind::Partial), "blkiolat-20261122T154500.123Z.jsonl.gz.tmp");
        assert_eq!(names.lock(), ".blkiolat.lock");
        assert_eq!(names.active_path(), Path::new("/var/log/blkiolatd/blkiolat.jsonl"));
    }

    #[test]
    fn what_is_not_exactly_ours_is_not_ours() {
        let names = names("blkiolat.jsonl");
        assert_eq!(names.directory(), Path::new("."));
        for name in [
            "blkiolat.jsonl",
            "blkiolat-.jsonl",
            "blkiolat-20261122T154500.123Z.jsonl.gz.tmp2",
            "blkiolat-20261122T154500.123Z.jsonl.xz",
            "blkiolat-20261122T154500.123Z.jsonl.1",
            "blkiolat-20261322T154500.123Z.jsonl",
            "blkiolat-20260230T154500.123Z.jsonl",
            "blkiolat-20261122T154560.123Z.jsonl",
            "blkiolat-20261122t154500.123Z.jsonl",
            "blkiolat-+0261122T154500.123Z.jsonl",
            "blkiolat-20261122T154500,123Z.jsonl",
            "blkiolat-20261122T154500.123é.jsonl",
            "other-20261122T154500.123Z.jsonl",
            "xblkiolat-20261122T154500.123Z.jsonl",
            "blkiolat-a-20261122T154500.123Z.jsonl",
        ] {
            assert_eq!(names.parse(name), None, "{name}");
        }
    }

    #[test]
    fn paths_that_name_no_file() {
        for path in ["", "/", "..", "a/..", "dir/"] {
            assert_eq!(Names::new(Path::new(path)), Err(BadName::NoFile), "{path}");
        }
        assert_eq!(Names::new(Path::new(&"x".repeat(201))), Err(BadName::TooLong));
    }

    #[test]
    fn any_file_name_will_do() {
        let names = names("out.json");
        let name = names.name(Moment::from_millis(0), Kind::Segment);
        assert_eq!(name, "out.json-19700101T000000.000Z.jsonl");
        assert_eq!(names.parse(&name), Some((Moment::from_millis(0), Kind::Segment)));
    }

    #[test]
    fn every_millisecond_survives_being_a_number_of_seconds() {
        for millis in (1_795_362_300_000..1_795_362_302_000).chain(-1000..1000) {
            assert_eq!(Moment::from_seconds(millis as f64 / 1000.0).millis(), millis);
        }
        assert_eq!(Moment::from_seconds(1.999_999).millis(), 1999);
    }

    #[test]
    fn absurd_clocks_have_names_too() {
        let names = names("b.jsonl");
        for seconds in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300, 0.0] {
            let moment = Moment::from_seconds(seconds);
            let name = names.name(moment, Kind::Archive);
            assert_eq!(names.parse(&name), Some((moment, Kind::Archive)), "{seconds} {name}");
        }
        assert_eq!(Moment::from_seconds(f64::INFINITY).next(), None);
    }

    proptest! {
        #[test]
        fn names_come_back_and_sort_as_their_times(
            a in Moment::MIN..=Moment::MAX, b in Moment::MIN..=Moment::MAX, kind in 0..3,
        ) {
            let kind = [Kind::Segment, Kind::Archive, Kind::Partial][kind as usize];
            let names = names("blkiolat.jsonl");
            let (a, b) = (Moment::from_millis(a), Moment::from_millis(b));
            let (name_a, name_b) = (names.name(a, kind), names.name(b, kind));
            prop_assert_eq!(names.parse(&name_a), Some((a, kind)));
            prop_assert_eq!(a.cmp(&b), name_a.cmp(&name_b));
        }
    }
}
