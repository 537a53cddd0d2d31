//! The state of the trial so far, and its progress lines.
//!
//! Updated only from the run's events. Bounded, because a trial may be held for days.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use relapse_detectors::finding::{Level, Severity, Subject};
use relapse_detectors::time::Time;
use relapse_detectors::triage::Triaged;
use relapse_reports::paint::Page;
use relapse_reports::triage;
use relapse_reports::units::span;
use relapse_reports::words::{self, Tone};

use crate::event::{
    Decided, EffectSeen, FindingReceived, FlowSample, Injected, Outcome, Phase, RunEvent, TrialEvent, What,
};
use crate::plan::Plan;

/// The period that `status` covers.
const RECENT: Duration = Duration::from_secs(5);
/// Maximum number of findings kept.
const MOST_FINDINGS: usize = 200;

/// Recent samples of a flow.
#[derive(Debug, Default)]
struct Recent {
    samples: VecDeque<(Time, FlowSample)>,
    /// The next sample covers the injection of the fault.
    mixed: bool,
}

/// The progress of one trial.
#[derive(Debug, Default)]
pub struct Story {
    begin: Option<Time>,
    holding: bool,
    injected: Vec<Injected>,
    reduced: Vec<(String, String)>,
    effects: Vec<EffectSeen>,
    blind: Vec<(String, String)>,
    standing: BTreeMap<(String, Level, Subject), FindingReceived>,
    verdicts: Vec<Decided>,
    flows: BTreeMap<String, Recent>,
    /// Where to look now.
    triage: Option<Triaged>,
    ended: Option<(Outcome, Vec<String>)>,
}

impl Story {
    pub fn new(plan: &Plan) -> Self {
        let flows = plan.workload.iter().map(|flow| (flow.name.clone(), Recent::default())).collect();
        Self { flows, ..Self::default() }
    }

    /// Suppresses progress lines while the trial is held; `status` shows the state.
    pub const fn hold(&mut self) {
        self.holding = true;
    }

    /// Processes an event and returns its progress lines, if any.
    pub fn update(&mut self, event: &RunEvent, page: Page) -> Vec<String> {
        let What::Trial { event: of_trial, .. } = &event.what else { return Vec::new() };
        let at = event.at;
        let begin = *self.begin.get_or_insert(at);
        let line = |text: String| vec![format!("{:>7.1} s  {text}", at.since(begin).as_secs_f64())];
        match of_trial {
            TrialEvent::Waiting { reason } => line(words::one_line(reason)),
            TrialEvent::Phase { phase, step } => {
                let sentence = match phase {
                    Phase::Up => "up: the cluster is built",
                    Phase::Settle => "settle: until every flow works",
                    Phase::Baseline => "baseline: before the fault",
                    Phase::Inject | Phase::Detect => return Vec::new(),
                    Phase::Heal => {
                        self.holding = false;
                        if step.is_some() {
                            self.injected.retain(|injected| injected.step != *step);
                            self.effects.clear();
                        }
                        return Vec::new();
                    }
                    Phase::Recover => "recover: until every flow works again",
                    Phase::Down => "down",
                };
                line(page.paint(Tone::Muted, sentence))
            }
            TrialEvent::Injected(injected) => {
                self.injected.push(injected.clone());
                // Drop samples from before the fault; the current one covers both.
                self.flows.values_mut().for_each(|recent| *recent = Recent { mixed: true, ..Recent::default() });
                line(page.paint(Tone::Bad, &format!("inject {}: {}", injected.fault, injected.what)))
            }
            TrialEvent::Visible(seen) if seen.healing => Vec::new(),
            TrialEvent::Visible(seen) => {
                line(page.paint(Tone::Bad, &format!("clients see the changed record of {}", seen.what)))
            }
            TrialEvent::Reduced { what, why } => {
                self.reduced.push((what.clone(), why.clone()));
                line(page.paint(Tone::Note, &format!("left out: {what}: {why}")))
            }
            TrialEvent::Effect(effect) => {
                self.effects.push(effect.clone());
                Vec::new()
            }
            TrialEvent::Blind { detector, why } => {
                if self.blind.len() < MOST_FINDINGS {
                    self.blind.push((detector.clone(), why.clone()));
                }
                line(page.paint(Tone::Unsure, &format!("{detector} is blind: {}", words::one_line(why))))
            }
            TrialEvent::Finding(received) => self.find(received).map_or_else(Vec::new, |(tone, text)| {
                if self.holding { Vec::new() } else { line(page.paint(tone, &text)) }
            }),
            TrialEvent::Verdict(decided) => {
                self.verdicts.push(decided.clone());
                Vec::new()
            }
            TrialEvent::Triage(triaged) => {
                self.triage.clone_from(triaged);
                let Some(triaged) = triaged.as_ref().filter(|_| !self.holding) else { return Vec::new() };
                line(page.paint(Tone::Note, &format!("triage: {}", triage::sentence(triaged))))
            }
            TrialEvent::TriageDecided(_) => Vec::new(),
            TrialEvent::Flow(sample) => {
                let recent = self.flows.entry(sample.flow.clone()).or_default();
                if !std::mem::take(&mut recent.mixed) {
                    recent.samples.push_back((at, sample.clone()));
                }
                while recent.samples.front().is_some_and(|(then, _)| at.since(*then) > RECENT) {
                    recent.samples.pop_front();
                }
                Vec::new()
            }
            TrialEvent::Healed { what, error: None } => line(page.paint(Tone::Good, &format!("healed: {what}"))),
            TrialEvent::Healed { what, error: Some(error) } => {
                line(page.paint(Tone::Dirty, &format!("not healed: {what}: {error}")))
            }
            TrialEvent::LeftBehind { what } => line(page.paint(Tone::Dirty, &format!("left behind: {what}"))),
            TrialEvent::HostChanged { what } => {
                line(page.paint(Tone::Note, &format!("another process changed {what}")))
            }
            TrialEvent::Ended(ended) => {
                self.ended = Some((ended.outcome, ended.reasons.clone()));
                Vec::new()
            }
            TrialEvent::Started | TrialEvent::Skipped { .. } | TrialEvent::Database { .. } => Vec::new(),
        }
    }

    fn find(&mut self, received: &FindingReceived) -> Option<(Tone, String)> {
        let finding = &received.finding;
        let identity = (finding.detector.clone(), finding.level, finding.subject.clone());
        if finding.cleared {
            self.standing.remove(&identity);
            return (finding.severity > Severity::Info)
                .then(|| (Tone::Good, format!("{} cleared its finding about {}", finding.detector, finding.subject)));
        }
        if self.standing.len() < MOST_FINDINGS {
            self.standing.insert(identity, received.clone());
        }
        (finding.severity > Severity::Info).then(|| {
            let text =
                format!("{} reports {} about {}", finding.detector, words::level(finding.level), finding.subject);
            (Tone::Unsure, text)
        })
    }

    /// The fault in force, its read-back, its effects and the findings about it.
    pub fn summary(&self, page: Page) -> Vec<String> {
        let mut lines = vec![String::new(), page.strong("in force")];
        for injected in &self.injected {
            lines.push(format!("  {}: {}", page.paint(Tone::Bad, &injected.fault), injected.what));
            let after = span(injected.t1.since(injected.t0));
            lines.push(page.paint(Tone::Muted, &format!("    read back after {after}: {}", injected.read_back)));
        }
        if self.injected.is_empty() {
            lines.push(page.paint(Tone::Unsure, "  nothing: the fault could not be injected"));
        }
        lines.extend(self.reduced.iter().map(|(what, why)| format!("  left out: {what}: {why}")));
        if !self.effects.is_empty() {
            lines.push(page.strong("effect"));
        }
        for effect in &self.effects {
            let (tone, sign) = if effect.holds { (Tone::Good, '✓') } else { (Tone::Unsure, '?') };
            let evidence = page.paint(Tone::Muted, &effect.evidence);
            lines.push(format!("  {} {}  {evidence}", page.paint(tone, &sign.to_string()), effect.effect));
        }
        lines.push(page.strong("detectors"));
        for decided in &self.verdicts {
            let expected = &decided.expectation;
            let subject = expected.subject.as_ref().map(|subject| format!(" about {subject}")).unwrap_or_default();
            let text = format!(
                "  {} {} ({}{subject}): {}",
                words::sign(&decided.verdict),
                expected.detector,
                words::level(expected.level),
                words::sentence(decided)
            );
            lines.push(page.paint(words::verdict_tone(&decided.verdict), &text));
            let reported = self.standing.values().map(|received| &received.finding).find(|finding| {
                finding.detector == expected.detector
                    && finding.level == expected.level
                    && expected.subject.as_ref().is_none_or(|subject| *subject == finding.subject)
            });
            if let Some(finding) = reported {
                lines.push(page.paint(Tone::Muted, &format!("    {}", words::one_line(&finding.evidence))));
            }
        }
        if self.verdicts.is_empty() {
            lines.push("  no findings".into());
        }
        lines.extend(self.where_to_look(page));
        lines
    }

    /// The six steps of triage, if users complain.
    fn where_to_look(&self, page: Page) -> Vec<String> {
        let Some(triaged) = &self.triage else { return Vec::new() };
        let mut lines = vec![page.strong(&format!("where to look: {}", triage::sentence(triaged)))];
        lines.extend(triage::lines(triaged).into_iter().map(|(tone, text)| page.paint(tone, &format!("  {text}"))));
        lines
    }

    /// The current flows and standing findings.
    pub fn status(&self, now: Time, page: Page) -> Vec<String> {
        let mut lines = vec![page.strong(&format!("flows, last {} s", RECENT.as_secs()))];
        let width = self.flows.keys().map(String::len).max().unwrap_or(0);
        for (flow, recent) in &self.flows {
            let recent = recent.samples.iter().filter(|(at, _)| now.since(*at) <= RECENT);
            let (attempts, failures) = recent.fold((0, 0), |(attempts, failures), (_, sample)| {
                (attempts + sample.attempts, failures + sample.failures)
            });
            let (tone, text) = match (attempts, failures) {
                (0, _) => (Tone::Muted, "no attempt ended".to_owned()),
                (n, 0) => (Tone::Good, format!("works: {n} of {n}")),
                (n, failed) if n == failed => (Tone::Bad, format!("fails: {n} of {n}")),
                (n, failed) => (Tone::Unsure, format!("fails at times: {failed} of {n}")),
            };
            lines.push(format!("  {flow:width$}  {}", page.paint(tone, &text)));
        }
        lines.push(page.strong("standing findings"));
        for received in self.standing.values() {
            let finding = &received.finding;
            let tone = if finding.severity > Severity::Info { Tone::Unsure } else { Tone::Muted };
            let head = format!(
                "  {:<8} {:<7} {} about {}",
                words::severity(finding.severity),
                words::level(finding.level),
                finding.detector,
                finding.subject
            );
            lines.push(page.paint(tone, &head));
            lines.push(page.paint(Tone::Muted, &format!("           {}", words::one_line(&finding.evidence))));
        }
        if self.standing.is_empty() {
            lines.push("  none".into());
        }
        lines.extend(self.where_to_look(page));
        lines
    }

    /// The outcome of the trial, regardless of how the prompt was left; that of the run if the trial has none.
    pub fn outcome(&self, of_run: Outcome) -> Outcome {
        self.ended.as_ref().map_or(of_run, |(outcome, _)| *outcome)
    }

    /// The final lines.
    pub fn end(&self, of_run: Outcome, page: Page) -> Vec<String> {
        let outcome = self.outcome(of_run);
        let label = page.label(words::outcome_tone(outcome), words::label(outcome));
        let mut reasons = self.ended.iter().flat_map(|(_, reasons)| reasons).map(|reason| words::one_line(reason));
        let first = match outcome {
            Outcome::Pass => "all expected findings were reported; everything is healed and torn down".to_owned(),
            _ => reasons.next().unwrap_or_else(|| "the run ended early".into()),
        };
        std::iter::once(format!("{label}  {first}")).chain(reasons.map(|reason| format!("      {reason}"))).collect()
    }
}
