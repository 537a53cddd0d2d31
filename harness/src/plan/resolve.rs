//! Scenario -> Plan: looks up every name, checks every number, reports every error at once.
//!
//! This module orders the stages and holds the look-ups shared by all of them and by the faults. Invariants: a name
//! that cannot be resolved is reported once and is then `None` or a harmless stand-in, so that one mistake causes no
//! others; a plan is returned only if there are no errors. Reading is the only I/O: the files ([`load`]), and the kind
//! configuration and the facts that they name.
//!
//! - [`cluster`], with [`network`], [`dns`], [`node_ports`] and [`kind_config`]: the cluster, with addresses checked by [`addresses`].
//! - [`operator`]: what the operator declares, checked against that cluster.
//! - [`flows`]: the workload. [`trials`]: injections, effects, findings, controls. [`steps`]: chains.

mod addresses;
mod also;
mod cluster;
mod dns;
mod flows;
mod kind_config;
mod load;
mod network;
mod node_ports;
mod operator;
mod steps;
mod trials;

#[cfg(test)]
mod tests;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use relapse_lab::workload::client::Client;
use relapse_model::Resolver;
use relapse_model::diagnostics::{Diagnostics, Source, Span, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::values;

use self::steps::Chain;
use super::{Lasting, Plan};
use crate::scenario::Scenario;
use crate::scenario::operator::Shared;
use crate::vary;

pub use load::load;

const DEFAULT_SETTLE: Duration = Duration::from_millis(500);
const DEFAULT_BASELINE: Duration = Duration::from_millis(500);
const SETTLE_WITHIN: Duration = Duration::from_secs(20);
const DEFAULT_RECOVERY: Duration = Duration::from_secs(5);

/// Resolves a scenario.
///
/// # Errors
/// All errors in it.
pub fn plan(scenario: &Scenario, source: &Source) -> Result<Plan, Diagnostics> {
    let (facts, unread) = Shared::read(&scenario.cluster, source);
    let mut resolver = Planner { known: Resolver::new(source), clients: Vec::new(), shared_by: None };
    resolver.wrong.extend(unread);
    resolver.words(scenario);
    resolver.plan_cluster(&scenario.cluster);
    resolver.plan_operator(scenario, facts.as_ref());
    resolver.plan_workload(&scenario.workload);

    let steady_for = resolver.duration_or("for", scenario.steady_state.for_.as_ref(), DEFAULT_SETTLE);
    let baseline = resolver.duration_or("baseline", scenario.steady_state.baseline.as_ref(), DEFAULT_BASELINE);
    let held = resolver.plan_held(scenario.steady_state.held.as_ref());
    let recover_within = resolver.duration_or("within", scenario.recover.within.as_ref(), DEFAULT_RECOVERY);

    let cluster = resolver.cluster.clone();
    let incident_trial = resolver.plan_incident(scenario);
    let risks = resolver.plan_risks(&scenario.risks, Chain::of(scenario).as_ref(), baseline);
    let controls = resolver.plan_controls(scenario, &cluster, &incident_trial.detect, baseline);

    let armed = resolver.plan_armed(scenario);
    let Planner { known: Resolver { cluster, workload, mut wrong, .. }, clients, .. } = resolver;
    wrong.extend(vary::check(scenario, source));
    let mut plan = wrong.into_result(Plan {
        name: scenario.metadata.name.0.clone(),
        incident: scenario.metadata.incident.value.clone(),
        title: scenario.metadata.title.value.clone(),
        nightly: scenario.metadata.nightly,
        file: source.file.clone(),
        repetition: None,
        cluster,
        workload,
        clients,
        steady_for,
        baseline,
        held,
        armed,
        risks,
        incident_trial,
        controls,
        recover_within,
        settle_within: SETTLE_WITHIN,
        at_least: Lasting::default(),
    })?;
    plan.arm(armed);
    Ok(plan)
}

/// Resolves a file: the look-ups of the model, extended with the planning of each section.
pub struct Planner<'a> {
    known: Resolver<'a>,
    /// The clients of the flows, in the same order.
    clients: Vec<Arc<dyn Client>>,
    /// While a shared file of facts is planned: the scenario.
    shared_by: Option<String>,
}

impl<'a> Deref for Planner<'a> {
    type Target = Resolver<'a>;

    fn deref(&self) -> &Resolver<'a> {
        &self.known
    }
}

impl<'a> DerefMut for Planner<'a> {
    fn deref_mut(&mut self) -> &mut Resolver<'a> {
        &mut self.known
    }
}

impl Planner<'_> {
    fn duration_or(&mut self, key: &str, duration: Option<&Spanned<values::Duration>>, default: Duration) -> Duration {
        duration.and_then(|d| self.duration(key, d)).unwrap_or(default)
    }

    /// For how long something went on.
    fn lasted(&mut self, lasted: Option<&Spanned<values::LongDuration>>) -> Option<Duration> {
        let lasted = lasted?;
        if lasted.0.is_zero() {
            self.error(
                lasted.span,
                "`lasted` cannot be 0",
                "write a time above 0, or leave it out where it is unknown",
            );
            return None;
        }
        Some(lasted.0)
    }

    /// Reports duplicate names of one kind.
    fn unique<'n>(&mut self, what: &str, names: impl IntoIterator<Item = (&'n str, Span)>) {
        let mut first: std::collections::HashMap<&str, Span> = std::collections::HashMap::new();
        for (name, span) in names {
            if let Some(earlier) = first.get(name) {
                let line = self.source.line_of(*earlier);
                self.error(
                    span,
                    format!("there are two {what} named {}", quoted(name)),
                    format!("the other is on line {line}"),
                );
            } else {
                first.insert(name, span);
            }
        }
    }

    /// Checks the free texts of a scenario.
    fn words(&mut self, scenario: &Scenario) {
        for (key, text) in [("incident", &scenario.metadata.incident), ("title", &scenario.metadata.title)] {
            if text.trim().is_empty() || text.chars().count() > 200 || text.chars().any(char::is_control) {
                self.error(text.span, format!("`{key}` is one line of text"), "write 1 to 200 characters");
            }
        }
    }
}
