//! Ports of servers, Services and source NAT.
//!
//! Node ports stay in the API server's range, all others below those that clients use.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use super::tree::Tree;

const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// Below the node ports and, with them, below the kernel's default for clients (32768).
const PORTS: std::ops::RangeInclusive<u16> = 1_024..=29_999;

/// Where kube-proxy answers for its node's health.
const KUBE_PROXY: u16 = 10_256;
const MOST_SHIFT: u16 = 14_999;

pub fn draw(tree: &mut Tree, rng: &mut Rng) -> String {
    let mut known: BTreeSet<u16> = BTreeSet::new();
    let mut last = 0;
    tree.scalars("", &mut |key, scalar| {
        if is_port(key) {
            known.extend(scalar.text.parse::<u16>().ok());
            last = last.max(range(&scalar.text).map_or(0, |(_, last)| last));
        }
    });
    let mut moves: BTreeMap<u16, u16> = BTreeMap::new();
    for port in known {
        let range = if NODE_PORTS.contains(&port) { NODE_PORTS } else { PORTS };
        let to = loop {
            let to = rng.u16(range.clone());
            if to != KUBE_PROXY && moves.values().all(|taken| *taken != to) {
                break to;
            }
        };
        moves.insert(port, to);
    }
    // Ports that source NAT may use: as many as before.
    let shift = rng.u16(..=MOST_SHIFT.min(u16::MAX - last));
    let servers: BTreeSet<String> = declared_servers(tree);
    tree.scalars_mut("", &mut |key, scalar| {
        let moved = |port: &str| port.parse().ok().and_then(|port: u16| moves.get(&port));
        if is_port(key) {
            if let Some(to) = moved(&scalar.text) {
                scalar.text = to.to_string();
            } else if let Some((first, last)) = range(&scalar.text) {
                scalar.text = format!("{}-{}", first + shift, last + shift);
            }
        } else if let Some((server, port)) = scalar.text.rsplit_once(':')
            && (server.starts_with("server/") || servers.contains(&scalar.text))
            && let Some(to) = moved(port)
        {
            scalar.text = format!("{server}:{to}");
        }
    });
    format!("Ports: {}.", super::listed(moves.iter().map(|(from, to)| format!("{from} to {to}"))))
}

/// The addresses of declared servers: `ADDRESS:PORT` under `cluster.declared.servers`.
fn declared_servers(tree: &mut Tree) -> BTreeSet<String> {
    let servers = tree.get_mut("cluster").and_then(|cluster| cluster.get_mut("declared"));
    let mut found = BTreeSet::new();
    if let Some(servers) = servers.and_then(|declared| declared.get_mut("servers")) {
        servers.scalars("", &mut |_, scalar| found.extend([scalar.text.clone()]));
    }
    found
}

/// The first and last port of a range.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-')?;
    first.parse().ok().zip(last.parse().ok())
}

fn is_port(key: &str) -> bool {
    ["port", "ports", "nodePort"].contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_stays_one() {
        for seed in 0..200 {
            let mut tree = Tree::Map(vec![("ports".into(), Tree::string("61000-61015"))]);
            draw(&mut tree, &mut Rng::with_seed(seed));
            let (first, last) = tree.get("ports").and_then(Tree::text).and_then(range).unwrap();
            assert!(last - first == 15, "{first} to {last}");
        }
    }
}
