//! Files and folders -> plans, or all errors in any of them.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use relapse_model::diagnostics::{Diagnostic, Diagnostics, Source, Span};
use relapse_model::yaml::{self, Document};

use super::plan;
use crate::plan::Plan;
use crate::scenario::Scenario;

/// Plans the scenarios in these files, and in all `.yaml` files of these folders.
///
/// # Errors
/// All errors in any of them; then no plan is returned.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Plan>, Diagnostics> {
    let mut wrong = Diagnostics::default();
    let mut plans = Vec::new();
    let mut names: HashMap<String, (Source, Span)> = HashMap::new();
    for file in files(paths, &mut wrong) {
        let source = match yaml::read(&file, Scenario::NOUN) {
            Ok(source) => source,
            Err(diagnostic) => {
                wrong.push(diagnostic);
                continue;
            }
        };
        let scenario = match yaml::parse::<Scenario>(&source) {
            Ok(scenario) => scenario,
            Err(diagnostics) => {
                wrong.extend(diagnostics);
                continue;
            }
        };
        let name = &scenario.metadata.name;
        if let Some((other, span)) = names.get(&name.0) {
            let position = Diagnostic::at(other, *span, "").position().map(|p| format!(":{}:{}", p.line, p.column));
            let message = format!("there are two scenarios named `{}`", name.0);
            let help = format!("the other is {}{}", other.file.display(), position.unwrap_or_default());
            wrong.push(Diagnostic::at(&source, name.span, message).help(help));
        } else {
            names.insert(name.0.clone(), (source.clone(), name.span));
        }
        match plan(&scenario, &source) {
            Ok(plan) => plans.push(plan),
            Err(diagnostics) => wrong.extend(diagnostics),
        }
    }
    wrong.into_result(plans)
}

/// The files, in order, without duplicates.
fn files(paths: &[PathBuf], wrong: &mut Diagnostics) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for path in paths {
        let found = if path.is_dir() { folder(path, wrong) } else { vec![path.clone()] };
        for file in found {
            let identity = file.canonicalize().unwrap_or_else(|_| file.clone());
            if seen.insert(identity) {
                files.push(file);
            }
        }
    }
    files
}

fn folder(path: &Path, wrong: &mut Diagnostics) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            wrong.push(Diagnostic::of_file(path, format!("the folder cannot be read: {error}")));
            return Vec::new();
        }
    };
    let yaml = |file: &PathBuf| matches!(file.extension().and_then(|e| e.to_str()), Some("yaml" | "yml"));
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(yaml).collect();
    files.sort();
    if files.is_empty() {
        wrong.push(
            Diagnostic::of_file(path, "no scenarios in this folder: no file ends in .yaml")
                .help("name a scenario file, or a folder that contains some"),
        );
    }
    files
}
