//! Where the SYNs of a leg, or the answers to them, break off.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Hops;
use crate::finding::Subject;
use crate::triage::access::Leg;
use crate::triage::journeys::{Journey, RECENT, Sighting};
use crate::triage::{Ask, Look, fresh};

/// Connects that count if others are answered.
const SEVERAL: usize = 3;

/// Where a connect breaks off.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Break {
    WrongNic {
        node: String,
        link: String,
        answer: bool,
    },
    Translation {
        node: String,
    },
    Dropped {
        node: String,
        answer: bool,
    },
    /// It left its node although it was bound for a pod there.
    Looped {
        node: String,
        link: String,
    },
    /// It left the last node that is seen, and nothing came back.
    Beyond {
        peer: IpAddr,
    },
}

impl Hops {
    pub(super) fn connects(&self, ask: &Ask<'_>, leg: &Leg) -> Option<Look> {
        let own = ask.shared.journeys.of(leg);
        let mut breaks: BTreeMap<Break, usize> = BTreeMap::new();
        for journey in own.iter().filter(|journey| journey.is_broken(ask.now)) {
            let Some(found) = break_of(ask, leg, journey) else { continue };
            // A lost route does not come and go.
            let to = |journey: &Journey| journey.origin().map(|origin| origin.destination.ip());
            let later = |other: &&Journey| {
                to(other) == to(journey) && other.began() > journey.began() && other.answered().is_some()
            };
            if !matches!(found, Break::WrongNic { .. }) || !own.iter().copied().any(|other| later(&other)) {
                *breaks.entry(found).or_default() += 1;
            }
        }
        let (found, count) = breaks.into_iter().max_by_key(|(found, count)| (*count, Reverse(found.clone())))?;
        let answered = own.iter().filter(|journey| journey.answered().is_some_and(|at| ask.now.since(at) < RECENT));
        let answered = answered.count();
        // Now and then a SYN is lost.
        let few = count < SEVERAL || count * 4 < answered;
        if few && answered > 0 && matches!(found, Break::Beyond { .. }) {
            return None;
        }
        let others = format!("{answered} others were answered");
        let who = leg.who();
        Some(match found {
            Break::WrongNic { node, link, answer } => {
                let what = if answer { "the answers to SYNs" } else { "SYNs of" };
                let what = format!("{what} {who} leave {node} by {link} ({count} times), unanswered");
                Look::faulty(Subject::node(node), what)
            }
            Break::Looped { node, link } => {
                let what = format!("SYNs of {who} to a pod on {node} leave it by {link} ({count} times), unanswered");
                Look::faulty(Subject::node(node), what)
            }
            Break::Translation { node } => {
                let what = format!(
                    "{node} gave {count} SYNs of {who} ports that others had towards the same server; no answer; {others}"
                );
                Look::faulty(Subject::node(node), what)
            }
            Break::Dropped { node, answer } => {
                let failed = self.stats.get(&*node).filter(|(_, at, _)| fresh(*at, ask.now));
                let why = failed.map_or_else(String::new, |(.., count)| {
                    format!("; {count} connections could not be entered (no free port)")
                });
                let what = match answer {
                    true => format!("answers to {who} reach {node} and are not delivered ({count} times)"),
                    false => format!("SYNs of {who} reach {node} and do not leave it ({count} times){why}"),
                };
                Look::faulty(Subject::node(node), what)
            }
            Break::Beyond { peer } => {
                let what =
                    format!("{count} connects of {who} leave the nodes as ever and are lost beyond them; {others}");
                Look::faulty(Subject::path(ask.operator.path_of(peer)), what)
            }
        })
    }
}

/// Where a connect of this leg breaks off.
fn break_of(ask: &Ask<'_>, leg: &Leg, journey: &Journey) -> Option<Break> {
    let operator = ask.operator;
    let origin = journey.origin()?;
    let is_inside = leg.client_nodes().any(|node| *node == *origin.node);
    let out = |sight: &&Sighting| sight.goes_out() && operator.is_uplink(&sight.link);
    let wrong =
        |sight: &Sighting, answer| Break::WrongNic { node: sight.node.to_string(), link: sight.link.clone(), answer };
    let here = |sight: &&Sighting| sight.node == origin.node;
    // An answer that left by another NIC than the pod's.
    let astray = journey.answers.iter().filter(out).find(|sight| {
        operator.is_pod(sight.source.ip()) && sight.link == operator.node_nic && ask.shared.has_pod_nic(&sight.node)
    });
    if let Some(astray) = astray {
        return Some(wrong(astray, true));
    }
    let left = journey.syns.iter().filter(here).find(out);
    if is_inside {
        let delivered = journey
            .syns
            .iter()
            .filter(here)
            .any(|sight| sight.goes_out() && !operator.is_uplink(&sight.link) && sight.link != origin.link);
        let Some(left) = left else {
            let node = origin.node.to_string();
            return Some(match delivered {
                true => Break::Beyond { peer: journey.syns.last()?.destination.ip() },
                false => Break::Dropped { node, answer: false },
            });
        };
        let neighbours = !leg.to.is_empty() && leg.to.iter().all(|end| end.node.as_deref() == Some(&left.node));
        if neighbours && leg.is_to(left.destination.ip()) {
            return Some(Break::Looped { node: left.node.to_string(), link: left.link.clone() });
        }
        if ask.shared.is_wrong_nic(operator, left, journey) {
            return Some(wrong(left, false));
        }
        if journey.answers.iter().any(|sight| sight.node == origin.node && !sight.goes_out()) {
            return Some(Break::Dropped { node: origin.node.to_string(), answer: true });
        }
        if journey.reused {
            return Some(Break::Translation { node: origin.node.to_string() });
        }
    }
    // At the node of those who answer.
    let arrived = journey.syns.iter().find(|sight| {
        !sight.goes_out()
            && operator.is_uplink(&sight.link)
            && leg.to.iter().any(|end| end.node.as_deref() == Some(&sight.node))
    });
    if let Some(arrived) = arrived {
        let there = |sight: &&Sighting| sight.node == arrived.node;
        let delivered = journey.syns.iter().filter(there).any(|sight| sight.goes_out());
        let host = leg.to.iter().any(|end| end.place.starts_with("node/"));
        if !delivered && !host && journey.answers.is_empty() {
            return Some(Break::Dropped { node: arrived.node.to_string(), answer: false });
        }
    }
    let peer = if is_inside { journey.syns.last()?.destination.ip() } else { origin.source.ip() };
    Some(Break::Beyond { peer })
}
