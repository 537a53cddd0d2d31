//! Sockets made in a namespace, for the caller's runtime to drive.
//!
//! A socket stays in the namespace it was made in. All come non-blocking and closed on exec, ready
//! for tokio's `from_std`. TCP always uses cubic: the machine's own choice (BBR) would make flows
//! behave differently from machine to machine.
//!
//! Echo requests are in [`icmp`].

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Context, Result};
use crate::netns::NetNs;

pub mod icmp;

pub use icmp::{Icmp, echo_request, parse_echo_reply};

/// How a TCP client's socket is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct StreamOptions {
    /// The address to come from; port 0 leaves the port to the moment of connecting.
    pub bind: Option<SocketAddr>,
    pub nodelay: bool,
    /// Closing resets the connection, and leaves no socket behind that would keep its namespace.
    pub reset_on_close: bool,
}

/// A socket for one connection to `remote`'s family, not connected yet:
/// `tokio::net::TcpSocket::from_std_stream(socket.into()).connect(remote)`.
///
/// # Errors
/// What the kernel said.
pub fn tcp_stream_socket(ns: &NetNs, remote: IpAddr, options: StreamOptions) -> Result<Socket> {
    ns.run(move || -> io::Result<Socket> {
        let socket = tcp(remote)?;
        socket.set_tcp_nodelay(options.nodelay)?;
        if options.reset_on_close {
            socket.set_linger(Some(Duration::ZERO))?;
        }
        if let Some(address) = options.bind {
            if address.port() == 0 {
                port_when_connecting(&socket)?;
            } else {
                socket.set_reuse_address(true)?;
            }
            socket.bind(&address.into())?;
        }
        Ok(socket)
    })?
    .context(|| format!("make a tcp socket in {}", ns.name()))
}

/// A listening TCP socket.
///
/// # Errors
/// What the kernel said.
pub fn tcp_listener(ns: &NetNs, address: SocketAddr, backlog: i32) -> Result<TcpListener> {
    ns.run(move || -> io::Result<TcpListener> {
        let socket = tcp(address.ip())?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(socket.into())
    })?
    .context(|| format!("listen on tcp {address} in {}", ns.name()))
}

/// A bound UDP socket.
///
/// # Errors
/// What the kernel said.
pub fn udp(ns: &NetNs, address: SocketAddr) -> Result<UdpSocket> {
    ns.run(move || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    })?
    .context(|| format!("bind udp {address} in {}", ns.name()))
}

fn tcp(like: IpAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(like, 0));
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    match socket.set_tcp_congestion(b"cubic") {
        // A kernel without cubic: its default has to do.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
        result => result?,
    }
    Ok(socket)
}

/// Without it, binding reserves a port for this address alone, and 28000 sockets use up all ports
/// although they go to different destinations.
fn port_when_connecting(socket: &Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).expect("four");
    // SAFETY: the descriptor is open, and the pointer and the length describe the integer `on`,
    // which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
