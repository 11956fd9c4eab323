//! The stages whose config is rendered, and their renderers.

use protocol::Problem;
use protocol::kinds::RENDERER;
use protocol::provides::{MASTER_ADDRESS, TASK_GATEWAY};
use protocol::rundir::is_instance_name;
use serde_json::{Map, Value};

use super::{CONFIG_WORD, Consumer, NewStage, Plan};

impl Plan {
    pub(super) fn find_consumers(&mut self, items: &[Value], problems: &mut Vec<Problem>) {
        let configs: Vec<ConsumerConfig> = items
            .iter()
            .enumerate()
            .filter_map(ConsumerConfig::from_item)
            .collect();
        let emits = self.stages.iter().filter(|s| s.kind == RENDERER);
        let emits: Vec<NewStage> = emits.cloned().collect();
        for emit in &emits {
            let stage = emit.config.get("stage");
            if stage.is_some_and(|s| !s.is_string()) {
                let message = "expected the name of a stage";
                problems.push(Problem::new(emit.at("stage"), message));
                continue;
            }
            match consumer_of(emit, &configs) {
                Ok(config) => {
                    problems.extend(check_consumer(config, &emit.name));
                    if let Some(first) = self.consumers.iter().find(|c| c.item == config.item) {
                        let message = format!(
                            "{} renders the config of {} already",
                            first.emit, first.name
                        );
                        problems.push(Problem::key(emit.at(""), message));
                    }
                    let consumer = self.consumer(config, emit);
                    self.consumers.push(consumer);
                }
                Err(_) if configs.is_empty() && stage.is_none() => {
                    self.followers.push(emit.name.clone());
                }
                Err(message) if stage.is_some() => {
                    problems.push(Problem::new(emit.at("stage"), message));
                }
                Err(message) => problems.push(Problem::key(emit.at(""), message)),
            }
        }
        let masters = configs.iter().any(|c| c.kind == "master");
        let mut provides = self.stages.iter().flat_map(|s| s.provides.keys());
        let finds_out = provides.any(|it| [MASTER_ADDRESS, TASK_GATEWAY].contains(&it.as_str()));
        if finds_out && emits.is_empty() && masters {
            let warning = "no config-emit stage: the master does not get the outputs of the tunnel and the gateway; \
                 list `- config-emit: {}` before it";
            self.warnings.push(warning.to_owned());
        }
    }

    /// A renderer without a config is useful only when commands refer to outputs.
    pub(super) fn check_followers(&self, problems: &mut Vec<Problem>) {
        if self.execs.iter().any(|e| e.noted.is_some()) {
            return;
        }
        let idle = self
            .stages
            .iter()
            .filter(|s| self.followers.contains(&s.name));
        let message = "no master stage to render a config for, and no command that refers to outputs of a stage";
        problems.extend(idle.map(|s| Problem::key(s.at(""), message)));
    }

    /// The instances whose outputs a renderer without a config follows.
    pub(crate) fn followed(&self) -> Vec<&str> {
        let stages = self.stages.iter().filter(|s| s.kind != RENDERER);
        stages.map(|s| s.name.as_str()).collect()
    }

    /// Warns when commands refer to outputs and no config-emit stage restarts them.
    pub(super) fn warn_of_commands(&mut self) {
        let follows = self.stages.iter().any(|s| s.kind == RENDERER);
        let noted = self.execs.iter().find_map(|e| e.noted.as_ref());
        if let (false, Some((stage, _))) = (follows, noted.and_then(|n| n.rsplit_once('.'))) {
            self.warnings.push(format!(
                "no config-emit stage: {stage} is not restarted when what it refers to changes"
            ));
        }
    }

    fn consumer(&self, config: &ConsumerConfig, emit: &NewStage) -> Consumer {
        let before = self
            .stages
            .iter()
            .filter(|s| s.place.order() < (config.item, true));
        let upstreams = before.filter(|s| s.kind != RENDERER);
        Consumer {
            name: config.name.clone(),
            kind: config.kind,
            item: config.item,
            emit: emit.name.clone(),
            upstreams: upstreams.map(|s| s.name.clone()).collect(),
        }
    }

    /// The `resource_manager` settings of upstreams, by instance.
    pub(crate) fn managers_of(&self, consumer: &Consumer) -> Map<String, Value> {
        let before = self
            .stages
            .iter()
            .filter(|s| consumer.upstreams.contains(&s.name));
        let named =
            before.filter_map(|s| Some((s.name.clone(), s.resource_manager.clone()?.into())));
        named.collect()
    }
}

/// A stage of devcluster with a config.
struct ConsumerConfig<'a> {
    item: usize,
    kind: &'static str,
    name: String,
    body: &'a Value,
}

impl<'a> ConsumerConfig<'a> {
    fn from_item((item, stage): (usize, &'a Value)) -> Option<ConsumerConfig<'a>> {
        let kind = ["master", "agent"]
            .into_iter()
            .find(|k| stage.get(k).is_some())?;
        let body = &stage[kind];
        let name = body["name"].as_str().unwrap_or(kind).to_owned();
        Some(ConsumerConfig {
            item,
            kind,
            name,
            body,
        })
    }
}

/// Checks the name of a consumer, which names the rendered file, and its command line, which passes the file.
fn check_consumer(config: &ConsumerConfig<'_>, emit: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |field: &str, message: String| {
        let path = format!("stages[{}].{}.{field}", config.item, config.kind);
        problems.push(Problem::new(path, message));
    };
    let name = &config.name;
    if !is_instance_name(&format!("{emit}.{name}")) || name == "devcluster" {
        let rule = "a stage whose config is rendered has a short name of letters, digits, `.`, `_` and `-`";
        wrong("name", format!("`{name}` cannot name a file: {rule}"));
    }
    match &config.body["cmdline"] {
        Value::Array(words) if !words.iter().any(|w| w == CONFIG_WORD) => wrong(
            "cmdline",
            format!("has no argument `{CONFIG_WORD}`, which stands for the rendered config"),
        ),
        _ => {}
    }
    problems
}

fn consumer_of<'c, 'v>(
    emit: &NewStage,
    configs: &'c [ConsumerConfig<'v>],
) -> Result<&'c ConsumerConfig<'v>, String> {
    let none = "no master stage to render a config for".to_owned();
    let names = |all: &[&ConsumerConfig]| {
        let names = all.iter().map(|c| c.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let all: Vec<&ConsumerConfig> = configs.iter().collect();
    let mut masters = all.clone();
    masters.retain(|c| c.kind == "master");
    let wanted = emit.config.get("stage").and_then(Value::as_str);
    let chosen = match (wanted, masters.as_slice()) {
        (Some(name), _) => all
            .iter()
            .find(|c| c.name == name)
            .ok_or(match all.is_empty() {
                true => none,
                false => format!(
                    "no master or agent stage is named `{name}`; there is {}",
                    names(&all)
                ),
            })?,
        (None, [only]) => only,
        (None, []) => return Err(none),
        (None, several) => {
            return Err(format!(
                "several master stages; select one with `stage:` ({})",
                names(several)
            ));
        }
    };
    if emit.place.order() > (chosen.item, true) {
        return Err(format!(
            "must come before `{}`, whose config it renders",
            chosen.name
        ));
    }
    Ok(chosen)
}
