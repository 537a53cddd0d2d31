//! The YAML of `relapse.yaml` as a tree with places, before it is known what it means.
//!
//! Duplicate keys are kept, so that each can be reported. Plain scalars keep the text that was written:
//! an environment variable `1.10` is not the number 1.1.

use std::fmt;

use relapse_model::diagnostics::{Diagnostic, Diagnostics, Source, Span};
use relapse_model::spanned::Spanned;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml::{DuplicateKeyPolicy, Error as YamlError, MergeKeyPolicy, Options, RenderOptions, SnippetMode};

pub(super) type Node = Spanned<Value>;

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Spanned<String>, Node)>),
}

impl Value {
    /// As messages call it.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// The tree of a file.
pub(super) fn parse(source: &Source) -> Result<Node, Diagnostics> {
    match serde_yaml::from_str_with_options::<Node>(&source.text, options()) {
        Ok(tree) if !matches!(tree.value, Value::Null) => Ok(tree),
        Ok(_) | Err(YamlError::Eof { .. }) => Err(Diagnostic::of_file(&source.file, "is empty")
            .help("begin with `apiVersion: relapse/v1` and `kind: Config`")
            .into()),
        Err(error) => Err(explain(source, &error).into()),
    }
}

fn options() -> Options {
    let mut options = Options::default();
    let mut budget = serde_yaml::Budget::default();
    budget.max_nodes = 30_000;
    budget.max_events = 60_000;
    budget.max_depth = 16;
    budget.flow_nesting_limit = 16;
    // The second is refused for what it is, not for the number.
    budget.max_documents = 2;
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = 5_000;
    options.alias_limits.max_replay_stack_depth = 4;
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    options.merge_keys = MergeKeyPolicy::Error;
    options.strict_booleans = true;
    options.reject_unsupported_tags = true;
    options.reject_tagged_field_names = true;
    options.with_snippet = false;
    options
}

fn explain(source: &Source, error: &YamlError) -> Diagnostic {
    let error = error.without_snippet();
    let (message, help) = match error {
        YamlError::MultipleDocuments { .. } => ("a second document begins here".to_owned(), "remove `---`"),
        YamlError::MergeKeyNotAllowed { .. } => ("`<<` is not understood".to_owned(), "write the keys out"),
        YamlError::Budget { .. }
        | YamlError::AliasReplayLimitExceeded { .. }
        | YamlError::AliasExpansionLimitExceeded { .. }
        | YamlError::AliasReplayStackDepthExceeded { .. } => {
            ("the file holds far more than a configuration can".to_owned(), "write less, or use fewer aliases")
        }
        YamlError::AliasError { error, .. } => return explain(source, error),
        other => (in_words(other), ""),
    };
    let Some(location) = error.location() else { return Diagnostic::of_file(&source.file, message).help(help) };
    let bytes = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok());
    let end = source.text.trim_end().len();
    // A place past the end is shown at the last character.
    let last = source.text[..end].char_indices().next_back().map_or(0, |(offset, _)| offset);
    let offset = bytes(location.span().byte_offset()).unwrap_or(0).min(last);
    let len = bytes(location.span().byte_len()).unwrap_or(0).min(end - offset);
    Diagnostic::at(source, Span { offset, len }, message).help(help)
}

/// What the parser says, without the place it adds.
fn in_words(error: &YamlError) -> String {
    let mut options = RenderOptions::new(&serde_yaml::DefaultMessageFormatter);
    options.snippets = SnippetMode::Off;
    let text = error.render_with_options(options);
    let text = text.lines().next().unwrap_or_default();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let text = text.split(" at line ").next().unwrap_or(text);
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Number)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Number)
    }
    fn visit_i128<E>(self, _: i128) -> Result<Value, E> {
        Ok(Value::Number)
    }
    fn visit_u128<E>(self, _: u128) -> Result<Value, E> {
        Ok(Value::Number)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Number)
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }
    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = seq.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}
