//! What `check` says of a tunnel that is not there yet: `--preflight`, `--server`.

use serde_json::Value;
use tokio::process::Command;

use crate::leaks;
use crate::tunnel::Setup;

/// The checks of one look.
#[derive(Debug)]
pub struct Found {
    pub checks: Vec<Value>,
    pub exit: Option<i32>,
    pub stderr: String,
}

impl Found {
    pub fn check(&self, id: &str) -> &Value {
        let check = self.checks.iter().find(|c| c["id"] == id);
        check.unwrap_or_else(|| panic!("no check {id}\n{}", self.stderr))
    }

    pub fn status(&self, id: &str) -> &str {
        text(self.check(id), "status")
    }

    pub fn message(&self, id: &str) -> &str {
        text(self.check(id), "message")
    }

    pub fn hint(&self, id: &str) -> &str {
        text(self.check(id), "hint")
    }

    pub fn statuses(&self) -> Vec<(&str, &str)> {
        let checks = self.checks.iter();
        checks.map(|c| (text(c, "id"), text(c, "status"))).collect()
    }

    /// The code of a check that failed; it has to name the hint.
    pub fn code(&self, id: &str) -> &str {
        assert_eq!(self.status(id), "failed", "{}", self.stderr);
        assert!(!self.hint(id).is_empty(), "no hint: {}", self.check(id));
        text(self.check(id), "code")
    }
}

fn text<'a>(check: &'a Value, field: &str) -> &'a str {
    check[field].as_str().unwrap_or_default()
}

/// Looks in this way with the config of the setup; `flags` win.
pub async fn look(setup: &Setup, way: &str, flags: &[(&str, &str)]) -> Found {
    let mut command = setup.with_config("check", flags);
    command.arg(way);
    let found = found(command).await;
    leaks::gone("what a look left", || leaks::processes(&setup.home.mark())).await;
    found
}

/// Runs a `check`, and reads what it found.
pub async fn found(mut command: Command) -> Found {
    let output = command.output().await.expect("no tunnel");
    let text = String::from_utf8(output.stdout).expect("stdout is text");
    let messages: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line that is no JSON"))
        .collect();
    assert_eq!(messages[0]["type"], "hello");
    assert_eq!(messages[messages.len() - 1]["type"], "result");
    let checks = messages.into_iter().filter(|m| m["type"] == "check");
    Found {
        checks: checks.collect(),
        exit: output.status.code(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
