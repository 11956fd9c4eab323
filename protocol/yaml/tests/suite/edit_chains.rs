//! Random files in many styles and random edits: the real `PyYAML` reads the expected result, and no comment outside the
//! edit is lost.

use std::cell::RefCell;

use crate::pyyaml::{Answer, PyYaml};
use crate::styled;
use proptest::prelude::*;
use serde_json::{Value, json};
use yaml::{Document, Editor, Seg};

#[derive(Debug, Clone)]
enum Edit {
    Set(usize, Value),
    SetNew(usize, String, Value),
    Insert(usize, usize, Value),
    ReplaceItem(usize, Value),
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z-]{0,6}",
        prop::sample::select(vec![
            "yes",
            "",
            "0x1f",
            "~",
            "a: b",
            "a #b",
            "- x",
            "08",
            "1e3",
            "2001-01-01",
            "<<",
            "=",
            "é",
            "two\nlines",
            "two\nlines\n",
            "tab\there",
            " lead",
            "{x}",
            "x, y",
            "8000:22",
            "a?b",
            "http://h:1/p?q",
            "#c",
            "end:",
            "\u{85}",
            "'",
            "\"",
            "\\",
            "---",
            "...",
            "*a",
            "&a",
            "!t",
            "%x",
            "@",
            "`",
            "|",
            ">",
        ])
        .prop_map(str::to_owned),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = 0..1000usize;
    prop_oneof![
        (place.clone(), value()).prop_map(|(p, v)| Edit::Set(p, v)),
        (place.clone(), word(), value()).prop_map(|(p, k, v)| Edit::SetNew(p, k, v)),
        (place.clone(), 0..9usize, value()).prop_map(|(p, i, v)| Edit::Insert(p, i, v)),
        (place, value()).prop_map(|(p, v)| Edit::ReplaceItem(p, v)),
    ]
}

/// Every path in the tree whose value `fits`.
fn paths(tree: &Value, fits: &dyn Fn(&Value) -> bool) -> Vec<Vec<Seg>> {
    let mut out = Vec::new();
    let mut todo = vec![(Vec::new(), tree)];
    while let Some((path, value)) = todo.pop() {
        if fits(value) {
            out.push(path.clone());
        }
        let below = |seg: Seg| [path.clone(), vec![seg]].concat();
        match value {
            Value::Object(map) => {
                todo.extend(map.iter().map(|(k, v)| (below(k.as_str().into()), v)))
            }
            Value::Array(items) => {
                todo.extend(items.iter().enumerate().map(|(i, v)| (below(i.into()), v)));
            }
            _ => {}
        }
    }
    out
}

fn at<'a>(tree: &'a mut Value, path: &[Seg]) -> &'a mut Value {
    path.iter().fold(tree, |tree, seg| match seg {
        Seg::Key(key) => &mut tree[key.as_str()],
        Seg::Index(i) => &mut tree[*i],
    })
}

fn pick(all: Vec<Vec<Seg>>, n: usize) -> Option<Vec<Seg>> {
    let n = n % all.len().max(1);
    all.into_iter().nth(n)
}

/// Makes the edit in both; `None` when this tree has no place for it.
fn make(edit: Edit, tree: &mut Value, editor: &mut Editor<'_>) -> Option<Result<(), yaml::Error>> {
    Some(match edit {
        Edit::Set(n, value) => {
            let path = pick(paths(tree, &|_| true), n)?;
            *at(tree, &path) = value.clone();
            editor.set(&path, value)
        }
        Edit::SetNew(n, key, value) => {
            let mut path = pick(paths(tree, &Value::is_object), n)?;
            at(tree, &path)[key.as_str()] = value.clone();
            path.push(key.into());
            editor.set(&path, value)
        }
        Edit::Insert(n, index, value) => {
            let path = pick(paths(tree, &Value::is_array), n)?;
            let items = at(tree, &path).as_array_mut()?;
            let index = index % (items.len() + 1);
            items.insert(index, value.clone());
            editor.insert_item(&path, index, value)
        }
        Edit::ReplaceItem(n, value) => {
            let path = pick(
                paths(tree, &|v| v.as_array().is_some_and(|a| !a.is_empty())),
                n,
            )?;
            let items = at(tree, &path).as_array_mut()?;
            let index = n % items.len();
            items[index] = value.clone();
            editor.replace_item(&path, index, value)
        }
    })
}

thread_local! {
    static PYYAML: RefCell<PyYaml> = RefCell::new(PyYaml::start());
}

fn pyyaml(text: &str) -> Answer {
    PYYAML.with_borrow_mut(|python| python.read(text))
}

/// Edits one place and compares with the real `PyYAML`; `Err` is a refusal.
fn edit_once(
    text: &str,
    wanted: &Value,
    edit: impl FnOnce(&mut Editor<'_>) -> Result<(), yaml::Error>,
) -> Result<(), yaml::Error> {
    let doc = Document::parse(text)?;
    let mut editor = Editor::new(&doc);
    edit(&mut editor)?;
    let new = editor.finish()?;
    assert_eq!(pyyaml(&new), Answer::Value(wanted.clone()), "{new}");
    Ok(())
}

#[test]
fn every_place_of_every_file_can_be_set() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let (mut made, mut refused) = (0, Vec::new());
    for file in std::fs::read_dir(corpus).expect("the corpus is there") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
        let tree = Document::parse(&text).expect("YAML").value();
        for path in paths(&tree, &|_| true) {
            for value in [
                json!("a: b"),
                json!({"k": ["v", {"w": "two\nlines\n"}]}),
                json!([1, null]),
            ] {
                let mut wanted = tree.clone();
                *at(&mut wanted, &path) = value.clone();
                let done = edit_once(&text, &wanted, |e| e.set(&path, value));
                made += 1;
                refused.extend(
                    done.err()
                        .map(|e| format!("set {}: {e}", yaml::show(&path))),
                );
            }
        }
    }
    eprintln!(
        "{made} edits, {} refused:\n{}",
        refused.len(),
        refused.join("\n")
    );
    assert!(
        refused.len() * 20 < made,
        "{} of {made} refused:\n{}",
        refused.len(),
        refused.join("\n")
    );
}

proptest! {
    #![proptest_config(crate::cases(400))]

    #[test]
    fn what_is_written_reads_back_exactly(value in value()) {
        let text = yaml::to_yaml(&value);
        prop_assert_eq!(pyyaml(&text), Answer::Value(value.clone()), "{}", text);
        let line = format!("{}\n", yaml::quote(&value.to_string()));
        prop_assert_eq!(pyyaml(&line), Answer::Value(json!(value.to_string())));
    }

    #[test]
    fn a_chain_of_edits_ends_in_the_expected_result(
        start in value(),
        style in any::<u64>(),
        edits in prop::collection::vec(edit(), 1..6),
    ) {
        let mut text = styled::write(&start, style);
        let mut tree = start.clone();
        prop_assert_eq!(pyyaml(&text), Answer::Value(start), "the styled text\n{}", text);
        for edit in edits {
            let doc = Document::parse(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
            let mut editor = Editor::new(&doc);
            let shown = format!("{edit:?}");
            let Some(done) = make(edit, &mut tree, &mut editor) else { continue };
            let new = done.and_then(|()| editor.finish());
            let new = new.map_err(|e| TestCaseError::fail(format!("{shown}: {e}\n{text}")))?;
            prop_assert_eq!(pyyaml(&new), Answer::Value(tree.clone()), "{} on\n{}\ngave\n{}", shown, text, new);
            text = new;
        }
    }
}
