//! This crate reads the examples of PROTOCOL.md, and they fit the schemas.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::message::{decode_command, decode_message};
use serde_json::Value;

fn directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn examples() -> Vec<String> {
    let text = std::fs::read_to_string(directory().join("PROTOCOL.md")).expect("no PROTOCOL.md");
    let blocks = text.split("```json\n").skip(1);
    blocks
        .map(|b| b.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

/// The schema of an example.
fn schema_of(example: &Value) -> &'static str {
    let has = |field: &str| example.get(field).is_some();
    match () {
        () if has("verbs") => "describe.json",
        () if has("targets") => "validate.json",
        () if has("instances") => "validate-answer.json",
        () if has("phase") => "status.json",
        () if has("secrets") => "outputs.json",
        () if has("type") && has("stage") => "message.json",
        () if has("type") => "command.json",
        () => "",
    }
}

fn fits(example: &Value, name: &str) {
    let schema = std::fs::read_to_string(directory().join("schema").join(name)).expect("no schema");
    let schema = serde_json::from_str(&schema).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    if let Err(e) = validator.validate(example) {
        panic!("{example} does not fit {name}: {e}");
    }
}

#[test]
fn every_example_is_read_as_what_it_shows_and_fits_its_schema() {
    let mut seen = BTreeMap::new();
    for block in examples() {
        // One object over several lines, or one object per line.
        let values: Vec<Value> = match serde_json::from_str(&block) {
            Ok(value) => vec![value],
            Err(_) => block
                .lines()
                .map(|l| serde_json::from_str(l).expect(l))
                .collect(),
        };
        for value in values {
            let name = schema_of(&value);
            let line = value.to_string();
            match name {
                "message.json" => {
                    let message = decode_message(line.as_bytes()).expect(&line).expect(&line);
                    assert_eq!(message.stage(), "vpn");
                }
                "command.json" => assert!(decode_command(line.as_bytes()).expect(&line).is_some()),
                "" => {}
                _ => assert_eq!(value["dcs"], 1),
            }
            if !name.is_empty() {
                fits(&value, name);
            }
            *seen.entry(name).or_insert(0) += 1;
        }
    }
    // Meanings, a list of codes, the lock and five lines of ledgers have no schema.
    let expected = [
        ("", 8),
        ("command.json", 4),
        ("describe.json", 1),
        ("message.json", 14),
        ("outputs.json", 1),
        ("status.json", 1),
        ("validate-answer.json", 1),
        ("validate.json", 1),
    ];
    assert_eq!(seen, BTreeMap::from(expected));
}

#[test]
fn the_runtime_reads_the_examples_of_a_lock_and_a_ledger() {
    let blocks = examples();
    let block = |start: &str| blocks.iter().find(|b| b.starts_with(start)).expect(start);
    let home = tempfile::tempdir().expect("no directory");
    let state = home.path().join("devcluster-stages");
    std::fs::create_dir(&state).expect("cannot make it");
    let open: String = block(r#"{"format""#)
        .lines()
        .take(3)
        .map(|l| format!("{l}\n"))
        .collect();
    std::fs::write(state.join("vpn@0.jsonl"), &open).expect("cannot write");
    let env = protocol::Env::from_pairs([("XDG_STATE_HOME", home.path())]);
    let survey = protocol::ledger::survey(&env);
    let (owner, entries) = survey.open.first().expect("an open ledger");
    assert_eq!(
        (owner.instance.as_str(), entries[0].what.as_str()),
        ("vpn", "route")
    );
    std::fs::write(state.join("vpn@0.jsonl"), block(r#"{"format""#)).expect("cannot write");
    assert!(protocol::ledger::survey(&env).open.is_empty());
    let parked = blocks.iter().find(|b| b.contains(r#""parked""#));
    let parked = open + parked.expect("a parked entry");
    std::fs::write(state.join("vpn@0.jsonl"), parked).expect("cannot write");
    let survey = protocol::ledger::survey(&env);
    let parked = survey.open[0].1[0].parked.as_ref().expect("it is parked");
    assert_eq!((survey.open[0].1.len(), parked.age.seconds()), (1, 340));

    let run_dir =
        protocol::rundir::RunDir::open(&home.path().join("run")).expect("a run directory");
    let lock = std::fs::File::create(run_dir.file("vpn.lock")).expect("no file");
    std::fs::write(run_dir.file("vpn.lock"), block(r#"{"run""#)).expect("cannot write");
    lock.lock().expect("no lock");
    assert_eq!(run_dir.holder("vpn").as_deref(), Some("5f0c9e2ab14d7733"));
    std::fs::write(
        run_dir.outputs_path("vpn"),
        block(r#"{"dcs":1,"stage":"vpn","kind":"vpn","run":"5f0c9e2ab14d7733","gen""#),
    )
    .expect("cannot write");
    assert!(run_dir.live_outputs("vpn").is_some());
}
