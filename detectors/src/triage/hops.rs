//! Step 6, one failing access hop by hop: where does it break off, or where does the delay arise?
//!
//! SYNs and SYN-ACKs are followed from link to link. Established connections are followed by what their sockets send
//! again and again. Delays are compared with the path's own history. [`connects`] follows SYNs.

mod connects;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::access::{Leg, Outcome};
use super::journeys::RECENT;
use super::{Ask, Look, Step, fresh};
use crate::capped::Capped;
use crate::finding::Subject;
use crate::operator::Operator;
use crate::signal::{ConntrackStats, Observed, ProbeKind, RouteLookup, Signal, Socket, TcpState};
use crate::time::{Time, span};

/// Consecutive timeouts of a segment.
const TIMEOUTS: u8 = 2;
/// Exchanges with something sent again that make a path lossy.
const LOSSES: usize = 3;
/// Intervals between connects from which the usual one is known, and after how long, and how many of those, a client is
/// silent.
const SEEN: u32 = 3;
const SILENCE: Duration = Duration::from_secs(1);
const MANY: u32 = 5;
const CAP: usize = 8192;

#[derive(Debug, Default)]
pub(super) struct Hops {
    /// Sockets that send again and again, by node, local and remote address.
    stuck: Capped<(Arc<str>, SocketAddr, SocketAddr), Stuck, CAP>,
    /// The kernel's route of a pod's packets.
    routes: Capped<(IpAddr, IpAddr), (Time, Arc<str>, RouteLookup), CAP>,
    /// Pods whose packets were routed to the pod NIC.
    routed: Capped<IpAddr, (), CAP>,
    /// When a node last failed to insert a connection, and how often.
    stats: BTreeMap<Arc<str>, (ConntrackStats, Option<Time>, u64)>,
    echo: Capped<(Arc<str>, IpAddr), Time, CAP>,
    upstream: BTreeMap<Arc<str>, (Time, IpAddr)>,
    /// When a connection last had an exchange, and whether something was sent again.
    exchanges: Capped<(SocketAddr, SocketAddr), (Time, bool), CAP>,
}

#[derive(Debug)]
struct Stuck {
    at: Time,
    timeouts: u8,
    size: u32,
}

impl Hops {
    fn socket(&mut self, at: Time, node: &Arc<str>, socket: &Socket) {
        let key = (Arc::clone(node), socket.local, socket.remote);
        // Clients that gave up leave it closing, with the same segment unacknowledged.
        let open = !matches!(socket.state, TcpState::SynSent | TcpState::SynRecv | TcpState::TimeWait);
        // A FIN alone takes one byte of the queue.
        let is_stuck = open && socket.unacked > 0 && socket.retransmits >= TIMEOUTS && socket.send_queue > 1;
        if is_stuck {
            self.stuck.insert(key, Stuck { at, timeouts: socket.retransmits, size: socket.send_mss });
        } else {
            self.stuck.remove(&key);
        }
    }

    fn data(&self, ask: &Ask<'_>, leg: &Leg) -> Option<Look> {
        let ends = |end: &SocketAddr| ask.shared.journeys.original(*end).ip();
        let mut stuck = self.stuck.iter().filter(|((_, local, remote), stuck)| {
            let to_client =
                leg.is_from(ends(remote)) && leg.port.is_some_and(|port| local.port() == port || leg.is_to(local.ip()));
            let to_server = leg.is_from(local.ip()) && leg.port == Some(remote.port()) && !leg.is_from(remote.ip());
            fresh(Some(stuck.at), ask.now) && (to_client || to_server)
        });
        let ((node, local, remote), first) = stuck.next()?;
        let count = 1 + stuck.count();
        let peer = ends(remote);
        let others = self.others(ask, leg, peer);
        let what = format!(
            "{count} connections send the same segment (up to {} bytes) from {node} again and again: {local} to {peer}, {} \
             timeouts in a row{others}",
            first.size, first.timeouts
        );
        let at = match ask.operator.is_pod(peer) {
            true => Subject::node(&**node),
            false => Subject::path(ask.operator.path_of(peer)),
        };
        Some(Look::faulty(at, what))
    }

    /// Whether other clients of the same server are not stuck.
    fn others(&self, ask: &Ask<'_>, leg: &Leg, peer: IpAddr) -> &'static str {
        let path = ask.operator.path_of(peer);
        let well = ask.shared.journeys.iter().any(|journey| {
            let Some(origin) = journey.origin() else { return false };
            leg.asks(origin.destination.ip())
                && !path.contains(origin.source.ip())
                && journey.answered().is_some_and(|at| ask.now.since(at) < RECENT)
        });
        if well { "; clients elsewhere are served" } else { "" }
    }

    fn delay(ask: &Ask<'_>, leg: &Leg) -> Option<Look> {
        let slow = ask.shared.paths.slow();
        let (_, (address, node), run) = slow.into_iter().find(|(_, (address, node), _)| {
            let named = leg.lookup.as_ref().is_some_and(|lookup| ask.dns.addresses(&lookup.name).contains(address));
            let to = (leg.is_to(*address) || named) && leg.client_nodes().any(|own| own == &**node);
            to || leg.is_from(*address) && leg.to.iter().any(|end| end.node.as_deref() == Some(node))
        })?;
        let (took, usual) = (span(run.took), span(run.usual));
        let what = format!("round trips from {node} to {address} take {took}; usual: {usual}");
        Some(Look::faulty(Subject::path(ask.operator.path_of(*address)), what))
    }

    fn losses(&self, ask: &Ask<'_>, leg: &Leg) -> Option<Look> {
        let own = self.exchanges.iter().filter(|((client, server), (at, _))| {
            let is_own = leg.is_from(ask.shared.journeys.original(*client).ip()) && leg.port == Some(server.port());
            is_own && fresh(Some(*at), ask.now)
        });
        let own: Vec<_> = own.collect();
        let lost: Vec<_> = own.iter().filter(|(_, (_, again))| *again).collect();
        let ((client, server), _) = lost.last().filter(|_| lost.len() >= LOSSES && lost.len() * 4 >= own.len())?;
        let far = if ask.operator.is_pod(server.ip()) { client.ip() } else { server.ip() };
        let what = format!("{} of {} connections of {} sent something again", lost.len(), own.len(), leg.who());
        Some(Look::faulty(Subject::path(ask.operator.path_of(far)), what))
    }

    /// Clients outside wait, but no connect of theirs arrives any more.
    fn silence(ask: &Ask<'_>, leg: &Leg) -> Option<Look> {
        if leg.client_nodes().next().is_some() || ask.outcome != Outcome::Timeout {
            return None;
        }
        let own = ask.shared.journeys.of(leg);
        let (first, last) = (own.first()?, own.last()?);
        let gaps = u32::try_from(own.len() - 1).ok().filter(|gaps| *gaps >= SEEN)?;
        let usual = last.began().since(first.began()) / gaps;
        let silent = ask.now.since(last.began());
        let peer = last.origin()?.source.ip();
        let what = format!(
            "no connect of {} has arrived for {}; before, one came each {}",
            leg.who(),
            span(silent),
            span(usual)
        );
        let is_over = silent >= SILENCE && silent >= usual * MANY;
        is_over.then(|| Look::faulty(Subject::path(ask.operator.path_of(peer)), what))
    }

    /// The kernel would send a client's packets by another NIC.
    fn route(&self, ask: &Ask<'_>, leg: &Leg) -> Option<Look> {
        let clients = leg.from.iter().flat_map(|end| &end.addresses);
        let (_, node, lookup) = clients
            .filter(|client| self.routed.contains_key(*client))
            .flat_map(|client| self.routes.iter().filter(move |((source, _), _)| source == client))
            .map(|(_, found)| found)
            .find(|(at, _, lookup)| {
                ask.now.since(*at) < RECENT && lookup.link.as_ref().is_some_and(|link| *link == ask.operator.node_nic)
            })?;
        let what = format!(
            "{node} routes {} to {} by {}",
            lookup.source,
            lookup.destination,
            lookup.link.as_deref().unwrap_or("no link")
        );
        Some(Look::faulty(Subject::node(&**node), what))
    }

    fn leg(&self, ask: &Ask<'_>, leg: &Leg) -> Look {
        let is_slow = matches!(ask.outcome, Outcome::Slow(_));
        if leg.to.is_empty() {
            if let Some(look) = self.route(ask, leg) {
                return look.explains_if(true);
            }
            let nodes = leg.client_nodes().filter_map(|node| self.upstream.get(node));
            let direct = nodes.filter(|(at, _)| fresh(Some(*at), ask.now)).map(|(_, upstream)| upstream).next();
            return match direct {
                Some(upstream) => Look::in_order(format!("queries to {upstream} are answered, asked directly")),
                None => Look::not_seen("no query left the client's node"),
            };
        }
        let connects = self.connects(ask, leg).map(|look| look.explains_if(ask.outcome != Outcome::NameError));
        let data = self.data(ask, leg).map(|look| look.explains_if(ask.outcome != Outcome::NameError));
        let delay = Self::delay(ask, leg).map(|look| look.explains_if(is_slow || ask.outcome == Outcome::Timeout));
        let losses = self.losses(ask, leg).map(|look| look.explains_if(is_slow || ask.outcome == Outcome::Timeout));
        let route = self.route(ask, leg).filter(|_| ask.outcome == Outcome::NameError);
        let route = route.or_else(|| Self::silence(ask, leg)).map(|look| look.explains_if(true));
        if let Some(look) = connects.or(data).or(delay).or(losses).or(route) {
            return look;
        }
        let own = ask.shared.journeys.of(leg);
        let answered = own.iter().rev().find_map(|journey| {
            let at = journey.answered().filter(|at| ask.now.since(*at) < 2 * RECENT)?;
            Some((journey, at.since(journey.began())))
        });
        if let Some((journey, took)) = answered {
            let to = journey.origin().map(|origin| origin.destination);
            let to = to.map_or_else(String::new, |to| to.to_string());
            return Look::in_order(format!("{} connects to {to} in {}", leg.who(), span(took)));
        }
        let echo = leg.client_nodes().flat_map(|node| {
            leg.to.iter().flat_map(move |end| end.addresses.iter().map(move |address| (node, *address)))
        });
        let echo = echo.filter(|(node, address)| {
            self.echo.get(&(Arc::from(*node), *address)).is_some_and(|at| fresh(Some(*at), ask.now))
        });
        match echo.map(|(_, address)| address).next() {
            Some(address) => Look::in_order(format!("{address} answers ICMP echo")),
            None => Look::not_seen(format!("no connect of {} was seen", leg.who())),
        }
    }

    pub(super) fn tick(&mut self, now: Time) {
        self.stuck.retain(|_, stuck| fresh(Some(stuck.at), now));
        self.exchanges.retain(|_, (at, _)| fresh(Some(*at), now));
        self.routes.retain(|_, (at, ..)| now.since(*at) < Duration::from_mins(1));
    }
}

impl Step for Hops {
    fn observe(&mut self, operator: &Operator, signal: &Signal) {
        let at = signal.at;
        match &signal.observed {
            Observed::Socket(socket) => self.socket(at, &signal.node, socket),
            Observed::RouteLookup(lookup) => {
                if lookup.link.as_deref() == Some(&operator.pod_nic) {
                    self.routed.insert(lookup.source, ());
                }
                let found = (at, Arc::clone(&signal.node), lookup.clone());
                self.routes.insert((lookup.source, lookup.destination), found);
            }
            Observed::ConntrackStats(stats) => {
                let known = self.stats.entry(Arc::clone(&signal.node)).or_insert((*stats, None, 0));
                let failed = stats.since(&known.0).insert_failed;
                *known = match failed {
                    0 => (*stats, known.1, known.2),
                    more => (*stats, Some(at), known.2 + more),
                };
            }
            Observed::Probe(probe) if probe.ok && probe.kind == ProbeKind::Echo => {
                self.echo.insert((Arc::clone(&signal.node), probe.target), at);
            }
            Observed::Probe(probe) if probe.ok && probe.kind == ProbeKind::DnsUpstream => {
                self.upstream.insert(Arc::clone(&signal.node), (at, probe.target));
            }
            Observed::Exchange(exchange) => {
                self.exchanges.insert((exchange.client, exchange.server), (at, exchange.sent_again));
            }
            _ => {}
        }
    }

    fn look(&self, ask: &Ask<'_>) -> Look {
        Look::worst(ask.access.legs.iter().map(|leg| self.leg(ask, leg)).collect())
    }
}
