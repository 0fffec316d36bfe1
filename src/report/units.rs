//! Numbers and names for people.

pub use crate::terminal::printable;

/// A latency with its natural unit and three significant digits: `84.3 µs`, `1.25 ms`, `12.0 s`.
#[must_use]
pub fn latency(ns: f64) -> String {
    let (value, unit) = match ns {
        // From 999.5 on, three digits would round to 1000 of the smaller unit.
        ns if ns < 999_500.0 => (ns / 1e3, "µs"),
        ns if ns < 999_500_000.0 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

/// A number with three significant digits, but no fewer than its whole part has, and no more than
/// three decimals.
#[must_use]
pub fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        v if v < 0.9995 => 3,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// A length of time: `45s`, `12m 30s`, `3d 4h`, two units at most.
#[must_use]
pub fn duration(us: i64) -> String {
    let seconds = us.max(0) / 1_000_000;
    if us < 10_000_000 && us % 1_000_000 != 0 {
        return format!("{:.1}s", us.max(0) as f64 / 1e6);
    }
    let parts = [
        (seconds / 86_400, 'd'),
        (seconds / 3600 % 24, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let first = parts.iter().position(|&(value, _)| value > 0).unwrap_or(3);
    let shown = parts[first..].iter().take(2).enumerate();
    let shown = shown.filter(|&(place, &(value, _))| place == 0 || value > 0);
    shown.map(|(_, (value, unit))| format!("{value}{unit}")).collect::<Vec<_>>().join(" ")
}

/// `1 window`, `2 windows`.
#[must_use]
pub fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies() {
        for (ns, expected) in [
            (0.0, "0 µs"),
            (62.5, "0.062 µs"),
            (84_300.0, "84.3 µs"),
            (999_499.0, "999 µs"),
            (999_500.0, "1.00 ms"),
            (1_254_000.0, "1.25 ms"),
            (999_600_000.0, "1.00 s"),
            (12e9, "12.0 s"),
            (8_589.9e9, "8590 s"),
        ] {
            assert_eq!(latency(ns), expected, "{ns}");
        }
    }

    #[test]
    fn durations() {
        for (us, expected) in [
            (-1, "0.0s"),
            (0, "0s"),
            (5_000_300, "5.0s"),
            (5_000_000, "5s"),
            (45_000_000, "45s"),
            (60_000_000, "1m"),
            (750_000_000, "12m 30s"),
            (86_400_000_000 * 3 + 4 * 3_600_000_000, "3d 4h"),
        ] {
            assert_eq!(duration(us), expected);
        }
    }
}
