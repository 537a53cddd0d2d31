//! `fails`: a flow fails, in a given way, in a share of its attempts.

use std::sync::Arc;
use std::time::Duration;

use relapse_detectors::time::Time;
use relapse_kernel::Result;
use relapse_lab::workload::Attempt;
use relapse_model::diagnostics::quoted;
use relapse_model::spanned::Spanned;
use relapse_model::values::FailureText;
use relapse_model::{ClusterPlan, Failure, FlowId, FlowPlan, PartId};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::effect::{ENOUGH, Effect, EffectPlanner, EffectSpec, Ground, Watch};

/// Minimum number of attempts to determine a share.
const ENOUGH_FOR_A_SHARE: u32 = 8;

/// One failure in so many may be of another kind than `as`.
const TOLERATED: u32 = 20;

/// Kinds of flows that see HTTP statuses.
const SEES_STATUS: [&str; 2] = ["http", "call"];

/// A flow fails.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FailsSpec {
    /// Name of a flow.
    pub flow: Spanned<String>,
    /// How it fails: any, timeout, refused, name-error, or an HTTP status such as http-502; at most 5 % of its failures
    /// may be of another kind. Default any.
    #[serde(default, rename = "as")]
    pub how: FailureText,
    /// Smallest and largest share of attempts that fail. Default [1, 1].
    #[schemars(inner(range(min = 0, max = 1)))]
    pub share: Option<Spanned<[f64; 2]>>,
}

impl EffectSpec for FailsSpec {
    fn plan(&self, planner: &mut EffectPlanner<'_, '_>) -> Option<Arc<dyn Effect>> {
        let flow = planner.flow(&self.flow);
        let (resolver, within) = (&mut *planner.resolver, planner.within);
        let [least, most] = self.share.map_or([1.0, 1.0], |share| share.value);
        if let Some(at) = self.share.filter(|_| least > most || most <= 0.0) {
            let help = "write the smaller share first, then the larger, above 0";
            resolver.error(at.span, "no share of attempts lies between these", help);
        }
        let (flow, how) = (flow?, self.how.0);
        let FlowPlan { looks_up, timeout, ref parts, kind, .. } = resolver.workload[flow.0];
        // A part that gives up earlier fails the whole.
        let timeout = parts.iter().filter_map(|part| part.timeout).fold(timeout, Duration::min);
        if how == Failure::NameError && !looks_up {
            let message = format!("flow {} does not look up a name", quoted(&self.flow));
            resolver.error(self.flow.span, message, "choose another `as`: any, timeout, refused");
        }
        if how == Failure::Timeout && timeout >= within {
            let message = format!(
                "flow {} gives up after {timeout:?}, and the effect must be seen within {within:?}",
                quoted(&self.flow)
            );
            let help = "shorten its `timeout`, or lengthen the effect's `within`";
            resolver.error(self.flow.span, message, help);
        }
        if matches!(how, Failure::Status(_)) && !SEES_STATUS.contains(&kind) {
            let message = format!("flow {} does not see HTTP statuses", quoted(&self.flow));
            resolver.error(self.flow.span, message, "choose another `as`: any, timeout, refused");
        }
        Some(Arc::new(Fails { flow, how, share: (least, most) }))
    }
}

/// The planned effect. A share of 1 means three failures in a row and no success after.
#[derive(Debug)]
struct Fails {
    flow: FlowId,
    how: Failure,
    share: (f64, f64),
}

impl Effect for Fails {
    fn text(&self, flows: &[FlowPlan], _: &ClusterPlan) -> String {
        let how = match self.how {
            Failure::Any => String::new(),
            Failure::Timeout => ": timeout".to_owned(),
            Failure::Refused => ": refused".to_owned(),
            Failure::NameError => ": name not resolved".to_owned(),
            Failure::Status(status) => format!(": HTTP {status}"),
        };
        let often = if self.share.0 >= 1.0 { "fails" } else { "fails intermittently" };
        format!("{} {often}{how}", flows[self.flow.0].name)
    }

    fn flow(&self) -> Option<FlowId> {
        Some(self.flow)
    }

    fn hurts(&self) -> bool {
        true
    }

    fn watch(&self, on: &mut Ground<'_>) -> Result<Box<dyn Watch>> {
        let parts = on.flows[self.flow.0].parts.iter().map(|part| part.name.clone());
        Ok(Box::new(Failing { how: self.how, share: self.share, parts: parts.collect(), ..Failing::default() }))
    }
}

/// Counts from the first failure on, when the effect begins.
#[derive(Default)]
struct Failing {
    how: Failure,
    share: (f64, f64),
    attempts: u32,
    failures: u32,
    wrong_kind: u32,
    first_failure: Option<Time>,
    /// Starts of successful attempts before the first known failure: timeouts are reported late.
    worked_before: Vec<Time>,
    /// Names of the flow's parts.
    parts: Vec<String>,
    /// The last part that failed, and how.
    last: Option<(PartId, Failure)>,
}

impl Failing {
    /// Minimum number of attempts to decide.
    fn enough(&self) -> u32 {
        if self.share.0 >= 1.0 { ENOUGH } else { ENOUGH_FOR_A_SHARE }
    }
}

impl Watch for Failing {
    fn attempt(&mut self, attempt: &Attempt) {
        match attempt.failure {
            Some(failure) => {
                let is_wrong = self.how != Failure::Any && failure != self.how;
                let failed = attempt.details.parts.iter().find_map(|time| Some((time.part, time.failure?)));
                self.last = failed.or(self.last);
                // Attempts may end in a different order than they began.
                let first = self.first_failure.map_or(attempt.started, |t| t.min(attempt.started));
                self.first_failure = Some(first);
                let since = self.worked_before.extract_if(.., |started| *started > first).count();
                // A flow that fails completely does so from the first reported failure.
                if self.share.0 < 1.0 {
                    self.attempts += u32::try_from(since).unwrap_or(u32::MAX);
                }
                self.attempts += 1;
                self.failures += 1;
                self.wrong_kind += u32::from(is_wrong);
            }
            None if self.first_failure.is_some_and(|first| attempt.started > first) => self.attempts += 1,
            None => self.worked_before.push(attempt.started),
        }
    }

    fn judge(&self) -> (bool, String) {
        let (low, high) = self.share;
        let share = f64::from(self.failures) / f64::from(self.attempts.max(1));
        let holds = self.attempts >= self.enough()
            && self.failures > 0
            && share >= low
            && share <= high
            && self.wrong_kind <= self.failures / TOLERATED;
        let kind = match self.wrong_kind {
            0 => String::new(),
            n => format!(", {n} of them in another way"),
        };
        let of = if self.failures > 0 { self.attempts as usize } else { self.worked_before.len() };
        let last = self.last.map(|(part, how)| format!(", the last at {}: {}", self.parts[part.0], how));
        (holds, format!("{} of {of} attempts failed{kind}{}", self.failures, last.unwrap_or_default()))
    }

    fn wants_attempts(&self) -> bool {
        let whole = self.share.0 < 1.0 || self.failures == self.attempts;
        let none_yet = self.attempts == 0 && self.worked_before.is_empty();
        none_yet || self.failures > 0 && whole && self.attempts < self.enough()
    }

    fn begin(&self) -> Option<Time> {
        self.first_failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::tests::played;
    use relapse_lab::workload::Details;

    fn fails(how: Failure, low: f64, high: f64) -> Failing {
        Failing { how, share: (low, high), ..Failing::default() }
    }

    fn play(watch: Failing, attempts: &str) -> bool {
        played(watch, attempts).judge().0
    }

    #[test]
    fn a_flow_fails_when_three_in_a_row_did_and_all_after() {
        assert!(play(fails(Failure::Any, 1.0, 1.0), "..ttt"));
        assert!(!play(fails(Failure::Any, 1.0, 1.0), "..tt"), "too few to decide");
        assert!(!play(fails(Failure::Any, 1.0, 1.0), "..tttt."), "it recovered");
        assert!(!play(fails(Failure::Any, 1.0, 1.0), "........"));
    }

    #[test]
    fn the_way_it_fails_counts() {
        assert!(play(fails(Failure::Timeout, 1.0, 1.0), "ttt"));
        assert!(!play(fails(Failure::Timeout, 1.0, 1.0), "rrr"));
        assert!(play(fails(Failure::Any, 1.0, 1.0), "rrr"));
        let one_of = |all: usize| format!("tr{}", "t".repeat(all - 2));
        assert!(play(fails(Failure::Timeout, 1.0, 1.0), &one_of(20)));
        assert!(!play(fails(Failure::Timeout, 1.0, 1.0), &one_of(19)), "more than 5 %");
        assert!(!play(fails(Failure::Timeout, 1.0, 1.0), &format!("{}r", one_of(20))), "more than 5 %");
    }

    #[test]
    fn a_share_is_told_from_eight_attempts_on_and_neither_too_little_nor_too_much() {
        assert!(play(fails(Failure::Any, 0.1, 0.5), "..t....t.."));
        assert!(!play(fails(Failure::Any, 0.1, 0.5), "..t...."), "too few to decide");
        assert!(!play(fails(Failure::Any, 0.1, 0.5), "tttttttt"), "too many failures");
        assert!(!play(fails(Failure::Any, 0.3, 0.9), "t............"), "too few failures");
    }

    #[test]
    fn more_attempts_are_wanted_only_where_nothing_else_is_wrong() {
        let wanted = |watch: Failing, attempts: &str| played(watch, attempts).wants_attempts();
        for attempts in ["", "t", "tt", "..t"] {
            assert!(wanted(fails(Failure::Any, 1.0, 1.0), attempts), "{attempts}");
        }
        for attempts in ["..", "ttt", "...", "tt."] {
            assert!(!wanted(fails(Failure::Any, 1.0, 1.0), attempts), "{attempts}");
        }
        assert!(wanted(fails(Failure::Any, 0.1, 0.9), "...t..") && !wanted(fails(Failure::Any, 0.1, 0.9), "........"));
    }

    #[test]
    fn the_first_failure_is_the_one_that_began_first() {
        let mut watch = fails(Failure::Any, 1.0, 1.0);
        for started in [30, 10, 20] {
            let (started, ended) = (Time(started), Time(started + 100));
            let failure = Some(Failure::Timeout);
            watch.attempt(&Attempt { flow: FlowId(0), started, ended, failure, details: Details::default() });
        }
        assert_eq!(watch.begin(), Some(Time(10)));
    }
}
