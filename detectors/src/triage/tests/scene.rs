//! Ways in, and signals and complaints of their users.

use std::net::IpAddr;

use crate::signal::{End as SeenAt, Endpoint, Endpoints, Exchange, Observed, Probe, ProbeKind};
use crate::testing::{ms, observed, operator, signal};
use crate::triage::{Access, AskedService, End, Leg, Lookup, Outcome, Seen, State, Triage, Verdict};

pub(super) const DNS: &str = "192.168.0.10";
pub(super) const STORE: &str = "oss.example.com";

pub(super) fn end(place: &str, address: &str, node: Option<&str>) -> End {
    let (place, node) = (place.to_owned(), node.map(str::to_owned));
    End { place, addresses: vec![address.parse().unwrap()], node }
}

pub(super) fn app() -> End {
    end("pod/app", "10.176.98.29", Some("worker-2"))
}

pub(super) fn database() -> End {
    end("outside/database", "10.176.46.4", None)
}

pub(super) fn leg(from: End, to: End, port: u16) -> Leg {
    Leg { from: vec![from], to: vec![to], port: Some(port), ..Leg::default() }
}

pub(super) fn by_name(leg: Leg, name: &str, resolver: &str) -> Leg {
    let lookup = Lookup { name: name.to_owned(), resolver: resolver.parse().unwrap() };
    Leg { lookup: Some(lookup), ..leg }
}

pub(super) fn by_service(leg: Leg, name: &str, address: &str) -> Leg {
    let service = AskedService { name: name.to_owned(), address: address.parse().unwrap() };
    Leg { service: Some(service), ..leg }
}

/// A connect of the application to the database at 500 ms.
pub(super) fn an_answered_syn(scene: &mut Scene) {
    scene.play(
        "500 syn eth1 10.176.98.29:40001 10.176.46.4:3306 7 1; 501 syn-ack eth1 10.176.46.4:3306 10.176.98.29:40001 7",
    );
}

/// Connects of the application to the database that leave by this link, from 1 s on.
pub(super) fn unanswered_syns(scene: &mut Scene, link: &str) {
    for number in 0..4 {
        let (at, port) = (1_000 + number, 41_000 + number);
        scene.play(&format!("{at} syn {link} 10.176.98.29:{port} 10.176.46.4:3306 {} 1", 100 + number));
    }
}

/// A client outside, an ingress on worker-1 and a back end on worker-2.
pub(super) fn by_ingress() -> Vec<Leg> {
    let ingress = || end("pod/ingress", "10.176.98.10", Some("worker-1"));
    let front = leg(end("office/beijing", "192.168.40.10", None), ingress(), 80);
    let back = leg(ingress(), end("pod/tickets", "10.176.98.40", Some("worker-2")), 8080);
    vec![Leg { ingress: true, ..front }, by_service(back, "tickets", "192.168.0.20")]
}

pub(super) struct Scene {
    pub triage: Triage,
    now: u64,
    outcome: Outcome,
}

impl Scene {
    pub fn new(legs: Vec<Leg>, outcome: Outcome) -> Self {
        let triage = Triage::new(&operator(), vec![Access { flow: "flow".to_owned(), legs }]);
        let mut scene = Self { triage, now: 0, outcome };
        for node in ["worker-1", "worker-2"] {
            scene.play(&format!("0 @{node} link eth1 3; 0 @{node} table 50/4096"));
        }
        scene
    }

    /// Steps as in the scripts of detectors' tests: `TIME @NODE SIGNAL`.
    pub fn play(&mut self, script: &str) {
        for step in script.split([';', '\n']).map(str::trim).filter(|step| !step.is_empty()) {
            let words: Vec<_> = step.split_whitespace().collect();
            let (time, rest) = (words[0].parse().unwrap(), &words[1..]);
            let (node, rest) = match rest[0].strip_prefix('@') {
                Some(node) => (node, &rest[1..]),
                None => ("worker-2", rest),
            };
            self.see(time, node, observed(rest));
        }
    }

    pub fn see(&mut self, at: u64, node: &str, observed: impl Into<Observed>) {
        self.until(at);
        self.triage.observe(&signal(ms(at), node, observed.into()));
    }

    pub fn until(&mut self, at: u64) {
        while self.now < at {
            self.now = (self.now + 50).min(at);
            self.triage.tick(ms(self.now));
        }
    }

    /// Users complain at `at`; the verdict then.
    pub fn verdict(&mut self, at: u64) -> Verdict {
        for node in ["worker-1", "worker-2"] {
            // Agents report all the time.
            self.play(&format!("{at} @{node} log 1 a line; {at} @{node} syn lo 127.0.0.1:1 127.0.0.1:2 1 1"));
        }
        self.until(at);
        self.triage.seen("flow", Seen { at: ms(at), outcome: self.outcome });
        self.triage.tick(ms(at));
        self.triage.verdict().expect("a complaint").verdict
    }

    /// "step at place, also: contributing", or "nothing".
    #[track_caller]
    pub fn leads(&mut self, at: u64, expected: &str) {
        let verdict = self.verdict(at);
        let also = verdict.contributing.iter().map(|step| format!(", also {step}")).collect::<String>();
        let found = match (verdict.first, &verdict.at) {
            (Some(first), Some(at)) => format!("{first} {at}{also}"),
            _ => format!("nothing{also}"),
        };
        assert_eq!(found, expected, "{:#?}", verdict.steps);
    }

    pub fn probe(&mut self, at: u64, node: &str, kind: ProbeKind, target: &str, about: &str, error: &str) {
        let (ok, error) = (error.is_empty(), (!error.is_empty()).then(|| error.to_owned()));
        let about = Some(about.to_owned());
        let target: IpAddr = target.parse().unwrap();
        self.see(at, node, Probe { kind, source: target, target, port: None, about, ok, took_us: 900, error });
    }

    pub fn endpoints(&mut self, at: u64, service: &str, address: &str, ready: &[&str]) {
        let endpoint = |address: &&str| Endpoint {
            pod: "tickets".to_owned(),
            address: address.parse().unwrap(),
            node: "worker-2".to_owned(),
        };
        let ready = ready.iter().map(endpoint).collect();
        let list = Endpoints { service: service.to_owned(), address: address.parse().unwrap(), ready };
        self.see(at, "worker-1", list);
    }

    /// Answers of a pod, seen at its own node.
    pub fn answers(&mut self, at: u64, server: &str, count: u16, took: u64, status: Option<u16>) {
        for number in 0..count {
            let client = format!("10.176.98.10:{}", 40_000 + number).parse().unwrap();
            let exchange = Exchange {
                client,
                server: server.parse().unwrap(),
                seen_at: SeenAt::Server,
                request: 100,
                took_us: took * 1000,
                answered: true,
                acked_us: Some(100),
                waited_us: 0,
                connect_us: None,
                sent_again: false,
                after_greeting: false,
                status,
            };
            self.see(at + u64::from(number), "worker-2", exchange);
        }
    }

    pub fn state(&mut self, at: u64, step: usize) -> State {
        self.verdict(at).steps[step - 1].state
    }
}
