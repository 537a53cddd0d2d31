//! What rules do to packets: over the loopback interface of one namespace, and across a router.

mod common;
#[path = "common/pair.rs"]
mod pair;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use relapse_kernel::NetNs;
use relapse_kernel::builder::Builder;
use relapse_kernel::conntrack::{self, status};
use relapse_kernel::nft::{self, Chain, CtState, Hook, NatFlags, Policy, Rule, Table};
use relapse_kernel::packet::{Capture, Filter, Packet, Tcp};
use relapse_kernel::route::{Route, replace_route};
use relapse_kernel::socket::{Icmp, StreamOptions, tcp_listener, tcp_stream_socket, udp};

const TABLE: &str = "relapse-test";
const SHORT: Duration = Duration::from_millis(300);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn at(last: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, last), port).into()
}

fn alone(name: &str) -> Option<NetNs> {
    common::namespaces().then(|| pair::namespace(name, true))
}

fn output(policy: Policy) -> Table {
    Table::new(TABLE).chain(Chain::filter("output", Hook::Output, 0, policy))
}

fn listen(ns: &NetNs, address: SocketAddr) -> TcpListener {
    let listener = tcp_listener(ns, address, 64).expect("listening");
    listener.set_nonblocking(false).expect("blocking");
    socket2::SockRef::from(&listener).set_read_timeout(Some(Duration::from_secs(2))).expect("bounded");
    listener
}

fn connect(ns: &NetNs, to: SocketAddr) -> io::Result<TcpStream> {
    let options = StreamOptions { reset_on_close: true, ..StreamOptions::default() };
    let socket = tcp_stream_socket(ns, to.ip(), options).expect("a socket");
    socket.connect_timeout(&to.into(), SHORT)?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(SHORT))?;
    Ok(socket.into())
}

fn counted(ns: &NetNs, comment: &str) -> u64 {
    nft::counter(ns, TABLE, comment).expect("a counter")
}

#[test]
fn a_destination_is_translated_and_the_flow_says_so() {
    let Some(ns) = alone("dnat") else { return };
    Table::new(TABLE)
        .chain(Chain::nat("output", Hook::Output, -100))
        .rule(
            "output",
            Rule::new()
                .ip_daddr(Ipv4Addr::new(127, 9, 0, 1))
                .tcp_dport(80)
                .counter()
                .dnat(LOCAL, Some(8080))
                .comment("to"),
        )
        .rule("output", Rule::new().tcp_dport(15000..=15010).counter().redirect(Some(8080)).comment("redirect"))
        .apply(&ns)
        .expect("in force");
    let server = listen(&ns, at(1, 8080));
    let service = SocketAddr::from((Ipv4Addr::new(127, 9, 0, 1), 80));
    let _client = connect(&ns, service).expect("connected");
    server.accept().expect("arrived");
    let _other = connect(&ns, at(5, 15003)).expect("connected");
    server.accept().expect("arrived");
    assert_eq!((counted(&ns, "to"), counted(&ns, "redirect")), (1, 1), "one a flow");
    let entries = conntrack::entries(&ns).expect("listed");
    let entry = entries.iter().find(|entry| entry.original.1 == service).expect("the flow");
    assert_eq!(entry.reply.0, at(1, 8080));
    assert!(entry.has(status::DNAT) && !entry.has(status::SNAT), "{entry:?}");
}

#[test]
fn a_source_takes_its_port_from_the_range() {
    let Some(ns) = alone("snat") else { return };
    let range = Some((5000, 5001));
    Table::new(TABLE)
        .chain(Chain::nat("postrouting", Hook::Postrouting, 100))
        .rule("postrouting", Rule::new().tcp_dport(80).snat(LOCAL, Some((4000, 4000)), NatFlags::NONE))
        .rule("postrouting", Rule::new().tcp_dport(81).snat(Ipv4Addr::new(127, 0, 0, 7), range, NatFlags::FULLY_RANDOM))
        .apply(&ns)
        .expect("in force");
    let (one, two) = (listen(&ns, at(1, 80)), listen(&ns, at(1, 81)));
    let _first = connect(&ns, at(1, 80)).expect("connected");
    assert_eq!(one.accept().expect("arrived").1, at(1, 4000));
    let before = conntrack::stats(&ns).expect("read");
    // Its only port is taken: no entry can be made, and the SYN dies on this machine; the caller is
    // not told, and times out.
    let error = connect(&ns, at(1, 80)).expect_err("no port left");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let after = conntrack::stats(&ns).expect("read");
    println!("exhausted: {before:?} -> {after:?}");
    assert!(after.insert_failed > before.insert_failed, "{before:?} {after:?}");
    let mut sources = Vec::new();
    let _clients: Vec<_> = (0..2).map(|_| connect(&ns, at(1, 81)).expect("connected")).collect();
    for _ in 0..2 {
        sources.push(two.accept().expect("arrived").1);
    }
    sources.sort();
    assert_eq!(sources, [at(7, 5000), at(7, 5001)]);
}

#[tokio::test]
async fn the_clamp_lowers_the_mss_of_syns_and_never_raises_it() {
    let Some(ns) = alone("mss") else { return };
    let table = |size| {
        output(Policy::Accept)
            .rule("output", Rule::new().tcp_dport(80).tcp_flags_syn().counter().tcp_mss_clamp(size).comment("clamp"))
            .rule("output", Rule::new().tcp_flags_syn().tcp_mss_above(1280).counter().comment("above"))
            .rule("output", Rule::new().tcp_flags_syn().tcp_mss(1280).counter().comment("equal"))
    };
    table(1280).apply(&ns).expect("in force");
    let server = listen(&ns, at(1, 80));
    let mut capture = Capture::open(&ns, &Filter::syn().outgoing()).expect("captures");
    let _client = connect(&ns, at(1, 80)).expect("connected");
    let accepted = server.accept().expect("arrived").0;
    // The server sends no more than the SYN allowed, less 12 bytes of timestamps.
    assert_eq!(socket2::SockRef::from(&accepted).tcp_mss().expect("told"), 1268);
    assert_eq!((counted(&ns, "clamp"), counted(&ns, "above"), counted(&ns, "equal")), (1, 0, 1));
    table(65_500).replace(&ns).expect("in force");
    let _second = connect(&ns, at(1, 80)).expect("connected");
    assert_eq!(counted(&ns, "above"), 1);
    let mut syns: Vec<Tcp> = Vec::new();
    while syns.len() < 4 {
        let mut frames = Vec::new();
        tokio::time::timeout(SHORT, capture.next_batch(&mut frames)).await.expect("in time").expect("captured");
        syns.extend(frames.into_iter().filter_map(|frame| match frame.packet {
            Packet::Tcp(tcp) => Some(tcp),
            _ => None,
        }));
    }
    let announced = |syn: &Tcp| (syn.flags.ack, syn.mss);
    let own = 65_495;
    assert_eq!(announced(&syns[0]), (false, Some(1280)));
    let raised = syns.iter().filter(|syn| announced(syn) == (false, Some(own))).count();
    let answers = syns.iter().filter(|syn| syn.flags.ack).count();
    println!("{:?}", syns.iter().map(announced).collect::<Vec<_>>());
    assert_eq!((raised, answers), (1, 2), "the endpoint's own, and untouched answers");
}

#[test]
fn what_belongs_to_no_flow_is_invalid_and_dropped() {
    let Some(ns) = alone("invalid") else { return };
    let loose = "net.netfilter.nf_conntrack_tcp_loose";
    relapse_kernel::sysctl::write(&ns, loose, "0").expect("written");
    output(Policy::Accept)
        .rule("output", Rule::new().ct_state(&[CtState::New]).tcp_dport(80).counter().comment("new"))
        .rule("output", Rule::new().ct_state(&[CtState::Established]).counter().comment("established"))
        .rule("output", Rule::new().ct_state(&[CtState::Invalid]).counter().drop().comment("invalid"))
        .apply(&ns)
        .expect("in force");
    let server = listen(&ns, at(1, 80));
    let mut client = connect(&ns, at(1, 80)).expect("connected");
    let mut accepted = server.accept().expect("arrived").0;
    assert_eq!((counted(&ns, "new"), counted(&ns, "invalid")), (1, 0));
    assert!(counted(&ns, "established") >= 2);
    // The entry is lost and flows may not be picked up in the middle: data is invalid now.
    conntrack::flush(&ns).expect("flushed");
    client.write_all(b"lost").expect("accepted by the socket");
    accepted.set_read_timeout(Some(SHORT)).expect("bounded");
    let error = accepted.read(&mut [0; 4]).expect_err("nothing comes");
    assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
    assert!(counted(&ns, "invalid") >= 1);
    socket2::SockRef::from(&accepted).set_linger(Some(Duration::ZERO)).expect("reset on close");
}

#[test]
fn numbers_spread_and_lengths_are_told_apart() {
    let Some(ns) = alone("numgen") else { return };
    let sized = |length| Rule::new().udp_dport(9).length_above(length).counter();
    output(Policy::Accept)
        .rule("output", Rule::new().udp_dport(9).counter().comment("all"))
        .rule("output", sized(127).comment("above 127"))
        .rule("output", sized(128).comment("above 128"))
        .rule("output", Rule::new().udp_dport(9).numgen_inc(4, 1).counter().comment("every fourth"))
        .rule("output", Rule::new().udp_dport(9).numgen_random(4, 1).counter().drop().comment("by chance"))
        .rule("output", Rule::new().udp_dport(9).ip_daddr((Ipv4Addr::new(127, 0, 0, 0), 30)).counter().comment("near"))
        .rule(
            "output",
            Rule::new().udp_dport(9).not_ip_daddr((Ipv4Addr::new(127, 0, 0, 0), 30)).counter().comment("far"),
        )
        .apply(&ns)
        .expect("in force");
    let receivers: [UdpSocket; 2] = [1, 5].map(|last| udp(&ns, at(last, 9)).expect("bound"));
    let sender = udp(&ns, at(1, 0)).expect("bound");
    for number in 0..400 {
        let to = if number % 2 == 0 { at(1, 9) } else { at(5, 9) };
        // 20 bytes of IP, 8 of UDP. A drop at output is told to the sender.
        match sender.send_to(&[0; 100], to) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::PermissionDenied),
        }
    }
    let dropped = counted(&ns, "by chance");
    println!("{dropped} of 400 dropped by chance");
    assert_eq!(counted(&ns, "all"), 400);
    assert_eq!((counted(&ns, "above 127"), counted(&ns, "above 128")), (400, 0));
    assert_eq!(counted(&ns, "every fourth"), 100);
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

/// While a table is replaced every packet meets the old one or the new one, or both. Prints how long before
/// the acknowledgement the new one acts.
#[test]
fn a_table_is_replaced_between_two_packets() {
    let Some(ns) = alone("replaced") else { return };
    let table = |last| {
        let to = |last| Rule::new().udp_dport(9).ip_daddr(Ipv4Addr::new(127, 0, 0, last)).drop();
        output(Policy::Accept).rule("output", to(1)).rule("output", to(last))
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
                    // For a moment both act.
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
        // On a busy machine the watch may miss some.
        let times = turns.iter().filter_map(|turn| {
            let (start, end) = replaced.iter().rfind(|(start, _)| start <= turn)?;
            Some((*turn - *start, *end - *start))
        });
        let times: Vec<_> = times.collect();
        println!("acts after, acknowledged after: {times:?}");
        assert!(times.iter().any(|(acts, told)| acts <= told), "{times:?}");
    });
}

#[test]
fn refusals_are_told_to_the_sender_at_once() {
    let Some(ns) = alone("reject") else { return };
    Table::new(TABLE)
        .chain(Chain::filter("input", Hook::Input, 0, Policy::Accept))
        .rule("input", Rule::new().tcp_dport(80).counter().reject_tcp_reset().comment("reset"))
        .rule("input", Rule::new().tcp_dport(81).reject_icmp(1))
        .rule("input", Rule::new().tcp_dport(82).drop())
        .apply(&ns)
        .expect("in force");
    let _servers = [80, 81, 82].map(|port| listen(&ns, at(1, port)));
    let told = [80, 81, 82].map(|port| {
        let start = Instant::now();
        let error = connect(&ns, at(1, port)).expect_err("refused");
        println!("{port}: {error:?} after {:?}", start.elapsed());
        error.kind()
    });
    assert_eq!(told, [io::ErrorKind::ConnectionRefused, io::ErrorKind::HostUnreachable, io::ErrorKind::TimedOut]);
    assert_eq!(counted(&ns, "reset"), 1);
}

#[test]
fn what_is_not_tracked_has_no_entry_and_marks_are_seen_later() {
    let Some(ns) = alone("notrack") else { return };
    output(Policy::Accept)
        .chain(Chain::filter("raw", Hook::Output, -300, Policy::Accept))
        .rule("raw", Rule::new().udp_dport(10).notrack())
        .rule("raw", Rule::new().udp_dport(9).mark_set(0x30))
        .rule("output", Rule::new().ct_state(&[CtState::Untracked]).counter().comment("untracked"))
        .rule("output", Rule::new().mark(0x30).counter().ct_mark_set(0x31).comment("marked"))
        .rule("output", Rule::new().udp_dport(9).ct_mark(0x31).counter().comment("flow marked"))
        .rule("output", Rule::new().udp_dport(9).not_ct_mark(0x31).counter().comment("flow not marked"))
        .apply(&ns)
        .expect("in force");
    let _receivers = [9, 10].map(|port| udp(&ns, at(1, port)).expect("bound"));
    let sender = udp(&ns, at(1, 0)).expect("bound");
    for port in [9, 10] {
        sender.send_to(b"x", at(1, port)).expect("sent");
    }
    let counts = ["untracked", "marked", "flow marked", "flow not marked"].map(|comment| counted(&ns, comment));
    assert_eq!(counts, [1, 1, 1, 0]);
    let entries = conntrack::entries(&ns).expect("listed");
    let flows: Vec<_> = entries.iter().map(|entry| (entry.original.1, entry.mark)).collect();
    assert_eq!(flows, [(at(1, 9), 0x31)]);
}

/// The rule of the fabric: a reply must leave by the port by which its request came in.
#[test]
fn a_reply_may_only_leave_by_the_port_of_its_request() {
    if !common::namespaces() {
        return;
    }
    let (node, fabric) = (pair::namespace("node", false), pair::namespace("fabric", true));
    let server = pair::namespace("server", false);
    let ports = [pair::join(&node, &fabric, 1, 1500), pair::join(&node, &fabric, 2, 1500)];
    let (_, far) = pair::join(&fabric, &server, 3, 1500);
    let via = |address| Route::default_via(address);
    pair::build(async || Builder::open(&node)?.add_route(&via(ports[0].1.address)).await).expect("a route");
    pair::build(async || Builder::open(&server)?.add_route(&via(Ipv4Addr::new(10, 0, 3, 1).into())).await)
        .expect("a route");
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
    let mut client = connect(&node, address).expect("both ways by one port");
    let mut accepted = listener.accept().expect("arrived").0;
    assert_eq!(counted(&fabric, &by(0)), 0);
    // The way back turns to the other port.
    let back = Route::to(ports[0].0.address, 32).via(ports[1].0.address).dev(ports[1].1.index);
    replace_route(&fabric, &back).expect("turned");
    accepted.write_all(b"lost").expect("sent");
    client.read(&mut [0; 4]).expect_err("nothing comes back");
    assert!(counted(&fabric, &by(0)) >= 1);
    assert_eq!(counted(&fabric, &by(1)), 0);
    connect(&node, address).expect_err("nor a new connection");
    socket2::SockRef::from(&accepted).set_linger(Some(Duration::ZERO)).expect("reset on close");
}

#[tokio::test]
async fn a_router_answers_echo_requests_on_behalf_of_others() {
    if !common::namespaces() {
        return;
    }
    let (node, fabric) = (pair::namespace("node", false), pair::namespace("fabric", true));
    let (_, port) = pair::join(&node, &fabric, 1, 1500);
    pair::build(async || Builder::open(&node)?.add_route(&Route::default_via(port.address)).await).expect("a route");
    let request = |last| Rule::new().icmp_type(8).ip_daddr(Ipv4Addr::new(10, 77, 0, last)).counter();
    let table = |last: Rule| {
        Table::new(TABLE)
            .chain(Chain::nat("prerouting", Hook::Prerouting, -100))
            .rule("prerouting", request(1).redirect(None).comment("redirect"))
            .rule("prerouting", last)
    };
    let icmp = Icmp::open(&node, None).expect("a socket");
    let ask = async |last| icmp.echo(Ipv4Addr::new(10, 77, 0, last).into(), SHORT).await.expect("sent");
    assert_eq!(ask(1).await, None, "nobody has that address");
    let elsewhere = request(2).dnat(port.address, None);
    table(elsewhere.comment("dnat")).apply(&fabric).expect("in force");
    println!("answered after {:?} and {:?}", ask(1).await.expect("answered"), ask(2).await.expect("answered"));
    assert_eq!(ask(3).await, None);
    assert_eq!((counted(&fabric, "redirect"), counted(&fabric, "dnat")), (1, 1));
}

#[test]
fn a_node_masquerades_to_the_address_of_its_link() {
    if !common::namespaces() {
        return;
    }
    let (pod, node) = (pair::namespace("pod", false), pair::namespace("node", true));
    let server = pair::namespace("server", false);
    let (_, gateway) = pair::join(&pod, &node, 1, 1500);
    let (uplink, far) = pair::join(&node, &server, 2, 1500);
    pair::build(async || Builder::open(&pod)?.add_route(&Route::default_via(gateway.address)).await).expect("a route");
    let translate = Rule::new().ip_saddr((Ipv4Addr::new(10, 0, 1, 0), 24)).oifname("net2").l4proto(6).counter();
    Table::new(TABLE)
        .chain(Chain::nat("postrouting", Hook::Postrouting, 100))
        .rule("postrouting", translate.masquerade(Some((46994, 46994)), NatFlags::FULLY_RANDOM).comment("pods"))
        .apply(&node)
        .expect("in force");
    let address = SocketAddr::new(far.address, 80);
    let listener = listen(&server, address);
    let _client = connect(&pod, address).expect("connected, though the server has no way to the pod");
    assert_eq!(listener.accept().expect("arrived").1, SocketAddr::new(uplink.address, 46994));
    assert_eq!(counted(&node, "pods"), 1);
    let entries = conntrack::entries(&node).expect("listed");
    assert!(entries.iter().any(|entry| entry.has(status::SNAT) && entry.reply.1.port() == 46994), "{entries:?}");
}
