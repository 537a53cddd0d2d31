//! A diagnostic drawn for a terminal.

use std::fmt;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode, SourceSpan};

use super::Diagnostic;

pub(super) fn render(diagnostic: &Diagnostic, colour: bool) -> String {
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let mut out = String::new();
    let drawn =
        GraphicalReportHandler::new_themed(theme).with_links(false).render_report(&mut out, &Drawing::new(diagnostic));
    if drawn.is_err() {
        return super::plain::render(diagnostic);
    }
    out.push('\n');
    out
}

#[derive(Debug)]
struct Drawing {
    message: String,
    help: Option<String>,
    place: Option<(NamedSource<String>, SourceSpan)>,
}

impl Drawing {
    fn new(diagnostic: &Diagnostic) -> Self {
        let file = diagnostic.file.display().to_string();
        // A span that is not in the text has no position, and would make the drawing fail.
        let place = match (&diagnostic.text, diagnostic.span, diagnostic.position()) {
            (Some(text), Some(span), Some(_)) => {
                let len = span.len.min(text.len() - span.offset);
                Some((NamedSource::new(file.clone(), harmless(text)), (span.offset, len).into()))
            }
            _ => None,
        };
        let message =
            if place.is_some() { diagnostic.message.clone() } else { format!("{file}: {}", diagnostic.message) };
        Self { message, help: diagnostic.help.clone(), place }
    }
}

/// The same text, byte for byte as long, without characters that steer a terminal.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' | '\r' => c,
            c if c.is_ascii_control() => '?',
            '\u{80}'..='\u{9f}' => '¿',
            c => c,
        })
        .collect()
}

impl fmt::Display for Drawing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Drawing {}

impl miette::Diagnostic for Drawing {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place.as_ref().map(|(source, _)| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (_, span) = self.place.as_ref()?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(None, *span))))
    }
}
