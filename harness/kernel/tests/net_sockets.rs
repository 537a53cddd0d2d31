//! Sockets in namespaces, and the first packets of a newly built lab.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use relapse_kernel::NetNs;
use relapse_kernel::link;
use relapse_kernel::route::{MAIN, Route, Rule};
use relapse_kernel::socket::{Icmp, tcp_listener, tcp_stream_socket, udp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

use crate::common::{add_address, add_neighbour, add_route, add_rule, hosts, join, namespace, namespaces};
use crate::needs::tests;

tests! {
    namespaces => [
        the_first_connection_works_at_once_everywhere,
        tcp_uses_cubic_whatever_the_machine_does,
        udp_reaches_the_other_side,
        echo_tells_open_ways_from_closed_ones,
        echo_speaks_ipv6,
    ],
}

const NODES: u8 = 16;

fn node(router: &NetNs, n: u8) -> (NetNs, IpAddr) {
    let ns = namespace(&format!("node-{n}"), false);
    let (here, gateway) = join(&ns, router, n, 1500);
    for table in [MAIN, 2] {
        add_route(&ns, &Route::default_via(gateway.address).dev(here.index).table(table)).expect("a route");
    }
    add_rule(&ns, &Rule::ipv4(1000).from(here.address, 32).table(2)).expect("a rule");
    (ns, here.address)
}

/// Connections over a router with `NODES` neighbours.
#[tokio::main(flavor = "current_thread")]
async fn the_first_connection_works_at_once_everywhere() {
    let router = namespace("router", true);
    let nodes: Vec<_> = (0..NODES).map(|n| node(&router, n)).collect();
    let mut slowest = Duration::ZERO;
    for (n, (client, own)) in nodes.iter().enumerate() {
        let (server, address) = &nodes[(n + 1) % nodes.len()];
        slowest = slowest.max(exchange(client, *own, server, *address).await);
    }
    // A packet lost on a link that is not ready is retransmitted after a second.
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    let running =
        link::list(&router).expect("listed").iter().filter(|l| l.carrier && l.index != link::LOOPBACK).count();
    assert_eq!(running, nodes.len());
}

async fn exchange(client: &NetNs, own: IpAddr, server: &NetNs, address: IpAddr) -> Duration {
    let target = SocketAddr::new(address, 80);
    let listener = TcpListener::from_std(tcp_listener(server, target, 16).expect("listening")).expect("driven");
    let start = Instant::now();
    let socket = tcp_stream_socket(client, address, Some(SocketAddr::new(own, 0))).expect("made");
    socket.set_linger(Some(Duration::ZERO)).expect("reset on close");
    let socket = TcpSocket::from_std_stream(socket.into());
    let (connected, accepted) = tokio::join!(socket.connect(target), listener.accept());
    let (mut near, (mut far, from)) = (connected.expect("connected"), accepted.expect("accepted"));
    assert_eq!(from.ip(), own);
    near.write_all(b"ping").await.expect("sent");
    let mut read = [0; 4];
    far.read_exact(&mut read).await.expect("received");
    start.elapsed()
}

#[tokio::main(flavor = "current_thread")]
async fn tcp_uses_cubic_whatever_the_machine_does() {
    let (a, b, _left, right) = hosts();
    let socket = tcp_stream_socket(&a, right.address, None).expect("made");
    let name = socket.tcp_congestion().expect("queried");
    assert!(name.starts_with(b"cubic"), "{}", String::from_utf8_lossy(&name));
    let listener = tcp_listener(&b, SocketAddr::new(right.address, 80), 16).expect("listening");
    let listener = TcpListener::from_std(listener).expect("driven");
    let stream = TcpSocket::from_std_stream(socket.into());
    let (near, far) = tokio::join!(stream.connect(SocketAddr::new(right.address, 80)), listener.accept());
    near.expect("connected");
    let far = far.expect("accepted").0;
    assert!(socket2::SockRef::from(&far).tcp_congestion().expect("queried").starts_with(b"cubic"), "inherited");
}

#[tokio::main(flavor = "current_thread")]
async fn udp_reaches_the_other_side() {
    let (a, b, left, right) = hosts();
    let client = UdpSocket::from_std(udp(&a, SocketAddr::new(left.address, 0)).expect("bound")).expect("driven");
    let target = SocketAddr::new(right.address, 53);
    let server = UdpSocket::from_std(udp(&b, target).expect("bound")).expect("driven");
    client.send_to(b"question", target).await.expect("sent");
    let mut buffer = [0; 64];
    let (length, from) = server.recv_from(&mut buffer).await.expect("received");
    assert_eq!((&buffer[..length], from.ip()), (&b"question"[..], left.address));
}

#[tokio::main(flavor = "current_thread")]
async fn echo_tells_open_ways_from_closed_ones() {
    let (a, b, left, right) = hosts();
    let icmp = Icmp::open(&a, Some(left.address)).expect("opened");
    for _ in 0..3 {
        let answer = icmp.echo(right.address, Duration::from_secs(1)).await.expect("sent");
        assert!(answer.is_some());
    }
    let none = icmp.echo("192.0.2.1".parse().expect("an address"), Duration::from_millis(50)).await;
    assert_eq!(none.expect_err("no route").raw_os_error(), Some(libc::ENETUNREACH));
    link::set_up(&b, right.index, false).expect("down");
    assert_eq!(icmp.echo(right.address, Duration::from_millis(50)).await.ok().flatten(), None);
    link::set_up(&b, right.index, true).expect("up");
    link::wait_running(&b, right.index).expect("running");
    link::wait_running(&a, left.index).expect("running");
    add_neighbour(&b, right.index, left.address, [2, 0, 0, 0, 1, 1]).expect("removed when the link was set down");
    add_route(&b, &Route::to(left.address, 32).dev(right.index)).expect("a route, removed as well");
    let open = icmp.echo(right.address, Duration::from_secs(1)).await.expect("sent");
    assert!(open.is_some());
}

#[tokio::main(flavor = "current_thread")]
async fn echo_speaks_ipv6() {
    let (a, b, left, right) = hosts();
    let address = |host: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host]);
    for (ns, index, own, other, mac) in [(&a, left.index, 1, 2, 2), (&b, right.index, 2, 1, 1)] {
        add_address(ns, index, address(own), 64).expect("an address");
        add_route(ns, &Route::to(address(0), 64).dev(index)).expect("a route");
        add_neighbour(ns, index, address(other), [2, 0, 0, 0, 1, mac]).expect("a neighbour");
    }
    let icmp = Icmp::open(&a, Some(address(1))).expect("opened");
    let answer = icmp.echo(address(2), Duration::from_secs(1)).await.expect("sent");
    assert!(answer.is_some());
}
