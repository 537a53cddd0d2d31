//! TCP sockets of a node and of its pods.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// TCP states as the kernel numbers them (`include/net/tcp_states.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TcpState {
    Established,
    SynSent,
    SynRecv,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    Unknown(u8),
}

/// State of a TCP socket in the namespace of a pod or of the node: sock_diag, `struct tcp_info`
/// (`include/uapi/linux/tcp.h`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// The pod whose namespace holds it; `None` for the node's own.
    pub pod: Option<String>,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub state: TcpState,
    /// Consecutive retransmission timeouts of the oldest unacknowledged segment (`tcpi_retransmits`).
    pub retransmits: u8,
    /// Over the life of the socket (`tcpi_total_retrans`); tail-loss probes count too.
    pub total_retransmits: u32,
    /// Segments in flight (`tcpi_unacked`).
    pub unacked: u32,
    /// Current retransmission timeout, microseconds.
    pub rto_us: u32,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Maximum segment size towards the peer, bytes (`tcpi_snd_mss`).
    pub send_mss: u32,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    /// Bytes in the send queue that were sent and not acknowledged, or not yet sent.
    pub send_queue: u32,
}

impl Socket {
    /// Identifies the socket on its node.
    pub(crate) fn key(&self) -> SocketKey {
        (self.pod.clone(), self.local, self.remote)
    }
}

pub(crate) type SocketKey = (Option<String>, SocketAddr, SocketAddr);
