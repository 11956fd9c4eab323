//! What is to become of a document, noted against it as it was read.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::document::Document;
use crate::tree::Id;

/// What is to become of the nodes of a document.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) replaced: HashMap<Id, Value>,
    pub(crate) added: HashMap<Id, Map<String, Value>>,
    /// Before which of the original items; in the order of the calls.
    pub(crate) inserted: HashMap<Id, Vec<(usize, Value)>>,
    /// What scalars stand for wherever they are used: their aliases stay.
    pub(crate) substituted: HashMap<Id, Value>,
}

impl Changes {
    /// What a node reads as when its own place changes, and nothing else.
    pub(crate) fn value_of(&self, doc: &Document, id: Id, marked: bool) -> Value {
        doc.value_with(id, marked, &self.substituted)
    }

    /// Whether the node is to read otherwise than its aliases.
    pub(crate) fn is_replaced(&self, id: Id) -> bool {
        let new = self.replaced.get(&id);
        new.is_some_and(|new| self.substituted.get(&id) != Some(new))
    }

    /// What comes before an original item of a list.
    pub(crate) fn inserted(&self, seq: Id, index: usize) -> impl Iterator<Item = &Value> {
        let all = self.inserted.get(&seq).into_iter().flatten();
        all.filter(move |(i, _)| *i == index).map(|(_, new)| new)
    }
}
