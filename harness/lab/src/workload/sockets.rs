//! Sockets of a namespace, registered with this process's runtime.

use std::io;
use std::net::SocketAddr;

use relapse_kernel::error::Context;
use relapse_kernel::{NetNs, Result, socket};
use relapse_model::Failure;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use super::failure_of;

/// Accept backlog: bursts of held connections arrive faster than they are accepted.
const BACKLOG: i32 = 4096;

/// A UDP socket bound in `ns`.
///
/// # Errors
/// The error reported by the kernel.
pub fn udp(ns: &NetNs, address: SocketAddr) -> Result<UdpSocket> {
    UdpSocket::from_std(socket::udp(ns, address)?).context(|| format!("drive a udp socket of {}", ns.name()))
}

/// A listening TCP socket in `ns`.
///
/// # Errors
/// The error reported by the kernel, typically that the port is in use.
pub fn tcp_listener(ns: &NetNs, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::from_std(socket::tcp_listener(ns, address, BACKLOG)?)
        .context(|| format!("drive a listening socket of {}", ns.name()))
}

/// Opens a connection from a namespace.
///
/// # Errors
/// The failure as seen by the client.
pub async fn connect(ns: &NetNs, peer: SocketAddr) -> std::result::Result<TcpStream, Failure> {
    open(ns, peer, None, None).await.map_err(|e| failure_of(&e))
}

/// Opens a connection, optionally from a given address and with a given MSS.
///
/// # Errors
/// The error of the socket.
pub async fn open(ns: &NetNs, peer: SocketAddr, bind: Option<SocketAddr>, mss: Option<u16>) -> io::Result<TcpStream> {
    let socket = socket::tcp_stream_socket(ns, peer.ip(), bind).map_err(io::Error::other)?;
    if let Some(mss) = mss {
        socket.set_tcp_mss(mss.into())?;
    }
    TcpSocket::from_std_stream(socket.into()).connect(peer).await
}
