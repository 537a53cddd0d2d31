//! What is missing from the start: routing that no agent ever saw, but that pods need.
//!
//! Proved by what stands: a rule sends pods to a table without a route; a pod lacks the rule, or the host route, that
//! other pods of its node have; no pod has a rule to a table that has a route out of the pod NIC.
//! Left out: the rules of a node's only pod, with which nothing can be compared; the kernel's own tables, which may be
//! empty (`default` always is); pods that are answered by the node's NIC.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::claims::{Claim, want};
use crate::detector::Context;
use crate::finding::{Severity, Subject};
use crate::operator::Operator;
use crate::signal::{Route, Rule};

use super::rules::{Cover, PodRules};
use super::start::KERNELS;
use super::state::{GRACE, NodeRouting, seconds, severity};

/// The state of a node, or of a new pod, is reported in parts, and a pod may be about to leave.
const SETTLE: Duration = Duration::from_millis(500);
impl NodeRouting {
    /// Counts rules as missing that a pod never had and should have.
    pub(super) fn miss(&mut self, cx: &Context<'_>) {
        let usable = self.nic.index.is_some() && !self.nic.down;
        let leads = |route: &Route| route.link.as_deref() == Some(cx.operator.pod_nic.as_str());
        let table = usable && self.routes.values().any(leads);
        let at_home = &self.start.at_home;
        let settled =
            |pod: &PodRules| !pod.leaving && cx.operator.is_pod(pod.address) && cx.now.since(pod.since) >= SETTLE;
        let stays = |pod: &PodRules| settled(pod) && !at_home.contains_key(&pod.address);
        let count = |has: fn(&PodRules) -> bool| self.pods.values().filter(|pod| stays(pod) && has(pod)).count();
        // If no pod of several has a rule, the table has no other use.
        let none = table && count(|pod| pod.from.had) == 0 && count(|_| true) >= 2;
        let (from, to) = (none || count(|pod| pod.from.holds()) > 0, count(|pod| pod.to.holds()) > 0);
        if !(from || to) {
            return;
        }
        let lacking = self.pods.values().filter(|pod| stays(pod) && (from && !pod.from.had || to && !pod.to.had));
        let lacking: Vec<IpAddr> = lacking.map(|pod| pod.address).collect();
        // Pods that were created since the loss have rules again.
        let most = lacking.len() >= 2 && lacking.len() * 2 > count(|_| true);
        for pod in self.pods.values_mut().filter(|pod| lacking.contains(&pod.address)) {
            let since = pod.since;
            let lacks = |rule: &mut Cover| rule.lacks(since);
            [(from, &mut pod.from), (to, &mut pod.to)]
                .into_iter()
                .filter(|(all, rule)| *all && !rule.had)
                .for_each(|(_, rule)| lacks(rule));
        }
        if !lacking.is_empty() {
            self.count();
            self.all |= most;
        }
    }

    /// A table to which a rule sends pods, and which has no route.
    pub(super) fn judge_empty_table(&self, cx: &Context<'_>, wanted: &mut BTreeMap<Subject, Claim>) -> bool {
        let Context { now, operator, node, .. } = *cx;
        let Some(start) = self.start.since.filter(|start| now.since(*start) >= SETTLE) else { return false };
        let Some(table) = self.rules.iter().find_map(|rule| self.empty_table(operator, rule)) else { return false };
        let since = start.max(self.nic.since);
        let rules = self.rules.iter().filter(|rule| rule.table == table);
        let sources: BTreeSet<IpAddr> = rules.flat_map(|rule| self.sent_by(rule)).collect();
        let stray = sources.iter().find_map(|address| self.stray(*address, since));
        let evidence = format!(
            "table {table} of {node} has had no route since it was first seen {} ago; {} pods depend on it{}",
            seconds(now, since),
            sources.len(),
            Self::left_by(operator, stray)
        );
        let severity = severity(now, since, stray.map(|_| Duration::ZERO));
        // Nothing changed, so there is nothing to report before it counts.
        if severity > Severity::Info {
            want(wanted, Subject::node(node), Claim { severity, since, evidence });
        }
        true
    }

    /// The pods that a rule is about.
    fn sent_by(&self, rule: &Rule) -> impl Iterator<Item = IpAddr> {
        let pods = self.pods.values().filter(|pod| !pod.leaving).map(|pod| pod.address);
        let from = rule.from;
        pods.filter(move |pod| from.is_some_and(|from| from.contains(*pod)))
    }

    /// The table that a rule leads pods to, if that has no route.
    fn empty_table(&self, operator: &Operator, rule: &Rule) -> Option<u32> {
        let table = rule.table;
        let leads_pods = match self.pods.is_empty() {
            true => rule.from.is_some_and(|from| operator.is_pod(from.address())),
            false => self.sent_by(rule).next().is_some(),
        };
        let empty = match table == operator.pod_table {
            // Without the pod NIC its table cannot have a route: see `pod-nic`.
            true => self.routes.is_empty() && self.nic.index.is_some(),
            false => !KERNELS.contains(&table) && !self.start.is_filled(table),
        };
        (leads_pods && empty).then_some(table)
    }

    /// Pods without the route by which the node reaches them, where the others of the node have one.
    pub(super) fn judge_host_routes(&self, cx: &Context<'_>, wanted: &mut BTreeMap<Subject, Claim>) {
        let stays = |pod: &PodRules| !pod.leaving && cx.operator.is_pod(pod.address);
        let pods = self.pods.iter().filter(|(_, pod)| stays(pod));
        let (have, lack): (Vec<_>, Vec<_>) = pods.partition(|(_, pod)| self.start.has_host_route(pod.address));
        if have.is_empty() || have.len() < lack.len() {
            return;
        }
        for (name, pod) in lack {
            let since = self.start.removed.get(&pod.address).copied().unwrap_or_default().max(pod.since);
            if cx.now.since(since) < GRACE {
                continue;
            }
            let evidence = format!(
                "{} has had no route to pod {name} ({}) for {}; it has one to {} other pod{}",
                cx.node,
                pod.address,
                seconds(cx.now, since),
                have.len(),
                if have.len() == 1 { "" } else { "s" }
            );
            let severity = severity(cx.now, since, None);
            want(wanted, Subject::pod(name), Claim { severity, since, evidence });
        }
    }
}
