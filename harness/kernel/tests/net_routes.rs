//! Routes, rules, neighbours and look-ups in real namespaces.

mod common;
#[path = "common/pair.rs"]
mod pair;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use relapse_kernel::builder::Builder;
use relapse_kernel::route::{
    self, Action, Events, Kind, MAIN, News, Route, Rule, delete_route, delete_rule, lookup, replace_route,
    restore_routes, routes, rules, save_routes, save_rules,
};
use relapse_kernel::{link, socket};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_route_is_read_back_as_it_was_added() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let (left, right) = pair::join(&a, &b, 1, 1500);
    let addressed = pair::build(async || {
        let builder = Builder::open(&a)?;
        builder.add_address(left.index, ip("fd00::1"), 64).await?;
        builder.add_route(&Route::to(ip("fd00::"), 64).dev(left.index)).await
    });
    addressed.expect("an address");
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
        Route::to(ip("10.6.0.0"), 16).kind(Kind::Blackhole),
        Route::to(ip("10.5.0.0"), 16).kind(Kind::Unreachable).table(2),
        Route::to(ip("fd01::"), 64).via(ip("fd00::2")).dev(left.index).metric(7),
        Route::to(ip("10.4.0.0"), 16).via(ip("fd00::2")).dev(left.index),
    ];
    for route in &made {
        pair::build(async || Builder::open(&a)?.add_route(route).await).unwrap_or_else(|e| panic!("{e}"));
        assert!(routes(&a, Some(route.table)).expect("listed").contains(route), "{route:?}");
        let twice = pair::build(async || Builder::open(&a)?.add_route(route).await).expect_err("it is there");
        assert_eq!(twice.errno(), Some(libc::EEXIST));
    }
    for route in &made {
        delete_route(&a, route).unwrap_or_else(|e| panic!("{e}"));
        assert!(!routes(&a, None).expect("listed").contains(route), "{route:?}");
    }
    assert_eq!(delete_route(&a, &made[0]).expect_err("gone").errno(), Some(libc::ESRCH));
}

#[test]
fn replacing_leaves_one() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let (left, right) = pair::join(&a, &b, 1, 1500);
    let old = Route::to(ip("10.9.0.0"), 16).via(right.address).dev(left.index);
    let new = old.clone().mtu(1400);
    pair::build(async || Builder::open(&a)?.add_route(&old).await).expect("added");
    replace_route(&a, &new).expect("replaced");
    let there: Vec<Route> =
        routes(&a, Some(MAIN)).expect("listed").into_iter().filter(|r| r.destination.0 == ip("10.9.0.0")).collect();
    assert_eq!(there, [new]);
}

#[test]
fn rules_choose_tables() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", true), pair::namespace("b", false));
    let (left, right) = pair::join(&a, &b, 1, 1500);
    let (other, _far) = pair::join(&a, &b, 2, 1500);
    pair::build(async || Builder::open(&a)?.add_route(&Route::default_via(right.address).dev(left.index)).await)
        .expect("added");
    pair::build(async || {
        Builder::open(&a)?.add_route(&Route::default_via(ip("10.0.2.2")).dev(other.index).table(2)).await
    })
    .expect("added");
    let made = [
        Rule::ipv4(1536).from(ip("10.244.1.0"), 24).table(2),
        Rule::ipv4(512).to(ip("10.244.1.7"), 32),
        Rule::ipv4(1024).mark(0x80, 0x80).table(1000),
        Rule::ipv4(600).iif("net1").table(3),
        Rule { action: Action::Unreachable, ..Rule::ipv4(700).from(ip("10.66.0.0"), 16) },
        Rule::ipv6(1536).from(ip("fd00:1::"), 32).table(2),
    ];
    for rule in &made {
        pair::build(async || Builder::open(&a)?.add_rule(rule).await).unwrap_or_else(|e| panic!("{e}"));
        assert!(rules(&a).expect("listed").contains(rule), "{rule:?}\n{:#?}", rules(&a));
        assert_eq!(
            pair::build(async || Builder::open(&a)?.add_rule(rule).await).expect_err("it is there").errno(),
            Some(libc::EEXIST)
        );
    }
    let way = lookup(&a, ip("203.0.113.1"), Some(ip("10.244.1.7")), Some(left.index)).expect("asked");
    assert_eq!((way.oif, way.table, way.gateway), (Some(other.index), Some(2), Some(ip("10.0.2.2"))));
    let way = lookup(&a, ip("203.0.113.1"), None, None).expect("asked");
    assert_eq!((way.oif, way.table, way.error), (Some(left.index), Some(MAIN), None));
    for rule in &made {
        delete_rule(&a, rule).unwrap_or_else(|e| panic!("{e}"));
        assert!(!rules(&a).expect("listed").contains(rule));
    }
    assert_eq!(delete_rule(&a, &made[0]).expect_err("gone").errno(), Some(libc::ENOENT));
}

#[test]
fn no_way_is_an_answer() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", true), pair::namespace("b", false));
    let (left, _right) = pair::join(&a, &b, 1, 1500);
    let error = |to: &str, iif: Option<u32>| {
        let source = iif.map(|_| ip("10.0.1.2"));
        lookup(&a, ip(to), source, iif).expect("asked").error
    };
    assert_eq!(error("203.0.113.1", None), Some(libc::ENETUNREACH));
    assert_eq!(error("203.0.113.1", Some(left.index)), Some(libc::ENETUNREACH));
    assert_eq!(error("2001:db8::1", None), Some(libc::ENETUNREACH));
    for (kind, own) in [(Kind::Unreachable, libc::EHOSTUNREACH), (Kind::Prohibit, libc::EACCES)] {
        replace_route(&a, &Route::to(ip("203.0.113.0"), 24).kind(kind)).expect("added");
        assert_eq!(error("203.0.113.1", None), Some(own), "{kind:?}");
        assert!(error("203.0.113.1", Some(left.index)).is_some(), "{kind:?}");
    }
    replace_route(&a, &Route::to(ip("203.0.113.0"), 24).kind(Kind::Blackhole)).expect("added");
    assert_eq!(error("203.0.113.1", Some(left.index)), Some(libc::EINVAL));
    // Own packets leave from own addresses only.
    assert!(lookup(&a, ip("10.0.1.2"), Some(ip("198.51.100.1")), None).expect("asked").error.is_some());
}

#[test]
fn what_was_saved_is_put_back_exactly() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let (left, right) = pair::join(&a, &b, 1, 1500);
    // Attributes that no `Route` knows: made by the kernel, by others, with more metrics.
    let uid = rustix::process::geteuid().as_raw();
    for arguments in [
        "route add 10.20.0.0/16 via 10.0.1.2 dev net1 table 2 proto bird metric 30 mtu lock 1300 advmss 1200 initcwnd 4",
        "route add 10.21.0.0/16 table 2 nexthop via 10.0.1.2 dev net1 weight 3 nexthop via 10.0.1.3 dev net1 weight 5",
        "route add 10.22.0.0/16 dev net1 table 2 scope link tos 0x10",
        "rule add priority 77 from 10.244.0.0/16 ipproto tcp dport 443-444 uidrange {uid} lookup 2 suppress_prefixlength 8",
        "rule add priority 78 not from 10.245.0.0/16 iif absent0 lookup 2",
    ] {
        iproute2(&a, &arguments.replace("{uid}", &format!("{uid}-{uid}")));
    }
    pair::build(async || {
        Builder::open(&a)?.add_route(&Route::to(ip("10.23.0.0"), 16).via(right.address).dev(left.index).table(2)).await
    })
    .expect("added");
    let (saved, saved_rules) = (save_routes(&a, None).expect("saved"), save_rules(&a).expect("saved"));
    let shown = || (iproute2(&a, "-details route show table all"), iproute2(&a, "-details rule show"));
    let before = shown();

    // Already there is success.
    for route in &saved {
        route.restore(&a).unwrap_or_else(|e| panic!("{e}"));
    }
    for route in saved.iter().filter(|s| s.route().table == 2) {
        route.delete(&a).unwrap_or_else(|e| panic!("{e}"));
        assert!(!route.is_in_force(&a).expect("asked"));
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
        rule.restore(&a).expect("it is there already");
    }
    assert_eq!(shown(), before);
    assert_eq!(save_routes(&a, None).expect("saved").len(), saved.len());

    // Another route in its place is not success.
    let mine = saved.iter().find(|s| s.route().destination.0 == ip("10.23.0.0")).expect("saved");
    mine.delete(&a).expect("deleted");
    pair::build(async || Builder::open(&a)?.add_route(&mine.route().mtu(1400)).await).expect("added");
    assert_eq!(mine.restore(&a).expect_err("another is there").errno(), Some(libc::EEXIST));
}

#[test]
fn a_link_that_went_down_gets_its_routes_back() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let (left, right) = pair::join(&a, &b, 1, 1500);
    pair::build(async || Builder::open(&a)?.add_route(&Route::default_via(right.address).dev(left.index)).await)
        .expect("added");
    let saved = save_routes(&a, None).expect("saved");
    link::set_up(&a, left.index, false).expect("down");
    assert!(routes(&a, Some(MAIN)).expect("listed").is_empty());
    link::set_up(&a, left.index, true).expect("up");
    let four: Vec<_> = saved.into_iter().filter(|s| s.route().destination.0.is_ipv4()).collect();
    restore_routes(&a, &four).expect("restored");
    for route in &four {
        assert!(route.is_in_force(&a).expect("asked"), "{:?}", route.route());
    }
}

#[tokio::test]
async fn changes_of_routes_and_rules_are_announced() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let (left, right) = pair::join(&a, &b, 1, 1500);
    let mut events = Events::open(&a).expect("subscribed");
    let (route, rule) = (Route::default_via(right.address).dev(left.index).table(2), Rule::ipv4(9).table(2));
    pair::build(async || Builder::open(&a)?.add_route(&route).await).expect("added");
    pair::build(async || Builder::open(&a)?.add_rule(&rule).await).expect("added");
    delete_rule(&a, &rule).expect("deleted");
    delete_route(&a, &route).expect("deleted");
    let wanted =
        [News::NewRoute(route.clone()), News::NewRule(rule.clone()), News::DelRule(rule), News::DelRoute(route)];
    let mut seen = Vec::new();
    while seen.len() < wanted.len() {
        let news = tokio::time::timeout(Duration::from_millis(500), events.next()).await;
        let news = news.unwrap_or_else(|_| panic!("seen only {seen:#?}")).expect("nothing is lost");
        seen.extend(news.into_iter().filter(|n| !matches!(n, News::NewLink(_))));
    }
    assert_eq!(seen, wanted);
}

#[test]
fn learned_path_mtus_are_forgotten() {
    if !common::namespaces() {
        return;
    }
    let (a, router, b) = (pair::namespace("a", false), pair::namespace("router", true), pair::namespace("b", false));
    let (left, near) = pair::join(&a, &router, 1, 1500);
    let (far, right) = pair::join(&router, &b, 2, 1000);
    pair::build(async || Builder::open(&a)?.add_route(&Route::default_via(near.address).dev(left.index)).await)
        .expect("added");
    pair::build(async || Builder::open(&b)?.add_route(&Route::default_via(far.address).dev(right.index)).await)
        .expect("added");
    let client = socket::udp(&a, SocketAddr::new(left.address, 0)).expect("a socket");
    let target = SocketAddr::new(right.address, 9);
    // The refusal comes back within the call: veth delivers on the sender's own time, or nearly so.
    let learn = || {
        let deadline = std::time::Instant::now() + Duration::from_secs(2);
        while route::learned_path_mtus(&a).expect("asked").is_empty() {
            assert!(std::time::Instant::now() < deadline, "no path mtu learned");
            let _ = client.send_to(&[0; 1400], target);
            std::thread::yield_now();
        }
    };
    let mtu = || lookup(&a, right.address, None, None).expect("asked").mtu;
    assert_eq!(mtu(), None);
    learn();
    assert_eq!(route::learned_path_mtus(&a).expect("asked"), [(right.address, 1000)]);
    assert_eq!(mtu(), Some(1000));
    // Other changes do not do it.
    let rule = Rule::ipv4(9).table(2);
    pair::build(async || Builder::open(&a)?.add_rule(&rule).await).expect("added");
    delete_rule(&a, &rule).expect("deleted");
    assert_eq!(mtu(), Some(1000));
    route::flush_path_mtu(&a).expect("flushed");
    assert_eq!(mtu(), None);
    assert_eq!(route::learned_path_mtus(&a).expect("asked"), []);
    learn();
}

#[test]
fn neighbours_are_permanent() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let (left, right) = pair::join(&a, &b, 1, 1500);
    let there = route::neighbours(&a).expect("listed");
    assert_eq!(
        there,
        [route::Neighbour {
            index: left.index,
            address: right.address,
            mac: Some([2, 0, 0, 0, 1, 2]),
            permanent: true
        }]
    );
    route::delete_neighbour(&a, left.index, right.address).expect("deleted");
    assert!(!route::neighbours(&a).expect("listed").iter().any(|n| n.permanent));
}

/// A second opinion: what `ip` says, and what `ip` can make that this crate cannot.
fn iproute2(ns: &relapse_kernel::NetNs, arguments: &str) -> String {
    let words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let output = ns
        .run(move || std::process::Command::new("ip").args(words).output())
        .expect("entered")
        .expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
