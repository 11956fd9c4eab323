//! The new stages of a devcluster.yaml, and the consumers of their outputs.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{join, join_all};
use protocol::kinds::DEVCLUSTERS;
use protocol::provides::Provides;
use protocol::validate::{Gate, TargetVerdict, Verdict};
use protocol::{Problem, StageError};
use serde_json::{Map, Value};

use crate::kinds::{Kind, Kinds, unknown_kind};
use crate::problems::{InputFile, pyyaml_only, refused, refused_flat};
use crate::stock;
pub(crate) use guard::Master;
pub(crate) use references::Exec;
use references::Literal;
pub use references::PluginReference;
pub(crate) use stages::DRIVER_FIELDS;
use stages::read_item;
pub(crate) use validate::{directory_of, error_text};

mod consumers;
mod guard;
mod references;
mod stages;
mod validate;

/// The default of devcluster's `temp_dir`.
pub(crate) const TEMP_DIR: &str = "/tmp/devcluster";

/// The word in a `cmdline` that stands for the path of the config.
pub(crate) const CONFIG_WORD: &str = ":config";

/// The position of a new stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// It replaces this item of the file's list.
    Item(usize),
    /// It is inserted before this item.
    Before(usize),
}

impl Position {
    fn item(self) -> usize {
        match self {
            Position::Item(i) | Position::Before(i) => i,
        }
    }

    /// The sort key: a stage that is inserted before an item comes first.
    fn order(self) -> (usize, bool) {
        (self.item(), matches!(self, Position::Item(_)))
    }
}

/// A new stage.
#[derive(Clone, Debug)]
pub struct NewStage {
    /// Instance name.
    pub name: String,
    /// Its key in the file.
    pub kind: String,
    /// The words that run it.
    pub program: Vec<String>,
    /// The meaning of its outputs.
    pub provides: Provides,
    /// Its position.
    pub place: Position,
    /// Its config: the body without the fields of the driver.
    pub config: Map<String, Value>,
    /// The `gate` of the file, if set.
    gate: Option<Gate>,
    /// Whether later stages wait until it is ready.
    pub gates: bool,
    /// The `resource_manager` of the file, if set.
    pub resource_manager: Option<String>,
    /// Its verdict on its config.
    pub verdict: Verdict,
}

/// A stage whose config is rendered.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Stage name.
    pub name: String,
    /// `master` or `agent`.
    pub kind: &'static str,
    /// Its item in the list.
    pub item: usize,
    /// The config-emit stage that renders for it.
    pub emit: String,
    /// The instances before it whose outputs it gets.
    pub upstreams: Vec<String>,
}

/// Everything that compiling needs.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The new stages, in order.
    pub stages: Vec<NewStage>,
    /// Their kinds.
    pub(crate) kinds: BTreeMap<String, Kind>,
    /// The stages that get their outputs.
    pub consumers: Vec<Consumer>,
    /// The verdicts on the configs of masters.
    pub(crate) targets: Vec<TargetVerdict>,
    /// The masters of the file.
    pub(crate) masters: Vec<Master>,
    /// devcluster's `temp_dir`, as written.
    pub temp_dir: String,
    /// The file's `cwd`, as written.
    pub cwd: Option<String>,
    /// Renderers that only restart commands.
    pub(crate) followers: Vec<String>,
    /// Commands with references.
    pub(crate) execs: Vec<Exec>,
    /// Texts in commands and rendered configs with escaped references.
    pub(crate) literals: Vec<Literal>,
    /// References to outputs of plugins, which only the plugins can check.
    pub plugin_references: Vec<PluginReference>,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// A new stage, as the file lists it or the flat form requests it.
pub struct StageRequest {
    /// Its key in the file.
    pub kind: String,
    /// Its position.
    pub place: Position,
    /// Its body.
    pub body: Map<String, Value>,
}

impl Plan {
    /// Reads the plan of a devcluster.yaml. The error lists every mistake.
    pub async fn read(
        source: &InputFile<'_>,
        flat: Option<FlatStages<'_>>,
        kinds: &impl Kinds,
    ) -> Result<Plan, StageError> {
        let mut problems = Vec::new();
        let value = source.document.value();
        let Some(items) = value.get("stages").and_then(Value::as_array) else {
            let problem =
                Problem::new("stages", "missing: a devcluster.yaml lists its stages here");
            problems.push(problem);
            problems.extend(stock::check(&value).problems);
            return Err(refused(source, problems));
        };
        let (mut wanted, flat) = match flat {
            Some(flat) => (flat.stages, Some(flat.file)),
            None => (Vec::new(), None),
        };
        for (i, item) in items.iter().enumerate() {
            match read_item(item) {
                Ok(Some((kind, body))) => {
                    let span = source
                        .document
                        .nearest_span(&["stages".into(), i.into()], false);
                    problems.extend(pyyaml_only(source, span));
                    wanted.push(StageRequest {
                        kind,
                        place: Position::Item(i),
                        body,
                    });
                }
                Ok(None) => {}
                Err(problem) => problems.push(problem.below(&format!("stages[{i}]"))),
            }
        }
        wanted.sort_by_key(|w| w.place.order());
        let mut plan = Plan {
            temp_dir: value["temp_dir"].as_str().unwrap_or(TEMP_DIR).to_owned(),
            cwd: value["cwd"].as_str().map(str::to_owned),
            ..Plan::default()
        };
        if !wanted.is_empty() && plan.temp_dir.starts_with('~') {
            let message = "devcluster does not expand `~` here; write $HOME";
            problems.push(Problem::new("temp_dir", message));
        }
        plan.describe_kinds(&mut wanted, kinds, &mut problems).await;
        for stage in wanted {
            plan.add(stage, source, &mut problems);
        }
        for stage in &plan.stages {
            if items.iter().any(|item| is_stock_named(item, &stage.name)) {
                let message = format!(
                    "a second stage has the name `{}`; give each its own `name`",
                    stage.name
                );
                problems.push(Problem::new(stage.at("name"), message));
            }
        }
        plan.find_consumers(items, &mut problems);
        let validated = plan.validate(source, &value, kinds, &mut problems);
        let ((), stock) = join(validated, async { stock::check(&value) }).await;
        if !plan.stages.is_empty() {
            plan.find_references(source, &mut problems);
            plan.check_followers(&mut problems);
            plan.warn_of_commands();
        }
        problems.extend(stock.problems);
        plan.warnings.extend(stock.warnings);
        if problems.is_empty() {
            return Ok(plan);
        }
        Err(match flat {
            // A mistake in the flat form has its place there, not in the file that the stages are added to.
            Some(file) if problems.iter().all(|p| !p.path.starts_with("stages")) => {
                refused_flat(file, problems)
            }
            _ => refused(source, problems),
        })
    }

    /// Describes the kinds, concurrently. Drops stages of unknown kinds.
    async fn describe_kinds(
        &mut self,
        wanted: &mut Vec<StageRequest>,
        kinds: &impl Kinds,
        problems: &mut Vec<Problem>,
    ) {
        let names: BTreeSet<String> = wanted.iter().map(|w| w.kind.clone()).collect();
        let described = names.into_iter().map(async |name| {
            let described = kinds.describe(&name).await;
            (name, described)
        });
        for (name, described) in join_all(described).await {
            let message = match described {
                Ok(Some(kind)) => {
                    self.kinds.insert(name, kind);
                    continue;
                }
                Ok(None) => unknown_kind(&name, &kinds.all()),
                Err(error) => error_text(error),
            };
            let of_kind = wanted.iter().filter(|w| w.kind == name);
            problems.extend(of_kind.map(|w| {
                let at = format!("stages[{}].{name}", w.place.item());
                Problem::key(at, message.clone())
            }));
            wanted.retain(|w| w.kind != name);
        }
    }
}

/// Whether an item is a stage of devcluster with this name.
fn is_stock_named(item: &Value, name: &str) -> bool {
    let first = item.as_object().and_then(|o| o.iter().next());
    first.is_some_and(|(kind, body)| {
        DEVCLUSTERS.contains(&kind.as_str()) && body["name"].as_str().unwrap_or(kind) == name
    })
}

/// The stages of the flat form, which are added to the file.
pub struct FlatStages<'a> {
    pub(crate) stages: Vec<StageRequest>,
    /// The file that contains them; `None`: the command line.
    pub(crate) file: Option<InputFile<'a>>,
}
