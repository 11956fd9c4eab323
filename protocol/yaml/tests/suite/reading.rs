//! Compares with the real `PyYAML`: the same value, or a refusal where it refuses.

use std::cell::RefCell;

use crate::pyyaml::{Answer, PyYaml};
use proptest::prelude::*;
use serde_json::json;
use yaml::{Document, Seg};

thread_local! {
    static PYYAML: RefCell<PyYaml> = RefCell::new(PyYaml::start());
}

/// The value of a text, or `None` if this crate refuses it. Fails unless `PyYAML` reads the same; this crate may refuse more.
fn read_alike(text: &str) -> Result<Option<serde_json::Value>, String> {
    let ours = Document::parse(text).map(|doc| doc.value());
    let theirs = PYYAML.with_borrow_mut(|python| python.read(text));
    let all = Document::parse_as_pyyaml(text);
    match (&all, &ours) {
        (Ok(_), _) if matches!(theirs, Answer::Refused(_)) => {
            return Err(format!("{text:?}: PyYAML refuses it: {theirs:?}"));
        }
        (Ok(all), Ok(ours)) if all.value() == *ours && all.pyyaml_only().is_empty() => {}
        (Ok(all), Err(_)) if !all.pyyaml_only().is_empty() => {}
        (Err(_), Err(_)) => {}
        _ => return Err(format!("{text:?}: strictly {ours:?}, as PyYAML {all:?}")),
    }
    match (ours, theirs) {
        (Err(_), _) => Ok(None),
        (Ok(ours), Answer::Value(theirs)) if ours == theirs => Ok(Some(ours)),
        (ours, theirs) => Err(format!("{text:?}: we {ours:?}, PyYAML {theirs:?}")),
    }
}

#[test]
fn files_as_people_have_them_read_alike() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let mut seen = 0;
    for file in std::fs::read_dir(corpus).expect("the corpus is there") {
        let file = file.expect("a file").path();
        let text = std::fs::read_to_string(&file).expect("the file is text");
        let read = read_alike(&text).expect("read alike");
        assert!(
            read.is_some(),
            "{}: {:?}",
            file.display(),
            Document::parse(&text).err()
        );
        seen += 1;
    }
    assert!(seen >= 4, "{seen} files");
}

#[test]
fn values_that_only_pyyaml_accepts_are_read_on_request() {
    for (text, value) in [
        ("a: 1\na: 2", json!({"a": 2})),
        ("yes: 1\ntrue: 2", json!({"true": 2})),
        ("a: {b: 1, c: 2, b: 3}", json!({"a": {"b": 3, "c": 2}})),
        (
            "x: &x {a: 1}\ny: &y {a: 2}\nz:\n  <<: *x\n  <<: *y",
            json!({"x": {"a": 1}, "y": {"a": 2}, "z": {"a": 2}}),
        ),
        ("a: [.inf, -.INF, .nan]", json!({"a": [null, null, null]})),
        ("a: !!float 1e400", json!({"a": null})),
        (
            "a: 18446744073709551616",
            json!({"a": 18_446_744_073_709_551_616_f64}),
        ),
        (
            "a: -0x8000000000000001",
            json!({"a": -9_223_372_036_854_775_808_f64}),
        ),
        ("a: !!binary |\n  aGk=\n", json!({"a": null})),
        ("a: !!binary 'aGk='", json!({"a": null})),
        ("a: !!set {b, c}", json!({"a": {"b": null, "c": null}})),
        ("a: !!omap [b: 1]", json!({"a": [{"b": 1}]})),
        (
            "a: !!pairs [b: 1, b: 2]",
            json!({"a": [{"b": 1}, {"b": 2}]}),
        ),
    ] {
        assert!(Document::parse(text).is_err(), "{text:?} is taken");
        let theirs = PYYAML.with_borrow_mut(|python| python.read(text));
        assert!(
            !matches!(theirs, Answer::Refused(_)),
            "{text:?}: {theirs:?}"
        );
        let ours = Document::parse_as_pyyaml(text).expect(text);
        assert_eq!(ours.value(), value, "{text:?}");
        assert!(!ours.pyyaml_only().is_empty());
    }
    for text in [
        "a: !!binary aGk",
        "a: !!binary a",
        "a: !!binary 'ä==='",
        "a: !!int x",
    ] {
        let theirs = PYYAML.with_borrow_mut(|python| python.read(text));
        assert!(matches!(theirs, Answer::Refused(_)), "{text:?}: {theirs:?}");
        assert!(Document::parse_as_pyyaml(text).is_err(), "{text:?}");
    }
}

#[test]
fn what_pyyaml_refuses_or_reads_differently_is_refused() {
    for text in [
        "a: b: c",
        "a:\tb",
        "a: [1, 2",
        "a: 1\na: 2",
        "a: &x 1\nb: &x 2",
        "a: *gone",
        "- &a [*a]",
        "a: 1\n---\nb: 2",
        "a: =",
        "a: !mine x",
        "? [1]\n: 2",
        "a: .inf",
        "a: 2001-13-01",
        "a: !!binary aGk=",
        "a: \u{2028}",
        "a: @x",
        "a: `x`",
        "a: %x\n\tb: 1",
        "<<: 1",
        "a: <<",
        "%FOO\n---\na",
        "a: \u{7}",
        "...",
        ": x",
        "[a?b]",
        "&a.b x",
        "a: 99999999999999999999",
        "yes: 1\ntrue: 2",
    ] {
        assert!(Document::parse(text).is_err(), "{text:?} is taken");
    }
}

#[test]
fn an_alias_bomb_is_refused_soon() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        text.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    let refused = Document::parse(&text).expect_err("refused");
    assert!(refused.message.contains("too many"), "{refused}");
}

#[test]
fn every_value_and_every_key_has_its_place() {
    let text = "# c\nx: &x {p: 1}\nstages:\n- db:\n    port: 5432 # c\n  y: |\n    t\n-\n  é: *x\nm:\n  <<: *x\nn:\n";
    let doc = Document::parse(text).expect("YAML");
    let place = |path: &[Seg], key: bool| {
        let before = &text[..doc.nearest_span(path, key).start];
        let line = before.rfind('\n').map_or(0, |i| i + 1);
        (
            before.matches('\n').count() + 1,
            before[line..].chars().count() + 1,
        )
    };
    let at = |path: &[Seg]| place(path, false);
    let db = ["stages".into(), 0.into(), "db".into(), "port".into()];
    assert_eq!((at(&db), place(&db, true)), ((5, 11), (5, 5)));
    assert_eq!(at(&["stages".into()]), (4, 1));
    assert_eq!(at(&["stages".into(), 0.into(), "y".into()]), (6, 6));
    assert_eq!(at(&["stages".into(), 1.into(), "é".into()]), (9, 6));
    let through = ["stages".into(), 1.into(), "é".into(), "p".into()];
    assert_eq!(at(&through), (2, 11));
    assert_eq!(at(&["m".into(), "p".into()]), (2, 11));
    // What is not written has the place of its key; what is not there, of the key around it.
    assert_eq!(at(&["n".into()]), (12, 1));
    assert_eq!(at(&["m".into(), "zz".into(), "y".into()]), (10, 1));
    assert_eq!(doc.get(&["m".into()]), Some(json!({"p": 1})));
}

fn fragments() -> impl Strategy<Value = String> {
    const FRAGMENTS: &[&str] = &[
        "a",
        "b: ",
        "k:",
        "- ",
        "-",
        "\n",
        "\n  ",
        "\n    ",
        "\n",
        "\n",
        "{",
        "}",
        "[",
        "]",
        ", ",
        ",",
        ":",
        ": ",
        "? ",
        "?",
        "#c",
        "# c\n",
        " # x\n",
        "'q'",
        "\"d\"",
        "\"e\\n\"",
        "|",
        "|\n",
        "|-\n",
        "|+\n",
        ">\n",
        ">-\n",
        "|2\n",
        "k: |\n   t\n",
        "&a ",
        "*a",
        "&b ",
        "*b",
        "*a : ",
        "&a.b ",
        "!!str ",
        "! ",
        "!x ",
        "yes",
        "12",
        "0x1f",
        "1.5",
        "~",
        "<<: ",
        "<<",
        "=",
        "\t",
        " ",
        "  ",
        "%",
        "@",
        "`",
        "...",
        "---\n",
        "...\n",
        "é",
        "http://x?y=1",
        "a b",
        "x#y",
        "08",
        "2001-01-01",
        "'it''s'",
        "\r\n",
        "\\",
        "\"a\n  b\"",
        "'a\n\n b'",
        "- - ",
        "\u{feff}",
    ];
    let parts = prop::collection::vec(prop::sample::select(FRAGMENTS), 0..12);
    let open = prop::sample::select(vec!["", "", "{", "k: ["]);
    let close = prop::sample::select(vec!["", "", "}", "]"]);
    (open, parts, close).prop_map(|(open, parts, close)| format!("{open}{}{close}", parts.concat()))
}

proptest! {
    #![proptest_config(crate::cases(4000))]

    #[test]
    fn scraps_of_yaml_read_alike(text in fragments()) {
        if let Err(differ) = read_alike(&text) {
            return Err(TestCaseError::fail(differ));
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        let _ = Document::parse(&text).map(|doc| doc.value());
    }
}
