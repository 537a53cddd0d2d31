//! The connection tracking table: listing, counting, inserting and deleting entries.

use relapse_kernel::conntrack::{Conntrack, Entry, status};
use relapse_kernel::nft::{Chain, CtState, Hook, Policy, Rule, Table};
use relapse_kernel::socket::{Icmp, udp};
use relapse_kernel::sysctl;

use crate::common::{SHORT, at, ballast, namespace, namespaces};
use crate::needs::tests;

tests! {
    namespaces => [
        flows_are_listed_and_deleted,
        ballast_is_counted_filtered_and_removed,
        a_namespace_without_rules_tracks_nothing_but_takes_entries,
    ],
}

#[tokio::main(flavor = "current_thread")]
async fn flows_are_listed_and_deleted() {
    let ns = namespace("flows", false);
    Table::new("relapse-test")
        .chain(Chain::filter("output", Hook::Output, 0, Policy::Accept))
        .rule("output", Rule::new().ct_state(&[CtState::Invalid]).drop())
        .apply(&ns)
        .expect("in force");
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
    icmp.echo(at(3, 0).ip(), SHORT).await.expect("sent").expect("answered");
    let echo = table.entries().expect("listed").into_iter().find(|entry| entry.protocol == 1).expect("an entry");
    let (request, id) = (echo.original.1, echo.original.0.port());
    assert_eq!((request, echo.reply.0), (at(3, 8 << 8), at(3, id)), "type 8 and its identifier");
    assert_eq!(echo.reply.1.port(), 0, "answered by type 0");

    for left in [1, 0] {
        assert_eq!(table.delete_where(|entry| entry.protocol == 1).expect("queried"), left);
    }
    assert_eq!(table.table().expect("queried").0, 1);
}

fn ballast_is_counted_filtered_and_removed() {
    let (ns, other) = (namespace("ballast", false), namespace("other", false));
    let table = Conntrack::open(&ns).expect("opened");
    assert_eq!(table.insert(&mut (0..1000).map(ballast)).expect("inserted"), 1000);
    assert_eq!(table.insert(&mut (500..1500).map(ballast)).expect("inserted"), 500, "the others exist");
    let (count, limit) = table.table().expect("queried");
    assert_eq!(count, 1500);
    let setting = sysctl::read(&ns, "net.netfilter.nf_conntrack_max").expect("read");
    assert_eq!(setting, limit.to_string());
    table.stats().expect("read");
    let entries = table.entries().expect("listed");
    assert_eq!(entries.len(), 1500);
    let one = entries.iter().find(|entry| entry.original == ballast(7).original).expect("exists");
    assert_eq!(one.tcp_state, ballast(7).tcp_state);
    assert_eq!(one.status & 0xf, status::SEEN_REPLY | status::ASSURED | status::CONFIRMED);
    assert!((290..=300).contains(&one.timeout), "{one:?}");
    let low = |entry: &Entry| entry.original.0.port() < 20_128;
    assert_eq!(table.delete_where(low).expect("deleted"), entries.iter().filter(|entry| low(entry)).count());
    let left = table.entries().expect("listed");
    assert!(!left.iter().any(low));
    let another = Conntrack::open(&other).expect("opened");
    assert_eq!(another.table().expect("queried"), (0, limit), "each namespace has its own table");
    assert_eq!(another.delete_where(|_| true).expect("queried"), 0);
    assert_eq!(table.table().expect("queried").0, left.len() as u64);
    let mark = std::num::NonZeroU32::new(7).expect("a mark");
    let marked = |number| Entry { mark: mark.get(), ..ballast(number) };
    assert_eq!(table.insert(&mut (2000..2010).map(marked)).expect("inserted"), 10);
    table.delete_marked(mark).expect("deleted");
    assert_eq!(table.table().expect("queried").0, left.len() as u64);
}

/// Without a rule that uses it connection tracking is idle, but inserted entries are kept.
fn a_namespace_without_rules_tracks_nothing_but_takes_entries() {
    let ns = namespace("idle", false);
    let socket = udp(&ns, at(1, 0)).expect("bound");
    socket.send_to(b"?", at(1, 9)).expect("sent");
    let table = Conntrack::open(&ns).expect("opened");
    assert_eq!(table.table().expect("queried").0, 0);
    assert_eq!(table.insert(&mut (0..3).map(ballast)).expect("inserted"), 3);
    assert_eq!(table.entries().expect("listed").len(), 3);
}
