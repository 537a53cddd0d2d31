//! Links and addresses in real namespaces.

use std::net::IpAddr;
use std::time::Duration;

use relapse_kernel::NetNs;
use relapse_kernel::link::{self, LOOPBACK, addresses, delete_address, find};
use relapse_kernel::route::{MAIN, Route, RouteEvent, RouteEvents, Rule, routes};

use crate::common::{add_address, add_route, add_rule, add_veth, hosts, join, namespace, namespaces};
use crate::needs::tests;

tests! {
    namespaces => [
        a_pair_is_as_it_was_asked_for_and_runs_at_once,
        equal_indexes_are_refused_and_a_failed_pair_leaves_nothing,
        links_change_move_and_go,
        addresses_come_without_a_route,
        changes_of_links_are_announced,
        routes_that_go_with_their_link_are_not_announced,
    ],
}

fn a_pair_is_as_it_was_asked_for_and_runs_at_once() {
    let (a, b) = (namespace("a", false), namespace("b", false));
    let (left, right) = join(&a, &b, 1, 1400);
    for (ns, side, other) in [(&a, &left, &right), (&b, &right, &left)] {
        let found = find(ns, "net1").expect("queried").expect("exists");
        assert_eq!(found.index, side.index);
        assert_eq!(found.peer, Some(other.index));
        assert_eq!(found.mtu, 1400);
        assert!(found.up && found.carrier && found.running, "{found:?}");
        assert_eq!(link::get(ns, side.index).expect("queried"), Some(found));
    }
    assert_eq!(find(&a, "net1").expect("queried").and_then(|l| l.mac), Some([2, 0, 0, 0, 1, 1]));
    assert_eq!(find(&a, "nothing").expect("queried"), None);
    assert_eq!(link::get(&a, 999).expect("queried"), None);
    let names: Vec<String> = link::list(&a).expect("listed").into_iter().map(|l| l.name).collect();
    assert_eq!(names, ["lo", "net1"]);
    let linklocal = addresses(&a).expect("listed").into_iter().filter(|x| x.index == left.index && x.address.is_ipv6());
    assert_eq!(linklocal.count(), 0, "no link-local address, hence no neighbour discovery");
}

fn equal_indexes_are_refused_and_a_failed_pair_leaves_nothing() {
    let (a, b) = (NetNs::create("a").expect("made"), NetNs::create("b").expect("made"));
    let pair =
        |name, near, far| add_veth((&a, name, near, [2, 0, 0, 0, 0, 1]), (&b, name, far, [2, 0, 0, 0, 0, 2]), 1500);
    assert!(pair("eth0", 7, 7).is_err());
    pair("eth0", 7, 8).expect("a pair");
    // The index of the far end is in use: the near end must not be left behind.
    assert!(pair("eth1", 9, 8).is_err());
    assert_eq!(find(&a, "eth1").expect("queried"), None);
}

fn links_change_move_and_go() {
    let (a, b, left, right) = hosts();
    let c = namespace("c", false);
    link::set_mtu(&a, left.index, 1280).expect("set");
    assert_eq!(link::get(&a, left.index).expect("queried").expect("exists").mtu, 1280);
    assert_eq!(
        link::get(&b, right.index).expect("queried").expect("exists").mtu,
        1500,
        "the MTU of the other end is unchanged"
    );

    link::set_up(&a, left.index, false).expect("set down");
    let down = link::get(&b, right.index).expect("queried").expect("exists");
    assert!(down.up && !down.carrier, "{down:?}");

    let moved = link::move_to(&a, left.index, &c, Some("eth9")).expect("moved");
    assert_eq!((moved.name.as_str(), moved.index), ("eth9", left.index));
    assert_eq!(link::get(&a, left.index).expect("queried"), None);
    link::delete(&c, moved.index).expect("deleted");
    assert_eq!(link::get(&b, right.index).expect("queried"), None, "both ends are deleted");
    let gone = link::delete(&c, moved.index).expect_err("already deleted");
    assert_eq!(gone.errno(), Some(libc::ENODEV));
}

fn addresses_come_without_a_route() {
    let (a, b, left, right) = hosts();
    let main = || routes(&a, Some(MAIN)).expect("listed");
    let before = main();
    let four: IpAddr = "192.0.2.1".parse().expect("an address");
    add_address(&a, left.index, four, 24).expect("added");
    let six: IpAddr = "2001:db8::1".parse().expect("an address");
    add_address(&a, left.index, six, 64).expect("added");
    assert_eq!(main(), before, "no route is added");
    let present = addresses(&a).expect("listed");
    assert!(present.iter().any(|x| x.address == four && x.prefix_len == 24 && x.index == left.index));
    assert!(present.iter().any(|x| x.address == six), "{present:?}");
    link::set_up(&b, right.index, false).expect("set down");
    let late: IpAddr = "2001:db8::2".parse().expect("an address");
    add_address(&b, right.index, late, 64).expect("added while down");
    delete_address(&a, left.index, four, 24).expect("deleted");
    delete_address(&a, left.index, six, 64).expect("deleted");
    assert!(!addresses(&a).expect("listed").iter().any(|x| x.address == four || x.address == six));
    let lo: Vec<_> = addresses(&a).expect("listed").into_iter().filter(|x| x.index == LOOPBACK).collect();
    assert!(lo.iter().any(|x| x.address.is_loopback()));
}

#[tokio::main(flavor = "current_thread")]
async fn changes_of_links_are_announced() {
    let (a, b) = (namespace("a", false), namespace("b", false));
    let mut events = RouteEvents::open(&a).expect("subscribed");
    let (left, _right) = join(&a, &b, 1, 1500);
    wait_for(&mut events, |n| matches!(n, RouteEvent::NewLink(l) if l.name == "net1" && l.running)).await;
    link::set_up(&a, left.index, false).expect("set down");
    wait_for(&mut events, |n| matches!(n, RouteEvent::NewLink(l) if l.name == "net1" && !l.up)).await;
    link::delete(&a, left.index).expect("deleted");
    wait_for(&mut events, |n| matches!(n, RouteEvent::DelLink(l) if l.index == left.index)).await;
}

#[tokio::main(flavor = "current_thread")]
async fn routes_that_go_with_their_link_are_not_announced() {
    let (a, _b, left, right) = hosts();
    add_route(&a, &Route::default_via(right.address).dev(left.index)).expect("added");
    let mut events = RouteEvents::open(&a).expect("subscribed");
    link::set_up(&a, left.index, false).expect("set down");
    assert_eq!(routes(&a, Some(MAIN)).expect("listed"), []);
    add_rule(&a, &Rule::ipv4(9)).expect("added");
    let seen = wait_for(&mut events, |n| matches!(n, RouteEvent::NewRule(_))).await;
    let route_deleted = |n: &&RouteEvent| matches!(n, RouteEvent::DelRoute(r) if r.destination.0.is_ipv4());
    assert_eq!(seen.iter().find(route_deleted), None);
}

async fn wait_for(events: &mut RouteEvents, wanted: impl Fn(&RouteEvent) -> bool) -> Vec<RouteEvent> {
    let mut seen = Vec::new();
    let found = tokio::time::timeout(Duration::from_millis(500), async {
        loop {
            seen.extend(events.next().await.expect("no events lost"));
            if seen.iter().any(&wanted) {
                return;
            }
        }
    });
    let found = found.await.is_ok();
    assert!(found, "no such event; seen: {seen:#?}");
    seen
}
