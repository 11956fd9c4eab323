//! A config in a file, in a `start`, and in flags.

use protocol::config::{Sources, load};
use protocol::yaml::Document;
use protocol::{Env, Exit, Stage};
use serde_json::Value;

/// Every config is accepted, or refused with exit code 2 and the place of each mistake. The first part of the input is YAML;
/// after a NUL, each line is a flag, `field=text`.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (yaml, flags) = text.split_once('\0').unwrap_or((&text, ""));
    let start = match Document::parse(yaml).map(|d| d.value()) {
        Ok(Value::Object(map)) => map,
        _ => return,
    };
    let flags = flags.lines().filter_map(|l| l.split_once('='));
    let flags: Vec<_> = flags.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let sources = Sources {
        file: None,
        start: Some(start),
        flags,
    };
    try_as::<tunnel::Tunnel>(&sources);
    try_as::<gateway::Gateway>(&sources);
    try_as::<config_emit::ConfigEmit>(&sources);
}

fn try_as<S: Stage>(sources: &Sources) {
    let env = Env::from_pairs([("HOME", "/h"), ("A", "$B ${A} ~"), ("B", "")]);
    if let Err(error) = load::<S::Config>(S::KIND, &S::program(), sources, &env, S::validate) {
        assert_eq!(error.exit_code(), Exit::Usage, "{error:?}");
        assert!(!error.code.is_empty() && !error.message.is_empty());
    }
}
