//! What of the input could not be used.

use std::fmt;

/// Problems of a kind that are kept for each input; the rest are only counted.
const KEPT: usize = 5;

/// Something in the input that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The input's name.
    pub input: String,
    /// Number of the line, from 1; none when it is not about a line.
    pub line: Option<u64>,
    /// What is wrong, as the end of a sentence that begins with the place.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}: line {line} {}", self.input, self.what),
            None => write!(f, "{}: {}", self.input, self.what),
        }
    }
}

/// What of one input could not be used. Damage is the cause and bad lines its many effects: these must not crowd out that.
#[derive(Debug, Default)]
pub(super) struct Found {
    damages: Kind,
    bad_lines: Kind,
}

/// Problems of one kind: how many, and the first by line, whatever the order in which they are found.
#[derive(Debug, Default)]
struct Kind {
    count: usize,
    first: Vec<(u64, String)>,
}

impl Kind {
    fn add(&mut self, line: u64, what: String) {
        self.count += 1;
        let place = self.first.partition_point(|known| known.0 <= line);
        self.first.insert(place, (line, what));
        self.first.truncate(KEPT);
    }
}

impl Found {
    /// Notes that something at `line` is no line.
    pub(super) fn damage(&mut self, line: u64, what: String) {
        self.damages.add(line, what);
    }

    /// Notes that `line` is no record.
    pub(super) fn bad_line(&mut self, line: u64, what: String) {
        self.bad_lines.add(line, what);
    }

    /// What is to be said of the input with this name.
    pub(super) fn problems(self, input: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let more =
            [(&self.damages, "more damaged places"), (&self.bad_lines, "more lines of no use")];
        for (kind, name) in more {
            if kind.count > KEPT {
                let what = format!("{} {name}", kind.count - KEPT);
                problems.push(Problem { input: input.to_owned(), line: None, what });
            }
        }
        let kept = self.damages.first.into_iter().chain(self.bad_lines.first);
        problems.extend(kept.map(|(line, what)| Problem {
            input: input.to_owned(),
            line: Some(line),
            what,
        }));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_kind_are_kept_in_whatever_order_they_are_found() {
        let mut found = Found::default();
        for line in [9, 3, 7, 1, 8, 2, 6] {
            found.bad_line(line, format!("is bad {line}"));
        }
        found.damage(4, "is damaged".into());
        let mut lines: Vec<_> = found.problems("x").iter().map(ToString::to_string).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "x: 2 more lines of no use",
                "x: line 1 is bad 1",
                "x: line 2 is bad 2",
                "x: line 3 is bad 3",
                "x: line 4 is damaged",
                "x: line 6 is bad 6",
                "x: line 7 is bad 7",
            ]
        );
    }
}
