//! A batch of changes to one document. They refer to the original document and are applied together, so indices always mean
//! the items of the original.

use serde_json::{Map, Value};

use crate::changes::Changes;
use crate::document::Document;
use crate::error::Error;
use crate::path::{Seg, show};
use crate::render;
use crate::scalars::Scalar;
use crate::tree::{Id, Kind};

mod items;

/// Collects changes; [`Editor::finish`] returns the new text.
#[derive(Debug)]
pub struct Editor<'a> {
    doc: &'a Document,
    changes: Changes,
}

impl<'a> Editor<'a> {
    #[must_use]
    pub fn new(doc: &'a Document) -> Editor<'a> {
        let changes = Changes::default();
        Editor { doc, changes }
    }

    /// Sets the value at `path` and creates the mappings on the way. An equal value stays as written.
    ///
    /// A path through an alias, or to a merged key, changes this place alone: the value is written out here.
    ///
    /// # Errors
    /// The path leads through a single value or a missing item.
    pub fn set(&mut self, path: &[Seg], value: Value) -> Result<(), Error> {
        let mut id = self.doc.tree.root;
        for (depth, seg) in path.iter().enumerate() {
            let rest = &path[depth..];
            if let Some(new) = self.changes.replaced.get_mut(&id) {
                let done = put(new, rest, value);
                return self.checked(done, id, path);
            }
            id = match (&self.doc.tree.nodes[id].kind, seg) {
                (kind @ (Kind::Alias(_) | Kind::Scalar { .. }), _)
                    if matches!(kind, Kind::Alias(_)) || self.doc.value_of(id, false).is_null() =>
                {
                    let mut new = self.changes.value_of(self.doc, id, true);
                    let done = put(&mut new, rest, value);
                    self.changes.replaced.insert(id, new);
                    return self.checked(done, id, path);
                }
                (Kind::Map { .. }, Seg::Key(key)) => match self.doc.own_entry(id, key) {
                    Some(own) => own,
                    None => return self.set_new(id, path, depth, value),
                },
                (Kind::Seq { items, .. }, Seg::Index(i)) if *i < items.len() => items[*i],
                _ => return self.fail(id, format!("`{}` cannot be set here", show(path))),
            };
        }
        self.assign(id, value);
        Ok(())
    }

    /// Replaces scalars below `scope`. A scalar that is used only there keeps its anchor and its aliases; any other is written
    /// out where it is used. Call it before all other changes.
    ///
    /// # Errors
    /// As for [`Editor::set`].
    pub fn substitute(
        &mut self,
        scope: &[Seg],
        values: Vec<(Scalar<'_>, Value)>,
    ) -> Result<(), Error> {
        if values.is_empty() {
            return Ok(());
        }
        let outside = self.doc.reachable_outside(scope);
        for (scalar, value) in values {
            if outside[scalar.id] {
                self.set(&scalar.path, value)?;
            } else {
                self.changes.substituted.insert(scalar.id, value.clone());
                self.changes.replaced.insert(scalar.id, value);
            }
        }
        Ok(())
    }

    /// Returns the new text. Bytes outside the changes stay the same.
    ///
    /// # Errors
    /// The new text, as `PyYAML` reads it, would differ from the requested result.
    pub fn finish(self) -> Result<String, Error> {
        self.finish_document().map(|d| d.text)
    }

    /// Returns the new document.
    ///
    /// # Errors
    /// As for [`Editor::finish`].
    pub fn finish_document(self) -> Result<Document, Error> {
        render::apply(self.doc, self.changes)
    }

    fn assign(&mut self, id: Id, value: Value) {
        let changes = &self.changes;
        let untouched = !changes.replaced.contains_key(&id)
            && !changes.added.contains_key(&id)
            && !changes.inserted.contains_key(&id);
        if !untouched || self.doc.value_of(id, true) != value {
            self.changes.replaced.insert(id, value);
        }
    }

    /// Sets an entry that the mapping itself does not have; a merge may provide it.
    fn set_new(&mut self, map: Id, path: &[Seg], depth: usize, value: Value) -> Result<(), Error> {
        let (Seg::Key(key), rest) = (&path[depth], &path[depth + 1..]) else {
            return self.fail(map, format!("`{}` needs a key here", show(path)));
        };
        let merged = self.doc.find(&path[..=depth]);
        let merged = merged.map(|(_, id)| self.changes.value_of(self.doc, id, false));
        let added = self.changes.added.entry(map).or_default();
        let slot = added.entry(key.as_str());
        let slot = slot.or_insert_with(|| merged.unwrap_or_default());
        let done = put(slot, rest, value);
        self.checked(done, map, path)
    }

    fn checked(&self, done: bool, at: Id, path: &[Seg]) -> Result<(), Error> {
        if done {
            return Ok(());
        }
        self.fail(at, format!("`{}` cannot be set here", show(path)))
    }

    fn fail<T>(&self, id: Id, message: impl Into<String>) -> Result<T, Error> {
        let at = self.doc.tree.nodes[id].start();
        Err(Error::at(&self.doc.text, at, message))
    }
}

/// Sets a value in a new tree.
fn put(tree: &mut Value, path: &[Seg], value: Value) -> bool {
    let Some((seg, rest)) = path.split_first() else {
        *tree = value;
        return true;
    };
    if tree.is_null() {
        *tree = Value::Object(Map::new());
    }
    match (tree, seg) {
        (Value::Object(map), Seg::Key(key)) => {
            put(map.entry(key.as_str()).or_insert(Value::Null), rest, value)
        }
        (Value::Array(items), Seg::Index(i)) => {
            items.get_mut(*i).is_some_and(|item| put(item, rest, value))
        }
        _ => false,
    }
}
