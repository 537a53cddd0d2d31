//! Links, rules and routes from rtnetlink notifications, and the route the kernel would choose for a pod's packet.
//!
//! Invariant: nothing that may block stands between a notification and its signal. The kernel announces the
//! removal of a link within a millisecond and then holds its lock for ten more, which blocks requests:
//! lookups have their own task, thread and socket.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use relapse_detectors::prefix::Prefix;
use relapse_detectors::signal::{Change, CollectorKind, Link, Route, RouteLookup, Rule, Sight};
use relapse_kernel::route::{Action, LOCAL, RouteEvent, RouteEvents};
use relapse_kernel::{NetNs, Result, link, route};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{Agent, CollectorInfo};

/// The destination of lookups: any address outside the cluster (TEST-NET-2, RFC 5737).
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// Lookups follow every notification; without any they are made at this interval.
const EVERY: Duration = Duration::from_millis(100);

pub const COLLECTORS: &[CollectorInfo] =
    &[CollectorInfo::on_each_node(&[CollectorKind::Rtnetlink, CollectorKind::RouteLookup], start)];

fn start(agent: &Arc<Agent>, tasks: &mut JoinSet<()>) -> Result<()> {
    // Subscribe before reading the state: a change in between is reported twice, but never missed.
    let mut events = RouteEvents::open(&agent.ns)?;
    for found in link::list(&agent.ns)? {
        emit_link(agent, &found, Change::Present);
    }
    for found in route::rules(&agent.ns)? {
        emit_rule(agent, &found, Change::Present);
    }
    for found in route::routes(&agent.ns, None)? {
        emit_route(agent, &found, Change::Present);
    }
    let ns = separate_handle(&agent.ns)?;
    look_up(agent, &ns)?;
    let changed = Arc::new(Notify::new());
    tasks.spawn(look_up_again(Arc::clone(agent), ns, Arc::clone(&changed)));
    let agent = Arc::clone(agent);
    tasks.spawn(async move {
        loop {
            match events.next().await {
                Ok(received) => received.iter().for_each(|event| emit(&agent, event)),
                Err(e) => agent.lost(CollectorKind::Rtnetlink, e),
            }
            changed.notify_one();
        }
    });
    Ok(())
}

/// A handle to the same namespace with its own socket.
fn separate_handle(ns: &NetNs) -> Result<NetNs> {
    NetNs::from_path(ns.name(), format!("/proc/self/fd/{}", ns.as_fd().as_raw_fd()))
}

/// Repeats the lookups after every notification, and at a fixed interval.
async fn look_up_again(agent: Arc<Agent>, ns: NetNs, changed: Arc<Notify>) {
    let mut clock = tokio::time::interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = changed.notified() => {}
            _ = clock.tick() => {}
        }
        let (agent_too, ns_too) = (Arc::clone(&agent), ns.clone());
        match tokio::task::spawn_blocking(move || look_up(&agent_too, &ns_too)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => agent.lost(CollectorKind::RouteLookup, e),
            Err(_) => return,
        }
    }
}

fn emit(agent: &Agent, event: &RouteEvent) {
    match event {
        RouteEvent::NewLink(found) => emit_link(agent, found, Change::Changed),
        RouteEvent::DelLink(found) => emit_link(agent, found, Change::Removed),
        RouteEvent::NewRoute(found) => emit_route(agent, found, Change::Added),
        RouteEvent::DelRoute(found) => emit_route(agent, found, Change::Removed),
        RouteEvent::NewRule(found) => emit_rule(agent, found, Change::Added),
        RouteEvent::DelRule(found) => emit_rule(agent, found, Change::Removed),
    }
}

fn emit_link(agent: &Agent, found: &link::Link, change: Change) {
    let mut links = agent.links.write().unwrap_or_else(PoisonError::into_inner);
    let known = if change == Change::Removed {
        links.remove(&found.index)
    } else {
        links.insert(found.index, found.name.clone())
    };
    drop(links);
    let change = if change == Change::Changed && known.is_none() { Change::Added } else { change };
    agent.emit(Link { change, index: found.index, name: found.name.clone(), up: found.up, carrier: found.carrier });
}

fn emit_rule(agent: &Agent, found: &route::Rule, change: Change) {
    let Action::Table(table) = found.action else { return };
    agent.emit(Rule {
        change,
        priority: found.priority,
        from: narrower_than_all(found.from),
        to: found.to.and_then(narrower_than_all),
        table,
    });
}

fn emit_route(agent: &Agent, found: &route::Route, change: Change) {
    if found.table == LOCAL {
        return;
    }
    agent.emit(Route {
        change,
        table: found.table,
        destination: narrower_than_all(found.destination),
        gateway: found.gateway,
        link: found.oif.and_then(|index| agent.link_name(index)),
        metric: found.metric,
    });
}

fn narrower_than_all((address, length): (IpAddr, u8)) -> Option<Prefix> {
    if length == 0 { None } else { Prefix::new(address, length).ok() }
}

/// Looks up the route for a packet of each pod of the node, as if received on the pod's veth.
fn look_up(agent: &Agent, ns: &NetNs) -> Result<()> {
    for pod in agent.pods() {
        let Some(veth) = agent.link_index(&pod.link) else { continue };
        let answer = match route::lookup(ns, ELSEWHERE, Some(pod.address), Some(veth)) {
            Ok(answer) => answer,
            // The pod's veth was removed between the list and the lookup.
            Err(_) if link::get(ns, veth)?.is_none() => continue,
            Err(e) => return Err(e),
        };
        agent.emit(RouteLookup {
            source: pod.address,
            destination: ELSEWHERE,
            link: answer.oif.and_then(|index| agent.link_name(index)),
            table: answer.table,
        });
    }
    agent.sight(CollectorKind::RouteLookup, Sight::Ready);
    Ok(())
}
