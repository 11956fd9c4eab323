//! A part of a document as a separate document, as written.

use serde_json::{Map, Value};

use crate::document::Document;
use crate::emit::to_yaml;
use crate::path::Seg;
use crate::splice::{column, line_start, next_line};
use crate::tree::{Id, Kind, after_colon};

impl Document {
    /// The value at `path`, or the entries of that mapping with these keys. Comments and styles stay; values of anchors outside
    /// the part are written out.
    #[must_use]
    pub fn excerpt(&self, path: &[Seg], keys: Option<&[&str]>) -> String {
        let Some((key, id)) = self.find(path) else {
            return String::new();
        };
        let value = match (self.value_of(id, true), keys) {
            (Value::Object(map), Some(keys)) => {
                let kept = map.into_iter().filter(|(k, _)| keys.contains(&k.as_str()));
                Value::Object(kept.collect::<Map<_, _>>())
            }
            (value, _) => value,
        };
        let text = match (&self.tree.nodes[id].kind, keys) {
            (
                Kind::Map {
                    flow: false,
                    entries,
                },
                Some(keys),
            ) => self.some(entries, keys),
            (_, Some(_)) => None,
            (_, None) if path.is_empty() => Some(self.text.clone()),
            (_, None) => self.whole(key, id),
        };
        let same = |text: &String| {
            let read = self.parse_alike(text);
            read.is_ok_and(|d| d.value_of(d.tree.root, true) == value)
        };
        text.filter(same).unwrap_or_else(|| to_yaml(&value))
    }

    fn whole(&self, key: Option<Id>, id: Id) -> Option<String> {
        let node = &self.tree.nodes[id];
        if !node.kind.is_block() {
            return Some(format!("{}\n", self.text.get(node.span.clone())?));
        }
        // Comments between the key and its value belong to the value.
        let colon = after_colon(&self.text, self.tree.nodes[key?].span.end)?;
        let start = next_line(&self.text, colon);
        let indent = column(&self.text, node.span.start);
        (start <= node.span.start).then(|| self.dedented(start, node.span.end, indent))
    }

    fn some(&self, entries: &[(Id, Id)], keys: &[&str]) -> Option<String> {
        let mut out = String::new();
        for (key, value) in entries {
            if keys.contains(&self.tree.key(*key)?.as_ref()) {
                let start = self.tree.nodes[*key].start();
                let end = self.tree.nodes[*value].span.end.max(start);
                let indent = column(&self.text, start);
                out.push_str(&self.dedented(line_start(&self.text, start), end, indent));
            }
        }
        Some(out)
    }

    fn dedented(&self, start: usize, end: usize, indent: usize) -> String {
        let lines = &self.text[start..next_line(&self.text, end)];
        let mut out = String::with_capacity(lines.len());
        for line in lines.split_inclusive('\n') {
            let blanks = line.len() - line.trim_start_matches(' ').len();
            out.push_str(&line[blanks.min(indent)..]);
        }
        if !out.ends_with('\n') {
            out.push('\n');
        }
        out
    }
}
