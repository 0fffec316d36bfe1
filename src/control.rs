//! How the daemon is steered from outside: signals, and what it tells systemd.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level};
use tokio::net::UnixStream;

/// What somebody asks of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT: write the last window and end.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: set the active file aside.
    Rotate,
}

/// Receives signals.
#[derive(Debug)]
pub struct Signals {
    wake: UnixStream,
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    rotate: Arc<AtomicBool>,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT, SIGHUP and SIGUSR1. A second SIGTERM or SIGINT ends the process at
    /// once, with exit code 1. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn take_over() -> io::Result<Self> {
        let (receiver, sender) = StdStream::pair()?;
        receiver.set_nonblocking(true)?;
        let [stop, reload, rotate] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        for (signal, asked) in
            [(SIGTERM, &stop), (SIGINT, &stop), (SIGHUP, &reload), (SIGUSR1, &rotate)]
        {
            if Arc::ptr_eq(asked, &stop) {
                flag::register_conditional_shutdown(signal, 1, Arc::clone(asked))?;
            }
            flag::register(signal, Arc::clone(asked))?;
            low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self { wake: UnixStream::from_std(receiver)?, stop, reload, rotate })
    }

    /// Waits for the next request. May be cancelled at any time. Requests of one kind that come before they
    /// are waited for are one.
    ///
    /// # Errors
    /// When the wake-up pipe fails.
    pub async fn next(&self) -> io::Result<Request> {
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return Ok(Request::Stop);
            }
            for (asked, request) in
                [(&self.reload, Request::Reload), (&self.rotate, Request::Rotate)]
            {
                if asked.swap(false, Ordering::SeqCst) {
                    return Ok(request);
                }
            }
            self.wake.readable().await?;
            match self.wake.try_read(&mut [0; 64]) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// How long a message that changes the service's state waits for a service manager that does not read.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells the service manager how things stand; says nothing when there is none (`NOTIFY_SOCKET`).
///
/// A manager that does not read, perhaps because it waits for the very disk that is stuck, does not
/// hold up sampling: status lines and signs of life are left out then.
#[derive(Debug, Default)]
pub struct Manager {
    /// Kept open: signs of life must not depend on there being a descriptor to spare.
    socket: Option<UnixDatagram>,
    status: String,
}

impl Manager {
    /// The daemon measures and records. With `status`, as all others.
    pub fn ready(&mut self, status: &str) {
        self.tell(&[NotifyState::Ready], status);
    }

    /// The configuration is being read again; [`Self::ready`] ends that.
    pub fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now], "Reading the configuration again"),
            Err(error) => tracing::warn!(%error, "cannot read the monotonic clock"),
        }
    }

    /// The daemon ends, which may take up to `time`.
    pub fn stopping(&mut self, time: Duration) {
        let time = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.tell(
            &[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(time)],
            "Writing the last window",
        );
    }

    /// One line of facts. What was said last is not said again.
    pub fn status(&mut self, status: &str) {
        if status != self.status && self.send(&[NotifyState::Status(status)], None) {
            status.clone_into(&mut self.status);
        }
    }

    /// The daemon makes progress.
    pub fn alive(&mut self) {
        self.send(&[NotifyState::Watchdog], None);
    }

    fn tell(&mut self, states: &[NotifyState<'_>], status: &str) {
        status.clone_into(&mut self.status);
        let mut states = states.to_vec();
        states.push(NotifyState::Status(status));
        self.send(&states, Some(PATIENCE));
    }

    /// Sends one datagram, or none when there is no room for it at once or within `patience`. Whether
    /// it was sent.
    fn send(&mut self, states: &[NotifyState<'_>], patience: Option<Duration>) -> bool {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else { return true };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        let mut sent = self.try_send(&address, message.as_bytes(), patience);
        if sent.as_ref().is_err_and(is_gone) {
            // Another manager may be there now.
            self.socket = None;
            sent = self.try_send(&address, message.as_bytes(), patience);
        }
        if let Err(error) = &sent {
            tracing::debug!(%error, "cannot reach the service manager");
        }
        sent.is_ok()
    }

    fn try_send(
        &mut self,
        address: &OsStr,
        message: &[u8],
        patience: Option<Duration>,
    ) -> io::Result<()> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(notify_socket(address)?),
        };
        socket.set_nonblocking(patience.is_none())?;
        if patience.is_some() {
            socket.set_write_timeout(patience)?;
        }
        socket.send(message).map(drop)
    }
}

/// Whether nobody has the other end any more.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}

/// A socket to the manager at `address`.
fn notify_socket(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match address.as_bytes() {
        [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        _ => socket.connect(address)?,
    }
    Ok(socket)
}

/// How long the service manager waits for [`Manager::alive`]; `None` when it does not.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}
