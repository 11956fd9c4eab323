//! Finds strings in a document.

use std::ops::Range;

use crate::document::Document;
use crate::path::Seg;
use crate::scalar::Data;
use crate::tree::{Id, Kind};

/// A string in a document.
#[derive(Debug, Clone)]
pub struct Scalar<'a> {
    /// The path to it, through aliases and merge keys. For a key, the path to its value.
    pub path: Vec<Seg>,
    /// Its value.
    pub text: &'a str,
    /// Whether it is the key of an entry.
    pub is_key: bool,
    pub(crate) id: Id,
}

impl Document {
    /// The strings in the value at `path` that `wanted` selects, with keys, in the order of reading. The value of an anchor is
    /// visited at each of its aliases.
    #[must_use]
    pub fn scalars(&self, path: &[Seg], wanted: impl Fn(&str) -> bool) -> Vec<Scalar<'_>> {
        let mut found = Vec::new();
        if let Some((_, id)) = self.find(path) {
            let mut path = path.to_vec();
            self.visit(id, &mut path, &wanted, &mut found);
        }
        found
    }

    fn visit<'a>(
        &'a self,
        id: Id,
        path: &mut Vec<Seg>,
        wanted: &impl Fn(&str) -> bool,
        found: &mut Vec<Scalar<'a>>,
    ) {
        let take = |id: Id, path: &[Seg], is_key: bool| match self.tree.kind(id) {
            Kind::Scalar {
                text,
                data: Data::Str,
                ..
            } if wanted(text) => {
                let (path, id) = (path.to_vec(), self.tree.target(id));
                Some(Scalar {
                    path,
                    text,
                    is_key,
                    id,
                })
            }
            _ => None,
        };
        match self.tree.kind(id) {
            Kind::Seq { items, .. } => {
                for (i, item) in items.iter().enumerate() {
                    path.push(i.into());
                    self.visit(*item, path, wanted, found);
                    path.pop();
                }
            }
            Kind::Map { .. } => {
                for (key, value) in self.tree.effective(id) {
                    let Some(name) = self.tree.key(key) else {
                        continue;
                    };
                    path.push(name.into_owned().into());
                    found.extend(take(key, path, true));
                    self.visit(value, path, wanted, found);
                    path.pop();
                }
            }
            _ => found.extend(take(id, path, false)),
        }
    }

    /// The range of a part of a scalar's text, or of the whole scalar when it is written in an escaped form.
    #[must_use]
    pub fn span_in(&self, scalar: &Scalar<'_>, part: Range<usize>) -> Range<usize> {
        let span = self.tree.nodes[scalar.id].span.clone();
        let (Some(written), Some(text)) =
            (self.text.get(span.clone()), scalar.text.get(part.clone()))
        else {
            return span;
        };
        let nth = scalar.text[..part.start].matches(text).count();
        match written.match_indices(text).nth(nth) {
            Some((at, _)) if !text.is_empty() => span.start + at..span.start + at + text.len(),
            _ => span,
        }
    }

    /// For each node, whether something outside of the value at `path` uses it.
    pub(crate) fn reachable_outside(&self, path: &[Seg]) -> Vec<bool> {
        let mut seen = vec![false; self.tree.nodes.len()];
        let scope = self.find(path).map(|(_, id)| id);
        self.mark_from(self.tree.root, scope, &mut seen);
        seen
    }

    fn mark_from(&self, id: Id, without: Option<Id>, seen: &mut [bool]) {
        if Some(id) == without || seen[id] {
            return;
        }
        seen[id] = true;
        if let Kind::Alias(target) = self.tree.nodes[id].kind {
            self.mark_from(target, None, seen);
        }
        for child in self.tree.children(id) {
            self.mark_from(child, without, seen);
        }
    }

    /// The range of the value at `path`, or of its key; if it does not exist, of the key of the innermost existing parent.
    #[must_use]
    pub fn nearest_span(&self, path: &[Seg], key: bool) -> Range<usize> {
        let span = |id: Id| self.tree.nodes[id].span.clone();
        for depth in (0..=path.len()).rev() {
            match self.find(&path[..depth]) {
                Some((Some(name), _)) if key || depth < path.len() => return span(name),
                Some((_, id)) if !span(id).is_empty() || depth == 0 => return span(id),
                Some((Some(name), _)) => return span(name),
                _ => {}
            }
        }
        0..0
    }
}
