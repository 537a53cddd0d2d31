//! The table of connection tracking: listed, counted, filled, emptied.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use relapse_kernel::conntrack::{self, Conntrack, Entry, status, tcp_state};
use relapse_kernel::nft::{Chain, CtState, Hook, Policy, Rule, Table};
use relapse_kernel::socket::{Icmp, udp};
use relapse_kernel::{NetNs, link, sysctl};

fn alone(name: &str) -> Option<NetNs> {
    let ns = common::namespaces().then(|| NetNs::create(name).expect("a namespace"))?;
    sysctl::apply(&ns, &sysctl::lab_settings(false)).expect("settings");
    link::set_up(&ns, link::LOOPBACK, true).expect("lo up");
    Some(ns)
}

fn tracked(name: &str) -> Option<NetNs> {
    let ns = alone(name)?;
    Table::new("relapse-test")
        .chain(Chain::filter("output", Hook::Output, 0, Policy::Accept))
        .rule("output", Rule::new().ct_state(&[CtState::Invalid]).drop())
        .apply(&ns)
        .expect("in force");
    Some(ns)
}

fn at(last: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, last), port).into()
}

/// Connections from 172.30.x.y, more of them than one address has ports.
fn ballast(number: u32) -> Entry {
    let [_, high, middle, low] = number.to_be_bytes();
    let source = SocketAddr::from((Ipv4Addr::new(172, 30, high, middle), 20_000 + u16::from(low)));
    Entry::established(source, SocketAddr::from(([172, 31, 0, 1], 443)), 300)
}

#[tokio::test]
async fn flows_are_listed_and_deleted() {
    let Some(ns) = tracked("flows") else { return };
    let table = Conntrack::open(&ns).expect("opened");
    assert_eq!(table.entries().expect("listed"), []);
    let (one, two) = (udp(&ns, at(1, 0)).expect("bound"), udp(&ns, at(2, 53)).expect("bound"));
    let from = one.local_addr().expect("bound");
    one.send_to(b"?", at(2, 53)).expect("sent");
    let entry = table.entries().expect("listed").pop().expect("an entry");
    assert_eq!((entry.protocol, entry.original, entry.reply), (17, (from, at(2, 53)), (at(2, 53), from)));
    assert!(entry.has(status::CONFIRMED) && !entry.has(status::SEEN_REPLY | status::ASSURED), "{entry:?}");
    assert!((25..=30).contains(&entry.timeout), "{entry:?}");
    assert_eq!(entry.tcp_state, None);
    two.send_to(b"!", from).expect("sent");
    assert!(table.entries().expect("listed")[0].has(status::SEEN_REPLY));

    let icmp = Icmp::open(&ns, None).expect("a socket");
    icmp.echo(at(3, 0).ip(), std::time::Duration::from_secs(1)).await.expect("sent").expect("answered");
    let echo = table.entries().expect("listed").into_iter().find(|entry| entry.protocol == 1).expect("an entry");
    let (request, id) = (echo.original.1, echo.original.0.port());
    assert_eq!((request, echo.reply.0), (at(3, 8 << 8), at(3, id)), "type 8 and its identifier");
    assert_eq!(echo.reply.1.port(), 0, "answered by type 0");

    let stale = Entry { id: entry.id ^ 1, ..entry.clone() };
    assert!(!table.delete(&stale).expect("asked"), "a later entry of the same addresses stays");
    assert!(table.delete(&entry).expect("asked"));
    assert!(!table.delete(&entry).expect("asked"), "gone already");
    assert_eq!(table.delete_where(|entry| entry.protocol == 1).expect("asked"), 1);
    assert_eq!(table.table().expect("asked").0, 0);
}

#[test]
fn ballast_is_counted_filtered_and_flushed() {
    let Some(ns) = tracked("ballast") else { return };
    let table = Conntrack::open(&ns).expect("opened");
    let before = table.stats().expect("read");
    assert_eq!(table.insert(&mut (0..1000).map(ballast)).expect("inserted"), 1000);
    assert_eq!(table.insert(&mut (500..1500).map(ballast)).expect("inserted"), 500, "the others are there");
    let (count, limit) = table.table().expect("asked");
    assert_eq!(count, 1500);
    let told = sysctl::read(&ns, "net.netfilter.nf_conntrack_max").expect("read");
    assert_eq!(told.trim(), limit.to_string());
    assert_eq!(conntrack::count(&ns).expect("asked"), 1500);
    let after = table.stats().expect("read");
    println!("{before:?} -> {after:?}");
    let entries = table.entries().expect("listed");
    assert_eq!(entries.len(), 1500);
    let one = entries.iter().find(|entry| entry.original == ballast(7).original).expect("there");
    assert_eq!(one.tcp_state, Some(tcp_state::ESTABLISHED));
    assert_eq!(one.status & 0xf, status::SEEN_REPLY | status::ASSURED | status::CONFIRMED);
    assert!((290..=300).contains(&one.timeout), "{one:?}");
    let low = |entry: &Entry| entry.original.0.port() < 20_128;
    assert_eq!(table.delete_where(low).expect("deleted"), entries.iter().filter(|entry| low(entry)).count());
    assert!(!table.entries().expect("listed").iter().any(low));
    table.flush().expect("flushed");
    assert_eq!(table.table().expect("asked").0, 0);
}

#[test]
fn another_namespace_has_a_table_of_its_own() {
    let (Some(a), Some(b)) = (tracked("a"), tracked("b")) else { return };
    conntrack::insert(&a, &mut (0..10).map(ballast)).expect("inserted");
    assert_eq!((conntrack::count(&a).expect("asked"), conntrack::count(&b).expect("asked")), (10, 0));
    conntrack::flush(&b).expect("flushed");
    assert_eq!(conntrack::entries(&a).expect("listed").len(), 10);
}

/// Prints how fast a table is filled, asked and emptied.
#[test]
fn a_table_is_filled_quickly() {
    let Some(ns) = tracked("speed") else { return };
    let table = Conntrack::open(&ns).expect("opened");
    let (_, limit) = table.table().expect("asked");
    let wanted = u32::try_from(limit).unwrap_or(u32::MAX).min(100_000) / 2 * 2;
    let timed = |what: &str, job: &mut dyn FnMut() -> usize| {
        let start = Instant::now();
        let number = job();
        println!("{what}: {number} in {:?}", start.elapsed());
        number
    };
    let all = wanted as usize;
    assert_eq!(timed("insert", &mut || table.insert(&mut (0..wanted).map(ballast)).expect("inserted")), all);
    assert_eq!(timed("list", &mut || table.entries().expect("listed").len()), all);
    timed("count", &mut || (0..1000).filter(|_| table.table().is_ok_and(|(count, _)| count == all as u64)).count());
    timed("statistics", &mut || (0..1000).filter(|_| table.stats().is_ok()).count());
    let half = |entry: &Entry| entry.original.0.port().is_multiple_of(2);
    assert_eq!(timed("delete half", &mut || table.delete_where(half).expect("deleted")), all / 2);
    timed("flush", &mut || table.flush().map(|()| all / 2).expect("flushed"));
    assert_eq!(table.table().expect("asked").0, 0);
}

/// Without a rule that uses it, connection tracking is idle; what is put in is kept all the same.
#[test]
fn a_namespace_without_rules_tracks_nothing_but_takes_entries() {
    let Some(ns) = alone("idle") else { return };
    let socket = udp(&ns, at(1, 0)).expect("bound");
    socket.send_to(b"?", at(1, 9)).expect("sent");
    assert_eq!(conntrack::count(&ns).expect("asked"), 0);
    assert_eq!(conntrack::insert(&ns, &mut (0..3).map(ballast)).expect("inserted"), 3);
    assert_eq!(conntrack::entries(&ns).expect("listed").len(), 3);
}
