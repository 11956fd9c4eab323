//! devcluster's own part of a file, by the rules that devcluster 1.3.2 reads it by: it would end with a traceback.

mod fields;

use protocol::Problem;
use protocol::kinds::DEVCLUSTERS;
use protocol::suggest::nearest;
use serde_json::{Map, Value};

use fields::Type::{self, Path, Port, Signal, Steps, Text, Texts, Variables, Words};
use fields::fields;

const SIGNALS: &str = "HUP INT QUIT ILL TRAP ABRT IOT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CLD CONT STOP \
    TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO POLL PWR SYS EMT INFO RTMIN RTMAX";

/// What devcluster would not read, and what it reads to its own harm.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<String>,
}

/// Looks at everything that devcluster itself reads.
pub(crate) fn check(file: &Value) -> Checked {
    let mut checked = Checked::default();
    let Some(top) = file.as_object() else {
        checked.wrong("", "a devcluster.yaml is a mapping");
        return checked;
    };
    let known = ["stages", "commands", "startup_input", "temp_dir", "cwd"];
    checked.unknown("", top, &known);
    for field in ["startup_input", "temp_dir"] {
        if top.get(field).is_some_and(|v| !v.is_string()) {
            checked.wrong(field, "expected text");
        }
    }
    if top
        .get("cwd")
        .is_some_and(|v| !v.is_string() && !v.is_null())
    {
        checked.wrong("cwd", "expected a path");
    }
    match top.get("commands") {
        None => {}
        Some(Value::Object(commands)) => {
            for (key, command) in commands {
                if !command.is_string() && words(command).is_some() {
                    checked.wrong(
                        &format!("commands.{key}"),
                        "expected text or a list of texts",
                    );
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

impl Checked {
    fn wrong(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(path, message));
    }

    fn unknown(&mut self, path: &str, body: &Map<String, Value>, known: &[&'static str]) {
        for key in body.keys().filter(|k| !known.contains(&k.as_str())) {
            let meant = nearest(key, known.iter().copied()).map_or_else(
                || format!("there is {}", known.join(", ")),
                |meant| format!("did you mean `{meant}`?"),
            );
            let path = join(path, key);
            self.problems.push(Problem::key(
                path,
                format!("devcluster knows no such key; {meant}"),
            ));
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
                "expected `key: value` lines; write {} where there is none",
            );
        };
        if item.as_object().is_some_and(|o| o.len() > 1) {
            let others: Vec<&str> = item
                .as_object()
                .into_iter()
                .flat_map(Map::keys)
                .skip(1)
                .map(String::as_str)
                .collect();
            self.warnings.push(format!(
                "stages[{i}]: devcluster reads {kind} alone, not {}",
                others.join(", ")
            ));
        }
        let (fields, required) = fields(kind);
        let known: Vec<&'static str> = fields.iter().map(|(name, _)| *name).collect();
        self.unknown(&path, body, &known);
        for name in required.iter().filter(|name| !body.contains_key(**name)) {
            self.problems
                .push(Problem::key(join(&path, name), "missing"));
        }
        for (name, kind) in fields {
            if let Some(value) = body.get(*name) {
                self.field(&join(&path, name), *kind, value);
            }
        }
    }

    fn field(&mut self, path: &str, kind: Type, value: &Value) {
        match kind {
            Text if !value.is_string() => self.wrong(path, "expected text"),
            Path if !value.is_string() && !value.is_null() => self.wrong(path, "expected a path"),
            Port if !is_port(value) => self.wrong(path, "expected a port"),
            Words => {
                if let Some(at) = words(value) {
                    self.wrong(
                        &format!("{path}{at}"),
                        "expected a list of texts; quote what is none",
                    );
                }
            }
            Signal if !is_signal(value) => {
                self.wrong(path, "expected the name of a signal; such as SIGTERM")
            }
            Steps => self.steps(path, value),
            Texts | Variables => self.variables(path, kind, value),
            _ => {}
        }
    }

    fn variables(&mut self, path: &str, kind: Type, value: &Value) {
        let Some(variables) = value.as_object() else {
            return self.wrong(path, "expected a mapping of names to texts");
        };
        for (name, _) in variables.iter().filter(|(_, v)| !v.is_string()) {
            match kind {
                Texts => self.wrong(&join(path, name), "expected text; quote it"),
                _ => self.warnings.push(format!(
                    "{}: no text: devcluster dies when it starts that stage; quote it",
                    join(path, name)
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
        let known = ["custom", "sh", "conncheck", "logcheck"];
        let Some((kind, body)) = step.as_object().and_then(|o| o.iter().next()) else {
            return self.wrong(path, "a step is a mapping with one key, its kind");
        };
        let below = join(path, kind);
        match (kind.as_str(), body) {
            ("custom", words_) => {
                if let Some(at) = words(words_) {
                    self.wrong(
                        &format!("{below}{at}"),
                        "expected a list of texts; quote what is none",
                    );
                }
            }
            ("sh", body) if !body.is_string() => self.wrong(&below, "expected text"),
            ("sh", _) => {}
            ("conncheck", Value::Object(body)) => {
                self.unknown(&below, body, &["host", "port"]);
                if !body.contains_key("port") {
                    self.problems
                        .push(Problem::key(join(&below, "port"), "missing"));
                }
            }
            ("logcheck", Value::Object(body)) => {
                self.unknown(&below, body, &["regex", "stream"]);
                match body.get("regex") {
                    Some(Value::String(_)) => {}
                    Some(_) => self.wrong(&join(&below, "regex"), "expected text; quote it"),
                    None => {
                        self.problems
                            .push(Problem::key(join(&below, "regex"), "missing"));
                    }
                }
            }
            ("conncheck" | "logcheck", _) => self.wrong(&below, "expected `key: value` lines"),
            _ => {
                let meant = nearest(kind, known.into_iter()).map_or_else(
                    || format!("there is {}", known.join(", ")),
                    |meant| format!("did you mean `{meant}`?"),
                );
                self.problems.push(Problem::key(
                    below,
                    format!("no such kind of step; {meant}"),
                ));
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    match path.is_empty() {
        true => key.to_owned(),
        false => format!("{path}.{key}"),
    }
}

/// Where it is no list of texts: itself, or an item.
fn words(value: &Value) -> Option<String> {
    match value.as_array() {
        None => Some(String::new()),
        Some(items) => {
            let wrong = items.iter().position(|v| !v.is_string());
            wrong.map(|i| format!("[{i}]"))
        }
    }
}

/// What Python's `int` takes; a variable may hold anything.
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
