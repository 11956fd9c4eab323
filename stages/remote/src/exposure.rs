//! A tunnel that the whole internet reaches, in front of a master that lets anyone in, is refused.

use std::net::IpAddr;

use protocol::{Env, Exit, StageError};
use serde_json::Value;

use crate::compile::Compiled;
use crate::plan::Kind;

/// Built-in users of a Determined master have blank passwords unless its config sets one.
pub(crate) fn refuse_open_master(compiled: &Compiled, env: &Env) -> Result<(), StageError> {
    let tunnels = compiled
        .plan
        .stages
        .iter()
        .filter(|s| s.kind == Kind::Tunnel);
    let public = tunnels
        .into_iter()
        .find(|s| is_public(s.config.get("bind_address"), env));
    let Some(tunnel) = public else { return Ok(()) };
    let value = compiled.value();
    let stages = value["stages"].as_array().into_iter().flatten();
    for master in stages.filter_map(|s| s.get("master")) {
        let name = master["name"].as_str().unwrap_or("master");
        let password = &master["config_file"]["security"]["initial_user_password"];
        if let Some((why, mend)) = weakness(password, env) {
            let message = format!(
                "{} would listen on all addresses of the ssh server, and {name} lets anyone in: {why}",
                tunnel.name
            );
            return Err(StageError::new("remote.open_master", message)
                .hint(format!(
                    "{mend}, or bind_address in the tunnel to an address that only the cluster reaches; \
                     --i-know goes on regardless"
                ))
                .exit(Exit::Usage));
        }
    }
    Ok(())
}

/// Only an address or a host name that is clearly not "all of them" is narrow. ssh takes many spellings of zero.
fn is_public(bind_address: Option<&Value>, env: &Env) -> bool {
    let Some(text) = bind_address.and_then(Value::as_str) else {
        return true;
    };
    let text = env.expand(text);
    let bare = text.trim().trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_unspecified(),
        Err(_) => !bare.starts_with(|c: char| c.is_ascii_alphabetic()),
    }
}

/// What is wrong with a password, and the mend.
fn weakness(password: &Value, env: &Env) -> Option<(String, String)> {
    let set = "set security.initial_user_password in the master's config_file";
    let Some(text) = password.as_str() else {
        let why = "its users `admin` and `determined` have blank passwords";
        return Some((why.to_owned(), set.to_owned()));
    };
    // devcluster leaves a variable that is not set as it is: a password that everybody can read here.
    let unset = text.replace("$$", "");
    let unset = unset
        .split('$')
        .skip(1)
        .map(|rest| {
            let rest = rest.trim_start_matches('{');
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        })
        .find(|name| !name.is_empty() && env.get(name).is_none());
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
    fn only_what_is_clearly_narrow_is_not_public() {
        let env = Env::from_pairs([("EMPTY", ""), ("INNER", "10.0.0.1")]);
        for public in [
            "", " ", "*", "0", "0.0", "0.0.0.0", "00.0.0.0", "0x0", "::", "::0", "[::]", "$NOPE",
            "${EMPTY}",
        ] {
            assert!(is_public(Some(&public.into()), &env), "{public:?}");
        }
        for narrow in ["127.0.0.1", "::1", "[::1]", "localhost", "$INNER"] {
            assert!(!is_public(Some(&narrow.into()), &env), "{narrow:?}");
        }
        assert!(is_public(None, &env));
    }

    #[test]
    fn a_password_has_to_be_there_after_devcluster_has_expanded_it() {
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
