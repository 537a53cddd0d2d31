//! `server-slow`: a server takes far longer to answer than it did, and the network does not.
//!
//! What it sees: the time from the last byte of a request to the first byte of its answer, 5 times and 200 ms above
//! what is usual for this server, in 3 requests in a row, one of which was asked after another was answered. The
//! requests were acknowledged long before; their clients had been answered sooner, connect as fast as ever and sent
//! nothing again. `info` where the server's pod itself waited for others for half of that time or more.
//! Why it matters: look at the server, not at the network or the client.
//! Which incident: I5.
//!
//! Left out: Services, whose pods are judged at their own nodes; pods seen from elsewhere; servers with fewer than 8
//! answers; the first exchange after a greeting of the server (a login); requests of new clients.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::capped::Capped;
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, SubjectKind};
use crate::signal::{CollectorKind, End, Exchange, Observed, Signal};
use crate::time::{Time, span};
use crate::usual;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "server-slow",
    incident: "I5",
    level: Level::Cause,
    subjects: &[SubjectKind::Server],
    what: "A server answers far later than it did while the network is as fast as ever.",
    facts: "It finds the same servers, by address and port where a name is not declared; a stale address gives its name to \
            the server that has it now.",
    wants: &[CollectorKind::Exchanges, CollectorKind::Inventory],
    needs: &[&[CollectorKind::Exchanges]],
    scope: Scope::Cluster,
    state: State::Cluster(new::<ServerSlow>),
};

/// Slow answers in a row, and fast ones that end it.
const IN_A_ROW: usize = 3;
/// An acknowledgment may come so late (`TCP_DELACK_MIN`, include/net/tcp.h, is 40 ms) without any blame.
const DELAYED_ACK: Duration = Duration::from_millis(60);
/// Times of a server that must be known, and that are kept.
const ENOUGH: usize = 8;
const KEPT: usize = 64;
/// How long a client's trouble with the network acquits the server.
const TROUBLE: Duration = Duration::from_secs(2);
/// A handshake so many times and by so much slower than usual is such trouble.
const CONNECT_TIMES: u32 = 5;
const CONNECT_ABOVE: Duration = Duration::from_millis(50);
/// Two reports of one request differ by so much at most.
const ROUNDING: Duration = Duration::from_micros(10);
/// A finding ends when its server was not asked for this long; later the server is forgotten.
const UNASKED: Duration = Duration::from_mins(1);
const FORGET: Duration = Duration::from_hours(1);
const SERVERS: usize = 4096;
const CLIENTS: usize = 1024;
/// Slow answers in a row that are remembered: more than are ever needed.
const MOST_IN_A_ROW: usize = KEPT + IN_A_ROW;

type Usual = usual::Usual<ENOUGH, KEPT>;

#[derive(Default)]
struct ServerSlow {
    servers: Capped<SocketAddr, Server, SERVERS>,
    /// Addresses of Services.
    services: Capped<IpAddr, (), SERVERS>,
    /// Those that are known to be slow.
    standing: BTreeSet<SocketAddr>,
}

#[derive(Default)]
struct Server {
    usual: Usual,
    connects: Usual,
    /// Seen at its own node: what clients see adds nothing.
    at_home: bool,
    clients: Capped<IpAddr, Client, CLIENTS>,
    /// The last slow requests in a row.
    slow: VecDeque<Slow>,
    /// Fast answers in a row since the last slow one.
    fast: usize,
    last: Time,
}

#[derive(Default)]
struct Client {
    /// It has been answered in usual time.
    answered: bool,
    /// When it last had to send something again, or to wait for a handshake.
    trouble: Option<Time>,
}

struct Slow {
    client: SocketAddr,
    asked: Time,
    took: Duration,
    waited: Duration,
    acked: Duration,
    answered: bool,
    /// When it was known.
    known: Time,
}

impl Slow {
    /// The server itself took most of that time.
    fn is_its_own(&self, threshold: Duration) -> bool {
        self.waited * 2 < self.took && self.took.saturating_sub(self.waited) >= threshold
    }
}

impl Server {
    /// Processes an exchange. `stands` says whether the server is known to be slow.
    fn exchange(&mut self, at: Time, exchange: &Exchange, stands: bool) {
        self.last = self.last.max(at);
        let client = exchange.client.ip();
        let connect = exchange.connect_us.map(Duration::from_micros);
        let usual = self.connects.median().unwrap_or(Duration::MAX);
        let is_late = |connect: &Duration| {
            *connect >= usual.saturating_mul(CONNECT_TIMES) && *connect >= usual.saturating_add(CONNECT_ABOVE)
        };
        if exchange.sent_again || connect.as_ref().is_some_and(is_late) {
            self.trouble(client, at);
        } else if let Some(connect) = connect {
            self.connects.add(connect);
        }
        if exchange.after_greeting {
            return;
        }
        let (took, asked) = (exchange.took(), exchange.asked(at));
        // Replaces an earlier report of the same request.
        self.slow.retain(|slow| slow.client != exchange.client || slow.answered || asked.since(slow.asked) > ROUNDING);
        match self.usual.threshold() {
            Some(threshold) if took >= threshold => self.slow(at, exchange, threshold),
            threshold if exchange.answered && !exchange.sent_again => {
                // What was slow before was an exception.
                for slow in self.slow.drain(..).filter(|slow| slow.answered && !stands) {
                    self.usual.add(slow.took);
                }
                self.usual.add(took);
                if let Some(client) = self.clients.entry(client) {
                    client.answered = true;
                }
                let is_fast = threshold.is_some_and(|threshold| took * 2 < threshold);
                self.fast = if is_fast { self.fast + 1 } else { 0 };
            }
            _ => {}
        }
    }

    fn slow(&mut self, at: Time, exchange: &Exchange, threshold: Duration) {
        let (took, asked, client) = (exchange.took(), exchange.asked(at), exchange.client);
        let acked = exchange.acked_us.map(Duration::from_micros);
        // An acknowledgment has the way back that the answer has too.
        let way = DELAYED_ACK + self.connects.median().unwrap_or_default();
        let Some(acked) = acked.filter(|acked| took.saturating_sub(*acked) + way >= threshold) else {
            // The network may have taken that time, one way or the other.
            return self.trouble(client.ip(), at);
        };
        let is_free = |trouble: Option<Time>| trouble.is_none_or(|trouble| asked.since(trouble) > TROUBLE);
        if !self.clients.get(&client.ip()).is_some_and(|client| client.answered && is_free(client.trouble)) {
            return;
        }
        if self.slow.len() == MOST_IN_A_ROW {
            self.slow.pop_front();
        }
        let (waited, answered) = (Duration::from_micros(exchange.waited_us), exchange.answered);
        self.slow.push_back(Slow { client, asked, took, waited, acked, answered, known: at });
        self.fast = 0;
    }

    fn trouble(&mut self, client: IpAddr, at: Time) {
        if let Some(client) = self.clients.entry(client) {
            client.trouble = client.trouble.max(Some(at));
        }
    }

    /// The slow requests in a row, where they are enough, and how severe that is.
    fn verdict(&self) -> Option<(Severity, &Slow)> {
        let (first, threshold) = (self.slow.front()?, self.usual.threshold()?);
        let shortest = self.slow.iter().map(|slow| slow.took).min()?;
        // Where such answers come now and then, several in a row are chance.
        let needed = IN_A_ROW + self.usual.as_slow_as(shortest);
        // A server that paused once made all requests slow that were waiting then.
        let (asked, known) =
            (self.slow.iter().map(|slow| slow.asked).max()?, self.slow.iter().map(|slow| slow.known).min()?);
        if self.slow.len() < needed || asked < known {
            return None;
        }
        let its_own = self.slow.iter().rev().take(needed).all(|slow| slow.is_its_own(threshold));
        Some((if its_own { Severity::Warning } else { Severity::Info }, first))
    }

    fn evidence(&self) -> String {
        let of = |value: fn(&Slow) -> Duration| self.slow.iter().map(value);
        let (took, waited, acked) = (of(|slow| slow.took), of(|slow| slow.waited), of(|slow| slow.acked));
        let waited = waited.max().filter(|waited| !waited.is_zero());
        format!(
            "{} requests in a row took {} and more, where {} is usual; each was acknowledged within {}, connects take {}, \
             and nothing was sent again{}",
            self.slow.len(),
            took.min().map(span).unwrap_or_default(),
            self.usual.median().map(span).unwrap_or_default(),
            acked.max().map(span).unwrap_or_default(),
            self.connects.median().map_or_else(|| "as long as ever".to_owned(), span),
            waited
                .map(|waited| format!("; meanwhile the server itself waited for others, for up to {}", span(waited)))
                .unwrap_or_default(),
        )
    }
}

impl ServerSlow {
    fn exchange(&mut self, cx: &mut Context<'_>, at: Time, exchange: &Exchange) {
        let address = exchange.server;
        let at_home = exchange.seen_at == End::Server;
        if !at_home && (cx.operator.is_pod(address.ip()) || self.services.contains_key(&address.ip())) {
            return;
        }
        let Some(server) = self.servers.entry(address) else { return };
        if at_home && !server.at_home {
            *server = Server { at_home, ..Server::default() };
        } else if at_home != server.at_home {
            return;
        }
        let subject = cx.operator.server(address);
        server.exchange(at, exchange, cx.claims.standing_of(&subject).is_some());
        if let Some((severity, first)) = server.verdict() {
            cx.claims.make_of(subject, severity, first.asked, || server.evidence());
            self.standing.insert(address);
        } else if server.fast >= IN_A_ROW && self.standing.remove(&address) {
            let usual = server.usual.median().unwrap_or_default();
            cx.claims.withdraw_of(subject, format!("{} answers in a row took about {}", server.fast, span(usual)));
        }
    }
}

impl Detector for ServerSlow {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        match &signal.observed {
            Observed::Exchange(exchange) => self.exchange(cx, signal.at, exchange),
            Observed::Endpoints(service) => self.services.insert(service.address, ()),
            _ => {}
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        let servers = &mut self.servers;
        self.standing.retain(|address| {
            let asked = servers.get_mut(address).filter(|server| cx.now.since(server.last) < UNASKED);
            if asked.is_none() {
                cx.claims.withdraw_of(cx.operator.server(*address), "no request for a minute");
            }
            asked.is_some()
        });
    }

    fn forget(&mut self, cx: &Context<'_>) {
        self.servers.retain(|_, server| cx.now.since(server.last) < FORGET);
    }
}

#[cfg(test)]
pub(crate) mod tests;
