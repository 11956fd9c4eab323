//! The rules that each event must keep for `PyYAML` to accept it.

use std::ops::Range;

use granit_parser::Tag as RawTag;

use super::Builder;
use crate::block_scalar;
use crate::dialect;
use crate::error::Error;
use crate::scalar::{self, ConstructError, Data, Tag};
use crate::tree::{Id, Kind, PyYamlOnly, after_colon};

impl Builder<'_> {
    pub(super) fn document(&mut self, at: usize, version: u32) -> Result<(), Error> {
        if let Some(at) = dialect::bad_directive(self.text.get(..at).unwrap_or_default()) {
            return self.fail(at, "a directive other than %YAML and %TAG");
        }
        if version != 1 {
            return self.fail(at, "a YAML version other than 1");
        }
        self.documents += 1;
        if self.documents > 1 {
            return self.fail(at, "more than one document in the file");
        }
        Ok(())
    }

    pub(super) fn plain(
        &self,
        text: &str,
        span: Range<usize>,
    ) -> Result<(Range<usize>, String), Error> {
        if span.is_empty() {
            return Ok((span, String::new()));
        }
        if self.in_flow() && (text.starts_with(':') || text.contains('?')) {
            let why = "within [] or {}, quote a text that contains `?` or starts with `:`";
            return self.fail(span.start, why);
        }
        Ok((span, text.to_owned()))
    }

    pub(super) fn block(
        &mut self,
        text: &str,
        raw: Range<usize>,
        indent: usize,
    ) -> Result<(Range<usize>, String), Error> {
        if !text.trim().is_empty() {
            self.quoted.push(raw.clone());
        }
        match block_scalar::read(self.text, raw.clone(), text, indent) {
            Ok(read) => Ok(read),
            Err(why) => self.fail(raw.start, why),
        }
    }

    pub(super) fn key(&mut self, id: Id, props: Option<usize>) -> Result<Id, Error> {
        let span = self.tree.nodes[id].span.clone();
        if span.is_empty() && props.is_none() {
            return self.fail(span.start, "a key is missing before the colon");
        }
        let written = self.text.get(span.clone()).unwrap_or_default();
        if written.contains(['\n', '\r']) {
            return self.fail(span.start, "a key must be on one line");
        }
        let Some(name) = self.tree.key(id).map(String::from) else {
            let why = "a key must be a single value, not a list or a mapping";
            return self.fail(span.start, why);
        };
        let frame = self.open.last_mut();
        if !frame.is_none_or(|f| f.seen.insert(name.clone())) {
            self.accept_pyyaml_only(span, format!("the key `{name}` is a duplicate"), true)?;
        }
        Ok(id)
    }

    /// `<<` accepts a mapping or a list of mappings.
    pub(super) fn check_merge(&self, key: Id, value: Id) -> Result<(), Error> {
        let is_map = |id: Id| matches!(self.tree.kind(id), Kind::Map { .. });
        let fits = match self.tree.kind(value) {
            Kind::Seq { items, .. } => items.iter().all(|i| is_map(*i)),
            _ => is_map(value),
        };
        if self.tree.is_merge(key) && !fits {
            let at = self.tree.nodes[value].span.start;
            return self.fail(at, "`<<` accepts a mapping or a list of mappings");
        }
        Ok(())
    }

    /// Within {} and [] the colon must be on the line of its key.
    pub(super) fn check_colon(&self, key: Id) -> Result<(), Error> {
        let (start, end) = (self.tree.nodes[key].start(), self.tree.nodes[key].span.end);
        let written = after_colon(self.text, end).and_then(|c| self.text.get(start..c));
        if self.in_flow() && written.is_some_and(|t| t.contains(['\n', '\r'])) {
            return self.fail(start, "a key must be on one line with its colon");
        }
        Ok(())
    }

    pub(super) fn scalar(
        &mut self,
        text: &str,
        plain: bool,
        tag: Option<&RawTag>,
        span: Range<usize>,
    ) -> Result<Data, Error> {
        let at = span.start;
        let tag = match tag.map(|t| (t.handle(), t.suffix())) {
            None if plain => scalar::resolve(text),
            None => Tag::Str,
            // The lone `!` asks for the implicit rules, quoted or not.
            Some(("!", "") | ("", "!")) => scalar::resolve(text),
            Some((handle, suffix)) => match scalar::named(handle, suffix) {
                Some(tag) => tag,
                None => return self.fail(at, format!("the unknown tag `{handle}{suffix}`")),
            },
        };
        let is_key = self.open.last().is_some_and(|f| {
            f.key.is_none() && matches!(self.tree.nodes[f.id].kind, Kind::Map { .. })
        });
        if tag == Tag::Value && is_key {
            // Only as a key does PyYAML read `=` as a string.
            return Ok(Data::Str);
        }
        match scalar::construct(tag, text) {
            Ok(data) => Ok(data),
            Err(ConstructError::Invalid(why)) => self.fail(at, why),
            Err(ConstructError::NonJson(why, near)) => {
                self.accept_pyyaml_only(span, why, false)?;
                Ok(Data::NonJson(tag, near))
            }
        }
    }

    /// Records what only `PyYAML` accepts, or refuses it.
    fn accept_pyyaml_only(
        &mut self,
        range: Range<usize>,
        message: String,
        duplicate: bool,
    ) -> Result<(), Error> {
        if !self.as_pyyaml {
            return self.fail(range.start, message);
        }
        self.pyyaml_only.push(PyYamlOnly {
            range,
            message,
            duplicate,
        });
        Ok(())
    }

    pub(super) fn collection_tag(
        &mut self,
        tag: Option<&RawTag>,
        own: &str,
        span: Range<usize>,
    ) -> Result<(), Error> {
        let others: &[&str] = match own {
            "map" => &["set"],
            _ => &["omap", "pairs"],
        };
        match tag.map(|t| (t.handle(), t.suffix())) {
            None | Some(("!", "") | ("", "!")) => Ok(()),
            Some((scalar::CORE, suffix)) if suffix == own => Ok(()),
            Some((scalar::CORE, suffix)) if others.contains(&suffix) => self.accept_pyyaml_only(
                span,
                format!("`!!{suffix}`, which JSON cannot represent"),
                false,
            ),
            Some((handle, suffix)) => self.fail(
                span.start,
                format!("the unknown tag `{handle}{suffix}` on a collection"),
            ),
        }
    }
}
