//! Scenes of `dns-failure`.

use super::*;
use crate::testing::{Scene, play, scene};

const NAME: &str = INFO.name;
const SERVICE: &str = "192.168.0.10";
const FIRST: &str = "10.176.98.2";
const SECOND: &str = "10.176.98.3";

/// One round of probes from both nodes.
fn round(scene: &mut Scene, at: u64, service: bool, endpoint: &[(&str, bool)], upstream: bool) {
    for node in ["worker-1", "worker-2"] {
        play!(scene, "{at} @{node} probe upstream 10.16.16.16 {upstream}");
        play!(scene, "{at} @{node} probe service {SERVICE} {service}");
        for (address, ok) in endpoint {
            play!(scene, "{at} @{node} probe endpoint {address} {ok}");
        }
    }
}

fn one_endpoint() -> Scene {
    scene!(NAME, "0 endpoints 0@worker-1")
}

#[test]
fn incident_two_misses_in_a_row_while_upstream_answers() {
    let mut scene = one_endpoint();
    round(&mut scene, 100, true, &[(FIRST, true)], true);
    round(&mut scene, 600, false, &[(FIRST, false)], true);
    play!(scene, "? nothing");
    round(&mut scene, 1_100, false, &[(FIRST, false)], true);
    play!(scene, "? warning 1100 service/kube-dns ? evidence upstream 10.16.16.16 answers direct queries");
    round(&mut scene, 1_600, true, &[(FIRST, true)], true);
    play!(scene, "? over");
}

#[test]
fn answers_of_an_endpoint_on_the_same_node_show_nothing_even_when_it_is_none_any_more() {
    let mut scene = one_endpoint();
    round(&mut scene, 100, true, &[(FIRST, true)], true);
    for at in (600..7_000).step_by(500) {
        play!(scene, "{at} @worker-2 probe upstream 10.16.16.16 ok");
        for (node, ok) in [("worker-1", true), ("worker-2", false), ("worker-3", false)] {
            play!(scene, "{at} @{node} probe service {SERVICE} {ok}; {at} @{node} probe endpoint {FIRST} {ok}");
        }
    }
    play!(scene, "7000 endpoints; 7010 @worker-3 probe service {SERVICE} ok");
    assert!(scene.findings.iter().all(|(_, it)| it.detector != NAME || it.subject.name == "kube-dns"));
}

#[test]
fn queries_that_never_leave_their_node_are_a_finding_about_it() {
    let mut scene = one_endpoint();
    round(&mut scene, 100, true, &[(FIRST, true)], true);
    // A table that is full for most of the time lets some queries pass, and drops their answers.
    for (at, error) in [(600, "Operation not permitted (os error 1)"), (1_100, "timeout")] {
        play!(scene, "{at} @worker-2 probe upstream 10.16.16.16 ok");
        for (kind, target) in [(ProbeKind::DnsService, SERVICE), (ProbeKind::DnsEndpoint, FIRST)] {
            let (source, target) = ("10.176.64.11".parse().unwrap(), target.parse().unwrap());
            let error = Some(error.to_owned());
            let probe = Probe { kind, source, target, port: None, about: None, ok: false, took_us: 40, error };
            scene.at(at, "worker-2", probe.into());
        }
    }
    play!(scene, "1200 ? warning 1100 node/worker-2 ? evidence the queries do not leave the node");
    assert!(scene.findings.iter().all(|(_, it)| it.detector != NAME || it.subject.name != "kube-dns"));
}

#[test]
fn where_its_log_is_read_the_evidence_quotes_it() {
    let mut scene = one_endpoint();
    round(&mut scene, 600, false, &[(FIRST, false)], true);
    // Logged by a real CoreDNS whose upstream answered too late.
    let line = "[ERROR] plugin/errors: 2 example-api.com. A: read udp 10.176.97.10:42269->10.16.16.16:53: i/o timeout";
    scene.at(700, "worker-1", PodLog { pod: "coredns-0".into(), line: line.into() }.into());
    round(&mut scene, 1_100, false, &[(FIRST, false)], true);
    assert!(scene.evidence(NAME).ends_with(&format!("; the log of coredns-0 has {line:?}")));
}

#[test]
fn variant_no_endpoint_is_left() {
    let mut scene = one_endpoint();
    round(&mut scene, 100, true, &[(FIRST, true)], true);
    play!(scene, "500 endpoints");
    round(&mut scene, 600, false, &[], true);
    round(&mut scene, 1_100, false, &[], true);
    play!(scene, "? warning ? evidence there is no ready endpoint");
}

/// What agents report for an external name, and for the cluster's own one.
fn asked(scene: &mut Scene, at: u64, node: &str, name: &str, outcome: &str, own: &str, upstream: &str) {
    play!(scene, "{at} @{node} probe upstream 10.16.16.16 {upstream} {name}");
    for (kind, target) in [("service", SERVICE), ("endpoint", FIRST)] {
        play!(scene, "{at} @{node} probe {kind} {target} {own} kube-dns.kube-system.svc.cluster.local.");
        play!(scene, "{at} @{node} probe {kind} {target} {outcome} {name}");
    }
}

#[test]
fn twin_one_domain_that_fails_at_its_own_servers_is_info() {
    let mut scene = one_endpoint();
    for node in ["worker-1", "worker-2"] {
        asked(&mut scene, 300, node, "partner.example.com.", "ok", "ok", "ok");
    }
    for at in (500..5_000).step_by(200) {
        for node in ["worker-1", "worker-2"] {
            asked(&mut scene, at, node, "partner.example.com.", "SERVFAIL", "ok", "SERVFAIL");
        }
    }
    play!(
        scene,
        "? quiet ? info 700..900 name/partner.example.com ? evidence upstream 10.16.16.16 answers SERVFAIL itself"
    );
    play!(scene, "15000 ? over");
}

#[test]
fn twin_misses_far_apart_are_not_in_a_row() {
    let mut scene = one_endpoint();
    for at in [500, 60_500, 120_500] {
        asked(&mut scene, at, "worker-1", "example-api.com.", "timeout", "ok", "ok");
    }
    play!(scene, "? nothing");
}

#[test]
fn twin_one_domain_that_fails_while_others_are_answered() {
    let mut scene = one_endpoint();
    for at in (500..5_000).step_by(200) {
        for node in ["worker-1", "worker-2"] {
            asked(&mut scene, at, node, "partner.example.com.", "SERVFAIL", "ok", "timeout");
            asked(&mut scene, at, node, "example-api.com.", "ok", "ok", "timeout");
        }
    }
    play!(scene, "? quiet ? info");
}

#[test]
fn incident_the_upstream_resolvers_are_lost_to_two_nodes() {
    let mut scene = one_endpoint();
    for at in (300..6_000).step_by(200) {
        let outcome = if at < 1_000 { "ok" } else { "timeout" };
        for node in ["worker-1", "worker-2"] {
            asked(&mut scene, at, node, "partner.example.com.", outcome, "ok", outcome);
        }
    }
    play!(scene, "? warning 1100..1300 service/kube-dns ? evidence the upstream resolvers do not answer either");
}

#[test]
fn twin_slow_upstream_resolvers_cut_off_no_node() {
    let mut scene = one_endpoint();
    for at in (300..6_000).step_by(200) {
        let outcome = if at < 1_000 { "ok" } else { "timeout" };
        // One of two upstream resolvers is still fast.
        asked(&mut scene, at, "worker-1", "partner.example.com.", outcome, "ok", "ok");
        // Agents that know no external name ask for the cluster's own one.
        for (kind, target) in [("service", SERVICE), ("endpoint", FIRST)] {
            play!(scene, "{} @worker-2 probe {kind} {target} ok", at + 50);
        }
    }
    play!(scene, "? quiet");
}

#[test]
fn twin_the_upstream_resolvers_are_lost_to_the_one_node_that_asks() {
    let mut scene = one_endpoint();
    for at in (300..6_000).step_by(200) {
        let (outcome, upstream) = if at < 1_000 { ("ok", "ok") } else { ("timeout", "timeout") };
        asked(&mut scene, at, "worker-1", "partner.example.com.", outcome, "ok", upstream);
        // Nobody asks there for an external name.
        asked(&mut scene, at, "worker-2", "shop.default.svc.cluster.local.", "ok", "ok", upstream);
    }
    play!(scene, "? quiet ? info ? evidence the upstream resolvers do not answer either");
}

#[test]
fn incident_external_names_fail_on_two_nodes_and_nobody_asked_the_upstream() {
    let mut scene = one_endpoint();
    for at in (500..1_500).step_by(200) {
        for node in ["worker-1", "worker-2"] {
            for (kind, target) in [("service", SERVICE), ("endpoint", FIRST)] {
                play!(scene, "{at} @{node} probe {kind} {target} ok kube-dns.kube-system.svc.cluster.local.");
                play!(scene, "{at} @{node} probe {kind} {target} timeout partner.example.com.");
            }
        }
    }
    play!(scene, "? warning 700..900 service/kube-dns ? evidence no upstream resolver was queried directly");
}

#[test]
fn incident_external_names_fail_where_the_upstream_answers_them() {
    // The node of CoreDNS still gets its own names; what it forwards is lost.
    let mut scene = one_endpoint();
    for at in [500, 700, 900] {
        asked(&mut scene, at, "worker-1", "example-api.com.", "SERVFAIL", "ok", "ok");
    }
    play!(scene, "? warning 700 service/kube-dns ? evidence the cluster's own names are answered");
}

#[test]
fn one_source_alone_does_not_accuse_the_service() {
    for (upstream, expected) in [("timeout", "nothing"), ("ok", "warning 700 service/kube-dns")] {
        let mut scene = one_endpoint();
        for at in (500..3_000).step_by(200) {
            asked(&mut scene, at, "worker-1", "example-api.com.", "timeout", "timeout", upstream);
        }
        play!(scene, "? {expected}");
    }
    let mut scene = one_endpoint();
    for at in [500, 700] {
        for node in ["worker-1", "worker-2"] {
            asked(&mut scene, at, node, "example-api.com.", "timeout", "timeout", "timeout");
        }
    }
    play!(scene, "? warning 700 service/kube-dns");
}

#[test]
fn one_cut_off_node_is_a_finding_about_that_node() {
    let mut scene = one_endpoint();
    for at in (100..4_000).step_by(200) {
        let cut = if at > 1_000 { "timeout" } else { "ok" };
        asked(&mut scene, at, "worker-1", "example-api.com.", "ok", "ok", "ok");
        asked(&mut scene, at, "worker-2", "example-api.com.", cut, cut, cut);
        asked(&mut scene, at + 50, "worker-3", "example-api.com.", "ok", "ok", "ok");
    }
    play!(scene, "? warning 1600..1800 node/worker-2 ? evidence other nodes get answers");
    assert!(
        scene.findings.iter().filter(|(_, f)| f.detector == NAME).all(|(_, f)| f.subject == Subject::node("worker-2"))
    );
    asked(&mut scene, 4_100, "worker-2", "example-api.com.", "ok", "ok", "ok");
    play!(scene, "? over");
}

#[test]
fn a_node_is_cut_off_though_all_others_host_endpoints_if_these_reach_each_other() {
    for (elsewhere, subject) in [("ok", Subject::node("worker-2")), ("timeout", Subject::service("kube-dns"))] {
        let mut scene = scene!(NAME, "0 endpoints 0@worker-1 1@worker-3");
        for at in (100..4_000).step_by(200) {
            let cut = if at > 1_000 { "timeout" } else { "ok" };
            let elsewhere = if at > 1_000 { elsewhere } else { "ok" };
            for (node, service, first, second) in
                [("worker-1", "ok", "ok", elsewhere), ("worker-2", cut, cut, cut), ("worker-3", "ok", elsewhere, "ok")]
            {
                play!(scene, "{at} @{node} probe upstream 10.16.16.16 ok");
                play!(scene, "{at} @{node} probe service {SERVICE} {service}");
                play!(
                    scene,
                    "{at} @{node} probe endpoint {FIRST} {first}; {at} @{node} probe endpoint {SECOND} {second}"
                );
            }
        }
        let own = scene.findings.iter().filter(|(_, finding)| finding.detector == NAME);
        assert_eq!(own.map(|(_, finding)| &finding.subject).collect::<Vec<_>>(), [&subject]);
    }
}

#[test]
fn nodes_that_recover_one_after_another_are_not_cut_off() {
    let mut scene = one_endpoint();
    for at in (500..4_000).step_by(200) {
        for (node, back) in [("worker-1", 2_000), ("worker-2", 3_400)] {
            let outcome = if at >= back { "ok" } else { "timeout" };
            asked(&mut scene, at, node, "example-api.com.", outcome, outcome, "ok");
        }
    }
    let accused: Vec<_> = scene.findings.iter().filter(|(_, f)| f.detector == NAME).map(|(_, f)| &f.subject).collect();
    assert_eq!(accused, [&Subject::service("kube-dns"), &Subject::service("kube-dns")]);
}

#[test]
fn the_last_node_to_recover_is_not_cut_off_though_the_old_endpoints_node_never_missed() {
    let mut scene = one_endpoint();
    for at in (500..2_000).step_by(200) {
        asked(&mut scene, at, "worker-1", "example-api.com.", "ok", "ok", "ok");
        for node in ["worker-2", "worker-3"] {
            asked(&mut scene, at, node, "example-api.com.", "timeout", "timeout", "ok");
        }
    }
    play!(scene, "2000 endpoints 1@worker-2");
    for node in ["worker-1", "worker-3"] {
        play!(scene, "2010 @{node} probe service {SERVICE} ok example-api.com.");
    }
    play!(scene, "2020 @worker-2 probe service {SERVICE} timeout example-api.com.");
    play!(scene, "2200 @worker-2 probe service {SERVICE} ok example-api.com.; 2300 ? over");
    let mut accused = scene.findings.iter().filter(|(_, f)| f.detector == NAME).map(|(_, f)| &*f.subject.name);
    assert!(accused.all(|name| name == "kube-dns"));
}

#[test]
fn an_unreachable_upstream_is_reported() {
    let mut scene = one_endpoint();
    round(&mut scene, 600, false, &[(FIRST, false)], false);
    round(&mut scene, 1_100, false, &[(FIRST, false)], false);
    play!(scene, "? evidence upstream resolvers do not answer either");
}

#[test]
fn twin_one_of_two_replicas_lost() {
    let mut scene = scene!(NAME, "0 endpoints 0@worker-1 1@worker-2");
    round(&mut scene, 100, true, &[(FIRST, true), (SECOND, true)], true);
    // Half of the queries to the Service still go to the lost replica, at worst several consecutive ones.
    for step in 1..6 {
        round(&mut scene, step * 400, false, &[(FIRST, false), (SECOND, true)], true);
    }
    play!(scene, "? quiet");
}

#[test]
fn twin_rolling_restart_a_new_endpoint_was_not_asked_yet() {
    let mut scene = one_endpoint();
    round(&mut scene, 100, true, &[(FIRST, true)], true);
    round(&mut scene, 500, false, &[(FIRST, false)], true);
    play!(scene, "600 endpoints 0@worker-1 1@worker-2");
    round(&mut scene, 900, false, &[(FIRST, false)], true);
    play!(scene, "? nothing");
}

#[test]
fn twin_one_slow_upstream_of_two() {
    let mut scene = one_endpoint();
    // Late answers are answers: even if every other one misses its deadline, no run of misses forms.
    for step in 0..20 {
        let (at, node) = (step * 200, if step % 2 == 0 { "worker-1" } else { "worker-2" });
        play!(scene, "{at} @{node} probe service {SERVICE} {}", step % 3 != 0);
        play!(scene, "{at} @{node} probe endpoint {FIRST} {}", step % 4 != 0);
    }
    play!(scene, "? quiet");
}
