//! Recognizes sources of rules that have to be rendered first: Helm templates, Jsonnet.
//!
//! Go templates are legal in labels and annotations of rules, where Prometheus fills them in.

use std::path::Path;

use relapse_model::diagnostics::{Diagnostic, Source};

/// Words of Helm's templates, which Prometheus' templates do not have.
const HELM: [&str; 6] = [".Values", ".Release", ".Chart", "include \"", "{{`", "{{ `"];

/// An error of syntax that is due to a template.
pub(super) fn unrendered(source: &Source, error: &Diagnostic) -> Option<Diagnostic> {
    let (text, span) = error.place.as_ref()?;
    let start = text.get(..span.offset)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(start..)?.lines().next()?;
    let help = if is_helm(text) || line.trim_start().starts_with("{{") || line.contains("{%") {
        render(&source.file)
    } else if line.contains("{{") {
        "put the value in quotes: \"{{ ... }}\"; if it is a template of another program, render it first".to_owned()
    } else {
        return None;
    };
    Some(Diagnostic::at(source, *span, "this is a template, not YAML").help(help))
}

/// Whether a text that Prometheus may fill in is a template of Helm all the same.
pub(super) fn is_helm(text: &str) -> bool {
    text.contains("{{") && HELM.iter().any(|word| text.contains(word))
}

/// The command that renders a Helm template.
pub(super) fn render(file: &Path) -> String {
    let chart = file.ancestors().skip(1).find(|folder| folder.join("Chart.yaml").is_file());
    let chart = chart.map_or_else(
        || "CHART".to_owned(),
        |folder| match folder.display().to_string() {
            empty if empty.is_empty() => ".".to_owned(),
            path => path,
        },
    );
    format!("render it first: `helm template {chart} | relapse alerts -`")
}

/// A file of Jsonnet.
pub(super) fn jsonnet(file: &Path) -> Diagnostic {
    let path = file.display();
    let help = match file.extension().is_some_and(|extension| extension == "libsonnet") {
        // A mixin's library has its alerts and recording rules in hidden fields.
        true => {
            format!("render it first: `jsonnet -J vendor -e '(import \"{path}\").prometheusAlerts' | relapse alerts -`")
        }
        false => format!("render it first: `jsonnet -J vendor {path} | relapse alerts -`"),
    };
    Diagnostic::of_file(file, "this is Jsonnet, not rules").help(help)
}
