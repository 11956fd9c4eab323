//! The runtime that every stage runs in, from the command line to the exit code.

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::task::JoinSet;

use crate::call::{Call, Events, StdinMode, Verb};
use crate::cli;
use crate::codes;
use crate::config::{self, Sources};
use crate::context::Context;
use crate::env::Env;
use crate::error::{Exit, StageError};
use crate::files;
use crate::io::{Io, Sink};
use crate::kinds::{RELEASE, RELEASE_VARIABLE};
use crate::ledger::{Ledger, Owner};
use crate::message::Message;
use crate::reporter::Reporter;
use crate::rundir::{Lock, RunDir, until_free};
use crate::shutdown::{Reason, Shutdown};
use crate::stage::Stage;
use crate::upstream::Upstreams;
use crate::verbs;
use crate::verbs::describe::description;

/// How long writing the last lines may take when a reader is slow or the machine is busy.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The same after a stop request, which leaves half a second for the whole shutdown.
const FLUSH_TIMEOUT_WHEN_STOPPED: Duration = Duration::from_millis(80);

/// A driver that runs once sets this variable to 0: nothing stays for tasks when its stages end.
pub const KEEP_VARIABLE: &str = "DEVCLUSTER_KEEP";

/// How long stderr stays open after stdout when a stage fails. devcluster takes each closed pipe for a crash; it dies when
/// the second one arrives while it ends the command that waits for the stage.
const STDERR_CLOSE_DELAY: Duration = Duration::from_millis(250);

/// How often a run looks whether its locks are still in place.
const LOCK_CHECK_INTERVAL: Duration = Duration::from_secs(2);

const ANOTHER_RUN_DIR: &str = "its run directory was removed while it ran, or another machine runs it with the same home directory: end that process, then start again";

/// The whole of a stage's `main`.
pub fn run_stage<S: Stage>() -> ExitCode {
    run_stage_from::<S>(std::env::args_os().collect())
}

/// The same for a program that is not only a stage. The arguments begin with the program's name.
pub fn run_stage_from<S: Stage>(args: Vec<OsString>) -> ExitCode {
    let io = match Io::from_process() {
        Ok(io) => io,
        Err(e) => return cannot_start::<S>("duplicate its standard streams", &e),
    };
    // One thread: a child's parent-death signal follows the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return cannot_start::<S>("create its event loop", &e),
    };
    let piped = io.output_pipes.len() == 2;
    let run = || runtime.block_on(run::<S>(args, Env::from_process(), io));
    let code = catch_unwind(AssertUnwindSafe(run)).unwrap_or(Exit::Internal as u8);
    // A read of stdin may never return.
    runtime.shutdown_background();
    if piped && code != Exit::Ok as u8 {
        std::thread::sleep(STDERR_CLOSE_DELAY);
    }
    ExitCode::from(code)
}

/// Reports on stderr that the process cannot even start, such as with too few descriptors or no memory.
fn cannot_start<S: Stage>(what: &str, error: &std::io::Error) -> ExitCode {
    use std::io::Write;
    let error = StageError::internal(format!("the process cannot {what}"))
        .source(error)
        .hint("check the limits of the process: ulimit -a");
    drop(std::io::stderr().write_all(error.render(&S::program()).as_bytes()));
    ExitCode::from(Exit::Internal as u8)
}

/// Runs a stage with explicit arguments, environment and streams. Returns the exit code.
pub async fn run<S: Stage>(args: Vec<OsString>, env: Env, mut io: Io) -> u8 {
    let call = match cli::parse::<S>(args, &env) {
        Ok(call) => call,
        Err(error) => return show_usage::<S>(&error, &env, &mut io),
    };
    let works = matches!(call.verb, Verb::Run | Verb::Once);
    let config = works && call.stdin != StdinMode::Control;
    let config = config.then(|| load_config::<S>(&call.sources, &env));
    // No protocol lines on stdout when it carries a document, is a terminal, or belongs to a command.
    let document = matches!(&config, Some(Ok(c)) if S::takes_stdout(c));
    let speaks = works || matches!(call.verb, Verb::Check | Verb::Cleanup);
    let events = match call.events {
        Some(events) if !document => events,
        None if speaks && !document && !io.stdout_is_terminal && call.command.is_empty() => {
            Events::All
        }
        _ => Events::None,
    };
    let invocation = Invocation::new::<S>(call, env, events, io.stdout, io.stderr);
    let mut tasks = JoinSet::new();
    // On the other verbs a signal has its default action.
    let listens = works || invocation.call.diagnostic.is_some();
    let pipes = io.output_pipes;
    let watch = listens.then(|| invocation.shutdown.listen(&mut tasks, pipes));
    let outcome = match watch.transpose() {
        Ok(_watch) => {
            let stdin = BufReader::new(io.stdin);
            work::<S>(&invocation, &mut tasks, stdin, config, io.command_stdout).await
        }
        Err(e) => Err(StageError::io("cannot listen for signals", &e)),
    };
    // The shutdown has begun: further signals have no effect.
    tasks.abort_all();
    invocation.finish(outcome).await
}

async fn work<S: Stage>(
    invocation: &Invocation,
    tasks: &mut JoinSet<()>,
    stdin: verbs::stdin::Stdin,
    config: Option<Result<S::Config, StageError>>,
    stdout: Option<OwnedFd>,
) -> Result<u8, StageError> {
    let done = match invocation.call.verb {
        Verb::Run => return verbs::run::run::<S>(invocation, tasks, stdin, config, stdout).await,
        Verb::Once => {
            let config = config.unwrap_or_else(|| Err(StageError::internal("no config")));
            verbs::once::once::<S>(invocation, tasks, stdin, config).await
        }
        Verb::Wait => verbs::observe::wait::<S>(invocation).await,
        Verb::Check if invocation.call.diagnostic.is_some() => {
            let exit = verbs::diagnose::diagnose::<S>(invocation).await;
            return exit.map(|exit| exit as u8);
        }
        Verb::Check => verbs::observe::check::<S>(invocation).await,
        Verb::Cleanup => verbs::cleanup::cleanup::<S>(invocation).await,
        Verb::Describe => {
            let described = serde_json::to_vec_pretty(&description::<S>());
            invocation.answer(described).await
        }
        Verb::Explain => verbs::explain::explain::<S>(invocation).await,
        Verb::Validate => verbs::validate::validate::<S>(invocation, stdin).await,
    };
    done.map(|()| Exit::Ok as u8)
}

/// Reads and checks the config of a stage.
pub(crate) fn load_config<S: Stage>(sources: &Sources, env: &Env) -> Result<S::Config, StageError> {
    let config = config::load(S::KIND, &S::program(), sources, env, S::validate);
    config.map_err(|error| match of_another_release::<S>(env) {
        Some(other) => other.because(&error),
        None => error,
    })
}

/// Why a command line or a config may be wrong: `up` wrote it, and another release was installed since.
fn of_another_release<S: Stage>(env: &Env) -> Option<StageError> {
    let other = env.get(RELEASE_VARIABLE).filter(|it| *it != RELEASE)?;
    let message = format!(
        "{} is from release {RELEASE}, and the `up` that runs it from release {other}",
        S::program()
    );
    let hint = "end `up`, and start it again";
    Some(StageError::new(codes::VERSION, message).hint(hint))
}

fn show_usage<S: Stage>(error: &clap::Error, env: &Env, io: &mut Io) -> u8 {
    let text = error.render().to_string();
    // When this fails, there is no other stream to report it on.
    if error.use_stderr() {
        drop(io.stderr.write_all(text.as_bytes()));
        let Some(error) = of_another_release::<S>(env) else {
            return Exit::Usage as u8;
        };
        drop(io.stderr.write_all(error.render(&S::program()).as_bytes()));
        return Exit::Version as u8;
    }
    drop(io.stdout.write_all(text.as_bytes()));
    Exit::Ok as u8
}

/// 16 hex digits that no other run has.
pub fn run_id() -> String {
    let by_std = |_| RandomState::new().build_hasher().finish();
    format!("{:016x}", getrandom::u64().unwrap_or_else(by_std))
}

/// One call of the program: its arguments, and where it reports.
pub(crate) struct Invocation {
    pub(crate) call: Call,
    pub(crate) env: Env,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) shutdown: Shutdown,
}

impl Invocation {
    pub(crate) fn new<S: Stage>(
        call: Call,
        env: Env,
        events: Events,
        stdout: Box<dyn std::io::Write + Send>,
        stderr: Box<dyn std::io::Write + Send>,
    ) -> Invocation {
        let reporter = Reporter::new(
            S::KIND,
            S::program(),
            call.instance.clone(),
            run_id(),
            events,
            Sink::new(stdout),
            Sink::new(stderr),
        );
        reporter.set_provides(S::provides());
        Invocation {
            call,
            env,
            reporter: Arc::new(reporter),
            shutdown: Shutdown::default(),
        }
    }

    /// Prints a document as the only content of stdout.
    pub(crate) async fn answer(&self, json: serde_json::Result<Vec<u8>>) -> Result<(), StageError> {
        let mut text =
            json.map_err(|e| StageError::internal("the answer is not JSON").source(&e))?;
        text.push(b'\n');
        self.print(text).await
    }

    /// Prints a text, which is all that stdout gets.
    pub(crate) async fn print(&self, text: Vec<u8>) -> Result<(), StageError> {
        self.reporter.stdout.write(text);
        let written = self.reporter.stdout.flush().await;
        written.map_err(|e| StageError::io("cannot write the answer", &e))
    }

    /// Opens the run directory, acquires the lock, opens the ledger.
    pub(crate) async fn open_locked<S: Stage>(&self) -> Result<(RunDir, Lock, Ledger), StageError> {
        let run_dir = RunDir::open(&self.call.run_dir)?;
        let lock = run_dir
            .lock(&self.call.instance, &self.reporter.run)
            .await?;
        let owner = Owner {
            kind: S::KIND.to_owned(),
            instance: self.call.instance.clone(),
            run_dir: run_dir.path().to_owned(),
        };
        // What cannot be taken over stays where `gc` finds it.
        drop(Ledger::take_over(&self.env, &owner, &self.call.run_dir));
        // It is free, unless the run directory of a running instance was removed.
        let open = || Ledger::open(&self.env, &owner, &self.reporter.run);
        let ledger = until_free(open).await?;
        let held = || run_dir.locked(&owner.instance).hint(ANOTHER_RUN_DIR);
        let ledger = ledger.ok_or_else(held)?;
        Ok((run_dir, lock, ledger))
    }

    /// Resolves with an error when another process can acquire a lock of this run. Until then it keeps the run directory
    /// from cleaners of temporary files.
    pub(crate) async fn lock_lost(
        &self,
        run_dir: &RunDir,
        lock: &Lock,
        ledger: &Ledger,
    ) -> StageError {
        loop {
            let again = tokio::time::Instant::now() + files::KEEP_INTERVAL;
            files::keep(run_dir.path());
            while tokio::time::Instant::now() < again {
                if !lock.is_current() || !ledger.is_current() {
                    // The files may be those of another run now.
                    self.reporter.detach();
                    let (instance, dir) = (&self.call.instance, run_dir.path().display());
                    let message =
                        format!("the lock of {instance} in {dir} was removed or replaced");
                    return StageError::new(codes::LOCK_LOST, message);
                }
                tokio::time::sleep(LOCK_CHECK_INTERVAL).await;
            }
        }
    }

    /// The same for `run` and `once`: the outputs of the previous run are archived.
    pub(crate) async fn begin<S: Stage>(
        &self,
        upstream: Option<Upstreams>,
    ) -> Result<(Context<S>, Lock), StageError> {
        let (run_dir, lock, ledger) = self.open_locked::<S>().await?;
        let previous = run_dir.archive_outputs(&self.call.instance)?;
        self.reporter.attach(run_dir.clone(), previous);
        Ok((self.context(run_dir, ledger, upstream), lock))
    }

    pub(crate) fn context<S: Stage>(
        &self,
        run_dir: RunDir,
        ledger: Ledger,
        upstream: Option<Upstreams>,
    ) -> Context<S> {
        let instance = self.call.instance.clone();
        let upstream = upstream
            .unwrap_or_else(|| Upstreams::from_run_dir(run_dir.clone(), instance.clone(), S::KIND));
        let call = &self.call;
        let alone = call.command.is_empty() && call.stdin == StdinMode::None;
        let once = self.env.get(KEEP_VARIABLE) == Some("0");
        Context {
            instance,
            lasting: alone && !self.reporter.speaks() && !once,
            keeps: call.keep,
            identity: Arc::default(),
            env: self.env.clone(),
            run_dir,
            ledger,
            shutdown: self.shutdown.clone(),
            upstream,
            reporter: self.reporter.clone(),
            kind: PhantomData,
        }
    }

    /// Reports a failure of an upstream at once, and returns it after `--linger`.
    pub(crate) async fn linger_after_failure<T>(
        &self,
        outcome: Result<T, StageError>,
    ) -> Result<T, StageError> {
        if let Err(error) = &outcome
            && error.exit_code() == Exit::Upstream
        {
            self.reporter.failed(error);
            tokio::select! {
                () = tokio::time::sleep(self.call.linger) => {}
                () = self.shutdown.requested() => {}
            }
        }
        outcome
    }

    /// Reports the result and returns the exit code.
    pub(crate) async fn finish(&self, outcome: Result<u8, StageError>) -> u8 {
        let exit = match outcome {
            Ok(code) => code,
            Err(error) => {
                self.reporter.failed(&error);
                error.exit_code() as u8
            }
        };
        self.reporter.send(&Message::Result {
            stage: self.call.instance.clone(),
            ok: exit == 0,
            exit,
        });
        let patience = match self.shutdown.reason() {
            Some(Reason::CommandEnded(_) | Reason::Failed) | None => FLUSH_TIMEOUT,
            Some(_) => FLUSH_TIMEOUT_WHEN_STOPPED,
        };
        // Best effort: a document is flushed before this point.
        for sink in [&self.reporter.stdout, &self.reporter.stderr] {
            drop(tokio::time::timeout(patience, sink.flush()).await);
        }
        exit
    }
}
