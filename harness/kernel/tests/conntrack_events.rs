//! Notifications of new, updated and destroyed flows.

use std::time::Duration;

use relapse_kernel::conntrack::{Change, Conntrack, ConntrackEvents, Event, status};
use relapse_kernel::nft::{Chain, Hook, Rule, Table};
use relapse_kernel::socket::{tcp_listener, udp};
use relapse_kernel::{NetNs, link, sysctl};

use crate::common::{at, ballast, connect, namespaces};
use crate::needs::tests;

tests! {
    namespaces => [
        a_translated_flow_tells_of_its_whole_life,
        a_flow_older_than_the_listener_still_tells,
        lost_news_is_said_to_be_lost,
    ],
}

/// TCP states as numbered by connection tracking (`enum tcp_conntrack`).
const SYN_SENT: u8 = 1;
const ESTABLISHED: u8 = 3;
const CLOSE: u8 = 8;

fn translating(name: &str) -> NetNs {
    let ns = NetNs::create(name).expect("a namespace");
    link::set_up(&ns, link::LOOPBACK, true).expect("lo up");
    Table::new("relapse-test")
        .chain(Chain::nat("output", Hook::Output, -100))
        .rule("output", Rule::new().tcp_dport(80).dnat(at(1, 0).ip(), Some(8080)))
        .apply(&ns)
        .expect("in force");
    // On some kernels the setting exists only once a rule has enabled connection tracking.
    sysctl::write(&ns, "net.netfilter.nf_conntrack_events", "1").expect("written");
    ns
}

/// Waits for the first matching event; others before it are skipped.
async fn first(events: &mut ConntrackEvents, matches: impl Fn(&Event) -> bool) -> Event {
    let search = async {
        loop {
            if let Some(event) = events.next().await.expect("events").into_iter().find(&matches) {
                return event;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(2), search).await.expect("in time")
}

#[tokio::main(flavor = "current_thread")]
async fn a_translated_flow_tells_of_its_whole_life() {
    let ns = translating("life");
    let mut events = ConntrackEvents::open(&ns).expect("subscribed");
    let _server = tcp_listener(&ns, at(1, 8080), 8).expect("listening");
    let client = connect(&ns, at(1, 80)).expect("connected");
    let from = client.local_addr().expect("bound");

    let made = first(&mut events, |event| event.change == Change::New).await;
    assert_eq!(made.entry.original, (from, at(1, 80)));
    assert_eq!(made.entry.reply, (at(1, 8080), from));
    assert_eq!(made.entry.tcp_state, Some(SYN_SENT));

    let updated = first(&mut events, |event| event.entry.tcp_state == Some(ESTABLISHED)).await;
    assert_eq!((updated.change, updated.entry.id), (Change::Update, made.entry.id));
    drop(client);
    first(&mut events, |event| event.entry.tcp_state == Some(CLOSE)).await;
    Conntrack::open(&ns).and_then(|table| table.delete_where(|_| true)).expect("deleted");
    let gone = first(&mut events, |event| event.change == Change::Destroy).await;
    assert_eq!((gone.entry.id, gone.entry.original), (made.entry.id, made.entry.original));
}

#[tokio::main(flavor = "current_thread")]
async fn a_flow_older_than_the_listener_still_tells() {
    let ns = translating("older");
    let (one, two) = (udp(&ns, at(1, 0)).expect("bound"), udp(&ns, at(2, 53)).expect("bound"));
    one.send_to(b"?", at(2, 53)).expect("sent");
    let mut events = ConntrackEvents::open(&ns).expect("subscribed");
    two.send_to(b"!", one.local_addr().expect("bound")).expect("sent");
    let answered = first(&mut events, |event| event.entry.has(status::SEEN_REPLY)).await;
    assert_eq!(answered.change, Change::Update);
}

#[tokio::main(flavor = "current_thread")]
async fn lost_news_is_said_to_be_lost() {
    let ns = translating("flood");
    let mut events = ConntrackEvents::open(&ns).expect("subscribed");
    let table = Conntrack::open(&ns).expect("opened");
    let limit = table.table().expect("queried").1;
    let flood = u32::try_from(limit).unwrap_or(u32::MAX).min(60_000);
    table.insert(&mut (0..flood).map(ballast)).expect("inserted");
    let mut received = 0;
    let lost = loop {
        match tokio::time::timeout(Duration::from_millis(500), events.next()).await {
            Ok(Ok(batch)) => received += batch.len(),
            Ok(Err(error)) => break Some(error),
            Err(_silence) => break None,
        }
    };
    assert_eq!(lost.and_then(|error| error.raw_os_error()), Some(libc::ENOBUFS), "{received} of {flood} received");
    // The subscription continues.
    while tokio::time::timeout(Duration::from_millis(200), events.next()).await.is_ok() {}
    table.insert(&mut std::iter::once(ballast(u32::from(u16::MAX) * 100))).expect("inserted");
    first(&mut events, |event| event.change == Change::New).await;
}
