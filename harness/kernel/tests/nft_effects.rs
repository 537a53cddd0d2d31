//! The effect of rules on packets: over the loopback interface of one namespace, and across a router.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use relapse_kernel::NetNs;
use relapse_kernel::conntrack::Conntrack;
use relapse_kernel::nft::{self, Chain, CtState, Hook, Policy, Rule, Table};
use relapse_kernel::packet::{Capture, Filter, Packet, Tcp};
use relapse_kernel::route::Route;
use relapse_kernel::socket::{Icmp, udp};

use crate::common::{SHORT, add_route, at, connect, join, listen, namespace, namespaces};
use crate::needs::tests;

tests! {
    namespaces => [
        the_clamp_lowers_the_mss_of_syns_and_never_raises_it,
        what_belongs_to_no_flow_is_invalid_and_dropped,
        chance_drops_some_and_prefixes_are_told_apart,
        a_table_is_replaced_between_two_packets,
        refusals_are_told_to_the_sender_at_once,
        what_is_not_tracked_has_no_entry_and_marks_are_seen_later,
        a_reply_may_only_leave_by_the_port_of_its_request,
        a_router_answers_echo_requests_on_behalf_of_others,
        a_node_masquerades_to_the_address_of_its_link,
    ],
}

const TABLE: &str = "relapse-test";

fn output() -> Table {
    Table::new(TABLE).chain(Chain::filter("output", Hook::Output, 0, Policy::Accept))
}

fn counted(ns: &NetNs, comment: &str) -> u64 {
    nft::counter(ns, TABLE, comment).expect("a counter")
}

#[tokio::main(flavor = "current_thread")]
async fn the_clamp_lowers_the_mss_of_syns_and_never_raises_it() {
    let ns = namespace("mss", true);
    let table = |size| {
        output()
            .rule("output", Rule::new().tcp_dport(80).tcp_flags(2, 2).counter().tcp_mss_clamp(size).comment("clamp"))
    };
    table(1280).apply(&ns).expect("in force");
    let server = listen(&ns, at(1, 80));
    let mut capture = Capture::open(&ns, &Filter::syn()).expect("captures");
    let _client = connect(&ns, at(1, 80)).expect("connected");
    let accepted = server.accept().expect("arrived").0;
    // The server's segments are limited by the SYN, minus 12 bytes of timestamps.
    assert_eq!(socket2::SockRef::from(&accepted).tcp_mss().expect("queried"), 1268);
    assert_eq!(counted(&ns, "clamp"), 1);
    table(65_500).replace(&ns).expect("in force");
    let _second = connect(&ns, at(1, 80)).expect("connected");
    let mut syns: Vec<Tcp> = Vec::new();
    while syns.len() < 4 {
        let mut frames = Vec::new();
        tokio::time::timeout(SHORT, capture.next_batch(&mut frames)).await.expect("in time").expect("captured");
        syns.extend(frames.into_iter().filter(|frame| frame.outgoing).filter_map(|frame| match frame.packet {
            Packet::Tcp(tcp) => Some(tcp),
            _ => None,
        }));
    }
    let announced = |syn: &Tcp| (syn.flags.ack, syn.mss);
    let own = 65_495;
    assert_eq!(announced(&syns[0]), (false, Some(1280)));
    let raised = syns.iter().filter(|syn| announced(syn) == (false, Some(own))).count();
    let answers = syns.iter().filter(|syn| syn.flags.ack).count();
    assert_eq!((raised, answers), (1, 2), "the endpoint's own MSS, and unchanged answers: {syns:?}");
}

fn what_belongs_to_no_flow_is_invalid_and_dropped() {
    let ns = namespace("invalid", true);
    let loose = "net.netfilter.nf_conntrack_tcp_loose";
    relapse_kernel::sysctl::write(&ns, loose, "0").expect("written");
    output()
        .rule("output", Rule::new().ct_state(&[CtState::New]).tcp_dport(80).counter().comment("new"))
        .rule("output", Rule::new().ct_state(&[CtState::Invalid]).counter().drop().comment("invalid"))
        .apply(&ns)
        .expect("in force");
    let server = listen(&ns, at(1, 80));
    let mut client = connect(&ns, at(1, 80)).expect("connected");
    let mut accepted = server.accept().expect("arrived").0;
    assert_eq!((counted(&ns, "new"), counted(&ns, "invalid")), (1, 0));
    // The entry is deleted and flows may not be picked up midstream: data is invalid now.
    Conntrack::open(&ns).and_then(|table| table.delete_where(|_| true)).expect("deleted");
    client.write_all(b"lost").expect("accepted by the socket");
    accepted.set_read_timeout(Some(SHORT)).expect("bounded");
    let error = accepted.read(&mut [0; 4]).expect_err("no data arrives");
    assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
    assert!(counted(&ns, "invalid") >= 1);
    socket2::SockRef::from(&accepted).set_linger(Some(Duration::ZERO)).expect("reset on close");
}

fn chance_drops_some_and_prefixes_are_told_apart() {
    let ns = namespace("numgen", true);
    let near = (Ipv4Addr::new(127, 0, 0, 0), 30);
    output()
        .rule("output", Rule::new().udp_dport(9).counter().comment("all"))
        .rule("output", Rule::new().udp_dport(9).numgen_random(4, 1).counter().drop().comment("by chance"))
        .rule("output", Rule::new().udp_dport(9).ip_daddr(near).counter().comment("near"))
        .rule("output", Rule::new().udp_dport(9).not_ip_daddr(near).counter().comment("far"))
        .apply(&ns)
        .expect("in force");
    let receivers: [UdpSocket; 2] = [1, 5].map(|last| udp(&ns, at(last, 9)).expect("bound"));
    let sender = udp(&ns, at(1, 0)).expect("bound");
    for number in 0..400 {
        let to = if number % 2 == 0 { at(1, 9) } else { at(5, 9) };
        // A drop in the output chain is reported to the sender.
        match sender.send_to(&[0; 100], to) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::PermissionDenied),
        }
    }
    let dropped = counted(&ns, "by chance");
    assert_eq!(counted(&ns, "all"), 400);
    assert!((60..140).contains(&dropped), "{dropped}");
    let arrived = receivers.map(|socket| {
        let mut count = 0;
        while socket.recv(&mut [0; 100]).is_ok() {
            count += 1;
        }
        count
    });
    assert_eq!(arrived, [counted(&ns, "near"), counted(&ns, "far")]);
    assert_eq!(arrived[0] + arrived[1], 400 - dropped);
}

/// While a table is replaced every packet is processed by the old one, the new one, or both; the new one takes effect
/// before it is acknowledged.
fn a_table_is_replaced_between_two_packets() {
    let ns = namespace("replaced", true);
    let table = |last| {
        let to = |last| Rule::new().udp_dport(9).ip_daddr((Ipv4Addr::new(127, 0, 0, last), 32)).drop();
        output().rule("output", to(1)).rule("output", to(last))
    };
    table(2).apply(&ns).expect("in force");
    let sender = udp(&ns, at(9, 0)).expect("bound");
    let _receivers = [1, 2, 3].map(|last| udp(&ns, at(last, 9)).expect("bound"));
    let done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut turns, mut refused) = (Vec::new(), 2);
            while !done.load(order) {
                sender.send_to(b"x", at(1, 9)).expect_err("refused by either table");
                let other = if refused == 2 { 3 } else { 2 };
                if sender.send_to(b"x", at(other, 9)).is_err() {
                    turns.push(Instant::now());
                    // Both tables are briefly active.
                    while sender.send_to(b"x", at(refused, 9)).is_err() {
                        sender.send_to(b"x", at(1, 9)).expect_err("refused by either table");
                    }
                    refused = other;
                }
                std::thread::yield_now();
            }
            turns
        });
        let replaced: Vec<_> = (0..20)
            .map(|turn| {
                let start = Instant::now();
                table(if turn % 2 == 0 { 3 } else { 2 }).replace(&ns).expect("in force");
                (start, Instant::now())
            })
            .collect();
        std::thread::sleep(Duration::from_millis(5));
        done.store(true, order);
        let turns = watch.join().expect("no packet passed both tables");
        // On a busy machine the watcher may miss some replacements.
        let times = turns.iter().filter_map(|turn| {
            let (start, end) = replaced.iter().rfind(|(start, _)| start <= turn)?;
            Some((*turn - *start, *end - *start))
        });
        let times: Vec<_> = times.collect();
        assert!(times.iter().any(|(active, acknowledged)| active <= acknowledged), "{times:?}");
    });
}

fn refusals_are_told_to_the_sender_at_once() {
    let ns = namespace("reject", true);
    Table::new(TABLE)
        .chain(Chain::filter("input", Hook::Input, 0, Policy::Accept))
        .rule("input", Rule::new().tcp_dport(81).reject_icmp(1))
        .rule("input", Rule::new().tcp_dport(82).drop())
        .apply(&ns)
        .expect("in force");
    let _servers = [81, 82].map(|port| listen(&ns, at(1, port)));
    let errors = [81, 82].map(|port| connect(&ns, at(1, port)).expect_err("refused").kind());
    assert_eq!(errors, [io::ErrorKind::HostUnreachable, io::ErrorKind::TimedOut]);
}

fn what_is_not_tracked_has_no_entry_and_marks_are_seen_later() {
    let ns = namespace("notrack", true);
    output()
        .chain(Chain::filter("raw", Hook::Output, -300, Policy::Accept))
        .rule("raw", Rule::new().udp_dport(10).notrack())
        .rule("output", Rule::new().udp_dport(9).ct_mark_set(0x31))
        .rule("output", Rule::new().udp_dport(9).ct_mark(0x31).counter().comment("flow marked"))
        .rule("output", Rule::new().udp_dport(9).not_ct_mark(0x31).counter().comment("flow not marked"))
        .apply(&ns)
        .expect("in force");
    let _receivers = [9, 10].map(|port| udp(&ns, at(1, port)).expect("bound"));
    let sender = udp(&ns, at(1, 0)).expect("bound");
    for port in [9, 10] {
        sender.send_to(b"x", at(1, port)).expect("sent");
    }
    assert_eq!(["flow marked", "flow not marked"].map(|comment| counted(&ns, comment)), [1, 0]);
    let entries = Conntrack::open(&ns).and_then(|table| table.entries()).expect("listed");
    let flows: Vec<_> = entries.iter().map(|entry| (entry.original.1, entry.mark)).collect();
    assert_eq!(flows, [(at(1, 9), 0x31)]);
}

/// The rule of the fabric: a reply must leave through the port on which its request arrived.
fn a_reply_may_only_leave_by_the_port_of_its_request() {
    let (node, fabric) = (namespace("node", false), namespace("fabric", true));
    let server = namespace("server", false);
    let ports = [join(&node, &fabric, 1, 1500), join(&node, &fabric, 2, 1500)];
    let (_, far) = join(&fabric, &server, 3, 1500);
    let via = |address| Route::default_via(address);
    add_route(&node, &via(ports[0].1.address)).expect("a route");
    add_route(&server, &via(Ipv4Addr::new(10, 0, 3, 1).into())).expect("a route");
    let mut table = Table::new(TABLE).chain(Chain::filter("forward", Hook::Forward, 0, Policy::Accept));
    for index in ports.iter().map(|(_, port)| port.index) {
        let mark = Rule::new().iif(index).ct_direction_original().ct_mark_set(index);
        let other = Rule::new().ct_direction_reply().ct_mark(index).not_oif(index).counter().drop();
        table = table.rule("forward", mark).rule("forward", other.comment(format!("not by {index}")));
    }
    table.apply(&fabric).expect("in force");
    let address = SocketAddr::new(far.address, 80);
    let listener = listen(&server, address);
    let by = |port: usize| format!("not by {}", ports[port].1.index);
    let mut client = connect(&node, address).expect("both directions through one port");
    let mut accepted = listener.accept().expect("arrived").0;
    assert_eq!(counted(&fabric, &by(0)), 0);
    // The return path moves to the other port.
    let back = Route::to(ports[0].0.address, 32).via(ports[1].0.address).dev(ports[1].1.index);
    add_route(&fabric, &back).expect("moved");
    accepted.write_all(b"lost").expect("sent");
    client.read(&mut [0; 4]).expect_err("no data arrives");
    assert!(counted(&fabric, &by(0)) >= 1);
    assert_eq!(counted(&fabric, &by(1)), 0);
    connect(&node, address).expect_err("no new connection");
    socket2::SockRef::from(&accepted).set_linger(Some(Duration::ZERO)).expect("reset on close");
}

#[tokio::main(flavor = "current_thread")]
async fn a_router_answers_echo_requests_on_behalf_of_others() {
    let (node, fabric) = (namespace("node", false), namespace("fabric", true));
    let (_, port) = join(&node, &fabric, 1, 1500);
    add_route(&node, &Route::default_via(port.address)).expect("a route");
    let request = Rule::new().icmp_type(8).ip_daddr((Ipv4Addr::new(10, 77, 0, 2), 32)).counter();
    let icmp = Icmp::open(&node, None).expect("a socket");
    let ask = async |last| icmp.echo(Ipv4Addr::new(10, 77, 0, last).into(), SHORT).await.expect("sent");
    assert_eq!(ask(2).await, None, "the address does not exist");
    Table::new(TABLE)
        .chain(Chain::nat("prerouting", Hook::Prerouting, -100))
        .rule("prerouting", request.dnat(port.address, None).comment("dnat"))
        .apply(&fabric)
        .expect("in force");
    assert!(ask(2).await.is_some());
    assert_eq!(ask(3).await, None);
    assert_eq!(counted(&fabric, "dnat"), 1);
}

fn a_node_masquerades_to_the_address_of_its_link() {
    let (pod, node) = (namespace("pod", false), namespace("node", true));
    let server = namespace("server", false);
    let (_, gateway) = join(&pod, &node, 1, 1500);
    let (uplink, far) = join(&node, &server, 2, 1500);
    add_route(&pod, &Route::default_via(gateway.address)).expect("a route");
    let translate = Rule::new().ip_saddr((Ipv4Addr::new(10, 0, 1, 0), 24)).oifname("net2").l4proto(6).counter();
    Table::new(TABLE)
        .chain(Chain::nat("postrouting", Hook::Postrouting, 100))
        .rule("postrouting", translate.masquerade(Some((46994, 46995))).comment("pods"))
        .apply(&node)
        .expect("in force");
    let address = SocketAddr::new(far.address, 80);
    let listener = listen(&server, address);
    let connected = || connect(&pod, address).expect("connected, though the server has no route to the pod");
    let _clients = [connected(), connected()];
    let mut sources = [0, 1].map(|_| listener.accept().expect("arrived").1);
    sources.sort();
    assert_eq!(sources, [46994, 46995].map(|port| SocketAddr::new(uplink.address, port)));
    assert_eq!(counted(&node, "pods"), 2);
    let tracking = Conntrack::open(&node).expect("opened");
    let entries = tracking.entries().expect("listed");
    assert!(entries.iter().any(|entry| entry.reply.1 == sources[0]), "{entries:?}");
    // All ports are in use: no entry can be created, the node drops the SYN silently, and the caller times out.
    let before = tracking.stats().expect("read");
    assert_eq!(connect(&pod, address).expect_err("no port left").kind(), io::ErrorKind::TimedOut);
    let after = tracking.stats().expect("read");
    assert!(after.insert_failed > before.insert_failed, "{before:?} {after:?}");
}
