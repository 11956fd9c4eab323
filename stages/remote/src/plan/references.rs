//! `${{ instance.path }}` in a file: where it may stand, and whether there is such a value.

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

/// A command of devcluster's that gets its values from `config-emit exec`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exec {
    /// Where the list of its words is, or the one text of a `sh` step.
    pub(crate) path: Vec<Seg>,
    /// It is a `sh` step.
    pub(crate) is_script: bool,
    /// Environment variables with references in them.
    pub(crate) variables: Vec<String>,
    /// The instances that may be meant.
    pub(crate) upstreams: Vec<String>,
    /// The stage, and what of it, if a change of the values means a restart.
    pub(crate) noted: Option<String>,
}

/// A reference to what a plugin finds out.
#[derive(Clone, Debug)]
pub struct PluginReference {
    /// Instance name of the plugin.
    pub instance: String,
    /// The way from its outputs on.
    pub path: Vec<Seg>,
    /// It, placed in the file: what is wrong with it is still to be said.
    pub problem: Problem,
}

impl Plan {
    /// Finds every reference, and what is wrong with it.
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
        // Where nobody but devcluster reads it, it is right as it is.
        let (execs, consumers) = (&self.execs, &self.consumers);
        self.literals.retain(|literal| match &literal.command {
            Some(path) => execs.iter().any(|e| e.path == *path),
            None => {
                let config = literal.path.get(3) == Some(&"config_file".into());
                config && consumers.iter().any(|c| c.item == literal.item)
            }
        });
    }

    /// A command with several references, or with some in its environment too, is one.
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

/// A text with what only looks like a reference, `$${{`: devcluster takes one `$` away, and so does who reads it next.
#[derive(Clone, Debug)]
pub(crate) struct Literal {
    pub(crate) path: Vec<Seg>,
    item: usize,
    /// The command that it is part of.
    command: Option<Vec<Seg>>,
    pub(crate) text: String,
}

/// The text of which devcluster makes what is written now.
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

/// One scalar that may hold references.
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
            let message = "a reference in a key; only values can have some";
            return found.problems.push(self.problem(whole, message));
        }
        match site {
            Site::NotAllowed(why) => found.problems.push(self.problem(first, why)),
            Site::Config => {
                if !self.plan.consumers.iter().any(|c| c.item == item) {
                    let message =
                        "nobody renders this config; list a `config-emit` stage before it";
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

    /// A stage that comes later is a better answer than a similar name.
    fn unresolved(&self, reference: &Reference<'_>, why: String) -> String {
        let stages = &self.plan.stages;
        let Ok((name, _)) = reference.resolve(stages.iter().map(|s| s.name.as_str())) else {
            return why;
        };
        match stages.iter().any(|s| s.name == name && s.kind == RENDERER) {
            true => format!("{name} renders configs itself; refer to what it got from"),
            false => format!(
                "{name} comes later; only what stands before a stage has found something out for it"
            ),
        }
    }

    /// The schema of what a stage finds out; a plugin has to be run for that.
    fn outputs_schema(&self, stage: &NewStage) -> Option<&Value> {
        let kind = self.plan.kinds.get(&stage.kind)?;
        (!stage.is_plugin()).then_some(&kind.description.outputs)
    }
}
