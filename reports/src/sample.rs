//! Sample runs for tests and manual inspection.
//!
//! Job: [`run`] with every outcome and every verdict, [`cached`] with a fault that a cache hid, [`chain`] with stages,
//! [`both`] with repetitions and two backends.
//! Invariants: fixed times, so that reports can be compared as snapshots; addresses and numbers are those of the
//! incidents.
//! Left out: complete scenarios; each trial has just enough events to be drawn.

pub(crate) mod cached;
pub(crate) mod chain;
mod repeated;
mod script;

use std::time::Duration;

use relapse_detectors::finding::{Finding, Level, Severity};

use crate::event::{
    Decided, EffectSeen, Expectation, FindingReceived, Injected, Outcome, Phase, RunEvent, TrialEvent, TrialId, Verdict,
};
pub(crate) use repeated::{alone, both};
use script::*;

/// One run with every outcome and every verdict.
pub(crate) fn run() -> Vec<RunEvent> {
    let scripts = vec![
        mss(),
        mss_control(),
        limit(ms(40)).skipped(),
        limit(ms(41)).control("limit-raised").skipped(),
        dns(),
        route(),
        route_control(),
        database(),
        snat(),
        snat_control(),
    ];
    play(scripts, Some("host-write lock was held by run 20261121-114112-01bc; waited 0.8 s"))
}

fn mss_trial(start: Duration, detect: Duration) -> Script {
    Script::new(start, "I1", "only the ticket system, only from one office", "mss-clamp-raised", detect)
}

fn mss() -> Script {
    let path = "path/192.168.40.0/24";
    mss_trial(ms(10), ms(5_300))
        .injected(us(700), "clamp to 1380 in chain postrouting of office-beijing", "tcp option maxseg size set 1380")
        .effect("large-download fails: timeout", Some(ms(28)), "4 of 4 downloads stalled after 0 bytes")
        .effect("small-page works", None, "31 of 31")
        .found(ms(31), cause("mss-step", path, ms(500)), "SYN MSS 1280 -> 1380;\ndeclared path MTU 1410 | does not fit")
        .found(
            ms(5_120),
            symptom("pmtu-blackhole", path, ms(3_000)),
            "3 connections with 2 consecutive RTOs of 1380-byte segments, 0 bytes acknowledged, small ones pass",
        )
        .unexpected(ms(1_900), symptom("syn-unanswered", "node/worker-2", ms(0)), "3 SYNs to 10.0.0.1:443")
        .flow("large-download", ms(7_200), Some((ms(28), ms(5_300))), ms(41))
        .flow("small-page", ms(7_200), None, ms(3))
        .at(ms(7_100), TrialEvent::HostChanged { what: "link veth91a2 appeared".to_owned() })
        .ended(
            ms(7_310),
            Outcome::Fail,
            &[
                "syn-unanswered reported node/worker-2, which the scenario neither expects nor lists under `also`",
                "pmtu-blackhole was late: 5.12 s, deadline 3 s",
            ],
        )
}

fn mss_control() -> Script {
    let expected = symptom("pmtu-blackhole", "path/192.168.40.0/24", ms(3_000));
    let (subject, severity) = (expected.subject.clone().expect("a subject"), Severity::Warning);
    let evidence = "2 consecutive RTOs of 1360-byte segments";
    mss_trial(ms(20), ms(3_000))
        .control("client-dies")
        .injected(us(300), "client of office-beijing drops everything", "chain forward has 1 rule: drop")
        .reports(T0 + ms(1_400), &expected, severity, evidence)
        .verdict(
            Expectation { subject: None, ..expected },
            Verdict::FalseAlarm { severity, subject, evidence: evidence.to_owned() },
        )
        .verdict(
            Expectation { subject: None, ..cause("mss-step", "node/any", ms(3_000)) },
            Verdict::Blind { why: "packet socket overran".to_owned() },
        )
        .flow("large-download", ms(4_700), Some((ms(30), ms(3_000))), ms(40))
        .ended(ms(4_900), Outcome::Fail, &["pmtu-blackhole raised a false alarm about path/192.168.40.0/24"])
}

fn limit(start: Duration) -> Script {
    Script::new(start, "I2", "kube-proxy restart resets nf_conntrack_max", "conntrack-cap-reset", ms(900))
}

fn dns_trial(start: Duration) -> Script {
    Script::new(start, "I3", "the only DNS replica loses its NIC", "coredns-single-replica-loss", ms(2_400))
        .injected(ms(15), "move eth1 out of worker-1", "worker-1 has no eth1")
        .effect("lookup example-api.com fails: timeout", Some(ms(38)), "9 of 9 lookups timed out")
        .verdict(expect("dns-endpoints", Level::Risk, DNS, ms(1_000)), Verdict::Detected { after: ms(0) })
}

const DNS: &str = "service/kube-system/kube-dns";
const NODE: &str = "node/worker-2";

fn dns() -> Script {
    let reason = "CoreDNSDown fires after 15 min".to_owned();
    let risk = expect("dns-endpoints", Level::Risk, DNS, ms(1_000));
    let miss = Expectation { expected_miss: Some(reason.clone()), ..symptom("alertmanager", DNS, ms(2_000)) };
    dns_trial(ms(1_100))
        .reports(ms(420), &risk, Severity::Warning, "1 ready endpoint behind 192.168.0.10")
        .found(us(400), cause("pod-nic", "node/worker-1", ms(500)), "eth1 (table 2, 10.176.96.1) is gone")
        .found(
            ms(2_040),
            symptom("dns-failing", DNS, ms(3_000)),
            "2 queries in a row without answer; 10.16.16.16 answers",
        )
        .verdict(miss, Verdict::ExpectedMiss { reason })
        .flow("lookup", ms(4_200), Some((ms(38), ms(2_400))), ms(2))
        .passed(ms(4_260))
}

fn route_trial(start: Duration, detect: Duration) -> Script {
    Script::new(start, "I4", "pods' routing table is lost", "policy-route-lost", detect)
}

fn lost(start: Duration) -> Script {
    route_trial(start, ms(1_500)).injected(
        us(400),
        "delete default via 10.176.96.1 dev eth1 table 2",
        "table 2 is empty",
    )
}

fn route() -> Script {
    let syn = symptom("syn-unanswered", "pod/app", ms(0));
    lost(ms(2_600))
        .found(us(1_900), cause("policy-route", NODE, ms(500)), "route table 2 lost default via 10.176.96.1 dev eth1")
        .effect("app-database fails: timeout", Some(ms(12)), "5 of 5 attempts timed out")
        .effect("ping-database works", None, "12 of 12 answered")
        .found(
            ms(1_020),
            symptom("wrong-nic", NODE, ms(3_000)),
            "SYN 10.176.98.29 -> 10.176.46.4:3306 left by eth0, not eth1",
        )
        .reports(T0 + ms(1_240), &syn, Severity::Critical, "2 SYNs to 10.176.46.4:3306 unanswered, ICMP is")
        .flow("app-database", ms(3_300), Some((ms(12), ms(1_500))), ms(2))
        .flow("ping-database", ms(3_300), None, us(300))
        .passed(ms(3_370))
}

fn route_control() -> Script {
    let route = cause("policy-route", NODE, ms(900));
    route_trial(ms(2_700), ms(900))
        .control("table-rebuilt")
        .injected(us(600), "flush table 2, rebuild it after 300 ms", "table 2 has its default route")
        .reports(T0 + ms(2), &route, Severity::Info, "table 2 was empty for 310 ms")
        .effect("app-database works", None, "44 of 44 attempts succeeded")
        .all(&Verdict::Silent)
        .passed(ms(2_790))
}

fn database() -> Script {
    let undecided = || Verdict::Undecided { why: "the effect was not seen".to_owned() };
    Script::new(ms(5_000), "I5", "slow is down", "database-slow", ms(4_000))
        .injected(ms(2), "answers of 10.176.46.4:3306 take 4.5 s at scale 1/100", "delay is 45 ms")
        .effect("business-request fails: slower than 10x", None, "0 of 12 requests were slower than 500 ms")
        .verdict(symptom("slow-server", "service/database", ms(4_000)), undecided())
        .verdict(symptom("slow-server", "pod/app", ms(4_000)), undecided())
        .at(ms(1), TrialEvent::Reduced { what: "kernel log".to_owned(), why: "closed to ordinary users".to_owned() })
        .ended(ms(5_900), Outcome::Inconclusive, &["no effect: business-request was never slower than 500 ms"])
}

fn snat_trial(start: Duration) -> Script {
    Script::new(start, "I7", "a case unsolved for months", "snat-port-collision", ms(2_100))
}

fn snat() -> Script {
    let me = "node/worker-1";
    let stuck = symptom("syn-stuck", me, ms(2_000));
    let other = cause("policy-route", "node/worker-3", ms(1_000));
    let why = "packet socket of worker-1 overran: 812 frames lost".to_owned();
    let outside =
        Expectation { expected_miss: Some("no alert exists".to_owned()), ..symptom("alertmanager", me, ms(2_000)) };
    snat_trial(ms(6_500))
        .injected(ms(3), "SNAT of worker-1 to ports 46990-46994", "masquerade to :46990-46994")
        .effect("control-to-account fails: timeout", Some(ms(700)), "7 of 24 reuses timed out")
        .verdict(cause("port-reuse", me, ms(1_000)), Verdict::Missed)
        .reports(T0 + ms(1_720), &stuck, Severity::Critical, "10.176.64.11:46994 -> 10.200.0.5:443 SYN_SENT for 1.0 s")
        .verdict(stuck, Verdict::NotCleared)
        .verdict(symptom("wrong-nic", me, ms(2_000)), Verdict::PreExisting)
        .reports(T0 + ms(90), &other, Severity::Critical, "route table 2 lost its default")
        .verdict(
            cause("policy-route", me, ms(1_000)),
            Verdict::WrongSubject { said: other.subject.clone().expect("a subject") },
        )
        .at(ms(700), TrialEvent::Blind { detector: "syn-unanswered".to_owned(), why: why.clone() })
        .verdict(symptom("syn-unanswered", me, ms(2_000)), Verdict::Blind { why })
        .verdict(outside, Verdict::UnexpectedlyDetected { after: ms(1_900) })
        .at(ms(3_950), TrialEvent::LeftBehind { what: "link relapse7f3a-3 in the host's namespace".to_owned() })
        .ended(ms(4_100), Outcome::Dirty, &["a link of this run is still there: relapse7f3a-3", "port-reuse missed"])
}

/// An inconclusive control, which says nothing about any detector.
fn snat_control() -> Script {
    let why = "thread of node worker-2 panicked: index out of bounds";
    snat_trial(ms(9_000))
        .control("reuse-succeeds")
        .at(ms(0), TrialEvent::Waiting { reason: "another lab has the machine".to_owned() })
        .at(ms(0), TrialEvent::Started)
        .all(&Verdict::Undecided { why: why.to_owned() })
        .ended(ms(31), Outcome::InternalError, &[why])
}
