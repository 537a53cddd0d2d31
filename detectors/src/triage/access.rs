//! The way in of a flow: who asks whom, by which name or Service, and what that depends on in turn.
//!
//! Operators of the application know it; it holds nothing about faults.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// How users reach an application, and what it asks before it answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Name of the flow.
    pub flow: String,
    /// The client's own leg first, then those of the ingress and of the application, in the order in which they happen.
    pub legs: Vec<Leg>,
}

/// One conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// The part of a call; `None` for the client's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    pub from: Vec<End>,
    /// The name that is looked up first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup: Option<Lookup>,
    /// The Service whose virtual address or node port is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<AskedService>,
    /// Nodes, or load balancers, that clients outside ask for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<End>,
    /// Who answers. Empty if nothing is asked but the name.
    pub to: Vec<End>,
    /// TCP port; `None` for ICMP echo and look-ups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Those who answer are ingress controllers.
    #[serde(default)]
    pub ingress: bool,
}

/// A pod, node, office or host outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// As scenarios write it: `pod/app`, `office/beijing`.
    pub place: String,
    pub addresses: Vec<IpAddr>,
    /// Its node, if it is in the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A look-up of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    pub name: String,
    pub resolver: IpAddr,
}

/// A Service that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedService {
    pub name: String,
    pub address: IpAddr,
}

/// What a user saw of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When the request ended.
    pub at: Time,
    pub outcome: Outcome,
}

/// How a request ended for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Answered in usual time.
    Well,
    /// Answered far later than usual.
    Slow(Duration),
    Timeout,
    Refused,
    /// The name was not resolved.
    NameError,
    /// An HTTP status of 400 or more.
    Status(u16),
    /// It failed in another way.
    Failed,
}

impl Outcome {
    /// Whether a user complains.
    #[must_use]
    pub const fn is_bad(self) -> bool {
        !matches!(self, Self::Well)
    }

    /// A gateway's report that something behind it failed (RFC 9110, 15.6.3 to 15.6.5).
    pub(super) const fn is_gateway(self) -> bool {
        matches!(self, Self::Status(502..=504))
    }
}

impl Leg {
    /// Whether this is one of its clients.
    pub(super) fn is_from(&self, address: IpAddr) -> bool {
        self.from.iter().any(|end| end.addresses.contains(&address))
    }

    /// Whether this is one of those who answer.
    pub(super) fn is_to(&self, address: IpAddr) -> bool {
        self.to.iter().any(|end| end.addresses.contains(&address))
    }

    /// The addresses that its clients ask, as far as they are known without the name.
    pub(super) fn asks(&self, address: IpAddr) -> bool {
        let via = || self.via.iter().any(|end| end.addresses.contains(&address));
        self.service.as_ref().is_some_and(|service| service.address == address) || self.is_to(address) || via()
    }

    /// The nodes of its clients.
    pub(super) fn client_nodes(&self) -> impl Iterator<Item = &str> {
        self.from.iter().filter_map(|end| end.node.as_deref())
    }

    /// The nodes at which a Service's rules decide: those of clients inside, or those that clients outside ask.
    pub(super) fn rule_nodes(&self) -> impl Iterator<Item = &str> {
        self.client_nodes().chain(self.via.iter().filter_map(|end| end.node.as_deref()))
    }

    /// All nodes that it crosses.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.rule_nodes().chain(self.to.iter().filter_map(|end| end.node.as_deref()))
    }

    /// The servers of its port.
    pub(super) fn servers(&self) -> impl Iterator<Item = SocketAddr> {
        let addresses = self.to.iter().flat_map(|end| end.addresses.iter().copied());
        addresses.filter_map(|address| Some(SocketAddr::new(address, self.port?)))
    }

    /// The first client's place, for evidence.
    pub(super) fn who(&self) -> &str {
        self.from.first().map_or("the client", |end| end.place.as_str())
    }
}
