//! From a file to a [`Scenario`], or to everything that is wrong with its form.
//!
//! The text is read twice: first as a plain tree, in which every error of form is found, then as the
//! types. Invariants: nothing large is parsed, no alias multiplies what was written, no file panics.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_yaml::{DuplicateKeyPolicy, Error as YamlError, MergeKeyPolicy, Options, RenderOptions, SnippetMode};

use super::Scenario;
use super::check::check;
use super::spanned::span_in;
use super::tree::{Node, Value};
use crate::diagnostics::{Diagnostic, Diagnostics, Source, Span, quoted};

/// Largest file that is parsed. The longest scenario has some 5 kB.
const LARGEST: u64 = 1 << 20;

/// Reads one file.
///
/// # Errors
/// It cannot be read, is too large, or is not UTF-8.
pub fn read(file: &Path) -> Result<Source, Diagnostic> {
    let failed = |error: std::io::Error| Diagnostic::of_file(file, reason(&error));
    let opened = File::open(file).map_err(failed)?;
    if opened.metadata().map_err(failed)?.is_dir() {
        return Err(Diagnostic::of_file(file, "this is a folder, not a scenario file"));
    }
    let mut bytes = Vec::new();
    opened.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Diagnostic::of_file(file, "the file is larger than 1 MiB, and was not parsed")
            .help("a scenario is one incident; the longest that is shipped has a few kilobytes"));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source::new(file, text)),
        Err(error) => {
            let offset = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..offset].iter().filter(|b| **b == b'\n').count() + 1;
            Err(Diagnostic::of_file(
                file,
                format!("the file is not UTF-8: line {line} has a byte that no character begins with or goes on with"),
            )
            .help("save the file in the encoding UTF-8"))
        }
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "the file cannot be read: permission denied".to_owned(),
        _ => format!("the file cannot be read: {error}"),
    }
}

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

/// Parses a file that is no scenario.
///
/// # Errors
/// What is wrong with its form, and where, in one line.
pub fn any(text: &str) -> Result<serde_json::Value, String> {
    serde_yaml::from_str(text).map_err(|error: YamlError| {
        let at = error.location().map(|at| format!("line {}, column {}: ", at.line(), at.column()));
        format!("{}{}", at.unwrap_or_default(), in_words(error.without_snippet()))
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

/// What the parser says, without the place it adds and without the rest of the file.
fn in_words(error: &YamlError) -> String {
    let options = RenderOptions::new(&serde_yaml::DefaultMessageFormatter);
    let mut options = options;
    options.snippets = SnippetMode::Off;
    let text = error.render_with_options(options);
    let text = text.lines().next().unwrap_or_default();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let text = text.split(" at line ").next().unwrap_or(text);
    text.chars().filter(|c| !c.is_control()).take(300).collect()
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
