//! Parsing of valid files, and errors of invalid ones.

use std::os::unix::fs::PermissionsExt;
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
    exec: { command: [./sh, --json, -n, 010], signals: true, env: { LOG: debug, RATE: 1.10 } }
    expect:
      - { incident: I4, level: cause, subject: node/worker-2, within: 30s }
      - { incident: I4, level: symptom, within: 1m 30s }
      - { incident: I1, miss: \"no SYN collector yet\", until: 2027-03-01 }
      - { scenario: conntrack-cap-reset, level: risk }
  - name: alertmanager
    exec: { command: [sh] }
";

fn parse(text: &str) -> Result<Config, Diagnostics> {
    Config::parse(&Source::new("/bin/relapse.yaml", text), TODAY)
}

fn config(text: &str) -> Config {
    parse(text).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// A file with one detector and these lines under `expect`.
fn with_lines(lines: &[&str]) -> String {
    let head =
        "apiVersion: relapse/v1\nkind: Config\ndetectors:\n  - name: a\n    exec: { command: [sh] }\n    expect:\n";
    lines.iter().fold(head.to_owned(), |file, line| format!("{file}      - {line}\n"))
}

/// All errors as "line:column: message".
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
    assert_eq!(exec.command, ["./sh", "--json", "-n", "010"], "words are kept as written");
    assert_eq!(exec.directory, Path::new("/bin"));
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
        of: None,
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
fn lines_may_be_about_steps_of_a_chain() {
    let config = config(&with_lines(&[
        "{ scenario: chain, step: dns, level: symptom, within: 30s }",
        "{ scenario: chain, step: route, after: dns, level: symptom, within: 30s }",
    ]));
    let all = config.expectations_for("I3", "chain");
    let of: Vec<_> = all.iter().filter_map(|expected| expected.of.as_ref()).collect();
    assert_eq!((of[0].until(), of[0].after.as_deref()), (Some("dns"), None));
    assert_eq!((of[1].until(), of[1].after.as_deref()), (Some("route"), Some("dns")));
}

#[test]
fn everything_wrong_with_the_form_is_said_at_once() {
    let text = "\
apiVersion: relapse/v2
kind: Config
detektors: []
detectors:
  - name: sh
    exec: { command: ./agent }
  - name: Agent
    exec: { command: [{ x: y }], env: { A: , A: b } }
  - exec: { command: [x], signals: yes }
    expect:
      - { incident: I4, level: cuase, subject: worker-2, within: 30 }
      - { incident: I1, miss: known, until: 2026-11-20T00:00 }
      - { incident: I3, until: 2027-01-01, level: }
      - nonsense
";
    let expected = [
        "1:13: `apiVersion` cannot be `relapse/v2`",
        "3:1: unknown key `detektors` in the configuration",
        "6:22: `command` must be a list, not the string `./agent`",
        "7:11: `Agent` is not a name",
        "8:23: an entry of `command` must be a string or a number or `true` or `false`, not a mapping",
        "8:41: `A` has no value",
        "8:46: duplicate key `A`",
        "9:5: an entry of `detectors` lacks `name`",
        "9:36: `signals` must be `true` or `false`, not the string `yes`",
        "11:32: `level` cannot be `cuase`",
        "11:48: `worker-2` is not a subject",
        "11:66: `within` must be a duration, not a number",
        "12:45: `2026-11-20T00:00` is not a day",
        "13:44: `level` has no value",
        "14:9: an entry of `expect` must be a mapping, not the string `nonsense`",
    ];
    assert_eq!(wrong(text), expected);
}

#[test]
fn everything_wrong_with_the_meaning_is_said_at_once() {
    let text = "\
apiVersion: relapse/v1
kind: Config
detectors:
  - name: policy-route
    exec: { command: [./no-such-agent, \"\\0\"] }
  - name: a
    exec: { command: [], env: { A=B: c } }
  - name: b
    exec: { command: [relapse.yaml-is-no-program, x] }
    expect:
      - { level: cause, within: 0s }
      - { incident: I1, miss: known, until: 2026-11-20 }
      - { incident: I2, level: cause, miss: known }
      - { incident: I3, scenario: x, level: risk, within: 3s }
      - { incident: I3, until: 2027-01-01 }
";
    let expected = [
        "4:11: `policy-route` is the name of a built-in detector",
        "5:23: there is no program `./no-such-agent`",
        "5:40: `\\0` holds a NUL character",
        "7:22: `command` does not name a program",
        "7:33: `A=B` is not a valid variable name",
        "9:23: there is no program `relapse.yaml-is-no-program` in the PATH",
        "11:9: the expectation has no `incident` or `scenario`",
        "11:33: `within` must be longer than 0",
        "12:45: the miss was expected until 2026-11-20, which has passed",
        "13:45: an expected miss needs an end date",
        "14:35: both `incident` and `scenario` are given",
        "14:59: a risk has no deadline",
        "15:9: the expectation has no `level`",
        "15:9: the expectation has no `within`",
        "15:32: `until` needs `miss`",
    ];
    assert_eq!(wrong(text), expected);
}

#[test]
fn programs_are_looked_for_as_they_will_be_run() {
    let folder = tempfile::tempdir().expect("a directory");
    let agent = folder.path().join("agent");
    std::fs::write(&agent, "#!/bin/sh\n").expect("written");
    let read = |command: &str| {
        let text = with_lines(&[]).replace("[sh]", command).replace("    expect:\n", "");
        Config::parse(&Source::new(folder.path().join("relapse.yaml"), text), TODAY)
    };
    let refused = read("[./agent]").expect_err("it is not executable").plain();
    assert!(refused.contains(":5:23: `./agent` is not executable") && refused.contains("chmod +x"), "{refused}");
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).expect("executable");
    assert!(read("[./agent]").is_ok());
    assert!(read("[agent]").is_err(), "the folder is not in the PATH");
    assert!(read("[agent], env: { PATH: . }").is_ok(), "the program's own PATH counts, from its directory");
}

#[test]
fn lines_that_contradict_each_other() {
    let twice = "{ incident: I4, level: cause, subject: node/a, within: 3s }";
    let other = "{ incident: I4, level: cause, subject: node/b, within: 3s }";
    let miss = "{ incident: I4, miss: known, until: 2027-01-01 }";
    let elsewhere = "{ incident: I5, miss: known, until: 2027-01-01 }";
    config(&with_lines(&[twice, other, elsewhere]));
    assert_eq!(wrong(&with_lines(&[twice, twice])), ["8:9: an earlier line already expects this"]);
    assert_eq!(wrong(&with_lines(&[twice, miss])), ["8:9: an earlier line expects the opposite"]);
}

#[test]
fn names_stand_once() {
    let text = GOOD.replace("alertmanager", "my-agent");
    assert_eq!(wrong(&text), ["11:11: there are two detectors `my-agent`"]);
}

#[test]
fn odd_files_are_refused_with_a_place() {
    assert_eq!(wrong("# nothing\n"), ["the file is empty: it contains no configuration"]);
    assert_eq!(wrong("- a\n"), ["1:1: the configuration must be a mapping, not a list"]);
    assert_eq!(wrong(&format!("{GOOD}---\nkind: x\n")), ["14:1: a second document begins here"]);
    assert_eq!(wrong("apiVersion: [\n").len(), 1);
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
    let missing = Config::load(Some(&file), TODAY).expect_err("the file does not exist yet");
    assert_eq!(missing.iter().map(|d| d.message.as_str()).collect::<Vec<_>>(), ["no such file"]);
    std::fs::write(&file, GOOD.replace("./sh", "sh")).expect("written");
    let config = Config::load(Some(&file), TODAY).expect("good");
    assert_eq!(config.detectors[0].exec.directory, directory.path());
    assert!(Config::load(Some(directory.path()), TODAY).is_err());
    assert!(
        Config::load(None, TODAY).is_ok_and(|config| config.detectors.is_empty()),
        "a missing default file is no error"
    );
}
