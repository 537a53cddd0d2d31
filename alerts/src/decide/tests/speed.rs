//! How long it takes: `make speed`.

use std::time::Instant;

use super::*;

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
                let hold = [0, 60, 300, 900][n as usize % 4];
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
                alert(&format!("Rule{n}"), &expr, hold)
            })
            .collect(),
    )
}

#[test]
#[ignore = "takes a minute; prints times"]
fn how_long_it_takes() {
    let Some(promtool) = promtool() else { return };
    let trials: Vec<Recording> = (0..TRIALS).map(trial).collect();
    let cache = tempfile::tempdir().unwrap();
    for (count, covered) in [(30, 100), (300, 50), (300, 100), (3000, 50)] {
        let settings =
            Settings { cache: Some(cache.path().join(format!("{count}-{covered}"))), ..settings(promtool.clone()) };
        let time = |what: &str, set: &RuleSet| {
            let start = Instant::now();
            let verdicts = decide(set, &trials, &labels(), &settings, BTreeMap::new());
            let fires = verdicts.trials.values().filter(|verdict| matches!(verdict, OfTrial::Fires(_))).count();
            let seconds = start.elapsed().as_secs_f64();
            println!("{count} rules, {covered} % covered, {TRIALS} trials, {what}: {seconds:.1} s, {fires} fire");
            verdicts
        };
        let mut set = some_rules(count, covered);
        let first = time("first", &set);
        assert!(time("again", &set).trials == first.trials);
        set.rules[2] = alert("Rule2", "m2 < 2 and m2 < 3", 60);
        time("one rule edited", &set);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
}
