use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sample {
    /// The server.
    host: String,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    mode: Mode,
}

#[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    /// One.
    #[default]
    Strict,
    /// Two.
    AcceptNew,
}

fn load_text(text: &str, flags: &[(&str, &str)]) -> Result<Sample, StageError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.yaml");
    std::fs::write(&file, text).unwrap();
    let flags = flags
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect();
    let env = Env::from_pairs([("HOME", "/h"), ("U", "me")]);
    load(
        "sample",
        "devcluster-sample",
        &Sources {
            file: Some(file),
            start: None,
            flags,
        },
        &env,
        |_| Vec::new(),
    )
}

#[test]
fn flags_override_the_file_and_both_are_expanded() {
    let flags = [
        ("tags", r#"["$U"]"#),
        ("host", "12"),
        ("mode", "accept-new"),
    ];
    let sample = load_text("host: a\nport: 22\ntags: [x]\n", &flags).unwrap();
    assert_eq!((sample.host.as_str(), sample.port), ("12", Some(22)));
    assert_eq!(
        (sample.tags, sample.mode),
        (vec!["me".to_owned()], Mode::AcceptNew)
    );
    assert_eq!(load_text("host: ~/k\nport:\n", &[]).unwrap().host, "/h/k");
}

#[test]
fn every_problem_is_reported_at_once_with_its_place() {
    let error = load_text("hots: a\nport: many\nmode: loose\n", &[("tags", "3")]).unwrap_err();
    let text = error.caused_by.join("\n");
    assert_eq!(error.exit_code(), crate::Exit::Usage);
    for expected in [
        "c.yaml:1:1: hots: unknown field; did you mean `host`?",
        "host: missing (The server); set it in the file or with --host",
        "c.yaml:2:7: port: expected a whole number",
        "c.yaml:3:7: mode: unknown value `loose`",
        "--tags: tags: expected a list; this is `3`",
    ] {
        assert!(text.contains(expected), "{expected}\n---\n{text}");
    }
}
