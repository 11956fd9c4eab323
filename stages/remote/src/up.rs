//! `up`: compile, run stock devcluster, clean up.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::rundir::RunDir;
use protocol::{Env, Exit, StageError, files};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::devcluster::{self, Devcluster, Event, Options, orphans};
use crate::exposure::refuse_open_master;
use crate::input::Job;
use crate::kinds::Programs;
use crate::outline::outline;
use crate::plugins;
use crate::{ask, gc, summary};
use protocol::program::say;

/// How to go about it.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Expose a master without a password all the same.
    pub i_know: bool,
    /// Only say what would happen.
    pub dry_run: bool,
    /// Ask nothing beforehand.
    pub no_preflight: bool,
    /// Arguments for devcluster.
    pub arguments: Vec<OsString>,
}

/// A compiled file on disk, ready to be run.
#[derive(Debug)]
pub struct Site {
    /// devcluster's own directory.
    pub temp_dir: PathBuf,
    /// Where the stages meet.
    pub run_dir: RunDir,
    /// The compiled file.
    pub file: PathBuf,
}

/// Compiles onto disk, runs devcluster until it ends, and cleans up. Returns the exit code.
pub async fn up(mut job: Job, wishes: Wishes, programs: &Programs<'_>) -> Result<u8, StageError> {
    let env = programs.env;
    for warning in &job.compiled.plan.warnings {
        say(&format!("warning: {warning}"));
    }
    plugins::check(&mut job, env).await?;
    if !wishes.i_know {
        refuse_open_master(&job.compiled, env)?;
    }
    let program = devcluster::find(env)?;
    let plan = &job.compiled.plan;
    say(&format!(
        "devcluster will start\n{}",
        outline(&job).trim_end()
    ));
    let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let oneshot = !interactive && !devcluster::chooses_console(&wishes.arguments);
    if wishes.dry_run {
        tell_dry_run(&job, &program, oneshot, &wishes.arguments, env);
        return Ok(Exit::Ok as u8);
    }
    if !plan.stages.is_empty() && !wishes.no_preflight && protocol::ask::is_possible() {
        refuse_second_devcluster(&job.temp_dir(env))?;
        if !ask::before(&mut job, env).await? {
            say("nothing was started");
            return Ok(Exit::Failed as u8);
        }
    }
    let site = prepare(&job, env)?;
    say(&format!("compiled to {}", site.file.display()));
    let options = Options {
        file: site.file.clone(),
        root: job.root.clone(),
        arguments: wishes.arguments,
        oneshot,
    };
    let mut signals = Signals::new(interactive)?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH);
    let started_ms = started.map_or(0, |d| d.as_millis() as u64);
    let mut devcluster = Devcluster::start(&program, &options)?;
    let ended = attend(&mut devcluster, &mut signals, oneshot).await;
    for orphan in orphans::end(&site.temp_dir).await {
        say(&format!("devcluster left {orphan}; ended it"));
    }
    let swept = tokio::select! {
        swept = gc::sweep(Some(site.run_dir.path()), programs) => swept?,
        () = signals.next() => {
            let message = "stopped while cleaning up; `devcluster-remote gc` goes on with it";
            return Err(StageError::new("remote.interrupted", message));
        }
    };
    for line in summary::of(&job.compiled.plan, &site.run_dir, started_ms) {
        say(&line);
    }
    say(&swept.report());
    ended
}

/// The command that would be run, and the file that would be written.
fn tell_dry_run(job: &Job, program: &Path, oneshot: bool, arguments: &[OsString], env: &Env) {
    let file = job.run_dir(env).join(COMPILED);
    let mut words = vec![
        program.display().to_string(),
        "-c".to_owned(),
        file.display().to_string(),
    ];
    if let Some(root) = &job.root {
        words.extend(["-C".to_owned(), root.display().to_string()]);
    }
    words.extend(oneshot.then(|| "--oneshot".to_owned()));
    words.extend(arguments.iter().map(|a| a.to_string_lossy().into_owned()));
    say(&format!("by {}", words.join(" ")));
    say(
        "nothing was written or started; `devcluster-remote compile` shows the file, `doctor` what is missing",
    );
}

/// The compiled file's name in the run directory.
const COMPILED: &str = "devcluster.yaml";

/// Follows devcluster to its end and says how it ended.
async fn attend(
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
                    2 => say("devcluster is ending its stages; once more kills it"),
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
                say("devcluster is failing: a stage failed; its last lines are above");
            }
            Event::Ended(status) => {
                let expected = asked > 0 || failing || up || !oneshot;
                if !expected || status.signal().is_some() {
                    say(&format!("devcluster ended by itself ({status})"));
                }
                let code = status.code().or_else(|| status.signal().map(|s| 128 + s));
                let code = code.and_then(|c| u8::try_from(c).ok()).unwrap_or(1);
                let failed = code == 0 && (failing || !expected);
                return Ok(if failed { Exit::Failed as u8 } else { code });
            }
        }
    }
}

/// Makes the directories and writes the compiled file.
pub fn prepare(job: &Job, env: &Env) -> Result<Site, StageError> {
    let temp_dir = job.temp_dir(env);
    make_temp_dir(&temp_dir)?;
    refuse_second_devcluster(&temp_dir)?;
    let run_dir = RunDir::open(&job.run_dir(env)).map_err(own_temp_dir)?;
    let file = run_dir.file(COMPILED);
    files::replace(&file, job.compiled.text.as_bytes(), false)
        .map_err(|e| StageError::io(format!("cannot write {}", file.display()), &e))?;
    Ok(Site {
        temp_dir,
        run_dir,
        file,
    })
}

/// Names the mend for a run directory that is not ours: it lies in devcluster's.
pub(crate) fn own_temp_dir(error: StageError) -> StageError {
    match error.code.as_str() {
        "protocol.unsafe_dir" => error.hint(
            "set `temp_dir` in the devcluster.yaml to a directory of your own, such as $HOME/.devcluster",
        ),
        _ => error,
    }
}

/// devcluster writes the master's config there, with its passwords: nobody else is to read it.
fn make_temp_dir(path: &Path) -> Result<(), StageError> {
    let shown = path.display();
    let failed = |e| StageError::io(format!("cannot make devcluster's temp_dir {shown}"), &e);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)?;
    if others_read(path) {
        say(&format!(
            "warning: others can read {shown}, where devcluster writes the master's config with its passwords: chmod 700 {shown}"
        ));
    }
    Ok(())
}

/// Whether devcluster's files there are for everybody to read.
pub(crate) fn others_read(temp_dir: &Path) -> bool {
    std::fs::metadata(temp_dir).is_ok_and(|dir| dir.mode() & 0o055 != 0)
}

/// A devcluster that runs there holds this lock; writing beside it would change the file that it was started from.
pub(crate) fn refuse_second_devcluster(temp_dir: &Path) -> Result<(), StageError> {
    let Ok(lock) = std::fs::File::open(temp_dir.join("lock")) else {
        return Ok(());
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => {
            let message = format!("a devcluster already runs in {}", temp_dir.display());
            Err(StageError::new("remote.in_use", message)
                .hint("end that one, or set another `temp_dir` in this file")
                .exit(Exit::Locked))
        }
        _ => Ok(()),
    }
}

/// Signals that ask devcluster to end.
struct Signals {
    terminate: Signal,
    hangup: Signal,
    interrupt: Signal,
    /// At a terminal, Ctrl-C reaches devcluster by itself, and twice would kill it.
    interactive: bool,
}

impl Signals {
    fn new(interactive: bool) -> Result<Signals, StageError> {
        let listen =
            |kind| signal(kind).map_err(|e| StageError::io("cannot listen to signals", &e));
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
