//! Changes within `[]` and `{}`: values stay on one line, separated by commas.

use serde_json::{Map, Value};

use super::Renderer;
use crate::emit;
use crate::error::Error;
use crate::layout::Parent;
use crate::tree::Id;

impl Renderer<'_> {
    pub(super) fn replace_in_flow(&mut self, id: Id, parent: Parent, value: &Value) {
        let node = &self.doc.tree.nodes[id];
        let mut text = emit::flow(value);
        if let Some(anchor) = self.kept_anchor(id) {
            text = format!("{anchor} {text}");
        }
        match parent {
            Parent::Entry { at, .. } if node.is_absent() => {
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
        for (i, item) in items.iter().enumerate() {
            let start = nodes[*item].start();
            let inserted: String = self
                .changes
                .inserted(seq, i)
                .map(|n| emit::flow(n) + ", ")
                .collect();
            if !inserted.is_empty() {
                self.push(start..start, inserted);
            }
            self.value(*item, Parent::Root, true)?;
        }
        let inserted: String = self
            .changes
            .inserted(seq, items.len())
            .map(|n| format!(", {}", emit::flow(n)))
            .collect();
        if let (false, Some(last)) = (inserted.is_empty(), items.last()) {
            let end = nodes[*last].span.end;
            self.push(end..end, inserted);
        }
        Ok(())
    }
}
