//! The checks of a `check`: `--preflight`, `--server`.

use serde_json::Value;
use tokio::process::Command;

use crate::leaks;
use crate::tunnel::Setup;

/// The checks of one run of `check`.
#[derive(Debug)]
pub struct Checks {
    pub checks: Vec<Value>,
    pub exit: Option<i32>,
    pub stderr: String,
}

impl Checks {
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

    /// The code of a failed check, which must have a hint.
    pub fn code(&self, id: &str) -> &str {
        assert_eq!(self.status(id), "failed", "{}", self.stderr);
        assert!(!self.hint(id).is_empty(), "no hint: {}", self.check(id));
        text(self.check(id), "code")
    }
}

fn text<'a>(check: &'a Value, field: &str) -> &'a str {
    check[field].as_str().unwrap_or_default()
}

/// Runs this `check` with the config of the setup; `flags` override it.
pub async fn run_check(setup: &Setup, way: &str, flags: &[(&str, &str)]) -> Checks {
    let mut command = setup.with_config("check", flags);
    command.arg(way);
    let found = read_checks(command).await;
    leaks::gone("what a look left", || leaks::processes(&setup.home.mark())).await;
    found
}

/// Runs a `check` and reads its messages.
pub async fn read_checks(mut command: Command) -> Checks {
    let output = command.output().await.expect("no tunnel");
    let text = String::from_utf8(output.stdout).expect("stdout is text");
    let messages: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line that is not JSON"))
        .collect();
    assert_eq!(messages[0]["type"], "hello");
    assert_eq!(messages[messages.len() - 1]["type"], "result");
    let checks = messages.into_iter().filter(|m| m["type"] == "check");
    Checks {
        checks: checks.collect(),
        exit: output.status.code(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
