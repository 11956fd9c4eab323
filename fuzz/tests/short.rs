//! The seeds, and a short random round of what the fuzzer does for long.

use std::path::Path;

use proptest::prelude::*;

/// Runs a target on each file of its seed corpus.
fn seeds(name: &str, target: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(name);
    let files: Vec<_> = std::fs::read_dir(dir)
        .expect("no seeds")
        .flatten()
        .collect();
    assert!(files.len() >= 3, "few seeds for {name}");
    for file in files {
        target(&std::fs::read(file.path()).expect("cannot read"));
    }
}

#[test]
fn the_seeds_break_nothing() {
    seeds("frame", targets::frame);
    seeds("message", targets::message);
    seeds("config", targets::config);
    seeds("compile", targets::compile);
    seeds("yaml_edit", targets::yaml_edit);
}

/// Text that is close to YAML and JSON.
fn near() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "a",
        "b: ",
        "- ",
        "\n",
        "  ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        ": ",
        "\"",
        "'",
        "#",
        "&a ",
        "*a",
        "|\n",
        "null",
        "1",
        "~",
        "? ",
        "!t ",
        "<<: ",
        "\"dcs\":1",
        "\"type\":\"start\"",
        "\"stage\":\"x\"",
        "\"config\":{}",
        "\0",
        "ssh_port",
        "=",
        "$A",
        "\t",
        "é",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn any_bytes_are_framed(data in prop::collection::vec(any::<u8>(), 0..200)) {
        targets::frame(&data);
    }

    #[test]
    fn any_text_near_json_is_read_or_refused(data in near()) {
        targets::message(&data);
    }

    #[test]
    fn any_text_near_yaml_is_a_config_or_refused(data in near()) {
        targets::config(&data);
    }

    #[test]
    fn any_text_near_yaml_is_compiled_or_refused(text in near()) {
        targets::compile(&[b"stages:\n- tunnel: {reverse_proxy_host: a}\n- master: ", &text[..]].concat());
    }

    #[test]
    fn any_text_near_yaml_is_edited_or_refused(head in any::<[u8; 2]>(), text in near()) {
        targets::yaml_edit(&[&head[..], &text].concat());
    }
}
