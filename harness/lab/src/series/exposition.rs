//! Prometheus' text exposition format, version 0.0.4, as exporters answer to plain HTTP.
//!
//! Of the libraries, those that parse it (prometheus-parse, openmetrics-parser) put histograms and summaries together
//! and drop what they do not know; series are wanted here as they are.

use std::collections::BTreeMap;

/// A sample: name, labels, value.
pub type Sample<'a> = (&'a str, BTreeMap<String, String>, f64);

/// One line of an exposition.
pub enum Line<'a> {
    /// The family's name and type: `counter`, `gauge`, `histogram`, `summary` or `untyped`.
    Type(&'a str, &'a str),
    Sample(Sample<'a>),
}

/// The types and samples of a text, in its order; `Err` for a line that is neither, nor a comment.
pub fn lines(text: &str) -> impl Iterator<Item = Result<Line<'_>, &str>> {
    text.lines().filter_map(|line| {
        let trimmed = line.trim();
        if let Some(comment) = trimmed.strip_prefix('#') {
            let mut words = comment.split_ascii_whitespace();
            return match (words.next(), words.next(), words.next()) {
                (Some("TYPE"), Some(name), Some(kind)) => Some(Ok(Line::Type(name, kind))),
                _ => None,
            };
        }
        (!trimmed.is_empty()).then(|| sample(trimmed).map(Line::Sample).ok_or(line))
    })
}

/// `name{label="value",...} VALUE [TIMESTAMP]`.
fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(|c: char| c == '{' || c.is_ascii_whitespace())?;
    let (name, mut rest) = (line.get(..end)?, line.get(end..)?);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside.trim_start();
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once('=')?;
            let (value, after) = unquote(quoted.trim_start().strip_prefix('"')?)?;
            // A label without a value is none for a Prometheus.
            if !value.is_empty() {
                labels.insert(label.trim().to_owned(), value);
            }
            rest = after.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        rest = rest.get(1..)?;
    }
    // Rust reads NaN, +Inf and -Inf as Go writes them.
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

/// The value before the closing quote, with `\\`, `\"` and `\n` replaced, and the rest.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_a_line_are_read() {
        let text = "# HELP a Some text.\n# TYPE a counter\na 1 1700000000\n\nb{} +Inf\n\
                    c{x=\"1\", y=\"a \\\"b\\\" \\\\ \\n, }=\",} 1.5e-3\nd{le=\"+Inf\",of=\"\"} NaN\nbroken\ne{x=\"1} 2\n";
        let mut read = lines(text);
        let mut next = || read.next().expect("a line");
        assert!(matches!(next(), Ok(Line::Type("a", "counter"))));
        let mut sample = || match next() {
            Ok(Line::Sample((name, labels, value))) => (name.to_owned(), labels, value),
            _ => panic!("not a sample"),
        };
        assert_eq!(sample(), ("a".into(), BTreeMap::new(), 1.0));
        assert_eq!(sample(), ("b".into(), BTreeMap::new(), f64::INFINITY));
        let labels = BTreeMap::from([("x".into(), "1".into()), ("y".into(), "a \"b\" \\ \n, }=".into())]);
        assert_eq!(sample(), ("c".into(), labels, 0.0015));
        let (name, labels, value) = sample();
        assert_eq!((name.as_str(), labels["le"].as_str(), value.is_nan()), ("d", "+Inf", true));
        assert!(matches!(read.next(), Some(Err("broken"))));
        assert!(matches!(read.next(), Some(Err(line)) if line.starts_with("e{")));
        assert!(read.next().is_none());
    }
}
