use crate::finding::Severity;
use crate::prefix::Prefix;
use crate::signal::{Change, Observed, ProbeKind, Route, Rule};
use crate::testing::{
    Scene, default_route, link, link_gone, link_state, lookup, pod, probe, rule_from, rule_to, syn_ack_in, syn_out,
};

const NAME: &str = "policy-route";
const APP: &str = "10.176.98.29";
const PEER: &str = "10.176.98.30";
const DATABASE: &str = "10.176.46.4:3306";
const NODE: &str = "worker-2";

/// A node with these pods, all whole.
fn armed(pods: &[(&str, &str)]) -> Scene {
    let mut scene = Scene::new();
    scene.at(0, NODE, link("eth0", 2));
    scene.at(0, NODE, link("eth1", 3));
    scene.at(0, NODE, default_route(Change::Present, 0));
    for (name, address) in pods {
        scene.at(1, NODE, rule_from(Change::Present, address));
        scene.at(1, NODE, rule_to(Change::Present, address));
        scene.at(2, NODE, pod(Change::Present, name, address));
        scene.at(3, NODE, lookup(address, "10.176.46.4", Some("eth1")));
    }
    scene
}

fn two() -> Scene {
    armed(&[("app", APP), ("app-peer", PEER)])
}

/// Table 2 is emptied; SYNs leave by eth0, unanswered, while ICMP is answered; the table is rebuilt.
pub(crate) fn incident() -> Scene {
    let mut scene = two();
    let from = format!("{APP}:40001");
    scene.at(500, NODE, syn_out("eth1", &from, DATABASE, 1, 10));
    scene.at(501, NODE, syn_ack_in("eth1", DATABASE, &from, 1));
    scene.at(1_000, NODE, default_route(Change::Removed, 0));
    scene.at(1_030, NODE, syn_out("eth0", &format!("{APP}:40002"), DATABASE, 2, 20));
    scene.at(1_100, NODE, lookup(APP, "10.176.46.4", Some("eth0")));
    scene.at(1_500, NODE, probe(ProbeKind::Echo, "10.176.46.4", true));
    scene.at(2_050, NODE, syn_out("eth0", &format!("{APP}:40002"), DATABASE, 2, 21));
    scene.at(3_000, NODE, default_route(Change::Added, 0));
    scene.at(3_020, NODE, lookup(APP, "10.176.46.4", Some("eth1")));
    scene.at(3_050, NODE, syn_out("eth1", &format!("{APP}:40003"), DATABASE, 3, 30));
    scene.at(3_051, NODE, syn_ack_in("eth1", DATABASE, &format!("{APP}:40003"), 3));
    scene.at(3_200, NODE, lookup(APP, "10.176.46.4", Some("eth1")));
    scene
}

#[test]
fn incident_info_at_once_warning_with_the_first_stray_syn() {
    let scene = incident();
    assert_eq!(scene.first(NAME, Severity::Info), Some((1_000, "node/worker-2".into())));
    assert_eq!(scene.first(NAME, Severity::Warning), Some((1_030, "node/worker-2".into())));
    assert!(scene.evidence(NAME).contains("a SYN 10.176.98.29 -> 10.176.46.4:3306 left by eth0"));
    assert!(scene.cleared(NAME));
    assert!(scene.findings.iter().all(|(_, finding)| finding.subject.to_string() == "node/worker-2"));
    assert_eq!(scene.first("wrong-nic", Severity::Critical), Some((2_050, "node/worker-2".into())));
    assert!(scene.cleared("wrong-nic"));
}

#[test]
fn a_quiet_loss_is_a_warning_after_two_seconds() {
    let mut scene = two();
    scene.at(1_000, NODE, default_route(Change::Removed, 0));
    scene.until(2_950);
    scene.assert_quiet();
    scene.until(3_050);
    assert_eq!(scene.first(NAME, Severity::Warning), Some((3_000, "node/worker-2".into())));
}

#[test]
fn one_pods_rule_is_that_pods_and_so_is_its_to_rule() {
    let second = |change, address| [rule_from(change, address), rule_to(change, address)];
    for index in 0..2 {
        let mut scene = two();
        let [from, to] = second(Change::Removed, APP);
        scene.at(1_000, NODE, if index == 0 { from } else { to });
        scene.at(1_200, NODE, lookup(APP, "10.176.46.4", Some("eth0")));
        scene.until(3_100);
        assert_eq!(scene.first(NAME, Severity::Warning).unwrap().1, "pod/app");
        let again = second(Change::Added, APP).into_iter().nth(index).unwrap();
        scene.at(3_200, NODE, again);
        scene.at(3_210, NODE, lookup(APP, "10.176.46.4", Some("eth1")));
        assert!(scene.cleared(NAME));
    }
}

#[test]
fn a_stray_syn_makes_a_lost_rule_a_warning_within_a_moment() {
    let mut scene = two();
    // The SYN may be told before the loss of the rule.
    scene.at(1_001, NODE, syn_out("eth0", &format!("{APP}:40002"), DATABASE, 2, 20));
    scene.late(1_000, NODE, rule_from(Change::Removed, APP));
    scene.until(1_500);
    let (at, subject) = scene.first(NAME, Severity::Warning).unwrap();
    assert!(at <= 1_200 && subject == "pod/app", "{at} {subject}");
}

#[test]
fn a_lost_to_rule_is_a_warning_with_the_first_syn_of_a_neighbour_that_goes_round() {
    let mut scene = two();
    let (from, to) = (format!("{PEER}:40001"), format!("{APP}:8080"));
    // Pods of other nodes: their place is the pod NIC.
    scene.at(900, NODE, syn_out("eth1", &from, "10.176.97.10:8080", 1, 10));
    scene.at(1_000, NODE, rule_to(Change::Removed, APP));
    scene.at(1_100, NODE, syn_out("eth1", &from, "10.176.97.10:8080", 2, 10));
    scene.until(1_200);
    assert_eq!(scene.worst(NAME), Some(Severity::Info));
    scene.at(1_210, NODE, syn_out("eth1", &from, &to, 3, 10));
    assert_eq!(scene.first(NAME, Severity::Warning), Some((1_210, "pod/app".into())));
    assert!(scene.evidence(NAME).contains("a SYN 10.176.98.30 -> 10.176.98.29 of the same node left by eth1"));
    scene.at(1_500, NODE, rule_to(Change::Added, APP));
    assert!(scene.cleared(NAME));
}

#[test]
fn a_pod_that_is_made_again_meanwhile_acquits_nobody() {
    let mut scene = armed(&[("app", APP), ("app-peer", PEER), ("passer-by", "10.176.98.31")]);
    for address in [APP, PEER, "10.176.98.31"] {
        scene.at(1_000, NODE, rule_from(Change::Removed, address));
    }
    scene.at(1_400, NODE, pod(Change::Removed, "passer-by", "10.176.98.31"));
    scene.at(1_500, NODE, pod(Change::Added, "passer-by", "10.176.98.31"));
    scene.at(1_501, NODE, rule_from(Change::Added, "10.176.98.31"));
    scene.until(3_100);
    assert_eq!(scene.first(NAME, Severity::Warning), Some((3_000, "node/worker-2".into())));
    scene.at(3_200, NODE, rule_from(Change::Added, APP));
    assert!(!scene.cleared(NAME));
    scene.at(3_201, NODE, rule_from(Change::Added, PEER));
    assert!(scene.cleared(NAME));
}

#[test]
fn the_rules_of_all_pods_are_the_nodes() {
    let mut scene = two();
    scene.at(1_000, NODE, rule_from(Change::Removed, APP));
    scene.at(1_001, NODE, rule_from(Change::Removed, PEER));
    scene.until(3_100);
    assert_eq!(scene.first(NAME, Severity::Warning).unwrap().1, "node/worker-2");

    let mut scene = armed(&[("app", APP)]);
    scene.at(1_000, NODE, rule_from(Change::Removed, APP));
    scene.until(3_100);
    assert_eq!(scene.first(NAME, Severity::Warning).unwrap().1, "pod/app", "a node with one pod");
}

#[test]
fn one_rule_for_all_pods_counts_for_each() {
    let mut scene = Scene::new();
    let all: Prefix = "10.176.98.0/24".parse().unwrap();
    let rule = |change| Observed::Rule(Rule { change, priority: 90, from: Some(all), to: None, table: 2 });
    scene.at(0, NODE, rule(Change::Present));
    for (name, address) in [("app", APP), ("app-peer", PEER)] {
        scene.at(0, NODE, pod(Change::Present, name, address));
    }
    scene.at(1_000, NODE, rule(Change::Removed));
    scene.until(3_100);
    assert_eq!(scene.first(NAME, Severity::Warning).unwrap().1, "node/worker-2");
}

#[test]
fn twin_flushed_and_rebuilt_within_a_second_while_nobody_connects() {
    let mut scene = two();
    scene.at(1_000, NODE, default_route(Change::Removed, 0));
    scene.at(1_100, NODE, lookup(APP, "10.176.46.4", Some("eth0")));
    scene.at(1_950, NODE, default_route(Change::Added, 0));
    // The next look-up is late.
    scene.until(3_300);
    scene.at(3_300, NODE, lookup(APP, "10.176.46.4", Some("eth1")));
    scene.until(6_000);
    scene.assert_quiet();
    assert_eq!(scene.worst(NAME), Some(Severity::Info));
    assert!(scene.cleared(NAME));
}

#[test]
fn twin_a_deleted_pod_takes_its_rules_along_in_either_order() {
    for (rule_at, pod_at) in [(1_000, 1_400), (1_400, 1_000), (1_000, 2_900)] {
        let mut scene = two();
        for (at, is_rule) in
            if rule_at < pod_at { [(rule_at, true), (pod_at, false)] } else { [(pod_at, false), (rule_at, true)] }
        {
            if is_rule {
                scene.at(at, NODE, rule_from(Change::Removed, PEER));
                scene.at(at, NODE, rule_to(Change::Removed, PEER));
            } else {
                scene.at(at, NODE, pod(Change::Removed, "app-peer", PEER));
            }
        }
        scene.until(6_000);
        scene.assert_quiet();
        assert!(scene.standing(NAME).is_none());
    }
}

#[test]
fn twin_the_default_route_is_replaced_by_one_of_another_metric() {
    for add_first in [true, false] {
        let mut scene = two();
        let steps = [default_route(Change::Added, 50), default_route(Change::Removed, 0)];
        let steps = if add_first { steps.to_vec() } else { steps.into_iter().rev().collect() };
        for (at, step) in [1_000, 1_002].into_iter().zip(steps) {
            scene.at(at, NODE, step);
        }
        scene.until(5_000);
        scene.assert_quiet();
        assert!(scene.standing(NAME).is_none());
        // And the new one counts from then on.
        scene.at(6_000, NODE, default_route(Change::Removed, 50));
        scene.until(8_100);
        assert_eq!(scene.worst(NAME), Some(Severity::Warning));
    }
}

#[test]
fn a_default_route_that_leads_elsewhere_is_a_loss() {
    let mut scene = two();
    let route = Route {
        change: Change::Changed,
        table: 2,
        destination: None,
        gateway: Some("10.176.64.1".parse().unwrap()),
        link: Some("eth0".into()),
        metric: 0,
    };
    scene.at(1_000, NODE, Observed::Route(route));
    scene.until(3_100);
    assert_eq!(scene.first(NAME, Severity::Warning).unwrap().1, "node/worker-2");
}

#[test]
fn a_route_below_the_default_is_not_missed() {
    let mut scene = two();
    let inner = |change| {
        let destination = Some("10.176.46.0/24".parse().unwrap());
        let link = Some("eth1".to_owned());
        Observed::Route(Route { change, table: 2, destination, gateway: None, link, metric: 0 })
    };
    scene.at(10, NODE, inner(Change::Added));
    scene.at(1_000, NODE, inner(Change::Removed));
    scene.until(4_000);
    assert!(scene.findings.is_empty());
}

#[test]
fn look_ups_alone_tell_a_rule_that_shadows_others() {
    let mut scene = two();
    for step in 0..30 {
        scene.at(1_000 + step * 100, NODE, lookup(APP, "10.176.46.4", Some("eth0")));
        scene.at(1_000 + step * 100, NODE, lookup(PEER, "10.176.46.4", Some("eth1")));
    }
    assert_eq!(scene.first(NAME, Severity::Warning), Some((2_900, "pod/app".into())));

    let mut scene = two();
    for step in 0..30 {
        scene.at(1_000 + step * 100, NODE, lookup(APP, "10.176.46.4", None));
        scene.at(1_000 + step * 100, NODE, lookup(PEER, "10.176.46.4", None));
    }
    assert_eq!(scene.first(NAME, Severity::Warning).unwrap().1, "node/worker-2");
}

#[test]
fn destinations_that_always_left_by_the_nodes_nic_are_no_loss() {
    let mut scene = two();
    for step in 0..50 {
        scene.at(step * 100, NODE, lookup(APP, "8.8.8.8", Some("eth0")));
    }
    assert!(scene.findings.is_empty());
}

#[test]
fn a_lost_pod_nic_is_not_this_detectors() {
    let mut scene = two();
    // Routes may be told to go a moment before the link.
    scene.at(1_000, NODE, default_route(Change::Removed, 0));
    scene.at(1_001, NODE, link_gone("eth1", 3));
    for step in 0..40 {
        scene.at(1_050 + step * 100, NODE, lookup(APP, "10.176.46.4", Some("eth0")));
    }
    assert_eq!(scene.worst(NAME), Some(Severity::Info));
    assert!(scene.standing(NAME).is_none());
    // It comes back; its routes do not.
    scene.at(5_500, NODE, link_state("eth1", 7, Change::Added, true, true));
    scene.until(7_450);
    assert_eq!(scene.worst(NAME), Some(Severity::Info));
    scene.until(7_550);
    assert_eq!(scene.worst(NAME), Some(Severity::Warning));
}

#[test]
fn an_interface_that_goes_down_flushes_routes_without_a_word() {
    let mut scene = two();
    scene.at(1_000, NODE, link_state("eth1", 3, Change::Changed, false, false));
    scene.at(1_500, NODE, link_state("eth1", 3, Change::Changed, true, true));
    scene.at(1_510, NODE, default_route(Change::Added, 0));
    scene.until(6_000);
    assert_eq!(scene.worst(NAME), Some(Severity::Info), "rebuilt in time");
    assert!(scene.cleared(NAME));
}

#[test]
fn a_node_without_pods_misses_nothing() {
    let mut scene = armed(&[]);
    scene.at(1_000, NODE, default_route(Change::Removed, 0));
    scene.until(5_000);
    assert!(scene.findings.is_empty());
}

#[test]
fn the_rules_of_a_nodes_only_pod_are_the_nodes_too() {
    let mut scene = armed(&[("app", APP)]);
    scene.at(1_000, NODE, rule_from(Change::Removed, APP));
    scene.until(1_500);
    assert!(scene.findings.iter().all(|(_, finding)| finding.subject.to_string() == "pod/app"));
    scene.at(1_600, NODE, rule_to(Change::Removed, APP));
    scene.until(3_700);
    let subjects: std::collections::BTreeSet<String> = scene
        .findings
        .iter()
        .filter(|(_, finding)| finding.detector == NAME && finding.severity >= Severity::Warning)
        .map(|(_, finding)| finding.subject.to_string())
        .collect();
    assert_eq!(subjects.into_iter().collect::<Vec<_>>(), ["node/worker-2", "pod/app"]);
}
