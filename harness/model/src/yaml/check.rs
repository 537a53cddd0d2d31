//! Validates a file's tree against the JSON Schema and reports every error at once.
//!
//! Unknown, missing and duplicate keys, wrong types, values out of bounds, malformed strings, each at its place with a
//! fix. Supports as much of JSON Schema as [`super::schema`] generates. References are checked elsewhere.

use std::collections::HashMap;

use serde_json::Value as Schema;

use super::tree::{Number, Value, YamlNode};
use crate::diagnostics::{Diagnostic, Diagnostics, Source, Span, did_you_mean, listed, quoted};
use crate::spanned::Spanned;
use crate::values::{FORMATS, Format};

/// All errors in a file that is called `name` in messages.
pub(super) fn check(source: &Source, tree: &YamlNode, root: &Schema, name: &str) -> Diagnostics {
    let mut check = Check { source, root, wrong: Diagnostics::default() };
    check.node(root, tree, &Owner { name: name.to_owned(), span: first_word(source, tree.span) });
    check.wrong
}

/// What a node belongs to: the key before it, or the list that contains it.
#[derive(Clone)]
struct Owner {
    name: String,
    span: Span,
}

struct Check<'a> {
    source: &'a Source,
    root: &'a Schema,
    wrong: Diagnostics,
}

impl<'a> Check<'a> {
    fn report(&mut self, span: Span, message: String, help: impl Into<String>) {
        self.wrong.push(Diagnostic::at(self.source, first_line(self.source, span), message).help(help));
    }

    fn resolved(&self, schema: &'a Schema) -> &'a Schema {
        let target = schema["$ref"].as_str().and_then(|path| self.root.pointer(path.strip_prefix('#')?));
        target.unwrap_or(schema)
    }

    fn node(&mut self, schema: &'a Schema, node: &YamlNode, owner: &Owner) {
        let schema = self.resolved(schema);
        if matches!(node.value, Value::Null) {
            let help = expected(schema).map(|e| format!("write {e}, or leave the key out")).unwrap_or_default();
            return self.report(owner.span, format!("{} has no value", owner.name), help);
        }
        if let Some(choices) = choices(schema) {
            return self.choice(&choices, node, owner);
        }
        if let Some(variants) = variants(schema) {
            return self.tagged(schema, &variants, node, owner);
        }
        if let Some(branches) = schema["anyOf"].as_array() {
            let fitting = branches.iter().map(|b| self.resolved(b)).find(|b| fits(b, &node.value));
            return match fitting {
                Some(branch) => self.node(branch, node, owner),
                None => {
                    let kinds: Vec<String> = branches.iter().filter_map(|b| expected(self.resolved(b))).collect();
                    self.wrong_type(&kinds.join(" or "), schema, node, owner);
                }
            };
        }
        if !fits(schema, &node.value) {
            return self.wrong_type(&expected(schema).unwrap_or_default(), schema, node, owner);
        }
        match &node.value {
            Value::Map(entries) => self.map(schema, entries, owner),
            Value::List(items) => self.list(schema, items, node.span, owner),
            Value::Text(text) => self.text(schema, text, node.span),
            Value::Number(number) => self.number(schema, number, node, owner),
            Value::Bool | Value::Null => {}
        }
    }

    fn wrong_type(&mut self, expected: &str, schema: &Schema, node: &YamlNode, owner: &Owner) {
        let help = match format_of(schema) {
            Some(format) => format.right.to_owned(),
            None if expected == "a string" && matches!(node.value, Value::Number(_) | Value::Bool) => {
                format!("put it in quotes: \"{}\"", self.source.at(node.span))
            }
            None if expected == "a list" && matches!(node.value, Value::Text(_) | Value::Number(_)) => {
                format!("put it in brackets: [{}]", self.source.at(node.span))
            }
            None => String::new(),
        };
        let found = match &node.value {
            Value::Text(text) => format!("the string {}", quoted(text)),
            other => other.kind().to_owned(),
        };
        self.report(shown(node, owner), format!("{} must be {expected}, not {found}", owner.name), help);
    }

    fn choice(&mut self, choices: &[&str], node: &YamlNode, owner: &Owner) {
        match &node.value {
            Value::Text(text) if choices.contains(&text.as_str()) => {}
            Value::Text(text) => {
                let help = match choices {
                    [only] => format!("write `{only}`"),
                    _ => did_you_mean(text, "one of", choices.iter().copied()),
                };
                self.report(node.span, format!("{} cannot be {}", owner.name, quoted(text)), help);
            }
            other => {
                let help = format!("one of: {}", listed(choices.iter().copied()));
                self.report(shown(node, owner), format!("{} must be a word, not {}", owner.name, other.kind()), help);
            }
        }
    }

    /// Checks `name: { settings }`, where the name determines the settings.
    fn tagged(&mut self, schema: &Schema, variants: &[(&str, &'a Schema)], node: &YamlNode, owner: &Owner) {
        let what = schema["title"].as_str().unwrap_or("kind").to_owned();
        let names = || variants.iter().map(|(name, _)| *name);
        let unknown = |name: &str| did_you_mean(name, "one of", names());
        match &node.value {
            Value::Map(entries) => match entries.as_slice() {
                [(key, value)] => match variants.iter().find(|(name, _)| *name == key.value) {
                    Some((name, settings)) => {
                        self.node(settings, value, &Owner { name: format!("`{name}`"), span: key.span });
                    }
                    None => {
                        self.report(key.span, format!("there is no {what} {}", quoted(&key.value)), unknown(&key.value))
                    }
                },
                [] => self.report(
                    shown(node, owner),
                    format!("a {what} is missing"),
                    format!("one of: {}", listed(names())),
                ),
                [(first, _), (second, _), ..] => {
                    let message = format!(
                        "{} is in the same entry as {}, but an entry takes one {what}",
                        quoted(&second.value),
                        quoted(&first.value)
                    );
                    let help = format!("its settings are indented below it: `{}: {{ ... }}`", first.value);
                    self.report(second.span, message, help);
                }
            },
            Value::Text(text) if names().any(|name| name == text) => {
                self.report(
                    node.span,
                    format!("{} has no settings", quoted(text)),
                    format!("write `{text}: {{ ... }}`"),
                );
            }
            Value::Text(text) => self.report(node.span, format!("there is no {what} {}", quoted(text)), unknown(text)),
            other => {
                let message = format!("a {what} must be a mapping, not {}", other.kind());
                self.report(shown(node, owner), message, format!("one of: {}", listed(names())));
            }
        }
    }

    fn map(&mut self, schema: &'a Schema, entries: &[(Spanned<String>, YamlNode)], owner: &Owner) {
        let mut first: HashMap<&str, Span> = HashMap::new();
        let properties = schema["properties"].as_object();
        for (key, value) in entries {
            if let Some(earlier) = first.insert(&key.value, key.span) {
                first.insert(&key.value, earlier);
                let line = self.source.line_of(earlier);
                self.report(
                    key.span,
                    format!("duplicate key {}", quoted(&key.value)),
                    format!("it is already on line {line}"),
                );
            }
            let inner = Owner { name: quoted(&key.value), span: key.span };
            match (properties.and_then(|p| p.get(&key.value)), schema.get("additionalProperties")) {
                (Some(property), _) => self.node(property, value, &inner),
                (None, Some(Schema::Object(_))) => self.node(&schema["additionalProperties"], value, &inner),
                (None, _) => {
                    let keys = properties
                        .into_iter()
                        .flatten()
                        .map(|(key, _)| key.as_str())
                        .filter(|k| !entries.iter().any(|(given, _)| given.value == *k));
                    let help = did_you_mean(&key.value, "other keys", keys);
                    self.report(key.span, format!("unknown key {} in {}", quoted(&key.value), owner.name), help);
                }
            }
        }
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Schema::as_str) {
            if !first.contains_key(required) {
                let property = properties.and_then(|p| p.get(required));
                self.report(owner.span, format!("{} lacks `{required}`", owner.name), self.about(property));
            }
        }
    }

    /// Describes a missing key.
    fn about(&self, property: Option<&'a Schema>) -> String {
        let Some(property) = property else { return String::new() };
        let description = |s: &Schema| s["description"].as_str().map(str::to_owned);
        let text = description(property).or_else(|| description(self.resolved(property)));
        let text = text.as_deref().and_then(|t| t.split("\n\n").next()).map(|t| t.replace('\n', " "));
        match (text, expected(self.resolved(property))) {
            (Some(text), _) => text,
            (None, Some(expected)) => format!("it is {expected}"),
            (None, None) => String::new(),
        }
    }

    fn list(&mut self, schema: &'a Schema, items: &[YamlNode], span: Span, owner: &Owner) {
        let bound = |key: &str| schema[key].as_u64().and_then(|n| usize::try_from(n).ok());
        let (least, most) = (bound("minItems").unwrap_or(0), bound("maxItems").unwrap_or(usize::MAX));
        if items.len() < least || items.len() > most {
            let right = if least == most { format!("{least} entries") } else { format!("{least} to {most} entries") };
            let span = if span.len == 0 { owner.span } else { span };
            self.report(span, format!("{} has {} entries", owner.name, items.len()), format!("it takes {right}"));
        }
        if let Some(schema) = schema.get("items") {
            for item in items {
                let name = format!("an entry of {}", owner.name);
                let span = if item.span.len == 0 { first_word(self.source, item.span) } else { item.span };
                self.node(schema, item, &Owner { name, span });
            }
        }
    }

    fn text(&mut self, schema: &Schema, text: &str, span: Span) {
        if let Some(format) = format_of(schema)
            && !(format.accepts)(text)
        {
            self.report(span, format!("{} is not {}", quoted(text), format.what), format.right);
        }
    }

    fn number(&mut self, schema: &Schema, number: &Number, node: &YamlNode, owner: &Owner) {
        #[expect(clippy::cast_precision_loss, reason = "bounds are small; a rounded large number stays outside them")]
        let value = match number {
            Number::Whole(n) => *n as f64,
            // Numbers of this size are read as fractional, and are out of bounds.
            Number::Fractional(n) if type_of(schema) == "integer" && n.abs() < WHOLE => {
                return self.wrong_type("a whole number", schema, node, owner);
            }
            Number::Fractional(n) => *n,
        };
        let bound = |key: &str| schema[key].as_f64();
        let (least, most) = (bound("minimum").unwrap_or(f64::NEG_INFINITY), bound("maximum").unwrap_or(f64::INFINITY));
        if value < least || value > most || value.is_nan() {
            let found = quoted(self.source.at(node.span));
            let right = match (least.is_finite(), most.is_finite()) {
                (true, true) => format!("write a number from {least} to {most}"),
                (true, false) => format!("write a number of at least {least}"),
                _ => format!("write a number of at most {most}"),
            };
            self.report(node.span, format!("{} cannot be {found}", owner.name), right);
        }
    }
}

/// Whole numbers from here on are not exact as `f64`: 2 to the power of 53.
const WHOLE: f64 = 9_007_199_254_740_992.0;

fn type_of(schema: &Schema) -> &str {
    schema["type"].as_str().unwrap_or_default()
}

fn format_of(schema: &Schema) -> Option<&'static Format> {
    FORMATS.iter().find(|format| schema["format"] == format.name)
}

/// Describes what a schema accepts.
fn expected(schema: &Schema) -> Option<String> {
    if let Some(format) = format_of(schema) {
        return Some(format.what.to_owned());
    }
    let words = match type_of(schema) {
        "object" => "a mapping",
        "array" => "a list",
        "string" => "a string",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "`true` or `false`",
        _ => return choices(schema).map(|choices| format!("one of {}", listed(choices))),
    };
    Some(words.to_owned())
}

fn fits(schema: &Schema, value: &Value) -> bool {
    matches!(
        (type_of(schema), value),
        ("object", Value::Map(_))
            | ("array", Value::List(_))
            | ("string", Value::Text(_))
            | ("integer" | "number", Value::Number(_))
            | ("boolean", Value::Bool)
    )
}

/// The values of an enum written as a single word.
fn choices(schema: &Schema) -> Option<Vec<&str>> {
    if let Some(only) = schema.get("const") {
        return only.as_str().map(|only| vec![only]);
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(Schema::as_str).collect();
    }
    let branches = schema["oneOf"].as_array()?;
    let nested: Option<Vec<Vec<&str>>> = branches.iter().map(choices).collect();
    nested.map(|words| words.into_iter().flatten().collect())
}

/// The variants of an enum written as `name: { settings }`.
fn variants(schema: &Schema) -> Option<Vec<(&str, &Schema)>> {
    let branches = schema["oneOf"].as_array()?;
    branches
        .iter()
        .map(|branch| {
            let properties = branch["properties"].as_object()?;
            let (name, settings) = properties.iter().next()?;
            (properties.len() == 1).then_some((name.as_str(), settings))
        })
        .collect()
}

/// The span to show for a node: a scalar itself, or the owner of a collection.
const fn shown(node: &YamlNode, owner: &Owner) -> Span {
    match node.value {
        Value::Map(_) | Value::List(_) | Value::Null => owner.span,
        _ => node.span,
    }
}

/// The part of a span on its first line.
fn first_line(source: &Source, span: Span) -> Span {
    let len = source.at(span).lines().next().map_or(0, str::len);
    Span { len, ..span }
}

/// The first word at a place.
fn first_word(source: &Source, span: Span) -> Span {
    let rest = source.text.get(span.offset..).unwrap_or_default();
    Span { len: rest.find(|c: char| c.is_whitespace() || c == ':' || c == ',').unwrap_or(rest.len()), ..span }
}
