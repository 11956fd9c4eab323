//! Checks of `check --preflight`: each is one thing that a run needs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::StageError;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// The thing is there.
    Ok,
    /// It is missing: a run would fail.
    Failed,
    /// The check could not be made, or the config does not need it.
    Skipped,
}

/// A choice for the user: a value for a field of the config, with which the run works or works differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Offer {
    /// The question; yes accepts the offer.
    pub question: String,
    /// The field of the stage's config.
    pub field: String,
    /// The value of the field, for this one run.
    pub value: Value,
}

/// The stable id of a check, and what it checks, as a statement.
pub type CheckTitle = (&'static str, &'static str);

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// Instance name.
    pub stage: String,
    /// Stable name of the check, such as `login`.
    pub id: String,
    /// The check as a statement, such as `the server accepts the login`.
    pub title: String,
    /// The result.
    pub status: CheckStatus,
    /// What was found, or why the check was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The hint; with `ok`, an improvement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The code of the error that a run would end with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caused_by: Vec<String>,
    /// A question to ask before the run: with `failed` it corrects the config, with `ok` it offers an alternative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
}

impl Check {
    fn new(id: &str, title: &str, status: CheckStatus) -> Check {
        Check {
            stage: String::new(),
            id: id.to_owned(),
            title: title.to_owned(),
            status,
            message: None,
            hint: None,
            code: None,
            caused_by: Vec::new(),
            offer: None,
        }
    }

    /// A check that passed; `message` says what was found and may be empty.
    pub fn ok(id: &str, title: &str, message: impl Into<String>) -> Check {
        Check {
            message: Some(message.into()).filter(|m| !m.is_empty()),
            ..Check::new(id, title, CheckStatus::Ok)
        }
    }

    /// A check that failed: a run would end with this error.
    pub fn failed(id: &str, title: &str, error: &StageError) -> Check {
        Check {
            message: Some(error.message.clone()),
            hint: error.hint.clone(),
            code: Some(error.code.clone()),
            caused_by: error.caused_by.clone(),
            ..Check::new(id, title, CheckStatus::Failed)
        }
    }

    /// A check that was not made; `why` is the reason, such as `needs a login`.
    pub fn skipped(id: &str, title: &str, why: impl Into<String>) -> Check {
        Check {
            message: Some(why.into()),
            ..Check::new(id, title, CheckStatus::Skipped)
        }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Check {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a question: yes sets this field of the config to this value for one run.
    #[must_use]
    pub fn offer(
        mut self,
        question: impl Into<String>,
        field: &str,
        value: impl Into<Value>,
    ) -> Check {
        self.offer = Some(Offer {
            question: question.into(),
            field: field.to_owned(),
            value: value.into(),
        });
        self
    }

    /// `✓`, `✗` or `–`.
    pub fn mark(&self) -> &'static str {
        match self.status {
            CheckStatus::Ok => "✓",
            CheckStatus::Failed => "✗",
            CheckStatus::Skipped => "–",
        }
    }

    /// The check for people: mark, title and message; causes and hint below.
    pub fn render(&self) -> String {
        let mut text = format!("{} {}", self.mark(), self.title);
        if let Some(message) = &self.message {
            text.push_str(&format!(": {}", message.trim_end().replace('\n', "\n    ")));
        }
        let mut below = |label: &str, lines: &str| {
            let lines = lines.trim_end().replace('\n', "\n      ");
            text.push_str(&format!("\n    {label}: {lines}"));
        };
        for cause in &self.caused_by {
            below("caused by", cause);
        }
        if let Some(hint) = &self.hint {
            below(
                match self.status {
                    CheckStatus::Failed => "hint",
                    _ => "note",
                },
                hint,
            );
        }
        text
    }
}
