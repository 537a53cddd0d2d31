//! The pod network of a node, set up with the standard CNI plugins that every node image contains: a veth and a route
//! for each pod (`ptp`), an address from the node's pod CIDR (`host-local`), host ports (`portmap`).
//!
//! The second NIC, the policy table and source NAT belong to the fabric.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use relapse_detectors::prefix::Prefix;
use serde_json::json;

use super::created::NodeRef;

const NAME: &str = "relapse";
/// Index of the first address for pods in their node's share.
const FIRST: u128 = 10;

/// Next hop of a node's pods: the last address of its pod CIDR before the broadcast address.
#[must_use]
pub fn gateway(share: Prefix) -> Option<IpAddr> {
    share.nth(size(share).checked_sub(2)?)
}

/// Address of the pod NIC: the one before the gateway.
#[must_use]
pub fn nic_address(share: Prefix) -> Option<IpAddr> {
    share.nth(size(share).checked_sub(3)?)
}

const fn size(share: Prefix) -> u128 {
    let bits: u8 = if share.address().is_ipv4() { 32 } else { 128 };
    1 << bits.saturating_sub(share.length())
}

/// Writes the node's CNI configuration. containerd picks it up immediately.
///
/// # Errors
/// If the pod CIDR is too small or the file cannot be written.
pub fn write(node: &NodeRef) -> io::Result<()> {
    let share = node.pod_prefix;
    let too_small = || io::Error::other(format!("{share} has no room for pods"));
    let gateway = gateway(share).ok_or_else(too_small)?;
    let (first, last) = (share.nth(FIRST).ok_or_else(too_small)?, share.nth(size(share) - 6).ok_or_else(too_small)?);
    let range = json!({ "subnet": share.to_string(), "gateway": gateway, "rangeStart": first, "rangeEnd": last });
    let ipam = json!({ "type": "host-local", "ranges": [[range]], "routes": [{ "dst": "0.0.0.0/0" }] });
    let config = json!({
        "cniVersion": "0.4.0",
        "name": NAME,
        "plugins": [
            { "type": "ptp", "ipMasq": false, "mtu": 1500, "ipam": ipam },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    let folder = inside(node, "etc/cni/net.d");
    std::fs::create_dir_all(&folder)?;
    // Atomically. containerd reloads the folder on a rename, not on a create.
    let draft = folder.join("relapse.draft");
    std::fs::write(&draft, config.to_string())?;
    std::fs::rename(draft, folder.join("10-relapse.conflist"))
}

/// Makes the next pod of the node get this address, if it is free: `host-local` starts after the last address it
/// allocated.
///
/// # Errors
/// If the plugin's state cannot be written.
pub fn next_address(node: &NodeRef, address: IpAddr) -> io::Result<()> {
    let before = match address {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) - 1).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) - 1).into()),
    };
    std::fs::write(inside(node, "var/lib/cni/networks").join(NAME).join("last_reserved_ip.0"), before.to_string())
}

/// A free address of the node that its next pods do not get: the `nth` one before the last that `host-local` allocated,
/// which goes through its range from there.
///
/// # Errors
/// If the plugin's state cannot be read, or no address is free.
pub fn late_address(node: &NodeRef, nth: usize) -> io::Result<IpAddr> {
    let state = inside(node, "var/lib/cni/networks").join(NAME);
    let last = match std::fs::read_to_string(state.join("last_reserved_ip.0")) {
        Ok(last) => last.trim().parse().map_err(io::Error::other)?,
        // The node has had no pod yet.
        Err(e) if e.kind() == io::ErrorKind::NotFound => node.pod_prefix.address(),
        Err(e) => return Err(e),
    };
    // Each allocated address is the name of a file.
    let is_free = |address: &IpAddr| !state.join(address.to_string()).exists();
    let free = before(node.pod_prefix, last).filter(is_free).nth(nth);
    free.ok_or_else(|| io::Error::other(format!("{} has no room for another pod", node.pod_prefix)))
}

/// The addresses for pods before this one, then those from the end of the range.
fn before(share: Prefix, last: IpAddr) -> impl Iterator<Item = IpAddr> {
    let pods: Vec<IpAddr> = (FIRST..=size(share).saturating_sub(6)).filter_map(|nth| share.nth(nth)).collect();
    let (below, above): (Vec<_>, Vec<_>) = pods.into_iter().filter(|one| *one != last).partition(|one| *one < last);
    below.into_iter().rev().chain(above.into_iter().rev())
}

/// A path in the node's root file system, through its first process.
fn inside(node: &NodeRef, path: &str) -> PathBuf {
    Path::new("/proc").join(node.pid.to_string()).join("root").join(path)
}

/// The pause image configured in the node's containerd.
///
/// # Errors
/// If containerd's configuration cannot be read or names no pause image.
pub fn pause_image(node: &NodeRef) -> Result<String, String> {
    let file = inside(node, "etc/containerd/config.toml");
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let quoted = text.split('"').find(|part| part.contains("/pause:"));
    quoted.map(str::to_owned).ok_or_else(|| format!("{} names no pause image", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_keeps_its_last_addresses_for_the_node() {
        let share: Prefix = "10.176.97.0/24".parse().unwrap();
        assert_eq!(gateway(share).unwrap().to_string(), "10.176.97.254");
        assert_eq!(nic_address(share).unwrap().to_string(), "10.176.97.253");
    }

    #[test]
    fn late_addresses_are_those_that_the_plugin_reaches_last() {
        let late: Vec<String> = before("10.176.97.0/24".parse().unwrap(), "10.176.97.12".parse().unwrap())
            .map(|address| address.to_string())
            .collect();
        assert_eq!(late[..4], ["10.176.97.11", "10.176.97.10", "10.176.97.250", "10.176.97.249"]);
        assert_eq!((late.len(), late.last().unwrap().as_str()), (240, "10.176.97.13"));
    }
}
