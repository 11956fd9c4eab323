//! One ssh process that stays in the foreground, and what is asked of it through its control socket.

mod failure;
mod options;
mod report;
mod socket;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openssh::{ForwardType, Socket as Endpoint, Stdio};
use protocol::StageError;
use protocol::child::{self, Leashed};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub(crate) use options::Resolved;
pub(crate) use report::{Arrival, Log, Refusal};
pub(crate) use socket::{LEDGER_ENTRY, Socket, undo};

use crate::config::Config;
use failure::Target;

pub(crate) const ANY_IPV4: &str = "0.0.0.0";

/// A request over the control socket is one round trip. The crate's calls do not give up by themselves.
const REQUEST: Duration = Duration::from_secs(10);
/// ssh logs a refusal just before it passes it on; the two come by different ways.
const REASON: Duration = Duration::from_millis(500);
/// What giving back the port may take of the half second in which a stage ends.
const GIVE_BACK: Duration = Duration::from_millis(100);
/// SIGTERM ends ssh in 2 ms.
const TERMINATE: Duration = Duration::from_millis(200);

/// A logged-in ssh. Dropping it kills the process, and with it the remote listeners.
#[derive(Debug)]
pub(crate) struct Session {
    process: Leashed,
    mux: Arc<openssh::Session>,
    log: watch::Receiver<Log>,
    target: Target,
    /// Where the server is asked to listen.
    pub(crate) bind_address: String,
    local_port: u16,
    tasks: JoinSet<()>,
}

/// The server does not listen for us.
#[derive(Debug)]
pub(crate) enum NotListening {
    /// It said no.
    Refused(Refusal),
    /// It could not be asked, or did not answer.
    Broken(StageError),
}

impl Session {
    /// Starts ssh and waits until it is logged in and takes requests at `socket`.
    pub(crate) async fn connect(
        config: &Config,
        resolved: &Resolved,
        socket: &Path,
    ) -> Result<Session, StageError> {
        let target = resolved.target(config);
        let args = options::master(config, resolved, socket);
        let mut process = child::spawn("ssh", args).map_err(|e| options::not_started(&e))?;
        let stderr = process.child.stderr.take();
        let stderr = stderr.ok_or_else(|| StageError::internal("ssh without stderr"))?;
        let (sender, mut log) = watch::channel(Log::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(report::drain(stderr, sender));

        // ssh has a limit of its own for each step; a login that hangs has none.
        let limit = config.connect_timeout.duration() * 2;
        let up = timeout(limit, log.wait_for(|log| log.up || log.ended))
            .await
            .is_ok();
        let (logged_in, lines) = {
            let log = log.borrow();
            (log.up, log.lines())
        };
        if !up {
            return Err(failure::no_answer(&lines, &target, limit.as_secs_f64()));
        }
        if !logged_in {
            return Err(failure::connecting(&lines, &target));
        }
        let mux = Arc::new(openssh::Session::resume_mux(socket.into(), None));
        let mut session = Session {
            process,
            mux,
            log,
            target,
            bind_address: ANY_IPV4.to_owned(),
            local_port: config.local_port,
            tasks,
        };
        session.wake_up().await;
        Ok(session)
    }

    /// sshd up to 10.0 sets TCP_NODELAY only when a session starts: with `-N` alone every visitor waits 43 ms. A server
    /// that runs no commands for us is slower and serves all the same.
    async fn wake_up(&mut self) {
        let mut command = self.mux.clone().arc_raw_command("true");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Ok(Ok(child)) = timeout(REQUEST, command.spawn()).await {
            self.tasks.spawn(async move {
                drop(child.wait().await);
            });
        }
    }

    pub(crate) fn log(&self) -> watch::Receiver<Log> {
        self.log.clone()
    }

    pub(crate) fn target(&self) -> String {
        self.target.to_string()
    }

    /// Asks the server to listen on a port and to pass its visitors on to the local one.
    pub(crate) async fn listen(&self, port: u16) -> Result<(), NotListening> {
        let (from, to) = self.ends(port);
        match timeout(
            REQUEST,
            self.mux.request_port_forward(ForwardType::Remote, from, to),
        )
        .await
        {
            Ok(Ok(())) => Ok(()),
            Ok(Err(openssh::Error::SshMux(error)))
                if error.to_string().contains("refused the request") =>
            {
                Err(NotListening::Refused(self.refusal(port).await))
            }
            Ok(Err(error)) => Err(NotListening::Broken(self.broken(port).source(&error))),
            Err(_) => {
                // It may yet be granted, and nobody would use it.
                self.give_back(port).await;
                Err(NotListening::Broken(
                    self.broken(port).cause("no answer in time"),
                ))
            }
        }
    }

    async fn refusal(&self, port: u16) -> Refusal {
        let logged = |log: &Log| {
            log.refusals
                .iter()
                .rev()
                .find(|(p, _)| *p == port)
                .map(|(_, refusal)| *refusal)
        };
        let mut log = self.log.clone();
        let waited = timeout(
            REASON,
            log.wait_for(|log| log.ended || logged(log).is_some()),
        )
        .await;
        waited
            .ok()
            .and_then(|log| logged(&*log.ok()?))
            .unwrap_or(Refusal::Taken)
    }

    fn broken(&self, port: u16) -> StageError {
        let message = format!("asking {} to listen on port {port} failed", self.target);
        StageError::new("tunnel.request_failed", message).retryable(true)
    }

    /// Asks the server to listen on a port no longer.
    pub(crate) async fn give_back(&self, port: u16) {
        let (from, to) = self.ends(port);
        // A server that does not answer loses the listener with the connection.
        drop(
            timeout(
                GIVE_BACK,
                self.mux.close_port_forward(ForwardType::Remote, from, to),
            )
            .await,
        );
    }

    fn ends(&self, port: u16) -> (Endpoint<'_>, Endpoint<'_>) {
        (
            Endpoint::new(&self.bind_address, port),
            Endpoint::new("127.0.0.1", self.local_port),
        )
    }

    /// What a command on the server writes to stdout, where the server runs commands for us.
    pub(crate) async fn output_of(&self, command: &str) -> Option<String> {
        let mut command = self.mux.raw_command(command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let output = timeout(REQUEST, command.output()).await.ok()?.ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Resolves when ssh has ended by itself, with the reason.
    pub(crate) async fn ended(&mut self) -> StageError {
        let status = self.process.child.wait().await;
        let mut log = self.log.clone();
        drop(timeout(REASON, log.wait_for(|log| log.ended)).await);
        let error = failure::connection_lost(&self.log.borrow().lines(), &self.target);
        match status {
            Ok(status) if error.caused_by.is_empty() => error.cause(format!("ssh ended: {status}")),
            _ => error,
        }
    }

    /// Gives the port back and ends ssh.
    pub(crate) async fn close(mut self, port: Option<u16>) {
        if let Some(port) = port {
            self.give_back(port).await;
        }
        self.process.terminate();
        drop(timeout(TERMINATE, self.process.child.wait()).await);
    }
}
