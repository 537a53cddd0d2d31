//! NICs, routing table and rule priorities of the nodes.
//!
//! Writes the defaults of `network:` out, so that addresses can be drawn as those of any file.

use fastrand::Rng;

use super::tree::Tree;

/// Names of the primary interface and of that for pod traffic, as distributions and clouds name them. `eth2` is left to
/// spare NICs.
const NICS: [[&str; 2]; 6] = [
    ["eth0", "eth1"],
    ["ens5", "ens6"],
    ["enp0s3", "enp0s8"],
    ["eth1", "eth0"],
    ["ens160", "pods0"],
    ["bond0", "eni7"],
];

pub fn draw(tree: &mut Tree, rng: &mut Rng) -> String {
    let Some(cluster) = tree.get_mut("cluster") else { return String::new() };
    if let Some(dns) = cluster.get_mut("dns") {
        dns.or_insert("address", Tree::string("192.168.0.10"));
        dns.or_insert("service", Tree::string("kube-dns"));
    }
    let network = cluster.or_insert("network", Tree::Map(Vec::new()));
    for (key, prefix) in
        [("nodePrefix", "10.176.64.0/20"), ("podPrefix", "10.176.96.0/20"), ("servicePrefix", "192.168.0.0/20")]
    {
        network.or_insert(key, Tree::string(prefix));
    }
    network.or_insert("vpc", Tree::List(vec![Tree::string("10.176.0.0/16")]));
    let [node_nic, pod_nic] = NICS[rng.usize(..NICS.len())];
    // Below 253, the kernel's own.
    // Rules for node ports have the priority 1024.
    let (table, to, from) = (rng.u32(3..=252), rng.u32(100..=1_000), rng.u32(1_025..=30_000));
    for (key, value) in [
        ("nodeNic", Tree::string(node_nic)),
        ("podNic", Tree::string(pod_nic)),
        ("podTable", Tree::number(table)),
        ("toRulePriority", Tree::number(to)),
        ("fromRulePriority", Tree::number(from)),
    ] {
        *network.or_insert(key, Tree::number(0)) = value;
    }
    format!("NICs {node_nic} and {pod_nic}, table {table}, priorities {to} and {from}.")
}
