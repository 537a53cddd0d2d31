use crate::testing::{Scene, play, scene};

const NAME: &str = super::INFO.name;
const CLIENT: &str = "192.168.40.7";
const PATH: &str = "path/192.168.40.0/24";

/// One large download that succeeds; `mss` is the client's.
fn download(scene: &mut Scene, at: u64, client: &str, mss: u32) {
    let payload = mss - 12;
    play!(scene, "{at} office {client} syn {mss}; {} office {client} request", at + 1);
    play!(scene, "{} office {client} data 1 {payload}; {} office {client} acked {}", at + 2, at + 3, payload + 1);
}

/// One whose large packets are lost.
fn lost_download(scene: &mut Scene, at: u64, client: &str, mss: u32) {
    play!(scene, "{at} office {client} syn {mss}; {} office {client} request", at + 1);
    for after in [2, 22, 210, 620] {
        play!(scene, "{} office {client} data 1 {}", at + after, mss - 12);
    }
}

/// A baseline with clamp 1280; with `headless`, 1400 bytes are proven too.
fn baseline(headless: bool) -> Scene {
    let mut scene = scene!(NAME, "");
    download(&mut scene, 0, "192.168.40.7:40000", 1280);
    if headless {
        download(&mut scene, 50, "192.168.40.7:41000", 1280);
        play!(scene, "60 office {CLIENT}:42000 data 1 1348; 61 office {CLIENT}:42000 acked 1349");
    }
    scene
}

#[test]
fn incident_info_with_the_first_syn_warning_with_the_first_timeout() {
    let mut scene = baseline(false);
    lost_download(&mut scene, 1_000, "192.168.40.7:40001", 1380);
    play!(scene, "? info 1000 {PATH} ? warning 1210..1300 {PATH}");
    assert_eq!(
        scene.evidence(NAME),
        "SYN MSS from 192.168.40.0/24 rose 1280 -> 1380; a 1420-byte packet was sent 3 times, largest acknowledged 1320"
    );
    download(&mut scene, 3_000, "192.168.40.7:40002", 1280);
    play!(scene, "? over");
}

#[test]
fn the_largest_size_carried_so_far_is_no_limit() {
    // 1400 bytes are proven by a pod whose own MTU allows no more, and no larger packet was sent yet.
    let mut scene = baseline(true);
    play!(scene, "1000 office {CLIENT}:40001 syn 1380; 1001 office {CLIENT}:40001 accepts 1460; 6000 ? info ? quiet");
    lost_download(&mut scene, 7_000, "192.168.40.7:40002", 1380);
    play!(scene, "8000 ? warning 7210..7300 {PATH} ? evidence largest acknowledged 1400");
}

#[test]
fn what_one_node_saw_is_no_proof_for_another() {
    // The other node's connections carry more; here the segment is lost all the same.
    let mut scene = baseline(false);
    play!(scene, "60 @worker-2 office {CLIENT}:42000 data 1 1448; 61 @worker-2 office {CLIENT}:42000 acked 1449");
    lost_download(&mut scene, 1_000, "192.168.40.7:40001", 1380);
    play!(scene, "? warning 1210..1300 {PATH} ? evidence largest acknowledged 1320");
}

#[test]
fn late_a_clamp_that_does_not_fit_a_declared_path() {
    const DECLARED: &str = "path/192.168.60.0/24";
    let mut scene = scene!(NAME, "");
    lost_download(&mut scene, 0, "192.168.60.7:40000", 1380);
    play!(
        scene,
        "1000 ? info 0 {DECLARED} ? warning 210..1000 {DECLARED} ? evidence is 1380, and 1360 fits the declared MTU"
    );
    download(&mut scene, 3_000, "192.168.60.7:40001", 1280);
    play!(scene, "? over");
    // Undeclared, only history would show it.
    let mut scene = scene!(NAME, "");
    lost_download(&mut scene, 0, "192.168.40.7:40000", 1380);
    play!(scene, "3000 ? nothing");
}

#[test]
fn late_twins_on_a_declared_path() {
    // One that fits, and clients without a clamp whose larger packets arrive or are never sent.
    for (mss, sends) in [(1360, true), (1380, true), (1380, false)] {
        let mut scene = scene!(NAME, "");
        for n in 0..20 {
            let client = format!("192.168.60.7:{}", 40_000 + n);
            match sends {
                true => download(&mut scene, n * 200, &client, mss),
                false => play!(scene, "{} office {client} syn {mss}; {} office {client} request", n * 200, n * 200 + 1),
            }
        }
        play!(scene, "9000 ? quiet");
    }
}

#[test]
fn incident_on_a_path_whose_mtu_is_declared() {
    for (mss, expected) in [(1361, "warning 1001 path/192.168.60.0/24"), (1360, "quiet")] {
        let mut scene = scene!(NAME, "");
        download(&mut scene, 0, "192.168.60.7:40000", 1280);
        let client = "192.168.60.7:40001";
        play!(scene, "1000 office {client} syn {mss}; 1001 office {client} accepts 1460; 5000 ? {expected}");
    }
}

#[test]
fn twin_a_declared_mtu_that_the_path_exceeds_is_out_of_date() {
    let mut scene = scene!(NAME, "");
    download(&mut scene, 0, "192.168.60.7:40000", 1400);
    download(&mut scene, 100, "192.168.60.8:40000", 1280);
    play!(scene, "1000 office 192.168.60.8:40001 syn 1370; 5000 ? quiet");
}

#[test]
fn twin_the_pods_own_mtu_caps_its_packets_at_what_the_path_carries() {
    for (own, expected) in [(1360, "info"), (1361, "warning")] {
        let mut scene = scene!(NAME, "");
        download(&mut scene, 0, "192.168.60.7:40000", 1280);
        let client = "192.168.60.7:40001";
        play!(scene, "1000 office {client} syn 1380; 1001 office {client} accepts {own}; 1002 office {client} request");
        play!(scene, "1003 office {client} data 1 1348; 1004 office {client} acked 1349; 5000 ? {expected}");
    }
}

#[test]
fn twin_a_path_with_a_round_trip_of_150_ms() {
    // The baseline proved a little more than the old clamp allowed; the new clamp fits.
    let (mut scene, far) = (scene!(NAME, ""), 150);
    for (n, mss) in (0..).zip([1280, 1280, 1380, 1380, 1380]) {
        let (client, at) = (format!("{CLIENT}:{}", 40_000 + n), n * 1_000);
        play!(scene, "{at} office {client} syn {mss}; {at} office {client} accepts 1460");
        play!(scene, "{} office {client} request", at + far);
        let sent = at + far + 200;
        // The second segment is lost, and a tail-loss probe repeats it after two round trips.
        for (from, late) in [(1, 0), (mss - 11, 300)] {
            play!(scene, "{} office {client} data {from} {}", sent, mss - 12);
            if late > 0 {
                play!(scene, "{} office {client} data {from} {}", sent + late, mss - 12);
            }
        }
        play!(scene, "{} office {client} acked {}", sent + 300 + far, 2 * (mss - 12) + 1);
        if n == 1 {
            play!(
                scene,
                "{} office {CLIENT}:42000 data 1 1288; {} office {CLIENT}:42000 acked 1289",
                sent + 20,
                sent + 25
            );
        }
    }
    play!(scene, "8000 ? info ? quiet");
}

#[test]
fn timeouts_of_sockets_tell_where_segments_are_not_seen() {
    let mut scene = scene!(NAME, "0 office {CLIENT}:40000 syn 1280");
    play!(scene, "10 office {CLIENT}:40000 socket 1268 0 90000 0; 110 office {CLIENT}:40000 socket 1268 60000 30000 0");
    play!(scene, "1000 office {CLIENT}:40001 syn 1380; 1300 office {CLIENT}:40001 socket 1368 0 90000 1 ? quiet");
    play!(scene, "1700 office {CLIENT}:40001 socket 1368 0 90000 2 ? warning 1700 {PATH}");
}

#[test]
fn twin_the_new_clamp_still_fits() {
    for headless in [true, false] {
        let mut scene = baseline(headless);
        for step in 0..20 {
            download(&mut scene, 1_000 + step * 100, &format!("{CLIENT}:{}", 43_000 + step), 1340);
        }
        play!(scene, "6000 ? info ? quiet");
    }
}

#[test]
fn twin_it_fits_and_exceeds_what_was_proven() {
    // 1300 proven otherwise; the new clamp needs 1340, and the first download proves it.
    let mut scene = scene!(NAME, "");
    download(&mut scene, 0, "192.168.40.7:40000", 1200);
    play!(scene, "60 office {CLIENT}:42000 data 1 1248; 61 office {CLIENT}:42000 acked 1249");
    download(&mut scene, 1_000, "192.168.40.7:40001", 1300);
    play!(scene, "5000 ? quiet");
}

#[test]
fn twin_new_clients_with_another_mss() {
    // On a path of their own, and next to clients of a known path that keep their MSS.
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
        play!(scene, "6000 ? quiet");
    }
}

#[test]
fn twin_ipv6_clients_announce_twenty_less() {
    let mut scene = baseline(false);
    for step in 0..10 {
        play!(scene, "{} office [2001:db8:40::7]:{} syn 1260 ? nothing", 1_000 + step * 50, 40_000 + step);
    }
}

#[test]
fn ipv6_counts_its_longer_header() {
    let mut scene = scene!(NAME, "");
    download(&mut scene, 0, "[2001:db8:40::7]:40000", 1260);
    lost_download(&mut scene, 1_000, "[2001:db8:40::7]:40001", 1360);
    play!(scene, "2000 ? evidence a 1420-byte packet ? evidence from 2001:db8:40::/64");
}

#[test]
fn a_whole_population_of_new_addresses_is_a_rise_of_the_path() {
    for (count, expected) in [(12, "warning"), (5, "info")] {
        let mut scene = scene!(NAME, "");
        download(&mut scene, 0, "192.168.60.7:40000", 1280);
        for step in 0..count {
            let (at, client) = (1_000 + step * 100, format!("192.168.60.{}:40000", 100 + step));
            play!(scene, "{at} office {client} syn 1380; {at} office {client} accepts 1460");
        }
        play!(scene, "3000 ? {expected}");
    }
}

#[test]
fn a_clamp_that_is_lowered_says_nothing() {
    let mut scene = baseline(true);
    download(&mut scene, 1_000, "192.168.40.7:40001", 1200);
    download(&mut scene, 2_000, "192.168.40.7:40002", 1280);
    play!(scene, "? silence");
}

#[test]
fn twin_clients_of_two_offices_behind_one_node_do_not_change_their_mss() {
    let mut scene = scene!(NAME, "");
    for step in 0..20_u64 {
        let (port, mss) = (40_000 + step, if step % 2 == 0 { 1280 } else { 1380 });
        let (office, at) = (if step % 2 == 0 { 40 } else { 50 }, step * 100);
        play!(scene, "{at} flow +192.168.{office}.7:{port} 10.176.64.10:{port} 10.176.98.10:80");
        play!(scene, "{} @worker-2 office 10.176.64.10:{port} syn {mss}", at + 1);
    }
    play!(scene, "? silence");
}
