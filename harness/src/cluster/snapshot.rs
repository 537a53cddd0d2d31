//! What a namespace is like, as lines of text: links, rules, routes, nft rules.
//!
//! Taken before a fault and after healing; equal means that nothing of the fault is left. Counters
//! and caches are left out.

use std::collections::BTreeSet;

use relapse_kernel::{NetNs, Result, link, nft, route, sysctl};

use super::Cluster;
use crate::plan::{NodeId, OfficeId, OutsideId};

/// Settings that faults touch.
const SETTINGS: [&str; 2] = ["net.ipv4.tcp_rfc1337", "net.ipv4.ip_forward"];

/// The state of several namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Everything a fault may touch: fabric, nodes, outside hosts, offices.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn of(cluster: &dyn Cluster) -> Result<Self> {
        let plan = cluster.plan();
        let mut lines = BTreeSet::new();
        read(cluster.fabric(), &mut lines)?;
        for number in 0..plan.nodes.len() {
            read(&cluster.node(NodeId(number)).ns, &mut lines)?;
        }
        for number in 0..plan.outside.len() {
            let outside = cluster.outside(OutsideId(number));
            read(&outside.ns, &mut lines)?;
            outside.load_balancer.iter().try_for_each(|hop| read(hop, &mut lines))?;
        }
        for number in 0..plan.offices.len() {
            let office = cluster.office(OfficeId(number));
            read(&office.client, &mut lines)?;
            read(&office.gateway, &mut lines)?;
        }
        Ok(Self(lines))
    }

    /// What is there now and was not, and what was there and is not.
    #[must_use]
    pub fn difference(&self, after: &Self) -> Vec<String> {
        let new = after.0.difference(&self.0).map(|line| format!("left over: {line}"));
        let gone = self.0.difference(&after.0).map(|line| format!("not restored: {line}"));
        new.chain(gone).collect()
    }
}

fn read(ns: &NetNs, lines: &mut BTreeSet<String>) -> Result<()> {
    let name = ns.name();
    let links = link::list(ns)?;
    // Indexes of re-made interfaces differ, names do not.
    let link_name =
        |index: Option<u32>| links.iter().find(|link| Some(link.index) == index).map_or("-", |link| link.name.as_str());
    for link in &links {
        lines.insert(format!("{name}: link {} up={} carrier={} mtu={}", link.name, link.up, link.carrier, link.mtu));
    }
    for address in link::addresses(ns)? {
        let at = link_name(Some(address.index));
        lines.insert(format!("{name}: address {}/{} on {at}", address.address, address.prefix_len));
    }
    for rule in route::rules(ns)? {
        lines.insert(format!("{name}: rule {rule:?}"));
    }
    for route in route::routes(ns, None)? {
        if route.table != route::LOCAL {
            lines.insert(format!(
                "{name}: route {}/{} via {:?} dev {} table {} metric {}",
                route.destination.0,
                route.destination.1,
                route.gateway,
                link_name(route.oif),
                route.table,
                route.metric
            ));
        }
    }
    for table in nft::list_tables(ns)? {
        for rule in nft::read(ns, &table)?.rules {
            lines.insert(format!("{name}: nft {table} {}: {}", rule.chain, rule.comment.unwrap_or_default()));
        }
    }
    for key in SETTINGS {
        lines.insert(format!("{name}: {key}={}", sysctl::read(ns, key)?));
    }
    Ok(())
}
