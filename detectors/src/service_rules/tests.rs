//! Scenes of `service-rules`, `service-failure` and `kube-proxy`: the same probes feed all three.

use super::*;
use crate::testing::{Scene, play, scene};

const NAME: &str = INFO.name;

/// A second of probes by a node: its kube-proxy, the Service, an endpoint.
fn second(scene: &mut Scene, at: u64, node: &str, health: &str, service: &str, endpoint: (u8, &str)) {
    let (number, outcome) = endpoint;
    play!(scene, "{at} @{node} healthz {health}; {at} @{node} connect shop {number} {outcome}");
    play!(scene, "{at} @{node} connect shop service {service}");
}

fn well(scene: &mut Scene, at: u64, node: &str) {
    second(scene, at, node, "ok", "ok", (1, "ok"));
}

/// Two nodes reach a Service with one endpoint for two seconds.
fn started() -> Scene {
    let mut scene = scene!(NAME, "0 behind shop 1@worker-2; 0 @worker-2 behind shop 1@worker-2");
    for at in [100, 1100] {
        well(&mut scene, at, "worker-1");
        well(&mut scene, at + 20, "worker-2");
    }
    scene
}

/// The rules of worker-1 are lost.
pub fn incident() -> Scene {
    let mut scene = started();
    for at in [2500, 3500, 4500] {
        play!(scene, "{at} ? nothing");
        second(&mut scene, at, "worker-1", "ok", "timeout", (1, "ok"));
        well(&mut scene, at + 20, "worker-2");
    }
    scene
}

/// kube-proxy of worker-1 stops, and the pod behind the Service is replaced.
pub fn stopped() -> Scene {
    let mut scene = started();
    for node in ["worker-1", "worker-2"] {
        play!(scene, "2050 @{node} behind shop 2@worker-2");
    }
    for at in [2500, 3500, 4500, 5500, 6500, 7500] {
        second(&mut scene, at, "worker-1", "refused", "timeout", (2, "ok"));
        second(&mut scene, at + 20, "worker-2", "ok", "ok", (2, "ok"));
    }
    scene
}

#[test]
fn incident_three_connects_fail_while_the_endpoint_answers() {
    let mut scene = incident();
    play!(
        scene,
        "? warning 4500..4520 node/worker-1 ? service-failure: warning 3500 service/shop ? kube-proxy: nothing"
    );
    play!(scene, "? evidence 3 of 5 connects from worker-1 to shop (192.168.0.20:80) failed (timeout), while shop-1");
    play!(scene, "? evidence worker-2 reaches the Service");
    well(&mut scene, 5500, "worker-1");
    play!(scene, "? not over");
    well(&mut scene, 6500, "worker-1");
    play!(scene, "? over ? service-failure: over");
}

#[test]
fn a_kube_proxy_that_has_not_answered_since_may_not_run() {
    let mut scene = started();
    for node in ["worker-1", "worker-2"] {
        play!(scene, "2050 @{node} behind shop 2@worker-2");
    }
    // It is asked all the time, and takes as long to fail as a connect.
    for at in (2500..6500).step_by(500) {
        play!(scene, "{at} @worker-1 connect shop 2 ok; {at} @worker-1 connect shop service timeout");
    }
    play!(scene, "? info");
    play!(scene, "6600 @worker-1 healthz ok ? warning 6600 node/worker-1");
}

#[test]
fn each_of_many_endpoints_must_answer() {
    for (asked, last, found) in [(12, "ok", true), (11, "ok", false), (12, "timeout", false)] {
        let ready: String = (1..=12).map(|number| format!(" {number}@worker-2")).collect();
        let mut scene = scene!(NAME, "0 behind shop{ready}");
        for at in [2500, 3500, 4500] {
            play!(scene, "{at} @worker-1 connect shop service timeout");
            for number in 1..=asked {
                let outcome = if number == asked { last } else { "ok" };
                play!(scene, "{at} @worker-1 connect shop {number} {outcome}");
            }
            play!(scene, "{at} @worker-2 connect shop service ok");
        }
        assert_eq!(!scene.findings.is_empty(), found, "{asked} {last}: {:#?}", scene.findings);
        if found {
            play!(scene, "? evidence shop-4 ? evidence and 8 more answered it directly");
        }
    }
}

#[test]
fn refused_as_kube_proxy_in_nftables_mode_rejects_is_a_failure_too() {
    let mut scene = started();
    for at in [2500, 3500, 4500] {
        second(&mut scene, at, "worker-1", "ok", "refused", (1, "ok"));
    }
    play!(scene, "? warning 4500 node/worker-1 ? evidence it reached the Service before");
}

#[test]
fn variant_one_of_two_rules_is_stale() {
    let mut scene = scene!(NAME, "0 behind shop 1@worker-2 2@worker-2");
    for (step, service) in (0..).zip(["ok", "timeout", "ok", "timeout", "ok", "timeout", "ok", "ok"]) {
        second(&mut scene, 100 + step * 1000, "worker-1", "ok", service, (1 + u8::from(step % 2 == 0), "ok"));
    }
    play!(scene, "? warning 5100 node/worker-1 ? not over");
}

#[test]
fn a_service_that_never_worked_anywhere_is_no_lost_rule() {
    let mut scene = scene!(NAME, "0 behind shop 1@worker-2");
    for at in [100, 1100, 2100, 3100] {
        second(&mut scene, at, "worker-1", "ok", "timeout", (1, "ok"));
    }
    play!(scene, "? nothing ? service-failure: warning");
}

#[test]
fn incident_kube_proxy_stopped_and_the_pod_was_replaced() {
    let mut scene = stopped();
    play!(scene, "? info ? kube-proxy: warning 4500 node/worker-1 ? service-failure: warning 4500 service/shop");
    play!(scene, "? kube-proxy: evidence 3 requests in a row for kube-proxy's health failed (refused); ");
    for at in [8500, 9500] {
        second(&mut scene, at, "worker-1", "ok", "ok", (2, "ok"));
    }
    play!(scene, "? nothing stands ? kube-proxy: over ? service-failure: over");
}

#[test]
fn a_missed_change_is_enough_where_old_endpoints_still_answer() {
    let mut scene = started();
    for at in [2500, 3500, 4500] {
        second(&mut scene, at, "worker-1", "refused", "ok", (1, "ok"));
    }
    play!(scene, "? kube-proxy: info");
    play!(scene, "4600 behind shop 1@worker-2 2@worker-2; 6500 ? kube-proxy: info; 6700 ? kube-proxy: warning");
    play!(scene, "? kube-proxy: evidence the endpoints of shop became shop-1, shop-2 ? nothing");
}

#[test]
fn twin_kube_proxy_is_dead_and_nothing_has_changed() {
    let mut scene = started();
    play!(scene, "2000 behind shop 2@worker-2");
    for at in (2500..20_000).step_by(1000) {
        second(&mut scene, at, "worker-1", "refused", "ok", (2, "ok"));
    }
    play!(scene, "? quiet ? kube-proxy: info ? nothing");
}

#[test]
fn twin_kube_proxy_restarts_and_endpoints_change_after_it() {
    let mut scene = started();
    second(&mut scene, 2500, "worker-1", "refused", "ok", (1, "ok"));
    second(&mut scene, 3500, "worker-1", "refused", "ok", (1, "ok"));
    well(&mut scene, 4500, "worker-1");
    play!(scene, "5000 behind shop 2@worker-2");
    for at in [5500, 6500, 7500, 8500] {
        second(&mut scene, at, "worker-1", "ok", "ok", (2, "ok"));
    }
    play!(scene, "? silence");
}

#[test]
fn twin_dead_server() {
    let mut scene = started();
    for at in (2500..9000).step_by(1000) {
        second(&mut scene, at, "worker-1", "ok", "timeout", (1, "timeout"));
        second(&mut scene, at + 20, "worker-2", "ok", "refused", (1, "refused"));
    }
    play!(scene, "? silence");
}

#[test]
fn twin_one_of_two_servers_is_dead() {
    let mut scene = scene!(NAME, "0 behind shop 1@worker-2 2@worker-2");
    let service = ["ok", "refused", "refused", "ok", "refused", "refused", "ok", "refused"];
    for (step, service) in (0..).zip(service) {
        let endpoint = if step % 2 == 0 { (1, "ok") } else { (2, "refused") };
        second(&mut scene, 100 + step * 1000, "worker-1", "ok", service, endpoint);
    }
    play!(scene, "? silence");
}

/// A full table drops some connects, by chance those to the Service.
#[test]
fn twin_full_connection_table_on_the_way() {
    for (node, full, expected) in [
        ("worker-1", 4090, "nothing"),
        ("worker-2", 4090, "nothing"),
        ("worker-3", 4090, "warning"),
        ("worker-1", 3000, "warning"),
    ] {
        let mut scene = started();
        for at in [2500, 3500, 4500] {
            play!(scene, "{at} @{node} table {full}/4096");
            second(&mut scene, at, "worker-1", "ok", "timeout", (1, "ok"));
            well(&mut scene, at + 20, "worker-2");
        }
        play!(scene, "? {expected} ? service-failure: {expected}");
    }
}

#[test]
fn twin_service_without_endpoints() {
    let mut scene = started();
    play!(scene, "2000 behind shop");
    for at in [2500, 3500, 4500, 5500] {
        play!(scene, "{at} connect shop service refused");
    }
    play!(scene, "9000 ? silence");
}

#[test]
fn twin_rolling_restart_with_a_failure_at_each_step() {
    let mut scene = scene!(NAME, "0 behind shop 1@worker-2 2@worker-2");
    for step in 0..6_u64 {
        let at = 100 + step * 1500;
        let (old, new) = (1 + step, 3 + step);
        second(&mut scene, at, "worker-1", "ok", "ok", (u8::try_from(old).unwrap(), "ok"));
        play!(scene, "{} behind shop {}@worker-2 {new}@worker-1", at + 100, old + 1);
        second(&mut scene, at + 200, "worker-1", "ok", "timeout", (u8::try_from(new).unwrap(), "ok"));
    }
    play!(scene, "? silence");
}

#[test]
fn twin_one_slow_probe() {
    let mut scene = started();
    second(&mut scene, 2500, "worker-1", "ok", "timeout", (1, "ok"));
    for at in [3500, 4500, 5500] {
        well(&mut scene, at, "worker-1");
    }
    second(&mut scene, 6500, "worker-1", "timeout", "ok", (1, "timeout"));
    play!(scene, "? silence");
}
