//! The numbers that a scenario lets vary ([`Variable`]): checked when it is planned, drawn when it is varied.
//!
//! A number is the last one in its scalar: that of `400ms`, the second one of `1/128` and of `46950-47009`. The text
//! around it stays. Invariant: the number in the file is one of those that can be drawn, so it is never tested less than
//! they are.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use relapse_model::diagnostics::{Diagnostic, Diagnostics, Source, Span, did_you_mean, quoted};
use relapse_model::spanned::Spanned;

use super::tree::Tree;
use crate::scenario::vary::{Between, Variable, Written};

type Variables = BTreeMap<Spanned<String>, Spanned<Variable>>;

/// A scalar, cut at its last number.
#[derive(Debug, Clone, PartialEq)]
struct Number {
    before: String,
    value: f64,
    decimals: usize,
    after: String,
}

impl Number {
    fn of(text: &str) -> Option<Self> {
        let end = text.rfind(|c: char| c.is_ascii_digit())? + 1;
        let start = text[..end].rfind(|c: char| !c.is_ascii_digit() && c != '.').map_or(0, |before| before + 1);
        let digits = &text[start..end];
        Some(Self {
            before: text[..start].to_owned(),
            value: digits.parse().ok()?,
            decimals: digits.split_once('.').map_or(0, |(_, decimals)| decimals.len()),
            after: text[end..].to_owned(),
        })
    }

    /// The same scalar with another number.
    fn with(&self, value: f64) -> String {
        format!("{}{value:.*}{}", self.before, self.decimals, self.after)
    }

    fn is_like(&self, other: &Self) -> bool {
        self.before == other.before && self.after == other.after
    }
}

/// The values of a variable, resolved.
#[derive(Debug)]
enum Values {
    Range(f64, f64),
    OneOf(Vec<String>),
    Follows { of: String, times: Between, plus: Between },
}

/// A variable with the scalar it is the anchor of, if any.
#[derive(Debug)]
struct Drawable {
    name: String,
    shipped: Option<String>,
    values: Values,
}

/// Checks `vary` against the rest of the file.
pub fn check(variables: &Variables, source: &Source, tree: &Tree) -> Diagnostics {
    resolve(variables, source, tree).1
}

/// Draws every variable; returns what each anchor stands for.
pub fn draw(
    variables: &Variables,
    source: &Source,
    tree: &Tree,
    rng: &mut Rng,
) -> Result<Vec<(String, String)>, Diagnostics> {
    let (drawable, wrong) = resolve(variables, source, tree);
    let drawable = wrong.into_result(drawable)?;
    let mut drawn: BTreeMap<&str, (f64, Option<String>)> = BTreeMap::new();
    // In the order of the file, so that a variable is drawn after the one it follows from.
    for one in &drawable {
        let number = one.shipped.as_deref().and_then(Number::of);
        let decimals = i32::try_from(number.as_ref().map_or(0, |n| n.decimals)).unwrap_or(0);
        let value = match &one.values {
            Values::Range(low, high) => between(rng, *low, *high, decimals),
            Values::OneOf(texts) => {
                let text = &texts[rng.usize(..texts.len())];
                let value = Number::of(text).map_or(0.0, |n| n.value);
                drawn.insert(&one.name, (value, one.shipped.is_some().then(|| text.clone())));
                continue;
            }
            Values::Follows { of, times, plus } => {
                let base = drawn.get(of.as_str()).map_or(0.0, |(value, _)| *value);
                let (low, high) = (base * times.low + plus.low, base * times.high + plus.high);
                between(rng, low, high, decimals)
            }
        };
        drawn.insert(&one.name, (value, number.map(|number| number.with(value))));
    }
    Ok(drawn.into_iter().filter_map(|(name, (_, text))| Some((name.to_owned(), text?))).collect())
}

/// A number with so many decimals, both ends included.
fn between(rng: &mut Rng, low: f64, high: f64, decimals: i32) -> f64 {
    let unit = 10_f64.powi(decimals);
    let (first, last) = ((low * unit).ceil(), (high * unit).floor());
    let width = (last - first).max(0.0);
    // Whole numbers below 2^53.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and cut on purpose")]
    let steps = rng.u64(..=(width as u64));
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let drawn = first + steps as f64;
    drawn / unit
}

fn resolve(variables: &Variables, source: &Source, tree: &Tree) -> (Vec<Drawable>, Diagnostics) {
    let mut wrong = Diagnostics::default();
    let mut anchors: BTreeMap<String, String> = BTreeMap::new();
    tree.scalars("", &mut |_, scalar| {
        if let Some(anchor) = &scalar.anchor {
            anchors.entry(anchor.clone()).or_insert_with(|| scalar.text.clone());
        }
    });
    let followed: BTreeSet<&str> =
        variables.values().filter_map(|v| v.of.as_ref()).map(|of| of.value.as_str()).collect();
    let mut in_order: Vec<_> = variables.iter().collect();
    in_order.sort_by_key(|(name, _)| name.span.offset);
    let mut drawable: Vec<Drawable> = Vec::new();
    for (name, variable) in in_order {
        let mut error = |span: Span, message: String, help: String| {
            wrong.push(Diagnostic::at(source, span, message).help(help));
        };
        let shipped = anchors.get(&name.value).cloned();
        if shipped.is_none() && !followed.contains(name.value.as_str()) {
            let known = anchors.keys().map(String::as_str);
            let message = format!("no number has the anchor `&{}`, and no variable follows from it", name.value);
            let help = did_you_mean(&name.value, "anchors", known);
            error(name.span, message, format!("write `&{} ` before the number that varies; {help}", name.value));
            continue;
        }
        let reader = Reader { source, shipped: shipped.as_deref() };
        match reader.values(name, variable, &drawable, &mut error) {
            Some(values) => drawable.push(Drawable { name: name.value.clone(), shipped, values }),
            // Stands for whatever it was meant to be, so that what follows from it is not reported as well.
            None => {
                drawable.push(Drawable { name: name.value.clone(), shipped: None, values: Values::Range(0.0, 0.0) })
            }
        }
    }
    (drawable, wrong)
}

struct Reader<'a> {
    source: &'a Source,
    /// The number in the file.
    shipped: Option<&'a str>,
}

impl Reader<'_> {
    fn values(
        &self,
        name: &Spanned<String>,
        variable: &Spanned<Variable>,
        before: &[Drawable],
        error: &mut dyn FnMut(Span, String, String),
    ) -> Option<Values> {
        let follows = variable.times.is_some() || variable.plus.is_some();
        match (&variable.from, &variable.to, &variable.one_of, &variable.of) {
            (Some(from), Some(to), None, None) if !follows => {
                let (low, high) = (self.number(from, error)?, self.number(to, error)?);
                if low > high {
                    error(from.span, "`from` is larger than `to`".into(), "exchange them".into());
                    return None;
                }
                let shipped = self.shipped.and_then(Number::of).map(|number| number.value);
                if let Some(shipped) = shipped.filter(|shipped| !(low..=high).contains(shipped)) {
                    let message = format!("{shipped}, the number at `&{}`, is not between these bounds", name.value);
                    error(variable.span, message, "widen them, or change the number".into());
                }
                Some(Values::Range(low, high))
            }
            (None, None, Some(list), None) if !follows => {
                let texts: Vec<String> = list.iter().map(|item| self.text(item.span)).collect();
                if texts.is_empty() {
                    error(list.span, "`oneOf` is empty".into(), "write at least one value".into());
                    return None;
                }
                if let Some(shipped) = self.shipped.filter(|shipped| !texts.iter().any(|text| text == shipped)) {
                    let message = format!("{}, the value at `&{}`, is not in this list", quoted(shipped), name.value);
                    error(list.span, message, "add it, or change the value".into());
                }
                Some(Values::OneOf(texts))
            }
            (None, None, None, Some(of)) => {
                let Some(base) = before.iter().find(|earlier| earlier.name == of.value) else {
                    let help = did_you_mean(of, "variables above", before.iter().map(|earlier| earlier.name.as_str()));
                    error(of.span, format!("no variable above is named {}", quoted(of)), help);
                    return None;
                };
                let times = variable.times.as_ref().map_or(Between { low: 1.0, high: 1.0 }, |times| times.value);
                let plus = variable.plus.as_ref().map_or(Between { low: 0.0, high: 0.0 }, |plus| plus.value);
                for between in [&variable.times, &variable.plus].into_iter().flatten() {
                    if between.low > between.high {
                        error(
                            between.span,
                            "the first number is larger than the second".into(),
                            "exchange them".into(),
                        );
                    }
                }
                let number = |text: Option<&str>| text.and_then(Number::of).map(|number| number.value);
                if let (Some(shipped), Some(base)) = (number(self.shipped), number(base.shipped.as_deref())) {
                    let (low, high) = (base * times.low + plus.low, base * times.high + plus.high);
                    if !(low - 1.0..=high + 1.0).contains(&shipped) {
                        let message =
                            format!("{shipped}, the number at `&{}`, is not between {low} and {high}", name.value);
                        let help = format!("these follow from {base}, the number at `&{}`", of.value);
                        error(variable.span, message, help);
                    }
                }
                Some(Values::Follows { of: of.value.clone(), times, plus })
            }
            _ => {
                let message = format!("`{}` does not tell which values it may have", name.value);
                let help =
                    "write `{ from: 1, to: 9 }`, `{ oneOf: [1, 9] }` or `{ of: NAME, times: [1, 2], plus: [3, 4] }`";
                error(variable.span, message, help.into());
                None
            }
        }
    }

    /// The text of a bound, without quotes.
    fn text(&self, span: Span) -> String {
        self.source.at(span).trim().trim_matches(['"', '\'']).to_owned()
    }

    /// The number of a bound, which must look like the number in the file.
    fn number(&self, bound: &Spanned<Written>, error: &mut dyn FnMut(Span, String, String)) -> Option<f64> {
        let text = self.text(bound.span);
        let Some(number) = Number::of(&text) else {
            error(bound.span, format!("{} has no number", quoted(&text)), "write a number and its unit".into());
            return None;
        };
        let shipped = self.shipped.and_then(Number::of);
        if let Some(shipped) = shipped.filter(|shipped| !shipped.is_like(&number)) {
            let message = format!("{} is not written like the number that varies", quoted(&text));
            error(bound.span, message, format!("write it like `{}`", shipped.with(shipped.value)));
            return None;
        }
        Some(number.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_of_a_scalar_varies_and_the_rest_stays() {
        let with = |text: &str, value| Number::of(text).map(|number| number.with(value));
        assert_eq!(with("1280", 1300.0).as_deref(), Some("1300"));
        assert_eq!(with("400ms", 50.0).as_deref(), Some("50ms"));
        assert_eq!(with("1/128", 64.0).as_deref(), Some("1/64"));
        assert_eq!(with("46950-47009", 46960.0).as_deref(), Some("46950-46960"));
        assert_eq!(with("0.7", 0.55).as_deref(), Some("0.6"));
        assert_eq!(with("20%", 7.0).as_deref(), Some("7%"));
        assert_eq!(with("moved", 1.0), None);
    }

    #[test]
    fn both_ends_of_a_range_are_drawn_and_nothing_beyond() {
        let mut rng = Rng::with_seed(7);
        let drawn: BTreeSet<u64> = (0..500).map(|_| between(&mut rng, 3.0, 6.0, 0).to_bits()).collect();
        let all: BTreeSet<u64> = [3.0, 4.0, 5.0, 6.0].map(f64::to_bits).into();
        assert_eq!(drawn, all);
        assert!((0..500).all(|_| (0.1..=0.3).contains(&between(&mut rng, 0.1, 0.3, 1))));
    }
}
