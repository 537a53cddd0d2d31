use super::*;
use crate::testing::{Scene, play, scene};

const NAME: &str = INFO.name;
const APP: &str = "10.176.98.29:40001";
const DATABASE: &str = "10.176.46.4:3306";
const ANSWERED: &str = "10.176.97.10:80";

/// So many requests one after the other, from `at` on; gives when the last was answered.
fn in_turn(scene: &mut Scene, at: u64, count: u64, ends: &str, took: u64, more: &str) -> u64 {
    let end = |n| at + (n + 1) * took;
    (0..count).for_each(|n| play!(scene, "{} exchange {ends} {took} {more}", end(n)));
    at + count * took
}

/// The usual time of a server, 3 ms, as an application asks it by a connection that it keeps.
fn usual(ends: &str, more: &str) -> Scene {
    let mut scene = scene!(NAME, "");
    in_turn(&mut scene, 0, 13, ends, 3, more);
    scene
}

fn database() -> (Scene, String) {
    let ends = format!("{APP} {DATABASE}");
    (usual(&ends, ""), ends)
}

/// 13 queries one after the other, a tenth of a second each before and 0.4 s each now, then as before.
pub(crate) fn incident() -> Scene {
    let (mut scene, ends) = database();
    let healed = in_turn(&mut scene, 1000, 13, &ends, 400, "");
    in_turn(&mut scene, healed, 13, &ends, 3, "");
    scene
}

#[test]
fn incident_at_the_third_slow_answer_and_over_at_the_third_fast_one() {
    let (mut scene, ends) = database();
    in_turn(&mut scene, 1000, 2, &ends, 400, "");
    play!(scene, "? nothing; 2200 exchange {ends} 400 ? warning 2200 server/database");
    play!(scene, "? evidence 3 requests in a row took 400 ms and more, where 3.0 ms is usual");
    in_turn(&mut scene, 2200, 10, &ends, 400, "");
    play!(scene, "6203 exchange {ends} 3; 6206 exchange {ends} 3 ? not over; 6209 exchange {ends} 3 ? over");
    assert_eq!(incident().findings.len(), 2);
}

#[test]
fn far_away_an_acknowledgment_takes_a_round_trip_too() {
    let slow = |took: u64, acked: u64| {
        let (mut scene, ends) = (scene!(NAME, ""), format!("{APP} {DATABASE}"));
        let at = in_turn(&mut scene, 0, 13, &ends, 152, "connect=150 acked=150");
        in_turn(&mut scene, at, 6, &ends, took, &format!("acked={acked}"));
        scene
    };
    play!(slow(800, 190), "? warning 4376..4376 server/database");
    // The way there, or the way back, takes longer.
    play!(slow(800, 798), "? silence");
}

#[test]
fn a_server_without_a_name_is_its_address() {
    let ends = format!("{APP} 10.176.46.5:3306");
    let mut scene = usual(&ends, "");
    in_turn(&mut scene, 1000, 3, &ends, 400, "");
    play!(scene, "? warning 2200 server/10.176.46.5:3306");
}

#[test]
fn boundaries() {
    let slow_by = |usual: u64, took: u64| {
        let (mut scene, ends) = (scene!(NAME, ""), format!("{APP} {DATABASE}"));
        let at = in_turn(&mut scene, 0, 13, &ends, usual, "");
        in_turn(&mut scene, at, 6, &ends, took, "");
        !scene.findings.is_empty()
    };
    assert!(slow_by(3, 203) && !slow_by(3, 202), "200 ms above");
    assert!(slow_by(100, 500) && !slow_by(100, 499), "5 times");
    assert!(!slow_by(1000, 1500), "1.5 times");
    // Of a new server nothing is known.
    let (mut scene, ends) = (scene!(NAME, ""), format!("{APP} {DATABASE}"));
    in_turn(&mut scene, 0, 4, &ends, 3, "");
    in_turn(&mut scene, 1000, 20, &ends, 400, "");
    play!(scene, "? nothing");
}

#[test]
fn a_server_that_never_answers_is_slow_while_it_is_asked() {
    let (mut scene, _) = database();
    // Three clients of one pod, each when the one before has waited for a second.
    for n in 0..3 {
        play!(scene, "{} exchange 10.176.98.29:{} {DATABASE} 1000 outstanding", 2000 + n * 1000, 41_000 + n);
    }
    play!(scene, "? warning 4000 server/database; 63900 ? not over; 64100 ? over");
}

#[test]
fn a_request_that_is_outstanding_and_then_answered_counts_once() {
    let (mut scene, ends) = database();
    play!(scene, "2000 exchange {ends} 1000 outstanding; 3000 exchange {ends} 2000");
    play!(scene, "4000 exchange {ends} 1000 outstanding; 5000 exchange {ends} 2000 ? nothing");
    play!(scene, "6000 exchange {ends} 1000 outstanding ? warning 6000 server/database");
}

#[test]
fn twin_one_slow_report_among_many_fast_queries() {
    let (mut scene, ends) = database();
    let report = format!("10.176.98.29:40002 {DATABASE}");
    for second in 1..60 {
        in_turn(&mut scene, second * 1000, 5, &ends, 3, "");
        play!(scene, "{} exchange {report} 5000; {} exchange {ends} 3", second * 1000 + 20, second * 1000 + 30);
        // Two of them now and then.
        play!(scene, "{} exchange {report} 5000; {} exchange {report} 5000", second * 1000 + 40, second * 1000 + 41);
    }
    play!(scene, "? nothing");
}

#[test]
fn twin_a_long_poll_alone_and_beside_fast_requests() {
    let poll = format!("10.176.98.29:40002 {DATABASE}");
    let mut alone = scene!(NAME, "");
    for n in 0..100 {
        // It ends at once where something happens, else after half a minute.
        play!(alone, "{} exchange {poll} {}", n * 31_000 + 30_000, if n % 3 == 0 { 5 } else { 30_000 });
    }
    play!(alone, "? nothing");
    let (mut beside, ends) = database();
    for second in 1..60 {
        play!(beside, "{} exchange {poll} 1000 outstanding; {} exchange {ends} 3", second * 6000, second * 6000 + 500);
        play!(beside, "{} exchange {poll} 5000 outstanding", second * 6000 + 4000);
    }
    play!(beside, "? nothing");
}

#[test]
fn twin_as_slow_now_and_then_as_ever() {
    let (mut scene, ends) = (scene!(NAME, ""), format!("{APP} {DATABASE}"));
    // A third of them is slow, in no order.
    let mut state = 7_u64;
    for n in 0..2000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let slow = state >> 33 & 3 == 0;
        play!(scene, "{} exchange {ends} {}", n * 500, if slow { 400 } else { 3 });
    }
    play!(scene, "? nothing");
}

#[test]
fn twin_a_server_that_pauses_once() {
    let (mut scene, ends) = database();
    // All that were waiting are answered at the same time.
    for n in 0..20 {
        play!(scene, "2000 exchange 10.176.98.29:{} {DATABASE} {}", 41_000 + n, 210 + n);
    }
    play!(scene, "2003 exchange {ends} 3; 3000 ? nothing");
}

#[test]
fn twin_connects_that_were_late_because_a_syn_was_lost() {
    let mut scene = scene!(NAME, "");
    for n in 0..40 {
        let (connect, again) = if n > 10 { (3000, "again") } else { (1, "") };
        play!(scene, "{} exchange 10.176.98.29:{} {DATABASE} 3 connect={connect} {again}", n * 4000, 41_000 + n);
    }
    play!(scene, "? nothing");
}

#[test]
fn twin_a_slow_network() {
    // The acknowledgment takes as long; or it comes with the answer; or something is sent again.
    for how in ["acked=390", "unacked", "again"] {
        let (mut scene, ends) = database();
        in_turn(&mut scene, 1000, 20, &ends, 400, how);
        play!(scene, "? nothing");
    }
    // A handshake says so, too.
    let mut scene = scene!(NAME, "");
    for n in 0..20 {
        let (connect, took) = if n > 9 { (300, 400) } else { (1, 3) };
        play!(scene, "{} exchange 10.176.98.29:{} {DATABASE} {took} connect={connect}", n * 1000, 41_000 + n);
    }
    play!(scene, "? nothing");
}

#[test]
fn one_clients_lost_packets_do_not_acquit_the_server_of_others() {
    let (mut scene, ends) = database();
    in_turn(&mut scene, 500, 3, &format!("10.176.97.11:40009 {DATABASE}"), 3, "");
    for n in 0..3 {
        play!(scene, "{} exchange 10.176.97.11:40009 {DATABASE} 300 again", 1300 + n * 400);
        play!(scene, "{} exchange {ends} 400", 1400 + n * 400);
    }
    play!(scene, "? warning 2200 server/database");
}

#[test]
fn a_new_clients_long_polls_say_nothing() {
    let (mut scene, _) = database();
    in_turn(&mut scene, 1000, 5, &format!("10.176.97.11:40009 {DATABASE}"), 30_000, "");
    play!(scene, "? nothing");
}

#[test]
fn logins_are_neither_usual_nor_in_a_row() {
    let (mut scene, ends) = database();
    for n in 0..3 {
        let at = 2000 + n * 1000;
        play!(scene, "{at} exchange 10.176.98.29:{} {DATABASE} 1 greeted connect=1", 41_000 + n);
        play!(scene, "{} exchange {ends} 400", at + 500);
    }
    play!(scene, "? warning 4500 server/database");
}

#[test]
fn a_pod_is_judged_at_its_own_node_and_not_accused_for_what_it_waits_for() {
    let ends = format!("192.168.40.10:50000 {ANSWERED}");
    let slow = |took: u64, waited: u64| {
        let mut scene = usual(&ends, "at-server");
        in_turn(&mut scene, 1000, 6, &ends, took, &format!("at-server waited={waited}"));
        scene
    };
    play!(slow(5300, 5200), "? info ? quiet ? evidence the server itself waited for others, for up to 5.20 s");
    play!(slow(5300, 2650), "? info");
    play!(slow(5300, 100), "? warning 16900 server/{ANSWERED}");
    play!(slow(380, 180), "? info");
    // From elsewhere it is not judged.
    let mut elsewhere = usual(&ends, "");
    in_turn(&mut elsewhere, 1000, 6, &ends, 400, "");
    play!(elsewhere, "? nothing");
}

#[test]
fn a_service_is_its_pods() {
    let service = "192.168.0.10:53";
    let mut scene = scene!(NAME, "0 endpoints 0@worker-1");
    in_turn(&mut scene, 1, 13, &format!("{APP} {service}"), 3, "");
    in_turn(&mut scene, 1000, 6, &format!("{APP} {service}"), 400, "");
    play!(scene, "? nothing");
}

#[test]
fn a_node_that_serves_is_judged_at_home() {
    let ends = format!("{APP} 10.176.64.12:9100");
    let mut scene = usual(&ends, "at-server");
    in_turn(&mut scene, 1000, 3, &ends, 400, "");
    play!(scene, "? nothing");
    in_turn(&mut scene, 3000, 3, &ends, 400, "at-server");
    play!(scene, "? warning 4200 server/10.176.64.12:9100");
}
