//! Writes a value the way people do: every style that YAML has, with comments and blank lines.

use serde_json::Value;

struct Writer {
    state: u64,
    out: String,
    newline: &'static str,
}

pub(crate) fn write(value: &Value, style: u64) -> String {
    let mut writer = Writer {
        state: style | 1,
        out: String::new(),
        newline: if style.is_multiple_of(7) {
            "\r\n"
        } else {
            "\n"
        },
    };
    if writer.one_in(8) {
        writer.out.push('\u{feff}');
    }
    writer.comment_lines(0);
    if writer.one_in(8) {
        writer.out.push_str("---");
        writer.end();
    }
    writer.block(value, 0);
    if writer.one_in(5)
        && writer.out.ends_with(writer.newline)
        && !writer.out.trim_end().ends_with('+')
    {
        let end = writer.out.trim_end_matches(['\r', '\n']).len();
        if !writer.out.contains('|') {
            writer.out.truncate(end);
        }
    }
    writer.out
}

impl Writer {
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    fn pad(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }

    /// The rest of a line: maybe a comment, then its end.
    fn end(&mut self) {
        if self.one_in(4) {
            self.out.push_str("  # a comment: {x");
        }
        self.out.push_str(self.newline);
    }

    fn comment_lines(&mut self, indent: usize) {
        if self.one_in(6) {
            self.out.push_str(self.newline);
        }
        if self.one_in(6) {
            self.pad(indent);
            self.out.push_str("# a line - of: comment");
            self.out.push_str(self.newline);
        }
    }

    /// Whole lines for a value, the first one padded too.
    fn block(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(map) if !map.is_empty() && !self.one_in(5) => {
                for (key, value) in map {
                    self.comment_lines(indent);
                    self.pad(indent);
                    self.entry(key, value, indent);
                }
            }
            Value::Array(items) if !items.is_empty() && !self.one_in(5) => {
                for item in items {
                    self.comment_lines(indent);
                    self.pad(indent);
                    self.item(item, indent);
                }
            }
            other => {
                self.pad(indent);
                self.flow(other, false);
                self.end();
            }
        }
    }

    fn entry(&mut self, key: &str, value: &Value, indent: usize) {
        self.scalar(key, false);
        self.out.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                self.end();
                let deeper = 1 + (self.next() % 4) as usize;
                self.block(value, indent + deeper);
            }
            Value::Array(items) if !items.is_empty() => {
                self.end();
                let deeper = (self.next() % 3) as usize;
                let flow_would_break = deeper == 0;
                if flow_would_break {
                    for item in items {
                        self.comment_lines(indent);
                        self.pad(indent);
                        self.item(item, indent);
                    }
                } else {
                    self.block(value, indent + deeper);
                }
            }
            Value::Null if self.one_in(2) => self.end(),
            leaf => self.leaf(leaf, indent),
        }
    }

    fn item(&mut self, value: &Value, indent: usize) {
        self.out.push('-');
        match value {
            Value::Object(map) if !map.is_empty() && !self.one_in(3) => {
                let gap = 1 + (self.next() % 3) as usize;
                self.pad(gap);
                for (i, (key, value)) in map.iter().enumerate() {
                    if i > 0 {
                        self.comment_lines(indent);
                        self.pad(indent + 1 + gap);
                    }
                    self.entry(key, value, indent + 1 + gap);
                }
            }
            Value::Object(_) | Value::Array(_) => {
                self.end();
                self.block(value, indent + 2);
            }
            Value::Null if self.one_in(2) => self.end(),
            leaf => self.leaf(leaf, indent),
        }
    }

    fn leaf(&mut self, value: &Value, indent: usize) {
        if let Value::String(text) = value
            && text.contains('\n')
            && text.chars().all(|c| c == '\n' || c.is_ascii_alphabetic())
        {
            self.out
                .push_str(if text.ends_with('\n') { " |" } else { " |-" });
            self.end();
            for line in text.lines() {
                self.pad(indent + 3);
                self.out.push_str(line);
                self.out.push_str(self.newline);
            }
            return;
        }
        if self.one_in(9) {
            self.end();
            self.pad(indent + 2);
        } else {
            self.out.push(' ');
        }
        self.flow(value, false);
        self.end();
    }

    fn flow(&mut self, value: &Value, inside: bool) {
        match value {
            Value::String(text) => self.scalar(text, inside),
            Value::Array(items) => {
                self.out.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.comma(i);
                    self.flow(item, true);
                }
                self.out.push(']');
            }
            Value::Object(map) => {
                self.out.push('{');
                for (i, (key, value)) in map.iter().enumerate() {
                    self.comma(i);
                    self.scalar(key, true);
                    self.out.push_str(": ");
                    self.flow(value, true);
                }
                self.out.push('}');
            }
            other => {
                let text = yaml::to_yaml(other);
                self.out.push_str(text.trim_end());
            }
        }
    }

    fn comma(&mut self, i: usize) {
        if i > 0 {
            self.out.push(',');
            if !self.one_in(3) {
                self.out.push(' ');
            } else {
                self.out.push(' ');
                self.out.push(' ');
            }
        }
    }

    fn scalar(&mut self, text: &str, inside: bool) {
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b == b'-' || b == b' ');
        if plain && !inside && !self.one_in(4) {
            self.out.push_str(&yaml::quote(text));
        } else if text.chars().all(|c| (' '..='~').contains(&c)) && self.one_in(2) {
            self.out.push('\'');
            self.out.push_str(&text.replace('\'', "''"));
            self.out.push('\'');
        } else {
            let quoted = yaml::quote(text);
            if quoted.starts_with('"') {
                self.out.push_str(&quoted);
            } else {
                self.out.push('"');
                self.out
                    .push_str(&text.replace('\\', "\\\\").replace('"', "\\\""));
                self.out.push('"');
            }
        }
    }
}
