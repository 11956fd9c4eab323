//! What a devcluster.yaml asks for beyond what devcluster knows: the new stages, and who uses what they find out.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use protocol::kinds::DEVCLUSTERS;
use protocol::provides::Provides;
use protocol::validate::{Gate, TargetVerdict, Verdict};
use protocol::{Problem, StageError};
use serde_json::{Map, Value};

use crate::kinds::{Kind, Kinds, unknown_kind};
use crate::problems::{InputFile, pyyaml_only, refused, refused_flat};
use crate::stock;
pub(crate) use references::Exec;
use references::Literal;
pub use references::PluginReference;
pub(crate) use stages::DRIVER_FIELDS;
use stages::read_item;
pub(crate) use validate::{directory_of, error_text};

mod consumers;
mod references;
mod stages;
mod validate;

/// devcluster's own directory where the file names none.
pub(crate) const TEMP_DIR: &str = "/tmp/devcluster";

/// The word in a `cmdline` that stands for the path of the config.
pub(crate) const CONFIG_WORD: &str = ":config";

/// Where a new stage goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// In the place of this item of the file's list.
    Item(usize),
    /// Before this item.
    Before(usize),
}

impl Position {
    fn item(self) -> usize {
        match self {
            Position::Item(i) | Position::Before(i) => i,
        }
    }

    /// A stage that is inserted before an item runs before it.
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
    /// What its outputs mean.
    pub provides: Provides,
    /// Where it goes.
    pub place: Position,
    /// Its config: the body without what the driver itself reads.
    pub config: Map<String, Value>,
    /// Who waits for it, where its user says so.
    gate: Option<Gate>,
    /// Whether later stages are held back until it is ready.
    pub gates: bool,
    /// The resource manager whose tasks it leads to, where its user says so.
    pub resource_manager: Option<String>,
    /// What it says of its config.
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

/// Everything that compiling has to act upon.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The new stages, in order.
    pub stages: Vec<NewStage>,
    /// Their kinds.
    pub(crate) kinds: BTreeMap<String, Kind>,
    /// Who gets their outputs.
    pub consumers: Vec<Consumer>,
    /// What the configs of masters amount to.
    pub(crate) targets: Vec<TargetVerdict>,
    /// devcluster's `temp_dir`, as written.
    pub temp_dir: String,
    /// The file's `cwd`, as written.
    pub cwd: Option<String>,
    /// Renderers that restart commands and have no config to render.
    pub(crate) followers: Vec<String>,
    /// Commands with references in them.
    pub(crate) execs: Vec<Exec>,
    /// Texts in these and in rendered configs that only look like references.
    pub(crate) literals: Vec<Literal>,
    /// References to what plugins find out: what that can be, only they know.
    pub plugin_references: Vec<PluginReference>,
    /// What works, but not as one would wish.
    pub warnings: Vec<String>,
}

/// A stage's body as it stands in the file, or as the flat form asks for it.
pub struct StageRequest {
    /// Its key in the file.
    pub kind: String,
    /// Where it goes.
    pub place: Position,
    /// Its body.
    pub body: Map<String, Value>,
}

impl Plan {
    /// Reads the plan of a devcluster.yaml. All mistakes at once.
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
            let message = "devcluster takes `~` literally here; write $HOME";
            problems.push(Problem::new("temp_dir", message));
        }
        plan.describe_kinds(&mut wanted, kinds, &mut problems).await;
        for stage in wanted {
            plan.add(stage, source, &mut problems);
        }
        for stage in &plan.stages {
            if items.iter().any(|item| is_stock_named(item, &stage.name)) {
                let message = format!(
                    "a second stage named `{}`; give each its own `name`",
                    stage.name
                );
                problems.push(Problem::new(stage.at("name"), message));
            }
        }
        plan.find_consumers(items, &mut problems);
        plan.validate(source, kinds, &mut problems).await;
        if !plan.stages.is_empty() {
            plan.find_references(source, &mut problems);
            plan.check_followers(&mut problems);
            plan.warn_of_commands();
        }
        let stock = stock::check(&value);
        problems.extend(stock.problems);
        plan.warnings.extend(stock.warnings);
        if problems.is_empty() {
            return Ok(plan);
        }
        Err(match flat {
            // What is wrong with the flat form is not in the file that it is put into.
            Some(file) if problems.iter().all(|p| !p.path.starts_with("stages")) => {
                refused_flat(file, problems)
            }
            _ => refused(source, problems),
        })
    }

    /// Learns what the kinds are, side by side. A stage of a kind that is not there is no stage.
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

/// Whether a stage of devcluster's goes by this name.
fn is_stock_named(item: &Value, name: &str) -> bool {
    let first = item.as_object().and_then(|o| o.iter().next());
    first.is_some_and(|(kind, body)| {
        DEVCLUSTERS.contains(&kind.as_str()) && body["name"].as_str().unwrap_or(kind) == name
    })
}

/// The stages of the flat form, to be put into the file.
pub struct FlatStages<'a> {
    pub(crate) stages: Vec<StageRequest>,
    /// The file that they stand in; none: the command line.
    pub(crate) file: Option<InputFile<'a>>,
}
