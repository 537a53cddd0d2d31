//! Reads YAML files within limits and parses them into types, reporting every syntax and type error at once.
//!
//! A [`Document`] is parsed twice: first as a plain tree (`tree`), in which `check` finds every error by the type's
//! [`schema`], then as the type. Invariants: large files are not parsed, aliases do not multiply their content, no file
//! causes a panic. References and the meaning of numbers are checked elsewhere.

mod check;
mod schema;
mod tree;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_yaml::{DuplicateKeyPolicy, Error as YamlError, MergeKeyPolicy, Options, RenderOptions, SnippetMode};

pub use schema::schema;

use crate::diagnostics::{Diagnostic, Diagnostics, Source, Span, quoted};
use crate::spanned::span_in;

pub use tree::{Number, Value, YamlNode};

/// Maximum size of a file. The longest scenario has some 5 kB.
const LARGEST: u64 = 1 << 20;

/// Finds an embedded file by its path.
type Carried = fn(&Path) -> Option<&'static str>;

static CARRIED: OnceLock<Carried> = OnceLock::new();

/// Registers embedded files, which are then read like those on disk.
pub fn carry(find: Carried) {
    CARRIED.get_or_init(|| find);
}

fn carried(file: &Path) -> Option<&'static str> {
    CARRIED.get().and_then(|find| find(file))
}

/// Whether the file exists, on disk or embedded.
#[must_use]
pub fn is_file(file: &Path) -> bool {
    carried(file).is_some() || file.is_file()
}

/// A kind of file.
pub trait Document: DeserializeOwned + JsonSchema {
    /// Name in messages, such as "scenario".
    const NOUN: &'static str;
    /// How to begin an empty file.
    const BEGIN: &'static str;
}

/// Reads one file. `noun` names its kind in errors.
///
/// # Errors
/// If the file cannot be read, is too large, or is not UTF-8.
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

/// Parses the text of a file.
///
/// # Errors
/// All errors of syntax, keys, types, and strings such as durations.
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

/// Reads the text of a file as an untyped tree; aliases are expanded.
///
/// # Errors
/// Errors of syntax.
pub fn nodes(source: &Source, noun: &str) -> Result<YamlNode, Diagnostics> {
    serde_yaml::from_str_with_options(&source.text, options()).map_err(|error| explain(source, &error, noun).into())
}

/// One document of a file of another program, whose spans count from its start.
#[derive(Debug, Clone)]
pub struct Part {
    /// Byte of the file at which the document begins.
    pub start: usize,
    pub node: YamlNode,
}

/// Reads every document of a file of another program: YAML of up to 100 MB, or JSON. Aliases and merge keys are
/// expanded. A document with an error of syntax does not affect the others. Those that `is_wanted` rejects by their text
/// are not parsed.
pub fn documents(source: &Source, noun: &str, mut is_wanted: impl FnMut(&str) -> bool) -> (Vec<Part>, Diagnostics) {
    let (mut parts, mut wrong) = (Vec::new(), Diagnostics::default());
    for (start, text) in split(&source.text).into_iter().filter(|(_, text)| is_wanted(text)) {
        match serde_yaml::from_str_with_options::<YamlNode>(text, lenient(text.len())) {
            Ok(YamlNode { value: Value::Null, .. }) | Err(YamlError::Eof { .. }) => {}
            Ok(node) => parts.push(Part { start, node }),
            Err(error) => {
                let mut diagnostic = explain(&Source::new(&source.file, text), &error, noun);
                if let Some((text, span)) = &mut diagnostic.place {
                    *text = Arc::clone(&source.text);
                    span.offset += start;
                }
                wrong.push(diagnostic);
            }
        }
    }
    (parts, wrong)
}

/// Documents with the byte at which each begins. A line that begins with `---` or `...` ends one wherever it stands,
/// also within quotes (YAML 1.2, c-forbidden).
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut offset) = (0, 0);
    for line in text.split_inclusive('\n') {
        let marker = line.starts_with("---") || line.starts_with("...");
        if marker && line[3..].chars().next().is_none_or(char::is_whitespace) {
            parts.push((start, &text[start..offset]));
            // What follows `---` on its line belongs to the document.
            start = offset + 3;
        }
        offset += line.len();
    }
    parts.push((start, &text[start..]));
    parts
}

fn lenient(bytes: usize) -> Options {
    let mut options = options();
    let mut budget = serde_yaml::Budget::default();
    // An event takes a byte or more.
    budget.max_events = bytes + 100;
    budget.max_nodes = bytes + 100;
    budget.max_total_scalar_bytes = bytes.saturating_mul(2) + 100;
    budget.enforce_alias_anchor_ratio = false;
    options.budget = Some(budget);
    options.alias_limits = serde_yaml::alias_limits! {};
    options.merge_keys = MergeKeyPolicy::Merge;
    options.reject_unsupported_tags = false;
    options.reject_tagged_field_names = false;
    options
}

/// Parses a file of another program.
///
/// # Errors
/// The syntax error and its place, in one line.
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
    // Allow two, so that the second document is reported as such and not as an exceeded budget.
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
            format!("the file contains far more than a {noun} needs"),
            format!("a {noun} is nested at most 32 deep and has at most 30000 values"),
        ),
        YamlError::MergeKeyNotAllowed { .. } => ("`<<` is not supported".to_owned(), "write the keys out".to_owned()),
        YamlError::UnknownAnchor { .. } => (
            "an alias (`*`) names no anchor (`&`) that stands before it".to_owned(),
            "check its spelling, or put a text that begins with `*` in quotes".to_owned(),
        ),
        YamlError::AliasError { error, .. } => return explain(source, error, noun),
        other => {
            let message = in_words(other);
            let help = hint(&message).to_owned();
            (message, help)
        }
    };
    match error.location().map(|location| span_in(&source.text, location)) {
        Some(span) => Diagnostic::at(source, visible(source, span), message),
        None => Diagnostic::of_file(&source.file, message),
    }
    .help(help)
}

/// What usually causes an error of syntax, by the parser's message.
fn hint(message: &str) -> &'static str {
    match message {
        tab if tab.contains("tab") => "indent with spaces",
        unclosed if unclosed.contains("':'") || unclosed.contains("','") => {
            "close brackets and quotes; put a text that contains `: ` or, in brackets, a comma in quotes"
        }
        _ => "",
    }
}

/// The parser's message, without its place and excerpt.
fn in_words(error: &YamlError) -> String {
    let mut options = RenderOptions::new(&serde_yaml::DefaultMessageFormatter);
    options.snippets = SnippetMode::Off;
    let text = error.render_with_options(options);
    let text = text.lines().next().unwrap_or_default();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let text = text.split(" at line ").next().unwrap_or(text);
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Moves a place past the end to the last character of the file.
fn visible(source: &Source, span: Span) -> Span {
    let end = source.text.trim_end().len();
    if span.offset < end || end == 0 {
        return span;
    }
    let last = source.text[..end].char_indices().next_back().map_or(0, |(offset, _)| offset);
    Span { offset: last, len: end - last }
}
