//! `blkiolat top`: the loop that wires source, state, keys and view.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::crossterm::event::{self, Event};
use rustix::process::{Signal, getpgrp, kill_process_group};

use super::cli::TopArgs;
use super::history::KEPT;
use super::keys;
use super::look::Look;
use super::pace::Speed;
use super::player::{Player, Update};
use super::screen::{Keyboard, Screen, Signals, end_by};
use super::state::{Effect, State};
use super::view::{self, Moment};
use crate::report::failure::Failure;

pub use super::tail::tail;

/// How often the time since the last window is brought up to date.
const TICK: Duration = Duration::from_secs(1);
/// How long windows are taken without a look at the keys.
const TURN: Duration = Duration::from_millis(50);

/// What the loop keeps besides the display's state.
struct Top {
    player: Player,
    state: State,
    look: Look,
    zone: TimeZone,
    source: String,
    ended: bool,
    /// Most windows that arrived at once after the first look.
    batch: Option<u64>,
    looked: bool,
}

/// Shows a running daemon's windows, or a replay, until it is told to end.
///
/// # Errors
/// When there is no terminal, nothing to show, or the terminal fails.
pub fn top(args: &TopArgs) -> Result<ExitCode, Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    if !io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "top needs a terminal, and standard output is none; blkiolat tail prints lines".into(),
        ));
    }
    if variable("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
        return Err(Failure::Usage(
            "top needs a terminal that can move its cursor, and TERM says that this one cannot; \
             blkiolat tail prints lines"
                .into(),
        ));
    }
    let (source, name) = args.live.source(KEPT / 2)?;
    let player = Player::new(source, args.live.intake()?).map_err(Failure::Data)?;
    let signals = Signals::catch()?;
    let mut top = Top {
        player,
        state: State { sort: args.sort, ..State::default() },
        look: Look::of_environment(variable),
        zone: args.live.zone(),
        source: name,
        ended: false,
        batch: None,
        looked: false,
    };
    let keyboard = Keyboard::open()?;
    let mut screen = Screen::enter()?;
    let result = top.run(&mut screen, &signals, &keyboard);
    drop(screen);
    if let Some(signal) = signals.ended_by() {
        // After a hangup the terminal fails too, which is no news.
        end_by(signal)?;
    }
    result?;
    Ok(ExitCode::SUCCESS)
}

impl Top {
    fn run(
        &mut self,
        screen: &mut Screen,
        signals: &Signals,
        keyboard: &Keyboard,
    ) -> io::Result<()> {
        let mut drawn: Option<Instant> = None;
        loop {
            if signals.ended_by().is_some() {
                return Ok(());
            }
            if signals.take_stop() {
                screen.suspend()?;
                signals.take_continued();
                drawn = None;
            } else if signals.take_continued() {
                screen.again()?;
                drawn = None;
            }
            if self.take_windows() || drawn.is_none_or(|at| at.elapsed() >= TICK) {
                self.draw(screen)?;
                drawn = Some(Instant::now());
            }
            if !keyboard.wait(self.player.wait(Instant::now()))? {
                return Ok(());
            }
            // All keys that were pressed, and then one picture.
            while event::poll(Duration::ZERO)? {
                if !self.take_event(&event::read()?, screen)? {
                    return Ok(());
                }
                drawn = None;
            }
        }
    }

    /// Takes what has come; true if there is anything new to show.
    fn take_windows(&mut self) -> bool {
        let begin = Instant::now();
        let replay = self.player.speed().is_some();
        let mut windows = 0;
        let mut any = false;
        loop {
            let updates = self.player.advance(Instant::now(), replay && self.state.paused);
            any |= !updates.is_empty();
            windows += self.take(updates);
            if self.player.wait(Instant::now()) > Duration::ZERO || begin.elapsed() >= TURN {
                break;
            }
        }
        if windows > 0 && self.looked {
            self.batch = Some(self.batch.unwrap_or(0).max(windows));
        }
        self.looked = true;
        any
    }

    /// Returns how many moments of windows there were.
    fn take(&mut self, updates: Vec<Update>) -> u64 {
        let mut moments = 0;
        let mut last_us = None;
        for update in updates {
            match update {
                Update::Window(window, _) => {
                    if last_us != Some(window.end_us) {
                        moments += 1;
                        last_us = Some(window.end_us);
                    }
                    self.state.push(*window);
                }
                Update::Damaged(what) => {
                    self.state.damaged += 1;
                    self.state.tell(what);
                }
                Update::Note(note) => self.state.tell(note),
                Update::End => self.ended = true,
            }
        }
        moments
    }

    /// False when the program is to end.
    fn take_event(&mut self, event: &Event, screen: &mut Screen) -> io::Result<bool> {
        let Event::Key(key) = event else { return Ok(true) };
        let Some(action) = keys::action(*key, &self.state) else { return Ok(true) };
        match self.state.apply(action) {
            Effect::None => {}
            Effect::Quit => return Ok(false),
            // To all of the job, as the terminal would do; the signal comes back to us.
            Effect::Suspend => kill_process_group(getpgrp(), Signal::TSTP)?,
            Effect::Redraw => screen.again()?,
            Effect::Next if self.player.speed().is_some() => {
                let updates = self.player.next(Instant::now());
                self.take(updates);
                self.state.show_last();
            }
            Effect::Next => {}
            Effect::Faster => self.player.change_speed(Speed::faster),
            Effect::Slower => self.player.change_speed(Speed::slower),
        }
        Ok(true)
    }

    fn draw(&mut self, screen: &mut Screen) -> io::Result<()> {
        let live = self.player.speed().is_none();
        let moment = Moment {
            now_us: live.then(|| Timestamp::now().as_microsecond()),
            batch: self.batch,
            zone: &self.zone,
            speed: self.player.speed(),
            ended: self.ended,
            source: &self.source,
        };
        let mut last = 0;
        let (state, look) = (&self.state, self.look);
        screen
            .terminal
            .draw(|frame| last = view::draw(state, look, &moment, frame.buffer_mut()))?;
        self.state.scroll = self.state.scroll.min(last);
        Ok(())
    }
}
