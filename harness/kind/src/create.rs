//! A real cluster: made, found ready, removed; everything by its exact name.
//!
//! Its network is its own, without translation to the outside, and its nodes get their guard before
//! they can run a pod. Names carry the run's id.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use relapse_detectors::prefix::Prefix;
use relapse_kernel::{NetNs, process};
use relapse_model::kind_config::Config;

use super::created::{Created, LABEL, Names, NodeRef};
use super::docker::{docker, kind, within};
use super::{api, cni, guard, kube_proxy};

/// A cluster that is not there by then never will be; a variable of this name sets other seconds.
const CREATE_WITHIN: (&str, Duration) = ("RELAPSE_KIND_CREATE_WITHIN", Duration::from_secs(240));
/// Nodes are ready by then, or something is wrong with them.
const READY_WITHIN: Duration = Duration::from_secs(90);
const REMOVE_WITHIN: Duration = Duration::from_secs(120);
/// How long Docker works on at what it was told to make, when whoever told it is gone.
const TOLD_BEFORE: Duration = Duration::from_secs(2);
/// What Docker is about to remove already is gone by then.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
const LOAD_WITHIN: Duration = Duration::from_secs(60);
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
        .and_then(|created| make_ready(created, config, stop));
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

/// The containers of a cluster, by kind's label.
///
/// # Errors
/// When Docker does not answer.
pub fn containers(cluster: &str) -> Result<Vec<String>, String> {
    let filter = format!("label={KIND_LABEL}={cluster}");
    let names = docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"])?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// All containers that go with a cluster: its nodes, and the servers beside it.
fn all_containers(cluster: &str) -> Result<Vec<String>, String> {
    let filter = format!("label={LABEL}={cluster}");
    let beside = docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"])?;
    Ok(containers(cluster)?.into_iter().chain(beside.lines().map(str::to_owned)).collect())
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
        let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &name])?;
        let pid = pid.parse().ok().filter(|pid| *pid > 0).ok_or_else(|| format!("{name} does not run"))?;
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
fn make_ready(mut created: Created, config: &Config, stop: &dyn Fn() -> bool) -> Result<Created, String> {
    for node in &created.nodes {
        let ns = NetNs::of_process(&node.name, node.pid).map_err(|e| format!("failed to {e}"))?;
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
    kube_proxy::until_set_up(&created.nodes, config.writes_nftables(), stop)?;
    for node in &mut created.nodes {
        let ns = NetNs::of_process(&node.name, node.pid);
        node.dropped = ns.and_then(|ns| guard::hits(&ns)).map_err(|e| format!("failed to {e}"))?;
    }
    Ok(created)
}

/// What the nodes had to say, for people to read.
fn with_logs(why: &str, cluster: &str, logs: &Path) -> String {
    let mut saved = Vec::new();
    let _ = fs::create_dir_all(logs);
    for name in containers(cluster).unwrap_or_default() {
        for (what, command) in [
            ("journal", vec!["journalctl", "--no-pager", "-n", "400"]),
            ("kubelet", vec!["journalctl", "--no-pager", "-u", "kubelet", "-n", "400"]),
        ] {
            let arguments: Vec<&str> = ["exec", name.as_str()].into_iter().chain(command).collect();
            // A container that never came up has only what it printed.
            let text = docker(&arguments).or_else(|_| docker(&["logs", "--tail", "400", &name]));
            let file = logs.join(format!("{name}-{what}.log"));
            if text.is_ok_and(|text| fs::write(&file, text).is_ok()) {
                saved.push(file);
            }
        }
    }
    if saved.is_empty() { why.to_owned() } else { format!("{why}; logs of its nodes: {}", logs.display()) }
}

/// Removes a cluster: containers with their volumes, servers beside it among them, network, files; only those
/// of exactly this name. What is gone already is no error.
///
/// # Errors
/// What could not be removed.
pub fn remove(names: &Names) -> Result<(), String> {
    end_makers(&names.cluster);
    let there = all_containers(&names.cluster)?;
    if !there.is_empty() {
        let mut command = Command::new("docker");
        command.args(["rm", "--force", "--volumes"]).args(&there);
        let said = within(&mut command, REMOVE_WITHIN, &|| false);
        // Docker may still be at it for a run that was killed: what counts is that they are gone.
        let begin = Instant::now();
        loop {
            let left = all_containers(&names.cluster)?;
            if left.is_empty() {
                break;
            }
            if said.is_ok() || begin.elapsed() > GONE_WITHIN {
                let why = said.err().unwrap_or_else(|| "Docker says nothing".into());
                return Err(format!("containers are still there: {}: {why}", left.join(", ")));
            }
            std::thread::sleep(LOOK);
        }
    }
    let networks =
        docker(&["network", "ls", "--filter", &format!("label={LABEL}={}", names.cluster), "--format", "{{.Name}}"])?;
    for network in networks.lines().filter(|network| *network == names.cluster) {
        // Somebody else may be removing it, too.
        if let Err(why) = docker(&["network", "rm", network])
            && docker(&["network", "inspect", network]).is_ok()
        {
            return Err(why);
        }
    }
    match fs::remove_dir_all(&names.folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {e}", names.folder.display())),
        _ => Ok(()),
    }
}

/// A run that was killed alone left its kind at work, or one whose time was over its children: they would
/// go on to make what is being removed.
fn end_makers(cluster: &str) {
    let label = format!("{KIND_LABEL}={cluster}");
    // kind first: it starts the others.
    for (program, word) in [("kind", cluster), ("docker", label.as_str())] {
        let mut ended = false;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let mut words = words.split(|byte| *byte == 0).map(String::from_utf8_lossy);
            let is_it = words.next().is_some_and(|first| Path::new(&*first).ends_with(program));
            if is_it && words.any(|one| one == word) {
                ended |= process::end(pid).is_ok();
            }
        }
        // What Docker was told to do by then it still does.
        if ended {
            std::thread::sleep(TOLD_BEFORE);
        }
    }
}
