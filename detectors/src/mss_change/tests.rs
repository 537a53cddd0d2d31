use crate::finding::Severity;
use crate::testing::{Scene, Tcp};

const NAME: &str = "mss-change";
const PATH: &str = "path/192.168.40.0/24";
const NODE: &str = "worker-1";

/// One large download that goes well; `mss` is the client's.
fn download(scene: &mut Scene, at: u64, remote: &str, mss: u16) {
    let tcp = Tcp::office(remote);
    let payload = u32::from(mss) - 12;
    scene.at(at, NODE, tcp.syn(mss));
    scene.at(at + 1, NODE, tcp.request());
    scene.at(at + 2, NODE, tcp.data(1, payload));
    scene.at(at + 3, NODE, tcp.acked(1 + payload));
}

/// One whose large packets vanish.
fn vanishes(scene: &mut Scene, at: u64, remote: &str, mss: u16) {
    let tcp = Tcp::office(remote);
    scene.at(at, NODE, tcp.syn(mss));
    scene.at(at + 1, NODE, tcp.request());
    for after in [2, 22, 210, 620] {
        scene.at(at + after, NODE, tcp.data(1, u32::from(mss) - 12));
    }
}

/// A baseline with clamp 1280; with the headless path, 1400 bytes are proven too.
fn baseline(headless: bool) -> Scene {
    let mut scene = Scene::new();
    download(&mut scene, 0, "192.168.40.7:40000", 1280);
    if headless {
        download(&mut scene, 50, "192.168.40.7:41000", 1280);
        let tcp = Tcp::office("192.168.40.7:42000");
        scene.at(60, NODE, tcp.data(1, 1348));
        scene.at(61, NODE, tcp.acked(1349));
    }
    scene
}

#[test]
fn incident_info_with_the_first_syn_warning_with_the_first_timeout() {
    let mut scene = baseline(false);
    vanishes(&mut scene, 1_000, "192.168.40.7:40001", 1380);
    assert_eq!(scene.first(NAME, Severity::Info), Some((1_000, PATH.into())));
    let (at, _) = scene.first(NAME, Severity::Warning).unwrap();
    assert!((1_210..=1_300).contains(&at), "{at}");
    assert_eq!(
        scene.evidence(NAME),
        "SYN MSS from 192.168.40.0/24 rose 1280 -> 1380; a 1420-byte packet was sent 3 times, largest acknowledged 1320"
    );
    download(&mut scene, 3_000, "192.168.40.7:40002", 1280);
    assert!(scene.cleared(NAME));
}

#[test]
fn incident_where_the_baseline_proved_a_size_the_syn_is_enough() {
    let mut scene = baseline(true);
    scene.at(1_000, NODE, Tcp::office("192.168.40.7:40001").syn(1380));
    scene.until(1_800);
    let (at, subject) = scene.first(NAME, Severity::Warning).unwrap();
    assert!(at <= 1_750 && subject == PATH, "{at}");
    assert!(scene.evidence(NAME).contains("1420 bytes, and the largest ever acknowledged is 1400"));
}

#[test]
fn incident_where_a_larger_size_was_proven_a_tenth_of_a_second_is_enough() {
    let mut scene = baseline(true);
    let tcp = Tcp::office("192.168.40.7:40001");
    scene.at(1_000, NODE, tcp.syn(1380));
    scene.at(1_001, NODE, tcp.request());
    for after in [2, 22] {
        scene.at(1_000 + after, NODE, tcp.data(1, 1368));
    }
    for step in 3..20 {
        scene.at(1_000 + step * 10, NODE, Tcp::office("192.168.41.7:45000").acked(5));
    }
    let (at, subject) = scene.first(NAME, Severity::Warning).unwrap();
    assert!((1_100..=1_160).contains(&at) && subject == PATH, "{at}");
    assert!(scene.evidence(NAME).contains("1420-byte packets are not acknowledged"), "{}", scene.evidence(NAME));
}

#[test]
fn twin_the_acknowledgment_of_a_single_larger_packet_is_delayed() {
    let mut scene = baseline(true);
    let tcp = Tcp::office("192.168.40.7:40001");
    scene.at(1_000, NODE, tcp.syn(1380));
    scene.at(1_001, NODE, tcp.request());
    scene.at(1_002, NODE, tcp.data(1, 1368));
    for step in 0..9 {
        scene.at(1_010 + step * 20, NODE, Tcp::office("192.168.41.7:45000").acked(5));
    }
    scene.at(1_202, NODE, tcp.acked(1369));
    scene.until(5_000);
    scene.assert_quiet();
}

#[test]
fn incident_on_a_path_whose_mtu_is_declared() {
    let mut scene = Scene::new();
    download(&mut scene, 0, "192.168.60.7:40000", 1280);
    scene.at(1_000, NODE, Tcp::office("192.168.60.7:40001").syn(1361));
    assert_eq!(scene.first(NAME, Severity::Warning), Some((1_000, "path/192.168.60.0/24".into())));
    let mut scene = Scene::new();
    download(&mut scene, 0, "192.168.60.7:40000", 1280);
    scene.at(1_000, NODE, Tcp::office("192.168.60.7:40001").syn(1360));
    scene.until(5_000);
    scene.assert_quiet();
}

#[test]
fn timeouts_of_sockets_tell_where_segments_are_not_seen() {
    let mut scene = Scene::new();
    let tcp = Tcp::office("192.168.40.7:40000");
    scene.at(0, NODE, tcp.syn(1280));
    scene.at(10, NODE, tcp.socket(1268, 0, 90_000, 0));
    scene.at(110, NODE, tcp.socket(1268, 60_000, 30_000, 0));
    let tcp = Tcp::office("192.168.40.7:40001");
    scene.at(1_000, NODE, tcp.syn(1380));
    scene.at(1_300, NODE, tcp.socket(1368, 0, 90_000, 1));
    scene.assert_quiet();
    scene.at(1_700, NODE, tcp.socket(1368, 0, 90_000, 2));
    assert_eq!(scene.first(NAME, Severity::Warning), Some((1_700, PATH.into())));
}

#[test]
fn twin_the_new_clamp_still_fits() {
    for headless in [true, false] {
        let mut scene = baseline(headless);
        for step in 0..20 {
            download(&mut scene, 1_000 + step * 100, &format!("192.168.40.7:{}", 43_000 + step), 1340);
        }
        scene.until(6_000);
        assert_eq!(scene.worst(NAME), Some(Severity::Info));
        scene.assert_quiet();
    }
}

#[test]
fn twin_it_fits_and_exceeds_what_was_proven() {
    // 1300 proven by another way; the new clamp needs 1340, and the first download proves it.
    let mut scene = Scene::new();
    download(&mut scene, 0, "192.168.40.7:40000", 1200);
    let tcp = Tcp::office("192.168.40.7:42000");
    scene.at(60, NODE, tcp.data(1, 1248));
    scene.at(61, NODE, tcp.acked(1249));
    download(&mut scene, 1_000, "192.168.40.7:40001", 1300);
    scene.until(5_000);
    scene.assert_quiet();
}

#[test]
fn twin_new_clients_with_another_mss() {
    // On a path of their own, and beside clients of a known path that keep theirs.
    for (host, declared) in [("192.168.70.9", false), ("192.168.40.9", false), ("192.168.60.9", true)] {
        let mut scene = baseline(true);
        if declared {
            download(&mut scene, 70, "192.168.60.7:40000", 1280);
        }
        for step in 0..20 {
            download(&mut scene, 1_000 + step * 100, &format!("{host}:{}", 43_000 + step), 1460);
            let known = if declared { "192.168.60.7" } else { "192.168.40.7" };
            download(&mut scene, 1_050 + step * 100, &format!("{known}:{}", 44_000 + step), 1280);
        }
        scene.until(6_000);
        scene.assert_quiet();
    }
}

#[test]
fn twin_ipv6_clients_announce_twenty_less() {
    let mut scene = baseline(false);
    for step in 0..10 {
        scene.at(1_000 + step * 50, NODE, Tcp::office(&format!("[2001:db8:40::7]:{}", 40_000 + step)).syn(1260));
    }
    assert_eq!(scene.worst(NAME), None);
}

#[test]
fn ipv6_counts_its_longer_header() {
    let mut scene = Scene::new();
    download(&mut scene, 0, "[2001:db8:40::7]:40000", 1260);
    vanishes(&mut scene, 1_000, "[2001:db8:40::7]:40001", 1360);
    scene.until(2_000);
    assert!(scene.evidence(NAME).contains("a 1420-byte packet"), "{}", scene.evidence(NAME));
    assert!(scene.evidence(NAME).contains("from 2001:db8:40::/64"));
}

#[test]
fn a_whole_population_of_new_addresses_is_a_rise_of_the_path() {
    let mut scene = baseline(true);
    for step in 0..12 {
        let tcp = Tcp::office(&format!("192.168.40.{}:40000", 100 + step));
        scene.at(1_000 + step * 100, NODE, tcp.syn(1380));
    }
    scene.until(3_000);
    assert_eq!(scene.worst(NAME), Some(Severity::Warning));
}

#[test]
fn a_clamp_that_is_lowered_says_nothing() {
    let mut scene = baseline(true);
    download(&mut scene, 1_000, "192.168.40.7:40001", 1200);
    download(&mut scene, 2_000, "192.168.40.7:40002", 1280);
    assert_eq!(scene.findings, []);
}
