//! The document as an arena of nodes with byte spans, built from parser events.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle, Tag as RawTag};

use crate::dialect;
use crate::error::Error;
use crate::lines::Lines;
use crate::scalar::{self, Data, Tag};

pub(crate) type Id = usize;

/// How many values aliases may add to those that are written out.
const ALIAS_BUDGET: u64 = 100_000;
const NESTING: usize = 200;

#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The content: without anchor and tag, without the `|` of a block scalar.
    pub(crate) span: Range<usize>,
    /// Where its anchor or tag starts, if it has one.
    pub(crate) props: Option<usize>,
    /// Aliases that point here.
    pub(crate) aliases: usize,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Scalar { text: String, data: Data },
    Seq { flow: bool, items: Vec<Id> },
    Map { flow: bool, entries: Vec<(Id, Id)> },
    Alias(Id),
}

impl Node {
    pub(crate) fn start(&self) -> usize {
        self.props.unwrap_or(self.span.start).min(self.span.start)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    pub(crate) root: Id,
}

/// The form of a key in [`crate::Document::value`]: what `json.dumps` makes of it.
pub(crate) fn key_text(kind: &Kind) -> Option<Cow<'_, str>> {
    let Kind::Scalar { text, data, .. } = kind else {
        return None;
    };
    Some(match data {
        Data::Null => "null".into(),
        Data::Bool(b) => b.to_string().into(),
        Data::Number(n) => n.to_string().into(),
        Data::Str | Data::Timestamp | Data::Merge => text.as_str().into(),
    })
}

pub(crate) fn build(text: &str, lines: &Lines) -> Result<Tree, Error> {
    if let Some((at, why)) = dialect::bad_character(text) {
        return Err(lines.error(text, at, why));
    }
    let mut builder = Builder {
        text,
        lines,
        nodes: Vec::new(),
        weights: Vec::new(),
        open: Vec::new(),
        anchors: HashMap::new(),
        names: HashSet::new(),
        tabs: Vec::new(),
        root: None,
        documents: 0,
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
            lines.error(text, at, e.info())
        })?;
        builder.event(event, span)?;
    }
    builder.finish()
}

struct Builder<'a> {
    text: &'a str,
    lines: &'a Lines,
    nodes: Vec<Node>,
    /// Values below each node once aliases are written out.
    weights: Vec<u64>,
    open: Vec<Frame>,
    anchors: HashMap<usize, Id>,
    names: HashSet<String>,
    /// Where tabs may stand.
    tabs: Vec<Range<usize>>,
    root: Option<Id>,
    documents: usize,
}

struct Frame {
    id: Id,
    key: Option<Id>,
    seen: HashSet<String>,
}

impl Builder<'_> {
    fn fail<T>(&self, at: usize, message: impl Into<String>) -> Result<T, Error> {
        Err(self.lines.error(self.text, at, message))
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Error> {
        let range = byte(span.start.byte_offset())..byte(span.end.byte_offset());
        let props = span.tag_start().map(|m| byte(m.byte_offset()));
        match event {
            Event::Comment(..) => self.tabs.push(range),
            Event::DocumentStart(_, version) => {
                self.documents += 1;
                if self.documents > 1 {
                    return self.fail(range.start, "more than one document in the file");
                }
                if version.is_some_and(|v| v.major != 1) {
                    return self.fail(range.start, "a YAML version other than 1");
                }
            }
            Event::Anchor(id, name) => return self.anchor(id, &name, range.start),
            Event::Alias(id) => {
                let name = self.text.get(range.clone()).unwrap_or_default();
                if !dialect::is_anchor_name(name.trim_start_matches('*')) {
                    return self.fail(range.start, "an alias is `*` and letters, digits, - or _");
                }
                return self.alias(id, range);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                if !plain {
                    self.tabs.push(range.clone());
                }
                let empty = plain && range.is_empty();
                let text = if empty { "".into() } else { text };
                let data = self.scalar(&text, plain, tag.as_deref(), range.start)?;
                let kind = Kind::Scalar {
                    text: text.into_owned(),
                    data,
                };
                self.node(kind, range, props, anchor)?;
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", range.start)?;
                let flow = style == StructureStyle::Flow;
                let kind = Kind::Seq {
                    flow,
                    items: Vec::new(),
                };
                self.start(kind, range, props, anchor)?;
            }
            Event::MappingStart(style, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", range.start)?;
                let flow = style == StructureStyle::Flow;
                let kind = Kind::Map {
                    flow,
                    entries: Vec::new(),
                };
                self.start(kind, range, props, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(range.end)?,
            _ => {}
        }
        Ok(())
    }

    fn start(
        &mut self,
        kind: Kind,
        range: Range<usize>,
        props: Option<usize>,
        anchor: usize,
    ) -> Result<(), Error> {
        let id = self.node(kind, range, props, anchor)?;
        self.open.push(Frame {
            id,
            key: None,
            seen: HashSet::new(),
        });
        Ok(())
    }

    fn end(&mut self, end: usize) -> Result<(), Error> {
        let Some(frame) = self.open.pop() else {
            return Ok(());
        };
        let (children, flow): (Vec<Id>, bool) = match &self.nodes[frame.id].kind {
            Kind::Seq { flow, items } => (items.clone(), *flow),
            Kind::Map { flow, entries } => {
                (entries.iter().flat_map(|(k, v)| [*k, *v]).collect(), *flow)
            }
            _ => (Vec::new(), false),
        };
        let last = children.last().map_or(end, |c| self.nodes[*c].span.end);
        let node = &mut self.nodes[frame.id];
        node.span.end = if flow { end } else { last };
        let at = node.span.start;
        let weight = children
            .iter()
            .fold(1u64, |sum, c| sum.saturating_add(self.weights[*c]));
        self.weights[frame.id] = weight;
        if weight > self.nodes.len() as u64 + ALIAS_BUDGET {
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
        let id = self.nodes.len();
        let weight = match &kind {
            Kind::Alias(target) => self.weights[*target],
            _ => 1,
        };
        self.weights.push(weight);
        self.nodes.push(Node {
            span,
            props,
            aliases: 0,
            kind,
        });
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        match self.open.last_mut() {
            None => self.root = Some(id),
            Some(frame) => match (&mut self.nodes[frame.id].kind, frame.key.take()) {
                (Kind::Seq { items, .. }, _) => items.push(id),
                (Kind::Map { entries, .. }, Some(key)) => {
                    entries.push((key, id));
                    self.settle_empty(key, id);
                }
                _ => {
                    frame.key = Some(id);
                    return self.key(id);
                }
            },
        }
        if matches!(
            &self.nodes[id].kind,
            Kind::Scalar {
                data: Data::Merge,
                ..
            }
        ) {
            return self.fail(
                self.nodes[id].span.start,
                "`<<` is a merge key in YAML 1.1: quote it",
            );
        }
        Ok(id)
    }

    /// The parser puts an absent value before its colon; an editor and a reader look behind it.
    fn settle_empty(&mut self, key: Id, value: Id) {
        let node = &self.nodes[value];
        if node.span.is_empty() && node.props.is_none() {
            let colon = after_colon(self.text, self.nodes[key].span.end);
            if let Some(colon) = colon.filter(|c| *c > node.span.start) {
                self.nodes[value].span = colon..colon;
            }
        }
    }

    fn key(&mut self, id: Id) -> Result<Id, Error> {
        let at = self.nodes[id].span.start;
        let kind = match &self.nodes[id].kind {
            Kind::Alias(target) => &self.nodes[*target].kind,
            kind => kind,
        };
        let Some(text) = key_text(kind).map(Cow::into_owned) else {
            return self.fail(at, "a key must be a single value, not a list or a mapping");
        };
        let fresh = self
            .open
            .last_mut()
            .is_none_or(|f| f.seen.insert(text.clone()));
        if !fresh {
            return self.fail(at, format!("the key `{text}` is there twice"));
        }
        Ok(id)
    }

    fn anchor(&mut self, id: usize, name: &str, at: usize) -> Result<(), Error> {
        if !dialect::is_anchor_name(name) {
            return self.fail(
                at,
                format!("the anchor `&{name}`: only letters, digits, - and _"),
            );
        }
        if !self.names.insert(name.to_owned()) {
            return self.fail(at, format!("the anchor `&{name}` is there twice"));
        }
        if let Some(node) = self.anchors.get(&id).map(|n| &mut self.nodes[*n]) {
            node.props = Some(node.props.map_or(at, |p| p.min(at)));
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Range<usize>) -> Result<(), Error> {
        let Some(target) = self.anchors.get(&anchor).copied() else {
            return self.fail(span.start, "an alias without its anchor");
        };
        if self.open.iter().any(|f| f.id == target) {
            return self.fail(span.start, "an alias inside of what it stands for");
        }
        self.nodes[target].aliases += 1;
        self.node(Kind::Alias(target), span, None, 0)?;
        Ok(())
    }

    fn scalar(
        &self,
        text: &str,
        plain: bool,
        tag: Option<&RawTag>,
        at: usize,
    ) -> Result<Data, Error> {
        let tag = match tag.map(|t| (t.handle(), t.suffix())) {
            None if plain => scalar::resolve(text),
            None => Tag::Str,
            // The lone `!` asks for the implicit rules, quoted or not.
            Some(("!", "") | ("", "!")) => scalar::resolve(text),
            Some(("tag:yaml.org,2002:", suffix)) => match suffix {
                "str" => Tag::Str,
                "int" => Tag::Int,
                "float" => Tag::Float,
                "bool" => Tag::Bool,
                "null" => Tag::Null,
                "timestamp" => Tag::Timestamp,
                other => {
                    return self.fail(at, format!("the tag `!!{other}` has no place in a config"));
                }
            },
            Some((handle, suffix)) => {
                return self.fail(
                    at,
                    format!("the tag `{handle}{suffix}` is unknown to PyYAML's safe loader"),
                );
            }
        };
        // PyYAML takes a plain `=` as a key.
        let key = self
            .open
            .last()
            .is_some_and(|f| f.key.is_none() && matches!(self.nodes[f.id].kind, Kind::Map { .. }));
        if tag == Tag::Value && key {
            return Ok(Data::Str);
        }
        scalar::construct(tag, text).or_else(|why| self.fail(at, why))
    }

    fn collection_tag(&self, tag: Option<&RawTag>, own: &str, at: usize) -> Result<(), Error> {
        match tag.map(|t| (t.handle(), t.suffix())) {
            None | Some(("!", "") | ("", "!")) => Ok(()),
            Some(("tag:yaml.org,2002:", suffix)) if suffix == own => Ok(()),
            Some((handle, suffix)) => {
                self.fail(at, format!("the tag `{handle}{suffix}` on a collection"))
            }
        }
    }

    fn finish(self) -> Result<Tree, Error> {
        if let Some(at) = dialect::bad_tab(self.text, &self.tabs) {
            return self.fail(at, "a tab between things: PyYAML takes only spaces there");
        }
        let mut nodes = self.nodes;
        let root = self.root.unwrap_or_else(|| {
            let end = self.text.len();
            nodes.push(Node {
                span: end..end,
                props: None,
                aliases: 0,
                kind: Kind::Scalar {
                    text: String::new(),
                    data: Data::Null,
                },
            });
            nodes.len() - 1
        });
        Ok(Tree { nodes, root })
    }
}

fn byte(offset: Option<usize>) -> usize {
    offset.unwrap_or_default()
}

/// Past blanks, line breaks and comments.
pub(crate) fn skip_trivia(text: &str, mut at: usize) -> usize {
    let bytes = text.as_bytes();
    while let Some(b) = bytes.get(at) {
        match b {
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            b'#' => {
                at += bytes[at..]
                    .iter()
                    .take_while(|b| !matches!(b, b'\n' | b'\r'))
                    .count();
            }
            _ => break,
        }
    }
    at
}

/// The place behind the colon that follows a key.
pub(crate) fn after_colon(text: &str, key_end: usize) -> Option<usize> {
    let at = skip_trivia(text, key_end);
    (text.as_bytes().get(at) == Some(&b':')).then_some(at + 1)
}
