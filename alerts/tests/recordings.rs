//! The recordings that the program carries: readable, small enough, and of the scenarios as they are now.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use relapse_alerts::recording::Exporter::{Cadvisor, KubeProxy, KubeState, Kubelet};
use relapse_alerts::recording::{Exporter, Recording, digest};

/// All of them together, bytes.
const LARGEST: u64 = 15 << 20;

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn files() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder("recordings")).expect("the folder of recordings");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "gz"));
    files.sort();
    files
}

/// Fails if a scenario has changed since it was recorded, comments aside: an alert would be graded on something that is
/// no longer replayed. Recording takes five minutes for a scenario.
#[test]
fn recordings_are_as_old_as_their_scenarios() {
    let mut older: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for file in files() {
        let header = Recording::read(File::open(&file).expect("a file"), |_| false).expect("a recording").header;
        let scenario = folder("../scenarios").join(format!("{}.yaml", header.scenario));
        let now = fs::read_to_string(&scenario).map(|text| digest(&text)).unwrap_or_default();
        if now != header.made.scenario {
            let command = if header.backend == "kind" { "record-kind ON_KIND" } else { "record SCENARIOS" };
            older.entry(command).or_default().insert(header.scenario);
        }
    }
    let again = older
        .iter()
        .map(|(command, names)| format!("make {command}='{}'", names.iter().cloned().collect::<Vec<_>>().join(" ")));
    let again: Vec<_> = again.collect();
    assert!(again.is_empty(), "older than their scenarios; record them again: {}", again.join("; "));
}

#[test]
fn recordings_are_complete_and_fit_into_the_program() {
    let mut size = 0;
    let mut bases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files() {
        size += fs::metadata(&file).expect("a file").len();
        let recording = Recording::read(File::open(&file).expect("a file"), |_| true).expect("a recording");
        let (name, header) = (file.display(), &recording.header);
        let (phases, series) = (header.phases, &recording.series);
        assert!(
            phases.fault >= 60 && phases.heal >= phases.fault + 120 && phases.end >= phases.heal + 50,
            "{name}: {phases:?}"
        );
        assert!(series.iter().all(|series| series.samples.len() == phases.end as usize), "{name}");
        assert!(series.iter().all(|series| series.target < header.targets.len()), "{name}");
        for number in 0..header.targets.len() {
            let up = series.iter().filter(|series| series.target == number && series.name == "up").count();
            assert_eq!(up, 1, "{name}: target {number}");
        }
        assert!(header.targets.iter().any(|target| target.exporter == Exporter::Node), "{name}");
        assert!(series.iter().any(|series| series.name == "node_network_up"), "{name}");
        let on_kind = header.backend == "kind";
        let has = |exporter| header.targets.iter().any(|target| target.exporter == exporter);
        assert!(
            on_kind == [Kubelet, Cadvisor, KubeProxy, KubeState].into_iter().all(has),
            "{name}: {:?}",
            header.targets
        );
        let machine = |name: &str| {
            ["node_cpu", "node_memory", "container_cpu", "container_memory", "go_", "process_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        };
        assert!(!series.iter().any(|series| machine(&series.name)), "{name}");
        assert!(header.counters.contains("node_network_receive_bytes_total"), "{name}");
        if header.base {
            bases.entry(header.incident.clone()).or_default().insert(header.scenario.clone());
        }
    }
    assert!(size <= LARGEST, "{size} bytes");
    assert!(bases.values().all(|scenarios| scenarios.len() == 1), "{bases:?}");
}
