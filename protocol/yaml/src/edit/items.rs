//! Changes to the items of a list.

use serde_json::Value;

use super::Editor;
use crate::error::Error;
use crate::path::{Seg, show};
use crate::tree::Kind;

impl Editor<'_> {
    /// Puts an item before the original item `index`, or at the end when that is the length.
    ///
    /// # Errors
    /// `path` is no list that is written here, or it is shorter than `index`.
    pub fn insert_item(&mut self, path: &[Seg], index: usize, item: Value) -> Result<(), Error> {
        let root = self.doc.tree.root;
        let Some(id) = self.doc.own_path(path) else {
            return self.fail(root, format!("`{}` is not a list written here", show(path)));
        };
        match &self.doc.tree.nodes[id].kind {
            Kind::Seq { items, .. } if index <= items.len() => {
                let inserted = self.changes.inserted.entry(id).or_default();
                inserted.push((index, item));
                Ok(())
            }
            Kind::Scalar { .. } if index == 0 && self.doc.value_of(id, false).is_null() => {
                let list = self.changes.replaced.entry(id);
                let list = list.or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(items) = list {
                    items.push(item);
                }
                Ok(())
            }
            // Its list is written out here, and is one that nobody else uses.
            Kind::Alias(_) => match self.written_out(id) {
                Value::Array(items) if index <= items.len() => {
                    items.insert(index, item);
                    Ok(())
                }
                _ => self.fail(id, format!("`{}` has no place {index}", show(path))),
            },
            _ => self.fail(id, format!("`{}` has no place {index}", show(path))),
        }
    }

    /// Puts an item at the end.
    ///
    /// # Errors
    /// As for [`Editor::insert_item`].
    pub fn append_item(&mut self, path: &[Seg], item: Value) -> Result<(), Error> {
        let count = match self
            .doc
            .own_path(path)
            .map(|id| &self.doc.tree.nodes[id].kind)
        {
            Some(Kind::Seq { items, .. }) => items.len(),
            Some(Kind::Alias(_)) => {
                let id = self.doc.own_path(path).unwrap_or(self.doc.tree.root);
                self.written_out(id).as_array().map_or(0, Vec::len)
            }
            _ => 0,
        };
        self.insert_item(path, count, item)
    }

    /// What is to stand in the place of an alias.
    fn written_out(&mut self, alias: crate::tree::Id) -> &mut Value {
        let copy = self.changes.value_of(self.doc, alias, false);
        let list = self.changes.replaced.entry(alias);
        list.or_insert(copy)
    }

    /// Puts another item into the place of one. Comments around it stay, those within it move to its head.
    ///
    /// # Errors
    /// There is no such item.
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
