use crate::signal::Observed;
use crate::testing::{Scene, observed, play, scene};

const NAME: &str = super::INFO.name;
const PATH: &str = "path/192.168.40.0/24";
const CLIENT: &str = "192.168.40.7";

/// A small request and its response on a separate connection.
fn small(scene: &mut Scene, at: u64, client: &str, mss: u32) {
    play!(scene, "{at} office {client} syn {mss}; {} office {client} request", at + 1);
    play!(scene, "{} office {client} data 1 600; {} office {client} acked 601", at + 2, at + 3);
}

fn large(scene: &mut Scene, at: u64, client: &str, mss: u32) {
    let payload = mss - 12;
    play!(scene, "{at} office {client} syn {mss}; {} office {client} request", at + 1);
    play!(scene, "{} office {client} data 1 {payload}; {} office {client} acked {}", at + 2, at + 3, payload + 1);
}

/// A large response whose packets are lost, seen as segments and in the socket every 100 ms; the client is alive.
fn stalls(scene: &mut Scene, at: u64, client: &str, mss: u32) {
    let payload = mss - 12;
    play!(scene, "{at} office {client} syn {mss}; {} office {client} request", at + 1);
    play!(scene, "{} office {client} data 1 {payload}", at + 2);
    for step in 1..12_u64 {
        let now = at + step * 100;
        if step == 3 || step == 7 {
            play!(scene, "{} office {client} data 1 {payload}", now - 10);
        }
        play!(scene, "{now} office {client} socket {payload} 0 200000 {}", ((step + 1) / 4).min(2));
        small(scene, now + 50, &format!("{CLIENT}:{}", 50_000 + step + at), mss);
    }
}

/// The clamp goes from 1280 to 1380 at 1 s and back at 3 s.
pub(crate) fn incident() -> Scene {
    let mut scene = scene!(NAME, "");
    for step in 0..5 {
        large(&mut scene, step * 100, &format!("{CLIENT}:{}", 40_000 + step), 1280);
        small(&mut scene, step * 100 + 50, &format!("{CLIENT}:{}", 41_000 + step), 1280);
        large(&mut scene, step * 100 + 70, &format!("192.168.50.7:{}", 41_000 + step), 1280);
    }
    stalls(&mut scene, 1_000, "192.168.40.7:42000", 1380);
    play!(scene, "3000");
    for step in 0..30 {
        large(&mut scene, 3_000 + step * 100, &format!("{CLIENT}:{}", 43_000 + step), 1280);
    }
    scene
}

#[test]
fn incident_after_two_timeouts_while_small_packets_pass() {
    let mut scene = incident();
    let evidence = "evidence 1420-byte packets 3 times, largest acknowledged from 192.168.40.0/24 1320";
    play!(scene, "? warning 1700 {PATH} ? {evidence} ? over ? mss-change: warning 0..9999 {PATH} ? mss-change: over");
    assert!(!scene.findings.iter().any(|(_, finding)| finding.subject.to_string().contains(".50.")));
}

#[test]
fn without_segments_sockets_alone_tell() {
    let mut scene = scene!(NAME, "0 office {CLIENT}:40000 socket 1268 0 90000 0");
    play!(scene, "100 office {CLIENT}:40000 socket 1268 60000 30000 0");
    for at in (1_000..=1_700).step_by(100) {
        let retransmits = u8::from(at >= 1_200) + u8::from(at >= 1_600);
        play!(scene, "{at} office {CLIENT}:40001 socket 1368 0 90000 {retransmits}");
        play!(scene, "{} office {CLIENT}:40002 socket 1368 {at} 0 0", at + 10);
    }
    play!(scene, "? warning 1600 {PATH}");
}

#[test]
fn sockets_may_be_so_many_that_they_are_read_once_in_a_while() {
    // Timeouts 0.2, 0.6 and 1.4 s after the stall began.
    for period in [800, 2_500] {
        let mut scene = scene!(NAME, "");
        for at in (0..8).map(|read| 1_000 + read * period) {
            let retransmits = [1_200, 1_600, 2_400, 4_000, 7_200].iter().filter(|timeout| at >= **timeout).count();
            // The sockets of another pod are read first.
            play!(scene, "{at} office {CLIENT}:40002 socket 1368 {at} 0 0; {} ? not over", at + 60);
            play!(scene, "{} office {CLIENT}:40001 socket 1368 0 90000 {retransmits}", at + 65);
        }
        play!(scene, "? warning ? not over");
    }
}

#[test]
fn one_consecutive_timeout_is_not_enough() {
    let mut scene = scene!(NAME, "");
    large(&mut scene, 0, "192.168.40.7:40000", 1280);
    for step in 0..10 {
        play!(scene, "{} office {CLIENT}:40001 socket 1368 0 90000 1", 1_000 + step * 100);
        small(&mut scene, 1_050 + step * 100, &format!("{CLIENT}:{}", 50_000 + step), 1380);
    }
    play!(scene, "? nothing");
}

#[test]
fn twin_a_client_dies_in_the_middle_of_a_download() {
    // Its neighbours are unaffected. The size was proven by its own download, by others, or not at all.
    for proven in [Some(1280), Some(1380), None] {
        let mut scene = scene!(NAME, "");
        if let Some(mss) = proven {
            large(&mut scene, 0, "192.168.40.8:40000", mss);
        }
        large(&mut scene, 100, "192.168.40.7:40000", 1380);
        play!(scene, "500 office {CLIENT}:40001 syn 1380; 501 office {CLIENT}:40001 request");
        play!(scene, "510 office {CLIENT}:40001 socket 1368 20000 90000 0");
        // Dead from here on: its other connections get no answer either.
        for (at, retransmits) in [(600, 0), (820, 1), (1_300, 2), (2_200, 3)] {
            play!(scene, "{at} office {CLIENT}:40001 socket 1368 50000 90000 {retransmits}");
            play!(scene, "{} office {CLIENT}:40009 socket 1368 700 90 {retransmits}", at + 1);
            small(&mut scene, at + 50, &format!("192.168.40.8:{}", 50_000 + at), 1280);
        }
        play!(scene, "6000 ? nothing ? quiet");
    }
}

#[test]
fn twin_a_dead_client_that_goes_on_sending_still_receives_nothing() {
    let mut scene = scene!(NAME, "");
    large(&mut scene, 0, "192.168.40.8:40000", 1280);
    play!(scene, "400 office {CLIENT}:40001 syn 1380; 401 office {CLIENT}:40001 request");
    for (at, retransmits) in [(500, 0), (720, 1), (1_200, 2), (2_000, 3)] {
        play!(scene, "{at} office {CLIENT}:40001 socket 1368 0 90000 {retransmits}");
        play!(scene, "{} office {CLIENT}:40002 syn 1380; {} office {CLIENT}:40001 request", at + 10, at + 20);
    }
    play!(scene, "? nothing");
}

#[test]
fn twin_the_new_clamp_still_fits_and_a_packet_is_lost_now_and_then() {
    let mut scene = scene!(NAME, "");
    large(&mut scene, 0, "192.168.40.7:40000", 1280);
    large(&mut scene, 1_000, "192.168.40.7:40001", 1340);
    for (at, retransmits) in [(1_100, 0), (1_400, 1), (1_800, 2)] {
        play!(scene, "{at} office {CLIENT}:40002 socket 1328 9000 90000 {retransmits}");
        small(&mut scene, at + 50, &format!("{CLIENT}:{}", 50_000 + at), 1340);
    }
    play!(scene, "? quiet");
}

#[test]
fn incident_a_path_shrinks_under_what_it_once_carried() {
    let mut scene = scene!(NAME, "");
    for step in 0..10 {
        large(&mut scene, step * 100, &format!("{CLIENT}:{}", 40_000 + step), 1380);
    }
    play!(scene, "1000 office {CLIENT}:41000 syn 1380; 1001 office {CLIENT}:41000 request");
    play!(scene, "1002 office {CLIENT}:41000 data 1 1368");
    for (at, retransmits) in [(1_100, 0), (1_300, 1), (1_700, 2), (2_500, 3)] {
        play!(scene, "{at} office {CLIENT}:41000 socket 1368 0 90000 {retransmits}");
        small(&mut scene, at + 60, &format!("{CLIENT}:{}", 50_000 + at), 1380);
    }
    play!(scene, "2600 ? warning 2500..2600 {PATH} ? evidence as large ones were last acknowledged 0.3 s before");
}

#[test]
fn twin_other_packets_as_large_are_still_acknowledged() {
    let mut scene = scene!(NAME, "");
    large(&mut scene, 0, "192.168.40.7:40000", 1380);
    play!(scene, "1000 office {CLIENT}:41000 syn 1380; 1001 office {CLIENT}:41000 request");
    for (at, retransmits) in [(1_100, 0), (1_300, 1), (1_700, 2), (2_500, 3), (4_100, 4)] {
        play!(scene, "{at} office {CLIENT}:41000 socket 1368 0 90000 {retransmits}");
        large(&mut scene, at + 60, &format!("{CLIENT}:{}", 50_000 + at), 1380);
    }
    play!(scene, "? nothing");
}

#[test]
fn twin_a_client_dies_150_ms_away() {
    // Acknowledgments that were under way when it died arrive up to a round trip after the last progress of the stall.
    for (late, expected) in [(200, "nothing"), (290, "warning")] {
        let mut scene = scene!(NAME, "");
        play!(scene, "0 office {CLIENT}:41000 syn 1380; 150 office {CLIENT}:41000 request");
        play!(scene, "0 office {CLIENT}:41001 syn 1380; 150 office {CLIENT}:41001 request");
        for (at, retransmits) in [(1_000, 0), (1_400, 1), (2_300, 2), (4_200, 3)] {
            let Observed::Socket(mut socket) = observed(&[
                "office",
                &format!("{CLIENT}:41000"),
                "socket",
                "1368",
                "0",
                "90000",
                &retransmits.to_string(),
            ]) else {
                unreachable!()
            };
            socket.rtt_us = 150_000;
            scene.at(at, "worker-1", socket.into());
            if at == 1_000 {
                play!(scene, "{} office {CLIENT}:41001 acked 601", at + late);
            }
        }
        play!(scene, "5000 ? {expected}");
    }
}

#[test]
fn what_clients_of_one_node_receive_is_no_proof_for_another() {
    let mut scene = scene!(NAME, "");
    for (at, retransmits) in [(1_000, 0), (1_300, 1), (1_700, 2), (2_500, 3)] {
        play!(scene, "{at} office {CLIENT}:41000 socket 1368 0 90000 {retransmits}");
        play!(
            scene,
            "{} @worker-2 office {CLIENT}:41001 syn 1380; {} @worker-2 office {CLIENT}:41001 request",
            at + 60,
            at + 61
        );
    }
    play!(scene, "3000 ? nothing");
}

#[test]
fn two_clients_stuck_alike_while_the_path_carries_small_packets() {
    let mut scene = scene!(NAME, "");
    large(&mut scene, 0, "192.168.40.9:40000", 1280);
    for (at, retransmits) in [(1_000, 0), (1_300, 1), (1_700, 2)] {
        for client in [CLIENT, "192.168.40.8"] {
            play!(scene, "{at} office {client}:40001 socket 1368 0 90000 {retransmits}");
        }
        small(&mut scene, at + 60, &format!("192.168.40.9:{}", 50_000 + at), 1280);
    }
    play!(scene, "? critical 1700 {PATH}");
}

#[test]
fn what_every_path_carries_is_no_large_packet() {
    let mut scene = scene!(NAME, "");
    for (at, retransmits) in [(1_000, 0), (1_300, 1), (1_700, 2)] {
        play!(scene, "{at} office {CLIENT}:40001 socket 1368 0 500 {retransmits}");
        play!(scene, "{} office {CLIENT}:40002 socket 1368 {at} 0 0", at + 10);
    }
    play!(scene, "? nothing");
}

#[test]
fn a_client_behind_a_node_is_named_by_the_connection_table_of_that_node() {
    // The node that is asked sees the client, and the pod's node sees that node's address in its place.
    let mut scene = scene!(NAME, "");
    let pod = "10.176.98.10:80";
    let hidden = |scene: &mut Scene, at: u64, port: u16| {
        play!(scene, "{at} flow +{CLIENT}:{port} 10.176.64.10:{port} {pod}");
    };
    for step in 0..5 {
        hidden(&mut scene, step * 100, 40_000);
        large(&mut scene, step * 100, &format!("{CLIENT}:40000"), 1280);
    }
    for (at, retransmits) in [(1_000, 0), (1_100, 0), (1_300, 1), (1_700, 2)] {
        let port = 42_000;
        hidden(&mut scene, at, port);
        play!(scene, "{at} @worker-2 office 10.176.64.10:{port} socket 1368 0 90000 {retransmits}");
        small(&mut scene, at + 60, &format!("{CLIENT}:{}", 50_000 + at), 1280);
    }
    play!(scene, "2000 ? warning 1700..2000 {PATH} ? evidence this needs the agents of both nodes");
    assert!(!scene.findings.iter().any(|(_, finding)| finding.subject.to_string().contains("10.176.64.")));
}

#[test]
fn a_hidden_client_stays_known_while_its_connection_lasts() {
    let mut scene = scene!(NAME, "0 flow +{CLIENT}:42000 10.176.64.10:42000 10.176.98.10:80");
    // An established connection has no events.
    for (at, retransmits) in [(300_000, 0), (300_100, 0), (300_300, 1), (300_700, 2)] {
        play!(scene, "{at} @worker-2 office 10.176.64.10:42000 socket 1368 0 90000 {retransmits}");
        small(&mut scene, at + 60, &format!("{CLIENT}:{}", 50_000 + at % 1_000), 1280);
    }
    play!(scene, "301000 ? warning 300700 {PATH}");
    // Another one, which is older than the agent, is not the node's.
    play!(scene, "400000 @worker-2 office 10.176.64.10:42001 socket 1368 0 90000 3");
    assert!(!scene.findings.iter().any(|(_, finding)| finding.subject.to_string().contains("10.176.64.")));
}

#[test]
fn a_hidden_client_whose_connection_is_older_than_the_agent_is_not_taken_for_the_node() {
    let mut scene = scene!(NAME, "0 flow +{CLIENT}:50000 10.176.64.10:50000 10.176.98.10:80");
    for (at, retransmits) in [(100, 1), (400, 2), (1_000, 3)] {
        play!(scene, "{at} @worker-2 office 10.176.64.10:42000 socket 1368 0 90000 {retransmits}");
        small(&mut scene, at + 60, &format!("{CLIENT}:{}", 50_001 + at), 1280);
    }
    play!(scene, "3000 ? silence");
}
