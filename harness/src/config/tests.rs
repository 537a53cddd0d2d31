//! What a file means, and what is said of one that means nothing.

use std::path::Path;
use std::time::Duration;

use jiff::civil::{Date, date};
use relapse_detectors::finding::{Level, Subject};
use relapse_model::diagnostics::{Diagnostics, Source};

use super::Config;
use crate::event::Expectation;

const TODAY: Date = date(2026, 11, 21);

const GOOD: &str = "\
apiVersion: relapse/v1
kind: Config
detectors:
  - name: my-agent
    exec: { command: [./my-agent, --json, -n, 010], signals: true, env: { LOG: debug, RATE: 1.10 } }
    expect:
      - { incident: I4, level: cause, subject: node/worker-2, within: 30s }
      - { incident: I4, level: symptom, within: 1m 30s }
      - { incident: I1, miss: \"no SYN collector yet\", until: 2027-03-01 }
      - { scenario: conntrack-cap-reset, level: risk }
  - name: alertmanager
    exec: { command: [amtool] }
";

fn parse(text: &str) -> Result<Config, Diagnostics> {
    Config::parse(&Source::new("/etc/relapse/relapse.yaml", text), TODAY)
}

fn config(text: &str) -> Config {
    parse(text).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// A file with one detector and these lines under `expect`.
fn with_lines(lines: &[&str]) -> String {
    let head =
        "apiVersion: relapse/v1\nkind: Config\ndetectors:\n  - name: a\n    exec: { command: [a] }\n    expect:\n";
    lines.iter().fold(head.to_owned(), |file, line| format!("{file}      - {line}\n"))
}

/// "line:column: message" of everything that is wrong.
fn wrong(text: &str) -> Vec<String> {
    let Err(all) = parse(text) else { panic!("accepted: {text}") };
    let place =
        |d: &relapse_model::diagnostics::Diagnostic| d.position().map(|at| format!("{}:{}: ", at.line, at.column));
    all.iter().map(|d| format!("{}{}", place(d).unwrap_or_default(), d.message)).collect()
}

#[test]
fn programs() {
    let config = config(GOOD);
    assert_eq!(config.names().collect::<Vec<_>>(), ["my-agent", "alertmanager"]);
    let exec = &config.detectors[0].exec;
    assert_eq!(exec.command, ["./my-agent", "--json", "-n", "010"], "words stay as they are written");
    assert_eq!(exec.directory, Path::new("/etc/relapse"));
    assert_eq!(exec.env.get("RATE").map(String::as_str), Some("1.10"));
    assert!(exec.signals);
    assert!(!config.detectors[1].exec.signals);
}

#[test]
fn expectations() {
    let config = config(GOOD);
    let all = config.expectations_for("I4", "policy-route-lost");
    let expected = |level, subject, within| Expectation {
        detector: "my-agent".to_owned(),
        level,
        subject,
        within: Duration::from_secs(within),
        expected_miss: None,
        outside: true,
    };
    let subject = Some(Subject::node("worker-2"));
    assert_eq!(all, [expected(Level::Cause, subject, 30), expected(Level::Symptom, None, 90)]);
    assert_eq!(config.expectations_for("I5", "database-slow"), []);
    assert_eq!(config.expectations_for("I2", "conntrack-cap-reset"), [expected(Level::Risk, None, 0)]);
}

#[test]
fn a_miss_without_level_stands_for_cause_and_symptom() {
    let all = config(GOOD).expectations_for("I1", "mss-clamp-raised");
    assert_eq!(all.iter().map(|e| e.level).collect::<Vec<_>>(), [Level::Cause, Level::Symptom]);
    assert!(all.iter().all(|e| e.expected_miss.as_deref() == Some("no SYN collector yet") && e.within.is_zero()));
}

#[test]
fn lines_for_a_scenario_replace_those_of_its_incident() {
    let config = config(&with_lines(&[
        "{ incident: I2, level: cause, within: 30s }",
        "{ scenario: slow-variant, level: cause, miss: too slow, until: 2026-11-21 }",
    ]));
    assert!(config.expectations_for("I2", "other")[0].expected_miss.is_none());
    let slow = config.expectations_for("I2", "slow-variant");
    assert_eq!(slow.len(), 1, "on its last day a miss is still accepted");
    assert!(slow[0].expected_miss.is_some());
}

#[test]
fn everything_wrong_is_said_at_once() {
    let text = "\
apiVersion: relapse/v2
kind: Config
detektors: []
detectors:
  - name: policy-route
    exec: { command: ./agent }
  - name: Agent
    exec: { command: [] }
  - exec: { command: [x], signals: yes }
    expect:
      - { incident: I4, level: cuase, subject: worker-2, within: 30 }
      - { level: cause, within: 0s }
      - { incident: I1, miss: known, until: 2026-11-20 }
      - { incident: I2, level: cause, miss: known }
      - { incident: I3, scenario: x, level: risk, within: 3s }
      - { incident: I3, until: 2027-01-01, level: }
      - nonsense
";
    let all = wrong(text);
    let expected = [
        "1:13: `apiVersion` cannot be `relapse/v2`",
        "3:1: the file has no key `detektors`",
        "5:11: `policy-route` is the name of a built-in detector",
        "6:22: `command` is a list, not a text",
        "7:11: `Agent` is not a name",
        "8:22: `command` names no program",
        "9:5: the detector has no `name`",
        "9:36: `signals` is true or false, not a text",
        "11:32: `level` cannot be `cuase`",
        "11:48: `worker-2` is not a subject",
        "11:66: `30` is not a duration",
        "12:9: the expectation does not say where it counts",
        "12:33: `within` must be longer than nothing",
        "13:45: the miss was expected until 2026-11-20, which has passed",
        "14:45: a miss is expected without an end",
        "15:25: both `incident` and `scenario` are given",
        "15:51: a risk has no deadline",
        "16:25: `until` belongs to an expected miss",
        "16:44: `level` has no value",
        "16:9: the expectation has no `within`",
        "17:9: the expectation is a mapping, not a text",
    ];
    let mut sorted: Vec<&str> = expected.to_vec();
    let mut found: Vec<&str> = all.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, sorted);
}

#[test]
fn lines_that_contradict_each_other() {
    let twice = "{ incident: I4, level: cause, subject: node/a, within: 3s }";
    let other = "{ incident: I4, level: cause, subject: node/b, within: 3s }";
    let miss = "{ incident: I4, miss: known, until: 2027-01-01 }";
    let elsewhere = "{ incident: I5, miss: known, until: 2027-01-01 }";
    config(&with_lines(&[twice, other, elsewhere]));
    assert_eq!(wrong(&with_lines(&[twice, twice])), ["8:9: this is expected by an earlier line already"]);
    assert_eq!(wrong(&with_lines(&[twice, miss])), ["8:9: an earlier line expects the opposite"]);
}

#[test]
fn names_stand_once() {
    let text = GOOD.replace("alertmanager", "my-agent");
    assert_eq!(wrong(&text), ["11:11: there are two detectors `my-agent`"]);
}

#[test]
fn odd_files_are_refused_with_a_place() {
    assert_eq!(wrong(""), ["is empty"]);
    assert_eq!(wrong("# nothing\n"), ["is empty"]);
    assert_eq!(wrong("- a\n"), ["1:1: the file is a mapping, not a list"]);
    assert_eq!(wrong(&format!("{GOOD}---\nkind: x\n")), ["14:1: a second document begins here"]);
    assert_eq!(wrong(&format!("{GOOD}kind: Config\n")), ["13:1: duplicate key `kind`"]);
    let unclosed = wrong("apiVersion: [\n");
    assert!(unclosed.len() == 1 && unclosed[0].contains(": "), "{unclosed:?}");
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n\
                c: &c [*b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\n";
    assert!(wrong(bomb)[0].ends_with("the file holds far more than a configuration can"));
    assert_eq!(wrong(&"[".repeat(5000)).len(), 1);
}

#[test]
fn every_shortened_file_is_refused_or_understood() {
    for end in 0..GOOD.len() {
        if let Err(wrong) = parse(&GOOD[..end]) {
            assert!(!wrong.is_empty());
            assert!(!wrong.plain().is_empty() && !wrong.drawn(false).is_empty());
        }
    }
}

#[test]
fn loading() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("mine.yaml");
    let missing = Config::load(Some(&file), TODAY).expect_err("not there yet");
    assert_eq!(missing.iter().map(|d| d.message.as_str()).collect::<Vec<_>>(), ["there is no such file"]);
    std::fs::write(&file, GOOD).expect("written");
    let config = Config::load(Some(&file), TODAY).expect("good");
    assert_eq!(config.detectors[0].exec.directory, directory.path());
    std::fs::write(&file, b"\xff").expect("written");
    assert!(Config::load(Some(&file), TODAY).is_err());
    std::fs::write(&file, vec![b'#'; (1 << 20) + 1]).expect("written");
    assert!(Config::load(Some(&file), TODAY).is_err());
    assert!(Config::load(Some(directory.path()), TODAY).is_err());
    assert!(Config::load(None, TODAY).is_ok_and(|config| config.detectors.is_empty()), "none is no error");
}
