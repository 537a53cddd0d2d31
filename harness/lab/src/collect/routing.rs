//! Links, rules and routes by rtnetlink news, and where the kernel would send a pod's packet now.
//!
//! Invariant: nothing that may wait stands between a piece of news and its signal. The kernel announces
//! that a link goes within a millisecond and then holds its lock for ten more, in which questions wait:
//! look-ups have a task, a thread and a socket of their own.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use relapse_detectors::prefix::Prefix;
use relapse_detectors::signal::{Change, CollectorKind, Link, Route, RouteLookup, Rule, Sight};
use relapse_kernel::route::{Action, LOCAL, News, RouteEvents};
use relapse_kernel::{NetNs, Result, link, route};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{Agent, CollectorInfo};

/// Where look-ups ask the way to: any address outside will do (TEST-NET-2, RFC 5737).
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// Look-ups follow every piece of news; this often they are made without any.
const EVERY: Duration = Duration::from_millis(100);

pub const COLLECTORS: &[CollectorInfo] =
    &[CollectorInfo::on_each_node(&[CollectorKind::Rtnetlink, CollectorKind::RouteLookup], start)];

fn start(agent: &Arc<Agent>, tasks: &mut JoinSet<()>) -> Result<()> {
    // Subscribed before the state is read: what changes in between is told twice, never missed.
    let mut events = RouteEvents::open(&agent.ns)?;
    for found in link::list(&agent.ns)? {
        tell_link(agent, &found, Change::Present);
    }
    for found in route::rules(&agent.ns)? {
        tell_rule(agent, &found, Change::Present);
    }
    for found in route::routes(&agent.ns, None)? {
        tell_route(agent, &found, Change::Present);
    }
    let ns = handle_of_its_own(&agent.ns)?;
    look_up(agent, &ns)?;
    let changed = Arc::new(Notify::new());
    tasks.spawn(look_up_again(Arc::clone(agent), ns, Arc::clone(&changed)));
    let agent = Arc::clone(agent);
    tasks.spawn(async move {
        loop {
            match events.next().await {
                Ok(news) => news.iter().for_each(|news| tell(&agent, news)),
                Err(e) => agent.lost(CollectorKind::Rtnetlink, e),
            }
            changed.notify_one();
        }
    });
    Ok(())
}

/// The same namespace with a socket that nobody else is waiting on.
fn handle_of_its_own(ns: &NetNs) -> Result<NetNs> {
    NetNs::from_path(ns.name(), format!("/proc/self/fd/{}", ns.as_fd().as_raw_fd()))
}

/// After every piece of news, and now and then without any.
async fn look_up_again(agent: Arc<Agent>, ns: NetNs, changed: Arc<Notify>) {
    let mut clock = tokio::time::interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = changed.notified() => {}
            _ = clock.tick() => {}
        }
        let (asking, place) = (Arc::clone(&agent), ns.clone());
        match tokio::task::spawn_blocking(move || look_up(&asking, &place)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => agent.lost(CollectorKind::RouteLookup, e),
            Err(_) => return,
        }
    }
}

fn tell(agent: &Agent, news: &News) {
    match news {
        News::NewLink(found) => tell_link(agent, found, Change::Changed),
        News::DelLink(found) => tell_link(agent, found, Change::Removed),
        News::NewRoute(found) => tell_route(agent, found, Change::Added),
        News::DelRoute(found) => tell_route(agent, found, Change::Removed),
        News::NewRule(found) => tell_rule(agent, found, Change::Added),
        News::DelRule(found) => tell_rule(agent, found, Change::Removed),
    }
}

fn tell_link(agent: &Agent, found: &link::Link, change: Change) {
    let mut links = agent.links.write().unwrap_or_else(PoisonError::into_inner);
    let known = if change == Change::Removed {
        links.remove(&found.index)
    } else {
        links.insert(found.index, found.name.clone())
    };
    drop(links);
    let change = if change == Change::Changed && known.is_none() { Change::Added } else { change };
    agent.tell(Link { change, index: found.index, name: found.name.clone(), up: found.up, carrier: found.carrier });
}

fn tell_rule(agent: &Agent, found: &route::Rule, change: Change) {
    let Action::Table(table) = found.action else { return };
    agent.tell(Rule {
        change,
        priority: found.priority,
        from: narrower_than_all(found.from),
        to: found.to.and_then(narrower_than_all),
        table,
    });
}

fn tell_route(agent: &Agent, found: &route::Route, change: Change) {
    if found.table == LOCAL {
        return;
    }
    agent.tell(Route {
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

/// Asks where a packet of each pod of the node would go, as if it came in by the pod's veth.
fn look_up(agent: &Agent, ns: &NetNs) -> Result<()> {
    for pod in agent.pods() {
        let Some(veth) = agent.link_index(&pod.link) else { continue };
        let answer = match route::lookup(ns, ELSEWHERE, Some(pod.address), Some(veth)) {
            Ok(answer) => answer,
            // The pod's veth went between the list and the question.
            Err(_) if link::get(ns, veth)?.is_none() => continue,
            Err(e) => return Err(e),
        };
        agent.tell(RouteLookup {
            source: pod.address,
            destination: ELSEWHERE,
            link: answer.oif.and_then(|index| agent.link_name(index)),
            table: answer.table,
        });
    }
    agent.sight(CollectorKind::RouteLookup, Sight::Ready);
    Ok(())
}
