//! The exporters that the recorder starts: which run where.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use relapse_kernel::NetNs;
use relapse_kernel::process::Inside;
use relapse_model::{ClusterPlan, FlowPlan, NodeId, OutsideId, Place, PodRole};
use relapse_series::{Exporter, Target};
use tokio::time::Instant;

use super::probes::{self, Probe};
use super::{AGAIN, Programs, Scrape, connect, loopback};
use crate::cluster::Cluster;
use crate::cluster::backend::WantedServer;
use crate::workload::servers::database::{Database, is_mariadb, shop};
use crate::workload::{namespace, stub};

const NODE_PORT: u16 = 9100;
const BLACKBOX_PORT: u16 = 9115;
const MYSQLD_PORT: u16 = 9104;
const METRICS: &str = "/metrics";

/// Collectors of the node exporter that look into a network namespace. `network_route` and `tcpstat` are off by default;
/// all others are on. The remaining ones (CPU, memory, load, disks, filesystems, time, ...) would show the machine that
/// records: rules about it are not covered.
const COLLECTORS: &[&str] =
    &["arp", "conntrack", "netclass", "netdev", "netstat", "network_route", "sockstat", "tcpstat", "udp_queues"];

/// An exporter that runs; it is killed when this is dropped.
pub(super) struct Running {
    name: String,
    ns: NetNs,
    port: u16,
    process: Child,
    /// Bind-mounted as `/etc/resolv.conf`.
    _resolv_conf: Option<tempfile::NamedTempFile>,
}

impl Running {
    /// Waits until it accepts connections.
    pub async fn answers(&mut self, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        loop {
            if connect(&self.ns, loopback(self.port)).await.is_some() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(format!("{} has ended: {status}", self.name));
            }
            if Instant::now() > deadline {
                return Err(format!("{} did not answer within {} s", self.name, within.as_secs()));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts all exporters.
pub(super) fn start(
    cluster: &dyn Cluster,
    flows: &[FlowPlan],
    programs: &Programs,
) -> Result<(Vec<Running>, Vec<Scrape>), String> {
    let plan = cluster.plan();
    let (mut exporters, mut scrapes) = (Vec::new(), Vec::new());
    for id in (0..plan.nodes.len()).map(NodeId) {
        let ns = cluster.node(id).ns.clone();
        exporters.push(node_exporter(&programs.node_exporter, &ns)?);
        let target = Target { exporter: Exporter::Node, place: place(plan, Place::Node(id), NODE_PORT) };
        scrapes.push(Scrape::local(target, ns, NODE_PORT, METRICS));
    }
    let probes = probes::of(plan, flows);
    let mut served: BTreeMap<u64, Vec<(&Probe, NetNs)>> = BTreeMap::new();
    for probe in &probes {
        let ns = namespace(cluster, probe.from);
        let at = served.entry(ns.inode()).or_default();
        // Places on the host network share their node's namespace.
        if !at.iter().any(|(other, _)| (&other.module, &other.target) == (&probe.module, &probe.target)) {
            at.push((probe, ns));
        }
    }
    for at in served.into_values() {
        let Some((first, ns)) = at.first() else { continue };
        exporters.push(blackbox_exporter(&programs.blackbox_exporter, ns, plan, first.from, &at)?);
        scrapes.extend(at.into_iter().map(|(probe, ns)| {
            let mut place = place(plan, probe.from, BLACKBOX_PORT);
            place
                .extend([("module", &probe.module), ("target", &probe.target)].map(|(k, v)| (k.to_owned(), v.clone())));
            let target = Target { exporter: Exporter::Blackbox, place };
            let pod = match probe.from {
                Place::Pod(id) if !plan.pods[id.0].host_network => Some(id),
                _ => None,
            };
            Scrape { pod, ..Scrape::local(target, ns, BLACKBOX_PORT, probe.path()) }
        }));
    }
    for (host, port) in databases(cluster, flows) {
        let ns = cluster.outside(host).ns.clone();
        exporters.push(mysqld_exporter(programs.mysqld_exporter()?, &ns, port)?);
        let target = Target { exporter: Exporter::Mysqld, place: place(plan, Place::Outside(host), MYSQLD_PORT) };
        scrapes.push(Scrape::local(target, ns, MYSQLD_PORT, METRICS));
    }
    Ok((exporters, scrapes))
}

fn node_exporter(program: &Path, ns: &NetNs) -> Result<Running, String> {
    let name = format!("the node exporter of {}", ns.name());
    let mut command = Inside::new(ns).command(program);
    command.arg(format!("--web.listen-address=127.0.0.1:{NODE_PORT}")).arg("--collector.disable-defaults");
    command.args(COLLECTORS.iter().map(|collector| format!("--collector.{collector}")));
    command.arg("--log.level=error").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = command.spawn().map_err(|e| format!("{name} could not be started: {e}"))?;
    Ok(Running { name, ns: ns.clone(), port: NODE_PORT, process, _resolv_conf: None })
}

/// Hosts outside on which a real database runs, with its port.
fn databases(cluster: &dyn Cluster, flows: &[FlowPlan]) -> Vec<(OutsideId, u16)> {
    let plan = cluster.plan();
    let found = WantedServer::all_of(plan, flows).into_iter().filter_map(|wanted| {
        let host = OutsideId(plan.outside.iter().position(|host| host.name == wanted.host)?);
        Some((host, *wanted.ports.first()?))
    });
    found.filter(|(host, _)| is_mariadb(cluster, *host)).collect()
}

/// Gives real databases MariaDB's own threshold of slow queries, 10 s. They are set to 0.1 s otherwise, and would count
/// queries that no installation counts.
pub(super) async fn set_thresholds(cluster: &dyn Cluster, flows: &[FlowPlan]) -> Result<(), String> {
    for (host, port) in databases(cluster, flows) {
        let database = Database::at(cluster, (cluster.plan().address(Place::Outside(host)), port).into());
        let set = async {
            let mut session = shop::Session::open(&cluster.outside(host).ns, database).await?;
            session.run("SET GLOBAL long_query_time = DEFAULT").await
        };
        set.await.map_err(|e| format!("the threshold of slow queries could not be set: {e}"))?;
    }
    Ok(())
}

/// With the user of the workload, who has all privileges and no password.
fn mysqld_exporter(program: &Path, ns: &NetNs, port: u16) -> Result<Running, String> {
    let name = format!("the mysqld exporter of {}", ns.name());
    let mut command = Inside::new(ns).command(program);
    command.arg(format!("--web.listen-address=127.0.0.1:{MYSQLD_PORT}")).arg("--log.level=error");
    command.env("DATA_SOURCE_NAME", format!("{}@(127.0.0.1:{port})/", shop::USER));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = command.spawn().map_err(|e| format!("{name} could not be started: {e}"))?;
    Ok(Running { name, ns: ns.clone(), port: MYSQLD_PORT, process, _resolv_conf: None })
}

/// One for a place, with the modules of its probes and the place's own resolver.
fn blackbox_exporter(
    program: &Path,
    ns: &NetNs,
    plan: &ClusterPlan,
    from: Place,
    probes: &[(&Probe, NetNs)],
) -> Result<Running, String> {
    const RESOLV_CONF: &str = "/etc/resolv.conf";
    let name = format!("the blackbox exporter of {}", ns.name());
    let failed = |e: &dyn std::fmt::Display| format!("{name} could not be started: {e}");
    let mut inside = Inside::new(ns);
    let mut resolv_conf = None;
    if let Some(text) = stub::resolv_conf(plan, from).filter(|_| Path::new(RESOLV_CONF).exists()) {
        let mut file = tempfile::NamedTempFile::new().map_err(|e| failed(&e))?;
        file.write_all(text.as_bytes()).map_err(|e| failed(&e))?;
        inside = inside.bind(file.path(), RESOLV_CONF).map_err(|e| failed(&e))?;
        resolv_conf = Some(file);
    }
    let mut command = inside.command(program);
    command.arg(format!("--web.listen-address=127.0.0.1:{BLACKBOX_PORT}")).arg("--config.file=/dev/stdin");
    command.arg("--log.level=error").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = command.spawn().map_err(|e| failed(&e))?;
    // JSON is YAML.
    let modules = probes::modules(probes.iter().map(|(probe, _)| *probe)).to_string();
    let sent = process.stdin.take().map(|mut pipe| pipe.write_all(modules.as_bytes()));
    let process =
        Running { name: name.clone(), ns: ns.clone(), port: BLACKBOX_PORT, process, _resolv_conf: resolv_conf };
    sent.transpose().map_err(|e| failed(&e))?;
    Ok(process)
}

/// Where an exporter is.
fn place(plan: &ClusterPlan, at: Place, port: u16) -> BTreeMap<String, String> {
    let node = |id: NodeId| ("node", plan.nodes[id.0].name.as_str());
    let mut place = match at {
        Place::Node(id) => vec![node(id)],
        Place::Pod(id) => {
            let pod = &plan.pods[id.0];
            let namespace = if pod.role == PodRole::Dns { "kube-system" } else { "default" };
            vec![node(pod.node), ("namespace", namespace), ("pod", &pod.name)]
        }
        Place::Outside(id) => vec![("outside", plan.outside[id.0].name.as_str())],
        Place::Office(id) => vec![("office", plan.offices[id.0].name.as_str())],
    };
    let address = format!("{}:{port}", plan.address(at));
    place.push(("address", &address));
    place.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
