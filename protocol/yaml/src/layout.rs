//! The extent of a value in the text, and the text of a new value.

use std::ops::Range;

use serde_json::Value;

use crate::document::Document;
use crate::emit::{self, Style};
use crate::splice::{column, line_end, line_start, next_line};
use crate::tree::{Id, Kind};

/// What a value belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parent {
    /// A key at this column, and the offset after its colon.
    Entry {
        column: usize,
        at: usize,
    },
    /// A dash, and the offset after it.
    Item {
        at: usize,
    },
    Root,
}

impl Parent {
    /// The first offset at which the value can begin.
    fn at(self, doc: &Document, id: Id) -> usize {
        match self {
            Parent::Entry { at, .. } | Parent::Item { at } => at,
            Parent::Root => doc.tree.nodes[id].start(),
        }
    }
}

/// The text of a value: the part on the line of its parent, and the lines below.
#[derive(Debug)]
pub(crate) struct Extent {
    pub(crate) head: Range<usize>,
    pub(crate) body: Range<usize>,
}

/// The extent of a value in block context.
pub(crate) fn extent(doc: &Document, id: Id, parent: Parent, below: bool) -> Extent {
    let (text, node) = (doc.text.as_str(), &doc.tree.nodes[id]);
    let at = parent.at(doc, id);
    let span = node.span.clone();
    let lines_after = |at: usize| {
        let next = next_line(text, at);
        next..next_line(text, span.end).max(next)
    };
    if node.is_absent() {
        return Extent {
            head: at..at,
            body: lines_after(at),
        };
    }
    let apart = text[at..node.start()].contains(['\n', '\r']);
    let collection = node.kind.is_block();
    match &node.kind {
        Kind::Scalar { block: true, .. } if !apart => Extent {
            head: node.start()..header_end(text, span.start),
            body: lines_after(span.start),
        },
        _ if collection && !text[at..span.start].contains(['\n', '\r']) => Extent {
            head: node.start()..line_content_end(doc, span.start).min(span.end),
            body: lines_after(span.start),
        },
        _ if collection && !apart => Extent {
            head: node.start()..props_end(text, node.start()),
            body: line_start(text, span.start)..next_line(text, span.end),
        },
        _ if collection
            || (apart && (below || matches!(node.kind, Kind::Scalar { block: true, .. }))) =>
        {
            Extent {
                head: at..at,
                body: line_start(text, node.start())..next_line(text, span.end),
            }
        }
        _ => {
            let next = next_line(text, span.end);
            Extent {
                head: node.start()..span.end,
                body: next..next,
            }
        }
    }
}

fn header_end(text: &str, start: usize) -> usize {
    let len = text[start..].find([' ', '\n', '\r']);
    len.map_or(text.len(), |len| start + len)
}

/// The offset after an anchor and a tag on this line.
fn props_end(text: &str, start: usize) -> usize {
    let mut end = start;
    loop {
        let rest = &text[end..];
        let blank = rest.len() - rest.trim_start_matches(' ').len();
        if !rest[blank..].starts_with(['&', '!']) {
            return end;
        }
        end = header_end(text, end + blank);
    }
}

/// The end of a line without its comment and trailing blanks.
fn line_content_end(doc: &Document, at: usize) -> usize {
    let end = line_end(&doc.text, at);
    let comments = &doc.tree.comments;
    let next = comments.partition_point(|c| c.start < at);
    let end = comments.get(next).map_or(end, |c| c.start.min(end));
    at + doc.text[at..end].trim_end().len()
}

/// The text of a new value: the rest of its parent's line, and the lines below.
pub(crate) fn pieces(
    doc: &Document,
    id: Id,
    parent: Parent,
    new: &Value,
    style: Style,
) -> (String, String) {
    let text = doc.text.as_str();
    let node = &doc.tree.nodes[id];
    match parent {
        Parent::Entry { column: key, .. } => {
            if emit::is_leaf(new) {
                return split(&emit::leaf(new, key, style), style.newline);
            }
            let old = column(text, node.span.start);
            let indent = match (&node.kind, new) {
                (Kind::Seq { flow: false, .. }, Value::Array(_)) => old,
                (kind, _) if kind.is_block() && old > key => old,
                _ => key + 2,
            };
            let below = " ".repeat(indent) + &emit::block(new, indent, style);
            (String::new(), below)
        }
        Parent::Item { at } => {
            let gap = text[at..node.start()].len();
            let compact = !node.is_absent() && !text[at..node.start()].contains(['\n', '\r']);
            let indent = column(text, at) + if compact { gap } else { 1 };
            split(&emit::item(new, indent, style), style.newline)
        }
        Parent::Root => split(&emit::item(new, 0, style), style.newline),
    }
}

fn split(text: &str, newline: &str) -> (String, String) {
    let (first, rest) = text.split_once(newline).unwrap_or((text, ""));
    let mut rest = rest.to_owned();
    if !rest.is_empty() && !rest.ends_with(newline) {
        rest.push_str(newline);
    }
    (first.to_owned(), rest)
}
