//! A chain by its stages: what users see, new findings, standing findings and cleared ones.
//!
//! Job: cut the events of a trial at the healing of each step. Invariant: every verdict belongs to the stage in which it
//! was decided. Left out: how a stage is drawn.

use std::time::Duration;

use crate::event::{Decided, EffectSeen, Phase, Verdict};
use crate::summary::{PhaseSpan, TrialSummary};
use crate::table::{Cell, Table};
use crate::trial::Standing;
use crate::units::span;
use crate::words;

/// From one healing to the next.
#[derive(Debug, Clone)]
pub struct Stage<'a> {
    /// The step healed at its beginning. None for the first stage.
    pub healed: Option<&'a str>,
    /// The first step that is not healed. None for the last stage.
    pub step: Option<&'a str>,
    pub effects: Vec<&'a EffectSeen>,
    pub verdicts: Vec<&'a Decided>,
    /// Findings that stand at its end.
    pub stands: Vec<Standing>,
    /// Earlier findings that are cleared, each with the time since the healing began.
    pub cleared: Vec<(Standing, Duration)>,
}

impl Stage<'_> {
    /// "all in force", "dns healed".
    #[must_use]
    pub fn name(&self) -> String {
        match (self.healed, self.step) {
            (None, _) => "all in force".to_owned(),
            (Some(healed), Some(_)) => format!("{healed} healed"),
            (Some(healed), None) => format!("{healed} healed, and with it all"),
        }
    }

    /// "lookup fails: name not resolved; page works".
    #[must_use]
    pub fn seen(&self) -> String {
        let seen = self.effects.iter().map(|effect| {
            let not = if effect.holds { "" } else { "not seen: " };
            format!("{not}{}", effect.effect)
        });
        seen.collect::<Vec<_>>().join("; ")
    }

    /// "dns-redundancy, policy-route".
    #[must_use]
    pub fn standing(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for finding in &self.stands {
            // A detector may report on several subjects.
            if !names.contains(&finding.detector.as_str()) {
                names.push(&finding.detector);
            }
        }
        names.join(", ")
    }

    /// "pod-nic after 3.1 ms, dns-failure after 130 ms".
    #[must_use]
    pub fn clearing(&self) -> String {
        let each = self.cleared.iter().map(|(finding, after)| format!("{} after {}", finding.detector, span(*after)));
        each.collect::<Vec<_>>().join(", ")
    }
}

impl TrialSummary {
    /// Whether its steps are healed one after another.
    #[must_use]
    pub fn is_chain(&self) -> bool {
        self.phases.iter().any(|phase| phase.step.is_some())
    }

    /// The stages of a chain. Empty for other trials.
    #[must_use]
    pub fn stages(&self) -> Vec<Stage<'_>> {
        if !self.is_chain() {
            return Vec::new();
        }
        let begins = |(_, phase): &(usize, &PhaseSpan)| phase.phase == Phase::Heal && phase.step.is_some();
        let mut cuts: Vec<usize> = self.phases.iter().enumerate().filter(begins).map(|(n, _)| n).collect();
        cuts.insert(0, 0);
        let ends = cuts.iter().skip(1).copied().chain([self.phases.len()]);
        cuts.iter().zip(ends).map(|(begin, end)| self.stage(*begin, end)).collect()
    }

    /// The stage of the phases `begin..end`.
    fn stage(&self, begin: usize, end: usize) -> Stage<'_> {
        let phases = &self.phases[begin..end];
        let healed = phases[0].step.as_deref();
        let step = phases.iter().find(|span| span.phase == Phase::Detect).and_then(|span| span.step.as_deref());
        let verdicts = self.verdicts.get(phases[0].verdicts..).unwrap_or_default();
        let within = self.phases.get(end).map_or(usize::MAX, |next| next.verdicts) - phases[0].verdicts;
        let last = self.phases.get(end).map_or(self.findings.len(), |next| next.findings);
        let warned = |finding: &Standing| finding.warned.is_some();
        let before = Self::standing_of(&self.findings[..phases[0].findings]);
        let now = Self::standing_of(&self.findings[..last]);
        // Findings keep their order, so those from before come first.
        let cleared = before.iter().zip(&now).filter(|(before, _)| warned(before) && before.cleared.is_none());
        let cleared = cleared.filter_map(|(_, now)| Some((now.clone(), now.cleared?.since(phases[0].from))));
        Stage {
            healed,
            step,
            effects: self.effects.iter().filter(|effect| effect.step.as_deref() == step).collect(),
            verdicts: verdicts.iter().take(within).filter(|d| d.verdict != Verdict::Silent).collect(),
            cleared: cleared.collect(),
            stands: now.iter().filter(|finding| warned(finding) && finding.cleared.is_none()).cloned().collect(),
        }
    }
}

/// A row per stage.
#[must_use]
pub fn table(trial: &TrialSummary) -> Option<Table<'static>> {
    let or_none = |text: String| if text.is_empty() { Cell::none() } else { Cell::Text(text) };
    let stages = trial.stages();
    let rows = stages.iter().map(|stage| {
        let new =
            stage.verdicts.iter().map(|decided| format!("{} {}", decided.expectation.detector, words::short(decided)));
        vec![
            Cell::Text(stage.name()),
            or_none(stage.seen()),
            or_none(new.collect::<Vec<_>>().join(", ")),
            or_none(stage.standing()),
            or_none(stage.clearing()),
        ]
    });
    let head = ["stage", "users see", "new findings", "standing", "cleared"];
    Some(Table::of_times(&head, rows.collect())).filter(|table| !table.rows.is_empty())
}
