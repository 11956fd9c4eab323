//! The formats of a result.

use std::collections::BTreeMap;

use protocol::yaml::{Document, Editor, to_yaml};
use protocol::{Env, StageError};
use serde_json::{Map, Value};

use crate::codes;
use crate::config::Format;
use crate::render::Rendered;

/// The text of a rendered config, in a format that needs a base.
pub(crate) fn format_config(rendered: &Rendered<'_>, format: Format, env: &Env) -> String {
    if format == Format::File {
        return rendered.document.text().to_owned();
    }
    let path = &rendered.target.config;
    let mut text = rendered.document.excerpt(path, None);
    if rendered.target.expands {
        text = expanded(&text, env);
    }
    if format == Format::Config {
        return text;
    }
    let tops = rendered.values.keys();
    let tops: Vec<&str> = tops
        .filter_map(|path| path.split(['.', '[']).next())
        .collect();
    match Document::parse_as_pyyaml(&text) {
        Ok(config) => config.excerpt(&[], Some(&tops)),
        Err(_) => text,
    }
}

/// devcluster expands variables in its own file; readers of the config alone do not.
fn expanded(text: &str, env: &Env) -> String {
    let Ok(document) = Document::parse_as_pyyaml(text) else {
        return text.to_owned();
    };
    let scalars = document.scalars(&[], |text| text.contains('$'));
    let values = scalars.into_iter().filter(|s| !s.is_key).map(|scalar| {
        let value = env.expand_variables(scalar.text).into();
        (scalar, value)
    });
    let mut editor = Editor::new(&document);
    let edited = editor
        .substitute(&[], values.collect())
        .and_then(|()| editor.finish());
    edited.unwrap_or_else(|_| to_yaml(&document.value()))
}

/// The outputs of the upstreams, in a format that needs no base.
pub(crate) fn format_outputs(
    all: &Map<String, Value>,
    format: Format,
) -> Result<String, StageError> {
    if format == Format::Json {
        let text = serde_json::to_string_pretty(all);
        return text
            .map(|t| t + "\n")
            .map_err(|e| StageError::internal(format!("outputs are not JSON: {e}")));
    }
    let mut lines = BTreeMap::new();
    for (path, value) in flatten(all) {
        let name = variable(&path);
        let line = match format {
            Format::Shell => format!("export {name}={}\n", quoted(&value)),
            _ => key_value(&name, &value),
        };
        if let Some((other, _)) = lines.insert(name.clone(), (path.clone(), line)) {
            let message = format!("`{path}` and `{other}` would both be ${name}");
            return Err(StageError::new(codes::AMBIGUOUS_NAME, message));
        }
    }
    Ok(lines.into_values().map(|(_, line)| line).collect())
}

/// All single values by their path; a list is one, as JSON.
fn flatten(values: &Map<String, Value>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (key, value) in values {
        match value {
            Value::Object(below) => {
                let below = flatten(below).into_iter();
                out.extend(below.map(|(path, value)| (format!("{key}.{path}"), value)));
            }
            Value::String(text) => out.push((key.clone(), text.clone())),
            Value::Null => out.push((key.clone(), String::new())),
            other => out.push((key.clone(), other.to_string())),
        }
    }
    out
}

/// `tunnel.ssh_host` becomes `TUNNEL_SSH_HOST`.
fn variable(path: &str) -> String {
    let upper = path.chars().map(|c| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_uppercase(),
        false => '_',
    });
    let name: String = upper.collect();
    match name.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("_{name}"),
        false => name,
    }
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// GitHub's format for a value of several lines.
fn key_value(name: &str, value: &str) -> String {
    if !value.contains(['\n', '\r']) {
        return format!("{name}={value}\n");
    }
    let mut end = "END".to_owned();
    while value.lines().any(|line| line == end) {
        end.push('_');
    }
    format!("{name}<<{end}\n{value}\n{end}\n")
}
