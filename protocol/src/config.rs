//! The config of a stage: a file, flags that override it, `$VAR` and `~` expanded in both, all problems reported at once.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use yaml::{Document, Seg};

use crate::codes;
use crate::env::Env;
use crate::error::StageError;
use crate::files;
pub use crate::problem::segments;
use crate::problem::{Problem, SourceFile};
use crate::serde_message::humanize;
use crate::suggest::did_you_mean;
use crate::validate::{Unknown, pointer_from_path};

mod samples;

/// The sources of a config. Later ones override earlier ones.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file of `-c`.
    pub file: Option<PathBuf>,
    /// The config of a `start` message; it replaces the file.
    pub start: Option<Map<String, Value>>,
    /// The field and the text of each flag.
    pub flags: Vec<(String, String)>,
}

/// The JSON Schema of a type, without references.
pub fn schema_of<T: JsonSchema>() -> Value {
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// The properties of an object schema, by name.
pub(crate) fn properties(schema: &Value) -> &Map<String, Value> {
    static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.unwrap_or(&NONE)
}

fn required(schema: &Value) -> Vec<&str> {
    let names = schema.get("required").and_then(Value::as_array);
    names
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Whether a property accepts only this JSON type, or null.
pub(crate) fn takes_only(property: &Value, wanted: &str) -> bool {
    if let Some(any) = property.get("anyOf").and_then(Value::as_array) {
        return any
            .iter()
            .all(|p| p["type"] == "null" || takes_only(p, wanted));
    }
    match &property["type"] {
        Value::String(t) => t == wanted,
        Value::Array(types) => types.iter().all(|t| t == wanted || t == "null"),
        // The schema of an enum with documented unit variants has no `type`.
        _ if wanted == "string" => match property.get("oneOf").and_then(Value::as_array) {
            Some(variants) => variants.iter().all(|v| takes_only(v, wanted)),
            None => property.get("const").is_some_and(Value::is_string),
        },
        _ => false,
    }
}

/// The value of a flag: text if the field is text, else JSON, or text if it does not parse.
fn flag_value(property: &Value, text: &str) -> Value {
    if takes_only(property, "string") {
        return Value::String(text.to_owned());
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// Reads a YAML or JSON file whose content is a mapping.
pub fn read_mapping(path: &Path) -> Result<(Map<String, Value>, Document), StageError> {
    let shown = path.display();
    let wrong = |message: String| StageError::new(codes::CONFIG, message);
    let text = files::read_text(path)
        .map_err(|e| wrong(format!("cannot read the config file {shown}")).source(&e))?;
    let source = SourceFile::new(path, &text);
    let unreadable =
        |problem| wrong(format!("cannot use the config file {shown}")).problems(vec![problem]);
    let document = Document::parse(&text).map_err(|e| unreadable(source.problem(&e)))?;
    match document.value() {
        Value::Object(map) => Ok((map, document)),
        Value::Null => Ok((Map::new(), document)),
        _ => {
            let why = "a config file consists of `key: value` lines, this one does not";
            Err(unreadable(Problem::new("", why).at(&source, 0..1)))
        }
    }
}

/// The values of all sources, and the document of the file.
fn gather(
    sources: &Sources,
    schema: &Value,
    env: &Env,
) -> Result<(Map<String, Value>, Option<Document>), StageError> {
    let (mut values, document) = match (&sources.start, &sources.file) {
        (Some(start), _) => (start.clone(), None),
        (None, Some(path)) => read_mapping(path).map(|(map, document)| (map, Some(document)))?,
        (None, None) => (Map::new(), None),
    };
    let properties = properties(schema);
    for (field, text) in &sources.flags {
        let property = properties.get(field).unwrap_or(&Value::Null);
        values.insert(field.clone(), flag_value(property, text));
    }
    prepare(&mut values, env);
    Ok((values, document))
}

fn prepare(values: &mut Map<String, Value>, env: &Env) {
    for value in values.values_mut() {
        expand(value, env);
    }
    // An empty value in a file, such as `ssh_user:`, does not set the field.
    values.retain(|_, v| !v.is_null());
}

fn expand(value: &mut Value, env: &Env) {
    match value {
        Value::String(text) => *text = env.expand(text),
        Value::Array(items) => items.iter_mut().for_each(|v| expand(v, env)),
        Value::Object(map) => map.values_mut().for_each(|v| expand(v, env)),
        _ => {}
    }
}

/// Reads, merges and checks a config. The error lists every problem with its place.
pub fn load<C: DeserializeOwned + JsonSchema>(
    kind: &str,
    program: &str,
    sources: &Sources,
    env: &Env,
    validate: impl Fn(&C) -> Vec<Problem>,
) -> Result<C, StageError> {
    let schema = schema_of::<C>();
    let (values, document) = gather(sources, &schema, env)?;
    let problems = match parse(values, &schema, validate) {
        (Some(config), problems) if problems.is_empty() => return Ok(config),
        (_, problems) => problems,
    };
    let problems = problems
        .into_iter()
        .map(|p| placed(p, sources, document.as_ref()));
    let problems: Vec<Problem> = problems.collect();
    let message = format!("the config of {kind} has {}", count(&problems));
    Err(StageError::new(codes::CONFIG, message)
        .problems(problems)
        .hint(format!("`{program} run --help` lists every field")))
}

/// Adds the place of a problem: the flag, or the line of the file.
fn placed(mut problem: Problem, sources: &Sources, document: Option<&Document>) -> Problem {
    let top = problem.path.split(['.', '[']).next().unwrap_or_default();
    if problem.place.is_none() && sources.flags.iter().any(|(field, _)| field == top) {
        problem.place = Some(format!("--{}", top.replace('_', "-")));
    }
    match (&sources.file, document) {
        (Some(file), Some(document)) => {
            problem.in_document(&SourceFile::new(file, document.text()), document)
        }
        _ => problem,
    }
}

/// Checks a config that is part of a larger file. Values that are not known yet count as set and valid, and problems that
/// depend on one are dropped. The paths of the problems are relative to the values. `schema` is the schema of `C`.
pub(crate) fn check<C: DeserializeOwned>(
    values: &Map<String, Value>,
    schema: &Value,
    unknown: &Unknown,
    env: &Env,
    validate: impl Fn(&C) -> Vec<Problem>,
) -> (Option<C>, Vec<Problem>) {
    let mut values = values.clone();
    let unknown = samples::fill_in(&mut values, unknown, schema);
    prepare(&mut values, env);
    let (config, mut problems) = parse(values, schema, validate);
    let is_free = |path: &str| path.is_empty() || !unknown.touches(&segments(path));
    problems.retain(|p| is_free(&p.path) && p.depends_on.iter().all(|field| is_free(field)));
    (config, problems)
}

fn parse<C: DeserializeOwned>(
    values: Map<String, Value>,
    schema: &Value,
    validate: impl Fn(&C) -> Vec<Problem>,
) -> (Option<C>, Vec<Problem>) {
    let mut problems = unknown_fields(&values, schema);
    problems.extend(missing_fields(&values, schema));
    let config = deserialize(values, schema, &mut problems);
    if let Some(config) = &config {
        problems.extend(validate(config));
    }
    (config, problems)
}

fn unknown_fields(values: &Map<String, Value>, schema: &Value) -> Vec<Problem> {
    let known = properties(schema);
    let unknown = values.keys().filter(|k| !known.contains_key(*k));
    unknown
        .map(|key| {
            let meant = did_you_mean(key, known.keys().map(String::as_str));
            let tail = meant.map(|m| format!("; did you mean `{m}`?"));
            Problem::key(key, format!("unknown field{}", tail.unwrap_or_default()))
        })
        .collect()
}

fn missing_fields(values: &Map<String, Value>, schema: &Value) -> Vec<Problem> {
    let properties = properties(schema);
    let missing = required(schema)
        .into_iter()
        .filter(|k| !values.contains_key(*k));
    missing
        .map(|key| {
            let about = properties
                .get(key)
                .and_then(|p| p["description"].as_str())
                .unwrap_or_default();
            let about = about
                .lines()
                .next()
                .unwrap_or_default()
                .trim_end_matches('.')
                // Text after a semicolon in a problem is shown as its suggestion.
                .replace(';', ",");
            let flag = key.replace('_', "-");
            Problem::key(
                key,
                format!("missing ({about}); set it in the file or with --{flag}"),
            )
        })
        .collect()
}

/// serde stops at the first error: remove the field that it names and try again, until no new error appears.
fn deserialize<C: DeserializeOwned>(
    mut values: Map<String, Value>,
    schema: &Value,
    problems: &mut Vec<Problem>,
) -> Option<C> {
    let known = properties(schema);
    values.retain(|k, _| known.contains_key(k));
    let required: Vec<String> = required(schema).into_iter().map(str::to_owned).collect();
    loop {
        match serde_path_to_error::deserialize::<_, C>(Value::Object(values.clone())) {
            Ok(config) => return Some(config),
            Err(error) => {
                let path = error.path().to_string();
                let message = humanize(&error.inner().to_string());
                let top = path.split(['.', '[']).next().unwrap_or_default().to_owned();
                if !values.contains_key(&top) {
                    if problems.is_empty() {
                        problems.push(Problem::new("", message));
                    }
                    return None;
                }
                // Remove only the nested field: others beside it may be wrong too.
                let nested = segments(&path);
                let unknown = error.inner().to_string().starts_with("unknown field");
                if !(unknown && nested.len() > 1 && remove_at(&mut values, &nested)) {
                    values.shift_remove(&top);
                    if required.contains(&top) {
                        problems.push(Problem::new(path, message));
                        return None;
                    }
                }
                problems.push(match unknown {
                    true => Problem::key(path, message),
                    false => Problem::new(path, message),
                });
            }
        }
    }
}

fn remove_at(values: &mut Map<String, Value>, path: &[Seg]) -> bool {
    let (Some((Seg::Key(last), parents)), Some(Seg::Key(top))) = (path.split_last(), path.first())
    else {
        return false;
    };
    let at = values.get_mut(top);
    let at = at.and_then(|v| v.pointer_mut(&pointer_from_path(&parents[1..])));
    let at = at.and_then(Value::as_object_mut);
    at.is_some_and(|map| map.shift_remove(last).is_some())
}

/// `1 problem` or `2 problems`.
pub fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    }
}

#[cfg(test)]
mod tests;
