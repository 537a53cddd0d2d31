//! An incident as a test file of promtool: its series, and when which alert fires.
//!
//! What the file expects is what promtool answers, so that it passes as written, and fails when a rule no longer fires.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::decide::Settings;
use crate::decide::schedule::{Schedule, period};
use crate::explain::{self, Error, records, written};
use crate::labels::Labels;
use crate::promtool::{Ask, File, Test, WrittenRule};
use crate::recording::{Recording, selector};
use crate::rule::{Rule, RuleId, RuleSet};
use crate::timeline::{Extended, Timeline, is_counter};

const LIMIT: Duration = Duration::from_secs(120);

/// Two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    pub rules: String,
    pub tests: String,
    /// Alerts that fire.
    pub alerts: usize,
}

/// Exports the alerts that fire in a trial; `rules_file` is the name under which their rules are written.
///
/// # Errors
/// If promtool cannot be used.
pub fn export(
    rules: &RuleSet,
    ids: &[RuleId],
    recording: &Recording,
    labels: &Labels,
    settings: &Settings,
    rules_file: &str,
) -> Result<Exported, Error> {
    let alerts: Vec<&Rule> = ids.iter().filter_map(|id| rules.rules.get(id.0)).collect();
    let mut all: Vec<&Rule> = Vec::new();
    for rule in alerts.iter().flat_map(|alert| records(rules, alert)).chain(alerts.iter().copied()) {
        if !all.contains(&rule) {
            all.push(rule);
        }
    }
    let timeline = longest(&alerts, recording, settings);
    let schedule = Schedule::new(timeline, settings.scrape, settings.evaluate, 0);
    let by_pattern = all.iter().flat_map(|rule| &rule.selectors).any(|selector| selector.metric.is_none());
    let wanted = |name: &str| by_pattern || all.iter().any(|rule| rule.metrics().contains(name));
    let series: Vec<(String, String)> = (recording.series.iter().filter(|series| wanted(&series.name)))
        .filter_map(|series| {
            let target = recording.header.targets.get(series.target)?;
            let extended = Extended::new(is_counter(&recording.header, &series.name), &series.samples, &timeline);
            let named = selector(&series.name, &labels.stored(target, &series.labels));
            Some((named, schedule.values(&extended, schedule.end(), false)))
        })
        .collect();
    let mut names: Vec<&str> = alerts.iter().map(|alert| alert.name()).collect();
    names.sort_unstable();
    names.dedup();
    let steps = (0..=schedule.end() / schedule.evaluate).map(|step| step * schedule.evaluate);
    let steps: Vec<u64> = steps.filter(|at| *at + schedule.evaluate >= schedule.fault()).collect();
    let ask = |name: &&str| steps.iter().map(|at| Ask { expr: firing(name), at: *at }).collect::<Vec<_>>();
    let written: Vec<WrittenRule> = all.iter().copied().map(written).collect();
    let test =
        Test { interval: schedule.interval(), series: series.clone(), asks: names.iter().flat_map(ask).collect() };
    let file = File { evaluate: schedule.evaluate, rules: written.clone(), tests: vec![test] };
    let answers = settings.promtool.test(&[file], LIMIT)?;
    let answers = answers.into_iter().flatten().next().ok_or(Error::NoAnswer)?.map_err(Error::Test)?;

    let mut tests = head(recording, &schedule);
    _ = writeln!(tests, "rule_files: [{}]", quoted(rules_file));
    _ = writeln!(
        tests,
        "evaluation_interval: {}ms\ntests:\n  - interval: {}ms",
        schedule.evaluate,
        schedule.interval()
    );
    tests.push_str("    input_series:\n");
    for (name, values) in &series {
        _ = writeln!(tests, "      - {{ series: {}, values: {} }}", quoted(name), quoted(values));
    }
    tests.push_str("    promql_expr_test:\n");
    let mut fire = 0;
    for (name, answers) in names.iter().zip(answers.chunks(steps.len().max(1))) {
        let count = |n: usize| {
            answers
                .get(n)
                .and_then(|answer| answer.as_ref().ok())
                .and_then(|samples| samples.first())
                .map(|(_, count)| *count)
        };
        let first = (0..steps.len()).find(|n| count(*n).is_some());
        fire += usize::from(first.is_some());
        let healed = steps.iter().rposition(|at| *at < schedule.heal());
        // Before the fault, around the first time that it fires, before healing, at the end.
        let mut at: Vec<usize> =
            [Some(0), first.and_then(|n| n.checked_sub(1)), first, healed, steps.len().checked_sub(1)]
                .into_iter()
                .flatten()
                .collect();
        at.sort_unstable();
        at.dedup();
        for n in at {
            _ = writeln!(tests, "      - expr: {}\n        eval_time: {}ms", quoted(&firing(name)), steps[n]);
            let labels = selector("", &BTreeMap::from([("alertname".to_owned(), (*name).to_owned())]));
            match count(n) {
                Some(count) => {
                    _ = writeln!(tests, "        exp_samples: [{{ labels: {}, value: {count} }}]", quoted(&labels));
                }
                None => tests.push_str("        exp_samples: []\n"),
            }
        }
    }
    Ok(Exported { rules: rules_text(&all, &written), tests, alerts: fire })
}

/// How many alerts of a name fire.
fn firing(name: &str) -> String {
    let labels = [("alertname", name), ("alertstate", "firing")];
    let labels = labels.into_iter().map(|(label, value)| (label.to_owned(), value.to_owned())).collect();
    format!("count by (alertname) ({})", selector("ALERTS", &labels))
}

/// Long enough for all of them.
fn longest(alerts: &[&Rule], recording: &Recording, settings: &Settings) -> Timeline {
    let phases = recording.header.phases;
    let period = period(settings.scrape, settings.evaluate);
    let none = Timeline { phases, history: 300, hold: 0, healthy: 300, period };
    alerts.iter().map(|alert| explain::timeline(alert, phases, settings)).fold(none, |all, one| Timeline {
        history: all.history.max(one.history),
        hold: all.hold.max(one.hold),
        healthy: all.healthy.max(one.healthy),
        ..all
    })
}

fn head(recording: &Recording, schedule: &Schedule) -> String {
    let header = &recording.header;
    let twin = header.control.as_ref().map(|twin| format!(", twin {twin}")).unwrap_or_default();
    let seconds = |at: u64| at / 1000;
    format!(
        "# {} {}{twin} ({}): {}\n# Recorded {} by relapse {} on kernel {}, once a second; made longer by repeating what \
         was recorded.\n# The fault is in force from {} s to {} s; from {} s on it is held. Written by `relapse alerts \
         export`.\n",
        header.incident,
        header.scenario,
        header.backend,
        one_line(&header.title),
        header.made.at,
        header.made.relapse,
        header.made.kernel,
        seconds(schedule.fault()),
        seconds(schedule.heal()),
        seconds(schedule.at(i64::from(header.phases.heal))),
    )
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn rules_text(all: &[&Rule], written: &[WrittenRule]) -> String {
    let mut text = "# Rules as `relapse alerts export` read them, without annotations and `query_offset`.\n\
                    # To test the rules that you deploy, name their files in `rule_files` of the tests instead.\n\
                    groups:\n  - name: exported\n    rules:\n"
        .to_owned();
    for (rule, written) in all.iter().zip(written) {
        let key = if written.alert { "alert" } else { "record" };
        _ = writeln!(text, "      # {}:{}", one_line(&rule.file), rule.line);
        _ = writeln!(text, "      - {key}: {}\n        expr: {}", quoted(&written.name), quoted(&written.expr));
        if written.hold > 0 {
            _ = writeln!(text, "        for: {}ms", written.hold);
        }
        if written.keep_firing > 0 {
            _ = writeln!(text, "        keep_firing_for: {}ms", written.keep_firing);
        }
        if !written.labels.is_empty() {
            let pairs = written.labels.iter().map(|(label, value)| format!("{}: {}", quoted(label), quoted(value)));
            _ = writeln!(text, "        labels: {{ {} }}", pairs.collect::<Vec<_>>().join(", "));
        }
    }
    text
}

/// A string in YAML.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}
