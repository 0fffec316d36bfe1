//! When the next window of a replay is due. Pure: the clock is a parameter.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The speeds that keys go through.
const STEPS: [f64; 11] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0];

/// How fast a replay is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was recorded.
    Times(f64),
    /// Without waiting.
    Max,
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let times = text.strip_suffix('x').unwrap_or(text).parse::<f64>();
        match times {
            Ok(times) if (0.01..=1e6).contains(&times) => Ok(Self::Times(times)),
            _ => Err("expected a number from 0.01 to 1000000, or max".into()),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times(times) => write!(f, "{times}x"),
            Self::Max => f.write_str("max"),
        }
    }
}

impl Speed {
    /// The next step up; beyond the last one, [`Self::Max`].
    #[must_use]
    pub fn faster(self) -> Self {
        match self {
            Self::Times(now) => {
                STEPS.into_iter().find(|&step| step > now).map_or(Self::Max, Self::Times)
            }
            Self::Max => Self::Max,
        }
    }

    /// The next step down.
    #[must_use]
    pub fn slower(self) -> Self {
        match self {
            Self::Times(now) => {
                Self::Times(STEPS.into_iter().rfind(|&step| step < now).unwrap_or(now))
            }
            Self::Max => Self::Times(STEPS[STEPS.len() - 1]),
        }
    }
}

/// The clock of a replay.
#[derive(Debug)]
pub struct Pace {
    speed: Speed,
    /// The window that was shown last: when it was due, and its end.
    last: Option<(Instant, i64)>,
}

impl Pace {
    /// A replay that has not begun.
    #[must_use]
    pub fn new(speed: Speed) -> Self {
        Self { speed, last: None }
    }

    /// How fast it is.
    #[must_use]
    pub fn speed(&self) -> Speed {
        self.speed
    }

    /// Changes the speed, from the window on that was shown last.
    pub fn set_speed(&mut self, speed: Speed) {
        self.speed = speed;
    }

    /// How long after `now` the window is due that ended at `end_us` and is `length_us` long.
    ///
    /// Time that was not recorded is not waited for: never longer than two windows.
    #[must_use]
    pub fn wait(&self, end_us: i64, length_us: u64, now: Instant) -> Duration {
        let (Speed::Times(times), Some((shown, last_us))) = (self.speed, self.last) else {
            return Duration::ZERO;
        };
        let longest = length_us.saturating_mul(2);
        let step_us = u64::try_from(end_us.saturating_sub(last_us)).unwrap_or(0).min(longest);
        let step = Duration::from_secs_f64(step_us as f64 / 1e6 / times);
        step.saturating_sub(now.saturating_duration_since(shown))
    }

    /// Takes note that the window that ended at `end_us` is shown `now`, `late` after it was due:
    /// what was lost by that is made up for if it is little.
    pub fn shown(&mut self, end_us: i64, now: Instant, late: Duration) {
        let late = if late < Duration::from_millis(500) { late } else { Duration::ZERO };
        self.last = Some((now.checked_sub(late).unwrap_or(now), end_us));
    }

    /// How long ago the window was due for which [`Self::wait`] is zero.
    #[must_use]
    pub fn late(&self, end_us: i64, length_us: u64, now: Instant) -> Duration {
        let Some((shown, _)) = self.last else { return Duration::ZERO };
        let due = self.wait(end_us, length_us, shown);
        now.saturating_duration_since(shown).saturating_sub(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 5_000_000;

    #[test]
    fn speeds() {
        assert_eq!("10".parse(), Ok(Speed::Times(10.0)));
        assert_eq!("0.5x".parse(), Ok(Speed::Times(0.5)));
        assert_eq!("max".parse(), Ok(Speed::Max));
        for bad in ["", "0", "-1", "NaN", "inf", "fast", "1e9"] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
        let mut speed = Speed::Times(7.0);
        let mut shown = Vec::new();
        for _ in 0..6 {
            speed = speed.faster();
            shown.push(speed.to_string());
        }
        assert_eq!(shown, ["10x", "20x", "50x", "100x", "1000x", "max"]);
        assert_eq!(speed.slower(), Speed::Times(1000.0));
        assert_eq!(Speed::Times(0.1).slower(), Speed::Times(0.1));
    }

    #[test]
    fn the_distance_of_windows_is_kept() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(Speed::Times(10.0));
        assert_eq!(pace.wait(7, WINDOW, start), Duration::ZERO);
        pace.shown(0, start, Duration::ZERO);
        assert_eq!(pace.wait(5_000_000, WINDOW, start), Duration::from_millis(500));
        assert_eq!(pace.wait(5_000_000, WINDOW, at(100)), Duration::from_millis(400));
        assert_eq!(pace.wait(5_000_000, WINDOW, at(600)), Duration::ZERO);
        // The 100 ms that it was late are made up for.
        let late = pace.late(5_000_000, WINDOW, at(600));
        assert_eq!(late, Duration::from_millis(100));
        pace.shown(5_000_000, at(600), late);
        assert_eq!(pace.wait(10_000_000, WINDOW, at(600)), Duration::from_millis(400));
        pace.set_speed(Speed::Max);
        assert_eq!(pace.wait(10_000_000, WINDOW, at(600)), Duration::ZERO);
    }

    #[test]
    fn gaps_and_steps_back_are_not_waited_for() {
        let now = Instant::now();
        let mut pace = Pace::new(Speed::Times(1.0));
        pace.shown(0, now, Duration::ZERO);
        assert_eq!(pace.wait(i64::MAX, WINDOW, now), Duration::from_secs(10));
        assert_eq!(pace.wait(-7, WINDOW, now), Duration::ZERO);
        // After a long pause the replay does not run to catch up.
        let later = now + Duration::from_secs(60);
        pace.shown(5_000_000, later, pace.late(5_000_000, WINDOW, later));
        assert_eq!(pace.wait(10_000_000, WINDOW, later), Duration::from_secs(5));
    }
}
