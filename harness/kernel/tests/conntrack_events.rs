//! News of flows, as they are made, change and go.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use relapse_kernel::conntrack::{self, Change, Entry, Event, Events, status, tcp_state};
use relapse_kernel::nft::{Chain, Hook, NatFlags, Rule, Table};
use relapse_kernel::socket::{StreamOptions, tcp_listener, tcp_stream_socket, udp};
use relapse_kernel::{NetNs, clock, link, sysctl};

const SOON: Duration = Duration::from_secs(2);

fn at(last: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, last), port).into()
}

fn translating(name: &str) -> Option<NetNs> {
    let ns = common::namespaces().then(|| NetNs::create(name).expect("a namespace"))?;
    link::set_up(&ns, link::LOOPBACK, true).expect("lo up");
    Table::new("relapse-test")
        .chain(Chain::nat("postrouting", Hook::Postrouting, 100))
        .rule("postrouting", Rule::new().tcp_dport(80).snat(at(1, 0).ip(), Some((46994, 46994)), NatFlags::NONE))
        .apply(&ns)
        .expect("in force");
    // Not there before a rule has switched connection tracking on, on some kernels.
    sysctl::write(&ns, "net.netfilter.nf_conntrack_events", "1").expect("written");
    Some(ns)
}

/// Waits for the first event that fits; the others before it are passed over.
async fn first(events: &mut Events, fits: impl Fn(&Event) -> bool) -> Event {
    let search = async {
        loop {
            if let Some(event) = events.next().await.expect("news").into_iter().find(&fits) {
                return event;
            }
        }
    };
    tokio::time::timeout(SOON, search).await.expect("in time")
}

#[tokio::test]
async fn a_translated_flow_tells_of_its_whole_life() {
    let Some(ns) = translating("life") else { return };
    sysctl::write(&ns, "net.netfilter.nf_conntrack_timestamp", "1").expect("written");
    let mut events = Events::open(&ns).expect("subscribed");
    let _server = tcp_listener(&ns, at(1, 80), 8).expect("listening");
    let options = StreamOptions { reset_on_close: true, ..StreamOptions::default() };
    let client = tcp_stream_socket(&ns, at(1, 80).ip(), options).expect("a socket");
    let before = clock::now();
    client.connect_timeout(&at(1, 80).into(), SOON).expect("connected");
    let after = clock::now();
    let from = client.local_addr().expect("bound").as_socket().expect("an address");

    let made = first(&mut events, |event| event.change == Change::New).await;
    assert_eq!(made.entry.original, (from, at(1, 80)));
    assert_eq!(made.entry.reply, (at(1, 80), at(1, 46994)));
    assert!(made.entry.has(status::SNAT), "{made:?}");
    assert_eq!(made.entry.tcp_state, Some(tcp_state::SYN_SENT));
    let stamp = made.timestamp.expect("stamped");
    // Two clocks are read one after the other, so the translation is off by their distance.
    assert!((before - 1_000_000..after + 1_000_000).contains(&stamp), "{before} {stamp} {after}");
    println!("made {:?} after connect was called", Duration::from_nanos(stamp.saturating_sub(before)));

    let established = |event: &Event| event.entry.tcp_state == Some(tcp_state::ESTABLISHED);
    let updated = first(&mut events, established).await;
    assert_eq!((updated.change, updated.entry.id), (Change::Update, made.entry.id));
    drop(client);
    first(&mut events, |event| event.entry.tcp_state == Some(tcp_state::CLOSE)).await;
    conntrack::delete(&ns, &made.entry).expect("deleted");
    let gone = first(&mut events, |event| event.change == Change::Destroy).await;
    assert_eq!((gone.entry.id, gone.entry.original), (made.entry.id, made.entry.original));
    assert!(gone.timestamp > made.timestamp, "{gone:?}");
}

#[tokio::test]
async fn without_stamps_events_carry_none_and_a_flow_older_than_the_listener_still_tells() {
    let Some(ns) = translating("older") else { return };
    sysctl::write(&ns, "net.netfilter.nf_conntrack_timestamp", "0").expect("written");
    let (one, two) = (udp(&ns, at(1, 0)).expect("bound"), udp(&ns, at(2, 53)).expect("bound"));
    one.send_to(b"?", at(2, 53)).expect("sent");
    let mut events = Events::open(&ns).expect("subscribed");
    two.send_to(b"!", one.local_addr().expect("bound")).expect("sent");
    let answered = first(&mut events, |event| event.entry.has(status::SEEN_REPLY)).await;
    assert_eq!((answered.change, answered.timestamp), (Change::Update, None));
}

#[tokio::test]
async fn lost_news_is_said_to_be_lost() {
    let Some(ns) = translating("flood") else { return };
    let mut events = Events::open(&ns).expect("subscribed");
    let ballast = |number: u32| {
        let [_, high, middle, low] = number.to_be_bytes();
        let source = SocketAddr::from((Ipv4Addr::new(172, 30, high, middle), 20_000 + u16::from(low)));
        Entry::established(source, SocketAddr::from(([172, 31, 0, 1], 443)), 300)
    };
    let limit = conntrack::table(&ns).expect("asked").1;
    let flood = u32::try_from(limit).unwrap_or(u32::MAX).min(60_000);
    conntrack::insert(&ns, &mut (0..flood).map(ballast)).expect("inserted");
    let mut heard = 0;
    let lost = loop {
        match tokio::time::timeout(Duration::from_millis(500), events.next()).await {
            Ok(Ok(news)) => heard += news.len(),
            Ok(Err(error)) => break Some(error),
            Err(_silence) => break None,
        }
    };
    println!("{heard} of {flood} heard before {lost:?}");
    assert_eq!(lost.and_then(|error| error.raw_os_error()), Some(libc::ENOBUFS));
    // The subscription goes on.
    while tokio::time::timeout(Duration::from_millis(200), events.next()).await.is_ok() {}
    conntrack::insert(&ns, &mut std::iter::once(ballast(u32::from(u16::MAX) * 100))).expect("inserted");
    first(&mut events, |event| event.change == Change::New).await;
}
