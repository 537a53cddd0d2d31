//! Sockets of a namespace, handed to this process's runtime.

use std::net::SocketAddr;

use relapse_kernel::error::Context;
use relapse_kernel::{NetNs, Result, socket};
use tokio::net::{TcpListener, UdpSocket};

/// Connections that may wait to be accepted: bursts of held connections come faster than they are.
const BACKLOG: i32 = 4096;

/// A UDP socket bound in `ns`.
///
/// # Errors
/// What the kernel said.
pub fn udp(ns: &NetNs, address: SocketAddr) -> Result<UdpSocket> {
    UdpSocket::from_std(socket::udp(ns, address)?).context(|| format!("drive a udp socket of {}", ns.name()))
}

/// A listening TCP socket in `ns`.
///
/// # Errors
/// What the kernel said; a port that is taken, above all.
pub fn tcp_listener(ns: &NetNs, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::from_std(socket::tcp_listener(ns, address, BACKLOG)?)
        .context(|| format!("drive a listening socket of {}", ns.name()))
}
