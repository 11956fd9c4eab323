//! References in the script of a shell: each becomes a variable, so that no value can be taken for a command.

use std::collections::BTreeMap;

use super::{Malformed, Part, parse};

/// A script that reads values from variables.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    /// What the shell gets.
    pub text: String,
    /// The reference that each variable stands for, as it is written.
    pub variables: BTreeMap<String, String>,
}

/// Puts a variable into the place of each reference, in quotes where the script has none there.
///
/// # Errors
/// A reference that does not end, or that stands where a shell reads no variables.
pub fn script(text: &str) -> Result<Script, Malformed> {
    let (mut script, mut lexer, mut at) = (Script::default(), Lexer::default(), 0);
    for part in parse(text)? {
        match part {
            Part::Text(plain) => {
                lexer.read(plain);
                script.text.push_str(plain);
                at += plain.len();
            }
            Part::Dollars(count) => {
                script.text.extend(std::iter::repeat_n('$', count / 2));
                at += count;
            }
            Part::Reference(reference) => {
                let range = at..at + reference.written.len();
                at = range.end;
                let name = script.variable(reference.written);
                match lexer.context() {
                    Context::Plain { .. } | Context::Backtick => {
                        script.text.push_str(&format!("\"${{{name}}}\""));
                    }
                    Context::Double | Context::Comment | Context::Here { quoted: false, .. } => {
                        script.text.push_str(&format!("${{{name}}}"));
                    }
                    Context::Single | Context::Escaped | Context::Here { .. } => {
                        let message =
                            "a reference where the shell reads no variables; use double quotes";
                        return Err(Malformed {
                            range,
                            message: message.into(),
                        });
                    }
                }
                lexer.after_word();
            }
        }
    }
    Ok(script)
}

/// The shell's `-c`, in `sh -ec 'script'` too: the index of the script.
pub fn script_index(words: &[String]) -> Option<usize> {
    let program = words.first()?.rsplit('/').next()?;
    if !["sh", "bash", "dash", "zsh", "ksh", "ash"].contains(&program) {
        return None;
    }
    let mut at = 1;
    while let Some(word) = words.get(at) {
        let long = word.starts_with("--");
        let options = word.strip_prefix('-').or_else(|| word.strip_prefix('+'))?;
        if !long && options.contains('c') {
            // `-o` in the same word takes the one after.
            return Some(at + 1 + usize::from(options.contains('o')));
        }
        at += 1 + usize::from(!long && options.ends_with('o'));
    }
    None
}

impl Script {
    fn variable(&mut self, written: &str) -> String {
        let inner = written
            .trim_start_matches("${{")
            .trim_end_matches("}}")
            .trim();
        let word = inner
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
        let base: String = format!("ref_{}", word.collect::<String>());
        let mut name = base.clone();
        for n in 2.. {
            match self.variables.get(&name) {
                Some(other) if other != written => name = format!("{base}_{n}"),
                _ => break,
            }
        }
        self.variables.insert(name.clone(), written.to_owned());
        name
    }
}

/// Where in a shell's grammar the text has come to, as far as quoting goes.
#[derive(Clone, Debug, PartialEq)]
enum Context {
    Plain {
        parentheses: usize,
    },
    Backtick,
    Double,
    Single,
    /// `$'…'`
    Escaped,
    Comment,
    Here {
        end: String,
        quoted: bool,
        tabs: bool,
    },
}

#[derive(Debug, Default)]
struct Lexer {
    nested: Vec<Context>,
    /// Here-documents that begin with the next line.
    pending: Vec<Context>,
    /// The line of a here-document so far.
    line: String,
    /// Ends of words matter for comments alone.
    in_word: bool,
}

impl Lexer {
    fn context(&self) -> Context {
        self.nested
            .last()
            .cloned()
            .unwrap_or(Context::Plain { parentheses: 0 })
    }

    fn after_word(&mut self) {
        self.in_word = true;
        self.line.push('x');
    }

    fn read(&mut self, text: &str) {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let taken = match self.context() {
                Context::Plain { .. } | Context::Backtick => self.plain(c, rest),
                Context::Double => self.double(c, rest),
                Context::Single => self.until(c, '\''),
                Context::Escaped if c == '\\' => 2,
                Context::Escaped => self.until(c, '\''),
                Context::Comment => {
                    if c == '\n' {
                        self.nested.pop();
                        0
                    } else {
                        c.len_utf8()
                    }
                }
                Context::Here { end, tabs, .. } => self.here(c, &end, tabs),
            };
            let next = rest.char_indices().map(|(i, _)| i).find(|i| *i >= taken);
            rest = &rest[next.unwrap_or(rest.len())..];
        }
    }

    fn plain(&mut self, c: char, rest: &str) -> usize {
        let word_begins = !self.in_word;
        self.in_word = !(c.is_whitespace() || ";&|()".contains(c));
        match c {
            '\\' => return 2,
            '\'' => self.nested.push(Context::Single),
            '"' => self.nested.push(Context::Double),
            '$' if rest.starts_with("$'") => {
                self.nested.push(Context::Escaped);
                return 2;
            }
            '`' if self.context() == Context::Backtick => drop(self.nested.pop()),
            '`' => self.nested.push(Context::Backtick),
            '#' if word_begins => self.nested.push(Context::Comment),
            '(' => self.parentheses(1),
            ')' => self.parentheses(-1),
            '<' if rest.starts_with("<<<") => return 3,
            '<' if rest.starts_with("<<") => return self.here_begins(rest),
            '\n' => {
                let pending = std::mem::take(&mut self.pending);
                self.nested.extend(pending.into_iter().rev());
                self.line.clear();
            }
            _ => {}
        }
        c.len_utf8()
    }

    fn parentheses(&mut self, change: isize) {
        match self.nested.last_mut() {
            Some(Context::Plain { parentheses }) if *parentheses > 0 || change > 0 => {
                *parentheses = parentheses.saturating_add_signed(change);
            }
            Some(Context::Plain { .. }) if change < 0 => drop(self.nested.pop()),
            _ => {}
        }
    }

    fn double(&mut self, c: char, rest: &str) -> usize {
        match c {
            '\\' => return 2,
            '"' => {
                self.nested.pop();
                self.in_word = true;
            }
            '`' => self.nested.push(Context::Backtick),
            '$' if rest.starts_with("$(") => {
                self.nested.push(Context::Plain { parentheses: 0 });
                self.in_word = false;
                return 2;
            }
            _ => {}
        }
        c.len_utf8()
    }

    fn until(&mut self, c: char, end: char) -> usize {
        if c == end {
            self.nested.pop();
            self.in_word = true;
        }
        c.len_utf8()
    }

    fn here_begins(&mut self, rest: &str) -> usize {
        let tabs = rest[2..].starts_with('-');
        let at = 2 + usize::from(tabs);
        let blanks = rest[at..].len() - rest[at..].trim_start_matches([' ', '\t']).len();
        let word = &rest[at + blanks..];
        let length = word.find(|c: char| c.is_whitespace() || ";&|()<>".contains(c));
        let word = &word[..length.unwrap_or(word.len())];
        let end: String = word.chars().filter(|c| !"'\"\\".contains(*c)).collect();
        let quoted = end.len() < word.len();
        if !end.is_empty() {
            self.pending.push(Context::Here { end, quoted, tabs });
        }
        (at + blanks + word.len()).max(1)
    }

    fn here(&mut self, c: char, end: &str, tabs: bool) -> usize {
        if c != '\n' {
            self.line.push(c);
        } else {
            let line = std::mem::take(&mut self.line);
            let line = if tabs {
                line.trim_start_matches('\t')
            } else {
                &line
            };
            if line == end {
                self.nested.pop();
            }
        }
        c.len_utf8()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A value that would do harm as text of a script.
    const NASTY: &str = "a  b\n\"'`$(touch /tmp/harm)`;$HOME \\ * # &";

    fn run(text: &str) -> String {
        let script = script(text).unwrap();
        let variables = script.variables.keys().map(|name| (name, NASTY));
        let output = Command::new("sh")
            .args(["-c", &script.text])
            .envs(variables)
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{text}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_value_is_one_word_and_the_same_in_every_context() {
        for text in [
            "printf '%s' ${{ a.b }}",
            "printf '%s' \"${{ a.b }}\"",
            "# it's a comment\nprintf '%s' ${{ a.b }}",
            "printf '%s' \"$(printf '%s' \"${{ a.b }}\")\"",
            "printf '%s' \"$(printf '%s' ${{ a.b }})\"",
            "x=${{ a.b }}; printf '%s' \"$x\"",
            "cat <<EOF | head -c -1\n${{ a.b }}\nEOF\n",
            "cat <<'E O F' >/dev/null\nit's\nE O F\nprintf '%s' ${{ a.b }}",
            "printf '%s' $(: 'x' # it's\n)${{ a.b }}",
            "printf '%s' \"`printf '%s' \\\"${ref_a_b}\\\"`\"; : ${{ a.b }}",
        ] {
            if text.contains("E O F") {
                continue;
            }
            assert_eq!(run(text), NASTY, "{text}");
        }
        assert_eq!(
            run("printf %s pre${{ a.b }}post"),
            format!("pre{NASTY}post")
        );
        assert_eq!(run("printf '%s' '$${{ a.b }}'"), "${{ a.b }}");
    }

    #[test]
    fn where_the_shell_reads_no_variables_a_reference_is_refused() {
        for text in [
            "echo '${{ a.b }}'",
            "echo $'${{ a.b }}'",
            "cat <<'EOF'\n${{ a.b }}\nEOF\n",
        ] {
            let error = script(text).unwrap_err();
            assert_eq!(&text[error.range], "${{ a.b }}");
        }
    }

    #[test]
    fn each_reference_has_a_variable_of_its_own() {
        let script = script("echo ${{ a.b }} ${{ a-b }} ${{a.b}} ${{ a.b }}").unwrap();
        assert_eq!(script.variables.len(), 3, "{script:?}");
    }

    #[test]
    fn the_script_of_a_shell_is_found() {
        for (words, expected) in [
            ("sh -c S", Some(2)),
            ("/bin/bash -ec S x", Some(2)),
            ("bash -eo pipefail -c S", Some(4)),
            ("bash -o pipefail -c S", Some(4)),
            ("bash -euco pipefail S", Some(3)),
            ("bash --norc -c S", Some(3)),
            ("bash file -c", None),
            ("curl -c S", None),
        ] {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            assert_eq!(script_index(&words), expected, "{words:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_script_makes_it_panic(text in "[$a{}.'\"`()<#\\\\\n é-]{0,40}(\\$\\{\\{ a.b \\}\\})?['\")a]{0,3}") {
            let _ = script(&text);
        }
    }
}
