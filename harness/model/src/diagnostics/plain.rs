//! A diagnostic as lines of text: `file:line:column: message`, the line itself, how to fix it.

use super::Diagnostic;

/// Maximum width of an excerpt; longer lines are cut around the span.
const WIDTH: usize = 120;

pub(super) fn render(diagnostic: &Diagnostic) -> String {
    let file = diagnostic.file.display();
    let mut out = match diagnostic.position() {
        Some(at) => format!("{file}:{}:{}: {}\n", at.line, at.column, diagnostic.message),
        None => format!("{file}: {}\n", diagnostic.message),
    };
    if let Some(excerpt) = excerpt(diagnostic) {
        out.push_str(&excerpt);
    }
    if let Some(help) = &diagnostic.help {
        out.push_str(&format!("  help: {help}\n"));
    }
    out.push('\n');
    out
}

fn excerpt(diagnostic: &Diagnostic) -> Option<String> {
    let ((text, span), at) = (diagnostic.place.as_ref()?, diagnostic.position()?);
    let line: Vec<char> = text.lines().nth(at.line - 1)?.chars().map(shown).collect();
    let under = text.get(span.offset..)?;
    let under = under.get(..span.len).unwrap_or(under).lines().next().unwrap_or_default().chars().count();

    let start = at.column - 1;
    let from = if line.len() <= WIDTH { 0 } else { start.saturating_sub(WIDTH / 3) };
    let window: String = line.iter().skip(from).take(WIDTH).collect();
    let marks = under.clamp(1, WIDTH.saturating_sub(start - from).max(1));
    let number = at.line.to_string();
    let margin = " ".repeat(number.len());
    Some(format!(
        "  {number} | {}\n  {margin} | {}{}\n",
        window.trim_end(),
        " ".repeat(start - from),
        "^".repeat(marks)
    ))
}

/// Replaces a tab with one column, as in the column count, and neutralizes control characters.
const fn shown(c: char) -> char {
    match c {
        '\t' => ' ',
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Source, Span};
    use super::*;

    #[test]
    fn the_offending_text_is_underlined() {
        let source = Source::new("s.yaml", "a: 1\nto: pod/ap\n");
        let d = Diagnostic::at(&source, Span { offset: 9, len: 6 }, "there is no pod `ap`").help("did you mean `app`?");
        let expected =
            "s.yaml:2:5: there is no pod `ap`\n  2 | to: pod/ap\n    |     ^^^^^^\n  help: did you mean `app`?\n\n";
        assert_eq!(render(&d), expected);
    }

    #[test]
    fn a_line_without_end_is_cut_around_the_place() {
        let text = format!("{}HERE{}", "x".repeat(5000), "y".repeat(5000));
        let source = Source::new("s.yaml", text);
        let out = render(&Diagnostic::at(&source, Span { offset: 5000, len: 4 }, "here"));
        assert!(out.contains("xHEREy") && out.contains(" ^^^^\n"));
        assert!(out.lines().all(|line| line.len() < 140));
    }

    #[test]
    fn a_file_cannot_steer_the_terminal() {
        let source = Source::new("s.yaml", "a: \u{1b}[31mred\n");
        let out = render(&Diagnostic::at(&source, Span { offset: 3, len: 1 }, "odd"));
        assert!(!out.contains('\u{1b}'));
    }
}
