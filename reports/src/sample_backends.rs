//! Runs on two backends, and runs whose controls prove nothing.
//!
//! Job: events for what [`crate::sample_runs`] does not tell. Invariants: as there. Left out: how
//! events are written.

use std::time::Duration;

use relapse_detectors::finding::{Level, Severity};

use crate::event::{Outcome, RunEvent, TrialEvent, Verdict};
use crate::sample::{DETECTORS, Script, expect, id, ms, play, us};

const NODE: &str = "node/worker-2";
const SERVICE: &str = "service/kube-system/kube-dns";

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// I4: both detectors in time.
fn route(start: Duration, backend: &str, repetition: u32, cause: Duration, symptom: Duration) -> Script {
    Script::new(start, "I4", "pods' routing table is lost", id("policy-route-lost", None, repetition))
        .on(backend)
        .phases(ms(1_500))
        .injected(us(400), "delete default via 10.176.96.1 dev eth1 table 2", "table 2 is empty")
        .verdict(expect("policy-route", Level::Cause, Some(NODE), ms(500)), Verdict::Detected { after: cause })
        .effect("app-database fails: timeout", Some(ms(12)), "5 of 5 attempts timed out")
        .verdict(expect("wrong-nic", Level::Symptom, Some(NODE), s(3)), Verdict::Detected { after: symptom })
        .ended(ms(3_370), Outcome::Pass, &[])
}

fn route_control(start: Duration, backend: &str, repetition: u32) -> Script {
    let twin = id("policy-route-lost", Some("table-rebuilt"), repetition);
    let script = Script::new(start, "I4", "pods' routing table is lost", twin).on(backend).phases(ms(900));
    let silent =
        |script: Script, name: &&str| script.verdict(expect(name, Level::Cause, None, ms(900)), Verdict::Silent);
    DETECTORS.iter().fold(script, silent).ended(ms(2_790), Outcome::Pass, &[])
}

/// I3, with a standing risk and a symptom that may come too late.
fn dns(start: Duration, backend: &str, repetition: u32, symptom: Verdict) -> Script {
    let script = Script::new(
        start,
        "I3",
        "the only DNS replica loses its NIC",
        id("coredns-single-replica-loss", None, repetition),
    )
    .on(backend)
    .phases(ms(2_400))
    .verdict(expect("dns-endpoints", Level::Risk, Some(SERVICE), s(1)), Verdict::Detected { after: Duration::ZERO })
    .injected(ms(15), "move eth1 out of worker-1", "worker-1 has no eth1")
    .effect("lookup example-api.com fails: timeout", Some(ms(38)), "9 of 9 lookups timed out");
    let passes = symptom.passes();
    let script = script.verdict(expect("dns-failing", Level::Symptom, Some(SERVICE), s(3)), symptom);
    if passes {
        script.ended(ms(4_260), Outcome::Pass, &[])
    } else {
        script.ended(ms(5_260), Outcome::Fail, &["dns-failing did not say so in time"])
    }
}

fn limit(start: Duration, control: Option<&str>, repetition: u32) -> Script {
    let trial = id("conntrack-cap-reset", control, repetition);
    Script::new(start, "I2", "kube-proxy restart resets nf_conntrack_max", trial)
}

fn cap(start: Duration, control: Option<&str>, repetition: u32) -> Script {
    let script = limit(start, control, repetition).phases(ms(900));
    if control.is_some() {
        return script.verdict(expect("conntrack-limit", Level::Cause, None, s(1)), Verdict::Silent).ended(
            ms(2_400),
            Outcome::Pass,
            &[],
        );
    }
    script
        .injected(us(90), "nf_conntrack_max 262144 -> 4096", "4096")
        .verdict(expect("conntrack-limit", Level::Cause, Some(NODE), ms(500)), Verdict::Detected { after: us(3_100) })
        .ended(ms(2_500), Outcome::Pass, &[])
}

/// Three incidents in the lab and on kind: one passes on both, one is late on kind, one is skipped there.
pub(crate) fn on_both() -> Vec<RunEvent> {
    let why = "it lowers nf_conntrack_max of the whole machine: allow with --allow-host-writes";
    let scripts = vec![
        route(ms(10), "netns", 1, us(1_900), ms(1_020)),
        route(s(10), "kind", 1, ms(23), ms(573)),
        route_control(ms(20), "netns", 1),
        route_control(s(14), "kind", 1),
        dns(ms(30), "netns", 1, Verdict::Detected { after: ms(1_130) }),
        dns(s(18), "kind", 1, Verdict::Late { after: ms(3_400) }),
        cap(ms(40), None, 1),
        limit(s(9), None, 1).on("kind").skipped(why),
        cap(ms(50), Some("limit-raised"), 1),
        limit(s(9), Some("limit-raised"), 1).on("kind").skipped(why),
    ];
    play(scripts, &[])
}

/// Four repetitions of two incidents in the lab and on kind; on kind one of them is late once, and the
/// other always missed.
pub(crate) fn on_both_repeated() -> Vec<RunEvent> {
    let mut scripts = Vec::new();
    for n in 1..=4_u32 {
        let more = u64::from(n);
        scripts.push(route(s(4) * n, "netns", n, us(1_700 + 130 * more), ms(980 + 11 * more)));
        scripts.push(route(s(40) + s(4) * n, "kind", n, ms(19 + 3 * more), ms(560 + 7 * more)));
        scripts.push(route_control(s(4) * n + ms(9), "netns", n));
        scripts.push(route_control(s(60) + s(4) * n, "kind", n));
        scripts.push(dns(s(20) + s(4) * n, "netns", n, Verdict::Detected { after: ms(1_100 + 9 * more) }));
        scripts.push(dns(s(80) + s(4) * n, "kind", n, Verdict::Missed));
    }
    play(scripts, &[])
}

fn alone(backend: &str) -> Vec<RunEvent> {
    play(vec![route(ms(10), backend, 1, ms(23), ms(573)), route_control(ms(20), backend, 1)], &[])
}

pub(crate) fn in_the_lab() -> Vec<RunEvent> {
    alone("netns")
}

pub(crate) fn on_kind() -> Vec<RunEvent> {
    alone("kind")
}

/// A control that came to nothing.
fn nothing(start: Duration, control: &str, repetition: u32) -> Script {
    let why = "dns-race is not in force: read back 0 of 200 answered";
    let mut script = limit(start, Some(control), repetition).phases(ms(900));
    for name in DETECTORS {
        script = script.verdict(expect(name, Level::Cause, None, ms(0)), Verdict::Undecided { why: why.to_owned() });
    }
    script.ended(ms(2_400), Outcome::Inconclusive, &[why])
}

fn proofless(repetitions: u32) -> Vec<RunEvent> {
    let mut scripts = Vec::new();
    for n in 1..=repetitions {
        let start = s(9) * n;
        scripts.push(cap(start, None, n));
        scripts.push(nothing(start + ms(10), "dns-race", n));
        scripts.push(nothing(start + ms(20), "limit-raised", n));
        let alarm = Verdict::FalseAlarm {
            severity: Severity::Warning,
            subject: NODE.parse().expect("a subject"),
            evidence: "SYN left by eth0".to_owned(),
        };
        scripts.push(
            limit(start + ms(30), Some("elsewhere"), n)
                .phases(ms(900))
                .verdict(expect("wrong-nic", Level::Symptom, None, s(1)), alarm)
                .verdict(
                    expect("dns-failing", Level::Symptom, None, s(1)),
                    Verdict::Blind { why: "packet socket overran".to_owned() },
                )
                .ended(ms(2_400), Outcome::Fail, &["wrong-nic raised a false alarm", "dns-failing could not see"]),
        );
    }
    play(scripts, &[])
}

/// An incident that passes; of its controls two prove nothing, and one has a false alarm.
pub(crate) fn without_proof() -> Vec<RunEvent> {
    proofless(1)
}

pub(crate) fn without_proof_repeated() -> Vec<RunEvent> {
    proofless(3)
}

/// An incident that never came to its fault, and a control of it that did not either.
pub(crate) fn aborted() -> Vec<RunEvent> {
    let why = || Verdict::Undecided { why: "no steady state".to_owned() };
    let cause = |node: &str| expect("policy-route", Level::Cause, Some(node), ms(500));
    let incident = limit(ms(10), None, 1)
        .at(ms(0), TrialEvent::Started)
        .verdict(cause("node/worker-1"), why())
        .verdict(cause("node/worker-2"), why())
        .ended(ms(2_400), Outcome::Inconclusive, &["no steady state"]);
    play(vec![incident, nothing(ms(20), "dns-race", 1)], &[])
}
