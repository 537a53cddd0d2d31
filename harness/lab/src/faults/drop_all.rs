//! A host that neither sends nor receives, or not on one port; shared by two twins.

use relapse_kernel::nft::{self, Chain, Hook, Policy, Rule, Table};
use relapse_kernel::{NetNs, Result};
use relapse_model::{ClusterPlan, OutsideId};

const TABLE: &str = "relapse-dead";

/// One table for each port, so that several can be silent.
fn table_of(port: u16) -> String {
    format!("{TABLE}-{port}")
}

/// Silences a host; returns what was read back.
pub fn impose(ns: &NetNs) -> Result<String> {
    let dead = |hook| Chain::filter(if hook == Hook::Input { "input" } else { "output" }, hook, -300, Policy::Drop);
    Table::new(TABLE).chain(dead(Hook::Input)).chain(dead(Hook::Output)).apply(ns)?;
    Ok("all packets are dropped".into())
}

/// Silences one port of a host, TCP and UDP; returns what was read back.
pub fn impose_on_port(ns: &NetNs, port: u16) -> Result<String> {
    let comment = format!("port {port} is dead");
    Table::new(&table_of(port))
        .chain(Chain::filter("input", Hook::Input, -300, Policy::Accept))
        .rule("input", Rule::new().tcp_dport(port).counter().drop().comment(&comment))
        .rule("input", Rule::new().udp_dport(port).counter().drop().comment(&comment))
        .apply(ns)?;
    Ok(comment)
}

/// What silencing a port changes, in messages.
pub fn what(cluster: &ClusterPlan, host: OutsideId, port: u16) -> String {
    format!("port {port} of outside/{}", cluster.outside[host.0].name)
}

/// Stops dropping packets, or those of one port.
pub fn lift(ns: &NetNs, port: Option<u16>) -> Result<()> {
    nft::delete_table_if_there(ns, &port.map_or_else(|| TABLE.to_owned(), table_of))
}
