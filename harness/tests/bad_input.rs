//! Error messages for invalid input: each with its place and a fix.
//!
//! Each case is `bad_input/base.yaml` with replacements; the snapshots next to it contain the messages.

use std::fs;
use std::path::{Path, PathBuf};

use relapse::plan::{Plan, load, plan};
use relapse_model::diagnostics::{Diagnostics, Source};
use relapse_model::yaml::parse;

const BASE: &str = include_str!("bad_input/base.yaml");

/// The base with every occurrence of the first string of each pair replaced by the second.
fn base_with(replacements: &[(&str, &str)]) -> String {
    replacements.iter().fold(BASE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the base has no {from:?}");
        text.replace(from, to)
    })
}

fn planned(name: &str, text: String) -> Result<Plan, Diagnostics> {
    let source = Source::new(format!("{name}.yaml"), text);
    parse(&source).and_then(|scenario| plan(&scenario, &source))
}

fn snapshot(name: &str, message: &str) {
    assert!(!message.contains('\u{1b}'), "colours outside a terminal");
    insta::with_settings!({ snapshot_path => "bad_input", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, message);
    });
}

/// A call whose steps are wrong in every way that planning finds.
const CALL: &str = "  - call:
      name: order
      from: office/beijing
      to: pod/app
      port: 8080
      do:
        - queries: { name: early, over: database, count: 3 }
        - connect: { name: database, to: outside/databse, port: 3306 }
        - get: { name: database, of: pod/app, port: 80 }
        - queries: { name: both, over: database, to: outside/database, port: 3306, count: 1 }
        - queries: { name: kept, over: database, count: 1, keep: true }
        - together:
            - connect: { name: beside, to: outside/database, port: 3306 }
            - queries: { name: late, over: beside, count: 1 }
        - transfer: { name: upload, to: service/shop, port: 81, bytes: 10, timeout: 0s }
";

macro_rules! wrong {
    ($($name:ident: $($from:literal => $to:expr),+;)*) => {$(
        #[test]
        fn $name() {
            let name = stringify!($name).replace('_', "-");
            let wrong = planned(&name, base_with(&[$(($from, $to)),+])).expect_err("the input is invalid");
            snapshot(&name, &wrong.plain());
        }
    )*};
}

wrong! {
    numbers_that_vary_wrongly: "tunnelMtu: 1400, clamp: 1280" => "tunnelMtu: &tunnel 1400, clamp: &clamp 1280", "every: 50ms" => "every: &every 50ms",
        "risks:\n" => "vary:\n  tunel: { from: 1400, to: 1419 }\n  tunnel: { from: 1410, to: 1419 }\n  clamp: { of: tunnel, plus: [-20, -40] }\n  every: { from: 0.1s, to: 1s }\nrisks:\n";
    numbers_that_do_not_tell_how_they_vary: "tunnelMtu: 1400, clamp: 1280" => "tunnelMtu: &tunnel 1400, clamp: &clamp 1280", "every: 50ms" => "every: &every 50ms",
        "risks:\n" => "vary:\n  tunnel: { from: 1400 }\n  clamp: { of: mtu, times: 2 }\n  every: { oneOf: [] }\nrisks:\n";
    late_detectors_and_what_they_exclude: "risks:" => "observe: { armed: after-injection }\ntriage: { step: 6, at: node/worker-2 }\nrisks:";
    lasted_no_time: "risks:" => "lasted: 0s\nrisks:", "    inject: [ pod-deletion" => "    lasted: 0d 0s\n    inject: [ pod-deletion";
    lasted_in_other_words: "risks:" => "lasted: a day\nrisks:", "    inject: [ pod-deletion" => "    lasted: 1w\n    inject: [ pod-deletion";
    unknown_time_of_arming: "risks:" => "observe: { armed: afterwards }\nrisks:";
    unknown_key: "timeout: 400ms" => "tiemout: 400ms";
    unknown_key_at_the_top: "risks:" => "weaknesses:";
    missing_keys: "name: app-database, from: pod/app, " => "", "  incident: I4\n" => "";
    duplicate_key: "      lose: table" => "      lose: table\n      lose: all-rules";
    duplicate_keys_in_two_places: "  nodes: 2" => "  nodes: 2\n  nodes: 3", "port: 3306" => "port: 3306, port: 3307";
    wrong_type: "nodes: 2" => "nodes: { many: 3 }", "port: 3306" => "port: mysql", "port: 80, pods: [peer]" => "port: 80, pods: peer";
    number_where_a_text_stands: "title: A scenario in which nothing is wrong" => "title: 17";
    no_value: "every: 50ms" => "every: ";
    numbers_too_large: "port: 3306" => "port: 99999999999999999999", "every: 50ms" => "every: 100000h";
    alias_without_anchor: "name: app-database" => "name: *app-database";
    colon_in_a_text: "why: A pod was deleted" => "why: [ Pod: peer: was deleted";
    two_protocols_on_one_port: "  - dns: { name: lookup" => "  - tcp: { name: raw, from: pod/app, to: pod/peer, port: 80 }\n  - dns: { name: lookup";
    malformed_texts: "every: 50ms" => "every: 50", "timeout: 400ms" => "timeout: 400 msec", "address: 10.176.46.4" => "address: 10.176.46.400", "prefix: 192.168.40.0/24" => "prefix: 192.168.40.7/24", "name: base" => "name: Base_1";
    another_version: "relapse/v1" => "relapse/v2";
    another_kind: "kind: Scenario" => "kind: Scenarios";
    unknown_fault: "pod-deletion:" => "pod-delete:";
    fault_not_indented: "      node: worker-2\n      lose: table" => "    node: worker-2\n    lose: table";
    fault_without_settings: "inject: [ pod-deletion: { pod: peer } ]" => "inject: [ pod-deletion ]";
    unknown_word: "lose: table" => "lose: tabel";
    failure_that_is_none: "as: timeout" => "as: http-200";
    status_of_a_flow_without_http: "as: timeout" => "as: http-502";
    address_on_the_host_network: "name: app, node: worker-2" => "name: app, node: worker-2, address: 10.176.98.29, mtu: 1400, ingress: { service: shop, hostNetwork: true }";
    ingresses_at_one_port: "    - { name: app, node: worker-2 }" => "    - { name: app, node: worker-2, ingress: { service: shop, hostNetwork: true } }\n    - { name: second, node: worker-2, ingress: { service: shop, hostNetwork: true } }";
    resolver_without_records: "clamp: 1280" => "clamp: 1280, resolver: database", "address: 10.176.46.4" => "address: 10.176.46.4, resolver: upsteam", "  nodes: 2" => "  nodes: 2\n  declared: { entries: { shop.example.com: { resolver: outside/database, port: 80 }, shop..com: { resolver: upstream, port: 80 } } }";
    kind_config_elsewhere: "  nodes: 2" => "  nodes: 2\n  kindConfig: ../etc/passwd";
    kind_config_misspelt: "  nodes: 2" => "  nodes: 2\n  kindConfig: two-worker.yaml", "pod: peer" => "pod: pere";
    kind_config_too_small: "  nodes: 2" => "  nodes: 4\n  kindConfig: two-workers.yaml";
    kind_config_of_other_prefixes: "  nodes: 2" => "  nodes: 2\n  network: { podPrefix: 10.176.112.0/20, servicePrefix: 192.168.16.0/20 }\n  kindConfig: two-workers.yaml";
    syntax_error: "risks:\n" => "risks: [\n";
    two_documents: "risks:\n" => "---\nrisks:\n";
    tab: "  nodes: 2" => "\tnodes: 2";

    unknown_node: "name: app, node: worker-2" => "name: app, node: woker-2", "      node: worker-2" => "      node: worker-3", "subject: node/worker-2" => "subject: node/worker-9";
    pod_that_does_not_exist: "from: pod/app, to: service/shop" => "from: pod/ap, to: service/shop", "pod: peer" => "pod: queue", "pods: [peer]" => "pods: [pear]";
    place_without_its_kind: "to: outside/database" => "to: database", "to: service/shop" => "to: svc/shop";
    unknown_flow: "works: { flow: shopping }" => "works: { flow: shoping }";
    unknown_detector: "detector: policy-route," => "detector: policy-routes,", "dns-redundancy" => "wrong-nic";
    finding_about_anything: "subject: node/worker-2, within" => "within";
    what_follows_without_a_reason: "risks:" => "also:\n  - { detector: wrong-nic, level: symptom, subject: node/worker-2 }\n  - { detector: wrong-nic, why: It follows. }\nrisks:";
    what_follows_wrongly: "risks:" => "also:
  - { detector: wrong-nics, level: symptom, subject: node/worker-2, why: Its SYNs leave by the wrong NIC. }
  - { detector: wrong-nic, level: cause, subject: node/worker-3, why: \" \" }
  - { detector: policy-route, level: cause, subject: node/worker-2, why: It is expected already. }
  - { detector: gateway-errors, level: symptom, subject: pod/app, why: Once. }
  - { detector: gateway-errors, level: symptom, subject: pod/app, why: And twice., inRealCluster: true }
risks:";
    level_of_another_detector: "level: cause" => "level: symptom";
    subject_of_another_detector: "subject: node/worker-2" => "subject: path/192.168.40.0/24", "subject: service/kube-dns" => "subject: node/worker-1";
    server_that_names_nothing: "subject: node/worker-2" => "subject: server/databse", "  nodes: 2" => "  nodes: 2\n  declared: { servers: { database: 10.176.46.4:3306 } }";
    server_of_nothing: "subject: node/worker-2" => "subject: server/10.176.46.9:3306", "service/kube-dns" => "server/database";
    server_by_its_address: "subject: node/worker-2" => "subject: server/10.176.46.4:3306", "  nodes: 2" => "  nodes: 2\n  declared: { servers: { database: 10.176.46.4:3306 } }";
    servers_declared_wrongly: "  nodes: 2" => "  nodes: 2\n  declared: { servers: { database: 10.176.46.4, Store: 10.176.46.4:443 } }";
    server_declared_twice: "  nodes: 2" => "  nodes: 2\n  declared: { servers: { database: 10.176.46.4:3306, other: 10.176.46.4:3306 } }";
    subject_that_names_nothing: "subject: node/worker-2" => "subject: path/beijing", "service/kube-dns" => "services/kube-dns";
    risk_among_the_detections: "level: cause" => "level: risk";
    deadline_of_nothing: "within: 500ms" => "within: 0s", "every: 50ms" => "every: 0ms", "within: 3s" => "within: 0s";
    timeout_longer_than_the_effect: "timeout: 400ms" => "timeout: 4s";
    effect_said_twice: "works: { flow: shopping }" => "works: { flow: app-database }";
    overlapping_addresses: "- { name: peer, node: worker-1 }" => "- { name: peer, node: worker-2, address: 10.176.98.29 }\n    - { name: third, node: worker-2, address: 10.176.98.29 }", "address: 10.176.46.4" => "address: 10.16.16.16";
    overlapping_prefixes: "nodes: 2" => "nodes: 2\n  network: { podPrefix: 10.176.64.0/24, servicePrefix: 192.168.40.0/22 }";
    ipv6_prefixes: "nodes: 2" => "nodes: 2\n  network: { podPrefix: fd00:96::/64, vpc: [fd00::/16] }", "prefix: 192.168.40.0/24" => "prefix: fd00:40::/64";
    ipv6_host: "address: 10.176.46.4" => "address: fd00:46::4";
    address_outside_its_prefix: "name: app, node: worker-2" => "name: app, node: worker-2, address: 10.176.97.29", "address: 10.176.46.4" => "address: 10.176.97.77", "port: 80, pods: [peer]" => "port: 80, pods: [peer], address: 10.0.0.1";
    services_lost_wrongly: "- policy-route-loss:\n      node: worker-2\n      lose: table" => "- service-rules-loss: { node: worker-1, service: shp, how: gone }\n  - kube-proxy-stopped: { node: worker-3, restartAfter: 0s, replaced: { pod: peer, by: app } }\n  - endpoint-replaced: { pod: peer, by: peer }";
    clamp_87: "clamp: 1280" => "clamp: 87";
    clamp_65496: "clamp: 1280" => "clamp: 65496";
    clamp_that_never_worked: "- policy-route-loss:\n      node: worker-2\n      lose: table" => "- mss-clamp: { office: beijing, from: 1380, to: 1460 }";
    port_a_service_does_not_have: "to: service/shop, port: 80" => "to: service/shop, port: 8080";
    office_to_a_service: "from: pod/app, to: service/shop" => "from: office/beijing, to: service/shop";
    node_ports_that_cannot_be: "pods: [peer] }" => "pods: [peer], nodePort: 30080 }
    - { name: twin, port: 81, pods: [peer], nodePort: 30080 }
    - { name: many, ports: [83, 84], pods: [peer], nodePort: 30084 }
    - { name: none, port: 85, pods: [peer], externalTrafficPolicy: local }";
    node_port_out_of_range: "pods: [peer] }" => "pods: [peer], nodePort: 8080 }";
    unknown_traffic_policy: "pods: [peer] }" => "pods: [peer], nodePort: 30080, externalTrafficPolicy: locale }";
    entries_that_lead_nowhere: "pods: [peer] }" => "pods: [peer], nodePort: 30080, externalTrafficPolicy: local }\n    - { name: plain, port: 80, pods: [peer] }", "to: outside/database, port" => "to: outside/database, via: node/worker-1, port", "to: service/shop, port: 80 }" => "to: service/shop, via: node/worker-1, port: 80 }
  - http: { name: no-port, from: office/beijing, to: service/plain, via: node/worker-1, port: 80 }
  - http: { name: no-endpoint, from: office/beijing, to: service/shop, via: node/worker-2, port: 80 }
  - http: { name: no-balancer, from: office/beijing, to: service/shop, via: outside/database, port: 80 }
  - http: { name: no-node, from: office/beijing, to: service/shop, via: node/worker-3, port: 80 }
  - http: { name: no-entry, from: office/beijing, to: service/shop, via: pod/app, port: 80 }
  - http: { name: other-port, from: office/beijing, to: service/shop, via: node/worker-1, port: 30080 }";
    balancers_of_nothing: "address: 10.176.46.4 }" => "address: 10.176.46.4, balances: shop }\n    - { name: other, address: 10.176.46.5, balances: shp, server: nginx, loadBalancer: true }";
    names_that_are_none: "records: {" => "ttl: 0s, records: { \"*.*.com\": [10.0.0.1], ", "nodes: 2" => "nodes: 2\n  declared: { names: { a..b: [10.0.0.0/8], oss.example.com: [] } }", "upstreams: [upstream]" => "upstreams: [upstream], cache: 1500ms";
    triage_at_nothing: "controls:" => "triage: { step: 6, at: nod/worker-2 }\ncontrols:";
    triage_leads_nowhere: "controls:" => "triage: { step: 7, at: nod/worker-2, contributing: [0] }\ncontrols:";
    unknown_policy: "upstreams: [upstream]" => "upstreams: [upstream], policy: fastest";
    name_of_no_record: "subject: node/worker-2" => "subject: name/oss.example.org";
    resolves_to_nothing: "works: { flow: shopping }" => "resolves: { flow: app-database, to: [] }";
    not_http_to_nginx: "address: 10.176.46.4 }" => "address: 10.176.46.4, server: nginx }\n    - { name: cache, address: 10.176.46.5, server: nginx }", "  - http:" => "  - hold: { name: waiting, from: pod/app, to: outside/cache, port: 6379, connections: 5 }\n  - http:";
    path_that_cannot_be: "address: 10.176.46.4 }" => "address: 10.176.46.4, delay: 5ms, jitter: 6ms, alsoAt: [10.16.16.16, 10.176.98.77] }", "prefix: 192.168.40.0/24" => "prefix: 192.168.40.0/24, delay: 11s", "nodes: 2" => "nodes: 2\n  prefixes: [ { prefix: 10.0.0.0/8, jitter: 1ms }, { prefix: 100.64.0.0/16 }, { prefix: 100.64.0.0/16 } ]";
    path_that_is_cut: "address: 10.176.46.4 }" => "address: 10.176.46.4, loss: 100% }", "prefix: 192.168.40.0/24" => "prefix: 192.168.40.0/24, loss: 99.9%";
    prefix_without_a_host: "nodes: 2" => "nodes: 2\n  prefixes: [ { prefix: 10.176.46.0/24, delay: 5ms }, { prefix: 100.64.0.0/16, delay: 59ms } ]";
    record_that_leads_nowhere: "pod-deletion: { pod: peer }" => "dns-record: { resolvers: [outside/upstream, outside/upstream], name: example-api.com, addresses: [10.176.46.4, 10.176.46.5, 10.176.46.4, \"2001:db8::2\"] }";
    resolver_too_slow: "pod-deletion: { pod: peer }" => "slow-resolver: { resolver: outside/upstream, delay: 1m }";
    flap_that_is_a_loss: "pod-deletion: { pod: peer }" => "carrier-flap: { node: worker-1, away: 2s, times: 3 }, policy-drop: { node: worker-1, to: outside/databse, port: 443 }, node-nic-route: { node: worker-9, to: outside/databse }, domain-failure: { name: example.org }";
    longer_than_its_timeout: "  - dns:" => "  - call: { name: order, from: office/beijing, to: pod/app, port: 8080, timeout: 10s, do: [ queries: { name: rows, to: outside/database, port: 3306, count: 13, takes: 1s }, queries: { name: few, to: outside/database, port: 3306, count: 3, think: 1s, timeout: 1s }, get: { name: api, of: outside/database, port: 80, timeout: 9500ms } ] }\n  - query: { name: rows, from: pod/app, to: outside/database, port: 3306, takes: 500ms }\n  - dns:";
    path_in_malformed_words: "address: 10.176.46.4 }" => "address: 10.176.46.4, delay: 59, loss: 5, rate: 100 mbit }";
    path_of_nothing: "pod-deletion: { pod: peer }" => "path-change: { of: prefix/100.64.0.0/16, delay: 59ms }, path-change: { of: database, delay: 59ms }";
    path_that_stays: "pod-deletion: { pod: peer }" => "path-change: { of: outside/database, delay: 0ms }", "nodes: 2" => "nodes: 2\n  prefixes: [ { prefix: 10.176.46.0/24 } ]", "- policy-route-loss:\n      node: worker-2\n      lose: table" => "- path-change: { of: prefix/100.64.0.0/24, loss: 1% }";
    unknown_server: "address: 10.176.46.4 }" => "address: 10.176.46.4, server: ngnix }";
    name_nobody_knows: "query: example-api.com" => "query: example-ap.com";
    name_opened_that_nobody_knows: "to: outside/database" => "to: name/example-ap.com", "name: app-database, from: pod/app" => "name: app-database, from: office/beijing";
    name_of_no_host: "to: outside/database" => "to: name/example-api.com";
    resolver_that_is_not_asked: "to: outside/database, port" => "to: outside/database, resolver: outside/upstream, port", "to: service/shop, port" => "to: name/shop, resolver: outside/database, port";
    steps_that_make_no_sense: "  - dns:" => &format!("{CALL}  - dns:");
    steps_of_other_kinds: "  - dns:" => "  - call: { name: order, from: office/beijing, to: pod/app, port: 8080, do: [ fetch: { name: api } ] }\n  - call: { name: idle, from: office/beijing, to: pod/app, port: 8080, do: [] }\n  - dns:";
    how_slow_is_not_said: "works: { flow: shopping }" => "slow: { flow: shopping }";
    how_slow_is_said_twice: "works: { flow: shopping }" => "slow: { flow: shopping, atLeast: 500ms, times: 3 }";
    slower_than_can_be_seen: "works: { flow: shopping }" => "slow: { flow: shopping, atLeast: 500ms }";
    longer_than_it_can_take: "works: { flow: shopping }" => "works: { flow: shopping, within: 1h }";
    path_too_narrow: "address: 10.176.46.4 }" => "address: 10.176.46.4, rate: 1bit }";
    part_that_does_not_exist: "works: { flow: shopping }" => "works: { flow: shopping, part: upload, within: 100ms }";
    servers_that_cannot_fail: "pod-deletion: { pod: peer }" => "backend-errors: { pods: [peer], service: shop, status: 500 }, backend-errors: { service: shop, status: 500, share: 0% }, backend-errors: { pods: [app], status: 500 }, pod-crash: { pod: app, backOff: 0s }, rolling-update: { service: shops }";
    index_of_what_nothing_queries: "pod-deletion: { pod: peer }" => "missing-index: { server: outside/database, query: 400ms }";
    not_queries_to_mariadb: "address: 10.176.46.4 }" => "address: 10.176.46.4, server: mariadb }";
    no_resolver: "replicas: 2, upstreams: [upstream]" => "replicas: 2, upstreams: [database]";
    two_of_one_name: "name: peer, node" => "name: app, node", "name: shopping" => "name: app-database";
    no_controls: "controls:\n  - name: pod-deleted\n    why: A pod was deleted, and its own rules went with it.\n    inject: [ pod-deletion: { pod: peer } ]\n    effect: { all: [ works: { flow: app-database } ] }\n" => "controls: []\n";
    nothing_to_detect: "detect:\n  - { detector: policy-route, level: cause, subject: node/worker-2, within: 500ms }" => "detect: []";
    nothing_injected: "inject: [ pod-deletion: { pod: peer } ]" => "inject: []";
    rules_of_no_pod: "lose: table" => "lose: from-rule";
    pod_of_another_node: "lose: table" => "lose: from-rule\n      pod: peer";
    limit_said_twice: "pod-deletion: { pod: peer }" => "conntrack-limit: { to: 4000, as: kube-proxy-default, cores: 16 }";
    limit_not_said: "pod-deletion: { pod: peer }" => "conntrack-limit: { scale: 1/128 }";
    facts_of_no_file: "nodes: 2" => "nodes: 2\n  operator: operators/none.yaml", "pod: peer" => "pod: pere";
    declared_mtu_of_another_tunnel: "clamp: 1280" => "clamp: 1280, declaredMtu: 1319";
    declared_facts_that_contradict_the_cluster: "nodes: 2" => "nodes: 2\n  declared: { names: { example-api.com: [203.0.113.0/24] }, servers: { database: 10.176.46.5:3306 }, entries: { tickets.example.com: { resolver: outside/upstream, port: 80 } } }";
    unknown_conntrack_timeout: "nodes: 2" => "nodes: 2\n  network: { conntrackTimeouts: { nf_conntrack_udp_timeout: 5, tcp_timeout_timewait: 5 } }";
    more_held_than_opened: "inject:\n  -" => "steadyState: { held: 10 }\ninject:\n  -";
    too_many_pods: "name: peer, node: worker-1" => "name: peer, node: worker-1, count: 65";
    nodes_without_end: "nodes: 2" => "nodes: 65";
    not_many_errors_but_all: "every: 50ms" => "every: 0s", "node: worker-1" => "node: worker-11", "detector: policy-route," => "detector: policy-rout,", "address: 10.176.46.4" => "address: 10.176.97.1", "pod: peer" => "pod: pere";
    several_errors_of_form: "kind: Scenario" => "kind: scenario", "nodes: 2" => "nodes: many", "timeout: 400ms" => "tiemout: 400ms", "clamp: 1280" => "clamp: 87", "pod-deletion" => "pod-deletoin", "level: cause" => "level: guess";
}

/// The base as a chain of two steps.
const CHAIN: &str = "steps:
  - name: route
    inject: [ policy-route-loss: { node: worker-2, lose: table } ]
    effect: { all: [ fails: { flow: app-database, as: timeout } ] }
    detect: [ { detector: policy-route, level: cause, subject: node/worker-2, within: 500ms } ]
  - name: dns
    inject: [ dns-replica-loss: { replica: coredns-1, how: killed } ]
    meanwhile: [ link-loss: { node: worker-1, how: down } ]
    effect: { all: [ works: { flow: app-database } ] }
    detect: [ { detector: dns-failure, level: symptom, subject: service/kube-dns, within: 500ms, after: route } ]
    heal: [ dns-replica-added: { node: worker-2 } ]
healed: { all: [ works: { flow: app-database } ] }
";

/// The base with other steps.
fn chain_with(replacements: &[(&str, &str)]) -> String {
    let (head, rest) = BASE.split_once("inject:\n").expect("the base injects something");
    let (_, tail) = rest.split_once("risks:\n").expect("the base has risks");
    let text = format!("{head}{CHAIN}risks:\n{tail}");
    replacements.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "the chain has no {from:?}");
        text.replacen(from, to, 1)
    })
}

#[test]
fn the_chain_is_right() {
    let plan = planned("chain", chain_with(&[])).unwrap_or_else(|wrong| panic!("{wrong}"));
    let of: Vec<_> = plan.incident_trial.detect.iter().filter_map(|expected| expected.of.as_ref()).collect();
    assert_eq!(of.iter().map(|of| of.until()).collect::<Vec<_>>(), [Some("route"), Some("dns")]);
    assert_eq!(of[1].after.as_deref(), Some("route"));
    let added = plan.cluster.pods.last().expect("the replica that is added");
    assert!(added.name == "coredns-3" && plan.cluster.is_spare(relapse_model::PodId(plan.cluster.pods.len() - 1)));
}

#[test]
fn two_twins_replace_the_pods_of_one_service() {
    let twin = |name: &str| {
        format!(
            "  - name: {name}\n    why: benign\n    inject: [ rolling-update: {{ service: shop }} ]\n    effect: {{ all: [] }}\n"
        )
    };
    let text = format!("{}\n{}{}", BASE.trim_end(), twin("rolled"), twin("rolled-again"));
    let plan = planned("rolled", text).unwrap_or_else(|wrong| panic!("{wrong}"));
    // Each has a cluster of its own, as it is before any fault.
    for control in &plan.controls[1..] {
        let added = &plan.cluster_of(control).pods[plan.cluster.pods.len()..];
        assert_eq!(added.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["peer-new"]);
    }
}

#[test]
fn one_trial_replaces_the_pods_of_a_service_once() {
    let twice = "rolling-update: { service: shop }, rolling-update: { service: shop }";
    let wrong = planned("twice", base_with(&[("pod-deletion: { pod: peer }", twice)])).expect_err("replaced twice");
    assert!(wrong.plain().contains("replace the pods of a Service once"), "{}", wrong.plain());
}

#[test]
fn chains() {
    for (name, replacements) in [
        (
            "steps-beside-inject",
            &[("steps:\n", "inject: [ pod-deletion: { pod: peer } ]\ndetect: []\nsteps:\n")] as &[_],
        ),
        ("two-steps-of-one-name", &[("name: dns", "name: route")]),
        ("unknown-steps", &[("after: route", "after: rout"), ("within: 500ms }", "within: 500ms, clears: dsn }")]),
        (
            "steps-in-the-wrong-order",
            &[("within: 500ms }", "within: 500ms, after: dns }"), ("after: route", "after: dns, clears: route")],
        ),
        (
            "finding-of-two-steps",
            &[(
                "detector: dns-failure, level: symptom, subject: service/kube-dns,",
                "detector: policy-route, level: cause, subject: node/worker-2,",
            )],
        ),
        (
            "step-without-effect",
            &[
                ("effect: { all: [ works: { flow: app-database } ] }", "effect: { all: [] }"),
                (
                    "detect: [ { detector: policy-route, level: cause, subject: node/worker-2, within: 500ms } ]",
                    "detect: []",
                ),
            ],
        ),
        (
            "meanwhile-of-the-first-step",
            &[("    effect:", "    meanwhile: [ link-loss: { node: worker-2, how: down } ]\n    effect:")],
        ),
        (
            "changed-by-two-steps",
            &[
                (
                    "dns-replica-loss: { replica: coredns-1, how: killed }",
                    "path-change: { of: outside/database, delay: 5ms }",
                ),
                ("lose: table } ]", "lose: table }, path-change: { of: outside/database, delay: 50ms } ]"),
                ("link-loss: { node: worker-1, how: down }", "link-loss: { node: worker-2, how: down }"),
                ("dns-replica-added: { node: worker-2 }", "path-change: { of: outside/database, delay: 9ms }"),
            ],
        ),
        ("replica-on-no-node", &[("dns-replica-added: { node: worker-2 }", "dns-replica-added: { node: worker-9 }")]),
    ] {
        let wrong = planned(name, chain_with(replacements)).expect_err(name);
        snapshot(name, &wrong.plain());
    }
    let (head, tail) = chain_with(&[]).split_once(CHAIN).map(|(h, t)| (h.to_owned(), t.to_owned())).expect("a chain");
    for (name, steps) in [("no-steps", "steps: []\n"), ("neither-steps-nor-inject", "")] {
        snapshot(name, &planned(name, format!("{head}{steps}{tail}")).expect_err(name).plain());
    }
    let text = base_with(&[("node/worker-2, within: 500ms", "node/worker-2, within: 500ms, after: dns")]);
    snapshot("step-of-no-chain", &planned("step-of-no-chain", text).expect_err("no chain").plain());
}

#[test]
fn the_base_is_right() {
    if let Err(wrong) = planned("base", BASE.to_owned()) {
        panic!("{wrong}");
    }
}

/// A temporary folder, whose name is removed from messages.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for the case"))
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("a file of the case");
        path
    }

    fn wrong(&self, paths: &[&Path]) -> String {
        let paths: Vec<PathBuf> = paths.iter().map(|p| self.0.path().join(p)).collect();
        let wrong = load(&paths).expect_err("the input is invalid");
        wrong.plain().replace(&format!("{}/", self.0.path().display()), "")
    }
}

#[test]
fn empty_file() {
    let message = load(&["tests/bad_input/empty.yaml".into()]).expect_err("it is empty").plain();
    snapshot("empty-file", &message);
}

#[test]
fn file_of_comments() {
    let folder = Folder::new();
    folder.file("comments.yaml", "# nothing yet\n---\n");
    snapshot("file-of-comments", &folder.wrong(&[Path::new("comments.yaml")]));
}

#[test]
fn not_utf_8() {
    let message = load(&["tests/bad_input/latin-1.yaml".into()]).expect_err("it is Latin-1").plain();
    snapshot("not-utf-8", &message);
}

/// Facts that a shared file declares.
fn facts(of: &str) -> String {
    format!("apiVersion: relapse/v1\nkind: Operator\n{of}")
}

/// A scenario that uses a shared file of facts, in a folder of its own.
fn with_facts(folder: &Folder, scenario: &str, of: &str, replacements: &[(&str, &str)]) {
    let _ = fs::create_dir(folder.0.path().join("operators"));
    folder.file("operators/facts.yaml", of);
    let text = base_with(replacements).replace("  nodes: 2", "  nodes: 2\n  operator: operators/facts.yaml");
    folder.file(&format!("{scenario}.yaml"), text.replace("name: base", &format!("name: {scenario}")));
}

const RIGHT_FACTS: &str = "prefixes: { nodes: 10.176.64.0/20, pods: 10.176.96.0/20, services: 192.168.0.0/20 }
offices:
  beijing: { prefix: 192.168.40.0/24, mtu: 1400 }
  shanghai: { prefix: 192.168.60.0/24, mtu: 1280 }
limits: { nf_conntrack_max: 65536 }
names: { example-api.com: [10.176.46.0/24], oss.example.com: [10.219.226.0/24] }
servers: { database: 10.176.46.4:3306, store: 10.219.226.2:443 }
entries:
  example-api.com: { resolver: 10.16.16.16, port: 80 }
  tickets.example.com: { resolver: 203.0.113.53, port: 80 }
";

/// Two scenarios share one file: each uses what concerns what it builds, and no other fact is an error.
#[test]
fn facts_are_shared_and_those_about_nothing_built_are_left_out() {
    let folder = Folder::new();
    with_facts(&folder, "one", &facts(RIGHT_FACTS), &[]);
    with_facts(
        &folder,
        "two",
        &facts(RIGHT_FACTS),
        &[("name: beijing, prefix: 192.168.40.0/24", "name: guangzhou, prefix: 192.168.50.0/24")],
    );
    let plans = load(&[folder.0.path().to_path_buf()]).unwrap_or_else(|wrong| panic!("{wrong}"));
    let known: Vec<_> = plans.iter().map(|plan| plan.cluster.operator()).collect();
    assert_eq!(known[0].declared_mtu("192.168.40.10".parse().expect("an address")), Some(1400));
    assert_eq!(known[1].paths, []);
    for operator in known {
        assert_eq!(operator.names.iter().map(|name| name.name.as_str()).collect::<Vec<_>>(), ["example-api.com"]);
        assert_eq!(operator.servers.iter().map(|server| server.name.as_str()).collect::<Vec<_>>(), ["database"]);
        assert_eq!(operator.entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["example-api.com"]);
        assert_eq!(operator.conntrack_limit, Some(65536));
    }
}

#[test]
fn facts_that_cannot_be_used() {
    for (name, of, replacements) in [
        ("facts-with-another-mtu", facts("offices:\n  beijing: { prefix: 192.168.40.0/24, mtu: 1319 }\n"), &[] as &[_]),
        (
            "facts-that-contradict-the-cluster",
            facts(
                "prefixes: { nodes: 10.176.48.0/20, pods: 10.176.80.0/20, services: 192.168.16.0/20 }
offices:
  beijing: { prefix: 192.168.41.0/24 }
  shanghai: { prefix: 192.168.40.0/25, mtu: 9000 }
names: { example-api.com: [203.0.113.0/24] }
servers: { database: 10.176.46.5:3306 }
entries:
  example-api.com: { resolver: 10.176.46.4, port: 80 }
  tickets.example.com: { resolver: 10.16.16.16, port: 80 }
",
            ),
            &[],
        ),
        (
            "facts-declared-twice",
            facts(RIGHT_FACTS),
            &[(
                "workload:",
                "  declared:\n    names: { example-api.com: [10.176.46.9/32] }\n    servers: { database: 10.176.46.4:80 }\n    entries: { example-api.com: { resolver: outside/upstream, port: 80 } }\n    limits: { nf_conntrack_max: 4096 }\nworkload:",
            )],
        ),
        (
            "limit-that-a-control-breaks",
            facts(RIGHT_FACTS),
            &[("pod-deletion: { pod: peer }", "conntrack-limit: { to: 4096 }")],
        ),
        (
            "facts-in-malformed-words",
            facts(
                "ofices: {}\nlimits: { nf_conntrack_max: many }\nnames: { a..b: [10.0.0.0/33] }\nentries: { shop.example.com: { resolver: outside/upstream, port: 0 } }\n",
            ),
            &[],
        ),
        ("facts-of-another-kind", "apiVersion: relapse/v1\nkind: Scenario\n".to_owned(), &[]),
        ("facts-of-nothing", "# nothing yet\n".to_owned(), &[]),
    ] {
        let folder = Folder::new();
        with_facts(&folder, "base", &of, replacements);
        snapshot(name, &folder.wrong(&[Path::new("base.yaml")]));
    }
}

/// The file of facts has an error for each scenario that contradicts it.
#[test]
fn facts_that_two_scenarios_contradict() {
    let folder = Folder::new();
    for scenario in ["one", "two"] {
        with_facts(&folder, scenario, &facts("offices:\n  beijing: { prefix: 192.168.40.0/24, mtu: 1319 }\n"), &[]);
    }
    snapshot("facts-that-two-scenarios-contradict", &folder.wrong(&[Path::new("one.yaml"), Path::new("two.yaml")]));
}

/// Errors of a kind configuration are reported together with all other errors.
#[test]
fn kind_configs_that_cannot_be_used() {
    let folder = Folder::new();
    fs::create_dir(folder.0.path().join("kind-configs")).expect("a folder of the case");
    let configs: [(&str, &[u8]); 8] = [
        ("empty", b"# nothing yet\n"),
        ("latin-1", b"kind: Cluster\nname: M\xfcller\n"),
        ("no-yaml", b"kind: Cluster\nnodes: [\n  - role\n"),
        ("of-kubernetes", b"kind: Deployment\n"),
        ("no-mapping", b"- kind: Cluster\n"),
        ("nodes-that-are-none", b"kind: Cluster\nnodes: { role: control-plane }\n"),
        ("no-networking", b"kind: Cluster\nnetworking: none\n"),
        ("no-prefix", b"kind: Cluster\nnetworking: { podSubnet: 10.176.96.0 }\n"),
    ];
    for (name, content) in configs {
        folder.file(&format!("kind-configs/{name}.yaml"), content);
        let (config, named) = (format!("nodes: 2\n  kindConfig: {name}.yaml"), format!("name: {name}"));
        let wrong = [("nodes: 2", config.as_str()), ("name: base", named.as_str()), ("pod: peer", "pod: pere")];
        folder.file(&format!("with-{name}.yaml"), base_with(&wrong));
    }
    snapshot("kind-configs-that-cannot-be-used", &folder.wrong(&[Path::new("")]));
}

#[test]
fn kind_config_that_is_a_folder() {
    let folder = Folder::new();
    fs::create_dir(folder.0.path().join("mine.yaml")).expect("a folder of the case");
    folder.file("base.yml", base_with(&[("nodes: 2", "nodes: 2\n  kindConfig: mine.yaml")]));
    snapshot("kind-config-that-is-a-folder", &folder.wrong(&[Path::new("base.yml")]));
}

#[test]
fn huge_file() {
    let folder = Folder::new();
    folder.file("huge.yaml", format!("{BASE}# {}\n", "x".repeat(1 << 20)));
    let started = std::time::Instant::now();
    snapshot("huge-file", &folder.wrong(&[Path::new("huge.yaml")]));
    assert!(started.elapsed() < std::time::Duration::from_secs(1), "a huge file must not be parsed");
}

#[test]
fn alias_bomb() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..10 {
        let aliases = vec![format!("*a{}", i - 1); 9].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    let folder = Folder::new();
    folder.file("bomb.yaml", bomb);
    snapshot("alias-bomb", &folder.wrong(&[Path::new("bomb.yaml")]));
}

#[test]
fn nested_without_end() {
    let folder = Folder::new();
    folder.file("deep.yaml", format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)));
    snapshot("nested-without-end", &folder.wrong(&[Path::new("deep.yaml")]));
}

#[test]
fn folder_without_scenarios() {
    let folder = Folder::new();
    fs::create_dir(folder.0.path().join("notes")).expect("a folder of the case");
    folder.file("notes/readme.md", "# nothing here");
    snapshot("folder-without-scenarios", &folder.wrong(&[Path::new("notes")]));
}

#[test]
fn missing_file() {
    snapshot("missing-file", &Folder::new().wrong(&[Path::new("nowhere.yaml")]));
}

#[test]
fn two_scenarios_with_one_name() {
    let folder = Folder::new();
    folder.file("first.yaml", BASE);
    folder.file("second.yaml", BASE);
    snapshot("two-scenarios-with-one-name", &folder.wrong(&[Path::new("first.yaml"), Path::new("second.yaml")]));
}

#[test]
fn errors_of_all_files() {
    let folder = Folder::new();
    folder.file("form.yaml", base_with(&[("timeout: 400ms", "tiemout: 400ms"), ("name: base", "name: form")]));
    folder.file("names.yaml", base_with(&[("pod: peer", "pod: pere"), ("name: base", "name: names")]));
    folder.file("right.yaml", BASE);
    let all = [Path::new("form.yaml"), Path::new("names.yaml"), Path::new("right.yaml"), Path::new("nowhere.yaml")];
    snapshot("errors-of-all-files", &folder.wrong(&all));
}

#[test]
fn one_file_named_twice_is_one_scenario() {
    let folder = Folder::new();
    let file = folder.file("base.yaml", BASE);
    let plans = load(&[file, folder.0.path().to_owned()]).expect("the base is valid");
    assert_eq!(plans.len(), 1);
}

#[test]
fn drawn_for_a_terminal() {
    let text = base_with(&[("pod: peer", "pod: pere")]);
    let wrong = planned("drawn", text).expect_err("there is no such pod");
    snapshot("drawn-for-a-terminal", &wrong.drawn(false));
    assert!(wrong.drawn(true).contains('\u{1b}'), "no colours on a terminal");
}
