use crate::finding::Severity;
use crate::prefix::Prefix;
use crate::signal::{Change, Route, Rule};
use crate::testing::{Scene, play};

const NAME: &str = super::INFO.name;
const APP: &str = "10.176.98.29";
const PEER: &str = "10.176.98.30";
const PASSER: &str = "10.176.98.31";
const DATABASE: &str = "10.176.46.4";
const NODE: &str = "worker-2";

/// A node with these pods and all of their routing.
fn armed(pods: &[(&str, &str)]) -> Scene {
    let mut scene = Scene::new(NAME).on(NODE);
    play!(scene, "0 link eth0 2; 0 link eth1 3; 0 default 0");
    for (name, address) in pods {
        play!(scene, "1 from {address}; 1 to {address}; 2 pod {name} {address}; 3 lookup {address} {DATABASE} eth1");
    }
    scene
}

fn one() -> Scene {
    armed(&[("app", APP)])
}

fn two() -> Scene {
    armed(&[("app", APP), ("app-peer", PEER)])
}

/// Table 2 is emptied; SYNs leave by eth0, unanswered, while ICMP is answered; the table is rebuilt.
pub(crate) fn incident() -> Scene {
    let mut scene = two();
    play!(
        scene,
        "500 syn eth1 {APP}:40001 {DATABASE}:3306 1 10; 501 syn-ack eth1 {DATABASE}:3306 {APP}:40001 1
         1000 default -0; 1030 syn eth0 {APP}:40002 {DATABASE}:3306 2 20; 1100 lookup {APP} {DATABASE} eth0
         1500 probe echo {DATABASE} ok; 2050 syn eth0 {APP}:40002 {DATABASE}:3306 2 21
         3000 default +0; 3020 lookup {APP} {DATABASE} eth1
         3050 syn eth1 {APP}:40003 {DATABASE}:3306 3 30; 3051 syn-ack eth1 {DATABASE}:3306 {APP}:40003 3
         3200 lookup {APP} {DATABASE} eth1"
    );
    scene
}

#[test]
fn incident_info_at_once_warning_with_the_first_stray_syn() {
    let mut scene = incident();
    play!(scene, "? info 1000 node/worker-2 ? warning 1030 node/worker-2 ? over");
    play!(scene, "? evidence a SYN 10.176.98.29 -> 10.176.46.4:3306 left by eth0");
    play!(scene, "? wrong-nic: critical 2050 node/worker-2 ? wrong-nic: over");
    assert!(scene.findings.iter().all(|(_, finding)| finding.subject.to_string() == "node/worker-2"));
}

#[test]
fn a_quiet_loss_is_a_warning_after_two_seconds() {
    play!(two(), "1000 default -0; 2950 ? quiet; 3050 ? warning 3000 node/worker-2");
}

#[test]
fn one_pods_rule_is_that_pods_and_so_is_its_to_rule() {
    for rule in ["from", "to"] {
        let mut scene = two();
        play!(scene, "1000 {rule} -{APP}; 1200 lookup {APP} {DATABASE} eth0; 3100 ? warning 0..3100 pod/app");
        play!(scene, "3200 {rule} +{APP}; 3210 lookup {APP} {DATABASE} eth1 ? over");
    }
}

#[test]
fn a_stray_syn_makes_a_lost_rule_a_warning_within_a_moment() {
    // The SYN may be reported before the loss of the rule.
    let stray = format!("1001 syn eth0 {APP}:40002 {DATABASE}:3306 2 20; ~1000 from -{APP}");
    play!(two(), "{stray}; 1500 ? warning 0..1200 pod/app");
}

#[test]
fn a_lost_to_rule_is_a_warning_with_the_first_syn_of_a_neighbour_that_goes_round() {
    let mut scene = two();
    // Traffic to pods of other nodes belongs on the pod NIC.
    let elsewhere = "10.176.97.10:8080";
    play!(scene, "900 syn eth1 {PEER}:40001 {elsewhere} 1 10; 1000 to -{APP}");
    play!(scene, "1100 syn eth1 {PEER}:40001 {elsewhere} 2 10; 1200 ? info");
    play!(scene, "1210 syn eth1 {PEER}:40001 {APP}:8080 3 10 ? warning 1210 pod/app");
    play!(scene, "? evidence a SYN 10.176.98.30 -> 10.176.98.29 of the same node left by eth1");
    play!(scene, "1500 to +{APP} ? over");
}

#[test]
fn a_pod_that_is_made_again_meanwhile_acquits_nobody() {
    let mut scene = armed(&[("app", APP), ("app-peer", PEER), ("passer-by", PASSER)]);
    play!(scene, "1000 from -{APP}; 1000 from -{PEER}; 1000 from -{PASSER}; 1400 pod -passer-by {PASSER}");
    play!(scene, "1500 pod +passer-by {PASSER}; 1501 from +{PASSER}; 3100 ? warning 3000 node/worker-2");
    play!(scene, "3200 from +{APP} ? not over; 3201 from +{PEER} ? over");
}

#[test]
fn the_rules_of_all_pods_are_the_nodes() {
    play!(two(), "1000 from -{APP}; 1001 from -{PEER}; 3100 ? warning 0..3100 node/worker-2");
    // A node with one pod.
    play!(one(), "1000 from -{APP}; 3100 ? warning 0..3100 pod/app");
}

#[test]
fn one_rule_for_all_pods_counts_for_each() {
    let mut scene = Scene::new(NAME).on(NODE);
    let all: Prefix = "10.176.98.0/24".parse().unwrap();
    let rule = |change| Rule { change, priority: 90, from: Some(all), to: None, table: 2 }.into();
    scene.at(0, NODE, rule(Change::Present));
    play!(scene, "0 pod app {APP}; 0 pod app-peer {PEER}");
    scene.at(1_000, NODE, rule(Change::Removed));
    play!(scene, "3100 ? warning 0..3100 node/worker-2");
}

#[test]
fn twin_flushed_and_rebuilt_within_a_second_while_nobody_connects() {
    let mut scene = two();
    play!(scene, "1000 default -0; 1100 lookup {APP} {DATABASE} eth0; 1950 default +0");
    // The next look-up is late.
    play!(scene, "3300; 3300 lookup {APP} {DATABASE} eth1; 6000 ? quiet ? info ? over");
}

#[test]
fn twin_a_deleted_pod_takes_its_rules_along_in_either_order() {
    let rules = |at| format!("{at} from -{PEER}; {at} to -{PEER}");
    let pod = |at| format!("{at} pod -app-peer {PEER}");
    for steps in [[rules(1_000), pod(1_400)], [pod(1_000), rules(1_400)], [rules(1_000), pod(2_900)]] {
        let mut scene = two();
        play!(scene, "{}; 6000 ? quiet ? nothing stands", steps.join(";"));
    }
}

#[test]
fn twin_the_default_route_is_replaced_by_one_of_another_metric() {
    for replaced in ["1000 default +50; 1002 default -0", "1000 default -0; 1002 default +50"] {
        let mut scene = two();
        // The new one counts from then on.
        play!(scene, "{replaced}; 5000 ? quiet ? nothing stands; 6000 default -50; 8100 ? warning");
    }
}

/// A node whose agent starts now: what stands is reported, no change is.
fn started(state: &str) -> Scene {
    let mut scene = Scene::new(NAME).on(NODE);
    play!(scene, "0 link eth0 2; 0 link eth1 3; {state}");
    scene
}

fn rules(pod: &str) -> String {
    format!("0 from {pod}; 0 to {pod}")
}

#[test]
fn late_a_rule_that_leads_to_a_table_without_a_route() {
    let pods = format!("0 pod app {APP}; 0 pod app-peer {PEER}");
    let state = format!("{}; {}; {pods}", rules(APP), rules(PEER));
    let mut scene = started(&state);
    play!(
        scene,
        "1900 ? silence; 2100 ? warning 1950..2100 node/worker-2 ? evidence table 2 of worker-2 has had no route"
    );
    play!(scene, "3000 default +0 ? over");
    // A SYN that leaves by the wrong NIC is enough.
    for pod in [APP, PEER] {
        play!(started(&state), "700 syn eth0 {pod}:40002 {DATABASE}:3306 2 20; 750 ? warning 700..750 node/worker-2");
    }
    // It has its route.
    play!(started(&format!("{state}; 1 default 0")), "9000 ? silence");
    // Its NIC is gone.
    let mut scene = Scene::new(NAME).on(NODE);
    play!(scene, "0 link eth0 2; {state}; 9000 ? nothing");
}

#[test]
fn late_another_table_without_a_route_and_twin_the_kernels_own() {
    for (table, expected) in [(5, "warning 0..2100 node/worker-2"), (253, "nothing"), (254, "nothing")] {
        let mut scene = started(&format!("0 default 0; {}; 0 pod app {APP}", rules(APP)));
        let from = Some(Prefix::host(APP.parse().unwrap()));
        scene.at(0, NODE, Rule { change: Change::Present, priority: 1500, from, to: None, table }.into());
        play!(scene, "2100 ? {expected}");
    }
}

#[test]
fn late_the_rules_that_other_pods_of_the_node_have() {
    let pods = format!("0 default 0; 0 pod app {APP}; 0 pod app-peer {PEER}; 0 pod passer-by {PASSER}");
    for (own, named) in [(format!("0 to {APP}"), "from"), (format!("0 from {APP}"), "to")] {
        let mut scene = started(&format!("{pods}; {}; {}; {own}", rules(PEER), rules(PASSER)));
        play!(scene, "400 ? silence; 2100 ? warning 1950..2100 pod/app ? evidence the rule \"{named} {APP}");
        play!(scene, "3000 {named} +{APP} ? over");
    }
    // No pod of several has one, and nothing else uses the table.
    let mut scene = started(&pods);
    play!(scene, "2100 ? warning 1950..2100 node/worker-2; 3000 from +{APP}; 3000 from +{PEER} ? not over");
    play!(scene, "3000 from +{PASSER} ? over");
    // The third was created since.
    let mut scene = started(&format!("{pods}; {}", rules(PASSER)));
    play!(scene, "2100 ? warning 1950..2100 node/worker-2 ? evidence most pods of worker-2 lost their policy rules");
}

#[test]
fn late_twins_of_missing_rules() {
    let lone = format!("0 default 0; 0 pod app {APP}");
    play!(started(&lone), "9000 ? silence");
    let pods = format!("{lone}; 0 pod app-peer {PEER}");
    // Neither has a rule, and no table is there for them.
    play!(started(&pods.replace("0 default 0;", "")), "9000 ? silence");
    // A pod that belongs to the node's NIC gets answers there.
    let mut scene = started(&format!("{pods}; {}", rules(PEER)));
    play!(scene, "300 syn eth0 {APP}:40001 {DATABASE}:3306 1 10; 310 syn-ack eth0 {DATABASE}:3306 {APP}:40001 1");
    play!(scene, "9000 ? quiet");
    // A pod whose rules come a moment after it, and one that is about to leave.
    let mut scene = started(&format!("{lone}; {}; 0 pod app-peer {PEER}", rules(APP)));
    play!(scene, "300 pod -app-peer {PEER}; 1000 pod +app-peer {PEER}; 1300 from +{PEER}; 1300 to +{PEER}");
    play!(scene, "9000 ? silence");
}

#[test]
fn a_host_route_that_one_pod_of_many_lacks() {
    let host = |change, address: &str| {
        let destination = Some(Prefix::host(address.parse().unwrap()));
        let link = Some("veth".to_owned());
        Route { change, table: 254, destination, gateway: None, link, metric: 0 }.into()
    };
    let has = |scene: &mut Scene, pods: &[&str]| {
        pods.iter().for_each(|pod| scene.at(4, NODE, host(Change::Present, pod)));
    };
    let mut late = two();
    has(&mut late, &[PEER]);
    play!(late, "1900 ? silence; 2100 ? warning 1950..2100 pod/app ? evidence no route to pod app");
    late.at(3_000, NODE, host(Change::Added, APP));
    play!(late, "3050 ? over");
    // Lost while it is watched; a pod that is deleted lost it too.
    let mut scene = armed(&[("app", APP), ("app-peer", PEER), ("passer-by", PASSER)]);
    has(&mut scene, &[APP, PEER, PASSER]);
    scene.at(5_000, NODE, host(Change::Removed, APP));
    scene.at(5_000, NODE, host(Change::Removed, PASSER));
    play!(scene, "5400 pod -passer-by {PASSER}; 6900 ? silence; 7100 ? warning 7000..7100 pod/app");
    // Twin: a cluster whose nodes have none.
    play!(two(), "9000 ? silence");
}

fn route(change: Change, destination: Option<&str>, gateway: Option<&str>, link: &str) -> Route {
    let (destination, gateway) = (destination.map(|to| to.parse().unwrap()), gateway.map(|via| via.parse().unwrap()));
    Route { change, table: 2, destination, gateway, link: Some(link.into()), metric: 0 }
}

#[test]
fn a_default_route_that_leads_elsewhere_is_a_loss() {
    let mut scene = two();
    scene.at(1_000, NODE, route(Change::Changed, None, Some("10.176.64.1"), "eth0").into());
    play!(scene, "3100 ? warning 0..3100 node/worker-2");
}

#[test]
fn a_route_below_the_default_is_not_missed() {
    let mut scene = two();
    for (at, change) in [(10, Change::Added), (1_000, Change::Removed)] {
        scene.at(at, NODE, route(change, Some("10.176.46.0/24"), None, "eth1").into());
    }
    play!(scene, "4000 ? silence");
}

#[test]
fn look_ups_alone_tell_a_rule_that_shadows_others() {
    for (app, peer, expected) in
        [("eth0", "eth1", "warning 2900 pod/app"), ("nowhere", "nowhere", "warning 0..3900 node/worker-2")]
    {
        let mut scene = two();
        for at in (1_000..4_000).step_by(100) {
            play!(scene, "{at} lookup {APP} {DATABASE} {app}; {at} lookup {PEER} {DATABASE} {peer}");
        }
        play!(scene, "? {expected}");
    }
}

#[test]
fn destinations_that_always_left_by_the_nodes_nic_are_no_loss() {
    let mut scene = two();
    for step in 0..50 {
        play!(scene, "{} lookup {APP} 8.8.8.8 eth0 ? silence", step * 100);
    }
}

#[test]
fn a_lost_pod_nic_is_not_this_detectors() {
    let mut scene = two();
    // The removal of routes may be reported shortly before that of the link.
    play!(scene, "1000 default -0; 1001 link -eth1 3");
    for step in 0..40 {
        play!(scene, "{} lookup {APP} {DATABASE} eth0", 1_050 + step * 100);
    }
    play!(scene, "? info ? nothing stands");
    // It comes back; its routes do not.
    play!(scene, "5500 link +eth1 7; 7450 ? info; 7550 ? warning");
}

#[test]
fn an_interface_that_goes_down_flushes_routes_without_a_word() {
    // Rebuilt in time.
    play!(two(), "1000 link *eth1 3 down; 1500 link *eth1 3; 1510 default +0; 6000 ? info ? over");
}

#[test]
fn a_node_without_pods_misses_nothing() {
    play!(armed(&[]), "1000 default -0; 5000 ? silence");
}

#[test]
fn the_rules_of_a_nodes_only_pod_are_the_nodes_too() {
    let mut scene = one();
    play!(scene, "1000 from -{APP}; 1500");
    assert!(scene.findings.iter().all(|(_, finding)| finding.subject.to_string() == "pod/app"));
    play!(scene, "1600 to -{APP}; 3700");
    let loud = scene.findings.iter().filter(|(_, f)| f.detector == NAME && f.severity >= Severity::Warning);
    let subjects: std::collections::BTreeSet<String> = loud.map(|(_, f)| f.subject.to_string()).collect();
    assert_eq!(subjects.into_iter().collect::<Vec<_>>(), ["node/worker-2", "pod/app"]);
}
