//! Files of YAML: read whole, within bounds, and understood as types, with every error of form at once.
//!
//! A [`Document`] is read twice: first as a plain tree (`tree`), in which `check` finds every error by the type's
//! [`schema`], then as the type. Invariants: nothing large is parsed, no alias multiplies what was written, no file
//! panics. Left out: what names refer to and whether numbers fit.

mod check;
mod schema;
mod tree;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_yaml::{DuplicateKeyPolicy, Error as YamlError, MergeKeyPolicy, Options, RenderOptions, SnippetMode};

pub use schema::schema;

use crate::diagnostics::{Diagnostic, Diagnostics, Source, Span, quoted};
use crate::spanned::span_in;
use tree::{Value, YamlNode};

/// Largest file that is parsed. The longest scenario has some 5 kB.
const LARGEST: u64 = 1 << 20;

/// Finds a file that the program carries by its path.
type Carried = fn(&Path) -> Option<&'static str>;

static CARRIED: OnceLock<Carried> = OnceLock::new();

/// Files that the program carries are read like those on disk, from now on.
pub fn carry(find: Carried) {
    CARRIED.get_or_init(|| find);
}

fn carried(file: &Path) -> Option<&'static str> {
    CARRIED.get().and_then(|find| find(file))
}

/// Whether there is such a file, on disk or carried.
#[must_use]
pub fn is_file(file: &Path) -> bool {
    carried(file).is_some() || file.is_file()
}

/// A kind of file.
pub trait Document: DeserializeOwned + JsonSchema {
    /// As messages call it: "scenario".
    const NOUN: &'static str;
    /// What an empty file lacks.
    const BEGIN: &'static str;
}

/// Reads one file; `noun` is what it should be.
///
/// # Errors
/// It cannot be read, is too large, or is not UTF-8.
pub fn read(file: &Path, noun: &str) -> Result<Source, Diagnostic> {
    if let Some(text) = carried(file) {
        return Ok(Source::new(file, text));
    }
    let failed = |error: std::io::Error| Diagnostic::of_file(file, reason(&error));
    let opened = File::open(file).map_err(failed)?;
    if opened.metadata().map_err(failed)?.is_dir() {
        return Err(Diagnostic::of_file(file, format!("this is a folder, not a {noun} file")));
    }
    let mut bytes = Vec::new();
    opened.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Diagnostic::of_file(file, "the file is larger than 1 MiB, and was not parsed")
            .help("shipped files are a few kilobytes long"));
    }
    String::from_utf8(bytes).map(|text| Source::new(file, text)).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let message = format!("the file is not UTF-8: line {line} has an invalid byte");
        Diagnostic::of_file(file, message).help("save the file as UTF-8")
    })
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file".to_owned(),
        ErrorKind::PermissionDenied => "the file cannot be read: permission denied".to_owned(),
        _ => format!("the file cannot be read: {error}"),
    }
}

/// Parses a file's text.
///
/// # Errors
/// Everything that is wrong with its form: syntax, keys, types, and texts such as durations.
pub fn parse<T: Document>(source: &Source) -> Result<T, Diagnostics> {
    let explain = |error: YamlError| explain(source, &error, T::NOUN);
    let options = |duplicate_keys| {
        let mut options = options();
        options.duplicate_keys = duplicate_keys;
        options
    };
    let tree: YamlNode = match serde_yaml::from_str_with_options(&source.text, options(DuplicateKeyPolicy::PassThrough))
    {
        Ok(YamlNode { value: Value::Null, .. }) | Err(YamlError::Eof { .. }) => {
            let message = format!("the file is empty: it contains no {}", T::NOUN);
            return Err(Diagnostic::of_file(&source.file, message).help(T::BEGIN).into());
        }
        Ok(tree) => tree,
        Err(error) => return Err(explain(error).into()),
    };
    check::check(source, &tree, &schema::<T>(), &format!("the {}", T::NOUN)).into_result(())?;
    let understood = serde_yaml::from_str_with_options(&source.text, options(DuplicateKeyPolicy::Error));
    understood.map_err(|error| explain(error).into())
}

/// Parses a file of somebody else's.
///
/// # Errors
/// What is wrong with its form, and where, in one line.
pub fn any(text: &str) -> Result<serde_json::Value, String> {
    serde_yaml::from_str(text).map_err(|error: YamlError| {
        let at = error.location().map(|at| format!("line {}, column {}: ", at.line(), at.column()));
        format!("{}{}", at.unwrap_or_default(), in_words(error.without_snippet()))
    })
}

fn options() -> Options {
    let mut options = Options::default();
    let mut budget = serde_yaml::Budget::default();
    budget.max_events = 60_000;
    budget.max_nodes = 30_000;
    budget.max_depth = 32;
    budget.flow_nesting_limit = 32;
    budget.max_aliases = 256;
    budget.max_anchors = 64;
    // The second is refused for what it is, not for the number.
    budget.max_documents = 2;
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = 5_000;
    options.alias_limits.max_replay_stack_depth = 4;
    options.merge_keys = MergeKeyPolicy::Error;
    options.strict_booleans = true;
    options.reject_unsupported_tags = true;
    options.reject_tagged_field_names = true;
    options.with_snippet = false;
    options
}

fn explain(source: &Source, error: &YamlError, noun: &str) -> Diagnostic {
    let error = error.without_snippet();
    let (message, help) = match error {
        YamlError::DuplicateMappingKey { key, .. } => {
            (format!("duplicate key {}", quoted(key.as_deref().unwrap_or("?"))), "a key can occur only once".to_owned())
        }
        YamlError::MultipleDocuments { .. } => {
            ("a second document begins here".to_owned(), format!("one file holds one {noun}: remove `---`"))
        }
        YamlError::AliasReplayLimitExceeded { .. }
        | YamlError::AliasExpansionLimitExceeded { .. }
        | YamlError::AliasReplayStackDepthExceeded { .. } => {
            ("aliases expand to too many values".to_owned(), "write it out, or use fewer aliases".to_owned())
        }
        YamlError::Budget { .. } => (
            format!("the file holds far more than a {noun} needs"),
            format!("a {noun} is nested at most 32 deep and has at most 30000 values"),
        ),
        YamlError::MergeKeyNotAllowed { .. } => ("`<<` is not supported".to_owned(), "write the keys out".to_owned()),
        YamlError::AliasError { error, .. } => return explain(source, error, noun),
        other => (in_words(other), String::new()),
    };
    match error.location().map(|location| span_in(&source.text, location)) {
        Some(span) => Diagnostic::at(source, visible(source, span), message),
        None => Diagnostic::of_file(&source.file, message),
    }
    .help(help)
}

/// What the parser says, without the place it adds and without the rest of the file.
fn in_words(error: &YamlError) -> String {
    let mut options = RenderOptions::new(&serde_yaml::DefaultMessageFormatter);
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
