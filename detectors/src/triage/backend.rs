//! Step 2, the golden signals of those who answer: do requests arrive, are the answers errors, how late are they?
//!
//! The time of a server is that from a request to its answer without the network's and without what the server itself
//! waited for. Pods are judged at their own node, servers outside by what the access's own clients see of them.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::access::{Leg, Outcome};
use super::journeys::{Journey, RECENT, Sighting};
use super::{Ask, Look, Step};
use crate::capped::Capped;
use crate::finding::Subject;
use crate::operator::Operator;
use crate::signal::{End, Exchange, Observed, ProbeKind, Signal};
use crate::time::{Time, span};
use crate::usual::Usual;

/// Times that are known before anything is unusual, and that are kept.
const ENOUGH: usize = 6;
const KEPT: usize = 64;
/// Late answers, errors, or silences that count.
const SEVERAL: usize = 3;
/// An acknowledgment may be so late without any blame.
const DELAYED_ACK: Duration = Duration::from_millis(60);
/// An exchange counts for this long.
const SPAN: Duration = Duration::from_secs(6);
const CAP: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Backend {
    servers: Capped<(SocketAddr, bool), Server, CAP>,
    /// When each address last answered an echo.
    echo: Capped<IpAddr, Time, CAP>,
}

#[derive(Debug, Default)]
struct Server {
    usual: Usual<ENOUGH, KEPT>,
    recent: VecDeque<Answer>,
}

#[derive(Debug, Clone)]
struct Answer {
    at: Time,
    client: SocketAddr,
    asked: Time,
    own_time: Duration,
    late: bool,
    answered: bool,
    status: Option<u16>,
}

impl Server {
    fn add(&mut self, at: Time, exchange: &Exchange) {
        let threshold = self.usual.threshold();
        let took = exchange.took();
        let network = exchange.acked_us.or(exchange.connect_us).map(Duration::from_micros);
        let own_time =
            took.saturating_sub(network.unwrap_or_default()).saturating_sub(Duration::from_micros(exchange.waited_us));
        // Only an acknowledgment shows that the server had the request.
        let had_it = exchange.acked_us.is_some();
        let late = had_it
            && !exchange.sent_again
            && !exchange.after_greeting
            && threshold.is_some_and(|threshold| own_time + DELAYED_ACK >= threshold);
        let asked = exchange.asked(at);
        let same = |known: &Answer| {
            known.client == exchange.client && !known.answered && asked.since(known.asked) < Duration::from_millis(1)
        };
        self.recent.retain(|known| !same(known) && at.since(known.at) < SPAN);
        if !late && exchange.answered && !exchange.sent_again && !exchange.after_greeting {
            self.usual.add(own_time);
        }
        let (client, answered, status) = (exchange.client, exchange.answered, exchange.status);
        self.recent.push_back(Answer { at, client, asked, own_time, late, answered, status });
        if self.recent.len() > 4 * KEPT {
            self.recent.pop_front();
        }
    }
}

impl Backend {
    /// The servers of a leg; of a Service, those that are ready.
    fn servers<'a>(ask: &'a Ask<'_>, leg: &'a Leg) -> impl Iterator<Item = SocketAddr> + 'a {
        leg.servers().filter(|server| ask.services.is_ready(leg, server.ip()))
    }

    /// What the leg's clients get from those who answer.
    fn leg(&self, ask: &Ask<'_>, leg: &Leg, depends: bool) -> Look {
        let Some(port) = leg.port else { return Look::not_on_this_way("nothing but echo is asked") };
        let mut addresses: Vec<_> = Self::servers(ask, leg).collect();
        if let Some(lookup) = &leg.lookup {
            addresses.extend(ask.dns.addresses(&lookup.name).into_iter().map(|address| SocketAddr::new(address, port)));
        }
        let mut answers = 0;
        let mut proof = None;
        for &address in &addresses {
            let is_inside = leg.to.iter().any(|end| end.node.is_some() && end.addresses.contains(&address.ip()));
            let Some(server) = self.servers.get(&(address, is_inside)) else { continue };
            let own = |answer: &&Answer| {
                let client = ask.shared.journeys.original(answer.client);
                is_inside && leg.from.iter().all(|end| end.node.is_none()) || leg.is_from(client.ip())
            };
            let recent = || server.recent.iter().filter(|answer| ask.now.since(answer.at) < SPAN);
            let newest: Vec<&Answer> = recent().filter(own).collect();
            // A request that still waits, for no longer than usual, tells nothing yet.
            let told = newest.iter().rev().filter(|answer| answer.answered || answer.late);
            let late: Vec<&&Answer> = told.take_while(|answer| answer.late).collect();
            if late.len() >= SEVERAL || late.iter().any(|answer| !answer.answered) && late.len() > 1 {
                let shortest = late.iter().map(|answer| answer.own_time).min().unwrap_or_default();
                let usual = server.usual.median().unwrap_or_default();
                let what = format!(
                    "{} answers in a row took {} and more, {} is usual; each request was acknowledged at once",
                    late.len(),
                    span(shortest),
                    span(usual)
                );
                return Look::faulty(ask.operator.server(address), what).explains_if(true);
            }
            // An application that depends on others reports their failures as a gateway does.
            let is_error = |status: u16| status >= 500 && !(depends && Outcome::Status(status).is_gateway());
            let errors = |server: &Server| {
                let recent = || server.recent.iter().filter(|answer| ask.now.since(answer.at) < SPAN);
                let errors = recent().filter(|answer| answer.status.is_some_and(is_error)).count();
                (errors, recent().count())
            };
            let (count, all) = errors(server);
            if count >= SEVERAL.min(all) && count * 10 >= all && count > 0 {
                let status = recent().rev().find_map(|answer| answer.status.filter(|status| is_error(*status)));
                let what = format!("{count} of {all} answers of {address} are errors ({})", status.unwrap_or_default());
                let others = addresses.iter().filter(|other| **other != address);
                let mut others = others.filter_map(|other| self.servers.get(&(*other, is_inside))).map(errors);
                let pod = leg.to.iter().find(|end| end.addresses.contains(&address.ip()));
                let pod = pod.and_then(|end| end.place.strip_prefix("pod/"));
                let about = match (&leg.service, pod) {
                    (Some(_), Some(pod)) if others.any(|(count, all)| all >= SEVERAL && count * 10 < all) => {
                        Subject::pod(pod)
                    }
                    (Some(service), _) => Subject::service(&service.name),
                    (None, _) => ask.operator.server(address),
                };
                let explains = matches!(ask.outcome, Outcome::Status(_) | Outcome::Failed);
                return Look::faulty(about, what).explains_if(explains);
            }
            answers += recent().filter(|answer| answer.answered && !answer.late).count();
            proof = proof.or(server.usual.median().map(|usual| (address, usual)));
        }
        if let Some(silent) = self.silent(ask, leg) {
            return silent;
        }
        match proof {
            Some((address, usual)) if answers > 0 => {
                Look::in_order(format!("{address} takes {} of its own to answer, as usual", span(usual)))
            }
            _ if answers > 0 => Look::in_order(format!("{} answers in a few seconds", answers)),
            _ => self.accepts(ask, leg),
        }
    }

    /// Without exchanges: whether connects are accepted.
    fn accepts(&self, ask: &Ask<'_>, leg: &Leg) -> Look {
        let since = |server| ask.shared.journeys.accepted(server).filter(|at| ask.now.since(*at) < SPAN);
        match Self::servers(ask, leg).find(|server| since(*server).is_some()) {
            Some(server) => Look::in_order(format!("{server} accepts connections")),
            None => Look::not_seen(format!("no request to {} was seen", leg.to.first().map_or("it", |end| &end.place))),
        }
    }

    /// SYNs to a server that answers no client.
    fn silent(&self, ask: &Ask<'_>, leg: &Leg) -> Option<Look> {
        let now = ask.now;
        for address in Self::servers(ask, leg) {
            let to_it = |journey: &&Journey| journey.syns.iter().any(|sight| sight.destination == address);
            let journeys: Vec<_> = ask.shared.journeys.iter().filter(to_it).collect();
            let own = ask.shared.journeys.of(leg);
            let refused =
                own.iter().filter(|journey| journey.refused.is_some_and(|at| now.since(at) < RECENT) && to_it(journey));
            if refused.count() >= 2 && own.iter().rev().take(2).all(|journey| journey.refused.is_some()) {
                let what = format!("{address} refuses connections");
                let explains = !matches!(ask.outcome, Outcome::Slow(_) | Outcome::NameError);
                return Some(Look::faulty(ask.operator.server(address), what).explains_if(explains));
            }
            let broken: Vec<_> = journeys.iter().filter(|journey| journey.is_broken(now)).collect();
            let Some(first) = broken.iter().map(|journey| journey.began()).min() else { continue };
            let answered = ask.shared.journeys.accepted(address).is_some_and(|at| at > first);
            let delivered =
                |journey: &&&&Journey| match leg.to.iter().find_map(|end| end.node.as_deref()) {
                    // At the pod's own link.
                    Some(node) => {
                        journey.syns.iter().any(|sight| {
                            &*sight.node == node && sight.goes_out() && !ask.operator.is_uplink(&sight.link)
                        }) && journey.answers.is_empty()
                    }
                    None => {
                        let echo = self.echo.get(&address.ip()).is_some_and(|at| *at >= first);
                        let right = |sight: &Sighting| {
                            sight.goes_out()
                                && ask.operator.is_uplink(&sight.link)
                                && !ask.shared.is_wrong_nic(ask.operator, sight, journey)
                        };
                        echo && journey.answers.is_empty() && !journey.reused && journey.syns.iter().any(right)
                    }
                };
            let reached = broken.iter().filter(delivered).count();
            if !answered && reached >= SEVERAL {
                let what = format!("{reached} SYNs reached {address}, and no client got an answer");
                return Some(Look::faulty(ask.operator.server(address), what).explains_if(true));
            }
        }
        None
    }
}

impl Step for Backend {
    fn observe(&mut self, _: &Operator, signal: &Signal) {
        match &signal.observed {
            Observed::Exchange(exchange) => {
                let at_home = exchange.seen_at == End::Server;
                if let Some(server) = self.servers.entry((exchange.server, at_home)) {
                    server.add(signal.at, exchange);
                }
            }
            Observed::Probe(probe) if probe.kind == ProbeKind::Echo && probe.ok => {
                self.echo.insert(probe.target, signal.at);
            }
            _ => {}
        }
    }

    fn look(&self, ask: &Ask<'_>) -> Look {
        let legs = &ask.access.legs;
        let asked = legs.iter().enumerate().filter(|(_, leg)| !leg.ingress && !leg.to.is_empty());
        let looks: Vec<Look> = asked
            .map(|(number, leg)| self.leg(ask, leg, legs[number + 1..].iter().any(|deeper| deeper.from == leg.to)))
            .collect();
        if looks.is_empty() {
            return Look::not_on_this_way("nothing but a name is asked");
        }
        let mut look = Look::worst(looks);
        look.explains &= ask.outcome != Outcome::NameError;
        look
    }
}
