//! Compiles a devcluster.yaml with new stages to one that stock devcluster reads. Offline: of the stages, only `describe`
//! and `validate` run.

use std::path::Path;

use protocol::kinds::RENDERER;
use protocol::yaml::{self, Document, Editor, Seg};
use protocol::{StageError, problem};
use serde_json::{Map, Value, json};

use crate::kinds::Kinds;
use crate::numbers;
use crate::plan::{CONFIG_WORD, Consumer, Exec, FlatStages, Master, NewStage, Plan, Position};
use crate::problems::{InputFile, refused};

/// devcluster's default, written out when one of its arguments changes.
const MASTER_CMDLINE: [&str; 3] = ["master/build/determined-master", "--config-file", ":config"];
const AGENT_CMDLINE: [&str; 4] = [
    "agent/build/determined-agent",
    "run",
    "--config-file",
    ":config",
];

/// devcluster dies, and orphans its stages, when a stage and the command that waits for it end at the same time.
const LINGER: &str = "--linger=3";

/// devcluster's default of a master's `post`, written out when a step is added.
fn master_post() -> Value {
    json!({"logcheck": {"regex": "accepting incoming connections on port"}})
}

/// How long a master's `post` waits for a guard, in seconds.
const EXAMINE: &str = "--timeout=10";

/// A compiled file.
#[derive(Debug)]
pub struct Compiled {
    /// What stock devcluster reads.
    pub text: String,
    /// The plan that it implements.
    pub plan: Plan,
}

impl Compiled {
    /// The compiled file as stock devcluster reads it.
    pub(crate) fn value(&self) -> Value {
        let document = Document::parse_as_pyyaml(&self.text);
        document.map(|d| d.value()).unwrap_or_default()
    }
}

/// Compiles a file. `flat` are the stages of the flat form. `programs` is the directory of this project's programs.
pub async fn compile(
    source: &InputFile<'_>,
    flat: Option<FlatStages<'_>>,
    kinds: &impl Kinds,
    programs: &Path,
) -> Result<Compiled, StageError> {
    let plan = Plan::read(source, flat, kinds).await?;
    let text = text(source, &plan, programs)?;
    Ok(Compiled { text, plan })
}

/// Renders the file for stock devcluster.
pub(crate) fn text(source: &InputFile, plan: &Plan, programs: &Path) -> Result<String, StageError> {
    let document = source.document;
    if plan.stages.is_empty() {
        return Ok(document.text().to_owned());
    }
    let mut editor = Editor::new(document);
    let edited = (|| {
        for stage in &plan.stages {
            let custom = json!({"custom": plan.custom(stage)});
            match stage.place {
                Position::Item(i) => editor.replace_item(&[Seg::from("stages")], i, custom)?,
                Position::Before(i) => editor.insert_item(&[Seg::from("stages")], i, custom)?,
            }
        }
        for literal in &plan.literals {
            editor.set(&literal.path, literal.text.clone().into())?;
        }
        for exec in &plan.execs {
            plan.wrap(exec, programs, document, &mut editor)?;
        }
        for consumer in &plan.consumers {
            plan.consume(consumer, document, &mut editor)?;
        }
        for master in &plan.masters {
            plan.examine(master, document, &mut editor)?;
        }
        numbers::shift(document, plan, &mut editor)?;
        editor.finish()
    })();
    edited.map_err(|e: yaml::Error| {
        let file = problem::SourceFile::new(source.path, document.text());
        refused(source, vec![file.problem(&e)])
    })
}

/// The run directory of a devcluster's stages, before devcluster expands it.
pub fn run_dir(temp_dir: &str) -> String {
    format!("{}/stages", temp_dir.trim_end_matches('/'))
}

/// The path of the config that is rendered for a consumer.
pub fn rendered(temp_dir: &str, consumer: &str) -> String {
    format!("{}/{consumer}.yaml", run_dir(temp_dir))
}

impl NewStage {
    /// The words that run it. devcluster expands `$` in every value, so paths escape it.
    fn words(&self) -> Vec<String> {
        let words = self.program.iter();
        words.map(|word| word.replace('$', "$$")).collect()
    }
}

impl Plan {
    /// The command that runs a stage.
    pub(crate) fn command(&self, stage: &NewStage) -> Vec<String> {
        let mut cmd = stage.words();
        if !stage.is_plugin() {
            cmd.push("run".into());
        }
        cmd.extend(self.instance_flags(&stage.name));
        cmd.push("--events=none".into());
        cmd.extend(flags(&self.config(stage)));
        cmd
    }

    /// The config of a stage, with the fields that the driver sets.
    pub(crate) fn config(&self, stage: &NewStage) -> Map<String, Value> {
        let mut config = stage.config.clone();
        if stage.kind == RENDERER {
            match self.consumers.iter().find(|c| c.emit == stage.name) {
                Some(consumer) => self.render_into(&mut config, consumer),
                None => drop(config.insert("upstreams".into(), json!(self.followed()))),
            }
            let socket = format!("{}/sock", self.temp_dir.trim_end_matches('/'));
            config.insert("control_socket".into(), socket.into());
        }
        config
    }

    /// Sets the fields with which a renderer writes the config of a consumer.
    fn render_into(&self, config: &mut Map<String, Value>, consumer: &Consumer) {
        let name = &consumer.name;
        let base = format!("{}/{name}.conf", self.temp_dir.trim_end_matches('/'));
        let mut set = |field: &str, value: Value| config.insert(field.to_owned(), value);
        set("stage", name.as_str().into());
        set("base", base.into());
        set("out", rendered(&self.temp_dir, name).into());
        set("upstreams", json!(consumer.upstreams));
        if consumer.kind != "master" {
            set("known_fields", false.into());
        }
        let managers = self.managers_of(consumer);
        if !managers.is_empty() {
            set("resource_managers", managers.into());
        }
    }

    /// Lets the guards in front of a master examine it as soon as it has started. Their result is not that of the start.
    fn examine(
        &self,
        master: &Master,
        document: &Document,
        editor: &mut Editor,
    ) -> Result<(), yaml::Error> {
        let guards = self.stages.iter();
        let guards = guards.filter(|stage| master.guards.contains(&stage.name));
        let mut steps: Vec<Value> = guards
            .map(|stage| {
                let mut words = stage.words();
                words.extend(["wait", "--guard", EXAMINE].map(str::to_owned));
                words.extend(self.instance_flags(&stage.name));
                json!({"custom": words})
            })
            .collect();
        if steps.is_empty() {
            return Ok(());
        }
        let post = [
            Seg::from("stages"),
            master.item.into(),
            "master".into(),
            "post".into(),
        ];
        if document.get(&post).is_none() {
            steps.insert(0, master_post());
        }
        append_steps(document, editor, &post, steps)
    }

    fn custom(&self, stage: &NewStage) -> Value {
        let cmd = self.command(stage);
        let mut custom = json!({"name": stage.name, "cmd": cmd, "kill_signal": "SIGTERM"});
        if stage.gates {
            let mut wait = stage.words();
            wait.push("wait".into());
            wait.extend(self.instance_flags(&stage.name));
            wait.push(LINGER.into());
            custom["post"] = json!([{"custom": wait}]);
        }
        custom
    }

    fn instance_flags(&self, name: &str) -> Vec<String> {
        vec![
            format!("--name={name}"),
            format!("--run-dir={}", run_dir(&self.temp_dir)),
        ]
    }

    /// Wraps a command with references in `config-emit exec`, which waits for the values and runs the command.
    fn wrap(
        &self,
        exec: &Exec,
        programs: &Path,
        document: &Document,
        editor: &mut Editor,
    ) -> Result<(), yaml::Error> {
        let program = programs.join("devcluster-config-emit");
        let mut words = vec![
            program.display().to_string().replace('$', "$$"),
            "exec".into(),
            format!("--run-dir={}", run_dir(&self.temp_dir)),
            format!("--upstreams={}", exec.upstreams.join(",")),
        ];
        words.extend(exec.variables.iter().map(|v| format!("--env={v}")));
        words.extend(exec.noted.iter().map(|name| format!("--for={name}")));
        words.extend([LINGER.into(), "--".into()]);
        let literal = |path: &[Seg]| {
            let literal = self.literals.iter().find(|l| l.path == path);
            let literal = literal.map(|l| l.text.clone().into());
            literal.or_else(|| document.get(path)).unwrap_or_default()
        };
        let mut list: Vec<Value> = words.into_iter().map(Value::String).collect();
        if let (true, [steps @ .., Seg::Index(step), _]) = (exec.is_script, exec.path.as_slice()) {
            list.extend(["sh".into(), "-c".into(), literal(&exec.path)]);
            let custom = json!({"custom": list});
            return match document.is_written_at(steps) {
                true => editor.replace_item(steps, *step, custom),
                false => editor.set(&exec.path[..exec.path.len() - 1], custom),
            };
        }
        if document.is_written_at(&exec.path) {
            let mut words = list.into_iter();
            return words.try_for_each(|word| editor.insert_item(&exec.path, 0, word));
        }
        // An alias is written out here, with the word that `consume` would replace.
        let count = document.get(&exec.path);
        let count = count.and_then(|v| Some(v.as_array()?.len()));
        let mut consumers = self.consumers.iter();
        let consumer = consumers.find(|c| exec.path.get(1) == Some(&c.item.into()));
        for i in 0..count.unwrap_or_default() {
            let word = literal(&[exec.path.as_slice(), &[i.into()]].concat());
            list.push(match consumer.filter(|_| word == CONFIG_WORD) {
                Some(consumer) => rendered(&self.temp_dir, &consumer.name).into(),
                None => word,
            });
        }
        editor.set(&exec.path, list.into())
    }

    /// Makes the consumer read the rendered file, and render it again before each of its starts.
    fn consume(
        &self,
        consumer: &Consumer,
        document: &Document,
        editor: &mut Editor,
    ) -> Result<(), yaml::Error> {
        let field = |name: &str| {
            let (item, kind) = (consumer.item.into(), consumer.kind.into());
            [Seg::from("stages"), item, kind, name.into()]
        };
        let (cmdline, pre) = (field("cmdline"), field("pre"));
        let rendered = rendered(&self.temp_dir, &consumer.name);
        let written = document.get(&cmdline);
        let wrapped = self.execs.iter().any(|e| e.path == cmdline);
        match written.as_ref().and_then(Value::as_array) {
            Some(_) if wrapped && !document.is_written_at(&cmdline) => {}
            Some(words) => {
                for (i, _) in words.iter().enumerate().filter(|(_, w)| *w == CONFIG_WORD) {
                    let path = [cmdline.as_slice(), &[i.into()]].concat();
                    editor.set(&path, rendered.clone().into())?;
                }
            }
            None => {
                let words: &[&str] = match consumer.kind {
                    "agent" => &AGENT_CMDLINE,
                    _ => &MASTER_CMDLINE,
                };
                let words = words.iter().map(|w| match *w == CONFIG_WORD {
                    true => rendered.clone(),
                    false => (*w).to_owned(),
                });
                editor.set(&cmdline, words.collect())?;
            }
        }
        let Some(emit) = self.stages.iter().find(|s| s.name == consumer.emit) else {
            return Ok(());
        };
        let mut once = emit.words();
        once.push("once".into());
        // Another instance name: the renderer stage holds the lock of its own.
        once.extend(self.instance_flags(&format!("{}.{}", emit.name, consumer.name)));
        once.push("--events=none".into());
        once.push(LINGER.into());
        let mut config = emit.config.clone();
        self.render_into(&mut config, consumer);
        once.extend(flags(&config));
        append_steps(document, editor, &pre, vec![json!({"custom": once})])
    }
}

/// Adds steps to the `pre` or `post` of a stage.
fn append_steps(
    document: &Document,
    editor: &mut Editor,
    path: &[Seg],
    steps: Vec<Value>,
) -> Result<(), yaml::Error> {
    match document.get(path) {
        Some(Value::Array(written)) if !written.is_empty() => {
            let mut steps = steps.into_iter();
            steps.try_for_each(|step| editor.append_item(path, step))
        }
        _ => editor.set(path, steps.into()),
    }
}

/// A config as flags. Values other than text, numbers and booleans are JSON.
fn flags(config: &Map<String, Value>) -> Vec<String> {
    config
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(field, value)| {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            format!("--{}={}", field.replace('_', "-"), unexpanded(&text))
        })
        .collect()
}

/// Escapes variables so that the stage expands them, not devcluster, which would write the values, perhaps secrets, into
/// argv and files. Only devcluster knows the value of DOCKER_LOCALHOST.
fn unexpanded(text: &str) -> String {
    let mut doubled = text.replace('$', "$$");
    for name in ["DOCKER_LOCALHOST", "{DOCKER_LOCALHOST}"] {
        doubled = doubled.replace(&format!("$${name}"), &format!("${name}"));
    }
    doubled
}
