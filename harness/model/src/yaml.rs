//! Files of YAML: read whole, within bounds; and what the parser complains about, in a line.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;

use serde_yaml::{Error as YamlError, RenderOptions, SnippetMode};

use crate::diagnostics::{Diagnostic, Source};

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

/// Reads one file.
///
/// # Errors
/// It cannot be read, is too large, or is not UTF-8.
pub fn read(file: &Path) -> Result<Source, Diagnostic> {
    if let Some(text) = carried(file) {
        return Ok(Source::new(file, text));
    }
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

/// What the parser says, without the place it adds and without the rest of the file.
#[must_use]
pub fn in_words(error: &YamlError) -> String {
    let options = RenderOptions::new(&serde_yaml::DefaultMessageFormatter);
    let mut options = options;
    options.snippets = SnippetMode::Off;
    let text = error.render_with_options(options);
    let text = text.lines().next().unwrap_or_default();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let text = text.split(" at line ").next().unwrap_or(text);
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
