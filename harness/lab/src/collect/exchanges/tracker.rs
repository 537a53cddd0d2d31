//! The connections of a node's pods and of the node itself, and what each of these waits for.
//!
//! A pod's are seen where it is attached, before any address is translated and also where the other end is on the same
//! node; the node's own on its uplinks. So each end is seen once. Of a connection without a SYN the ports
//! decide which end is the client: a client's is drawn from the kernel's range (`ip_local_port_range`), a server's is not.
//!
//! Left out: connections of the node itself that were open before, which look like translated ones, and
//! those between containers of one pod.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use relapse_detectors::signal::{Dns, End, Exchange};
use relapse_detectors::time::Time;
use relapse_kernel::packet::Tcp;

use super::connection::Connection;
use super::waits::Waits;

/// Most connections that are tracked.
const CONNECTIONS: usize = 16_384;
/// Most DNS questions without an answer.
const QUESTIONS: usize = 4096;
/// A stub resolver asks again after this long (resolv.conf(5), `timeout`).
const QUESTION: Duration = Duration::from_secs(5);
/// An idle connection is forgotten after this.
const IDLE: Duration = Duration::from_hours(1);
/// SYNs that are remembered until they are seen again on their way through the node.
const SYNS: usize = 64;
/// The first port that the kernel gives to clients.
const FIRST_OF_CLIENTS: u16 = 32_768;

/// Where a segment was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At the node's end of a pod's link.
    Pod,
    Uplink,
}

/// The end on this node, and the other.
type Ends = (SocketAddr, SocketAddr);

/// The connections of one node.
#[derive(Debug)]
pub(super) struct Tracker {
    node: IpAddr,
    connections: HashMap<Ends, Connection>,
    waits: HashMap<IpAddr, Waits>,
    /// DNS questions without an answer, by client and message id.
    questions: HashMap<(SocketAddr, u16), Time>,
    syns: VecDeque<(u32, Ends)>,
}

impl Tracker {
    pub fn new(node: IpAddr) -> Self {
        let (connections, waits, questions) = Default::default();
        Self { node, connections, waits, questions, syns: VecDeque::new() }
    }

    /// Processes a segment that the node sent through a link (`outgoing`) or received; returns the exchange that it
    /// ends.
    pub fn segment(&mut self, at: Time, place: Place, outgoing: bool, tcp: &Tcp) -> Option<Exchange> {
        let from_here = match place {
            Place::Pod => !outgoing,
            Place::Uplink => outgoing,
        };
        let ends = if from_here { (tcp.source, tcp.destination) } else { (tcp.destination, tcp.source) };
        let opens = tcp.flags.syn && !tcp.flags.ack;
        let passes = opens && self.passes(tcp.sequence, ends);
        if place == Place::Uplink && (passes || ends.0.ip() != self.node) {
            return None;
        }
        if tcp.flags.rst {
            self.remove(ends, at);
            return None;
        }
        let end = |client| if client { End::Client } else { End::Server };
        if opens && self.connections.get(&ends).is_none_or(|known| known.isn != Some(tcp.sequence)) {
            self.remove(ends, at);
            self.add(ends, Connection::opened(end(from_here), at, tcp.sequence));
        } else if place == Place::Pod && tcp.payload_len > 0 && !tcp.flags.fin && !self.connections.contains_key(&ends)
        {
            let is_client = |port| port >= FIRST_OF_CLIENTS;
            let clients = (is_client(ends.0.port()), is_client(ends.1.port()));
            if clients.0 != clients.1 {
                self.add(ends, Connection::in_progress(end(clients.0), at));
            }
        }
        let connection = self.connections.get_mut(&ends)?;
        let here = connection.end();
        let waits = self.waits.entry(ends.0.ip()).or_default();
        let report = connection.segment(at, tcp, from_here == (here == End::Client), waits);
        if connection.is_over(at) {
            self.remove(ends, at);
        }
        report.map(|report| match here {
            End::Client => report.between(ends.0, ends.1, here),
            End::Server => report.between(ends.1, ends.0, here),
        })
    }

    /// Whether a SYN passes through the node: it was seen before with other addresses.
    fn passes(&mut self, isn: u32, ends: Ends) -> bool {
        let others = self.syns.iter().filter(|(other, seen)| *other == isn && *seen != ends).map(|(_, seen)| *seen);
        let others: Vec<_> = others.collect();
        let own: Vec<_> = others.iter().filter(|seen| seen.0.ip() == self.node).copied().collect();
        own.into_iter().for_each(|ends| self.remove(ends, Time::default()));
        if self.syns.len() == SYNS {
            self.syns.pop_front();
        }
        self.syns.push_back((isn, ends));
        !others.is_empty()
    }

    /// A DNS question of a pod, or its answer.
    pub fn dns(&mut self, at: Time, dns: &Dns) {
        let key = (dns.client, dns.id);
        let waits = self.waits.entry(dns.client.ip()).or_default();
        if dns.response.is_some() {
            if self.questions.remove(&key).is_some() {
                waits.end(at);
            }
        } else if self.questions.len() < QUESTIONS && self.questions.insert(key, at).is_none() {
            waits.begin(at);
        }
    }

    /// Reports requests that stay without an answer, and forgets what has ended.
    pub fn tick(&mut self, now: Time) -> Vec<Exchange> {
        let Self { connections, waits, questions, .. } = self;
        let mut outstanding = Vec::new();
        connections.retain(|ends, connection| {
            let waits = waits.entry(ends.0.ip()).or_default();
            if connection.is_over(now) || now.since(connection.last) > IDLE {
                connection.over(now, waits);
                return false;
            }
            if let Some(report) = connection.outstanding(now, waits) {
                outstanding.push(match connection.end() {
                    End::Client => report.between(ends.0, ends.1, End::Client),
                    End::Server => report.between(ends.1, ends.0, End::Server),
                });
            }
            true
        });
        questions.retain(|(client, _), asked| {
            let waits_on = now.since(*asked) < QUESTION;
            if !waits_on && let Some(waits) = waits.get_mut(&client.ip()) {
                waits.end(now);
            }
            waits_on
        });
        outstanding
    }

    /// Forgets pods without connections; called when pods come or go.
    pub fn forget_gone(&mut self) {
        let connections = &self.connections;
        self.waits.retain(|pod, waits| !waits.is_over() || connections.keys().any(|ends| ends.0.ip() == *pod));
    }

    fn add(&mut self, ends: Ends, connection: Connection) {
        if self.connections.len() < CONNECTIONS {
            self.connections.insert(ends, connection);
        }
    }

    fn remove(&mut self, ends: Ends, at: Time) {
        if let Some(mut connection) = self.connections.remove(&ends)
            && let Some(waits) = self.waits.get_mut(&ends.0.ip())
        {
            connection.over(at, waits);
        }
    }
}

#[cfg(test)]
mod tests;
