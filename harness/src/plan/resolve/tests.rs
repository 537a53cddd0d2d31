//! Addresses, ids and plans of the shipped scenarios; no input makes planning panic.

use std::path::Path;

use proptest::prelude::*;
use relapse_lab::faults::Injection;
use relapse_model::diagnostics::{Diagnostics, Source};
use relapse_model::yaml::parse;

use crate::plan::{ClusterPlan, FlowPlan, OutsideId, Place, Plan, PodId, PodRole, Target, load, plan};

const SHIPPED: [&str; 5] = [
    include_str!("../../../../scenarios/conntrack-cap-reset.yaml"),
    include_str!("../../../../scenarios/coredns-single-replica-loss.yaml"),
    include_str!("../../../../scenarios/mss-clamp-raised.yaml"),
    include_str!("../../../../scenarios/policy-route-lost.yaml"),
    include_str!("../../../../scenarios/snat-port-collision.yaml"),
];

fn planned(text: &str) -> Result<Plan, Diagnostics> {
    let source = Source::new("test.yaml", text);
    parse(&source).and_then(|scenario| plan(&scenario, &source))
}

fn good(text: &str) -> Plan {
    planned(text).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// A minimal scenario with this cluster.
fn with_cluster(cluster: &str) -> String {
    format!(
        "apiVersion: relapse/v1
kind: Scenario
metadata: {{ name: test, incident: I4, title: Test }}
cluster: {cluster}
workload:
  - ping: {{ name: ping, from: node/worker-1, to: outside/host }}
inject: [ policy-route-loss: {{ node: worker-1, lose: table }} ]
effect: {{ all: [ works: {{ flow: ping }} ] }}
detect: [ {{ detector: policy-route, level: cause, subject: node/worker-1, within: 1s }} ]
controls: [ {{ name: same, why: Nothing., inject: [ default-route-replace: {{ node: worker-1, metric: 5 }} ] }} ]
"
    )
}

fn address(plan: &ClusterPlan, pod: &str) -> String {
    plan.pods.iter().find(|p| p.name == pod).map(|p| p.address.to_string()).unwrap_or_default()
}

#[test]
fn all_shipped_scenarios_plan() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let plans = load(&[folder]).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(plans.len() >= SHIPPED.len());
    assert!(plans.iter().all(|p| !p.controls.is_empty() && !p.incident_trial.detect.is_empty()));
}

#[test]
fn paths_of_hosts_offices_and_prefixes_and_what_a_fault_leaves_of_them() {
    let cluster = "{ nodes: 1, prefixes: [ { prefix: 100.64.0.0/16, delay: 59ms } ],
  outside: [ { name: host, address: 10.219.226.2, alsoAt: [100.64.249.132], delay: 1ms, loss: 0.5% } ],
  offices: [ { name: beijing, prefix: 192.168.40.0/24, rate: 1.5Mbit } ] }";
    let change = "path-change: { of: outside/host, delay: 59ms, jitter: 9ms }";
    let plan = good(&with_cluster(cluster).replace("policy-route-loss: { node: worker-1, lose: table }", change));
    let paths: Vec<String> =
        plan.cluster.paths().map(|(id, path)| format!("{}: {path}", plan.cluster.path_name(id))).collect();
    assert_eq!(
        paths,
        [
            "outside/host: 1 ms each way, 0.5% lost",
            "office/beijing: 1500 kbit/s",
            "prefix/100.64.0.0/16: 59 ms each way"
        ]
    );
    assert_eq!(plan.cluster.outside[0].also_at, ["100.64.249.132".parse::<std::net::IpAddr>().unwrap()]);
    let change = format!("{:?}", plan.incident_trial.steps[0].inject[0]);
    assert!(change.contains("delay: 59ms, jitter: 9ms, loss: 5000, rate: None"), "{change}");
}

#[test]
fn the_incidents_own_addresses() {
    let plan = good(SHIPPED[3]);
    let cluster = &plan.cluster;
    assert_eq!(cluster.nodes[1].address.to_string(), "10.176.64.11");
    assert_eq!(cluster.nodes[1].pod_prefix.to_string(), "10.176.98.0/24");
    assert_eq!(cluster.nodes[1].pod_nic_address.to_string(), "10.176.98.4");
    assert_eq!(address(cluster, "app"), "10.176.98.29");
    assert_eq!(address(cluster, "app-peer"), "10.176.98.10");
    assert_eq!(address(cluster, "other"), "10.176.97.10");
    assert_eq!(cluster.network.pod_gateway.to_string(), "10.176.96.1");
}

#[test]
fn thirty_nodes_with_four_pods_each() {
    let plan = good(&with_cluster(
        "{ nodes: 30, pods: [ { name: app, count: 60 }, { name: more, count: 60 } ], services: [ { name: app, port: 80, pods: [app] } ], outside: [ { name: host, address: 10.176.46.4 } ] }",
    ));
    let cluster = &plan.cluster;
    assert_eq!((cluster.nodes.len(), cluster.pods.len()), (30, 120));
    assert_eq!(cluster.services[0].pods.len(), 60);
    assert_eq!(cluster.nodes[29].address.to_string(), "10.176.64.39");
    let mut addresses: Vec<_> = cluster.pods.iter().map(|p| p.address).collect();
    addresses.extend(cluster.nodes.iter().flat_map(|n| [n.address, n.pod_nic_address]));
    let all = addresses.len();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), all, "every address is assigned once");
    for pod in &cluster.pods {
        assert!(cluster.nodes[pod.node.0].pod_prefix.contains(pod.address));
    }
    for (i, a) in cluster.nodes.iter().enumerate() {
        assert!(!a.pod_prefix.contains(cluster.network.pod_gateway));
        assert!(cluster.nodes[..i].iter().all(|b| !a.pod_prefix.overlaps(&b.pod_prefix)));
    }
}

#[test]
fn a_chosen_address_is_not_given_away_and_says_the_node() {
    let plan = good(&with_cluster(
        "{ nodes: 2, pods: [ { name: a, node: worker-1 }, { name: b, address: 10.176.97.10 }, { name: c, node: worker-1 } ], outside: [ { name: host, address: 10.176.46.4 } ] }",
    ));
    assert_eq!(plan.cluster.pods[1].node.0, 0);
    let found: Vec<_> = ["a", "b", "c"].map(|pod| address(&plan.cluster, pod)).to_vec();
    assert_eq!(found, ["10.176.97.11", "10.176.97.10", "10.176.97.12"]);
}

#[test]
fn the_pod_that_comes_and_goes_takes_a_free_address_or_is_left_out() {
    use relapse_lab::cluster::pods::{passer_by, with_passer_by};
    let with = |prefix: &str, pods: usize| {
        let cluster = format!(
            "{{ nodes: 2, network: {{ podPrefix: {prefix} }}, pods: [ {{ name: a, node: worker-2, count: {pods} }} ], outside: [ {{ name: host, address: 10.176.46.4 }} ] }}"
        );
        with_passer_by(&good(&with_cluster(&cluster)).cluster)
    };
    for (prefix, pods) in [("10.176.96.0/20", 1), ("10.176.96.0/24", 1), ("10.176.96.0/26", 2)] {
        let plan = with(prefix, pods);
        let id = passer_by(&plan).unwrap_or_else(|| panic!("none in {prefix}"));
        let own = &plan.pods[id.0];
        assert!(id.0 == pods && plan.nodes[own.node.0].pod_prefix.contains(own.address), "{own:?}");
        assert!(plan.pods.iter().filter(|pod| pod.address == own.address).count() == 1, "{own:?}");
    }
}

#[test]
fn other_dns_replicas_keep_the_ids_of_all_other_pods() {
    let plan = good(SHIPPED[1]);
    let control = &plan.controls[0];
    let own = plan.cluster_of(control);
    let dns = own.dns.as_ref().expect("there is DNS");
    let others = plan.cluster.pods.len() - 1;
    assert_eq!((own.pods.len(), dns.replicas.len()), (others + 2, 2));
    for (before, after) in plan.cluster.pods.iter().zip(&own.pods).take(others) {
        assert_eq!((&before.name, before.address, before.node), (&after.name, after.address, after.node));
    }
    assert_eq!(own.services[dns.service.0].pods, dns.replicas);
    assert!(dns.replicas.iter().all(|id| own.pods[id.0].role == PodRole::Dns));
    assert_eq!(own.pods[dns.replicas[0].0].address, plan.cluster.pods[others].address);
    assert!(plan.workload.iter().any(|flow| flow.to == Target::Service(dns.service)), "cluster DNS is used");
}

#[test]
fn a_control_is_watched_as_long_as_the_incident() {
    let plan = good(SHIPPED[0]);
    let longest = plan.incident_trial.detect.iter().map(|expected| expected.within).max();
    assert_eq!(Some(plan.controls[0].watch), longest);
    assert!(plan.held > 0);
    assert_eq!(good(SHIPPED[1]).risks[0].within, good(SHIPPED[1]).baseline);
}

#[test]
fn the_limit_is_kube_proxys_formula() {
    let plan = good(SHIPPED[0]);
    let fault = format!("{:?}", plan.incident_trial.steps[0].inject[0]);
    assert!(fault.contains("max(131072, 32768 x 16 cores) = 524288, x 1/"), "{fault}");
}

/// A cluster in which every fault can be planned.
const RICH: &str = "
  nodes: 2
  pods:
    - { name: a, node: worker-1 }
    - { name: b, node: worker-2 }
    - { name: ingress, node: worker-2, ingress: { service: shop, port: 80 } }
  services: [ { name: shop, port: 80, pods: [a, b] } ]
  dns: { replicas: 2, upstreams: [host] }
  outside: [ { name: host, address: 10.176.46.4, loadBalancer: true, records: { a.example: [10.176.46.5], example-api.com: [203.0.113.9] } } ]
  offices: [ { name: beijing, prefix: 192.168.40.0/24, tunnelMtu: 1400, clamp: 1280 } ]";

fn injected(fault: &str) -> Result<Plan, Diagnostics> {
    let cluster = RICH.replace("loadBalancer: true", "loadBalancer: true, alsoAt: [10.176.46.5]");
    let text = with_cluster(&cluster).replace("policy-route-loss: { node: worker-1, lose: table }", fault);
    let flows = "workload:\n  - http: { name: web, from: office/beijing, to: pod/a, port: 80 }\n  \
                 - tcp: { name: out, from: pod/a, to: outside/host, port: 443 }\n  \
                 - query: { name: rows, from: pod/a, to: outside/host, port: 3306 }\n";
    planned(&text.replace("workload:\n", flows))
}

#[test]
fn every_fault_plans() {
    for (name, example) in Injection::NAMES.iter().zip(Injection::EXAMPLES) {
        let plan = injected(&format!("{name}: {example}")).unwrap_or_else(|wrong| panic!("{name}:\n{wrong}"));
        assert!(plan.incident_trial.changes().all(|fault| fault.name == *name), "{name}");
    }
}

#[test]
fn faults_that_make_no_sense_are_refused() {
    for (fault, message) in [
        ("policy-route-loss: { node: worker-1, lose: table, pod: a }", "`pod` has no effect here"),
        ("policy-route-loss: { node: worker-1, lose: table, quiet: true }", "which never happens"),
        ("conntrack-limit: { to: 5, cores: 2 }", "`cores` has no effect with `to`"),
        ("conntrack-limit: { as: kube-proxy-default }", "the formula needs the number of cores"),
        ("conntrack-limit: { as: kube-proxy-default, cores: 1, scale: 1/4000000000 }", "the limit would be 0"),
        ("conntrack-burst: { node: worker-2, share: 0.7, from: pod/a, for: 2s }", "runs on `worker-1`"),
        ("conntrack-burst: { node: worker-1, share: 0.7, from: node/worker-1, for: 2s }", "only a pod"),
        ("mss-clamp: { office: beijing, from: 1280, to: 1280 }", "the clamp is already 1280"),
        ("mss-clamp: { office: beijing, from: 1280, to: 1300, tunnelMtu: 1300 }", "it never worked"),
        ("client-death: { office: beijing, flow: out }", "does not come from office `beijing`"),
        ("nic-release: { node: worker-1, nic: eth1 }", "is not spare"),
        ("service-rules-loss: { node: worker-1, service: shp, how: gone }", "there is no Service `shp`"),
        ("endpoint-replaced: { pod: a, by: a }", "a pod cannot replace itself"),
        ("kube-proxy-stopped: { node: worker-1, replaced: { pod: a, by: coredns-1 } }", "not behind one Service"),
        ("dns-replica-loss: { replica: coredns-3, how: killed }", "there is no replica `coredns-3`"),
        ("dns-replica-loss: { replica: coredns-1, how: scaled-to-zero }", "loses every replica"),
        ("slow-resolver: { resolver: pod/a, delay: 1s }", "`pod/a` is not allowed here"),
        (
            "dns-record: { resolver: outside/host, name: a.example, addresses: [10.176.46.5] }",
            "has that record already",
        ),
        (
            "dns-record: { resolver: outside/host, name: a.example, addresses: [10.176.46.6] }",
            "no host has the address",
        ),
        ("slow-resolver: { resolver: outside/host, delay: 11s }", "longer than 10 s"),
        ("path-change: { of: outside/host, loss: 100% }", "no packet passes"),
        ("dns-record: { resolver: outside/host, name: b.example, addresses: [] }", "has that record already"),
        ("dns-record: { name: a.example, addresses: [10.0.0.1] }", "either `resolver` or `resolvers` is needed"),
        ("dns-record: { resolvers: [], name: a.example, addresses: [10.0.0.1] }", "no resolver is named"),
        ("dns-record: { resolver: outside/host, name: a..b, addresses: [10.176.46.4] }", "is not a domain name"),
        (
            "dns-record: { resolver: outside/host, name: a.example, addresses: [10.176.46.4], ttl: 1500ms }",
            "a fraction of a second",
        ),
        ("snat-collision: { node: worker-1, ports: 5-1, hop: none }", "`5-1` is not a range of ports"),
        ("server-death: { host: outside/host, port: 80 }", "nothing listens on port 80"),
        ("ingress-misroute: { ingress: ingress, port: 80 }", "`ingress` sends to port 80 already"),
        ("ingress-reload: { ingress: a }", "`a` is not an ingress"),
        ("missing-index: { server: outside/host, query: 0s }", "`query` cannot be 0"),
        ("backend-errors: { status: 500 }", "either `pods` or `service` is needed"),
        ("backend-errors: { pods: [], status: 500 }", "no pod is named"),
        ("backend-errors: { pods: [coredns-1], status: 500 }", "no server in pod `coredns-1` is asked over HTTP"),
        ("backend-errors: { service: shop, status: 500, share: 0.9% }", "`share` is less than 1%"),
        ("slow-resolver: { resolver: outside/host, delay: 100us }", "`delay` is shorter than 1 ms"),
        ("missing-index: { server: outside/host, query: 100us }", "`query` is shorter than 1 ms"),
        (
            "server-death: { host: outside/host, port: 443 }, server-death: { host: outside/host, port: 443 }",
            "another `server-death` of this list changes port 443 of outside/host already",
        ),
        ("pod-crash: { pod: ingress }", "no server in pod `ingress` is asked"),
        ("pod-crash: { pod: a, backOff: 0s }", "`backOff` cannot be 0"),
        ("rolling-update: { service: kube-dns }", "no server in pod `coredns-1` is asked"),
    ] {
        let wrong = injected(fault).expect_err(fault);
        assert_eq!(wrong.len(), 1, "{wrong}");
        assert!(wrong.plain().contains(message), "{wrong}");
    }
}

/// Meaningful strings to insert where they do not belong.
const ODD: [&str; 24] = [
    "",
    "-1",
    "0",
    "999999999999999999999",
    "1e308",
    ".nan",
    "~",
    "''",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ":",
    "- ",
    "#",
    "&a",
    "*a",
    "<<: ",
    "!!binary",
    "0s",
    "pod/",
    "10.176.96.0/20",
    "\u{1f980}",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mutation_of_a_scenario_panics(
        which in 0..SHIPPED.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, 0..ODD.len()), 1..5),
    ) {
        let mut text: Vec<char> = SHIPPED[which].chars().collect();
        for (at, removed, put) in edits {
            let at = at.index(text.len().max(1)).min(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, ODD[put].chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(wrong) = planned(&text) {
            prop_assert!(!wrong.is_empty());
            prop_assert!(wrong.plain().lines().count() > 1);
            let _ = wrong.drawn(true);
        }
    }

    #[test]
    fn no_word_in_the_place_of_another_panics(
        which in 0..SHIPPED.len(),
        swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
    ) {
        let text = SHIPPED[which];
        let words: Vec<&str> = text.split_inclusive([' ', ',', '\n']).collect();
        let mut swapped = words.clone();
        for (to, from) in swaps {
            swapped[to.index(words.len())] = words[from.index(words.len())];
        }
        if let Err(wrong) = planned(&swapped.concat()) {
            let _ = (wrong.plain(), wrong.drawn(false));
        }
    }

    #[test]
    fn no_text_at_all_panics(text in "\\PC{0,200}") {
        if let Err(wrong) = planned(&text) {
            let _ = (wrong.plain(), wrong.drawn(false));
        }
    }
}

/// A workload of one call, in [`RICH`].
fn called(steps: &str) -> Plan {
    let call = format!(
        "workload:\n  - call: {{ name: order, from: office/beijing, to: pod/a, port: 8080, timeout: 5s, do: {steps} }}\n"
    );
    let rich = RICH.replace("10.176.46.5", "10.176.46.4");
    good(&with_cluster(&rich).replace("workload:\n", &call))
}

#[test]
fn steps_are_parts_in_their_order_and_what_they_ask_is_known() {
    let plan = called(
        "[ get: { name: api, of: name/A.example, port: 80 }, connect: { name: database, to: outside/host, port: 3306 }, \
         together: [ queries: { name: queries, over: database, count: 13 }, \
         transfer: { name: upload, to: name/a.example, port: 80, bytes: 9, times: 2, timeout: 1s } ] ]",
    );
    let flow = &plan.workload[0];
    let names: Vec<&str> = flow.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["api", "database", "queries", "upload"]);
    assert_eq!(
        format!("{:?}", flow.steps),
        "InTurn([Part(PartId(0)), Part(PartId(1)), Together([Part(PartId(2)), Part(PartId(3))])])"
    );
    assert!(flow.looks_up, "names of its parts");
    assert_eq!(flow.entries, 1 + 6 + 1 + 6, "connections, and look-ups of two names");
    let asked: Vec<_> = flow.asked().map(|(to, port, bytes)| (plan.cluster.behind(to).len(), port, bytes)).collect();
    assert_eq!(asked, [(1, 8080, 1000), (1, 80, 1000), (1, 3306, 0), (1, 3306, 900), (1, 80, 0)]);
    assert_eq!(plan.cluster.names.len(), 1, "a name is one, however it is written");
}

#[test]
fn a_name_stands_for_who_has_its_addresses_and_a_service_for_its_pods() {
    let cluster = RICH.replace("10.176.46.5", "10.176.46.4, 10.99.9.9");
    let flows = "workload:\n  - tcp: { name: one, from: node/worker-1, to: name/a.example, port: 80 }\n  \
                 - tcp: { name: two, from: office/beijing, to: name/a.example., port: 80 }\n  \
                 - http: { name: shop, from: node/worker-1, to: name/shop.default, port: 80 }\n";
    let plan = good(&with_cluster(&cluster).replace("workload:\n", flows));
    let places = |flow: usize| plan.cluster.behind(plan.workload[flow].to);
    assert_eq!((places(0), places(1)), (vec![Place::Outside(OutsideId(0))], vec![Place::Outside(OutsideId(0))]));
    assert_eq!(places(2), [Place::Pod(PodId(0)), Place::Pod(PodId(1))]);
}

#[test]
fn a_flow_connects_to_the_entry_and_is_served_by_the_pods() {
    let cluster = "{ nodes: 2, pods: [ { name: shop, node: worker-1 }, { name: front, ingress: { service: shop } } ],
  services: [ { name: shop, port: 80, pods: [shop], nodePort: 30080 }, { name: front, port: 80, pods: [front] } ],
  dns: { replicas: 1, upstreams: [resolver] },
  outside: [ { name: host, address: 100.64.1.5 }, { name: balancer, address: 100.64.2.5, balances: shop },
    { name: resolver, address: 100.64.3.5, records: { example.com: [100.64.1.5] } } ] }";
    let flow =
        |name: &str, from: &str, to: &str| format!("  - http: {{ name: {name}, from: {from}, to: {to}, port: 80 }}\n");
    let flows = [
        flow("asks-node", "outside/host", "service/shop, via: node/worker-2"),
        flow("balanced", "outside/host", "service/shop, via: outside/balancer"),
        flow("named", "pod/shop", "name/front.default.svc.cluster.local"),
        flow("inside", "pod/front", "service/shop"),
        flow("out", "pod/shop", "outside/host"),
    ];
    let plan = good(&with_cluster(cluster).replace("\ninject:", &format!("\n{}inject:", flows.concat())));
    let of = |flow: &FlowPlan| {
        let servers: Vec<_> =
            plan.cluster.behind(flow.to).iter().map(|place| plan.cluster.place_name(*place)).collect();
        format!("{} {}", plan.cluster.entry(flow), servers.join(" "))
    };
    let service = |number: usize| plan.cluster.services[number].address;
    assert_eq!(
        plan.workload[1..].iter().map(of).collect::<Vec<_>>(),
        [
            format!("{}:30080 pod/shop", plan.cluster.nodes[1].address),
            "100.64.2.5:80 pod/shop".into(),
            format!("{}:80 pod/front", service(1)),
            format!("{}:80 pod/shop", service(0)),
            "100.64.1.5:80 outside/host".into(),
        ]
    );
}
