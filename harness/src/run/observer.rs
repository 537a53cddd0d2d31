//! Feeds every signal to the detectors, built-in and outside, and passes on their findings.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use relapse_detectors::finding::Finding;
use relapse_detectors::record::{Feed, Header, Recorder, TICK};
use relapse_detectors::registry::DetectorSet;
use relapse_detectors::signal::{Observed, Signal};
use relapse_detectors::time::Time;
use relapse_detectors::triage::{Seen, Triage, Triaged};
use relapse_lab::fault::now;
use relapse_reports::event::{DatabaseReport, TrialEvent};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

use super::spreads::SharedSpreads;
use crate::outside_detector::{ExecSpec, OutsideDetector, OutsideEvent};

/// What the observer learns from the run. It takes all signals that were sent before.
pub enum ToObserver {
    /// A request of a flow ended.
    Seen(String, Seen),
    /// Something was changed: earlier complaints no longer count.
    Changed,
    /// Agents were restarted: detectors forget everything. Answered when they have.
    Restarted(oneshot::Sender<()>),
    /// A stage ends: detectors report what they know. Answered when they have.
    Flush(oneshot::Sender<()>),
}

/// All consumers of signals: detectors and recorder.
pub struct Observer {
    /// New detectors, which know nothing yet.
    detectors: Box<dyn Fn() -> DetectorSet + Send>,
    feed: Feed,
    recorder: Option<Recorder<BufWriter<File>>>,
    outside: Vec<OutsideDetector>,
    spreads: SharedSpreads,
    events: UnboundedSender<OutsideEvent>,
    /// Why the recording is incomplete.
    trouble: Option<String>,
    blind: Vec<(String, String)>,
    /// Set once every collector is armed; before, blindness is not reported.
    armed: Arc<AtomicBool>,
    triage: Triage,
    /// The verdict that was passed on last.
    triaged: Option<Triaged>,
}

impl Observer {
    /// Creates an observer, starts the outside detectors and opens the recording, which begins with this header.
    ///
    /// # Errors
    /// If the recording cannot be written or a program cannot be started.
    pub fn start(
        detectors: Box<dyn Fn() -> DetectorSet + Send>,
        header: &Header,
        record: Option<&Path>,
        outside: &[ExecSpec],
        events: UnboundedSender<OutsideEvent>,
        spreads: SharedSpreads,
        armed: &Arc<AtomicBool>,
    ) -> Result<Self, String> {
        let operator = &header.operator;
        let open = |path: &Path| -> io::Result<_> { Recorder::with(BufWriter::new(File::create(path)?), header) };
        let recorder = record.map(open).transpose().map_err(|e| format!("signals could not be recorded: {e}"))?;
        let start = |spec: &ExecSpec| {
            OutsideDetector::spawn(spec, operator, events.clone()).map_err(|e| format!("failed to {e}"))
        };
        let outside = outside.iter().map(start).collect::<Result<_, _>>()?;
        Ok(Self {
            feed: Feed::new(detectors()),
            detectors,
            recorder,
            outside,
            spreads,
            events,
            trouble: None,
            blind: Vec::new(),
            armed: Arc::clone(armed),
            triage: Triage::new(operator, header.accesses.clone()),
            triaged: None,
        })
    }

    /// Runs until the last collector has ended; returns the error of the recording, if any. What databases report about
    /// themselves goes to `events`, for reports.
    pub async fn run(
        mut self,
        mut signals: UnboundedReceiver<Signal>,
        mut seen: UnboundedReceiver<ToObserver>,
        events: impl Fn(TrialEvent) + Send,
    ) -> Option<String> {
        let mut clock = tokio::time::interval(TICK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                signal = signals.recv() => match signal {
                    Some(signal) => self.observe(&signal, &events),
                    None => break,
                },
                Some(of) = seen.recv() => {
                    let armed = self.catch_up(&mut signals, &events);
                    self.hear(of, armed);
                }
                _ = clock.tick() => {
                    let armed = self.catch_up(&mut signals, &events);
                    self.tick(armed);
                }
            }
        }
        for outside in self.outside {
            // Waits for the program's remaining output.
            let _ = tokio::task::spawn_blocking(move || outside.end()).await;
        }
        if let Some(recorder) = self.recorder
            && let Err(e) = recorder.finish()
        {
            self.trouble.get_or_insert(e.to_string());
        }
        self.trouble
    }

    /// Takes all signals that were sent until now: some may have been sent since the receiver was found empty. Returns
    /// whether every collector was armed before that.
    fn catch_up(&mut self, signals: &mut UnboundedReceiver<Signal>, events: &impl Fn(TrialEvent)) -> bool {
        let armed = self.armed.load(Ordering::SeqCst);
        while let Ok(signal) = signals.try_recv() {
            self.observe(&signal, events);
        }
        armed
    }

    fn hear(&mut self, of: ToObserver, armed: bool) {
        match of {
            ToObserver::Seen(flow, seen) => self.triage.seen(&flow, seen),
            ToObserver::Changed => self.triage.begin_again(),
            ToObserver::Restarted(done) => {
                self.feed = Feed::new((self.detectors)());
                self.blind.clear();
                // The receiver is dropped when the trial ends.
                let _ = done.send(());
            }
            ToObserver::Flush(done) => {
                self.tick(armed);
                let _ = done.send(());
            }
        }
    }

    /// Time has passed.
    fn tick(&mut self, armed: bool) {
        self.triage();
        if armed {
            self.report_blindness();
        }
        let findings = self.feed.advance(now());
        self.pass_on(findings);
    }

    fn observe(&mut self, signal: &Signal, events: &impl Fn(TrialEvent)) {
        if let Some(report) = DatabaseReport::of(&signal.observed) {
            events(TrialEvent::Database { read: signal.at, report });
        }
        if let Some(recorder) = &mut self.recorder
            && let Err(e) = recorder.write(signal)
        {
            self.trouble.get_or_insert(e.to_string());
        }
        if matches!(signal.observed, Observed::Dns(_)) {
            // Before the detectors, so that the judge knows when they report.
            self.spreads.lock().signal(signal);
        }
        self.outside.iter().for_each(|outside| outside.signal(signal));
        self.triage.observe(signal);
        let findings = self.feed.signal(signal.at, signal);
        self.pass_on(findings);
    }

    fn pass_on(&self, findings: Vec<(Time, Finding)>) {
        for (_, finding) in findings {
            // The receiver is dropped when the trial ends.
            let _ = self.events.send(OutsideEvent::Finding(finding));
        }
    }

    /// Passes on the verdict of triage if it says something else than before.
    fn triage(&mut self) {
        self.triage.tick(now());
        let triaged = self.triage.verdict();
        let is_same = match (&triaged, &self.triaged) {
            (Some(now), Some(before)) => now.flow == before.flow && now.verdict.is_same(&before.verdict),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            let _ = self.events.send(OutsideEvent::Triage(triaged.clone()));
            self.triaged = triaged;
        }
    }

    fn report_blindness(&mut self) {
        let blind: Vec<(String, String)> =
            self.feed.set().blind().into_iter().map(|(detector, why)| (detector.to_owned(), why)).collect();
        for (detector, why) in blind.iter().filter(|entry| !self.blind.contains(entry)) {
            let _ = self.events.send(OutsideEvent::Blind { detector: detector.clone(), why: why.clone() });
        }
        self.blind = blind;
    }
}
