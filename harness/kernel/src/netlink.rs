//! Requests to the kernel over one netlink socket, and streams of its notifications.
//!
//! [`Netlink`] is synchronous: a request is sent and its answers are received in the same call (some
//! twenty microseconds). [`Listener`] is asynchronous: it receives the notifications the kernel sends
//! to the subscribed groups. A listener that lost messages reports it (`ENOBUFS`).

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Context, Error, Result};
use crate::watched::watched;

/// A netlink socket in a namespace, for requests.
pub struct Netlink {
    state: Mutex<State>,
    pub(crate) place: String,
}

struct State {
    socket: Socket,
    /// Of the last request. Answers carry it, so that a late answer to an earlier request is not taken for an
    /// answer to this one.
    sequence: u32,
    /// The last datagram received. The kernel sizes the datagrams of a dump to the buffer of the reader, up to 32 kB;
    /// a reader that peeks at their size first gets 4 kB.
    received: Vec<u8>,
}

impl State {
    /// Waits for the next datagram.
    fn receive(&mut self, flags: i32) -> io::Result<()> {
        self.received.clear();
        let length = self.socket.recv(&mut self.received, flags | libc::MSG_TRUNC)?;
        if length > self.received.len() {
            let why = format!("a datagram of {length} bytes exceeds the buffer of {ROOM}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(())
    }
}

/// The list changed while it was being read (`linux/netlink.h`).
const NLM_F_DUMP_INTR: u16 = 0x10;

/// The kernel sends no datagram longer than its limit for dumps, 32 kB (`netlink_dump` in
/// net/netlink/af_netlink.c), or a page.
const ROOM: usize = 1 << 16;

impl Netlink {
    /// Opens a socket for `protocol` (`netlink_sys::protocols::NETLINK_*`) in the namespace of the calling thread;
    /// `place` names it in messages.
    ///
    /// # Errors
    /// When the socket cannot be created.
    pub fn here(protocol: isize, place: &str) -> Result<Self> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_rx_buf_sz(4 << 20)?;
            Ok(socket)
        };
        let socket = open().context(|| format!("open a netlink socket in {place}"))?;
        let state = State { socket, sequence: 0, received: Vec::with_capacity(ROOM) };
        Ok(Self { state: Mutex::new(state), place: place.to_owned() })
    }

    /// Sends a request that changes state and waits for its acknowledgement.
    /// `flags` are added to `NLM_F_REQUEST | NLM_F_ACK` (`NLM_F_CREATE | NLM_F_EXCL`, ...).
    ///
    /// # Errors
    /// The error reported by the kernel, with `what`.
    pub fn change<Q: NetlinkSerializable>(&self, what: &str, payload: Q, flags: u16) -> Result<()> {
        self.exchange::<Q, Ignored>(what, payload, NLM_F_REQUEST | NLM_F_ACK | flags).map(drop)
    }

    /// Sends a request for a single object, and returns it.
    ///
    /// # Errors
    /// The error reported by the kernel, with `what`.
    pub fn get<Q: NetlinkSerializable, A: NetlinkDeserializable>(&self, what: &str, payload: Q) -> Result<A> {
        let answer = self.exchange(what, payload, NLM_F_REQUEST)?.pop();
        answer.ok_or_else(|| Error::Answer { what: format!("{what} in {}", self.place), answer: "no answer".into() })
    }

    /// Sends a request for a list and returns the results of `read` for the answers. Repeats the request if the kernel
    /// reports that the list changed while it was being read (`NLM_F_DUMP_INTR`).
    ///
    /// # Errors
    /// The error reported by the kernel, with `what`.
    pub fn dump<Q: NetlinkSerializable, A: NetlinkDeserializable, T>(
        &self,
        what: &str,
        payload: Q,
        read: impl FnMut(A) -> Option<T>,
    ) -> Result<Vec<T>> {
        Ok(self.exchange(what, payload, NLM_F_REQUEST | NLM_F_DUMP)?.into_iter().filter_map(read).collect())
    }

    /// Sends already framed, independent messages and returns those refused. Answers share one receive buffer
    /// (some 800 bytes of it each): if hundreds are sent together, only the last should request an
    /// acknowledgement.
    ///
    /// # Errors
    /// When the messages cannot be sent, or no answer arrives.
    pub fn send_each(&self, what: &str, bytes: &[u8]) -> Result<Vec<Refusal>> {
        let mut state = self.lock();
        let context = || format!("{what} in {}", self.place);
        // Discard answers left over from an earlier error.
        while state.receive(libc::MSG_DONTWAIT).is_ok() {}
        // Refusals omit the refused message, so that hundreds fit in the receive buffer.
        state.socket.set_cap_ack(true).context(context)?;
        // Each send uses one kernel buffer; if larger than the socket's send buffer it fails with EMSGSIZE.
        let buffer = socket2::SockRef::from(&state.socket);
        if buffer.send_buffer_size().context(context)? < bytes.len() + 4096 {
            buffer.set_send_buffer_size(bytes.len() + 4096).context(context)?;
        }
        state.socket.send(bytes, 0).context(context)?;
        // The kernel handles the messages inside `send`: all answers are queued by now.
        let (mut answered, mut refusals) = (false, Vec::new());
        let mut overrun = None;
        loop {
            match state.receive(libc::MSG_DONTWAIT) {
                Ok(()) => answered |= note_answers(&state.received, &mut refusals),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => overrun = Some(e),
                Err(e) => return Err(Error::kernel(context(), e)),
            }
        }
        // Answers are lost only with very many refusals, of which the first are enough.
        match overrun {
            Some(e) if refusals.is_empty() => Err(Error::kernel(context(), e)),
            None if !answered => Err(Error::Answer { what: context(), answer: "no answer".into() }),
            _ => Ok(refusals),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exchange<Q: NetlinkSerializable, A: NetlinkDeserializable>(
        &self,
        what: &str,
        payload: Q,
        flags: u16,
    ) -> Result<Vec<A>> {
        let mut state = self.lock();
        let context = || format!("{what} in {}", self.place);
        let wrong = |e: DecodeError| Error::Answer { what: context(), answer: e.to_string() };
        let one = flags & (NLM_F_ACK | NLM_F_DUMP) == 0;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(payload));
        'request: for _ in 0..8 {
            state.sequence = state.sequence.wrapping_add(1);
            message.header.sequence_number = state.sequence;
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            state.socket.send(&bytes, 0).context(context)?;
            let (mut answers, mut interrupted) = (Vec::new(), false);
            loop {
                state.receive(0).context(context)?;
                for answer in messages(&state.received) {
                    let answer = answer.map_err(wrong)?;
                    if answer.sequence_number() != state.sequence {
                        continue;
                    }
                    interrupted |= answer.flags() & NLM_F_DUMP_INTR != 0;
                    match NetlinkMessage::deserialize(answer.into_inner()).map_err(wrong)?.payload {
                        NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                        NetlinkPayload::Done(_) if interrupted => continue 'request,
                        NetlinkPayload::Error(e) if e.code.is_some() => {
                            return Err(Error::kernel(context(), e.to_io()));
                        }
                        NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(answers),
                        _ => {}
                    }
                    if one && !answers.is_empty() {
                        return Ok(answers);
                    }
                }
            }
        }
        Err(Error::Answer { what: context(), answer: "a list that kept changing while it was read".into() })
    }
}

/// The messages of a datagram, up to the first malformed one.
fn messages(datagram: &[u8]) -> impl Iterator<Item = std::result::Result<NetlinkBuffer<&[u8]>, DecodeError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let message = (!rest.is_empty()).then(|| NetlinkBuffer::new_checked(rest))?;
        let length = message.as_ref().map_or(rest.len(), |message| message.length().max(16) as usize);
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        Some(message)
    })
}

/// An answer whose content is not used.
#[derive(Debug)]
struct Ignored;

impl NetlinkDeserializable for Ignored {
    type Error = std::convert::Infallible;

    fn deserialize(_: &NetlinkHeader, _: &[u8]) -> std::result::Result<Self, Self::Error> {
        Ok(Self)
    }
}

/// A message the kernel refused among those sent together.
#[derive(Debug)]
pub struct Refusal {
    /// The sequence number of the message.
    pub sequence: u32,
    pub error: io::Error,
}

/// Collects the errors in a datagram; returns whether it has an error or acknowledgement (`NLMSG_ERROR`).
fn note_answers(datagram: &[u8], refusals: &mut Vec<Refusal>) -> bool {
    const NLMSG_ERROR: u16 = 2;
    let answers = messages(datagram).map_while(std::result::Result::ok);
    let mut answered = false;
    for answer in answers.filter(|answer| answer.message_type() == NLMSG_ERROR) {
        answered = true;
        let code = answer.payload().first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        if code != 0 {
            refusals.push(Refusal { sequence: answer.sequence_number(), error: io::Error::from_raw_os_error(-code) });
        }
    }
    answered
}

/// A netlink socket subscribed to groups, for the kernel's notifications.
pub struct Listener<T> {
    socket: AsyncFd<Socket>,
    received: Vec<u8>,
    read: Read<T>,
}

/// Decodes a message; `None` if it is of no interest.
pub type Read<T> = fn(NetlinkBuffer<&[u8]>) -> std::result::Result<Option<T>, DecodeError>;

impl<T> Listener<T> {
    /// Subscribes to `groups` (numbers, not masks) of `protocol` in the namespace of the calling thread; `place` names
    /// it in messages. Must be called within a tokio runtime. The subscription is in force when this returns.
    ///
    /// # Errors
    /// When the socket cannot be created or a group cannot be joined.
    pub fn here(protocol: isize, groups: &[u32], read: Read<T>, place: &str) -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.set_rx_buf_sz(4 << 20)?;
            socket.set_non_blocking(true)?;
            groups.iter().try_for_each(|group| socket.add_membership(*group))?;
            watched(socket, Interest::READABLE)
        };
        let socket = open().context(|| format!("listen to the kernel in {place}"))?;
        Ok(Self { socket, received: Vec::with_capacity(ROOM), read })
    }

    /// Waits for notifications, and returns those received together. After an error (`ENOBUFS`: the kernel dropped
    /// some) the stream continues, but with a gap.
    pub async fn next(&mut self) -> io::Result<Vec<T>> {
        loop {
            let mut ready = self.socket.readable().await?;
            self.received.clear();
            let Ok(received) = ready.try_io(|socket| socket.get_ref().recv(&mut self.received, 0)) else { continue };
            received?;
            let events = messages(&self.received).map(|message| message.and_then(self.read));
            let events: std::result::Result<Vec<T>, _> = events.filter_map(std::result::Result::transpose).collect();
            let events = events.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}
