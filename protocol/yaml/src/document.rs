use serde_json::{Map, Value};

use crate::error::Error;
use crate::lines::{Lines, Location};
use crate::path::Seg;
use crate::scalar::Data;
use crate::tree::{self, Id, Kind, Tree};

/// A text and what `PyYAML` reads in it.
#[derive(Debug, Clone)]
pub struct Document {
    text: String,
    lines: Lines,
    tree: Tree,
}

impl Document {
    /// Reads one document. An empty text is `null`.
    ///
    /// # Errors
    /// What `PyYAML`'s `safe_load` refuses; and, more strictly than it: duplicate keys, more than one
    /// document, integers beyond 64 bits, `.inf` and `.nan`, `!!binary` and other values that
    /// JSON cannot hold, aliases within what they stand for or that expand beyond all measure, and U+0085, U+2028,
    /// U+2029 written raw.
    pub fn parse(text: &str) -> Result<Document, Error> {
        let lines = Lines::of(text);
        let tree = tree::build(text, &lines)?;
        Ok(Document {
            text: text.to_owned(),
            lines,
            tree,
        })
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What `safe_load` returns. A date is the string as it was written; a key that is no string
    /// takes the form that `json.dumps` gives it (`on:` is `"true"`).
    #[must_use]
    pub fn value(&self) -> Value {
        self.value_of(self.tree.root)
    }

    /// The value at a path, through aliases and merge keys.
    #[must_use]
    pub fn get(&self, path: &[Seg]) -> Option<Value> {
        self.find(path).map(|(_, id)| self.value_of(id))
    }

    /// Where the value at `path` starts; for an alias, where the alias is written.
    #[must_use]
    pub fn locate(&self, path: &[Seg]) -> Option<Location> {
        let (_, id) = self.find(path)?;
        Some(self.location(self.tree.nodes[id].start()))
    }

    /// Where the key that holds the value is written; for an item of a list, the item.
    #[must_use]
    pub fn locate_key(&self, path: &[Seg]) -> Option<Location> {
        let (key, id) = self.find(path)?;
        Some(self.location(self.tree.nodes[key.unwrap_or(id)].start()))
    }

    fn location(&self, offset: usize) -> Location {
        self.lines.locate(&self.text, offset)
    }

    fn target(&self, id: Id) -> Id {
        match self.tree.nodes[id].kind {
            Kind::Alias(target) => target,
            _ => id,
        }
    }

    fn kind(&self, id: Id) -> &Kind {
        &self.tree.nodes[self.target(id)].kind
    }

    /// The node at `path` and the key that leads to it.
    fn find(&self, path: &[Seg]) -> Option<(Option<Id>, Id)> {
        let mut at = (None, self.tree.root);
        for seg in path {
            at = match (seg, self.kind(at.1)) {
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
        self.pairs(map)
            .into_iter()
            .rev()
            .find(|(key, _)| tree::key_text(self.kind(*key)).is_some_and(|k| k == name))
    }

    /// The entries of a mapping in the order in which `PyYAML` assigns them: merged ones first.
    fn pairs(&self, map: Id) -> Vec<(Id, Id)> {
        let Kind::Map { entries, .. } = self.kind(map) else {
            return Vec::new();
        };
        let (mut merged, mut own) = (Vec::new(), Vec::new());
        for (key, value) in entries {
            if !matches!(
                self.kind(*key),
                Kind::Scalar {
                    data: Data::Merge,
                    ..
                }
            ) {
                own.push((*key, *value));
            } else if let Kind::Seq { items, .. } = self.kind(*value) {
                merged.extend(items.iter().rev().flat_map(|i| self.pairs(*i)));
            } else {
                merged.extend(self.pairs(*value));
            }
        }
        merged.append(&mut own);
        merged
    }

    fn value_of(&self, id: Id) -> Value {
        match self.kind(id) {
            Kind::Scalar { text, data, .. } => match data {
                Data::Null => Value::Null,
                Data::Bool(b) => Value::Bool(*b),
                Data::Number(n) => Value::Number(n.clone()),
                Data::Str | Data::Timestamp | Data::Merge => Value::String(text.clone()),
            },
            Kind::Seq { items, .. } => items.iter().map(|i| self.value_of(*i)).collect(),
            Kind::Map { .. } => {
                let mut map = Map::new();
                for (key, value) in self.pairs(id) {
                    if let Some(key) = tree::key_text(self.kind(key)) {
                        map.insert(key.into_owned(), self.value_of(value));
                    }
                }
                Value::Object(map)
            }
            Kind::Alias(_) => Value::Null,
        }
    }
}
