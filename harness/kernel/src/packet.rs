//! Captures the packets a namespace sends and receives: AF_PACKET behind a BPF filter.
//!
//! A [`Capture`] sees all interfaces of one namespace, both directions. Invariants: when
//! [`Capture::open`] returns, the filter is in force, and no frame that does not match is ever
//! delivered; every frame carries the kernel's own timestamp; frames that find the ring full are
//! counted in [`Capture::lost`].
//!
//! Offloads stay on, as on a real node: veth passes on TCP segments of up to 64 kB, which are split later or
//! never. `PACKET_VNET_HDR` provides the segment size ([`Tcp::gso_size`]), so that a frame of 44 kB is not taken
//! for a segment that fits no link.
//!
//! A forwarded packet is seen twice, once incoming and once outgoing, and so is everything on the
//! loopback interface: to count packets, use one direction ([`Frame::outgoing`]).
//!
//! Left out: ICMP, payloads beyond the first bytes, fragments after the first, IPv6 extension headers.

mod filter;
mod parse;
mod ring;

use std::io;
use std::mem::{ManuallyDrop, size_of};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use self::filter::Filter;
use self::ring::Ring;
use crate::clock;
use crate::error::{Context, Result};
use crate::netns::NetNs;
use crate::watched::watched;

/// The maximum number of frames in one batch, so that a flood cannot occupy its reader forever.
const BATCH: usize = 1024;

/// One frame that passed the filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub at: u64,
    /// The interface it was seen on, by its index in the namespace.
    pub ifindex: u32,
    /// Sent through that interface, otherwise received.
    pub outgoing: bool,
    pub packet: Packet,
}

/// The transport layer of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    Tcp(Tcp),
    Udp(Udp),
}

/// A TCP segment, or several in one frame (see `gso_size`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub flags: Flags,
    pub sequence: u32,
    pub acknowledgment: u32,
    /// Bytes of payload in the whole frame.
    pub payload_len: u32,
    /// Set if the frame will be segmented: bytes of payload in each segment on the wire.
    pub gso_size: Option<u16>,
    pub mss: Option<u16>,
    /// The sender's clock (RFC 7323 TSval).
    pub tsval: Option<u32>,
    /// The first bytes of the payload, zeros where it is shorter.
    pub head: [u8; TCP_HEAD],
}

/// Bytes kept of a TCP payload: an HTTP/1 status line up to the end of the status (RFC 9112, 4).
pub const TCP_HEAD: usize = "HTTP/1.1 200".len();

impl Tcp {
    /// Bytes of payload in the largest segment on the wire.
    #[must_use]
    pub fn segment_len(&self) -> u32 {
        self.gso_size.map_or(self.payload_len, |size| self.payload_len.min(u32::from(size)))
    }
}

/// The control bits of a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
}

/// A UDP datagram and the first 512 bytes of its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Udp {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub payload: Vec<u8>,
}

/// A running capture; dropping it stops it.
#[derive(Debug)]
pub struct Capture {
    open: ManuallyDrop<Open>,
    lost: u64,
}

#[derive(Debug)]
struct Open {
    ring: Ring,
    socket: AsyncFd<Socket>,
}

impl Capture {
    /// Starts a capture on all interfaces of `ns`. Must be called within a tokio runtime. Waits for
    /// an RCU grace period of the kernel, 4 to 16 ms, shared by concurrent calls: open several captures
    /// in parallel (`spawn_blocking`; 30 take 24 ms).
    ///
    /// # Errors
    /// When the kernel refuses (no `CAP_NET_RAW` in the namespace's owner).
    pub fn open(ns: &NetNs, filter: &Filter) -> Result<Self> {
        // Protocol 0: the socket receives nothing until it is bound, so no frame can arrive before the filter is
        // attached, and there is nothing to drain (packet_create in net/packet/af_packet.c registers its hook
        // only for a protocol).
        let socket = ns.run(|| Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None))?;
        let prepare = |socket: Socket| -> io::Result<Open> {
            socket.attach_filter(&filter.program())?;
            let ring = Ring::map(&socket, filter.snap())?;
            bind(&socket)?;
            Ok(Open { ring, socket: watched(socket, Interest::READABLE)? })
        };
        let open = socket.and_then(prepare).context(|| format!("capture packets in {}", ns.name()))?;
        Ok(Self { open: ManuallyDrop::new(open), lost: 0 })
    }

    /// Waits for frames and appends them to `out`. Cancel safe.
    ///
    /// # Errors
    /// When the socket can no longer be waited for.
    pub async fn next_batch(&mut self, out: &mut Vec<Frame>) -> io::Result<usize> {
        loop {
            match self.drain(out) {
                0 => {}
                taken => return Ok(taken),
            }
            let mut ready = self.open.socket.readable().await?;
            // Checked again before the readiness is cleared: a frame that arrived in between would
            // otherwise wait for the next one.
            if self.open.ring.is_empty() {
                ready.clear_ready();
            }
        }
    }

    /// Appends the frames already received, without waiting.
    pub fn drain(&mut self, out: &mut Vec<Frame>) -> usize {
        let before = out.len();
        while out.len() - before < BATCH {
            let frame = self.open.ring.take(|slot| {
                let packet = parse::packet(slot.network, slot.length, slot.gso_size)?;
                let at = clock::from_realtime(slot.realtime);
                Some(Frame { at, ifindex: slot.ifindex, outgoing: slot.outgoing, packet })
            });
            match frame {
                None => break,
                Some(None) => {}
                Some(Some(frame)) => out.push(frame),
            }
        }
        out.len() - before
    }

    /// The number of matching frames lost to a full ring since the capture was opened.
    pub fn lost(&mut self) -> u64 {
        // Each read resets the kernel's counters (packet(7), PACKET_STATISTICS).
        let mut counts = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the buffer is a live struct of the given length, filled by the kernel.
        let result = unsafe {
            libc::getsockopt(
                self.open.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counts).cast(),
                &raw mut length,
            )
        };
        if result == 0 {
            self.lost += u64::from(counts.tp_drops);
        }
        self.lost
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // SAFETY: taken once, here; `self` is not used afterwards.
        let open = unsafe { ManuallyDrop::take(&mut self.open) };
        // Closing waits for two more grace periods, 24 ms, which must not block a thread of the runtime.
        // If no thread can be started the closure is dropped, and the socket closes here.
        let _ = std::thread::Builder::new().name("capture-end".into()).spawn(move || drop(open));
    }
}

fn bind(socket: &Socket) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr_ll is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    // Only ETH_P_ALL also receives outgoing frames.
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address is a live sockaddr_ll of the given length.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
