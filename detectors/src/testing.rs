//! Scenes for tests: scripts of signals, fed to all detectors as in a live run.
//!
//! A script is a list of steps separated by `;` or newlines: `[TIME [@NODE] [SIGNAL]] [? EXPECTED]...`. Times are
//! milliseconds from the start of the scene; with a leading `~`, the signal was observed then and is delivered now.
//! Without a signal, time advances. [`observed`] documents signals, [`Scene::expect`] expectations.

use std::collections::BTreeSet;
use std::fmt::Arguments;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::finding::{Finding, Level, Severity};
use crate::operator::{DeclaredName, DeclaredPath, DeclaredServer, Entry, Operator};
use crate::record::Feed;
use crate::registry::DetectorSet;
use crate::signal::{
    Change, ConntrackStats, ConntrackTable, Container, ContainerState, Direction, Dns, End, Endpoint, Endpoints,
    Exchange, Flow, IngressLog, KernelLog, Link, Observed, Pod, Probe, ProbeKind, Protocol, Route, RouteLookup, Rule,
    Segment, Signal, Socket, TcpFlags, TcpState, Tuple,
};
use crate::time::Time;

/// Monotonic time at the start of a scene.
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
        names: vec![DeclaredName {
            name: "declared.example.com".into(),
            prefixes: vec!["10.219.226.0/24".parse().unwrap()],
        }],
        servers: vec![DeclaredServer { name: "database".into(), address: "10.176.46.4:3306".parse().unwrap() }],
        entries: vec![Entry {
            name: "tickets.example.com".into(),
            resolver: "203.0.113.53".parse().unwrap(),
            port: 80,
        }],
        conntrack_limit: None,
        seen_pods: BTreeSet::new(),
    }
}

pub fn signal(at: Time, node: &str, observed: Observed) -> Signal {
    Signal { at, node: node.into(), observed }
}

/// A sequence of signals, and the findings about them.
pub struct Scene {
    feed: Feed,
    /// The detector that expectations apply to by default.
    detector: &'static str,
    /// The node of steps that name none.
    node: &'static str,
    now: u64,
    pub signals: Vec<Signal>,
    /// Findings with the time of their report.
    pub timed: Vec<(Time, Finding)>,
    /// The same, in milliseconds of the scene.
    pub findings: Vec<(u64, Finding)>,
}

/// Creates a scene for a detector and plays a formatted script.
macro_rules! scene {
    ($detector:expr, $($script:tt)+) => {{
        let mut scene = $crate::testing::Scene::new($detector);
        scene.play(format_args!($($script)+));
        scene
    }};
}

/// Plays another formatted script in a scene.
macro_rules! play {
    ($scene:expr, $($script:tt)+) => { $scene.play(format_args!($($script)+)) };
}

pub(crate) use {play, scene};

impl Scene {
    pub fn new(detector: &'static str) -> Self {
        Self::with(detector, operator())
    }

    /// With detectors of another operator.
    pub fn with(detector: &'static str, operator: Operator) -> Self {
        let (signals, timed, findings) = (Vec::new(), Vec::new(), Vec::new());
        let feed = Feed::new(DetectorSet::new(&operator));
        Self { feed, detector, node: "worker-1", now: 0, signals, timed, findings }
    }

    /// Changes the default node.
    pub fn on(mut self, node: &'static str) -> Self {
        self.node = node;
        self
    }

    #[track_caller]
    pub fn play(&mut self, script: Arguments<'_>) {
        for step in script.to_string().split([';', '\n']).map(str::trim).filter(|step| !step.is_empty()) {
            let mut parts = step.split('?');
            let words: Vec<_> = parts.next().unwrap_or_default().split_whitespace().collect();
            if let Some((time, mut rest)) = words.split_first() {
                let mut node = self.node;
                if let Some((named, signal)) = rest.split_first().filter(|(first, _)| first.starts_with('@')) {
                    (node, rest) = (&named[1..], signal);
                }
                match time.strip_prefix('~') {
                    Some(late) => self.send(ms(read(late)), node, observed(rest)),
                    None if rest.is_empty() => self.until(read(time)),
                    None => self.at(read(time), node, observed(rest)),
                }
            }
            parts.for_each(|expected| self.expect(expected));
        }
    }

    /// Checks the findings so far. For all detectors: `silence`, no findings; `quiet`, as a control requires, nothing
    /// at `warning` or above but risks. For the scene's detector, or another one as in `pod-nic: over`: its highest
    /// severity (`nothing`, or a severity); time and subject of its first finding of at least a severity (`warning
    /// 100..200 node/a`); whether its last finding is a withdrawal (`over`, `not over`), or it has no standing finding
    /// (`nothing stands`); a part of its evidence (`evidence TEXT`).
    #[track_caller]
    fn expect(&self, expected: &str) {
        let words: Vec<_> = expected.split_whitespace().collect();
        let (detector, words) = match words.split_first() {
            Some((first, rest)) if first.ends_with(':') => (&first[..first.len() - 1], rest),
            _ => (self.detector, &words[..]),
        };
        let own: Vec<_> = self.findings.iter().filter(|(_, finding)| finding.detector == detector).collect();
        let is_over = own.last().map(|(_, finding)| finding.cleared);
        match *words {
            ["silence"] => assert_eq!(self.findings, []),
            ["quiet"] => {
                let loud = self.findings.iter().filter(|(_, f)| f.severity > Severity::Info && f.level != Level::Risk);
                assert_eq!(loud.collect::<Vec<_>>(), Vec::<&(u64, Finding)>::new());
            }
            ["nothing"] => assert!(own.is_empty(), "{own:#?}"),
            ["over"] => assert!(is_over == Some(true), "{own:#?}"),
            ["not", "over"] => assert!(is_over != Some(true), "{own:#?}"),
            ["nothing", "stands"] => assert!(is_over != Some(false), "{own:#?}"),
            ["evidence", ref text @ ..] => {
                assert!(self.evidence(detector).contains(&text.join(" ")), "{}", self.evidence(detector));
            }
            [severity] => assert_eq!(own.iter().map(|(_, f)| f.severity).max(), Some(severity_of(severity))),
            [severity, times, subject] => {
                let is = |(_, f): &&&(u64, Finding)| f.severity >= severity_of(severity) && !f.cleared;
                let (at, first) = own.iter().find(is).unwrap_or_else(|| panic!("{own:#?}"));
                let (from, to) = times.split_once("..").unwrap_or((times, times));
                assert!((read(from)..=read(to)).contains(at) && first.subject.to_string() == subject, "{at} {first:?}");
            }
            _ => panic!("unknown expectation: {expected}"),
        }
    }

    /// Delivers a signal at the time it is observed.
    pub fn at(&mut self, at: u64, node: &str, observed: Observed) {
        self.now = self.now.max(at);
        self.send(ms(at), node, observed);
    }

    fn send(&mut self, at: Time, node: &str, observed: Observed) {
        let signal = signal(at, node, observed);
        let findings = self.feed.signal(ms(self.now), &signal);
        self.signals.push(signal);
        self.collect(findings);
    }

    /// A handshake that starts at `from` and takes `took` milliseconds.
    pub fn handshake(&mut self, from: u64, server: &str, took: u64) {
        let near = format!("10.176.98.29:{}", 20_000 + from % 40_000);
        self.play(format_args!("{from} syn eth1 {near} {server}:443 {from} 1"));
        self.play(format_args!("{} syn-ack eth1 {server}:443 {near} {from}", from + took));
    }

    fn until(&mut self, at: u64) {
        self.now = self.now.max(at);
        let findings = self.feed.advance(ms(self.now));
        self.collect(findings);
    }

    fn collect(&mut self, findings: Vec<(Time, Finding)>) {
        self.findings.extend(findings.iter().map(|(at, finding)| ((at.0 - START) / 1_000_000, finding.clone())));
        self.timed.extend(findings);
    }

    /// Evidence of the detector's last finding that is not a withdrawal.
    pub fn evidence(&self, detector: &str) -> &str {
        let mut own = self.findings.iter().rev().filter(|(_, f)| f.detector == detector && !f.cleared);
        own.next().map_or("", |(_, finding)| &finding.evidence)
    }
}

/// The incidents, one scene each.
pub fn incidents() -> Vec<(&'static str, Scene)> {
    vec![
        ("I1-mss-clamp-raised", crate::pmtu_blackhole::tests::incident()),
        ("I2-conntrack-cap-reset", crate::conntrack_exhaustion::tests::incident()),
        ("I3-coredns-single-replica-loss", crate::pod_nic::tests::incident()),
        ("I4-policy-route-lost", crate::policy_route::tests::incident()),
        ("I6-dns-record-wrong", crate::dns_answer::tests::incident()),
        ("I6-dns-record-wrong-declared", crate::dns_answer::tests::incident_declared()),
        ("I5-database-slow", crate::server_slow::tests::incident()),
        ("W1-service-rules-loss", crate::service_rules::tests::incident()),
        ("W2-kube-proxy-stopped", crate::service_rules::tests::stopped()),
        ("I7-snat-port-collision", crate::snat_port_reuse::tests::incident()),
        ("I7-snat-exhaustion", crate::snat_exhaustion::tests::incident()),
        ("W4-backend-errors", crate::backend_errors::tests::incident()),
        ("W5-pod-crash", crate::pod_crash::tests::incident()),
    ]
}

fn severity_of(word: &str) -> Severity {
    match word {
        "info" => Severity::Info,
        "warning" => Severity::Warning,
        "critical" => Severity::Critical,
        _ => panic!("unknown severity: {word}"),
    }
}

fn read<T: FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("cannot parse {word:?}"))
}

/// Added (`+`), changed (`*`), removed (`-`), or present already.
fn change(word: &str) -> (Change, &str) {
    let of = |change| (change, &word[1..]);
    match word.as_bytes()[0] {
        b'+' => of(Change::Added),
        b'*' => of(Change::Changed),
        b'-' => of(Change::Removed),
        _ => (Change::Present, word),
    }
}

/// Parses a signal.
pub fn observed(words: &[&str]) -> Observed {
    match *words {
        ["link", link, index, ref state @ ..] => {
            let (change, name) = change(link);
            let working = change != Change::Removed && state.is_empty();
            let up = working || state == ["dark"];
            Link { change, index: read(index), name: name.into(), up, carrier: working }.into()
        }
        [end @ ("from" | "to"), pod] => {
            let (change, pod) = change(pod);
            let pod = Some(read(&format!("{pod}/32")));
            match end {
                "from" => Rule { change, priority: 1536, from: pod, to: None, table: 2 }.into(),
                _ => Rule { change, priority: 512, from: None, to: pod, table: 254 }.into(),
            }
        }
        ["default", metric] => {
            let (change, metric) = change(metric);
            let (gateway, link) = (Some(read("10.176.96.1")), Some("eth1".to_owned()));
            Route { change, table: 2, destination: None, gateway, link, metric: read(metric) }.into()
        }
        ["lookup", source, destination, link] => {
            let link = (link != "nowhere").then(|| link.to_owned());
            RouteLookup { source: read(source), destination: read(destination), link, table: None }.into()
        }
        ["pod", name, address] => {
            let (change, name) = change(name);
            Pod { change, name: name.into(), address: read(address), link: format!("veth-{name}") }.into()
        }
        // Endpoints of kube-dns; the nth CoreDNS pod has the address 10.176.98.(2 + n).
        ["endpoints", ref ready @ ..] => {
            let endpoint = |word: &&str| {
                let (number, node) = word.split_once('@').expect("NUMBER@NODE");
                let address = [10, 176, 98, 2 + read::<u8>(number)].into();
                Endpoint { pod: format!("coredns-{number}"), address, node: node.into() }
            };
            let operator = operator();
            let ready = ready.iter().map(endpoint).collect();
            Endpoints { service: operator.dns_service, address: operator.dns_address, ready }.into()
        }
        // A Service with its ready endpoints: NAME@ADDRESS@NODE.
        ["service", name, address, ref ready @ ..] => {
            let endpoint = |word: &&str| {
                let parts: Vec<_> = word.split('@').collect();
                let [pod, address, node] = parts[..] else { panic!("POD@ADDRESS@NODE") };
                Endpoint { pod: pod.into(), address: read(address), node: node.into() }
            };
            let ready = ready.iter().map(endpoint).collect();
            Endpoints { service: name.into(), address: read(address), ready }.into()
        }
        // A container's state ("running", "exit=137", or why it waits) and restarts.
        ["container", pod, state, restarts] => {
            let state = match (state, state.strip_prefix("exit=")) {
                (_, Some("0")) => ContainerState::Terminated { reason: "Completed".into(), exit_code: 0 },
                (_, Some(code)) => ContainerState::Terminated { reason: "Error".into(), exit_code: read(code) },
                ("running", _) => ContainerState::Running,
                (reason, _) => ContainerState::Waiting { reason: reason.into() },
            };
            Container { pod: pod.into(), container: "app".into(), state, restarts: read(restarts) }.into()
        }
        // A probe, its outcome (an error other than "ok" and "true"), and the name it asks for.
        ["probe", kind, target, outcome, ref name @ ..] => {
            let kind = match kind {
                "service" => ProbeKind::DnsService,
                "endpoint" => ProbeKind::DnsEndpoint,
                "upstream" => ProbeKind::DnsUpstream,
                _ => ProbeKind::Echo,
            };
            let ok = outcome == "ok" || outcome == "true";
            let why = if outcome == "false" { "timeout" } else { outcome };
            let (took_us, error) = if ok { (900, None) } else { (400_000, Some(why.to_owned())) };
            let (source, target, about) = (read("10.176.64.11"), read(target), name.first().map(ToString::to_string));
            Probe { kind, source, target, port: None, about, ok, took_us, error }.into()
        }
        // The endpoints of a Service; the nth pod has the address 10.176.98.(20 + n).
        ["behind", service, ref ready @ ..] => {
            let endpoint = |word: &&str| {
                let (number, node) = word.split_once('@').expect("NUMBER@NODE");
                let address = [10, 176, 98, 20 + read::<u8>(number)].into();
                Endpoint { pod: format!("{service}-{number}"), address, node: node.into() }
            };
            let ready = ready.iter().map(endpoint).collect();
            Endpoints { service: service.into(), address: read("192.168.0.20"), ready }.into()
        }
        // A connect to a Service, to a port of it (ADDRESS:PORT), or to its nth endpoint.
        ["connect", service, to, outcome] => {
            let (kind, target) = match (to, to.parse::<SocketAddr>()) {
                (_, Ok(port)) => (ProbeKind::Service, port),
                ("service", _) => (ProbeKind::Service, ([192, 168, 0, 20], 80).into()),
                (number, _) => (ProbeKind::Endpoint, ([10, 176, 98, 20 + read::<u8>(number)], 80).into()),
            };
            let (target, port) = (target.ip(), Some(target.port()));
            let (took_us, error) = failure(outcome);
            let (ok, about) = (error.is_none(), Some(service.to_owned()));
            Probe { kind, source: read("10.176.64.11"), target, port, about, ok, took_us, error }.into()
        }
        ["healthz", outcome] => {
            let (source, port) = (read("10.176.64.11"), Some(10256));
            let (took_us, error) = failure(outcome);
            let ok = error.is_none();
            Probe { kind: ProbeKind::KubeProxy, source, target: source, port, about: None, ok, took_us, error }.into()
        }
        // An ingress' status, its back end and that one's status; `-` where there is none.
        ["ingress", status, upstream, upstream_status] => IngressLog {
            pod: "ingress".into(),
            status: read(status),
            upstream: (upstream != "-").then(|| read(upstream)),
            upstream_status: (upstream_status != "-").then(|| read(upstream_status)),
            took_us: 1000,
        }
        .into(),
        // A look-up of an external name.
        ["external", outcome] => Probe {
            kind: ProbeKind::ExternalName,
            source: read("10.176.64.11"),
            target: read("203.0.113.53"),
            port: None,
            about: Some("tickets.example.com".into()),
            ok: outcome == "ok",
            took_us: 900,
            error: (outcome != "ok").then(|| outcome.to_owned()),
        }
        .into(),
        ["table", share] => {
            let (count, limit) = share.split_once('/').expect("COUNT/LIMIT");
            ConntrackTable { count: read(count), limit: read(limit) }.into()
        }
        ["stats", ref counts @ ..] => {
            let mut stats = ConntrackStats::default();
            for count in counts {
                let (name, value) = count.split_once('=').expect("NAME=COUNT");
                match name {
                    "drop" => stats.drop = read(value),
                    "early_drop" => stats.early_drop = read(value),
                    "insert_failed" => stats.insert_failed = read(value),
                    _ => stats.clash_resolve = read(value),
                }
            }
            stats.into()
        }
        // Read by the agent of a node in this network namespace.
        ["log", netns, ref line @ ..] => KernelLog { line: line.join(" "), netns: Some(read(netns)) }.into(),
        // A flow with a translated source, and whether it was replied to.
        ["flow", original, translated, server, ref replied @ ..] => {
            let (change, original) = change(original);
            let [original, translated, server] = [original, translated, server].map(read::<SocketAddr>);
            Flow {
                change,
                protocol: Protocol::Tcp,
                original: Tuple { source: original, destination: server },
                reply: Tuple { source: server, destination: translated },
                replied: !replied.is_empty(),
            }
            .into()
        }
        // A SYN with its sequence number and timestamp, and the answer to a SYN with this sequence number.
        ["syn", link, source, destination, sequence, timestamp] => {
            segment(link, Direction::Out, [source, destination], "S", [read(sequence), 0], timestamp).into()
        }
        ["syn-ack", link, source, destination, sequence] => {
            let numbers = [77_000, read::<u32>(sequence).wrapping_add(1)];
            segment(link, Direction::In, [source, destination], "SA", numbers, "5").into()
        }
        [way @ ("out" | "in"), link, source, destination, flags, sequence, acknowledged, timestamp] => {
            let direction = if way == "out" { Direction::Out } else { Direction::In };
            let numbers = [read(sequence), read(acknowledged)];
            segment(link, direction, [source, destination], flags, numbers, timestamp).into()
        }
        ["office", client, ref what @ ..] => office(client, what),
        // A resolver's answer for a name: time to live, addresses of one IP version; NXDOMAIN without addresses.
        ["answer", server, name, ttl, ref addresses @ ..] => {
            static NEXT: AtomicU16 = AtomicU16::new(1);
            let ipv6 = addresses.first().is_some_and(|address| address.contains(':'));
            let response = if addresses.is_empty() { "NXDOMAIN" } else { "NOERROR" };
            Dns {
                client: read("10.176.98.2:40000"),
                server: SocketAddr::new(read(server), 53),
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                name: format!("{name}."),
                record: if ipv6 { "AAAA" } else { "A" }.into(),
                response: Some(response.into()),
                answers: addresses.iter().copied().map(read).collect(),
                ttl: Some(read(ttl)),
            }
            .into()
        }
        // A request and how long the answer took, acknowledged after 40 ms where that was sooner; times in milliseconds.
        ["exchange", client, server, took, ref more @ ..] => exchange(client, server, read(took), more).into(),
        _ => panic!("unknown signal: {words:?}"),
    }
}

/// How long a probe took, microseconds, and why it failed.
fn failure(outcome: &str) -> (u64, Option<String>) {
    match outcome {
        "ok" => (900, None),
        "timeout" => (400_000, Some(outcome.to_owned())),
        _ => (300, Some(outcome.to_owned())),
    }
}

/// Flags: "S" for a SYN, "SA", "A", "FA", "R".
fn segment(
    link: &str,
    direction: Direction,
    ends: [&str; 2],
    flags: &str,
    [sequence, acknowledgment]: [u32; 2],
    timestamp: &str,
) -> Segment {
    let has = |flag| flags.contains(flag);
    Segment {
        link: link.into(),
        direction,
        source: read(ends[0]),
        destination: read(ends[1]),
        flags: TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') },
        sequence,
        acknowledgment,
        payload: 0,
        mss: has('S').then_some(1460),
        timestamp: Some(read(timestamp)),
    }
}

fn exchange(client: &str, server: &str, took: u64, more: &[&str]) -> Exchange {
    let mut exchange = Exchange {
        client: read(client),
        server: read(server),
        seen_at: End::Client,
        request: 120,
        took_us: took * 1000,
        answered: true,
        acked_us: (took > 40).then_some(40_000),
        waited_us: 0,
        connect_us: None,
        sent_again: false,
        after_greeting: false,
        status: None,
    };
    for word in more {
        let us = |number| read::<u64>(number) * 1000;
        match word.split_once('=') {
            Some(("acked", ms)) => exchange.acked_us = Some(us(ms)),
            Some(("waited", ms)) => exchange.waited_us = us(ms),
            Some(("status", status)) => exchange.status = Some(read(status)),
            Some(("connect", ms)) => exchange.connect_us = Some(us(ms)),
            None if *word == "at-server" => exchange.seen_at = End::Server,
            None if *word == "outstanding" => exchange.answered = false,
            None if *word == "unacked" => exchange.acked_us = None,
            None if *word == "again" => exchange.sent_again = true,
            None if *word == "greeted" => exchange.after_greeting = true,
            _ => panic!("unknown word of an exchange: {word}"),
        }
    }
    exchange
}

/// A connection from an office client to the ingress pod. Bytes sent by the pod count from 1.
fn office(client: &str, what: &[&str]) -> Observed {
    const POD: &str = "10.176.98.10:80";
    let sequence = |byte: u32| (u32::MAX - 5_000).wrapping_add(byte);
    let back = |flags, byte| segment("eth1", Direction::In, [client, POD], flags, [500, sequence(byte)], "9");
    match *what {
        ["syn", mss] => Segment { mss: Some(read(mss)), ..back("S", 0) }.into(),
        // The pod's SYN-ACK.
        ["accepts", mss] => {
            let forth = segment("eth1", Direction::Out, [POD, client], "SA", [sequence(0), 501], "9");
            Segment { mss: Some(read(mss)), ..forth }.into()
        }
        // Acknowledges the SYN-ACK, a small packet.
        ["request"] => Segment { payload: 120, ..back("A", 1) }.into(),
        ["data", from, payload] => {
            let forth = segment("eth1", Direction::Out, [POD, client], "A", [sequence(read(from)), 501], "9");
            Segment { payload: read(payload), ..forth }.into()
        }
        ["acked", up_to] => back("A", read(up_to)).into(),
        ["socket", send_mss, bytes_acked, send_queue, retransmits] => {
            let (send_queue, retransmits) = (read(send_queue), read::<u8>(retransmits));
            Socket {
                pod: Some("ingress".into()),
                local: read(POD),
                remote: read(client),
                state: TcpState::Established,
                retransmits,
                total_retransmits: retransmits.into(),
                unacked: u32::from(send_queue > 0),
                rto_us: 200_000 << retransmits.min(6),
                rtt_us: 400,
                send_mss: read(send_mss),
                bytes_acked: read(bytes_acked),
                bytes_received: 120,
                send_queue,
            }
            .into()
        }
        _ => panic!("unknown step of an office client: {what:?}"),
    }
}
