//! `run`: prepare, hold, stop in good order.

use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::call::Stdin as StdinMode;
use crate::config::Sources;
use crate::context::Context;
use crate::error::{Exit, StageError};
use crate::message::{Message, Start};
use crate::rundir::Phase;
use crate::runtime::{Session, config_of};
use crate::shutdown::{GRACE, Reason};
use crate::stage::Stage;
use crate::upstream::{Chain, Upstreams};
use crate::verbs::cleanup::undo_all;
use crate::verbs::command;
use crate::verbs::stdin::{self, Stdin};

/// The newest config of the host, or why it speaks no more.
pub(crate) type News = Option<Result<Start, StageError>>;

type Configs = watch::Receiver<News>;

/// Opens stdin in its mode and says hello; then config, lock, stage. Without a config it comes from the host.
pub(crate) async fn run<S: Stage>(
    session: &Session,
    tasks: &mut JoinSet<()>,
    stdin: Stdin,
    config: Option<Result<S::Config, StageError>>,
    stdout: Option<OwnedFd>,
) -> Result<u8, StageError> {
    let (sender, mut configs) = watch::channel(None);
    let mut upstream = None;
    match session.call.stdin {
        StdinMode::None => hello::<S>(session),
        StdinMode::Control => {
            hello::<S>(session);
            let (hub, shutdown) = (session.hub.clone(), session.shutdown.clone());
            tasks.spawn(stdin::follow_host(stdin, hub, shutdown, sender));
        }
        StdinMode::Chain => upstream = Some(join_chain::<S>(session, tasks, stdin).await?),
    }
    let config = match config {
        Some(config) => config?,
        None => match started::<S>(session, &mut configs).await? {
            Some(config) => config,
            None => return outcome(session),
        },
    };
    let begun = tokio::select! {
        begun = session.begin::<S>(upstream) => begun?,
        () = session.shutdown.requested() => return outcome(session),
    };
    let (cx, _lock) = begun;
    let ledger = cx.ledger.clone();
    let held = hold::<S>(session, cx, config, &mut configs, stdout).await;
    ledger.close();
    match held.and_then(|()| outcome(session)) {
        Ok(code) => {
            session.hub.enter(Phase::Stopped);
            Ok(code)
        }
        // Told while the lock is still held: a `wait` must not see a lock that nobody holds and no reason.
        Err(error) => {
            session.hub.failed(&error);
            Err(error)
        }
    }
}

pub(crate) fn hello<S: Stage>(session: &Session) {
    session.hub.send(&Message::Hello {
        stage: session.call.instance.clone(),
        kind: S::KIND.to_owned(),
        version: S::VERSION.to_owned(),
        run: session.hub.run.clone(),
        pid: std::process::id(),
    });
}

/// Our hello follows that of the stage before: who reads at the end of the pipe then knows of all before any is ready.
pub(crate) async fn join_chain<S: Stage>(
    session: &Session,
    tasks: &mut JoinSet<()>,
    mut stdin: Stdin,
) -> Result<Upstreams, StageError> {
    let chain = Arc::new(Chain::default());
    let head = tokio::select! {
        head = stdin::chain_head(&mut stdin, &session.hub, &chain) => head,
        () = session.shutdown.requested() => Ok(()),
    };
    hello::<S>(session);
    head?;
    let (hub, shutdown) = (session.hub.clone(), session.shutdown.clone());
    tasks.spawn(stdin::follow_chain(stdin, hub, chain.clone(), shutdown));
    Ok(Upstreams::of_chain(chain))
}

/// Waits for the host's `start`. `None` when the end came first.
async fn started<S: Stage>(
    session: &Session,
    configs: &mut Configs,
) -> Result<Option<S::Config>, StageError> {
    tokio::select! {
        start = received(configs) => match start {
            Some(start) => config_in::<S>(session, start?).map(Some),
            None => Ok(None),
        },
        () = session.shutdown.requested() => Ok(None),
    }
}

/// What the host sent last; `None` when it sends no more.
async fn received(configs: &mut Configs) -> News {
    configs.changed().await.ok()?;
    configs.borrow_and_update().clone()
}

/// The next config to go on with. One that is wrong is refused while the stage works on with what it has.
async fn reloaded<S: Stage>(
    session: &Session,
    configs: &mut Configs,
) -> Option<Result<S::Config, StageError>> {
    loop {
        let start = match received(configs).await? {
            Ok(start) => start,
            Err(error) => return Some(Err(error)),
        };
        match config_in::<S>(session, start) {
            Ok(config) => return Some(Ok(config)),
            Err(error) => session.hub.refused(error.fatal(false)),
        }
    }
}

fn config_in<S: Stage>(session: &Session, start: Start) -> Result<S::Config, StageError> {
    let sources = Sources {
        file: None,
        start: Some(start.config),
        flags: session.call.sources.flags.clone(),
    };
    config_of::<S>(&sources, &session.env)
}

/// Runs the stage until the end is asked for or it fails; a `reload` starts it over in the same process.
async fn hold<S: Stage>(
    session: &Session,
    mut cx: Context<S>,
    mut config: S::Config,
    configs: &mut Configs,
    stdout: Option<OwnedFd>,
) -> Result<(), StageError> {
    let undone = tokio::select! {
        undone = undo_all(&cx) => undone,
        () = session.shutdown.requested() => Ok(()),
    };
    if let Err(error) = undone {
        cx.debug(format!("goes on with an open ledger: {}", error.code));
    }
    let mut end = pin!(command::until_end(session, stdout));
    loop {
        session.hub.enter(Phase::Preparing);
        cx.shutdown = session.shutdown.renewed();
        let mut stage = pin!(S::run(&cx, config));
        let next = tokio::select! {
            ended = &mut stage => {
                return match ended {
                    Ok(()) if session.shutdown.reason().is_none() => {
                        session.shutdown.request(Reason::Shutdown);
                        end.await
                    }
                    result => {
                        session.shutdown.request(Reason::Failed);
                        drop(end.await);
                        result
                    }
                };
            }
            ended = &mut end => None.or(ended.err().map(Err)),
            Some(next) = reloaded::<S>(session, configs) => Some(next),
        };
        cx.shutdown.stop();
        let stopped = tokio::select! {
            stopped = tokio::time::timeout(GRACE, &mut stage) => stopped.ok(),
            () = session.shutdown.at_once() => None,
        };
        if stopped.is_none() {
            cx.warn("did not stop in time; the ledger has what is left to undo");
        }
        match next {
            None => return stopped.unwrap_or(Ok(())),
            Some(next) => config = next?,
        }
    }
}

/// How a run ends that did not fail by itself.
fn outcome(session: &Session) -> Result<u8, StageError> {
    let interrupted = |what: &str| StageError::new("protocol.interrupted", what.to_owned());
    match session.shutdown.reason() {
        Some(Reason::CommandEnded(code)) => Ok(*code),
        Some(Reason::UpstreamGone) => Err(StageError::new(
            "protocol.upstream_gone",
            "the stage before ended while we needed it",
        )
        .hint("what it wrote says why")
        .exit(Exit::Upstream)),
        Some(Reason::Cancelled) => Err(interrupted("cancelled by the host before it was ready")),
        Some(reason) if !session.call.command.is_empty() => {
            let what = format!("stopped ({}) before the command had ended", reason.as_str());
            Err(interrupted(&what))
        }
        _ => Ok(Exit::Ok as u8),
    }
}
