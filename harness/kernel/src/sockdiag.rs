//! The TCP sockets of a namespace with the kernel's data on each (`tcp_info`), and closing them.
//!
//! Uses sock_diag, which reports every socket of the namespace regardless of its owner, including orphans,
//! TIME_WAIT and half-open sockets that belong to no process. States are the kernel's numbers
//! ([`state`]); a mask has one bit for each ([`mask`]). The fewer states, the cheaper the request: with LISTEN alone
//! the table of connections, the machine's or the namespace's own, is not walked at all. The kernel locks each socket
//! to fill its `tcp_info`: with many thousands of sockets, [`SockDiag::tcp_sockets_that`] requests it only for those
//! selected without it.
//!
//! `tcp_info` has only been extended at its end (include/uapi/linux/tcp.h): it is read by offset, and fields an
//! older kernel does not provide are 0.
//!
//! Left out: UDP, filters on addresses.

use std::net::SocketAddr;

use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader, NlasIterator, Parseable};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags, Timer};
use netlink_packet_sock_diag::{AF_INET, AF_INET6, IPPROTO_TCP, SockDiagDestroy, SockDiagMessage};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::error::{Error, Result};
use crate::netlink::Netlink;
use crate::netns::NetNs;

/// TCP states as numbered by the kernel (include/net/tcp_states.h).
pub mod state {
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT_1: u8 = 4;
    pub const TIME_WAIT: u8 = 6;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const LISTEN: u8 = 10;
    pub const CLOSING: u8 = 11;
}

/// All states: a connection in any of them, and listeners.
pub const ALL: u32 = 0xfff;

/// The mask for a set of states.
#[must_use]
pub const fn mask(states: &[u8]) -> u32 {
    let mut mask = 0;
    let mut at = 0;
    while at < states.len() {
        mask |= 1 << states[at];
        at += 1;
    }
    mask
}

/// One TCP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpSocket {
    /// IPv4 even if carried by an IPv6 socket.
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// See [`state`].
    pub state: u8,
    /// 0 for an orphan.
    pub inode: u32,
    /// Bytes written and not acknowledged; for a listener the maximum length of its queue.
    pub send_queue: u32,
    /// Consecutive retransmissions of unacknowledged data, while the timer is running.
    pub retransmits: u8,
    /// None for TIME_WAIT and half-open connections.
    pub info: Option<TcpInfo>,
    id: SocketId,
    family: u8,
}

/// The kernel's data on a connection: an excerpt of `struct tcp_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpInfo {
    /// Consecutive retransmission timeouts of the segment that is unacknowledged now.
    pub retransmits: u8,
    pub rto_us: u32,
    pub snd_mss: u32,
    /// In segments.
    pub unacked: u32,
    pub rtt_us: u32,
    /// Segments retransmitted since the connection was opened, including tail-loss probes.
    pub total_retrans: u32,
    pub bytes_acked: u64,
    pub bytes_received: u64,
}

impl TcpSocket {
    /// Whether this kernel can close the socket. TIME_WAIT, which holds no namespace, since 6.0 ("tcp: diag: add
    /// support for TIME_WAIT sockets to tcp_abort()"). A connection without an owner that still has something to send,
    /// if only its FIN, since 6.11: before, closing it removes its last timer and leaves it and its namespace forever
    /// ("tcp: fix forever orphan socket caused by tcp_abort"; stable kernels may have the fix, but the version number
    /// does not show it).
    fn can_be_ended(&self) -> bool {
        match self.state {
            state::TIME_WAIT => kernel_is_at_least(6, 0),
            state::FIN_WAIT_1 | state::CLOSING | state::LAST_ACK if self.inode == 0 => kernel_is_at_least(6, 11),
            _ => true,
        }
    }
}

impl TcpInfo {
    fn read(bytes: &[u8]) -> Self {
        let word =
            |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_ne_bytes(*word));
        let long =
            |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |long| u64::from_ne_bytes(*long));
        Self {
            retransmits: bytes.get(2).copied().unwrap_or(0),
            rto_us: word(8),
            snd_mss: word(16),
            unacked: word(24),
            rtt_us: word(68),
            total_retrans: word(100),
            bytes_acked: long(120),
            bytes_received: long(128),
        }
    }
}

/// A sock_diag socket. Keep it open: opening one costs more than a request.
pub struct SockDiag {
    netlink: Netlink,
}

impl SockDiag {
    /// # Errors
    /// When the namespace cannot be entered or the kernel has no sock_diag.
    pub fn open(ns: &NetNs) -> Result<Self> {
        Ok(Self { netlink: ns.netlink(NETLINK_SOCK_DIAG)? })
    }

    /// The TCP sockets in one of the states of the mask, IPv4 before IPv6.
    ///
    /// # Errors
    /// The error reported by the kernel.
    pub fn tcp_sockets(&self, states: u32) -> Result<Vec<TcpSocket>> {
        self.list(states, true)
    }

    /// Those sockets, with `tcp_info`, for which `interesting` holds by their data without it. A socket that
    /// closes in between is left out.
    ///
    /// # Errors
    /// The error reported by the kernel.
    pub fn tcp_sockets_that(&self, states: u32, interesting: impl Fn(&TcpSocket) -> bool) -> Result<Vec<TcpSocket>> {
        let mut found = self.list(states, false)?;
        found.retain(interesting);
        let with_info = found.into_iter().map(|socket| {
            let request = request(socket.family, states, true, socket.id);
            match self.netlink.get("look at a TCP socket", request) {
                Ok(DiagMessage(socket)) => Ok(Some(socket)),
                Err(e) if e.errno() == Some(libc::ENOENT) => Ok(None),
                Err(e) => Err(e),
            }
        });
        with_info.filter_map(Result::transpose).collect()
    }

    fn list(&self, states: u32, with_info: bool) -> Result<Vec<TcpSocket>> {
        let mut sockets = Vec::new();
        for (family, id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            let answers = self.netlink.dump(
                "list TCP sockets",
                request(family, states, with_info, id),
                |DiagMessage(socket)| Some(socket),
            )?;
            sockets.extend(answers);
        }
        Ok(sockets)
    }

    /// Aborts a connection as if it had been reset: the peer receives an RST, the owner sees
    /// `ECONNABORTED`. A socket that has closed meanwhile is not an error.
    ///
    /// A socket this kernel cannot close is left to its timer: TIME_WAIT before 6.0, and before 6.11 sockets without an
    /// owner, so close connections while their owners live.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`, `EOPNOTSUPP` on kernels without `INET_DIAG_DESTROY`.
    pub fn destroy(&self, socket: &TcpSocket) -> Result<()> {
        if !socket.can_be_ended() {
            return Ok(());
        }
        let request = SockDiagDestroy::new(request(socket.family, ALL, false, socket.id.clone()));
        match self.netlink.change("end a TCP socket", request, 0) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }
}

/// Closes every TCP socket of a namespace that can be closed, listeners first, so that nothing new is accepted, and
/// returns their number: sockets with unacknowledged data would keep the namespace for minutes after its last process.
/// Call [`SockDiag::tcp_sockets`] afterwards to verify.
///
/// # Errors
/// The first refusal, after all were tried; [`Error::NotInForce`] if new sockets keep appearing.
pub fn destroy_all(ns: &NetNs) -> Result<usize> {
    let diag = SockDiag::open(ns)?;
    let left = || -> Result<Vec<TcpSocket>> {
        let mut sockets = diag.list(ALL, false)?;
        sockets.retain(TcpSocket::can_be_ended);
        Ok(sockets)
    };
    let mut ended = 0;
    for _ in 0..5 {
        let mut sockets = left()?;
        if sockets.is_empty() {
            return Ok(ended);
        }
        sockets.sort_by_key(|socket| socket.state != state::LISTEN);
        let mut refusal = Ok(());
        for socket in &sockets {
            match diag.destroy(socket) {
                Ok(()) => ended += 1,
                error => refusal = refusal.and(error),
            }
        }
        refusal?;
    }
    match left()?.len() {
        0 => Ok(ended),
        left => Err(Error::NotInForce { what: "end all TCP sockets".into(), read_back: format!("{left} sockets") }),
    }
}

/// Whether the running kernel is of this version or later; false if the version cannot be read.
fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    numbers.next().zip(numbers.next()) >= Some((major, minor))
}

fn request(family: u8, states: u32, with_info: bool, socket_id: SocketId) -> SockDiagMessage {
    let extensions = if with_info { ExtensionFlags::INFO } else { ExtensionFlags::empty() };
    let states = StateFlags::from_bits_retain(states);
    SockDiagMessage::InetRequest(InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id })
}

/// A socket as reported by the kernel. Of its attributes only `tcp_info` is decoded, in place.
struct DiagMessage(TcpSocket);

/// `struct inet_diag_msg`, and the number of its attribute (include/uapi/linux/inet_diag.h).
const INET_DIAG_MSG: usize = 72;
const INET_DIAG_INFO: u16 = 2;

impl NetlinkDeserializable for DiagMessage {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> std::result::Result<Self, DecodeError> {
        let header = InetResponseHeader::parse(payload)?;
        let attributes = NlasIterator::new(payload.get(INET_DIAG_MSG..).unwrap_or_default());
        let info = attributes.map_while(std::result::Result::ok).find(|attribute| attribute.kind() == INET_DIAG_INFO);
        let id = header.socket_id;
        let retransmits = match header.timer {
            Some(Timer::Retransmit(_, retransmits)) => retransmits,
            _ => 0,
        };
        Ok(Self(TcpSocket {
            local: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
            remote: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
            state: header.state,
            inode: header.inode,
            send_queue: header.send_queue,
            retransmits,
            info: info.map(|attribute| TcpInfo::read(attribute.value())),
            id,
            family: header.family,
        }))
    }
}
