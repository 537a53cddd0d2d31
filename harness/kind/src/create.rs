//! A real cluster: made, found ready, removed; everything by its exact name.
//!
//! Its network is its own, without translation to the outside, and its nodes get their guard before
//! they can run a pod. Names carry the run's id.

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

/// A cluster that is not there by then never will be; a variable of this name sets other seconds.
const CREATE_WITHIN: (&str, Duration) = ("RELAPSE_KIND_CREATE_WITHIN", Duration::from_secs(240));
/// Nodes are ready by then, or something is wrong with them.
const READY_WITHIN: Duration = Duration::from_secs(90);
const REMOVE_WITHIN: Duration = Duration::from_secs(120);
const LOAD_WITHIN: Duration = Duration::from_secs(60);
const LOGS_WITHIN: Duration = Duration::from_secs(30);
/// By which kind's containers do.
const KIND_LABEL: &str = "io.x-k8s.kind.cluster";

/// Makes a cluster. What was made by the time it fails is still there: [`remove`] it.
///
/// # Errors
/// What went wrong, in one line; logs of the nodes are in `logs` then.
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
    // Not `--quiet`: kind would not say why it failed either.
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

/// A network of its own, with addresses that no lab and no office has (RFC 2544), and without
/// translation: what is not for the network itself finds no way back.
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

/// Loads an image of Docker's into every node.
///
/// # Errors
/// When Docker cannot save it, or kind cannot load it.
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

/// Containers that have this label with a cluster's name.
fn labelled(label: &str, cluster: &str) -> Result<Vec<String>, String> {
    let filter = format!("label={label}={cluster}");
    let names = docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"])?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// The nodes of a cluster, and a load balancer before them.
fn containers(cluster: &str) -> Result<Vec<String>, String> {
    labelled(KIND_LABEL, cluster)
}

/// All containers that go with a cluster: its nodes, and the servers beside it.
fn all_containers(cluster: &str) -> Result<Vec<String>, String> {
    Ok([containers(cluster)?, labelled(LABEL, cluster)?].concat())
}

/// Whether any other cluster of kind's runs on this machine.
///
/// # Errors
/// When Docker does not answer.
pub fn others(cluster: &str) -> Result<bool, String> {
    let filter = format!("label={KIND_LABEL}");
    let format = format!("{{{{.Label \"{KIND_LABEL}\"}}}}");
    let all = docker(&["ps", "--filter", &filter, "--format", &format])?;
    Ok(all.lines().any(|other| other != cluster))
}

/// What kind made: containers with their first process.
fn found(names: &Names, management: Prefix, config: &Config) -> Result<Created, String> {
    let mut containers = containers(&names.cluster)?;
    // With several control planes kind sets a load balancer before them, which is no node.
    containers.retain(|name| !name.ends_with("-external-load-balancer"));
    // Workers in their order (kind counts worker, worker2, ... worker10), then the rest.
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

/// The guard first, then the pod network; ready when the API says so of every node, and kube-proxy is at work.
fn make_ready(mut created: Created, stop: &dyn Fn() -> bool) -> Result<Created, String> {
    for node in &created.nodes {
        let ns = node.namespace().map_err(failed)?;
        guard::put_up(&ns, &created).map_err(|e| format!("the guard of {}: failed to {e}", node.name))?;
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

/// What the nodes had to say, for people to read: one that never came up has only what it printed.
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

/// Removes a cluster: containers with their volumes, servers beside it among them, network, files; only those
/// of exactly this name. What is gone already is no error.
///
/// # Errors
/// What could not be removed.
pub fn remove(names: &Names) -> Result<(), String> {
    let labels = [KIND_LABEL, LABEL].map(|label| format!("{label}={}", names.cluster));
    let (left, said) = (RefCell::default(), RefCell::new(String::new()));
    let late = || format!("{} not gone{}", left.borrow(), said.borrow());
    until(REMOVE_WITHIN, &|| false, late, || {
        // A run that was killed alone left its kind at work, which would go on to make what is removed here. What
        // Docker was asked for by then comes yet, and the client that asked ends when it is there.
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
        // Docker may be at it already, for a run that was killed: what counts is that they are gone.
        if let Err(why) = within(&mut command, REMOVE_WITHIN, &|| false) {
            *said.borrow_mut() = format!(" ({why})");
        }
        Ok(None)
    })?;
    let ours = format!("label={LABEL}={}", names.cluster);
    let networks = || docker(&["network", "ls", "--filter", &ours, "--format", "{{.Name}}"]);
    for network in networks()?.lines().filter(|network| *network == names.cluster) {
        // Somebody else may be removing it, too.
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

/// Processes of a program that were started with this word.
fn running(program: &str, word: &str) -> Vec<u32> {
    let is_it = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        words.next().is_some_and(|first| Path::new(&*first).ends_with(program)) && words.any(|one| one == word)
    };
    pids().filter(is_it).collect()
}
