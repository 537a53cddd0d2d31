//! Waits for the nodes' kube-proxies, and starts a second instance of one with another `conntrack` section (I2).
//!
//! kind configures kube-proxy to leave `nf_conntrack_max` alone, and a container could not write it anyway, because it
//! belongs to the initial network namespace. So the node's kube-proxy binary is started a second time, with its
//! container's root file system, the node's network namespace and that one file of the host. It then writes the limit
//! itself (`cmd/kube-proxy/app/conntrack.go`, `SetMax`).

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use relapse_kernel::NetNs;
use relapse_kernel::process::Inside;
use relapse_lab::cluster::KubeProxy;
use relapse_lab::job::FaultError;
use serde_json::{Value, json};

use super::created::NodeRef;
use super::until::until;
use super::{failed, pids};

/// The file of the setting.
const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const PROGRAM: &str = "/usr/local/bin/kube-proxy";
/// The configuration file in kubeadm's DaemonSet.
const CONFIG: &str = "var/lib/kube-proxy/config.conf";
/// The modified configuration, in the container's root file system.
const OURS: &str = "relapse-kube-proxy.json";

/// Time limit for kube-proxy to write its rules on every node.
const SET_UP_WITHIN: Duration = Duration::from_secs(60);
/// Time limit of a metrics request.
const SOON: Duration = Duration::from_secs(1);
/// The default metrics address, which kubeadm does not change.
pub const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
/// The number of rule syncs: one line for each IP version, or (before Kubernetes 1.34) one line for both.
const SYNCS: &str = "kubeproxy_sync_proxy_rules_duration_seconds_count";

/// Waits until every node's kube-proxy has finished its setup for each IP version. Tables and settings that appear
/// during a trial would look like leftovers of the trial. kube-proxy writes its settings first, and creates its tables
/// with the first rules, one IP version after the other.
///
/// # Errors
/// On a timeout, or if stopped.
pub fn until_set_up(nodes: &[NodeRef], stop: &dyn Fn() -> bool) -> Result<(), String> {
    for node in nodes {
        let ns = node.namespace().map_err(failed)?;
        let has_ipv6 = Path::new("/proc").join(node.pid.to_string()).join("net/if_inet6").exists();
        let versions = if has_ipv6 { 2.0 } else { 1.0 };
        let late = || format!("kube-proxy of {} had not finished its setup", node.name);
        until(SET_UP_WITHIN, stop, late, || Ok((syncs(&ns).unwrap_or(0.0) >= versions).then_some(())))?;
    }
    Ok(())
}

/// The number of rule syncs in kube-proxy's metrics, if they are available.
fn syncs(node: &NetNs) -> Option<f64> {
    let connected = node.run(|| TcpStream::connect_timeout(&METRICS, SOON)).ok()?;
    let mut connection = connected.ok()?;
    connection.set_read_timeout(Some(SOON)).ok()?;
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    connection.read_to_string(&mut text).ok()?;
    let lines = text.lines().filter(|line| line.starts_with(SYNCS));
    Some(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Prepares a kube-proxy that writes the limit within about a second of its start.
pub fn prepare(node: &NetNs, limit: u64) -> Result<KubeProxy, FaultError> {
    let what = || format!("restart kube-proxy on {}", node.name());
    let refused = |why: String| FaultError::Refused { what: what(), why };
    let pid = running_in(node).ok_or_else(|| FaultError::NotFound { what: what() })?;
    let root = Path::new("/proc").join(pid.to_string()).join("root");
    let config = configuration(&root, limit).map_err(refused)?;
    fs::write(root.join(OURS), config.to_string()).map_err(|e| refused(e.to_string()))?;
    let inside = Inside::new(node).with_files_of(pid)?.carry(LIMIT)?;
    let mut command = inside.command(PROGRAM);
    command.arg(format!("--config=/{OURS}")).arg(format!("--hostname-override={}", hostname(pid)));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let section = &config["conntrack"];
    Ok(KubeProxy {
        what: format!("kube-proxy of {}, restarted with conntrack {section}", node.name()),
        command,
        process: None,
    })
}

/// The node's kube-proxy configuration with another `conntrack` section.
fn configuration(root: &Path, limit: u64) -> Result<Value, String> {
    let file = root.join(CONFIG);
    let text = fs::read_to_string(&file).map_err(|e| format!("{CONFIG}: {e}"))?;
    let mut config: Value = serde_yaml::from_str(&text).map_err(|e| format!("{CONFIG}: {e}"))?;
    config["conntrack"] = section(limit, cores());
    // The default ports are taken by the node's own kube-proxy.
    config["healthzBindAddress"] = "127.0.0.1:21256".into();
    config["metricsBindAddress"] = "127.0.0.1:21249".into();
    Ok(config)
}

/// A section that makes kube-proxy write this limit, max(min, maxPerCore x cores). It sets nothing if the limit is
/// kube-proxy's default. Timeouts keep the kernel's values.
fn section(limit: u64, cores: u64) -> Value {
    let mut section = json!({ "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" });
    // `pkg/proxy/apis/config/v1alpha1/defaults.go`
    if limit != 131_072.max(32_768 * cores) {
        section["min"] = limit.into();
        section["maxPerCore"] = 1.into();
    }
    section
}

/// The number of cores, counted like kube-proxy does.
fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

/// The node's own kube-proxy: the only process of that name in its network namespace.
pub fn running_in(node: &NetNs) -> Option<u32> {
    pids().find(|pid| {
        let path = PathBuf::from(format!("/proc/{pid}"));
        let named = fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "kube-proxy");
        named && fs::metadata(path.join("ns/net")).is_ok_and(|file| file.ino() == node.inode())
    })
}

/// Whether it runs and is not suspended (proc_pid_stat(5)).
pub fn is_running(node: &NetNs) -> bool {
    let stat = running_in(node).and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    let state = stat.as_deref().and_then(|stat| stat.rsplit_once(") ")).and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !"TtZX".contains(state))
}

/// The node's name in the API, from kube-proxy's command line.
fn hostname(pid: u32) -> String {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let named = line.split('\0').find_map(|argument| argument.strip_prefix("--hostname-override="));
    named.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_default_needs_no_word() {
        let empty = json!({ "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" });
        assert_eq!(section(131_072, 2), empty);
        assert_eq!(section(524_288, 16), empty);
        let scaled = section(4_096, 2);
        assert_eq!((&scaled["min"], &scaled["maxPerCore"]), (&json!(4_096), &json!(1)));
    }
}
