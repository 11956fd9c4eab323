//! Refuses a port that the whole internet can reach in front of a master without a password.

use protocol::env::variables;
use protocol::provides::MASTER_ADDRESS;
use protocol::validate::Audience;
use protocol::{Env, StageError};
use serde_json::Value;

use crate::codes;
use crate::compile::Compiled;
use crate::plan::{Master, NewStage};

/// Refuses a master that may let anyone in, on a port that the whole internet can reach and that has no guard. Returns a
/// warning for one behind a guard: the password that its config sets counts for a new database alone.
pub(crate) fn refuse_open_master(
    compiled: &Compiled,
    env: &Env,
) -> Result<Option<String>, StageError> {
    let value = compiled.value();
    let mut warning = None;
    for master in &compiled.plan.masters {
        let bodies = value["stages"].as_array().into_iter().flatten();
        let mut bodies = bodies.filter_map(|stage| stage.get("master"));
        let body = bodies.find(|b| b["name"].as_str().unwrap_or("master") == master.name);
        let password =
            &body.unwrap_or(&Value::Null)["config_file"]["security"]["initial_user_password"];
        let Some((why, hint)) = weakness(password, env) else {
            continue;
        };
        let name = &master.name;
        let mut stages = compiled.plan.stages.iter();
        if let Some(stage) = stages.find(|s| opens_to_the_internet(s, master)) {
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
        if let Some(guard) = master.guards.first() {
            warning = Some(format!(
                "{guard} will let no visitor through to {name} if its database is new: {why}; {hint}"
            ));
        }
    }
    Ok(warning)
}

/// Whether anyone can reach a port of the stage that leads to the master and has no guard. A stage that provides the
/// master's address and does not say who can reach it counts as one.
fn opens_to_the_internet(stage: &NewStage, master: &Master) -> bool {
    match &stage.verdict.exposes {
        Some(ports) => ports.iter().any(|port| {
            port.to == Audience::Internet
                && port.guard.as_deref().unwrap_or_default().is_empty()
                && master.is_behind(port)
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
