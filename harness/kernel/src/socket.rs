//! Sockets created in a namespace and driven by the caller's runtime.
//!
//! A socket stays in the namespace in which it was created. All are non-blocking and close-on-exec, ready
//! for tokio's `from_std`. TCP always uses cubic: with the machine's default (BBR, say) flows would behave
//! differently from machine to machine.
//!
//! Echo requests are in [`icmp`].

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Context, Result};
use crate::netns::NetNs;

pub mod icmp;

pub use icmp::Icmp;

/// A TCP socket for the address family of `remote`, not connected yet:
/// `tokio::net::TcpSocket::from_std_stream(socket.into()).connect(remote)`. It is bound to `bind` if given;
/// with port 0 the port is chosen when connecting.
///
/// # Errors
/// The error reported by the kernel.
pub fn tcp_stream_socket(ns: &NetNs, remote: IpAddr, bind: Option<SocketAddr>) -> Result<Socket> {
    ns.run(move || -> io::Result<Socket> {
        let socket = tcp(remote)?;
        if let Some(address) = bind {
            if address.port() == 0 {
                // Without this option binding reserves the port for the address, and 28000 sockets use up all ports
                // even if they connect to different destinations.
                option(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1_i32)?;
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
/// The error reported by the kernel.
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
/// The error reported by the kernel.
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
        // A kernel without cubic keeps its default.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
        result => result?,
    }
    Ok(socket)
}

/// Sets a socket option to a C value.
pub(crate) fn option<T: Copy>(socket: &Socket, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is live, has the given length and is only read.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const *value).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
