//! What `blkiolat tail` prints: one aligned line per device and window. Pure.

use std::io::{self, Write};

use jiff::tz::TimeZone;

use super::history::RowKey;
use super::look::{Look, pad, short, time};
use super::window::{DeviceWindow, REQUEST_LAYER, Window};
use crate::report::times;
use crate::report::units::{printable, three_digits};

/// Fewest columns of a device's name.
const NAME: usize = 12;

/// The columns behind time and device, with their widths.
const COLUMNS: [(&str, usize); 10] = [
    ("IOPS", 6),
    ("MB/S", 6),
    ("P50", 8),
    ("P99", 8),
    ("MAX", 8),
    ("INFL", 5),
    ("MOST", 5),
    ("OLDEST", 8),
    ("ERR", 5),
    ("REQ", 5),
];

/// Prints windows; a heading where a host or day begins or names grow longer.
#[derive(Debug)]
pub struct Printer {
    look: Look,
    zone: TimeZone,
    /// What the last heading stands for: host and date.
    heading: Option<(String, String)>,
    name: usize,
}

impl Printer {
    /// A printer that has printed nothing.
    #[must_use]
    pub fn new(look: Look, zone: TimeZone) -> Self {
        Self { look, zone, heading: None, name: NAME }
    }

    /// Prints one window: what was missed first, then its devices.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn print(&mut self, out: &mut dyn Write, window: &Window) -> io::Result<()> {
        let civil = times::civil(window.end_us, &self.zone);
        let (date, at) = civil.split_once(' ').unwrap_or(("", &civil));
        self.print_heading(out, window, date)?;
        let losses = window.losses().words();
        if !losses.is_empty() {
            let text = self.look.text(&losses.join(", "));
            let (on, off) = if self.look.colour { ("\x1b[1;33m", "\x1b[0m") } else { ("", "") };
            writeln!(out, "{at}  {on}MISSED: {text}{off}")?;
        }
        for device in &window.devices {
            self.print_device(out, at, &self.label(window, &device.name), device)?;
        }
        if window.devices.is_empty() {
            let layer = match &*window.stream.layer {
                REQUEST_LAYER => String::new(),
                layer => format!(" ({})", printable(layer)),
            };
            writeln!(out, "{at}  {}", self.look.text(&format!("no I/O{layer}")))?;
        }
        Ok(())
    }

    fn label(&self, window: &Window, name: &str) -> String {
        let key = RowKey { stream: window.stream.clone(), name: name.to_owned() };
        self.look.text(&key.label(1))
    }

    fn print_heading(
        &mut self,
        out: &mut dyn Write,
        window: &Window,
        date: &str,
    ) -> io::Result<()> {
        let names = window.devices.iter().map(|device| self.label(window, &device.name));
        let longest = names.map(|name| name.chars().count()).max().unwrap_or(0);
        let heading = Some((window.stream.host.clone(), date.to_owned()));
        if self.heading == heading && longest <= self.name {
            return Ok(());
        }
        self.name = self.name.max(longest);
        if self.heading != heading {
            let first = self.heading.is_none();
            self.heading = heading;
            let host = self.look.text(&printable(&window.stream.host));
            writeln!(out, "{}{host}, {date}", if first { "" } else { "\n" })?;
        }
        write!(out, "{:8}  {}", "TIME", pad("DEVICE", self.name))?;
        for (title, width) in COLUMNS {
            write!(out, " {title:>width$}")?;
        }
        writeln!(out)
    }

    fn print_device(
        &self,
        out: &mut dyn Write,
        at: &str,
        label: &str,
        device: &DeviceWindow,
    ) -> io::Result<()> {
        let figures = device.figures;
        let cells = [
            three_digits(figures.iops),
            three_digits(figures.mb_per_s),
            time(figures.p50_us, figures.coarse),
            time(figures.p99_us, figures.coarse),
            time(figures.max_us, false),
            short(figures.in_flight),
            short(figures.in_flight_max),
            time(Some(figures.oldest_us).filter(|&us| us > 0.0), false),
            short(figures.errors),
            short(figures.requeues),
        ];
        write!(out, "{at}  {}", pad(label, self.name))?;
        for (cell, (_, width)) in cells.iter().zip(COLUMNS) {
            write!(out, " {:>width$}", self.look.text(cell))?;
        }
        writeln!(out)
    }
}
