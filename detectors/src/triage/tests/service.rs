use super::scene::{Scene, app, by_service, end, leg};
use crate::signal::ProbeKind;
use crate::triage::{Leg, Outcome};

fn service_probes(scene: &mut Scene, at: u64, node: &str, service: &str, endpoint: &str) {
    scene.probe(at, node, ProbeKind::Service, "192.168.0.30", "b", service);
    scene.probe(at, node, ProbeKind::Endpoint, "10.176.98.50", "b", endpoint);
}

pub(super) fn to_service() -> Vec<Leg> {
    vec![by_service(leg(app(), end("pod/b", "10.176.98.50", Some("worker-1")), 80), "b", "192.168.0.30")]
}

#[test]
fn rules_of_a_service_are_gone_on_one_node_or_on_all() {
    let mut scene = Scene::new(to_service(), Outcome::Timeout);
    scene.endpoints(0, "b", "192.168.0.30", &["10.176.98.50"]);
    service_probes(&mut scene, 500, "worker-2", "", "");
    scene.leads(600, "nothing");
    // Rules that are rewritten whole cost one probe at most.
    service_probes(&mut scene, 1_000, "worker-2", "timeout", "");
    scene.leads(1_050, "nothing");
    for at in [1_200, 1_400] {
        service_probes(&mut scene, at, "worker-2", "timeout", "");
        service_probes(&mut scene, at, "worker-1", "", "");
    }
    scene.leads(1_500, "4 node/worker-2");
    for at in [1_600, 1_800] {
        service_probes(&mut scene, at, "worker-2", "timeout", "");
        service_probes(&mut scene, at, "worker-1", "timeout", "");
    }
    scene.leads(1_900, "4 service/b");
    let mut pods = Scene::new(to_service(), Outcome::Timeout);
    for at in [1_200, 1_400] {
        service_probes(&mut pods, at, "worker-2", "timeout", "timeout");
    }
    pods.leads(1_500, "nothing");
}

#[test]
fn kube_proxy_stopped_and_connects_go_to_an_endpoint_that_was() {
    let mut scene = Scene::new(to_service(), Outcome::Timeout);
    scene.endpoints(0, "b", "192.168.0.30", &["10.176.98.51"]);
    scene.endpoints(500, "b", "192.168.0.30", &["10.176.98.50"]);
    for at in [2_400, 2_600] {
        scene.probe(at, "worker-2", ProbeKind::KubeProxy, "10.176.64.12", "", "refused");
    }
    // It has stopped, and nothing follows from it yet.
    scene.leads(2_700, "nothing, also 4");
    for number in 0..3 {
        let (at, port) = (2_800 + number * 10, 45_000 + number);
        scene.play(&format!("{at} in vetha 10.176.98.29:{port} 192.168.0.30:80 S {} 0 1", 900 + number));
        scene.play(&format!("{at} syn eth1 10.176.98.29:{port} 10.176.98.51:80 {} 1", 900 + number));
    }
    for at in [3_000, 3_200] {
        scene.probe(at, "worker-2", ProbeKind::KubeProxy, "10.176.64.12", "", "refused");
        // Other connects are sent to the endpoint that is.
        scene.probe(at, "worker-2", ProbeKind::Service, "192.168.0.30", "b", "");
    }
    scene.leads(3_300, "4 node/worker-2, also 6");
}
