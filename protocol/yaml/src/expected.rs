//! The expected value of an edited document, computed without its text.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::changes::Changes;
use crate::document::Document;
use crate::tree::{Id, Kind};

/// Writes out each alias whose anchored value changes or is removed, so that the alias keeps its value.
pub(crate) fn write_out_aliases(doc: &Document, changes: &mut Changes) {
    let mut touched = HashSet::new();
    let mut gone = HashSet::new();
    mark(doc, changes, doc.tree.root, false, &mut touched, &mut gone);
    for (id, node) in doc.tree.nodes.iter().enumerate() {
        if let Kind::Alias(target) = node.kind
            && touched.contains(&target)
            && !gone.contains(&id)
        {
            let value = changes.value_of(doc, target, true);
            changes.replaced.insert(id, value);
        }
    }
}

/// Whether anything in the node changes; `gone` collects the nodes that are removed from the text.
fn mark(
    doc: &Document,
    changes: &Changes,
    id: Id,
    dropped: bool,
    touched: &mut HashSet<Id>,
    gone: &mut HashSet<Id>,
) -> bool {
    let dropped = dropped || changes.is_replaced(id);
    let mut changed =
        dropped || changes.added.contains_key(&id) || changes.inserted.contains_key(&id);
    for child in doc.tree.children(id) {
        changed |= mark(doc, changes, child, dropped, touched, gone);
    }
    if dropped {
        gone.insert(id);
    }
    if changed {
        touched.insert(id);
    }
    changed
}

/// The value that the result must have.
pub(crate) fn expected(doc: &Document, changes: &Changes, id: Id) -> Value {
    if let Some(new) = changes.replaced.get(&id) {
        return new.clone();
    }
    match &doc.tree.nodes[id].kind {
        Kind::Map { entries, .. } => {
            let own: HashSet<Id> = entries.iter().map(|(_, value)| *value).collect();
            let mut map = Map::new();
            for (key, value) in doc.tree.pairs(id) {
                let Some(key) = doc.tree.key(key) else {
                    continue;
                };
                let value = match own.contains(&value) {
                    true => expected(doc, changes, value),
                    false => changes.value_of(doc, value, true),
                };
                map.insert(key.into_owned(), value);
            }
            let added = changes.added.get(&id).into_iter().flatten();
            map.extend(added.map(|(k, v)| (k.clone(), v.clone())));
            Value::Object(map)
        }
        Kind::Seq { items, .. } => {
            let mut out = Vec::new();
            for (i, item) in items.iter().enumerate() {
                out.extend(changes.inserted(id, i).cloned());
                out.push(expected(doc, changes, *item));
            }
            out.extend(changes.inserted(id, items.len()).cloned());
            Value::Array(out)
        }
        _ => changes.value_of(doc, id, true),
    }
}
