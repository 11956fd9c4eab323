//! One ssh process in the foreground, and the requests over its control socket.

mod failure;
mod listening;
mod log;
mod login;
mod options;
mod remote;
mod resolved;
mod socket;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, Shared, join_all};
use openssh::{ForwardType, OwningCommand, Socket as Endpoint, Stdio};
use protocol::child::SupervisedChild;
use protocol::ledger::{Entry, Ledger, Ticket};
use protocol::{Leftover, StageError};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub(crate) use failure::{Server, connecting_error, key_permissions};
pub(crate) use listening::Listeners;
pub(crate) use log::{Arrival, Log, Refusal};
pub(crate) use options::version;
pub(crate) use remote::{Ghost, Greeting, RemoteSession};
pub(crate) use resolved::Resolved;
pub(crate) use socket::{Socket, socket_path};

use crate::codes;
use crate::config::Config;
use crate::network::Network;
use login::{bind_address, log_in};
use remote::SessionRecord;

pub(crate) const ANY_IPV4: &str = "0.0.0.0";

/// A request over the control socket takes one round trip. The crate's calls have no time limit.
const REQUEST: Duration = Duration::from_secs(10);
/// A shell answers within milliseconds, with a slow startup file within seconds; another program may never answer.
const GREETING: Duration = Duration::from_secs(60);
/// A server's listeners take a few kilobytes. Longer output is not read.
const OUTPUT: u64 = 1024 * 1024;
/// ssh logs a refusal just before it passes it on, over another channel.
const REASON: Duration = Duration::from_millis(500);
/// Time limit of a release, within the half second in which a stage ends.
const STOP_LISTENING: Duration = Duration::from_millis(200);
/// SIGTERM ends ssh within 2 ms.
const TERMINATE: Duration = Duration::from_millis(100);

/// A logged-in ssh. Dropping it kills the process, and with it the remote listeners.
#[derive(Debug)]
pub(crate) struct SshSession {
    process: SupervisedChild,
    mux: Arc<openssh::Session>,
    pub(crate) log: watch::Receiver<Log>,
    pub(crate) server: Server,
    /// The address on which the server is asked to listen.
    pub(crate) bind_address: String,
    login: Vec<OsString>,
    greeting: Shared<BoxFuture<'static, Greeting>>,
    /// The granted ports, each with its local end.
    granted: Mutex<BTreeMap<u16, LocalEnd>>,
    _tasks: JoinSet<()>,
}

/// Where a forward ends on this machine.
#[derive(Clone, Debug)]
pub(crate) enum LocalEnd {
    /// A port of the loopback address.
    Port(u16),
    /// A Unix socket.
    Socket(PathBuf),
}

/// Why the server does not listen.
#[derive(Debug)]
pub(crate) enum ListenError {
    /// The server refused.
    Refused(Refusal),
    /// The request failed or was not answered.
    Failed(StageError),
}

impl SshSession {
    /// Starts ssh and waits until it is logged in and accepts requests at `socket`. The login ends these ghosts.
    pub(crate) async fn connect(
        config: &Config,
        resolved: &Resolved,
        socket: &Path,
        ghosts: &[RemoteSession],
        network: &Network,
    ) -> Result<SshSession, StageError> {
        let (login, bind_address) = tokio::join!(
            log_in(config, resolved, socket, network),
            bind_address(config, resolved)
        );
        let (process, log, tasks) = login?;
        let mux = Arc::new(openssh::Session::resume_mux(socket.into(), None));
        // Running any command has a second effect: sshd up to 10.0 sets TCP_NODELAY only when a session starts. With
        // `-N` alone every visitor waits 43 ms.
        let spawned = timeout(REQUEST, command(&mux, &remote::greet(ghosts)).spawn()).await;
        let greeting = async move {
            let text = timeout(GREETING, read_stdout(spawned.ok()?.ok()?)).await;
            Some(Greeting::parse(&text.ok()??))
        };
        Ok(SshSession {
            process,
            mux,
            log,
            server: resolved.server(config),
            bind_address,
            login: options::login(config),
            greeting: greeting.map(Option::unwrap_or_default).boxed().shared(),
            granted: Mutex::default(),
            _tasks: tasks,
        })
    }

    /// The server's answer to the greeting command, once it is there; empty if the account may not run commands.
    pub(crate) fn greeting(&self) -> impl Future<Output = Greeting> + use<> {
        self.greeting.clone()
    }

    /// Records in the ledger which process of the server serves this session.
    pub(crate) fn note(
        &self,
        session: &RemoteSession,
        ledger: &Ledger,
    ) -> Result<Ticket, StageError> {
        let noted = SessionRecord::new(session, &self.login, self.server.to_string());
        ledger.intend(remote::LEDGER_ENTRY, json!(noted))
    }

    /// Whether we request all addresses. With GatewayPorts off the server listens on loopback all the same.
    pub(crate) fn wants_all_addresses(&self) -> bool {
        [ANY_IPV4, "*", "", "::"].contains(&self.bind_address.as_str())
    }

    /// The addresses on which the server listens for a port, if it shows them.
    pub(crate) async fn listening(&self, port: u16) -> Listeners {
        let tables = async {
            let child = command(&self.mux, listening::COMMAND).spawn().await;
            read_stdout(child.ok()?).await
        };
        let tables = timeout(REQUEST, tables).await.ok().flatten();
        Listeners::parse(&tables.unwrap_or_default(), port)
    }

    /// Asks the server to listen on a port and to forward its visitors to this end.
    pub(crate) async fn listen(&self, port: u16, local: &LocalEnd) -> Result<(), ListenError> {
        let (from, to) = self.ends(port, local);
        let request = self.mux.request_port_forward(ForwardType::Remote, from, to);
        match timeout(REQUEST, request).await {
            Ok(Ok(())) => {
                self.granted().insert(port, local.clone());
                Ok(())
            }
            Ok(Err(openssh::Error::SshMux(error)))
                if error.to_string().contains("refused the request") =>
            {
                Err(ListenError::Refused(self.refusal(port).await))
            }
            Ok(Err(error)) => Err(ListenError::Failed(self.failed(port).source(&error))),
            Err(_) => {
                // The server may grant it later, for no one.
                self.close_forward(port, local).await;
                let error = self.failed(port).cause("no answer in time");
                Err(ListenError::Failed(error))
            }
        }
    }

    async fn refusal(&self, port: u16) -> Refusal {
        let mut log = self.log.clone();
        let is_logged = log.wait_for(|log| log.ended || log.refusal(port).is_some());
        drop(timeout(REASON, is_logged).await);
        self.log.borrow().refusal(port).unwrap_or(Refusal::Taken)
    }

    fn failed(&self, port: u16) -> StageError {
        let server = &self.server;
        let message = format!("the request to {server} to listen on port {port} failed");
        StageError::new(codes::CONNECTION_LOST, message)
    }

    /// Asks the server to stop listening on a granted port. Returns false if it does not answer.
    pub(crate) async fn stop_listening(&self, port: u16) -> bool {
        let Some(local) = self.granted().remove(&port) else {
            return false;
        };
        self.close_forward(port, &local).await
    }

    async fn close_forward(&self, port: u16, local: &LocalEnd) -> bool {
        let (from, to) = self.ends(port, local);
        let close = self.mux.close_port_forward(ForwardType::Remote, from, to);
        matches!(timeout(STOP_LISTENING, close).await, Ok(Ok(())))
    }

    fn granted(&self) -> MutexGuard<'_, BTreeMap<u16, LocalEnd>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends<'a>(&'a self, port: u16, local: &'a LocalEnd) -> (Endpoint<'a>, Endpoint<'a>) {
        let to = match local {
            LocalEnd::Port(port) => Endpoint::new("127.0.0.1", *port),
            LocalEnd::Socket(path) => Endpoint::from(path.as_path()),
        };
        (Endpoint::new(&self.bind_address, port), to)
    }

    /// Waits until ssh ends by itself, and returns why.
    pub(crate) async fn ended(&mut self) -> StageError {
        let status = self.process.child.wait().await;
        let mut log = self.log.clone();
        drop(timeout(REASON, log.wait_for(|log| log.ended)).await);
        let error = failure::connection_lost_error(&self.log.borrow().lines(), &self.server);
        match status {
            Ok(status) if error.caused_by.is_empty() => error.cause(format!("ssh ended: {status}")),
            _ => error,
        }
    }

    /// Releases all ports and ends ssh. Returns false if the server may not have noticed.
    pub(crate) async fn close(mut self) -> bool {
        let granted: Vec<u16> = self.granted().keys().copied().collect();
        let all = granted.iter().map(|port| self.stop_listening(*port));
        let acknowledged = !granted.is_empty()
            && join_all(all)
                .await
                .into_iter()
                .all(|acknowledged| acknowledged);
        self.process.terminate();
        drop(timeout(TERMINATE, self.process.child.wait()).await);
        acknowledged
    }
}

/// A command to run on the server.
fn command(mux: &Arc<openssh::Session>, command: &str) -> OwningCommand<Arc<openssh::Session>> {
    let mut command = mux.clone().arc_raw_command(command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Reads a command's output; `None` if it is longer than any expected output.
async fn read_stdout<S>(mut child: openssh::Child<S>) -> Option<String> {
    let bytes = options::read(child.stdout().take()?).await.ok()?;
    let is_all = (bytes.len() as u64) < OUTPUT;
    is_all.then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// What a dead run left: an ssh on this machine, or a session on the server.
pub(crate) fn leftover(entry: &Entry) -> Option<Leftover<'_>> {
    match entry.what.as_str() {
        socket::LEDGER_ENTRY => socket::leftover(&entry.data),
        remote::LEDGER_ENTRY => remote::leftover(&entry.data),
        _ => None,
    }
}
