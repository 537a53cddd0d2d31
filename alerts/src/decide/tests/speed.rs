//! How long it takes: `make speed`.

use std::time::Instant;

use super::*;
use crate::expr::CompareOp;

const NODES: u32 = 3;
const TRIALS: u32 = 45;

/// Three nodes with 240 series each, of which three quarters are constant or counters, as of a node exporter.
fn trial(seed: u32) -> Recording {
    let mut recording = recording(Vec::new());
    recording.header.scenario = format!("s{seed}");
    recording.header.targets = (0..NODES)
        .map(|node| Target {
            exporter: Exporter::Node,
            place: BTreeMap::from([("node".to_owned(), format!("worker-{node}"))]),
        })
        .collect();
    for node in 0..NODES {
        for index in 0..240u32 {
            let (metric, device) = (index % 80, index / 80);
            let (name, samples) = match metric % 4 {
                0 | 1 => (format!("m{metric}_total"), samples(|s| Some(f64::from(s * (1 + metric + seed % 7) / 3)))),
                2 => (format!("m{metric}"), samples(|_| Some(f64::from(metric)))),
                _ => (format!("m{metric}"), samples(|s| Some(f64::from((s * 7919 + seed * 31 + index) % 97)))),
            };
            let labels = BTreeMap::from([("device".to_owned(), format!("eth{device}"))]);
            recording.series.push(Series { target: node as usize, name, labels, samples });
        }
    }
    // Something breaks.
    for series in recording.series.iter_mut().filter(|series| series.name == "m2" && series.target == 1) {
        series.samples = samples(|s| Some(if (70..180).contains(&s) { 0.0 } else { 2.0 }));
    }
    recording
}

/// One in 20 fires; `covered` in 100 name a metric that was recorded.
fn some_rules(count: u32, covered: u32) -> RuleSet {
    rules(
        (0..count)
            .map(|n| {
                let metric = n % 80;
                let wait = [0, 60, 300, 900][n as usize % 4];
                let name = match metric % 4 {
                    _ if n * 37 % 100 >= covered => format!("none{n}"),
                    0 | 1 => format!("m{metric}_total"),
                    _ => format!("m{metric}"),
                };
                let expr = match (n % 20, metric % 4) {
                    (19, _) => format!("m2 < 1 or m2 > {}", 1000 + n),
                    (_, 0) => format!("rate({name}[5m]) > {}", 1000 + n),
                    (_, 1) => format!("sum by (instance) (increase({name}[1m])) / 60 > {}", 1000 + n),
                    (_, 2) => format!("{name} == {} and on (instance) {name} > 0", 1000 + n),
                    _ => format!("{name} / (m2 + 1) > {}", 1000 + n),
                };
                alert(&format!("Rule{n}"), &expr, wait)
            })
            .collect(),
    )
}

/// As many rules as asked: published ones, then the same with other names and thresholds.
fn variants(published: &RuleSet, count: usize) -> RuleSet {
    let mut set = published.clone();
    let alerts: Vec<Rule> = published.rules.iter().filter(|rule| rule.is_alert()).cloned().collect();
    for (n, mut rule) in alerts.iter().cycle().take(count.saturating_sub(set.rules.len())).cloned().enumerate() {
        let nth = n / alerts.len() + 1;
        if let What::Alert { name, .. } = &mut rule.what {
            *name = format!("{name}{nth}");
        }
        if let Some(compared) = &rule.read.comparison {
            let op = match compared.op {
                CompareOp::Above => ">",
                CompareOp::AtLeast => ">=",
                CompareOp::Below => "<",
                CompareOp::AtMost => "<=",
                CompareOp::Equal => "==",
                CompareOp::NotEqual => "!=",
            };
            let threshold = compared.threshold * (1.0 + nth as f64 / 1000.0);
            rule.expr = format!("({}) {op} {threshold}", compared.left);
            rule.read = crate::expr::Expression::of(&rule.expr);
        }
        set.rules.push(rule);
    }
    set
}

/// CPU time of this process and of those that it waited for, in seconds: `proc(5)`, in hundredths.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    fields.skip(11).take(4).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// Decides the rules, again, and after the edit of one of them, which may be any that is decided by promtool.
fn measure(what: &str, mut set: RuleSet, trials: &[Recording], settings: &Settings) {
    let cache = tempfile::tempdir().unwrap();
    let settings = Settings { cache: Some(cache.path().to_owned()), ..settings.clone() };
    let catalogue = crate::catalogue::Catalogue::of(trials);
    let mut labels = Labels::infer(&set, &catalogue);
    labels.set(Exporter::Node, BTreeMap::from([("job".to_owned(), "node-exporter".to_owned())]));
    let time = |how: &str, set: &RuleSet| {
        let (start, used) = (Instant::now(), cpu());
        let settled = crate::settle::settle(set, &catalogue, &labels);
        let verdicts = decide(set, trials, &labels, &settings, settled);
        let fires = verdicts.trials.values().filter(|verdict| matches!(verdict, OfTrial::Fires(_))).count();
        let (wall, used) = (start.elapsed().as_secs_f64(), cpu() - used);
        println!("{what}, {} trials, {how}: {wall:.1} s, {used:.1} s of CPU; {fires} fire", trials.len());
        verdicts
    };
    let first = time("first", &set);
    assert!(time("again", &set).trials == first.trials);
    let never = |(_, verdict): &(&(RuleId, usize), &OfTrial)| matches!(verdict, OfTrial::NeverTrue { close: Some(_) });
    let ((edited, _), _) = first.trials.iter().find(never).unwrap();
    let edited = &mut set.rules[edited.0];
    edited.expr += " + 0.001";
    edited.read = crate::expr::Expression::of(&edited.expr);
    time("one rule edited", &set);
}

#[test]
#[ignore = "takes a minute; prints times"]
fn how_long_it_takes() {
    let Some(promtool) = promtool() else { return };
    let settings = settings(promtool);
    let trials: Vec<Recording> = (0..TRIALS).map(trial).collect();
    for (count, covered) in [(30, 100), (300, 50), (300, 100), (3000, 50)] {
        let what = format!("{count} made rules, {covered} % covered");
        measure(&what, some_rules(count, covered), &trials, &settings);
    }
    match std::env::var_os("RELAPSE_RULES") {
        None => eprintln!("no published rules: RELAPSE_RULES names no folder of rule files"),
        Some(folder) => {
            let published = crate::rules::read(&[crate::rules::Input::Path(folder.into())]).unwrap();
            for count in [300, 3000] {
                measure(&format!("{count} published rules"), variants(&published, count), &recorded(), &settings);
            }
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
}
