//! The new text, from the base and what the upstreams reported. No file is touched here.

use protocol::Problem;
use protocol::validate::pointer_of;
use protocol::yaml::{Document, Editor, show};
use serde_json::{Map, Value};

use crate::base::{Base, Request};
use crate::determined::{Violation, violations};
use crate::fill::fill;
use crate::known;
use crate::refusal::Refusal;
use crate::target::{self, Target};

/// A rendered config.
#[derive(Clone, Debug)]
pub(crate) struct Rendered {
    /// The base with the values in it; every other byte is the base's.
    pub document: Document,
    /// What was set, by its path in the stage's config.
    pub values: Map<String, Value>,
    /// Where the stage's config is in the document.
    pub(crate) target: Target,
    /// What works, but not as one would wish.
    pub warnings: Vec<String>,
}

impl Rendered {
    /// The whole text.
    pub(crate) fn text(&self) -> &str {
        self.document.text()
    }
}

/// Puts values into the config of a stage: what references lead to, and Determined's own fields.
///
/// # Errors
/// There is no such stage, a reference leads nowhere, nobody can tell which resource manager is meant, or Determined would
/// refuse the result. All mistakes of a kind at once.
pub(crate) fn render(base: &Base, request: &Request<'_>) -> Result<Rendered, Refusal> {
    let document = &base.document;
    let target = target::find(base, request.stage, request.known_fields)?;
    let filled = fill(base, &target.config, target.expands, request.reports);
    let known = known::fields(base, &target, request);
    let (filled, known) = match (filled, known) {
        (Ok(filled), Ok(known)) => (filled, known),
        (filled, known) => return Err(both(filled.err(), known.err())),
    };
    let mut set = Map::new();
    for (scalar, value) in &filled {
        set.insert(show(&scalar.path[target.config.len()..]), value.clone());
    }
    let cannot = |e: protocol::yaml::Error| {
        let hint = "write that part of the file in a plainer way";
        Refusal::new("config_emit.cannot_edit", hint, [base.source.problem(&e)])
    };
    let mut editor = Editor::new(document);
    editor.substitute(&target.config, filled).map_err(cannot)?;
    for (path, value) in known.set {
        set.insert(show(&path[target.config.len()..]), value.clone());
        let value = match value {
            Value::String(text) if target.expands => Value::String(text.replace('$', "$$")),
            value => value,
        };
        editor.set(&path, value).map_err(cannot)?;
    }
    let document = editor.finish_document().map_err(cannot)?;
    if target.is_determined {
        check(base, &target, &document)?;
    }
    Ok(Rendered {
        document,
        values: set,
        target,
        warnings: known.warnings,
    })
}

/// Everything that is wrong, under the code of what comes first.
fn both(references: Option<Vec<Problem>>, known: Option<Refusal>) -> Refusal {
    let problems = references.unwrap_or_default();
    match (problems.is_empty(), known) {
        (true, Some(known)) => known,
        (_, known) => {
            let known = known.map(|k| k.problems).unwrap_or_default();
            Refusal::bad_references(problems.into_iter().chain(known))
        }
    }
}

/// What Determined would refuse is refused here first.
fn check(base: &Base, target: &Target, rendered: &Document) -> Result<(), Refusal> {
    let config = rendered.get(&target.config).unwrap_or_default();
    let problems = violations_in(base, target, &config, |_| true);
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Refusal::refused(problems)),
    }
}

/// What Determined would refuse of the target's config, as it is or as it was rendered, each with its place in the base.
pub(crate) fn violations_in(
    base: &Base,
    target: &Target,
    config: &Value,
    counts: impl Fn(&Violation) -> bool,
) -> Vec<Problem> {
    let found = violations(config).into_iter().filter(|violation| {
        // devcluster will put something else there.
        let value = config.pointer(&pointer_of(&violation.path));
        let unknown = value.is_some_and(|v| v.as_str().is_some_and(|s| s.contains('$')));
        counts(violation) && !(target.expands && unknown)
    });
    let problems = found.map(|v| {
        let span = base
            .document
            .nearest_span(&target.path(&v.path), v.is_unknown);
        Problem::new(show(&v.path), v.message).at(&base.source, span)
    });
    problems.collect()
}
