//! Labels of the recordings that the program carries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;

use relapse_alerts::catalogue::Catalogue;
use relapse_alerts::labels::Labels;
use relapse_alerts::recording::Recording;
use relapse_alerts::rules::{self, Input};
use relapse_alerts::settle::settle;
use relapse_alerts::verdict::OfRule;

fn recordings() -> Vec<Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
    let files = fs::read_dir(folder).expect("the folder of recordings").map(|entry| entry.expect("an entry").path());
    let files = files.filter(|file| file.extension().is_some_and(|ending| ending == "gz"));
    files.map(|file| Recording::read(File::open(file).expect("a file"), |_| true).expect("a recording")).collect()
}

/// A Prometheus refuses two series with the same labels.
#[test]
fn all_series_of_a_recording_differ_in_their_labels() {
    for recording in recordings() {
        let mut seen: BTreeSet<(&str, BTreeMap<String, String>)> = BTreeSet::new();
        for series in &recording.series {
            let stored = Labels::default().stored(&recording.header.targets[series.target], &series.labels);
            let again = format!("{}: {} {stored:?}", recording.header.scenario, series.name);
            assert!(seen.insert((&series.name, stored)), "{again}");
        }
    }
}

/// Alerts that stock exporters can show are not settled by reading.
#[test]
fn stock_alerts_on_what_was_recorded_are_left_to_promtool() {
    let recordings = recordings();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.yaml");
    // After node-mixin, blackbox-mixin and the documentation of both exporters.
    let exprs = [
        r#"(node_nf_conntrack_entries{job="node-exporter"} / node_nf_conntrack_entries_limit) > 0.75"#,
        r#"changes(node_network_up{job="node-exporter",device!~"veth.+"}[2m]) > 2"#,
        r#"rate(node_network_receive_errs_total{job="node-exporter"}[2m]) / rate(node_network_receive_packets_total[2m]) > 0.01"#,
        r#"rate(node_netstat_Tcp_RetransSegs[5m]) / rate(node_netstat_Tcp_OutSegs[5m]) > 0.1"#,
        r#"node_network_route_info{device="eth1"} unless node_network_up == 0"#,
        r#"probe_success{job="blackbox"} == 0"#,
        r#"avg_over_time(probe_duration_seconds[1m]) > 1"#,
        r#"100 * (count(up == 0) by (job) / count(up) by (job)) > 10"#,
    ];
    let alert = |expr: &&str| format!("  - {{ alert: A, expr: {} }}\n", serde_json::to_string(expr).expect("a string"));
    let alerts: String = exprs.iter().map(alert).collect();
    fs::write(&file, format!("groups:\n- name: a\n  rules:\n{alerts}")).expect("written");
    let set = rules::read(&[Input::Path(file)]).expect("rules");
    let catalogue = Catalogue::of(&recordings);
    let settled = settle(&set, &catalogue, &Labels::infer(&set, &catalogue));
    assert_eq!(settled, BTreeMap::new());
}

/// No rule as people publish them is misread: `RELAPSE_RULES=FOLDER`.
#[test]
fn what_cannot_fire_was_renamed() {
    let Some(folder) = std::env::var_os("RELAPSE_RULES") else {
        eprintln!("skipped: RELAPSE_RULES names no folder of rules");
        return;
    };
    let set = rules::read(&[Input::Path(folder.into())]).unwrap_or_else(|wrong| panic!("{wrong}"));
    let catalogue = Catalogue::of(&recordings());
    for (id, verdict) in settle(&set, &catalogue, &Labels::infer(&set, &catalogue)) {
        if let OfRule::CannotFire { why, .. } = verdict {
            assert!(why.contains("was renamed in"), "{} {}: {why}", set.rules[id.0].name(), set.rules[id.0].expr);
        }
    }
}
