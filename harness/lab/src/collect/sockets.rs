//! TCP sockets of the node and of its pods, from sock_diag.
//!
//! Of many thousand sockets only the relevant ones are reported: those with retransmissions, or with a peer outside the
//! pods; of many idle ones a tenth at a time.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relapse_detectors::signal::{CollectorKind, Socket, TcpState};
use relapse_kernel::Result;
use relapse_kernel::sockdiag::{self, SockDiag, TcpSocket, mask, state};
use relapse_model::PodId;
use tokio::task::JoinSet;

use super::{Agent, CollectorInfo};

const EVERY: Duration = Duration::from_millis(100);
/// Idle sockets beyond this number are reported in turns.
const MANY: usize = 256;
const TURNS: u16 = 10;
/// The pause after a scan, as a multiple of its duration: an agent uses at most a tenth of a processor.
const REST: u32 = 9;

pub const COLLECTORS: &[CollectorInfo] = &[CollectorInfo::on_each_node(&[CollectorKind::Sockets], start).tried(
    "socket state",
    "sock_diag lists and destroys sockets",
    |ns| sockdiag::destroy_all(ns).map(drop),
)];

fn start(agent: &Arc<Agent>, tasks: &mut JoinSet<()>) -> Result<()> {
    let node = SockDiag::open(&agent.ns)?;
    let agent = Arc::clone(agent);
    tasks.spawn(async move {
        let mut pods: HashMap<String, SockDiag> = HashMap::new();
        for turn in (0..TURNS).cycle() {
            let begin = Instant::now();
            if let Err(e) = scan(&agent, &node, &mut pods, turn) {
                agent.lost(CollectorKind::Sockets, e);
            }
            let took = begin.elapsed();
            tokio::time::sleep(EVERY.saturating_sub(took).max(took * REST)).await;
        }
    });
    Ok(())
}

fn scan(agent: &Agent, node: &SockDiag, pods: &mut HashMap<String, SockDiag>, turn: u16) -> Result<()> {
    let idle = Cell::new(0);
    let interesting =
        |socket: &TcpSocket| is_relevant(agent, socket) && (is_busy(socket) || is_due(&idle, socket, turn));
    emit(agent, None, &node.tcp_sockets_that(INTERESTING, interesting)?);
    let present = agent.pods();
    pods.retain(|name, _| present.iter().any(|pod| pod.name == *name));
    for pod in present {
        if !pods.contains_key(&pod.name) {
            let Some(number) = agent.cluster.plan().pods.iter().position(|p| p.name == pod.name) else { continue };
            pods.insert(pod.name.clone(), SockDiag::open(&agent.cluster.pod(PodId(number)).ns)?);
        }
        let sockets = pods[&pod.name].tcp_sockets_that(INTERESTING, interesting)?;
        emit(agent, Some(&pod.name), &sockets);
    }
    Ok(())
}

const INTERESTING: u32 =
    mask(&[state::ESTABLISHED, state::SYN_SENT, state::FIN_WAIT_1, state::CLOSE_WAIT, state::LAST_ACK]);

/// Connections between pods are relevant only with retransmissions.
fn is_relevant(agent: &Agent, socket: &TcpSocket) -> bool {
    // A Service address stands for a pod.
    let services = agent.cluster.plan().network.service_prefix;
    let inside = agent.is_pod(socket.remote.ip()) || services.contains(socket.remote.ip());
    !inside || socket.retransmits > 0
}

/// Whether something is not acknowledged.
const fn is_busy(socket: &TcpSocket) -> bool {
    socket.send_queue > 0 || socket.retransmits > 0
}

/// Whether an idle socket is reported now: it is one of the first, or it is its turn.
fn is_due(idle: &Cell<usize>, socket: &TcpSocket, turn: u16) -> bool {
    idle.set(idle.get() + 1);
    idle.get() <= MANY || socket.remote.port() % TURNS == turn
}

fn emit(agent: &Agent, pod: Option<&str>, sockets: &[TcpSocket]) {
    for socket in sockets {
        let Some(info) = &socket.info else { continue };
        agent.emit(Socket {
            pod: pod.map(str::to_owned),
            local: socket.local,
            remote: socket.remote,
            state: tcp_state(socket.state),
            retransmits: info.retransmits,
            total_retransmits: info.total_retrans,
            unacked: info.unacked,
            rto_us: info.rto_us,
            rtt_us: info.rtt_us,
            send_mss: info.snd_mss,
            bytes_acked: info.bytes_acked,
            bytes_received: info.bytes_received,
            send_queue: socket.send_queue,
        });
    }
}

const fn tcp_state(number: u8) -> TcpState {
    match number {
        1 => TcpState::Established,
        2 => TcpState::SynSent,
        3 => TcpState::SynRecv,
        4 => TcpState::FinWait1,
        5 => TcpState::FinWait2,
        6 => TcpState::TimeWait,
        7 => TcpState::Close,
        8 => TcpState::CloseWait,
        9 => TcpState::LastAck,
        10 => TcpState::Listen,
        11 => TcpState::Closing,
        other => TcpState::Unknown(other),
    }
}
