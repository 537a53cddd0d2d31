use std::net::IpAddr;

use super::*;
use crate::signal::{
    Container, ContainerState, End as SeenAt, Endpoint, Endpoints, Exchange, IngressLog, NodeLoad, ProbeKind,
};
use crate::testing::{ms, observed, operator, signal};

const DNS: &str = "192.168.0.10";
const STORE: &str = "oss.example.com";

fn end(place: &str, address: &str, node: Option<&str>) -> End {
    let (place, node) = (place.to_owned(), node.map(str::to_owned));
    End { place, addresses: vec![address.parse().unwrap()], node }
}

fn app() -> End {
    end("pod/app", "10.176.98.29", Some("worker-2"))
}

fn database() -> End {
    end("outside/database", "10.176.46.4", None)
}

fn leg(from: End, to: End, port: u16) -> Leg {
    Leg { from: vec![from], to: vec![to], port: Some(port), ..Leg::default() }
}

fn by_name(leg: Leg, name: &str, resolver: &str) -> Leg {
    let lookup = Lookup { name: name.to_owned(), resolver: resolver.parse().unwrap() };
    Leg { lookup: Some(lookup), ..leg }
}

fn by_service(leg: Leg, name: &str, address: &str) -> Leg {
    let service = AskedService { name: name.to_owned(), address: address.parse().unwrap() };
    Leg { service: Some(service), ..leg }
}

/// A connect of the application to the database at 500 ms.
fn an_answered_syn(scene: &mut Scene) {
    scene.play(
        "500 syn eth1 10.176.98.29:40001 10.176.46.4:3306 7 1; 501 syn-ack eth1 10.176.46.4:3306 10.176.98.29:40001 7",
    );
}

/// Connects of the application to the database that leave by this link, from 1 s on.
fn unanswered_syns(scene: &mut Scene, link: &str) {
    for number in 0..4 {
        let (at, port) = (1_000 + number, 41_000 + number);
        scene.play(&format!("{at} syn {link} 10.176.98.29:{port} 10.176.46.4:3306 {} 1", 100 + number));
    }
}

/// A client outside, an ingress on worker-1 and a back end on worker-2.
fn by_ingress() -> Vec<Leg> {
    let ingress = || end("pod/ingress", "10.176.98.10", Some("worker-1"));
    let front = leg(end("office/beijing", "192.168.40.10", None), ingress(), 80);
    let back = leg(ingress(), end("pod/tickets", "10.176.98.40", Some("worker-2")), 8080);
    vec![Leg { ingress: true, ..front }, by_service(back, "tickets", "192.168.0.20")]
}

struct Scene {
    triage: Triage,
    now: u64,
    outcome: Outcome,
}

impl Scene {
    fn new(legs: Vec<Leg>, outcome: Outcome) -> Self {
        let triage = Triage::new(&operator(), vec![Access { flow: "flow".to_owned(), legs }]);
        let mut scene = Self { triage, now: 0, outcome };
        for node in ["worker-1", "worker-2"] {
            scene.play(&format!("0 @{node} link eth1 3; 0 @{node} table 50/4096"));
        }
        scene
    }

    /// Steps as in the scripts of detectors' tests: `TIME @NODE SIGNAL`.
    fn play(&mut self, script: &str) {
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

    fn see(&mut self, at: u64, node: &str, observed: impl Into<Observed>) {
        self.until(at);
        self.triage.observe(&signal(ms(at), node, observed.into()));
    }

    fn until(&mut self, at: u64) {
        while self.now < at {
            self.now = (self.now + 50).min(at);
            self.triage.tick(ms(self.now));
        }
    }

    /// Users complain at `at`; the verdict then.
    fn verdict(&mut self, at: u64) -> Verdict {
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
    fn leads(&mut self, at: u64, expected: &str) {
        let verdict = self.verdict(at);
        let also = verdict.contributing.iter().map(|step| format!(", also {step}")).collect::<String>();
        let found = match (verdict.first, &verdict.at) {
            (Some(first), Some(at)) => format!("{first} {at}{also}"),
            _ => format!("nothing{also}"),
        };
        assert_eq!(found, expected, "{:#?}", verdict.steps);
    }

    fn probe(&mut self, at: u64, node: &str, kind: ProbeKind, target: &str, about: &str, error: &str) {
        let (ok, error) = (error.is_empty(), (!error.is_empty()).then(|| error.to_owned()));
        let about = Some(about.to_owned());
        let target: IpAddr = target.parse().unwrap();
        self.see(at, node, Probe { kind, source: target, target, port: None, about, ok, took_us: 900, error });
    }

    fn endpoints(&mut self, at: u64, service: &str, address: &str, ready: &[&str]) {
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
    fn answers(&mut self, at: u64, server: &str, count: u16, took: u64, status: Option<u16>) {
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

    fn state(&mut self, at: u64, step: usize) -> State {
        self.verdict(at).steps[step - 1].state
    }
}

// Step 1.

#[test]
fn a_full_connection_table_of_a_node_on_the_way() {
    let legs = || vec![by_service(leg(app(), end("pod/b", "10.176.98.50", Some("worker-1")), 80), "b", "192.168.0.30")];
    for outcome in [Outcome::Timeout, Outcome::NameError, Outcome::Slow(Duration::from_secs(1))] {
        let mut scene = Scene::new(legs(), outcome);
        scene.play("1000 table 4000/4096; 1000 stats drop=3; 1100 table 4096/4096; 1100 stats drop=40");
        scene.leads(1_200, "1 node/worker-2");
        scene.triage.begin_again();
        scene.play("4300 table 60/524288");
        scene.leads(4_300, "nothing");
    }
    let mut elsewhere = Scene::new(legs(), Outcome::Timeout);
    elsewhere.play("1100 @worker-9 table 4096/4096");
    elsewhere.leads(1_200, "nothing");
}

#[test]
fn a_growing_drop_counts_only_with_a_nearly_full_table() {
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    scene.play("1000 table 50/4096; 1000 stats drop=3; 1100 stats drop=40");
    scene.leads(1_200, "nothing");
}

#[test]
fn a_missing_nic_matters_only_to_what_leaves_by_it() {
    let to = |node| vec![leg(app(), end("pod/b", "10.176.98.50", Some(node)), 80)];
    for (node, expected) in [("worker-2", "nothing, also 1"), ("worker-1", "1 node/worker-2")] {
        let mut scene = Scene::new(to(node), Outcome::Timeout);
        scene.play("1000 link -eth1 3");
        scene.leads(1_200, expected);
    }
}

#[test]
fn a_crashed_pod_and_a_pod_that_starts() {
    let legs = || vec![by_service(leg(app(), end("pod/b", "10.176.98.50", Some("worker-1")), 80), "b", "192.168.0.30")];
    let container = |state, restarts| Container { pod: "b".into(), container: "b".into(), state, restarts };
    let waiting = |reason: &str| ContainerState::Waiting { reason: reason.to_owned() };
    let mut scene = Scene::new(legs(), Outcome::Refused);
    scene.see(1_000, "worker-1", container(waiting("CrashLoopBackOff"), 3));
    scene.leads(1_200, "1 pod/b");
    let mut starts = Scene::new(legs(), Outcome::Refused);
    starts.see(1_000, "worker-1", container(waiting("ContainerCreating"), 0));
    starts.leads(1_200, "nothing");
    starts.see(1_300, "worker-1", container(ContainerState::Running, 0));
    starts.leads(1_400, "nothing");
}

#[test]
fn load_is_no_explanation_but_exhausted_memory_is() {
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    let load =
        |available: u64| NodeLoad { load1: 90.0, cpus: 2, memory_available: available << 20, memory_total: 8 << 30 };
    scene.see(1_000, "worker-2", load(900));
    scene.leads(1_100, "nothing");
    scene.see(1_200, "worker-2", load(20));
    scene.leads(1_300, "1 node/worker-2");
}

// Step 2.

fn queries(scene: &mut Scene, from: u64, count: u64, took: u64, more: &str) {
    for number in 0..count {
        let at = from + number * 20 + took;
        scene.play(&format!("{at} exchange 10.176.98.29:{} 10.176.46.4:3306 {took} {more}", 40_000 + number));
    }
}

#[test]
fn a_database_that_became_slow_and_what_it_does_not_explain() {
    let slow = Outcome::Slow(Duration::from_secs(5));
    for (outcome, expected) in [(slow, "2 server/database"), (Outcome::NameError, "nothing, also 2")] {
        let mut scene = Scene::new(vec![leg(app(), database(), 3306)], outcome);
        queries(&mut scene, 100, 10, 1, "");
        scene.leads(900, "nothing");
        queries(&mut scene, 1_000, 3, 400, "acked=1");
        scene.leads(2_000, expected);
    }
    // Two are no series, and late acknowledgments acquit it.
    for (count, more) in [(2, "acked=1"), (5, "acked=399"), (5, "acked=1 again")] {
        let mut scene = Scene::new(vec![leg(app(), database(), 3306)], slow);
        queries(&mut scene, 100, 10, 1, "");
        queries(&mut scene, 1_000, count, 400, more);
        assert_ne!(scene.verdict(2_000).first, Some(2), "{count} {more}");
    }
}

#[test]
fn answers_of_others_do_not_explain_what_these_clients_see() {
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    queries(&mut scene, 100, 10, 1, "");
    for number in 0..4 {
        let at = 1_500 + number * 20;
        scene.play(&format!("{at} @worker-1 exchange 10.176.98.60:{} 10.176.46.4:3306 400 acked=1", 40_000 + number));
    }
    scene.leads(2_000, "nothing");
}

#[test]
fn errors_of_the_back_end_and_some_404s() {
    let mut scene = Scene::new(by_ingress(), Outcome::Status(500));
    scene.answers(1_000, "10.176.98.40:8080", 10, 1, Some(200));
    scene.answers(2_000, "10.176.98.40:8080", 5, 1, Some(500));
    scene.leads(2_100, "2 service/tickets");
    let mut twin = Scene::new(by_ingress(), Outcome::Status(404));
    twin.answers(1_000, "10.176.98.40:8080", 10, 1, Some(200));
    twin.answers(2_000, "10.176.98.40:8080", 3, 1, Some(404));
    twin.leads(2_100, "nothing");
}

#[test]
fn a_dead_server_reached_by_syns_and_echo() {
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    an_answered_syn(&mut scene);
    unanswered_syns(&mut scene, "eth1");
    scene.play("1200 probe echo 10.176.46.4 ok");
    scene.leads(1_500, "2 server/database, also 6");
    // Without echo it may be the path.
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    unanswered_syns(&mut scene, "eth1");
    scene.leads(1_500, "6 path/10.176.46.0/24");
}

#[test]
fn far_away_an_answer_may_take_longer() {
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    scene.play("100 syn eth1 10.176.98.29:40001 10.176.46.4:3306 7 1");
    scene.play("700 syn-ack eth1 10.176.46.4:3306 10.176.98.29:40001 7");
    unanswered_syns(&mut scene, "eth1");
    scene.leads(1_500, "nothing");
    scene.leads(2_300, "6 path/10.176.46.0/24");
}

// Step 3.

fn lookups() -> Vec<Leg> {
    vec![by_name(Leg { from: vec![app()], ..Leg::default() }, "example-api.com", DNS)]
}

fn dns_probes(scene: &mut Scene, at: u64, service: bool, endpoint: bool) {
    for node in ["worker-1", "worker-2"] {
        scene.play(&format!(
            "{at} @{node} probe service {DNS} {service}; {at} @{node} probe endpoint 10.176.98.2 {endpoint}"
        ));
        scene.play(&format!("{at} @{node} probe upstream 10.16.16.16 ok"));
    }
}

#[test]
fn cluster_dns_fails_and_its_nodes_nic_contributes() {
    let mut scene = Scene::new(lookups(), Outcome::NameError);
    scene.play("0 endpoints 0@worker-1");
    dns_probes(&mut scene, 500, true, true);
    scene.leads(600, "nothing");
    scene.play("900 @worker-1 link -eth1 3");
    dns_probes(&mut scene, 1_000, false, false);
    scene.leads(1_100, "nothing, also 1");
    dns_probes(&mut scene, 1_300, false, false);
    scene.leads(1_400, "3 service/kube-dns, also 1");
    let verdict = scene.verdict(1_500);
    assert_eq!(verdict.not_seen(), 0, "{verdict:#?}");
}

#[test]
fn a_domain_whose_own_servers_fail() {
    let mut scene = Scene::new(lookups(), Outcome::NameError);
    scene.play("0 endpoints 0@worker-1");
    for at in [1_000, 1_200] {
        for (kind, target) in [("upstream", "10.16.16.16"), ("service", DNS), ("endpoint", "10.176.98.2")] {
            scene.play(&format!("{at} probe {kind} {target} SERVFAIL example-api.com."));
        }
        scene.play(&format!("{at} probe service {DNS} ok kube-dns.kube-system.svc.cluster.local."));
    }
    scene.leads(1_300, "3 name/example-api.com");
}

#[test]
fn a_slow_request_is_not_explained_by_names_that_are_not_resolved() {
    let mut scene = Scene::new(lookups(), Outcome::Slow(Duration::from_secs(1)));
    scene.play("0 endpoints 0@worker-1");
    dns_probes(&mut scene, 1_000, false, false);
    dns_probes(&mut scene, 1_200, false, false);
    scene.leads(1_300, "nothing, also 3");
}

#[test]
fn the_rules_of_cluster_dns_are_step_4() {
    let mut scene = Scene::new(lookups(), Outcome::NameError);
    scene.play("0 endpoints 0@worker-1");
    for at in [1_000, 1_200] {
        scene.play(&format!("{at} probe service {DNS} false; {at} probe endpoint 10.176.98.2 ok"));
        scene.play(&format!("{at} @worker-1 probe service {DNS} ok; {at} @worker-1 probe endpoint 10.176.98.2 ok"));
    }
    scene.leads(1_300, "4 node/worker-2");
}

#[test]
fn a_record_that_leads_to_a_slow_path() {
    let store = end("outside/store", "10.219.226.2", None);
    let slow = Outcome::Slow(Duration::from_millis(300));
    let mut scene = Scene::new(vec![by_name(leg(app(), store, 443), STORE, DNS)], slow);
    scene.play(&format!("100 answer {DNS} {STORE} 1 10.219.226.2"));
    let handshakes = |scene: &mut Scene, from: u64, server: &str, took: u64| {
        for number in 0..5 {
            let (at, near) = (from + number * 150, format!("10.176.98.29:{}", 30_000 + from + number));
            scene.play(&format!("{at} syn eth1 {near} {server}:443 {} 1", from + number));
            scene.play(&format!("{} syn-ack eth1 {server}:443 {near} {}", at + took, from + number));
        }
    };
    handshakes(&mut scene, 200, "10.219.226.2", 2);
    scene.leads(1_500, "nothing");
    scene.play(&format!("3000 answer {DNS} {STORE} 1 100.64.249.132"));
    handshakes(&mut scene, 3_100, "100.64.249.132", 120);
    scene.leads(4_000, "3 name/oss.example.com, also 6");
    // Back at the old address.
    scene.triage.begin_again();
    scene.play(&format!("7000 answer {DNS} {STORE} 1 10.219.226.2"));
    handshakes(&mut scene, 7_100, "10.219.226.2", 2);
    scene.leads(8_000, "nothing");
}

#[test]
fn a_resolver_of_clients_outside_is_lost() {
    let entry = end("pod/ingress", "10.176.98.10", Some("worker-1"));
    let front = leg(end("office/beijing", "192.168.40.10", None), entry, 80);
    let mut scene = Scene::new(vec![by_name(front, "tickets.example.com", "10.16.16.17")], Outcome::NameError);
    let ask = |scene: &mut Scene, at, error: &str| {
        scene.probe(at, "worker-1", ProbeKind::ExternalName, "10.16.16.17", "tickets.example.com", error);
        scene.probe(at, "worker-1", ProbeKind::Entry, "10.176.64.11", "tickets.example.com", "");
    };
    ask(&mut scene, 500, "");
    scene.leads(600, "nothing");
    for at in [1_000, 1_200] {
        ask(&mut scene, at, "timeout");
    }
    scene.leads(1_300, "3 server/10.16.16.17:53");
    assert!(scene.verdict(1_350).steps[2].evidence.contains("the address that it had answers"));
    for at in [1_400, 1_600] {
        ask(&mut scene, at, "NXDOMAIN");
    }
    scene.leads(1_700, "3 name/tickets.example.com");
}

#[test]
fn a_resolver_that_is_not_probed_is_accused_by_its_clients() {
    let mut legs = by_ingress();
    legs[0] = by_name(legs[0].clone(), "shop.example.com", "10.16.16.18");
    legs[1] = by_name(legs[1].clone(), "tickets.default.svc.cluster.local", DNS);
    let mut scene = Scene::new(legs, Outcome::NameError);
    scene.play("0 endpoints 0@worker-1");
    dns_probes(&mut scene, 1_000, true, true);
    dns_probes(&mut scene, 1_200, true, true);
    scene.leads(1_300, "3 server/10.16.16.18:53");
    // Cluster DNS, which the ingress needs, explains it as well, and this is seen.
    dns_probes(&mut scene, 2_000, false, false);
    dns_probes(&mut scene, 2_200, false, false);
    scene.leads(2_300, "3 service/kube-dns");
}

#[test]
fn a_gateway_error_may_still_be_dns() {
    let mut legs = by_ingress();
    legs[1] = by_name(legs[1].clone(), "tickets.default.svc.cluster.local", DNS);
    let mut scene = Scene::new(legs, Outcome::Status(502));
    scene.play("0 endpoints 0@worker-1");
    scene.answers(500, "10.176.98.40:8080", 8, 1, Some(200));
    dns_probes(&mut scene, 1_000, false, false);
    dns_probes(&mut scene, 1_200, false, false);
    scene.leads(1_300, "3 service/kube-dns");
}

// Step 4.

fn service_probes(scene: &mut Scene, at: u64, node: &str, service: &str, endpoint: &str) {
    scene.probe(at, node, ProbeKind::Service, "192.168.0.30", "b", service);
    scene.probe(at, node, ProbeKind::Endpoint, "10.176.98.50", "b", endpoint);
}

fn to_service() -> Vec<Leg> {
    vec![by_service(leg(app(), end("pod/b", "10.176.98.50", Some("worker-1")), 80), "b", "192.168.0.30")]
}

#[test]
fn rules_of_a_service_are_gone_on_one_node_or_on_all() {
    let mut scene = Scene::new(to_service(), Outcome::Timeout);
    scene.endpoints(0, "b", "192.168.0.30", &["10.176.98.50"]);
    service_probes(&mut scene, 500, "worker-2", "", "");
    scene.leads(600, "nothing");
    // Rules that are rewritten whole cost one probe at most.
    service_probes(&mut scene, 1_000, "worker-2", "timeout", "");
    scene.leads(1_050, "nothing");
    for at in [1_200, 1_400] {
        service_probes(&mut scene, at, "worker-2", "timeout", "");
        service_probes(&mut scene, at, "worker-1", "", "");
    }
    scene.leads(1_500, "4 node/worker-2");
    for at in [1_600, 1_800] {
        service_probes(&mut scene, at, "worker-2", "timeout", "");
        service_probes(&mut scene, at, "worker-1", "timeout", "");
    }
    scene.leads(1_900, "4 service/b");
    let mut pods = Scene::new(to_service(), Outcome::Timeout);
    for at in [1_200, 1_400] {
        service_probes(&mut pods, at, "worker-2", "timeout", "timeout");
    }
    pods.leads(1_500, "nothing");
}

#[test]
fn kube_proxy_stopped_and_connects_go_to_an_endpoint_that_was() {
    let mut scene = Scene::new(to_service(), Outcome::Timeout);
    scene.endpoints(0, "b", "192.168.0.30", &["10.176.98.51"]);
    scene.endpoints(500, "b", "192.168.0.30", &["10.176.98.50"]);
    for at in [2_400, 2_600] {
        scene.probe(at, "worker-2", ProbeKind::KubeProxy, "10.176.64.12", "", "refused");
    }
    // It has stopped, and nothing follows from it yet.
    scene.leads(2_700, "nothing, also 4");
    for number in 0..3 {
        let (at, port) = (2_800 + number * 10, 45_000 + number);
        scene.play(&format!("{at} in vetha 10.176.98.29:{port} 192.168.0.30:80 S {} 0 1", 900 + number));
        scene.play(&format!("{at} syn eth1 10.176.98.29:{port} 10.176.98.51:80 {} 1", 900 + number));
    }
    for at in [3_000, 3_200] {
        scene.probe(at, "worker-2", ProbeKind::KubeProxy, "10.176.64.12", "", "refused");
    }
    scene.leads(3_300, "4 node/worker-2, also 6");
}

// Step 5.

#[test]
fn an_ingress_sends_requests_where_nobody_listens() {
    let log = |status, port: u16, upstream_status| IngressLog {
        pod: "ingress".to_owned(),
        status,
        upstream: Some(std::net::SocketAddr::new("192.168.0.20".parse().unwrap(), port)),
        upstream_status,
        took_us: 900,
    };
    let mut scene = Scene::new(by_ingress(), Outcome::Status(502));
    scene.answers(500, "10.176.98.40:8080", 8, 1, Some(200));
    scene.see(600, "worker-1", log(200, 8080, Some(200)));
    scene.leads(700, "nothing");
    for at in [1_000, 1_100] {
        scene.see(at, "worker-1", log(502, 8081, None));
    }
    scene.leads(1_200, "5 pod/ingress");
    // Its own back end failing is not its fault.
    let mut twin = Scene::new(by_ingress(), Outcome::Status(502));
    for at in [1_000, 1_100] {
        twin.see(at, "worker-1", log(502, 8080, None));
    }
    twin.leads(1_200, "nothing");
}

// Step 6.

#[test]
fn syns_of_a_pod_leave_by_the_nodes_nic() {
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    an_answered_syn(&mut scene);
    scene.leads(600, "nothing");
    unanswered_syns(&mut scene, "eth0");
    scene.play("1200 probe echo 10.176.46.4 ok; 1200 @worker-1 probe echo 10.176.46.4 ok");
    scene.leads(1_500, "6 node/worker-2");
    // It leaves by its own NIC again.
    scene.triage.begin_again();
    scene.play("1600 syn eth1 10.176.98.29:42001 10.176.46.4:3306 9 1; 1601 syn-ack eth1 10.176.46.4:3306 10.176.98.29:42001 9");
    scene.leads(2_100, "nothing");
}

#[test]
fn syn_acks_of_a_pod_leave_by_the_nodes_nic() {
    let legs = || vec![leg(end("office/beijing", "192.168.40.10", None), app(), 8080)];
    let mut scene = Scene::new(legs(), Outcome::Timeout);
    for number in 0..3 {
        let (at, client, syn) = (1_000 + number, format!("192.168.40.10:{}", 41_000 + number), 100 + number);
        scene.play(&format!(
            "{at} in eth1 {client} 10.176.98.29:8080 S {syn} 0 1; {at} syn vetha {client} 10.176.98.29:8080 {syn} 1"
        ));
        scene.play(&format!("{at} out eth0 10.176.98.29:8080 {client} SA 70000 {} 1", syn + 1));
    }
    scene.leads(1_500, "6 node/worker-2");
}

#[test]
fn source_nat_reuses_a_port_and_the_server_answers_others() {
    let account = || end("outside/account", "10.200.0.5", None);
    let mut scene = Scene::new(vec![leg(app(), account(), 443)], Outcome::Timeout);
    let connect = |scene: &mut Scene, at: u64, source: &str, port: u16, number: u64, answered: bool| {
        let node = format!("10.176.64.12:{port}");
        scene.play(&format!(
            "{at} in vetha {source} 10.200.0.5:443 S {number} 0 1; {at} syn eth1 {node} 10.200.0.5:443 {number} 1"
        ));
        if answered {
            scene.play(&format!("{} syn-ack eth1 10.200.0.5:443 {node} {number}", at + 1));
            scene.play(&format!("{} out vetha 10.200.0.5:443 {source} SA 7 {} 1", at + 1, number + 1));
        }
    };
    connect(&mut scene, 500, "10.176.98.60:40000", 46_994, 70, true);
    connect(&mut scene, 600, "10.176.98.29:40001", 46_995, 71, true);
    scene.leads(700, "nothing");
    connect(&mut scene, 1_000, "10.176.98.29:40002", 46_994, 72, false);
    connect(&mut scene, 1_200, "10.176.98.29:40003", 46_996, 73, true);
    scene.leads(1_500, "6 node/worker-2");
}

#[test]
fn clients_whose_connects_do_not_arrive_any_more_are_lost_on_their_path() {
    let legs = || vec![leg(end("office/beijing", "192.168.40.10", None), app(), 8080)];
    let scene = |last: u64| {
        let mut scene = Scene::new(legs(), Outcome::Timeout);
        for number in 0..=last / 100 {
            let (at, near) = (number * 100, format!("192.168.40.10:{}", 40_000 + number));
            scene.play(&format!("{at} in eth1 {near} 10.176.98.29:8080 S {number}000 0 1"));
            scene.play(&format!("{at} out eth1 10.176.98.29:8080 {near} SA 5{number} {number}001 1"));
        }
        scene
    };
    scene(1000).leads(2500, "6 path/192.168.40.0/24");
    scene(2200).leads(2500, "nothing");
}

#[test]
fn large_segments_to_one_office_are_lost() {
    let mut scene = Scene::new(by_ingress(), Outcome::Timeout);
    scene.answers(500, "10.176.98.40:8080", 8, 1, None);
    let other = |scene: &mut Scene, at: u64| {
        let number = 7_000 + at;
        scene.play(&format!("{at} @worker-1 in eth1 192.168.50.10:{number} 10.176.98.10:80 S {number} 0 1"));
        scene.play(&format!(
            "{} @worker-1 out eth1 10.176.98.10:80 192.168.50.10:{number} SA 7 {} 1",
            at + 1,
            number + 1
        ));
    };
    other(&mut scene, 900);
    let socket = |retransmits: u8| format!("@worker-1 office 192.168.40.10:50836 socket 1368 1 8000 {retransmits}");
    scene.play(&format!("1000 {}", socket(1)));
    scene.leads(1_050, "nothing");
    scene.play(&format!("1600 {}", socket(2)));
    scene.leads(1_700, "6 path/192.168.40.0/24");
    assert!(scene.verdict(1_750).steps[5].evidence.contains("clients elsewhere are served"));
}

// The whole.

#[test]
fn the_first_step_that_explains_is_named_and_others_contribute() {
    let slow = Outcome::Slow(Duration::from_secs(5));
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], slow);
    queries(&mut scene, 100, 10, 1, "");
    queries(&mut scene, 1_000, 4, 400, "acked=1");
    scene.play("1600 table 4096/4096");
    scene.leads(1_700, "1 node/worker-2, also 2");
    scene.play("4700 table 50/4096");
    queries(&mut scene, 4_300, 3, 400, "acked=1");
    scene.leads(4_800, "2 server/database");
}

#[test]
fn complaints_end_and_with_them_the_verdict() {
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    assert!(scene.triage.verdict().is_none());
    scene.leads(1_000, "nothing");
    scene.until(5_950);
    assert!(scene.triage.verdict().is_some());
    scene.until(6_050);
    assert!(scene.triage.verdict().is_none());
    scene.triage.seen("another", Seen { at: ms(6_050), outcome: Outcome::Timeout });
    scene.triage.seen("flow", Seen { at: ms(6_050), outcome: Outcome::Well });
    assert!(scene.triage.verdict().is_none());
}

#[test]
fn without_evidence_a_step_is_not_seen() {
    let mut scene = Scene::new(to_service(), Outcome::Timeout);
    assert_eq!(scene.state(1_000, 2), State::NotSeen);
    assert_eq!(scene.state(1_000, 3), State::NotOnThisWay);
    assert_eq!(scene.state(1_000, 4), State::NotSeen);
    assert_eq!(scene.state(1_000, 6), State::NotSeen);
}

#[test]
fn a_node_port_that_is_not_translated() {
    let office = end("office/beijing", "192.168.40.10", None);
    let front = leg(office, end("pod/b", "10.176.98.50", Some("worker-1")), 80);
    let via = vec![end("node/worker-2", "10.176.64.12", Some("worker-2"))];
    let legs = || vec![by_service(Leg { via: via.clone(), ..front.clone() }, "b", "192.168.0.30")];
    let asks = |scene: &mut Scene, number: u64, translated: bool| {
        let (at, client) = (1_000 + number, format!("192.168.40.10:{}", 41_000 + number));
        scene.play(&format!("{at} in eth0 {client} 10.176.64.12:30080 S {number} 0 1"));
        if translated {
            let masked = format!("10.176.64.12:{}", 42_000 + number);
            scene.play(&format!("{at} syn eth0 {masked} 10.176.98.50:80 {number} 1"));
        }
    };
    let mut scene = Scene::new(legs(), Outcome::Timeout);
    (200..203).for_each(|number| asks(&mut scene, number, false));
    scene.leads(1_700, "4 node/worker-2, also 6");
    let mut beyond = Scene::new(legs(), Outcome::Timeout);
    (200..203).for_each(|number| asks(&mut beyond, number, true));
    assert_eq!(beyond.verdict(1_700).first, Some(6));
}
