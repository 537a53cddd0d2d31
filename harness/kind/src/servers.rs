//! Third parties' servers outside: containers beside the cluster, which a trial attaches to its fabric.
//!
//! They have no Docker network: their only NIC is the one the trial adds, so they need no guard. They are kept for the
//! next trial that needs exactly the same server. Each kind of server is defined in a file of its own and listed in
//! [`SERVERS`]; the rest of this module is generic.

mod mariadb;
mod nginx;

use std::collections::BTreeSet;
use std::time::Duration;

use relapse_kernel::host::Snapshot;
use relapse_kernel::sockdiag::{SockDiag, mask, state};
use relapse_kernel::{Error, NetNs, Result, link, nft};
use relapse_lab::cluster::Outside;
use relapse_lab::cluster::backend::WantedServer;
use relapse_lab::cluster::outside::NIC;
use serde::{Deserialize, Serialize};
use testcontainers::runners::SyncRunner;
use testcontainers::{Container, ContainerRequest, GenericImage, ImageExt};

use super::created::LABEL;
use super::docker::{docker, pid_of};
use super::pods::end_connections;
use super::until::until;
use super::{failed, failures};

/// Time limit for a server to listen.
const UP_WITHIN: Duration = Duration::from_secs(20);

type Request = fn(&WantedServer) -> std::result::Result<ContainerRequest<GenericImage>, String>;

/// All kinds of servers, by name.
const SERVERS: [(&str, Request); 2] = [("nginx", nginx::request), ("mariadb", mariadb::request)];

/// A running server, as described to a trial's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    pub host: String,
    /// Its first process, in the host's PID namespace.
    pid: u32,
    /// The inode of its network namespace.
    inode: u64,
}

impl Served {
    fn find(host: &str, pid: u32) -> Result<Self> {
        Ok(Self { host: host.to_owned(), pid, inode: NetNs::of_process(host, pid)?.inode() })
    }

    /// Its namespace. Never that of another process that has reused the PID.
    ///
    /// # Errors
    /// If the server no longer runs.
    pub fn namespace(&self) -> Result<NetNs> {
        let found = NetNs::of_process(&self.host, self.pid).ok().filter(|ns| ns.inode() == self.inode);
        found.ok_or_else(|| Error::NotFound { what: format!("find the container of {}", self.host) })
    }

    /// A snapshot of its namespace.
    ///
    /// # Errors
    /// If the server no longer runs, or the kernel cannot be queried.
    pub fn look(&self) -> Result<Snapshot> {
        let ns = self.namespace()?;
        Snapshot::of_namespace(&ns, nft::list_tables(&ns)?)
    }

    fn listens(&self, ports: &BTreeSet<u16>) -> Result<bool> {
        let listeners = SockDiag::open(&self.namespace()?)?.tcp_sockets(mask(&[state::LISTEN]))?;
        Ok(ports.iter().all(|port| listeners.iter().any(|socket| socket.local.port() == *port)))
    }
}

/// The servers of one cluster, removed on drop.
#[derive(Default)]
pub struct Servers(Vec<Kept>);

/// A started server.
struct Kept {
    wanted: WantedServer,
    served: Served,
    /// Removed on drop.
    _container: Container<GenericImage>,
}

impl Servers {
    /// Provides exactly the servers that a trial needs, and removes others.
    ///
    /// # Errors
    /// The server that cannot be started, and why. With another server the trial would prove something else.
    pub fn serve(&mut self, cluster: &str, wanted: &[WantedServer]) -> std::result::Result<Vec<Served>, String> {
        let listens = |kept: &Kept| kept.served.listens(&kept.wanted.ports).unwrap_or(false);
        self.0.retain(|kept| wanted.contains(&kept.wanted) && listens(kept));
        for wanted in wanted {
            if !self.0.iter().any(|kept| kept.wanted == *wanted) {
                let started = start(cluster, wanted);
                self.0.push(started.map_err(|why| format!("no container for {}: {why}", wanted.host))?);
            }
        }
        Ok(self.0.iter().map(|kept| kept.served.clone()).collect())
    }
}

/// Starts a server and waits until it listens.
fn start(cluster: &str, wanted: &WantedServer) -> std::result::Result<Kept, String> {
    let name = format!("{cluster}-outside-{}", wanted.host);
    let remove = || docker(&["rm", "--force", "--volumes", &name]);
    let found = SERVERS.iter().find(|(name, _)| *name == wanted.server);
    let request = found.ok_or_else(|| format!("{} does not run in containers yet", wanted.server))?.1(wanted)?;
    let request = request.with_network("none").with_container_name(&name).with_label(LABEL, cluster);
    // Remove a leftover container of this name, and later one that was created but did not start: neither has a handle.
    let _ = remove();
    let container = request.with_startup_timeout(UP_WITHIN).start().map_err(|e| {
        let _ = remove();
        e.to_string()
    })?;
    let served = until_it_listens(&name, wanted).map_err(|why| format!("{why}{}", last_log_line(&container)))?;
    Ok(Kept { wanted: wanted.clone(), served, _container: container })
}

/// An image on this machine. testcontainers would pull a missing one from a registry.
fn local(image: &str) -> std::result::Result<GenericImage, String> {
    docker(&["image", "inspect", "--format", "{{.Id}}", image])?;
    // testcontainers joins both parts with a colon again, so it does no harm if the colon is that of a registry's port.
    let (name, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
    Ok(GenericImage::new(name, tag))
}

/// Finds the container through the engine that kind uses, and waits until it listens on its ports.
fn until_it_listens(name: &str, wanted: &WantedServer) -> std::result::Result<Served, String> {
    let served = Served::find(&wanted.host, pid_of(name)?).map_err(failed)?;
    let late = || format!("{name} did not listen on {:?}", wanted.ports);
    let look = || served.listens(&wanted.ports).map(|listens| listens.then_some(())).map_err(failed);
    until(UP_WITHIN, &|| false, late, look)?;
    Ok(served)
}

/// The container's last log line, to be appended to an error.
fn last_log_line(container: &Container<GenericImage>) -> String {
    let log = container.stderr_to_vec().unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let last = log.lines().map(str::trim).rfind(|line| !line.is_empty());
    last.map(|line| format!("; last log line: {line}")).unwrap_or_default()
}

/// Removes a trial's connections and NIC from the namespace of a server, which keeps running. Continues after errors
/// and returns them.
pub fn unplug(host: &Outside) -> Vec<String> {
    let steps = [
        end_connections(&host.ns, None),
        // Deleting the NIC deletes the fabric's end, too. Deleting only the fabric would remove it with a delay.
        link::find(&host.ns, NIC).and_then(|nic| nic.map_or(Ok(()), |nic| link::delete(&host.ns, nic.index))),
    ];
    failures(&host.name, steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_of_the_same_number_is_not_the_server() {
        let pid = std::process::id();
        let itself = Served::find("here", pid).unwrap();
        assert!(itself.namespace().is_ok());
        let another = Served { inode: itself.inode + 1, ..itself };
        assert_eq!(another.namespace().unwrap_err().to_string(), "find the container of here: not found");
    }
}
