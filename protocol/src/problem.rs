//! A mistake in a user's config, shown as a compiler shows it.

use std::io::IsTerminal;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use yaml::{Document, Seg};

/// Something wrong with a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the field; empty for the whole.
    pub path: String,
    /// What is wrong; after a `; `, a suggestion.
    pub message: String,
    /// Where it is: `file:line:column`, or the flag.
    pub place: Option<String>,
    /// Paths of other fields that it also depends on.
    pub(crate) depends_on: Vec<String>,
    /// The key is wrong, not its value.
    pub(crate) on_key: bool,
    /// The range in the file, to show it.
    mark: Option<Box<(SourceFile, Range<usize>)>>,
}

impl Problem {
    /// A problem with a field.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem {
            path: path.into(),
            message: message.into(),
            place: None,
            depends_on: Vec::new(),
            on_key: false,
            mark: None,
        }
    }

    /// A problem with the key itself.
    pub fn key(path: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem {
            on_key: true,
            ..Problem::new(path, message)
        }
    }

    /// Marks that it also depends on the value of another field.
    #[must_use]
    pub fn depends_on(mut self, field: impl Into<String>) -> Problem {
        self.depends_on.push(field.into());
        self
    }

    /// Puts a parent before the path.
    #[must_use]
    pub fn below(mut self, parent: &str) -> Problem {
        self.path = match self.path.as_str() {
            "" => parent.to_owned(),
            path if parent.is_empty() || path.starts_with('[') => format!("{parent}{path}"),
            path => format!("{parent}.{path}"),
        };
        self
    }

    /// Sets its place to these bytes of a file.
    #[must_use]
    pub fn at(mut self, source: &SourceFile, span: Range<usize>) -> Problem {
        let start = span.start.min(source.text.len());
        let (line, column) = yaml::location(&source.text, start);
        self.place = Some(format!("{}:{line}:{column}", source.file));
        // The first line is enough.
        let shown = source.text.get(start..span.end).unwrap_or_default();
        let end = start + shown.find(['\n', '\r']).unwrap_or(shown.len());
        self.mark = Some(Box::new((source.clone(), start..end)));
        self
    }

    /// Sets its place to where a document has the path, or to the innermost existing parent.
    #[must_use]
    pub fn in_document(self, source: &SourceFile, document: &Document) -> Problem {
        if self.place.is_some() {
            return self;
        }
        let path = segments(&self.path);
        let span = document.nearest_span(&path, self.on_key);
        self.at(source, span)
    }

    /// The message and the suggestion.
    pub(crate) fn parts(&self) -> (&str, Option<&str>) {
        match self.message.split_once("; ") {
            Some((message, meant)) => (message, Some(meant)),
            None => (&self.message, None),
        }
    }

    /// The problem for people: the line, a caret, the suggestion.
    pub fn render(&self, colours: bool) -> String {
        let (message, meant) = self.parts();
        let title = match (&self.mark, &self.place) {
            (None, Some(place)) => format!("{place}: {}", self.with_path(message)),
            _ => self.with_path(message),
        };
        let mut group = Group::with_title(Level::ERROR.primary_title(title));
        if let Some((source, span)) = self.mark.as_deref() {
            let annotation = AnnotationKind::Primary.span(span.clone());
            let snippet = Snippet::source(&*source.text)
                .path(source.file.as_str())
                .annotation(annotation.label(meant));
            group = group.element(snippet);
        } else if let Some(meant) = meant {
            group = group.element(Level::HELP.message(meant));
        }
        let renderer = match colours {
            true => Renderer::styled(),
            false => Renderer::plain(),
        };
        renderer.render(&[group])
    }

    /// Its offset in the file, to sort problems.
    #[must_use]
    pub fn offset(&self) -> Option<usize> {
        self.mark.as_ref().map(|mark| mark.1.start)
    }

    fn with_path(&self, message: &str) -> String {
        match self.path.is_empty() {
            true => message.to_owned(),
            false => format!("{}: {message}", self.path),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.with_path(&self.message))
    }
}

/// A file with problems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    file: String,
    text: Arc<str>,
}

impl SourceFile {
    /// A file by the name that messages show, with its text.
    pub fn new(file: &Path, text: &str) -> SourceFile {
        SourceFile {
            file: file.display().to_string(),
            text: text.into(),
        }
    }

    /// The problem that the YAML parser reports.
    pub fn problem(&self, error: &yaml::Error) -> Problem {
        Problem::new("", error.message.clone()).at(self, error.offset..error.offset + 1)
    }
}

/// The path of a problem, `a.b[2].c`, as a path in a document.
pub fn segments(path: &str) -> Vec<Seg> {
    path.split(['.', '['])
        .filter(|s| !s.is_empty())
        .map(
            |s| match s.strip_suffix(']').and_then(|i| i.parse::<usize>().ok()) {
                Some(index) => Seg::Index(index),
                None => Seg::Key(s.to_owned()),
            },
        )
        .collect()
}

/// Whether text for people has colours: on a terminal, unless NO_COLOR or TERM=dumb is set.
pub fn colours() -> bool {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
        || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
    !plain && std::io::stderr().is_terminal()
}
