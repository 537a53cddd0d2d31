//! Creates a real cluster, waits until it is ready, and removes it, all by exact name.
//!
//! The cluster has its own network, without NAT to the outside, and its nodes get their guard before they can run a
//! pod. Names contain the run's id.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use relapse_detectors::prefix::Prefix;
use relapse_kernel::process;
use relapse_model::kind_config::Config;

use super::created::{Created, LABEL, Names, NodeRef};
use super::docker::{docker, kind, pid_of, within};
use super::until::until;
use super::{api, cni, failed, guard, kube_proxy, pids};

/// Time limit of `kind create cluster`. The environment variable overrides it, in seconds.
const CREATE_WITHIN: (&str, Duration) = ("RELAPSE_KIND_CREATE_WITHIN", Duration::from_secs(240));
/// Time limit for the nodes to become ready.
const READY_WITHIN: Duration = Duration::from_secs(90);
const REMOVE_WITHIN: Duration = Duration::from_secs(120);
const LOAD_WITHIN: Duration = Duration::from_secs(60);
const LOGS_WITHIN: Duration = Duration::from_secs(30);
/// kind's own label on its containers.
const KIND_LABEL: &str = "io.x-k8s.kind.cluster";

/// Creates a cluster. After an error, whatever was made remains: call [`remove`].
///
/// # Errors
/// The cause, in one line. Logs of the nodes are then in `logs`.
pub fn create(
    names: &Names,
    config: &Config,
    image: Option<&str>,
    logs: &Path,
    stop: &dyn Fn() -> bool,
) -> Result<Created, String> {
    let mut command = kind()?;
    let in_folder = |e: std::io::Error| format!("{}: {e}", names.folder.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&names.folder).map_err(in_folder)?;
    let file = names.folder.join("config.json");
    fs::write(&file, config.value.to_string()).map_err(in_folder)?;
    let management = make_network(&names.cluster)?;
    // Not `--quiet`, which suppresses the error, too.
    command.args(["create", "cluster", "--retain", "--wait", "0s", "--name", &names.cluster]);
    command.arg("--kubeconfig").arg(names.kubeconfig()).arg("--config").arg(&file);
    if let Some(image) = image {
        command.args(["--image", image]);
    }
    command.env("KIND_EXPERIMENTAL_DOCKER_NETWORK", &names.cluster);
    let (name, usual) = CREATE_WITHIN;
    let limit = std::env::var(name).ok().and_then(|seconds| seconds.parse().ok()).map_or(usual, Duration::from_secs);
    let made = within(&mut command, limit, stop)
        .and_then(|_| found(names, management, config))
        .and_then(|created| make_ready(created, stop));
    made.map_err(|why| if why == "stopped" { why } else { with_logs(&why, &names.cluster, logs) })
}

/// Creates the cluster's network, with addresses that no lab and no office uses (RFC 2544) and without NAT: packets to
/// other destinations get no reply.
fn make_network(name: &str) -> Result<Prefix, String> {
    let mut last = String::new();
    for number in 128..=255_u8 {
        let subnet = format!("198.19.{number}.0/24");
        let label = format!("{LABEL}={name}");
        let made = docker(&[
            "network",
            "create",
            "--subnet",
            &subnet,
            "--label",
            &label,
            "-o",
            "com.docker.network.bridge.enable_ip_masquerade=false",
            name,
        ]);
        match made {
            Ok(_) => return subnet.parse().map_err(|e| format!("{subnet}: {e}")),
            Err(why) if why.contains("overlap") => last = why,
            Err(why) => return Err(why),
        }
    }
    Err(last)
}

/// Loads an image from Docker into every node.
///
/// # Errors
/// If Docker cannot save it, or kind cannot load it.
pub fn load_image(names: &Names, image: &str) -> Result<(), String> {
    let archive = names.folder.join("image.tar");
    let mut save = Command::new("docker");
    within(save.arg("save").arg("--output").arg(&archive).arg(image), LOAD_WITHIN, &|| false)?;
    let mut load = kind()?;
    load.args(["load", "image-archive", "--name", &names.cluster]).arg(&archive);
    let loaded = within(&mut load, LOAD_WITHIN, &|| false);
    let _ = fs::remove_file(archive);
    loaded.map(drop)
}

/// Containers with this label and the cluster's name as its value.
fn labelled(label: &str, cluster: &str) -> Result<Vec<String>, String> {
    let filter = format!("label={label}={cluster}");
    let names = docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"])?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// The nodes of a cluster, and the load balancer in front of them.
fn containers(cluster: &str) -> Result<Vec<String>, String> {
    labelled(KIND_LABEL, cluster)
}

/// All containers of a cluster: its nodes and the servers outside it.
fn all_containers(cluster: &str) -> Result<Vec<String>, String> {
    Ok([containers(cluster)?, labelled(LABEL, cluster)?].concat())
}

/// Whether another kind cluster runs on this machine.
///
/// # Errors
/// If Docker does not answer.
pub fn others(cluster: &str) -> Result<bool, String> {
    let filter = format!("label={KIND_LABEL}");
    let format = format!("{{{{.Label \"{KIND_LABEL}\"}}}}");
    let all = docker(&["ps", "--filter", &filter, "--format", &format])?;
    Ok(all.lines().any(|other| other != cluster))
}

/// The containers that kind created, with their first processes.
fn found(names: &Names, management: Prefix, config: &Config) -> Result<Created, String> {
    let mut containers = containers(&names.cluster)?;
    // With several control planes kind adds a load balancer, which is not a node.
    containers.retain(|name| !name.ends_with("-external-load-balancer"));
    // Workers in order (kind names them worker, worker2, ... worker10), then the rest.
    let rank = |name: &String| {
        let worker = name.rsplit('-').next().and_then(|last| last.strip_prefix("worker"));
        (worker.is_none(), worker.and_then(|number| number.parse::<u32>().ok()).unwrap_or(1))
    };
    containers.sort_by_key(rank);
    let nodes = containers.into_iter().map(|name| {
        let pid = pid_of(&name)?;
        Ok(NodeRef { name, pid, pod_prefix: config.pod_prefix, dropped: 0 })
    });
    Ok(Created {
        names: names.clone(),
        nodes: nodes.collect::<Result<_, String>>()?,
        management,
        pod_prefix: config.pod_prefix,
        service_prefix: config.service_prefix,
    })
}

/// Sets up the guard, then the pod network; waits until every node is Ready and kube-proxy has synced.
fn make_ready(mut created: Created, stop: &dyn Fn() -> bool) -> Result<Created, String> {
    for node in &created.nodes {
        let ns = node.namespace().map_err(failed)?;
        guard::set_up(&ns, &created).map_err(|e| format!("the guard of {}: failed to {e}", node.name))?;
    }
    let count = created.nodes.len();
    let shares = api::ask(&created.names, |client| api::prepare(client, count), READY_WITHIN, stop)?;
    for node in &mut created.nodes {
        let share = shares.get(&node.name).ok_or_else(|| format!("{} has no share of the pod network", node.name))?;
        node.pod_prefix = *share;
        cni::write(node).map_err(|e| format!("{}: the pod network could not be set up: {e}", node.name))?;
    }
    api::ask(&created.names, |client| api::nodes_ready(client, count), READY_WITHIN, stop)?;
    kube_proxy::until_set_up(&created.nodes, stop)?;
    for node in &mut created.nodes {
        node.dropped = node.namespace().and_then(|ns| guard::hits(&ns)).map_err(failed)?;
    }
    Ok(created)
}

/// Exports the nodes' logs for the user. A node that never came up has only its console output.
fn with_logs(why: &str, cluster: &str, logs: &Path) -> String {
    let exported = kind().and_then(|mut kind| {
        kind.args(["export", "logs", "--name", cluster]).arg(logs);
        within(&mut kind, LOGS_WITHIN, &|| false)
    });
    let nodes = containers(cluster).unwrap_or_default();
    if exported.is_ok() || nodes.iter().any(|node| logs.join(node).is_dir()) {
        return format!("{why}; logs of its nodes: {}", logs.display());
    }
    why.to_owned()
}

/// Removes a cluster: containers (including servers outside) with their volumes, network and files, by exact name.
/// Anything already removed is not an error.
///
/// # Errors
/// What could not be removed.
pub fn remove(names: &Names) -> Result<(), String> {
    let labels = [KIND_LABEL, LABEL].map(|label| format!("{label}={}", names.cluster));
    let (left, failure) = (RefCell::default(), RefCell::new(String::new()));
    let late = || format!("{} not gone{}", left.borrow(), failure.borrow());
    until(REMOVE_WITHIN, &|| false, late, || {
        // A killed run may leave its kind process running, which would keep creating what is removed here. Requests
        // that Docker has already accepted still complete, and the requesting client ends with them.
        let kinds = running("kind", &names.cluster);
        kinds.iter().try_for_each(|pid| process::end(*pid)).map_err(failed)?;
        let at_work = !kinds.is_empty() || labels.iter().any(|label| !running("docker", label).is_empty());
        let there = all_containers(&names.cluster)?;
        if there.is_empty() {
            *left.borrow_mut() = "the process that creates containers is".into();
            return Ok((!at_work).then_some(()));
        }
        *left.borrow_mut() = format!("containers {} are", there.join(", "));
        let mut command = Command::new("docker");
        command.args(["rm", "--force", "--volumes"]).args(&there);
        // Docker may already be removing them for a killed run. Only their absence counts.
        if let Err(why) = within(&mut command, REMOVE_WITHIN, &|| false) {
            *failure.borrow_mut() = format!(" ({why})");
        }
        Ok(None)
    })?;
    let ours = format!("label={LABEL}={}", names.cluster);
    let networks = || docker(&["network", "ls", "--filter", &ours, "--format", "{{.Name}}"]);
    for network in networks()?.lines().filter(|network| *network == names.cluster) {
        // Another process may be removing it concurrently.
        if let Err(why) = docker(&["network", "rm", network])
            && networks()?.lines().any(|left| left == network)
        {
            return Err(why);
        }
    }
    match fs::remove_dir_all(&names.folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {e}", names.folder.display())),
        _ => Ok(()),
    }
}

/// Processes of this program with this command-line argument.
fn running(program: &str, word: &str) -> Vec<u32> {
    let is_it = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        words.next().is_some_and(|first| Path::new(&*first).ends_with(program)) && words.any(|one| one == word)
    };
    pids().filter(is_it).collect()
}
