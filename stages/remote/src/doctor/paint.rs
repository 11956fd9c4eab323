//! A check as lines of the terminal.

use protocol::{Check, CheckStatus};

/// Marks in colour, where that helps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    colour: bool,
}

impl Paint {
    pub(super) fn new(colour: bool) -> Paint {
        Paint { colour }
    }

    pub(super) fn head(self, stage: &str, kind: &str) -> String {
        let head = match kind == stage || kind == "remote" {
            true => stage.to_owned(),
            false => format!("{stage} ({kind})"),
        };
        match self.colour {
            true => format!("\x1b[1m{head}\x1b[0m"),
            false => head,
        }
    }

    pub(super) fn check(self, check: &Check) -> String {
        let text = check.render();
        let text = match (self.colour, text.strip_prefix(check.mark())) {
            (true, Some(rest)) => {
                let colour = match check.status {
                    CheckStatus::Ok => 32,
                    CheckStatus::Failed => 31,
                    CheckStatus::Skipped => 90,
                };
                format!("\x1b[{colour}m{}\x1b[0m{rest}", check.mark())
            }
            _ => text,
        };
        text.lines().map(|line| format!("  {line}\n")).collect()
    }
}
