//! The proof that a trial left nothing behind: snapshots of nodes and of servers outside, taken between trials.

use relapse_kernel::host::{self, Difference, Snapshot};
use relapse_kernel::{nft, sysctl};

use super::created::Created;
use super::failed;
use super::guard;
use super::servers::Served;

/// Snapshots by name, with the number of packets the guard has dropped since the cluster was ready. A single packet is
/// reason enough to replace the cluster, so it does not matter between which trials it was dropped.
pub struct Standing(Vec<(String, Snapshot, u64)>);

impl Standing {
    /// Takes snapshots of all nodes and servers.
    ///
    /// # Errors
    /// The node or server that no longer exists or cannot be read.
    pub fn take(cluster: &Created, servers: &[Served]) -> Result<Self, String> {
        let nodes = cluster.nodes.iter().map(|node| {
            let ns = node.namespace()?;
            let dropped = guard::hits(&ns)?.saturating_sub(node.dropped);
            let like = Snapshot::of_namespace(&ns, nft::list_tables(&ns)?)?.with_settings(sysctl::all_of(&ns)?);
            Ok((node.name.clone(), like, dropped))
        });
        // Servers outside have no route out, so they need no guard.
        let servers = servers.iter().map(|served| Ok((served.host.clone(), served.look()?, 0)));
        let all = nodes.chain(servers).collect::<Result<_, relapse_kernel::Error>>();
        all.map(Self).map_err(failed)
    }

    /// The differences from `before`, one per line.
    #[must_use]
    pub fn left_since(&self, before: &Self) -> Vec<String> {
        let mut left = Vec::new();
        for ((name, before, _), (_, now, _)) in before.0.iter().zip(&self.0) {
            let found = host::diff(before, now).into_iter().filter(|difference| !is_of_a_pod(difference));
            left.extend(found.map(|difference| format!("{name}: {difference}")));
        }
        left.extend(self.escapes());
        left
    }

    /// Packets that tried to leave, one line for each node.
    pub fn escapes(&self) -> Vec<String> {
        let tried = self.0.iter().filter(|(.., dropped)| *dropped > 0);
        let lines = tried.map(|(name, _, dropped)| {
            format!("{name}: {dropped} packets of the lab tried to leave by Docker's NIC (dropped)")
        });
        lines.collect()
    }
}

/// Whether a difference belongs to a pod. Pods stay for the next trial of their scenario, along with what the plugins
/// made on the node: a veth, its address, the route to it.
fn is_of_a_pod(difference: &Difference) -> bool {
    let sides = [&difference.before, &difference.after].into_iter().flatten();
    let by_veth = |text: &str| text.contains("veth");
    by_veth(&difference.what) || (difference.what.starts_with("route ") && sides.clone().all(|side| by_veth(side)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(what: &str, before: Option<&str>, after: Option<&str>) -> Difference {
        Difference { what: what.into(), before: before.map(str::to_owned), after: after.map(str::to_owned) }
    }

    #[test]
    fn what_pods_bring_along_is_told_from_what_a_trial_leaves() {
        let pods = [
            difference("link veth1a2b3c4d", None, Some("up, mtu 1500")),
            difference("address 10.176.97.254/32 on veth1a2b3c4d", Some("present"), None),
            difference("route 10.176.97.11/32 metric 0 in table 254", None, Some("dev veth1a2b3c4d")),
        ];
        assert!(pods.iter().all(is_of_a_pod));
        let left = [
            difference("link eth1", None, Some("up")),
            difference("rule 1536", None, Some("from 10.176.97.11/32 to table 2")),
            difference("route 0.0.0.0/0 metric 0 in table 254", None, Some("via 198.19.128.1 dev eth0")),
            // A route that a trial redirected to a pod.
            difference("route 10.176.97.11/32 metric 0 in table 254", Some("dev eth1"), Some("dev veth1a2b3c4d")),
            difference("nft table relapse-cni-snat", None, Some("present")),
            difference("setting net.ipv4.tcp_rfc1337", Some("0"), Some("1")),
        ];
        assert!(!left.iter().any(is_of_a_pod));
    }
}
