//! A real Prometheus, fed the same series while they happen, is the referee: `make referee`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::*;

/// Of the recording that is fed live.
const PHASES: Phases = Phases { fault: 30, heal: 100, end: 135 };

fn value(of: impl Fn(u32) -> Option<f64>) -> Samples {
    (0..PHASES.end).map(of).collect()
}

/// Forty gauges that change and forty counters that rise in the fault, from its `n % 15`th second on; ten of each vanish,
/// are reset, or are high for ten seconds only.
fn live() -> Recording {
    let mut recording = recording(Vec::new());
    recording.header.phases = PHASES;
    let mut add = |name: &str, n: u32, samples: Samples| {
        let labels = BTreeMap::from([("n".to_owned(), n.to_string())]);
        recording.series.push(Series { target: 0, name: name.to_owned(), labels, samples });
    };
    for n in 0..40 {
        let from = PHASES.fault + n % 15;
        let during = move |second: u32| (from..PHASES.heal).contains(&second);
        add("gauge", n, value(|second| Some(if during(second) { 10.0 + f64::from(n) } else { 1.0 })));
        add("rise_total", n, value(|second| Some(f64::from(second.clamp(from, PHASES.heal) - from) * 10.0)));
        if n < 10 {
            add("gone", n, value(|second| (!during(second)).then_some(1.0)));
            add(
                "reset_total",
                n,
                value(|second| Some(f64::from(if second < from { 500 + second } else { second - from }))),
            );
            add("brief", n, value(|second| Some(if (from..from + 10).contains(&second) { 9.0 } else { 1.0 })));
        }
    }
    recording
}

/// 200: 60 that fire, 50 that never do, 60 with `for`, 30 with series that vanish or are reset.
fn all() -> Vec<Rule> {
    let mut all = Vec::new();
    let mut add = |expr: String, wait: u64| all.push(alert(&format!("Rule{}", all.len()), &expr, wait));
    for n in 0..30 {
        add(format!("gauge{{n=\"{n}\"}} > 5"), 0);
        add(format!("rate(rise_total{{n=\"{n}\"}}[10s]) > 5"), 0);
    }
    for n in 0..25 {
        add(format!("gauge{{n=\"{n}\"}} > 60"), 0);
        add(format!("increase(rise_total{{n=\"{n}\"}}[10s]) / 10 > 12 and on () gauge{{n=\"{n}\"}} == 3"), 0);
    }
    for n in 0..20u64 {
        add(format!("gauge{{n=\"{n}\"}} / 2 > 4"), 3 + n);
        add(format!("delta(gauge{{n=\"{}\"}}[20s]) > 5", n + 20), 10);
        // Lasts 10 s.
        add(format!("brief{{n=\"{}\"}} > 5", n % 10), if n < 10 { 4 } else { 25 });
    }
    for n in 0..10 {
        add(format!("absent(gone{{n=\"{n}\"}})"), 5);
        add(format!("resets(reset_total{{n=\"{n}\"}}[10s]) > 0"), 0);
        add(format!("gone{{n=\"{n}\"}} offset 12s unless gone{{n=\"{n}\"}}"), 0);
    }
    assert_eq!(all.len(), 200);
    all
}

#[test]
fn stages_change_nothing_about_200_rules() {
    let Some(promtool) = promtool() else { return };
    let settings = Settings { scrape: 5 * SECOND, evaluate: 10 * SECOND, ..settings(promtool) };
    let (set, recordings) = (rules(all()), [live()]);
    let decided = |staged| decided_by(&set, &recordings, &settings, staged);
    let (staged, unstaged) = (decided(true), decided(false));
    assert_eq!(staged.trials, unstaged.trials);
    assert_eq!(staged.rules, unstaged.rules);
    assert_eq!(staged.trials.len(), 200);
}

/// Ends with the test.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "takes two and a half minutes"]
fn a_real_prometheus_agrees() {
    let program = Promtool::find().ok().map(|promtool| promtool.path().with_file_name("prometheus"));
    let Some(program) = program.filter(|program| program.is_file()) else {
        eprintln!("skipped: no prometheus beside promtool");
        return;
    };
    let settings = Settings { scrape: SECOND, evaluate: SECOND, ..settings(promtool().unwrap()) };
    let (set, recording) = (rules(all()), live());
    let decided = decide(&set, std::slice::from_ref(&recording), &labels(), &settings, BTreeMap::new());
    let fired = live_times(&program, &set, &recording);

    let mut figures = [0; 4];
    let mut worst = 0.0f64;
    let mut wrong = Vec::new();
    for id in 0..set.rules.len() {
        let verdict = &decided.trials[&(RuleId(id), 0)];
        let ours = match verdict {
            OfTrial::Fires(firings) => firings.first().map(|firing| firing.after.as_secs_f64()),
            _ => None,
        };
        let theirs = fired.get(&format!("Rule{id}")).copied();
        match (ours, theirs) {
            (Some(ours), Some(theirs)) => {
                figures[0] += 1;
                worst = worst.max((ours - theirs).abs());
                if (ours - theirs).abs() > 2.0 {
                    wrong.push(format!("{}: {ours} s here, {theirs} s there", set.rules[id].expr));
                }
            }
            (None, None) => figures[if matches!(verdict, OfTrial::Pending { .. }) { 2 } else { 1 }] += 1,
            _ => wrong.push(format!("{}: {verdict:?} here, {theirs:?} there", set.rules[id].expr)),
        }
    }
    figures[3] = wrong.len();
    let [fire, never, pending, differ] = figures;
    println!("{fire} fire, {never} never, {pending} pending in both; {differ} differ; times by at most {worst:.1} s");
    assert_eq!(wrong, Vec::<String>::new());
    assert!(fire >= 80 && never >= 40 && pending >= 10, "{figures:?}");
}

/// When each alert fires first, in seconds from the fault.
fn live_times(program: &Path, set: &RuleSet, recording: &Recording) -> BTreeMap<String, f64> {
    let folder = tempfile::tempdir().unwrap();
    let (listener, port) = (TcpListener::bind("127.0.0.1:0").unwrap(), free_port());
    let exporter = listener.local_addr().unwrap();
    let file =
        crate::promtool::File { rules: set.rules.iter().map(written).collect(), ..crate::promtool::File::default() };
    file.write(folder.path(), 0, &mut 0).unwrap();
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
         rule_files: [rules-0.yaml]\n\
         scrape_configs:\n- job_name: node-exporter\n  static_configs: [{{ targets: ['{exporter}'] }}]\n"
    );
    std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut command = Command::new(program);
    command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--config.file=prometheus.yml");
    command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let _prometheus = Prometheus(command.spawn().unwrap());

    // The recording starts with the first scrape.
    let mut start: Option<(Instant, std::time::SystemTime)> = None;
    let end = Duration::from_secs(PHASES.end.into());
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let at = start.get_or_insert_with(|| (Instant::now(), std::time::SystemTime::now())).0.elapsed();
        if at >= end {
            break;
        }
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).unwrap();
        let body = exposition(recording, usize::try_from(at.as_secs()).unwrap());
        let head = format!(
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    }
    let fault = start.unwrap().1 + Duration::from_secs(PHASES.fault.into());
    let fault = fault.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let answer = get(port, "/api/v1/query?query=ALERTS%7Balertstate%3D%22firing%22%7D%5B10m%5D");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let mut times = BTreeMap::new();
    for alert in answer["data"]["result"].as_array().unwrap() {
        let name = alert["metric"]["alertname"].as_str().unwrap().to_owned();
        // Before the first scrape everything is absent.
        let values = alert["values"].as_array().unwrap().iter().map(|value| value[0].as_f64().unwrap() - fault);
        if let Some(first) = values.into_iter().find(|after| *after > 0.0) {
            times.insert(name, first);
        }
    }
    times
}

fn written(rule: &Rule) -> crate::promtool::WrittenRule {
    let What::Alert { name, wait, .. } = &rule.what else { unreachable!() };
    crate::promtool::WrittenRule {
        alert: true,
        name: name.clone(),
        expr: rule.expr.clone(),
        wait: u64::try_from(wait.as_millis()).unwrap(),
        keep_firing: 0,
        labels: BTreeMap::new(),
    }
}

fn exposition(recording: &Recording, second: usize) -> String {
    let mut body = String::new();
    for series in &recording.series {
        if let Some(value) = series.samples[second] {
            body += &format!("{} {value}\n", crate::recording::selector(&series.name, &series.labels));
        }
    }
    body
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}
