//! Expressions as text, for what their parser does not parse.

use std::time::Duration;

use super::Failure;

/// The expression with the contents of strings and comments left out.
#[must_use]
pub fn outside_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' | '\'' | '`' => {
                out.push_str("\"\"");
                while let Some(within) = chars.next() {
                    if within == c {
                        break;
                    }
                    if within == '\\' && c != '`' {
                        chars.next();
                    }
                }
            }
            '#' => {
                if chars.by_ref().any(|c| c == '\n') {
                    out.push('\n');
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// An upper bound of how deep the expression's tree is.
pub(super) fn operators(text: &str) -> usize {
    let text = outside_strings(text);
    let symbols = text.chars().filter(|c| "(-+*/%^<>=@".contains(*c)).count();
    symbols + words(&text).filter(|word| matches!(*word, "and" | "or" | "unless" | "atan2")).count()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | ':')).filter(|word| !word.is_empty())
}

/// Everything that may be the name of a metric, quoted or not.
pub(super) fn names(text: &str) -> impl Iterator<Item = String> {
    let starts = |word: &&str| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':');
    let names: std::collections::BTreeSet<&str> = words(text).filter(starts).collect();
    names.into_iter().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// Whether a number stands for a time that is out of range, on which the parser panics.
pub(super) fn has_odd_time(text: &str) -> bool {
    const LONGEST: f64 = 1e15;
    let text = outside_strings(text);
    let times =
        text.contains('[') || text.contains('@') || words(&text).any(|word| word.eq_ignore_ascii_case("offset"));
    let out_of_range = |number: f64| number.is_nan() || number > LONGEST;
    let mut numbers = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_');
    times && numbers.any(|word| word.parse().is_ok_and(out_of_range))
}

/// All durations of the expression added up.
pub(super) fn durations(text: &str) -> Duration {
    words(&outside_strings(text)).flat_map(|word| word.split(':')).filter_map(crate::duration::parse).sum()
}

/// Messages of the parser about expressions that have been wrong in each version of Prometheus.
const WRONG: [&str; 10] = [
    "invalid promql query",
    "no expression found",
    "unexpected right parenthesis",
    "unclosed left parenthesis",
    "unexpected right brace",
    "unexpected right bracket",
    "unexpected character after",
    "unterminated quoted string",
    "vector selector must contain at least one non-empty matcher",
    "comparisons between scalars must use BOOL modifier",
];

/// Words and symbols of versions and dialects that the parser does not know.
const NEWER: [&str; 7] = ["anchored", "smoothed", "step", "fill", "WITH", "keep_metric_names", "limit"];

pub(super) fn failure(text: &str, message: String) -> Failure {
    let code = outside_strings(text);
    let newer = words(&code).any(|word| NEWER.contains(&word));
    // Durations may be computed, and names quoted.
    let has_ranges = code.contains('[') || words(&code).any(|word| word == "offset");
    let quoted_names = code.contains("{\"\"");
    let symbols = code.contains("</") || code.contains(">/");
    let is_wrong = WRONG.iter().any(|wrong| message.starts_with(wrong));
    let grammar = message.starts_with("invalid promql query");
    if is_wrong && !(newer || symbols || quoted_names || grammar && has_ranges) {
        Failure::Wrong(message)
    } else {
        Failure::Unknown(message)
    }
}
