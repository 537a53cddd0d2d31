//! A diagnostic drawn for a terminal.

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report};

use super::Diagnostic;

pub(super) fn render(diagnostic: &Diagnostic, colour: bool) -> String {
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let file = diagnostic.file.display().to_string();
    let with_help = |message: String| {
        let drawing = MietteDiagnostic::new(message);
        diagnostic.help.iter().fold(drawing, MietteDiagnostic::with_help)
    };
    // A span outside the text has no position and would make rendering fail.
    let drawing = match (&diagnostic.place, diagnostic.position()) {
        (Some((text, span)), Some(_)) => {
            let place = (span.offset, span.len.min(text.len() - span.offset));
            let drawing = with_help(diagnostic.message.clone()).with_label(LabeledSpan::new_with_span(None, place));
            Report::new(drawing).with_source_code(NamedSource::new(file, harmless(text)))
        }
        _ => with_help(format!("{file}: {}", diagnostic.message)).into(),
    };
    let mut out = String::new();
    let handler = GraphicalReportHandler::new_themed(theme).with_links(false);
    if handler.render_report(&mut out, drawing.as_ref()).is_err() {
        return super::plain::render(diagnostic);
    }
    out.push('\n');
    out
}

/// Replaces control characters without changing byte offsets.
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
