//! Within `[]` and `{}`: everything stays on its line, commas are ours to keep.

use std::ops::Range;

use serde_json::{Map, Value};

use super::{Place, Renderer};
use crate::dialect::skip_trivia;
use crate::emit;
use crate::error::Error;
use crate::layout::Owner;
use crate::tree::Id;

impl Renderer<'_> {
    pub(super) fn replace_in_flow(&mut self, id: Id, owner: Owner, value: &Value) {
        let node = &self.doc.tree.nodes[id];
        let mut text = emit::flow(value);
        if let Some(anchor) = self.kept_anchor(id) {
            text = format!("{anchor} {text}");
        }
        match owner {
            Owner::Entry { at, .. } if node.is_absent() => {
                let colon = if self.text()[..at].ends_with(':') {
                    " "
                } else {
                    ": "
                };
                self.push(at..at, format!("{colon}{text}"));
            }
            _ => self.push(node.start()..node.span.end, text),
        }
    }

    pub(super) fn add_in_flow(&mut self, entries: &[(Id, Id)], added: &Map<String, Value>) {
        let Some((key, value)) = entries.last() else {
            return;
        };
        let nodes = &self.doc.tree.nodes;
        let end = nodes[*value].span.end.max(nodes[*key].span.end);
        let text: String = added
            .iter()
            .map(|(k, v)| format!(", {}", emit::flow_entry(k, v)))
            .collect();
        self.push(end..end, text);
    }

    pub(super) fn flow_items(&mut self, seq: Id, items: &[Id]) -> Result<(), Error> {
        let nodes = &self.doc.tree.nodes;
        let places = items.iter().map(|item| Place {
            range: nodes[*item].start()..nodes[*item].span.end,
            gone: self.changes.removed.contains(item),
        });
        self.remove(&places.collect::<Vec<_>>(), true);
        for (i, item) in items.iter().enumerate() {
            let start = nodes[*item].start();
            let fresh: String = self
                .changes
                .inserted(seq, i)
                .map(|n| emit::flow(&n.value) + ", ")
                .collect();
            if !fresh.is_empty() {
                self.push(start..start, fresh);
            }
            if !self.changes.removed.contains(item) {
                self.value(*item, Owner::Root, true)?;
            }
        }
        let fresh: String = self
            .changes
            .inserted(seq, items.len())
            .map(|n| format!(", {}", emit::flow(&n.value)))
            .collect();
        if let (false, Some(last)) = (fresh.is_empty(), items.last()) {
            let end = nodes[*last].span.end;
            self.push(end..end, fresh);
        }
        Ok(())
    }

    /// With the comma behind or, at the end, the comma before.
    pub(super) fn remove_in_flow(
        &mut self,
        gone: Range<usize>,
        next: Option<usize>,
        before: Option<usize>,
    ) {
        if let Some(next) = next {
            self.push(gone.start..next, "");
            return;
        }
        let comma = before.map(|b| skip_trivia(self.text(), b));
        match comma {
            Some(comma)
                if self.text()[comma + 1..gone.start]
                    .bytes()
                    .all(|b| b == b' ') =>
            {
                self.push(comma..gone.end, "");
            }
            Some(comma) => {
                // A comment may stand between.
                self.push(comma..comma + 1, "");
                self.push(gone, "");
            }
            None => self.push(gone, ""),
        }
    }
}
