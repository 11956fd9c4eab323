//! What a person is asked before devcluster takes the terminal.

use std::collections::HashSet;
use std::io::Write;

use protocol::yaml::{Document, Editor, Seg};
use protocol::{Check, CheckStatus, Env, Offer, StageError, ask};
use serde_json::Value;

use crate::input::Job;
use crate::preflight::{self, Looked};
use protocol::program::say;

/// Has every stage look at what it needs, shows what is missing, and asks what is for a person to decide. What was chosen
/// is in the job then. False when nothing is to be started.
pub(crate) async fn before(job: &mut Job, env: &Env) -> Result<bool, StageError> {
    say("looking at what the stages will need (--no-preflight starts without)");
    let mut declined = Vec::new();
    loop {
        let mut shown: Vec<(String, Check)> = Vec::new();
        preflight::look(job, env, |looked: Looked| {
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
            // What was chosen may have settled the stage's other questions, too.
            let Some(offer) = offer.filter(|_| !taken.contains(stage)) else {
                continue;
            };
            if asked(&offer.question)? {
                take(job, stage, offer)?;
                taken.insert(stage);
            } else {
                declined.push((stage.clone(), offer.clone()));
            }
        }
        if !taken.is_empty() {
            say("looking again, with what you chose");
        } else if shown.iter().any(|(_, check)| is_missing(check)) {
            return asked("Start all the same?");
        } else {
            return Ok(true);
        }
    }
}

fn is_missing(check: &Check) -> bool {
    check.status == CheckStatus::Failed
}

fn asked(question: &str) -> Result<bool, StageError> {
    let mut stderr = std::io::stderr();
    let answer = write!(stderr, "{} ", ask::put(question)).and_then(|()| {
        stderr.flush()?;
        ask::answer(say)
    });
    answer.map_err(|e| StageError::io("cannot ask at the terminal", &e))
}

/// Gives a field of a stage's config another value: in what devcluster gets, not in the user's file.
fn take(job: &mut Job, stage: &str, offer: &Offer) -> Result<(), StageError> {
    let unusable = || StageError::internal(format!("{stage} offers what its command cannot take"));
    let document = Document::parse_as_pyyaml(&job.compiled.text).map_err(|_| unusable())?;
    let value = document.value();
    let items = value["stages"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let item = items
        .iter()
        .position(|item| item["custom"]["name"] == stage)
        .ok_or_else(unusable)?;
    let words = items[item]["custom"]["cmd"]
        .as_array()
        .ok_or_else(unusable)?;
    let flag = format!("--{}=", offer.field.replace('_', "-"));
    let text = match &offer.value {
        Value::String(text) => text.replace('$', "$$"),
        other => other.to_string(),
    };
    let word = Value::String(format!("{flag}{text}"));
    let mut cmd = vec![
        Seg::from("stages"),
        Seg::from(item),
        Seg::from("custom"),
        Seg::from("cmd"),
    ];
    let given = words
        .iter()
        .position(|w| w.as_str().is_some_and(|w| w.starts_with(&flag)));
    let mut editor = Editor::new(&document);
    let edited = match given {
        Some(at) => {
            cmd.push(Seg::from(at));
            editor.set(&cmd, word)
        }
        None => editor.append_item(&cmd, word),
    };
    job.compiled.text = edited
        .and_then(|()| editor.finish())
        .map_err(|_| unusable())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::Offer;

    use super::*;

    #[test]
    fn a_yes_reaches_the_command_of_the_stage_and_nothing_else() {
        let cmd =
            "[/p/devcluster-gateway, run, --name=gateway, --k8s-context=a, --take-over=false]";
        let text =
            format!("# mine\nstages:\n- custom: {{name: gateway, cmd: {cmd}}}\n- db: {{}}\n");
        let document = Document::parse(&text).unwrap();
        let compiled = crate::compile::Compiled {
            text,
            plan: crate::plan::Plan::default(),
        };
        let before = compiled.text.clone();
        let mut job = Job {
            compiled,
            root: None,
            file: "f.yaml".into(),
            document,
        };
        for (field, value) in [("take_over", true.into()), ("gateway_class", "a$b".into())] {
            let offer = Offer {
                question: String::new(),
                field: field.to_owned(),
                value,
            };
            take(&mut job, "gateway", &offer).unwrap();
        }
        let after = job.compiled.text;
        assert!(after.contains("--take-over=true"), "{after}");
        assert!(after.contains("--gateway-class=a$$b"), "{after}");
        assert!(!after.contains("--take-over=false"), "{after}");
        let head = |text: &str| text.lines().next().map(str::to_owned);
        assert_eq!(head(&before), head(&after));
        assert!(after.ends_with("- db: {}\n"), "{after}");
    }
}
