//! `run`: prepares, keeps the outputs valid, shuts down.

use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::call::StdinMode;
use crate::codes;
use crate::config::Sources;
use crate::context::Context;
use crate::error::{Exit, StageError};
use crate::message::{Message, Start};
use crate::rundir::{Lock, Phase};
use crate::runtime::{Invocation, load_config};
use crate::shutdown::{GRACE, Reason};
use crate::stage::Stage;
use crate::upstream::{Chain, Upstreams};
use crate::verbs::cleanup::undo_earlier;
use crate::verbs::command;
use crate::verbs::stdin::{self, Stdin};

/// The latest config from the host, or the error that ends the connection.
pub(crate) type ConfigUpdate = Option<Result<Start, StageError>>;

type Configs = watch::Receiver<ConfigUpdate>;

/// Opens stdin in its mode and sends `hello`, then reads the config, acquires the lock and runs the stage. When `config` is
/// `None`, the host sends it.
pub(crate) async fn run<S: Stage>(
    invocation: &Invocation,
    tasks: &mut JoinSet<()>,
    stdin: Stdin,
    config: Option<Result<S::Config, StageError>>,
    stdout: Option<OwnedFd>,
) -> Result<u8, StageError> {
    let (sender, mut configs) = watch::channel(None);
    let mut upstream = None;
    match invocation.call.stdin {
        StdinMode::None => hello::<S>(invocation),
        StdinMode::Control => {
            hello::<S>(invocation);
            let (reporter, shutdown) = (invocation.reporter.clone(), invocation.shutdown.clone());
            tasks.spawn(stdin::follow_host(stdin, reporter, shutdown, sender));
        }
        StdinMode::Chain => upstream = Some(join_chain::<S>(invocation, tasks, stdin).await?),
    }
    let config = match config {
        Some(config) => config?,
        None => match started::<S>(invocation, &mut configs).await? {
            Some(config) => config,
            None => return outcome(invocation),
        },
    };
    let begun = tokio::select! {
        begun = invocation.begin::<S>(upstream) => begun?,
        () = invocation.shutdown.requested() => return outcome(invocation),
    };
    let (cx, lock) = begun;
    let ledger = cx.ledger.clone();
    let held = hold::<S>(invocation, cx, config, &mut configs, stdout, &lock).await;
    ledger.close();
    match held.and_then(|()| outcome(invocation)) {
        Ok(code) => {
            invocation.reporter.enter(Phase::Stopped);
            Ok(code)
        }
        // Reported while the lock is held: a `wait` must not see a free lock without a reason.
        Err(error) => {
            invocation.reporter.failed(&error);
            Err(error)
        }
    }
}

pub(crate) fn hello<S: Stage>(invocation: &Invocation) {
    invocation.reporter.send(&Message::Hello {
        stage: invocation.call.instance.clone(),
        kind: S::KIND.to_owned(),
        version: S::VERSION.to_owned(),
        run: invocation.reporter.run.clone(),
        pid: std::process::id(),
    });
}

/// Sends `hello` after the upstream's: a reader at the end of the pipe knows every stage before the first is ready.
pub(crate) async fn join_chain<S: Stage>(
    invocation: &Invocation,
    tasks: &mut JoinSet<()>,
    mut stdin: Stdin,
) -> Result<Upstreams, StageError> {
    let chain = Arc::new(Chain::default());
    let head = tokio::select! {
        head = stdin::chain_head(&mut stdin, &invocation.reporter, &chain) => head,
        () = invocation.shutdown.requested() => Ok(()),
    };
    hello::<S>(invocation);
    head?;
    let (reporter, shutdown) = (invocation.reporter.clone(), invocation.shutdown.clone());
    tasks.spawn(stdin::follow_chain(
        stdin,
        reporter,
        chain.clone(),
        shutdown,
    ));
    Ok(Upstreams::from_chain(chain))
}

/// Waits for the host's `start`. `None` when a shutdown is requested first.
async fn started<S: Stage>(
    invocation: &Invocation,
    configs: &mut Configs,
) -> Result<Option<S::Config>, StageError> {
    tokio::select! {
        start = received(configs) => match start {
            Some(start) => config_in::<S>(invocation, start?).map(Some),
            None => Ok(None),
        },
        () = invocation.shutdown.requested() => Ok(None),
    }
}

/// The next update from the host; `None` when it sends no more.
async fn received(configs: &mut Configs) -> ConfigUpdate {
    configs.changed().await.ok()?;
    configs.borrow_and_update().clone()
}

/// The next valid config from the host. An invalid one is refused, and the stage keeps its config.
async fn reloaded<S: Stage>(
    invocation: &Invocation,
    configs: &mut Configs,
) -> Option<Result<S::Config, StageError>> {
    loop {
        let start = match received(configs).await? {
            Ok(start) => start,
            Err(error) => return Some(Err(error)),
        };
        match config_in::<S>(invocation, start) {
            Ok(config) => return Some(Ok(config)),
            Err(error) => invocation.reporter.refused(error.fatal(false)),
        }
    }
}

fn config_in<S: Stage>(invocation: &Invocation, start: Start) -> Result<S::Config, StageError> {
    let sources = Sources {
        file: None,
        start: Some(start.config),
        flags: invocation.call.sources.flags.clone(),
    };
    load_config::<S>(&sources, &invocation.env)
}

/// Runs the stage until a shutdown is requested or it fails. A `reload` restarts it in the same process.
async fn hold<S: Stage>(
    invocation: &Invocation,
    mut cx: Context<S>,
    mut config: S::Config,
    configs: &mut Configs,
    stdout: Option<OwnedFd>,
    lock: &Lock,
) -> Result<(), StageError> {
    let (run_dir, ledger) = (cx.run_dir.clone(), cx.ledger.clone());
    let mut lost = pin!(invocation.lock_lost(&run_dir, lock, &ledger));
    let undone = tokio::select! {
        undone = undo_earlier(&cx) => undone,
        () = invocation.shutdown.requested() => Ok(()),
    };
    if let Err(error) = undone {
        cx.debug(format!("continuing with an open ledger: {}", error.code));
    }
    let mut end = pin!(command::until_end(invocation, stdout));
    loop {
        invocation.reporter.enter(Phase::Preparing);
        cx.shutdown = invocation.shutdown.restarted();
        let mut stage = pin!(S::run(&cx, config));
        let next = tokio::select! {
            ended = &mut stage => {
                return match ended {
                    Ok(()) if invocation.shutdown.reason().is_none() => {
                        invocation.shutdown.request(Reason::Shutdown);
                        end.await
                    }
                    result => {
                        invocation.shutdown.request(Reason::Failed);
                        drop(end.await);
                        result
                    }
                };
            }
            ended = &mut end => None.or(ended.err().map(Err)),
            Some(next) = reloaded::<S>(invocation, configs) => Some(next),
            // What it made may belong to another run now: it is dropped without a stop, and the ledger lists what is left.
            lost = &mut lost => {
                invocation.shutdown.request(Reason::Failed);
                drop(end.await);
                return Err(lost);
            }
        };
        cx.shutdown.stop();
        let stopped = tokio::select! {
            stopped = tokio::time::timeout(GRACE, &mut stage) => stopped.ok(),
            () = invocation.shutdown.at_once() => None,
        };
        if stopped.is_none() {
            cx.warn("did not stop in time; the ledger lists what is left to remove");
        }
        match next {
            None => return stopped.unwrap_or(Ok(())),
            Some(next) => config = next?,
        }
    }
}

/// The result of a run whose stage did not fail.
fn outcome(invocation: &Invocation) -> Result<u8, StageError> {
    let interrupted = |what: &str| StageError::new(codes::INTERRUPTED, what.to_owned());
    match invocation.shutdown.reason() {
        Some(Reason::CommandEnded(code)) => Ok(*code),
        Some(Reason::UpstreamGone) => Err(StageError::new(
            codes::UPSTREAM_FAILED,
            "the upstream stage ended while this one needed it",
        )),
        Some(Reason::Cancelled) => Err(interrupted("cancelled by the host before it was ready")),
        Some(reason) if !invocation.call.command.is_empty() => {
            let what = format!("stopped ({}) before the command ended", reason.as_str());
            Err(interrupted(&what))
        }
        _ => Ok(Exit::Ok as u8),
    }
}
