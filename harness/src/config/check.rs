//! What the checks of all parts of `relapse.yaml` have in common.

use std::path::{Path, PathBuf};

use jiff::civil::Date;
use relapse_model::diagnostics::{Diagnostic, Diagnostics, Source, Span};
use relapse_model::spanned::Spanned;
use relapse_model::values::Day;

pub(super) struct Check<'a> {
    pub(super) source: &'a Source,
    pub(super) wrong: Diagnostics,
}

impl<'a> Check<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, wrong: Diagnostics::default() }
    }

    pub(super) fn report(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        // For a mapping over several lines, show only the first.
        let len = self.source.at(span).lines().next().map_or(span.len, str::len);
        self.wrong.push(Diagnostic::at(self.source, Span { len, ..span }, message).help(help));
    }

    /// Checks that an expectation is about an incident, or about a scenario.
    pub(super) fn scope(&mut self, line: Span, incident: Option<&Spanned<String>>, scenario: Option<&Spanned<String>>) {
        match (incident, scenario) {
            (None, None) => {
                let help = "add `incident: I4` (every scenario of it) or `scenario: NAME` (one)";
                self.report(line, "the expectation has no `incident` or `scenario`", help);
            }
            (Some(_), Some(scenario)) => {
                self.report(scenario.span, "both `incident` and `scenario` are given", "keep one of the two");
            }
            _ => {}
        }
    }

    /// Checks that a miss has a last day, which is not over.
    pub(super) fn miss(&mut self, miss: Option<&Spanned<String>>, until: Option<&Spanned<Day>>, today: Date) {
        match (miss, until) {
            (Some(reason), None) => {
                let help = "add the last day on which it is accepted, such as `until: 2027-03-01`";
                self.report(reason.span, "an expected miss needs an end date", help);
            }
            (None, Some(until)) => {
                self.report(until.span, "`until` needs `miss`", "give the reason with `miss`, or remove `until`");
            }
            (Some(_), Some(until)) if until.0 < today => {
                let help = "expect the detection now, or choose a later day";
                let message = format!("the miss was expected until {}, which has passed", until.0);
                self.report(until.span, message, help);
            }
            _ => {}
        }
    }
}

/// The folder of the file, in which its programs run and to which its paths are relative.
pub(super) fn directory(source: &Source) -> PathBuf {
    let parent = source.file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    std::path::absolute(parent).unwrap_or_else(|_| parent.to_owned())
}
