//! Renders the new text from the base and the outputs of the upstreams. Touches no file.

use protocol::yaml::{Document, Editor, show};
use protocol::{Reports, StageError};
use serde_json::{Map, Value};

use crate::base::Base;
use crate::codes;
use crate::config::Config;
use crate::determined::violations;
use crate::determined_fields::determined_fields;
use crate::render_error::RenderError;
use crate::stage_config::StageConfig;
use crate::substitute::substitute;
use crate::values::Values;

/// A rendered config.
#[derive(Clone, Debug)]
pub(crate) struct Rendered<'a> {
    /// The base with the values in it; every other byte is unchanged.
    pub document: Document,
    /// The values that were set, by their path in the stage's config.
    pub values: Map<String, Value>,
    /// The stage's config in the document.
    pub target: StageConfig<'a>,
    /// Warnings about a config that works.
    pub warnings: Vec<String>,
}

/// Sets values in the config of a stage: those of references, and Determined's own fields.
///
/// # Errors
/// There is no such stage, a reference has no value, a gateway has no manager, or Determined would refuse the result.
/// All problems of a kind at once.
pub(crate) fn render<'a>(
    base: &'a Base,
    config: &Config,
    reports: &Reports,
    values: &Values,
) -> Result<Rendered<'a>, StageError> {
    let refused = |error: RenderError| error.error(base);
    let target = StageConfig::find(base, config).map_err(refused)?;
    let replaced = substitute(&target, reports);
    let fields = determined_fields(&target, config, values);
    let (replaced, fields) = match (replaced, fields) {
        (Ok(replaced), Ok(fields)) => (replaced, fields),
        (Ok(_), Err(fields)) => return Err(fields.error(base)),
        // All problems, under the code of the first kind.
        (Err(mut problems), fields) => {
            problems.extend(fields.err().into_iter().flat_map(|fields| fields.problems));
            return Err(RenderError::bad_references(problems).error(base));
        }
    };
    let mut set = Map::new();
    for (scalar, value) in &replaced {
        set.insert(show(&scalar.path[target.config.len()..]), value.clone());
    }
    let cannot = |e: protocol::yaml::Error| {
        let problem = base.source.problem(&e);
        RenderError::new(codes::CANNOT_EDIT, [problem]).error(base)
    };
    let mut editor = Editor::new(&base.document);
    editor
        .substitute(&target.config, replaced)
        .map_err(cannot)?;
    for (path, value) in fields.set {
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
        let found = violations(&config);
        target.violations(&config, found).map_err(refused)?;
    }
    Ok(Rendered {
        document,
        values: set,
        target,
        warnings: fields.warnings,
    })
}
