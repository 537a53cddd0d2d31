use super::*;
use crate::testing::{Scene, play};

const NAME: &str = INFO.name;
const POD: &str = "10.176.98.29:40001";
const DATABASE: &str = "10.176.46.4:3306";

fn armed() -> Scene {
    let mut scene = Scene::new(NAME).on("worker-2");
    play!(scene, "0 link eth1 3");
    scene
}

#[test]
fn incident_at_the_first_retransmission_critical_once_icmp_is_answered() {
    let mut scene = armed();
    // A single SYN may be in flight, and the echo came before it.
    play!(scene, "900 probe echo 10.176.46.4 ok; 1000 syn eth0 {POD} {DATABASE} 7 1; 2000 ? nothing");
    play!(scene, "2030 syn eth0 {POD} {DATABASE} 7 2 ? warning");
    play!(scene, "2100 probe echo 10.176.46.4 ok ? critical 2100 node/worker-2");
    // After three times the second between two such SYNs.
    play!(scene, "5100 ? not over; 5200 ? over");
}

/// Clients that give up after 400 ms: one SYN each, 50 ms apart.
fn one_syn_each(scene: &mut Scene, at: u64, count: u64) {
    for n in 0..count {
        play!(scene, "{} syn eth0 10.176.98.29:{} {DATABASE} {n} 1", at + n * 50, 41_000 + n);
    }
}

#[test]
fn incident_several_syns_of_clients_that_give_up_before_they_send_again() {
    let mut scene = armed();
    one_syn_each(&mut scene, 1_000, 12);
    play!(
        scene,
        "4000 ? warning 1500 node/worker-2 ? evidence is one of 3 to this destination without an answer for 0.4 s ? over"
    );
    let findings = scene.findings.iter().filter(|(_, f)| f.detector == NAME && !f.cleared);
    assert_eq!(findings.count(), 1, "only one finding");
}

#[test]
fn incident_a_client_that_calls_once_a_second_and_gives_up() {
    let mut scene = armed();
    for n in 0..8 {
        play!(scene, "{} syn eth0 10.176.98.29:{} {DATABASE} {n} 1", 1_000 + n * 1_000, 41_000 + n);
    }
    play!(scene, "8100 ? warning 3400 node/worker-2 ? not over; 12000 ? over");
}

#[test]
fn several_syns_count_only_while_none_is_answered_and_the_pod_has_not_come_back() {
    let answered = format!("1200 syn-ack eth1 {DATABASE} 10.176.98.29:41001 1");
    let table_back = format!("1350 syn eth1 {POD} {DATABASE} 8 2");
    // Two may just be lost.
    for (count, then) in [(2, ""), (3, &*answered), (6, &*table_back)] {
        let mut scene = armed();
        one_syn_each(&mut scene, 1_000, count);
        play!(scene, "{then}; 5000 ? nothing");
    }
}

#[test]
fn far_away_an_answer_may_take_longer() {
    let mut scene = armed();
    play!(scene, "100 syn eth1 {POD} {DATABASE} 90 1; 700 syn-ack eth1 {DATABASE} {POD} 90");
    one_syn_each(&mut scene, 1_000, 3);
    for n in 0..3 {
        play!(scene, "{} syn-ack eth0 {DATABASE} 10.176.98.29:{} {n}", 1_600 + n * 50, 41_000 + n);
    }
    play!(scene, "5000 ? silence");
}

#[test]
fn over_when_the_pod_leaves_by_its_own_nic_again() {
    let mut scene = armed();
    play!(scene, "1000 syn eth0 {POD} {DATABASE} 7 1; 2000 syn eth0 {POD} {DATABASE} 7 2");
    // First another pod, then this one.
    play!(scene, "2010 syn eth1 10.176.98.30:1 {DATABASE} 9 2 ? not over");
    play!(scene, "2020 syn eth1 10.176.98.29:40002 {DATABASE} 8 2 ? over");
}

/// A SYN-ACK of the pod to an ingress on another node, and its ACK.
const INGRESS: &str = "10.176.97.10:50000";

#[test]
fn incident_at_the_first_retransmission_of_a_back_ends_syn_ack() {
    let mut scene = armed();
    play!(scene, "1000 out eth0 {POD} {INGRESS} SA 7 1 1; 1900 ? nothing");
    play!(scene, "2030 out eth0 {POD} {INGRESS} SA 7 1 2 ? warning 2030 node/worker-2");
    play!(scene, "? evidence SYN-ACK {POD} -> {INGRESS} left worker-2 by eth0 instead of eth1");
    play!(scene, "3000 out eth1 {POD} {INGRESS} SA 9 1 3 ? over");
}

#[test]
fn syn_acks_that_are_acknowledged_by_the_nodes_nic_are_at_home() {
    let mut scene = armed();
    play!(scene, "1000 out eth0 {POD} {INGRESS} SA 7 1 1; 1001 in eth0 {INGRESS} {POD} A 2 8 1");
    // A client that died.
    play!(scene, "2000 out eth0 {POD} {INGRESS} SA 90 1 1; 3000 out eth0 {POD} {INGRESS} SA 90 1 2 ? silence");
}

#[test]
fn clients_outside_that_still_reach_the_pod_do_not_end_the_incident() {
    let mut scene = armed();
    play!(scene, "1000 out eth0 {POD} {DATABASE} S 7 0 1; 2030 out eth0 {POD} {DATABASE} S 7 0 2");
    play!(scene, "? warning 2030 node/worker-2");
    play!(scene, "2100 out eth0 {POD} 192.168.40.10:50000 SA 30 1 1");
    play!(scene, "2101 in eth0 192.168.40.10:50000 {POD} A 2 31 1 ? not over");
}

#[test]
fn a_dead_server_behind_the_pod_nic_is_no_matter() {
    let mut scene = armed();
    for at in [1_000, 2_000, 4_000] {
        play!(scene, "{at} syn eth1 {POD} {DATABASE} 7 1 ? silence");
    }
}

#[test]
fn a_refused_connection_is_answered() {
    let mut scene = armed();
    // Refused at once, again and again, and a client that gives up early.
    for (n, at) in (1..).zip([1_000, 1_100, 1_200, 1_300, 2_000]) {
        let pod = format!("10.176.98.29:{}", 41_000 + n);
        play!(scene, "{at} syn eth0 {pod} {DATABASE} {n} 1; {} in eth0 {DATABASE} {pod} RA 0 {} 1", at + 1, n + 1);
    }
    play!(scene, "2400 syn eth0 {POD} {DATABASE} 90 1; 3430 syn eth0 {POD} {DATABASE} 90 2 ? silence");
    // A SYN-ACK that the client no longer wants.
    let mut scene = armed();
    play!(scene, "1000 out eth0 {POD} {INGRESS} SA 7 1 1; 1001 in eth0 {INGRESS} {POD} R 1 0 1");
    play!(scene, "2000 out eth0 {POD} {INGRESS} SA 90 1 1; 3000 out eth0 {POD} {INGRESS} SA 90 1 2 ? silence");
    // The answer to another SYN proves nothing.
    let mut scene = armed();
    play!(scene, "1000 syn eth0 {POD} {DATABASE} 7 1; 1100 in eth0 {DATABASE} {POD} RA 0 99 1");
    play!(scene, "2030 syn eth0 {POD} {DATABASE} 7 2 ? warning");
}

#[test]
fn twin_a_dead_server_that_answered_by_the_nodes_nic_before() {
    let mut scene = armed();
    play!(scene, "500 syn eth0 {POD} {DATABASE} 3 1; 501 syn-ack eth0 {DATABASE} {POD} 3");
    // Other destinations are reached by the pod NIC.
    play!(scene, "600 syn eth1 {POD} 10.176.46.9:80 4 1; 601 syn-ack eth1 10.176.46.9:80 {POD} 4");
    play!(scene, "1000 syn eth0 {POD} {DATABASE} 7 1; 2030 syn eth0 {POD} {DATABASE} 7 2");
    one_syn_each(&mut scene, 3_000, 12);
    play!(scene, "5000 ? silence");
    // Once it was reached by the pod NIC, the node's is wrong.
    play!(scene, "6000 syn eth1 {POD} {DATABASE} 8 1; 6001 syn-ack eth1 {DATABASE} {POD} 8");
    play!(scene, "7000 syn eth0 {POD} {DATABASE} 9 1; 8030 syn eth0 {POD} {DATABASE} 9 2 ? warning");
}

#[test]
fn twin_a_dead_server_for_which_the_pods_table_has_an_exception() {
    let to = Some("10.176.46.0/24".parse().unwrap());
    let route = |change, link: &str| Route {
        change,
        table: 2,
        destination: to,
        gateway: Some("10.176.64.1".parse().unwrap()),
        link: Some(link.into()),
        metric: 0,
    };
    let rule = |change| Rule { change, priority: 400, from: None, to, table: 254 };
    let exceptions: [(Observed, Observed); 2] = [
        (route(Change::Present, "eth0").into(), route(Change::Removed, "eth0").into()),
        (rule(Change::Added).into(), rule(Change::Removed).into()),
    ];
    for (added, removed) in exceptions {
        let mut scene = armed();
        scene.at(10, "worker-2", added);
        play!(scene, "1000 syn eth0 {POD} {DATABASE} 7 1; 2030 syn eth0 {POD} {DATABASE} 7 2 ? silence");
        scene.at(3_000, "worker-2", removed);
        play!(scene, "4000 syn eth0 {POD} {DATABASE} 8 1; 5030 syn eth0 {POD} {DATABASE} 8 2 ? warning");
    }
}

#[test]
fn pods_at_home_on_the_nodes_nic_and_nodes_without_another() {
    let mut home = armed();
    play!(home, "500 syn eth0 {POD} 10.176.46.9:80 3 1; 501 syn-ack eth0 10.176.46.9:80 {POD} 3");
    for mut scene in [home, Scene::new(NAME).on("worker-2")] {
        for at in [1_000, 2_000, 4_000] {
            play!(scene, "{at} syn eth0 {POD} {DATABASE} 7 1");
        }
        play!(scene, "5000 ? silence");
    }
}

#[test]
fn the_same_syn_seen_twice_at_once_is_not_a_retransmission() {
    let mut scene = armed();
    play!(scene, "1000 syn eth0 {POD} {DATABASE} 7 1; 1001 syn eth0 {POD} {DATABASE} 7 1; 1500 ? silence");
}
