//! References, `${{ instance.path.to.value }}`: where they are in a text, and which values they name.

pub mod script;
mod shape;

use std::ops::Range;

use serde_json::{Map, Value};

pub use shape::{Shape, shape_at};

use crate::suggest::did_you_mean;
use crate::yaml::{Seg, show};

/// A piece of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Part<'a> {
    /// Literal text.
    Text(&'a str),
    /// This many `$`, which stand for half as many: the escape before a reference or before literal `{{`.
    Dollars(usize),
    /// A value of an instance.
    Reference(Reference<'a>),
}

/// A reference to a value of an instance, as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference<'a> {
    /// The reference with its braces.
    pub written: &'a str,
    /// Its place in the text.
    pub range: Range<usize>,
    /// The path. Its first steps are the name of an instance, which may contain dots.
    pub path: Vec<Seg>,
}

/// Why a text with `${{` is malformed.
#[derive(Clone, Debug, PartialEq)]
pub struct Malformed {
    /// The malformed part.
    pub range: Range<usize>,
    /// What is wrong with it.
    pub message: String,
}

/// Whether a text contains a reference, or the escape of one.
pub fn is_templated(text: &str) -> bool {
    text.contains("${{")
}

/// Splits a text into its parts. `$` before `{{` follow devcluster's rule: each pair stands for one `$`, so `$${{` does not
/// begin a reference.
///
/// # Errors
/// A reference without an end, or without a valid path.
pub fn parse(text: &str) -> Result<Vec<Part<'_>>, Malformed> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some(found) = text[at..].find("${{").map(|i| at + i) {
        let dollars = text[..=found].len() - text[..=found].trim_end_matches('$').len();
        let dollars = dollars.min(found + 1 - at);
        let start = found + 1 - dollars;
        push_text(&mut parts, &text[at..start]);
        if dollars > 1 {
            parts.push(Part::Dollars(dollars / 2 * 2));
        }
        at = found + 1;
        if dollars % 2 == 1 {
            let end = text[at..].find("}}").map(|i| at + i + 2);
            let Some(end) = end else {
                return Err(Malformed {
                    range: found..text.len(),
                    message: "a reference without its `}}`; for a literal `${{` write `$${{`"
                        .into(),
                });
            };
            let (written, range) = (&text[found..end], found..end);
            match path(&written[3..written.len() - 2]) {
                Err(message) => return Err(Malformed { range, message }),
                Ok(path) => parts.push(Part::Reference(Reference {
                    written,
                    range,
                    path,
                })),
            }
            at = end;
        }
    }
    push_text(&mut parts, &text[at..]);
    Ok(parts)
}

fn push_text<'a>(parts: &mut Vec<Part<'a>>, text: &'a str) {
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
}

/// `a.b[2].c`
fn path(text: &str) -> Result<Vec<Seg>, String> {
    let example = "write it as `${{ tunnel.port }}`";
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("a reference without a path; {example}"));
    }
    let mut path = Vec::new();
    for step in text.split('.') {
        let (name, indices) = step.split_at(step.find('[').unwrap_or(step.len()));
        let is_name = |c: char| c.is_alphanumeric() || "_-/".contains(c);
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(format!("`{text}` is not the path of a value; {example}"));
        }
        path.push(Seg::from(name));
        for index in indices.split('[').skip(1) {
            let index = index.strip_suffix(']').and_then(|i| i.parse().ok());
            let index: usize =
                index.ok_or_else(|| format!("`{step}` has no valid index; write `{name}[0]`"))?;
            path.push(Seg::from(index));
        }
    }
    Ok(path)
}

impl Reference<'_> {
    /// Finds the instance that the reference names, and the path into its outputs.
    ///
    /// # Errors
    /// The reference names none of these instances.
    pub fn resolve<'n>(
        &self,
        names: impl Iterator<Item = &'n str> + Clone,
    ) -> Result<(&'n str, &[Seg]), String> {
        let keys = self.path.iter().map_while(|seg| match seg {
            Seg::Key(key) => Some(key.as_str()),
            Seg::Index(_) => None,
        });
        let keys: Vec<&str> = keys.collect();
        for count in (1..=keys.len()).rev() {
            let name = keys[..count].join(".");
            if let Some(found) = names.clone().find(|n| *n == name) {
                return Ok((found, &self.path[count..]));
            }
        }
        let first = keys.first().copied().unwrap_or_default();
        let known: Vec<&str> = names.clone().collect();
        Err(match (did_you_mean(first, names), known.is_empty()) {
            (Some(meant), _) => format!("no instance `{first}`; did you mean `{meant}`?"),
            (None, true) => {
                format!("no instance `{first}`; no earlier stage has outputs")
            }
            (None, false) => format!("no instance `{first}`; there is {}", known.join(", ")),
        })
    }
}

/// The value at a path into the outputs of an instance.
///
/// # Errors
/// The path leads to no value. The message names what exists.
pub fn value_at(
    instance: &str,
    outputs: &Map<String, Value>,
    path: &[Seg],
) -> Result<Value, String> {
    let Some((first, rest)) = path.split_first() else {
        return Ok(Value::Object(outputs.clone()));
    };
    let Seg::Key(first) = first else {
        return Err(format!("the outputs of {instance} are not a list"));
    };
    let mut at = outputs
        .get(first)
        .ok_or_else(|| unknown(instance, first, outputs.keys().map(String::as_str)))?;
    let mut so_far = format!("{instance}.{first}");
    for seg in rest {
        let next = match (seg, at) {
            (Seg::Key(key), Value::Object(map)) => map
                .get(key)
                .ok_or_else(|| unknown(&so_far, key, map.keys().map(String::as_str)))?,
            (Seg::Index(i), Value::Array(items)) => items
                .get(*i)
                .ok_or_else(|| format!("`{so_far}` has {} items", items.len()))?,
            _ => return Err(format!("there is nothing below `{so_far}`")),
        };
        so_far = join(&so_far, seg);
        at = next;
    }
    Ok(at.clone())
}

fn unknown<'k>(parent: &str, key: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    let meant = did_you_mean(key, known.clone());
    let meant = meant.map_or_else(
        || format!("there is {}", known.collect::<Vec<_>>().join(", ")),
        |m| format!("did you mean `{parent}.{m}`?"),
    );
    format!("{parent} has no `{key}`; {meant}")
}

fn join(so_far: &str, seg: &Seg) -> String {
    let below = show(std::slice::from_ref(seg));
    match seg {
        Seg::Key(_) => format!("{so_far}.{below}"),
        Seg::Index(_) => format!("{so_far}{below}"),
    }
}

#[cfg(test)]
mod tests;
