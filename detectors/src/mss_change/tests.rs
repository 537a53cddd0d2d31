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
fn incident_where_the_baseline_proved_a_size_the_syn_is_enough() {
    let mut scene = baseline(true);
    play!(scene, "1000 office {CLIENT}:40001 syn 1380; 1800 ? warning 1000..1750 {PATH}");
    play!(scene, "? evidence 1420 bytes, and the largest ever acknowledged is 1400");
}

/// Segments of other connections at these times, in milliseconds.
fn others(scene: &mut Scene, times: impl Iterator<Item = u64>) {
    times.for_each(|at| play!(scene, "{at} office 192.168.41.7:45000 acked 5"));
}

#[test]
fn incident_where_a_larger_size_was_proven_a_tenth_of_a_second_is_enough() {
    let (mut scene, client) = (baseline(true), "192.168.40.7:40001");
    play!(scene, "1000 office {client} syn 1380; 1001 office {client} request");
    play!(scene, "1002 office {client} data 1 1368; 1022 office {client} data 1 1368");
    others(&mut scene, (1_030..1_200).step_by(10));
    play!(scene, "1190 ? warning 1100..1160 {PATH} ? evidence 1420-byte packets are not acknowledged");
}

#[test]
fn twin_the_acknowledgment_of_a_single_larger_packet_is_delayed() {
    let (mut scene, client) = (baseline(true), "192.168.40.7:40001");
    play!(scene, "1000 office {client} syn 1380; 1001 office {client} request; 1002 office {client} data 1 1368");
    others(&mut scene, (1_010..1_190).step_by(20));
    play!(scene, "1202 office {client} acked 1369; 5000 ? quiet");
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
    for (mss, expected) in [(1361, "warning 1000 path/192.168.60.0/24"), (1360, "quiet")] {
        let mut scene = scene!(NAME, "");
        download(&mut scene, 0, "192.168.60.7:40000", 1280);
        play!(scene, "1000 office 192.168.60.7:40001 syn {mss}; 5000 ? {expected}");
    }
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
    let mut scene = baseline(true);
    for step in 0..12 {
        play!(scene, "{} office 192.168.40.{}:40000 syn 1380", 1_000 + step * 100, 100 + step);
    }
    play!(scene, "3000 ? warning");
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
