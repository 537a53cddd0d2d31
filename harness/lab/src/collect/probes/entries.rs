//! Probes of the cluster's external names, as clients outside use them: a look-up at their own resolver, and once a
//! second a TCP connect to the address in the answer. Each half second a quarter of the names, in turn, so that none is
//! asked less than every two seconds: 16 packets a second for up to four names.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relapse_detectors::operator::Entry;
use relapse_detectors::signal::{Probe, ProbeKind};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::services::connect;
use super::{Agent, in_time, outcome};
use crate::workload::stub;

const EVERY: Duration = Duration::from_millis(500);
/// Every name is asked once in so many of these.
const ROUND: usize = 4;
/// Resolvers and names are outside, and a resolver may have to ask others. Stub resolvers wait for 5 s (resolv.conf(5)).
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn run(agent: Arc<Agent>) {
    let entries = agent.operator.entries.clone();
    let mut clock = tokio::time::interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The last address of each name: a lost resolver does not stop the connects.
    let mut known = vec![None; entries.len()];
    let mut under_way = JoinSet::new();
    let at_once = entries.len().div_ceil(ROUND);
    for turn in 0_usize.. {
        let Some(number) = turn.checked_rem(entries.len()) else { return };
        if turn.is_multiple_of(at_once) {
            clock.tick().await;
        }
        while let Some(looked_up) = under_way.try_join_next() {
            if let Ok((number, Some(address))) = looked_up {
                known[number] = Some(address);
            }
        }
        // A connect at every second of a name's turns.
        let address = known[number].filter(|_| (turn / entries.len()).is_multiple_of(2));
        let (agent, entry) = (Arc::clone(&agent), entries[number].clone());
        under_way.spawn(async move {
            let (found, ()) = tokio::join!(look_up(&agent, &entry), async {
                let Some(address) = address else { return };
                let started = Instant::now();
                let result = in_time(PATIENCE, connect(&agent, address)).await;
                let probe = outcome(&agent, ProbeKind::Entry, address.ip(), started, result);
                agent.emit(Probe { port: Some(entry.port), about: Some(entry.name.clone()), ..probe });
            });
            (number, found)
        });
    }
}

/// Looks a name up at its clients' resolver. Returns its address.
async fn look_up(agent: &Agent, entry: &Entry) -> Option<SocketAddr> {
    let started = Instant::now();
    let found = tokio::time::timeout(PATIENCE, stub::lookup(&agent.ns, entry.resolver, &entry.name, &[])).await;
    let address = match found {
        Ok(Ok(addresses)) => addresses.into_iter().find(|address| address.is_ipv4()).ok_or("no address"),
        Ok(Err(_)) => Err("no address"),
        Err(_) => Err("timeout"),
    };
    let result = address.map(drop).map_err(str::to_owned);
    let probe = outcome(agent, ProbeKind::ExternalName, entry.resolver, started, result);
    agent.emit(Probe { about: Some(entry.name.clone()), ..probe });
    Some(SocketAddr::new(address.ok()?, entry.port))
}
