//! Series as text: labels as in PromQL, samples as in promtool's test files.

use std::collections::BTreeMap;

use crate::Samples;

/// A metric with its labels, as promtool's test files write it.
#[must_use]
pub fn selector(name: &str, labels: &BTreeMap<String, String>) -> String {
    if labels.is_empty() {
        return name.to_owned();
    }
    let labels: Vec<_> =
        labels.iter().map(|(label, value)| format!("{label}={}", serde_json::Value::from(value.as_str()))).collect();
    format!("{name}{{{}}}", labels.join(","))
}

/// Samples in the notation of promtool's test files.
#[must_use]
pub fn values(samples: &[Option<f64>]) -> String {
    let mut words = Vec::new();
    let mut rest = samples;
    while let Some(first) = rest.first() {
        let (word, length) = match first {
            None => {
                let length = rest.iter().take_while(|sample| sample.is_none()).count();
                (format!("_x{length}"), length)
            }
            Some(value) => row(*value, rest),
        };
        words.push(word);
        rest = rest.get(length..).unwrap_or_default();
    }
    words.join(" ")
}

/// The longest row of equal steps that is exact, and its length.
fn row(first: f64, samples: &[Option<f64>]) -> (String, usize) {
    let step = match samples.get(1) {
        Some(Some(second)) if first.is_finite() && second.is_finite() => second - first,
        _ => return (number(first), 1),
    };
    // promtool adds the step again and again; so does this, to be exact about what it reads.
    let mut next = first;
    let mut length = 0;
    for sample in samples {
        if sample.map(f64::to_bits) != Some(next.to_bits()) {
            break;
        }
        length += 1;
        next += step;
    }
    // Two numbers are shorter than a row, unless they are equal.
    if length < 2 || length == 2 && step != 0.0 {
        return (number(first), 1);
    }
    let sign = if step < 0.0 { "-" } else { "+" };
    (format!("{}{sign}{}x{}", number(first), number(step.abs()), length - 1), length)
}

/// A value.
#[must_use]
pub fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Inf".to_owned() } else { "-Inf".to_owned() };
    }
    format!("{value}")
}

/// `name{label="value"} VALUES`, without the name.
pub(crate) fn parse(line: &str) -> Option<(BTreeMap<String, String>, Samples)> {
    let (labels, rest) = labels_of(line)?;
    let mut samples = Vec::new();
    for word in rest.split_ascii_whitespace() {
        expand(word, &mut samples)?;
    }
    Some((labels, samples))
}

/// The labels of `name{label="value"} VALUES`, and what follows them.
pub(crate) fn labels_of(line: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    let start = line.find(['{', ' '])?;
    let mut rest = line.get(start..)?;
    if rest.starts_with('{') {
        while !rest.starts_with('}') {
            let (label, after) = rest.get(1..)?.split_once('=')?;
            let mut value = serde_json::Deserializer::from_str(after).into_iter::<String>();
            labels.insert(label.to_owned(), value.next()?.ok()?);
            rest = after.get(value.byte_offset()..)?;
        }
        rest = rest.get(1..)?;
    }
    Some((labels, rest))
}

/// `1`, `1+2x3`, `_`, `_x3`.
fn expand(word: &str, samples: &mut Samples) -> Option<()> {
    let (start, times) = match word.split_once('x') {
        Some((start, times)) => (start, times.parse::<usize>().ok()?),
        None if word == "_" => ("_", 1),
        None => (word, 0),
    };
    if start == "_" {
        samples.extend(std::iter::repeat_n(None, times));
        return Some(());
    }
    // A sign that is neither the first of the word nor of an exponent separates value and step.
    let is_step = |(at, c): &(usize, char)| {
        *at > 0 && matches!(c, '+' | '-') && !start.get(..*at).is_some_and(|before| before.ends_with('e'))
    };
    let (mut value, step) = match start.char_indices().find(is_step) {
        Some((at, _)) => (start.get(..at)?.parse::<f64>().ok()?, start.get(at..)?.parse::<f64>().ok()?),
        None => (start.parse().ok()?, 0.0),
    };
    for _ in 0..=times {
        samples.push(Some(value));
        value += step;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_survives() {
        let mut samples = Samples::new();
        for word in values(&[Some(f64::NAN), Some(f64::NAN), None, Some(f64::INFINITY)]).split(' ') {
            expand(word, &mut samples).unwrap();
        }
        assert!(samples[0].unwrap().is_nan() && samples[1].unwrap().is_nan());
        assert_eq!(samples[2..], [None, Some(f64::INFINITY)]);
    }

    #[test]
    fn rows_are_short() {
        assert_eq!(values(&[Some(1.0), Some(1.0), Some(1.0), None, Some(2.0), Some(4.0)]), "1+0x2 _x1 2 4");
        assert_eq!(values(&[Some(5.0), Some(4.0), Some(3.0)]), "5-1x2");
        assert_eq!(values(&[Some(7.0)]), "7");
    }
}
