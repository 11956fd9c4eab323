//! Builds the tree from parser events, and refuses what `PyYAML` refuses.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};

use crate::dialect;
use crate::error::Error;
use crate::scalar::Data;
use crate::tree::{Id, Kind, Node, PyYamlOnly, Tree, after_colon};

mod rules;

/// How many values aliases may add to those that are written.
const ALIAS_BUDGET: u64 = 100_000;
const NESTING: usize = 200;

/// With `as_pyyaml` it also accepts, and returns, what only `PyYAML` accepts.
pub(crate) fn build(text: &str, as_pyyaml: bool) -> Result<(Tree, Vec<PyYamlOnly>), Error> {
    if let Some((at, why)) = dialect::bad_character(text) {
        return Err(Error::at(text, at, why));
    }
    let mut builder = Builder {
        text,
        as_pyyaml,
        ..Builder::default()
    };
    let options = granit_parser::options! {
        emit_anchor_events: true,
        max_buffered_comment_events: usize::MAX,
        flow_nesting_limit: NESTING,
        block_nesting_limit: NESTING,
    };
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|e| {
            let at = e.marker().byte_offset().unwrap_or(text.len());
            Error::at(text, at, e.info())
        })?;
        builder.event(event, span)?;
    }
    builder.finish()
}

#[derive(Default)]
struct Builder<'a> {
    text: &'a str,
    tree: Tree,
    /// The number of values in each node, with aliases expanded.
    weights: Vec<u64>,
    open: Vec<Frame>,
    anchors: HashMap<usize, Id>,
    names: HashSet<String>,
    /// Where tabs may stand, comments aside.
    quoted: Vec<Range<usize>>,
    documents: usize,
    as_pyyaml: bool,
    pyyaml_only: Vec<PyYamlOnly>,
}

/// A collection that is not closed yet.
struct Frame {
    id: Id,
    key: Option<Id>,
    seen: HashSet<String>,
}

impl Builder<'_> {
    fn fail<T>(&self, at: usize, message: impl Into<String>) -> Result<T, Error> {
        Err(Error::at(self.text, at, message))
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Error> {
        let range = byte(span.start.byte_offset())..byte(span.end.byte_offset());
        let props = span.tag_start().map(|m| byte(m.byte_offset()));
        match event {
            Event::Comment(..) => self.tree.comments.push(range),
            Event::DocumentStart(_, version) => {
                let major = version.map_or(1, |v| v.major);
                return self.document(range.start, major);
            }
            Event::Anchor(id, name) => return self.anchor(id, &name, range.start),
            Event::Alias(id) => return self.alias(id, range),
            Event::Scalar(text, style, anchor, tag) => {
                let indent = span.indent.unwrap_or_default();
                let (range, text) = match style {
                    ScalarStyle::Plain => self.plain(&text, range)?,
                    ScalarStyle::Literal | ScalarStyle::Folded => {
                        self.block(&text, range, indent)?
                    }
                    _ => {
                        self.quoted.push(range.clone());
                        (range, text.into_owned())
                    }
                };
                let plain = style == ScalarStyle::Plain;
                let data = self.scalar(&text, plain, tag.as_deref(), range.clone())?;
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                self.node(Kind::Scalar { text, block, data }, range, props, anchor)?;
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", range.clone())?;
                let (flow, items) = (style == StructureStyle::Flow, Vec::new());
                self.start(Kind::Seq { flow, items }, range, props, anchor)?;
            }
            Event::MappingStart(style, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", range.clone())?;
                let (flow, entries) = (style == StructureStyle::Flow, Vec::new());
                self.start(Kind::Map { flow, entries }, range, props, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(range.end)?,
            _ => {}
        }
        Ok(())
    }

    fn in_flow(&self) -> bool {
        let innermost = self.open.last().map(|f| &self.tree.nodes[f.id].kind);
        matches!(
            innermost,
            Some(Kind::Seq { flow: true, .. } | Kind::Map { flow: true, .. })
        )
    }

    fn start(
        &mut self,
        kind: Kind,
        span: Range<usize>,
        props: Option<usize>,
        anchor: usize,
    ) -> Result<(), Error> {
        let span = match &kind {
            Kind::Seq { flow: false, .. } => self.first_dash(span.start)..span.end,
            _ => span,
        };
        let id = self.node(kind, span, props, anchor)?;
        self.open.push(Frame {
            id,
            key: None,
            seen: HashSet::new(),
        });
        Ok(())
    }

    /// The start of a list that is not indented below its key: its first dash. The parser reports the place after the dash.
    fn first_dash(&self, start: usize) -> usize {
        let key = self.open.last().and_then(|f| f.key);
        let colon = key.and_then(|k| after_colon(self.text, self.tree.nodes[k].span.end));
        let Some(mut at) = colon.map(|c| dialect::skip_trivia(self.text, c)) else {
            return start;
        };
        while self.text[at..].starts_with(['&', '!']) {
            let end = self.text[at..].find([' ', '\n', '\r']);
            at = dialect::skip_trivia(self.text, end.map_or(self.text.len(), |len| at + len));
        }
        at.min(start)
    }

    fn end(&mut self, end: usize) -> Result<(), Error> {
        let Some(frame) = self.open.pop() else {
            return Ok(());
        };
        let children = self.tree.children(frame.id);
        let last = children.last().map(|c| self.tree.nodes[*c].span.end);
        let flow = match &self.tree.nodes[frame.id].kind {
            Kind::Map { flow, entries } => {
                for (key, value) in entries {
                    self.check_merge(*key, *value)?;
                }
                *flow
            }
            Kind::Seq { flow, .. } => *flow,
            _ => false,
        };
        let node = &mut self.tree.nodes[frame.id];
        node.span.end = last.filter(|_| !flow).unwrap_or(end);
        let at = node.span.start;
        let below = children.iter().map(|c| self.weights[*c]);
        let weight = below.fold(1, u64::saturating_add);
        self.weights[frame.id] = weight;
        if weight > self.tree.nodes.len() as u64 + ALIAS_BUDGET {
            return self.fail(at, "its aliases expand to too many values");
        }
        Ok(())
    }

    /// Adds a node below the innermost open collection.
    fn node(
        &mut self,
        kind: Kind,
        span: Range<usize>,
        props: Option<usize>,
        anchor: usize,
    ) -> Result<Id, Error> {
        let id = self.tree.nodes.len();
        let (at, is_merge) = (span.start, kind.is_merge());
        self.weights.push(match &kind {
            Kind::Alias(target) => self.weights[*target],
            _ => 1,
        });
        self.tree.nodes.push(Node { span, props, kind });
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        match self.open.last_mut() {
            None => self.tree.root = id,
            Some(frame) => match (&mut self.tree.nodes[frame.id].kind, frame.key.take()) {
                (Kind::Seq { items, .. }, _) => items.push(id),
                (Kind::Map { entries, .. }, Some(key)) => {
                    entries.push((key, id));
                    self.settle_absent(key, id);
                    self.check_colon(key)?;
                }
                _ => {
                    frame.key = Some(id);
                    return self.key(id, props);
                }
            },
        }
        if is_merge {
            return self.fail(at, "`<<` is a merge key in YAML 1.1: quote it");
        }
        Ok(id)
    }

    /// Moves an absent value behind its colon. The parser puts it before the colon.
    fn settle_absent(&mut self, key: Id, value: Id) {
        let at = self.tree.nodes[value].span.start;
        if self.tree.nodes[value].is_absent() {
            let colon = after_colon(self.text, self.tree.nodes[key].span.end);
            if let Some(colon) = colon.filter(|c| *c > at) {
                self.tree.nodes[value].span = colon..colon;
            }
        }
    }

    fn anchor(&mut self, id: usize, name: &str, at: usize) -> Result<(), Error> {
        if !dialect::is_anchor_name(name) {
            let why = format!(
                "the anchor `&{name}` contains other characters than letters, digits, - and _"
            );
            return self.fail(at, why);
        }
        if !self.names.insert(name.to_owned()) {
            return self.fail(at, format!("the anchor `&{name}` is defined twice"));
        }
        if let Some(node) = self.anchors.get(&id).map(|n| &mut self.tree.nodes[*n]) {
            node.props = Some(node.props.map_or(at, |p| p.min(at)));
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Range<usize>) -> Result<(), Error> {
        let name = self.text.get(span.clone()).unwrap_or_default();
        if !dialect::is_anchor_name(name.trim_start_matches('*')) {
            let why = "an alias consists of `*` and letters, digits, - or _";
            return self.fail(span.start, why);
        }
        let Some(target) = self.anchors.get(&anchor).copied() else {
            return self.fail(span.start, "an alias without its anchor");
        };
        if self.open.iter().any(|f| f.id == target) {
            return self.fail(span.start, "an alias inside the value of its anchor");
        }
        self.node(Kind::Alias(target), span, None, 0).map(drop)
    }

    fn finish(mut self) -> Result<(Tree, Vec<PyYamlOnly>), Error> {
        self.tree.comments.sort_by_key(|c| c.start);
        let mut tabs = self.quoted.clone();
        tabs.extend(self.tree.comments.iter().cloned());
        tabs.sort_by_key(|t| t.start);
        if let Some(at) = dialect::bad_tab(self.text, &tabs) {
            let why = "a tab between tokens: PyYAML accepts only spaces there";
            return self.fail(at, why);
        }
        if let Some(at) = dialect::bad_end(self.text) {
            return self.fail(at, "a document end without a document");
        }
        if self.tree.nodes.is_empty() {
            let end = self.text.len();
            let (text, block, data) = (String::new(), false, Data::Null);
            self.node(Kind::Scalar { text, block, data }, end..end, None, 0)?;
        }
        Ok((self.tree, self.pyyaml_only))
    }
}

fn byte(offset: Option<usize>) -> usize {
    offset.unwrap_or_default()
}
