//! The race's arithmetic: benches have no tests of their own.

#[path = "../benches/race/statistics.rs"]
mod statistics;

use statistics::{Spread, trimmed_mean};

/// Counts of these values.
fn counts(values: impl IntoIterator<Item = usize>) -> Vec<u64> {
    let mut counts = vec![0; 1000];
    for value in values {
        counts[value] += 1;
    }
    counts
}

#[test]
fn interrupted_events_are_left_out() {
    // 100 to 199, and two that an interrupt fell into.
    let counts = counts((100..200).chain([900, 901]));
    let trimmed = trimmed_mean(&counts, 0, 0.02).unwrap();
    assert!((trimmed - 149.5).abs() < 1e-9, "{trimmed}");
    let all = trimmed_mean(&counts, 0, 0.0).unwrap();
    assert!((all - (149.5 * 100.0 + 900.0 + 901.0) / 102.0).abs() < 1e-9, "{all}");
}

#[test]
fn events_too_long_to_count_are_the_longest() {
    let hundred = counts((0..100).map(|_| 50));
    assert_eq!(trimmed_mean(&hundred, 1, 0.01), Some(50.0));
    // More of them than are left out: the mean of what is kept is unknown.
    assert_eq!(trimmed_mean(&hundred, 2, 0.01), None);
}

#[test]
fn a_few_events_say_nothing() {
    assert_eq!(trimmed_mean(&counts(0..99), 0, 0.01), None);
    assert!(trimmed_mean(&counts(0..100), 0, 0.01).is_some());
}

#[test]
fn quartiles_lie_between_neighbours() {
    let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
    assert_eq!((spread.low, spread.median, spread.high, spread.rounds), (1.75, 2.5, 3.25, 4));
    let one = Spread::of([7.0]).unwrap();
    assert_eq!((one.low, one.median, one.high), (7.0, 7.0, 7.0));
    assert_eq!(Spread::of([]), None);
}
