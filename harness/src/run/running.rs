//! Receives findings, attempts and stop requests during a trial and passes them to the judge.

use std::time::Duration;

use relapse_detectors::time::Time;
use relapse_lab::fault::{UndoStack, now};
use relapse_lab::workload::Attempt;
use relapse_reports::event::{FindingReceived, Phase, TrialEvent};
use tokio::sync::{mpsc, oneshot, watch};

use super::agents::Agents;
use super::complaints::Complaints;
use super::observer::ToObserver;
use super::samples::Samples;
use super::spreads::SharedSpreads;
use crate::judge::Judge;
use crate::judge::triage::TriageJudge;
use crate::outside_detector::OutsideEvent;
use crate::plan::FlowId;

/// How often deadlines are checked when nothing else happens.
const TICK: Duration = Duration::from_millis(20);

/// Why a trial stops early.
pub enum Stop {
    Inconclusive(String),
    /// Requested by the user.
    Requested,
}

impl Stop {
    /// The reason as text.
    pub fn why(&self) -> &str {
        match self {
            Self::Inconclusive(why) => why,
            Self::Requested => "stopped before the verdict",
        }
    }
}

/// The state of a running trial.
pub struct Running<'a> {
    pub judge: Judge,
    pub phase: Phase,
    /// A mutation was attempted.
    pub injected: bool,
    /// Successful attempts before the faults.
    pub worked: Vec<Attempt>,
    pub attempts: mpsc::UnboundedReceiver<Attempt>,
    pub findings: mpsc::UnboundedReceiver<OutsideEvent>,
    pub agents: Agents,
    pub stop: watch::Receiver<bool>,
    pub spreads: SharedSpreads,
    /// Time for findings to be cleared after healing.
    pub recover_within: Duration,
    pub samples: Samples,
    /// What users see, and where it is sent.
    pub complaints: Complaints,
    pub to_observer: mpsc::UnboundedSender<ToObserver>,
    /// Of the present stage.
    pub triage: TriageJudge,
    /// What was enlarged before the baseline; undone at the end.
    pub enlarged: UndoStack,
    /// Why triage was wrong, by stage.
    pub triage_wrong: Vec<String>,
    /// Triage was to find something, and no user complained.
    pub lacks_complaint: bool,
    pub events: &'a dyn Fn(TrialEvent),
}

impl Running<'_> {
    /// Begins a phase, in a chain of this step.
    pub fn enter(&mut self, phase: Phase, step: Option<&str>) {
        self.phase = phase;
        (self.events)(TrialEvent::Phase { phase, step: step.map(str::to_owned) });
    }

    /// Runs until `done` returns true or the deadline passes. Returns whether `done` did.
    pub async fn until(
        &mut self,
        deadline: Time,
        mut done: impl FnMut(Time, Option<&Attempt>) -> bool,
    ) -> Result<bool, Stop> {
        while now() < deadline {
            if self.step(|_, now, attempt| done(now, attempt)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits for the next event and passes it to `done`.
    pub async fn step(&mut self, mut done: impl FnMut(&Judge, Time, Option<&Attempt>) -> bool) -> Result<bool, Stop> {
        if *self.stop.borrow() {
            return Err(Stop::Requested);
        }
        let mut attempt = None;
        tokio::select! {
            biased;
            Some(event) = self.findings.recv() => self.receive(event),
            Ok(()) = self.stop.changed() => return Err(Stop::Requested),
            received = self.attempts.recv() => attempt = received,
            () = tokio::time::sleep(TICK) => self.decide(Judge::tick),
        }
        self.look();
        if let Some(attempt) = &attempt {
            self.samples.attempt(attempt, self.events);
            if let Some((flow, seen)) = self.complaints.attempt(attempt)
                && seen.outcome.is_bad()
            {
                self.triage.complaint(seen.at);
                // The receiver is dropped when the trial ends.
                let _ = self.to_observer.send(ToObserver::Seen(flow.to_owned(), seen));
            }
        }
        Ok(done(&self.judge, now(), attempt.as_ref()))
    }

    /// Tells the judge when clients see changes that were hidden from them.
    fn look(&mut self) {
        let (news, healed) = {
            let mut spreads = self.spreads.lock();
            (spreads.news(now()), spreads.healed_steps())
        };
        for (seen, counts) in news {
            if counts {
                self.judge.visible(seen.step.as_deref(), seen.at);
            }
            (self.events)(TrialEvent::Visible(seen));
        }
        for (step, seen) in healed {
            self.judge.healed(&step.unwrap_or_default(), seen + self.recover_within);
        }
    }

    /// Since when no client contradicts the changes made and healed, as far as known; `since` or later.
    pub fn settled(&self, since: Time) -> Time {
        self.spreads.lock().settled().unwrap_or(since).max(since)
    }

    fn receive(&mut self, event: OutsideEvent) {
        let received = now();
        self.look();
        match event {
            OutsideEvent::Finding(finding) => {
                self.judge.finding(received, &finding);
                (self.events)(TrialEvent::Finding(FindingReceived { phase: self.phase, received, finding }));
                self.emit_verdicts();
            }
            OutsideEvent::Blind { detector, why } => {
                self.judge.blind(received, &detector, &why);
                (self.events)(TrialEvent::Blind { detector, why });
            }
            OutsideEvent::Triage(triaged) => {
                self.triage.verdict(received, triaged.as_ref());
                (self.events)(TrialEvent::Triage(triaged));
            }
        }
    }

    /// A change was made: from now on users see its effect.
    pub fn changed(&mut self, since: Time, affected: &[FlowId], triage: TriageJudge) {
        self.complaints.begin(since, affected, triage.finds_nothing());
        self.triage = triage;
        let _ = self.to_observer.send(ToObserver::Changed);
    }

    /// Receives what detectors and triage say once they have taken every signal so far.
    pub async fn flush(&mut self) {
        let (done, is_done) = oneshot::channel();
        if self.to_observer.send(ToObserver::Flush(done)).is_ok() {
            let _ = is_done.await;
        }
        while let Ok(event) = self.findings.try_recv() {
            self.receive(event);
        }
    }

    /// Decides where triage led at the end of a stage.
    pub fn decide_triage(&mut self) {
        let judge = std::mem::take(&mut self.triage);
        self.lacks_complaint |= judge.lacks_complaint();
        let Some(decided) = judge.end() else { return };
        if let Some(wrong) = &decided.wrong {
            let stage = decided.step.as_ref().map(|step| format!("step {step}: ")).unwrap_or_default();
            self.triage_wrong.push(format!("{stage}triage: {wrong}"));
        }
        (self.events)(TrialEvent::TriageDecided(decided));
    }

    /// Drops findings that have not been received: their detectors have ended.
    pub fn discard(&mut self) {
        while self.findings.try_recv().is_ok() {}
    }

    /// Lets the judge decide, and emits its verdicts.
    pub fn decide(&mut self, decide: impl FnOnce(&mut Judge, Time)) {
        decide(&mut self.judge, now());
        self.emit_verdicts();
    }

    fn emit_verdicts(&mut self) {
        for verdict in self.judge.take_decided() {
            (self.events)(TrialEvent::Verdict(verdict));
        }
    }
}
