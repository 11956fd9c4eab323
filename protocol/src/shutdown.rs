//! The one way to shut down. Every trigger calls [`Shutdown::request`]; the runtime then gives the stage [`GRACE`] to
//! release what takes one request, drops the stage, and writes `result`.

use std::io::PipeWriter;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The time that a stage has between the trigger and its end. devcluster's API gives all stages together 3 s.
pub const GRACE: Duration = Duration::from_millis(400);

/// Why a stage stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A signal, by name.
    Signal(&'static str),
    /// The host sent `shutdown`.
    Shutdown,
    /// The host sent `cancel` before the stage was ready.
    Cancelled,
    /// The host closed the stage's stdin.
    StdinClosed,
    /// The reader of an output pipe closed it.
    HostGone,
    /// The upstream stage in the pipe ended.
    UpstreamGone,
    /// The command after `--` ended with this code.
    CommandEnded(u8),
    /// The stage failed while a command still ran.
    Failed,
}

impl Reason {
    /// The reason as a `stopping` message names it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Reason::Signal(name) => name,
            Reason::Shutdown => "shutdown",
            Reason::Cancelled => "cancel",
            Reason::StdinClosed => "stdin_closed",
            Reason::HostGone => "host_gone",
            Reason::UpstreamGone => "upstream_gone",
            Reason::CommandEnded(_) => "command_ended",
            Reason::Failed => "failed",
        }
    }
}

/// The shutdown switch. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    at_once: CancellationToken,
    reason: Arc<OnceLock<Reason>>,
    stop: CancellationToken,
}

impl Shutdown {
    /// Requests the shutdown. The first reason is kept; a second signal ends the grace period.
    pub fn request(&self, reason: Reason) {
        let again = matches!(reason, Reason::Signal(_)) && self.requested.is_cancelled();
        self.reason.get_or_init(|| reason);
        self.requested.cancel();
        if again {
            self.at_once.cancel();
        }
    }

    /// Resolves when the stage has to stop. A command after `--` is ended before that.
    pub async fn cancelled(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the stage has to stop.
    pub fn is_cancelled(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Resolves once a shutdown is requested.
    pub(crate) async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Resolves on a second signal, which ends the grace period.
    pub(crate) async fn at_once(&self) {
        self.at_once.cancelled().await;
    }

    /// The reason, once a shutdown is requested.
    pub(crate) fn reason(&self) -> Option<&Reason> {
        self.reason.get()
    }

    /// Stops the stage.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// The same switch for a stage that is restarted in the same process.
    pub(crate) fn restarted(&self) -> Shutdown {
        Shutdown {
            stop: CancellationToken::new(),
            ..self.clone()
        }
    }

    /// Listens for signals and watches the output pipes. It holds a copy of each pipe until the returned value is dropped.
    /// The other triggers are where their messages are read.
    pub(crate) fn listen(
        &self,
        tasks: &mut JoinSet<()>,
        pipes: Vec<OwnedFd>,
    ) -> std::io::Result<PipeWriter> {
        for (kind, name) in [
            (SignalKind::terminate(), "sigterm"),
            (SignalKind::interrupt(), "sigint"),
            (SignalKind::hangup(), "sighup"),
        ] {
            let mut stream = signal(kind)?;
            let shutdown = self.clone();
            tasks.spawn(async move {
                while stream.recv().await.is_some() {
                    shutdown.request(Reason::Signal(name));
                }
            });
        }
        let (until, watch) = std::io::pipe()?;
        if !pipes.is_empty() {
            let shutdown = self.clone();
            std::thread::spawn(move || {
                if wait_for_closed_reader(&pipes, &until.into()) {
                    shutdown.request(Reason::HostGone);
                }
            });
        }
        Ok(watch)
    }
}

/// Returns true when the reader of a pipe is gone, and false when `until` is closed.
///
/// Linux reports the closed reader of a pipe even when no event is requested. Other systems may not, so there the call
/// also asks for writability, which always shows a closed reader, and repeats once a second.
fn wait_for_closed_reader(pipes: &[OwnedFd], until: &OwnedFd) -> bool {
    let linux = cfg!(target_os = "linux");
    let events = if linux {
        PollFlags::empty()
    } else {
        PollFlags::OUT
    };
    let closed = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
    loop {
        let mut fds: Vec<_> = pipes.iter().map(|fd| PollFd::new(fd, events)).collect();
        fds.push(PollFd::new(until, PollFlags::IN));
        match poll(&mut fds, None::<&Timespec>) {
            Ok(_) if !fds[pipes.len()].revents().is_empty() => return false,
            Ok(_) if fds.iter().any(|fd| fd.revents().intersects(closed)) => return true,
            Ok(_) => std::thread::sleep(Duration::from_secs(1)),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
