//! A host that neither sends nor receives, or not on one port; shared by two twins.

use relapse_kernel::nft::{self, Chain, Hook, Policy, Rule, Table};
use relapse_kernel::{NetNs, Result};

const TABLE: &str = "relapse-dead";

/// Silences a host; returns what was read back.
pub fn impose(ns: &NetNs) -> Result<String> {
    let dead = |hook| Chain::filter(if hook == Hook::Input { "input" } else { "output" }, hook, -300, Policy::Drop);
    Table::new(TABLE).chain(dead(Hook::Input)).chain(dead(Hook::Output)).apply(ns)?;
    Ok("all packets are dropped".into())
}

/// Silences one port of a host, TCP and UDP; returns what was read back.
pub fn impose_on_port(ns: &NetNs, port: u16) -> Result<String> {
    let comment = format!("port {port} is dead");
    Table::new(TABLE)
        .chain(Chain::filter("input", Hook::Input, -300, Policy::Accept))
        .rule("input", Rule::new().tcp_dport(port).counter().drop().comment(&comment))
        .rule("input", Rule::new().udp_dport(port).counter().drop().comment(&comment))
        .apply(ns)?;
    Ok(comment)
}

/// Stops dropping packets.
pub fn lift(ns: &NetNs) -> Result<()> {
    if nft::list_tables(ns)?.iter().any(|table| table == TABLE) {
        nft::delete_table(ns, TABLE)?;
    }
    Ok(())
}
