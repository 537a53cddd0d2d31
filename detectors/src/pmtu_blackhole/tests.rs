use crate::finding::Severity;
use crate::testing::{Scene, Tcp};

const NAME: &str = "pmtu-blackhole";
const PATH: &str = "path/192.168.40.0/24";
const NODE: &str = "worker-1";

/// A small request and its response on a connection of its own.
fn small(scene: &mut Scene, at: u64, remote: &str, mss: u16) {
    let tcp = Tcp::office(remote);
    scene.at(at, NODE, tcp.syn(mss));
    scene.at(at + 1, NODE, tcp.request());
    scene.at(at + 2, NODE, tcp.data(1, 600));
    scene.at(at + 3, NODE, tcp.acked(601));
}

fn large(scene: &mut Scene, at: u64, remote: &str, mss: u16) {
    let tcp = Tcp::office(remote);
    let payload = u32::from(mss) - 12;
    scene.at(at, NODE, tcp.syn(mss));
    scene.at(at + 1, NODE, tcp.request());
    scene.at(at + 2, NODE, tcp.data(1, payload));
    scene.at(at + 3, NODE, tcp.acked(1 + payload));
}

/// A large response whose packets vanish, as segments and as the socket shows it every 100 ms.
fn stalls(scene: &mut Scene, at: u64, remote: &str, mss: u16, alive: Option<&str>) {
    let tcp = Tcp::office(remote);
    let payload = u32::from(mss) - 12;
    scene.at(at, NODE, tcp.syn(mss));
    scene.at(at + 1, NODE, tcp.request());
    scene.at(at + 2, NODE, tcp.data(1, payload));
    for step in 1..12_u64 {
        let now = at + step * 100;
        if step == 3 || step == 7 {
            scene.at(now - 10, NODE, tcp.data(1, payload));
        }
        let retransmits = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2][usize::try_from(step).unwrap()];
        scene.at(now, NODE, tcp.socket(payload, 0, 200_000, retransmits));
        if let Some(host) = alive {
            small(scene, now + 50, &format!("{host}:{}", 50_000 + step + at), mss);
        }
    }
}

/// The clamp goes from 1280 to 1380 at 1 s and back at 3 s.
pub(crate) fn incident() -> Scene {
    let mut scene = Scene::new();
    for step in 0..5 {
        large(&mut scene, step * 100, &format!("192.168.40.7:{}", 40_000 + step), 1280);
        small(&mut scene, step * 100 + 50, &format!("192.168.40.7:{}", 41_000 + step), 1280);
        large(&mut scene, step * 100 + 70, &format!("192.168.50.7:{}", 41_000 + step), 1280);
    }
    stalls(&mut scene, 1_000, "192.168.40.7:42000", 1380, Some("192.168.40.7"));
    scene.until(3_000);
    for step in 0..30 {
        large(&mut scene, 3_000 + step * 100, &format!("192.168.40.7:{}", 43_000 + step), 1280);
    }
    scene
}

#[test]
fn incident_after_two_timeouts_while_small_packets_pass() {
    let scene = incident();
    assert_eq!(scene.first(NAME, Severity::Warning), Some((1_700, PATH.into())));
    assert!(
        scene.evidence(NAME).contains("1420-byte packets 3 times, largest acknowledged from 192.168.40.0/24 1320"),
        "{}",
        scene.evidence(NAME)
    );
    assert_eq!(scene.first("mss-change", Severity::Warning).unwrap().1, PATH);
    assert!(scene.cleared(NAME) && scene.cleared("mss-change"));
    assert!(!scene.findings.iter().any(|(_, finding)| finding.subject.to_string().contains(".50.")));
}

#[test]
fn without_segments_sockets_alone_tell() {
    let mut scene = Scene::new();
    let good = Tcp::office("192.168.40.7:40000");
    scene.at(0, NODE, good.socket(1268, 0, 90_000, 0));
    scene.at(100, NODE, good.socket(1268, 60_000, 30_000, 0));
    let (stuck, other) = (Tcp::office("192.168.40.7:40001"), Tcp::office("192.168.40.7:40002"));
    for (at, retransmits) in [(1_000, 0), (1_100, 0), (1_300, 1), (1_700, 2)] {
        scene.at(at, NODE, stuck.socket(1368, 0, 90_000, retransmits));
        scene.at(at + 10, NODE, other.socket(1368, at, 0, 0));
    }
    assert_eq!(scene.first(NAME, Severity::Warning), Some((1_700, PATH.into())));
}

#[test]
fn one_consecutive_timeout_is_not_enough() {
    let mut scene = Scene::new();
    large(&mut scene, 0, "192.168.40.7:40000", 1280);
    let tcp = Tcp::office("192.168.40.7:40001");
    for step in 0..10 {
        scene.at(1_000 + step * 100, NODE, tcp.socket(1368, 0, 90_000, 1));
        small(&mut scene, 1_050 + step * 100, &format!("192.168.40.7:{}", 50_000 + step), 1380);
    }
    assert_eq!(scene.worst(NAME), None);
}

#[test]
fn twin_a_client_dies_in_the_middle_of_a_download() {
    // Its neighbours go on. The size was proven by its own download, by others, or not at all.
    for proven in [Some(1280), Some(1380), None] {
        let mut scene = Scene::new();
        if let Some(mss) = proven {
            large(&mut scene, 0, "192.168.40.8:40000", mss);
        }
        large(&mut scene, 100, "192.168.40.7:40000", 1380);
        let tcp = Tcp::office("192.168.40.7:40001");
        scene.at(500, NODE, tcp.syn(1380));
        scene.at(501, NODE, tcp.request());
        scene.at(510, NODE, tcp.socket(1368, 20_000, 90_000, 0));
        // Dead from here: what it had open besides stays without an answer too.
        let idle = Tcp::office("192.168.40.7:40009");
        for (at, retransmits) in [(600, 0), (820, 1), (1_300, 2), (2_200, 3)] {
            scene.at(at, NODE, tcp.socket(1368, 50_000, 90_000, retransmits));
            scene.at(at + 1, NODE, idle.socket(1368, 700, 90, retransmits));
            small(&mut scene, at + 50, &format!("192.168.40.8:{}", 50_000 + at), 1280);
        }
        scene.until(6_000);
        assert_eq!(scene.worst(NAME), None, "{proven:?}");
        scene.assert_quiet();
    }
}

#[test]
fn twin_a_dead_client_that_goes_on_sending_still_receives_nothing() {
    let mut scene = Scene::new();
    large(&mut scene, 0, "192.168.40.8:40000", 1280);
    let tcp = Tcp::office("192.168.40.7:40001");
    scene.at(400, NODE, tcp.syn(1380));
    scene.at(401, NODE, tcp.request());
    for (at, retransmits) in [(500, 0), (720, 1), (1_200, 2), (2_000, 3)] {
        scene.at(at, NODE, tcp.socket(1368, 0, 90_000, retransmits));
        scene.at(at + 10, NODE, Tcp::office("192.168.40.7:40002").syn(1380));
        scene.at(at + 20, NODE, tcp.request());
    }
    assert_eq!(scene.worst(NAME), None);
}

#[test]
fn twin_the_new_clamp_still_fits_and_a_packet_is_lost_now_and_then() {
    let mut scene = Scene::new();
    large(&mut scene, 0, "192.168.40.7:40000", 1280);
    large(&mut scene, 1_000, "192.168.40.7:40001", 1340);
    let tcp = Tcp::office("192.168.40.7:40002");
    for (at, retransmits) in [(1_100, 0), (1_400, 1), (1_800, 2)] {
        scene.at(at, NODE, tcp.socket(1328, 9_000, 90_000, retransmits));
        small(&mut scene, at + 50, &format!("192.168.40.7:{}", 50_000 + at), 1340);
    }
    scene.assert_quiet();
}

#[test]
fn two_clients_stuck_alike_while_the_path_carries_small_packets() {
    let mut scene = Scene::new();
    large(&mut scene, 0, "192.168.40.9:40000", 1280);
    let clients = [Tcp::office("192.168.40.7:40001"), Tcp::office("192.168.40.8:40001")];
    for (at, retransmits) in [(1_000, 0), (1_300, 1), (1_700, 2)] {
        for tcp in &clients {
            scene.at(at, NODE, tcp.socket(1368, 0, 90_000, retransmits));
        }
        small(&mut scene, at + 60, &format!("192.168.40.9:{}", 50_000 + at), 1280);
    }
    assert_eq!(scene.first(NAME, Severity::Critical), Some((1_700, PATH.into())));
}

#[test]
fn what_every_path_carries_is_no_large_packet() {
    let mut scene = Scene::new();
    let (stuck, other) = (Tcp::office("192.168.40.7:40001"), Tcp::office("192.168.40.7:40002"));
    for (at, retransmits) in [(1_000, 0), (1_300, 1), (1_700, 2)] {
        scene.at(at, NODE, stuck.socket(1368, 0, 500, retransmits));
        scene.at(at + 10, NODE, other.socket(1368, at, 0, 0));
    }
    assert_eq!(scene.worst(NAME), None);
}
