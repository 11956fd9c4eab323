//! What a devcluster.yaml asks for beyond what devcluster knows: the new stages, and who uses what they find out.

use std::path::{Path, PathBuf};

use protocol::config::{self, nearest};
use protocol::rundir::is_instance_name;
use protocol::yaml::Document;
use protocol::{Env, Problem, Stage, StageError};
use serde_json::{Map, Value};

use crate::problems::refused;

/// devcluster's own kinds of stage.
const STOCK: [&str; 6] = [
    "elastic",
    "db",
    "master",
    "agent",
    "custom",
    "custom_docker",
];

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
}

/// A `master` stage whose config is rendered.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Stage name.
    pub name: String,
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
            return Err(refused(source, vec![problem]));
        };
        let mut wanted = extra;
        for (i, item) in items.iter().enumerate() {
            match read_item(item) {
                Ok(Some((kind, body))) => wanted.push(Wanted {
                    kind,
                    place: Place::Item(i),
                    body,
                }),
                Ok(None) => {}
                Err(message) => problems.push(Problem::new(format!("stages[{i}]"), message)),
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
        plan.point_tunnels_at_the_master(items);
        match problems.is_empty() {
            true => Ok(plan),
            false => Err(refused(source, problems)),
        }
    }

    fn add(&mut self, wanted: Wanted, source: &Source, env: &Env, problems: &mut Vec<Problem>) {
        let Wanted {
            kind,
            place,
            mut body,
        } = wanted;
        // A stage that the flat form asked for was checked where it was read.
        let at = |field: &str| match place {
            Place::Item(i) => format!("stages[{i}].{}.{field}", kind.name()),
            Place::Before(_) => field.to_owned(),
        };
        let name = match body.shift_remove("name") {
            None => kind.name().to_owned(),
            Some(Value::String(name)) if is_instance_name(&name) => name,
            Some(_) => {
                let rule = "a name has at most 63 letters, digits, `.`, `_` or `-`, the first a letter or digit";
                problems.push(Problem::new(at("name"), rule));
                kind.name().to_owned()
            }
        };
        if self.stages.iter().any(|s| s.name == name) {
            let message = format!("a second stage named `{name}`; give each its own `name`");
            problems.push(Problem::new(at("name"), message));
        }
        let gates = match body
            .shift_remove("gate")
            .as_ref()
            .map(|g| g.as_str().unwrap_or_default())
        {
            None => matches!(kind, Kind::Tunnel | Kind::Plugin),
            Some("stage") => true,
            Some("consumer") => false,
            Some(_) => {
                problems.push(Problem::new(at("gate"), "either `stage` or `consumer`"));
                true
            }
        };
        if kind == Kind::Plugin {
            resolve_plugin(&mut body, source.path);
        }
        for mut problem in check(kind, &body, env) {
            problem.path = at(&problem.path);
            problems.push(problem);
        }
        self.stages.push(NewStage {
            name,
            kind,
            place,
            config: body,
            gates,
        });
    }

    fn find_consumers(&mut self, items: &[Value], problems: &mut Vec<Problem>) {
        let masters: Vec<(usize, String)> = items
            .iter()
            .enumerate()
            .filter_map(|(i, item)| {
                let body = item.get("master")?;
                Some((i, body["name"].as_str().unwrap_or("master").to_owned()))
            })
            .collect();
        let emits: Vec<NewStage> = self
            .stages
            .iter()
            .filter(|s| s.kind == Kind::ConfigEmit)
            .cloned()
            .collect();
        for emit in &emits {
            let place = format!("stages[{}].config-emit", emit.place.item());
            match consumer_of(emit, &masters) {
                Ok((item, name)) => {
                    problems.extend(check_consumer(
                        item,
                        &name,
                        &emit.name,
                        &items[item]["master"],
                    ));
                    let upstreams = self
                        .stages
                        .iter()
                        .filter(|s| s.place.order() < (item, true));
                    let upstreams = upstreams
                        .filter(|s| s.kind != Kind::ConfigEmit)
                        .map(|s| s.name.clone())
                        .collect();
                    self.consumers.push(Consumer {
                        name,
                        item,
                        emit: emit.name.clone(),
                        upstreams,
                    });
                }
                Err(message) => problems.push(Problem::key(place, message)),
            }
        }
        let finds_out = self
            .stages
            .iter()
            .any(|s| matches!(s.kind, Kind::Tunnel | Kind::Gateway));
        if finds_out && emits.is_empty() && !masters.is_empty() {
            self.warnings.push(
                "no config-emit stage: the master is not told what the tunnel and the gateway find out; \
                 list `- config-emit: {}` before it"
                    .to_owned(),
            );
        }
    }
}

impl Plan {
    /// A tunnel that was not told which port to expose exposes the master's.
    fn point_tunnels_at_the_master(&mut self, items: &[Value]) {
        let ports = items
            .iter()
            .filter_map(|i| i.get("master")?.get("config_file")?.get("port")?.as_u64());
        let Some(port) = ports.into_iter().next() else {
            return;
        };
        for tunnel in self.stages.iter_mut().filter(|s| s.kind == Kind::Tunnel) {
            tunnel
                .config
                .entry("local_port")
                .or_insert_with(|| port.into());
        }
    }
}

type Body = Map<String, Value>;

/// A new stage's kind and body; `None` for one of devcluster's own.
fn read_item(item: &Value) -> Result<Option<(Kind, Body)>, String> {
    let Some((key, body)) = item
        .as_object()
        .filter(|o| o.len() == 1)
        .and_then(|o| o.iter().next())
    else {
        return Err("a stage is a mapping with one key, its kind".to_owned());
    };
    if STOCK.contains(&key.as_str()) {
        return Ok(None);
    }
    let Some(kind) = Kind::of(key) else {
        let known = STOCK.into_iter().chain(Kind::ALL.map(Kind::name));
        let meant = nearest(key, known.clone()).map_or_else(
            || format!("known: {}", known.collect::<Vec<_>>().join(", ")),
            |meant| format!("did you mean `{meant}`?"),
        );
        return Err(format!("unknown kind of stage `{key}`; {meant}"));
    };
    match body {
        Value::Object(body) => Ok(Some((kind, body.clone()))),
        Value::Null => Ok(Some((kind, Map::new()))),
        _ => Err(format!("{key}: takes `key: value` lines")),
    }
}

/// What is rendered is named after the stage, and passed to it by its command line.
fn check_consumer(item: usize, name: &str, emit: &str, body: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |field: &str, message: String| {
        problems.push(Problem::new(
            format!("stages[{item}].master.{field}"),
            message,
        ));
    };
    if !is_instance_name(&format!("{emit}.{name}")) || name == "devcluster" {
        let rule = "a stage whose config is rendered has a short name of letters, digits, `.`, `_` and `-`";
        wrong("name", format!("`{name}` cannot name a file: {rule}"));
    }
    match &body["cmdline"] {
        Value::Null => {}
        Value::Array(words) if words.iter().any(|w| w == CONFIG_WORD) => {}
        Value::Array(_) => wrong(
            "cmdline",
            format!("has no argument `{CONFIG_WORD}`, which stands for the rendered config"),
        ),
        _ => wrong("cmdline", "has to be a list of strings".to_owned()),
    }
    if !matches!(&body["pre"], Value::Null | Value::Array(_)) {
        wrong("pre", "has to be a list of steps".to_owned());
    }
    problems
}

fn consumer_of(emit: &NewStage, masters: &[(usize, String)]) -> Result<(usize, String), String> {
    let names = || {
        masters
            .iter()
            .map(|(_, n)| n.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let chosen = match emit.config.get("stage").and_then(Value::as_str) {
        Some(name) => masters
            .iter()
            .find(|(_, n)| n == name)
            .ok_or(match masters.is_empty() {
                true => "no master stage to render a config for".to_owned(),
                false => format!(
                    "stage: no master stage is named `{name}`; there is {}",
                    names()
                ),
            })?,
        None => match masters {
            [only] => only,
            [] => return Err("no master stage to render a config for".to_owned()),
            _ => {
                return Err(format!(
                    "several master stages: say which with `stage:` ({})",
                    names()
                ));
            }
        },
    };
    if emit.place.order() > (chosen.0, true) {
        return Err(format!(
            "has to stand before `{}`, whose config it renders",
            chosen.1
        ));
    }
    Ok(chosen.clone())
}

/// `./x` is relative to the file, a bare name is looked up on `$PATH`.
fn resolve_plugin(body: &mut Map<String, Value>, file: &Path) {
    if let Some(Value::String(uses)) = body.get_mut("uses")
        && uses.contains('/')
        && !uses.starts_with(['/', '~', '$'])
    {
        let beside = file.parent().unwrap_or(Path::new(""));
        let path = std::path::absolute(beside)
            .unwrap_or_else(|_| PathBuf::from(beside))
            .join(&*uses);
        *uses = path.components().collect::<PathBuf>().display().to_string();
    }
}

fn check(kind: Kind, body: &Map<String, Value>, env: &Env) -> Vec<Problem> {
    match kind {
        Kind::Tunnel => check_as::<tunnel::Tunnel>(body, env),
        Kind::Gateway => check_as::<gateway::Gateway>(body, env),
        Kind::Plugin => check_as::<crate::host::Host>(body, env),
        Kind::ConfigEmit => {
            let ours = ["base", "out", "upstreams"];
            let taken = ours.into_iter().filter(|f| body.contains_key(*f));
            let mut problems: Vec<_> = taken
                .map(|f| Problem::new(f, "is set by the driver; leave it out"))
                .collect();
            let mut complete = body.clone();
            complete.entry("base").or_insert_with(|| "base".into());
            complete.entry("out").or_insert_with(|| "out".into());
            problems.extend(check_as::<config_emit::ConfigEmit>(&complete, env));
            problems
        }
    }
}

fn check_as<S: Stage>(body: &Map<String, Value>, env: &Env) -> Vec<Problem> {
    config::check::<S::Config>(body, env, S::validate)
        .err()
        .unwrap_or_default()
}
