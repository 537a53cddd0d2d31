//! Routes, rules, neighbours and lookups in real namespaces.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use netlink_packet_route::rule::RuleAction;
use relapse_kernel::route::{
    self, Action, Kind, Lookup, MAIN, Route, RouteEvent, RouteEvents, Rule, delete_route, delete_rule, lookup,
    restore_routes, routes, rules, save_routes, save_rules,
};
use relapse_kernel::{NetNs, link, socket};

use crate::common::{add_address, add_route, add_rule, hosts, join, namespace, namespaces};
use crate::needs::tests;

tests! {
    namespaces => [
        a_route_is_read_back_as_it_was_added,
        rules_choose_tables,
        no_way_is_an_answer,
        what_was_saved_is_put_back_exactly,
        changes_of_routes_and_rules_are_announced,
        learned_path_mtus_are_forgotten,
        neighbours_are_permanent,
    ],
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn a_route_is_read_back_as_it_was_added() {
    let (a, _b, left, right) = hosts();
    add_address(&a, left.index, ip("fd00::1"), 64).expect("an address");
    add_route(&a, &Route::to(ip("fd00::"), 64).dev(left.index)).expect("added");
    let made = [
        Route::default_via(right.address).dev(left.index),
        Route {
            metric: 50,
            mtu: Some(1300),
            source: Some(left.address),
            ..Route::to(ip("10.9.0.0"), 16).via(right.address).dev(left.index)
        },
        Route::to(ip("10.8.0.0"), 16).via(ip("192.0.2.9")).dev(left.index).table(1000).onlink(),
        Route::to(ip("10.7.0.1"), 32).dev(left.index).table(2),
        Route { kind: Kind::BlackHole, ..Route::to(ip("10.6.0.0"), 16) },
        Route { kind: Kind::Unreachable, ..Route::to(ip("10.5.0.0"), 16).table(2) },
        Route::to(ip("fd01::"), 64).via(ip("fd00::2")).dev(left.index).metric(7),
    ];
    for route in &made {
        add_route(&a, route).unwrap_or_else(|e| panic!("{e}"));
        assert!(routes(&a, Some(route.table)).expect("listed").contains(route), "{route:?}");
        let twice = add_route(&a, route).expect_err("exists already");
        assert_eq!(twice.errno(), Some(libc::EEXIST));
    }
    for route in &made {
        delete_route(&a, route).unwrap_or_else(|e| panic!("{e}"));
        assert!(!routes(&a, None).expect("listed").contains(route), "{route:?}");
    }
    assert_eq!(delete_route(&a, &made[0]).expect_err("gone").errno(), Some(libc::ESRCH));
}

fn rules_choose_tables() {
    let (a, b) = (namespace("a", true), namespace("b", false));
    let (left, right) = join(&a, &b, 1, 1500);
    let (other, _far) = join(&a, &b, 2, 1500);
    add_route(&a, &Route::default_via(right.address).dev(left.index)).expect("added");
    add_route(&a, &Route::default_via(ip("10.0.2.2")).dev(other.index).table(2)).expect("added");
    let made = [
        Rule::ipv4(1536).from(ip("10.244.1.0"), 24).table(2),
        Rule::ipv4(512).to(ip("10.244.1.7"), 32),
        Rule { mark: Some((0x80, 0x80)), ..Rule::ipv4(1024).table(1000) },
        Rule { iif: Some("net1".into()), ..Rule::ipv4(600).table(3) },
        Rule { action: Action::Other(RuleAction::Unreachable), ..Rule::ipv4(700).from(ip("10.66.0.0"), 16) },
        Rule::ipv6(1536).from(ip("fd00:1::"), 32).table(2),
    ];
    for rule in &made {
        add_rule(&a, rule).unwrap_or_else(|e| panic!("{e}"));
        assert!(rules(&a).expect("listed").contains(rule), "{rule:?}\n{:#?}", rules(&a));
        assert_eq!(add_rule(&a, rule).expect_err("exists already").errno(), Some(libc::EEXIST));
    }
    let found = lookup(&a, ip("203.0.113.1"), Some(ip("10.244.1.7")), Some(left.index)).expect("queried");
    assert_eq!((found.oif, found.table), (Some(other.index), Some(2)));
    let found = lookup(&a, ip("203.0.113.1"), None, None).expect("queried");
    assert_eq!((found.oif, found.table), (Some(left.index), Some(MAIN)));
    for rule in &made {
        delete_rule(&a, rule).unwrap_or_else(|e| panic!("{e}"));
        assert!(!rules(&a).expect("listed").contains(rule));
    }
    assert_eq!(delete_rule(&a, &made[0]).expect_err("gone").errno(), Some(libc::ENOENT));
}

fn no_way_is_an_answer() {
    let (a, b) = (namespace("a", true), namespace("b", false));
    let (left, _right) = join(&a, &b, 1, 1500);
    let none = |to: &str, iif: Option<u32>| {
        let found = lookup(&a, ip(to), iif.map(|_| ip("10.0.1.2")), iif).expect("queried");
        assert_eq!(found, Lookup::default(), "{to} from {iif:?}");
    };
    none("203.0.113.1", None);
    none("203.0.113.1", Some(left.index));
    none("2001:db8::1", None);
    for kind in [Kind::Unreachable, Kind::Prohibit, Kind::BlackHole] {
        let route = Route { kind, ..Route::to(ip("203.0.113.0"), 24) };
        add_route(&a, &route).expect("added");
        none("203.0.113.1", None);
        none("203.0.113.1", Some(left.index));
        delete_route(&a, &route).expect("deleted");
    }
    // Local packets must have a local source address.
    let found = lookup(&a, ip("10.0.1.2"), Some(ip("198.51.100.1")), None).expect("queried");
    assert_eq!(found, Lookup::default());
}

fn what_was_saved_is_put_back_exactly() {
    let (a, _b, left, right) = hosts();
    add_address(&a, left.index, ip("fd00::1"), 64).expect("an address");
    add_route(&a, &Route::to(ip("fd00::"), 64).dev(left.index)).expect("added");
    // Attributes that `Route` does not represent: set by the kernel or by others, or further metrics.
    let uid = rustix::process::geteuid().as_raw();
    for arguments in [
        "route add 10.20.0.0/16 via 10.0.1.2 dev net1 table 2 proto bird metric 30 mtu lock 1300 advmss 1200 initcwnd 4",
        "route add 10.21.0.0/16 table 2 nexthop via 10.0.1.2 dev net1 weight 3 nexthop via 10.0.1.3 dev net1 weight 5",
        "route add 10.22.0.0/16 dev net1 table 2 scope link tos 0x10",
        "route add 10.24.0.0/16 via inet6 fd00::2 dev net1 table 2",
        "rule add priority 77 from 10.244.0.0/16 ipproto tcp dport 443-444 uidrange {uid} lookup 2 suppress_prefixlength 8",
        "rule add priority 78 not from 10.245.0.0/16 iif absent0 lookup 2",
    ] {
        iproute2(&a, &arguments.replace("{uid}", &format!("{uid}-{uid}")));
    }
    add_route(&a, &Route::to(ip("10.23.0.0"), 16).via(right.address).dev(left.index).table(2)).expect("added");
    add_route(&a, &Route::default_via(right.address).dev(left.index)).expect("added");
    let (saved, saved_rules) = (save_routes(&a, None).expect("saved"), save_rules(&a).expect("saved"));
    let shown = || (iproute2(&a, "-details route show table all"), iproute2(&a, "-details rule show"));
    let before = shown();

    // A route that exists already is a success.
    for route in &saved {
        route.restore(&a).unwrap_or_else(|e| panic!("{e}"));
    }
    for route in saved.iter().filter(|s| s.route().table == 2) {
        route.delete(&a).unwrap_or_else(|e| panic!("{e}"));
        assert!(!route.is_in_force(&a).expect("queried"));
    }
    let own: Vec<_> = saved_rules.iter().filter(|s| matches!(s.rule().priority, 77 | 78)).collect();
    assert_eq!(own.len(), 2);
    for rule in &own {
        rule.delete(&a).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(rule.delete(&a).expect_err("gone").errno(), Some(libc::ENOENT));
    }
    assert_ne!(shown(), before);
    restore_routes(&a, &saved).expect("restored");
    for rule in &own {
        rule.restore(&a).expect("restored");
        rule.restore(&a).expect("exists already");
    }
    assert_eq!(shown(), before);
    assert_eq!(save_routes(&a, None).expect("saved").len(), saved.len());

    // A different route in its place is an error.
    let mine = saved.iter().find(|s| s.route().destination.0 == ip("10.23.0.0")).expect("saved");
    mine.delete(&a).expect("deleted");
    let other = Route { mtu: Some(1400), ..mine.route() };
    add_route(&a, &other).expect("added");
    assert_eq!(mine.restore(&a).expect_err("a different route exists").errno(), Some(libc::EEXIST));
    delete_route(&a, &other).expect("deleted");

    // Setting the link down removes every route, those to gateways too.
    let is_v4 = |route: &Route| route.destination.0.is_ipv4();
    link::set_up(&a, left.index, false).expect("down");
    assert!(!routes(&a, Some(MAIN)).expect("listed").iter().any(is_v4));
    link::set_up(&a, left.index, true).expect("up");
    let by_six = |route: &Route| route.gateway.is_some_and(|gateway| gateway.is_ipv6());
    let four: Vec<_> = saved.into_iter().filter(|s| is_v4(&s.route()) && !by_six(&s.route())).collect();
    restore_routes(&a, &four).expect("restored");
    for route in &four {
        assert!(route.is_in_force(&a).expect("queried"), "{:?}", route.route());
    }
}

#[tokio::main(flavor = "current_thread")]
async fn changes_of_routes_and_rules_are_announced() {
    let (a, _b, left, right) = hosts();
    let mut events = RouteEvents::open(&a).expect("subscribed");
    let (route, rule) = (Route::default_via(right.address).dev(left.index).table(2), Rule::ipv4(9).table(2));
    add_route(&a, &route).expect("added");
    add_rule(&a, &rule).expect("added");
    delete_rule(&a, &rule).expect("deleted");
    delete_route(&a, &route).expect("deleted");
    let wanted = [
        RouteEvent::NewRoute(route.clone()),
        RouteEvent::NewRule(rule.clone()),
        RouteEvent::DelRule(rule),
        RouteEvent::DelRoute(route),
    ];
    let mut seen = Vec::new();
    while seen.len() < wanted.len() {
        let received = tokio::time::timeout(Duration::from_millis(500), events.next()).await;
        let received = received.unwrap_or_else(|_| panic!("seen only {seen:#?}")).expect("no events lost");
        seen.extend(received.into_iter().filter(|n| !matches!(n, RouteEvent::NewLink(_))));
    }
    assert_eq!(seen, wanted);
}

fn learned_path_mtus_are_forgotten() {
    let (a, router, b) = (namespace("a", false), namespace("router", true), namespace("b", false));
    let (left, near) = join(&a, &router, 1, 1500);
    let (far, right) = join(&router, &b, 2, 1000);
    add_route(&a, &Route::default_via(near.address).dev(left.index)).expect("added");
    add_route(&b, &Route::default_via(far.address).dev(right.index)).expect("added");
    let client = socket::udp(&a, SocketAddr::new(left.address, 0)).expect("a socket");
    let target = SocketAddr::new(right.address, 9);
    let learned = || iproute2(&a, &format!("route get {}", right.address)).contains("mtu 1000");
    // The ICMP error usually arrives within the call: veth delivers in the sender's context.
    let learn = || {
        let deadline = Instant::now() + Duration::from_secs(2);
        while !learned() {
            assert!(Instant::now() < deadline, "no path mtu learned");
            let _ = client.send_to(&[0; 1400], target);
        }
    };
    assert!(!learned());
    learn();
    assert!(routes(&a, None).expect("listed").iter().all(|route| route.mtu.is_none()), "it is not a route");
    // Other changes do not flush it.
    let rule = Rule::ipv4(9).table(2);
    add_rule(&a, &rule).expect("added");
    delete_rule(&a, &rule).expect("deleted");
    assert!(learned());
    route::flush_path_mtu(&a).expect("flushed");
    assert!(!learned());
    learn();
}

fn neighbours_are_permanent() {
    let (a, _b, left, right) = hosts();
    let found = route::neighbours(&a).expect("listed");
    let mac = Some([2, 0, 0, 0, 1, 2]);
    assert_eq!(found, [route::Neighbour { index: left.index, address: right.address, mac, permanent: true }]);
}

/// Runs `ip`, for an independent listing and for routes and rules this crate cannot create.
fn iproute2(ns: &NetNs, arguments: &str) -> String {
    let output = ns
        .run(|| std::process::Command::new("ip").args(arguments.split_whitespace()).output())
        .expect("entered")
        .expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
