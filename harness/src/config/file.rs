//! The format of `relapse.yaml`, and its semantic checks.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use jiff::civil::Date;
use relapse_detectors::finding::Level;
use relapse_detectors::registry::DetectorSet;
use relapse_model::diagnostics::{Diagnostic, Diagnostics, Source, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::values::{Day, Duration, Name, Subject};
use relapse_model::yaml::Document;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::alerts::{self, Rules};
use super::check::{Check, directory};
use super::{Config, Outside};
use crate::outside_detector::ExecSpec;
use crate::scenario::ApiVersion;

/// Your detectors, in addition to the built-in ones, and your alerting rules.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    /// Version of this format.
    #[serde(rename = "apiVersion")]
    _version: ApiVersion,
    #[serde(rename = "kind")]
    _kind: Kind,
    /// Your detectors.
    #[serde(default)]
    detectors: Vec<Detector>,
    /// Your alerting rules, for `relapse alerts`.
    #[serde(default)]
    alerts: Vec<Rules>,
}

impl Document for File {
    const NOUN: &'static str = "configuration";
    const BEGIN: &'static str = "begin with `apiVersion: relapse/v1` and `kind: Config`";
}

/// What the file describes.
#[derive(Deserialize, JsonSchema)]
enum Kind {
    Config,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Detector {
    /// Name shown in reports.
    name: Spanned<Name>,
    /// How to run it: `exec: { command: [./my-agent] }`.
    exec: Exec,
    /// In an incident, a warning that no line of `expect` asked for fails the trial. Default false: it is shown.
    #[serde(default)]
    strict: bool,
    #[serde(default)]
    expect: Vec<Spanned<Line>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Exec {
    /// A list: the program and its arguments, such as `[./my-agent, --json]`.
    command: Spanned<Vec<Spanned<Word>>>,
    #[serde(default)]
    signals: bool,
    #[serde(default)]
    env: BTreeMap<Spanned<String>, Spanned<Word>>,
}

/// A scalar as written: arguments are strings, and 1.10 is not 1.1.
#[derive(Deserialize)]
struct Word(String);

impl JsonSchema for Word {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Word".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "number" }, { "type": "boolean" }] })
    }
}

/// One line under `expect`, for every scenario of an incident or for one scenario.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub incident: Option<Spanned<String>>,
    pub scenario: Option<Spanned<String>>,
    /// The step of a chain that it is about.
    pub step: Option<Spanned<String>>,
    /// The step of a chain whose healing uncovers it. Default: none, its deadline counts from the injection of `step`.
    pub after: Option<Spanned<String>>,
    #[schemars(with = "Option<String>", extend("enum" = ["risk", "cause", "symptom"]))]
    level: Option<Level>,
    pub subject: Option<Subject>,
    pub within: Option<Spanned<Duration>>,
    pub miss: Option<Spanned<String>>,
    until: Option<Spanned<Day>>,
}

impl Line {
    /// The levels of a line; a miss may omit the level.
    pub(super) fn levels(&self) -> &[Level] {
        self.level.as_ref().map_or(&[Level::Cause, Level::Symptom], std::slice::from_ref)
    }

    /// Whether two lines expect the same finding twice, or both a detection and a miss.
    fn contradicts(&self, other: &Self) -> bool {
        let place = |line: &Self| {
            [&line.incident, &line.scenario, &line.step].map(|name| name.as_ref().map(|name| name.value.clone()))
        };
        let opposite = self.miss.is_some() != other.miss.is_some();
        let subjects =
            self.subject == other.subject || (opposite && (self.subject.is_none() || other.subject.is_none()));
        place(self) == place(other) && subjects && self.levels().iter().any(|level| other.levels().contains(level))
    }
}

/// Checks a parsed file and turns it into a configuration.
pub(super) fn resolve(source: &Source, file: File, today: Date) -> Result<Config, Diagnostics> {
    let mut check = Check::new(source);
    let mut names = BTreeSet::new();
    let mut detectors = Vec::new();
    for Detector { name, exec, strict, expect } in file.detectors {
        if DetectorSet::names().contains(&&**name) {
            let message = format!("{} is the name of a built-in detector", quoted(&name));
            check.report(name.span, message, "choose another");
        } else if !names.insert(name.value.0.clone()) {
            check.report(name.span, format!("there are two detectors {}", quoted(&name)), "");
        }
        let exec = ExecSpec { strict, ..check.exec(name.value.0, exec) };
        detectors.push(Outside { exec, expect: check.expectations(expect, today) });
    }
    if detectors.is_empty() && file.alerts.is_empty() {
        let message = "the configuration has neither `detectors` nor `alerts`";
        check.wrong.push(Diagnostic::of_file(&source.file, message).help("add one, or remove the file"));
    }
    let alerts = alerts::resolve(&mut check, file.alerts, today);
    check.wrong.into_result(Config { detectors, alerts })
}

impl Check<'_> {
    fn exec(&mut self, name: String, exec: Exec) -> ExecSpec {
        for key in exec.env.keys() {
            if key.is_empty() || key.contains(['=', '\0']) {
                self.report(key.span, format!("{} is not a valid variable name", quoted(key)), "");
            }
        }
        for word in exec.command.iter().chain(exec.env.values()).filter(|word| word.0.contains('\0')) {
            self.report(
                word.span,
                format!("{} holds a NUL character", quoted(&word.0)),
                "arguments and variables cannot contain one",
            );
        }
        let program = exec.command.first().map(|program| program.span);
        let spec = ExecSpec {
            name,
            command: exec.command.value.into_iter().map(|word| word.value.0).collect(),
            directory: directory(self.source),
            env: exec.env.into_iter().map(|(key, word)| (key.value, word.value.0)).collect(),
            signals: exec.signals,
            strict: false,
        };
        if spec.command.first().is_none_or(String::is_empty) {
            let help = "a list: the program and its arguments, such as `[./my-agent, --json]`";
            self.report(exec.command.span, "`command` does not name a program", help);
        } else if let (Err((why, help)), Some(at)) = (runnable(&spec), program) {
            self.report(at, why, help);
        }
        spec
    }

    fn expectations(&mut self, lines: Vec<Spanned<Line>>, today: Date) -> Vec<Line> {
        for (number, line) in lines.iter().enumerate() {
            self.expectation(line, today);
            if let Some(earlier) = lines[..number].iter().find(|earlier| earlier.contradicts(line)) {
                let message = if earlier.miss.is_some() == line.miss.is_some() {
                    "an earlier line already expects this"
                } else {
                    "an earlier line expects the opposite"
                };
                self.report(line.span, message, "keep one of the two");
            }
        }
        lines.into_iter().map(|line| line.value).collect()
    }

    fn expectation(&mut self, line: &Spanned<Line>, today: Date) {
        let is_risk = line.level == Some(Level::Risk);
        self.scope(line.span, line.incident.as_ref(), line.scenario.as_ref());
        for (key, name, needs, given) in [
            ("step", &line.step, "scenario", line.scenario.is_some()),
            ("after", &line.after, "step", line.step.is_some()),
        ] {
            if let Some(name) = name.as_ref().filter(|_| !given) {
                self.report(name.span, format!("`{key}` needs `{needs}`"), format!("add `{needs}: NAME`"));
            }
        }
        self.miss(line.miss.as_ref(), line.until.as_ref(), today);
        match &line.within {
            Some(within) if is_risk => {
                let help = "it must be reported before the fault: remove `within`";
                self.report(within.span, "a risk has no deadline", help);
            }
            Some(within) if within.0.is_zero() => {
                self.report(within.span, "`within` must be longer than 0", Duration::FORMAT.right);
            }
            None if line.miss.is_none() && !is_risk => {
                self.report(line.span, "the expectation has no `within`", Duration::FORMAT.right);
            }
            _ => {}
        }
        if line.miss.is_none() && line.level.is_none() {
            self.report(line.span, "the expectation has no `level`", "one of: risk, cause, symptom");
        }
    }
}

/// Checks that the program can be run, with the same lookup as `exec`; returns an error and a fix.
fn runnable(spec: &ExecSpec) -> Result<(), (String, String)> {
    let program = &spec.command[0];
    let is_executable =
        |file: &PathBuf| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if program.contains('/') {
        let file = spec.directory.join(program);
        return match (file.exists(), is_executable(&file)) {
            (_, true) => Ok(()),
            (true, false) => {
                Err((format!("{} is not executable", quoted(program)), format!("chmod +x {}", file.display())))
            }
            (false, false) => Err((
                format!("there is no program {}", quoted(program)),
                format!("looked for {}", file.components().collect::<PathBuf>().display()),
            )),
        };
    }
    let path = spec.env.get("PATH").map(Into::into).or_else(|| std::env::var_os("PATH"));
    let path = path.unwrap_or_else(|| "/bin:/usr/bin".into());
    if std::env::split_paths(&path).any(|folder| is_executable(&spec.directory.join(folder).join(program))) {
        return Ok(());
    }
    let help = format!("write `./{program}` if it is next to this file");
    Err((format!("there is no program {} in the PATH", quoted(program)), help))
}
