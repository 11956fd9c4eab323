//! References in shell scripts: each becomes a variable, so that a value never becomes text of the script.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Malformed, Part, parse};

const SHELLS: [&str; 6] = ["sh", "bash", "dash", "zsh", "ksh", "ash"];

/// A script that reads values from variables.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    /// The script for the shell.
    pub text: String,
    /// The reference of each variable, as written.
    pub variables: BTreeMap<String, String>,
}

/// The script that the word at `at` of a command becomes, or `None` when it is an argument, which can contain values.
///
/// # Errors
/// A reference is malformed, or the command might run its value.
pub fn in_command(words: &[&str], at: usize) -> Result<Option<Script>, Malformed> {
    let text = words[at];
    let Some(first) = references(text)?.into_iter().next() else {
        return Ok(None);
    };
    let mut is_script = false;
    for shell in (0..at).filter(|i| is_shell(words[*i])) {
        let (operand, runs) = options(&words[shell..]);
        let operand = shell + operand;
        let may_be_option = !runs && text.starts_with("${{") && words[at - 1] != "--";
        if shell == 0 && (at < operand || at == operand && may_be_option) {
            let message =
                "a shell could read this value as an option; put `--` or a path before it";
            return Err(refused(first, message));
        }
        if runs && at == operand {
            if shell > 0 {
                return Err(refused(first, FOREIGN));
            }
            is_script = true;
        }
    }
    if is_script {
        return script(text).map(Some);
    }
    let option = at.checked_sub(1).map_or("", |before| words[before]);
    let runs = option.starts_with('-') && !option.starts_with("--") && option.ends_with('c');
    if (runs && first != (0..text.len())) || nested(text) < first.start {
        return Err(refused(first, FOREIGN));
    }
    Ok(None)
}

const FOREIGN: &str = "the value would become text of a script, which could run it; pass it as an argument of the script, \
                       `sh -c '… \"$1\"' sh ${{ … }}`";

/// Replaces each reference by a variable, quoted where the script has no quotes. The parser knows common quoting only: a
/// misread script splits a value into words, but never runs it as a command.
///
/// # Errors
/// A reference is malformed, is where a shell expands no variables, or is in a nested script.
pub fn script(text: &str) -> Result<Script, Malformed> {
    let (mut script, mut quotes) = (Script::default(), Quotes::default());
    let nested = nested(text);
    let parts = parse(text)?;
    for (i, part) in parts.iter().enumerate() {
        match part {
            Part::Text(plain) => {
                quotes.read(plain);
                script.text.push_str(plain);
            }
            Part::Dollars(count) => {
                let is_before_variable = matches!(parts.get(i + 1), Some(Part::Reference(_)));
                let dollar = if is_before_variable { "\\$" } else { "$" };
                script.text.push_str(&dollar.repeat(count / 2));
            }
            Part::Reference(reference) => {
                let range = reference.range.clone();
                if nested < range.start {
                    let message = "a reference in a nested script, which could run the value; \
set a variable before it, `x=${{ … }}`";
                    return Err(refused(range, message));
                }
                let name = script.variable(reference.written);
                let here = quotes.here();
                quotes.in_word = true;
                match here {
                    Expansion::Unquoted => script.text.push_str(&format!("\"${{{name}}}\"")),
                    Expansion::Quoted => script.text.push_str(&format!("${{{name}}}")),
                    Expansion::None => {
                        let message =
                            "a reference where the shell expands no variables; use double quotes";
                        return Err(refused(range, message));
                    }
                }
            }
        }
    }
    Ok(script)
}

/// The places of the references in a text.
fn references(text: &str) -> Result<Vec<Range<usize>>, Malformed> {
    let found = parse(text)?.into_iter().filter_map(|part| match part {
        Part::Reference(reference) => Some(reference.range),
        _ => None,
    });
    Ok(found.collect())
}

fn refused(range: Range<usize>, message: &str) -> Malformed {
    let message = message.to_owned();
    Malformed { range, message }
}

fn is_shell(word: &str) -> bool {
    SHELLS.contains(&word.rsplit('/').next().unwrap_or_default())
}

/// The index of the first word of a shell's command line that is not an option, and whether it is a script (`-c`, `-ec`).
fn options(words: &[&str]) -> (usize, bool) {
    let (mut at, mut runs) = (1, false);
    while let Some(letters) = words.get(at).and_then(|w| w.strip_prefix(['-', '+'])) {
        at += 1;
        match letters.strip_prefix('-') {
            _ if letters.is_empty() => break,
            Some("") => break,
            Some("rcfile" | "init-file" | "emulate") => at += 1,
            Some(_) => {}
            None => {
                runs |= letters.contains('c');
                at += letters.matches(['o', 'O']).count();
            }
        }
    }
    (at, runs)
}

/// Where a text runs a nested script, by `sh -c` or `eval`; the end of the text if it does not.
fn nested(text: &str) -> usize {
    let words = text.split(|c: char| c.is_whitespace() || ";|&()'\"`".contains(c));
    let words: Vec<&str> = words.filter(|w| !w.is_empty()).collect();
    let runs = |i: &usize| match words[*i] {
        "eval" => true,
        word => is_shell(word) && options(&words[*i..]).1,
    };
    let found = (0..words.len()).find(runs);
    found.map_or(text.len(), |i| {
        words[i].as_ptr() as usize - text.as_ptr() as usize
    })
}

impl Script {
    fn variable(&mut self, written: &str) -> String {
        let inner = written[3..written.len() - 2].trim();
        let word = inner.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let mut name = format!("ref_{word}");
        for n in 2.. {
            match self.variables.get(&name) {
                Some(other) if other != written => name = format!("ref_{word}_{n}"),
                _ => break,
            }
        }
        self.variables.insert(name.clone(), written.to_owned());
        name
    }
}

/// How a shell expands a variable at a place.
enum Expansion {
    /// As several words: the variable needs quotes.
    Unquoted,
    /// As it is, within quotes.
    Quoted,
    /// Not at all.
    None,
}

/// The quotes that are open at the end of the text so far.
#[derive(Default)]
struct Quotes {
    /// The closing characters of open quotes and substitutions.
    ends: Vec<char>,
    /// In a here-document: whether its delimiter is quoted, so that the shell expands nothing. Its end is not detected.
    document: Option<bool>,
    is_escaped: bool,
    in_word: bool,
    in_comment: bool,
}

impl Quotes {
    fn here(&self) -> Expansion {
        match (self.document, self.ends.last()) {
            _ if self.is_escaped => Expansion::None,
            (Some(true), _) | (None, Some('\'')) => Expansion::None,
            (Some(false), _) | (None, Some('"')) => Expansion::Quoted,
            _ if self.in_comment => Expansion::Quoted,
            _ => Expansion::Unquoted,
        }
    }

    fn read(&mut self, text: &str) {
        let mut rest = text;
        while let (Some(c), None) = (rest.chars().next(), self.document) {
            let mut taken = c.len_utf8();
            let end = self.ends.last().copied();
            match (c, end) {
                _ if std::mem::take(&mut self.is_escaped) => {}
                _ if self.in_comment => self.in_comment = c != '\n',
                ('\'', Some('\'')) | ('"', Some('"')) | ('`', Some('`')) | (')', Some(')')) => {
                    self.ends.pop();
                }
                (_, Some('\'')) => {}
                ('\\', _) => self.is_escaped = true,
                ('"' | '`', _) => self.ends.push(c),
                ('$', _) if rest.starts_with("$(") => {
                    self.ends.push(')');
                    taken = 2;
                }
                (_, Some('"')) => {}
                ('\'', _) => self.ends.push(c),
                ('(', _) => self.ends.push(')'),
                ('#', _) => self.in_comment = !self.in_word,
                ('<', _) if rest.starts_with("<<<") => taken = 3,
                ('<', _) if rest.starts_with("<<") => {
                    let end = rest[2..].trim_start_matches(['-', ' ', '\t']);
                    self.document = Some(end.starts_with(['\'', '"', '\\']));
                }
                _ => {}
            }
            self.in_word = !(c.is_whitespace() || ";&|()".contains(c));
            rest = &rest[taken..];
        }
    }
}

#[cfg(test)]
mod tests;
