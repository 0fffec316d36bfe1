//! The picture in a terminal: one character per cell, coloured as far as the terminal can.

use std::io::{self, Write};

use super::draw::{LINES, latency_ticks, percent, range, requests, time_ticks};
use super::palette::{Rgb, Scale, viridis};
use super::{Cells, Map, Panel};
use crate::report::units::{duration, latency, printable};

/// Characters in front of the plot: a latency and the axis.
const MARGIN: usize = 9;
/// Most characters across for one column.
const WIDEST: usize = 8;
/// Shares without colour, from little to much.
const RAMP: &[u8] = b".:-=+*#%@";
/// Marks of the percentile lines, by number of the line.
const MARKS: [char; 3] = ['5', '9', 'X'];

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Depth {
    /// 24 bits of colour.
    True,
    /// The 256 colours of xterm.
    #[value(name = "256")]
    Indexed,
    /// None: characters only.
    Ascii,
}

impl Depth {
    /// What the environment says: `NO_COLOR`, `COLORTERM`, `TERM`.
    #[must_use]
    pub fn of_environment(terminal: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        let is = |name: &str, values: &[&str]| {
            variable(name).is_some_and(|value| values.iter().any(|&part| value.contains(part)))
        };
        if !terminal || variable("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            Self::Ascii
        } else if is("COLORTERM", &["truecolor", "24bit"]) || is("TERM", &["direct"]) {
            Self::True
        } else if is("TERM", &["256color", "kitty", "alacritty"]) {
            Self::Indexed
        } else {
            Self::Ascii
        }
    }

    /// Turns the background to `rgb`.
    fn background(self, rgb: Rgb) -> String {
        match self {
            Self::True => format!("\x1b[48;2;{};{};{}m", rgb[0], rgb[1], rgb[2]),
            Self::Indexed => format!("\x1b[48;5;{}m", indexed(rgb)),
            Self::Ascii => String::new(),
        }
    }

    /// Turns the text to black or white, whichever is read better on `rgb`.
    fn foreground(rgb: Rgb) -> &'static str {
        let light = 299 * u32::from(rgb[0]) + 587 * u32::from(rgb[1]) + 114 * u32::from(rgb[2]);
        if light > 128_000 { "\x1b[38;5;16m" } else { "\x1b[38;5;231m" }
    }
}

/// The nearest colour of xterm's 6 × 6 × 6 cube.
fn indexed(rgb: Rgb) -> u8 {
    const STEPS: [i32; 6] = [0, 95, 135, 175, 215, 255];
    let nearest = |value: u8| {
        let distance = |&place: &u8| (STEPS[usize::from(place)] - i32::from(value)).abs();
        (0..6u8).min_by_key(distance).unwrap_or(0)
    };
    16 + 36 * nearest(rgb[0]) + 6 * nearest(rgb[1]) + nearest(rgb[2])
}

/// Columns of a map that fit into a terminal of that width.
#[must_use]
pub fn columns(width: usize) -> usize {
    width.saturating_sub(MARGIN + 1).clamp(10, 1000)
}

/// Writes the map's panels; few columns become as wide as fits into `columns` characters.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut dyn Write, map: &Map, depth: Depth, columns: usize) -> io::Result<()> {
    let wide = (columns / map.columns.max(1)).clamp(1, WIDEST);
    for (place, panel) in map.panels.iter().enumerate() {
        if place > 0 {
            writeln!(out)?;
        }
        let cells = panel.cells(4);
        write_panel(out, map, panel, &cells, depth, wide)?;
    }
    Ok(())
}

fn write_panel(
    out: &mut dyn Write,
    map: &Map,
    panel: &Panel,
    cells: &Cells,
    depth: Depth,
    wide: usize,
) -> io::Result<()> {
    let scale = Scale::new(cells.most);
    let (host, device) = (printable(&panel.host), printable(&panel.device));
    writeln!(
        out,
        "{host}: {} on {device}, {}, {}, one column is {}",
        panel.operation,
        range(map),
        requests(panel.count),
        duration(map.width_us)
    )?;
    let labels = band_labels(cells);
    let marks = marks(panel, cells);
    for (band, label) in labels.iter().enumerate().rev() {
        write!(out, "{label:>7} |")?;
        let mut coloured = false;
        for (column, totals) in panel.columns.iter().enumerate() {
            let total = totals.as_ref().map_or(0, |totals| totals.count) as f64;
            let share = cells.counts[column][band] / total.max(1.0);
            let mark = marks[column].iter().rposition(|&at| at == Some(band));
            let mark = mark.map(|line| MARKS[line]);
            if share > 0.0 && depth != Depth::Ascii {
                let rgb = viridis(scale.place(share));
                let text = Depth::foreground(rgb);
                let cell = mark.unwrap_or(' ').to_string().repeat(wide);
                write!(out, "{}{text}{cell}", depth.background(rgb))?;
                coloured = true;
                continue;
            }
            if std::mem::take(&mut coloured) {
                write!(out, "\x1b[0m")?;
            }
            let step = (scale.place(share) * RAMP.len() as f64) as usize;
            let cell = match share {
                _ if mark.is_some() => mark.unwrap_or(' '),
                share if share > 0.0 => char::from(RAMP[step.min(RAMP.len() - 1)]),
                _ if totals.is_none() => '/',
                _ => ' ',
            };
            write!(out, "{}", cell.to_string().repeat(wide))?;
        }
        writeln!(out, "{}", if coloured { "\x1b[0m" } else { "" })?;
    }
    write_time_axis(out, map, wide)?;
    write_legend(out, panel, scale, depth)
}

/// The label of each band: that of a tick within it.
fn band_labels(cells: &Cells) -> Vec<String> {
    let (Some(first), Some(last)) = (cells.bands.first(), cells.bands.last()) else {
        return Vec::new();
    };
    let ticks = latency_ticks(first.low_ns.log2(), last.high_ns.log2());
    let within = |band: &super::Band| {
        let tick = ticks.iter().find(|(ns, _)| (band.low_ns..band.high_ns).contains(ns));
        tick.map_or(String::new(), |(_, label)| label.clone())
    };
    cells.bands.iter().map(within).collect()
}

/// For each column the bands of its percentiles.
fn marks(panel: &Panel, cells: &Cells) -> Vec<[Option<usize>; 3]> {
    let of_column = |totals: &Option<crate::report::aggregate::Totals>| {
        LINES.map(|(_, quantile)| {
            let totals = totals.as_ref()?;
            let ns = totals.hist.quantile_ns(quantile, totals.max_ns)?;
            let last = cells.bands.len().checked_sub(1)?;
            Some(cells.bands.iter().position(|band| ns < band.high_ns).unwrap_or(last))
        })
    };
    panel.columns.iter().map(of_column).collect()
}

fn write_time_axis(out: &mut dyn Write, map: &Map, wide: usize) -> io::Result<()> {
    let mut axis = vec!['-'; map.columns * wide];
    let mut labels: Vec<char> = Vec::new();
    for (at_us, label) in time_ticks(map) {
        let place = ((at_us - map.begin_us) * wide as i64 / map.width_us) as usize;
        if place >= axis.len() {
            continue;
        }
        axis[place] = '+';
        // A label begins below its mark; one that would touch the one before is left out.
        let begin = place + MARGIN;
        if labels.is_empty() || labels.len() < begin {
            labels.resize(begin, ' ');
            labels.extend(label.chars());
        }
    }
    writeln!(out, "{:>7} +{}", "", axis.iter().collect::<String>())?;
    writeln!(out, "{}", labels.iter().collect::<String>().trim_end())
}

fn write_legend(out: &mut dyn Write, panel: &Panel, scale: Scale, depth: Depth) -> io::Result<()> {
    write!(out, "share of the column's I/O: ")?;
    for decade in (0..=Scale::DECADES as i32).rev() {
        let share = scale.most / 10f64.powi(decade);
        let place = scale.place(share);
        if depth == Depth::Ascii {
            let step = (place * RAMP.len() as f64) as usize;
            write!(out, "{}", char::from(RAMP[step.min(RAMP.len() - 1)]))?;
        } else {
            write!(out, "{}  \x1b[0m", depth.background(viridis(place)))?;
        }
        write!(out, " {}  ", percent(share))?;
    }
    let largest = panel.columns.iter().flatten().map(|totals| totals.max_ns).max().unwrap_or(0);
    write!(out, " max {}", latency(largest as f64))?;
    for (mark, (name, _)) in MARKS.iter().zip(LINES) {
        write!(out, "  {mark} {name}")?;
    }
    let missing = panel.columns.iter().any(Option::is_none);
    writeln!(out, "{}", if missing { "  / no data" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_follows_the_environment() {
        let depth = |terminal, variables: &[(&str, &str)]| {
            Depth::of_environment(terminal, |name| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let rich = [("TERM", "xterm-256color"), ("COLORTERM", "truecolor")];
        assert_eq!(depth(true, &rich), Depth::True);
        assert_eq!(depth(true, &rich[..1]), Depth::Indexed);
        assert_eq!(depth(true, &[("TERM", "xterm")]), Depth::Ascii);
        assert_eq!(depth(true, &[rich[0], rich[1], ("NO_COLOR", "1")]), Depth::Ascii);
        assert_eq!(depth(true, &[rich[0], rich[1], ("NO_COLOR", "")]), Depth::True);
        assert_eq!(depth(false, &rich), Depth::Ascii);
    }

    #[test]
    fn nearest_indexed_colours() {
        assert_eq!(indexed([0, 0, 0]), 16);
        assert_eq!(indexed([255, 255, 255]), 231);
        assert_eq!(indexed([0xfd, 0xe7, 0x25]), 220);
    }
}
