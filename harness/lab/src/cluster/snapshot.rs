//! The state of a namespace as lines of text: links, rules, routes, nft rules.
//!
//! Taken before a fault and after recovery; equal snapshots mean that nothing of the fault is left. Counters
//! and caches are left out, and so is state maintained by others: of foreign nft tables only the names
//! are compared, and a pod's veth and address are identified by the pod's name.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use relapse_detectors::prefix::Prefix;
use relapse_kernel::route::Rule;
use relapse_kernel::{NetNs, Result, link, nft, route, sysctl};
use relapse_model::{NodeId, OfficeId, OutsideId};

use super::Cluster;

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
        let inventory = cluster.inventory().borrow().clone();
        for number in 0..plan.nodes.len() {
            let node = cluster.node(NodeId(number));
            let mut aliases = Aliases::default();
            for pod in inventory.pods.iter().filter(|pod| pod.node == node.name) {
                aliases.veths.insert(pod.link.clone(), format!("the veth of {}", pod.name));
                aliases.addresses.insert(pod.address, format!("pod {}", pod.name));
            }
            read(&node.ns, &aliases, &mut lines)?;
        }
        let mut read = |ns: &NetNs| read(ns, &Aliases::default(), &mut lines);
        read(cluster.fabric())?;
        for number in 0..plan.outside.len() {
            let outside = cluster.outside(OutsideId(number));
            read(&outside.ns)?;
            outside.load_balancer.iter().try_for_each(&mut read)?;
        }
        for number in 0..plan.offices.len() {
            let office = cluster.office(OfficeId(number));
            read(&office.client)?;
            read(&office.gateway)?;
        }
        Ok(Self(lines))
    }

    /// What appeared, and what disappeared.
    #[must_use]
    pub fn difference(&self, after: &Self) -> Vec<String> {
        let new = after.0.difference(&self.0).map(|line| format!("left over: {line}"));
        let gone = self.0.difference(&after.0).map(|line| format!("not restored: {line}"));
        new.chain(gone).collect()
    }
}

/// Stable names for veths and addresses that change when a pod is recreated.
#[derive(Default)]
struct Aliases {
    veths: HashMap<String, String>,
    addresses: HashMap<IpAddr, String>,
}

impl Aliases {
    fn link(&self, name: &str) -> String {
        self.veths.get(name).map_or(name, String::as_str).to_owned()
    }

    fn prefix(&self, (address, length): (IpAddr, u8)) -> String {
        let pod = self.addresses.get(&address).filter(|_| length == Prefix::host(address).length());
        pod.cloned().unwrap_or_else(|| format!("{address}/{length}"))
    }

    fn rule(&self, rule: &Rule) -> String {
        let to = rule.to.map(|to| format!(" to {}", self.prefix(to))).unwrap_or_default();
        let only = match (&rule.iif, rule.mark) {
            (None, None) => String::new(),
            (iif, mark) => format!(" iif {iif:?} mark {mark:?}"),
        };
        format!("{}: from {}{to}{only} {:?}", rule.priority, self.prefix(rule.from), rule.action)
    }
}

/// Adds the state of a namespace.
fn read(ns: &NetNs, aliases: &Aliases, lines: &mut BTreeSet<String>) -> Result<()> {
    let name = ns.name();
    let links = link::list(ns)?;
    // Indexes of recreated interfaces differ, names do not.
    let link_name = |index: Option<u32>| {
        let link = links.iter().find(|link| Some(link.index) == index);
        link.map_or_else(|| "-".to_owned(), |link| aliases.link(&link.name))
    };
    for link in &links {
        let state = format!("up={} carrier={} mtu={}", link.up, link.carrier, link.mtu);
        lines.insert(format!("{name}: link {} {state}", aliases.link(&link.name)));
    }
    for address in link::addresses(ns)?.into_iter().filter(|address| !made_by_the_kernel(address.address)) {
        let at = link_name(Some(address.index));
        lines.insert(format!("{name}: address {}/{} on {at}", address.address, address.prefix_len));
    }
    for rule in route::rules(ns)? {
        lines.insert(format!("{name}: rule {}", aliases.rule(&rule)));
    }
    for route in route::routes(ns, None)? {
        if route.table != route::LOCAL && !made_by_the_kernel(route.destination.0) {
            lines.insert(format!(
                "{name}: route {} via {:?} dev {} table {} metric {}",
                aliases.prefix(route.destination),
                route.gateway,
                link_name(route.oif),
                route.table,
                route.metric
            ));
        }
    }
    for table in nft::list_tables(ns)? {
        if !table.starts_with("relapse-") {
            lines.insert(format!("{name}: nft {table}"));
            continue;
        }
        for rule in nft::read(ns, &table)? {
            lines.insert(format!("{name}: nft {table} {}: {}", rule.chain, rule.comment.unwrap_or_default()));
        }
    }
    for key in SETTINGS {
        lines.insert(format!("{name}: {key}={}", sysctl::read(ns, key)?));
    }
    Ok(())
}

/// IPv6 creates link-local and multicast addresses and routes automatically (RFC 4291 2.5.6, 2.7).
fn made_by_the_kernel(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
    }
}
