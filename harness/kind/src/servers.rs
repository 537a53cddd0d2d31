//! Third parties' servers of the outside world: containers beside the cluster, which a trial plugs into its
//! fabric.
//!
//! Docker gives them no network: their only NIC is the one a trial puts in, so there is no way out to guard.
//! They stay for the next trial that wants exactly the same. What one of them is made of stands in a file of
//! its own, and a line of [`SERVERS`] names it; nothing else here knows which server it is.

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

/// A server that does not listen by then never will.
const UP_WITHIN: Duration = Duration::from_secs(20);

type Request = fn(&WantedServer) -> std::result::Result<ContainerRequest<GenericImage>, String>;

/// All of them, by name, and what each is made of.
const SERVERS: [(&str, Request); 1] = [("nginx", nginx::request)];

/// A server that runs, as a trial's process is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    pub host: String,
    /// Its first process, as this machine counts.
    pid: u32,
    /// The kernel's number for its namespace.
    inode: u64,
}

impl Served {
    fn find(host: &str, pid: u32) -> Result<Self> {
        Ok(Self { host: host.to_owned(), pid, inode: NetNs::of_process(host, pid)?.inode() })
    }

    /// Its namespace, and never that of a process which has the number now.
    ///
    /// # Errors
    /// When it is no longer there.
    pub fn namespace(&self) -> Result<NetNs> {
        let found = NetNs::of_process(&self.host, self.pid).ok().filter(|ns| ns.inode() == self.inode);
        found.ok_or_else(|| Error::NotFound { what: format!("find the container of {}", self.host) })
    }

    /// What its namespace is like.
    ///
    /// # Errors
    /// When it is no longer there, or the kernel cannot be asked.
    pub fn look(&self) -> Result<Snapshot> {
        let ns = self.namespace()?;
        Snapshot::of_namespace(&ns, nft::list_tables(&ns)?)
    }

    fn listens(&self, ports: &BTreeSet<u16>) -> Result<bool> {
        let listeners = SockDiag::open(&self.namespace()?)?.tcp_sockets(mask(&[state::LISTEN]))?;
        Ok(ports.iter().all(|port| listeners.iter().any(|socket| socket.local.port() == *port)))
    }
}

/// Those of one cluster; they go with this.
#[derive(Default)]
pub struct Servers(Vec<Kept>);

/// What was started.
struct Kept {
    wanted: WantedServer,
    served: Served,
    /// Goes when it is dropped.
    _container: Container<GenericImage>,
}

impl Servers {
    /// Exactly the servers that a trial wants; those of others go.
    ///
    /// # Errors
    /// Which one cannot be had, and why: with another in its place the trial would prove something else.
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

/// Starts one and waits until it listens.
fn start(cluster: &str, wanted: &WantedServer) -> std::result::Result<Kept, String> {
    let name = format!("{cluster}-outside-{}", wanted.host);
    let remove = || docker(&["rm", "--force", "--volumes", &name]);
    let found = SERVERS.iter().find(|(name, _)| *name == wanted.server);
    let request = found.ok_or_else(|| format!("{} does not run in containers yet", wanted.server))?.1(wanted)?;
    let request = request.with_network("none").with_container_name(&name).with_label(LABEL, cluster);
    // One of this name is from before, and nobody has a handle to it; nor to one that was made and did not start.
    let _ = remove();
    let container = request.with_startup_timeout(UP_WITHIN).start().map_err(|e| {
        let _ = remove();
        e.to_string()
    })?;
    let served = until_it_listens(&name, wanted).map_err(|why| format!("{why}{}", last_words(&container)))?;
    Ok(Kept { wanted: wanted.clone(), served, _container: container })
}

/// An image that is on this machine: of another one a registry would be asked.
fn local(image: &str) -> std::result::Result<GenericImage, String> {
    docker(&["image", "inspect", "--format", "{{.Id}}", image])?;
    // They are put together again by a colon, be it that of a registry's port.
    let (name, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
    Ok(GenericImage::new(name, tag))
}

/// Asks the engine that kind asks: so it is known there, too.
fn until_it_listens(name: &str, wanted: &WantedServer) -> std::result::Result<Served, String> {
    let served = Served::find(&wanted.host, pid_of(name)?).map_err(failed)?;
    let late = || format!("{name} did not listen on {:?}", wanted.ports);
    let look = || served.listens(&wanted.ports).map(|listens| listens.then_some(())).map_err(failed);
    until(UP_WITHIN, &|| false, late, look)?;
    Ok(served)
}

/// What it complained about last, to be put behind a reason.
fn last_words(container: &Container<GenericImage>) -> String {
    let said = container.stderr_to_vec().unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    last.map(|line| format!("; last log line: {line}")).unwrap_or_default()
}

/// Takes a trial's part out of a server's namespace, which goes on: connections, and the NIC. Goes on past
/// what fails, and says it.
pub fn unplug(host: &Outside) -> Vec<String> {
    let steps = [
        end_connections(&host.ns),
        // The fabric's end goes with it; with the fabric alone it would go some time after.
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
