//! From the command line to the exit code: the runtime that every stage runs in.

use std::ffi::OsString;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::call::{Call, Events, Verb};
use crate::cli;
use crate::context::Context;
use crate::env::Env;
use crate::error::{Exit, StageError};
use crate::hub::Hub;
use crate::io::{Io, Sink};
use crate::ledger::{Ledger, Owner};
use crate::message::{Message, Outcome};
use crate::rundir::{Lock, RunDir};
use crate::shutdown::{Reason, Shutdown};
use crate::stage::Stage;
use crate::upstream::Upstreams;
use crate::verbs;

/// How long the last lines may take to be written, where a reader is slow or the machine is busy.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The same for a stage that was told to stop, and has half a second for all of it.
const LAST_WORDS_WHEN_TOLD: Duration = Duration::from_millis(80);

/// How long stderr stays open after stdout when a stage fails. devcluster takes each closing for a crash of its own; if
/// the second one finds it ending the command that waited for the stage, it dies.
const APART: Duration = Duration::from_millis(250);

/// The whole of a stage's `main`.
pub fn run_stage<S: Stage>() -> ExitCode {
    run_stage_from::<S>(std::env::args_os().collect())
}

/// The same for a program that is a stage among other things; the arguments begin with the program's name.
pub fn run_stage_from<S: Stage>(args: Vec<OsString>) -> ExitCode {
    let io = match Io::of_process() {
        Ok(io) => io,
        Err(e) => return cannot_start::<S>("take over its streams", &e),
    };
    // One thread: a child's parent-death signal follows the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return cannot_start::<S>("make its event loop", &e),
    };
    let piped = io.output_pipes.len() == 2;
    let run = || runtime.block_on(run::<S>(args, Env::of_process(), io));
    let code = catch_unwind(AssertUnwindSafe(run)).unwrap_or(Exit::Internal as u8);
    // A read of stdin may be under way for ever.
    runtime.shutdown_background();
    if piped && code != Exit::Ok as u8 {
        std::thread::sleep(APART);
    }
    ExitCode::from(code)
}

/// A machine on which nothing works: too few descriptors, no memory. There is no more than stderr to say so.
fn cannot_start<S: Stage>(what: &str, error: &std::io::Error) -> ExitCode {
    use std::io::Write;
    let error = StageError::internal(format!("the process cannot {what}"))
        .source(error)
        .hint("see the limits that it runs under: ulimit -a");
    drop(std::io::stderr().write_all(error.render(&S::program()).as_bytes()));
    ExitCode::from(Exit::Internal as u8)
}

/// The same with the world as arguments. Returns the exit code.
pub async fn run<S: Stage>(args: Vec<OsString>, env: Env, mut io: Io) -> u8 {
    let call = match cli::parse::<S>(args) {
        Ok(call) => call,
        Err(error) => return show_usage(&error, &mut io),
    };
    match call.verb {
        Verb::Run => verbs::run::run::<S>(call, env, io).await,
        Verb::Once => verbs::once::once::<S>(call, env, io).await,
        Verb::Wait => verbs::upkeep::wait::<S>(call, env, io).await,
        Verb::Check if call.look.is_some() => verbs::look::look::<S>(call, env, io).await,
        Verb::Check => verbs::upkeep::check::<S>(call, env, io).await,
        Verb::Cleanup => verbs::cleanup::cleanup::<S>(call, env, io).await,
        Verb::Describe => verbs::describe::describe::<S>(&mut io),
        Verb::Validate => verbs::validate::validate::<S>(&env, &mut io).await,
    }
}

fn show_usage(error: &clap::Error, io: &mut Io) -> u8 {
    let text = error.render().to_string();
    // Nothing is left to tell when even this cannot be written.
    if error.use_stderr() {
        drop(io.stderr.write_all(text.as_bytes()));
        return Exit::Usage as u8;
    }
    drop(io.stdout.write_all(text.as_bytes()));
    Exit::Ok as u8
}

/// 16 hex digits that no other run has.
pub fn run_id() -> String {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_err() {
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos());
        bytes = (nanos as u64 ^ u64::from(std::process::id()).rotate_left(40)).to_be_bytes();
    }
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A call that is under way: who speaks, and where to.
pub(crate) struct Session {
    pub(crate) call: Call,
    pub(crate) env: Env,
    pub(crate) hub: Arc<Hub>,
    pub(crate) shutdown: Shutdown,
}

impl Session {
    /// `events` is what applies when the caller did not say.
    pub(crate) fn new<S: Stage>(
        call: Call,
        env: Env,
        events: Events,
        stdout: Box<dyn std::io::Write + Send>,
        stderr: Box<dyn std::io::Write + Send>,
    ) -> Session {
        let events = call.events.unwrap_or(events);
        let hub = Hub::new(
            S::KIND,
            S::program(),
            call.instance.clone(),
            run_id(),
            events,
            Sink::new(stdout),
            Sink::new(stderr),
        );
        hub.set_provides(S::provides());
        Session {
            call,
            env,
            hub: Arc::new(hub),
            shutdown: Shutdown::default(),
        }
    }

    /// For a verb that does the work: a document, a terminal and a command keep protocol lines off stdout.
    pub(crate) fn working<S: Stage>(
        mut call: Call,
        env: Env,
        terminal: bool,
        document: bool,
        stdout: Box<dyn std::io::Write + Send>,
        stderr: Box<dyn std::io::Write + Send>,
    ) -> Session {
        if document {
            call.events = Some(Events::None);
        }
        let quiet = terminal || !call.command.is_empty();
        let events = if quiet { Events::None } else { Events::All };
        Session::new::<S>(call, env, events, stdout, stderr)
    }

    pub(crate) fn run_dir(&self) -> Result<RunDir, StageError> {
        let path = self
            .call
            .run_dir
            .clone()
            .unwrap_or_else(|| self.env.default_run_dir());
        RunDir::open(&path)
    }

    /// Opens the run directory, takes the lock, opens the ledger.
    pub(crate) async fn claim<S: Stage>(&self) -> Result<(RunDir, Lock, Ledger), StageError> {
        let run_dir = self.run_dir()?;
        let lock = run_dir.lock(&self.call.instance, &self.hub.run).await?;
        let owner = Owner {
            kind: S::KIND.to_owned(),
            instance: self.call.instance.clone(),
            run_dir: run_dir.path().to_owned(),
        };
        let ledger = Ledger::open(&self.env, &owner, &self.hub.run)?;
        Ok((run_dir, lock, ledger))
    }

    pub(crate) fn context<S: Stage>(
        &self,
        run_dir: RunDir,
        ledger: Ledger,
        upstream: Option<Upstreams>,
    ) -> Context<S> {
        let instance = self.call.instance.clone();
        let upstream = upstream
            .unwrap_or_else(|| Upstreams::of_run_dir(run_dir.clone(), instance.clone(), S::KIND));
        Context {
            instance,
            env: self.env.clone(),
            run_dir,
            ledger,
            shutdown: self.shutdown.clone(),
            upstream,
            hub: self.hub.clone(),
            kind: PhantomData,
        }
    }

    /// Passes a failure of an upstream on, as much later as the caller asked for.
    pub(crate) async fn lingering<T>(
        &self,
        outcome: Result<T, StageError>,
    ) -> Result<T, StageError> {
        if let Err(error) = &outcome
            && error.exit_code() == Exit::Upstream
        {
            self.hub.failed(error);
            tokio::select! {
                () = tokio::time::sleep(self.call.linger) => {}
                () = self.shutdown.requested() => {}
            }
        }
        outcome
    }

    /// Says how it ended and returns the exit code.
    pub(crate) async fn finish(&self, outcome: Result<u8, StageError>) -> u8 {
        let exit = match outcome {
            Ok(code) => code,
            Err(error) => {
                self.hub.failed(&error);
                error.exit_code() as u8
            }
        };
        self.hub.send(&Message::Result(Outcome {
            stage: self.call.instance.clone(),
            ok: exit == 0,
            exit,
        }));
        let patience = match self.shutdown.reason() {
            Some(Reason::CommandEnded(_) | Reason::Failed) | None => LAST_WORDS,
            Some(_) => LAST_WORDS_WHEN_TOLD,
        };
        // Best effort: a document was waited for before.
        for sink in [&self.hub.stdout, &self.hub.stderr] {
            drop(tokio::time::timeout(patience, sink.flush()).await);
        }
        exit
    }
}
