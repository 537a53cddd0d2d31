//! Requests and answers of one TCP connection, from the headers of its segments.
//!
//! No protocol is known, except the status line of HTTP/1: what the client sends until the server sends something is a request, and what it sends after
//! that is the next one. Requests that may overlap are not reported: the client sends more although all it sent is
//! acknowledged, or the server sends something before it has the whole request. A reported time is never too long:
//! the server sent nothing on the connection in that time.

use std::net::SocketAddr;
use std::time::Duration;

use relapse_detectors::signal::{End, Exchange};
use relapse_detectors::time::Time;
use relapse_kernel::packet::Tcp;

use super::waits::Waits;

/// A client that sends more so long after its data was acknowledged does not continue the same request.
const PAUSE: Duration = Duration::from_millis(20);
/// A request is reported when it has had no answer for so long.
const OUTSTANDING: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(25), Duration::from_secs(125)];
/// Data after a longer gap is not part of the same transfer.
const TRANSFER: Duration = Duration::from_secs(1);
/// Data without an answer for longer is not waited for: it was no request.
const LONGEST_WAIT: Duration = Duration::from_mins(2);

#[derive(Debug)]
pub(super) struct Connection {
    end: End,
    state: State,
    /// Sequence number of the SYN, where it was seen.
    pub isn: Option<u32>,
    first_syn: Time,
    syns: u32,
    connect: Option<Duration>,
    /// Sequence numbers that follow what the client and the server sent so far.
    client_next: Option<u32>,
    server_next: Option<u32>,
    /// The server sent data first.
    greeted: bool,
    /// A request of the client was answered.
    asked: bool,
    /// The client and the server have sent their FIN.
    fins: [bool; 2],
    /// When its last segment was seen.
    pub last: Time,
    /// Counted in the waits of its end.
    waits: bool,
}

#[derive(Debug)]
enum State {
    /// A SYN is not answered.
    Opening,
    Quiet,
    Asking(Request),
    /// The server answers; when its last data was seen.
    Answering(Time),
}

#[derive(Debug)]
struct Request {
    first: Time,
    last: Time,
    /// The sequence number that follows it.
    end: u32,
    bytes: u64,
    acked: Option<Time>,
    sent_again: bool,
    /// Another may be outstanding.
    overlaps: bool,
    /// How often it was reported as outstanding.
    reports: usize,
    /// The waits of the server in total when its last byte was seen.
    waited: Duration,
}

impl Connection {
    /// A SYN was seen.
    pub const fn opened(end: End, at: Time, isn: u32) -> Self {
        Self { isn: Some(isn), state: State::Opening, ..Self::in_progress(end, at) }
    }

    /// Its SYN was not seen.
    pub const fn in_progress(end: End, at: Time) -> Self {
        Self {
            end,
            state: State::Quiet,
            isn: None,
            first_syn: at,
            syns: 0,
            connect: None,
            client_next: None,
            server_next: None,
            greeted: false,
            asked: false,
            fins: [false; 2],
            last: at,
            waits: false,
        }
    }

    pub const fn end(&self) -> End {
        self.end
    }

    /// Processes a segment; returns the exchange that it ends. `waits` are those of this end.
    pub fn segment(&mut self, at: Time, tcp: &Tcp, from_client: bool, waits: &mut Waits) -> Option<Report> {
        self.last = at;
        let report = match (tcp.flags.syn, from_client) {
            (true, true) => {
                self.syns += 1;
                None
            }
            (true, false) => {
                self.accepted(at, tcp);
                None
            }
            (false, true) => {
                self.client(at, tcp, waits);
                None
            }
            (false, false) => self.server(at, tcp, waits),
        };
        if tcp.flags.fin {
            self.fins[usize::from(!from_client)] = true;
            if !from_client && matches!(self.state, State::Asking(_)) {
                // No answer will come.
                self.state = State::Quiet;
            }
        }
        self.settle(at, waits);
        report
    }

    fn accepted(&mut self, at: Time, tcp: &Tcp) {
        if matches!(self.state, State::Opening) && self.isn.is_some_and(|isn| tcp.acknowledgment == isn.wrapping_add(1))
        {
            self.connect = Some(at.since(self.first_syn));
            self.client_next = Some(tcp.acknowledgment);
            self.server_next = Some(tcp.sequence.wrapping_add(1));
            self.state = State::Quiet;
        }
    }

    fn client(&mut self, at: Time, tcp: &Tcp, waits: &mut Waits) {
        let Some(order) = Order::of(&mut self.client_next, tcp) else { return };
        let is_server = self.end == End::Server;
        let waited = if is_server { waits.total(at) } else { Duration::ZERO };
        let end = tcp.sequence.wrapping_add(tcp.payload_len);
        let bytes = u64::from(tcp.payload_len);
        if let State::Asking(request) = &mut self.state {
            request.sent_again |= order != Order::Next;
            if order == Order::Again {
                return;
            }
            let is_another = request.acked.is_some_and(|acked| at.since(acked.max(request.last)) >= PAUSE);
            if !is_another {
                (request.last, request.end, request.acked, request.waited) = (at, end, None, waited);
                request.bytes += bytes;
                return;
            }
        } else if order == Order::Again {
            return;
        }
        let overlaps = matches!(self.state, State::Asking(_));
        let sent_again = order != Order::Next;
        let (first, last, acked, reports) = (at, at, None, 0);
        self.state = State::Asking(Request { first, last, end, bytes, acked, sent_again, overlaps, reports, waited });
    }

    fn server(&mut self, at: Time, tcp: &Tcp, waits: &mut Waits) -> Option<Report> {
        if matches!(self.state, State::Opening) {
            // The SYN-ACK was missed.
            self.state = State::Quiet;
        }
        let order = Order::of(&mut self.server_next, tcp);
        match (&mut self.state, order) {
            (State::Asking(request), None) => {
                if request.acked.is_none() && reaches(tcp.acknowledgment, request.end) {
                    request.acked = Some(at);
                }
                None
            }
            (_, None | Some(Order::Again)) => None,
            (State::Asking(request), Some(order)) => {
                request.sent_again |= order == Order::Gap;
                if !reaches(tcp.acknowledgment, request.end) {
                    request.overlaps = true;
                    return None;
                }
                let report =
                    self.report(at, true, waits).map(|report| Report { status: http_status(tcp, order), ..report });
                self.asked = true;
                self.state = State::Answering(at);
                report
            }
            (State::Answering(last), Some(_)) => {
                if self.end == End::Client && at.since(*last) < TRANSFER {
                    waits.span(*last, at);
                }
                *last = at;
                None
            }
            (State::Quiet | State::Opening, Some(_)) => {
                // Of a connection without a SYN it is not known which end sent data first.
                self.greeted |= self.isn.is_some() && !self.asked;
                None
            }
        }
    }

    /// The report of a request that has no answer at `now`, where one is due.
    pub fn outstanding(&mut self, now: Time, waits: &mut Waits) -> Option<Report> {
        self.settle(now, waits);
        let State::Asking(request) = &mut self.state else { return None };
        if now.since(request.last) < *OUTSTANDING.get(request.reports)? {
            return None;
        }
        request.reports += 1;
        self.report(now, false, waits)
    }

    fn report(&self, at: Time, answered: bool, waits: &mut Waits) -> Option<Report> {
        let State::Asking(request) = &self.state else { return None };
        let took = at.since(request.last);
        let waited =
            if self.end == End::Server { waits.total(at).saturating_sub(request.waited) } else { Duration::ZERO };
        (!request.overlaps).then(|| Report {
            request: request.bytes,
            took,
            answered,
            acked: request.acked.map(|acked| acked.since(request.last)),
            waited: waited.min(took),
            connect: self.connect.filter(|_| !self.asked),
            sent_again: request.sent_again || !self.asked && self.syns > 1,
            after_greeting: self.greeted && !self.asked,
            status: None,
        })
    }

    /// Starts or ends the wait of this end.
    fn settle(&mut self, now: Time, waits: &mut Waits) {
        let open = match &self.state {
            State::Opening => true,
            State::Asking(request) => !request.overlaps && now.since(request.first) < LONGEST_WAIT,
            State::Quiet | State::Answering(_) => false,
        };
        self.count(open && self.end == End::Client, now, waits);
    }

    /// Ends the wait of this end: the connection is removed.
    pub fn over(&mut self, now: Time, waits: &mut Waits) {
        self.count(false, now, waits);
    }

    fn count(&mut self, open: bool, now: Time, waits: &mut Waits) {
        if open && !self.waits {
            waits.begin(now);
        } else if !open && self.waits {
            waits.end(now);
        }
        self.waits = open;
    }

    /// Whether it has ended: both ends closed it, or the client gave up opening it (each timeout is twice the one
    /// before, RFC 6298 5.5).
    pub fn is_over(&self, now: Time) -> bool {
        const FIRST_TIMEOUT: Duration = Duration::from_millis(1500);
        let quiet = now.since(self.last);
        match self.state {
            State::Opening => quiet > self.last.since(self.first_syn) * 2 + FIRST_TIMEOUT,
            _ => self.fins == [true; 2] || self.fins != [false; 2] && quiet > LONGEST_WAIT,
        }
    }
}

/// An [`Exchange`] without its addresses.
pub(super) struct Report {
    request: u64,
    took: Duration,
    answered: bool,
    acked: Option<Duration>,
    waited: Duration,
    connect: Option<Duration>,
    sent_again: bool,
    after_greeting: bool,
    status: Option<u16>,
}

impl Report {
    pub fn between(self, client: SocketAddr, server: SocketAddr, seen_at: End) -> Exchange {
        let us = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Exchange {
            client,
            server,
            seen_at,
            request: self.request,
            took_us: us(self.took),
            answered: self.answered,
            acked_us: self.acked.map(us),
            waited_us: us(self.waited),
            connect_us: self.connect.map(us),
            sent_again: self.sent_again,
            after_greeting: self.after_greeting,
            status: self.status,
        }
    }
}

/// The status of an answer that begins with a status line of HTTP/1 (RFC 9112, 4).
fn http_status(tcp: &Tcp, order: Order) -> Option<u16> {
    let line = tcp.head.strip_prefix(b"HTTP/1.").filter(|_| order == Order::Next)?;
    let [minor, b' ', code @ ..] = line else { return None };
    let is_status = minor.is_ascii_digit() && code.iter().all(u8::is_ascii_digit);
    is_status.then(|| code.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0')))
}

/// How data continues what was sent before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Next,
    /// Something before it is missing, or a part of it was sent before.
    Gap,
    /// All of it was sent before.
    Again,
}

impl Order {
    /// None where a segment has no data. `next` moves on.
    fn of(next: &mut Option<u32>, tcp: &Tcp) -> Option<Self> {
        if tcp.payload_len == 0 {
            return None;
        }
        let end = tcp.sequence.wrapping_add(tcp.payload_len);
        let order = match *next {
            Some(next) if reaches(next, end) => return Some(Self::Again),
            Some(next) if next != tcp.sequence => Self::Gap,
            _ => Self::Next,
        };
        *next = Some(end);
        Some(order)
    }
}

/// Whether a sequence number lies at or after another, modulo 2^32 (RFC 9293 3.4).
const fn reaches(number: u32, other: u32) -> bool {
    number.wrapping_sub(other) < 1 << 31
}
