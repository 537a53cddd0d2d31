//! An incident as a test file of promtool: its series, and when which alert fires.
//!
//! What the file expects is what promtool answers, so that it passes as written, and fails when a rule no longer fires.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use relapse_reports::words::one_line;

use crate::decide::Settings;
use crate::decide::run::{Class, Run};
use crate::decide::schedule::Schedule;
use crate::decide::sources::Sources;
use crate::decide::trial::Trial;
use crate::explain::Error;
use crate::labels::Labels;
use crate::promtool::{Answer, Ask, File, Test, quoted};
use crate::recording::{Recording, selector};
use crate::rule::{RuleId, RuleSet};

/// Two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    pub rules: String,
    pub tests: String,
    /// Alerts that fire.
    pub alerts: usize,
}

/// Exports the alerts that fire in a trial; `active` are all that are ever active in it, and `rules_file` is the name under
/// which the rules are written. A test file has one interval for all rules: the shortest of theirs.
///
/// # Errors
/// If promtool cannot be used.
pub fn export(
    rules: &RuleSet,
    ids: &[RuleId],
    recording: &Recording,
    active: &[RuleId],
    labels: &Labels,
    settings: &Settings,
    rules_file: &str,
) -> Result<Exported, Error> {
    let sources = Sources::new(rules, settings);
    let trial = Trial::new(recording, labels, &sources.selectors);
    let run = Run { sources: &sources, trial: &trial, settings, active };
    let class = run.classes(ids, true).into_keys().reduce(|one, other| Class {
        evaluate: one.evaluate.min(other.evaluate),
        history: one.history.max(other.history),
        hold: one.hold.max(other.hold),
    });
    let schedule = class.and_then(|class| run.schedules(class).into_iter().next()).ok_or(Error::NoAnswer)?;
    let read = run.with_read(ids);
    let names: BTreeSet<&str> = ids.iter().map(|&id| sources.rule(id).name()).collect();
    let steps = (0..=schedule.end() / schedule.evaluate).map(|step| step * schedule.evaluate);
    let steps: Vec<u64> = steps.filter(|at| *at + schedule.evaluate >= schedule.fault()).collect();
    let ask = |name: &&str| steps.iter().map(|at| Ask { expr: firing(name), at: *at }).collect::<Vec<_>>();
    let test = Test {
        interval: schedule.interval(),
        series: run.series(&read, &schedule),
        asks: names.iter().flat_map(ask).collect(),
    };
    let rules = read.iter().map(|&id| sources.written(id)).collect();
    let files = [File { evaluate: schedule.evaluate, rules, tests: vec![test] }];
    let answers = settings.promtool.test(&files, 2 * settings.limit)?;
    let answers = answers.into_iter().flatten().next().ok_or(Error::NoAnswer)?.map_err(Error::Test)?;

    let [file] = &files;
    let mut tests = head(recording, &schedule) + &given(file, rules_file);
    let mut alerts = 0;
    for (name, answers) in names.iter().zip(answers.chunks(steps.len().max(1))) {
        let (fires, text) = expected(name, &steps, answers, &schedule);
        alerts += usize::from(fires);
        tests.push_str(&text);
    }
    Ok(Exported { rules: rules_text(&sources, &read), tests, alerts })
}

/// The test file up to its questions.
fn given(file: &File, rules_file: &str) -> String {
    let mut text = format!("rule_files: [{}]\nevaluation_interval: {}ms\ntests:\n", quoted(rules_file), file.evaluate);
    for test in &file.tests {
        _ = writeln!(text, "  - interval: {}ms\n    input_series:", test.interval);
        for (name, values) in &test.series {
            _ = writeln!(text, "      - {{ series: {}, values: {} }}", quoted(name), quoted(values));
        }
    }
    text.push_str("    promql_expr_test:\n");
    text
}

/// Whether an alert of this name fires, and what is expected: before the fault, around the first time that one fires,
/// before healing, at the end.
fn expected(name: &str, steps: &[u64], answers: &[Answer], schedule: &Schedule) -> (bool, String) {
    let count = |n: usize| Some(answers.get(n)?.as_ref().ok()?.first()?.1);
    let first = (0..steps.len()).find(|n| count(*n).is_some());
    let healed = steps.iter().rposition(|at| *at < schedule.heal());
    let before = first.and_then(|n| n.checked_sub(1));
    let at: BTreeSet<usize> =
        [Some(0), before, first, healed, steps.len().checked_sub(1)].into_iter().flatten().collect();
    let mut text = String::new();
    for n in at {
        _ = writeln!(text, "      - expr: {}\n        eval_time: {}ms", quoted(&firing(name)), steps[n]);
        let labels = selector("", &BTreeMap::from([("alertname".to_owned(), name.to_owned())]));
        match count(n) {
            Some(count) => {
                _ = writeln!(text, "        exp_samples: [{{ labels: {}, value: {count} }}]", quoted(&labels));
            }
            None => text.push_str("        exp_samples: []\n"),
        }
    }
    (first.is_some(), text)
}

/// How many alerts of a name fire.
fn firing(name: &str) -> String {
    let labels = [("alertname", name), ("alertstate", "firing")];
    let labels = labels.into_iter().map(|(label, value)| (label.to_owned(), value.to_owned())).collect();
    format!("count by (alertname) ({})", selector("ALERTS", &labels))
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

fn rules_text(sources: &Sources<'_>, ids: &[RuleId]) -> String {
    let mut text = "# Rules as `relapse alerts export` read them, without annotations and `query_offset`.\n\
                    # To test the rules that you deploy, name their files in `rule_files` of the tests instead.\n\
                    groups:\n- name: exported\n  rules:\n"
        .to_owned();
    for &id in ids {
        let rule = sources.rule(id);
        _ = write!(text, "  # {}:{}\n{}", one_line(&rule.file), rule.line, sources.written(id));
    }
    text
}
