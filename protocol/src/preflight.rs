//! What `check --preflight` finds: one thing that a run will need, and whether it is there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::StageError;

/// Whether something that a run will need is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// It is there.
    Ok,
    /// It is not: a run would fail.
    Failed,
    /// It could not be looked at, or the config does not ask for it.
    Skipped,
}

/// What is for a person to choose: with this value in a field of the config the run works, or works otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Offer {
    /// What to ask; yes takes the offer.
    pub question: String,
    /// The field of the stage's config.
    pub field: String,
    /// The value that it gets, for this one run.
    pub value: Value,
}

/// What is looked at: a stable name, and what should be so.
pub type CheckTitle = (&'static str, &'static str);

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// Instance name.
    pub stage: String,
    /// Stable name of the check, such as `login`.
    pub id: String,
    /// The check in words, such as `the server lets us in`.
    pub title: String,
    /// What came of it.
    pub status: CheckStatus,
    /// What was found, or why it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The hint; with `ok` something worth doing all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The code of the error that a run would end with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caused_by: Vec<String>,
    /// What a person may be asked before the run: with `failed` to correct it, with `ok` to have it otherwise.
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

    /// It is there; `message` says what was found, and may be empty.
    pub fn ok(id: &str, title: &str, message: impl Into<String>) -> Check {
        Check {
            message: Some(message.into()).filter(|m| !m.is_empty()),
            ..Check::new(id, title, CheckStatus::Ok)
        }
    }

    /// A run would end with this error.
    pub fn failed(id: &str, title: &str, error: &StageError) -> Check {
        Check {
            message: Some(error.message.clone()),
            hint: error.hint.clone(),
            code: Some(error.code.clone()),
            caused_by: error.caused_by.clone(),
            ..Check::new(id, title, CheckStatus::Failed)
        }
    }

    /// It was not looked at; `why` says what stands in the way, such as `needs a login`.
    pub fn skipped(id: &str, title: &str, why: impl Into<String>) -> Check {
        Check {
            message: Some(why.into()),
            ..Check::new(id, title, CheckStatus::Skipped)
        }
    }

    /// Adds something worth doing, or the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Check {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what a person may be asked: yes gives this field of the config this value for one run.
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

    /// The check as a person reads it: mark, title and finding; causes and hint below.
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
