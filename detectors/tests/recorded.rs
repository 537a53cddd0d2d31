//! Replays every recording under `fixtures/` through all detectors and compares the findings with snapshots.
//!
//! Recordings are made in labs, some on kind, and shortened by `scripts/cut-recording.py`; `NAME--TWIN.jsonl`
//! is a benign twin.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;

use relapse_detectors::finding::{Finding, Level, Severity};
use relapse_detectors::record::{Recording, replay};
use relapse_detectors::time::Time;

fn fixtures() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
    let entries = fs::read_dir(folder).expect("the folder of fixtures can be read");
    let paths = entries.map(|entry| entry.expect("its entries can be read").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "jsonl")).collect();
    paths.sort();
    paths
}

fn open(path: &PathBuf) -> BufReader<File> {
    BufReader::new(File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn line(first: Time, at: Time, finding: &Finding) -> String {
    let Finding { detector, incident, level, severity, subject, evidence, cleared, .. } = finding;
    let milliseconds = at.since(first).as_millis();
    let word = if *cleared { "cleared" } else { "finding" };
    format!("{milliseconds:>6} ms {word} {detector} ({incident}) {level:?} {severity:?} {subject}: {evidence}")
}

#[test]
fn each_recording_gives_its_findings() {
    let fixtures = fixtures();
    assert!(!fixtures.is_empty(), "there are no fixtures to replay");
    for path in fixtures {
        let mut recording = Recording::open(open(&path)).expect("a header");
        let first = recording.next_signal().expect("a signal").expect("at least one signal").at;
        let findings = replay(open(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lines: Vec<String> = findings.iter().map(|(at, finding)| line(first, *at, finding)).collect();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let alarms =
            findings.iter().filter(|(_, finding)| finding.severity > Severity::Info && finding.level != Level::Risk);
        assert_eq!(alarms.count() == 0, name.contains("--"), "{name}: {lines:#?}");
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(name, lines.join("\n")) });
    }
}
