//! Scripts of trials.

use std::time::Duration;

use relapse_detectors::finding::{Finding, Level, Severity};
use relapse_detectors::time::Time;

use crate::event::{
    Decided, EffectSeen, Expectation, FindingReceived, FlowSample, Injected, Outcome, Phase, RunEvent, RunStarted,
    TrialEnded, TrialEvent, TrialId, TrialInfo, Verdict, What,
};

/// The last but one never reports anything; the last is an outside detector.
pub(super) const DETECTORS: &str = "mss-step pmtu-blackhole pod-nic dns-endpoints dns-failing policy-route wrong-nic \
                         syn-unanswered port-reuse syn-stuck conntrack-limit alertmanager";
pub(super) const START: Time = Time(4_821_000_000_000);
/// t0 of every trial, counted from its start.
pub(super) const T0: Duration = ms(1_310);

pub(super) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) const fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

pub(super) fn expect(detector: &str, level: Level, subject: &str, within: Duration) -> Expectation {
    let subject = Some(subject.parse().expect("a subject"));
    let outside = detector == "alertmanager";
    Expectation { detector: detector.to_owned(), level, subject, within, of: None, expected_miss: None, outside }
}

pub(super) fn cause(detector: &str, subject: &str, within: Duration) -> Expectation {
    expect(detector, Level::Cause, subject, within)
}

pub(super) fn symptom(detector: &str, subject: &str, within: Duration) -> Expectation {
    expect(detector, Level::Symptom, subject, within)
}

/// The events of one trial. Times are relative to t0 unless documented as relative to its start.
pub(super) struct Script {
    pub events: Vec<(Time, TrialEvent)>,
    pub info: TrialInfo,
    pub start: Time,
    /// When detection ends.
    pub heal: Duration,
    /// When clients can see the fault, if that is later than t0.
    pub visible: Option<Duration>,
}

impl Script {
    /// A trial that starts `start` after the run and whose detection ends `detect` after t0.
    pub fn new(start: Duration, incident: &str, title: &str, scenario: &str, detect: Duration) -> Self {
        let trial =
            TrialId { scenario: scenario.to_owned(), backend: "netns".to_owned(), repetition: 1, ..TrialId::default() };
        let (incident, title) = (incident.to_owned(), title.to_owned());
        let (expectations, also) = (Vec::new(), Vec::new());
        let info = TrialInfo { trial, incident, title, expectations, also, armed: None, part: None };
        Self { events: Vec::new(), info, start: START + start, heal: detect, visible: None }
    }

    pub fn control(mut self, name: &str) -> Self {
        self.info.trial.control = Some(name.to_owned());
        self
    }

    pub fn on(mut self, backend: &str, repetition: u32) -> Self {
        backend.clone_into(&mut self.info.trial.backend);
        self.info.trial.repetition = repetition;
        self
    }

    /// Adds an event, `after` the trial's start.
    pub fn at(mut self, after: Duration, event: TrialEvent) -> Self {
        self.events.push((self.start + after, event));
        self
    }

    pub fn injected(mut self, t1: Duration, what: &str, read_back: &str) -> Self {
        let heal = T0 + self.heal;
        let marks = [ms(0), ms(64), ms(310), T0 - us(200), T0 + ms(1), heal, heal + ms(9), heal + ms(480)];
        self = self.at(ms(0), TrialEvent::Started);
        for (phase, at) in Phase::ALL.into_iter().zip(marks) {
            self = self.at(at, TrialEvent::Phase { phase, step: None });
        }
        let fault = self.info.trial.control.as_ref().unwrap_or(&self.info.trial.scenario).clone();
        self = self.at(heal + ms(8), TrialEvent::Healed { what: fault.clone(), error: None });
        let (t0, what, read_back) = (self.start + T0, what.to_owned(), read_back.to_owned());
        self.at(T0 + t1, TrialEvent::Injected(Injected { fault, what, t0, t1: t0 + t1, read_back, step: None }))
    }

    pub fn effect(self, effect: &str, t2: Option<Duration>, evidence: &str) -> Self {
        let at = T0 + t2.unwrap_or(ms(600)) + ms(500);
        let t2 = t2.map(|t2| self.start + T0 + t2);
        let (effect, holds, evidence) = (effect.to_owned(), !evidence.starts_with("0 of"), evidence.to_owned());
        self.at(at, TrialEvent::Effect(EffectSeen { effect, holds, t2, evidence, step: None }))
    }

    /// Adds a finding that stands from `at` after the start until shortly after healing.
    pub fn reports(mut self, at: Duration, expected: &Expectation, severity: Severity, evidence: &str) -> Self {
        let cleared = (T0 + self.heal + ms(60), Phase::Recover, Severity::Info, "no longer holds");
        for (at, phase, severity, evidence) in [(at, Phase::Detect, severity, evidence), cleared] {
            let received = self.start + at;
            let finding = Finding {
                detector: expected.detector.clone(),
                incident: self.info.incident.clone(),
                level: expected.level,
                severity,
                subject: expected.subject.clone().expect("a subject"),
                evidence: evidence.to_owned(),
                since: received - us(300),
                cleared: phase == Phase::Recover,
            };
            self = self.at(at, TrialEvent::Finding(FindingReceived { phase, received, finding }));
        }
        self
    }

    /// An expected finding and its verdict.
    pub fn found(mut self, after: Duration, expected: Expectation, evidence: &str) -> Self {
        self = self.reports(T0 + after, &expected, Severity::Critical, evidence);
        let late = after.saturating_sub(self.visible.unwrap_or_default()) > expected.within;
        self.verdict(expected, if late { Verdict::Late { after } } else { Verdict::Detected { after } })
    }

    /// A finding that nothing asked for.
    pub fn unexpected(self, after: Duration, found: Expectation, evidence: &str) -> Self {
        let (severity, subject) = (Severity::Warning, found.subject.clone().expect("a subject"));
        let script = self.reports(T0 + after, &found, severity, evidence);
        let verdict = Verdict::Unexpected { severity, subject, evidence: evidence.to_owned() };
        script.verdict(Expectation { subject: None, ..found }, verdict)
    }

    pub fn verdict(mut self, expectation: Expectation, verdict: Verdict) -> Self {
        if self.info.trial.control.is_none() && !matches!(verdict, Verdict::Unexpected { .. }) {
            self.info.expectations.push(expectation.clone());
        }
        let at = T0 + verdict.after().map_or(expectation.within, |after| after + us(90));
        let visible = self.visible;
        self.at(at, TrialEvent::Verdict(Decided { expectation, verdict, from: None, visible }))
    }

    /// The same verdict for every detector, as in a control.
    pub fn all(self, verdict: &Verdict) -> Self {
        let of = |name| Expectation { subject: None, ..cause(name, "node/any", ms(900)) };
        DETECTORS.split(' ').fold(self, |script, name| script.verdict(of(name), verdict.clone()))
    }

    /// Samples of a flow every 100 ms until `until` after the start, with failures in the interval `fails`.
    pub fn flow(mut self, flow: &str, until: Duration, fails: Option<(Duration, Duration)>, median: Duration) -> Self {
        let mut at = ms(150);
        while at < until {
            let bad = fails.is_some_and(|(from, to)| at > T0 + from && at <= T0 + to + ms(100));
            let (failures, median) = if bad { (5, None) } else { (0, Some(median)) };
            let sample = FlowSample { flow: flow.to_owned(), attempts: 5, failures, median };
            self = self.at(at, TrialEvent::Flow(sample));
            at += ms(100);
        }
        self
    }

    pub fn ended(self, took: Duration, outcome: Outcome, reasons: &[&str]) -> Self {
        let ended = TrialEnded {
            outcome,
            reasons: reasons.iter().map(|&reason| reason.to_owned()).collect(),
            took,
            up: Some(ms(64)),
            down: Some(ms(71)),
            peak_memory: Some(38 << 20),
            cpu: Some(ms(800)),
        };
        self.at(took, TrialEvent::Ended(ended))
    }

    pub fn passed(self, took: Duration) -> Self {
        self.ended(took, Outcome::Pass, &[])
    }

    pub fn skipped(self) -> Self {
        let reason = "it writes nf_conntrack_max of the whole machine: allow with --allow-host-writes".to_owned();
        self.at(ms(0), TrialEvent::Skipped { reason })
    }
}

/// A run of these trials, with events in order of time.
pub(super) fn play(scripts: Vec<Script>, notice: Option<&str>) -> Vec<RunEvent> {
    let mut started = RunStarted {
        run_id: "20261121-114200-7f3a".to_owned(),
        started: "2026-11-21T11:42:00Z".to_owned(),
        version: "0.1.0".to_owned(),
        kernel: "6.18.5".to_owned(),
        root: false,
        host_writes: false,
        deadline_factor: 1.0,
        trials: Vec::new(),
        detectors: DETECTORS.split(' ').map(str::to_owned).collect(),
        parts: Vec::new(),
    };
    let mut events: Vec<RunEvent> = Vec::new();
    for Script { info, events: of_trial, .. } in scripts {
        let what = |event| What::Trial { trial: info.trial.clone(), event };
        events.extend(of_trial.into_iter().map(|(at, event)| RunEvent { at, what: what(event) }));
        started.trials.push(info);
    }
    events.extend(notice.map(|text| RunEvent { at: START, what: What::Notice { text: text.to_owned() } }));
    events.sort_by_key(|event| event.at);
    let outcomes = events.iter().filter_map(|event| match &event.what {
        What::Trial { event: TrialEvent::Ended(ended), .. } => Some(ended.outcome),
        _ => None,
    });
    let outcome = outcomes.max().unwrap_or(Outcome::Pass);
    let at = events.last().map_or(START, |event| event.at) + ms(20);
    events.insert(0, RunEvent { at: START, what: What::RunStarted(started) });
    events.push(RunEvent { at, what: What::RunEnded { outcome, took: at.since(START) } });
    events
}
