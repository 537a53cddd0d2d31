//! `alerts:` of `relapse.yaml`: its format, and its semantic checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time;

use jiff::civil::Date;
use relapse_alerts::recording::Exporter;
use relapse_alerts::report::expect::{Expect, Level, Scope};
use relapse_model::diagnostics::{did_you_mean, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::values::{Day, Duration, Name};
use schemars::JsonSchema;
use serde::Deserialize;

use super::check::{Check, directory};

/// Defaults of Prometheus in many clusters (kube-prometheus).
pub const SCRAPE: time::Duration = time::Duration::from_secs(15);
pub const EVALUATE: time::Duration = time::Duration::from_secs(30);
/// The longest interval of scraping and evaluating.
const LONGEST: time::Duration = time::Duration::from_secs(600);

/// What a template of a label may name: the parts of a target's place.
const PLACES: [&str; 7] = ["node", "namespace", "pod", "service", "address", "target", "module"];

/// A set of rules, checked.
#[derive(Debug, Clone)]
pub struct AlertRules {
    pub name: String,
    pub files: Vec<PathBuf>,
    pub scrape: time::Duration,
    pub evaluate: time::Duration,
    pub labels: BTreeMap<Exporter, BTreeMap<String, String>>,
    pub expect: Vec<Expect>,
}

/// Alerting rules of one Prometheus.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    /// Name shown in reports.
    name: Spanned<Name>,
    /// Files, relative to this one; `*`, `?` and `**` match as in a shell.
    rules: Spanned<Vec<Spanned<String>>>,
    /// How often targets are scraped. Default 15s.
    scrape: Option<Spanned<Duration>>,
    /// How often rules are evaluated, if their group does not say so. Default 30s.
    evaluate: Option<Spanned<Duration>>,
    /// Labels of each exporter's targets: `node: { job: node-exporter, instance: "{node}:9100" }`. Default: inferred
    /// from the rules.
    #[serde(default)]
    labels: BTreeMap<Spanned<String>, BTreeMap<Spanned<String>, Spanned<String>>>,
    #[serde(default)]
    expect: Vec<Spanned<AlertLine>>,
}

/// One line under `expect` of `alerts`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertLine {
    alert: Option<Spanned<String>>,
    incident: Option<Spanned<String>>,
    scenario: Option<Spanned<String>>,
    #[schemars(with = "Option<String>", extend("enum" = ["cause", "symptom", "collateral"]))]
    level: Option<Level>,
    within: Option<Spanned<Duration>>,
    miss: Option<Spanned<String>>,
    until: Option<Spanned<Day>>,
}

impl AlertLine {
    fn same_place(&self, other: &Self) -> bool {
        let place =
            |line: &Self| [&line.incident, &line.scenario].map(|name| name.as_ref().map(|name| name.value.clone()));
        place(self) == place(other)
    }

    fn alert(&self) -> Option<&str> {
        self.alert.as_ref().map(|alert| alert.value.as_str())
    }

    fn checked(self) -> Option<Expect> {
        let scope = match (self.incident, self.scenario) {
            (Some(incident), _) => Scope::Incident(incident.value),
            (None, Some(scenario)) => Scope::Scenario(scenario.value),
            (None, None) => return None,
        };
        Some(Expect {
            alert: self.alert.map(|alert| alert.value),
            scope,
            level: self.level,
            within: self.within.map(|within| within.0),
            miss: self.miss.map(|miss| miss.value),
        })
    }
}

pub(super) fn resolve(check: &mut Check<'_>, all: Vec<Rules>, today: Date) -> Vec<AlertRules> {
    let mut names = BTreeSet::new();
    let mut resolved = Vec::new();
    for Rules { name, rules, scrape, evaluate, labels, expect } in all {
        if !names.insert(name.value.0.clone()) {
            check.report(name.span, format!("there are two sets of rules {}", quoted(&name)), "");
        }
        expectations(check, &expect, today);
        resolved.push(AlertRules {
            name: name.value.0,
            files: files(check, &rules),
            scrape: interval(check, scrape.as_ref(), "scrape", SCRAPE),
            evaluate: interval(check, evaluate.as_ref(), "evaluate", EVALUATE),
            labels: labels.into_iter().filter_map(|(exporter, labels)| of_exporter(check, &exporter, labels)).collect(),
            expect: expect.into_iter().filter_map(|line| line.value.checked()).collect(),
        });
    }
    resolved
}

/// The files that the patterns match, each once.
fn files(check: &mut Check<'_>, patterns: &Spanned<Vec<Spanned<String>>>) -> Vec<PathBuf> {
    if patterns.is_empty() {
        check.report(patterns.span, "`rules` names no files", "a list of files or patterns, such as `[rules/*.yaml]`");
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for pattern in patterns.iter() {
        let folder = directory(check.source);
        let escaped = glob::Pattern::escape(&folder.to_string_lossy());
        let whole = Path::new(&escaped).join(&pattern.value);
        let found = match glob::glob(&whole.to_string_lossy()) {
            Ok(found) => found,
            Err(e) => {
                check.report(pattern.span, format!("{} is not a pattern: {}", quoted(pattern), e.msg), "");
                continue;
            }
        };
        let found: Vec<PathBuf> = found.filter_map(Result::ok).collect();
        if found.is_empty() {
            let help = format!("looked in {}", folder.components().collect::<PathBuf>().display());
            check.report(pattern.span, format!("no file matches {}", quoted(pattern)), help);
        }
        files.extend(found);
    }
    let mut seen = BTreeSet::new();
    files.retain(|file| seen.insert(file.clone()));
    files
}

fn interval(
    check: &mut Check<'_>,
    given: Option<&Spanned<Duration>>,
    key: &str,
    default: time::Duration,
) -> time::Duration {
    let Some(given) = given else { return default };
    let interval = given.0;
    if interval.subsec_nanos() > 0 || interval.is_zero() || interval > LONGEST {
        let message = format!("`{key}` must be a whole number of seconds, from 1s to 10m");
        check.report(given.span, message, format!("such as `{key}: 15s`"));
    }
    interval
}

fn of_exporter(
    check: &mut Check<'_>,
    exporter: &Spanned<String>,
    labels: BTreeMap<Spanned<String>, Spanned<String>>,
) -> Option<(Exporter, BTreeMap<String, String>)> {
    for template in labels.values() {
        for place in template.split('{').skip(1).filter_map(|rest| rest.split_once('}')) {
            if !PLACES.contains(&place.0) {
                let help = did_you_mean(place.0, "places", PLACES);
                check.report(template.span, format!("{} is no part of a target's place", quoted(place.0)), help);
            }
        }
    }
    let known = serde_json::from_value::<Exporter>(serde_json::Value::String(exporter.value.clone()));
    let Ok(known) = known else {
        let help = did_you_mean(exporter, "exporters", EXPORTERS);
        check.report(exporter.span, format!("there is no exporter {}", quoted(exporter)), help);
        return None;
    };
    Some((known, labels.into_iter().map(|(label, template)| (label.value, template.value)).collect()))
}

/// Names of [`Exporter`].
const EXPORTERS: [&str; 8] = ["node", "blackbox", "mysqld", "dns", "kubelet", "cadvisor", "kube-proxy", "kube-state"];

fn expectations(check: &mut Check<'_>, lines: &[Spanned<AlertLine>], today: Date) {
    for (number, line) in lines.iter().enumerate() {
        check.scope(line.span, line.incident.as_ref(), line.scenario.as_ref());
        check.miss(line.miss.as_ref(), line.until.as_ref(), today);
        if line.miss.is_none() {
            if line.alert.is_none() {
                check.report(
                    line.span,
                    "the expectation has no `alert`",
                    "name the alert, or give the reason with `miss`",
                );
            }
            if line.level.is_none() {
                check.report(line.span, "the expectation has no `level`", "one of: cause, symptom, collateral");
            }
        } else if let Some(within) = &line.within {
            check.report(within.span, "an expected miss has no `within`", "remove it");
        }
        if let Some(within) = line.within.as_ref().filter(|within| within.0.is_zero()) {
            check.report(within.span, "`within` must be longer than 0", Duration::FORMAT.right);
        }
        let earlier = lines[..number].iter().filter(|earlier| earlier.same_place(line));
        let opposite = |earlier: &AlertLine| earlier.miss.is_some() != line.miss.is_some();
        for earlier in earlier {
            let message = match (opposite(earlier), earlier.alert() == line.alert()) {
                (false, true) => "an earlier line already expects this",
                (true, true) => "an earlier line expects the opposite",
                // A miss without a name is about every alert that earns credit.
                (true, false)
                    if (earlier.alert.is_none() || line.alert.is_none())
                        && [earlier, line]
                            .iter()
                            .any(|line| matches!(line.level, Some(Level::Cause | Level::Symptom))) =>
                {
                    "an earlier line expects the opposite"
                }
                _ => continue,
            };
            check.report(line.span, message, "keep one of the two");
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use relapse_model::diagnostics::Source;

    use super::*;
    use crate::config::Config;

    fn parse(folder: &Path, alerts: &str) -> Result<Config, String> {
        let text = format!("apiVersion: relapse/v1\nkind: Config\nalerts:\n{alerts}");
        let source = Source::new(folder.join("relapse.yaml"), text);
        let plain = |wrong: relapse_model::diagnostics::Diagnostics| wrong.plain();
        Config::parse(&source, date(2026, 11, 21)).map_err(plain)
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("rules")).expect("a folder");
        for name in ["rules/a.yaml", "rules/b.yaml", "rules/c.yml"] {
            std::fs::write(folder.path().join(name), "groups: []\n").expect("written");
        }
        folder
    }

    #[test]
    fn a_set_of_rules() {
        let folder = folder();
        let text = "  - name: platform
    rules: [rules/*.yaml, rules/a.yaml]
    scrape: 5s
    labels: { node: { job: node-exporter, instance: \"{node}:9100\" }, dns: { job: kube-dns } }
    expect:
      - { alert: Near, incident: I2, level: symptom, within: 2m }
      - { alert: TargetDown, incident: I2, level: collateral }
      - { incident: I7, miss: no rule yet, until: 2027-03-01 }
      - { alert: TargetDown, scenario: x, miss: too slow, until: 2027-03-01 }
";
        let config = parse(folder.path(), text).unwrap();
        let rules = &config.alerts[0];
        let files: Vec<_> = rules.files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
        assert_eq!(files, ["a.yaml", "b.yaml"], "each once");
        assert_eq!((rules.scrape.as_secs(), rules.evaluate), (5, EVALUATE));
        assert_eq!(rules.labels[&Exporter::Node]["instance"], "{node}:9100");
        assert_eq!(rules.expect.len(), 4);
        assert_eq!(rules.expect[0].to_string(), "Near in I2 as symptom within 2m");
        assert!(config.detectors.is_empty());
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let folder = folder();
        let text = "  - name: a
    rules: []
    scrape: 0s
    evaluate: 1500ms
    labels: { nod: { job: x }, node: { instance: \"{nodes}:9100\" } }
    expect:
      - { incident: I2, level: symptom }
      - { alert: A, level: cause }
      - { alert: A, incident: I1, scenario: x, level: cause }
      - { alert: B, incident: I1 }
      - { incident: I3, miss: none }
      - { incident: I4, miss: none, until: 2026-11-20 }
      - { incident: I5, until: 2027-01-01, alert: A, level: cause, within: 0s }
      - { incident: I5, alert: A, level: symptom }
      - { incident: I5, alert: A, miss: none, until: 2027-01-01 }
      - { incident: I6, miss: none, until: 2027-01-01, within: 3s }
      - { incident: I6, alert: A, level: cause }
      - { incident: I6, alert: B, level: collateral }
  - name: a
    rules: [rules/*.json, \"rules/a[\"]
";
        let wrong = parse(folder.path(), text).unwrap_err();
        let wrong = wrong.replace(&folder.path().display().to_string(), "FOLDER");
        insta::assert_snapshot!(wrong);
        let form = "  - nam: a\n    rules: x\n    scrape: 5\n    expect: [{ alert: A, level: risk, until: soon }]\n";
        let wrong = parse(folder.path(), form).unwrap_err();
        insta::assert_snapshot!("form", wrong.replace(&folder.path().display().to_string(), "FOLDER"));
    }

    #[test]
    fn a_file_of_nothing_is_refused() {
        assert!(parse(Path::new("/"), "  []\n").unwrap_err().contains("neither `detectors` nor `alerts`"));
    }

    #[test]
    fn every_exporter_has_its_name() {
        for name in EXPORTERS {
            assert!(serde_json::from_value::<Exporter>(name.into()).is_ok(), "{name}");
        }
    }
}
