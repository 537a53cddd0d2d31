//! Errors in the user's files, with their place and a suggested fix.
//!
//! Collects, sorts and renders diagnostics; detecting the errors is done elsewhere. Invariants: rendering never panics,
//! whatever the file contains; a diagnostic owns all its data, so the file may be gone when it is shown.

mod nearest;
mod plain;
mod terminal;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use nearest::{did_you_mean, listed, nearest};

/// The text of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub file: PathBuf,
    pub text: Arc<str>,
}

impl Source {
    #[must_use]
    pub fn new(file: impl Into<PathBuf>, text: impl Into<Arc<str>>) -> Self {
        Self { file: file.into(), text: text.into() }
    }

    /// The text of a span; empty if the span lies outside the text.
    #[must_use]
    pub fn at(&self, span: Span) -> &str {
        self.text.get(span.offset..span.offset.saturating_add(span.len)).unwrap_or_default()
    }

    /// The line on which a span begins, from 1.
    #[must_use]
    pub fn line_of(&self, span: Span) -> usize {
        self.text.get(..span.offset).unwrap_or_default().matches('\n').count() + 1
    }
}

/// A range of a file's text, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub offset: usize,
    pub len: usize,
}

/// A place in a file: lines and columns from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// A single error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub file: PathBuf,
    /// The place in the file's text; `None` if the file could not be read or there is nothing to show.
    pub place: Option<(Arc<str>, Span)>,
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error of a file as a whole.
    #[must_use]
    pub fn of_file(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self { file: file.into(), place: None, message: message.into(), help: None }
    }

    /// An error at a place in a file.
    #[must_use]
    pub fn at(source: &Source, span: Span, message: impl Into<String>) -> Self {
        Self {
            file: source.file.clone(),
            place: Some((Arc::clone(&source.text), span)),
            message: message.into(),
            help: None,
        }
    }

    /// Adds how to fix it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        let help = help.into();
        self.help = (!help.is_empty()).then_some(help);
        self
    }

    /// The position, if there is a place.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        let (text, span) = self.place.as_ref()?;
        let before = text.get(..span.offset)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Some(Position {
            line: before.bytes().filter(|b| *b == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        })
    }

    fn order(&self, other: &Self) -> Ordering {
        let key = |d: &Self| d.place.as_ref().map_or(0, |(_, span)| span.offset);
        self.file.cmp(&other.file).then(key(self).cmp(&key(other))).then_with(|| self.message.cmp(&other.message))
    }
}

/// All errors, sorted by file and place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics {
    sorted: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Adds a diagnostic. Duplicates are dropped.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        match self.sorted.binary_search_by(|d| d.order(&diagnostic)) {
            Ok(_) => {}
            Err(index) => self.sorted.insert(index, diagnostic),
        }
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.sorted.len()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.sorted.iter()
    }

    /// Returns `value` if there are no diagnostics.
    ///
    /// # Errors
    /// These diagnostics, if there are any.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    /// Renders for this stream: with frames on a terminal (in colour unless `NO_COLOR` is set), plain otherwise.
    #[must_use]
    pub fn render_for(&self, stream: &impl IsTerminal) -> String {
        if stream.is_terminal() {
            let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            self.drawn(colour)
        } else {
            self.plain()
        }
    }

    /// Renders lines that begin with `file:line:column:`, for logs and programs, without colours.
    #[must_use]
    pub fn plain(&self) -> String {
        let mut out: String = self.sorted.iter().map(plain::render).collect();
        out.push_str(&self.count());
        out.push('\n');
        out
    }

    /// Renders with frames and arrows.
    #[must_use]
    pub fn drawn(&self, colour: bool) -> String {
        let mut out: String = self.sorted.iter().map(|d| terminal::render(d, colour)).collect();
        out.push_str(&self.count());
        out.push('\n');
        out
    }

    fn count(&self) -> String {
        let files: BTreeSet<&Path> = self.sorted.iter().map(|d| d.file.as_path()).collect();
        let plural = |n: usize, word: &str| if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") };
        let errors = plural(self.len(), "error");
        format!("{errors} in {}; nothing was run", plural(files.len(), "file"))
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, diagnostics: I) {
        for diagnostic in diagnostics {
            self.push(diagnostic);
        }
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.sorted.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { sorted: vec![diagnostic] }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plain())
    }
}

impl std::error::Error for Diagnostics {}

/// Quotes user input in a message: on one line, without control characters, shortened if long.
#[must_use]
pub fn quoted(text: &str) -> String {
    const MOST: usize = 60;
    let mut out: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        out.push_str("...");
    }
    format!("`{}`", out.replace("\\\"", "\"").replace("\\'", "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let source = Source::new("a.yaml", "ä: 1\nöl: zwei\n");
        let diagnostic = Diagnostic::at(&source, Span { offset: 11, len: 4 }, "not a number");
        assert_eq!(diagnostic.position(), Some(Position { line: 2, column: 5 }));
        assert_eq!(source.at(Span { offset: 11, len: 4 }), "zwei");
    }

    #[test]
    fn spans_outside_the_text_are_harmless() {
        let source = Source::new("a.yaml", "ä");
        for span in [Span { offset: 1, len: 1 }, Span { offset: 9, len: usize::MAX }] {
            let all = Diagnostics::from(Diagnostic::at(&source, span, "odd"));
            assert!(all.plain().starts_with("a.yaml: odd"));
            assert!(all.drawn(false).contains("odd"));
        }
    }

    #[test]
    fn sorted_and_counted() {
        let (a, b) = (Source::new("a.yaml", "x: 1\ny: 2\n"), Source::new("b.yaml", "x: 1\n"));
        let mut all = Diagnostics::default();
        all.push(Diagnostic::at(&b, Span { offset: 0, len: 1 }, "third"));
        all.push(Diagnostic::at(&a, Span { offset: 5, len: 1 }, "second"));
        all.push(Diagnostic::at(&a, Span { offset: 0, len: 1 }, "first"));
        all.push(Diagnostic::at(&a, Span { offset: 0, len: 1 }, "first"));
        let messages: Vec<_> = all.iter().map(|d| d.message.as_str()).collect();
        assert_eq!(messages, ["first", "second", "third"]);
        assert!(all.plain().ends_with("3 errors in 2 files; nothing was run\n"));
    }

    #[test]
    fn a_quoted_text_stays_on_one_line() {
        assert_eq!(quoted("a\nb\u{1b}[0m"), "`a\\nb\\u{1b}[0m`");
        assert!(quoted(&"x".repeat(1000)).len() < 80);
    }
}
