//! Where a trial hears everything that happens and tells the judge: findings, attempts, the wish to stop.

use std::time::Duration;

use relapse_detectors::time::Time;
use relapse_lab::fault::now;
use relapse_lab::workload::Attempt;
use relapse_reports::event::{FindingReceived, Phase, TrialEvent};
use tokio::sync::{mpsc, watch};

use super::samples::Samples;
use crate::judge::Judge;
use crate::outside_detector::OutsideEvent;

/// How often deadlines are looked at when nothing else happens.
const TICK: Duration = Duration::from_millis(20);

/// Why a trial stops before its verdicts.
pub enum Stop {
    Inconclusive(String),
    /// The user asked for it.
    Asked,
}

impl Stop {
    /// In words.
    pub fn why(&self) -> &str {
        match self {
            Self::Inconclusive(why) => why,
            Self::Asked => "stopped before the verdict",
        }
    }
}

/// What goes on while a trial runs.
pub struct Running<'a> {
    pub judge: Judge,
    pub phase: Phase,
    /// A mutation was tried.
    pub injected: bool,
    pub attempts: mpsc::UnboundedReceiver<Attempt>,
    pub said: mpsc::UnboundedReceiver<OutsideEvent>,
    pub stop: watch::Receiver<bool>,
    pub samples: Samples,
    pub events: &'a dyn Fn(TrialEvent),
}

impl Running<'_> {
    /// Begins a phase, in a chain of this step.
    pub fn enter(&mut self, phase: Phase, step: Option<&str>) {
        self.phase = phase;
        (self.events)(TrialEvent::Phase { phase, step: step.map(str::to_owned) });
    }

    /// Goes on until `done` says so or the deadline passes; tells which.
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

    /// Waits for the next thing that happens and lets `done` look at it.
    pub async fn step(&mut self, mut done: impl FnMut(&Judge, Time, Option<&Attempt>) -> bool) -> Result<bool, Stop> {
        if *self.stop.borrow() {
            return Err(Stop::Asked);
        }
        let mut attempt = None;
        tokio::select! {
            biased;
            Some(said) = self.said.recv() => self.hear(said),
            Ok(()) = self.stop.changed() => return Err(Stop::Asked),
            received = self.attempts.recv() => attempt = received,
            () = tokio::time::sleep(TICK) => self.decide(Judge::tick),
        }
        if let Some(attempt) = &attempt {
            self.samples.attempt(attempt, self.events);
        }
        Ok(done(&self.judge, now(), attempt.as_ref()))
    }

    fn hear(&mut self, said: OutsideEvent) {
        let received = now();
        match said {
            OutsideEvent::Finding(finding) => {
                self.judge.finding(received, &finding);
                (self.events)(TrialEvent::Finding(FindingReceived { phase: self.phase, received, finding }));
                self.tell();
            }
            OutsideEvent::Blind { detector, why } => {
                self.judge.blind(received, &detector, &why);
                (self.events)(TrialEvent::Blind { detector, why });
            }
        }
    }

    /// Lets the judge decide, and tells its verdicts.
    pub fn decide(&mut self, decide: impl FnOnce(&mut Judge, Time)) {
        decide(&mut self.judge, now());
        self.tell();
    }

    fn tell(&mut self) {
        for verdict in self.judge.news() {
            (self.events)(TrialEvent::Verdict(verdict));
        }
    }
}
