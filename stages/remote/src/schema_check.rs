//! Checks a config against the JSON Schema of another project's program.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::{Location, LocationSegment};
use protocol::suggest::did_you_mean;
use protocol::validate::Unknown;
use protocol::yaml::{Seg, show};
use protocol::{Problem, StageError};
use serde_json::Value;

/// The problems of a config. Values are not shown: they may be secret.
pub(crate) fn problems(
    schema: &Value,
    config: &Value,
    unknown: &Unknown,
) -> Result<Vec<Problem>, StageError> {
    let validator = jsonschema::validator_for(schema).map_err(|e| {
        let message = format!(
            "the config schema of the program is not a valid JSON Schema: {}",
            e.masked()
        );
        StageError::new(protocol::codes::PROGRAM_FAILED, message)
            .hint("correct what its `describe` prints under `config`")
    })?;
    let errors = validator.iter_errors(config);
    let known = errors.filter(|e| {
        let path = path_of(e.instance_path());
        !(unknown.covers(&path) || depends_on_values(e) && unknown.touches(&path))
    });
    Ok(known.flat_map(|e| problem(schema, &e)).collect())
}

/// Adds violations of a schema at paths without a problem: a program's own messages take precedence.
pub(crate) fn add(problems: &mut Vec<Problem>, by_schema: impl IntoIterator<Item = Problem>) {
    let reported = problems.len();
    for problem in by_schema {
        if problems[..reported].iter().all(|p| p.path != problem.path) {
            problems.push(problem);
        }
    }
}

/// Whether the violation depends on values, not only on their types.
fn depends_on_values(error: &ValidationError) -> bool {
    use ValidationErrorKind::{
        AnyOf, Constant, Contains, Enum, Not, OneOfMultipleValid, OneOfNotValid, UniqueItems,
    };
    matches!(
        error.kind(),
        AnyOf { .. }
            | Constant { .. }
            | Contains
            | Enum { .. }
            | Not { .. }
            | OneOfMultipleValid { .. }
            | OneOfNotValid { .. }
            | UniqueItems
    )
}

fn problem(schema: &Value, error: &ValidationError) -> Vec<Problem> {
    let path = show(&path_of(error.instance_path()));
    let properties = &schema["properties"];
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known: Vec<&str> = properties
                .as_object()
                .into_iter()
                .flat_map(|p| p.keys().map(String::as_str))
                .collect();
            let unknown = unexpected.iter().map(|field| {
                let meant = did_you_mean(field, known.iter().copied());
                let tail = meant.map(|m| format!("; did you mean `{m}`?"));
                let message = format!("unknown field{}", tail.unwrap_or_default());
                Problem::key(field, message).below(&path)
            });
            unknown.collect()
        }
        ValidationErrorKind::Required { property } => {
            let field = property.as_str().unwrap_or_default();
            let about = properties[field]["description"].as_str();
            let about = about.map(|a| format!(" ({a})")).unwrap_or_default();
            vec![Problem::key(field, format!("`{field}` is missing{about}")).below(&path)]
        }
        _ => vec![Problem::new(path, error.masked().to_string())],
    }
}

fn path_of(location: &Location) -> Vec<Seg> {
    location
        .into_iter()
        .map(|segment| match segment {
            LocationSegment::Property(name) => Seg::Key(name.to_string()),
            LocationSegment::Index(index) => Seg::Index(index),
        })
        .collect()
}
