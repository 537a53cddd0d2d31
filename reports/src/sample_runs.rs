//! The runs that [`crate::sample`] tells: one of everything, and one repeated ten times.
//!
//! Job: the trials themselves. Invariants: every outcome and every verdict occurs in [`run`].
//! Left out: how events are written.

use std::time::Duration;

use relapse_detectors::finding::{Level, Severity};

use crate::event::{Expectation, Outcome, Phase, RunEvent, TrialEvent, Verdict};
use crate::sample::{Script, T0, expect, id, ms, play, us};

const CAUSE: (Level, Severity) = (Level::Cause, Severity::Critical);
const SYMPTOM: (Level, Severity) = (Level::Symptom, Severity::Critical);

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// One run with a trial of every kind.
pub(crate) fn run() -> Vec<RunEvent> {
    let scripts = vec![
        mss(),
        mss_control(),
        Script::new(ms(40), "I2", "kube-proxy restart resets nf_conntrack_max", id("conntrack-cap-reset", None, 1))
            .skipped("it lowers nf_conntrack_max of the whole machine: allow with --allow-host-writes"),
        Script::new(ms(41), "I2", "kube-proxy restart", id("conntrack-cap-reset", Some("limit-raised"), 1))
            .skipped("it writes nf_conntrack_max of the whole machine: allow with --allow-host-writes"),
        dns(),
        policy_route(),
        policy_route_control(),
        database(),
        record(),
        snat(),
        Script::new(ms(9_000), "I7", "SNAT port collision", id("snat-port-collision", Some("reuse-succeeds"), 1))
            .at(ms(0), TrialEvent::Started)
            .ended(ms(31), Outcome::InternalError, &["thread of node worker-2 panicked: index out of bounds"]),
    ];
    play(scripts, &["host-write lock was held by run 20261121-114112-01bc; waited 0.8 s"])
}

fn policy_route() -> Script {
    let node = "node/worker-2";
    Script::new(ms(2_600), "I4", "pods' routing table is lost", id("policy-route-lost", None, 1))
        .phases(ms(1_500))
        .injected(us(400), "delete default via 10.176.96.1 dev eth1 table 2", "table 2 is empty")
        .finding(us(1_900), "policy-route", CAUSE, node, "route table 2 lost default via 10.176.96.1 dev eth1")
        .verdict(expect("policy-route", Level::Cause, Some(node), ms(500)), Verdict::Detected { after: us(1_900) })
        .effect("app-database fails: timeout", Some(ms(12)), "5 of 5 attempts timed out")
        .effect("ping-database works", None, "12 of 12 answered")
        .finding(ms(1_020), "wrong-nic", SYMPTOM, node, "SYN 10.176.98.29 -> 10.176.46.4:3306 left by eth0, not eth1")
        .verdict(expect("wrong-nic", Level::Symptom, Some(node), s(3)), Verdict::Detected { after: ms(1_020) })
        .finding(ms(1_240), "syn-unanswered", SYMPTOM, "pod/app", "2 SYNs to 10.176.46.4:3306 unanswered, ICMP is")
        .cleared(ms(1_515), "policy-route", Level::Cause, node)
        .cleared(ms(1_700), "wrong-nic", Level::Symptom, node)
        .cleared(ms(1_720), "syn-unanswered", Level::Symptom, "pod/app")
        .flow("app-database", ms(3_300), Some((ms(12), ms(1_500))), ms(2))
        .flow("ping-database", ms(3_300), None, us(300))
        .ended(ms(3_370), Outcome::Pass, &[])
}

fn policy_route_control() -> Script {
    let said = ("policy-route", Level::Cause, Severity::Info, "node/worker-2", "table 2 was empty for 310 ms");
    let mut script =
        Script::new(ms(2_700), "I4", "pods' routing table is lost", id("policy-route-lost", Some("table-rebuilt"), 1))
            .phases(ms(900))
            .injected(us(600), "flush table 2, rebuild it after 300 ms", "table 2 has its default route")
            .say(T0 + ms(2), Phase::Detect, said, false)
            .effect("app-database works", None, "44 of 44 attempts succeeded")
            .flow("app-database", ms(2_700), None, ms(2));
    for detector in ["policy-route", "wrong-nic", "syn-unanswered"] {
        script = script.verdict(expect(detector, Level::Cause, None, ms(900)), Verdict::Silent);
    }
    script.ended(ms(2_790), Outcome::Pass, &[])
}

fn mss() -> Script {
    let path = "path/192.168.40.0/24";
    Script::new(ms(10), "I1", "only the ticket system, only from one office", id("mss-clamp-raised", None, 1))
        .phases(ms(5_300))
        .injected(us(700), "clamp to 1380 in chain postrouting of office-beijing", "tcp option maxseg size set 1380")
        .finding(ms(31), "mss-step", CAUSE, path, "SYN MSS 1280 -> 1380;\ndeclared path MTU 1410 | does not fit")
        .verdict(expect("mss-step", Level::Cause, Some(path), ms(500)), Verdict::Detected { after: ms(31) })
        .effect("large-download fails: timeout", Some(ms(28)), "4 of 4 downloads stalled after 0 bytes")
        .effect("small-page works", None, "31 of 31")
        .finding(
            ms(5_120),
            "pmtu-blackhole",
            SYMPTOM,
            path,
            "3 connections with 2 consecutive RTOs of 1380-byte segments, 0 bytes acknowledged, small ones pass",
        )
        .verdict(expect("pmtu-blackhole", Level::Symptom, Some(path), s(3)), Verdict::Late { after: ms(5_120) })
        .cleared(ms(5_360), "mss-step", Level::Cause, path)
        .cleared(ms(5_600), "pmtu-blackhole", Level::Symptom, path)
        .flow("large-download", ms(7_200), Some((ms(28), ms(5_300))), ms(41))
        .flow("small-page", ms(7_200), None, ms(3))
        .flow("guangzhou-download", ms(7_200), None, ms(38))
        .at(ms(7_100), TrialEvent::HostChanged { what: "link veth91a2 appeared".to_owned() })
        .ended(ms(7_310), Outcome::Fail, &["pmtu-blackhole was late: 5.12 s, deadline 3 s"])
}

fn mss_control() -> Script {
    let path = "path/192.168.40.0/24";
    let evidence = "2 consecutive RTOs of 1360-byte segments";
    let alarm = Verdict::FalseAlarm {
        severity: Severity::Warning,
        subject: path.parse().expect("a subject"),
        evidence: evidence.to_owned(),
    };
    Script::new(ms(20), "I1", "only the ticket system", id("mss-clamp-raised", Some("client-dies"), 1))
        .phases(s(3))
        .injected(us(300), "client of office-beijing drops everything", "chain forward has 1 rule: drop")
        .finding(ms(1_400), "pmtu-blackhole", (Level::Symptom, Severity::Warning), path, evidence)
        .verdict(expect("pmtu-blackhole", Level::Symptom, None, s(3)), alarm)
        .verdict(expect("mss-step", Level::Cause, None, s(3)), Verdict::Silent)
        .flow("large-download", ms(4_700), Some((ms(30), s(3))), ms(40))
        .ended(ms(4_900), Outcome::Fail, &["pmtu-blackhole raised a false alarm about path/192.168.40.0/24"])
}

fn dns() -> Script {
    let service = "service/kube-system/kube-dns";
    let risk = ("dns-endpoints", Level::Risk, Severity::Warning, service, "1 ready endpoint behind 192.168.0.10");
    let miss = Expectation {
        expected_miss: Some("CoreDNSDown fires after 15 min".to_owned()),
        ..expect("alertmanager", Level::Symptom, None, s(2))
    };
    Script::new(ms(1_100), "I3", "the only DNS replica loses its NIC", id("coredns-single-replica-loss", None, 1))
        .phases(ms(2_400))
        .say(ms(420), Phase::Baseline, risk, false)
        .verdict(expect("dns-endpoints", Level::Risk, Some(service), s(1)), Verdict::Detected { after: ms(0) })
        .injected(ms(15), "move eth1 out of worker-1", "worker-1 has no eth1")
        .finding(us(400), "pod-nic", CAUSE, "node/worker-1", "eth1 (table 2, 10.176.96.1) is gone")
        .verdict(expect("pod-nic", Level::Cause, Some("node/worker-1"), ms(500)), Verdict::Detected { after: us(400) })
        .effect("lookup example-api.com fails: timeout", Some(ms(38)), "9 of 9 lookups timed out")
        .effect("ask 10.16.16.16 directly works", None, "21 of 21 answered in 2 ms")
        .finding(ms(2_040), "dns-failing", SYMPTOM, service, "2 queries in a row without answer; 10.16.16.16 answers")
        .verdict(expect("dns-failing", Level::Symptom, Some(service), s(3)), Verdict::Detected { after: ms(2_040) })
        .verdict(miss, Verdict::ExpectedMiss { reason: "CoreDNSDown fires after 15 min".to_owned() })
        .cleared(ms(2_420), "pod-nic", Level::Cause, "node/worker-1")
        .cleared(ms(2_600), "dns-failing", Level::Symptom, service)
        .flow("lookup", ms(4_200), Some((ms(38), ms(2_400))), ms(2))
        .flow("upstream-direct", ms(4_200), None, ms(2))
        .ended(ms(4_260), Outcome::Pass, &[])
}

fn database() -> Script {
    let undecided = Verdict::Undecided { why: "the effect was not seen".to_owned() };
    Script::new(ms(5_000), "I5", "slow is down", id("database-slow", None, 1))
        .phases(s(4))
        .injected(ms(2), "answers of 10.176.46.4:3306 take 4.5 s at scale 1/100", "delay is 45 ms")
        .effect("business-request fails: slower than 10x", None, "0 of 12 requests were slower than 500 ms")
        .verdict(expect("slow-server", Level::Symptom, Some("service/database"), s(4)), undecided)
        .flow("business-request", ms(5_700), None, ms(48))
        .at(ms(1), TrialEvent::Reduced { what: "kernel log".to_owned(), why: "closed to ordinary users".to_owned() })
        .ended(ms(5_900), Outcome::Inconclusive, &["no effect: business-request was never slower than 500 ms"])
}

fn record() -> Script {
    let subject = "service/object-store";
    Script::new(ms(6_000), "I6", "the one truth", id("dns-record-wrong", None, 1))
        .phases(ms(2_100))
        .injected(ms(1), "store.example.com A 100.64.249.132", "both upstreams answer 100.64.249.132")
        .effect("upload slow", Some(ms(160)), "median 410 ms, was 9 ms")
        .finding(ms(90), "dns-answer", CAUSE, "service/database", "100.64.249.132 is outside 10.219.226.0/24")
        .verdict(
            expect("dns-answer", Level::Cause, Some(subject), s(1)),
            Verdict::WrongSubject { said: "service/database".parse().expect("a subject") },
        )
        .at(
            ms(700),
            TrialEvent::Blind {
                detector: "syn-unanswered".to_owned(),
                why: "packet socket of worker-1 overran: 812 frames lost".to_owned(),
            },
        )
        .verdict(
            expect("syn-unanswered", Level::Symptom, Some("node/worker-1"), s(2)),
            Verdict::Blind { why: "packet socket of worker-1 overran: 812 frames lost".to_owned() },
        )
        .flow("upload", ms(3_900), None, ms(9))
        .at(ms(3_950), TrialEvent::LeftBehind { what: "link relapse7f3a-3 in the host's namespace".to_owned() })
        .ended(ms(4_000), Outcome::Dirty, &["a link of this run is still there: relapse7f3a-3"])
}

fn snat() -> Script {
    let me = Some("node/worker-1");
    let outside = Expectation {
        expected_miss: Some("no alert exists".to_owned()),
        ..expect("alertmanager", Level::Symptom, None, s(2))
    };
    Script::new(ms(6_500), "I7", "a case unsolved for months", id("snat-port-collision", None, 1))
        .phases(ms(2_100))
        .injected(ms(3), "SNAT of worker-1 to ports 46990-46994", "masquerade to :46990-46994")
        .effect("control-to-account fails: timeout", Some(ms(700)), "7 of 24 reuses timed out")
        .verdict(expect("port-reuse", Level::Cause, me, s(1)), Verdict::Missed)
        .finding(
            ms(1_720),
            "syn-stuck",
            SYMPTOM,
            "node/worker-1",
            "10.176.64.11:46994 -> 10.200.0.5:443 SYN_SENT for 1.0 s",
        )
        .verdict(expect("syn-stuck", Level::Symptom, me, s(2)), Verdict::NotCleared)
        .verdict(expect("conntrack-exhaustion", Level::Symptom, me, s(2)), Verdict::PreExisting)
        .verdict(outside, Verdict::UnexpectedlyDetected { after: ms(1_900) })
        .flow("control-to-account", ms(3_900), Some((ms(700), ms(1_400))), ms(4))
        .ended(ms(4_100), Outcome::Fail, &["port-reuse missed", "syn-stuck was not cleared within 5 s"])
}

/// Ten repetitions of one incident and its control: eight pass, one is late, one has no effect.
pub(crate) fn repeated() -> Vec<RunEvent> {
    let node = "node/worker-2";
    let mut scripts = Vec::new();
    for n in 1..=10_u32 {
        let jitter = u64::from(n * 7 % 10);
        let cause = us(1_700 + 130 * jitter);
        let symptom = ms(if n == 4 { 3_400 } else { 980 + 11 * jitter });
        let mut script = Script::new(s(4) * n, "I4", "pods' routing table is lost", id("policy-route-lost", None, n))
            .phases(ms(3_500))
            .injected(us(400), "delete default via 10.176.96.1 dev eth1 table 2", "table 2 is empty");
        if n == 7 {
            let why = "not enough of an effect: 1 of 5 attempts failed";
            scripts.push(script.ended(ms(4_100), Outcome::Inconclusive, &[why]));
            continue;
        }
        script = script
            .effect("app-database fails: timeout", Some(ms(12)), "5 of 5 attempts timed out")
            .finding(cause, "policy-route", CAUSE, node, "route table 2 lost its default")
            .verdict(expect("policy-route", Level::Cause, Some(node), ms(500)), Verdict::Detected { after: cause })
            .finding(symptom, "wrong-nic", SYMPTOM, node, "SYN left by eth0");
        let expected = expect("wrong-nic", Level::Symptom, Some(node), s(3));
        script = if n == 4 {
            script.verdict(expected, Verdict::Late { after: symptom }).ended(
                ms(5_600),
                Outcome::Fail,
                &["wrong-nic was late: 3.40 s, deadline 3 s"],
            )
        } else {
            script.verdict(expected, Verdict::Detected { after: symptom }).ended(ms(5_400), Outcome::Pass, &[])
        };
        scripts.push(script);
        let twin = id("policy-route-lost", Some("table-rebuilt"), n);
        scripts.push(
            Script::new(s(4) * n + ms(5), "I4", "pods' routing table is lost", twin)
                .phases(ms(900))
                .verdict(expect("policy-route", Level::Cause, None, ms(900)), Verdict::Silent)
                .ended(ms(2_790), Outcome::Pass, &[]),
        );
    }
    play(scripts, &[])
}
