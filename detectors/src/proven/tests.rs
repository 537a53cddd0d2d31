use super::*;
use crate::testing::{Scene, ms, operator};

/// What these steps of the path's client prove.
fn proven(steps: &[&str]) -> (ProvenSizes, Way) {
    let mut scene = Scene::new("pmtu-blackhole");
    for step in steps {
        let (at, what) = step.split_once(' ').unwrap();
        scene.play(format_args!("{at} office 192.168.40.7:40000 {what}"));
    }
    let mut proven = ProvenSizes::default();
    scene.signals.iter().for_each(|signal| proven.observe(&operator(), &HiddenClients::default(), signal));
    (proven, ("worker-1".into(), "192.168.40.0/24".parse().unwrap()))
}

fn largest(steps: &[&str]) -> u32 {
    let (proven, way) = proven(steps);
    proven.largest(&way)
}

/// Segments lost until `now`, on a path with this round-trip time.
fn lost(round_trip: u64, now: u64, sent: &[u64]) -> usize {
    let mut steps = vec!["0 syn 1380".to_owned(), format!("{round_trip} request")];
    steps.extend(sent.iter().map(|at| format!("{} data 1 1368", 1_000 + at)));
    let (proven, way) = proven(&steps.iter().map(String::as_str).collect::<Vec<_>>());
    proven.lost(&way, ms(1_000 + now)).count()
}

#[test]
fn only_an_acknowledgment_that_covers_it_proves_a_size() {
    assert_eq!(largest(&["0 syn 1280", "1 data 1 1268", "2 acked 1268"]), 0, "one byte short");
    assert_eq!(largest(&["0 syn 1280", "1 data 1 1268", "2 acked 1268", "3 acked 1269"]), 1320);
}

#[test]
fn a_tail_loss_probe_is_no_timeout_whatever_the_round_trip() {
    assert_eq!(lost(1, 2_000, &[0, 20]), 0);
    assert_eq!(lost(1, 2_000, &[0, 210]), 1);
    assert_eq!(lost(150, 2_000, &[0, 300]), 0);
    assert_eq!(lost(150, 2_000, &[0, 300, 460]), 1);
}

#[test]
fn the_acknowledgment_of_what_was_sent_again_may_take_a_round_trip() {
    for (round_trip, due) in [(1, 262), (150, 735)] {
        let again = if round_trip == 1 { 210 } else { 460 };
        assert_eq!(lost(round_trip, due - 5, &[0, again]), 0);
        assert_eq!(lost(round_trip, due + 5, &[0, again]), 1);
    }
}

#[test]
fn a_socket_proves_by_bulk_or_by_an_empty_queue() {
    assert_eq!(largest(&["0 socket 1348 0 9000 0", "100 socket 1348 2696 9000 0"]), 1400);
    assert_eq!(largest(&["0 socket 1348 0 900 0", "100 socket 1348 90000 900 0"]), 0, "many small ones");
    assert_eq!(largest(&["0 data 1 1348", "50 socket 1348 5000 0 0"]), 1400);
}

#[test]
fn proofs_age_and_are_renewed() {
    let large = ["0 data 1 1348", "1 acked 1349", "500 data 1349 1348", "501 acked 2697"];
    let (mut proven, way) = proven(&[&large[..], &["900 data 2697 1268", "901 acked 3965"]].concat());
    assert_eq!(proven.carried(&way, 1400), Some(ms(501)));
    assert_eq!(proven.carried(&way, 1320), Some(ms(901)));
    assert_eq!(proven.carried(&way, 1401), None);
    proven.forget(ms(600_600));
    assert_eq!(proven.largest(&way), 1320);
}

#[test]
fn when_there_are_too_many_paths_the_oldest_make_room() {
    let mut proven = ProvenSizes::default();
    let peer = |n: u32| ("worker-1".into(), SocketAddr::new((0x2000_0000 + (n << 8)).to_be_bytes().into(), 1));
    let cap = u32::try_from(CAP).unwrap();
    (0..cap).for_each(|n| proven.prove(&operator(), ms(n.into()), &peer(n), 1400));
    proven.forget(ms(cap.into()));
    proven.prove(&operator(), ms(cap.into()), &peer(cap), 1400);
    let largest = |n| proven.largest(&("worker-1".into(), operator().path_of(peer(n).1.ip())));
    assert_eq!([cap, cap - 1, 0].map(largest), [1400, 1400, 0]);
}

#[test]
fn the_smaller_mss_of_both_sides_limits_packets() {
    let (proven, way) = proven(&["0 syn 1380", "1 accepts 1360"]);
    let remote = "192.168.40.7:40000".parse().unwrap();
    assert_eq!(proven.handshake(&way.0, remote).and_then(|handshake| handshake.largest_packet(remote)), Some(1400));
}
