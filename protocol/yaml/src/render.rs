//! Turns changes into byte splices, in block and in flow style, and verifies the result.

use std::ops::Range;

use serde_json::{Map, Value};

use crate::changes::Changes;
use crate::document::Document;
use crate::emit::{self, Style};
use crate::error::Error;
use crate::expected::{expected, write_out_aliases};
use crate::layout::{self, Parent};
use crate::splice::{self, Splice, column, line_start, next_line};
use crate::tree::{Id, Kind, after_colon};

pub(crate) fn apply(doc: &Document, mut changes: Changes) -> Result<Document, Error> {
    write_out_aliases(doc, &mut changes);
    let expected = expected(doc, &changes, doc.tree.root);
    let newline = splice::newline_of(&doc.text);
    let render = |literals| rendered(doc, &changes, &expected, Style { newline, literals });
    render(true).or_else(|error| render(false).map_err(|_| error))
}

fn rendered(
    doc: &Document,
    changes: &Changes,
    expected: &Value,
    style: Style,
) -> Result<Document, Error> {
    let mut renderer = Renderer {
        doc,
        changes,
        style,
        splices: Vec::new(),
    };
    renderer.value(doc.tree.root, Parent::Root, false)?;
    let first = renderer.splices.iter().map(|s| s.range.start).min();
    let at = first.unwrap_or(doc.tree.nodes[doc.tree.root].span.start);
    let refuse = |why: String| Error::at(&doc.text, at, why);
    if first.is_none() {
        // Either nothing has to change, or the change has no known splice.
        return match doc.value_of(doc.tree.root, true) == *expected {
            true => Ok(doc.clone()),
            false => Err(refuse("this place cannot be edited safely".into())),
        };
    }
    let text = splice::apply(&doc.text, renderer.splices, style.newline)
        .map_err(|at| Error::at(&doc.text, at, "two changes conflict here"))?;
    let read = doc
        .parse_alike(&text)
        .map_err(|e| refuse(format!("this place cannot be edited safely ({e})")))?;
    if read.value_of(read.tree.root, true) != *expected {
        let why = "this place cannot be edited safely: the result would read differently";
        return Err(refuse(why.into()));
    }
    Ok(read)
}

struct Renderer<'a> {
    doc: &'a Document,
    changes: &'a Changes,
    style: Style,
    splices: Vec<Splice>,
}

impl Renderer<'_> {
    fn text(&self) -> &str {
        &self.doc.text
    }

    fn push(&mut self, range: Range<usize>, text: impl Into<String>) {
        let (text, lines) = (text.into(), false);
        self.splices.push(Splice { range, text, lines });
    }

    fn push_lines(&mut self, range: Range<usize>, text: String) {
        let lines = true;
        self.splices.push(Splice { range, text, lines });
    }

    fn fail<T>(&self, at: usize, why: &str) -> Result<T, Error> {
        Err(Error::at(self.text(), at, why))
    }

    /// Visits nodes in the order of the text, inner ones before outer ones, so that insertions at the same offset nest
    /// correctly.
    fn value(&mut self, id: Id, parent: Parent, in_flow: bool) -> Result<(), Error> {
        let changes = self.changes;
        if let Some(new) = changes.replaced.get(&id) {
            return self.replace(id, parent, in_flow, new);
        }
        let doc = self.doc;
        match &doc.tree.nodes[id].kind {
            Kind::Map { flow, entries } => {
                let added = changes.added.get(&id).filter(|a| !a.is_empty());
                if let (true, Some(added)) = (entries.is_empty(), added) {
                    let value = Value::Object(added.clone());
                    return self.replace(id, parent, in_flow, &value);
                }
                self.entries(entries, in_flow || *flow)?;
                match added {
                    Some(added) if in_flow || *flow => self.add_in_flow(entries, added),
                    Some(added) => self.add(id, added),
                    None => {}
                }
            }
            Kind::Seq { flow, items } => {
                if items.is_empty() && changes.inserted.contains_key(&id) {
                    let value = expected(doc, changes, id);
                    return self.replace(id, parent, in_flow, &value);
                }
                if in_flow || *flow {
                    self.flow_items(id, items)?;
                } else {
                    self.items(id, items)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn entries(&mut self, entries: &[(Id, Id)], in_flow: bool) -> Result<(), Error> {
        let doc = self.doc;
        let node = |id: Id| &doc.tree.nodes[id];
        for (key, value) in entries {
            let (key_node, start) = (node(*key), node(*key).start());
            let at = after_colon(self.text(), key_node.span.end);
            let parent = Parent::Entry {
                column: column(self.text(), start),
                at: at.unwrap_or(key_node.span.end),
            };
            let touched = self.changes.replaced.contains_key(value);
            if touched && at.is_none() && !in_flow {
                return self.fail(start, "a key without its colon cannot be edited");
            }
            self.value(*value, parent, in_flow)?;
        }
        Ok(())
    }

    fn add(&mut self, map: Id, added: &Map<String, Value>) {
        let span = self.doc.tree.nodes[map].span.clone();
        let indent = column(self.text(), span.start);
        let pad = " ".repeat(indent);
        let entry =
            |(k, v): (&String, &Value)| pad.clone() + &emit::entry(k, v, indent, self.style);
        let lines: String = added.iter().map(entry).collect();
        self.insert_lines(span.end, lines);
    }

    /// Inserts lines after the line that contains `end`.
    fn insert_lines(&mut self, end: usize, lines: String) {
        self.close_literal(end);
        let at = next_line(self.text(), end);
        self.push_lines(at..at, lines);
    }

    /// A literal at the end of a text without a final line end has no trailing `\n`. When lines follow it, its header needs `-`.
    fn close_literal(&mut self, end: usize) {
        if end != self.text().len() || self.splices.iter().any(|s| s.range.end == end) {
            return;
        }
        let last = self
            .doc
            .tree
            .nodes
            .iter()
            .find(|n| n.span.end == end && matches!(n.kind, Kind::Scalar { block: true, .. }));
        let Some(start) = last.map(|n| n.span.start) else {
            return;
        };
        let header = &self.text()[start..];
        let len = header.find([' ', '\n', '\r']).unwrap_or(header.len());
        match header[..len].find('+') {
            Some(plus) => self.push(start + plus..start + plus + 1, "-"),
            None if !header[..len].contains('-') => self.push(start + len..start + len, "-"),
            None => {}
        }
    }

    fn replace(&mut self, id: Id, parent: Parent, in_flow: bool, new: &Value) -> Result<(), Error> {
        if in_flow {
            self.replace_in_flow(id, parent, new);
            return Ok(());
        }
        if matches!(parent, Parent::Root) && self.doc.tree.nodes[id].is_absent() {
            let end = self.text().len();
            self.push_lines(end..end, emit::item(new, 0, self.style));
            return Ok(());
        }
        let (mut inline, below) = layout::pieces(self.doc, id, parent, new, self.style);
        if let Some(anchor) = self.kept_anchor(id) {
            inline = format!("{anchor} {inline}").trim_end().to_owned();
        }
        let layout::Extent { mut head, body } =
            layout::extent(self.doc, id, parent, !below.is_empty());
        let carried = self.carried(&head, &body, parent);
        let before = &self.text()[..head.start];
        if inline.is_empty() {
            head.start = before.trim_end_matches(' ').len();
        } else if !before.is_empty() && !before.ends_with([' ', '\n', '\r', '\u{feff}']) {
            inline.insert(0, ' ');
        }
        let last_word = inline.rsplit(' ').next().unwrap_or_default();
        let literal = matches!(last_word, "|" | "|-");
        if literal && !carried.is_empty() {
            let at = line_start(self.text(), head.start);
            self.push_lines(at..at, carried.clone());
        }
        let next = next_line(self.text(), head.end);
        let torn = !inline.is_empty() && !below.is_empty() && next < body.start;
        self.push(head, inline);
        if torn {
            // The lines between head and body stay, after the new lines.
            self.push_lines(next..next, below);
            self.push_lines(body, if literal { String::new() } else { carried });
        } else {
            let below = if literal { below } else { carried + &below };
            self.push_lines(body, below);
        }
        Ok(())
    }

    /// The anchor of a substituted scalar, whose aliases stay.
    fn kept_anchor(&self, id: Id) -> Option<String> {
        let node = &self.doc.tree.nodes[id];
        if !self.changes.substituted.contains_key(&id) || self.changes.is_replaced(id) {
            return None;
        }
        let props = self.text().get(node.props?..node.span.start)?;
        let mut words = props.split_ascii_whitespace();
        words.find(|w| w.starts_with('&')).map(str::to_owned)
    }

    /// The comments within replaced text, as separate lines.
    fn carried(&self, head: &Range<usize>, body: &Range<usize>, parent: Parent) -> String {
        let indent = match parent {
            Parent::Entry { column, .. } => column + 2,
            Parent::Item { at } => column(self.text(), at) + 1,
            Parent::Root => 0,
        };
        let comments = &self.doc.tree.comments;
        let first = comments.partition_point(|c| c.start < head.start);
        let inside = comments[first..]
            .iter()
            .take_while(|c| c.end <= body.end.max(head.end));
        let gone = inside.filter(|c| head.contains(&c.start) || body.contains(&c.start));
        gone.map(|c| {
            format!(
                "{}{}{}",
                " ".repeat(indent),
                &self.text()[c.clone()],
                self.style.newline
            )
        })
        .collect()
    }
}

mod flow;
mod items;
