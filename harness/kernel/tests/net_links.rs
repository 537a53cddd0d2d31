//! Links and addresses in real namespaces.

mod common;
#[path = "common/pair.rs"]
mod pair;

use std::net::IpAddr;
use std::time::Duration;

use relapse_kernel::NetNs;
use relapse_kernel::builder::{Builder, VethEnd};
use relapse_kernel::link::{self, LOOPBACK, addresses, delete_address, find};
use relapse_kernel::route::{Events, MAIN, News, Route, Rule, routes};

#[test]
fn a_pair_is_as_it_was_asked_for_and_runs_at_once() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let (left, right) = pair::join(&a, &b, 1, 1400);
    for (ns, side, other) in [(&a, &left, &right), (&b, &right, &left)] {
        let found = find(ns, "net1").expect("asked").expect("there");
        assert_eq!(found.index, side.index);
        assert_eq!(found.peer, Some(other.index));
        assert_eq!(found.mtu, 1400);
        assert!(found.up && found.carrier && found.running, "{found:?}");
        assert_eq!(link::get(ns, side.index).expect("asked"), Some(found));
    }
    assert_eq!(find(&a, "net1").expect("asked").and_then(|l| l.mac), Some([2, 0, 0, 0, 1, 1]));
    assert_eq!(find(&a, "nothing").expect("asked"), None);
    assert_eq!(link::get(&a, 999).expect("asked"), None);
    let names: Vec<String> = link::list(&a).expect("listed").into_iter().map(|l| l.name).collect();
    assert_eq!(names, ["lo", "net1"]);
}

#[tokio::test]
async fn equal_indexes_are_refused_and_a_failed_pair_leaves_nothing() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (NetNs::create("a").expect("made"), NetNs::create("b").expect("made"));
    let end = |ns, name: &str, index, mac| {
        let at = Builder::open(ns).expect("opened");
        VethEnd { at, name: name.into(), index, mac: [2, 0, 0, 0, 0, mac], mtu: 1500 }
    };
    let near = end(&a, "eth0", 7, 1);
    assert!(near.make(&end(&b, "eth0", 7, 2)).await.is_err());
    near.make(&end(&b, "eth0", 8, 2)).await.expect("a pair");
    // The index of the far end is taken: the near one must not stay.
    assert!(end(&a, "eth1", 9, 1).make(&end(&b, "eth1", 8, 2)).await.is_err());
    assert_eq!(find(&a, "eth1").expect("asked"), None);
}

#[test]
fn links_change_move_and_go() {
    if !common::namespaces() {
        return;
    }
    let (a, b, c) = (pair::namespace("a", false), pair::namespace("b", false), pair::namespace("c", false));
    let (left, right) = pair::join(&a, &b, 1, 1500);
    link::set_mtu(&a, left.index, 1280).expect("set");
    link::rename(&a, left.index, "eth0.1").expect("renamed while up");
    let changed = link::get(&a, left.index).expect("asked").expect("there");
    assert_eq!((changed.name.as_str(), changed.mtu), ("eth0.1", 1280));
    assert_eq!(link::get(&b, right.index).expect("asked").expect("there").mtu, 1500, "the other end keeps its own");

    link::set_up(&a, left.index, false).expect("set down");
    let down = link::get(&b, right.index).expect("asked").expect("there");
    assert!(down.up && !down.carrier, "{down:?}");

    let moved = link::move_to(&a, left.index, &c, Some("eth9")).expect("moved");
    assert_eq!((moved.name.as_str(), moved.index), ("eth9", left.index));
    assert_eq!(link::get(&a, left.index).expect("asked"), None);
    link::delete(&c, moved.index).expect("deleted");
    assert_eq!(link::get(&b, right.index).expect("asked"), None, "both ends go");
    let gone = link::delete(&c, moved.index).expect_err("it is gone");
    assert_eq!(gone.errno(), Some(libc::ENODEV));
}

#[tokio::test]
async fn addresses_come_without_a_route() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let (left, right) = pair::join(&a, &b, 1, 1500);
    let main = || routes(&a, Some(MAIN)).expect("listed");
    let before = main();
    let four: IpAddr = "192.0.2.1".parse().expect("an address");
    let builder = Builder::open(&a).expect("opened");
    builder.add_address(left.index, four, 24).await.expect("added");
    let six: IpAddr = "2001:db8::1".parse().expect("an address");
    builder.add_address(left.index, six, 64).await.expect("added");
    assert_eq!(main(), before, "no route by itself");
    let there = addresses(&a).expect("listed");
    assert!(there.iter().any(|x| x.address == four && x.prefix_len == 24 && x.index == left.index));
    assert!(there.iter().any(|x| x.address == six && !x.tentative), "no duplicate address detection: {there:?}");
    link::set_up(&b, right.index, false).expect("set down");
    let late: IpAddr = "2001:db8::2".parse().expect("an address");
    let down = Builder::open(&b).expect("opened");
    down.add_address(right.index, late, 64).await.expect("added while down");
    delete_address(&a, left.index, four, 24).expect("deleted");
    delete_address(&a, left.index, six, 64).expect("deleted");
    assert!(!addresses(&a).expect("listed").iter().any(|x| x.address == four || x.address == six));
    let lo: Vec<_> = addresses(&a).expect("listed").into_iter().filter(|x| x.index == LOOPBACK).collect();
    assert!(lo.iter().any(|x| x.address.is_loopback()));
}

#[test]
fn a_lab_link_says_nothing_by_itself() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let (left, _right) = pair::join(&a, &b, 1, 1500);
    let linklocal = addresses(&a).expect("listed").into_iter().filter(|x| x.index == left.index && x.address.is_ipv6());
    assert_eq!(linklocal.count(), 0, "no link-local address, hence no neighbour discovery");
}

#[tokio::test]
async fn changes_of_links_are_announced() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let mut events = Events::open(&a).expect("subscribed");
    let (left, _right) = pair::join(&a, &b, 1, 1500);
    let address = left.address;
    wait_for(&mut events, |n| matches!(n, News::NewLink(l) if l.name == "net1" && l.running)).await;
    wait_for(&mut events, |n| matches!(n, News::NewAddress(x) if x.address == address)).await;
    link::set_up(&a, left.index, false).expect("set down");
    wait_for(&mut events, |n| matches!(n, News::NewLink(l) if l.name == "net1" && !l.up)).await;
    link::delete(&a, left.index).expect("deleted");
    wait_for(&mut events, |n| matches!(n, News::DelLink(l) if l.index == left.index)).await;
}

#[tokio::test]
async fn routes_that_go_with_their_link_are_not_announced() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let (left, right) = pair::join(&a, &b, 1, 1500);
    pair::build(async || Builder::open(&a)?.add_route(&Route::default_via(right.address).dev(left.index)).await)
        .expect("added");
    let mut events = Events::open(&a).expect("subscribed");
    link::set_up(&a, left.index, false).expect("set down");
    assert_eq!(routes(&a, Some(MAIN)).expect("listed"), []);
    pair::build(async || Builder::open(&a)?.add_rule(&Rule::ipv4(9)).await).expect("added");
    let seen = wait_for(&mut events, |n| matches!(n, News::NewRule(_))).await;
    let told = |n: &&News| matches!(n, News::DelRoute(r) if r.destination.0.is_ipv4());
    assert_eq!(seen.iter().find(told), None);
}

async fn wait_for(events: &mut Events, wanted: impl Fn(&News) -> bool) -> Vec<News> {
    let mut seen = Vec::new();
    let found = tokio::time::timeout(Duration::from_millis(500), async {
        loop {
            seen.extend(events.next().await.expect("nothing is lost"));
            if seen.iter().any(&wanted) {
                return;
            }
        }
    });
    let found = found.await.is_ok();
    assert!(found, "not announced; seen: {seen:#?}");
    seen
}
