//! Changes to lists in block style.

use serde_json::Value;

use super::Renderer;
use crate::dialect::skip_trivia;
use crate::emit;
use crate::error::Error;
use crate::layout::Parent;
use crate::splice::column;
use crate::tree::Id;

impl Renderer<'_> {
    pub(super) fn items(&mut self, seq: Id, items: &[Id]) -> Result<(), Error> {
        let doc = self.doc;
        let mut dash = doc.tree.nodes[seq].span.start;
        let indent = column(self.text(), dash);
        let mut dashes = Vec::new();
        for item in items {
            dashes.push(dash);
            let end = doc.tree.nodes[*item].span.end.max(dash + 1);
            dash = skip_trivia(self.text(), end);
        }
        for (i, item) in items.iter().enumerate() {
            let inserted: Vec<&Value> = self.changes.inserted(seq, i).collect();
            let dash = dashes[i];
            if i == 0 {
                let pad = " ".repeat(indent);
                let lines = inserted.iter().map(|n| self.item_lines(n, indent) + &pad);
                let text: String = lines.collect();
                if !text.is_empty() {
                    self.push(dash..dash, text);
                }
            } else {
                self.insert_items(&inserted, items[i - 1], dashes[i - 1], indent);
            }
            self.value(*item, Parent::Item { at: dash + 1 }, false)?;
        }
        if let (Some(last), Some(dash)) = (items.last(), dashes.last()) {
            let inserted: Vec<&Value> = self.changes.inserted(seq, items.len()).collect();
            self.insert_items(&inserted, *last, *dash, indent);
        }
        Ok(())
    }

    fn insert_items(&mut self, inserted: &[&Value], after: Id, dash: usize, indent: usize) {
        if inserted.is_empty() {
            return;
        }
        let pad = " ".repeat(indent);
        let lines = inserted
            .iter()
            .map(|n| pad.clone() + &self.item_lines(n, indent));
        let lines: String = lines.collect();
        let end = self.doc.tree.nodes[after].span.end.max(dash + 1);
        self.insert_lines(end, lines);
    }

    fn item_lines(&self, new: &Value, indent: usize) -> String {
        format!("- {}", emit::item(new, indent + 2, self.style))
    }
}
