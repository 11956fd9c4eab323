//! What is to become of a document, noted against it as it was read.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::document::Document;
use crate::error::Error;
use crate::tree::Id;

/// What is to become of the nodes of a document.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) replaced: HashMap<Id, New>,
    /// Values of entries, and items, that go.
    pub(crate) removed: HashSet<Id>,
    pub(crate) added: HashMap<Id, Map<String, Value>>,
    /// Before which of the original items; in the order of the calls.
    pub(crate) inserted: HashMap<Id, Vec<(usize, New)>>,
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
        new.is_some_and(|new| self.substituted.get(&id) != Some(&new.value))
    }

    /// What comes before an original item of a list.
    pub(crate) fn inserted(&self, seq: Id, index: usize) -> impl Iterator<Item = &New> {
        let all = self.inserted.get(&seq).into_iter().flatten();
        all.filter(move |(i, _)| *i == index).map(|(_, new)| new)
    }
}

/// A new item of a list.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Value(Value),
    /// Block-style YAML, taken as it is but for its indent; comments are welcome.
    Text(String),
}

impl From<Value> for Item {
    fn from(value: Value) -> Item {
        Item::Value(value)
    }
}

/// A value and, if the caller gave one, the text for it.
#[derive(Debug, Clone)]
pub(crate) struct New {
    pub(crate) value: Value,
    pub(crate) text: Option<String>,
}

impl New {
    pub(crate) fn value(value: Value) -> New {
        New { value, text: None }
    }

    pub(crate) fn item(item: Item) -> Result<New, Error> {
        match item {
            Item::Value(value) => Ok(New::value(value)),
            Item::Text(text) => Ok(New {
                value: Document::parse(&text)?.value(),
                text: Some(text),
            }),
        }
    }
}
