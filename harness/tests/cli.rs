//! The command line: output, errors and exit status.
//!
//! `cli/policy-route-lost.jsonl` is a recording of that scenario by `relapse run --record`, reduced to the signals its
//! detectors need, from 300 ms before the fault to the last finding.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Bad input (`EX_USAGE`).
const BAD_INPUT: i32 = 64;

fn relapse(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relapse"));
    command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).stdin(Stdio::null());
    command.env_remove("RELAPSE_REQUIRE").env_remove("RELAPSE_ALLOW_HOST_WRITES");
    command
}

fn output(arguments: &[&str]) -> Output {
    relapse(arguments).output().expect("relapse starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Asserts that a command exits with `BAD_INPUT`, prints nothing to standard output, and all of `words` to standard
/// error.
fn refused(arguments: &[&str], words: &[&str]) {
    let output = output(arguments);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(BAD_INPUT), "{arguments:?}: {errors}");
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    for word in words {
        assert!(errors.contains(word), "{arguments:?} should mention {word:?}: {errors}");
    }
    assert!(!errors.contains("panicked") && !errors.contains('\u{1b}'), "{arguments:?}: {errors}");
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let commands = [
        "run",
        "list",
        "check",
        "reproduce",
        "replay",
        "recover",
        "doctor",
        "init",
        "report",
        "alerts",
        "completions",
        "man",
        "schema",
    ];
    let whole = text(&output(&["--help"]).stdout);
    for command in commands {
        assert!(whole.contains(&format!("\n  {command} ")), "{command} is not in {whole}");
        let help = output(&[command, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{command}");
        let help = text(&help.stdout);
        assert!(help.contains("Example") && help.contains(&format!("relapse {command}")), "{command}: {help}");
    }
}

#[test]
fn wrong_arguments_are_bad_input() {
    refused(&[], &["Usage"]);
    refused(&["rum"], &["'run'"]);
    refused(&["run", "--repeat", "0"], &["--repeat", "0"]);
    refused(&["run", "--jobs", "many"], &["--jobs"]);
    refused(&["run", "--deadline-factor", "0.5"], &["--deadline-factor", "a number from 1 to 1000"]);
    refused(&["run", "--shard", "5/4"], &["--shard", "2/4"]);
    refused(&["report", "no/such"], &["no/such"]);
    refused(&["run", "--require", "kinf"], &["--require kinf", "netns"]);
    refused(&["run", "policy-route-lots"], &["policy-route-lots", "did you mean `policy-route-lost`?"]);
    refused(&["run", "policy-route-lost", "--only", "incidnet"], &["--only incidnet", "did you mean `incident`?"]);
    refused(&["run", "no/such.yaml"], &["no/such.yaml"]);
    refused(&["check", "policy-route-lots"], &["did you mean"]);
    refused(&["list", "policy-route-lots"], &["did you mean"]);
}

#[test]
fn a_nightly_scenario_in_a_folder_is_left_out_and_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = "database-slow-full-size.yaml";
    let text_of = std::fs::read_to_string(format!("{}/../scenarios/{file}", env!("CARGO_MANIFEST_DIR")));
    std::fs::write(folder.path().join(file), text_of.expect("it is shipped")).expect("it can be written");
    let path = folder.path().to_str().expect("text");
    let run = output(&["run", &format!("{path}/")]);
    assert_eq!(run.status.code(), Some(0));
    let expected = "left out: 1 nightly scenario (database-slow-full-size), replayed with --nightly, or if named\n";
    assert_eq!(text(&run.stdout), expected);
}

#[test]
fn wrong_files_are_bad_input() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("it can be written");
        path.to_str().expect("text").to_owned()
    };
    let broken = write("relapse.yaml", "apiVersion: relapse/v1\nkind: Config\ndetectors:\n  - nam: x\n");
    refused(&["run", "policy-route-lost", "--config", &broken], &["relapse.yaml", "nam"]);
    let of_nothing =
        "apiVersion: relapse/v1\nkind: Config\ndetectors:\n- { name: mine, exec: { command: [./agent] } }\n";
    let of_nothing = write("mine.yaml", of_nothing);
    let no_program = "mine.yaml:4:35: there is no program `./agent`";
    refused(&["run", "policy-route-lost", "--config", &of_nothing], &[no_program]);
    let missing = folder.path().join("missing.yaml");
    let missing = missing.to_str().expect("text");
    refused(&["run", "policy-route-lost", "--config", missing], &["missing.yaml", "no such file"]);
    let file = write("file", "");
    let below = format!("{file}/reports");
    refused(&["run", "policy-route-lost", "--reports", &below], &["--reports", &below]);
    refused(&["run", "policy-route-lost", "--record", &below], &["--record", &below]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for arguments in [&["list"][..], &["list", "--json"], &["schema"], &["replay", RECORDING]] {
        let mut child = relapse(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        let ended = child.wait_with_output().expect("it ends");
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}");
        assert_eq!(text(&ended.stderr), "", "{arguments:?}");
    }
}

#[test]
fn scenarios_are_listed_for_people_and_for_programs() {
    let table = text(&output(&["list", "policy-route-lost"]).stdout);
    for words in ["I4   policy-route-lost", "policy-route-loss", "wrong-nic", "within 500 ms", "table-rebuilt"] {
        assert!(table.contains(words), "{words:?} is not in {table}");
    }
    assert!(!table.contains('\u{1b}'), "colours outside a terminal");
    let json: serde_json::Value = serde_json::from_slice(&output(&["list", "--json"]).stdout).expect("JSON");
    let all = json.as_array().expect("an array");
    let named = |name: &str| all.iter().find(|one| one["name"] == name).expect("it is listed");
    assert_eq!(named("conntrack-cap-reset")["writes_host"], true);
    assert_eq!(named("database-slow-full-size")["nightly"], true);
    assert!(text(&output(&["list", "database-slow-full-size"]).stdout).contains("only if it is named"));
    let expected = &named("policy-route-lost")["expects"][0];
    assert_eq!((&expected["detector"], &expected["within_ms"]), (&"policy-route".into(), &500.into()));
}

const RECORDING: &str = "harness/tests/cli/policy-route-lost.jsonl";

/// (detector, level, severity, subject) of the findings of a replay, warnings and above.
fn replayed(arguments: &[&str]) -> Vec<[String; 4]> {
    let output = output(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line = |line: String| -> Option<[String; 4]> {
        let entry: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert!(entry["recording"].as_str().is_some_and(|path| path.ends_with("policy-route-lost.jsonl")));
        let finding = &entry["finding"];
        let word = |key: &str| finding[key].as_str().expect(key).to_owned();
        (finding["severity"] != "info" && finding["cleared"] == false)
            .then(|| ["detector", "level", "severity", "subject"].map(word))
    };
    BufReader::new(&*output.stdout).lines().filter_map(|text| line(text.expect("text"))).collect()
}

#[test]
fn a_recording_says_what_the_run_said() {
    let expected = [
        ["policy-route", "cause", "warning", "node/worker-2"].map(str::to_owned),
        ["wrong-nic", "symptom", "critical", "node/worker-2"].map(str::to_owned),
    ];
    assert_eq!(replayed(&["replay", "--json", RECORDING]), expected);
    // A folder means all recordings in it.
    assert_eq!(replayed(&["replay", "--json", "harness/tests/cli"]), expected);
    let words = text(&output(&["replay", RECORDING]).stdout);
    assert!(words.contains("3 findings") && words.contains("policy-route"), "{words}");
}

#[test]
fn recordings_that_cannot_be_read_are_bad_input() {
    refused(&["replay", "no/such.jsonl"], &["no/such.jsonl"]);
    refused(&["replay", "scenarios"], &["scenarios", "no recording"]);
    refused(&["replay", "Cargo.toml"], &["line 1"]);
}

/// Standard output contains only the output of the commands.
#[test]
fn a_held_incident_can_be_looked_at() {
    if let Err(why) = relapse_kernel::process::diagnose_user_namespaces() {
        panic!("this needs user namespaces: {why}");
    }
    let output = output(&[
        "reproduce",
        "policy-route-lost",
        "--exec",
        "node/worker-2: ip route show table 2; cat /sys/class/net/eth1/operstate",
        "--exec",
        "pod/app: exit 3",
    ]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(text(&output.stdout), "up\n", "table 2 is empty, and eth1 is the node's own\n{errors}");
    for words in ["policy-route-loss", "app-database fails", "exit status 3", "healed", "PASS"] {
        assert!(errors.contains(words), "{words:?} is not in {errors}");
    }
}

#[test]
fn a_place_that_is_not_there_is_refused_before_anything_runs() {
    refused(&["reproduce", "policy-route-lost", "--exec", "node/worker-9: true"], &["node/worker-9", "node/worker-2"]);
    refused(&["reproduce", "policy-route-lost", "--exec", "ip route"], &["PLACE: COMMAND"]);
    refused(&["reproduce", "policy-route-lots"], &["did you mean `policy-route-lost`?"]);
}

#[test]
fn a_run_prints_events_and_nothing_else() {
    let reports = tempfile::tempdir().expect("a temporary folder");
    let folder = reports.path().to_str().expect("text");
    let output = output(&["run", "policy-route-lost", "--only", "incident", "--json", "--reports", folder]);
    let lines = text(&output.stdout);
    let events: Vec<relapse::event::RunEvent> =
        lines.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    assert!(matches!(events.last().map(|event| &event.what), Some(relapse::event::What::RunEnded { .. })), "{lines}");
    assert!(Path::new(folder).join("latest/report.html").exists());
}

#[test]
fn an_empty_folder_has_what_is_shipped() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = |arguments: &[&str]| relapse(arguments).current_dir(folder.path()).output().expect("relapse starts");
    assert_eq!(run(&["check"]).status.code(), Some(0));
    let listed = text(&run(&["list", "--json"]).stdout);
    assert_eq!(listed, text(&run(&["list", "--shipped", "--json"]).stdout));
    let own = text(&output(&["list", "--json"]).stdout);
    assert_eq!(listed.matches("\"name\"").count(), own.matches("\"name\"").count());
    let wrong = run(&["run", "policy-route-lots"]);
    assert!(text(&wrong.stderr).contains("did you mean `policy-route-lost`?"));
}

#[test]
fn what_init_writes_passes_and_shards_of_it_make_one_report() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let own = folder.path().join("mine");
    let at = own.to_str().expect("text");
    assert_eq!(output(&["init", at]).status.code(), Some(0));
    refused(&["init", at], &["relapse.yaml", "nothing was written"]);
    let run = |arguments: &[&str], wanted: &str| {
        let output = relapse(arguments).current_dir(&own).output().expect("relapse starts");
        let printed = text(&output.stdout);
        assert!(output.status.success() && printed.contains(wanted), "{printed}{}", text(&output.stderr));
        printed
    };
    let printed = run(&["run"], "2 trials: 2 pass");
    assert!(printed.contains("route-watch"), "{printed}");
    for shard in ["1/2", "2/2"] {
        run(&["run", "--shard", shard, "--reports", &shard[..1]], "");
    }
    // A shard without a trial has no report.
    let shards = ["1/latest", "2/latest"].into_iter().filter(|folder| own.join(folder).exists());
    let report: Vec<&str> = ["report", "--output", "all"].into_iter().chain(shards).collect();
    run(&report, "2 trials: 2 pass");
}
