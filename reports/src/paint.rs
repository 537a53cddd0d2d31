//! Colours, and lines with a known width.
//!
//! Job: turns a [`Tone`] into a colour if colours are enabled, and builds lines of padded parts.
//! Invariants: without colour no control character is ever written, not even one from evidence; a line's width counts
//! visible characters, not escapes. Left out: terminal detection.

use owo_colors::{OwoColorize, Style};

use crate::words::Tone;

/// How text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub color: bool,
    /// Columns; `None` for lines of any length.
    pub width: Option<usize>,
}

impl Page {
    /// For files and pipes.
    pub const PLAIN: Self = Self { color: false, width: None };

    #[must_use]
    pub fn paint(self, tone: Tone, text: &str) -> String {
        self.styled(style(tone), text)
    }

    #[must_use]
    pub fn strong(self, text: &str) -> String {
        self.styled(Style::new().bold(), text)
    }

    /// Formats the label at the start of a line.
    #[must_use]
    pub fn label(self, tone: Tone, text: &str) -> String {
        self.styled(style(tone).bold(), text)
    }

    fn styled(self, style: Style, text: &str) -> String {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if self.color { text.style(style).to_string() } else { text }
    }
}

fn style(tone: Tone) -> Style {
    let style = Style::new();
    match tone {
        Tone::Good => style.green(),
        Tone::Muted => style.dimmed(),
        Tone::Note => style.cyan(),
        Tone::Skipped => style.blue(),
        Tone::Unsure => style.yellow(),
        Tone::Bad => style.red(),
        Tone::Dirty => style.magenta(),
    }
}

/// A line under construction.
#[derive(Debug, Clone)]
pub struct Line {
    page: Page,
    shown: String,
    width: usize,
}

impl Line {
    #[must_use]
    pub fn new(page: Page, indent: usize) -> Self {
        Self { page, shown: " ".repeat(indent), width: indent }
    }

    /// Adds `text` in the given tone, padded to `width` columns.
    #[must_use]
    pub fn cell(mut self, tone: Option<Tone>, text: &str, width: usize) -> Self {
        let long = columns(text);
        let pad = width.saturating_sub(long);
        match tone {
            Some(tone) => self.shown.push_str(&self.page.paint(tone, text)),
            None => self.shown.push_str(&Page { color: false, ..self.page }.paint(Tone::Muted, text)),
        }
        self.shown.push_str(&" ".repeat(pad));
        self.width += long + pad;
        self
    }

    /// Adds `text` as [`Page::label`] does.
    #[must_use]
    pub fn label(mut self, tone: Tone, text: &str) -> Self {
        self.shown.push_str(&self.page.label(tone, text));
        self.width += columns(text);
        self
    }

    /// Goes on below.
    #[must_use]
    pub fn below(mut self, indent: usize) -> Self {
        self.shown.truncate(self.shown.trim_end().len());
        self.shown.push('\n');
        self.shown.push_str(&" ".repeat(indent));
        self.width = indent;
        self
    }

    /// Columns left on the page.
    #[must_use]
    pub fn room(&self) -> usize {
        self.page.width.map_or(usize::MAX, |width| width.saturating_sub(self.width))
    }

    /// The line without trailing blanks.
    #[must_use]
    pub fn end(self) -> String {
        self.shown.trim_end().to_owned()
    }
}

/// The width of a text in columns. Every character counts as one, which holds for names and numbers.
#[must_use]
pub fn columns(text: &str) -> usize {
    text.chars().count()
}

/// At most `width` columns of a text, ending in "…" if it was cut.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Breaks a text at blanks (and after hyphens) into lines of at most `width` columns; longer words are not broken.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_inclusive([' ', '-']) {
        let line = lines.last_mut().expect("never empty");
        if !line.is_empty() && columns(line) + columns(word.trim_end()) > width {
            lines.push(word.to_owned());
        } else {
            line.push_str(word);
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_nothing_is_a_control_character() {
        let text = Page::PLAIN.paint(Tone::Bad, "evil \u{1b}[31mred\r\n");
        assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
    }

    #[test]
    fn colour_does_not_count_as_width() {
        let page = Page { color: true, width: Some(20) };
        let line = Line::new(page, 2).cell(Some(Tone::Good), "ok", 6);
        assert_eq!(line.room(), 12);
        assert!(line.end().contains("\u{1b}[32m"));
    }

    #[test]
    fn text_is_cut_and_wrapped() {
        assert_eq!(cut("worker-2", 6), "worke…");
        assert_eq!(cut("eth1", 6), "eth1");
        assert_eq!(wrap("policy-route-lost", 12), ["policy-", "route-lost"]);
        assert_eq!(wrap("FALSE ALARM", 8), ["FALSE", "ALARM"]);
        assert_eq!(wrap("unbreakable", 4), ["unbreakable"]);
    }
}
