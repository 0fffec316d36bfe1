//! The layout of a heat map, once for every kind of picture.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::palette::{LEVELS, Scale};
use super::{Cells, Map, Panel};
use crate::report::units::duration;

/// Width of a picture, in its units.
pub const WIDTH: f64 = 1200.0;
/// Height of one panel.
pub const PANEL_HEIGHT: f64 = 400.0;
/// Columns that fit into a panel without one being too narrow to see.
pub const COLUMNS: usize = 340;

const LEFT: f64 = 76.0;
const RIGHT: f64 = 156.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 42.0;
/// Height from which a step of a percentile line has no riser.
const HIGH_STEP: f64 = 12.0;

/// What something is drawn with; the theme says which colour that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// The picture's ground.
    Ground,
    /// The ground of the plot.
    Plot,
    /// Titles.
    Text,
    /// Labels of axes.
    Muted,
    /// Lines of the grid.
    Grid,
    /// Where nothing was recorded.
    Missing,
    /// A cell of this level, less than [`LEVELS`].
    Cell(usize),
    /// Percentile line number 0, 1 or 2.
    Line(usize),
    /// Under a percentile line or its name, to set it off from the cells.
    Halo,
}

/// Where a text stands in relation to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// Something to draw on; x grows to the right, y downwards, from the upper left corner.
pub trait Canvas {
    /// A filled rectangle.
    fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, ink: Ink);
    /// A line through all points.
    fn line(&mut self, points: &[(f64, f64)], width: f64, ink: Ink);
    /// A text on the baseline `y`.
    fn text(&mut self, x: f64, y: f64, size: f64, anchor: Anchor, text: &str, ink: Ink);
}

/// The lines over a heat map: name and quantile.
pub const LINES: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];

/// Height of a picture with so many panels.
#[must_use]
pub fn height(panels: usize) -> f64 {
    PANEL_HEIGHT * panels as f64
}

/// Draws the map's panels one below the other.
pub fn draw(canvas: &mut impl Canvas, map: &Map) {
    canvas.rect(0.0, 0.0, WIDTH, height(map.panels.len()), Ink::Ground);
    for (place, panel) in map.panels.iter().enumerate() {
        let cells = panel.cells(8);
        Plot::new(map, &cells, PANEL_HEIGHT * place as f64).draw(canvas, map, panel, &cells);
    }
}

/// The place of one panel's plot in the picture.
struct Plot {
    top: f64,
    width: f64,
    height: f64,
    /// Logarithms (base 2) of the lowest and the highest latency, ns.
    low: f64,
    high: f64,
    columns: usize,
}

impl Plot {
    fn new(map: &Map, cells: &Cells, offset: f64) -> Self {
        let low = cells.bands.first().map_or(0.0, |band| band.low_ns.log2());
        let high = cells.bands.last().map_or(1.0, |band| band.high_ns.log2());
        Self {
            top: offset + TOP,
            width: WIDTH - LEFT - RIGHT,
            height: PANEL_HEIGHT - TOP - BOTTOM,
            low,
            high: high.max(low + 0.1),
            columns: map.columns,
        }
    }

    fn x(&self, column: f64) -> f64 {
        LEFT + self.width * column / self.columns as f64
    }

    fn y(&self, ns: f64) -> f64 {
        let place = (ns.max(1.0).log2() - self.low) / (self.high - self.low);
        self.top + self.height * (1.0 - place.clamp(0.0, 1.0))
    }

    fn draw(&self, canvas: &mut impl Canvas, map: &Map, panel: &Panel, cells: &Cells) {
        let scale = Scale::new(cells.most);
        self.titles(canvas, map, panel);
        canvas.rect(LEFT, self.top, self.width, self.height, Ink::Plot);
        for (first, length) in missing(panel) {
            let (x, end) = (self.x(first as f64), self.x((first + length) as f64));
            canvas.rect(x, self.top, end - x, self.height, Ink::Missing);
        }
        self.axes(canvas, map);
        self.cells(canvas, panel, cells, scale);
        self.lines(canvas, panel);
        self.legend(canvas, panel, scale);
    }

    fn titles(&self, canvas: &mut impl Canvas, map: &Map, panel: &Panel) {
        let what = match panel.operation {
            super::ALL => "all operations".to_owned(),
            "flush" => "flushes".to_owned(),
            "other" => "other operations".to_owned(),
            name => format!("{name}s"),
        };
        let title = format!("{}: {what} on {}", panel.host, panel.device);
        canvas.text(LEFT, self.top - 30.0, 17.0, Anchor::Start, &title, Ink::Text);
        let subtitle = format!(
            "{}  ·  {}  ·  one column is {}",
            range(map),
            requests(panel.count),
            duration(map.width_us)
        );
        canvas.text(LEFT, self.top - 11.0, 12.0, Anchor::Start, &subtitle, Ink::Muted);
    }

    fn axes(&self, canvas: &mut impl Canvas, map: &Map) {
        for (ns, label) in latency_ticks(self.low, self.high) {
            let y = self.y(ns);
            canvas.line(&[(LEFT, y), (LEFT + self.width, y)], 1.0, Ink::Grid);
            canvas.text(LEFT - 8.0, y + 4.0, 12.0, Anchor::End, &label, Ink::Muted);
        }
        let bottom = self.top + self.height;
        for (at_us, label) in time_ticks(map) {
            let x = self.x((at_us - map.begin_us) as f64 / map.width_us as f64);
            canvas.line(&[(x, self.top), (x, bottom + 5.0)], 1.0, Ink::Grid);
            canvas.text(x, bottom + 19.0, 12.0, Anchor::Middle, &label, Ink::Muted);
        }
    }

    fn cells(&self, canvas: &mut impl Canvas, panel: &Panel, cells: &Cells, scale: Scale) {
        for (column, (totals, counts)) in panel.columns.iter().zip(&cells.counts).enumerate() {
            let total = totals.as_ref().map_or(0, |totals| totals.count) as f64;
            let (x, end) = (self.x(column as f64), self.x(column as f64 + 1.0));
            for (band, count) in cells.bands.iter().zip(counts) {
                if let Some(level) = scale.level(count / total.max(1.0)) {
                    let (top, bottom) = (self.y(band.high_ns), self.y(band.low_ns));
                    canvas.rect(x, top, end - x, bottom - top, Ink::Cell(level));
                }
            }
        }
    }

    fn lines(&self, canvas: &mut impl Canvas, panel: &Panel) {
        let mut labels = Vec::new();
        for (line, (name, quantile)) in LINES.into_iter().enumerate().rev() {
            let mut last = None;
            for stretch in self.stretches(panel, quantile) {
                canvas.line(&stretch, 4.0, Ink::Halo);
                canvas.line(&stretch, 1.8, Ink::Line(line));
                last = stretch.last().copied();
            }
            if let Some((_, y)) = last {
                labels.push((y + 4.0, name, line));
            }
        }
        // Names of lines that end close together are moved apart, downwards from the highest.
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free = f64::MIN;
        for (y, name, line) in labels {
            let y = y.max(free);
            free = y + 13.0;
            canvas.text(LEFT + self.width + 6.0, y, 12.0, Anchor::Start, name, Ink::Line(line));
        }
    }

    /// The corners of a percentile's steps. A stretch ends where there is no request, and at a
    /// high step: its riser would only hide the cells of a narrow column.
    fn stretches(&self, panel: &Panel, quantile: f64) -> Vec<Vec<(f64, f64)>> {
        let mut stretches: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
        for (column, totals) in panel.columns.iter().enumerate() {
            let ns = totals.as_ref().and_then(|t| t.hist.quantile_ns(quantile, t.max_ns));
            let Some(ns) = ns else {
                stretches.push(Vec::new());
                continue;
            };
            let y = self.y(ns);
            let before = stretches.last().and_then(|stretch| stretch.last());
            if before.is_some_and(|before| (before.1 - y).abs() > HIGH_STEP) {
                stretches.push(Vec::new());
            }
            if let Some(stretch) = stretches.last_mut() {
                stretch.push((self.x(column as f64), y));
                stretch.push((self.x(column as f64 + 1.0), y));
            }
        }
        stretches.retain(|stretch| !stretch.is_empty());
        stretches
    }

    fn legend(&self, canvas: &mut impl Canvas, panel: &Panel, scale: Scale) {
        let (x, bottom) = (WIDTH - 92.0, self.top + self.height);
        let bar = self.height * 0.72;
        let step = bar / LEVELS as f64;
        for level in 0..LEVELS {
            let y = bottom - step * (level + 1) as f64;
            // A little more than its share, which the next one covers: no seams.
            canvas.rect(x, y, 14.0, step + if level > 0 { 1.0 } else { 0.0 }, Ink::Cell(level));
        }
        for decade in 0..=Scale::DECADES as i32 {
            let share = scale.most / 10f64.powi(decade);
            let y = bottom - bar * scale.place(share);
            canvas.line(&[(x + 14.0, y), (x + 18.0, y)], 1.0, Ink::Muted);
            canvas.text(x + 22.0, y + 4.0, 12.0, Anchor::Start, &percent(share), Ink::Muted);
        }
        for (line, text) in ["share of the", "column's I/O"].into_iter().enumerate() {
            let y = bottom - bar - 24.0 + 14.0 * line as f64;
            canvas.text(x, y, 11.0, Anchor::Start, text, Ink::Muted);
        }
        if panel.columns.iter().any(Option::is_none) {
            canvas.rect(x, self.top + 8.0, 14.0, 12.0, Ink::Missing);
            canvas.text(x + 19.0, self.top + 18.0, 11.0, Anchor::Start, "no data", Ink::Muted);
        }
    }
}

/// `1 request`, `62,200 requests`.
#[must_use]
pub fn requests(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} request{}", if count == 1 { "" } else { "s" })
}

/// First and number of consecutive columns in which nothing was recorded.
fn missing(panel: &Panel) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (column, _) in panel.columns.iter().enumerate().filter(|(_, c)| c.is_none()) {
        match runs.last_mut() {
            Some((first, length)) if *first + *length == column => *length += 1,
            _ => runs.push((column, 1)),
        }
    }
    runs
}

/// `20 %`, `0.02 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    let text = format!("{:.4}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// The map's time as people write it.
#[must_use]
pub fn range(map: &Map) -> String {
    let end_us = map.begin_us + map.width_us * map.columns as i64;
    let part = |at_us: i64, format: &str| written(at_us, &map.zone, format);
    let day = |at_us| part(at_us, "%Y-%m-%d");
    let clock =
        |at_us: i64| part(at_us, if map.width_us < 60_000_000 { "%H:%M:%S" } else { "%H:%M" });
    let zone = part(map.begin_us, "%Z");
    let end = if day(map.begin_us) == day(end_us) {
        clock(end_us)
    } else {
        format!("{} {}", day(end_us), clock(end_us))
    };
    format!("{} {} – {end} {zone}", day(map.begin_us), clock(map.begin_us))
}

fn written(at_us: i64, zone: &TimeZone, format: &str) -> String {
    let Ok(timestamp) = Timestamp::from_microsecond(at_us) else { return String::new() };
    timestamp.to_zoned(zone.clone()).strftime(format).to_string()
}

/// Latencies (ns) that are marked on an axis between two logarithms: powers of ten, on a short
/// axis with 2 and 5 times of them.
#[must_use]
pub fn latency_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let octaves = high - low;
    let steps: &[u32] = match octaves {
        o if o < 8.0 => &[1, 2, 5],
        o if o < 14.0 => &[1, 3],
        _ => &[1],
    };
    let mut ticks = Vec::new();
    for exponent in 1..14 {
        for &step in steps {
            let ns = f64::from(step) * 10f64.powi(exponent);
            if (low..=high).contains(&ns.log2()) {
                ticks.push((ns, tick_label(ns)));
            }
        }
    }
    ticks
}

fn tick_label(ns: f64) -> String {
    let (value, unit) = match ns {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    format!("{value:.0} {unit}")
}

/// Distances of marks on the axis of time, s.
const TIME_STEPS_S: [i64; 19] = [
    1, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
    172_800, 604_800, 2_419_200,
];

/// Times that are marked, at round times of the map's zone, at most ten.
#[must_use]
pub fn time_ticks(map: &Map) -> Vec<(i64, String)> {
    let length_us = map.width_us * map.columns as i64;
    let step_s = TIME_STEPS_S.into_iter().find(|&step| length_us / (step * 1_000_000) <= 9);
    let step_us = step_s.unwrap_or(31_536_000) * 1_000_000;
    // Round in local time: the offset at the begin serves for all, which is an hour off behind a
    // change of the clock, where the labels still say the truth.
    let offset_us = Timestamp::from_microsecond(map.begin_us)
        .map_or(0, |at| i64::from(map.zone.to_offset(at).seconds()) * 1_000_000);
    let local = map.begin_us + offset_us;
    let mut at_us = (local + step_us - 1).div_euclid(step_us) * step_us - offset_us;
    let mut ticks = Vec::new();
    while at_us <= map.begin_us + length_us {
        let midnight = (at_us + offset_us).rem_euclid(86_400_000_000) == 0;
        let format = match step_us {
            _ if midnight => "%b %-d",
            step if step < 60_000_000 => "%H:%M:%S",
            _ => "%H:%M",
        };
        ticks.push((at_us, written(at_us, &map.zone, format)));
        at_us += step_us;
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_latency() {
        let labels = |low: f64, high: f64| {
            let ticks = latency_ticks(low.log2(), high.log2());
            ticks.into_iter().map(|(_, label)| label).collect::<Vec<_>>()
        };
        assert_eq!(labels(5e4, 6e5), ["50 µs", "100 µs", "200 µs", "500 µs"]);
        assert_eq!(
            labels(5e3, 3e7),
            ["10 µs", "30 µs", "100 µs", "300 µs", "1 ms", "3 ms", "10 ms", "30 ms"]
        );
        assert_eq!(
            labels(100.0, 2e10),
            ["100 ns", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]
        );
    }

    #[test]
    fn ticks_of_time() {
        let map = |begin: &str, width_s: i64, columns| Map {
            begin_us: begin.parse::<Timestamp>().unwrap().as_microsecond(),
            width_us: width_s * 1_000_000,
            columns,
            panels: Vec::new(),
            zone: TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap(),
        };
        let labels =
            |map: Map| time_ticks(&map).into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(
            labels(map("2026-11-22T14:03:00Z", 10, 360)),
            ["15:10", "15:20", "15:30", "15:40", "15:50", "16:00"]
        );
        assert_eq!(labels(map("2026-11-22T22:00:00Z", 60, 240))[..3], ["23:00", "23:30", "Nov 23"]);
        assert!(labels(map("2026-11-01T00:00:00Z", 10_800, 240)).len() <= 10);
        assert_eq!(
            range(&map("2026-11-22T14:03:00Z", 10, 360)),
            "2026-11-22 15:03:00 – 16:03:00 CET"
        );
        assert_eq!(
            range(&map("2026-11-22T14:00:00Z", 3600, 24)),
            "2026-11-22 15:00 – 2026-11-23 15:00 CET"
        );
    }

    #[test]
    fn shares_in_words() {
        assert_eq!(percent(0.2), "20 %");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(percent(0.0002), "0.02 %");
        assert_eq!(requests(1), "1 request");
        assert_eq!(requests(999), "999 requests");
        assert_eq!(requests(1_234_567), "1,234,567 requests");
    }
}
