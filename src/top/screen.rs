//! The terminal while `blkiolat top` has it: taken on start, and given back as it was whatever
//! ends the program.

use std::fs::File;
use std::io::{self, Stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::{flag, low_level};

/// The terminal, taken over.
pub(super) struct Screen {
    pub(super) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal over; a panic gives it back before its message is printed.
    pub(super) fn enter() -> io::Result<Self> {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            print(info);
        }));
        take()?;
        match Terminal::new(CrosstermBackend::new(io::stdout())) {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Gives the terminal back, stops the program as a job of its shell, and takes the terminal
    /// over again when it is continued.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        restore();
        low_level::emulate_default_handler(SIGTSTP)?;
        self.again()
    }

    /// Takes the terminal over again: somebody else may have used it.
    pub(super) fn again(&mut self) -> io::Result<()> {
        // What is believed to be set is otherwise not set again.
        let _ = disable_raw_mode();
        take()?;
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Hide).inspect_err(|_| {
        let _ = disable_raw_mode();
    })
}

/// Whatever of this fails, the rest is still worth trying, and there is nobody to tell.
fn restore() {
    let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}

/// The keyboard, to wait for it: crossterm's own wait never ends once the terminal is gone.
#[derive(Debug)]
pub(super) struct Keyboard(File);

impl Keyboard {
    pub(super) fn open() -> io::Result<Self> {
        File::open("/dev/tty").map(Self)
    }

    /// Waits until a key is pressed or a signal arrives, `wait` at most. False when the terminal is
    /// gone.
    pub(super) fn wait(&self, wait: Duration) -> io::Result<bool> {
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        let mut keyboard = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut keyboard, Some(&wait)) {
            Ok(_) => Ok(!keyboard[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

/// The signals that a program with a terminal has to heed.
pub(super) struct Signals {
    ended_by: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    continued: Arc<AtomicBool>,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        let signals =
            Self { ended_by: Arc::default(), stop: Arc::default(), continued: Arc::default() };
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            flag::register_usize(signal, Arc::clone(&signals.ended_by), signal as usize)?;
        }
        flag::register(SIGTSTP, Arc::clone(&signals.stop))?;
        flag::register(SIGCONT, Arc::clone(&signals.continued))?;
        Ok(signals)
    }

    /// The signal that asks the program to end; none if none does.
    pub(super) fn ended_by(&self) -> Option<i32> {
        i32::try_from(self.ended_by.load(Ordering::Relaxed)).ok().filter(|&signal| signal > 0)
    }

    /// Whether the program is asked to stop, once for each time.
    pub(super) fn take_stop(&self) -> bool {
        self.stop.swap(false, Ordering::Relaxed)
    }

    /// Whether the program was continued, once for each time.
    pub(super) fn take_continued(&self) -> bool {
        self.continued.swap(false, Ordering::Relaxed)
    }
}

/// Ends the program as `signal` does, so that whoever started it sees why it ended. The terminal
/// must have been given back.
pub(super) fn end_by(signal: i32) -> io::Result<()> {
    low_level::emulate_default_handler(signal)
}
