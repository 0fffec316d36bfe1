//! Reads one value of the configuration: lengths of time, sizes, globs, paths. Pure, and shared by
//! the file and the command line, so that both accept the same forms.

use std::ops::{Range, RangeInclusive};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use globset::Glob;
use toml::Spanned;
use toml::de::DeValue;

use super::FreeSpace;

/// A value of the file, with its place in the text.
pub type Value<'t> = Spanned<DeValue<'t>>;

/// Shortest and longest window.
pub const INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(3600);
/// Fewest and most lines that are collected before they are written.
pub const FLUSH_EVERY: RangeInclusive<u32> = 1..=100_000;

/// Most characters of a refused value that a message repeats.
const QUOTED: usize = 60;
/// Longest run of digits in a length of time or a size; see [`parse_duration`].
const MOST_DIGITS: usize = 15;

/// Why a value cannot be used: the end of the sentence "expected …; found …".
#[derive(Debug)]
pub struct Fault {
    /// Bytes of the text that are wrong.
    pub span: Range<usize>,
    /// What stands there.
    pub found: String,
}

impl Fault {
    fn new(value: &Value<'_>, found: impl Into<String>) -> Self {
        Self { span: value.span(), found: found.into() }
    }

    fn because(value: &Value<'_>, reason: &str) -> Self {
        Self::new(value, format!("{} ({reason})", describe(value.get_ref())))
    }
}

/// The value as the user sees it, cut short where it is long.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quote(text),
        DeValue::Integer(number) => cut(&number.to_string()),
        DeValue::Float(number) => cut(&number.to_string()),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) => "a date or time".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// `text` in quotation marks with control characters escaped, cut short where it is long.
pub fn quote(text: &str) -> String {
    format!("{:?}", cut(text))
}

/// `text` with control characters escaped.
fn without_controls(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    text.chars().map(escape).collect()
}

fn check_range<T: PartialOrd>(
    number: T,
    range: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    if number < *range.start() {
        Err(format!("less than {}", show(range.start())))
    } else if number > *range.end() {
        Err(format!("more than {}", show(range.end())))
    } else {
        Ok(number)
    }
}

fn seconds(number: f64) -> Result<Duration, String> {
    if number < 0.0 {
        return Err("less than nothing".into());
    }
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

fn has_endless_digits(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_digit()).any(|run| run.len() > MOST_DIGITS)
}

/// Reads a length of time: `5s`, `1h 30m`, `30d`, or a number of seconds (`0.5`).
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    // humantime 2.4 adds with an overflow check that misses a carry: nearly 2^64 seconds and
    // exactly 10^9 ns panic. Nobody needs so many digits.
    if has_endless_digits(text) {
        return Err("too many digits".into());
    }
    let text = text.trim();
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == '-')
        && let Ok(number) = text.parse::<f64>()
    {
        return seconds(number);
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// A length of time in the form that [`parse_duration`] reads, without loss.
pub fn show_duration(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// Reads a number of bytes: `64MiB`, `2GiB`, `500 kB`, or a plain number.
pub fn parse_size(text: &str) -> Result<u64, String> {
    // bytesize saturates where a number is too large; a range check could not tell.
    if has_endless_digits(text) {
        return Err("too many digits".into());
    }
    match text.trim().parse::<ByteSize>() {
        Ok(size) => Ok(size.as_u64()),
        Err(_) => Err("not a number with a unit such as KiB, MiB or GiB".into()),
    }
}

/// A number of bytes in the form that [`parse_size`] reads, without loss.
pub fn show_size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in units {
        if bytes >> shift > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// Reads the length of a window from the command line and checks [`INTERVAL`].
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    check_range(time, &INTERVAL, |&time| show_duration(time))
        .map_err(|fault| format!("{fault}; a window is 10ms to 1h long, for example 5s, 0.5 or 1m"))
}

/// Checks a glob of device names, or the path of a disk in `/dev` (see [`crate::device::Filter`]).
pub fn parse_glob(text: &str) -> Result<String, String> {
    if text.strip_prefix("/dev/").unwrap_or(text).is_empty() {
        return Err("empty".into());
    }
    // The reason may quote characters of the glob.
    Glob::new(text).map_err(|error| without_controls(&error.kind().to_string()))?;
    Ok(text.to_owned())
}

/// Checks that a path can name the active file. A relative path is allowed.
pub fn parse_output_path(text: &str) -> Result<PathBuf, String> {
    if text.contains('\0') {
        return Err("a path has no NUL character".into());
    }
    if text == "-" {
        return Err("records go to a file; --print shows them on standard output".into());
    }
    let path = Path::new(text);
    // `file_name` ignores a trailing slash, which says that a directory is meant.
    if text.ends_with('/') || !matches!(path.components().next_back(), Some(Component::Normal(_))) {
        return Err("it names no file".into());
    }
    Ok(path.to_owned())
}

/// A length of time from `range`.
pub fn duration(value: &Value<'_>, range: &RangeInclusive<Duration>) -> Result<Duration, Fault> {
    let time = match value.get_ref() {
        DeValue::String(text) => parse_duration(text),
        DeValue::Integer(_) | DeValue::Float(_) => number(value.get_ref()).and_then(seconds),
        other => return Err(Fault::new(value, describe(other))),
    };
    time.and_then(|time| check_range(time, range, |&time| show_duration(time)))
        .map_err(|reason| Fault::because(value, &reason))
}

fn number(value: &DeValue<'_>) -> Result<f64, String> {
    let text = match value {
        DeValue::Float(number) => number.as_str(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
        _ => return Err("not a decimal number".into()),
    };
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("not a finite number".into()),
    }
}

/// A number of bytes from `range`.
pub fn size(value: &Value<'_>, range: &RangeInclusive<u64>) -> Result<u64, Fault> {
    let bytes = match value.get_ref() {
        DeValue::String(text) => parse_size(text),
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| "not a number of bytes".into()),
        other => return Err(Fault::new(value, describe(other))),
    };
    bytes
        .and_then(|bytes| check_range(bytes, range, |&bytes| show_size(bytes)))
        .map_err(|reason| Fault::because(value, &reason))
}

/// A share of the file system such as `5%`, or a number of bytes from `range`.
pub fn free_space(value: &Value<'_>, range: &RangeInclusive<u64>) -> Result<FreeSpace, Fault> {
    if let DeValue::String(text) = value.get_ref()
        && let Some(share) = text.trim().strip_suffix('%')
    {
        let share = share.trim_end().parse::<f64>().map_err(|error| error.to_string());
        return share
            .and_then(|share| check_percent(share).map(FreeSpace::Percent))
            .map_err(|reason| Fault::because(value, &reason));
    }
    size(value, range).map(FreeSpace::Bytes)
}

fn check_percent(share: f64) -> Result<f64, String> {
    if share.is_nan() {
        return Err("not a number".into());
    }
    check_range(share, &(0.0..=99.0), |share| format!("{share}%"))
}

/// A free space in the form that [`free_space`] reads, without loss.
pub fn show_free_space(space: FreeSpace) -> String {
    match space {
        FreeSpace::Bytes(bytes) => show_size(bytes),
        FreeSpace::Percent(share) => format!("{share}%"),
    }
}

/// A whole number from `range`.
pub fn whole(value: &Value<'_>, range: &RangeInclusive<u32>) -> Result<u32, Fault> {
    let DeValue::Integer(number) = value.get_ref() else {
        return Err(Fault::new(value, describe(value.get_ref())));
    };
    match u32::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(Fault::new(value, describe(value.get_ref()))),
    }
}

/// `true` or `false`.
pub fn boolean(value: &Value<'_>) -> Result<bool, Fault> {
    match value.get_ref() {
        DeValue::Boolean(truth) => Ok(*truth),
        other => Err(Fault::new(value, describe(other))),
    }
}

/// One of the names of `T`.
pub fn choice<T: ValueEnum>(value: &Value<'_>) -> Result<T, Fault> {
    let DeValue::String(text) = value.get_ref() else {
        return Err(Fault::new(value, describe(value.get_ref())));
    };
    T::from_str(text, false).map_err(|_| Fault::new(value, quote(text)))
}

/// The name of a choice, as [`choice`] reads it.
pub fn show_choice<T: ValueEnum>(choice: T) -> String {
    choice.to_possible_value().map(|name| name.get_name().to_owned()).unwrap_or_default()
}

/// A level of logging.
pub fn level(value: &Value<'_>) -> Result<tracing::Level, Fault> {
    let DeValue::String(text) = value.get_ref() else {
        return Err(Fault::new(value, describe(value.get_ref())));
    };
    parse_level(text).ok_or_else(|| Fault::new(value, quote(text)))
}

/// Names of the levels of logging, from the least to the most talkative.
pub const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Reads one of [`LEVELS`].
pub fn parse_level(text: &str) -> Option<tracing::Level> {
    // tracing itself also takes numbers and any case; the file has one way to say a thing.
    if LEVELS.contains(&text) { text.parse().ok() } else { None }
}

/// A list of globs of device names with at least `least` members.
pub fn globs(value: &Value<'_>, least: usize) -> Result<Vec<String>, Fault> {
    let DeValue::Array(list) = value.get_ref() else {
        return Err(Fault::new(value, describe(value.get_ref())));
    };
    if list.len() < least {
        return Err(Fault::new(value, "an empty list"));
    }
    let glob = |item: &Value<'_>| match item.get_ref() {
        DeValue::String(text) => parse_glob(text).map_err(|reason| Fault::because(item, &reason)),
        other => Err(Fault::new(item, format!("{} in the list", describe(other)))),
    };
    list.iter().map(glob).collect()
}

/// An absolute path that names a file.
pub fn absolute_path(value: &Value<'_>) -> Result<PathBuf, Fault> {
    let DeValue::String(text) = value.get_ref() else {
        return Err(Fault::new(value, describe(value.get_ref())));
    };
    let path = parse_output_path(text).map_err(|reason| Fault::because(value, &reason))?;
    if path.is_absolute() { Ok(path) } else { Err(Fault::because(value, "it is relative")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_of_time_has_the_usual_forms() {
        for (text, millis) in
            [("5", 5000), ("0.5", 500), ("5s", 5000), ("250ms", 250), ("1h 30m", 5_400_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "-1", "5 apples", "inf", "nan", "1e400", "s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    /// humantime panics on it where its numbers are not limited.
    #[test]
    fn a_length_of_time_that_overflows_in_the_carry_is_refused() {
        assert!(parse_duration("18446744073709551615s 1000000000ns").is_err());
    }

    #[test]
    fn a_size_has_the_usual_forms() {
        for (text, bytes) in
            [("64MiB", 64 << 20), ("2 GiB", 2 << 30), ("500kB", 500_000), ("4096", 4096)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "-1", "64 MiBs", "MiB", "99999999999999999999"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_device_is_a_glob_or_a_path() {
        for text in ["sd[a-c]", "/dev/nvme*n1", "/dev/disk/by-id/x", "cciss/c0d0"] {
            assert_eq!(parse_glob(text), Ok(text.into()));
        }
        for text in ["", "/dev/", "sd[a"] {
            assert!(parse_glob(text).is_err(), "{text}");
        }
        // Found by fuzzing.
        let reason = parse_glob("sd[b-\u{1b}]").unwrap_err();
        assert!(reason.contains("\\u{1b}") && !reason.contains('\u{1b}'), "{reason:?}");
    }

    #[test]
    fn an_output_path_names_a_file() {
        for text in ["x.jsonl", "/a/b", "./x"] {
            assert_eq!(parse_output_path(text), Ok(PathBuf::from(text)));
        }
        for text in ["", "-", "/", "/var/log/", "..", "/a/..", ".", "a\0b"] {
            assert!(parse_output_path(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "(?s).{0,40}") {
            let _ = (parse_duration(&text), parse_size(&text), parse_glob(&text));
            let _ = (parse_output_path(&text), parse_level(&text), quote(&text));
        }

        #[test]
        fn no_number_with_units_makes_a_reader_panic(text in "([0-9.]{1,22} ?(n?s|ms|d|y|[KG]i?B)? ?){1,3}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }

        #[test]
        fn shown_lengths_of_time_are_read_back(nanos in 0..4_000_000_000_000_000_000_u64) {
            let time = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&show_duration(time)), Ok(time));
        }

        #[test]
        fn shown_sizes_are_read_back(bytes in 0..1_u64 << 49, shift in 0..49_u32) {
            let bytes = bytes >> shift << shift;
            prop_assert_eq!(parse_size(&show_size(bytes)), Ok(bytes));
        }
    }
}
