use std::collections::HashMap;

use serde_json::Value;

use crate::build;
use crate::emit;
use crate::error::Error;
use crate::path::Seg;
use crate::scalar::Data;
use crate::tree::{Id, Kind, PyYamlOnly, Tree};

/// A text, and the document that `PyYAML` reads in it.
#[derive(Debug, Clone)]
pub struct Document {
    pub(crate) text: String,
    pub(crate) tree: Tree,
    as_pyyaml: bool,
    pyyaml_only: Vec<PyYamlOnly>,
}

impl Document {
    /// Reads one document. An empty text is `null`.
    ///
    /// # Errors
    /// What `PyYAML`'s `safe_load` refuses, and also: duplicate keys, more than one document, integers beyond 64 bits, `.inf`
    /// and `.nan`, `!!binary` and other values that JSON cannot represent, aliases inside their own anchor, aliases that
    /// expand to too many values, and U+0085, U+2028, U+2029 without an escape.
    pub fn parse(text: &str) -> Result<Document, Error> {
        Document::read(text, false)
    }

    /// The same, but accepts what [only `PyYAML` accepts](Document::pyyaml_only): duplicate keys, of which the last counts,
    /// integers beyond 64 bits, `.inf`, `.nan`, `!!binary`, `!!set`, `!!omap` and `!!pairs`. They stay as written.
    ///
    /// # Errors
    /// As for [`Document::parse`], except these.
    pub fn parse_as_pyyaml(text: &str) -> Result<Document, Error> {
        Document::read(text, true)
    }

    fn read(text: &str, as_pyyaml: bool) -> Result<Document, Error> {
        let (tree, pyyaml_only) = build::build(text, as_pyyaml)?;
        Ok(Document {
            text: text.to_owned(),
            tree,
            as_pyyaml,
            pyyaml_only,
        })
    }

    /// Parses another text by the same rules.
    pub(crate) fn parse_alike(&self, text: &str) -> Result<Document, Error> {
        Document::read(text, self.as_pyyaml)
    }

    /// What [`Document::parse`] refuses and `PyYAML` accepts.
    #[must_use]
    pub fn pyyaml_only(&self) -> &[PyYamlOnly] {
        &self.pyyaml_only
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What `safe_load` returns. A date is the string as written; a key that is not a string has the form that `json.dumps`
    /// gives it (`on:` is `"true"`). A scalar that JSON cannot represent is the nearest number, or null.
    #[must_use]
    pub fn value(&self) -> Value {
        self.value_of(self.tree.root, false)
    }

    /// The value at a path, through aliases and merge keys.
    #[must_use]
    pub fn get(&self, path: &[Seg]) -> Option<Value> {
        self.find(path).map(|(_, id)| self.value_of(id, false))
    }

    /// Whether there is a value at a path, through aliases and merge keys.
    #[must_use]
    pub fn contains(&self, path: &[Seg]) -> bool {
        self.find(path).is_some()
    }

    /// The node at `path` and the key that leads to it.
    pub(crate) fn find(&self, path: &[Seg]) -> Option<(Option<Id>, Id)> {
        let mut at = (None, self.tree.root);
        for seg in path {
            at = match (seg, self.tree.kind(at.1)) {
                (Seg::Index(i), Kind::Seq { items, .. }) => (None, *items.get(*i)?),
                (Seg::Key(name), Kind::Map { .. }) => {
                    let (key, value) = self.entry(at.1, name)?;
                    (Some(key), value)
                }
                _ => return None,
            };
        }
        Some(at)
    }

    fn entry(&self, map: Id, name: &str) -> Option<(Id, Id)> {
        self.tree
            .pairs(map)
            .into_iter()
            .rev()
            .find(|(key, _)| self.tree.key(*key).is_some_and(|k| k == name))
    }

    /// The value of an entry of the mapping itself, without merged ones.
    pub(crate) fn own_entry(&self, map: Id, name: &str) -> Option<Id> {
        let Kind::Map { entries, .. } = &self.tree.nodes[map].kind else {
            return None;
        };
        let is =
            |key: Id| !self.tree.is_merge(key) && self.tree.key(key).is_some_and(|k| k == name);
        entries.iter().rev().find(|(k, _)| is(*k)).map(|(_, v)| *v)
    }

    /// Whether the value at `path` is written there, and is not an alias or reached through one.
    #[must_use]
    pub fn is_written_at(&self, path: &[Seg]) -> bool {
        let own = self.own_path(path).map(|id| &self.tree.nodes[id].kind);
        own.is_some_and(|kind| !matches!(kind, Kind::Alias(_)))
    }

    /// The node at `path` if it is written there, not reached through aliases or merges.
    pub(crate) fn own_path(&self, path: &[Seg]) -> Option<Id> {
        path.iter().try_fold(self.tree.root, |id, seg| {
            match (seg, &self.tree.nodes[id].kind) {
                (Seg::Key(name), _) => self.own_entry(id, name),
                (Seg::Index(i), Kind::Seq { items, .. }) => items.get(*i).copied(),
                _ => None,
            }
        })
    }

    /// The value of a node. With `marked`, dates and scalars that JSON cannot represent keep their text, distinct from strings.
    pub(crate) fn value_of(&self, id: Id, marked: bool) -> Value {
        self.value_with(id, marked, &HashMap::new())
    }

    /// The same with other values for some nodes.
    pub(crate) fn value_with(&self, id: Id, marked: bool, others: &HashMap<Id, Value>) -> Value {
        if let Some(other) = others.get(&self.tree.target(id)) {
            return other.clone();
        }
        match self.tree.kind(id) {
            Kind::Scalar { text, data, .. } => match data {
                Data::Null => Value::Null,
                Data::Bool(b) => Value::Bool(*b),
                Data::Number(n) => Value::Number(n.clone()),
                Data::Timestamp if marked => emit::marked(text),
                Data::NonJson(tag, _) if marked => emit::written(*tag, text),
                Data::NonJson(_, near) => near.clone().map_or(Value::Null, Value::Number),
                Data::Str | Data::Timestamp | Data::Merge => Value::String(text.clone()),
            },
            Kind::Seq { items, .. } => {
                let items = items.iter().map(|i| self.value_with(*i, marked, others));
                items.collect()
            }
            Kind::Map { .. } => {
                let pairs = self.tree.pairs(id).into_iter();
                let entries = pairs.filter_map(|(key, value)| {
                    Some((
                        self.tree.key(key)?.into_owned(),
                        self.value_with(value, marked, others),
                    ))
                });
                Value::Object(entries.collect())
            }
            Kind::Alias(_) => Value::Null,
        }
    }
}
