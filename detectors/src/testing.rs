//! Scenes for tests: hand-written signals, fed to all detectors as a live run feeds them.
//!
//! Times are milliseconds from the beginning of a scene.

use std::net::SocketAddr;
use std::time::Duration;

use crate::finding::{Finding, Level, Severity};
use crate::operator::{DeclaredPath, Operator};
use crate::record::Feed;
use crate::registry::DetectorSet;
use crate::signal::{
    Change, ConntrackStats, ConntrackTable, Direction, Endpoint, Endpoints, Flow, Link, Observed, Pod, Probe,
    ProbeKind, Protocol, Route, RouteLookup, Rule, Segment, Signal, Socket, TcpFlags, TcpState, Tuple,
};
use crate::time::Time;

/// Scenes begin when the machine has been up for a while.
const START: u64 = 1_000_000_000_000;

pub fn ms(at: u64) -> Time {
    Time(START + at * 1_000_000)
}

pub fn operator() -> Operator {
    Operator {
        pod_prefixes: vec!["10.176.96.0/20".parse().unwrap()],
        pod_nic: "eth1".into(),
        pod_table: 2,
        node_nic: "eth0".into(),
        dns_service: "kube-dns".into(),
        dns_address: "192.168.0.10".parse().unwrap(),
        paths: vec![DeclaredPath { prefix: "192.168.60.0/24".parse().unwrap(), mtu: 1400 }],
        time_wait: Duration::from_mins(1),
        peers: Vec::new(),
        peer_prefix_length: 24,
    }
}

pub fn signal(at: Time, node: &str, observed: Observed) -> Signal {
    Signal { at, node: node.into(), observed }
}

/// A run of signals, what was said about it, and when.
pub struct Scene {
    feed: Feed,
    now: u64,
    pub signals: Vec<Signal>,
    pub said: Vec<(Time, Finding)>,
    /// The same, in milliseconds.
    pub findings: Vec<(u64, Finding)>,
}

impl Scene {
    pub fn new() -> Self {
        let feed = Feed::new(DetectorSet::new(&operator()));
        Self { feed, now: 0, signals: Vec::new(), said: Vec::new(), findings: Vec::new() }
    }

    /// One signal, told at once.
    pub fn at(&mut self, at: u64, node: &str, observed: Observed) {
        self.now = self.now.max(at);
        self.tell(ms(at), node, observed);
    }

    /// One signal that is told only now.
    pub fn late(&mut self, at: u64, node: &str, observed: Observed) {
        self.tell(ms(at), node, observed);
    }

    fn tell(&mut self, at: Time, node: &str, observed: Observed) {
        let signal = signal(at, node, observed);
        let said = self.feed.signal(ms(self.now), &signal);
        self.signals.push(signal);
        self.note(said);
    }

    pub fn until(&mut self, at: u64) {
        self.now = self.now.max(at);
        let said = self.feed.advance(ms(self.now));
        self.note(said);
    }

    fn note(&mut self, said: Vec<(Time, Finding)>) {
        self.findings.extend(said.iter().map(|(at, finding)| ((at.0 - START) / 1_000_000, finding.clone())));
        self.said.extend(said);
    }

    fn of<'a, 'b>(&'a self, detector: &'b str) -> impl DoubleEndedIterator<Item = &'a (u64, Finding)> + use<'a, 'b> {
        self.findings.iter().filter(move |(_, finding)| finding.detector == detector)
    }

    /// When, and of what, the detector first spoke at this severity or above.
    pub fn first(&self, detector: &str, severity: Severity) -> Option<(u64, String)> {
        let mut loud = self.of(detector).filter(|(_, f)| f.severity >= severity && !f.cleared);
        loud.next().map(|(at, f)| (*at, f.subject.to_string()))
    }

    pub fn worst(&self, detector: &str) -> Option<Severity> {
        self.of(detector).map(|(_, finding)| finding.severity).max()
    }

    /// Evidence of the last finding that was no withdrawal.
    pub fn evidence(&self, detector: &str) -> &str {
        self.of(detector).rev().find(|(_, f)| !f.cleared).map_or("", |(_, f)| &f.evidence)
    }

    /// Whether the detector spoke, and its last word was a withdrawal.
    pub fn cleared(&self, detector: &str) -> bool {
        self.of(detector).next_back().is_some_and(|(_, finding)| finding.cleared)
    }

    pub fn standing(&self, detector: &str) -> Option<Severity> {
        let (_, last) = self.of(detector).next_back()?;
        (!last.cleared).then_some(last.severity)
    }

    /// What a control asks for: nothing at `warning` or above but standing risks.
    #[track_caller]
    pub fn assert_quiet(&self) {
        let loud = self.findings.iter().filter(|(_, f)| f.severity > Severity::Info && f.level != Level::Risk);
        assert_eq!(loud.collect::<Vec<_>>(), Vec::<&(u64, Finding)>::new());
    }
}

/// The incidents, one scene each.
pub fn incidents() -> Vec<(&'static str, Scene)> {
    vec![
        ("I1-mss-clamp-raised", crate::pmtu_blackhole::tests::incident()),
        ("I2-conntrack-cap-reset", crate::conntrack_exhaustion::tests::incident()),
        ("I3-coredns-single-replica-loss", crate::pod_nic::tests::incident()),
        ("I4-policy-route-lost", crate::policy_route::tests::incident()),
        ("I7-snat-port-collision", crate::snat_port_reuse::tests::incident()),
        ("I7-snat-exhaustion", crate::snat_exhaustion::tests::incident()),
    ]
}

// Links, routes, rules, pods

pub fn link_state(name: &str, index: u32, change: Change, up: bool, carrier: bool) -> Observed {
    Observed::Link(Link { change, index, name: name.into(), up, carrier })
}

pub fn link(name: &str, index: u32) -> Observed {
    link_state(name, index, Change::Present, true, true)
}

pub fn link_gone(name: &str, index: u32) -> Observed {
    link_state(name, index, Change::Removed, false, false)
}

pub fn rule_from(change: Change, pod: &str) -> Observed {
    let from = Some(format!("{pod}/32").parse().unwrap());
    Observed::Rule(Rule { change, priority: 1536, from, to: None, table: 2 })
}

pub fn rule_to(change: Change, pod: &str) -> Observed {
    let to = Some(format!("{pod}/32").parse().unwrap());
    Observed::Rule(Rule { change, priority: 512, from: None, to, table: 254 })
}

pub fn default_route(change: Change, metric: u32) -> Observed {
    let (gateway, link) = (Some("10.176.96.1".parse().unwrap()), Some("eth1".to_owned()));
    Observed::Route(Route { change, table: 2, destination: None, gateway, link, metric })
}

pub fn lookup(source: &str, destination: &str, link: Option<&str>) -> Observed {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    Observed::RouteLookup(RouteLookup { source, destination, link: link.map(str::to_owned), table: None })
}

pub fn pod(change: Change, name: &str, address: &str) -> Observed {
    Observed::Pod(Pod { change, name: name.into(), address: address.parse().unwrap(), link: format!("veth-{name}") })
}

/// Endpoints of kube-dns; the nth CoreDNS pod has the address 10.176.98.(2 + n).
pub fn endpoints(ready: &[(&str, &str)]) -> Observed {
    let endpoint = |(pod, node): &(&str, &str)| {
        let number: u8 = pod.trim_start_matches("coredns-").parse().unwrap();
        Endpoint { pod: (*pod).into(), address: [10, 176, 98, 2 + number].into(), node: (*node).into() }
    };
    let operator = operator();
    let ready = ready.iter().map(endpoint).collect();
    Observed::Endpoints(Endpoints { service: operator.dns_service, address: operator.dns_address, ready })
}

pub fn probe(kind: ProbeKind, target: &str, ok: bool) -> Observed {
    let error = (!ok).then(|| "timeout".to_owned());
    let (source, target) = ("10.176.64.11".parse().unwrap(), target.parse().unwrap());
    Observed::Probe(Probe { kind, source, target, ok, took_us: if ok { 900 } else { 400_000 }, error })
}

// Connection tracking

pub fn table(count: u64, limit: u64) -> Observed {
    Observed::ConntrackTable(ConntrackTable { count, limit })
}

pub fn stats() -> ConntrackStats {
    ConntrackStats::default()
}

pub fn drops(drop: u64) -> Observed {
    Observed::ConntrackStats(ConntrackStats { drop, ..stats() })
}

/// A flow whose source is translated.
pub fn flow(change: Change, original: &str, translated: &str, server: &str, replied: bool) -> Observed {
    let [original, translated, server]: [SocketAddr; 3] = [original, translated, server].map(|a| a.parse().unwrap());
    Observed::Flow(Flow {
        change,
        protocol: Protocol::Tcp,
        original: Tuple { source: original, destination: server },
        reply: Tuple { source: server, destination: translated },
        replied,
    })
}

// Segments and sockets

/// "S" for a SYN, "SA", "A", "FA", "R".
pub fn segment(
    link: &str,
    direction: Direction,
    ends: [&str; 2],
    flags: &str,
    numbers: [u32; 2],
    timestamp: u32,
) -> Segment {
    let has = |flag| flags.contains(flag);
    Segment {
        link: link.into(),
        direction,
        source: ends[0].parse().unwrap(),
        destination: ends[1].parse().unwrap(),
        flags: TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') },
        sequence: numbers[0],
        acknowledgment: numbers[1],
        payload: 0,
        mss: has('S').then_some(1460),
        timestamp: Some(timestamp),
    }
}

pub fn syn_out(link: &str, source: &str, destination: &str, sequence: u32, timestamp: u32) -> Observed {
    Observed::Segment(segment(link, Direction::Out, [source, destination], "S", [sequence, 0], timestamp))
}

pub fn syn_in(link: &str, source: &str, destination: &str, sequence: u32, timestamp: u32) -> Observed {
    Observed::Segment(segment(link, Direction::In, [source, destination], "S", [sequence, 0], timestamp))
}

/// The answer to a SYN with this sequence number.
pub fn syn_ack_in(link: &str, source: &str, destination: &str, sequence: u32) -> Observed {
    let numbers = [77_000, sequence.wrapping_add(1)];
    Observed::Segment(segment(link, Direction::In, [source, destination], "SA", numbers, 5))
}

/// A connection from a client of an office to the ingress pod.
pub struct Tcp {
    remote: String,
}

impl Tcp {
    const LOCAL: &str = "10.176.98.10:80";
    const ISN: u32 = u32::MAX - 5_000;

    pub fn office(remote: &str) -> Self {
        Self { remote: remote.into() }
    }

    fn forth(&self, flags: &str, sequence: u32) -> Segment {
        let ends = [Self::LOCAL, &self.remote];
        segment("eth1", Direction::Out, ends, flags, [Self::ISN.wrapping_add(sequence), 501], 9)
    }

    fn back(&self, flags: &str, acknowledged: u32) -> Segment {
        let ends = [self.remote.as_str(), Self::LOCAL];
        segment("eth1", Direction::In, ends, flags, [500, Self::ISN.wrapping_add(acknowledged)], 9)
    }

    pub fn syn(&self, mss: u16) -> Observed {
        Observed::Segment(Segment { mss: Some(mss), ..self.back("S", 0) })
    }

    /// A request; it acknowledges the SYN-ACK, and with it a small packet.
    pub fn request(&self) -> Observed {
        Observed::Segment(Segment { payload: 120, ..self.back("A", 1) })
    }

    /// Data to the client, from this byte on.
    pub fn data(&self, from: u32, payload: u32) -> Observed {
        Observed::Segment(Segment { payload, ..self.forth("A", from) })
    }

    pub fn acked(&self, up_to: u32) -> Observed {
        Observed::Segment(self.back("A", up_to))
    }

    pub fn socket(&self, send_mss: u32, bytes_acked: u64, send_queue: u32, retransmits: u8) -> Observed {
        Observed::Socket(Socket {
            pod: Some("ingress".into()),
            local: Self::LOCAL.parse().unwrap(),
            remote: self.remote.parse().unwrap(),
            state: TcpState::Established,
            retransmits,
            total_retransmits: retransmits.into(),
            unacked: u32::from(send_queue > 0),
            rto_us: 200_000 << retransmits.min(6),
            rtt_us: 400,
            send_mss,
            bytes_acked,
            bytes_received: 120,
            send_queue,
        })
    }
}
