//! Screens, compared with what they should be.

use blkiolatd::report::units::duration;
use blkiolatd::top::lines::Printer;
use blkiolatd::top::look::Look;
use blkiolatd::top::pace::Speed;
use blkiolatd::top::state::{Action, Sort, State};
use blkiolatd::top::view::{self, Moment};
use blkiolatd::top::window::{Intake, Taken, Window};
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

use crate::support::{START_US, golden, lines};
use crate::{bio_line, records};

const PLAIN: Look = Look { colour: false, unicode: true };

/// Twelve windows; two are missing, a disk hangs, another has errors, one has an evil name.
fn eventful() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for mut record in records(16) {
        let seq = record.seq;
        if (6..8).contains(&seq) {
            continue;
        }
        if seq == 15 {
            record.audit.probe_misses = 3;
            let mut hung = record.inflight[1].clone();
            (hung.device_name, hung.count, hung.oldest_us) = ("sd\x1b[2Jz".into(), 2, 61e6);
            record.inflight.push(hung);
            let read = record.latency_histogram[1].ops.read.as_mut().unwrap();
            read.errors = 2;
        }
        all.push(lines(std::slice::from_ref(&record)));
        record.latency_histogram.truncate(1);
        record.inflight.clear();
        record.audit.probe_misses = 0;
        record.latency_histogram[0].device_name = "dm-0".into();
        all.push(bio_line(&record));
    }
    all
}

fn windows(lines: &[Vec<u8>]) -> Vec<Window> {
    let mut intake = Intake::default();
    let take = |line: &Vec<u8>| match intake.take(&line[..line.len() - 1], true) {
        Taken::Window(window) => *window,
        other => panic!("{other:?}"),
    };
    lines.iter().map(take).collect()
}

fn state(lines: &[Vec<u8>]) -> State {
    let mut state = State::default();
    windows(lines).into_iter().for_each(|window| state.push(window));
    state
}

fn calm() -> State {
    state(&records(16).iter().map(|r| lines(std::slice::from_ref(r))).collect::<Vec<_>>())
}

/// A moment two seconds after the end of the sixteenth window.
fn moment() -> Moment<'static> {
    const ZONE: &TimeZone = &TimeZone::UTC;
    Moment {
        now_us: Some(START_US + 82_000_000),
        batch: Some(1),
        zone: ZONE,
        speed: None,
        ended: false,
        source: "/var/log/blkiolatd/blkiolat.jsonl",
    }
}

fn draw(state: &State, look: Look, moment: &Moment<'_>, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            view::draw(state, look, moment, frame.buffer_mut());
        })
        .unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let mut text = String::new();
    for row in buffer.content.chunks(width) {
        let line: String = row.iter().map(|cell| cell.symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn screen(state: &State, width: u16, height: u16) -> String {
    text(&draw(state, PLAIN, &moment(), width, height))
}

#[test]
fn devices() {
    golden("top.txt", &screen(&calm(), 80, 24));
    golden("top_wide.txt", &screen(&calm(), 130, 12));
    golden("top_small.txt", &screen(&calm(), 40, 10));
}

#[test]
fn what_was_missed_comes_first() {
    let mut state = state(&eventful());
    state.damaged = 1;
    state.tell("a line is no record of version 1: expected value (column 1)".into());
    golden("top_missed.txt", &screen(&state, 80, 24));
    golden("top_missed_small.txt", &screen(&state, 40, 10));
    // One window earlier: no longer in this window, but among the last ones.
    state.apply(Action::StepBack);
    golden("top_held.txt", &screen(&state, 80, 24));
}

#[test]
fn one_device() {
    let mut state = state(&eventful());
    state.apply(Action::Sort(Sort::Name));
    state.apply(Action::Last);
    state.apply(Action::Enter);
    golden("top_device.txt", &screen(&state, 80, 24));
    golden("top_device_small.txt", &screen(&state, 40, 10));
    state.apply(Action::Range);
    state.apply(Action::NextOperation);
    golden("top_device_all.txt", &screen(&state, 80, 24));
    state.apply(Action::Last);
    let end = screen(&state, 40, 10);
    assert!(end.lines().nth(8).unwrap().contains(" -> "), "{end}");
}

#[test]
fn keys() {
    let mut state = calm();
    state.apply(Action::Help);
    golden("top_help.txt", &screen(&state, 80, 24));
    golden("top_help_small.txt", &screen(&state, 40, 10));
}

#[test]
fn ascii_and_replay() {
    let look = Look { colour: false, unicode: false };
    let replay = Moment { now_us: None, speed: Some(Speed::Times(10.0)), ended: true, ..moment() };
    let shown = text(&draw(&state(&eventful()), look, &replay, 80, 24));
    assert!(shown.is_ascii(), "{shown}");
    golden("top_ascii.txt", &shown);
}

#[test]
fn no_window_yet_and_none_for_long() {
    let mut state = State::default();
    state.tell("waiting for it: there is no such file yet".into());
    golden("top_waiting.txt", &screen(&state, 80, 8));
    let later = Moment { now_us: Some(START_US + 600_000_000), ..moment() };
    let buffer = draw(&calm(), Look { colour: true, unicode: true }, &later, 80, 24);
    let shown = text(&buffer);
    let ago = duration(520_000_000);
    assert!(shown.contains(&format!("NOTHING NEW for {ago}")), "{shown}");
}

#[test]
fn no_size_is_too_small() {
    let mut state = state(&eventful());
    for _ in 0..3 {
        for (width, height) in [(1, 1), (2, 3), (7, 2), (20, 4), (300, 80)] {
            screen(&state, width, height);
        }
        state.apply(Action::Enter);
        state.apply(Action::Help);
    }
}

/// Colours only where they are wanted; what must not be missed stands out without them.
#[test]
fn colours() {
    let state = state(&eventful());
    let coloured = |buffer: &Buffer| {
        let colour = |c: Color| c != Color::Reset;
        buffer.content.iter().filter(|cell| colour(cell.fg) || colour(cell.bg)).count()
    };
    let plain = draw(&state, PLAIN, &moment(), 80, 24);
    assert_eq!(coloured(&plain), 0);
    let missed = &plain.content[80];
    assert_eq!(missed.symbol(), "M");
    assert!(missed.modifier.contains(Modifier::REVERSED | Modifier::BOLD));
    let coloured_one = draw(&state, Look { colour: true, unicode: true }, &moment(), 80, 24);
    assert!(coloured(&coloured_one) > 0);
    assert_eq!(coloured_one.content[80].bg, Color::Red);
    assert_eq!(text(&coloured_one), text(&plain));
}

#[test]
fn windows_as_lines() {
    let mut printer = Printer::new(PLAIN, TimeZone::UTC);
    let mut out = Vec::new();
    let mut windows = windows(&eventful());
    let mut idle = windows[0].clone();
    idle.end_us += 86_400_000_000;
    idle.devices.clear();
    let mut long = idle.clone();
    long.devices = windows[0].devices.clone();
    long.devices[0].name = "a-very-long-device-name".into();
    windows.extend([idle.clone(), long]);
    idle.stream.layer = "bio".into();
    windows.push(idle);
    for window in &windows {
        printer.print(&mut out, window).unwrap();
    }
    golden("tail.txt", &String::from_utf8(out).unwrap());
}
