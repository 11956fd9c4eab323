//! Finds the references, `${{ instance.path }}`, of a file, and checks their places and values.

mod site;

use std::ops::Range;

use protocol::kinds::RENDERER;
use protocol::reference::{Part, Reference, Shape, is_templated, parse, shape_at};
use protocol::rundir::is_instance_name;
use protocol::yaml::{Document, Scalar, Seg, show};
use protocol::{Problem, problem};
use serde_json::Value;

use super::{NewStage, Plan};
use crate::problems::InputFile;
use site::Site;

/// A command that gets its values from `config-emit exec`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exec {
    /// The path of its list of words, or of the text of a `sh` step.
    pub(crate) path: Vec<Seg>,
    /// Whether it is a `sh` step.
    pub(crate) is_script: bool,
    /// Environment variables with references.
    pub(crate) variables: Vec<String>,
    /// The instances that it can refer to.
    pub(crate) upstreams: Vec<String>,
    /// The stage and its step, if a change of the values restarts the stage.
    pub(crate) noted: Option<String>,
}

/// A reference to an output of a plugin.
#[derive(Clone, Debug)]
pub struct PluginReference {
    /// Instance name of the plugin.
    pub instance: String,
    /// The path into its outputs.
    pub path: Vec<Seg>,
    /// A problem at its place, without a message yet.
    pub problem: Problem,
}

impl Plan {
    /// Finds every reference and checks it.
    pub(super) fn find_references(&mut self, source: &InputFile, problems: &mut Vec<Problem>) {
        let document = source.document;
        let scalars = document.scalars(&[], is_templated);
        if scalars.is_empty() {
            return;
        }
        let text = problem::SourceFile::new(source.path, document.text());
        let mut found = Found::default();
        for scalar in &scalars {
            let scan = ReferenceScan {
                plan: self,
                document,
                text: &text,
                scalar,
            };
            scan.scan(&mut found);
        }
        for problem in found.problems {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        self.plugin_references = found.plugins;
        found.execs.into_iter().for_each(|exec| self.add_exec(exec));
        self.literals = found.literals;
        // A text that only devcluster reads needs no change.
        let (execs, consumers) = (&self.execs, &self.consumers);
        self.literals.retain(|literal| match &literal.command {
            Some(path) => execs.iter().any(|e| e.path == *path),
            None => {
                let config = literal.path.get(3) == Some(&"config_file".into());
                config && consumers.iter().any(|c| c.item == literal.item)
            }
        });
    }

    /// Adds a command, merged with one at the same path.
    fn add_exec(&mut self, exec: Exec) {
        match self.execs.iter_mut().find(|e| e.path == exec.path) {
            Some(known) => {
                let new = exec.variables.into_iter();
                let new: Vec<_> = new.filter(|v| !known.variables.contains(v)).collect();
                known.variables.extend(new);
            }
            None => self.execs.push(exec),
        }
    }
}

#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    plugins: Vec<PluginReference>,
    execs: Vec<Exec>,
    literals: Vec<Literal>,
}

/// A text with an escaped reference, `$${{`: devcluster removes one `$`, and the next reader another.
#[derive(Clone, Debug)]
pub(crate) struct Literal {
    pub(crate) path: Vec<Seg>,
    item: usize,
    /// The path of its command, if it is part of one.
    command: Option<Vec<Seg>>,
    pub(crate) text: String,
}

/// The text that devcluster expands to the current one.
fn doubled(parts: &[Part<'_>]) -> String {
    let mut text = String::new();
    for (i, part) in parts.iter().enumerate() {
        match part {
            Part::Text(plain) => text.push_str(plain),
            Part::Reference(reference) => text.push_str(reference.written),
            Part::Dollars(count) => {
                let own = !matches!(parts.get(i + 1), Some(Part::Reference(_)));
                text.extend(std::iter::repeat_n('$', 2 * count - usize::from(own)));
            }
        }
    }
    text
}

/// Scans one scalar for references.
struct ReferenceScan<'a> {
    plan: &'a Plan,
    document: &'a Document,
    text: &'a problem::SourceFile,
    scalar: &'a Scalar<'a>,
}

impl ReferenceScan<'_> {
    fn problem(&self, range: Range<usize>, message: impl Into<String>) -> Problem {
        let span = self.document.span_in(self.scalar, range);
        Problem::new(show(&self.scalar.path), message).at(self.text, span)
    }

    fn scan(&self, found: &mut Found) {
        let whole = 0..self.scalar.text.len();
        let parts = match parse(self.scalar.text) {
            Ok(parts) => parts,
            Err(malformed) => {
                let problem = self.problem(malformed.range, malformed.message);
                return found.problems.push(problem);
            }
        };
        let references = parts.iter().filter_map(|part| match part {
            Part::Reference(reference) => Some(reference),
            _ => None,
        });
        let references: Vec<&Reference<'_>> = references.collect();
        let (item, site) = self.site();
        if !self.scalar.is_key && parts.iter().any(|p| matches!(p, Part::Dollars(_))) {
            let command = match &site {
                Site::Command { exec, .. } => Some(exec.path.clone()),
                _ => None,
            };
            found.literals.push(Literal {
                path: self.scalar.path.clone(),
                item,
                command,
                text: doubled(&parts),
            });
        }
        let Some(first) = references.first().map(|first| first.range.clone()) else {
            return;
        };
        if self.scalar.is_key {
            let message = "a reference in a key; references are possible only in values";
            return found.problems.push(self.problem(whole, message));
        }
        match site {
            Site::NotAllowed(why) => found.problems.push(self.problem(first, why)),
            Site::Config => {
                if !self.plan.consumers.iter().any(|c| c.item == item) {
                    let message =
                        "no stage renders this config; list a `config-emit` stage before it";
                    found.problems.push(self.problem(first, message));
                }
                let mut before = self.before(item);
                before.retain(|stage| stage.kind != RENDERER);
                self.check(&before, &references, parts.len() > 1, found);
            }
            Site::Command { mut exec, usable } => {
                let before = self.before(item);
                self.check(&before, &references, false, found);
                if let Err(malformed) = usable {
                    let problem = self.problem(malformed.range, malformed.message);
                    found.problems.push(problem);
                }
                exec.upstreams = before.iter().map(|s| s.name.clone()).collect();
                if let Some(name) = exec.noted.as_ref().filter(|n| !is_instance_name(n)) {
                    let message = format!(
                        "`{name}` cannot name a file; a stage that uses references has a short name of letters, digits, `.`, `_` and `-`"
                    );
                    found.problems.push(self.problem(whole, message));
                }
                found.execs.push(exec);
            }
        }
    }

    fn before(&self, item: usize) -> Vec<&NewStage> {
        let stages = self.plan.stages.iter();
        stages.filter(|s| s.place.order() < (item, true)).collect()
    }

    fn check(
        &self,
        before: &[&NewStage],
        references: &[&Reference<'_>],
        in_text: bool,
        found: &mut Found,
    ) {
        for reference in references {
            let range = reference.range.clone();
            let names = before.iter().map(|s| s.name.as_str());
            let (name, path) = match reference.resolve(names) {
                Ok(resolved) => resolved,
                Err(why) => {
                    let message = self.unresolved(reference, why);
                    found.problems.push(self.problem(range, message));
                    continue;
                }
            };
            let stage = before.iter().find(|s| s.name == name);
            let Some(schema) = stage.and_then(|s| self.outputs_schema(s)) else {
                found.plugins.push(PluginReference {
                    instance: name.to_owned(),
                    path: path.to_vec(),
                    problem: self.problem(range, ""),
                });
                continue;
            };
            match shape_at(name, schema, path) {
                Err(why) => found.problems.push(self.problem(range, why)),
                Ok(Shape::Collection) if in_text => {
                    let message = "a list or a mapping cannot be a part of a text";
                    found.problems.push(self.problem(range, message));
                }
                Ok(_) => {}
            }
        }
    }

    /// The message for an unresolved reference. A later stage of that name is a better explanation than a similar name.
    fn unresolved(&self, reference: &Reference<'_>, why: String) -> String {
        let stages = &self.plan.stages;
        let Ok((name, _)) = reference.resolve(stages.iter().map(|s| s.name.as_str())) else {
            return why;
        };
        match stages.iter().any(|s| s.name == name && s.kind == RENDERER) {
            true => format!(
                "{name} renders configs and has no outputs to refer to; refer to its upstreams"
            ),
            false => {
                format!("{name} comes later in the file; a stage can only refer to earlier stages")
            }
        }
    }

    /// The schema of a stage's outputs. That of a plugin is known only once it runs.
    fn outputs_schema(&self, stage: &NewStage) -> Option<&Value> {
        let kind = self.plan.kinds.get(&stage.kind)?;
        (!stage.is_plugin()).then_some(&kind.description.outputs)
    }
}
