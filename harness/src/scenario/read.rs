//! From a file to a [`Scenario`], or to everything that is wrong with its form.
//!
//! The text is read twice: first as a plain tree, in which every error of form is found, then as the
//! types. Invariants: nothing large is parsed, no alias multiplies what was written, no file panics.

use relapse_model::diagnostics::{Diagnostic, Diagnostics, Source, Span, quoted};
use relapse_model::spanned::span_in;
use relapse_model::yaml::in_words;
use serde_yaml::{DuplicateKeyPolicy, Error as YamlError, MergeKeyPolicy, Options};

use super::Scenario;
use super::check::check;
use super::tree::{Node, Value};

/// Parses a file's text.
///
/// # Errors
/// Everything that is wrong with its form: syntax, keys, types, and texts such as durations.
pub fn parse(source: &Source) -> Result<Scenario, Diagnostics> {
    let whole = Span::default();
    let tree: Node = match serde_yaml::from_str_with_options(&source.text, options(DuplicateKeyPolicy::PassThrough)) {
        Ok(tree) => tree,
        Err(YamlError::Eof { .. }) => return Err(empty(source).into()),
        Err(error) => return Err(explain(source, &error).into()),
    };
    if matches!(tree.value, Value::Null) {
        return Err(empty(source).into());
    }
    let wrong = check(source, &tree);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    serde_yaml::from_str_with_options(&source.text, options(DuplicateKeyPolicy::Error)).map_err(|error| {
        let mut diagnostic = explain(source, &error);
        diagnostic.span.get_or_insert(whole);
        diagnostic.into()
    })
}

fn empty(source: &Source) -> Diagnostic {
    Diagnostic::of_file(&source.file, "the file is empty: there is no scenario in it")
        .help("begin with `apiVersion: relapse/v1` and `kind: Scenario`; `relapse schema` prints what may follow")
}

fn options(duplicate_keys: DuplicateKeyPolicy) -> Options {
    let mut options = Options::default();
    let mut budget = serde_yaml::Budget::default();
    budget.max_events = 60_000;
    budget.max_nodes = 30_000;
    budget.max_depth = 32;
    budget.flow_nesting_limit = 32;
    budget.max_aliases = 256;
    budget.max_anchors = 64;
    budget.max_documents = 2;
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = 5_000;
    options.alias_limits.max_replay_stack_depth = 4;
    options.duplicate_keys = duplicate_keys;
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
        YamlError::DuplicateMappingKey { key, .. } => {
            (format!("duplicate key {}", quoted(key.as_deref().unwrap_or("?"))), "a key may stand once".to_owned())
        }
        YamlError::MultipleDocuments { .. } => {
            ("a second document begins here".to_owned(), "one file holds one scenario: remove `---`".to_owned())
        }
        YamlError::AliasReplayLimitExceeded { .. }
        | YamlError::AliasExpansionLimitExceeded { .. }
        | YamlError::AliasReplayStackDepthExceeded { .. } => (
            "aliases multiply what is written here beyond any use".to_owned(),
            "write it out, or use fewer aliases".to_owned(),
        ),
        YamlError::Budget { .. } => (
            "the file holds far more than a scenario can".to_owned(),
            "a scenario is nested at most 32 deep and has at most 30000 values".to_owned(),
        ),
        YamlError::MergeKeyNotAllowed { .. } => ("`<<` is not understood".to_owned(), "write the keys out".to_owned()),
        YamlError::AliasError { error, .. } => return explain(source, error),
        other => (in_words(other), String::new()),
    };
    match error.location().map(|location| span_in(&source.text, location)) {
        Some(span) => Diagnostic::at(source, visible(source, span), message),
        None => Diagnostic { text: None, span: None, ..Diagnostic::at(source, Span::default(), message) },
    }
    .help(help)
}

/// A place past the end is shown at the last character of the file.
fn visible(source: &Source, span: Span) -> Span {
    let end = source.text.trim_end().len();
    if span.offset < end || end == 0 {
        return span;
    }
    let last = source.text[..end].char_indices().next_back().map_or(0, |(offset, _)| offset);
    Span { offset: last, len: end - last }
}
