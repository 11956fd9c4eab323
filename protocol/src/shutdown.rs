//! How anything shuts down. Every trigger ends in [`Shutdown::request`]; the runtime then gives the stage
//! [`GRACE`] to give back what takes one request, drops what is left of it, and writes `result`.

use std::io::PipeWriter;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a stage has between the trigger and its end. devcluster's API gives all stages together 3 s.
pub const GRACE: Duration = Duration::from_millis(400);

/// What made a stage stop.
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
    /// Nobody reads an output pipe any more.
    HostGone,
    /// The stage before in the pipe ended.
    UpstreamGone,
    /// The command that we ran ended with this code.
    CommandEnded(u8),
    /// The stage failed while a command still ran.
    Failed,
}

impl Reason {
    /// The word for it in a `stopping` message.
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

/// The one switch. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    at_once: CancellationToken,
    reason: Arc<OnceLock<Reason>>,
    stop: CancellationToken,
}

impl Shutdown {
    /// Asks for the end. The first reason stands; a second signal takes the grace away.
    pub fn request(&self, reason: Reason) {
        let again = matches!(reason, Reason::Signal(_)) && self.requested.is_cancelled();
        self.reason.get_or_init(|| reason);
        self.requested.cancel();
        if again {
            self.at_once.cancel();
        }
    }

    /// Resolves when the stage has to stop. A command that runs while the stage holds things up is ended before that.
    pub async fn cancelled(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the stage has to stop.
    pub fn is_cancelled(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Resolves once the end was asked for.
    pub(crate) async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Resolves when there is no grace left to take: a second signal came.
    pub(crate) async fn at_once(&self) {
        self.at_once.cancelled().await;
    }

    /// Why, once the end was asked for.
    pub(crate) fn reason(&self) -> Option<&Reason> {
        self.reason.get()
    }

    /// Tells the stage to stop.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// The same switch for the next stretch of a stage that is started over in the same process.
    pub(crate) fn restarted(&self) -> Shutdown {
        Shutdown {
            stop: CancellationToken::new(),
            ..self.clone()
        }
    }

    /// Listens to signals and watches the output pipes; holds a copy of each open until what it returns is dropped. The
    /// other triggers are where their messages are read.
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

/// Returns true when a pipe has no reader any more, and false when `until` was closed.
///
/// Linux reports the closed reader of a pipe without being asked for any event. Elsewhere that is not certain, so the
/// call returns once a second and asks for writability too, where a closed reader always shows.
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
