//! `relapse alerts` as a user meets it, against the recordings in the program.
//!
//! Verdicts need promtool; without one the tests that ask for them print that they did not run.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use relapse_alerts::promtool::Promtool;

/// One rule that fires in I4, one that cannot, one that never is true, and what is no rule.
const RULES: &str = "\
groups:
  - name: net
    rules:
      - alert: PodNicSilent
        expr: rate(node_network_transmit_packets_total{device=\"eth1\"}[1m]) < 0.1
        for: 1m
        labels: { severity: warning }
      - alert: Renamed
        expr: node_network_transmit_packets > 0
      - alert: Flood
        expr: rate(node_network_transmit_packets_total{device=\"eth1\"}[1m]) > 1e9
";

fn relapse(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relapse"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command.output().expect("relapse starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Runs a command that must end with this status; its standard output.
fn run(folder: &Path, status: i32, arguments: &[&str]) -> String {
    let output = relapse(folder, arguments);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}{errors}", text(&output.stdout));
    assert!(!errors.contains("panicked"), "{errors}");
    text(&output.stdout)
}

/// A command that is refused; its standard error.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = relapse(folder, arguments);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{arguments:?}: {errors}");
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("rules.yaml"), RULES).expect("written");
    folder
}

/// Whether verdicts can be asked for. CI fetches promtool, so it is an error there if there is none.
fn promtool() -> bool {
    let skipped = |why: &_| {
        assert!(std::env::var_os("CI").is_none(), "failed to {why}");
        eprintln!("skipped: failed to {why}");
    };
    Promtool::find().inspect_err(skipped).is_ok()
}

#[test]
fn bad_input_is_refused_with_a_suggestion() {
    let folder = folder();
    let at = folder.path();
    assert!(refused(at, &["alerts"]).contains("relapse alerts my-rules/"));
    assert!(refused(at, &["alerts", "none/"]).contains("none"));
    assert!(refused(at, &["alerts", "rules.yaml", "--report", "x.txt"]).contains("must end in"));
    assert!(refused(at, &["alerts", "rules.yaml", "--scrape", "1500ms"]).contains("whole number of seconds"));
    assert!(refused(at, &["alerts", "rules.yaml", "--recordings", "."]).contains("there are no recordings"));
    assert!(refused(at, &["alerts", "rules.yaml", "--against", "old"]).contains("--against old"));
    std::fs::write(at.join("old.json"), "[{\"format\": 0}]").expect("written");
    let report = refused(at, &["alerts", "rules.yaml", "--against", "old.json"]);
    assert!(report.contains("not a report of this format"), "{report}");
    assert!(refused(at, &["alerts", "suggest", "-"]).contains("rules.yaml"));
    let incident = refused(at, &["alerts", "explain", "Flood", "policy-route-lots", "rules.yaml"]);
    assert!(incident.contains("did you mean `policy-route-lost`?"), "{incident}");
    let rule = refused(at, &["alerts", "explain", "Flod", "I4", "rules.yaml"]);
    assert!(rule.contains("did you mean `Flood`?"), "{rule}");
    std::fs::write(
        at.join("relapse.yaml"),
        "apiVersion: relapse/v1\nkind: Config\nalerts:\n  - name: a\n    rules: [x/*.yaml]\n",
    )
    .expect("written");
    assert!(refused(at, &["alerts"]).contains("relapse.yaml:5:13: no file matches `x/*.yaml`"));
}

#[test]
fn without_promtool_what_reading_settles_is_printed() {
    let folder = folder();
    let mut command = Command::new(env!("CARGO_BIN_EXE_relapse"));
    command.args(["alerts", "rules.yaml"]).current_dir(folder.path()).stdin(Stdio::null());
    // The user's own is found by neither variable.
    command.env("PATH", "/nonexistent").env("XDG_CACHE_HOME", folder.path()).env_remove("PROMTOOL");
    let output = command.output().expect("relapse starts");
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    for words in ["3 rules in 1 file; no promtool", "rules.yaml:8 Renamed", "apt-get install prometheus"] {
        assert!(printed.contains(words), "{words:?} is not in {printed}");
    }
}

#[test]
fn labels_are_printed_as_relapse_yaml_takes_them() {
    let folder = folder();
    let printed = run(folder.path(), 0, &["alerts", "rules.yaml", "--labels"]);
    assert!(printed.starts_with("labels:\n") && printed.contains("  node: { instance: \"{node}:9100\""), "{printed}");
}

#[test]
fn rules_are_graded_explained_and_compared() {
    if !promtool() {
        return;
    }
    let folder = folder();
    let at = folder.path();
    let printed = run(at, 0, &["alerts", "rules.yaml", "--report", "a.html", "--report", "a.md", "--report", "a.json"]);
    let row = printed.lines().find(|line| line.starts_with("I4 ")).expect("a row");
    assert!(row.contains("PodNicSilent") && row.contains("symptom"), "{row}");
    assert!(printed.contains("CANNOT FIRE  1") && printed.contains("You would catch "), "{printed}");
    assert!(!printed.contains('\u{1b}'), "colours outside a terminal");
    assert!(std::fs::read_to_string(at.join("a.html")).expect("a page").contains("class=\"lane\""));
    let json = run(at, 0, &["alerts", "rules.yaml", "--json"]);
    let card: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&card[0]["format"], &card[0]["input"]["alerts"]), (&1.into(), &3.into()));

    let explained = run(at, 0, &["alerts", "explain", "PodNicSilent", "I4", "rules.yaml"]);
    for words in ["fires after", "condition", "node/worker-2", "│fault", "true between"] {
        assert!(explained.contains(words), "{words:?} is not in {explained}");
    }
    let explained = run(at, 0, &["alerts", "explain", "Flood", "I4", "rules.yaml"]);
    assert!(explained.contains("never true") && explained.contains("its left side is at most"), "{explained}");

    std::fs::write(at.join("new.yaml"), RULES.replace("< 0.1", "< -1")).expect("written");
    for old in ["rules.yaml", "a.json"] {
        let compared = run(at, 0, &["alerts", "new.yaml", "--against", old]);
        assert!(compared.contains("- I4 policy-route-lost: was caught by PodNicSilent"), "{compared}");
    }
}

#[test]
fn what_is_suggested_holds_until_a_rule_is_lost() {
    if !promtool() {
        return;
    }
    let folder = folder();
    let at = folder.path();
    let suggested = run(at, 0, &["alerts", "suggest", "rules.yaml"]);
    assert!(suggested.contains("alert: \"PodNicSilent\", incident: I4, level: symptom"), "{suggested}");
    std::fs::write(at.join("relapse.yaml"), suggested).expect("written");
    let printed = run(at, 0, &["alerts"]);
    assert!(printed.contains(" expectations hold"), "{printed}");
    std::fs::write(at.join("rules.yaml"), RULES.replace("< 0.1", "< -1")).expect("written");
    let printed = run(at, 1, &["alerts"]);
    assert!(printed.contains("✗ PodNicSilent in I4"), "{printed}");
}

#[test]
fn what_is_exported_passes_with_promtool_and_fails_without_the_rule() {
    if !promtool() {
        return;
    }
    let folder = folder();
    let at = folder.path();
    let printed = run(at, 0, &["alerts", "export", "I4", "--output", "tests", "rules.yaml"]);
    let tests = at.join("tests/I4-policy-route-lost-netns.test.yaml");
    assert!(printed.contains(": 1 alert") && tests.is_file(), "{printed}");
    let promtool = Promtool::find().expect("it was found");
    let test = || Command::new(promtool.path()).args(["test", "rules"]).arg(&tests).output().expect("it starts");
    let passed = test();
    assert!(passed.status.success(), "{}{}", text(&passed.stdout), text(&passed.stderr));
    let rules = at.join("tests/I4-policy-route-lost-netns.rules.yaml");
    let changed = std::fs::read_to_string(&rules).expect("rules").replace("< 0.1", "< -1");
    std::fs::write(&rules, changed).expect("written");
    assert!(!test().status.success());
}

#[test]
fn the_example_rules_see_seven_incidents_and_are_silent_on_twins() {
    if !promtool() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/rules");
    let printed = run(&folder, 0, &["alerts"]);
    let silent = printed.lines().any(|line| line.starts_with("false alarms in ") && line.ends_with(" twins: 0"));
    assert!(silent && printed.contains("You would catch 7 of "), "{printed}");
    let files = std::fs::read_dir(folder.join("tests")).expect("a folder").map(|entry| entry.expect("an entry").path());
    let tests: Vec<_> = files.filter(|file| file.to_string_lossy().ends_with(".test.yaml")).collect();
    assert_eq!(tests.len(), 7);
    let promtool = Promtool::find().expect("it was found");
    let passed = Command::new(promtool.path()).args(["test", "rules"]).args(tests).output().expect("it starts");
    assert!(passed.status.success(), "{}{}", text(&passed.stdout), text(&passed.stderr));
}
