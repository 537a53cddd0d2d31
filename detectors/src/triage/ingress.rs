//! Step 5, the ingress: does it send requests where the back end listens, and does it answer?

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::access::{Leg, Outcome};
use super::{Ask, Look, Step};
use crate::capped::Capped;
use crate::finding::Subject;
use crate::operator::Operator;
use crate::signal::{End, Exchange, IngressLog, Observed, Signal};
use crate::time::Time;

const SPAN: Duration = Duration::from_secs(6);
const KEPT: usize = 128;
/// Errors that count.
const SEVERAL: usize = 2;
const CAP: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Ingress {
    /// By pod.
    logs: Capped<String, VecDeque<(Time, IngressLog)>, CAP>,
    /// Exchanges at their server's end, by server.
    served: Capped<SocketAddr, VecDeque<(Time, Exchange)>, CAP>,
}

fn keep<T>(kept: &mut VecDeque<(Time, T)>, at: Time, one: T) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back((at, one));
}

impl Ingress {
    fn leg(&self, ask: &Ask<'_>, leg: &Leg, behind: Option<&Leg>) -> Look {
        let recent = |at: &Time| ask.now.since(*at) < SPAN;
        let is_error = |status: u16| (502..=504).contains(&status);
        let mut passed = None;
        for end in &leg.to {
            let pod = end.place.trim_start_matches("pod/");
            let logs = || self.logs.get(pod).into_iter().flatten().filter(|(at, _)| recent(at)).map(|(_, log)| log);
            let errors: Vec<&IngressLog> = logs().filter(|log| is_error(log.status)).collect();
            // Where it sends requests that fail.
            let wanted = behind.and_then(|behind| behind.port);
            let asks = |address| behind.is_none_or(|behind| behind.asks(address));
            let elsewhere = |to: &SocketAddr| wanted.is_some_and(|port| port != to.port()) || !asks(to.ip());
            let strayed = errors.iter().filter_map(|log| log.upstream).filter(elsewhere);
            let strayed: Vec<_> = strayed.collect();
            // Without a log: its own connects to a port that is not the back end's and that never answered.
            let is_logged = logs().next().is_some();
            let own = ask.shared.journeys.iter().filter(|journey| {
                let failed = journey.refused.is_some_and(|at| recent(&at)) || journey.is_broken(ask.now);
                let failed = failed && !is_logged;
                failed
                    && journey.origin().is_some_and(|origin| {
                        let to = origin.destination;
                        let is_asked = behind.is_some_and(|behind| behind.asks(to.ip()));
                        let is_new = ask.shared.journeys.accepted(to).is_none();
                        end.addresses.contains(&origin.source.ip()) && is_asked && is_new && elsewhere(&to)
                    })
            });
            let connects: Vec<_> = own.filter_map(|journey| Some(journey.origin()?.destination)).collect();
            let served: Vec<&Exchange> = (self.served.iter())
                .filter(|(server, _)| end.addresses.contains(&server.ip()))
                .flat_map(|(_, exchanges)| exchanges)
                .filter(|(at, _)| recent(at))
                .map(|(_, exchange)| exchange)
                .collect();
            let gateway = served.iter().filter(|exchange| exchange.status.is_some_and(is_error)).count();
            if let Some(to) = strayed.last().or(connects.last())
                && strayed.len().max(connects.len()) >= SEVERAL
            {
                let count = strayed.len().max(connects.len());
                let port = wanted.map_or_else(String::new, |port| format!(", its back end has port {port}"));
                let what = format!("{} sends requests to {to}, which does not answer ({count} times){port}", end.place);
                let explains = ask.outcome.is_gateway() || matches!(ask.outcome, Outcome::Failed | Outcome::Timeout);
                return Look::faulty(Subject::pod(pod), what).explains_if(explains);
            }
            let well = served
                .iter()
                .filter(|exchange| exchange.answered && exchange.status.is_none_or(|status| !is_error(status)));
            let (well, logged) = (well.count(), logs().filter(|log| !is_error(log.status)).count());
            if well.max(logged) > 0 {
                passed = Some(format!("{} answers: {} requests in a few seconds", end.place, well.max(logged)));
            } else if gateway > 0 || !errors.is_empty() {
                passed = Some(format!("{} reports that its back end does not answer it", end.place));
            }
        }
        passed.map_or_else(|| Look::not_seen("no request to the ingress was seen"), Look::in_order)
    }
}

impl Step for Ingress {
    fn observe(&mut self, _: &Operator, signal: &Signal) {
        match &signal.observed {
            Observed::IngressLog(log) => {
                if let Some(kept) = self.logs.entry(log.pod.clone()) {
                    keep(kept, signal.at, log.clone());
                }
            }
            Observed::Exchange(exchange) if exchange.seen_at == End::Server => {
                if let Some(kept) = self.served.entry(exchange.server) {
                    keep(kept, signal.at, exchange.clone());
                }
            }
            _ => {}
        }
    }

    fn look(&self, ask: &Ask<'_>) -> Look {
        let legs = &ask.access.legs;
        let ingresses = legs.iter().enumerate().filter(|(_, leg)| leg.ingress);
        let looks: Vec<Look> = ingresses
            .map(|(number, leg)| self.leg(ask, leg, legs[number + 1..].iter().find(|deeper| deeper.from == leg.to)))
            .collect();
        if looks.is_empty() { Look::not_on_this_way("no ingress is on the way") } else { Look::worst(looks) }
    }
}
