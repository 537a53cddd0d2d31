use super::scene::{Scene, an_answered_syn, app, by_ingress, database, end, leg, unanswered_syns};
use crate::triage::Outcome;

#[test]
fn syns_of_a_pod_leave_by_the_nodes_nic() {
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    an_answered_syn(&mut scene);
    scene.leads(600, "nothing");
    unanswered_syns(&mut scene, "eth0");
    scene.play("1200 probe echo 10.176.46.4 ok; 1200 @worker-1 probe echo 10.176.46.4 ok");
    scene.leads(1_500, "6 node/worker-2");
    // It leaves by its own NIC again.
    scene.triage.begin_again();
    scene.play("1600 syn eth1 10.176.98.29:42001 10.176.46.4:3306 9 1; 1601 syn-ack eth1 10.176.46.4:3306 10.176.98.29:42001 9");
    scene.leads(2_100, "nothing");
}

#[test]
fn syn_acks_of_a_pod_leave_by_the_nodes_nic() {
    let legs = || vec![leg(end("office/beijing", "192.168.40.10", None), app(), 8080)];
    let mut scene = Scene::new(legs(), Outcome::Timeout);
    for number in 0..3 {
        let (at, client, syn) = (1_000 + number, format!("192.168.40.10:{}", 41_000 + number), 100 + number);
        scene.play(&format!(
            "{at} in eth1 {client} 10.176.98.29:8080 S {syn} 0 1; {at} syn vetha {client} 10.176.98.29:8080 {syn} 1"
        ));
        scene.play(&format!("{at} out eth0 10.176.98.29:8080 {client} SA 70000 {} 1", syn + 1));
    }
    scene.leads(1_500, "6 node/worker-2");
}

#[test]
fn source_nat_reuses_a_port_and_the_server_answers_others() {
    let account = || end("outside/account", "10.200.0.5", None);
    let mut scene = Scene::new(vec![leg(app(), account(), 443)], Outcome::Timeout);
    let connect = |scene: &mut Scene, at: u64, source: &str, port: u16, number: u64, answered: bool| {
        let node = format!("10.176.64.12:{port}");
        scene.play(&format!(
            "{at} in vetha {source} 10.200.0.5:443 S {number} 0 1; {at} syn eth1 {node} 10.200.0.5:443 {number} 1"
        ));
        if answered {
            scene.play(&format!("{} syn-ack eth1 10.200.0.5:443 {node} {number}", at + 1));
            scene.play(&format!("{} out vetha 10.200.0.5:443 {source} SA 7 {} 1", at + 1, number + 1));
        }
    };
    connect(&mut scene, 500, "10.176.98.60:40000", 46_994, 70, true);
    connect(&mut scene, 600, "10.176.98.29:40001", 46_995, 71, true);
    scene.leads(700, "nothing");
    connect(&mut scene, 1_000, "10.176.98.29:40002", 46_994, 72, false);
    connect(&mut scene, 1_200, "10.176.98.29:40003", 46_996, 73, true);
    scene.leads(1_500, "6 node/worker-2");
}

#[test]
fn clients_whose_connects_do_not_arrive_any_more_are_lost_on_their_path() {
    let legs = || vec![leg(end("office/beijing", "192.168.40.10", None), app(), 8080)];
    let scene = |last: u64| {
        let mut scene = Scene::new(legs(), Outcome::Timeout);
        for number in 0..=last / 100 {
            let (at, near) = (number * 100, format!("192.168.40.10:{}", 40_000 + number));
            scene.play(&format!("{at} in eth1 {near} 10.176.98.29:8080 S {number}000 0 1"));
            scene.play(&format!("{at} out eth1 10.176.98.29:8080 {near} SA 5{number} {number}001 1"));
        }
        scene
    };
    scene(1000).leads(2500, "6 path/192.168.40.0/24");
    scene(2200).leads(2500, "nothing");
}

#[test]
fn large_segments_to_one_office_are_lost() {
    let mut scene = Scene::new(by_ingress(), Outcome::Timeout);
    scene.answers(500, "10.176.98.40:8080", 8, 1, None);
    let other = |scene: &mut Scene, at: u64| {
        let number = 7_000 + at;
        scene.play(&format!("{at} @worker-1 in eth1 192.168.50.10:{number} 10.176.98.10:80 S {number} 0 1"));
        scene.play(&format!(
            "{} @worker-1 out eth1 10.176.98.10:80 192.168.50.10:{number} SA 7 {} 1",
            at + 1,
            number + 1
        ));
    };
    other(&mut scene, 900);
    let socket = |retransmits: u8| format!("@worker-1 office 192.168.40.10:50836 socket 1368 1 8000 {retransmits}");
    scene.play(&format!("1000 {}", socket(1)));
    scene.leads(1_050, "nothing");
    scene.play(&format!("1600 {}", socket(2)));
    scene.leads(1_700, "6 path/192.168.40.0/24");
    assert!(scene.verdict(1_750).steps[5].evidence.contains("clients elsewhere are served"));
}
