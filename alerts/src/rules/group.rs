//! Reads groups of rules.
//!
//! Fields that only newer or other versions of Prometheus have are left out, except labels of groups, which are added to
//! those of the rules. Unknown fields are errors only where they look like a misspelt one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use relapse_model::diagnostics::{Diagnostic, Diagnostics, Source, Span, nearest, quoted};
use relapse_model::yaml::{Number, Value, YamlNode};

use super::template;
use crate::rule::{Group, Rule, RuleSet, Severity, What};
use crate::{duration, expr};

const GROUP: [&str; 6] = ["name", "interval", "query_offset", "limit", "labels", "rules"];
/// Fields that Thanos, Mimir, Loki and VictoriaMetrics add to groups or rules.
const OTHERS: [&str; 18] = [
    "partial_response_strategy",
    "source_tenants",
    "align_evaluation_time_on_interval",
    "evaluation_delay",
    "remote_write",
    "concurrency",
    "type",
    "params",
    "headers",
    "notifier_headers",
    "eval_offset",
    "eval_delay",
    "eval_alignment",
    "tenant",
    "extra_filter_labels",
    "debug",
    "update_entries_limit",
    "query_headers",
];
const RULE: [&str; 7] = ["record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"];

/// Where lines begin, so that the place of each of many rules is found at once.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect())
    }

    /// The line of a byte, from 1.
    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}

/// Reads one document of a file.
pub(super) struct Reader<'a> {
    pub source: &'a Source,
    pub file: &'a Arc<str>,
    /// Byte at which the document begins.
    pub start: usize,
    pub lines: &'a Lines,
    pub set: &'a mut RuleSet,
    pub wrong: &'a mut Diagnostics,
}

/// The value of a key.
pub(super) fn get<'a>(node: &'a YamlNode, key: &str) -> Option<&'a YamlNode> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|(name, _)| name.value == key).map(|(_, value)| value),
        _ => None,
    }
    .filter(|value| !matches!(value.value, Value::Null))
}

impl Reader<'_> {
    /// The same, to read a part with other places.
    pub(super) fn again(&mut self) -> Reader<'_> {
        Reader { set: &mut *self.set, wrong: &mut *self.wrong, ..*self }
    }

    pub(super) fn skip(&mut self, kind: &str) {
        *self.set.skipped.entry(kind.to_owned()).or_default() += 1;
    }

    /// A scalar as text.
    pub(super) fn text<'n>(&self, node: &'n YamlNode) -> Option<Cow<'n, str>> {
        match &node.value {
            Value::Text(text) => Some(Cow::Borrowed(text)),
            // As written: `01` and `1.0` are texts in labels. What an alias stands for is written elsewhere.
            Value::Number(_) | Value::Bool => match (self.source.at(self.span(node.span)), &node.value) {
                (written, _) if !written.starts_with(['*', '<']) => Some(Cow::Owned(written.to_owned())),
                (_, Value::Number(Number::Whole(number))) => Some(Cow::Owned(number.to_string())),
                (_, Value::Number(Number::Fractional(number))) => Some(Cow::Owned(number.to_string())),
                _ => None,
            },
            _ => None,
        }
    }

    /// A place in the document as one in the file.
    pub(super) const fn span(&self, span: Span) -> Span {
        Span { offset: span.offset + self.start, len: span.len }
    }

    fn report(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        let shown = self.span(span);
        let first_line = self.source.at(shown).lines().next().map_or(0, str::len);
        let span = Span { offset: shown.offset, len: first_line };
        self.wrong.push(Diagnostic::at(self.source, span, message).help(help));
    }

    pub(super) fn groups(&mut self, node: &YamlNode) {
        match &node.value {
            Value::List(groups) => {
                let mut names = BTreeSet::new();
                for group in groups {
                    let Some(name) = get(group, "name") else { continue };
                    if !names.insert(self.text(name).unwrap_or_default().into_owned()) {
                        self.report(name.span, "there are two groups of this name: Prometheus refuses the file", "");
                    }
                }
                groups.iter().for_each(|group| self.group(group));
            }
            Value::Null => {}
            _ => self.report(node.span, "`groups` must be a list", "write `groups: [ { name: ..., rules: ... } ]`"),
        }
    }

    fn group(&mut self, node: &YamlNode) {
        let Value::Map(entries) = &node.value else {
            return self.report(node.span, "a group must be a mapping", "write `- name: ...` and `rules:` below it");
        };
        self.unknown(entries, &GROUP, "a group");
        let name = get(node, "name").and_then(|name| self.plain(name, "`name`"));
        let Some(name) = name else {
            if get(node, "name").is_none() {
                self.report(node.span, "the group has no `name`", "");
            }
            return;
        };
        let interval = get(node, "interval").and_then(|interval| self.duration(interval, "`interval`"));
        let query_offset = get(node, "query_offset").and_then(|offset| self.duration(offset, "`query_offset`"));
        let labels = get(node, "labels").map(|labels| self.labels(labels)).unwrap_or_default();
        let group = self.set.groups.len();
        self.set.groups.push(Group {
            name,
            file: Arc::clone(self.file),
            interval: interval.filter(|interval| !interval.is_zero()),
            query_offset: query_offset.unwrap_or_default(),
        });
        match get(node, "rules").map(|rules| (&rules.value, rules.span)) {
            Some((Value::List(rules), _)) => rules.iter().for_each(|rule| self.rule(rule, group, &labels)),
            Some((_, span)) => self.report(span, "`rules` must be a list", ""),
            None => {}
        }
    }

    fn rule(&mut self, node: &YamlNode, group: usize, of_group: &BTreeMap<String, String>) {
        let Value::Map(entries) = &node.value else {
            return self.report(node.span, "a rule must be a mapping", "write `- alert: ...` and `expr:` below it");
        };
        self.unknown(entries, &RULE, "a rule");
        let (alert, record) = (get(node, "alert"), get(node, "record"));
        let named = match (alert, record) {
            (Some(_), Some(record)) => {
                return self.report(record.span, "a rule is an alert or records a series, not both", "");
            }
            (Some(named), None) | (None, Some(named)) => named,
            (None, None) => return self.report(node.span, "the rule has neither `alert` nor `record`", ""),
        };
        let name = self.plain(named, if alert.is_some() { "`alert`" } else { "`record`" });
        let expr = match get(node, "expr") {
            Some(expr) => self.plain(expr, "`expr`"),
            None => {
                self.report(named.span, "the rule has no `expr`", "");
                None
            }
        };
        let mut labels = of_group.clone();
        labels.extend(get(node, "labels").map(|labels| self.labels(labels)).unwrap_or_default());
        if let Some(annotations) = get(node, "annotations") {
            self.labels(annotations);
        }
        let wait = get(node, "for").map(|wait| (wait, self.duration(wait, "`for`")));
        let keep = get(node, "keep_firing_for").map(|keep| (keep, self.duration(keep, "`keep_firing_for`")));
        if let (Some(_), Some((field, _))) = (record, wait.as_ref().or(keep.as_ref())) {
            self.report(field.span, "a rule that records a series has no `for` or `keep_firing_for`", "");
        }
        let (Some(name), Some(expr)) = (name, expr) else { return };
        let duration = |field: Option<(&YamlNode, Option<Duration>)>| field.and_then(|(_, d)| d).unwrap_or_default();
        let what = match alert {
            Some(_) => What::Alert {
                name,
                wait: duration(wait),
                keep_firing: duration(keep),
                severity: severity(labels.get("severity").map(String::as_str)),
            },
            None => What::Record { name },
        };
        let read = expr::Expression::of(&expr);
        self.set.rules.push(Rule {
            group,
            file: Arc::clone(self.file),
            line: self.lines.line(self.span(named.span).offset),
            what,
            labels,
            reach: read.reach,
            read,
            expr,
        });
    }

    fn unknown(&mut self, entries: &[(relapse_model::spanned::Spanned<String>, YamlNode)], known: &[&str], of: &str) {
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.value.as_str())) {
            if OTHERS.contains(&key.value.as_str()) {
                continue;
            }
            let message = format!("{of} has no field {}: Prometheus refuses the file", quoted(&key.value));
            let help = nearest(&key.value, known.iter().copied()).map(|meant| format!("did you mean `{meant}`?"));
            self.report(key.span, message, help.unwrap_or_default());
        }
    }

    /// A text that no template may be part of.
    fn plain(&mut self, node: &YamlNode, what: &str) -> Option<String> {
        match self.text(node) {
            Some(text) if text.contains("{{") && !is_quoted_template(&text) => {
                let help = template::render(&self.source.file);
                self.report(node.span, format!("{what} is a template that was not rendered"), help);
                None
            }
            Some(text) if !text.trim().is_empty() => Some(text.into_owned()),
            Some(_) => {
                self.report(node.span, format!("{what} is empty"), "");
                None
            }
            None => {
                self.report(node.span, format!("{what} must be a string"), "");
                None
            }
        }
    }

    fn duration(&mut self, node: &YamlNode, what: &str) -> Option<Duration> {
        let text = self.plain(node, what)?;
        let duration = duration::parse(&text);
        if duration.is_none() {
            let help = "write whole numbers and units from the largest to the smallest, such as `5m` or `1h30m`";
            self.report(node.span, format!("{what} is not a duration: {}", quoted(&text)), help);
        }
        duration
    }

    fn labels(&mut self, node: &YamlNode) -> BTreeMap<String, String> {
        let Value::Map(entries) = &node.value else {
            self.report(node.span, "labels and annotations must be mappings", "write `name: value`");
            return BTreeMap::new();
        };
        let mut labels = BTreeMap::new();
        for (key, value) in entries {
            match self.text(value) {
                Some(text) if template::is_helm(&text) => {
                    let help = template::render(&self.source.file);
                    self.report(value.span, format!("{} is a template of Helm", quoted(&key.value)), help);
                }
                Some(text) => {
                    labels.insert(key.value.clone(), text.into_owned());
                }
                // An empty label is none.
                None if matches!(value.value, Value::Null) => {}
                None => {
                    let help = "a template is written in quotes: \"{{ $value }}\"";
                    self.report(value.span, format!("{} must be a string", quoted(&key.value)), help);
                }
            }
        }
        labels
    }
}

/// Whether `{{` occurs only within a string of an expression, as in `label_replace(x, "a", "{{b}}", "", "")`.
fn is_quoted_template(text: &str) -> bool {
    !expr::outside_strings(text).contains("{{")
}

fn severity(label: Option<&str>) -> Severity {
    match label.map(str::to_lowercase).as_deref() {
        Some("critical" | "page") => Severity::Critical,
        Some("info" | "none") => Severity::Info,
        _ => Severity::Warning,
    }
}
