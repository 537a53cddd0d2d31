//! Probes of the cluster's external names, as clients outside use them: a look-up at their own resolver, and once a
//! second a TCP connect to the address in the answer. At most one name each half second, in turn: 16 packets a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relapse_detectors::operator::Entry;
use relapse_detectors::signal::{Probe, ProbeKind};
use tokio::time::MissedTickBehavior;

use super::services::connect;
use super::{Agent, TIMEOUT, in_time, outcome};
use crate::workload::stub;

const EVERY: Duration = Duration::from_millis(500);

pub(super) async fn run(agent: Arc<Agent>) {
    let entries = agent.operator.entries.clone();
    let mut clock = tokio::time::interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The last address of each name: a lost resolver does not stop the connects.
    let mut known = vec![None; entries.len()];
    for turn in 0_usize.. {
        let Some(number) = turn.checked_rem(entries.len()) else { return };
        clock.tick().await;
        let entry = &entries[number];
        look_up(&agent, entry, &mut known[number]).await;
        // Each name at every second of its turns.
        if let Some(address) = known[number].filter(|_| (turn / entries.len()).is_multiple_of(2)) {
            let started = Instant::now();
            let result = in_time(TIMEOUT, connect(&agent, address)).await;
            let probe = outcome(&agent, ProbeKind::Entry, address.ip(), started, result);
            agent.emit(Probe { port: Some(entry.port), about: Some(entry.name.clone()), ..probe });
        }
    }
}

/// Looks a name up at its clients' resolver.
async fn look_up(agent: &Agent, entry: &Entry, known: &mut Option<SocketAddr>) {
    let started = Instant::now();
    let found = tokio::time::timeout(TIMEOUT, stub::lookup(&agent.ns, entry.resolver, &entry.name, &[])).await;
    let result = match found {
        Ok(Ok(addresses)) => match addresses.iter().find(|address| address.is_ipv4()) {
            Some(address) => {
                *known = Some(SocketAddr::new(*address, entry.port));
                Ok(())
            }
            None => Err("no address".to_owned()),
        },
        Ok(Err(_)) => Err("no address".to_owned()),
        Err(_) => Err("timeout".to_owned()),
    };
    let probe = outcome(agent, ProbeKind::ExternalName, entry.resolver, started, result);
    agent.emit(Probe { about: Some(entry.name.clone()), ..probe });
}
