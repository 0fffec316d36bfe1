//! `blkiolat tail`: windows as lines, as they come.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::cli::{TailArgs, TailFormat};
use super::lines::Printer;
use super::look::Look;
use super::player::{Player, Update};
use crate::report::failure::Failure;
use crate::report::units::printable;

/// Prints windows until the input ends, nobody reads any more, or, with `--no-follow`, those are
/// printed that are there already.
///
/// # Errors
/// When there is nothing to read or `out` fails.
pub fn tail(
    args: &TailArgs,
    out: &mut dyn Write,
    log: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let (source, name) = args.live.source(usize::try_from(args.lines).unwrap_or(usize::MAX))?;
    let mut player = Player::new(source, args.live.intake()?).map_err(Failure::Data)?;
    let variable = |name: &str| std::env::var(name).ok();
    let mut look = Look::of_environment(variable);
    look.colour &= io::stdout().is_terminal();
    // In a file or pipe everybody expects UTF-8.
    look.unicode |= !io::stdout().is_terminal();
    let mut printer = Printer::new(look, args.live.zone());
    loop {
        for update in player.advance(Instant::now(), false) {
            match update {
                Update::Window(window, line) => match args.format {
                    TailFormat::Table => printer.print(out, &window)?,
                    TailFormat::Jsonl => {
                        let losses = window.losses().words();
                        if !losses.is_empty() {
                            say(log, &format!("{name}: missed: {}", losses.join(", ")));
                        }
                        out.write_all(&line)?;
                        out.write_all(b"\n")?;
                    }
                },
                Update::Damaged(what) | Update::Note(what) => {
                    // In the order in which it happened, where both go to one terminal.
                    out.flush()?;
                    say(log, &format!("{name}: {what}"));
                }
                Update::End => {}
            }
        }
        out.flush()?;
        let ended = player.has_ended() || (args.no_follow && player.is_up_to_date());
        if ended || !is_read(player.wait(Instant::now()))? {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Tells what is no window; if that cannot be written, there is nobody to tell.
fn say(log: &mut dyn Write, what: &str) {
    let _ = writeln!(log, "blkiolat: {}", printable(what));
}

/// Waits; false when standard output is a pipe or terminal that nobody reads any more. Without it,
/// a reader that went away would be noticed only with the next window.
fn is_read(wait: Duration) -> io::Result<bool> {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let timeout = rustix::event::Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) => Ok(!fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)),
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
