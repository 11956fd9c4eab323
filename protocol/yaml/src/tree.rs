//! The document as an arena of nodes with byte spans.

use std::borrow::Cow;
use std::ops::Range;

use crate::dialect;
use crate::scalar::Data;

pub(crate) type Id = usize;

#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The content, without anchor and tag. A block scalar starts at its `|` and ends with its
    /// last line; a block collection ends with its last value.
    pub(crate) span: Range<usize>,
    /// Where its anchor or tag starts, if it has one.
    pub(crate) props: Option<usize>,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Scalar {
        text: String,
        /// `|` or `>`
        block: bool,
        data: Data,
    },
    Seq {
        flow: bool,
        items: Vec<Id>,
    },
    Map {
        flow: bool,
        entries: Vec<(Id, Id)>,
    },
    Alias(Id),
}

impl Kind {
    pub(crate) fn is_merge(&self) -> bool {
        matches!(self, Kind::Scalar { data, .. } if *data == Data::Merge)
    }

    /// A list or a mapping in block style.
    pub(crate) fn is_block(&self) -> bool {
        matches!(
            self,
            Kind::Seq { flow: false, .. } | Kind::Map { flow: false, .. }
        )
    }
}

impl Node {
    pub(crate) fn start(&self) -> usize {
        self.props.unwrap_or(self.span.start).min(self.span.start)
    }

    /// Whether no value is written, as in `key:`.
    pub(crate) fn is_absent(&self) -> bool {
        self.span.is_empty() && self.props.is_none()
    }
}

/// Something that only `PyYAML` accepts: a value that JSON cannot represent, or a duplicate key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PyYamlOnly {
    /// Its range in the text.
    pub range: Range<usize>,
    /// What is wrong with it elsewhere.
    pub message: String,
    /// Whether it is a duplicate key.
    pub duplicate: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    pub(crate) root: Id,
    /// Where comments stand, in order.
    pub(crate) comments: Vec<Range<usize>>,
}

impl Tree {
    /// The node itself, or the anchored node of an alias.
    pub(crate) fn target(&self, id: Id) -> Id {
        match self.nodes[id].kind {
            Kind::Alias(target) => target,
            _ => id,
        }
    }

    pub(crate) fn kind(&self, id: Id) -> &Kind {
        &self.nodes[self.target(id)].kind
    }

    pub(crate) fn is_merge(&self, key: Id) -> bool {
        self.kind(key).is_merge()
    }

    /// The form of a key in [`crate::Document::value`], as `json.dumps` writes it.
    pub(crate) fn key(&self, id: Id) -> Option<Cow<'_, str>> {
        let Kind::Scalar { text, data, .. } = self.kind(id) else {
            return None;
        };
        Some(match data {
            Data::Null => "null".into(),
            Data::Bool(b) => b.to_string().into(),
            Data::Number(n) => n.to_string().into(),
            Data::Str | Data::Timestamp | Data::Merge | Data::NonJson(..) => text.as_str().into(),
        })
    }

    /// Keys and values below a node, in the order of the text.
    pub(crate) fn children(&self, id: Id) -> Vec<Id> {
        match &self.nodes[id].kind {
            Kind::Seq { items, .. } => items.clone(),
            Kind::Map { entries, .. } => entries.iter().flat_map(|(k, v)| [*k, *v]).collect(),
            _ => Vec::new(),
        }
    }

    /// The entries of a mapping in the order in which `PyYAML` assigns them: merged ones first.
    pub(crate) fn pairs(&self, map: Id) -> Vec<(Id, Id)> {
        let Kind::Map { entries, .. } = self.kind(map) else {
            return Vec::new();
        };
        let (mut merged, mut own) = (Vec::new(), Vec::new());
        for (key, value) in entries {
            if !self.is_merge(*key) {
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

    /// The same with each key once: the last entry counts.
    pub(crate) fn effective(&self, map: Id) -> Vec<(Id, Id)> {
        let mut seen = std::collections::HashSet::new();
        let pairs = self.pairs(map).into_iter();
        let mut last: Vec<_> = pairs
            .rev()
            .filter(|(key, _)| seen.insert(self.key(*key).unwrap_or_default()))
            .collect();
        last.reverse();
        last
    }
}

/// The offset after the colon of a key.
pub(crate) fn after_colon(text: &str, key_end: usize) -> Option<usize> {
    let at = dialect::skip_trivia(text, key_end);
    (text.as_bytes().get(at) == Some(&b':')).then_some(at + 1)
}
