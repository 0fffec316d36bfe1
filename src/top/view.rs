//! What is on the screen, as text in a buffer. Pure: size, clock and abilities are parameters.

use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::details;
use super::history::{Point, Row};
use super::keys::HELP;
use super::look::{Look, pad, short, time, wrapped};
use super::pace::Speed;
use super::state::{Graph, Screen, Sort, State};
use super::window::Losses;
use crate::report::times;
use crate::report::units::{counted, duration, latency, printable, three_digits};

/// Widest name of a device.
const WIDEST_NAME: usize = 24;
/// Fewest and most windows in a graph.
const GRAPH: (usize, usize) = (8, 60);
/// Windows that a daemon keeps back before it writes them, if it was not told otherwise.
const FLUSH_EVERY: u64 = 12;

/// What the view depends on besides the state.
#[derive(Clone, Debug)]
pub struct Moment<'a> {
    /// The wall clock, µs since the Unix epoch; none for a replay, whose windows are old.
    pub now_us: Option<i64>,
    /// Most windows that arrived at once while it was followed; none before any did.
    pub batch: Option<u64>,
    /// The zone that times are shown in.
    pub zone: &'a TimeZone,
    /// Speed of a replay.
    pub speed: Option<Speed>,
    /// There is no more to come.
    pub ended: bool,
    /// What is read, for people.
    pub source: &'a str,
}

/// Draws everything into `buffer`; returns the last line that scrolling may begin with.
pub fn draw(state: &State, look: Look, moment: &Moment<'_>, buffer: &mut Buffer) -> usize {
    let area = buffer.area;
    buffer.reset();
    let width = usize::from(area.width);
    let mut lines = vec![header(state, look, moment, width)];
    let most = (usize::from(area.height) / 5).clamp(1, 3);
    lines.extend(losses(state, look, width, most));
    let footer = footer(state, look, moment, width);
    let height = usize::from(area.height).saturating_sub(lines.len() + footer.len());

    let mut last_scroll = 0;
    let mut scrolled = |content: Vec<Line<'static>>| -> Vec<Line<'static>> {
        last_scroll = content.len().saturating_sub(height);
        content.into_iter().skip(state.scroll.min(last_scroll)).take(height).collect()
    };
    let body = if state.help {
        scrolled(help(look, width))
    } else if state.history.last().is_none() {
        waiting(look, moment, width)
    } else {
        match &state.screen {
            Screen::Devices => devices(state, look, width, height),
            Screen::Device(details) => scrolled(details::lines(state, details, look, width)),
        }
    };
    lines.extend(body.into_iter().take(height));
    let bottom = usize::from(area.height).saturating_sub(footer.len());
    let places = (0..bottom).zip(lines).chain((bottom..).zip(footer));
    for (row, line) in places.take_while(|(row, _)| *row < usize::from(area.height)) {
        let y = area.y + u16::try_from(row).unwrap_or(u16::MAX);
        buffer.set_line(area.x, y, &line, area.width);
        if line.style != Style::default() {
            buffer.set_style(Rect::new(area.x, y, area.width, 1), line.style);
        }
    }
    last_scroll
}

/// A piece of a line, and how readily it is given up when space is short: 0 never.
struct Part(u8, String, Style);

/// The parts that fit into `width`, in their order.
fn fit(mut parts: Vec<Part>, look: Look, width: usize) -> Line<'static> {
    for part in &mut parts {
        part.1 = look.text(&part.1);
    }
    let length = |parts: &[Part]| -> usize {
        parts.iter().map(|part| Span::raw(part.1.as_str()).width() + 2).sum::<usize>()
    };
    while length(&parts) > width + 2 {
        let expendable = parts.iter().enumerate().filter(|(_, part)| part.0 > 0);
        let Some((place, _)) = expendable.max_by_key(|(_, part)| part.0) else { break };
        parts.remove(place);
    }
    let mut line = Line::default();
    for Part(_, text, style) in parts {
        if !line.spans.is_empty() {
            line.spans.push(Span::raw("  "));
        }
        line.spans.push(Span::styled(text, style));
    }
    line
}

fn header(state: &State, look: Look, moment: &Moment<'_>, width: usize) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut parts = vec![Part(6, "blkiolat top".into(), Style::new())];
    if let Some(window) = state.history.at(state.position) {
        let hosts = state.history.hosts(state.position);
        let host = match hosts[..] {
            [] | [_] => printable(&window.stream.host).into_owned(),
            _ => format!("{} hosts", hosts.len()),
        };
        parts.push(Part(0, host, bold));
        let civil = times::civil(window.end_us, moment.zone);
        let (date, time) = civil.split_once(' ').unwrap_or(("", &civil));
        parts.push(Part(5, date.to_owned(), Style::new()));
        parts.push(Part(3, time.to_owned(), Style::new()));
        let length = three_digits(window.length_us as f64 / 1e6);
        parts.push(Part(4, format!("window {length} s"), Style::new()));
    }
    if state.paused {
        let newer = counted(state.newer(), "newer record");
        parts.push(Part(1, format!("HELD ({newer})"), look.warning()));
    }
    if let Some(speed) = moment.speed {
        let ended = if moment.ended { ", ended" } else { "" };
        parts.push(Part(2, format!("replay {speed}{ended}"), bold));
    } else if moment.ended {
        parts.push(Part(2, "input ended".into(), bold));
    } else if let Some(now_us) = moment.now_us
        && let Some(last) = state.history.last().and_then(|last| state.history.at(last))
    {
        let lag_us = now_us.saturating_sub(last.end_us);
        let ago = duration(lag_us.max(0) / 1_000_000 * 1_000_000);
        if is_late(lag_us, last.length_us, moment.batch) {
            let text = format!("NOTHING NEW for {ago}");
            parts.push(Part(0, text, look.alarm()));
        } else {
            parts.push(Part(2, format!("last window {ago} ago"), Style::new()));
        }
    }
    fit(parts, look, width)
}

/// Whether the last window is so old that the daemon should have written another one. It writes
/// several at once (`flush_every`), as many as were seen to arrive at once.
fn is_late(lag_us: i64, length_us: u64, batch: Option<u64>) -> bool {
    let windows = batch.unwrap_or(FLUSH_EVERY).saturating_add(2);
    u64::try_from(lag_us).unwrap_or(0) > windows.saturating_mul(length_us)
}

/// What was missed, first in the windows that are shown, then in all that are kept.
fn losses(state: &State, look: Look, width: usize, most: usize) -> Vec<Line<'static>> {
    let history = &state.history;
    let mut kept = history.losses_up_to(state.position);
    kept.damaged = state.damaged;
    let now = history.losses_at(state.position);
    let (windows, length_us) = history.extent(state.position);
    let extent = || {
        let length = duration(i64::try_from(length_us).unwrap_or(i64::MAX) / 1_000_000 * 1_000_000);
        format!("{} ({length})", counted(windows as u64, "window"))
    };
    let (text, most, style) = if now != Losses::default() {
        (format!("MISSED in this window: {}", now.words().join(", ")), most, look.alarm())
    } else if kept != Losses::default() {
        (format!("missed in {}: {}", extent(), kept.words().join(", ")), most, look.warning())
    } else if windows > 0 {
        let dim = Style::new().add_modifier(Modifier::DIM);
        (format!("nothing missed in {}", extent()), 1, dim)
    } else {
        return Vec::new();
    };
    let mut lines = wrapped(&look.text(&text), width, most, style);
    lines.extend(hanging(state, look, width));
    lines
}

/// The request that has been in flight for longer than its window, if there is one: whatever the
/// order, its device may have completed nothing and be out of sight.
fn hanging(state: &State, look: Look, width: usize) -> Option<Line<'static>> {
    let rows = state.history.rows(state.position);
    let hanging = || rows.iter().filter(|row| hangs(row));
    let oldest = |a: &&Row, b: &&Row| a.figures.oldest_us.total_cmp(&b.figures.oldest_us);
    let worst = hanging().max_by(oldest)?;
    let label = worst.key.label(state.history.hosts(state.position).len());
    let age = latency(worst.figures.oldest_us * 1e3);
    let others = match hanging().count() - 1 {
        0 => String::new(),
        others => format!("; {others} more"),
    };
    let text = format!("HANGS: {age} in flight on {label}{others}");
    wrapped(&look.text(&text), width, 1, look.alarm()).pop()
}

/// Whether the oldest request in flight is older than the window.
fn hangs(row: &Row) -> bool {
    row.figures.oldest_us > 0.0 && row.figures.oldest_us >= row.length_us as f64
}

fn footer(state: &State, look: Look, moment: &Moment<'_>, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some((note, _)) = &state.note {
        let file = moment.source.rsplit('/').next().unwrap_or_default();
        let text = format!("{file}: {note}");
        lines.extend(wrapped(&look.text(&printable(&text)), width, 1, look.warning()));
    }
    let key = |rank, text: String| Part(rank, text, Style::new().add_modifier(Modifier::DIM));
    let order = if state.reversed { " (reversed)" } else { "" };
    let mut parts = vec![key(0, "q quit".into()), key(1, "? keys".into())];
    match &state.screen {
        _ if state.help => parts.push(key(2, "esc back".into())),
        Screen::Devices => {
            parts.push(key(3, "enter details".into()));
            parts.push(key(2, format!("s sort: {}{order}", state.sort.name())));
            parts.push(key(5, format!("g graph: {}", state.graph.name())));
        }
        Screen::Device(_) => {
            parts.push(key(2, "esc back".into()));
            parts.push(key(3, "tab operation".into()));
            parts.push(key(4, "a all windows".into()));
        }
    }
    parts.push(key(4, if state.paused { "space go on" } else { "space hold" }.into()));
    if moment.speed.is_some() {
        parts.push(key(6, "+ - speed".into()));
    }
    lines.push(fit(parts, look, width));
    lines
}

fn waiting(look: Look, moment: &Moment<'_>, width: usize) -> Vec<Line<'static>> {
    let text = if moment.ended {
        format!("no window in {}", moment.source)
    } else {
        format!("no window yet in {}", moment.source)
    };
    let mut lines = vec![Line::default()];
    lines.extend(wrapped(&look.text(&printable(&text)), width, 4, Style::new()));
    lines
}

fn help(look: Look, width: usize) -> Vec<Line<'static>> {
    let keys = HELP.iter().map(|(keys, _)| keys.len()).max().unwrap_or(0).min(width / 3);
    let mut lines = vec![Line::styled("keys", look.heading())];
    for (key, what) in HELP {
        let texts = wrapped(what, width.saturating_sub(keys + 2), 3, Style::new());
        for (place, text) in texts.into_iter().enumerate() {
            let key = if place == 0 { *key } else { "" };
            // A long list of keys has a line of its own where there is little space.
            let mut line = Line::default();
            if key.len() > keys {
                lines.push(Line::from(key));
                line.spans.push(Span::raw(" ".repeat(keys + 2)));
            } else {
                line.spans.push(Span::raw(format!("{key:<keys$}  ")));
            }
            line.spans.extend(text.spans);
            lines.push(line);
        }
    }
    lines
}

/// A column of the table: its title, what sorts by it, its width, how readily it is given up, and
/// its text and style.
struct Column {
    title: &'static str,
    sort: Option<Sort>,
    width: usize,
    rank: u8,
    cell: fn(&Row, Look) -> (String, Style),
}

fn columns(rows: &[Row]) -> Vec<Column> {
    fn plain(text: String) -> (String, Style) {
        (text, Style::new())
    }
    fn count(count: u64, look: Look) -> (String, Style) {
        (short(count), if count > 0 { look.alarm() } else { Style::new() })
    }
    let any = |of: fn(&Row) -> u64| rows.iter().any(|row| of(row) > 0);
    let errors = if any(|row| row.figures.errors) { 2 } else { 10 };
    let requeues = if any(|row| row.figures.requeues) { 3 } else { 11 };
    let oldest = if rows.iter().any(hangs) { 2 } else { 5 };
    let column = |title, sort, width, rank, cell| Column { title, sort, width, rank, cell };
    vec![
        column("IOPS", Some(Sort::Iops), 6, 4, |row, _| plain(three_digits(row.figures.iops))),
        column("MB/S", Some(Sort::Megabytes), 6, 7, |row, _| {
            plain(three_digits(row.figures.mb_per_s))
        }),
        column("P50", Some(Sort::P50), 8, 6, |row, _| {
            plain(time(row.figures.p50_us, row.figures.coarse))
        }),
        column("P99", Some(Sort::P99), 8, 1, |row, _| {
            plain(time(row.figures.p99_us, row.figures.coarse))
        }),
        column("MAX", None, 8, 8, |row, _| plain(time(row.figures.max_us, false))),
        column("INFL", Some(Sort::Inflight), 5, 4, |row, _| plain(short(row.figures.in_flight))),
        column("MOST", None, 5, 9, |row, _| plain(short(row.figures.in_flight_max))),
        column("OLDEST", Some(Sort::Oldest), 8, oldest, |row, look| {
            let text = time(Some(row.figures.oldest_us).filter(|&us| us > 0.0), false);
            (text, if hangs(row) { look.alarm() } else { Style::new() })
        }),
        column("ERR", None, 4, errors, |row, look| count(row.figures.errors, look)),
        column("REQ", None, 4, requeues, |row, look| count(row.figures.requeues, look)),
    ]
}

fn devices(state: &State, look: Look, width: usize, height: usize) -> Vec<Line<'static>> {
    let rows = state.rows();
    let hosts = state.history.hosts(state.position).len();
    let label = |row: &Row| look.text(&row.key.label(hosts));
    let longest = rows.iter().map(|row| Span::raw(label(row)).width()).max().unwrap_or(0);
    let name = longest.clamp(6, WIDEST_NAME.min((width / 3).max(6)));

    // What is chosen is kept as long as there is room; the graph takes what is left.
    let mut columns = columns(&rows);
    let graph_rank = 9;
    let needed = |columns: &[Column], graph: bool| {
        let graph = if graph { GRAPH.0 + 2 } else { 0 };
        1 + name + graph + columns.iter().map(|column| column.width + 1).sum::<usize>()
    };
    let mut graph = true;
    while needed(&columns, graph) > width {
        let worst = columns.iter().enumerate().max_by_key(|(_, column)| column.rank);
        match worst {
            Some((place, column)) if !graph || column.rank >= graph_rank => {
                columns.remove(place);
            }
            Some(_) => graph = false,
            None => break,
        }
    }
    let graph = if graph { (width - needed(&columns, true) + GRAPH.0).min(GRAPH.1) } else { 0 };

    let mut title = vec![Span::raw(pad(" DEVICE", name + 1))];
    for column in &columns {
        let sorted = column.sort.is_some_and(|sort| sort == state.sort);
        let text = format!("{:>1$}", column.title, column.width);
        let style =
            if sorted { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        title.extend([Span::raw(" "), Span::styled(text, style)]);
    }
    if graph > 0 {
        let name = state.graph.name().to_uppercase();
        let course = if graph >= name.len() + " COURSE".len() { " COURSE" } else { "" };
        title.push(Span::raw(format!("  {name}{course}")));
    }
    let mut lines = vec![Line::from(title).style(look.heading())];

    let visible = height.saturating_sub(1);
    let chosen = state.chosen_place(&rows);
    let first = chosen.saturating_sub(visible / 2).min(rows.len().saturating_sub(visible));
    for (place, row) in rows.iter().enumerate().skip(first).take(visible) {
        let is_chosen = place == chosen;
        let mark = if is_chosen { '>' } else { ' ' };
        let mut spans = vec![Span::raw(format!("{mark}{}", pad(&label(row), name)))];
        for column in &columns {
            let (text, style) = (column.cell)(row, look);
            let text = format!("{:>1$}", look.text(&text), column.width);
            spans.extend([Span::raw(" "), Span::styled(text, style)]);
        }
        if graph > 0 {
            spans.extend([Span::raw("  "), course(row, state.graph, look, graph)]);
        }
        let line = Line::from(spans);
        let bold = Style::new().add_modifier(Modifier::BOLD);
        lines.push(if is_chosen { line.style(bold) } else { line });
    }
    if rows.is_empty() {
        lines.push(Line::from("no device did anything"));
    }
    lines
}

/// The last windows as a graph from 0 to the largest of them: a space where nothing was done, a
/// question mark where windows are missing.
fn course(row: &Row, graph: Graph, look: Look, width: usize) -> Span<'static> {
    let points = &row.course[row.course.len().saturating_sub(width)..];
    let value = |point: &Point| match (point, graph) {
        (Point::Gap, _) => None,
        (Point::Did(figures), Graph::P99) => figures.p99_us,
        (Point::Did(figures), Graph::Iops) => Some(figures.iops),
    };
    let largest = points.iter().filter_map(value).fold(0.0, f64::max);
    let levels = look.levels();
    let character = |point: &Point| match value(point) {
        _ if *point == Point::Gap => '?',
        Some(value) if value > 0.0 => {
            let level = (value / largest * levels.len() as f64).ceil() as usize;
            levels[level.clamp(1, levels.len()) - 1]
        }
        _ => ' ',
    };
    Span::styled(points.iter().map(character).collect::<String>(), look.graph())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_may_keep_windows_back() {
        let s = 1_000_000;
        assert!(!is_late(60 * s, 5_000_000, None));
        assert!(is_late(71 * s, 5_000_000, None));
        assert!(is_late(16 * s, 5_000_000, Some(1)));
        assert!(!is_late(15 * s, 5_000_000, Some(1)));
        assert!(!is_late(-5 * s, 5_000_000, Some(1)));
    }

    #[test]
    fn what_matters_less_is_left_out_first() {
        let parts = |width| {
            let part = |rank, text: &str| Part(rank, text.into(), Style::new());
            let look = Look { unicode: true, colour: false };
            fit(vec![part(2, "low"), part(0, "high"), part(1, "mid")], look, width).to_string()
        };
        assert_eq!(parts(14), "low  high  mid");
        assert_eq!(parts(13), "high  mid");
        assert_eq!(parts(3), "high");
    }
}
