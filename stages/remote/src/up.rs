//! `up`: compiles, runs stock devcluster, cleans up.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use protocol::program::say;
use protocol::rundir::RunDir;
use protocol::yaml::Document;
use protocol::{Env, Exit, StageError, files};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::codes;
use crate::devcluster::restarts::{Restarts, Stage};
use crate::devcluster::{self, Devcluster, Event, Options, orphans};
use crate::exposure::refuse_open_master;
use crate::input::CompiledInput;
use crate::kinds::Programs;
use crate::outline::outline;
use crate::plugins;
use crate::{confirm, gc, summary};

/// The flags of `up`.
#[derive(Debug, Args)]
pub(crate) struct UpOptions {
    /// Show what would happen; write and start nothing
    #[arg(long)]
    dry_run: bool,
    /// At a terminal: skip the checks and questions of the stages
    #[arg(long)]
    no_preflight: bool,
    /// Expose a master without a password nevertheless
    #[arg(long)]
    i_know: bool,
    /// Arguments for devcluster, such as --target-stage db
    #[arg(last = true, value_name = "ARGS")]
    devcluster: Vec<OsString>,
}

/// devcluster, started before its file is compiled.
pub(crate) type Early = Option<(Options, Devcluster)>;

/// Starts devcluster as soon as the file is read, if nothing is asked before, where Ctrl-C would end it too. What prevents
/// it is reported in its place later.
pub(crate) fn start_early(document: &Document, flags: &UpOptions, env: &Env) -> Early {
    let asks = !flags.no_preflight && protocol::prompt::is_interactive();
    if flags.dry_run || asks {
        return None;
    }
    let (options, program) = (flags.options(document.text(), None), devcluster::find(env));
    let devcluster = Devcluster::start(&program.ok()?, &options).ok()?;
    Some((options, devcluster))
}

impl UpOptions {
    /// How to start devcluster with this file.
    fn options(&self, text: &str, root: Option<&Path>) -> Options {
        let asked = devcluster::is_oneshot(&self.devcluster);
        let chooses = devcluster::chooses_console(&self.devcluster);
        let mut arguments = self.devcluster.clone();
        arguments.retain(|a| a != "-1" && a != "--oneshot");
        Options {
            root: root.map(Path::to_owned),
            arguments,
            oneshot: asked || (!is_interactive() && !chooses),
            guess_host: text.contains("DOCKER_LOCALHOST"),
        }
    }
}

/// Whether devcluster can have its console.
fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Writes the compiled file, runs devcluster until it ends, and cleans up. Returns the exit code.
pub(crate) async fn up(
    mut input: CompiledInput,
    flags: UpOptions,
    early: Early,
    programs: &Programs<'_>,
) -> Result<u8, StageError> {
    let env = programs.env;
    for warning in &input.compiled.plan.warnings {
        say(&format!("warning: {warning}"));
    }
    plugins::check(&mut input, env).await?;
    if !flags.i_know
        && let Some(warning) = refuse_open_master(&input.compiled, env)?
    {
        say(&format!("warning: {warning}"));
    }
    let program = devcluster::find(env)?;
    say(&format!(
        "devcluster will start\n{}",
        outline(&input).trim_end()
    ));
    let options = flags.options(&input.compiled.text, input.root.as_deref());
    let oneshot = options.oneshot;
    if flags.dry_run {
        let file = input.run_dir(env).join(COMPILED);
        let words = options.words(&file).join(OsStr::new(" "));
        say(&format!(
            "command: {} {}",
            program.display(),
            words.display()
        ));
        say(
            "nothing was written or started; `devcluster-remote compile` prints the file, `doctor` shows what is missing",
        );
        return Ok(Exit::Ok as u8);
    }
    let has_stages = !input.compiled.plan.stages.is_empty();
    if has_stages && !flags.no_preflight && protocol::prompt::is_interactive() {
        check_temp_dir(&input.temp_dir(env))?;
        if !confirm::before_start(&mut input, programs).await? {
            say("nothing was started");
            return Ok(Exit::Failed as u8);
        }
    }
    let run_dir = prepare(&input, env)?;
    say(&format!("compiled to {}", run_dir.file(COMPILED).display()));
    let mut signals = Signals::new(is_interactive() && !oneshot)?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH);
    let started_ms = started.map_or(0, |d| d.as_millis() as u64);
    let temp_dir = input.temp_dir(env);
    let mut devcluster = match early {
        Some((with, devcluster)) if with == options => devcluster,
        _ => Devcluster::start(&program, &options)?,
    };
    devcluster.run(&input.compiled.text);
    let ended = tokio::select! {
        ended = supervise(&mut devcluster, &mut signals, oneshot) => ended,
        never = keep(&temp_dir) => match never {},
        never = restarts(&input, programs).watch(), if !oneshot => match never {},
    };
    for orphan in orphans::end(&temp_dir).await {
        say(&format!("ended {orphan}, which devcluster left running"));
    }
    // The cleanup removes the status of what it cleans up.
    for line in summary::lines(&input.compiled.plan, &run_dir, started_ms) {
        say(&line);
    }
    let swept = tokio::select! {
        swept = gc::sweep(run_dir.path(), oneshot, programs) => swept,
        () = signals.next() => {
            let message = "stopped during the cleanup; `devcluster-remote gc` completes it";
            return Err(StageError::new(protocol::codes::INTERRUPTED, message));
        }
    };
    say(&swept.report());
    ended
}

/// The name of the compiled file in the run directory.
const COMPILED: &str = "devcluster.yaml";

/// Waits until devcluster ends, and reports how.
async fn supervise(
    devcluster: &mut Devcluster,
    signals: &mut Signals,
    oneshot: bool,
) -> Result<u8, StageError> {
    let (mut up, mut failing, mut asked) = (false, false, 0);
    loop {
        let event = tokio::select! {
            event = devcluster.event() => event?,
            () = signals.next() => {
                asked += 1;
                match asked {
                    1 => devcluster.terminate(),
                    2 => say("devcluster is ending its stages; a third signal kills it"),
                    _ => devcluster.kill(),
                }
                continue;
            }
        };
        match event {
            Event::Up => {
                up = true;
                say("devcluster is up");
            }
            Event::Failing => {
                failing = true;
                say("devcluster is failing: a stage failed; see its last lines above");
            }
            Event::Ended(status) => {
                let expected = asked > 0 || failing || up || !oneshot;
                if !expected || status.signal().is_some() {
                    say(&format!("devcluster ended unexpectedly ({status})"));
                }
                let code = status.code().or_else(|| status.signal().map(|s| 128 + s));
                let code = code.and_then(|c| u8::try_from(c).ok()).unwrap_or(1);
                let failed = code == 0 && (failing || !expected);
                return Ok(if failed { Exit::Failed as u8 } else { code });
            }
        }
    }
}

/// Our stages and the master are started again when they crash.
fn restarts(input: &CompiledInput, programs: &Programs<'_>) -> Restarts {
    let compiled = input.compiled.value();
    let items = compiled["stages"].as_array().into_iter().flatten();
    let items = items.filter_map(|item| item.as_object()?.iter().next());
    let stages = items.map(|(kind, body)| {
        let name = body["name"].as_str().unwrap_or(kind).to_owned();
        let mut new = input.compiled.plan.stages.iter();
        let ours = kind == "master" || new.any(|stage| stage.name == name);
        Stage { name, ours }
    });
    let program = programs.beside.join("devcluster-config-emit");
    Restarts::new(program, input.temp_dir(programs.env), stages.collect())
}

/// Keeps the temp_dir from cleaners of temporary files.
async fn keep(temp_dir: &Path) -> Infallible {
    loop {
        files::keep(temp_dir);
        tokio::time::sleep(files::KEEP_INTERVAL).await;
    }
}

/// Creates the directories and writes the compiled file.
fn prepare(input: &CompiledInput, env: &Env) -> Result<RunDir, StageError> {
    let temp_dir = input.temp_dir(env);
    files::own_dir(&temp_dir, TEMP_DIR).map_err(own_temp_dir)?;
    check_temp_dir(&temp_dir)?;
    if let Some(warning) = others_read(&temp_dir) {
        say(&format!("warning: {warning}"));
    }
    let run_dir = RunDir::open(&input.run_dir(env)).map_err(own_temp_dir)?;
    let file = run_dir.file(COMPILED);
    files::replace(&file, input.compiled.text.as_bytes(), false)
        .map_err(|e| StageError::io(format!("cannot write {}", file.display()), &e))?;
    Ok(run_dir)
}

/// The hint for a temp_dir that other users own or can change.
pub(crate) const OWN_TEMP_DIR: &str =
    "set `temp_dir` in the devcluster.yaml to a directory that you own, such as $HOME/.devcluster";

/// Adds the hint for an unsafe run directory, which is inside devcluster's temp_dir.
pub(crate) fn own_temp_dir(error: StageError) -> StageError {
    if error.is(protocol::codes::UNSAFE_DIR) {
        return error.hint(OWN_TEMP_DIR);
    }
    error
}

/// The warning when other users can read temp_dir, where devcluster writes the master's config with its passwords.
pub(crate) fn others_read(temp_dir: &Path) -> Option<String> {
    let shown = temp_dir.display();
    let open = std::fs::metadata(temp_dir).is_ok_and(|dir| dir.mode() & 0o055 != 0);
    open.then(|| format!("other users can read {shown}, where devcluster writes the master's config with its passwords: chmod 700 {shown}"))
}

/// What messages call it.
const TEMP_DIR: &str = "temp_dir of devcluster";

/// The files that devcluster opens there, besides `<stage>.conf`.
const FILES: [&str; 4] = ["lock", "running.json", "running.json.tmp", "traceback"];

/// Checks a temp_dir before devcluster uses it: only this user can change it, devcluster can open its files without following
/// a link or blocking on a FIFO, and no devcluster runs there, whose compiled file would change.
pub(crate) fn check_temp_dir(temp_dir: &Path) -> Result<(), StageError> {
    let Some(dir) = files::check_own_dir(temp_dir, TEMP_DIR).map_err(own_temp_dir)? else {
        return Ok(());
    };
    let entries = dir.read_dir().into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_regular = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_regular && (name.ends_with(".conf") || FILES.contains(&&*name)) {
            let shown = entry.path();
            let message = format!("{} is not a regular file", shown.display());
            return Err(StageError::new(protocol::codes::UNSAFE_DIR, message)
                .hint(format!("remove it: rm {}", shown.display())));
        }
    }
    let Ok(lock) = files::open_to_read(&dir.join("lock")) else {
        return Ok(());
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => {
            let message = format!("another devcluster is running in {}", temp_dir.display());
            Err(StageError::new(codes::IN_USE, message))
        }
        _ => Ok(()),
    }
}

/// Signals that end devcluster.
struct Signals {
    terminate: Signal,
    hangup: Signal,
    interrupt: Signal,
    /// At a terminal, devcluster gets Ctrl-C from the terminal; a second one would kill it.
    interactive: bool,
}

impl Signals {
    fn new(interactive: bool) -> Result<Signals, StageError> {
        let listen =
            |kind| signal(kind).map_err(|e| StageError::io("cannot listen for signals", &e));
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            interactive,
        })
    }

    async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => return,
                _ = self.interrupt.recv() => if !self.interactive { return },
            }
        }
    }
}
