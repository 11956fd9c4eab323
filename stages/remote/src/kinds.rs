//! The kinds of stage: the program of a kind, and its description.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use futures::future::{join, join_all};
use protocol::env::is_executable;
use protocol::files::trust::trusted;
use protocol::kinds::{DEVCLUSTERS, OURS, PLUGIN, RELEASE, is_kind, is_ours};
use protocol::message::VERSION;
use protocol::suggest::did_you_mean;
use protocol::validate::{Answer, Request};
use protocol::{Description, Env, StageError, answer, description};
use serde_json::Value;
use tokio::process::Command;

use crate::codes;
use crate::host::Host;
use crate::problems::usage;
use crate::verbs::{describe, validate};

/// Describes and validates kinds of stage.
#[allow(async_fn_in_trait, reason = "the driver runs on one thread")]
pub trait Kinds {
    /// The kinds whose programs exist, those of this project first.
    fn all(&self) -> Vec<String>;

    /// Describes a kind. `None`: its program does not exist.
    async fn describe(&self, kind: &str) -> Result<Option<Kind>, StageError>;

    /// Validates the instances of a kind.
    async fn validate(&self, kind: &Kind, request: &Request) -> Result<Answer, StageError>;
}

/// A kind of stage.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The words that run it.
    pub program: Vec<String>,
    /// The output of its `describe`.
    pub description: Description,
}

/// The programs of this machine.
#[derive(Clone, Debug)]
pub struct Programs<'a> {
    /// The directory of this program, which also contains the programs of this project's kinds.
    pub beside: &'a Path,
    /// The environment, for `$PATH`.
    pub env: &'a Env,
    /// Run only programs of this project. Kinds of other projects then accept any config.
    pub own_only: bool,
    /// Descriptions that are ready before they are asked for.
    pub(crate) early: RefCell<BTreeMap<String, Result<Option<Kind>, StageError>>>,
}

impl Programs<'_> {
    /// Finds the program of a kind: beside this program, else on `$PATH`, in absolute directories and in files that other users
    /// cannot change or replace. The error lists the programs that were skipped.
    pub fn find(&self, kind: &str) -> Result<PathBuf, Vec<String>> {
        if !is_kind(kind) {
            return Err(Vec::new());
        }
        let name = format!("devcluster-{kind}");
        let beside = self.beside.join(&name);
        if is_executable(&beside) {
            return Ok(beside);
        }
        let mut skipped = Vec::new();
        for dir in self.env.search_path() {
            let program = dir.join(&name);
            if !dir.is_absolute() || !is_executable(&program) {
                continue;
            }
            match trusted(&program) {
                Ok(_) => return Ok(program),
                Err(why) => {
                    skipped.push(format!("{} is not safe to run: {why}", program.display()))
                }
            }
        }
        Err(skipped)
    }

    /// The words that run a kind. A plugin runs under `devcluster-remote host`.
    fn words(&self, kind: &str) -> Result<Vec<String>, Vec<String>> {
        let text = |program: PathBuf| program.display().to_string();
        match kind {
            PLUGIN => Ok(vec![
                text(self.beside.join("devcluster-remote")),
                "host".to_owned(),
            ]),
            _ => Ok(vec![text(self.find(kind)?)]),
        }
    }

    /// The command that calls a verb of a kind for an instance.
    pub(crate) fn command(
        &self,
        kind: &str,
        verb: &str,
        instance: &str,
        run_dir: &Path,
    ) -> Result<Command, String> {
        let words = self.words(kind).map_err(|skipped| {
            let missing = format!("there is no devcluster-{kind} that is safe to run");
            [vec![missing], skipped].concat().join("\n")
        })?;
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args([verb, "--events=none", "--name", instance, "--run-dir"])
            .arg(run_dir)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Describes the kinds of this project while `work` runs.
    pub(crate) async fn describe_during<T>(&self, work: impl FnOnce() -> T) -> T {
        let each = OURS.map(async |kind| (kind.to_owned(), self.describe(kind).await));
        let (described, done) = join(join_all(each), async { work() }).await;
        self.early.replace(described.into_iter().collect());
        done
    }

    /// The description of a kind of this project.
    pub(crate) async fn describe_known(&self, kind: &str) -> Result<Description, StageError> {
        let found = self.describe(kind).await?;
        let found = found.ok_or_else(|| usage(unknown_kind(kind, &[])))?;
        Ok(found.description)
    }
}

impl Kinds for Programs<'_> {
    fn all(&self) -> Vec<String> {
        let dirs = self.env.search_path().into_iter();
        let dirs = dirs.filter(|dir| dir.is_absolute());
        let entries = dirs
            .filter_map(|dir| dir.read_dir().ok())
            .flatten()
            .flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let kinds = names.filter_map(|n| Some(n.strip_prefix("devcluster-")?.to_owned()));
        let found: BTreeSet<String> = kinds
            .filter(|kind| !is_ours(kind) && self.find(kind).is_ok())
            .collect();
        OURS.map(str::to_owned).into_iter().chain(found).collect()
    }

    async fn describe(&self, kind: &str) -> Result<Option<Kind>, StageError> {
        let early = self.early.borrow_mut().remove(kind);
        if let Some(early) = early {
            return early;
        }
        let is_foreign = !is_ours(kind) && kind != PLUGIN;
        let program = match self.words(kind) {
            Ok(program) => program,
            Err(skipped) if skipped.is_empty() || (is_foreign && self.own_only) => {
                return Ok(None);
            }
            Err(skipped) => {
                let message =
                    format!("devcluster-{kind} is installed, but other users could replace it");
                let error = StageError::new(codes::UNSAFE_PROGRAM, message);
                return Err(skipped.into_iter().fold(error, StageError::cause));
            }
        };
        let mut description = description::<Host>();
        if is_foreign && self.own_only {
            description.kind = kind.to_owned();
            description.verbs.clear();
            description.config = Value::Bool(true);
        } else if kind != PLUGIN {
            let program = Path::new(&program[0]);
            description = describe(program, self.env).await?;
            refuse_other(kind, program, &description)?;
        }
        Ok(Some(Kind {
            program,
            description,
        }))
    }

    async fn validate(&self, kind: &Kind, request: &Request) -> Result<Answer, StageError> {
        if kind.description.kind == PLUGIN {
            return Ok(answer::<Host>(request, self.env));
        }
        validate(Path::new(&kind.program[0]), request, self.env).await
    }
}

/// The message for an unknown kind; `found` are the kinds whose programs exist.
pub(crate) fn unknown_kind(key: &str, found: &[String]) -> String {
    if is_ours(key) {
        return format!(
            "devcluster-{key} is not installed; put it beside devcluster-remote: make install"
        );
    }
    let known = DEVCLUSTERS.into_iter().chain([PLUGIN]);
    let known = known.chain(found.iter().map(String::as_str));
    let meant = did_you_mean(key, known.clone()).map_or_else(
        || format!("known: {}", known.collect::<Vec<_>>().join(", ")),
        |meant| format!("did you mean `{meant}`?"),
    );
    format!("unknown kind of stage `{key}`; {meant}")
}

/// Refuses a program of another kind, protocol version or release.
fn refuse_other(kind: &str, program: &Path, described: &Description) -> Result<(), StageError> {
    let refused = |message: String, hint: &str| {
        Err(StageError::new(codes::OTHER_PROGRAM, message).hint(hint))
    };
    let shown = program.display();
    if described.dcs != VERSION {
        let message = format!(
            "{shown} has protocol version {}, this program has {VERSION}",
            described.dcs
        );
        return refused(message, "use releases with the same protocol version");
    }
    if described.kind != kind {
        let message = format!("{shown} describes itself as `{}`", described.kind);
        return refused(
            message,
            "a program devcluster-<kind> is a stage of that kind",
        );
    }
    let mut needed = ["run", "wait", "check", "cleanup"].into_iter();
    if let Some(verb) = needed.find(|verb| !described.has(verb)) {
        let message = format!("{shown} has no verb `{verb}`: it is not a full stage");
        return refused(message, "list a plugin as `plugin: {uses: …}`");
    }
    let release = described.release.as_deref().unwrap_or("another project");
    if is_ours(kind) && release != RELEASE {
        let message = format!("{shown} is from release {release}, this program from {RELEASE}");
        return refused(message, "install one release: make install");
    }
    Ok(())
}
