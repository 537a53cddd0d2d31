//! Reads a user's rule files into a [`RuleSet`], reporting all errors at once.
//!
//! Modules: [`find`] reads inputs, [`object`] and [`config_map`] find groups of rules in their documents, [`group`] reads
//! those, [`template`] recognizes files that are not rendered yet. An expression that does not parse is no error here: it
//! is one rule's (`settle`).

mod config_map;
mod find;
mod group;
mod object;
mod reach;
mod template;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use relapse_model::diagnostics::{Diagnostic, Diagnostics, Source};
use relapse_model::yaml;

use crate::rule::RuleSet;

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A file, or a folder, of which all `*.yaml`, `*.yml`, `*.json` and `*.rules` are read.
    Path(PathBuf),
    Stdin,
}

impl From<&str> for Input {
    fn from(path: &str) -> Self {
        if path == "-" { Self::Stdin } else { Self::Path(path.into()) }
    }
}

/// Reads all rules of the inputs, in their order.
///
/// # Errors
/// Every error in every file with its place; if there is none, that there are no rules.
pub fn read(inputs: &[Input]) -> Result<RuleSet, Diagnostics> {
    let mut wrong = Diagnostics::default();
    let found = find::find(inputs, &mut wrong);
    let mut set = RuleSet::default();
    for source in &found.sources {
        read_source(source, &mut set, &mut wrong);
    }
    let wrong = wrong.into_result(());
    wrong?;
    if set.rules.is_empty() {
        return Err(none(inputs, &found, &set).into());
    }
    if !found.jsonnet.is_empty() {
        set.skipped.insert("jsonnet file".to_owned(), found.jsonnet.len());
    }
    reach::through_recording_rules(&mut set);
    Ok(set)
}

fn read_source(source: &Source, set: &mut RuleSet, wrong: &mut Diagnostics) {
    let before = set.rules.len();
    let (parts, errors) = yaml::documents(source, "rule", |text| object::may_have_rules(text, &mut set.skipped));
    if let Some(unrendered) = errors.iter().find_map(|error| template::unrendered(source, error)) {
        wrong.push(unrendered);
        return;
    }
    wrong.extend(errors);
    let file = Arc::from(source.file.to_string_lossy());
    let lines = group::Lines::of(&source.text);
    for part in &parts {
        let mut place = group::Reader { source, file: &file, start: part.start, lines: &lines, set, wrong };
        object::read(&part.node, &mut place);
    }
    set.files += usize::from(set.rules.len() > before);
}

fn none(inputs: &[Input], found: &find::Found, set: &RuleSet) -> Diagnostic {
    if let Some(file) = found.jsonnet.first() {
        return template::jsonnet(file);
    }
    let first = match inputs.first() {
        Some(Input::Path(path)) => path.clone(),
        _ => PathBuf::from("-"),
    };
    let kinds: BTreeSet<_> = set.skipped.keys().map(String::as_str).collect();
    let message = match (found.sources.is_empty(), kinds.is_empty()) {
        (true, _) => "there are no *.yaml, *.yml, *.json or *.rules files".to_owned(),
        (false, true) => "there are no rules in it".to_owned(),
        (false, false) => {
            format!("there are no rules in it, only: {}", relapse_model::diagnostics::listed(kinds))
        }
    };
    Diagnostic::of_file(first, message)
        .help("give files with `groups:`, or PrometheusRule objects, such as the output of `helm template`")
}

#[cfg(test)]
mod tests;
