//! What a plugin says of itself, and whether a config fits that.

use std::path::Path;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::{Location, LocationSegment};
use protocol::config::nearest;
use protocol::{Problem, StageError};
use serde::Deserialize;
use serde_json::Value;

use super::call::{call, failed};

/// The last lines of stderr that an error shows.
const TAIL: usize = 5;

/// What is needed of a `describe`.
#[derive(Debug, Deserialize)]
pub(crate) struct Described {
    pub(crate) verbs: Vec<String>,
    /// JSON Schema of its config; one that is missing fits everything.
    #[serde(default = "anything")]
    config: Value,
    /// JSON Schema of what it finds out.
    #[serde(default = "anything")]
    pub(crate) outputs: Value,
}

fn anything() -> Value {
    Value::Bool(true)
}

/// Asks a plugin what it is.
pub(crate) async fn describe(program: &Path) -> Result<Described, StageError> {
    let failed = |why: &str| failed(program, "describe", why);
    let words = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = words.clone();
    let people = move |line| {
        if let Ok(mut words) = heard.lock() {
            words.push(line);
        }
    };
    let called = call(program, &["describe"], people).await?;
    let words = words
        .lock()
        .map(|w| w[w.len().saturating_sub(TAIL)..].join("\n"));
    let with_words = |error: StageError| match &words {
        Ok(words) if !words.is_empty() => error.cause(words),
        _ => error,
    };
    if !called.success {
        return Err(with_words(failed(&called.how)));
    }
    serde_json::from_slice(&called.stdout)
        .map_err(|e| with_words(failed("its output is not a description").source(&e)))
}

impl Described {
    pub(crate) fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// What is wrong with a config; paths begin with `with`. No value is shown: it may be a secret.
    pub(crate) fn problems(&self, with: &Value) -> Result<Vec<Problem>, StageError> {
        let validator = jsonschema::validator_for(&self.config).map_err(|e| {
            let message = format!(
                "the config schema of the plugin is no valid JSON Schema: {}",
                e.masked()
            );
            StageError::new("remote.plugin_schema", message)
                .hint("mend what its `describe` prints under `config`")
        })?;
        Ok(validator
            .iter_errors(with)
            .flat_map(|e| self.problem(&e))
            .collect())
    }

    fn problem(&self, error: &ValidationError) -> Vec<Problem> {
        let path = path_of(error.instance_path());
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let known = self.config["properties"]
                    .as_object()
                    .cloned()
                    .unwrap_or_default();
                let unknown = unexpected.iter().map(|field| {
                    let meant = nearest(field, known.keys().map(String::as_str));
                    let tail = meant
                        .map(|m| format!("; did you mean `{m}`?"))
                        .unwrap_or_default();
                    Problem::key(format!("{path}.{field}"), format!("unknown field{tail}"))
                });
                unknown.collect()
            }
            ValidationErrorKind::Required { property } => {
                let field = property.as_str().unwrap_or_default();
                let about = self.config["properties"][field]["description"].as_str();
                let about = about.map(|a| format!(" ({a})")).unwrap_or_default();
                vec![Problem::new(path, format!("`{field}` is missing{about}"))]
            }
            _ => vec![Problem::new(path, error.masked().to_string())],
        }
    }
}

fn path_of(location: &Location) -> String {
    location
        .into_iter()
        .fold("with".to_owned(), |path, segment| match segment {
            LocationSegment::Property(name) => format!("{path}.{name}"),
            LocationSegment::Index(index) => format!("{path}[{index}]"),
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_config_that_does_not_fit_is_told_by_field_and_never_by_value() {
        let described = Described {
            verbs: Vec::new(),
            outputs: anything(),
            config: json!({"type": "object", "additionalProperties": false, "required": ["server"], "properties": {
                "server": {"type": "string", "description": "Where to connect to"},
                "ports": {"type": "array", "items": {"type": "integer"}},
                "mode": {"enum": ["fast", "safe"]}}}),
        };
        let with = json!({"sever": "a", "ports": [1, "hunter2"], "mode": "hunter2"});
        let problems = described.problems(&with).unwrap();
        let text: Vec<String> = problems.iter().map(Problem::to_string).collect();
        let text = text.join("\n");
        for expected in [
            "with.sever: unknown field; did you mean `server`?",
            "with: `server` is missing (Where to connect to)",
            "with.ports[1]: ",
            "with.mode: ",
        ] {
            assert!(text.contains(expected), "{expected}\n---\n{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
        assert!(
            described
                .problems(&json!({"server": "a"}))
                .unwrap()
                .is_empty()
        );
    }
}
