//! Questions to the user before devcluster takes over the terminal.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use protocol::program::say;
use protocol::{Check, CheckStatus, Offer, StageError, prompt};

use crate::compile::text;
use crate::input::CompiledInput;
use crate::kinds::Programs;
use crate::preflight::{self, StageChecks};

/// Runs the preflight of every stage, shows what is missing, and asks the questions of the stages. Applies the answers to
/// `input`. Returns false when the user does not want to start.
pub(crate) async fn before_start(
    input: &mut CompiledInput,
    programs: &Programs<'_>,
) -> Result<bool, StageError> {
    say("checking what the stages need (--no-preflight skips this)");
    let mut declined = Vec::new();
    loop {
        let mut shown: Vec<(String, Check)> = Vec::new();
        preflight::run_all(input, programs.env, |looked: StageChecks| {
            let checks = looked.checks.into_iter();
            let worth_it = checks.filter(|c| is_missing(c) || c.offer.is_some());
            shown.extend(worth_it.map(|check| (looked.stage.clone(), check)));
        })
        .await;
        let mut taken = HashSet::new();
        for (stage, check) in &shown {
            let offer = check.offer.as_ref();
            let offer = offer.filter(|o| !declined.contains(&(stage.clone(), (*o).clone())));
            if is_missing(check) || offer.is_some() {
                say(&format!("{stage}: {}", check.render()));
            }
            // The answer may have settled the stage's other questions, too.
            let Some(offer) = offer.filter(|_| !taken.contains(stage)) else {
                continue;
            };
            if confirm(&offer.question)? {
                apply(input, stage, offer, programs.beside)?;
                taken.insert(stage);
            } else {
                declined.push((stage.clone(), offer.clone()));
            }
        }
        if !taken.is_empty() {
            say("checking again with your choice");
        } else if shown.iter().any(|(_, check)| is_missing(check)) {
            return confirm("Start nevertheless?");
        } else {
            return Ok(true);
        }
    }
}

fn is_missing(check: &Check) -> bool {
    check.status == CheckStatus::Failed
}

fn confirm(question: &str) -> Result<bool, StageError> {
    let mut stderr = std::io::stderr();
    let answer = write!(stderr, "{} ", prompt::format_question(question)).and_then(|()| {
        stderr.flush()?;
        prompt::read_answer(say)
    });
    answer.map_err(|e| StageError::io("cannot ask at the terminal", &e))
}

/// Sets a field of a stage's config in the compiled file, not in the user's file.
fn apply(
    input: &mut CompiledInput,
    name: &str,
    offer: &Offer,
    programs: &Path,
) -> Result<(), StageError> {
    let mut stages = input.compiled.plan.stages.iter_mut();
    if let Some(stage) = stages.find(|s| s.name == name) {
        let (field, value) = (offer.field.clone(), offer.value.clone());
        stage.config.insert(field, value);
    }
    input.compiled.text = text(&input.source(), &input.compiled.plan, programs)?;
    Ok(())
}
