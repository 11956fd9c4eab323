//! The real `PyYAML`, in a process that answers one text per line.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

pub(crate) struct PyYaml {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Value(Value),
    Refused(String),
    /// It accepts duplicate keys and silently drops all but the last.
    Twins,
    /// It accepts a value that JSON cannot represent.
    BeyondJson(String),
}

impl PyYaml {
    pub(crate) fn start() -> PyYaml {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/read.py");
        let mut child = Command::new(python())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        PyYaml {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().expect("stdout is a pipe")),
            child,
        }
    }

    pub(crate) fn read(&mut self, text: &str) -> Answer {
        let mut line = serde_json::to_string(text).expect("a string is JSON");
        line.push('\n');
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(line.as_bytes()).expect("python reads");
        let mut reply = String::new();
        self.stdout.read_line(&mut reply).expect("python answers");
        let reply: Value = serde_json::from_str(&reply)
            .unwrap_or_else(|e| panic!("python answered {reply:?} ({e}) to {text:?}"));
        if let Some(why) = reply["refused"].as_str() {
            Answer::Refused(why.to_owned())
        } else if let Some(why) = reply["beyond_json"].as_str() {
            Answer::BeyondJson(why.to_owned())
        } else if reply["twins"] == true {
            Answer::Twins
        } else {
            Answer::Value(reply["value"].clone())
        }
    }
}

impl Drop for PyYaml {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// The Python interpreter with devcluster, and so with `PyYAML`.
fn python() -> PathBuf {
    if let Some(named) = std::env::var_os("DEVCLUSTER_PYTHON") {
        return named.into();
    }
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .map(|dir| dir.join(".build/venv/bin/python"))
        .find(|python| python.exists())
        .expect("no python with devcluster and PyYAML: run `make deps`")
}
