//! Finds the config of a stage in the base, and checks it by Determined's rules.

use protocol::Problem;
use protocol::validate::pointer_from_path;
use protocol::yaml::{Seg, show};
use serde_json::Value;

use crate::base::Base;
use crate::codes;
use crate::config::Config;
use crate::determined::Violation;
use crate::render_error::RenderError;

/// The config of a stage in a base.
#[derive(Clone, Debug)]
pub(crate) struct StageConfig<'a> {
    pub(crate) base: &'a Base,
    /// Its path; empty if the file is the config.
    pub(crate) config: Vec<Seg>,
    /// devcluster expands `$` in the values of its own file.
    pub(crate) expands: bool,
    /// It is a Determined master's config, whose fields are known.
    pub(crate) is_determined: bool,
}

impl<'a> StageConfig<'a> {
    /// A file with `stages` is a devcluster.yaml; any other mapping is the config of a master or an agent.
    pub(crate) fn find(base: &'a Base, config: &Config) -> Result<StageConfig<'a>, RenderError> {
        let value = base.document.value();
        let Value::Object(top) = &value else {
            let message = "neither a devcluster.yaml nor a stage's config, which must be a mapping";
            return Err(RenderError::new(
                codes::BASE_NOT_CONFIG,
                [Problem::new("", message).at(&base.source, 0..1)],
            ));
        };
        let Some(stages) = top.get("stages") else {
            return Ok(StageConfig {
                base,
                config: Vec::new(),
                expands: false,
                is_determined: config.known_fields,
            });
        };
        let stage = &config.stage;
        for (index, item) in stages.as_array().into_iter().flatten().enumerate() {
            for kind in ["master", "agent"] {
                let Some(body) = item.get(kind) else { continue };
                if body.get("name").and_then(Value::as_str).unwrap_or(kind) == stage {
                    let path: [Seg; 4] = [
                        "stages".into(),
                        index.into(),
                        kind.into(),
                        "config_file".into(),
                    ];
                    return Ok(StageConfig {
                        base,
                        config: path.to_vec(),
                        expands: true,
                        is_determined: kind == "master" && config.known_fields,
                    });
                }
            }
        }
        let message = format!("no master or agent stage named `{stage}`");
        Err(RenderError::new(
            codes::NO_MASTER_STAGE,
            [Problem::key("stages", message).in_document(&base.source, &base.document)],
        ))
    }

    /// The config's value in the base.
    pub(crate) fn value(&self) -> Value {
        self.base.document.get(&self.config).unwrap_or_default()
    }

    pub(crate) fn path(&self, below: &[Seg]) -> Vec<Seg> {
        [self.config.as_slice(), below].concat()
    }

    /// Places a problem at this path, or at its nearest existing parent.
    fn problem(&self, path: &[Seg], on_key: bool, problem: Problem) -> Problem {
        let span = self.base.document.nearest_span(&self.path(path), on_key);
        problem.at(&self.base.source, span)
    }

    /// The error for what was found in the config, as it is or as rendered. Each violation has its place in the base.
    pub(crate) fn violations(
        &self,
        config: &Value,
        found: Vec<Violation>,
    ) -> Result<(), RenderError> {
        let found = found.into_iter().filter(|violation| {
            // devcluster will put another value there.
            let value = config.pointer(&pointer_from_path(&violation.path));
            let unknown = value.is_some_and(|v| v.as_str().is_some_and(|s| s.contains('$')));
            !(self.expands && unknown)
        });
        let problems = found.map(|v| {
            let problem = Problem::new(show(&v.path), v.message);
            self.problem(&v.path, v.is_unknown, problem)
        });
        let problems: Vec<Problem> = problems.collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(RenderError::new(codes::REFUSED, problems))
    }

    /// The error for a config without a resource manager of type kubernetes.
    pub(crate) fn no_kubernetes(&self) -> RenderError {
        let manager: [Seg; 2] = ["resource_manager".into(), "type".into()];
        let is_there = |path: &&[Seg]| self.base.document.get(&self.path(path)).is_some();
        let path = [&manager[..], &manager[..1]].into_iter().find(is_there);
        let message = "the master's config has no resource_manager of type kubernetes";
        RenderError::new(
            codes::NO_KUBERNETES,
            [self.problem(path.unwrap_or_default(), false, Problem::new("", message))],
        )
    }

    /// The error for gateways without a resource manager, with reasons.
    pub(crate) fn ambiguous(&self, unassigned: Vec<(String, String)>) -> RenderError {
        let path = ["additional_resource_managers".into()];
        let problems = unassigned.into_iter().map(|(instance, why)| {
            let problem = Problem::new("", format!("{instance}: {why}"));
            self.problem(&path, true, problem)
        });
        RenderError::new(codes::AMBIGUOUS_MANAGER, problems)
    }
}
