//! The stages whose config is rendered, and by whom.

use config_emit::determined::{self, Manager};
use config_emit::{Candidate, assign};
use protocol::Problem;
use protocol::rundir::is_instance_name;
use serde_json::Value;

use super::{CONFIG_WORD, Consumer, Kind, NewStage, Place, Plan};

impl Plan {
    pub(super) fn find_consumers(&mut self, items: &[Value], problems: &mut Vec<Problem>) {
        let configs: Vec<Config> = items.iter().enumerate().filter_map(Config::of).collect();
        let emits = self.stages.iter().filter(|s| s.kind == Kind::ConfigEmit);
        let emits: Vec<NewStage> = emits.cloned().collect();
        for emit in &emits {
            match consumer_of(emit, &configs) {
                Ok(config) => {
                    problems.extend(check_consumer(config, &emit.name));
                    if let Some(first) = self.consumers.iter().find(|c| c.item == config.item) {
                        let message = format!(
                            "{} renders the config of {} already",
                            first.emit, first.name
                        );
                        let place = format!("stages[{}].config-emit", emit.place.item());
                        problems.push(Problem::key(place, message));
                    }
                    let consumer = self.consumer(config, emit);
                    self.check_managers(&consumer, config.body, problems);
                    self.consumers.push(consumer);
                }
                Err(message) => {
                    let place = format!("stages[{}].config-emit", emit.place.item());
                    problems.push(match emit.config.contains_key("stage") {
                        true => Problem::new(format!("{place}.stage"), message),
                        false => Problem::key(place, message),
                    });
                }
            }
        }
        let masters = configs.iter().any(|c| c.kind == "master");
        let finds_out = self
            .stages
            .iter()
            .any(|s| matches!(s.kind, Kind::Tunnel | Kind::Gateway));
        if finds_out && emits.is_empty() && masters {
            self.warnings.push(
                "no config-emit stage: the master is not told what the tunnel and the gateway find out; \
                 list `- config-emit: {}` before it"
                    .to_owned(),
            );
        }
    }

    /// Who uses what is old can be told of it by a config-emit alone.
    pub(super) fn warn_of_commands(&mut self) {
        let follows = self.stages.iter().any(|s| s.kind == Kind::ConfigEmit);
        let noted = self.execs.iter().find_map(|e| e.noted.as_ref());
        if let (false, Some((stage, _))) = (follows, noted.and_then(|n| n.rsplit_once('.'))) {
            self.warnings.push(format!(
                "no config-emit stage: {stage} is not restarted when what it refers to changes"
            ));
        }
    }

    fn consumer(&self, config: &Config, emit: &NewStage) -> Consumer {
        let before = self
            .stages
            .iter()
            .filter(|s| s.place.order() < (config.item, true));
        let upstreams = before.filter(|s| s.kind != Kind::ConfigEmit);
        Consumer {
            name: config.name.clone(),
            kind: config.kind,
            item: config.item,
            emit: emit.name.clone(),
            upstreams: upstreams.map(|s| s.name.clone()).collect(),
        }
    }

    /// Each gateway has to find its resource manager.
    fn check_managers(&self, consumer: &Consumer, body: &Value, problems: &mut Vec<Problem>) {
        let managers = determined::managers(&body["config_file"]);
        let managers: Vec<_> = managers
            .into_iter()
            .filter(Manager::is_kubernetes)
            .collect();
        let gateways = self.stages.iter().filter(|s| s.kind == Kind::Gateway);
        let gateways: Vec<&NewStage> = gateways
            .filter(|s| consumer.upstreams.contains(&s.name))
            .collect();
        if managers.is_empty() || consumer.kind != "master" {
            return;
        }
        let candidates = gateways.iter().map(|s| Candidate {
            instance: &s.name,
            wanted: s.resource_manager.as_deref(),
        });
        let wrong = assign(&managers, &candidates.collect::<Vec<_>>()).err();
        for unassigned in wrong.into_iter().flatten() {
            let gateway = gateways.iter().find(|s| s.name == unassigned.instance);
            let path = match gateway.map(|s| s.place) {
                Some(Place::Item(i)) => format!("stages[{i}].gateway.resource_manager"),
                _ => format!("stages[{}].{}", consumer.item, consumer.kind),
            };
            problems.push(Problem::new(path, unassigned.message));
        }
    }

    /// A tunnel that was not told which port to expose exposes the master's.
    pub(super) fn point_tunnels_at_the_master(&mut self, items: &[Value]) {
        let ports = items
            .iter()
            .filter_map(|i| i.get("master")?.get("config_file")?.get("port")?.as_u64());
        // One that is none is the master's mistake, not the tunnel's.
        let Some(port) = ports.into_iter().next().filter(|p| *p <= 65_535) else {
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

/// A stage of devcluster's that reads a config.
struct Config<'a> {
    item: usize,
    kind: &'static str,
    name: String,
    body: &'a Value,
}

impl<'a> Config<'a> {
    fn of((item, stage): (usize, &'a Value)) -> Option<Config<'a>> {
        let kind = ["master", "agent"]
            .into_iter()
            .find(|k| stage.get(k).is_some())?;
        let body = &stage[kind];
        let name = body["name"].as_str().unwrap_or(kind).to_owned();
        Some(Config {
            item,
            kind,
            name,
            body,
        })
    }
}

/// What is rendered is named after the stage, and passed to it by its command line.
fn check_consumer(config: &Config<'_>, emit: &str) -> Vec<Problem> {
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
    configs: &'c [Config<'v>],
) -> Result<&'c Config<'v>, String> {
    let masters: Vec<&Config<'_>> = configs.iter().filter(|c| c.kind == "master").collect();
    let names = |all: &mut dyn Iterator<Item = &str>| all.collect::<Vec<_>>().join(", ");
    let chosen = match emit.config.get("stage").and_then(Value::as_str) {
        Some(name) => configs
            .iter()
            .find(|c| c.name == name)
            .ok_or(match configs.is_empty() {
                true => "no master stage to render a config for".to_owned(),
                false => format!(
                    "no master or agent stage is named `{name}`; there is {}",
                    names(&mut configs.iter().map(|c| c.name.as_str()))
                ),
            })?,
        None => match masters.as_slice() {
            [only] => *only,
            [] => return Err("no master stage to render a config for".to_owned()),
            several => {
                return Err(format!(
                    "several master stages; say which with `stage:` ({})",
                    names(&mut several.iter().map(|c| c.name.as_str()))
                ));
            }
        },
    };
    if emit.place.order() > (chosen.item, true) {
        return Err(format!(
            "has to stand before `{}`, whose config it renders",
            chosen.name
        ));
    }
    Ok(chosen)
}
