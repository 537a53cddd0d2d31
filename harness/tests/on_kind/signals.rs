//! Signals of the API server reach the detectors, with the text of the real components: a crashing pod on a node, and
//! cluster DNS with a slow upstream resolver, as found in the run's recording.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use relapse::event::{Outcome, Phase, RunEvent, TrialEvent, What};
use relapse_detectors::record::Recording;
use relapse_detectors::signal::{ContainerState, Observed, Signal};

use super::super::Tested;
use crate::support::real_run::{Home, docker};

/// Two nodes, one replica of cluster DNS on the first of them.
const SCENARIO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/on_kind/slow-upstream.yaml");
const CRASHING: &str = "crashing";

/// A signal's description, and the test for it.
type Expected = (&'static str, fn(&Observed) -> bool);

pub fn reach_detectors() -> Tested {
    let home = Home::new();
    let recordings = home.path().join("recordings");
    let folder = recordings.display().to_string();
    let mut run = home.start_of(SCENARIO, &["--only", "incident", "--record", &folder], &[]);
    let id = run.id()?;
    let baseline = |event: &RunEvent| {
        matches!(&event.what, What::Trial { event: TrialEvent::Phase { phase: Phase::Baseline, .. }, .. })
    };
    run.until("a baseline", baseline)?;
    crash(&id)?;
    run.ends_in(Outcome::Pass)?;
    let signals = of_api(&recordings.join("slow-upstream.jsonl"))?;
    let expected: [Expected; 5] = [
        ("a log line of cluster DNS about its slow upstream", |observed| {
            matches!(observed, Observed::PodLog(log) if log.pod == "coredns-1"
                && log.line.contains("->10.16.16.16:53: i/o timeout"))
        }),
        ("a container in CrashLoopBackOff", |observed| {
            matches!(observed, Observed::Container(container) if container.pod == CRASHING && container.restarts > 0
                && container.state == ContainerState::Waiting { reason: "CrashLoopBackOff".into() })
        }),
        ("an Event about its restarts being delayed", |observed| {
            matches!(observed, Observed::Event(event) if event.warning && event.reason == "BackOff"
                && event.about == format!("Pod/{CRASHING}"))
        }),
        (
            "a Ready condition of the node",
            |observed| matches!(observed, Observed::NodeCondition(now) if now.condition == "Ready" && now.status == "True"),
        ),
        (
            "kube-proxy's configuration",
            |observed| matches!(observed, Observed::KubeProxy(proxy) if proxy.mode == "iptables"),
        ),
    ];
    // All of them are from the first node.
    let of_node: Vec<&Signal> = signals.iter().filter(|signal| &*signal.node == "worker-1").collect();
    for (what, matches) in expected {
        if !of_node.iter().any(|signal| matches(&signal.observed)) {
            return Err(format!("missing signal: {what}; received {of_node:#?}"));
        }
    }
    home.nothing_left(&id)
}

/// Creates a pod on the first worker whose program exits immediately, with the image of the trial's pods.
fn crash(id: &str) -> Tested {
    let control_plane = format!("relapse-{id}-control-plane");
    let kubectl = ["exec", &control_plane, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"];
    let ask = |words: &[&str]| docker(&[&kubectl, words].concat());
    let image = ask(&["get", "pod", "app", "--output", "jsonpath={.spec.containers[0].image}"])?;
    let place =
        format!(r#"{{"spec": {{"nodeName": "relapse-{id}-worker", "tolerations": [{{"operator": "Exists"}}]}}}}"#);
    let overrides = format!("--overrides={place}");
    let image = format!("--image={image}");
    ask(&["run", CRASHING, &image, "--image-pull-policy=IfNotPresent", &overrides, "--command", "--", "/pause", "-v"])
        .map(drop)
}

/// All signals from the API server.
fn of_api(file: &Path) -> Result<Vec<Signal>, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let mut recording =
        Recording::open(BufReader::new(File::open(file).map_err(|e| wrong(&e))?)).map_err(|e| wrong(&e))?;
    let mut signals = Vec::new();
    while let Some(signal) = recording.next_signal().map_err(|e| wrong(&e))? {
        let from_api = matches!(
            signal.observed,
            Observed::PodLog(_)
                | Observed::Container(_)
                | Observed::Event(_)
                | Observed::NodeCondition(_)
                | Observed::KubeProxy(_)
        );
        if from_api {
            signals.push(signal);
        }
    }
    Ok(signals)
}
