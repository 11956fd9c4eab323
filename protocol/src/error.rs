//! The errors of stages and programs, and their exit codes.

use std::io::ErrorKind;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes::{self, Code, Codes};
use crate::problem::{Problem, colours};

/// Exit codes shared by every stage and the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The call succeeded.
    Ok = 0,
    /// The stage failed; a retry is not known to help.
    #[default]
    Failed = 1,
    /// The command line or the config is wrong.
    Usage = 2,
    /// The other side speaks another protocol version.
    Version = 3,
    /// An upstream is missing or failed.
    Upstream = 4,
    /// `check` found that the outputs are no longer valid, or that something is missing.
    CheckFailed = 5,
    /// Another process runs this instance.
    Locked = 6,
    /// A deadline passed.
    Timeout = 7,
    /// A bug in the stage itself.
    Internal = 70,
    /// Failed, and the same call may work later.
    Retryable = 75,
}

impl Exit {
    /// Whether the same call may work later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Exit::Retryable | Exit::Timeout)
    }
}

/// An error as it travels on the wire and is shown to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct StageError {
    /// Stable, namespaced identifier, such as `tunnel.port_range_exhausted`.
    pub code: String,
    /// What was attempted, on what, and what happened.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The same call may work later.
    #[serde(default)]
    pub retryable: bool,
    /// The stage ends because of it.
    #[serde(default)]
    pub fatal: bool,
    /// The causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caused_by: Vec<String>,
    #[serde(skip)]
    exit: Exit,
    /// Mistakes in the user's config; each is in `caused_by` too.
    #[serde(skip)]
    problems: Box<[Problem]>,
}

impl StageError {
    /// A fatal error, with the hint of its code.
    pub fn new(code: &Code, message: impl Into<String>) -> Self {
        StageError {
            code: code.name.to_owned(),
            message: message.into(),
            hint: Some(code.hint.to_owned()).filter(|hint| !hint.is_empty()),
            retryable: code.exit.is_retryable(),
            fatal: true,
            caused_by: Vec::new(),
            exit: code.exit,
            problems: Box::default(),
        }
    }

    /// A bug in the stage, or a failure of the machine that no config can correct.
    pub fn internal(message: impl Into<String>) -> Self {
        StageError::new(codes::INTERNAL, message)
    }

    /// A failed operation of the system, with what was attempted: `protocol.disk_full` when there is no room, else `protocol.io`.
    pub fn io(attempt: impl Into<String>, error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StageError::disk_full(attempt),
            _ => StageError::new(codes::IO, attempt),
        }
        .source(error)
    }

    /// There is no room for a file.
    pub fn disk_full(attempt: impl Into<String>) -> Self {
        StageError::new(codes::DISK_FULL, attempt)
    }

    /// Whether this is its code.
    pub fn is(&self, code: &Code) -> bool {
        self.code == code.name
    }

    /// Whether its code is one of these.
    pub fn is_any(&self, codes: Codes) -> bool {
        codes.iter().any(|code| self.is(code))
    }

    /// Sets the hint, where that of the code is not the best.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says whether the stage ends because of it.
    #[must_use]
    pub fn fatal(mut self, fatal: bool) -> Self {
        self.fatal = fatal;
        self
    }

    /// Adds an error and its own sources to `caused_by`.
    #[must_use]
    pub fn source(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(e) = next {
            let text = e.to_string();
            if self.caused_by.last() != Some(&text) {
                self.caused_by.push(text);
            }
            next = e.source();
        }
        self
    }

    /// Adds one line to `caused_by`.
    #[must_use]
    pub fn cause(mut self, text: impl Into<String>) -> Self {
        self.caused_by.push(text.into());
        self
    }

    /// Adds another error and its causes to `caused_by`.
    #[must_use]
    pub fn because(mut self, error: &StageError) -> Self {
        self.caused_by.push(error.message.clone());
        self.caused_by.extend(error.caused_by.iter().cloned());
        self
    }

    /// Adds mistakes in the user's config, each shown with its line.
    #[must_use]
    pub fn problems(mut self, problems: Vec<Problem>) -> Self {
        self.caused_by
            .extend(problems.iter().map(Problem::to_string));
        let mut all = std::mem::take(&mut self.problems).into_vec();
        all.extend(problems);
        self.problems = all.into();
        self
    }

    /// Sets the exit code, where it is not that of the code, and with it whether the same call may work later.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.retryable = exit.is_retryable();
        self.exit = exit;
        self
    }

    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> Exit {
        match self.exit {
            Exit::Failed if self.retryable => Exit::Retryable,
            exit => exit,
        }
    }

    /// The error for people: message, causes, hint, code.
    pub fn render(&self, program: &str) -> String {
        let mut text = format!("{program}: error: {}\n", self.message);
        for problem in &self.problems {
            text.push_str(&format!("{}\n\n", problem.render(colours())));
        }
        let shown: Vec<String> = self.problems.iter().map(Problem::to_string).collect();
        for cause in self.caused_by.iter().filter(|c| !shown.contains(c)) {
            text.push_str(&format!(
                "  caused by: {}\n",
                cause.trim_end().replace('\n', "\n    ")
            ));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!(
                "  hint: {}\n",
                hint.trim_end().replace('\n', "\n    ")
            ));
        }
        text.push_str(&format!("  code: {}\n", self.code));
        text
    }
}
