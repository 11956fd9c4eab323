//! `up`: compile, run stock devcluster, clean up.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use protocol::rundir::RunDir;
use protocol::{Env, Exit, StageError, files};
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::compile::run_dir;
use crate::devcluster::{self, Devcluster, Event, Log, Options};
use crate::gc;
use crate::input::Job;
use crate::plan::{Kind, Plan};

/// How to go about it.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Expose a master without a password all the same.
    pub i_know: bool,
    /// Arguments for devcluster.
    pub arguments: Vec<OsString>,
}

/// A compiled file on disk, ready to be run.
#[derive(Debug)]
pub struct Site {
    /// Where the stages meet.
    pub run_dir: RunDir,
    /// The compiled file.
    pub file: PathBuf,
}

/// Compiles onto disk, runs devcluster until it ends, and cleans up. Returns the exit code.
pub async fn up(job: &Job, wishes: Wishes, env: &Env, programs: &Path) -> Result<u8, StageError> {
    let plan = &job.compiled.plan;
    for warning in &plan.warnings {
        eprintln!("warning: {warning}");
    }
    if !wishes.i_know {
        refuse_open_master(&job.compiled.text, plan)?;
    }
    let program = devcluster::find(env)?;
    check_programs(plan, programs)?;
    let site = prepare(job, env)?;
    eprintln!("compiled to {}", site.file.display());
    let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let oneshot = !interactive && !devcluster::chooses_console(&wishes.arguments);
    let options = Options {
        file: site.file.clone(),
        root: job.root.clone(),
        arguments: wishes.arguments,
        oneshot,
        log: Log::Show,
    };
    let mut signals = Signals::new(interactive)?;
    let mut devcluster = Devcluster::start(&program, &options)?;
    let code = attend(&mut devcluster, &mut signals).await?;
    let swept = gc::sweep(env, Some(site.run_dir.path()), programs).await?;
    eprintln!("{}", swept.report());
    Ok(code)
}

/// Follows devcluster to its end and says how it ended.
async fn attend(devcluster: &mut Devcluster, signals: &mut Signals) -> Result<u8, StageError> {
    let mut failing = false;
    loop {
        let event = tokio::select! {
            event = devcluster.event() => event?,
            () = signals.next() => {
                devcluster.terminate();
                continue;
            }
        };
        match event {
            Event::Up => eprintln!("devcluster is up"),
            Event::Failing => {
                failing = true;
                eprintln!("devcluster is failing: a stage failed; its last lines are above");
            }
            Event::Ended(status) => {
                let code = status
                    .code()
                    .or_else(|| status.signal().map(|s| 128 + s))
                    .unwrap_or(1);
                let code = u8::try_from(code).unwrap_or(1);
                return Ok(if failing && code == 0 {
                    Exit::Failed as u8
                } else {
                    code
                });
            }
        }
    }
}

/// Makes the directories and writes the compiled file.
pub fn prepare(job: &Job, env: &Env) -> Result<Site, StageError> {
    let plan = &job.compiled.plan;
    let cwd = job
        .root
        .clone()
        .or_else(|| plan.cwd.as_deref().map(|c| PathBuf::from(env.expand(c))));
    let from_cwd = |path: String| cwd.clone().unwrap_or_default().join(path);
    let temp_dir = from_cwd(env.expand(&plan.temp_dir));
    std::fs::create_dir_all(&temp_dir).map_err(|e| {
        StageError::io(
            format!("cannot make devcluster's temp_dir {}", temp_dir.display()),
            &e,
        )
    })?;
    let run_dir = RunDir::open(&from_cwd(env.expand(&run_dir(&plan.temp_dir))))?;
    let file = run_dir.file("devcluster.yaml");
    files::replace(&file, job.compiled.text.as_bytes(), false)
        .map_err(|e| StageError::io(format!("cannot write {}", file.display()), &e))?;
    Ok(Site { run_dir, file })
}

/// devcluster dies on a missing binary and leaves the earlier stages behind: look before it does.
pub fn check_programs(plan: &Plan, programs: &Path) -> Result<(), StageError> {
    let kinds = plan
        .stages
        .iter()
        .map(|s| s.kind)
        .filter(|k| *k != Kind::Plugin);
    let missing = kinds
        .map(|k| programs.join(format!("devcluster-{}", k.name())))
        .find(|p| !p.is_file());
    match missing {
        None => Ok(()),
        Some(path) => Err(StageError::new(
            "remote.program_missing",
            format!("no {}: a stage needs it", path.display()),
        )
        .hint("install the stages beside devcluster-remote: make install")
        .exit(Exit::Usage)),
    }
}

/// Built-in users of a master have blank passwords: not behind a port that the whole internet reaches.
fn refuse_open_master(compiled: &str, plan: &Plan) -> Result<(), StageError> {
    let public = |bind: Option<&Value>| match bind.and_then(Value::as_str) {
        None | Some("" | "*" | "0.0.0.0" | "::") => true,
        Some(_) => false,
    };
    let open_tunnel = plan
        .stages
        .iter()
        .find(|s| s.kind == Kind::Tunnel && public(s.config.get("bind_address")));
    let Some(tunnel) = open_tunnel else {
        return Ok(());
    };
    let value = protocol::yaml::Document::parse(compiled)
        .map(|d| d.value())
        .unwrap_or_default();
    let masters = value["stages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|s| s.get("master"));
    let password = |m: &Value| {
        m["config_file"]["security"]["initial_user_password"]
            .as_str()
            .is_some_and(|p| !p.is_empty())
    };
    let Some(master) = masters.into_iter().find(|m| !password(m)) else {
        return Ok(());
    };
    let name = master["name"].as_str().unwrap_or("master");
    let message = format!(
        "{} would listen on all addresses of the ssh server, and {name} lets anyone in: \
         its users `admin` and `determined` have blank passwords",
        tunnel.name
    );
    Err(StageError::new("remote.open_master", message)
        .hint(
            "set security.initial_user_password in the master's config_file, or bind_address in the tunnel; \
             --i-know goes on regardless",
        )
        .exit(Exit::Usage))
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
