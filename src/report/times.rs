//! Times as people write them, and the rows that a report cuts time into.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

use crate::archive::reader::TimeRange;

/// Seconds of a day without a change of the clock.
const DAY_S: i64 = 86_400;

/// How time is cut into rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    step: Option<Step>,
    zone: Option<TimeZone>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A divisor of a day, from midnight.
    Seconds(i64),
    /// Whole days, counted from 1970-01-01.
    Days(i64),
    /// Seconds from the Unix epoch on, whatever the zone.
    Epoch(i64),
}

/// What was expected of a time that cannot be understood.
pub const INSTANT_FORMS: &str = "2026-11-22, \"2026-11-22 15:45\", 2026-11-22T15:45:00Z, 15:45, \
     @1795362300 (Unix seconds), \"2h ago\", now, today or yesterday";

/// Reads a point in time, relative to `now` and in its time zone; µs since the Unix epoch.
///
/// # Errors
/// When the text is none of [`INSTANT_FORMS`].
pub fn parse_instant(text: &str, now: &Zoned) -> Result<i64, String> {
    instant(text.trim(), now)
        .map(Timestamp::as_microsecond)
        .ok_or_else(|| format!("`{text}` is no time; expected {INSTANT_FORMS}"))
}

fn instant(text: &str, now: &Zoned) -> Option<Timestamp> {
    let zone = now.time_zone();
    let start = |date: Date| Some(date.to_zoned(zone.clone()).ok()?.timestamp());
    match text {
        "now" => return Some(now.timestamp()),
        "today" => return start(now.date()),
        "yesterday" => return start(now.date().yesterday().ok()?),
        _ => {}
    }
    if let Some(seconds) = text.strip_prefix('@') {
        let micros = (seconds.parse::<f64>().ok()? * 1e6).round();
        return Timestamp::from_microsecond(micros as i64).ok();
    }
    if text.ends_with("ago") {
        let span: Span = text.parse().ok()?;
        return Some(now.checked_add(span).ok()?.timestamp());
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp);
    }
    // A date alone would also be read as a date with a time, and a time alone as neither.
    if let Ok(time) = text.parse::<Time>()
        && text.contains(':')
        && !text.contains('-')
    {
        return Some(now.date().to_datetime(time).to_zoned(zone.clone()).ok()?.timestamp());
    }
    let civil: DateTime = text.parse().ok()?;
    Some(civil.to_zoned(zone.clone()).ok()?.timestamp())
}

/// Reads a whole range: `FROM..TO` (either may be empty), or a day (`2026-11-22`, `today`,
/// `yesterday`).
///
/// `None` when it does not look like a range at all.
///
/// # Errors
/// When an end of the range is no time.
pub fn parse_range(text: &str, now: &Zoned) -> Option<Result<TimeRange, String>> {
    if let Some((from, to)) = text.split_once("..") {
        let end = |text: &str| {
            if text.is_empty() { Ok(None) } else { parse_instant(text, now).map(Some) }
        };
        return Some(end(from).and_then(|since_us| Ok(TimeRange { since_us, until_us: end(to)? })));
    }
    let date = match text {
        "today" => now.date(),
        "yesterday" => now.date().yesterday().ok()?,
        _ if text.len() == 10 => text.parse().ok()?,
        _ => return None,
    };
    let micros = |date: Date| {
        date.to_zoned(now.time_zone().clone()).ok().map(|zoned| zoned.timestamp().as_microsecond())
    };
    Some(Ok(TimeRange { since_us: micros(date), until_us: date.tomorrow().ok().and_then(micros) }))
}

impl Rows {
    /// Rows of the length `by`, for example `1m`, `6h` or `1d`, in `zone`.
    ///
    /// # Errors
    /// When it is no duration of whole seconds that divides a day, and no whole number of days.
    pub fn parse(by: &str, zone: TimeZone) -> Result<Self, String> {
        let expected = || {
            format!("`{by}` is no length of rows; expected a divisor of a day, or days: 1m, 6h, 1d")
        };
        let duration = humantime::parse_duration(by).map_err(|_| expected())?;
        let seconds = i64::try_from(duration.as_secs()).map_err(|_| expected())?;
        let step = if seconds == 0 || duration.subsec_nanos() > 0 {
            return Err(expected());
        } else if DAY_S % seconds == 0 && seconds < DAY_S {
            Step::Seconds(seconds)
        } else if seconds % DAY_S == 0 && seconds / DAY_S <= 366 {
            Step::Days(seconds / DAY_S)
        } else {
            return Err(expected());
        };
        Ok(Self { step: Some(step), zone: Some(zone) })
    }

    /// Rows of `seconds` (at least 1), counted from the Unix epoch whatever the time zone: each
    /// width that is a multiple of another has rows that are unions of the other's.
    #[must_use]
    pub fn epoch(seconds: i64) -> Self {
        Self { step: Some(Step::Epoch(seconds.max(1))), zone: None }
    }

    /// Whether time is cut at all.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.step.is_some()
    }

    /// Begin of the row that `at_us` lies in, µs since the Unix epoch; 0 when time is not cut.
    #[must_use]
    pub fn begin_us(&self, at_us: i64) -> i64 {
        self.begin(at_us).unwrap_or(0)
    }

    fn begin(&self, at_us: i64) -> Option<i64> {
        let zoned = || {
            let zone = self.zone.as_ref()?.clone();
            Some(Timestamp::from_microsecond(at_us).ok()?.to_zoned(zone))
        };
        match self.step? {
            Step::Epoch(seconds) => {
                let step_us = seconds.saturating_mul(1_000_000);
                Some(at_us.div_euclid(step_us) * step_us)
            }
            Step::Seconds(seconds) => {
                let midnight = zoned()?.start_of_day().ok()?.timestamp().as_microsecond();
                let step_us = seconds * 1_000_000;
                Some(midnight + (at_us - midnight).div_euclid(step_us) * step_us)
            }
            Step::Days(days) => {
                let epoch = Date::constant(1970, 1, 1);
                let day = i64::from(zoned()?.date().since(epoch).ok()?.get_days());
                let first = day.div_euclid(days) * days;
                let date = epoch.checked_add(Span::new().try_days(first).ok()?).ok()?;
                Some(date.to_zoned(self.zone.as_ref()?.clone()).ok()?.timestamp().as_microsecond())
            }
        }
    }
}

/// `at_us` in `zone` for people: `2026-11-22 15:45:00`.
#[must_use]
pub fn civil(at_us: i64, zone: &TimeZone) -> String {
    let Ok(timestamp) = Timestamp::from_microsecond(at_us) else { return at_us.to_string() };
    timestamp.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The name of `zone` at `at_us`, for example `CET`, or its offset.
#[must_use]
pub fn zone_name(at_us: i64, zone: &TimeZone) -> String {
    let timestamp = Timestamp::from_microsecond(at_us).unwrap_or_default();
    timestamp.to_zoned(zone.clone()).strftime("%Z").to_string()
}

/// `at_us` in `zone` for programs: RFC 3339 with the offset, to the second or as fine as needed.
#[must_use]
pub fn rfc3339(at_us: i64, zone: &TimeZone) -> String {
    let Ok(timestamp) = Timestamp::from_microsecond(at_us) else { return at_us.to_string() };
    let zoned = timestamp.to_zoned(zone.clone());
    timestamp.display_with_offset(zoned.offset()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Zoned {
        // 15:45 in Berlin, winter time.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        "2026-11-22T14:45:00Z".parse::<Timestamp>().unwrap().to_zoned(zone)
    }

    fn utc(text: &str) -> String {
        let micros = parse_instant(text, &now()).unwrap();
        Timestamp::from_microsecond(micros).unwrap().to_string()
    }

    #[test]
    fn instants() {
        for (text, expected) in [
            ("now", "2026-11-22T14:45:00Z"),
            ("today", "2026-11-21T23:00:00Z"),
            ("yesterday", "2026-11-20T23:00:00Z"),
            ("2h ago", "2026-11-22T12:45:00Z"),
            ("1 day 30 min ago", "2026-11-21T14:15:00Z"),
            ("15:30", "2026-11-22T14:30:00Z"),
            ("15:30:01.5", "2026-11-22T14:30:01.5Z"),
            ("2026-07-01", "2026-06-30T22:00:00Z"),
            ("2026-07-01 12:00", "2026-07-01T10:00:00Z"),
            ("2026-07-01T12:00:00", "2026-07-01T10:00:00Z"),
            ("2026-07-01T12:00:00Z", "2026-07-01T12:00:00Z"),
            ("2026-07-01T12:00:00+05:00", "2026-07-01T07:00:00Z"),
            ("@1691400312.5", "2023-08-07T09:25:12.5Z"),
        ] {
            assert_eq!(utc(text), expected, "{text}");
        }
        for text in ["", "2h", "tomorrow-ish", "25:00", "2026-13-01", "@x", "ago", "1545"] {
            let error = parse_instant(text, &now()).unwrap_err();
            assert!(error.contains("expected 2026-11-22"), "{text}: {error}");
        }
    }

    #[test]
    fn ranges() {
        let range = |text: &str| parse_range(text, &now()).map(|range| range.unwrap());
        let day = range("yesterday").unwrap();
        assert_eq!(day.until_us.unwrap() - day.since_us.unwrap(), 86_400_000_000);
        assert_eq!(range("2026-11-21"), range("yesterday"));
        assert_eq!(range("yesterday..today"), range("yesterday"));
        // The clocks change: that day has 25 hours.
        let long = range("2026-10-25").unwrap();
        assert_eq!(long.until_us.unwrap() - long.since_us.unwrap(), 90_000_000_000);
        assert_eq!(range("..now").unwrap().since_us, None);
        assert_eq!(range("/var/log"), None);
        assert!(parse_range("x..now", &now()).unwrap().is_err());
    }

    fn begin(by: &str, at: &str) -> String {
        let rows = Rows::parse(by, now().time_zone().clone()).unwrap();
        let at = at.parse::<Timestamp>().unwrap().as_microsecond();
        Timestamp::from_microsecond(rows.begin_us(at)).unwrap().to_string()
    }

    #[test]
    fn rows() {
        assert_eq!(begin("1m", "2026-11-22T14:45:59.999Z"), "2026-11-22T14:45:00Z");
        assert_eq!(begin("1h", "2026-11-22T14:45:59Z"), "2026-11-22T14:00:00Z");
        assert_eq!(begin("6h", "2026-11-22T14:45:59Z"), "2026-11-22T11:00:00Z");
        assert_eq!(begin("1d", "2026-11-22T22:59:59Z"), "2026-11-21T23:00:00Z");
        assert_eq!(begin("1d", "2026-11-22T23:00:00Z"), "2026-11-22T23:00:00Z");
        // 1970-01-01 was a Thursday, and so begins each week here.
        assert_eq!(begin("7d", "2026-11-22T12:00:00Z"), "2026-11-18T23:00:00Z");
        for by in ["", "0s", "7m", "25h", "1.5s", "500ms", "1000d", "fast"] {
            assert!(Rows::parse(by, TimeZone::UTC).is_err(), "{by}");
        }
        assert_eq!(Rows::default().begin_us(12345), 0);
    }

    #[test]
    fn written_times() {
        let zone = now().time_zone().clone();
        let at = now().timestamp().as_microsecond();
        assert_eq!(civil(at, &zone), "2026-11-22 15:45:00");
        assert_eq!(zone_name(at, &zone), "CET");
        assert_eq!(rfc3339(at, &zone), "2026-11-22T15:45:00+01:00");
    }

    proptest! {
        /// A row begins at or before what lies in it, at most its length before, and is a row of
        /// its own.
        #[test]
        fn rows_tile_time(at in 0i64..4_000_000_000_000_000, by in prop::sample::select(vec!["1s", "5m", "1h", "12h", "1d"])) {
            let rows = Rows::parse(by, now().time_zone().clone()).unwrap();
            let begin = rows.begin_us(at);
            let length = humantime::parse_duration(by).unwrap().as_micros() as i64;
            // A day can have 25 hours.
            let extra = if by == "1d" { 3_600_000_000 } else { 0 };
            prop_assert!(begin <= at && at - begin < length + extra);
            prop_assert_eq!(rows.begin_us(begin), begin);
        }
    }
}
