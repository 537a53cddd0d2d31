//! Captures on the loopback interface of a namespace, and on a router between two hosts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use relapse_kernel::link::{self, LOOPBACK};
use relapse_kernel::packet::{Capture, Filter, Frame, Packet, Tcp, Udp};
use relapse_kernel::route::Route;
use relapse_kernel::{NetNs, clock};

use crate::common::{add_address, add_route, connect, join, listen, namespace, namespaces};
use crate::needs::tests;

tests! {
    namespaces => [
        syn_filter_sees_handshakes_of_both_families,
        oversized_frames_tell_their_segment_size,
        ip_options_do_not_mislead_the_filter,
        dns_passes_and_nothing_else_does,
        a_forwarded_packet_is_outgoing_once,
        loss_is_counted,
    ],
}

fn loopback() -> NetNs {
    let ns = namespace("packet", false);
    link::set_mtu(&ns, LOOPBACK, 1500).expect("set");
    let six = "fd00::1".parse().expect("an address");
    add_address(&ns, LOOPBACK, six, 128).expect("an address");
    ns
}

/// Connects to `address` inside `ns` and transfers `bytes` from client to server.
fn transfer(ns: &NetNs, address: &str, bytes: usize) -> SocketAddr {
    ns.run(|| {
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

/// Collects frames until `enough`, or for a second.
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

/// All frames captured within 50 ms, to check that others are absent.
async fn everything(capture: &mut Capture) -> Vec<Frame> {
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut frames = Vec::new();
    while capture.drain(&mut frames) > 0 {}
    frames
}

/// Outgoing frames only: on the loopback interface every frame is both sent and received.
fn sent(frames: &[Frame]) -> impl Iterator<Item = &Packet> {
    frames.iter().filter(|frame| frame.outgoing).map(|frame| &frame.packet)
}

fn tcp(frames: &[Frame]) -> Vec<Tcp> {
    sent(frames).filter_map(|packet| if let Packet::Tcp(tcp) = packet { Some(*tcp) } else { None }).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn syn_filter_sees_handshakes_of_both_families() {
    let ns = loopback();
    let mut capture = Capture::open(&ns, &Filter::syn()).expect("a capture");
    let before = clock::now();
    for address in ["127.0.0.1:0", "[fd00::1]:0"] {
        let server = transfer(&ns, address, 100_000);
        let frames = everything(&mut capture).await;
        let [syn, answer] = tcp(&frames)[..] else { panic!("{frames:?}") };
        assert!(syn.flags.syn && !syn.flags.ack && answer.flags.syn && answer.flags.ack);
        assert_eq!((syn.destination, answer.source), (server, server));
        // 1500 minus the IP and TCP headers.
        let mss = if server.is_ipv4() { 1460 } else { 1440 };
        assert_eq!((syn.mss, answer.mss), (Some(mss), Some(mss)));
        assert_eq!(answer.acknowledgment, syn.sequence.wrapping_add(1));
        assert!(syn.tsval.is_some() && answer.tsval.is_some());
        assert!(frames.iter().all(|frame| frame.ifindex == 1));
        assert!(frames.iter().all(|frame| frame.at >= before && frame.at <= clock::now()), "{before} {frames:?}");
    }
    assert_eq!(capture.lost(), 0);
}

#[tokio::main(flavor = "current_thread")]
async fn oversized_frames_tell_their_segment_size() {
    let ns = loopback();
    for (address, segment) in [("127.0.0.1:0", 1448), ("[fd00::1]:0", 1428)] {
        let mut capture = Capture::open(&ns, &Filter::tcp()).expect("a capture");
        let server = transfer(&ns, address, 300_000);
        let segments = tcp(&everything(&mut capture).await);
        let sent: Vec<_> =
            segments.iter().filter(|segment| segment.destination == server && segment.payload_len > 0).collect();
        // Some data may have been retransmitted.
        assert!(sent.iter().all(|one| one.payload_len < 12 || one.head == [7; 12]), "{sent:?}");
        let ends = sent.iter().map(|one| one.sequence.wrapping_sub(sent[0].sequence) + one.payload_len);
        assert_eq!(ends.max(), Some(300_000), "{sent:?}");
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

#[tokio::main(flavor = "current_thread")]
async fn ip_options_do_not_mislead_the_filter() {
    let ns = loopback();
    let mut capture = Capture::open(&ns, &Filter::syn()).expect("a capture");
    ns.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        // Router alert (RFC 2113): four more bytes of header.
        let option = [0x94_u8, 4, 0, 0];
        // SAFETY: the value is live, has the given length and is only read.
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

#[tokio::main(flavor = "current_thread")]
async fn dns_passes_and_nothing_else_does() {
    let ns = loopback();
    let mut capture = Capture::open(&ns, &Filter::dns()).expect("a capture");
    ns.run(|| {
        for to in ["127.0.0.1", "[fd00::1]"] {
            let resolver = UdpSocket::bind(format!("{to}:53")).expect("bound");
            let client = UdpSocket::bind(format!("{to}:0")).expect("bound");
            client.send_to(&[9; 600], resolver.local_addr().expect("bound")).expect("sent");
            let (_, from) = resolver.recv_from(&mut [0; 600]).expect("received");
            resolver.send_to(b"answer", from).expect("sent");
            client.send_to(b"not dns", from).expect("sent");
        }
    })
    .expect("entered");
    transfer(&ns, "127.0.0.1:0", 1000);
    let frames = everything(&mut capture).await;
    let datagrams: Vec<&Udp> =
        sent(&frames).filter_map(|packet| if let Packet::Udp(udp) = packet { Some(udp) } else { None }).collect();
    let [query, answer, query6, answer6] = datagrams[..] else { panic!("{frames:?}") };
    assert_eq!(sent(&frames).count(), datagrams.len());
    for (query, answer) in [(query, answer), (query6, answer6)] {
        assert_eq!((query.destination.port(), query.payload.len()), (53, 512), "the first 512 bytes");
        assert_eq!((answer.source.port(), &answer.payload[..]), (53, &b"answer"[..]));
    }
}

/// On a router every forwarded SYN is seen twice, once as outgoing, each on the expected link.
#[tokio::main(flavor = "current_thread")]
async fn a_forwarded_packet_is_outgoing_once() {
    let (client, router, server) = (namespace("client", false), namespace("router", true), namespace("server", false));
    let (_, left) = join(&client, &router, 1, 1500);
    let (right, far) = join(&router, &server, 2, 1500);
    add_route(&client, &Route::default_via(left.address)).expect("a route");
    add_route(&server, &Route::default_via(right.address)).expect("a route");
    let mut capture = Capture::open(&router, &Filter::syn()).expect("a capture");
    let _listener = listen(&server, SocketAddr::new(far.address, 3306));
    let _connection = connect(&client, SocketAddr::new(far.address, 3306)).expect("connected");
    let frames = collect(&mut capture, |frames| frames.len() >= 4).await;
    let seen: Vec<_> = frames.iter().map(|frame| (frame.ifindex, frame.outgoing)).collect();
    let (left, right) = (left.index, right.index);
    assert_eq!(seen, [(left, false), (right, true), (right, false), (left, true)], "{frames:?}");
    assert!(frames.is_sorted_by_key(|frame| frame.at));
}

/// A ring that is not read overflows and counts the lost frames.
#[tokio::main(flavor = "current_thread")]
async fn loss_is_counted() {
    let ns = loopback();
    let mut capture = Capture::open(&ns, &Filter::dns()).expect("a capture");
    let datagrams = 3000;
    ns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let resolver = UdpSocket::bind("127.0.0.1:53").expect("bound");
        for _ in 0..datagrams {
            socket.send_to(b"query", resolver.local_addr().expect("bound")).expect("sent");
        }
    })
    .expect("entered");
    let frames = everything(&mut capture).await;
    let lost = capture.lost();
    assert!(lost > 0);
    assert_eq!(frames.len() as u64 + lost, 2 * datagrams, "sent and received");
    assert_eq!(capture.lost(), lost, "a total, not the difference");
}
