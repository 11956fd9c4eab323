//! Refuses a port that the whole internet can reach in front of a master without a password.

use protocol::env::variables;
use protocol::provides::MASTER_ADDRESS;
use protocol::validate::Audience;
use protocol::{Env, StageError};
use serde_json::Value;

use crate::codes;
use crate::compile::Compiled;
use crate::plan::NewStage;

/// Built-in users of a Determined master have blank passwords unless its config sets one.
pub(crate) fn refuse_open_master(compiled: &Compiled, env: &Env) -> Result<(), StageError> {
    let stages = compiled.plan.stages.iter();
    let Some(stage) = stages.into_iter().find(|s| is_open_to_the_internet(s)) else {
        return Ok(());
    };
    let value = compiled.value();
    let stages = value["stages"].as_array().into_iter().flatten();
    for master in stages.filter_map(|s| s.get("master")) {
        let name = master["name"].as_str().unwrap_or("master");
        let password = &master["config_file"]["security"]["initial_user_password"];
        if let Some((why, hint)) = weakness(password, env) {
            let message = format!(
                "{} would expose {name} to the whole internet, and {name} lets anyone in: {why}",
                stage.name
            );
            return Err(StageError::new(codes::OPEN_MASTER, message)
                .hint(format!(
                    "{hint}, or let {} listen where only the cluster can reach it (bind_address of a tunnel); \
                    --i-know starts nevertheless",
                    stage.name
                )));
        }
    }
    Ok(())
}

/// Whether a stage opens an unguarded port to the internet. A stage that provides the master's address and does not say who
/// can reach it counts as one.
fn is_open_to_the_internet(stage: &NewStage) -> bool {
    match &stage.verdict.exposes {
        Some(ports) => ports.iter().any(|p| {
            p.to == Audience::Internet && p.guard.as_deref().unwrap_or_default().is_empty()
        }),
        None => stage.provides.contains_key(MASTER_ADDRESS),
    }
}

/// Why a password is weak, and the hint.
fn weakness(password: &Value, env: &Env) -> Option<(String, String)> {
    let set = "set security.initial_user_password in the master's config_file";
    let Some(text) = password.as_str() else {
        let why = "its users `admin` and `determined` have blank passwords";
        return Some((why.to_owned(), set.to_owned()));
    };
    // devcluster does not expand an unset variable: its name would be the password, which anyone can guess.
    let unset = variables(text)
        .into_iter()
        .find(|name| env.get(name).is_none());
    if let Some(name) = unset {
        let why = format!("its initial_user_password is ${name}, which is not set");
        return Some((why, format!("export {name} first")));
    }
    if env.expand(text).trim().is_empty() {
        let why = format!("its initial_user_password, {text:?}, is empty");
        return Some((why, set.to_owned()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_checked_after_expansion() {
        let env = Env::from_pairs([("EMPTY", ""), ("SET", "x")]);
        for weak in ["", " ", "$EMPTY", "$NOPE", "${NOPE}", "a${NOPE}b"] {
            assert!(weakness(&weak.into(), &env).is_some(), "{weak:?}");
        }
        for fine in ["secret", "$SET", "a$$b", "5$"] {
            assert!(weakness(&fine.into(), &env).is_none(), "{fine:?}");
        }
        assert!(weakness(&Value::Null, &env).is_some());
    }
}
