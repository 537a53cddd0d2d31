//! Scenes for tests: scripts of signals, fed to all detectors as in a live run.
//!
//! A script is a list of steps separated by `;` or newlines: `[TIME [@NODE] [SIGNAL]] [? EXPECTED]...`. Times are
//! milliseconds from the start of the scene; with a leading `~`, the signal was observed then and is delivered now.
//! Without a signal, time advances. The modules below document signals, [`Scene::expect`] expectations.

mod cluster;
mod packets;
mod probes;
mod routing;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Arguments;
use std::str::FromStr;
use std::time::Duration;

use crate::finding::{Finding, Level, Severity};
use crate::operator::{DeclaredName, DeclaredPath, DeclaredServer, Entry, Operator};
use crate::record::Feed;
use crate::registry::DetectorSet;
use crate::signal::{Change, Observed, Signal};
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
                    Some(late) => self.send(ms(parse(late)), node, observed(rest)),
                    None if rest.is_empty() => self.until(parse(time)),
                    None => self.at(parse(time), node, observed(rest)),
                }
            }
            parts.for_each(|expected| self.expect(expected));
        }
    }

    /// Checks the findings so far. For all detectors: `silence`, no findings; `quiet`, as a control requires, nothing
    /// at `warning` or above but risks. For the scene's detector, or another one as in `pod-nic: over`: its highest
    /// severity (`nothing`, or a severity); time and subject of its first finding of at least a severity (`warning
    /// 100..200 node/a`); whether all of its findings are withdrawn and there was one (`over`, `not over`), or none
    /// stands (`nothing stands`); a part of its evidence (`evidence TEXT`).
    #[track_caller]
    fn expect(&self, expected: &str) {
        let words: Vec<_> = expected.split_whitespace().collect();
        let (detector, words) = match words.split_first() {
            Some((first, rest)) if first.ends_with(':') => (&first[..first.len() - 1], rest),
            _ => (self.detector, &words[..]),
        };
        let own: Vec<_> = self.findings.iter().filter(|(_, finding)| finding.detector == detector).collect();
        let last: BTreeMap<_, _> = own.iter().map(|(_, finding)| (&finding.subject, finding.cleared)).collect();
        let stands = last.values().any(|cleared| !cleared);
        match *words {
            ["silence"] => assert_eq!(self.findings, []),
            ["quiet"] => {
                let loud = self.findings.iter().filter(|(_, f)| f.severity > Severity::Info && f.level != Level::Risk);
                assert_eq!(loud.collect::<Vec<_>>(), Vec::<&(u64, Finding)>::new());
            }
            ["nothing"] => assert!(own.is_empty(), "{own:#?}"),
            ["over"] => assert!(!own.is_empty() && !stands, "{own:#?}"),
            ["not", "over"] => assert!(own.is_empty() || stands, "{own:#?}"),
            ["nothing", "stands"] => assert!(!stands, "{own:#?}"),
            ["evidence", ref text @ ..] => {
                assert!(self.evidence(detector).contains(&text.join(" ")), "{}", self.evidence(detector));
            }
            [severity] => assert_eq!(own.iter().map(|(_, f)| f.severity).max(), Some(severity_of(severity))),
            [severity, times, subject] => {
                let is = |(_, f): &&&(u64, Finding)| f.severity >= severity_of(severity) && !f.cleared;
                let (at, first) = own.iter().find(is).unwrap_or_else(|| panic!("{own:#?}"));
                let (from, to) = times.split_once("..").unwrap_or((times, times));
                assert!(
                    (parse(from)..=parse(to)).contains(at) && first.subject.to_string() == subject,
                    "{at} {first:?}"
                );
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

fn parse<T: FromStr>(word: &str) -> T {
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
    let readers = [routing::read, cluster::read, probes::read, packets::read];
    readers.iter().find_map(|read| read(words)).unwrap_or_else(|| panic!("unknown signal: {words:?}"))
}
