//! A run that never was: events with every kind of trial and verdict, for tests and for looking at.
//!
//! Job: realistic input for the reports. Invariants: fixed times, so that reports of it can be
//! compared as snapshots; addresses and numbers are those of the incidents. Left out: completeness
//! of the scenarios; each trial has just enough events to be drawn.

use std::time::Duration;

use relapse_detectors::finding::{Finding, Level, Severity};
use relapse_detectors::time::Time;

use crate::event::{
    Decided, EffectSeen, Expectation, FindingReceived, FlowSample, Injected, Outcome, Phase, RunEvent, RunStarted,
    TrialEnded, TrialEvent, TrialId, TrialInfo, Verdict, What,
};

pub(crate) const DETECTORS: [&str; 15] = [
    "mss-step",
    "pmtu-blackhole",
    "conntrack-limit",
    "conntrack-exhaustion",
    "pod-nic",
    "dns-endpoints",
    "dns-failing",
    "policy-route",
    "wrong-nic",
    "syn-unanswered",
    "slow-server",
    "dns-answer",
    "port-reuse",
    "syn-stuck",
    "alertmanager",
];

const START: u64 = 4_821_000_000_000;

pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) const fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

pub(crate) fn expect(detector: &str, level: Level, subject: Option<&str>, within: Duration) -> Expectation {
    Expectation {
        detector: detector.to_owned(),
        level,
        subject: subject.map(|s| s.parse().expect("a subject")),
        within,
        expected_miss: None,
        outside: detector == "alertmanager",
    }
}

pub(crate) fn id(scenario: &str, control: Option<&str>, repetition: u32) -> TrialId {
    TrialId {
        scenario: scenario.to_owned(),
        control: control.map(str::to_owned),
        backend: "netns".to_owned(),
        repetition,
    }
}

/// Writes the events of one trial; times are relative to its start, or to t0 where named so.
pub(crate) struct Script {
    events: Vec<RunEvent>,
    info: TrialInfo,
    start: Time,
}

/// t0 of every trial, counted from its start.
pub(crate) const T0: Duration = ms(1_310);

impl Script {
    pub(crate) fn new(start: Duration, incident: &str, title: &str, trial: TrialId) -> Self {
        let info =
            TrialInfo { trial, incident: incident.to_owned(), title: title.to_owned(), expectations: Vec::new() };
        Self { events: Vec::new(), info, start: Time(START) + start }
    }

    /// The same on another backend; the first thing to say of a trial.
    pub(crate) fn on(mut self, backend: &str) -> Self {
        backend.clone_into(&mut self.info.trial.backend);
        self
    }

    pub(crate) fn at(mut self, after: Duration, event: TrialEvent) -> Self {
        let what = What::Trial { trial: self.info.trial.clone(), event };
        self.events.push(RunEvent { at: self.start + after, what });
        self
    }

    fn t(&self, after: Duration) -> Time {
        self.start + T0 + after
    }

    /// Started, and all phases: detect ends `detect` after t0.
    pub(crate) fn phases(mut self, detect: Duration) -> Self {
        self = self.at(ms(0), TrialEvent::Started);
        let heal = T0 + detect;
        let marks = [ms(0), ms(64), ms(310), T0 - us(200), T0 + ms(1), heal, heal + ms(9), heal + ms(480)];
        for (phase, at) in Phase::ALL.into_iter().zip(marks) {
            self = self.at(at, TrialEvent::Phase { phase });
        }
        let what = self.fault();
        self.at(heal + ms(8), TrialEvent::Healed { what, error: None })
    }

    fn fault(&self) -> String {
        self.info.trial.control.clone().unwrap_or_else(|| self.info.trial.scenario.clone())
    }

    pub(crate) fn injected(self, t1: Duration, what: &str, read_back: &str) -> Self {
        let injected = Injected {
            fault: self.fault(),
            what: what.to_owned(),
            t0: self.t(ms(0)),
            t1: self.t(t1),
            read_back: read_back.to_owned(),
        };
        self.at(T0 + t1, TrialEvent::Injected(injected))
    }

    pub(crate) fn effect(self, effect: &str, t2: Option<Duration>, evidence: &str) -> Self {
        let at = T0 + t2.unwrap_or(ms(600)) + ms(500);
        let t2 = t2.map(|t2| self.t(t2));
        let holds = !evidence.starts_with("0 of");
        self.at(
            at,
            TrialEvent::Effect(EffectSeen { effect: effect.to_owned(), holds, t2, evidence: evidence.to_owned() }),
        )
    }

    pub(crate) fn finding(
        self,
        after: Duration,
        detector: &str,
        (level, severity): (Level, Severity),
        subject: &str,
        evidence: &str,
    ) -> Self {
        self.say(T0 + after, Phase::Detect, (detector, level, severity, subject, evidence), false)
    }

    pub(crate) fn say(
        self,
        at: Duration,
        phase: Phase,
        (detector, level, severity, subject, evidence): (&str, Level, Severity, &str, &str),
        cleared: bool,
    ) -> Self {
        let received = self.start + at;
        let finding = Finding {
            detector: detector.to_owned(),
            incident: self.info.incident.clone(),
            level,
            severity,
            subject: subject.parse().expect("a subject"),
            evidence: evidence.to_owned(),
            since: received - us(300),
            cleared,
        };
        self.at(at, TrialEvent::Finding(FindingReceived { phase, received, finding }))
    }

    pub(crate) fn cleared(self, at: Duration, detector: &str, level: Level, subject: &str) -> Self {
        self.say(T0 + at, Phase::Recover, (detector, level, Severity::Info, subject, "no longer holds"), true)
    }

    pub(crate) fn verdict(mut self, expectation: Expectation, verdict: Verdict) -> Self {
        if !matches!(verdict, Verdict::Silent | Verdict::FalseAlarm { .. }) {
            self.info.expectations.push(expectation.clone());
        }
        let at = T0
            + match &verdict {
                Verdict::Detected { after } | Verdict::Late { after } => *after + us(90),
                _ => expectation.within,
            };
        self.at(at, TrialEvent::Verdict(Decided { expectation, verdict }))
    }

    /// Samples of a flow every 100 ms until `until`; it fails between two instants after t0.
    pub(crate) fn flow(
        mut self,
        flow: &str,
        until: Duration,
        fails: Option<(Duration, Duration)>,
        median: Duration,
    ) -> Self {
        let mut at = ms(150);
        while at < until {
            let bad = fails.is_some_and(|(from, to)| at > T0 + from && at <= T0 + to + ms(100));
            let sample = FlowSample {
                flow: flow.to_owned(),
                attempts: 5,
                failures: if bad { 5 } else { 0 },
                median: (!bad).then_some(median),
            };
            self = self.at(at, TrialEvent::Flow(sample));
            at += ms(100);
        }
        self
    }

    pub(crate) fn ended(self, took: Duration, outcome: Outcome, reasons: &[&str]) -> Self {
        let ended = TrialEnded {
            outcome,
            reasons: reasons.iter().map(|&r| r.to_owned()).collect(),
            took,
            up: Some(ms(64)),
            down: Some(ms(71)),
            peak_memory: Some(38 << 20),
            cpu: Some(Duration::from_millis(800)),
        };
        self.at(took, TrialEvent::Ended(ended))
    }

    pub(crate) fn skipped(self, reason: &str) -> Self {
        self.at(ms(0), TrialEvent::Skipped { reason: reason.to_owned() })
    }
}

/// A run of the given trials, in the order of their instants.
pub(crate) fn play(scripts: Vec<Script>, notices: &[&str]) -> Vec<RunEvent> {
    let mut infos: Vec<TrialInfo> = Vec::new();
    let mut events: Vec<RunEvent> = Vec::new();
    let mut outcome = Outcome::Pass;
    for mut script in scripts {
        script.events.sort_by_key(|event| event.at);
        for event in &script.events {
            if let What::Trial { event: TrialEvent::Ended(ended), .. } = &event.what {
                outcome = outcome.max(ended.outcome);
            }
        }
        infos.push(script.info);
        events.append(&mut script.events);
    }
    events.sort_by_key(|event| event.at);
    let last = events.last().map_or(Time(START), |event| event.at);
    let started = RunStarted {
        run_id: "20261121-114200-7f3a".to_owned(),
        started: "2026-11-21T11:42:00Z".to_owned(),
        version: "0.1.0".to_owned(),
        kernel: "6.18.5".to_owned(),
        root: false,
        host_writes: false,
        deadline_factor: 1.0,
        trials: infos,
        detectors: DETECTORS.iter().map(|&d| d.to_owned()).collect(),
    };
    let mut all = vec![RunEvent { at: Time(START), what: What::RunStarted(started) }];
    let notice = |&text: &&str| RunEvent { at: Time(START), what: What::Notice { text: text.to_owned() } };
    all.extend(notices.iter().map(notice));
    all.append(&mut events);
    let took = last.since(Time(START)) + ms(20);
    all.push(RunEvent { at: last + ms(20), what: What::RunEnded { outcome, took } });
    all
}

pub(crate) use crate::sample_backends::{
    aborted, in_the_lab, on_both, on_both_repeated, on_kind, without_proof, without_proof_repeated,
};
pub(crate) use crate::sample_runs::{repeated, run};
