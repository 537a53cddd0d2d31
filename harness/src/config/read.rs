//! What must stand where in `relapse.yaml`, and what it means.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::Date;
use relapse_detectors::finding::{Level, Subject};
use relapse_detectors::registry::DetectorSet;
use relapse_model::diagnostics::{Diagnostics, Source, did_you_mean, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::values;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::fields::{Fields, Reader};
use super::tree::{Node, Value};
use super::{Applies, Config, Entry, Outside, directory};
use crate::outside_detector::ExecSpec;

/// The keys of a line under `expect`.
const EXPECTATION: [&str; 7] = ["incident", "scenario", "level", "subject", "within", "miss", "until"];

pub(super) fn config(source: &Source, tree: &Node, today: Date) -> Result<Config, Diagnostics> {
    let mut read = Reader { source, wrong: Diagnostics::default() };
    let detectors = read.config(tree, today);
    read.wrong.into_result(Config { detectors })
}

impl<'a> Reader<'a> {
    fn config(&mut self, tree: &'a Node, today: Date) -> Vec<Outside> {
        let Some(fields) = self.mapping("the file", tree, &["apiVersion", "kind", "detectors"]) else {
            return Vec::new();
        };
        self.fixed(&fields, "apiVersion", "relapse/v1");
        self.fixed(&fields, "kind", "Config");
        let list = self.required(&fields, "detectors", "list your detectors, or remove the file");
        let list = list.and_then(|node| self.list("detectors", node)).unwrap_or_default();
        let mut names: BTreeSet<&str> = BTreeSet::new();
        let mut detectors = Vec::new();
        for node in list {
            let Some(fields) = self.mapping("the detector", node, &["name", "exec", "expect"]) else { continue };
            let name = self.required(&fields, "name", "reports show it by this name");
            let name = name.and_then(|node| self.text("name", node)).filter(|name| self.is_good_name(name));
            if let Some(name) = name
                && !names.insert(name.value)
            {
                self.report(name.span, format!("there are two detectors {}", quoted(name.value)), "");
            }
            let exec = self.required(&fields, "exec", "say how it is run: `exec: { command: [./my-agent] }`");
            let exec = exec.and_then(|node| self.exec(node, name.map_or("", |name| name.value)));
            let expect = fields.get("expect").and_then(|node| self.list("expect", node)).unwrap_or_default();
            let expect = self.expectations(expect, today);
            detectors.extend(exec.map(|exec| Outside { exec, expect }));
        }
        detectors
    }

    fn fixed(&mut self, fields: &Fields<'a>, key: &str, value: &str) {
        let Some(node) = self.required(fields, key, &format!("write `{key}: {value}`")) else { return };
        if let Some(text) = self.text(key, node)
            && text.value != value
        {
            let message = format!("`{key}` cannot be {}", quoted(text.value));
            self.report(text.span, message, format!("write `{value}`"));
        }
    }

    fn is_good_name(&mut self, name: &Spanned<&str>) -> bool {
        let format = values::Name::FORMAT;
        if !(format.accepts)(name.value) {
            self.report(name.span, format!("{} is not {}", quoted(name.value), format.what), format.right);
            return false;
        }
        if DetectorSet::names().contains(&name.value) {
            let message = format!("{} is the name of a built-in detector", quoted(name.value));
            self.report(name.span, message, "choose another");
            return false;
        }
        true
    }

    fn exec(&mut self, node: &'a Node, name: &str) -> Option<ExecSpec> {
        let fields = self.mapping("`exec`", node, &["command", "signals", "env"])?;
        let help = "a list: the program and its arguments, such as `[./my-agent, --json]`";
        let command = self.required(&fields, "command", help).and_then(|node| self.command(node, help));
        let signals = fields.get("signals").map_or(Some(false), |node| self.flag("signals", node));
        let env = fields.get("env").map_or_else(Default::default, |node| self.environment(node));
        Some(ExecSpec {
            name: name.to_owned(),
            command: command?,
            directory: directory(self.source),
            env,
            signals: signals?,
        })
    }

    fn command(&mut self, node: &'a Node, help: &str) -> Option<Vec<String>> {
        let Value::List(words) = &node.value else {
            self.report(node.span, format!("`command` is a list, not {}", node.value.kind()), help);
            return None;
        };
        let command: Vec<Option<String>> = words.iter().map(|word| self.word("a word of `command`", word)).collect();
        let command: Option<Vec<String>> = command.into_iter().collect();
        if command.as_ref().is_some_and(|words| words.first().is_none_or(String::is_empty)) {
            self.report(node.span, "`command` names no program", help);
            return None;
        }
        command
    }

    fn environment(&mut self, node: &'a Node) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let Value::Map(entries) = &node.value else {
            self.report(node.span, format!("`env` is a mapping, not {}", node.value.kind()), "");
            return env;
        };
        for (key, value) in entries {
            if key.value.is_empty() || key.value.contains(['=', '\0']) {
                self.report(key.span, format!("{} is no name of a variable", quoted(&key.value)), "");
            } else if let Some(value) = self.word("a variable", value)
                && env.insert(key.value.clone(), value).is_some()
            {
                self.report(key.span, format!("duplicate key {}", quoted(&key.value)), "a key may stand once");
            }
        }
        env
    }

    /// A scalar as it is written: programs know no numbers.
    fn word(&mut self, what: &str, node: &Node) -> Option<String> {
        let word = match &node.value {
            Value::Text(text) => text.clone(),
            Value::Number | Value::Bool(_) => self.source.at(node.span).to_owned(),
            other => {
                self.report(node.span, format!("{what} is a text, not {}", other.kind()), "");
                return None;
            }
        };
        if word.contains('\0') {
            self.report(node.span, format!("{what} holds a NUL character"), "no program can be given one");
            return None;
        }
        Some(word)
    }

    fn expectations(&mut self, list: &'a [Node], today: Date) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for node in list {
            let Some(fields) = self.mapping("the expectation", node, &EXPECTATION) else { continue };
            let Some(entry) = self.expectation(&fields, today) else { continue };
            if let Some(earlier) = entries.iter().find(|earlier| contradict(earlier, &entry)) {
                let message = match (&earlier.miss, &entry.miss) {
                    (None, None) | (Some(_), Some(_)) => "this is expected by an earlier line already",
                    _ => "an earlier line expects the opposite",
                };
                self.report(fields.span(), message, "keep one of the two");
            }
            entries.push(entry);
        }
        entries
    }

    fn expectation(&mut self, fields: &Fields<'a>, today: Date) -> Option<Entry> {
        let to = self.applies(fields);
        let level = understood(fields.get("level"), |node| self.level(node));
        let subject = understood(fields.get("subject"), |node| self.subject(node));
        let within = understood(fields.get("within"), |node| self.duration("within", node));
        let miss = understood(fields.get("miss"), |node| self.text("miss", node));
        // Only its day matters, and that has been looked at.
        let _ = understood(fields.get("until"), |node| self.until(node, today));
        if let (Ok(Some(reason)), None) = (&miss, fields.get("until")) {
            let help = "add the last day on which it is accepted, such as `until: 2027-03-01`";
            self.report(reason.span, "a miss is expected without an end", help);
        }
        if let (Ok(None), Some(key)) = (&miss, fields.key("until")) {
            self.report(key, "`until` belongs to an expected miss", "say why with `miss`, or remove it");
        }
        let is_risk = matches!(level, Ok(Some(Level::Risk)));
        if let (true, Some(key)) = (is_risk, fields.key("within")) {
            self.report(key, "a risk has no deadline", "it must be named before the fault: remove `within`");
        }
        if matches!(miss, Ok(None)) {
            self.required(fields, "level", "one of: risk, cause, symptom");
            if !is_risk {
                self.required(fields, "within", values::Duration::FORMAT.right);
            }
        }
        // Whatever was written and not understood has been reported.
        Some(Entry {
            to: to?,
            levels: level.ok()?.map_or_else(|| vec![Level::Cause, Level::Symptom], |level| vec![level]),
            subject: subject.ok()?,
            within: within.ok()?.unwrap_or_default(),
            miss: miss.ok()?.map(|reason| reason.value.to_owned()),
        })
    }

    fn applies(&mut self, fields: &Fields<'a>) -> Option<Applies> {
        let incident = fields.get("incident").map(|node| self.text("incident", node));
        let scenario = fields.get("scenario").map(|node| self.text("scenario", node));
        match (incident, scenario) {
            (Some(incident), None) => Some(Applies::Incident(incident?.value.to_owned())),
            (None, Some(scenario)) => Some(Applies::Scenario(scenario?.value.to_owned())),
            (None, None) => {
                let help = "add `incident: I4` (every scenario of it) or `scenario: NAME` (one)";
                self.report(fields.span(), "the expectation does not say where it counts", help);
                None
            }
            (Some(_), Some(_)) => {
                let key = fields.key("scenario").unwrap_or_default();
                self.report(key, "both `incident` and `scenario` are given", "keep one of the two");
                None
            }
        }
    }

    fn level(&mut self, node: &'a Node) -> Option<Level> {
        const LEVELS: [(&str, Level); 3] =
            [("risk", Level::Risk), ("cause", Level::Cause), ("symptom", Level::Symptom)];
        let text = self.text("level", node)?;
        let found = LEVELS.iter().find(|(name, _)| *name == text.value);
        if found.is_none() {
            let help = did_you_mean(text.value, "levels", LEVELS.iter().map(|(name, _)| *name));
            self.report(text.span, format!("`level` cannot be {}", quoted(text.value)), help);
        }
        found.map(|(_, level)| *level)
    }

    fn subject(&mut self, node: &'a Node) -> Option<Subject> {
        let text = self.text("subject", node)?;
        let parsed: Result<Subject, _> = text.value.parse();
        if parsed.is_err() {
            let help = "write node/NAME, pod/NAME, service/NAME, path/PREFIX or flow/FLOW";
            self.report(text.span, format!("{} is not a subject", quoted(text.value)), help);
        }
        parsed.ok()
    }

    fn duration(&mut self, name: &str, node: &'a Node) -> Option<Duration> {
        let format = values::Duration::FORMAT;
        let text = match &node.value {
            // A bare number lacks its unit, and quotes would not help.
            Value::Number => Spanned { value: self.source.at(node.span), span: node.span },
            _ => self.text(name, node)?,
        };
        let deserializer: StrDeserializer<'_, ValueError> = text.value.into_deserializer();
        let Ok(values::Duration(duration)) = values::Duration::deserialize(deserializer) else {
            self.report(text.span, format!("{} is not {}", quoted(text.value), format.what), format.right);
            return None;
        };
        if duration.is_zero() {
            self.report(text.span, format!("`{name}` must be longer than nothing"), format.right);
            return None;
        }
        Some(duration)
    }

    fn until(&mut self, node: &'a Node, today: Date) -> Option<Date> {
        let text = self.text("until", node)?;
        // Ten characters: a time of day after the date would be dropped silently.
        let Some(until) = text.value.parse::<Date>().ok().filter(|_| text.value.len() == 10) else {
            let help = "write year, month and day, such as `2027-03-01`";
            self.report(text.span, format!("{} is not a day", quoted(text.value)), help);
            return None;
        };
        if until < today {
            let help = "expect the detection now, or give the miss a later day";
            self.report(text.span, format!("the miss was expected until {until}, which has passed"), help);
        }
        Some(until)
    }
}

/// What was written was not understood, which has been reported.
struct Reported;

fn understood<'a, T>(
    written: Option<&'a Node>,
    understand: impl FnOnce(&'a Node) -> Option<T>,
) -> Result<Option<T>, Reported> {
    written.map(|node| understand(node).ok_or(Reported)).transpose()
}

/// Two lines about the same: the same deadline twice, or a detection and a miss of it.
fn contradict(a: &Entry, b: &Entry) -> bool {
    let levels = a.levels.iter().any(|level| b.levels.contains(level));
    let opposite = a.miss.is_some() != b.miss.is_some();
    let subjects = a.subject == b.subject || (opposite && (a.subject.is_none() || b.subject.is_none()));
    a.to == b.to && levels && subjects
}
