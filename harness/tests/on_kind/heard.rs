//! What only an API server tells reaches the detectors, in the words of the real components: a pod that crashes
//! on a node, and cluster DNS whose upstream resolver is too slow for it, as the run's own recording has them.

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

/// What is told, and what tells it.
type Tells = (&'static str, fn(&Observed) -> bool);

pub fn told() -> Tested {
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
    let heard = news(&recordings.join("slow-upstream.jsonl"))?;
    let tells: [Tells; 5] = [
        ("cluster DNS that its upstream is too slow", |observed| {
            matches!(observed, Observed::PodLog(log) if log.pod == "coredns-1"
                && log.line.contains("->10.16.16.16:53: i/o timeout"))
        }),
        ("of a container in CrashLoopBackOff", |observed| {
            matches!(observed, Observed::Container(container) if container.pod == CRASHING && container.restarts > 0
                && container.state == ContainerState::Waiting { reason: "CrashLoopBackOff".into() })
        }),
        ("in an Event that it is started later and later", |observed| {
            matches!(observed, Observed::Event(event) if event.warning && event.reason == "BackOff"
                && event.about == format!("Pod/{CRASHING}"))
        }),
        (
            "of a node that it is ready",
            |observed| matches!(observed, Observed::NodeCondition(now) if now.condition == "Ready" && now.status == "True"),
        ),
        (
            "how kube-proxy is configured",
            |observed| matches!(observed, Observed::KubeProxy(proxy) if proxy.mode == "iptables"),
        ),
    ];
    // All of it is of the first node.
    let of_node: Vec<&Signal> = heard.iter().filter(|signal| &*signal.node == "worker-1").collect();
    for (what, is_such) in tells {
        if !of_node.iter().any(|signal| is_such(&signal.observed)) {
            return Err(format!("nothing tells {what}; heard was {of_node:#?}"));
        }
    }
    home.nothing_left(&id)
}

/// A pod whose program ends at once, on the first worker; its image is that of every pod of a trial.
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

/// All that came from the API server.
fn news(file: &Path) -> Result<Vec<Signal>, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let mut recording =
        Recording::open(BufReader::new(File::open(file).map_err(|e| wrong(&e))?)).map_err(|e| wrong(&e))?;
    let mut news = Vec::new();
    while let Some(signal) = recording.next_signal().map_err(|e| wrong(&e))? {
        let told = matches!(
            signal.observed,
            Observed::PodLog(_)
                | Observed::Container(_)
                | Observed::Event(_)
                | Observed::NodeCondition(_)
                | Observed::KubeProxy(_)
        );
        if told {
            news.push(signal);
        }
    }
    Ok(news)
}
