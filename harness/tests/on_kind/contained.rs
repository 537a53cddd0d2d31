//! No packet of a lab leaves by Docker's NIC: it is tried from a node and from a pod, with routes that lead
//! out that way, and looked for on this machine.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use relapse_kernel::packet::{Capture, Filter, Packet};
use relapse_kernel::{NetNs, nft};

use super::super::Tested;
use crate::support::real_run::{docker, until};

/// Of the scenario's database network, where nobody is.
const LAB_ADDRESS: &str = "10.176.46.99";
/// As the guard calls what it drops.
const TABLE: &str = "guard-of-relapse";
const COUNTERS: [&str; 2] = ["a pod's address", "neither a node nor this machine"];
/// From here to there: the capture hears only of this port, and as a destination nodes redirect it.
const PORTS: (u16, u16) = (53, 9);

/// What a trial is told then.
pub const TOLD: &str = "packets of the lab tried to leave by Docker's NIC (dropped)";

/// From the first worker of a run, and from one of its pods.
pub fn try_to_leave(id: &str) -> Tested {
    // A capture wants one.
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    let _here = runtime.enter();
    let container = format!("relapse-{id}-worker2");
    let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &container])?;
    let pid = pid.parse().map_err(|e| format!("{pid}: {e}"))?;
    let node = NetNs::of_process(&container, pid).map_err(|e| e.to_string())?;
    let pod = pod_of(&container, &node)?;
    let gateway = "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}";
    let gateway = docker(&["inspect", "--format", gateway, &container])?;
    let own = NetNs::own("this machine").map_err(|e| e.to_string())?;
    let mut capture = Capture::open(&own, &Filter::dns()).map_err(|e| e.to_string())?;
    let before = hits(&node)?;
    let ip = |words: &str| {
        let all: Vec<&str> = ["exec", &container, "ip"].into_iter().chain(words.split(' ')).collect();
        docker(&all).map(drop)
    };
    // What a fault that went wrong could do: the way to a lab address is Docker's NIC.
    ip(&format!("route add {LAB_ADDRESS}/32 dev eth0"))?;
    ip(&format!("rule add pref 1 to {LAB_ADDRESS}/32 lookup main"))?;
    let from_node = send(&node, LAB_ADDRESS);
    let from_pod = send(&pod, LAB_ADDRESS);
    ip(&format!("rule del pref 1 to {LAB_ADDRESS}/32 lookup main"))?;
    ip(&format!("route del {LAB_ADDRESS}/32 dev eth0"))?;
    // The guard refuses the node's own to its face; a pod's goes, and is lost.
    if from_node.as_ref().map_err(std::io::Error::kind) != Err(std::io::ErrorKind::PermissionDenied) {
        return Err(format!("the node's packet was not refused: {from_node:?}"));
    }
    from_pod.map_err(|e| format!("the pod could not send: {e}"))?;
    until("the guard counts both", Duration::from_secs(2), || {
        let now = hits(&node)?;
        Ok(now.iter().zip(&before).all(|(now, before)| now > before).then_some(()))
    })?;
    // What may pass is seen, by the same way and later: so what is not seen did not pass.
    send(&node, &gateway).map_err(|e| format!("the node could not send to this machine: {e}"))?;
    let mut frames = Vec::new();
    let sent_to = |address: &str| SocketAddr::new(address.parse().expect("an address"), PORTS.1);
    until("what may pass is seen", Duration::from_secs(2), || {
        capture.drain(&mut frames);
        let seen = |to: SocketAddr| {
            frames.iter().any(|frame| matches!(&frame.packet, Packet::Udp(udp) if udp.destination == to))
        };
        if seen(sent_to(LAB_ADDRESS)) {
            return Err("a packet for the lab was seen outside it".into());
        }
        Ok(seen(sent_to(&gateway)).then_some(()))
    })
}

fn hits(node: &NetNs) -> Result<[u64; 2], String> {
    let count = |comment| nft::counter(node, TABLE, comment).map_err(|e| e.to_string());
    Ok([count(COUNTERS[0])?, count(COUNTERS[1])?])
}

fn send(from: &NetNs, to: &str) -> std::io::Result<usize> {
    let to = (to.to_owned(), PORTS.1);
    let sent = from.run(move || UdpSocket::bind(("0.0.0.0", PORTS.0))?.send_to(b"out", to));
    sent.map_err(std::io::Error::other)?
}

/// A namespace of a pod of this node: of a process in the container's control group, with another network.
fn pod_of(container: &str, node: &NetNs) -> Result<NetNs, String> {
    let id = docker(&["inspect", "--format", "{{.Id}}", container])?;
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut of_node = pids.filter(|pid| {
        let is = |file: &str, word: &str| {
            std::fs::read_to_string(format!("/proc/{pid}/{file}")).is_ok_and(|text| text.contains(word))
        };
        is("cgroup", &id) && is("comm", "pause")
    });
    let found = of_node.find_map(|pid| NetNs::of_process("a pod", pid).ok().filter(|ns| ns.inode() != node.inode()));
    found.ok_or_else(|| format!("{container} has no pod"))
}
