//! A chain of two steps.

use relapse_detectors::finding::Subject;
use relapse_detectors::triage::{self, Seen, State, StepState, Triaged};

use super::*;
use crate::event::{OfStep, TriageDecided, TriageExpected};

/// About a step, uncovered by the healing of another where one is named.
fn of(step: &str, after: Option<&str>, expectation: Expectation) -> Expectation {
    let of = OfStep { step: Some(step.to_owned()), after: after.map(str::to_owned), clears: None };
    Expectation { of: Some(of), ..expectation }
}

/// One that passes.
pub(crate) fn chain() -> Vec<RunEvent> {
    play(vec![told(false)], None)
}

/// One in which a finding is cleared too early, another is never made, and nobody sees the effect of the last step.
pub(crate) fn broken() -> Vec<RunEvent> {
    play(vec![told(true)], None)
}

fn told(broken: bool) -> Script {
    let script = Script::new(ms(10), "chain", "I3 and I4, found one after another", "two-steps", ms(0));
    let phase = |phase, step: Option<&str>| TrialEvent::Phase { phase, step: step.map(str::to_owned) };
    let injected = |step: &str, fault: &str, (t0, t1): (Duration, Duration), what: &str, read_back: &str| {
        let (t0, t1) = (START + ms(10) + T0 + t0, START + ms(10) + T0 + t1);
        let [fault, what, read_back] = [fault, what, read_back].map(str::to_owned);
        TrialEvent::Injected(Injected { fault, what, t0, t1, read_back, step: Some(step.to_owned()) })
    };
    let seen = |step: Option<&str>, effect: &str, t2: Option<Duration>, evidence: &str| {
        let holds = !evidence.starts_with("0 of");
        let (effect, evidence, step) = (effect.to_owned(), evidence.to_owned(), step.map(str::to_owned));
        TrialEvent::Effect(EffectSeen { effect, holds, t2: t2.map(|t2| START + ms(10) + T0 + t2), evidence, step })
    };
    let verdict = |expectation: &Expectation, from: Option<Duration>, verdict| {
        let from = from.map(|from| START + ms(10) + T0 + from);
        TrialEvent::Verdict(Decided { expectation: expectation.clone(), verdict, from, visible: None })
    };
    let clears = OfStep { clears: Some("route".to_owned()), ..OfStep::default() };
    let risk = Expectation { of: Some(clears), ..expect("dns-endpoints", Level::Risk, DNS, ms(500)) };
    let nic = of("dns", None, cause("pod-nic", "node/worker-1", ms(500)));
    let route = of("route", None, cause("policy-route", NODE, ms(500)));
    let stray = of("route", Some("dns"), symptom("wrong-nic", NODE, ms(3_000)));
    let detected = |after| Verdict::Detected { after };
    let mut script = script
        .at(ms(0), TrialEvent::Started)
        .at(ms(0), phase(Phase::Up, None))
        .at(ms(64), phase(Phase::Settle, None))
        .at(ms(310), phase(Phase::Baseline, None))
        .says_until(ms(420), T0 + ms(2_103), &risk, "1 ready endpoint behind 192.168.0.10")
        .at(T0 - us(300), verdict(&risk, None, detected(ms(0))))
        .at(T0 - us(200), phase(Phase::Inject, None))
        .says_until(T0 + us(400), T0 + ms(1_112), &nic, "eth1 (table 2, 10.176.96.1) is gone")
        .at(T0 + ms(15), injected("dns", "link-loss", (ms(0), ms(15)), "move eth1 out of worker-1", "no eth1"))
        .at(T0 + ms(15), verdict(&nic, Some(ms(0)), detected(us(400))))
        .at(T0 + ms(18), injected("route", "policy-route-loss", (ms(16), ms(17)), "empty table 2", "table 2 is empty"))
        .at(T0 + ms(19), phase(Phase::Detect, Some("dns")))
        .says_until(T0 + ms(40), T0 + ms(if broken { 900 } else { 2_102 }), &route, "table 2 has no default route")
        .at(T0 + ms(40), verdict(&route, Some(ms(16)), detected(ms(24))));
    if broken {
        script = script.at(T0 + ms(1_000), verdict(&route, Some(ms(16)), Verdict::ClearedEarly));
    }
    script = script
        .at(T0 + ms(1_000), seen(Some("dns"), "lookup fails: name not resolved", Some(ms(38)), "9 of 9 failed"))
        .at(T0 + ms(1_000), seen(Some("dns"), "ping-database works", None, "12 of 12 worked"))
        .at(T0 + ms(1_050), leads("dns", ["1 node/worker-1", "3 service/kube-dns"], Some(ms(31))))
        .at(T0 + ms(1_100), phase(Phase::Heal, Some("dns")))
        .at(T0 + ms(1_105), injected("dns", "dns-replica-added", (ms(1_101), ms(1_104)), "add coredns-2", "ready"))
        .at(T0 + ms(1_110), TrialEvent::Healed { what: "bring eth1 of worker-1 back".to_owned(), error: None })
        .at(T0 + ms(1_111), phase(Phase::Detect, Some("route")));
    let evidence = if broken { "0 of 22 failed" } else { "7 of 7 failed" };
    let effect = seen(Some("route"), "app-database fails: timeout", Some(ms(1_140)), evidence);
    script = if broken {
        script.at(T0 + ms(2_090), verdict(&stray, Some(ms(1_100)), Verdict::Missed)).at(T0 + ms(2_090), effect)
    } else {
        script
            .says_until(T0 + ms(1_680), T0 + ms(2_104), &stray, "SYN 10.176.98.29 -> 10.176.46.4:3306 left by eth0")
            .at(T0 + ms(1_680), verdict(&stray, Some(ms(1_100)), detected(ms(580))))
            .at(T0 + ms(2_090), effect)
            .at(T0 + ms(2_095), leads("route", ["6 node/worker-2"; 2], Some(ms(54))))
            .at(T0 + ms(2_100), phase(Phase::Heal, Some("route")))
    };
    script = script
        .at(T0 + ms(2_101), TrialEvent::Healed { what: "put table 2 back".to_owned(), error: None })
        .at(T0 + ms(2_102), phase(Phase::Heal, None))
        .at(T0 + ms(2_110), phase(Phase::Recover, None))
        .at(T0 + ms(2_500), seen(None, "lookup works", None, "4 of 4 worked"))
        .at(T0 + ms(2_510), phase(Phase::Down, None))
        .flow("lookup", ms(3_700), Some((ms(38), ms(1_111))), ms(2));
    script.info.expectations = vec![nic, route, stray, risk];
    if broken {
        let reason = "step route: the expected effect was not seen: app-database fails: timeout (0 of 22 failed)";
        script.ended(ms(3_900), Outcome::Inconclusive, &[reason])
    } else {
        script.passed(ms(3_900))
    }
}

/// Triage at the end of a stage: faulty steps and their places, of which the last explains what users see.
fn leads(stage: &str, faulty: [&str; 2], after: Option<Duration>) -> TrialEvent {
    let place = |text: &str| {
        let (step, at) = text.split_once(' ').expect("a step and a place");
        (step.parse::<u8>().expect("a step"), at.parse::<Subject>().expect("a place"))
    };
    let faulty = faulty.map(place);
    let (first, at) = faulty[1].clone();
    let steps = (1..=6).map(|number| {
        let found = faulty.iter().find(|(step, _)| *step == number).map(|(_, at)| at.clone());
        let (state, evidence) = match number {
            _ if found.is_some() => (State::Faulty, "does not answer"),
            4 => (State::NotSeen, "no connect was seen"),
            5 => (State::NotOnThisWay, "no ingress is on the way"),
            _ => (State::InOrder, "answers as usual"),
        };
        StepState { number, state, evidence: evidence.to_owned(), at: found }
    });
    let contributing = if faulty[0] == faulty[1] { Vec::new() } else { vec![faulty[0].0] };
    let expected = TriageExpected { step: first, at: at.clone(), contributing: Vec::new(), within: ms(5_000) };
    let verdict = triage::Verdict { steps: steps.collect(), first: Some(first), at: Some(at), contributing };
    let seen = Seen { at: START + T0, outcome: triage::Outcome::NameError };
    let found = Some(Triaged { flow: "lookup".to_owned(), since: START + T0, seen, verdict });
    let step = Some(stage.to_owned());
    TrialEvent::TriageDecided(TriageDecided { step, expected: Some(expected), found, after, wrong: None })
}

impl Script {
    /// A finding that stands from one instant to another, both counted from its start.
    fn says_until(mut self, from: Duration, to: Duration, expected: &Expectation, evidence: &str) -> Self {
        for (at, cleared) in [(from, false), (to, true)] {
            let received = self.start + at;
            let finding = Finding {
                detector: expected.detector.clone(),
                incident: self.info.incident.clone(),
                level: expected.level,
                severity: Severity::Warning,
                subject: expected.subject.clone().expect("a subject"),
                evidence: evidence.to_owned(),
                since: received - us(300),
                cleared,
            };
            self = self.at(at, TrialEvent::Finding(FindingReceived { phase: Phase::Detect, received, finding }));
        }
        self
    }
}
