//! Edits of a user's file, before and after.

use serde_json::{Value, json};
use yaml::{Document, Editor, Seg};

fn path(text: &str) -> Vec<Seg> {
    let segs = text.split('.').filter(|s| !s.is_empty());
    segs.map(|s| s.parse().map_or(Seg::from(s), Seg::Index))
        .collect()
}

fn edited(text: &str, edit: impl FnOnce(&mut Editor<'_>) -> Result<(), yaml::Error>) -> String {
    let doc = Document::parse(text).expect("the text is YAML");
    let mut editor = Editor::new(&doc);
    edit(&mut editor).expect("the edit is possible");
    editor.finish().expect("the edit is safe")
}

#[track_caller]
fn set(text: &str, at: &str, value: Value, expected: &str) {
    let out = edited(text, |e| e.set(&path(at), value));
    assert_eq!(out, expected, "\n--- got\n{out}\n--- expected\n{expected}");
}

#[test]
fn a_scalar_is_replaced_in_place_and_its_comment_stays() {
    set(
        "a:  1   # one\nb: 2\n",
        "a",
        json!("x: y"),
        "a:  \"x: y\"   # one\nb: 2\n",
    );
    set(
        "a: 'q'# no\n".replace("# no", " # c").as_str(),
        "a",
        json!(true),
        "a: true # c\n",
    );
    set(
        "a:\n  # why\n  1 # one\n",
        "a",
        json!(2),
        "a:\n  # why\n  2 # one\n",
    );
    set("a: \"x\n  y\" # c\n", "a", json!(2), "a: 2 # c\n");
    set("a: 1", "a", json!("l\nm\n"), "a: |\n  l\n  m\n");
}

#[test]
fn what_is_equal_already_stays_as_it_is_written() {
    let text = "a: 0x10\nb: {c: 'd',   e: yes}\nl: [1,2]\nd: 2001-01-01\n";
    for (at, value) in [
        ("a", json!(16)),
        ("b", json!({"c": "d", "e": true})),
        ("l", json!([1, 2])),
    ] {
        set(text, at, value, text);
    }
    set(text, "b.e", json!(false), &text.replace("yes", "false"));
    set(
        text,
        "d",
        json!("2001-01-01"),
        &text.replace("2001-01-01", "\"2001-01-01\""),
    );
}

#[test]
fn a_missing_value_is_filled_in() {
    set("a:\nb: 1\n", "a", json!(1), "a: 1\nb: 1\n");
    set("a: # c\nb: 1\n", "a", json!(1), "a: 1 # c\nb: 1\n");
    set(
        "a: # c\nb: 1\n",
        "a.x.z",
        json!(1),
        "a: # c\n  x:\n    z: 1\nb: 1\n",
    );
    set("a: {b: , c}\n", "a.b", json!(1), "a: {b: 1 , c}\n");
    set("a: {b: , c}\n", "a.c", json!(1), "a: {b: , c: 1}\n");
    set("", "a.b", json!(1), "a:\n  b: 1\n");
    set(
        "# only a comment\n",
        "a",
        json!(1),
        "# only a comment\na: 1\n",
    );
}

#[test]
fn a_new_key_goes_behind_the_last_one() {
    set(
        "a:\n  b: 1 # one\n\n# next\nc: 2\n",
        "a.d",
        json!("x"),
        "a:\n  b: 1 # one\n  d: x\n\n# next\nc: 2\n",
    );
    set(
        "a:\n  - b: 1\n  - c: 2\n",
        "a.0.d",
        json!(1),
        "a:\n  - b: 1\n    d: 1\n  - c: 2\n",
    );
    set(
        "a: {b: 1}\n",
        "a.c",
        json!({"d": [1]}),
        "a: {b: 1, c: {d: [1]}}\n",
    );
    set("a: {}  # c\n", "a.c", json!(1), "a:  # c\n  c: 1\n");
    set(
        "a: {\n  b: 1, # one\n}\n",
        "a.c",
        json!(2),
        "a: {\n  b: 1, c: 2, # one\n}\n",
    );
    set("a:\n- b: 1", "c", json!(2), "a:\n- b: 1\nc: 2\n");
}

#[test]
fn a_literal_keeps_its_value_when_something_follows() {
    set("a: |\n  text", "b", json!(1), "a: |-\n  text\nb: 1\n");
    set(
        "a: |+\n  text\n\n",
        "b",
        json!(1),
        "a: |+\n  text\n\nb: 1\n",
    );
    set(
        "a: |\n  text\n\n# c\n",
        "b",
        json!(1),
        "a: |\n  text\nb: 1\n\n# c\n",
    );
    set(
        "a: | # h\n  text\n\nb: 1\n",
        "a",
        json!(1),
        "a: 1 # h\n\nb: 1\n",
    );
    // As deep as the text of a literal: it would be part of it.
    set(
        "a: null\n    # c\n",
        "a",
        json!("two\nlines"),
        "a: \"two\\nlines\"\n    # c\n",
    );
}

#[test]
fn several_keys_in_one_go_nest_rightly() {
    let text = "s:\n  - master:\n      cfg:\n        x: 1\n";
    let out = edited(text, |e| {
        e.set(&path("s.0.master.pre"), json!([{"sh": "true"}]))?;
        e.set(&path("s.0.master.cfg.rm.type"), json!("kubernetes"))?;
        e.set(&path("s.0.master.cfg.rm.port"), json!(8080))?;
        e.set(&path("top"), json!(null))
    });
    let expected = "s:\n  - master:\n      cfg:\n        x: 1\n        rm:\n          type: kubernetes\n          port: 8080\n      pre:\n        - sh: \"true\"\ntop: null\n";
    assert_eq!(out, expected, "\n{out}");
}

#[test]
fn blocks_and_single_values_take_each_others_place() {
    set(
        "a:\n  b: 1 # one\n  c: 2\n# d\nd: 3\n",
        "a",
        json!(5),
        "a: 5\n  # one\n# d\nd: 3\n",
    );
    set(
        "a: 5 # five\nd: 3\n",
        "a",
        json!({"b": 1}),
        "a: # five\n  b: 1\nd: 3\n",
    );
    set(
        "a:\n- 1\n- 2\nb: 1\n",
        "a",
        json!([1, 2, 3]),
        "a:\n- 1\n- 2\n- 3\nb: 1\n",
    );
    set(
        "a:\n- 1\nb: 1\n",
        "a",
        json!({"x": 1}),
        "a:\n  x: 1\nb: 1\n",
    );
    set("a: {b: 1} # c\n", "a", json!([1]), "a: # c\n  - 1\n");
}

#[test]
fn items_are_put_in_replaced_and_appended() {
    let text = "# top\nstages:\n  # first\n  - db: {port: 1} # db\n\n  # second\n  - tunnel: {host: x}  # t\n  - master:\n      cfg: 1 # cfg\n";
    let out = edited(text, |e| {
        let at = path("stages");
        e.replace_item(
            &at,
            1,
            json!({"custom": {"name": "tunnel", "cmd": ["a", "b"]}}),
        )?;
        e.insert_item(&at, 1, json!({"custom": {"name": "x"}}))?;
        e.append_item(&at, json!({"z": 1}))?;
        e.set(&path("stages.2.master.cfg"), json!(":config"))
    });
    let expected = "# top\nstages:\n  # first\n  - db: {port: 1} # db\n  - custom:\n      name: x\n\n  # second\n  - custom:  # t\n      name: tunnel\n      cmd:\n        - a\n        - b\n  - master:\n      cfg: :config # cfg\n  - z: 1\n";
    let expected = expected.replace("cfg: :config", "cfg: \":config\"");
    assert_eq!(out, expected, "\n{out}");
}

#[test]
fn comments_within_a_replaced_item_move_to_its_head() {
    let text = "stages:\n  - tunnel:  # to the world\n      host: x # prod\n      # the key\n      key: y\n  - master: {}\n";
    let out = edited(text, |e| {
        e.replace_item(&path("stages"), 0, json!({"custom": {"name": "t"}}))
    });
    let expected = "stages:\n  - custom:  # to the world\n    # prod\n    # the key\n      name: t\n  - master: {}\n";
    assert_eq!(out, expected, "\n{out}");
}

#[test]
fn line_ends_and_the_byte_order_mark_stay() {
    set(
        "\u{feff}a:\r\n  b: 1\r\nc: 2\r\n",
        "a.d.e",
        json!("x"),
        "\u{feff}a:\r\n  b: 1\r\n  d:\r\n    e: x\r\nc: 2\r\n",
    );
    set("\u{feff}a: 1", "b", json!(2), "\u{feff}a: 1\nb: 2\n");
}

#[test]
fn an_alias_is_written_out_where_it_is_edited_and_kept_elsewhere() {
    let text = "x: &x {p: 1}\ny: *x\nz: *x\n";
    set(text, "y.p", json!(2), "x: &x {p: 1}\ny:\n  p: 2\nz: *x\n");
    set(
        text,
        "x.p",
        json!(2),
        "x: &x {p: 2}\ny:\n  p: 1\nz:\n  p: 1\n",
    );
    let merged = "base: &b {p: {q: 1}}\nm:\n  <<: *b\n  r: 1\n";
    set(
        merged,
        "m.p.s",
        json!(2),
        "base: &b {p: {q: 1}}\nm:\n  <<: *b\n  r: 1\n  p:\n    q: 1\n    s: 2\n",
    );
}

#[test]
fn an_edit_that_cannot_be_made_says_where() {
    let doc = Document::parse("a: 1\nb:\n  - x\n").expect("YAML");
    let mut editor = Editor::new(&doc);
    let refused = editor
        .set(&path("a.b"), json!(1))
        .expect_err("a is not a mapping");
    assert_eq!((refused.line, refused.column), (1, 4));
    assert!(editor.set(&path("b.7"), json!(1)).is_err());
    assert!(editor.insert_item(&path("a"), 0, json!(1)).is_err());
}

#[test]
fn three_hundred_edits_of_five_thousand_lines_cost_a_few_readings() {
    use std::fmt::Write;
    const READINGS: u32 = 8;
    let mut text = String::from("stages:\n");
    for i in 0..1250 {
        let _ = write!(
            text,
            "  - custom: # {i}\n      name: n{i}\n      cmd: [a, b] # c\n      port: {i}\n"
        );
    }
    let started = std::time::Instant::now();
    for _ in 0..READINGS {
        Document::parse(&text).expect("the text is YAML");
    }
    let readings = started.elapsed();
    let started = std::time::Instant::now();
    let out = edited(&text, |e| {
        for i in 0..150 {
            e.set(
                &[
                    Seg::from("stages"),
                    Seg::from(i * 8),
                    "custom".into(),
                    "port".into(),
                ],
                json!("p"),
            )?;
            e.set(
                &[
                    Seg::from("stages"),
                    Seg::from(i * 8),
                    "custom".into(),
                    "env".into(),
                ],
                json!({"a": "b"}),
            )?;
        }
        Ok(())
    });
    let took = started.elapsed();
    assert_eq!(out.lines().count(), text.lines().count() + 300);
    eprintln!("300 edits took {took:?}, {READINGS} readings {readings:?}");
    assert!(took < readings);
}
