//! Captures in namespaces of their own: two hosts and a router between them, and the loopback interface.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use relapse_kernel::packet::{Capture, Filter, Frame, Icmp, Packet, Tcp, Udp};
use relapse_kernel::process::Inside;
use relapse_kernel::{NetNs, clock};

/// False where the test is to be passed over.
fn allowed() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(!std::env::var("RELAPSE_REQUIRE").unwrap_or_default().contains("netns"), "needs root");
    eprintln!("skipped: needs root");
    false
}

fn ip(ns: &NetNs, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let done = Inside::new(ns).command("ip").args(line.split_whitespace()).output().expect("ip runs");
        assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

fn loopback() -> NetNs {
    let ns = NetNs::create("packet").expect("a namespace");
    ip(&ns, "link set lo mtu 1500 up\n addr add fd00::1/128 dev lo nodad");
    ns
}

fn sysctl(ns: &NetNs, key: &str, value: &str) {
    let (path, value) = (format!("/proc/sys/net/{key}"), value.to_owned());
    ns.run(move || std::fs::write(path, value)).expect("entered").expect("written");
}

/// A connection to `address` inside `ns` over which `bytes` go from client to server.
fn transfer(ns: &NetNs, address: &str, bytes: usize) -> SocketAddr {
    let address = address.to_owned();
    ns.run(move || {
        let listener = TcpListener::bind(address)?;
        let at = listener.local_addr()?;
        let mut client = TcpStream::connect(at)?;
        let (mut server, _) = listener.accept()?;
        let reader = std::thread::spawn(move || server.read_to_end(&mut Vec::new()));
        client.write_all(&vec![7; bytes])?;
        drop(client);
        assert_eq!(reader.join().expect("no panic")?, bytes);
        std::io::Result::Ok(at)
    })
    .expect("entered")
    .expect("transferred")
}

/// Frames until `enough`, or what there was after a second.
async fn collect(capture: &mut Capture, enough: impl Fn(&[Frame]) -> bool) -> Vec<Frame> {
    let mut frames = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(1), async {
        while !enough(&frames) {
            capture.next_batch(&mut frames).await.expect("the socket works");
        }
    })
    .await;
    frames
}

/// All that is captured within a moment: for what must not be there.
async fn everything(capture: &mut Capture) -> Vec<Frame> {
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut frames = Vec::new();
    while capture.drain(&mut frames) > 0 {}
    frames
}

fn tcp(frames: &[Frame]) -> Vec<Tcp> {
    frames.iter().filter_map(|frame| if let Packet::Tcp(tcp) = frame.packet { Some(tcp) } else { None }).collect()
}

#[tokio::test]
async fn syn_filter_sees_handshakes_of_both_families() {
    if !allowed() {
        return;
    }
    let ns = loopback();
    let mut capture = Capture::open(&ns, &Filter::syn().outgoing()).expect("a capture");
    let before = clock::now();
    for address in ["127.0.0.1:0", "[fd00::1]:0"] {
        let server = transfer(&ns, address, 100_000);
        let frames = everything(&mut capture).await;
        let [syn, answer] = tcp(&frames)[..] else { panic!("{frames:?}") };
        assert!(syn.flags.syn && !syn.flags.ack && answer.flags.syn && answer.flags.ack);
        assert_eq!((syn.destination, answer.source), (server, server));
        // 1500 less the headers of IP and TCP.
        let mss = if server.is_ipv4() { 1460 } else { 1440 };
        assert_eq!((syn.mss, answer.mss), (Some(mss), Some(mss)));
        assert_eq!(answer.acknowledgment, syn.sequence.wrapping_add(1));
        assert!(syn.tsval.is_some() && answer.tsecr == syn.tsval);
        assert!(frames.iter().all(|frame| frame.outgoing && frame.ifindex == 1));
        assert!(frames.iter().all(|frame| frame.at >= before && frame.at <= clock::now()), "{before} {frames:?}");
    }
    assert_eq!(capture.lost(), 0);
}

#[tokio::test]
async fn control_filter_leaves_data_out() {
    if !allowed() {
        return;
    }
    let ns = loopback();
    let mut capture = Capture::open(&ns, &Filter::control().outgoing()).expect("a capture");
    transfer(&ns, "127.0.0.1:0", 100_000);
    let segments = tcp(&everything(&mut capture).await);
    assert_eq!(segments.len(), 4, "two SYN, two FIN: {segments:?}");
    assert!(segments.iter().all(|segment| segment.flags.syn || segment.flags.fin));
}

#[tokio::test]
async fn oversized_frames_tell_their_segment_size() {
    if !allowed() {
        return;
    }
    let ns = loopback();
    for (address, segment) in [("127.0.0.1:0", 1448), ("[fd00::1]:0", 1428)] {
        let mut capture = Capture::open(&ns, &Filter::tcp_control_and_data(1000).outgoing()).expect("a capture");
        let server = transfer(&ns, address, 300_000);
        let segments = tcp(&everything(&mut capture).await);
        let sent: Vec<_> =
            segments.iter().filter(|segment| segment.destination == server && segment.payload_len > 0).collect();
        assert_eq!(sent.iter().map(|segment| segment.payload_len).sum::<u32>(), 300_000, "{sent:?}");
        assert!(
            sent.iter().any(|segment| segment.payload_len > 10_000 && segment.gso_size == Some(segment_size(segment))),
            "{sent:?}"
        );
        assert!(sent.iter().all(|one| one.segment_len() <= segment), "{sent:?}");
        assert!(sent.iter().any(|one| one.segment_len() == segment), "{sent:?}");
        let acknowledged = |one: &&Tcp| one.source == server && one.payload_len == 0 && one.flags.ack && !one.flags.syn;
        assert!(segments.iter().filter(acknowledged).count() > 1, "bare acknowledgements pass");
    }
}

fn segment_size(segment: &Tcp) -> u16 {
    if segment.source.is_ipv4() { 1448 } else { 1428 }
}

#[tokio::test]
async fn small_data_is_left_out_but_acknowledgements_are_not() {
    if !allowed() {
        return;
    }
    let ns = loopback();
    for address in ["127.0.0.1:0", "[fd00::1]:0"] {
        let mut all = Capture::open(&ns, &Filter::tcp().outgoing()).expect("a capture");
        let mut large = Capture::open(&ns, &Filter::tcp_control_and_data(500).outgoing()).expect("a capture");
        transfer(&ns, address, 499);
        let (all, large) = (tcp(&everything(&mut all).await), tcp(&everything(&mut large).await));
        // A small write may carry the FIN; that one is control.
        let expected: Vec<_> = all.iter().copied().filter(|one| one.payload_len == 0 || one.flags.fin).collect();
        assert_eq!(large, expected);
        assert!(all.len() > large.len(), "{all:?}");
    }
}

#[tokio::test]
async fn ip_options_do_not_mislead_the_filter() {
    if !allowed() {
        return;
    }
    let ns = loopback();
    let mut capture = Capture::open(&ns, &Filter::syn().outgoing()).expect("a capture");
    ns.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        // Router alert (RFC 2113): four bytes more of header.
        let option = [0x94_u8, 4, 0, 0];
        // SAFETY: the value is live, of the length given, and only read.
        let set = unsafe {
            libc::setsockopt(client.as_raw_fd(), libc::IPPROTO_IP, libc::IP_OPTIONS, option.as_ptr().cast(), 4)
        };
        assert_eq!(set, 0);
        client.connect(&listener.local_addr().expect("bound").into()).expect("connected");
    })
    .expect("entered");
    let segments = tcp(&everything(&mut capture).await);
    assert!(segments.len() == 2 && segments.iter().all(|segment| segment.flags.syn), "{segments:?}");
    assert_eq!(segments[0].mss, Some(1460), "the options' own length is not part of the MSS");
}

#[tokio::test]
async fn dns_and_icmp_pass_and_nothing_else_does() {
    if !allowed() {
        return;
    }
    let ns = loopback();
    sysctl(&ns, "ipv4/ping_group_range", "0 2147483647");
    let mut capture =
        Capture::open(&ns, &Filter::any_of([Filter::dns(), Filter::icmp()]).outgoing()).expect("a capture");
    ns.run(|| {
        for to in ["127.0.0.1", "[fd00::1]"] {
            let resolver = UdpSocket::bind(format!("{to}:53")).expect("bound");
            let client = UdpSocket::bind(format!("{to}:0")).expect("bound");
            client.send_to(&[9; 600], resolver.local_addr().expect("bound")).expect("sent");
            let (_, from) = resolver.recv_from(&mut [0; 600]).expect("received");
            resolver.send_to(b"answer", from).expect("sent");
            client.send_to(b"not dns", from).expect("sent");
        }
        // Nobody listens there: the answer is ICMP "port unreachable".
        UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"?", "127.0.0.1:9")).expect("sent");
        let ping = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, Some(socket2::Protocol::ICMPV4))
            .expect("a socket");
        ping.send_to(
            &[8, 0, 0, 0, 0, 0, 0, 5, 1, 2, 3],
            &"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into(),
        )
        .expect("sent");
    })
    .expect("entered");
    transfer(&ns, "127.0.0.1:0", 1000);
    let frames = everything(&mut capture).await;
    let datagrams: Vec<&Udp> =
        frames.iter().filter_map(|frame| if let Packet::Udp(udp) = &frame.packet { Some(udp) } else { None }).collect();
    let messages: Vec<&Icmp> = frames
        .iter()
        .filter_map(|frame| if let Packet::Icmp(icmp) = &frame.packet { Some(icmp) } else { None })
        .collect();
    assert_eq!(datagrams.len() + messages.len(), frames.len());
    let [query, answer, query6, answer6] = datagrams[..] else { panic!("{datagrams:?}") };
    assert_eq!((query.destination.port(), query.payload.len()), (53, 512), "the first 512 bytes");
    assert_eq!((answer.source.port(), &answer.payload[..]), (53, &b"answer"[..]));
    assert_eq!((query6.destination.port(), query6.payload.len()), (53, 512));
    assert_eq!((answer6.source.port(), &answer6.payload[..]), (53, &b"answer"[..]));
    let [unreachable, request, reply] = messages[..] else { panic!("{messages:?}") };
    assert_eq!((unreachable.kind, unreachable.code), (3, 3));
    // After four bytes the packet that caused it, whose destination port is 9.
    assert_eq!(unreachable.body[4 + 22..4 + 24], [0, 9]);
    assert_eq!((request.kind, reply.kind), (8, 0));
    assert_eq!((&request.body[2..4], &request.body[4..]), (&[0, 5][..], &[1, 2, 3][..]));
}

#[tokio::test]
async fn hosts_and_prefixes_narrow() {
    if !allowed() {
        return;
    }
    let ns = loopback();
    ip(&ns, "addr add fd00:0:0:1::1/128 dev lo nodad");
    let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let mut captures = [
        Filter::syn().host(address("127.0.0.2")),
        Filter::syn().prefix(address("127.0.1.0"), 24),
        Filter::syn().prefix(address("fd00:0:0:1::"), 64),
        Filter::syn().host(address("fd00::1")),
        Filter::syn().prefix(address("127.0.0.0"), 8),
    ]
    .map(|filter| Capture::open(&ns, &filter.outgoing()).expect("a capture"));
    for to in ["127.0.0.2:0", "127.0.1.77:0", "[fd00:0:0:1::1]:0", "[fd00::1]:0"] {
        transfer(&ns, to, 10);
    }
    let mut counts = Vec::new();
    for capture in &mut captures {
        counts.push(everything(capture).await.len());
    }
    assert_eq!(counts, [2, 2, 2, 2, 4]);
}

/// What I4 needs: on a router every forwarded SYN is seen twice, and outgoing once, on the right link.
#[tokio::test]
async fn a_forwarded_packet_is_outgoing_once() {
    if !allowed() {
        return;
    }
    let [client, router, server] = ["client", "router", "server"].map(|name| NetNs::create(name).expect("a namespace"));
    for (ns, link, ifindex, net) in [(&client, "left", 11, "10.0.1"), (&server, "right", 12, "10.0.2")] {
        let path = format!("/proc/{}/fd/{}", std::process::id(), ns.as_fd().as_raw_fd());
        ip(
            &router,
            &format!(
                "link add name {link} index {} type veth peer name eth0 index {ifindex} netns {path}
                 addr add {net}.9/24 dev {link}
                 link set {link} up",
                ifindex + 10
            ),
        );
        ip(ns, &format!("addr add {net}.1/24 dev eth0\n link set eth0 up\n route add default via {net}.9"));
    }
    sysctl(&router, "ipv4/ip_forward", "1");
    let mut capture = Capture::open(&router, &Filter::syn()).expect("a capture");
    let listener = server.run(|| TcpListener::bind("10.0.2.1:3306")).expect("entered").expect("bound");
    let _connection = client.run(|| TcpStream::connect("10.0.2.1:3306")).expect("entered").expect("connected");
    drop(listener);
    let frames = collect(&mut capture, |frames| frames.len() >= 4).await;
    let seen: Vec<_> = frames.iter().map(|frame| (frame.ifindex, frame.outgoing)).collect();
    assert_eq!(seen, [(21, false), (22, true), (22, false), (21, true)], "{frames:?}");
    assert!(frames.is_sorted_by_key(|frame| frame.at));
}

/// A ring that nobody empties overflows, and says so.
#[tokio::test]
async fn loss_is_counted() {
    if !allowed() {
        return;
    }
    let ns = loopback();
    let mut capture = Capture::open(&ns, &Filter::dns().outgoing()).expect("a capture");
    let sent = 3000;
    ns.run(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let resolver = UdpSocket::bind("127.0.0.1:53").expect("bound");
        for _ in 0..sent {
            socket.send_to(b"query", resolver.local_addr().expect("bound")).expect("sent");
        }
    })
    .expect("entered");
    let frames = everything(&mut capture).await;
    let lost = capture.lost();
    assert!(lost > 0);
    assert_eq!(frames.len() as u64 + lost, sent);
    assert_eq!(capture.lost(), lost, "a total, not the news");
}
