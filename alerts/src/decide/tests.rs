//! Small trials decided by a real promtool. Without one these tests say so and pass.

mod referee;
mod speed;

use std::sync::Arc;

use super::*;
use crate::recording::{Exporter, Header, Phases, Samples, Series, Target};
use crate::rule::{Group, Rule, Severity, What};
use crate::verdict::{Close, Firing, Split, Subject};

const UNSTAGED: Wanted<'_> = Wanted { only: None, staged: false };
const SECOND: Duration = Duration::from_secs(1);

/// CI fetches one, so it is an error there if there is none.
pub fn promtool() -> Option<Promtool> {
    let skipped = |error| {
        assert!(std::env::var_os("CI").is_none(), "failed to {error}");
        eprintln!("skipped: failed to {error}");
    };
    Promtool::find().map_err(skipped).ok()
}

pub fn settings(promtool: Promtool) -> Settings {
    Settings { cache: None, ..Settings::new(promtool, 15 * SECOND, 30 * SECOND) }
}

pub fn alert(name: &str, expr: &str, wait: u64) -> Rule {
    let read = crate::expr::read(expr).unwrap();
    Rule {
        group: 0,
        file: Arc::from("a.yaml"),
        line: 1,
        what: What::Alert {
            name: name.to_owned(),
            wait: Duration::from_secs(wait),
            keep_firing: Duration::ZERO,
            severity: Severity::Warning,
        },
        expr: expr.to_owned(),
        labels: BTreeMap::new(),
        reach: read.reach,
        read,
    }
}

fn record(name: &str, expr: &str) -> Rule {
    Rule { what: What::Record { name: name.to_owned() }, ..alert(name, expr, 0) }
}

pub fn rules(rules: Vec<Rule>) -> RuleSet {
    let group = Group { name: "g".into(), file: Arc::from("a.yaml"), interval: None, query_offset: Duration::ZERO };
    RuleSet { groups: vec![group], rules, files: 1, skipped: BTreeMap::new() }
}

pub fn recording(series: Vec<(&str, &str, Samples)>) -> Recording {
    let place = BTreeMap::from([("node".to_owned(), "worker-1".to_owned())]);
    let label = |device: &str| BTreeMap::from([("device".to_owned(), device.to_owned())]);
    Recording {
        header: Header {
            scenario: "s".into(),
            phases: Phases { fault: 60, heal: 180, end: 240 },
            targets: vec![Target { exporter: Exporter::Node, place }],
            ..Header::default()
        },
        series: series
            .into_iter()
            .map(|(name, device, samples)| Series { target: 0, name: name.into(), labels: label(device), samples })
            .collect(),
    }
}

pub fn samples(of: impl Fn(u32) -> Option<f64>) -> Samples {
    (0..240).map(of).collect()
}

/// `job` and `instance` of node exporters.
pub fn labels() -> Labels {
    let mut labels = Labels::default();
    let templates = [("job", "node-exporter"), ("instance", "{node}:9100")];
    labels.set(Exporter::Node, templates.map(|(label, template)| (label.to_owned(), template.to_owned())));
    labels
}

/// `low` is 1 before the fault and 9 from its 20th second to its end; `eth1` only.
fn trial() -> Recording {
    let step = |second: u32| Some(if (80..180).contains(&second) { 9.0 } else { 1.0 });
    recording(vec![
        ("x", "eth1", samples(step)),
        ("x", "eth0", samples(|_| Some(1.0))),
        ("limit", "eth1", samples(|_| Some(10.0))),
        ("errors_total", "eth1", samples(|second| Some(f64::from(second.saturating_sub(60).min(120))))),
        ("carrier", "eth1", samples(|second| (!(70..180).contains(&second)).then_some(1.0))),
        ("fills", "eth1", samples(|second| Some(f64::from(second.clamp(60, 180) - 60) / 10.0))),
    ])
}

fn decided(all: Vec<Rule>, recording: Recording) -> Option<Verdicts> {
    decided_set(&rules(all), recording)
}

fn decided_set(set: &RuleSet, recording: Recording) -> Option<Verdicts> {
    let settings = settings(promtool()?);
    let recordings = [recording];
    let staged = decide(set, &recordings, &labels(), &settings, BTreeMap::new());
    let unstaged = decide_wanted(set, &recordings, &labels(), &settings, BTreeMap::new(), UNSTAGED);
    assert_eq!(without_close(staged.clone()).trials, unstaged.trials);
    assert_eq!(staged.rules, unstaged.rules);
    Some(staged)
}

/// All rules, staged or not, without how close they came.
fn decided_by(rules: &RuleSet, recordings: &[Recording], settings: &Settings, staged: bool) -> Verdicts {
    let wanted = Wanted { only: None, staged };
    without_close(decide_wanted(rules, recordings, &labels(), settings, BTreeMap::new(), wanted))
}

/// How close an expression came is found by the stage that unstaged deciding leaves out.
fn without_close(mut verdicts: Verdicts) -> Verdicts {
    for verdict in verdicts.trials.values_mut() {
        if let OfTrial::NeverTrue { close } = verdict {
            *close = None;
        }
    }
    verdicts
}

/// In a line.
fn line(verdicts: &Verdicts, rule: usize) -> String {
    let s = |duration: Duration| format!("{}", duration.as_secs_f64());
    if let Some(of_rule) = verdicts.rules.get(&RuleId(rule)) {
        return format!("{of_rule:?}");
    }
    match &verdicts.trials[&(RuleId(rule), 0)] {
        OfTrial::Fires(firings) => {
            let one = |firing: &Firing| {
                let Split { condition, scrape, evaluation, wait } = firing.split;
                assert!(firing.in_baseline || condition + scrape + evaluation + wait == firing.after, "{firing:?}");
                let subject = match &firing.subject {
                    Subject::Is { subject, .. } => subject,
                    Subject::NotSaid => "-",
                };
                format!(
                    "{subject} after {}{}{}{} = {} + {} + {} + {}, cleared {:?}, early {:?}, {} of 3{}",
                    s(firing.after),
                    if firing.in_baseline { " in baseline" } else { "" },
                    if firing.held { " held" } else { "" },
                    if firing.late { " late" } else { "" },
                    s(condition),
                    s(scrape),
                    s(evaluation),
                    s(wait),
                    firing.cleared.map(s),
                    firing.ended_early.map(s),
                    firing.positions,
                    firing.few.iter().map(|few| format!(", {few}")).collect::<String>()
                )
            };
            firings.iter().map(one).collect::<Vec<_>>().join("; ")
        }
        OfTrial::Pending { at, lasted, wait } => format!("pending at {} for {} of {}", s(*at), s(*lasted), s(*wait)),
        OfTrial::NeverTrue { close: None } => "never".to_owned(),
        OfTrial::NeverTrue { close: Some(Close { value, threshold, above, labels }) } => {
            format!("never, {value} of {threshold} {above} {}", labels.get("device").map_or("", String::as_str))
        }
        OfTrial::NotRecorded { metrics } => format!("not recorded: {}", metrics.join(", ")),
        OfTrial::Undecided { why } => format!("undecided: {why}"),
        OfTrial::Error { message } => format!("error: {message}"),
    }
}

#[test]
fn each_verdict_is_reached() {
    let all = vec![
        alert("High", "x > 5", 0),
        alert("High", "x > 5", 900),
        alert("High", "x > 10", 0),
        alert("Ratio", "x / limit > 0.95", 0),
        alert("Low", "0.5 > x / limit * 0", 0),
        alert("Gone", "absent(carrier{device=\"eth1\"})", 300),
        alert("Rate", "rate(errors_total[1m]) > 0.5", 120),
        // True for as long as its offset.
        alert("Short", "carrier offset 1m unless carrier", 900),
        alert("Brief", "delta(x[1m]) > 5", 0),
        alert("Many", "x * on(instance) group_left limit * on(instance) x > 0", 0),
        alert("Fills", "fills > 20", 0),
        alert("Fills", "fills > 10", 600),
        alert("Named", "x > 5", 0),
        alert("Everywhere", "sum(x) > 5", 0),
        alert("Nothing", "nothing > 5", 0),
        alert("Sleeps", "x > 5 and on() (hour() > 20)", 0),
        alert("Number", "1 > bool 2", 0),
    ];
    let count = all.len();
    let mut all = all;
    all[12].labels = BTreeMap::from([("node".to_owned(), "of-{{ $labels.device }}".to_owned())]);
    let Some(verdicts) = decided(all, trial()) else { return };
    let lines: Vec<String> = (0..count).map(|rule| line(&verdicts, rule)).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

/// The query is evaluated so much earlier, and the alert fires when it is.
#[test]
fn a_query_offset_delays_what_depends_on_the_fault() {
    let mut set = rules(vec![
        alert("High", "x > 5", 60),
        alert("High", "x > 5", 60),
        alert("Pending", "carrier offset 1m unless carrier", 900),
        alert("Pending", "carrier offset 1m unless carrier", 900),
        record("job:x:max", "max by (job) (x)"),
        alert("OfRecord", "job:x:max > 5", 0),
        alert("Reader", "ALERTS{alertname=\"High\"} == 1", 0),
    ]);
    let late = Group { query_offset: 70 * SECOND, ..set.groups[0].clone() };
    set.groups.push(late);
    set.rules[1].group = 1;
    set.rules[3].group = 1;
    set.rules[4].group = 1;
    let Some(verdicts) = decided_set(&set, trial()) else { return };
    let lines: Vec<String> = [0, 1, 2, 3, 5, 6].into_iter().map(|rule| line(&verdicts, rule)).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_depends_on_the_hour_is_undecided_and_a_difference_of_times_is_not() {
    let expressions = [
        "x > 5 and on() (hour() > 20)",
        "x > 5 and on() (day_of_week(vector(time())) == 1)",
        "time() - x > 5",
        "x * time() > 5",
        "time() - timestamp(carrier{device=\"eth1\"}) > 5",
        "(time() - timestamp(limit)) > 60",
    ];
    let Some(verdicts) = decided(expressions.map(|expr| alert("A", expr, 0)).to_vec(), trial()) else { return };
    let line = |(rule, expr): (usize, &&str)| format!("{expr}\n    {}", line(&verdicts, rule));
    insta::assert_snapshot!(expressions.iter().enumerate().map(line).collect::<Vec<_>>().join("\n"));
}

/// One of three nodes is down.
#[test]
fn a_ratio_over_few_targets_is_marked() {
    let mut recording = recording(Vec::new());
    for node in 1..=3 {
        let place = BTreeMap::from([("node".to_owned(), format!("worker-{node}"))]);
        recording.header.targets.push(Target { exporter: Exporter::Node, place });
        let up = samples(|second| Some(f64::from(u8::from(node != 2 || !(70..180).contains(&second)))));
        recording.series.push(Series { target: node, name: "up".into(), labels: BTreeMap::new(), samples: up });
    }
    let expressions = [
        "100 * (count(up == 0) BY (job, namespace) / count(up) BY (job, namespace)) > 10",
        "avg by (job) (up) < 0.9",
        "sum(up) / count(up) * 100 <= 50",
        "0.3 < sum(up == bool 0) / count(up)",
        "sum without (instance) (up) / count without (instance) (up) < 0.7",
        // Nothing is said where it would be guessed: other filters, groups, numbers.
        "count(up == 0) / 3 > 0.1",
        "count(up == 0) > 0",
        "count by (job) (up == 0) / on () group_left () count(up) > 0.1",
        "count(up == 0) / count(up) > 0.1 and on () count(up)",
        "count(up == 0) / count(up) > 0.001",
    ];
    let rules = expressions.map(|expr| alert("TargetDown", expr, 0)).to_vec();
    let Some(verdicts) = decided(rules, recording) else { return };
    let line = |(rule, expr): (usize, &&str)| format!("{expr}\n    {}", line(&verdicts, rule));
    insta::assert_snapshot!(expressions.iter().enumerate().map(line).collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_rule_is_blind_where_the_kernel_hides_its_file() {
    let all = || vec![alert("Drops", "increase(node_nf_conntrack_stat_drop[5m]) > 0", 0)];
    let Some(hidden) = decided(all(), trial()) else { return };
    insta::assert_snapshot!(line(&hidden, 0));
    let mut shown = trial();
    shown.series[0].name = "node_nf_conntrack_stat_found".to_owned();
    let Some(shown) = decided(all(), shown) else { return };
    assert_eq!(line(&shown, 0), "never");
}

#[test]
fn what_is_the_same_in_two_trials_is_decided_as_if_asked_in_each() {
    let Some(promtool) = promtool() else { return };
    let settings = settings(promtool);
    let earlier = recording(vec![("x", "eth0", samples(|_| Some(1.0))), ("limit", "eth0", samples(|_| Some(10.0)))]);
    let mut later = earlier.clone();
    later.header.phases = Phases { fault: 97, heal: 203, end: 240 };
    let all = vec![
        alert("Always", "vector(1)", 600),
        alert("Ratio", "x / limit > 0.05", 60),
        alert("Never", "x / limit > 0.5", 0),
        alert("Absent", "absent(nothing)", 300),
        alert("Wrong", "x * on(instance) group_left limit * on(nothing) (x or limit)", 0),
        // Only every other scrape is in the range.
        alert("Now and then", "count_over_time(x[20s]) > 1", 0),
        // The second of the test is not the same.
        alert("Scraped", "timestamp(x) > 200", 0),
        alert("Reader", "ALERTS{alertname=\"Always\", alertstate=\"firing\"} == 1", 0),
    ];
    let (set, recordings) = (rules(all), [earlier, later]);
    let decided = |staged| decided_by(&set, &recordings, &settings, staged);
    let (staged, unstaged) = (decided(true), decided(false));
    assert_eq!(staged.trials, unstaged.trials);
    assert_eq!(staged.rules, unstaged.rules);
    let one = OfRule::AlwaysOn { why: "fires in the baseline of 1 of 2 recordings".to_owned() };
    assert_eq!(staged.rules[&RuleId(6)], one);
}

#[test]
fn recording_rules_and_alerts_are_read() {
    let mut all = vec![
        record("job:x:max", "max by (job) (x)"),
        record("job:x:twice", "job:x:max * 2"),
        alert("Twice", "job:x:twice > 15", 60),
        alert("High", "x > 5", 60),
        alert("Reader", "ALERTS{alertname=\"High\", alertstate=\"firing\"} == 1", 0),
        alert("Never", "ALERTS{alertname=\"Other\"} == 1", 0),
        record("none", "nothing * 2"),
        alert("OfNone", "none > 1", 0),
        // Its template names no function of any version.
        alert("Template", "x > 5", 0),
    ];
    all[8].labels = BTreeMap::from([("a".to_owned(), "{{ nonsense }}".to_owned())]);
    let Some(verdicts) = decided(all, trial()) else { return };
    let lines: Vec<String> = [2, 3, 4, 5, 7, 8].map(|rule| line(&verdicts, rule)).to_vec();
    insta::assert_snapshot!(lines.join("\n"));
}

/// Of a rule that is settled by the series of [`trial`].
fn settled(set: &RuleSet, id: usize) -> Option<OfTrial> {
    let settings = settings(Promtool::of_version(crate::promtool::OLDEST));
    let (sources, recording) = (Sources::new(set, &settings), trial());
    let trial = Trial::new(&recording, &labels(), &sources.selectors);
    trial.settle(&sources, RuleId(id), &trial::exporters(std::slice::from_ref(&trial)))
}

#[test]
fn recording_rules_may_read_each_other() {
    let set = rules(vec![
        record("a", "b"),
        record("b", "a"),
        record("c", "c + 1"),
        record("c", "c"),
        record("d", "nothing"),
        record("e", "d"),
        alert("A", "a > 1", 0),
        alert("C", "c > 1", 0),
        alert("E", "e > 1", 0),
        alert("X", "e > 1 or x > 5", 0),
    ]);
    assert_eq!([6, 7, 9].map(|id| settled(&set, id)), [None, None, None]);
    assert_eq!(settled(&set, 8), Some(OfTrial::NeverTrue { close: None }));
}

#[test]
fn what_takes_too_long_or_depends_on_itself_is_undecided() {
    let mut set = rules(vec![
        alert("Hourly", "x > 5", 0),
        alert("Daily", "x > 5", 0),
        alert("Never", "x > 5", 0),
        alert("Often", "x > 5", 0),
        alert("Waits", "rate(errors_total[4h]) > 5", 3 * 3600),
        alert("Reader", "ALERTS{alertname=\"Waits\"} == 1", 0),
        alert("One", "ALERTS{alertname=\"Other\"} == 1", 0),
        alert("Other", "ALERTS{alertname=~\"One|Itself\"} == 1", 0),
        alert("Itself", "count({alertname=\"Itself\", alertstate=\"firing\"}) > 5", 0),
    ]);
    let interval = |interval| Group { interval: Some(interval), ..set.groups[0].clone() };
    let day = 86_400 * SECOND;
    let groups = [3600 * SECOND, day, 36_500 * day, SECOND / 2].map(interval);
    set.groups.extend(groups);
    (0..4).for_each(|id| set.rules[id].group = id + 1);
    let settings = settings(Promtool::of_version(crate::promtool::OLDEST));
    let sources = Sources::new(&set, &settings);
    let line =
        |id: usize| format!("{}: {}", set.rules[id].name(), sources.undecided(RuleId(id)).as_deref().unwrap_or("-"));
    insta::assert_snapshot!((0..set.rules.len()).map(line).collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_scaled_family_is_used_in_ratios_of_scaled_families_alone() {
    let uses = [
        "entries / limit > 0.75",
        "(limit - entries) / limit < 0.25",
        "entries > 100",
        "entries / limit > 0.75 and entries > 100",
        "entries / x > 2",
        "entries / limit > 0.75 and on () ratio > 1",
        "of_entries > 1",
    ];
    let mut all: Vec<Rule> = uses.iter().map(|expr| alert("A", expr, 0)).collect();
    all.extend([record("ratio", "entries / limit"), record("of_entries", "entries")]);
    let set = rules(all);
    let settings = settings(Promtool::of_version(crate::promtool::OLDEST));
    let sources = Sources::new(&set, &settings);
    let absolute = (0..uses.len()).map(|id| sources.absolute(RuleId(id), ["entries", "limit"].into_iter()));
    let e = Some("entries");
    assert_eq!(absolute.collect::<Vec<_>>(), [None, None, e, e, e, None, e]);
}

/// Whether a reader is decided with its alert or without, it must see it; and so must who reads the reader.
#[test]
fn alerts_that_read_alerts_are_decided_after_them() {
    let all = vec![
        alert("Last", "ALERTS{alertname=\"Reader\", alertstate=\"firing\"} == 1", 0),
        alert("Reader", "ALERTS{alertname=\"High\", alertstate=\"firing\"} == 1", 0),
        alert("High", "x > 5", 60),
        alert("Any", "count({alertstate=\"firing\", alertname=\"High\"}) > 0", 0),
    ];
    let set = rules(all);
    let Some(verdicts) = decided_set(&set, trial()) else { return };
    let lines: Vec<String> = (0..4).map(|rule| line(&verdicts, rule)).collect();
    insta::assert_snapshot!(lines.join("\n"));
    let settings = settings(promtool().unwrap());
    let only = decide_only(&[RuleId(0)], &set, &[trial()], &labels(), &settings, BTreeMap::new());
    let expected: Vec<_> = verdicts.trials.iter().filter(|((id, _), _)| id.0 < 3).collect();
    assert_eq!(only.trials.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_reader_of_an_alert_that_is_settled_as_always_on_sees_it() {
    let Some(promtool) = promtool() else { return };
    let reader = "ALERTS{alertname=\"Always\", alertstate=\"firing\"} == 1";
    let set = rules(vec![alert("Always", "absent(nothing)", 0), alert("Reader", reader, 0)]);
    let settled = BTreeMap::from([(RuleId(0), OfRule::AlwaysOn { why: String::new() })]);
    let verdicts = decide(&set, &[trial()], &labels(), &settings(promtool), settled);
    assert!(matches!(verdicts.rules[&RuleId(1)], OfRule::AlwaysOn { .. }), "{verdicts:?}");
}

/// A lab has no cluster DNS of its own: that is not one which is down.
#[test]
fn what_another_backend_records_is_not_absent_here() {
    let Some(promtool) = promtool() else { return };
    let up = || ("up", "", samples(|_| Some(1.0)));
    let mut with_dns = recording(vec![up(), ("up", "", samples(|second| Some(f64::from(u8::from(second < 70)))))]);
    with_dns.header.targets.push(Target { exporter: Exporter::Dns, place: BTreeMap::new() });
    with_dns.series[1].target = 1;
    let all = [r#"absent(up{job="coredns"} == 1)"#, r#"absent(up{job="node-exporter"} == 1)"#];
    let set = rules(all.map(|expr| alert("Down", expr, 0)).to_vec());
    let verdicts = decide(&set, &[recording(vec![up()]), with_dns], &labels(), &settings(promtool), BTreeMap::new());
    let of = |rule, trial| &verdicts.trials[&(RuleId(rule), trial)];
    assert_eq!(of(0, 0), &OfTrial::NotRecorded { metrics: vec!["up".to_owned()] });
    assert!(matches!(of(0, 1), OfTrial::Fires(firings) if !firings[0].in_baseline));
    assert!(matches!((of(1, 0), of(1, 1)), (OfTrial::NeverTrue { .. }, OfTrial::NeverTrue { .. })));
}

/// The recordings at hand.
fn recorded() -> Vec<Recording> {
    let recorded = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/recordings")).unwrap();
    let mut paths: Vec<PathBuf> = recorded.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(".series.gz"));
    paths.sort();
    paths.iter().map(|path| Recording::read(std::fs::File::open(path).unwrap(), |_| true).unwrap()).collect()
}

/// Rules of others on the recordings at hand: what they decide must not depend on the stages. Prints verdicts.
#[test]
#[ignore = "takes a minute; needs RELAPSE_RULES=FOLDER"]
fn stages_change_nothing_about_published_rules() {
    let (Some(promtool), Some(folder)) = (promtool(), std::env::var_os("RELAPSE_RULES")) else {
        eprintln!("skipped: RELAPSE_RULES names no folder of rule files");
        return;
    };
    let set = crate::rules::read(&[crate::rules::Input::Path(folder.into())]).unwrap();
    let recordings = recorded();
    let catalogue = crate::catalogue::Catalogue::of(&recordings);
    let labels = Labels::infer(&set, &catalogue);
    let settled = crate::settle::settle(&set, &catalogue, &labels);
    let settings = settings(promtool);
    let decided = |staged| {
        let start = std::time::Instant::now();
        let verdicts =
            decide_wanted(&set, &recordings, &labels, &settings, settled.clone(), Wanted { only: None, staged });
        println!("{} rules, {} trials: {:.1} s", set.rules.len(), recordings.len(), start.elapsed().as_secs_f64());
        without_close(verdicts)
    };
    let (staged, unstaged) = (decided(true), decided(false));
    for (rule, verdict) in &staged.rules {
        println!("{}: {}", set.rules[rule.0].name(), format!("{verdict:?}").chars().take(150).collect::<String>());
    }
    for ((rule, trial), verdict) in staged.trials.iter().filter(|(_, v)| !matches!(v, OfTrial::NeverTrue { .. })) {
        let words = format!("{verdict:?}").chars().take(300).collect::<String>();
        let Header { scenario, control, .. } = &recordings[*trial].header;
        println!("{} in {scenario} {}: {words}", set.rules[rule.0].name(), control.as_deref().unwrap_or_default());
    }
    for (id, verdict) in &staged.trials {
        assert!(
            unstaged.trials[id] == *verdict,
            "{}: {verdict:?}, {:?}",
            set.rules[id.0.0].name(),
            unstaged.trials[id]
        );
    }
    assert_eq!(staged.rules, unstaged.rules);
}
