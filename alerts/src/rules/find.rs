//! Reads files, folders and standard input.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use relapse_model::diagnostics::{Diagnostic, Diagnostics, Source};

use super::{Input, template};

/// Maximum size of a file, in bytes.
const LARGEST: u64 = 64 << 20;

#[derive(Default)]
pub(super) struct Found {
    pub sources: Vec<Source>,
    /// Sources of rules in folders, which are not read.
    pub jsonnet: Vec<PathBuf>,
}

/// Reads all inputs; a file that is named twice is read once.
pub(super) fn find(inputs: &[Input], wrong: &mut Diagnostics) -> Found {
    let mut found = Found::default();
    let mut seen = BTreeSet::new();
    for input in inputs {
        match input {
            Input::Stdin => {
                if seen.insert(PathBuf::from("-")) {
                    collect(read(Path::new("-"), io::stdin().lock()), &mut found, wrong);
                }
            }
            Input::Path(path) if path.is_dir() => folder(path, &mut seen, &mut found, wrong),
            Input::Path(path) if is_jsonnet(path) && path.is_file() => wrong.push(template::jsonnet(path)),
            Input::Path(path) => file(path, &mut seen, &mut found, wrong),
        }
    }
    found
}

fn collect(read: Result<Source, Diagnostic>, found: &mut Found, wrong: &mut Diagnostics) {
    match read {
        Ok(source) => found.sources.push(source),
        Err(error) => wrong.push(error),
    }
}

fn file(path: &Path, seen: &mut BTreeSet<PathBuf>, found: &mut Found, wrong: &mut Diagnostics) {
    if seen.insert(path.canonicalize().unwrap_or_else(|_| path.to_owned())) {
        let opened = File::open(path).map_err(|error| failed(path, &error));
        collect(opened.and_then(|file| read(path, file)), found, wrong);
    }
}

/// Files of a folder and its subfolders, by name. Hidden files are skipped; links to folders are not followed, so a circle
/// of links ends.
fn folder(path: &Path, seen: &mut BTreeSet<PathBuf>, found: &mut Found, wrong: &mut Diagnostics) {
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(error) => return wrong.push(failed(path, &error)),
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folder(&path, seen, found, wrong);
        } else if is_jsonnet(&path) {
            found.jsonnet.push(path);
        } else if matches!(extension(&path), "yaml" | "yml" | "json" | "rules") && path.is_file() {
            file(&path, seen, found, wrong);
        }
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

fn is_jsonnet(path: &Path) -> bool {
    matches!(extension(path), "jsonnet" | "libsonnet")
}

fn read(path: &Path, from: impl Read) -> Result<Source, Diagnostic> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| failed(path, &error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Diagnostic::of_file(path, "the file is larger than 64 MiB, and was not read"));
    }
    String::from_utf8(bytes).map(|text| Source::new(path, text)).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Diagnostic::of_file(path, format!("the file is not UTF-8: line {line} has an invalid byte"))
            .help("save the file as UTF-8")
    })
}

fn failed(path: &Path, error: &io::Error) -> Diagnostic {
    let message = match error.kind() {
        ErrorKind::NotFound => "no such file or folder".to_owned(),
        ErrorKind::PermissionDenied => "it cannot be read: permission denied".to_owned(),
        _ => format!("it cannot be read: {error}"),
    };
    Diagnostic::of_file(path, message)
}
