//! Requests and the time until they are answered, from the headers of TCP segments and from DNS messages.
//!
//! It has no capture of its own: [`super::packets`] passes its frames on.

mod connection;
mod tracker;
mod waits;

use std::collections::HashMap;
use std::time::Duration;

use relapse_detectors::signal::{Dns, Exchange};
use relapse_detectors::time::Time;
use relapse_kernel::packet::{Frame, Tcp};
use tokio::sync::watch;

use super::Agent;
use crate::cluster::Inventory;
use tracker::{Place, Tracker};

/// How often requests without an answer are looked for.
pub const EVERY: Duration = Duration::from_millis(100);

/// The exchanges of one node.
pub struct Exchanges {
    tracker: Tracker,
    inventory: watch::Receiver<Inventory>,
    /// What is at each interface; none for interfaces that do not matter.
    places: HashMap<u32, Option<Place>>,
}

impl Exchanges {
    pub fn of(agent: &Agent) -> Self {
        Self { tracker: Tracker::new(agent.address), inventory: agent.inventory.clone(), places: HashMap::new() }
    }

    /// The exchange that a segment ends.
    pub fn segment(&mut self, agent: &Agent, frame: &Frame, tcp: &Tcp) -> Option<Exchange> {
        let place = self.place(agent, frame.ifindex)?;
        self.tracker.segment(Time(frame.at), place, frame.outgoing, tcp)
    }

    /// Processes a message between a pod and a resolver, at the pod's link.
    pub fn dns(&mut self, agent: &Agent, frame: &Frame, dns: &Dns) {
        let from_pod = dns.response.is_none() != frame.outgoing;
        if from_pod && self.place(agent, frame.ifindex) == Some(Place::Pod) {
            self.tracker.dns(Time(frame.at), dns);
        }
    }

    /// Requests that stay without an answer.
    pub fn outstanding(&mut self, now: Time) -> Vec<Exchange> {
        self.tracker.tick(now)
    }

    fn place(&mut self, agent: &Agent, link: u32) -> Option<Place> {
        if self.inventory.has_changed().unwrap_or(false) {
            self.inventory.mark_unchanged();
            self.places.clear();
            self.tracker.forget_gone();
        }
        if let Some(known) = self.places.get(&link) {
            return *known;
        }
        let name = agent.link_name(link)?;
        let is_pod = agent.inventory.borrow().pods.iter().any(|pod| *pod.node == *agent.node && pod.link == name);
        let place = match is_pod {
            true => Some(Place::Pod),
            false => agent.operator.is_uplink(&name).then_some(Place::Uplink),
        };
        self.places.insert(link, place);
        place
    }
}
