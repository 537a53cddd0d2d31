//! A scenario as an ordered tree that can be changed and written as YAML again.
//!
//! Comments and anchors are not written: the comments of a drawn scenario would be about other names and numbers.

use relapse_model::diagnostics::Source;
use relapse_model::yaml::{Number, Value, YamlNode};

/// A value of a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    Scalar(Scalar),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

/// A number, a string or a boolean.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    pub text: String,
    /// Whether it is a string.
    pub is_string: bool,
    /// The name of its YAML anchor, or of the anchor that it stands for.
    pub anchor: Option<String>,
}

/// Lines up to this long are written in flow style.
const WIDTH: usize = 150;

impl Tree {
    pub fn of(source: &Source, node: &YamlNode) -> Self {
        let scalar = |text: String, is_string| {
            Self::Scalar(Scalar { text, is_string, anchor: anchor(&source.text, node.span.offset) })
        };
        match &node.value {
            Value::Map(entries) => {
                Self::Map(entries.iter().map(|(key, value)| (key.value.clone(), Self::of(source, value))).collect())
            }
            Value::List(items) => Self::List(items.iter().map(|item| Self::of(source, item)).collect()),
            Value::Text(text) => scalar(text.clone(), true),
            Value::Number(Number::Whole(number)) => scalar(number.to_string(), false),
            Value::Number(Number::Fractional(number)) => scalar(number.to_string(), false),
            Value::Bool | Value::Null => scalar(source.at(node.span).to_owned(), false),
        }
    }

    pub fn string(text: impl Into<String>) -> Self {
        Self::Scalar(Scalar { text: text.into(), is_string: true, anchor: None })
    }

    pub fn number(number: impl ToString) -> Self {
        Self::Scalar(Scalar { text: number.to_string(), is_string: false, anchor: None })
    }

    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The value of a key of a mapping, added where it is missing.
    pub fn or_insert(&mut self, key: &str, value: Self) -> &mut Self {
        let Self::Map(entries) = self else { return self };
        let place = entries.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
            entries.push((key.to_owned(), value));
            entries.len() - 1
        });
        &mut entries[place].1
    }

    pub fn remove(&mut self, key: &str) {
        if let Self::Map(entries) = self {
            entries.retain(|(name, _)| name != key);
        }
    }

    /// The elements of a list; none of anything else.
    pub fn items(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }

    pub fn items_mut(&mut self) -> &mut [Self] {
        if let Self::List(items) = self { items } else { &mut [] }
    }

    pub fn entries(&self) -> &[(String, Self)] {
        if let Self::Map(entries) = self { entries } else { &[] }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        if let Self::Scalar(scalar) = self { Some(&scalar.text) } else { None }
    }

    /// Visits each scalar, with the key it belongs to (that of its list, for an element).
    pub fn scalars<'a>(&'a self, key: &'a str, visit: &mut dyn FnMut(&'a str, &'a Scalar)) {
        match self {
            Self::Scalar(scalar) => visit(key, scalar),
            Self::List(items) => items.iter().for_each(|item| item.scalars(key, visit)),
            Self::Map(entries) => entries.iter().for_each(|(key, value)| value.scalars(key, visit)),
        }
    }

    /// Like [`Tree::scalars`], to change them.
    pub fn scalars_mut(&mut self, key: &str, visit: &mut dyn FnMut(&str, &mut Scalar)) {
        match self {
            Self::Scalar(scalar) => visit(key, scalar),
            Self::List(items) => items.iter_mut().for_each(|item| item.scalars_mut(key, visit)),
            Self::Map(entries) => entries.iter_mut().for_each(|(key, value)| value.scalars_mut(key, visit)),
        }
    }

    /// Changes each key.
    pub fn keys_mut(&mut self, visit: &mut dyn FnMut(&mut String)) {
        match self {
            Self::Scalar(_) => {}
            Self::List(items) => items.iter_mut().for_each(|item| item.keys_mut(visit)),
            Self::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
                visit(key);
                value.keys_mut(visit);
            }),
        }
    }

    /// The tree as a YAML file.
    pub fn yaml(&self) -> String {
        let mut text = String::new();
        self.block(0, &mut text);
        text
    }

    /// Writes a mapping or a list, one entry a line where it fits, at this indentation.
    fn block(&self, indent: usize, text: &mut String) {
        for item in self.items() {
            let start = text.len();
            match item {
                Self::Scalar(_) | Self::List(_) => text.push_str(&format!("{:indent$}  {}\n", "", item.flow())),
                Self::Map(entries) if entries.len() > 1 && item.fits(indent + 2) => {
                    text.push_str(&format!("{:indent$}  {}\n", "", item.flow()));
                }
                Self::Map(_) => item.block(indent + 2, text),
            }
            text.replace_range(start + indent..=start + indent, "-");
        }
        for (key, value) in self.entries() {
            let key = quoted(key);
            if matches!(value, Self::Scalar(_))
                || value.fits(indent + key.len() + 2) && (indent > 0 || value.is_small())
            {
                text.push_str(&format!("{:indent$}{key}: {}\n", "", value.flow()));
            } else {
                text.push_str(&format!("{:indent$}{key}:\n", ""));
                value.block(indent + 2, text);
            }
        }
    }

    fn fits(&self, indent: usize) -> bool {
        indent + self.flow().len() <= WIDTH
    }

    /// Whether it has neither mappings nor lists inside.
    fn is_small(&self) -> bool {
        let is_scalar = |tree: &Self| matches!(tree, Self::Scalar(_));
        self.items().iter().all(is_scalar) && self.entries().iter().all(|(_, value)| is_scalar(value))
    }

    fn flow(&self) -> String {
        match self {
            Self::Scalar(scalar) if scalar.is_string => quoted(&scalar.text),
            Self::Scalar(scalar) => scalar.text.clone(),
            Self::List(items) => format!("[{}]", items.iter().map(Self::flow).collect::<Vec<_>>().join(", ")),
            Self::Map(entries) if entries.is_empty() => "{}".to_owned(),
            Self::Map(entries) => {
                let entry = |(key, value): &(String, Self)| format!("{}: {}", quoted(key), value.flow());
                format!("{{ {} }}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A string, in quotes unless it cannot be mistaken for anything else.
fn quoted(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c))
        && text.parse::<f64>().is_err()
        && !text.starts_with("0x")
        && !text.starts_with("0o")
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_lowercase().as_str());
    if is_plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// The anchor of the scalar at this offset: `&NAME` before it, or the alias `*NAME` that stands there.
fn anchor(text: &str, offset: usize) -> Option<String> {
    let name_of =
        |text: &str| -> String { text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect() };
    let (before, at) = (text.get(..offset)?, text.get(offset..)?);
    if let Some(alias) = at.strip_prefix('*') {
        return Some(name_of(alias));
    }
    // The parser begins a scalar at its anchor or behind it.
    let own = at.strip_prefix('&').or_else(|| {
        let word = before.trim_end_matches(' ').rsplit([' ', '[', '{', '\n']).next()?;
        word.strip_prefix('&').filter(|_| before.ends_with(' '))
    });
    own.map(name_of).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use relapse_model::yaml::nodes;

    fn tree(text: &str) -> Tree {
        let source = Source::new("a.yaml", text);
        Tree::of(&source, &nodes(&source, "file").unwrap_or_else(|wrong| panic!("{wrong}")))
    }

    #[test]
    fn a_tree_is_written_as_it_was_read() {
        let text = "a: 1\nb: \"1\"\nc: { d: [x, \"*.y\", \"2001:db8::2\", 1/128], e: true, f: 0.7 }\ng:\n  - { h: \"a, b: c\" }\n";
        let once = tree(text);
        let written = once.yaml();
        assert_eq!(tree(&written), once, "{written}");
    }

    #[test]
    fn anchors_and_aliases_name_their_scalars() {
        let found = tree("a: &x 1\nb: { c: &y 5s, d: *x, e: [*y, 3, &long-name 1/2] }\n# &z\nf: 2\n");
        let mut names = Vec::new();
        found.scalars("", &mut |key, scalar| {
            names.push((key.to_owned(), scalar.text.clone(), scalar.anchor.clone().unwrap_or_default()));
        });
        let names: Vec<String> =
            names.into_iter().map(|(key, text, anchor)| format!("{key} {text} {anchor}")).collect();
        assert_eq!(names, ["a 1 x", "c 5s y", "d 1 x", "e 5s y", "e 3 ", "e 1/2 long-name", "f 2 "]);
    }
}
