//! The new text, from the base and what the upstreams reported. No file is touched here.

use protocol::yaml::{Document, Editor, show};
use protocol::{Reports, StageError};
use serde_json::{Map, Value};

use crate::base::Base;
use crate::config::Config;
use crate::fill::fill;
use crate::known;
use crate::refusal::Refusal;
use crate::target::Target;
use crate::values::Values;

/// A rendered config.
#[derive(Clone, Debug)]
pub(crate) struct Rendered<'a> {
    /// The base with the values in it; every other byte is the base's.
    pub document: Document,
    /// What was set, by its path in the stage's config.
    pub values: Map<String, Value>,
    /// Where the stage's config is in the document.
    pub target: Target<'a>,
    /// What works, but not as one would wish.
    pub warnings: Vec<String>,
}

/// Puts values into the config of a stage: what references lead to, and Determined's own fields.
///
/// # Errors
/// There is no such stage, a reference leads nowhere, nobody can tell which resource manager is meant, or Determined would
/// refuse the result. All mistakes of a kind at once.
pub(crate) fn render<'a>(
    base: &'a Base,
    config: &Config,
    reports: &Reports,
    values: &Values,
) -> Result<Rendered<'a>, StageError> {
    let refused = |refusal: Refusal| refusal.error(base);
    let target = Target::find(base, config).map_err(refused)?;
    let filled = fill(&target, reports);
    let known = known::fields(&target, config, values);
    let (filled, known) = match (filled, known) {
        (Ok(filled), Ok(known)) => (filled, known),
        (Ok(_), Err(known)) => return Err(known.error(base)),
        // Everything that is wrong, under the code of what comes first.
        (Err(mut problems), known) => {
            problems.extend(known.err().into_iter().flat_map(|known| known.problems));
            return Err(Refusal::bad_references(problems).error(base));
        }
    };
    let mut set = Map::new();
    for (scalar, value) in &filled {
        set.insert(show(&scalar.path[target.config.len()..]), value.clone());
    }
    let cannot = |e: protocol::yaml::Error| {
        let hint = "write that part of the file in a plainer way";
        let problem = base.source.problem(&e);
        Refusal::new("config_emit.cannot_edit", hint, [problem]).error(base)
    };
    let mut editor = Editor::new(&base.document);
    editor.substitute(&target.config, filled).map_err(cannot)?;
    for (path, value) in known.set {
        set.insert(show(&path), value.clone());
        let value = match value {
            Value::String(text) if target.expands => Value::String(text.replace('$', "$$")),
            value => value,
        };
        editor.set(&target.path(&path), value).map_err(cannot)?;
    }
    let document = editor.finish_document().map_err(cannot)?;
    if target.is_determined {
        let config = document.get(&target.config).unwrap_or_default();
        target.violations(&config, |_| true).map_err(refused)?;
    }
    Ok(Rendered {
        document,
        values: set,
        target,
        warnings: known.warnings,
    })
}
