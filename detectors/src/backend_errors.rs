//! `backend-errors`: a server that answered well answers with errors of its own, HTTP 5xx.
//!
//! What it sees: the status of HTTP answers. At least half of the last answers of a server are errors, 5 or more of
//! them within 5 s; of its earlier answers at most one in five was. Without earlier answers, 10 are needed: all of them
//! errors, or another pod of the Service answers well. About the Service where all of its pods that are asked do so,
//! otherwise about the pod; about the server where it is outside.
//! Why it matters: requests arrive and are answered at once: look at the application, not at the way to it.
//! Which incident: W4.
//!
//! Left out: 4xx, which are the client's (RFC 9110 15.5); 502 and 504, which a gateway answers in place of another
//! server (15.6.3, 15.6.5), and 503 of a server that makes requests itself, such as an ingress; an error that a server
//! passes on; servers with fewer than 5 earlier answers, unless all of their answers were errors.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::capped::Capped;
use crate::claims::{Claim, want};
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, Subject, SubjectKind};
use crate::signal::{Change, CollectorKind, End, Exchange, Observed, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "backend-errors",
    incident: "W4",
    level: Level::Cause,
    subjects: &[SubjectKind::Pod, SubjectKind::Server, SubjectKind::Service],
    what: "A server that answered well answers HTTP requests with errors of its own.",
    facts: "It finds the same servers, by address and port where a name is not declared; a stale address gives its name to \
            the server that has it now.",
    wants: &[CollectorKind::Exchanges, CollectorKind::Inventory],
    needs: &[&[CollectorKind::Exchanges]],
    scope: Scope::Cluster,
    state: State::Cluster(new::<BackendErrors>),
};

/// Errors within this time that are enough, and earlier answers that are needed to know the server.
const WINDOW: Duration = Duration::from_secs(5);
const ERRORS: u64 = 5;
const EARLIER: u64 = 5;
/// Of a server that is asked less often the last answers count, however long they took.
const SELDOM: usize = 10;
/// Answers that are enough without earlier ones.
const FIRST: u64 = 10;
/// The largest share of errors in earlier answers: one in so many.
const USUAL: u64 = 5;
/// Good answers in a row that end it, or some and so much time without an error.
const GOOD: u64 = 10;
const SOME_GOOD: u64 = 5;
const QUIET: Duration = Duration::from_secs(3);
/// Answers of another pod of the Service by which that pod is judged.
const OF_ANOTHER: usize = 3;
/// A gateway answers so soon after it got an answer itself.
const PASSED_ON: Duration = Duration::from_millis(5);
/// A finding ends when its server was not asked for this long; later the server is forgotten.
const UNASKED: Duration = Duration::from_mins(1);
const FORGET: Duration = Duration::from_hours(1);
const SERVERS: usize = 4096;
/// The latest answers of a server that are kept.
const ANSWERS: usize = 512;
/// Earlier answers are halved from here on, so that a server's history is its recent one.
const HISTORY: u64 = 10_000;

#[derive(Default)]
struct BackendErrors {
    servers: Capped<SocketAddr, Server, SERVERS>,
    /// Names of pods, and of the Service each is behind.
    pods: Capped<IpAddr, String, SERVERS>,
    behind: Capped<IpAddr, String, SERVERS>,
    /// Addresses of Services.
    services: Capped<IpAddr, (), SERVERS>,
    /// Hosts that make HTTP requests themselves, and when each last got an error.
    gateways: Capped<IpAddr, Option<Time>, SERVERS>,
}

#[derive(Default)]
struct Server {
    /// Seen at its own node: what clients see adds nothing.
    at_home: bool,
    recent: VecDeque<Answer>,
    /// Earlier answers, and errors among them.
    earlier: Share,
    /// Since when it answers with errors.
    bad: Option<Bad>,
    last: Time,
}

#[derive(Clone, Copy)]
struct Answer {
    at: Time,
    status: u16,
    is_error: bool,
}

#[derive(Clone, Copy)]
struct Bad {
    since: Time,
    last_error: Time,
    status: u16,
    share: Share,
    /// Of its earlier answers.
    usual: Share,
    /// Only the good answers of another pod of its Service show that this is not usual.
    by_others: bool,
    /// Good answers in a row since then.
    good: u64,
}

#[derive(Default, Clone, Copy)]
struct Share {
    errors: u64,
    all: u64,
}

impl Share {
    fn add(&mut self, is_error: bool) {
        if self.all >= HISTORY {
            (self.errors, self.all) = (self.errors / 2, self.all / 2);
        }
        (self.errors, self.all) = (self.errors + u64::from(is_error), self.all + 1);
    }
}

impl Server {
    fn answer(&mut self, answer: Answer) {
        self.last = self.last.max(answer.at);
        if let Some(bad) = &mut self.bad {
            self.recent.push_back(answer);
            if answer.is_error {
                (bad.good, bad.last_error, bad.status) = (0, answer.at, answer.status);
            } else {
                bad.good += 1;
            }
            if bad.good >= GOOD || bad.good >= SOME_GOOD && answer.at.since(bad.last_error) >= QUIET {
                self.bad = None;
                self.recent.clear();
            }
        } else {
            self.recent.push_back(answer);
            self.bad = self.verdict();
        }
        let is_old = |recent: &VecDeque<Answer>| {
            let age = recent.front().map_or(Duration::ZERO, |old| answer.at.since(old.at));
            recent.len() > ANSWERS || age > WINDOW && recent.len() > SELDOM || age > UNASKED
        };
        while is_old(&self.recent) {
            let old = self.recent.pop_front();
            // Answers of a server that is known to be bad are not what is usual.
            if let Some(old) = old.filter(|_| self.bad.is_none()) {
                self.earlier.add(old.is_error);
            }
        }
    }

    /// Whether it answers with errors: the longest run of latest answers of which at least half are errors.
    fn verdict(&self) -> Option<Bad> {
        let mut total = self.earlier;
        self.recent.iter().for_each(|answer| total.add(answer.is_error));
        let newest = self.recent.back().filter(|answer| answer.is_error)?;
        let (mut share, mut found) = (Share::default(), None);
        let counts = |(number, answer): &(usize, &Answer)| {
            let age = newest.at.since(answer.at);
            age <= WINDOW || *number < ERRORS as usize && age <= UNASKED
        };
        for (_, answer) in self.recent.iter().rev().enumerate().take_while(counts) {
            share.add(answer.is_error);
            if answer.is_error && share.errors >= ERRORS && share.errors * 2 >= share.all {
                let usual = Share { errors: total.errors - share.errors, all: total.all - share.all };
                let (since, last_error, status) = (answer.at, newest.at, newest.status);
                found = Some(Bad { since, last_error, status, share, usual, by_others: false, good: 0 });
            }
        }
        let never_good = total.errors == total.all && total.all >= FIRST;
        let known = |bad: &Bad| bad.usual.all >= EARLIER && bad.usual.errors * USUAL <= bad.usual.all;
        let first = |bad: &Bad| bad.usual.all < EARLIER && total.all >= FIRST;
        let found = found.filter(|bad| never_good || known(bad) || first(bad));
        found.map(|bad| Bad { by_others: !never_good && !known(&bad), ..bad })
    }

    /// When it last answered with an error.
    fn last_error(&self) -> Option<Time> {
        self.recent.iter().filter(|answer| answer.is_error).map(|answer| answer.at).max()
    }

    /// Whether at least half of its answers between these times are errors; `None` if it had too few.
    fn also(&self, between: RangeInclusive<Time>) -> Option<bool> {
        let (mut errors, mut all) = (0, 0);
        for answer in self.recent.iter().filter(|answer| between.contains(&answer.at)) {
            (errors, all) = (errors + usize::from(answer.is_error), all + 1);
        }
        (all >= OF_ANOTHER).then_some(errors * 2 >= all)
    }
}

impl BackendErrors {
    fn exchange(&mut self, cx: &mut Context<'_>, at: Time, exchange: &Exchange) {
        let Some(status) = exchange.status.filter(|status| *status >= 200) else { return };
        let (address, client) = (exchange.server, exchange.client.ip());
        let at_home = exchange.seen_at == End::Server;
        if !at_home {
            if let Some(error) = self.gateways.entry(client) {
                *error = if status >= 500 { Some(at) } else { *error };
            }
            if cx.operator.is_pod(address.ip()) || self.services.contains_key(&address.ip()) {
                return;
            }
        }
        let gateway = self.gateways.get(&address.ip());
        let asked = exchange.asked(at);
        let passed_on = gateway.copied().flatten().is_some_and(|error| error + PASSED_ON >= asked);
        let is_error = match status {
            502 | 504 => false,
            503 => gateway.is_none(),
            status => status >= 500,
        };
        if is_error && passed_on {
            return;
        }
        let Some(server) = self.servers.entry(address) else { return };
        if at_home && !server.at_home {
            *server = Server { at_home, ..Server::default() };
        } else if at_home != server.at_home {
            return;
        }
        let was_bad = server.bad.is_some();
        server.answer(Answer { at, status, is_error });
        if was_bad || server.bad.is_some() {
            self.settle(cx, "its answers are no errors any more");
        }
    }

    /// Claims what holds now.
    fn settle(&self, cx: &mut Context<'_>, over: &str) {
        let mut wanted = BTreeMap::new();
        for (address, server) in self.servers.iter() {
            let Some(bad) = &server.bad else { continue };
            let Some(subject) = self.subject(cx, *address, bad) else { continue };
            let Share { errors, all } = bad.share;
            let evidence = format!(
                "{errors} of {all} answers of {address} were errors of its own, the last {}; of {} before, {} were",
                bad.status, bad.usual.all, bad.usual.errors
            );
            want(&mut wanted, subject, Claim { severity: Severity::Warning, since: bad.since, evidence });
        }
        cx.claims.settle(wanted, over);
    }

    /// What it is about; `None` while another pod of the Service has not been asked often enough since.
    fn subject(&self, cx: &Context<'_>, address: SocketAddr, bad: &Bad) -> Option<Subject> {
        let pod = self.pods.get(&address.ip());
        let Some(service) = self.behind.get(&address.ip()) else {
            let of_it = || pod.map_or_else(|| cx.operator.server(address), Subject::pod);
            return (!bad.by_others).then(of_it);
        };
        let whole = Subject::service(service);
        let others = self.servers.iter().filter(|(other, server)| {
            let is_sibling = other.port() == address.port() && self.behind.get(&other.ip()) == Some(service);
            is_sibling && **other != address && server.bad.is_none() && server.last >= bad.since
        });
        // Once its errors are over, good answers of another pod show no difference.
        let last = self.servers.get(&address).and_then(Server::last_error).unwrap_or(bad.since);
        let verdicts: Vec<_> = others.map(|(_, server)| server.also(bad.since..=last)).collect();
        if let Some(pod) = pod.filter(|_| verdicts.contains(&Some(false))) {
            return Some(Subject::pod(pod));
        }
        if bad.by_others {
            return None;
        }
        let stands = cx.claims.standing_of(&whole).is_some();
        (stands || !verdicts.contains(&None)).then_some(whole)
    }
}

impl Detector for BackendErrors {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        match &signal.observed {
            Observed::Exchange(exchange) => self.exchange(cx, signal.at, exchange),
            Observed::Pod(pod) if pod.change != Change::Removed => self.pods.insert(pod.address, pod.name.clone()),
            Observed::Endpoints(service) => {
                self.services.insert(service.address, ());
                for endpoint in &service.ready {
                    // A pod behind several Services counts for the first by name.
                    let first = self.behind.get(&endpoint.address).is_none_or(|known| *known >= service.service);
                    if first {
                        self.behind.insert(endpoint.address, service.service.clone());
                    }
                }
            }
            _ => {}
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        let unasked = |server: &Server| server.bad.is_some() && cx.now.since(server.last) >= UNASKED;
        let mut gone = self.servers.values_mut().filter(|server| unasked(server)).peekable();
        if gone.peek().is_some() {
            gone.for_each(|server| *server = Server { at_home: server.at_home, ..Server::default() });
            self.settle(cx, "no request for a minute");
        }
    }

    fn forget(&mut self, cx: &Context<'_>) {
        self.servers.retain(|_, server| cx.now.since(server.last) < FORGET);
    }
}

#[cfg(test)]
pub(crate) mod tests;
