//! Changes to the items of a list.

use serde_json::Value;

use super::Editor;
use crate::error::Error;
use crate::path::{Seg, show};
use crate::tree::Kind;

impl Editor<'_> {
    /// Inserts an item before the original item `index`, or at the end when `index` is the length.
    ///
    /// # Errors
    /// `path` is not a list that is written here, or the list is shorter than `index`.
    pub fn insert_item(&mut self, path: &[Seg], index: usize, item: Value) -> Result<(), Error> {
        self.insert(path, Some(index), item)
    }

    /// Appends an item.
    ///
    /// # Errors
    /// As for [`Editor::insert_item`].
    pub fn append_item(&mut self, path: &[Seg], item: Value) -> Result<(), Error> {
        self.insert(path, None, item)
    }

    /// Inserts an item; without an index, at the end.
    fn insert(&mut self, path: &[Seg], index: Option<usize>, item: Value) -> Result<(), Error> {
        let doc = self.doc;
        let Some(id) = doc.own_path(path) else {
            let why = format!("`{}` is not a list written here", show(path));
            return self.fail(doc.tree.root, why);
        };
        let place = |length: usize| Some(index.unwrap_or(length)).filter(|i| *i <= length);
        match &doc.tree.nodes[id].kind {
            Kind::Seq { items, .. } => {
                if let Some(index) = place(items.len()) {
                    let inserted = self.changes.inserted.entry(id).or_default();
                    inserted.push((index, item));
                    return Ok(());
                }
            }
            Kind::Scalar { .. } if place(0).is_some() && doc.value_of(id, false).is_null() => {
                let list = self.changes.replaced.entry(id);
                let list = list.or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(items) = list {
                    items.push(item);
                }
                return Ok(());
            }
            // The list of the anchor is written out here and changed alone.
            Kind::Alias(_) => {
                let copy = self.changes.value_of(doc, id, false);
                if let Value::Array(items) = self.changes.replaced.entry(id).or_insert(copy)
                    && let Some(index) = place(items.len())
                {
                    items.insert(index, item);
                    return Ok(());
                }
            }
            _ => {}
        }
        let index = index.unwrap_or_default();
        self.fail(id, format!("`{}` has no item {index}", show(path)))
    }

    /// Replaces an item. Comments around it stay, those within it move to its head.
    ///
    /// # Errors
    /// The item does not exist.
    pub fn replace_item(&mut self, path: &[Seg], index: usize, item: Value) -> Result<(), Error> {
        let list = self.doc.own_path(path);
        let old = match list.map(|id| &self.doc.tree.nodes[id].kind) {
            Some(Kind::Seq { items, .. }) => items.get(index).copied(),
            _ => None,
        };
        let Some(old) = old else {
            let root = self.doc.tree.root;
            return self.fail(
                root,
                format!("`{}` has no item {index} to replace", show(path)),
            );
        };
        self.changes.replaced.insert(old, item);
        Ok(())
    }
}
