//! Clients that a node hides from a pod: with a node port and policy Cluster, the node that is asked puts its own
//! address in place of the client's. Its connection tracking has both.
//!
//! Job: keep what stands for each hidden client, and name the client of a pod's socket, and the node that sees it. A
//! finding about such a client needs the agents of both nodes, and says so.
//! Left out: the segments between that node and the pod. The node that is asked sees the same ones on its uplink, with
//! the client's address.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::capped::Capped;
use crate::operator::Operator;
use crate::prefix::Prefix;
use crate::signal::{Change, Observed, Protocol, Signal, Socket};
use crate::time::Time;

/// A node without connections of hidden clients hides clients for so long: older ones may be unknown.
const FORGET: Duration = Duration::from_mins(2);
const CAP: usize = 16_384;

#[derive(Debug, Default)]
pub(crate) struct HiddenClients {
    /// By what the pod sees: its peer, and itself.
    clients: Capped<(SocketAddr, SocketAddr), Hidden, CAP>,
    /// Addresses of nodes that hide clients, and when they last did.
    nodes: Capped<IpAddr, Time, 1024>,
}

#[derive(Debug)]
struct Hidden {
    client: SocketAddr,
    /// The node that is asked.
    node: Arc<str>,
}

impl HiddenClients {
    pub fn observe(&mut self, operator: &Operator, signal: &Signal) {
        let Observed::Flow(flow) = &signal.observed else { return };
        let (translated, server) = flow.outside();
        let client = flow.original.source;
        let hides = flow.protocol == Protocol::Tcp
            && flow.is_translated()
            && operator.is_pod(server.ip())
            && !operator.is_pod(client.ip());
        if !hides {
            return;
        }
        self.nodes.record(translated.ip(), signal.at);
        let key = (translated, server);
        if flow.change == Change::Removed {
            self.clients.remove(&key);
        } else {
            self.clients.insert(key, Hidden { client, node: Arc::clone(&signal.node) });
        }
    }

    /// Whether this peer of a pod is a node that hides clients.
    pub fn hides(&self, peer: IpAddr) -> bool {
        self.nodes.contains_key(&peer)
    }

    /// The socket with its client's own address, and the node whose uplink sees the client. `None` if its client is
    /// hidden and unknown: the connection is older than the agent.
    pub fn uncover<'a>(&self, node: &Arc<str>, socket: &'a Socket) -> Option<(Arc<str>, Cow<'a, Socket>)> {
        match self.clients.get(&(socket.remote, socket.local)) {
            Some(Hidden { client, node }) => {
                Some((Arc::clone(node), Cow::Owned(Socket { remote: *client, ..socket.clone() })))
            }
            None if self.hides(socket.remote.ip()) => None,
            None => Some((Arc::clone(node), Cow::Borrowed(socket))),
        }
    }

    /// For evidence: which node hides the clients of this path, if one does.
    pub fn note(&self, path: Prefix) -> String {
        let hidden = self.clients.values().find(|hidden| path.contains(hidden.client.ip()));
        let note = |hidden: &Hidden| {
            format!(
                "; pods see {} in place of these clients, which its connection table shows: this needs the agents of \
                 both nodes",
                hidden.node
            )
        };
        hidden.map(note).unwrap_or_default()
    }

    pub fn forget(&mut self, now: Time) {
        // A connection has no events while it lasts, so only its end removes it.
        let hiding: BTreeSet<IpAddr> = self.clients.keys().map(|(translated, _)| translated.ip()).collect();
        self.nodes.retain(|node, at| hiding.contains(node) || now.since(*at) < FORGET);
    }
}
