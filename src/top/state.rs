//! What the screen shows and what keys change about it. Pure.

use std::cmp::Ordering;

use super::history::{History, Row, RowKey};
use super::window::{Figures, Window};
use crate::record::Operations;

/// What devices are sorted by: the largest first, names ascending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// 99th percentile
    #[default]
    P99,
    /// Median
    P50,
    /// Requests per second
    Iops,
    /// Bytes per second
    #[value(name = "mb")]
    Megabytes,
    /// Requests in flight
    Inflight,
    /// Age of the oldest request in flight
    Oldest,
    /// Host, name and layer
    Name,
}

impl Sort {
    const ALL: [Self; 7] = [
        Self::P99,
        Self::P50,
        Self::Iops,
        Self::Megabytes,
        Self::Inflight,
        Self::Oldest,
        Self::Name,
    ];

    /// How it is called on the screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P99 => "p99",
            Self::P50 => "p50",
            Self::Iops => "IOPS",
            Self::Megabytes => "MB/s",
            Self::Inflight => "in flight",
            Self::Oldest => "oldest",
            Self::Name => "name",
        }
    }

    fn next(self) -> Self {
        let place = Self::ALL.iter().position(|&sort| sort == self).unwrap_or(0);
        Self::ALL[(place + 1) % Self::ALL.len()]
    }

    /// None where there is nothing to sort by: such rows come last.
    fn value(self, figures: &Figures) -> Option<f64> {
        match self {
            Self::P99 => figures.p99_us,
            Self::P50 => figures.p50_us,
            Self::Iops => Some(figures.iops),
            Self::Megabytes => Some(figures.mb_per_s),
            Self::Inflight => Some(figures.in_flight as f64),
            Self::Oldest => Some(figures.oldest_us),
            Self::Name => None,
        }
    }
}

/// What the small pictures show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Graph {
    /// 99th percentile.
    #[default]
    P99,
    /// Requests per second.
    Iops,
}

impl Graph {
    /// How it is called on the screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P99 => "p99",
            Self::Iops => "IOPS",
        }
    }
}

/// What is on the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Screen {
    /// All devices.
    #[default]
    Devices,
    /// One device.
    Device(Details),
}

/// The screen of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Which one.
    pub key: RowKey,
    /// The operation whose histogram is shown, a place in [`Operations::NAMES`]; none: all.
    pub operation: Option<usize>,
    /// All kept windows together instead of one.
    pub all_windows: bool,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the program.
    Quit,
    /// Stop the program, as a shell's job.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Show or hide the keys.
    Help,
    /// Leave what was entered last.
    Back,
    /// Show the chosen device.
    Enter,
    /// Choose, or scroll, so many lines further down.
    Move(isize),
    /// Choose the first or scroll to the beginning.
    First,
    /// Choose the last or scroll to the end.
    Last,
    /// Sort by this.
    Sort(Sort),
    /// Sort by the next key.
    NextSort,
    /// Turn the order around.
    Reverse,
    /// Show another graph.
    NextGraph,
    /// Hold the display, or go on.
    Pause,
    /// One window back.
    StepBack,
    /// One window on.
    StepOn,
    /// Replay faster.
    Faster,
    /// Replay slower.
    Slower,
    /// Show the next operation's histogram.
    NextOperation,
    /// One window or all.
    Range,
}

/// What an action asks of those who own the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// End the program.
    Quit,
    /// Stop the program, as a shell's job.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Replay the next window.
    Next,
    /// Replay faster.
    Faster,
    /// Replay slower.
    Slower,
}

/// Everything that the view depends on, besides the clock.
#[derive(Debug, Default)]
pub struct State {
    /// The windows.
    pub history: History,
    /// The last window that is shown.
    pub position: u64,
    /// The display is held; windows still arrive.
    pub paused: bool,
    /// What devices are sorted by.
    pub sort: Sort,
    /// The smallest first.
    pub reversed: bool,
    /// What the small pictures show.
    pub graph: Graph,
    /// What is on the screen.
    pub screen: Screen,
    /// The keys are shown over it.
    pub help: bool,
    /// First line of the device, or of the keys, that is shown.
    pub scroll: usize,
    /// The chosen device.
    pub chosen: Option<RowKey>,
    /// Lines that could not be used.
    pub damaged: u64,
    /// The last thing that happened to the file, and for how many more windows it is shown.
    pub note: Option<(String, u32)>,
}

/// Windows for which something that happened stays on the screen.
const NOTE_WINDOWS: u32 = 6;

impl State {
    /// Takes the next window.
    pub fn push(&mut self, window: Window) {
        self.history.push(window);
        if !self.paused {
            self.position = self.history.last().unwrap_or(0);
        }
        self.note = self.note.take().filter(|note| note.1 > 0).map(|(text, n)| (text, n - 1));
    }

    /// Takes note of something that happened to the file.
    pub fn tell(&mut self, what: String) {
        self.note = Some((what, NOTE_WINDOWS));
    }

    /// Windows that have arrived behind the one that is shown.
    #[must_use]
    pub fn newer(&self) -> u64 {
        self.history.last().unwrap_or(0).saturating_sub(self.position)
    }

    /// The devices in the order in which they are shown.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = self.history.rows(self.position);
        rows.sort_by(|a, b| self.order(a, b));
        rows
    }

    fn order(&self, a: &Row, b: &Row) -> Ordering {
        let name = |row: &'_ Row| {
            let RowKey { stream, name } = &row.key;
            (stream.host.clone(), name.clone(), stream.layer.clone())
        };
        let turned = |order: Ordering| if self.reversed { order.reverse() } else { order };
        if self.sort == Sort::Name {
            return turned(name(a).cmp(&name(b)));
        }
        let values = (self.sort.value(&a.figures), self.sort.value(&b.figures));
        let order = match values {
            (Some(a), Some(b)) => turned(b.total_cmp(&a)),
            // Whatever the direction, what has no value comes last; of these, what may hang first.
            (None, None) => b.figures.oldest_us.total_cmp(&a.figures.oldest_us),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        order.then_with(|| name(a).cmp(&name(b)))
    }

    /// Place of the chosen device among `rows`; the first one's if it is not there.
    #[must_use]
    pub fn chosen_place(&self, rows: &[Row]) -> usize {
        let chosen = |row: &Row| self.chosen.as_ref() == Some(&row.key);
        rows.iter().position(chosen).unwrap_or(0)
    }

    /// Does what a key asks for, as far as it concerns the display.
    pub fn apply(&mut self, action: Action) -> Effect {
        match action {
            Action::Quit => return Effect::Quit,
            Action::Suspend => return Effect::Suspend,
            Action::Redraw => return Effect::Redraw,
            Action::Faster => return Effect::Faster,
            Action::Slower => return Effect::Slower,
            Action::StepOn => return self.step_on(),
            Action::StepBack => {
                self.paused = true;
                self.position = self.history.moment_before(self.position);
            }
            Action::Pause => {
                self.paused = !self.paused;
                if !self.paused {
                    self.position = self.history.last().unwrap_or(0);
                }
            }
            Action::Help => (self.help, self.scroll) = (!self.help, 0),
            Action::Back if self.help => (self.help, self.scroll) = (false, 0),
            Action::Back => (self.screen, self.scroll) = (Screen::Devices, 0),
            Action::Sort(sort) => (self.sort, self.reversed) = (sort, false),
            Action::NextSort => self.sort = self.sort.next(),
            Action::Reverse => self.reversed = !self.reversed,
            Action::NextGraph => {
                self.graph = match self.graph {
                    Graph::P99 => Graph::Iops,
                    Graph::Iops => Graph::P99,
                }
            }
            Action::Enter => self.enter(),
            Action::Move(by) => self.move_by(by),
            Action::First => self.move_by(isize::MIN),
            Action::Last => self.move_by(isize::MAX),
            Action::NextOperation => self.with_details(|details| {
                details.operation = match details.operation {
                    None => Some(0),
                    Some(place) => Some(place + 1).filter(|&next| next < Operations::NAMES.len()),
                }
            }),
            Action::Range => {
                self.with_details(|details| details.all_windows = !details.all_windows);
            }
        }
        Effect::None
    }

    fn with_details(&mut self, change: impl FnOnce(&mut Details)) {
        if let Screen::Device(details) = &mut self.screen {
            change(details);
        }
    }

    /// Shows the next moment; of a replay that may still have to be read.
    fn step_on(&mut self) -> Effect {
        self.paused = true;
        if self.newer() == 0 {
            return Effect::Next;
        }
        self.position = self.history.end_of_moment(self.position + 1);
        Effect::None
    }

    /// Shows what [`Effect::Next`] brought.
    pub fn show_last(&mut self) {
        self.position = self.history.last().unwrap_or(0);
    }

    fn enter(&mut self) {
        (self.help, self.scroll) = (false, 0);
        if let Screen::Device(_) = self.screen {
            self.screen = Screen::Devices;
            return;
        }
        let rows = self.rows();
        if let Some(row) = rows.get(self.chosen_place(&rows)) {
            self.chosen = Some(row.key.clone());
            self.screen = Screen::Device(Details { key: row.key.clone(), ..Details::default() });
        }
    }

    fn move_by(&mut self, by: isize) {
        if self.help || matches!(self.screen, Screen::Device(_)) {
            // Where the end is, only the view knows.
            self.scroll = self.scroll.saturating_add_signed(by);
            return;
        }
        let rows = self.rows();
        let place = self.chosen_place(&rows).saturating_add_signed(by);
        self.chosen = rows.get(place.min(rows.len().saturating_sub(1))).map(|row| row.key.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::super::window::Intake;
    use super::super::window::tests::{bio, line, record, window};
    use super::*;

    fn state(windows: &[&[(&str, u64)]]) -> State {
        let (mut intake, mut state) = (Intake::default(), State::default());
        for (seq, devices) in windows.iter().enumerate() {
            state.push(window(&mut intake, &line(&record(seq as u64, devices))));
        }
        state
    }

    fn names(state: &State) -> Vec<String> {
        state.rows().iter().map(|row| row.key.name.clone()).collect()
    }

    #[test]
    fn every_order() {
        let mut state = state(&[&[("c", 5)], &[("a", 100), ("b", 900), ("d", 10)]]);
        for sort in Sort::ALL {
            let expected = match sort {
                Sort::P99 | Sort::P50 | Sort::Oldest => ["b", "a", "d", "c"],
                _ => ["a", "b", "d", "c"],
            };
            let expected = if sort == Sort::Name { ["a", "b", "c", "d"] } else { expected };
            state.apply(Action::Sort(sort));
            assert_eq!(names(&state), expected, "{sort:?}");
        }
        state.apply(Action::Reverse);
        assert_eq!(names(&state), ["d", "c", "b", "a"]);
        state.apply(Action::NextSort);
        assert_eq!((state.sort, &*names(&state)[3]), (Sort::P99, "c"));
        assert_eq!(names(&state)[0], "d");
    }

    #[test]
    fn a_device_that_completes_nothing_but_has_requests_comes_before_idle_ones() {
        let mut hung = record(1, &[("z", 9_000_000)]);
        hung.latency_histogram.clear();
        let mut intake = Intake::default();
        let mut state = state(&[&[("a", 1)]]);
        state.push(window(&mut intake, &line(&hung)));
        assert_eq!(names(&state), ["z", "a"]);
    }

    #[test]
    fn the_choice_stays_on_its_device() {
        let mut state = state(&[&[("a", 100), ("b", 900), ("d", 10)]]);
        state.apply(Action::Move(1));
        assert_eq!(state.chosen.as_ref().unwrap().name, "a");
        state.apply(Action::Sort(Sort::Name));
        assert_eq!(state.chosen_place(&state.rows()), 0);
        state.apply(Action::Move(-5));
        state.apply(Action::Last);
        assert_eq!(state.chosen.as_ref().unwrap().name, "d");
        state.apply(Action::Enter);
        let Screen::Device(details) = &state.screen else { panic!() };
        assert_eq!(details.key.name, "d");
        for expected in [Some(0), Some(1), Some(2), Some(3), Some(4), None] {
            state.apply(Action::NextOperation);
            let Screen::Device(details) = &state.screen else { panic!() };
            assert_eq!(details.operation, expected);
        }
        state.apply(Action::Back);
        assert_eq!(state.screen, Screen::Devices);
    }

    #[test]
    fn holding_and_stepping() {
        let mut intake = Intake::default();
        let mut state = State::default();
        assert_eq!(state.apply(Action::StepBack), Effect::None);
        state.apply(Action::Pause);
        for seq in 0..4 {
            state.push(window(&mut intake, &line(&record(seq, &[("sda", 1)]))));
            state.push(window(&mut intake, &bio(&record(seq, &[("sda", 1)]))));
        }
        assert_eq!((state.position, state.paused), (7, false));
        state.apply(Action::StepBack);
        state.apply(Action::StepBack);
        assert_eq!((state.position, state.paused, state.newer()), (3, true, 4));
        assert_eq!(state.apply(Action::StepOn), Effect::None);
        assert_eq!(state.position, 5);
        state.push(window(&mut intake, &line(&record(4, &[("sda", 1)]))));
        assert_eq!(state.position, 5);
        state.apply(Action::Pause);
        assert_eq!(state.position, 8);
        assert_eq!(state.apply(Action::StepOn), Effect::Next);
        assert!(state.paused);
    }

    #[test]
    fn what_happened_is_shown_for_some_windows() {
        let mut state = state(&[&[]]);
        state.tell("rotated".into());
        let mut intake = Intake::default();
        for seq in 1..=u64::from(NOTE_WINDOWS) {
            state.push(window(&mut intake, &line(&record(seq, &[]))));
            assert!(state.note.is_some());
        }
        state.push(window(&mut intake, &line(&record(50, &[]))));
        assert_eq!(state.note, None);
    }
}
