//! The screen of one device: its operations and a histogram. Pure.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::look::{Look, pad, short, time, wrapped};
use super::state::{Details, State};
use crate::archive::reader::Layer;
use crate::histogram;
use crate::record::Operations;
use crate::report::aggregate::Totals;
use crate::report::summary::{self, ALL};
use crate::report::units::{duration, three_digits};

/// Columns of the table of operations: title, width, how many columns a screen must have.
const COLUMNS: [(&str, usize, usize); 8] = [
    ("COUNT", 6, 0),
    ("IOPS", 6, 49),
    ("MB/S", 6, 56),
    ("MEAN", 8, 65),
    ("P50", 8, 33),
    ("P99", 8, 0),
    ("MAX", 8, 42),
    ("ERR", 5, 71),
];

/// Everything about the device, line by line.
pub(super) fn lines(
    state: &State,
    details: &Details,
    look: Look,
    width: usize,
) -> Vec<Line<'static>> {
    let key = &details.key;
    let (device, length_us) = state.history.device(key, state.position, details.all_windows);
    let all = device.all();
    let hosts = state.history.hosts(state.position).len();
    let range = if details.all_windows { "all kept windows" } else { "this window" };
    let length = duration(i64::try_from(length_us).unwrap_or(i64::MAX));
    let mut lines = vec![Line::styled(
        look.text(&format!("{}: {range}, {length}", key.label(hosts))),
        look.heading(),
    )];

    let rows = state.history.rows(state.position);
    if let Some(row) = rows.iter().find(|row| row.key == *key) {
        let figures = row.figures;
        let oldest = time(Some(figures.oldest_us).filter(|&us| us > 0.0), false);
        let text = format!(
            "in flight {} now, {} most, {} mean; oldest {oldest}; {} requeued",
            figures.in_flight,
            device.inflight_max,
            three_digits(device.inflight_mean(length_us)),
            device.requeues
        );
        let alarming = device.requeues > 0 || figures.oldest_us >= row.length_us as f64;
        let style = if alarming { look.warning() } else { Style::new() };
        lines.extend(wrapped(&look.text(&text), width, 3, style));
    }

    let shown = COLUMNS.iter().filter(|column| width >= column.2);
    let mut title = String::from("OP      ");
    shown.for_each(|(name, columns, _)| title.push_str(&format!(" {name:>columns$}")));
    lines.push(Line::styled(title, look.heading()));
    lines.push(operation(ALL, &all, length_us, look, width));
    for (name, totals) in Operations::NAMES.into_iter().zip(&device.operations) {
        if totals.count > 0 {
            lines.push(operation(name, totals, length_us, look, width));
        }
    }

    let (name, totals) = match details.operation {
        None => (ALL, &all),
        Some(place) => (Operations::NAMES[place], &device.operations[place]),
    };
    lines.push(Line::default());
    lines.push(Line::styled(format!("usecs, requests: {name}"), look.heading()));
    lines.extend(bars(totals, look, width));
    lines
}

fn operation(
    name: &'static str,
    totals: &Totals,
    length_us: u64,
    look: Look,
    width: usize,
) -> Line<'static> {
    let row = summary::row(("", "", Layer::default()), name, totals, None, length_us);
    let coarse = row.resolution != "fine";
    let cells = [
        short(row.count),
        three_digits(row.iops),
        three_digits(row.mb_per_s),
        time(row.mean_us, false),
        time(row.p50_us, coarse),
        time(row.p99_us, coarse),
        time(row.max_us, false),
        short(row.errors),
    ];
    let mut spans = vec![Span::raw(pad(name, 8))];
    for ((title, columns, least), cell) in COLUMNS.into_iter().zip(cells) {
        if width >= least {
            let style = match title {
                "ERR" if row.errors > 0 => look.alarm(),
                _ => Style::new(),
            };
            spans.push(Span::raw(" "));
            spans.push(Span::styled(format!("{:>columns$}", look.text(&cell)), style));
        }
    }
    // Errors are said even where their column has no place.
    if row.errors > 0 && COLUMNS.iter().any(|column| column.0 == "ERR" && width < column.2) {
        spans.push(Span::styled(format!(" {} ERR", short(row.errors)), look.alarm()));
    }
    Line::from(spans)
}

/// The histogram by log2 slots, from the first that is not empty to the last.
fn bars(totals: &Totals, look: Look, width: usize) -> Vec<Line<'static>> {
    let slots = totals.hist.slots();
    let (Some(first), Some(last)) =
        (slots.iter().position(|&n| n > 0), slots.iter().rposition(|&n| n > 0))
    else {
        return vec![Line::from("no request was completed")];
    };
    let most = slots.iter().copied().max().unwrap_or(1).max(1);
    let bounds = |slot| histogram::slot_bounds_us(slot);
    let digits = bounds(last).1.to_string().len();
    let room = width.saturating_sub(2 * digits + 4 + 6 + 3).clamp(1, 60) as u64;
    let full = if look.unicode { "█" } else { "#" };
    (first..=last)
        .map(|slot| {
            let (low, high) = bounds(slot);
            // Rounded up: a slot that is not empty shows something.
            let length = (u128::from(slots[slot]) * u128::from(room)).div_ceil(u128::from(most));
            let count = short(slots[slot]);
            let bar = full.repeat(length as usize);
            Line::from(format!("{low:>digits$} -> {high:<digits$} {count:>6}  {bar}"))
        })
        .collect()
}
