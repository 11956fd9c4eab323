//! What the checks found, for people and for programs.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::subject::Subject;
use super::verdict::{Finding, Verdict};
use super::{Check, Level};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// What came of one check.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    id: &'static str,
    level: Level,
    title: &'static str,
    /// Where the protocol says so.
    section: String,
    pub(super) outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
    seconds: f32,
}

impl Entry {
    pub(super) fn new(check: &Check, verdict: Verdict, took: Duration) -> Entry {
        let (outcome, detail, mend) = match verdict {
            Ok(()) => (Outcome::Passed, None, None),
            Err(Finding::Failed(what)) => (Outcome::Failed, Some(what), None),
            Err(Finding::Skipped(why, mend)) => (Outcome::Skipped, Some(why), Some(mend)),
        };
        Entry {
            id: check.id,
            level: check.level,
            title: check.title,
            section: format!("PROTOCOL.md#{}", check.section),
            outcome,
            detail,
            mend,
            seconds: took.as_secs_f32(),
        }
    }

    /// A line, and what was found where it did not pass.
    pub(super) fn text(&self) -> String {
        let sign = match self.outcome {
            Outcome::Passed => "✓",
            Outcome::Failed => "✗",
            Outcome::Skipped => "-",
        };
        let mut text = format!(
            "{sign} {:<26} {} ({:.1} s)\n",
            self.id, self.title, self.seconds
        );
        if let Some(detail) = &self.detail {
            let label = if self.outcome == Outcome::Skipped {
                "skipped: "
            } else {
                ""
            };
            text.push_str(&indented(&format!("{label}{detail}")));
            if let Some(mend) = &self.mend {
                text.push_str(&indented(&format!("mend: {mend}")));
            }
            text.push_str(&indented(&format!("see {}", self.section)));
        }
        text
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|l| format!("    {l}\n")).collect()
}

/// All of them.
pub(super) struct Report {
    pub(super) entries: Vec<Entry>,
    pub(super) took: Duration,
}

impl Report {
    pub(super) fn count(&self, outcome: Outcome) -> usize {
        self.entries.iter().filter(|e| e.outcome == outcome).count()
    }

    pub(super) fn summary(&self, subject: &Subject) -> String {
        let [passed, failed, skipped] =
            [Outcome::Passed, Outcome::Failed, Outcome::Skipped].map(|o| self.count(o));
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
            "passed": self.count(Outcome::Passed),
            "failed": self.count(Outcome::Failed),
            "skipped": self.count(Outcome::Skipped),
            "seconds": self.took.as_secs_f32(),
            "checks": self.entries,
        })
    }
}

pub(super) fn level_word(level: Level) -> &'static str {
    match level {
        Level::Plugin => "plugin",
        Level::Stage => "full stage",
    }
}

/// Writes to stdout, or to stderr where stdout takes the JSON.
pub(super) fn show(text: &str, to_stderr: bool) {
    // Nobody may read it; the exit code says it all the same.
    drop(match to_stderr {
        true => std::io::stderr().write_all(text.as_bytes()),
        false => std::io::stdout().write_all(text.as_bytes()),
    });
}
