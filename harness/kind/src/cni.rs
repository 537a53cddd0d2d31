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
    let (first, last) = (share.nth(10).ok_or_else(too_small)?, share.nth(size(share) - 6).ok_or_else(too_small)?);
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
}
