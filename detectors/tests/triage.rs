//! Replays recordings of the incidents through triage. The fixtures hold only what the detectors of their incident need,
//! so only the step that explains and its place are compared, and not the evidence of the others.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use relapse_detectors::record::Header;
use relapse_detectors::replay::{self, Complaint};
use relapse_detectors::signal::{Observed, Signal};
use relapse_detectors::triage::{Access, AskedService, End, Leg, Lookup};

/// A recording, with the addresses and nodes of its pods.
struct Fixture {
    header: Header,
    lines: Vec<String>,
}

impl Fixture {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(format!("{name}.jsonl"));
        let mut lines = BufReader::new(File::open(path).expect("a fixture")).lines().map(|line| line.expect("a line"));
        let header = serde_json::from_str(&lines.next().expect("a header")).expect("a header");
        Self { header, lines: lines.collect() }
    }

    /// `pod/NAME`, or `PLACE@ADDRESS` for what is outside.
    fn end(&self, place: &str) -> End {
        if let Some((place, address)) = place.split_once('@') {
            return End { place: place.to_owned(), addresses: vec![address.parse().expect("an address")], node: None };
        }
        let signals = self.lines.iter().filter_map(|line| serde_json::from_str::<Signal>(line).ok());
        let mut pods = signals.filter_map(|signal| match signal.observed {
            Observed::Pod(pod) if place == format!("pod/{}", pod.name) => Some((pod.address, signal.node)),
            _ => None,
        });
        let (address, node) = pods.next().unwrap_or_else(|| panic!("no {place}"));
        End { place: place.to_owned(), addresses: vec![address], node: Some(node.to_string()) }
    }

    fn leg(&self, from: &[&str], to: &[&str], port: Option<u16>) -> Leg {
        let ends = |places: &[&str]| places.iter().map(|place| self.end(place)).collect();
        Leg { from: ends(from), to: ends(to), port, ..Leg::default() }
    }

    fn lookup(&self, name: &str) -> Option<Lookup> {
        Some(Lookup { name: name.to_owned(), resolver: self.header.operator.dns_address })
    }

    /// Each verdict with an explanation, as `STEP PLACE, also CONTRIBUTING`.
    fn leads(self, legs: Vec<Leg>, complaint: &str) -> Vec<String> {
        let complaint: Complaint = format!("flow={complaint}").parse().expect("a complaint");
        let accesses = vec![Access { flow: "flow".to_owned(), legs }];
        let header = serde_json::to_string(&Header { accesses, ..self.header }).expect("a header") + "\n";
        let lines = self.lines.join("\n");
        let changes = replay::triage(header.as_bytes().chain(lines.as_bytes()), &complaint).expect("a recording");
        let mut leads: Vec<String> = Vec::new();
        for (_, triaged) in changes.expect("the flow") {
            let verdict = triaged.verdict;
            let Some((first, at)) = verdict.first.zip(verdict.at) else { continue };
            let also: String = verdict.contributing.iter().map(|step| format!(", also {step}")).collect();
            leads.push(format!("{first} {at}{also}"));
        }
        leads.dedup();
        leads
    }
}

#[test]
fn i1_the_path_of_the_office() {
    for (name, expected) in
        [("mss-clamp-raised", &["6 path/192.168.40.0/24"][..]), ("mss-clamp-raised--still-fits", &[])]
    {
        let fixture = Fixture::open(name);
        let front = fixture.leg(&["office/beijing@192.168.40.10"], &["pod/ingress"], Some(80));
        let back = fixture.leg(&["pod/ingress"], &["pod/tickets"], Some(80));
        let back = Leg {
            service: Some(AskedService { name: "tickets".to_owned(), address: "192.168.0.20".parse().unwrap() }),
            ..back
        };
        assert_eq!(fixture.leads(vec![Leg { ingress: true, ..front }, back], "timeout"), expected, "{name}");
    }
}

#[test]
fn i2_the_nodes_connection_table() {
    for (name, expected) in [
        ("conntrack-cap-reset", &["1 node/worker-1"][..]),
        ("conntrack-cap-reset--burst-to-70-percent", &[]),
        ("conntrack-cap-reset--dns-race", &[]),
        ("conntrack-cap-reset--limit-raised", &[]),
        ("conntrack-cap-reset--limit-lowered-far-above-load", &[]),
    ] {
        for complaint in ["timeout", "name-error"] {
            let fixture = Fixture::open(name);
            let legs = vec![fixture.leg(&["pod/a"], &["pod/b-1", "pod/b-2"], Some(80))];
            assert_eq!(fixture.leads(legs, complaint), expected, "{name} {complaint}");
        }
    }
}

#[test]
fn i3_cluster_dns_and_its_nodes_nic() {
    for (name, expected) in [
        ("coredns-single-replica-loss", "3 service/kube-dns, also 1"),
        ("coredns-replica-killed", "3 service/kube-dns"),
        ("coredns-replica-killed-on-kind", "3 service/kube-dns"),
        ("coredns-single-replica-loss--one-of-two-replicas-lost", ""),
        ("coredns-single-replica-loss--one-slow-upstream", ""),
        ("coredns-single-replica-loss--pod-deleted", ""),
        ("coredns-single-replica-loss--rolling-restart", ""),
        ("coredns-single-replica-loss--spare-nic-released", ""),
    ] {
        let fixture = Fixture::open(name);
        let leg = Leg { lookup: fixture.lookup("example-api.com"), ..fixture.leg(&["pod/app"], &[], None) };
        let leads = fixture.leads(vec![leg], "name-error");
        assert_eq!(leads.first().map_or("", String::as_str), expected, "{name}");
    }
}

#[test]
fn i4_the_nodes_exit_nic() {
    for (name, expected) in [
        ("policy-route-lost", &["6 node/worker-2"][..]),
        ("policy-route-lost--table-rebuilt", &[]),
        ("policy-route-lost--default-replaced", &[]),
        ("policy-route-lost--pod-deleted", &[]),
    ] {
        let fixture = Fixture::open(name);
        let legs = vec![fixture.leg(&["pod/app"], &["outside/database@10.176.46.4"], Some(3306))];
        assert_eq!(fixture.leads(legs, "timeout"), expected, "{name}");
    }
}

#[test]
fn i5_the_database() {
    let fixture = Fixture::open("database-slow");
    let legs = vec![fixture.leg(&["pod/app"], &["outside/database@10.176.46.4"], Some(3306))];
    assert_eq!(fixture.leads(legs, "slow"), ["2 server/10.176.46.4:3306"]);
}

#[test]
fn i6_the_record() {
    let fixture = Fixture::open("dns-record-wrong");
    let leg = fixture.leg(&["pod/app"], &["outside/store@10.219.226.2"], Some(80));
    let leads = fixture.leads(vec![Leg { lookup: Some(Lookup { ..lookup() }), ..leg }], "slow");
    assert_eq!(leads, ["3 name/oss.example.com, also 6"]);
}

fn lookup() -> Lookup {
    Lookup { name: "oss.example.com".to_owned(), resolver: "192.168.0.10".parse().expect("an address") }
}

#[test]
fn i7_source_nat() {
    let control: Vec<String> = (1..=6).map(|number| format!("pod/control-{number}")).collect();
    let control: Vec<&str> = control.iter().map(String::as_str).collect();
    for (name, expected) in [
        ("snat-port-collision", "6 node/worker-1"),
        ("snat-exhaustion", "6 node/worker-1"),
        ("snat-port-collision--reuse-succeeds", ""),
        ("snat-port-collision--timestamps-advance", ""),
    ] {
        let fixture = Fixture::open(name);
        let legs = vec![fixture.leg(&control, &["outside/account@10.200.0.5"], Some(443))];
        let leads = fixture.leads(legs, "timeout");
        assert_eq!(leads.last().map_or("", String::as_str), expected, "{name}: {leads:?}");
    }
}
