//! Edits of a user's YAML file.

use serde_json::Value;
use yaml::{Document, Editor, Seg};

/// Values that are hard to write in YAML.
const HARD: [&str; 12] = [
    "yes",
    "",
    "08",
    "1e3",
    "8000:22",
    "a: b",
    "# c",
    "- x",
    "two\nlines\n",
    "tab\there",
    "*a",
    "\u{85}",
];

/// Every value of a parsed file is accessible, and an edit is either refused or has the expected result with all other values
/// unchanged. The first two bytes choose the edit.
pub fn yaml_edit(data: &[u8]) {
    let [place, kind, text @ ..] = data else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let Ok(document) = Document::parse(text) else {
        return;
    };
    assert_eq!(document.text(), text);
    let tree = document.value();
    let paths = paths(&tree);
    for path in paths.iter().take(64) {
        assert!(document.get(path).is_some());
        for key in [false, true] {
            let span = document.nearest_span(path, key);
            assert!(text.get(span).is_some());
        }
    }
    let Some(path) = paths.get(usize::from(*place) % paths.len().max(1)) else {
        return;
    };
    let mut editor = Editor::new(&document);
    let mut wanted = tree.clone();
    let new = Value::from(HARD[usize::from(*kind / 3) % HARD.len()]);
    let noted = match kind % 3 {
        0 => {
            put(&mut wanted, path, new.clone());
            editor.set(path, new)
        }
        1 => {
            let path = [path.clone(), vec![Seg::from("new: key")]].concat();
            put(&mut wanted, &path, new.clone());
            editor.set(&path, new)
        }
        _ => {
            match at(&mut wanted, path) {
                Some(Value::Array(items)) => items.push(new.clone()),
                // An empty list is often written like this.
                Some(null @ Value::Null) => *null = Value::from(vec![new.clone()]),
                _ => {}
            }
            editor.append_item(path, new)
        }
    };
    if noted.is_ok()
        && let Ok(edited) = editor.finish()
    {
        let read = Document::parse(&edited).map(|d| d.value());
        assert_eq!(read.ok(), Some(wanted), "{text:?} became {edited:?}");
    }
}

fn paths(tree: &Value) -> Vec<Vec<Seg>> {
    let mut found = Vec::new();
    let mut todo = vec![(Vec::new(), tree)];
    while let Some((path, value)) = todo.pop() {
        let below = |seg: Seg| [path.clone(), vec![seg]].concat();
        match value {
            Value::Object(map) => {
                todo.extend(map.iter().map(|(k, v)| (below(k.as_str().into()), v)))
            }
            Value::Array(items) => {
                todo.extend(items.iter().enumerate().map(|(i, v)| (below(i.into()), v)))
            }
            _ => {}
        }
        if !path.is_empty() {
            found.push(path);
        }
    }
    found
}

fn at<'a>(tree: &'a mut Value, path: &[Seg]) -> Option<&'a mut Value> {
    path.iter().try_fold(tree, |value, seg| match seg {
        Seg::Key(key) => value.get_mut(key),
        Seg::Index(index) => value.get_mut(index),
    })
}

/// Sets the value at this path.
fn put(tree: &mut Value, path: &[Seg], new: Value) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    match (at(tree, parents), last) {
        (Some(Value::Object(map)), Seg::Key(key)) => drop(map.insert(key.clone(), new)),
        (Some(Value::Array(items)), Seg::Index(index)) => items[*index] = new,
        // A key below a null turns it into a mapping.
        (Some(null @ Value::Null), Seg::Key(key)) => {
            *null = serde_json::json!({ key.as_str(): new });
        }
        _ => {}
    }
}
