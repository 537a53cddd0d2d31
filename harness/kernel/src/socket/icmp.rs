//! ICMP echo: checks that a path is open in both directions and measures its round-trip time.
//!
//! Uses a raw socket, available to an ordinary user in a user namespace. It receives every ICMP packet that
//! arrives in the namespace; replies are matched by sender, identifier and sequence number.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Icmpv6Header, Icmpv6Type, Ipv4HeaderSlice};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use crate::error::{Context, Result};
use crate::netns::NetNs;
use crate::watched::watched;

const PAYLOAD: &[u8] = b"relapse echo";

/// A socket for echo requests of one address family, one at a time: a reply that arrives while no request is
/// pending is discarded.
pub struct Icmp {
    socket: AsyncFd<Socket>,
    v6: bool,
    id: u16,
    sequence: AtomicU16,
}

impl Icmp {
    /// Opens a socket, bound to `bind` and of its address family if given, otherwise for IPv4. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// The error reported by the kernel.
    pub fn open(ns: &NetNs, bind: Option<IpAddr>) -> Result<Self> {
        static IDS: AtomicU16 = AtomicU16::new(1);
        let v6 = bind.is_some_and(|ip| ip.is_ipv6());
        let (domain, protocol) = if v6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
        let open = || -> io::Result<_> {
            let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol))?;
            if let Some(address) = bind {
                socket.bind(&SocketAddr::new(address, 0).into())?;
            }
            watched(socket, Interest::READABLE | Interest::WRITABLE)
        };
        let socket = ns.run(open)?.context(|| format!("open an icmp socket in {}", ns.name()))?;
        Ok(Self { socket, v6, id: IDS.fetch_add(1, Ordering::Relaxed), sequence: AtomicU16::new(0) })
    }

    /// Sends an echo request to `destination` and waits for the reply; `None` on timeout.
    ///
    /// # Errors
    /// When the request cannot be sent (`ENETUNREACH`: no route).
    pub async fn echo(&self, destination: IpAddr, timeout: Duration) -> io::Result<Option<Duration>> {
        let echo = IcmpEchoHeader { id: self.id, seq: self.sequence.fetch_add(1, Ordering::Relaxed) };
        let header = if self.v6 {
            // The kernel fills in the checksum, which covers addresses known only to it.
            Icmpv6Header::new(Icmpv6Type::EchoRequest(echo)).to_bytes().to_vec()
        } else {
            Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), PAYLOAD).to_bytes().to_vec()
        };
        let request = [&header, PAYLOAD].concat();
        let target = SocketAddr::new(destination, 0).into();
        let start = Instant::now();
        self.socket.async_io(Interest::WRITABLE, |socket| socket.send_to(&request, &target)).await?;
        match timeout_at(start + timeout, self.answer(destination, echo)).await {
            Ok(answered) => answered.map(|()| Some(start.elapsed())),
            Err(_elapsed) => Ok(None),
        }
    }

    async fn answer(&self, from: IpAddr, request: IcmpEchoHeader) -> io::Result<()> {
        loop {
            let (packet, sender) = self.socket.async_io(Interest::READABLE, receive).await?;
            let reply = if self.v6 { echo_reply_v6(&packet) } else { echo_reply_v4(&packet) };
            if reply == Some(request) && sender == Some(from) {
                return Ok(());
            }
        }
    }
}

/// IPv4 packets are received with their IP header.
fn echo_reply_v4(packet: &[u8]) -> Option<IcmpEchoHeader> {
    let ip = Ipv4HeaderSlice::from_slice(packet).ok()?;
    match Icmpv4Slice::from_slice(packet.get(ip.slice().len()..)?).ok()?.icmp_type() {
        Icmpv4Type::EchoReply(echo) => Some(echo),
        _ => None,
    }
}

fn echo_reply_v6(packet: &[u8]) -> Option<IcmpEchoHeader> {
    match Icmpv6Header::from_slice(packet).ok()?.0.icmp_type {
        Icmpv6Type::EchoReply(echo) => Some(echo),
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
