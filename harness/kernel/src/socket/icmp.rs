//! ICMP echo: is the way there and back open, and how long is it?
//!
//! A raw socket, as an ordinary user has it in a user namespace. It sees every ICMP packet that
//! arrives in the namespace; an answer is one's own by its sender, identifier and sequence number.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Icmpv6Header, Icmpv6Type, Ipv4HeaderSlice};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use crate::error::{Context, Result};
use crate::netns::NetNs;

/// A socket for echo requests of one family. One at a time: an answer that comes while nobody
/// waits for it is not kept for a later request.
pub struct Icmp {
    socket: AsyncFd<Raw>,
    v6: bool,
    id: u16,
    sequence: AtomicU16,
}

struct Raw(Socket);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Icmp {
    /// Opens a socket, bound to `bind` if given and of its family, else for IPv4. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open(ns: &NetNs, bind: Option<IpAddr>) -> Result<Self> {
        static IDS: AtomicU16 = AtomicU16::new(1);
        let what = || format!("open an icmp socket in {}", ns.name());
        let v6 = bind.is_some_and(|ip| ip.is_ipv6());
        let socket = icmp(ns, bind)?;
        // SAFETY: the socket owns its descriptor and is neither replaced nor closed while registered.
        let socket = unsafe { AsyncFd::register_with_interest(Raw(socket), Interest::READABLE | Interest::WRITABLE) };
        let socket = socket.map_err(io::Error::from).context(what)?;
        Ok(Self { socket, v6, id: IDS.fetch_add(1, Ordering::Relaxed), sequence: AtomicU16::new(0) })
    }

    /// Asks `destination` and waits for its answer; `None` when none came in time.
    ///
    /// # Errors
    /// When the request cannot be sent (`ENETUNREACH`: there is no way at all).
    pub async fn echo(&self, destination: IpAddr, timeout: Duration) -> io::Result<Option<Duration>> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let request = if destination.is_ipv4() {
            echo_request(self.id, sequence, PAYLOAD)
        } else {
            echo_request_v6(self.id, sequence, PAYLOAD)
        };
        let target = SocketAddr::new(destination, 0).into();
        let start = Instant::now();
        self.socket.async_io(Interest::WRITABLE, |raw| raw.0.send_to(&request, &target)).await?;
        match timeout_at(start + timeout, self.answer(destination, sequence)).await {
            Ok(answered) => answered.map(|()| Some(start.elapsed())),
            Err(_elapsed) => Ok(None),
        }
    }

    async fn answer(&self, from: IpAddr, sequence: u16) -> io::Result<()> {
        loop {
            let (packet, sender) = self.socket.async_io(Interest::READABLE, |raw| receive(&raw.0)).await?;
            let reply = if self.v6 {
                parse_echo_reply_v6(&packet).map(|(id, seq)| (id, seq, sender))
            } else {
                parse_echo_reply(&packet).map(|(id, seq, source)| (id, seq, Some(source.into())))
            };
            if reply == Some((self.id, sequence, Some(from))) {
                return Ok(());
            }
        }
    }
}

/// A raw ICMP socket, for those who want to read all of it. IPv4 packets come with their IP header.
///
/// # Errors
/// What the kernel said.
pub fn icmp(ns: &NetNs, bind: Option<IpAddr>) -> Result<Socket> {
    let (domain, protocol) = match bind {
        Some(IpAddr::V6(_)) => (Domain::IPV6, Protocol::ICMPV6),
        _ => (Domain::IPV4, Protocol::ICMPV4),
    };
    ns.run(move || -> io::Result<Socket> {
        let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol))?;
        if let Some(address) = bind {
            socket.bind(&SocketAddr::new(address, 0).into())?;
        }
        Ok(socket)
    })?
    .context(|| format!("open an icmp socket in {}", ns.name()))
}

const PAYLOAD: &[u8] = b"relapse echo";

/// An ICMP echo request, checksum included, without IP header.
#[must_use]
pub fn echo_request(id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let kind = Icmpv4Type::EchoRequest(IcmpEchoHeader { id, seq: sequence });
    let mut bytes = Icmpv4Header::with_checksum(kind, payload).to_bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// Identifier, sequence number and sender of an echo reply, from an IPv4 packet.
#[must_use]
pub fn parse_echo_reply(packet: &[u8]) -> Option<(u16, u16, Ipv4Addr)> {
    let ip = Ipv4HeaderSlice::from_slice(packet).ok()?;
    let icmp = Icmpv4Slice::from_slice(packet.get(ip.slice().len()..)?).ok()?;
    match icmp.icmp_type() {
        Icmpv4Type::EchoReply(echo) => Some((echo.id, echo.seq, ip.source_addr())),
        _ => None,
    }
}

/// The kernel fills in the checksum, which covers addresses that it alone knows.
fn echo_request_v6(id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let kind = Icmpv6Type::EchoRequest(IcmpEchoHeader { id, seq: sequence });
    let mut bytes = Icmpv6Header::new(kind).to_bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn parse_echo_reply_v6(packet: &[u8]) -> Option<(u16, u16)> {
    match Icmpv6Header::from_slice(packet).ok()?.0.icmp_type {
        Icmpv6Type::EchoReply(echo) => Some((echo.id, echo.seq)),
        _ => None,
    }
}

fn receive(socket: &Socket) -> io::Result<(Vec<u8>, Option<IpAddr>)> {
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let (length, sender) = socket.recv_from(&mut buffer)?;
    // SAFETY: the kernel has written the first `length` bytes of the buffer.
    let bytes = buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
    Ok((bytes, sender.as_socket().map(|address| address.ip())))
}

#[cfg(test)]
mod tests {
    use super::{echo_request, parse_echo_reply};
    use etherparse::PacketBuilder;

    #[test]
    fn a_reply_is_told_from_a_request() {
        let packet = |reply: bool| {
            let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
            let mut bytes = Vec::new();
            if reply {
                builder.icmpv4_echo_reply(7, 9).write(&mut bytes, b"x").expect("written");
            } else {
                builder.icmpv4_echo_request(7, 9).write(&mut bytes, b"x").expect("written");
            }
            bytes
        };
        assert_eq!(parse_echo_reply(&packet(true)), Some((7, 9, [10, 0, 0, 1].into())));
        assert_eq!(parse_echo_reply(&packet(false)), None);
        assert_eq!(&packet(false)[20..], echo_request(7, 9, b"x"));
        for length in 0..28 {
            assert_eq!(parse_echo_reply(&packet(true)[..length]), None, "{length} bytes");
        }
    }
}
