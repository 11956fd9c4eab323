//! What a devcluster.yaml asks for beyond what devcluster knows: the new stages, and who uses what they find out.

use std::path::Path;

use protocol::yaml::Document;
use protocol::{Env, Problem, StageError};
use serde_json::{Map, Value};

use crate::problems::{odd, refused};
use crate::stock;
pub(crate) use references::Exec;
use references::Literal;
pub use references::PluginReference;
pub(crate) use stages::DRIVERS;
use stages::read_item;

mod consumers;
mod references;
mod stages;

/// The word in a `cmdline` that stands for the path of the config.
pub(crate) const CONFIG_WORD: &str = ":config";

/// A kind of stage that devcluster does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `devcluster-tunnel`
    Tunnel,
    /// `devcluster-gateway`
    Gateway,
    /// `devcluster-config-emit`
    ConfigEmit,
    /// Any program that speaks the protocol.
    Plugin,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Tunnel, Kind::Gateway, Kind::ConfigEmit, Kind::Plugin];

    /// The key in the file.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Tunnel => "tunnel",
            Kind::Gateway => "gateway",
            Kind::ConfigEmit => "config-emit",
            Kind::Plugin => "plugin",
        }
    }

    fn of(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.name() == name)
    }
}

/// Where a new stage goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the place of this item of the file's list.
    Item(usize),
    /// Before this item.
    Before(usize),
}

impl Place {
    fn item(self) -> usize {
        match self {
            Place::Item(i) | Place::Before(i) => i,
        }
    }

    /// A stage that is inserted before an item runs before it.
    fn order(self) -> (usize, bool) {
        (self.item(), matches!(self, Place::Item(_)))
    }
}

/// A new stage.
#[derive(Clone, Debug)]
pub struct NewStage {
    /// Instance name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where it goes.
    pub place: Place,
    /// Its config: the body without what the driver itself reads.
    pub config: Map<String, Value>,
    /// Whether later stages are held back until it is ready.
    pub gates: bool,
    /// The resource manager that a gateway is for, where its user says so.
    pub resource_manager: Option<String>,
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
    /// Who gets their outputs.
    pub consumers: Vec<Consumer>,
    /// devcluster's `temp_dir`, as written.
    pub temp_dir: String,
    /// The file's `cwd`, as written.
    pub cwd: Option<String>,
    /// Commands with references in them.
    pub(crate) execs: Vec<Exec>,
    /// Texts in these and in rendered configs that only look like references.
    pub(crate) literals: Vec<Literal>,
    /// References to what plugins find out: what that can be, only they know.
    pub plugin_references: Vec<PluginReference>,
    /// What works, but not as one would wish.
    pub warnings: Vec<String>,
}

/// A file that was read, by the name that messages show.
pub struct Source<'a> {
    /// Path as given.
    pub path: &'a Path,
    /// Its content.
    pub document: &'a Document,
}

/// A stage's body as it stands in the file, or as the flat form asks for it.
pub struct Wanted {
    /// What it is.
    pub kind: Kind,
    /// Where it goes.
    pub place: Place,
    /// Its body.
    pub body: Map<String, Value>,
}

impl Plan {
    /// Reads the plan of a devcluster.yaml, with further stages that its user asked for elsewhere. All mistakes at once.
    pub fn read(source: &Source, extra: Vec<Wanted>, env: &Env) -> Result<Plan, StageError> {
        let mut problems = Vec::new();
        let value = source.document.value();
        let Some(items) = value.get("stages").and_then(Value::as_array) else {
            let problem =
                Problem::new("stages", "missing: a devcluster.yaml lists its stages here");
            problems.push(problem);
            problems.extend(stock::check(&value).problems);
            return Err(refused(source, problems));
        };
        let mut wanted = extra;
        for (i, item) in items.iter().enumerate() {
            match read_item(item) {
                Ok(Some((kind, body))) => {
                    let span = source
                        .document
                        .nearest_span(&["stages".into(), i.into()], false);
                    problems.extend(odd(source, span));
                    wanted.push(Wanted {
                        kind,
                        place: Place::Item(i),
                        body,
                    });
                }
                Ok(None) => {}
                Err(problem) => problems.push(problem.below(&format!("stages[{i}]"))),
            }
        }
        wanted.sort_by_key(|w| w.place.order());
        let mut plan = Plan {
            temp_dir: value["temp_dir"]
                .as_str()
                .unwrap_or("/tmp/devcluster")
                .to_owned(),
            cwd: value["cwd"].as_str().map(str::to_owned),
            ..Plan::default()
        };
        if !wanted.is_empty() && plan.temp_dir.starts_with('~') {
            let message = "devcluster takes `~` literally here; write $HOME";
            problems.push(Problem::new("temp_dir", message));
        }
        for stage in wanted {
            plan.add(stage, source, env, &mut problems);
        }
        plan.find_consumers(items, &mut problems);
        if !plan.stages.is_empty() {
            plan.find_references(source, &mut problems);
            plan.warn_of_commands();
        }
        plan.point_tunnels_at_the_master(items);
        let stock = stock::check(&value);
        problems.extend(stock.problems);
        plan.warnings.extend(stock.warnings);
        match problems.is_empty() {
            true => Ok(plan),
            false => Err(refused(source, problems)),
        }
    }
}
