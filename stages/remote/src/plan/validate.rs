//! Validates the configs of the new stages with their programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures::future::join_all;
use protocol::kinds::{PLUGIN, RENDERER, is_ours};
use protocol::provides::MASTER_ADDRESS;
use protocol::validate::{
    Answer, Gate, Instance, Listed, Mistake, Request, RequestType, Target, TargetVerdict, Unknown,
    Verdict,
};
use protocol::yaml::show;
use protocol::{Problem, StageError};
use serde_json::Value;

use super::{NewStage, Plan, Position};
use crate::kinds::Kinds;
use crate::problems::InputFile;
use crate::schema_check;
use crate::verbs::unknown_pointers;

/// A kind, its request and its answer.
type Called = (String, Request, Result<Answer, StageError>);

impl Plan {
    /// Validates all instances, with one call per kind, the kinds concurrently. If the renderer knows another port of the master,
    /// kinds that provide its address are called again.
    pub(super) async fn validate(
        &mut self,
        source: &InputFile<'_>,
        value: &Value,
        kinds: &impl Kinds,
        problems: &mut Vec<Problem>,
    ) {
        let dir = directory_of(source.path);
        let all: Vec<String> = self.kinds.keys().cloned().collect();
        let (mut leading, others): (Vec<_>, Vec<_>) = self
            .call(all, value, &dir, kinds)
            .await
            .into_iter()
            .partition(|(kind, ..)| self.default_local_port(kind).is_some());
        self.accept_all(others, problems);
        self.share_task_namespaces(problems);
        if self.point_at_the_master(value) {
            let names = leading.into_iter().map(|(kind, ..)| kind).collect();
            leading = self.call(names, value, &dir, kinds).await;
        }
        self.accept_all(leading, problems);
        self.guard_masters(value);
    }

    async fn call(
        &self,
        names: Vec<String>,
        value: &Value,
        dir: &Path,
        kinds: &impl Kinds,
    ) -> Vec<Called> {
        let calls = names.into_iter().map(async |name| {
            let request = self.request(&name, value, dir);
            let kind = &self.kinds[&name];
            let answer = match kind.description.has("validate") {
                true => kinds.validate(kind, &request).await,
                false => Ok(Answer::default()),
            };
            (name, request, answer)
        });
        join_all(calls).await
    }

    fn accept_all(&mut self, called: Vec<Called>, problems: &mut Vec<Problem>) {
        for (name, request, answer) in called {
            match answer {
                Ok(answer) => self.accept(&name, &request, answer, problems),
                Err(error) => {
                    let first = self.stages.iter().find(|s| s.kind == name);
                    let at = first.map(|s| s.at("")).unwrap_or_default();
                    problems.push(Problem::key(at, error_text(error)));
                }
            }
        }
    }

    fn request(&self, kind: &str, value: &Value, dir: &Path) -> Request {
        let of_kind = self.stages.iter().filter(|s| s.kind == kind);
        Request {
            dcs: protocol::message::VERSION,
            type_: RequestType::Validate,
            dir: dir.to_owned(),
            stages: self
                .stages
                .iter()
                .map(|s| Listed {
                    stage: s.name.clone(),
                    kind: s.kind.clone(),
                    provides: s.provides.clone(),
                })
                .collect(),
            instances: of_kind.map(|stage| self.instance(stage)).collect(),
            // They contain passwords.
            targets: match kind == RENDERER {
                true => targets(value),
                false => Vec::new(),
            },
        }
    }

    fn instance(&self, stage: &NewStage) -> Instance {
        let config = self.config(stage);
        Instance {
            stage: stage.name.clone(),
            unknown: unknown_pointers(&Value::Object(config.clone())),
            config,
        }
    }

    fn accept(
        &mut self,
        kind: &str,
        request: &Request,
        answer: Answer,
        problems: &mut Vec<Problem>,
    ) {
        let mut verdicts: BTreeMap<String, Verdict> = answer
            .instances
            .into_iter()
            .map(|v| (v.stage.clone(), v))
            .collect();
        for instance in &request.instances {
            let verdict = verdicts.remove(&instance.stage).unwrap_or_default();
            problems.extend(self.problems_of(instance, &verdict));
            let stage = self.stages.iter_mut().find(|s| s.name == instance.stage);
            if let Some(stage) = stage.filter(|s| s.kind == kind) {
                let gate = stage.gate.or(verdict.gate).unwrap_or(Gate::Stage);
                stage.gates = gate == Gate::Stage;
                stage.verdict = verdict;
            }
        }
        if kind == RENDERER {
            self.targets.extend(answer.targets);
        }
    }

    /// The problems of an instance. For a kind of another project, violations of its schema are added to its verdict.
    fn problems_of(&self, instance: &Instance, verdict: &Verdict) -> Vec<Problem> {
        let Some(stage) = self.stages.iter().find(|s| s.name == instance.stage) else {
            return Vec::new();
        };
        let placed = verdict.problems.iter().map(|m| self.placed(stage, m));
        let mut problems: Vec<Problem> = placed.collect();
        if !is_ours(&stage.kind) && !stage.is_plugin() {
            let schema = &self.kinds[&stage.kind].description.config;
            let config = Value::Object(instance.config.clone());
            let unknown = Unknown::from_pointers(&instance.unknown);
            match schema_check::problems(schema, &config, &unknown) {
                Ok(more) => {
                    let more = more.into_iter().map(|p| p.below(&stage.at("")));
                    schema_check::add(&mut problems, more);
                }
                Err(error) => problems.push(Problem::key(stage.at(""), error_text(error))),
            }
        }
        problems
    }

    /// Places a mistake where the user has to change the file.
    fn placed(&self, stage: &NewStage, mistake: &Mistake) -> Problem {
        let mut problem = Problem::from(mistake);
        if let Some(target) = &mistake.target {
            let consumer = self.consumers.iter().find(|c| c.name == *target);
            let at = consumer.map(|c| format!("stages[{}].{}.config_file", c.item, c.kind));
            return problem.below(&at.unwrap_or_default());
        }
        let managed = problem.path.strip_prefix("resource_managers.");
        let managed = managed.filter(|_| stage.kind == RENDERER);
        if let Some(other) = managed.and_then(|name| self.stages.iter().find(|s| s.name == name)) {
            problem.path = match other.place {
                Position::Item(_) => other.at("resource_manager"),
                Position::Before(_) => {
                    let consumer = self.consumers.iter().find(|c| c.emit == stage.name);
                    let at = consumer.map(|c| format!("stages[{}].{}", c.item, c.kind));
                    at.unwrap_or_default()
                }
            };
            return problem;
        }
        problem.path = stage.at(&problem.path);
        problem
    }

    /// Sets an absent `task_namespace` of each task gateway to the namespace of its resource manager, and refuses another one.
    fn share_task_namespaces(&mut self, problems: &mut Vec<Problem>) {
        const FIELD: &str = "task_namespace";
        let managers = self.targets.iter().flat_map(|target| &target.managers);
        for manager in managers {
            let (Some(upstream), Some(namespace)) = (&manager.upstream, &manager.namespace) else {
                continue;
            };
            let Some(stage) = self.stages.iter_mut().find(|it| it.name == *upstream) else {
                continue;
            };
            let described = &self.kinds[&stage.kind].description;
            let Some(field) = described.config["properties"].get(FIELD) else {
                continue;
            };
            let config = Value::Object(stage.config.clone());
            let is_unknown = unknown_pointers(&config).contains(&format!("/{FIELD}"));
            match stage.config.get(FIELD) {
                Some(set) if set != namespace && !is_unknown => {
                    let message = format!(
                        "is {set}, and the resource manager {:?} runs its tasks in {namespace:?}; set the manager's `default_namespace`, or remove this line",
                        manager.name
                    );
                    problems.push(Problem::new(stage.at(FIELD), message));
                }
                Some(_) => {}
                None if field["default"] == *namespace => {}
                None => {
                    let namespace = namespace.as_str().into();
                    stage.config.insert(FIELD.to_owned(), namespace);
                }
            }
        }
    }

    /// Sets an absent `local_port` of stages that provide the master's address to its port. Returns whether that changed one.
    fn point_at_the_master(&mut self, value: &Value) -> bool {
        let known = self.targets.iter().find_map(|t: &TargetVerdict| t.port);
        let written = masters(value).find_map(|master| master["config_file"]["port"].as_u64());
        let port = known.or(written.and_then(|port| u16::try_from(port).ok()));
        let mut changed = false;
        let Some(port) = port else { return false };
        for i in 0..self.stages.len() {
            let default = self.default_local_port(&self.stages[i].kind);
            if default.is_some_and(|default| *default != port) {
                let config = &mut self.stages[i].config;
                changed |= !config.contains_key("local_port");
                config.entry("local_port").or_insert_with(|| port.into());
            }
        }
        changed
    }

    /// The default of `local_port` in a kind that provides the master's address.
    fn default_local_port(&self, kind: &str) -> Option<&Value> {
        let described = &self.kinds[kind].description;
        let leads = described.provides.contains_key(MASTER_ADDRESS);
        let field = described.config["properties"].get("local_port");
        field.filter(|_| leads).map(|field| &field["default"])
    }
}

/// The directory of a file, as text for a request.
pub(crate) fn directory_of(file: &Path) -> PathBuf {
    let dir = file.parent().filter(|d| !d.as_os_str().is_empty());
    let dir = std::path::absolute(dir.unwrap_or(Path::new("."))).unwrap_or_default();
    dir.to_string_lossy().into_owned().into()
}

fn masters(value: &Value) -> impl Iterator<Item = &Value> {
    let items = value["stages"].as_array().into_iter().flatten();
    items.filter_map(|item| item.get("master"))
}

/// The configs of the masters of a file.
fn targets(value: &Value) -> Vec<Target> {
    masters(value)
        .map(|master| Target {
            stage: master["name"].as_str().unwrap_or("master").to_owned(),
            config: master["config_file"].clone(),
            unknown: unknown_pointers(&master["config_file"]),
        })
        .collect()
}

/// An error of a program as the message of a problem.
pub(crate) fn error_text(error: StageError) -> String {
    // Its causes are more precise than the hint.
    let tail = match error.caused_by.as_slice() {
        [] => error.hint.unwrap_or_default(),
        causes => causes.join(": ").replace('\n', " "),
    };
    format!("{}; {tail}", error.message)
}

impl NewStage {
    pub(crate) fn is_plugin(&self) -> bool {
        self.kind == PLUGIN
    }

    /// The path of a field, in the file or in the flat form.
    pub(crate) fn at(&self, field: &str) -> String {
        let whole = match self.place {
            Position::Item(i) => show(&["stages".into(), i.into(), self.kind.as_str().into()]),
            Position::Before(_) => return field.to_owned(),
        };
        match field {
            "" => whole,
            _ => format!("{whole}.{field}"),
        }
    }
}
