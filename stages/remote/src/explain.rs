//! `explain`: which program has an error code, and what that says of it.

use protocol::kinds::{OURS, is_ours};
use protocol::{Explanation, StageError, explanation, explanations};

use crate::codes;
use crate::kinds::{Kind, Kinds, Programs, unknown_kind};
use crate::problems::usage;
use crate::verbs;

/// The explanation of a code that a program here has; without one, a list of the codes of this project.
pub(crate) async fn explain(
    code: Option<&str>,
    json: bool,
    programs: &Programs<'_>,
) -> Result<String, StageError> {
    let mut known = explanations(&[codes::ALL]);
    let Some(code) = code else {
        extend(&mut known, programs).await?;
        known.sort_by(|a, b| a.code.cmp(&b.code));
        known.dedup();
        return explanation(&known, None, json);
    };
    if known.iter().any(|it| it.code == code) {
        return explanation(&known, Some(code), json);
    }
    let namespace = code.split('.').next().unwrap_or_default();
    let kind = namespace.replace('_', "-");
    match programs.describe(&kind).await? {
        Some(kind) => known.extend(ask(&kind, programs).await?),
        None if is_ours(&kind) => return Err(usage(unknown_kind(&kind, &[]))),
        // A namespace that several programs share.
        None => extend(&mut known, programs).await?,
    }
    let mut namespaces = known.iter().map(|it| it.code.split('.').next());
    let is_known = namespaces.any(|it| it == Some(namespace));
    let why = format!("no program here has codes that begin with `{namespace}.`");
    explanation(&known, Some(code), json)
        .map_err(|error| if is_known { error } else { error.cause(why) })
}

/// Adds the codes of each installed program of this project.
async fn extend(known: &mut Vec<Explanation>, programs: &Programs<'_>) -> Result<(), StageError> {
    for kind in OURS {
        if let Some(kind) = programs.describe(kind).await? {
            known.extend(ask(&kind, programs).await?);
        }
    }
    Ok(())
}

async fn ask(kind: &Kind, programs: &Programs<'_>) -> Result<Vec<Explanation>, StageError> {
    let program = &kind.program[0];
    if !kind.description.has("explain") {
        let message = format!("{program} cannot explain its error codes: it has no verb `explain`");
        return Err(StageError::new(protocol::codes::USAGE, message));
    }
    verbs::explain(program.as_ref(), programs.env).await
}
