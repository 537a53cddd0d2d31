//! A packet queue of the kernel: its packets and the verdicts on them.
//!
//! Messages are encoded and decoded by hand, since there is one for each packet. Attributes are numbered as in
//! `linux/netfilter/nfnetlink_queue.h`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::schedule::Verdicts;
use crate::error::{Context, Error, Result};
use crate::netns::NetNs;

/// `NFNL_SUBSYS_QUEUE`, in the upper byte of a message's type.
const QUEUE: u16 = 3 << 8;
const NFQNL_MSG_PACKET: u16 = QUEUE;
const NFQNL_MSG_VERDICT: u16 = QUEUE | 1;
const NFQNL_MSG_CONFIG: u16 = QUEUE | 2;
const NFQNL_MSG_VERDICT_BATCH: u16 = QUEUE | 3;
const NLMSG_ERROR: u16 = 2;

const NFQA_PACKET_HDR: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_TIMESTAMP: u16 = 4;
const NFQA_CAP_LEN: u16 = 13;
const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQA_CFG_QUEUE_MAXLEN: u16 = 3;
const NFQA_CFG_MASK: u16 = 4;
const NFQA_CFG_FLAGS: u16 = 5;

const NFQNL_CFG_CMD_BIND: u8 = 1;
const NFQNL_COPY_PACKET: u8 = 2;
/// GSO packets are not segmented.
const NFQA_CFG_F_GSO: u32 = 1 << 2;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// Bytes copied of each packet: fewer than any has, so that the kernel reports its length (`NFQA_CAP_LEN`).
const COPIED: u32 = 4;
/// Packets that may wait in the kernel: four times 150 ms at 1 Gbit/s.
const LONGEST: u32 = 50_000;
/// Packets received before due ones are delivered, and verdicts in one message.
const BATCH: usize = 512;

/// A packet in the queue.
pub(super) struct Packet {
    pub id: u32,
    /// Its length, bytes.
    pub bytes: u32,
    /// When it reached the namespace, nanoseconds since 1970; `None` if no socket of the machine requests timestamps
    /// of packets (captures do).
    pub arrived: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Queue {
    socket: Socket,
    number: u16,
}

impl Queue {
    /// Binds a queue. `together`: GSO packets are not segmented.
    pub(super) fn open(ns: &NetNs, number: u16, together: bool) -> Result<Self> {
        let what = || format!("read packet queue {number} in {}", ns.name());
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_rx_buf_sz(4 << 20)?;
            Ok(socket)
        };
        let queue = Self { socket: ns.run(open)?.context(what)?, number };
        let mut bind = Message::new(NFQNL_MSG_CONFIG, NLM_F_ACK, number);
        let [high, low] = u16::try_from(libc::AF_INET).unwrap_or(0).to_be_bytes();
        let [a, b, c, d] = COPIED.to_be_bytes();
        bind.attribute(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, high, low]);
        bind.attribute(NFQA_CFG_PARAMS, &[a, b, c, d, NFQNL_COPY_PACKET]);
        bind.attribute(NFQA_CFG_QUEUE_MAXLEN, &LONGEST.to_be_bytes());
        bind.keep_together(together);
        queue.socket.send(&bind.finish(), 0).context(what)?;
        let mut answer = Vec::with_capacity(4096);
        // No rule uses the queue yet, so this is the acknowledgment.
        queue.socket.recv(&mut answer, 0).context(what)?;
        let code = NetlinkBuffer::new_checked(&answer).ok().filter(|answer| answer.message_type() == NLMSG_ERROR);
        match code.and_then(|answer| answer.payload().first_chunk().map(|code| i32::from_ne_bytes(*code))) {
            Some(0) => Ok(queue),
            Some(code) => Err(Error::kernel(what(), io::Error::from_raw_os_error(-code))),
            None => Err(Error::Answer { what: what(), answer: format!("{answer:?}") }),
        }
    }

    /// Sets whether GSO packets stay whole.
    pub(super) fn keep_together(&self, together: bool) -> Result<()> {
        let mut message = Message::new(NFQNL_MSG_CONFIG, 0, self.number);
        message.keep_together(together);
        self.socket.send(&message.finish(), 0).map(drop).context(|| format!("configure packet queue {}", self.number))
    }

    /// Receives what is there.
    pub(super) fn receive(&self, buffer: &mut Vec<u8>, mut packet: impl FnMut(Packet)) -> io::Result<()> {
        for _ in 0..BATCH {
            buffer.clear();
            match self.socket.recv(buffer, libc::MSG_DONTWAIT) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // The receive buffer was full and the kernel dropped a packet.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {}
                result => {
                    result?;
                    if let Some(received) = read(buffer) {
                        packet(received);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn decide(&self, verdicts: &Verdicts) -> io::Result<()> {
        let one = |kind, verdict: u32, id: u32| {
            let mut message = Message::new(kind, 0, self.number);
            let words = [verdict.to_be_bytes(), id.to_be_bytes()];
            message.attribute(NFQA_VERDICT_HDR, words.as_flattened());
            message.finish()
        };
        // Drops come first, since a batch accepts every older packet.
        for lost in verdicts.lost.chunks(BATCH) {
            let bytes: Vec<u8> = lost.iter().flat_map(|id| one(NFQNL_MSG_VERDICT, NF_DROP, *id)).collect();
            self.socket.send(&bytes, 0)?;
        }
        verdicts.passed.map_or(Ok(()), |id| self.socket.send(&one(NFQNL_MSG_VERDICT_BATCH, NF_ACCEPT, id), 0).map(drop))
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The packet of a message; none for other messages.
fn read(datagram: &[u8]) -> Option<Packet> {
    let message = NetlinkBuffer::new_checked(datagram).ok()?;
    if message.message_type() != NFQNL_MSG_PACKET {
        return None;
    }
    // Behind `struct nfgenmsg`.
    let attributes = NlasIterator::new(message.payload().get(4..)?).map_while(std::result::Result::ok);
    let (mut id, mut bytes, mut arrived) = (None, 0, None);
    for attribute in attributes {
        let first = || attribute.value().first_chunk().map(|number| u32::from_be_bytes(*number));
        match attribute.kind() {
            NFQA_PACKET_HDR => id = first(),
            NFQA_CAP_LEN => bytes = first()?,
            NFQA_TIMESTAMP => {
                // Seconds and microseconds.
                let (words, _) = attribute.value().as_chunks::<8>();
                let [seconds, micros] = *words else { continue };
                arrived = Some(u64::from_be_bytes(seconds) * 1_000_000_000 + u64::from_be_bytes(micros) * 1000);
            }
            _ => {}
        }
    }
    Some(Packet { id: id?, bytes, arrived })
}

struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, queue: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        // struct nfgenmsg: family, version, resource.
        bytes.extend([0, 0]);
        bytes.extend(queue.to_be_bytes());
        Self(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn keep_together(&mut self, together: bool) {
        let flags = if together { NFQA_CFG_F_GSO } else { 0 };
        self.attribute(NFQA_CFG_MASK, &NFQA_CFG_F_GSO.to_be_bytes());
        self.attribute(NFQA_CFG_FLAGS, &flags.to_be_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(0);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}
