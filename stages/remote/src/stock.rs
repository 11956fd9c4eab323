//! Checks devcluster's part of a file by the rules of devcluster 1.3.2, which would end with a traceback.

use std::rc::Rc;

use protocol::Problem;
use protocol::kinds::DEVCLUSTERS;
use protocol::suggest::did_you_mean;
use serde_json::{Map, Value};

/// A test compares it with what stock devcluster accepts.
const SCHEMA: &str = include_str!("schema/stock.json");

const SIGNALS: &str = "HUP INT QUIT ILL TRAP ABRT IOT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CLD CONT STOP \
    TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO POLL PWR SYS EMT INFO RTMIN RTMAX";

/// JSON Schemas of devcluster's part, by name.
pub(crate) fn definitions() -> Map<String, Value> {
    serde_json::from_str(SCHEMA).unwrap_or_default()
}

/// What devcluster refuses, and what makes it fail later.
#[derive(Default)]
pub(crate) struct StockCheck {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<String>,
    definitions: Rc<Map<String, Value>>,
}

/// Checks everything that devcluster reads.
pub(crate) fn check(file: &Value) -> StockCheck {
    let mut checked = StockCheck {
        definitions: definitions().into(),
        ..StockCheck::default()
    };
    let Some(top) = file.as_object() else {
        checked.wrong("", "a devcluster.yaml is a mapping");
        return checked;
    };
    let known = ["stages", "commands", "startup_input", "temp_dir", "cwd"];
    checked.unknown("", top, &known);
    for field in ["startup_input", "temp_dir", "cwd"] {
        if let Some(value) = top.get(field) {
            checked.field(field, "", field, &Value::Null, value);
        }
    }
    match top.get("commands") {
        None => {}
        Some(Value::Object(commands)) => {
            for (key, command) in commands {
                if !command.is_string() && words(command).is_some() {
                    let path = format!("commands.{key}");
                    checked.wrong(&path, "expected a text or a list of texts");
                }
            }
        }
        Some(_) => checked.wrong("commands", "expected a mapping of keys to commands"),
    }
    let items = top.get("stages").and_then(Value::as_array);
    for (i, item) in items.into_iter().flatten().enumerate() {
        checked.stage(i, item);
    }
    checked
}

impl StockCheck {
    fn wrong(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(path, message));
    }

    fn unknown(&mut self, path: &str, body: &Map<String, Value>, known: &[&str]) {
        for key in body.keys().filter(|k| !known.contains(&k.as_str())) {
            let message = format!("devcluster has no such key; {}", suggestion(key, known));
            self.problems.push(Problem::key(join(path, key), message));
        }
    }

    fn stage(&mut self, i: usize, item: &Value) {
        let first = item.as_object().and_then(|o| o.iter().next());
        let Some((kind, body)) = first.filter(|(kind, _)| DEVCLUSTERS.contains(&kind.as_str()))
        else {
            return;
        };
        let path = format!("stages[{i}].{kind}");
        let Some(body) = body.as_object() else {
            return self.wrong(
                &path,
                "expected `key: value` lines; write {} for an empty mapping",
            );
        };
        let others = item.as_object().into_iter().flat_map(Map::keys).skip(1);
        let others: Vec<&str> = others.map(String::as_str).collect();
        if !others.is_empty() {
            let others = others.join(", ");
            self.warnings.push(format!(
                "stages[{i}] has several keys: devcluster uses {kind} and ignores {others}; give each its own `- ` item"
            ));
        }
        let definitions = self.definitions.clone();
        self.mapping(&path, kind, body, &definitions[kind]);
    }

    /// Checks a mapping against its schema.
    fn mapping(&mut self, path: &str, kind: &str, body: &Map<String, Value>, schema: &Value) {
        let properties = schema["properties"].as_object();
        let fields = || properties.into_iter().flatten();
        let known: Vec<&str> = fields().map(|(name, _)| name.as_str()).collect();
        self.unknown(path, body, &known);
        let required = schema["required"].as_array().into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if !body.contains_key(name) {
                let missing = Problem::key(join(path, name), "missing");
                self.problems.push(missing);
            }
        }
        for (name, schema) in fields() {
            if let Some(value) = body.get(name) {
                self.field(&join(path, name), kind, name, schema, value);
            }
        }
    }

    /// Checks a value as far as devcluster does: it converts values for docker to text.
    fn field(&mut self, path: &str, kind: &str, name: &str, schema: &Value, value: &Value) {
        let reference = schema.get("$ref").or(schema.pointer("/allOf/0/$ref"));
        let reference = reference.and_then(Value::as_str).unwrap_or_default();
        let expected = match (reference.trim_start_matches("#/definitions/"), kind, name) {
            ("words", ..) => return self.words(path, value),
            ("steps", ..) => return self.steps(path, value),
            (.., "env" | "environment") => return self.variables(path, name, value),
            ("port", ..) if !is_port(value) => "expected a port",
            ("kill_signal", ..) if !is_signal(value) => {
                "expected the name of a signal; such as SIGTERM"
            }
            (.., "cwd" | "data_dir") if !value.is_string() && !value.is_null() => "expected a path",
            (_, "db" | "elastic", "name") => return,
            (.., "regex") if !value.is_string() => "expected text; quote it",
            (.., "name" | "sh" | "startup_input" | "temp_dir") if !value.is_string() => {
                "expected text"
            }
            _ => return,
        };
        self.wrong(path, expected);
    }

    fn words(&mut self, path: &str, value: &Value) {
        if let Some(at) = words(value) {
            let path = format!("{path}{at}");
            self.wrong(&path, "expected a list of texts; quote other values");
        }
    }

    fn variables(&mut self, path: &str, name: &str, value: &Value) {
        let Some(variables) = value.as_object() else {
            return self.wrong(path, "expected a mapping of names to texts");
        };
        for (key, _) in variables.iter().filter(|(_, v)| !v.is_string()) {
            let path = join(path, key);
            match name {
                "environment" => self.wrong(&path, "expected text; quote it"),
                _ => self.warnings.push(format!(
                    "{path}: not a text: devcluster crashes when it starts that stage; quote it"
                )),
            }
        }
    }

    fn steps(&mut self, path: &str, value: &Value) {
        let Some(steps) = value.as_array() else {
            return self.wrong(path, "expected a list of steps");
        };
        for (i, step) in steps.iter().enumerate() {
            self.step(&format!("{path}[{i}]"), step);
        }
    }

    fn step(&mut self, path: &str, step: &Value) {
        let Some((kind, body)) = step.as_object().and_then(|o| o.iter().next()) else {
            return self.wrong(path, "a step is a mapping with one key, its kind");
        };
        let below = join(path, kind);
        match (kind.as_str(), body) {
            ("custom", body) => self.words(&below, body),
            ("sh", body) => self.field(&below, "", "sh", &Value::Null, body),
            ("conncheck" | "logcheck", Value::Object(body)) => {
                let definitions = self.definitions.clone();
                let schema = &definitions["step"]["properties"][kind];
                self.mapping(&below, kind, body, schema);
            }
            ("conncheck" | "logcheck", _) => self.wrong(&below, "expected `key: value` lines"),
            _ => {
                let known = ["custom", "sh", "conncheck", "logcheck"];
                let message = format!("unknown kind of step; {}", suggestion(kind, &known));
                self.problems.push(Problem::key(below, message));
            }
        }
    }
}

/// A suggestion for an unknown name: a similar name, else all names.
fn suggestion(name: &str, known: &[&str]) -> String {
    did_you_mean(name, known.iter().copied()).map_or_else(
        || format!("there is {}", known.join(", ")),
        |meant| format!("did you mean `{meant}`?"),
    )
}

fn join(path: &str, key: &str) -> String {
    match path.is_empty() {
        true => key.to_owned(),
        false => format!("{path}.{key}"),
    }
}

/// The path of the first value that is not a text; `None` for a list of texts.
fn words(value: &Value) -> Option<String> {
    match value.as_array() {
        None => Some(String::new()),
        Some(items) => {
            let wrong = items.iter().position(|v| !v.is_string());
            wrong.map(|i| format!("[{i}]"))
        }
    }
}

/// Whether Python's `int` accepts it. A text with a variable is accepted.
fn is_port(value: &Value) -> bool {
    match value {
        Value::Number(_) | Value::Bool(_) => true,
        Value::String(text) => {
            let digits = text.trim().replace('_', "");
            text.contains('$') || digits.parse::<i64>().is_ok()
        }
        _ => false,
    }
}

fn is_signal(value: &Value) -> bool {
    let Some(text) = value.as_str() else {
        return false;
    };
    let name = text.strip_prefix("SIG").unwrap_or(text);
    text.contains('$') || SIGNALS.split_ascii_whitespace().any(|s| s == name)
}
