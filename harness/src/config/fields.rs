//! Taking a mapping apart, key by key, with every error at its place.
//!
//! Invariant: whatever cannot be understood is reported and replaced by nothing, so that the rest of
//! the file is read too.

use relapse_model::diagnostics::{Diagnostic, Diagnostics, Source, Span, did_you_mean, quoted};
use relapse_model::spanned::Spanned;

use super::tree::{Node, Value};

/// A file and what is wrong with it so far.
pub(super) struct Reader<'a> {
    pub source: &'a Source,
    pub wrong: Diagnostics,
}

/// One mapping: its keys, each with its place and value.
pub(super) struct Fields<'a> {
    /// As messages call it: "the detector", "the expectation".
    what: &'static str,
    span: Span,
    entries: Vec<(&'a Spanned<String>, &'a Node)>,
    /// Keys that stand here and have no value, which has been reported.
    empty: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    pub(super) fn report(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        // Of a mapping or list over several lines, the first is enough to find it.
        let len = self.source.at(span).lines().next().map_or(span.len, str::len);
        self.wrong.push(Diagnostic::at(self.source, Span { len, ..span }, message).help(help));
    }

    /// A mapping, with none but the known keys.
    pub(super) fn mapping(&mut self, what: &'static str, node: &'a Node, known: &[&str]) -> Option<Fields<'a>> {
        let Value::Map(all) = &node.value else {
            self.report(node.span, format!("{what} is a mapping, not {}", node.value.kind()), "");
            return None;
        };
        let mut entries: Vec<(&Spanned<String>, &Node)> = Vec::new();
        let mut empty = Vec::new();
        for (key, value) in all {
            let name = key.value.as_str();
            if !known.contains(&name) {
                let help = did_you_mean(name, "keys", known.iter().copied());
                self.report(key.span, format!("{what} has no key {}", quoted(name)), help);
            } else if entries.iter().any(|(earlier, _)| earlier.value == name) {
                self.report(key.span, format!("duplicate key {}", quoted(name)), "a key may stand once");
            } else if matches!(value.value, Value::Null) {
                self.report(key.span, format!("`{name}` has no value"), "write one, or leave the key out");
                empty.push(name);
            } else {
                entries.push((key, value));
            }
        }
        Some(Fields { what, span: node.span, entries, empty })
    }

    pub(super) fn text(&mut self, name: &str, node: &'a Node) -> Option<Spanned<&'a str>> {
        match &node.value {
            Value::Text(text) => Some(Spanned { value: text, span: node.span }),
            other => {
                let help = match other {
                    Value::Number | Value::Bool(_) => format!("put it in quotes: \"{}\"", self.source.at(node.span)),
                    _ => String::new(),
                };
                self.report(node.span, format!("`{name}` is a text, not {}", other.kind()), help);
                None
            }
        }
    }

    pub(super) fn flag(&mut self, name: &str, node: &Node) -> Option<bool> {
        match &node.value {
            Value::Bool(value) => Some(*value),
            other => {
                self.report(node.span, format!("`{name}` is true or false, not {}", other.kind()), "");
                None
            }
        }
    }

    pub(super) fn list(&mut self, name: &str, node: &'a Node) -> Option<&'a [Node]> {
        match &node.value {
            Value::List(items) => Some(items),
            other => {
                self.report(node.span, format!("`{name}` is a list, not {}", other.kind()), "");
                None
            }
        }
    }

    /// A value by its key, or an error that it is missing.
    pub(super) fn required(&mut self, fields: &Fields<'a>, name: &str, help: &str) -> Option<&'a Node> {
        let found = fields.get(name);
        if found.is_none() && !fields.empty.contains(&name) {
            self.report(fields.span, format!("{} has no `{name}`", fields.what), help);
        }
        found
    }
}

impl<'a> Fields<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(key, _)| key.value == name).map(|(_, value)| *value)
    }

    /// The place of a key that stands here.
    pub(super) fn key(&self, name: &str) -> Option<Span> {
        self.entries.iter().find(|(key, _)| key.value == name).map(|(key, _)| key.span)
    }

    pub(super) const fn span(&self) -> Span {
        self.span
    }
}
