//! Changes to a document, by the nodes of the original.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::document::Document;
use crate::tree::Id;

/// Changes to the nodes of a document.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) replaced: HashMap<Id, Value>,
    pub(crate) added: HashMap<Id, Map<String, Value>>,
    /// New items, each with the index of the original item that it precedes, in the order of the calls.
    pub(crate) inserted: HashMap<Id, Vec<(usize, Value)>>,
    /// New values of scalars wherever they are used; their aliases stay.
    pub(crate) substituted: HashMap<Id, Value>,
}

impl Changes {
    /// The value of a node with the substituted scalars.
    pub(crate) fn value_of(&self, doc: &Document, id: Id, marked: bool) -> Value {
        doc.value_with(id, marked, &self.substituted)
    }

    /// Whether the node gets another value than its aliases.
    pub(crate) fn is_replaced(&self, id: Id) -> bool {
        let new = self.replaced.get(&id);
        new.is_some_and(|new| self.substituted.get(&id) != Some(new))
    }

    /// The new items before an original item of a list.
    pub(crate) fn inserted(&self, seq: Id, index: usize) -> impl Iterator<Item = &Value> {
        let all = self.inserted.get(&seq).into_iter().flatten();
        all.filter(move |(i, _)| *i == index).map(|(_, new)| new)
    }
}
