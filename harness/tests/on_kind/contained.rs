//! No packet of a lab leaves through Docker's NIC: tested from a node and from a pod with routes to that NIC, with a
//! capture on this machine.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use relapse_kernel::packet::{Capture, Filter, Packet};
use relapse_kernel::{NetNs, nft};

use super::super::Tested;
use crate::support::real_run::{docker, until};

/// An unused address of the scenario's database network.
const LAB_ADDRESS: &str = "10.176.46.99";
/// Comments of the guard's counters.
const TABLE: &str = "guard-of-relapse";
const COUNTERS: [&str; 2] = ["a pod's address", "neither a node nor this machine"];
/// Source and destination port: the capture only sees the first, which nodes would redirect as a destination.
const PORTS: (u16, u16) = (53, 9);

/// The reason in the trial's result.
pub const REASON: &str = "packets of the lab tried to leave by Docker's NIC (dropped)";

/// Sends packets from the second worker of a run and from one of its pods.
pub fn try_to_leave(id: &str) -> Tested {
    // The capture needs a runtime.
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
    // Simulates a faulty fault: route a lab address to Docker's NIC.
    ip(&format!("route add {LAB_ADDRESS}/32 dev eth0"))?;
    ip(&format!("rule add pref 1 to {LAB_ADDRESS}/32 lookup main"))?;
    let from_node = send(&node, LAB_ADDRESS);
    let from_pod = send(&pod, LAB_ADDRESS);
    ip(&format!("rule del pref 1 to {LAB_ADDRESS}/32 lookup main"))?;
    ip(&format!("route del {LAB_ADDRESS}/32 dev eth0"))?;
    // The guard's drop makes the node's own send fail; a pod's packet is sent and dropped later.
    if from_node.as_ref().map_err(std::io::Error::kind) != Err(std::io::ErrorKind::PermissionDenied) {
        return Err(format!("the node's packet was not refused: {from_node:?}"));
    }
    from_pod.map_err(|e| format!("the pod could not send: {e}"))?;
    until("the guard counts both", Duration::from_secs(2), || {
        let now = hits(&node)?;
        Ok(now.iter().zip(&before).all(|(now, before)| now > before).then_some(()))
    })?;
    // An allowed packet sent later on the same path is seen, so an unseen one was dropped.
    send(&node, &gateway).map_err(|e| format!("the node could not send to this machine: {e}"))?;
    let mut frames = Vec::new();
    let sent_to = |address: &str| SocketAddr::new(address.parse().expect("an address"), PORTS.1);
    until("the allowed packet is seen", Duration::from_secs(2), || {
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

/// The namespace of a pod of this node: that of a process in the container's cgroup with another network namespace.
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
