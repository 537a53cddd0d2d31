use std::time::Duration;

use super::scene::{DNS, STORE, Scene, app, by_ingress, by_name, end, leg};
use crate::signal::ProbeKind;
use crate::triage::{Leg, Outcome, State};

fn lookups() -> Vec<Leg> {
    vec![by_name(Leg { from: vec![app()], ..Leg::default() }, "example-api.com", DNS)]
}

fn dns_probes(scene: &mut Scene, at: u64, service: bool, endpoint: bool) {
    for node in ["worker-1", "worker-2"] {
        scene.play(&format!(
            "{at} @{node} probe service {DNS} {service}; {at} @{node} probe endpoint 10.176.98.2 {endpoint}"
        ));
        scene.play(&format!("{at} @{node} probe upstream 10.16.16.16 ok"));
    }
}

#[test]
fn cluster_dns_fails_and_its_nodes_nic_contributes() {
    let mut scene = Scene::new(lookups(), Outcome::NameError);
    scene.play("0 endpoints 0@worker-1");
    dns_probes(&mut scene, 500, true, true);
    scene.leads(600, "nothing");
    scene.play("900 @worker-1 link -eth1 3");
    dns_probes(&mut scene, 1_000, false, false);
    scene.leads(1_100, "nothing, also 1");
    dns_probes(&mut scene, 1_300, false, false);
    scene.leads(1_400, "3 service/kube-dns, also 1");
    let verdict = scene.verdict(1_500);
    assert!(verdict.steps.iter().all(|step| step.state != State::NotSeen), "{verdict:#?}");
}

#[test]
fn a_domain_whose_own_servers_fail() {
    let mut scene = Scene::new(lookups(), Outcome::NameError);
    scene.play("0 endpoints 0@worker-1");
    for at in [1_000, 1_200] {
        for (kind, target) in [("upstream", "10.16.16.16"), ("service", DNS), ("endpoint", "10.176.98.2")] {
            scene.play(&format!("{at} probe {kind} {target} SERVFAIL example-api.com."));
        }
        scene.play(&format!("{at} probe service {DNS} ok kube-dns.kube-system.svc.cluster.local."));
    }
    scene.leads(1_300, "3 name/example-api.com");
}

#[test]
fn a_slow_request_is_not_explained_by_names_that_are_not_resolved() {
    let mut scene = Scene::new(lookups(), Outcome::Slow(Duration::from_secs(1)));
    scene.play("0 endpoints 0@worker-1");
    dns_probes(&mut scene, 1_000, false, false);
    dns_probes(&mut scene, 1_200, false, false);
    scene.leads(1_300, "nothing, also 3");
}

#[test]
fn the_rules_of_cluster_dns_are_step_4() {
    let mut scene = Scene::new(lookups(), Outcome::NameError);
    scene.play("0 endpoints 0@worker-1");
    for at in [1_000, 1_200] {
        scene.play(&format!("{at} probe service {DNS} false; {at} probe endpoint 10.176.98.2 ok"));
        scene.play(&format!("{at} @worker-1 probe service {DNS} ok; {at} @worker-1 probe endpoint 10.176.98.2 ok"));
    }
    scene.leads(1_300, "4 node/worker-2");
}

#[test]
fn a_record_that_leads_to_a_slow_path() {
    let store = end("outside/store", "10.219.226.2", None);
    let slow = Outcome::Slow(Duration::from_millis(300));
    let mut scene = Scene::new(vec![by_name(leg(app(), store, 443), STORE, DNS)], slow);
    scene.play(&format!("100 answer {DNS} {STORE} 1 10.219.226.2"));
    let handshakes = |scene: &mut Scene, from: u64, server: &str, took: u64| {
        for number in 0..5 {
            let (at, near) = (from + number * 150, format!("10.176.98.29:{}", 30_000 + from + number));
            scene.play(&format!("{at} syn eth1 {near} {server}:443 {} 1", from + number));
            scene.play(&format!("{} syn-ack eth1 {server}:443 {near} {}", at + took, from + number));
        }
    };
    handshakes(&mut scene, 200, "10.219.226.2", 2);
    scene.leads(1_500, "nothing");
    scene.play(&format!("3000 answer {DNS} {STORE} 1 100.64.249.132"));
    handshakes(&mut scene, 3_100, "100.64.249.132", 120);
    scene.leads(4_000, "3 name/oss.example.com, also 6");
    // Back at the old address.
    scene.triage.begin_again();
    scene.play(&format!("7000 answer {DNS} {STORE} 1 10.219.226.2"));
    handshakes(&mut scene, 7_100, "10.219.226.2", 2);
    scene.leads(8_000, "nothing");
}

#[test]
fn a_resolver_of_clients_outside_is_lost() {
    let entry = end("pod/ingress", "10.176.98.10", Some("worker-1"));
    let front = leg(end("office/beijing", "192.168.40.10", None), entry, 80);
    let mut scene = Scene::new(vec![by_name(front, "tickets.example.com", "10.16.16.17")], Outcome::NameError);
    let ask = |scene: &mut Scene, at, error: &str| {
        scene.probe(at, "worker-1", ProbeKind::ExternalName, "10.16.16.17", "tickets.example.com", error);
        scene.probe(at, "worker-1", ProbeKind::Entry, "10.176.64.11", "tickets.example.com", "");
    };
    ask(&mut scene, 500, "");
    scene.leads(600, "nothing");
    for at in [1_000, 1_200] {
        ask(&mut scene, at, "timeout");
    }
    scene.leads(1_300, "3 server/10.16.16.17:53");
    assert!(scene.verdict(1_350).steps[2].evidence.contains("the address that it had answers"));
    for at in [1_400, 1_600] {
        ask(&mut scene, at, "NXDOMAIN");
    }
    scene.leads(1_700, "3 name/tickets.example.com");
}

#[test]
fn a_resolver_that_is_not_probed_is_accused_by_its_clients() {
    let mut legs = by_ingress();
    legs[0] = by_name(legs[0].clone(), "shop.example.com", "10.16.16.18");
    legs[1] = by_name(legs[1].clone(), "tickets.default.svc.cluster.local", DNS);
    let mut scene = Scene::new(legs, Outcome::NameError);
    scene.play("0 endpoints 0@worker-1");
    dns_probes(&mut scene, 1_000, true, true);
    dns_probes(&mut scene, 1_200, true, true);
    scene.leads(1_300, "3 server/10.16.16.18:53");
    // Cluster DNS, which the ingress needs, explains it as well, and this is seen.
    dns_probes(&mut scene, 2_000, false, false);
    dns_probes(&mut scene, 2_200, false, false);
    scene.leads(2_300, "3 service/kube-dns");
}

#[test]
fn a_gateway_error_may_still_be_dns() {
    let mut legs = by_ingress();
    legs[1] = by_name(legs[1].clone(), "tickets.default.svc.cluster.local", DNS);
    let mut scene = Scene::new(legs, Outcome::Status(502));
    scene.play("0 endpoints 0@worker-1");
    scene.answers(500, "10.176.98.40:8080", 8, 1, Some(200));
    dns_probes(&mut scene, 1_000, false, false);
    dns_probes(&mut scene, 1_200, false, false);
    scene.leads(1_300, "3 service/kube-dns");
}
