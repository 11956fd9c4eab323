//! The report of the checks, for people and for programs.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use protocol::{StageError, files};
use serde::Serialize;
use serde_json::{Value, json};

use super::Level;
use super::checks::Check;
use super::subject::Subject;
use super::verdict::{Skipped, Verdict};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CheckResult {
    Passed,
    Failed,
    Skipped,
}

/// The result of one check.
#[derive(Clone, Serialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    check: Check,
    pub(super) outcome: CheckResult,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    seconds: f32,
}

impl Entry {
    pub(super) fn new(check: &Check, verdict: &Verdict, took: Duration) -> Entry {
        let (outcome, detail, hint) = match verdict {
            Ok(()) => (CheckResult::Passed, None, None),
            Err(error) => match error.downcast_ref::<Skipped>() {
                Some(Skipped { why, hint }) => {
                    (CheckResult::Skipped, Some(why.clone()), Some(hint.clone()))
                }
                None if error.is::<std::io::Error>() => {
                    let detail = format!("the kit itself failed: {error:#}");
                    (CheckResult::Failed, Some(detail), None)
                }
                None => (CheckResult::Failed, Some(format!("{error:#}")), None),
            },
        };
        Entry {
            check: check.clone(),
            outcome,
            detail,
            hint,
            seconds: took.as_secs_f32(),
        }
    }

    /// One line, and the details of a check that did not pass.
    pub(super) fn text(&self) -> String {
        let (sign, label) = match self.outcome {
            CheckResult::Passed => ("✓", ""),
            CheckResult::Failed => ("✗", ""),
            CheckResult::Skipped => ("-", "skipped: "),
        };
        let Check { id, title, .. } = self.check;
        let mut text = format!("{sign} {id:<26} {title} ({:.1} s)\n", self.seconds);
        if let Some(detail) = &self.detail {
            let mut found = format!("{label}{detail}\n");
            if let Some(hint) = &self.hint {
                found += &format!("hint: {hint}\n");
            }
            found += &format!("see {}", self.check.section);
            text.extend(found.lines().map(|line| format!("    {line}\n")));
        }
        text
    }
}

/// The results of all checks.
pub(super) struct Report {
    pub(super) entries: Vec<Entry>,
    pub(super) took: Duration,
}

impl Report {
    pub(super) fn count(&self, outcome: CheckResult) -> usize {
        self.entries.iter().filter(|e| e.outcome == outcome).count()
    }

    pub(super) fn summary(&self, subject: &Subject) -> String {
        let [passed, failed, skipped] = [
            CheckResult::Passed,
            CheckResult::Failed,
            CheckResult::Skipped,
        ]
        .map(|o| self.count(o));
        format!(
            "{} as a {}: {passed} passed, {failed} failed, {skipped} skipped, in {:.1} s\n",
            subject.description["kind"].as_str().unwrap_or("it"),
            level_word(subject.level),
            self.took.as_secs_f32(),
        )
    }

    pub(super) fn json(&self, subject: &Subject) -> Value {
        let words = subject.program.iter().map(|w| w.to_string_lossy());
        json!({
            "protocol": protocol::message::VERSION,
            "program": words.collect::<Vec<_>>(),
            "kind": subject.description["kind"],
            "version": subject.description["version"],
            "level": subject.level,
            "passed": self.count(CheckResult::Passed),
            "failed": self.count(CheckResult::Failed),
            "skipped": self.count(CheckResult::Skipped),
            "seconds": self.took.as_secs_f32(),
            "checks": self.entries,
        })
    }
}

/// The output of `--list`, for people or for programs.
pub(super) fn list(checks: &[Check]) -> (String, Value) {
    let line = |check: &Check| {
        let (level, title) = (level_word(check.level), check.title);
        format!("{:<26} {level:<10} {title}\n", check.id)
    };
    (checks.iter().map(line).collect(), json!(checks))
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::Plugin => "plugin",
        Level::Stage => "full stage",
    }
}

/// The destinations of a report: text to stdout, and JSON if requested. When the JSON goes to stdout, the text goes to
/// stderr.
#[derive(Clone, Copy)]
pub(super) struct ReportOutput<'a>(pub(super) Option<&'a Path>);

impl ReportOutput<'_> {
    pub(super) fn text(self, text: &str) {
        // Ignore a closed stream: the exit code has the result.
        drop(match self.0 == Some(Path::new("-")) {
            true => std::io::stderr().write_all(text.as_bytes()),
            false => std::io::stdout().write_all(text.as_bytes()),
        });
    }

    pub(super) fn json(self, report: &Value) -> Result<(), StageError> {
        let Some(out) = self.0 else { return Ok(()) };
        let text = format!("{report:#}\n");
        if out == Path::new("-") {
            drop(std::io::stdout().write_all(text.as_bytes()));
            return Ok(());
        }
        files::replace(out, text.as_bytes(), false)
            .map_err(|e| StageError::io(format!("cannot write the report {}", out.display()), &e))
    }
}
