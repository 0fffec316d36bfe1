//! The last windows, and the rows of a table at any of them. Pure.

use std::collections::{BTreeMap, VecDeque};

use super::window::{DeviceWindow, Figures, Losses, REQUEST_LAYER, Stream, Window};
use crate::report::aggregate::Device;
use crate::report::units::printable;

/// Windows that are kept; with the default of 5 s, 20 minutes of one layer.
pub const KEPT: usize = 240;
/// A stream that has been silent for so many of its windows is left out.
const SILENT: i64 = 20;

/// Windows in the order of their arrival, numbered from 0 for as long as the program runs.
#[derive(Debug, Default)]
pub struct History {
    windows: VecDeque<Window>,
    /// Number of the first that is still kept.
    first: u64,
}

/// Which device of which stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// Host and layer.
    pub stream: Stream,
    /// Kernel name.
    pub name: String,
}

/// One device at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which one.
    pub key: RowKey,
    /// What it did in its stream's last window; all zero when it was idle.
    pub figures: Figures,
    /// Length of that window, µs.
    pub length_us: u64,
    /// Its windows up to then, oldest first, at most [`KEPT`].
    pub course: Vec<Point>,
}

/// One window in the course of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Point {
    /// Windows are missing here.
    Gap,
    /// What it did; all zero when it was idle.
    Did(Figures),
}

impl RowKey {
    /// How the device is called on a terminal; with its host if there are several.
    #[must_use]
    pub fn label(&self, hosts: usize) -> String {
        let name = printable(&self.name);
        let host = if hosts > 1 { format!("{}:", printable(&self.stream.host)) } else { "".into() };
        if self.stream.layer == REQUEST_LAYER {
            format!("{host}{name}")
        } else {
            format!("{host}{name} ({})", printable(&self.stream.layer))
        }
    }
}

impl History {
    /// Adds a window behind the last one.
    pub fn push(&mut self, window: Window) {
        self.windows.push_back(window);
        while self.windows.len() > KEPT {
            self.windows.pop_front();
            self.first += 1;
        }
    }

    /// Number of the last window; none when there is none.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        (self.windows.len() as u64 + self.first).checked_sub(1).filter(|_| !self.windows.is_empty())
    }

    /// The window of this number, or the nearest that is kept.
    #[must_use]
    pub fn at(&self, number: u64) -> Option<&Window> {
        let place = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.windows.get(place.min(self.windows.len().checked_sub(1)?))
    }

    /// The last window that ended when window `number` did (layers have windows of the same time):
    /// what is shown together with it.
    #[must_use]
    pub fn end_of_moment(&self, number: u64) -> u64 {
        let end_us = self.at(number).map(|window| window.end_us);
        let last = self.last().unwrap_or(0);
        let mut number = number.max(self.first);
        while number < last && self.at(number + 1).map(|window| window.end_us) == end_us {
            number += 1;
        }
        number
    }

    /// The last window of the moment before window `number`, or `number` itself if there is none.
    #[must_use]
    pub fn moment_before(&self, number: u64) -> u64 {
        let end_us = self.at(number).map(|window| window.end_us);
        let mut earlier = (self.first..number).rev();
        let other = earlier.find(|&n| self.at(n).map(|window| window.end_us) != end_us);
        other.unwrap_or_else(|| self.end_of_moment(number.max(self.first)))
    }

    fn up_to(&self, number: u64) -> impl DoubleEndedIterator<Item = &Window> {
        let kept = number.saturating_add(1).saturating_sub(self.first);
        let kept = usize::try_from(kept).unwrap_or(usize::MAX).min(self.windows.len());
        self.windows.range(..kept)
    }

    /// Number of windows that are kept up to window `number`, and their length together, µs: of the
    /// stream that has most.
    #[must_use]
    pub fn extent(&self, number: u64) -> (usize, u64) {
        let mut streams: BTreeMap<&Stream, (usize, u64)> = BTreeMap::new();
        for window in self.up_to(number) {
            let (windows, length_us) = streams.entry(&window.stream).or_default();
            *windows += 1;
            *length_us = length_us.saturating_add(window.length_us);
        }
        streams.into_values().max().unwrap_or_default()
    }

    /// What was missed in the windows that ended when window `number` did.
    #[must_use]
    pub fn losses_at(&self, number: u64) -> Losses {
        let mut losses = Losses::default();
        let end_us = self.at(number).map(|window| window.end_us);
        self.up_to(number)
            .rev()
            .take_while(|window| Some(window.end_us) == end_us)
            .for_each(|window| losses.add(&window.losses()));
        losses
    }

    /// What was missed in all kept windows up to window `number`.
    #[must_use]
    pub fn losses_up_to(&self, number: u64) -> Losses {
        let mut losses = Losses::default();
        self.up_to(number).for_each(|window| losses.add(&window.losses()));
        losses
    }

    /// The windows of each stream up to window `number`, without streams that fell silent.
    fn streams(&self, number: u64) -> BTreeMap<&Stream, Vec<&Window>> {
        let mut streams: BTreeMap<&Stream, Vec<&Window>> = BTreeMap::new();
        for window in self.up_to(number) {
            streams.entry(&window.stream).or_default().push(window);
        }
        let now_us = self.at(number).map_or(0, |window| window.end_us);
        streams.retain(|_, windows| {
            windows.last().is_some_and(|last| {
                let length_us = i64::try_from(last.length_us).unwrap_or(i64::MAX);
                let silent_us = now_us.saturating_sub(last.end_us).saturating_abs();
                silent_us <= length_us.saturating_mul(SILENT).max(1_000_000)
            })
        });
        streams
    }

    /// Hosts that are shown at window `number`.
    #[must_use]
    pub fn hosts(&self, number: u64) -> Vec<&str> {
        let mut hosts: Vec<_> = self.streams(number).keys().map(|s| s.host.as_str()).collect();
        hosts.dedup();
        hosts
    }

    /// The devices at window `number`, by host, layer and name.
    #[must_use]
    pub fn rows(&self, number: u64) -> Vec<Row> {
        let mut rows = Vec::new();
        for (stream, windows) in self.streams(number) {
            let Some(last) = windows.last() else { continue };
            let mut names: Vec<&str> =
                windows.iter().flat_map(|w| w.devices.iter().map(|d| d.name.as_str())).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let mut course = Vec::with_capacity(windows.len());
                for window in &windows {
                    if window.before.missing > 0 || window.before.restarted {
                        course.push(Point::Gap);
                    }
                    course.push(Point::Did(figures(window, name)));
                }
                rows.push(Row {
                    key: RowKey { stream: stream.clone(), name: name.into() },
                    figures: figures(last, name),
                    length_us: last.length_us,
                    course,
                });
            }
        }
        rows
    }

    /// One device at window `number`: everything that was counted in its stream's last window, or
    /// in all kept windows up to then, and their length together, µs.
    #[must_use]
    pub fn device(&self, key: &RowKey, number: u64, all: bool) -> (Device, u64) {
        let mut sum = Device::default();
        let mut length_us = 0u64;
        let windows = self.up_to(number).rev().filter(|window| window.stream == key.stream);
        for window in windows.take(if all { usize::MAX } else { 1 }) {
            length_us = length_us.saturating_add(window.length_us);
            if let Some(device) = find(window, &key.name) {
                sum.merge(&device.device);
            }
        }
        (sum, length_us)
    }
}

fn find<'a>(window: &'a Window, name: &str) -> Option<&'a DeviceWindow> {
    // They came out of a map and are sorted.
    let place = window.devices.binary_search_by(|device| device.name.as_str().cmp(name));
    place.ok().map(|place| &window.devices[place])
}

fn figures(window: &Window, name: &str) -> Figures {
    find(window, name).map(|device| device.figures).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::window::Intake;
    use super::super::window::tests::{bio, line, record, window};
    use super::*;

    fn names(history: &History, number: u64) -> Vec<String> {
        history.rows(number).iter().map(|row| row.key.label(1)).collect()
    }

    #[test]
    fn devices_of_both_layers_idle_ones_and_gaps() {
        let mut intake = Intake::default();
        let mut history = History::default();
        assert_eq!((history.last(), history.rows(0)), (None, vec![]));
        for (seq, devices) in
            [(0, &[("dm-0", 10), ("sda", 5)][..]), (1, &[("dm-0", 10)]), (4, &[("dm-0", 20)])]
        {
            history.push(window(&mut intake, &line(&record(seq, devices))));
            history.push(window(&mut intake, &bio(&record(seq, &devices[..1]))));
        }
        assert_eq!(history.last(), Some(5));
        // In the order of layers.
        assert_eq!(names(&history, 5), ["dm-0 (bio)", "dm-0", "sda"]);
        let rows = history.rows(5);
        assert_eq!(rows[1].figures.p50_us, Some(20.0));
        assert_eq!(rows[2].figures, Figures::default());
        assert!(matches!(
            rows[2].course[..],
            [Point::Did(busy), Point::Did(_), Point::Gap, Point::Did(_)] if busy.iops > 0.0
        ));
        assert_eq!(history.losses_at(5).missing, 4);
        assert_eq!(history.losses_at(3).missing, 0);
        assert_eq!(history.extent(3), (2, 4_000_000));
        // Both layers of a moment belong together.
        assert_eq!((history.end_of_moment(2), history.end_of_moment(5)), (3, 5));
        assert_eq!((history.moment_before(5), history.moment_before(3)), (3, 1));
        assert_eq!(history.moment_before(1), 1);
        let sda = RowKey { name: "sda".into(), ..rows[1].key.clone() };
        assert_eq!(history.device(&sda, 5, true).0.all().count, 20);
        assert_eq!(history.device(&sda, 5, true).1, 6_000_000);
        assert_eq!(history.device(&sda, 5, false).0.all().count, 0);
    }

    #[test]
    fn old_windows_are_forgotten_and_silent_hosts_left_out() {
        let mut intake = Intake::default();
        let mut history = History::default();
        let mut other = record(0, &[("sdz", 1)]);
        other.host = "old".into();
        history.push(window(&mut intake, &line(&other)));
        for seq in 1..=30 {
            history.push(window(&mut intake, &line(&record(seq, &[("sda", 1)]))));
        }
        assert_eq!(history.hosts(10), ["db-17", "old"]);
        assert_eq!(names(&history, 30), ["sda"]);
        for seq in 31..=KEPT as u64 + 50 {
            history.push(window(&mut intake, &line(&record(seq, &[]))));
        }
        assert_eq!(history.last(), Some(KEPT as u64 + 50));
        assert_eq!(history.extent(u64::MAX).0, KEPT);
        assert_eq!(names(&history, u64::MAX), [""; 0]);
        // What is gone is replaced by the nearest.
        assert_eq!(history.at(0).unwrap().seq, 51);
        assert_eq!(history.moment_before(0), 51);
    }
}
