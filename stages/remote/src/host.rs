//! `host`: runs a plugin, a program that knows only the wire, as a full stage. The runtime gives it the run directory, the
//! lock, the ready line and the shutdown; the plugin is told `start` and `shutdown` on its stdin and answers on its stdout.

use std::path::PathBuf;
use std::time::Duration;

use protocol::child;
use protocol::frame::{self, Frame};
use protocol::ledger::Entry;
use protocol::message::{self, Command, Level, Message, Start};
use protocol::{Context, Description, Exit, Stage, StageError, Undone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::task::JoinSet;

/// What a plugin has between `shutdown` and SIGTERM; the runtime's own grace ends it soon after.
const POLITE: Duration = Duration::from_millis(250);

/// How long `describe` and `cleanup` of a plugin may take.
const UPKEEP: Duration = Duration::from_secs(30);

/// The plugin host.
pub struct Host;

/// Which program, and its config.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The plugin: a program on $PATH, or the path of one
    uses: String,
    /// Config for the plugin, as JSON
    #[serde(default)]
    with: Map<String, Value>,
}

/// Whatever the plugin found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Outputs(Map<String, Value>);

impl Stage for Host {
    const KIND: &'static str = "plugin";
    const PROGRAM: Option<&'static str> = Some("devcluster-remote host");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str =
        "Run a plugin, a program that knows only the wire of PROTOCOL.md, as a stage";
    const EXAMPLES: &'static str = "Example: devcluster-remote host --name vpn --uses ./vpn-stage.py --with '{\"server\": \"a\"}'";

    type Config = Config;
    type Outputs = Outputs;

    async fn run(cx: &Context<Self>, config: Config) -> Result<(), StageError> {
        let program = find(cx, &config.uses)?;
        let ticket = cx.ledger.intend("plugin", json!({"uses": program}))?;
        let mut plugin = Plugin::start(cx, program)?;
        let spoken = plugin.drive(cx, config.with).await;
        let in_good_order = plugin.end().await;
        // What it made is its own business; one that ended in good order has undone it.
        if spoken.is_ok() && in_good_order {
            ticket.settle()?;
        }
        spoken
    }

    async fn check(cx: &Context<Self>, _: Option<Config>, _: Outputs) -> Result<(), StageError> {
        cx.debug(
            "a plugin has no check of its own: it says `degraded` when its outputs do not hold",
        );
        Ok(())
    }

    async fn undo(cx: &Context<Self>, entry: &Entry) -> Result<Undone, StageError> {
        let Some(program) = entry.data["uses"].as_str() else {
            return Ok(Undone::Nothing);
        };
        let described = upkeep(cx, program, &["describe"]).await?;
        let cleans = serde_json::from_str::<Description>(&described)
            .is_ok_and(|d| d.verbs.iter().any(|v| v == "cleanup"));
        if !cleans {
            return Ok(Undone::Nothing);
        }
        let dir = directory(cx);
        upkeep(
            cx,
            program,
            &[
                "cleanup",
                "--name",
                &cx.instance,
                "--run-dir",
                &dir.to_string_lossy(),
            ],
        )
        .await?;
        Ok(Undone::Removed(format!("{program} cleaned up")))
    }
}

fn find(cx: &Context<Host>, uses: &str) -> Result<PathBuf, StageError> {
    cx.env.find_program(uses).ok_or_else(|| {
        StageError::new("remote.plugin_missing", format!("no executable {uses}"))
            .hint("`uses` is a program on $PATH, or a path relative to the file; is it executable (chmod +x)?")
            .exit(Exit::Usage)
    })
}

/// A directory of the plugin's own, so that a full stage can be hosted too without meeting our lock.
fn directory(cx: &Context<Host>) -> PathBuf {
    cx.run_dir.file(&format!("{}.plugin", cx.instance))
}

struct Plugin {
    program: String,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Plugin {
    fn start(cx: &Context<Host>, program: PathBuf) -> Result<Plugin, StageError> {
        let failed = |e: std::io::Error| {
            StageError::io(format!("cannot start {}", program.display()), &e)
                .hint("a script needs a first line such as #!/usr/bin/env python3, and chmod +x")
        };
        let dir = protocol::rundir::RunDir::open(&directory(cx))?;
        let mut command = tokio::process::Command::new(&program);
        command
            .args([
                "run",
                "--stdin",
                "control",
                "--name",
                &cx.instance,
                "--run-dir",
            ])
            .arg(dir.path());
        let mut child = child::spawn_spoken_to(&mut command).map_err(failed)?;
        let stdin = child.stdin.take();
        Ok(Plugin {
            program: program.display().to_string(),
            child,
            stdin,
        })
    }

    async fn tell(&mut self, command: &Command) {
        let Some(stdin) = &mut self.stdin else { return };
        // A plugin that does not listen any more is noticed by its end.
        if let Ok(line) = message::encode(command) {
            drop(stdin.write_all(&line).await);
        }
    }

    async fn drive(
        &mut self,
        cx: &Context<Host>,
        with: Map<String, Value>,
    ) -> Result<(), StageError> {
        let (Some(stdout), Some(stderr)) = (self.child.stdout.take(), self.child.stderr.take())
        else {
            return Err(StageError::internal("a plugin without output pipes"));
        };
        self.tell(&Command::Start(Start { config: with })).await;
        let mut wire = Wire {
            cx,
            program: self.program.clone(),
            outputs: None,
            ready: false,
            failed: None,
        };
        let mut people = JoinSet::new();
        people.spawn(show_stderr(cx.clone(), stderr));
        tokio::select! {
            spoken = wire.follow(stdout) => spoken?,
            () = cx.shutdown.cancelled() => return Ok(()),
        }
        // Its last words, unless something else holds its stderr.
        drop(tokio::time::timeout(POLITE, people.join_next()).await);
        let status = tokio::time::timeout(POLITE, self.child.wait()).await;
        let status = status.map_or_else(
            |_| "it closed its stdout".to_owned(),
            |s| s.map_or_else(|e| e.to_string(), |s| s.to_string()),
        );
        Err(wire.failed.unwrap_or_else(|| ended(&self.program, &status)))
    }

    /// `shutdown`, end of stdin, SIGTERM; the runtime's grace and the leash do the rest.
    async fn end(&mut self) -> bool {
        self.tell(&Command::Shutdown).await;
        drop(self.stdin.take());
        let mut status = tokio::time::timeout(POLITE, self.child.wait()).await;
        if status.is_err() {
            if let Some(pid) = self
                .child
                .id()
                .and_then(|id| rustix::process::Pid::from_raw(id as i32))
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            status = Ok(self.child.wait().await);
        }
        status.is_ok_and(|s| s.is_ok_and(|s| s.success()))
    }
}

fn ended(program: &str, status: &str) -> StageError {
    StageError::new("remote.plugin_ended", format!("{program} ended by itself ({status})"))
        .hint("a plugin stays until it is told `shutdown` or its stdin ends; what it wrote to stderr is above")
}

/// What the plugin writes to stdout.
struct Wire<'a> {
    cx: &'a Context<Host>,
    program: String,
    outputs: Option<Map<String, Value>>,
    /// `ready` comes twice; the second copy says nothing new.
    ready: bool,
    failed: Option<StageError>,
}

impl Wire<'_> {
    async fn follow(&mut self, stdout: impl AsyncRead + Unpin) -> Result<(), StageError> {
        let mut stdout = BufReader::new(stdout);
        loop {
            match frame::read(&mut stdout).await {
                Ok(Frame::Line(line)) => self.take(&line).await?,
                Ok(Frame::TooLong(n)) => {
                    return Err(self.broken(&format!("a line of {n} bytes; 64 KiB is the limit")));
                }
                Ok(Frame::End(_)) | Err(_) => return Ok(()),
            }
        }
    }

    async fn take(&mut self, line: &[u8]) -> Result<(), StageError> {
        let message = match message::decode_message(line) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(error @ message::DecodeError::Version(_)) => {
                return Err(self.broken(&error.to_string()).exit(Exit::Version));
            }
            Err(error) => return Err(self.broken(&error.to_string())),
        };
        match message {
            Message::Hello(hello) => self
                .cx
                .debug(format!("{} {} speaks", self.program, hello.version)),
            Message::Progress(p) => match (p.done, p.total) {
                (Some(done), Some(total)) => {
                    self.cx.progress_count(&p.step, p.message, done, total)
                }
                _ => self.cx.progress(&p.step, p.message),
            },
            Message::Log(log) => match log.level {
                Level::Debug => self.cx.debug(log.message),
                Level::Info => self.cx.info(log.message),
                Level::Warn => self.cx.warn(log.message),
            },
            Message::Outputs(outputs) => {
                self.ready &= self.outputs.as_ref() == Some(&outputs.outputs);
                self.outputs = Some(outputs.outputs);
            }
            Message::Ready(_) if self.ready => {}
            Message::Ready(_) => {
                self.ready = true;
                self.cx
                    .ready(Outputs(self.outputs.clone().unwrap_or_default()))
                    .await?;
            }
            Message::Degraded(failure) => {
                self.ready = false;
                self.cx.degraded(failure.error);
            }
            Message::Error(failure) if failure.error.fatal => self.failed = Some(failure.error),
            Message::Error(failure) => self.cx.warn(failure.error.message),
            Message::Stopping(_) | Message::Result(_) => {}
        }
        Ok(())
    }

    fn broken(&self, what: &str) -> StageError {
        let message = format!(
            "{} wrote to stdout what is not the protocol: {what}",
            self.program
        );
        StageError::new("remote.plugin_protocol", message)
            .hint("stdout is for JSON lines alone, text for people goes to stderr; see PROTOCOL.md")
    }
}

async fn show_stderr(cx: Context<Host>, stderr: impl AsyncRead + Unpin) {
    let mut stderr = BufReader::new(stderr);
    while let Ok(Frame::Line(line)) = frame::read(&mut stderr).await {
        cx.info(String::from_utf8_lossy(&line).into_owned());
    }
}

/// Runs a short verb of a plugin and returns what it wrote to stdout.
async fn upkeep(cx: &Context<Host>, program: &str, args: &[&str]) -> Result<String, StageError> {
    let verb = args.first().copied().unwrap_or_default();
    let failed = |why: String| {
        StageError::new(
            "remote.plugin_upkeep",
            format!("`{program} {verb}` failed: {why}"),
        )
        .hint("mend the plugin and run cleanup again")
    };
    let mut command = tokio::process::Command::new(program);
    command
        .args(args)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(UPKEEP, command.output())
        .await
        .map_err(|_| failed(format!("no end after {} s", UPKEEP.as_secs())))?
        .map_err(|e| failed(e.to_string()))?;
    if !output.stderr.is_empty() {
        cx.info(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(failed(output.status.to_string())),
    }
}
