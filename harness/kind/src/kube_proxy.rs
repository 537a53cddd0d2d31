//! The nodes' kube-proxies: waited for; and one of them started once more with another `conntrack` section (I2).
//!
//! kind tells kube-proxy to leave `nf_conntrack_max` alone, and a container could not write it anyway: it
//! belongs to the initial network namespace. So the program of the node's own kube-proxy is started beside
//! it, in its container's files and the node's network, with that one file of the machine carried in. What
//! it then writes is its own doing (`cmd/kube-proxy/app/conntrack.go`, `SetMax`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use relapse_kernel::process::Inside;
use relapse_kernel::{NetNs, nft, sysctl};
use relapse_lab::cluster::KubeProxy;
use relapse_lab::job::FaultError;
use serde_json::{Value, json};

use super::created::NodeRef;

/// The setting as a file.
const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const PROGRAM: &str = "/usr/local/bin/kube-proxy";
/// Where kubeadm's DaemonSet has its configuration.
const CONFIG: &str = "var/lib/kube-proxy/config.conf";
/// Ours, in the container's own files.
const OURS: &str = "relapse-kube-proxy.json";

/// Where it writes nftables: its tables in a node, one for each version of IP.
const TABLE: &str = "kube-proxy";
/// It runs everywhere by then, and changes nothing more for so long once it has begun.
const SET_UP_WITHIN: Duration = Duration::from_secs(60);
const SETTLED: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(100);

/// Waits until every node's kube-proxy has set itself up: tables and settings that appeared while a trial runs would
/// look like something that the trial left behind.
///
/// # Errors
/// When it does not come, or is no longer waited for.
pub fn until_set_up(nodes: &[NodeRef], writes_nftables: bool, stop: &dyn Fn() -> bool) -> Result<(), String> {
    let begin = Instant::now();
    let (mut known, mut since) = (Vec::new(), begin);
    loop {
        let all = nodes.iter().map(|node| {
            let ns = NetNs::of_process(&node.name, node.pid)?;
            let (tables, settings) = (nft::list_tables(&ns)?, sysctl::all_of(&ns)?);
            let is_there = running_in(&ns).is_some() && (!writes_nftables || tables.iter().any(|table| table == TABLE));
            Ok((is_there, tables, settings))
        });
        let now: Vec<_> = all.collect::<Result<_, relapse_kernel::Error>>().map_err(|e| format!("failed to {e}"))?;
        let everywhere = now.iter().all(|(is_there, ..)| *is_there);
        if now != known {
            (known, since) = (now, Instant::now());
        }
        if everywhere && since.elapsed() > SETTLED {
            return Ok(());
        }
        if stop() {
            return Err("stopped".into());
        }
        if begin.elapsed() > SET_UP_WITHIN {
            return Err(format!("kube-proxy had not set itself up within {} s", SET_UP_WITHIN.as_secs()));
        }
        std::thread::sleep(LOOK);
    }
}

/// Ready to be started; then it writes the limit within a second or so.
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

/// Its own configuration with another `conntrack` section.
fn configuration(root: &Path, limit: u64) -> Result<Value, String> {
    let file = root.join(CONFIG);
    let text = fs::read_to_string(&file).map_err(|e| format!("{CONFIG}: {e}"))?;
    let mut config: Value = serde_yaml::from_str(&text).map_err(|e| format!("{CONFIG}: {e}"))?;
    config["conntrack"] = section(limit, cores());
    // The other one has the usual ports.
    config["healthzBindAddress"] = "127.0.0.1:21256".into();
    config["metricsBindAddress"] = "127.0.0.1:21249".into();
    Ok(config)
}

/// Makes kube-proxy write this limit, max(min, maxPerCore x cores): without a word about it where that is what
/// it does by itself. Time-outs stay the kernel's.
fn section(limit: u64, cores: u64) -> Value {
    let mut section = json!({ "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" });
    // `pkg/proxy/apis/config/v1alpha1/defaults.go`
    if limit != 131_072.max(32_768 * cores) {
        section["min"] = limit.into();
        section["maxPerCore"] = 1.into();
    }
    section
}

/// As kube-proxy counts them.
fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

/// The node's own kube-proxy: the one process of that name in its network namespace.
fn running_in(node: &NetNs) -> Option<u32> {
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found = pids.filter(|pid: &u32| {
        let path = PathBuf::from(format!("/proc/{pid}"));
        let named = fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "kube-proxy");
        named && fs::metadata(path.join("ns/net")).is_ok_and(|file| file.ino() == node.inode())
    });
    found.next()
}

/// The node's name in the API, as its kube-proxy was told.
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
