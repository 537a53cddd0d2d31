//! Sockets in namespaces, and the first packets of a lab that was just built.

mod common;
#[path = "common/pair.rs"]
mod pair;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use relapse_kernel::NetNs;
use relapse_kernel::builder::{Builder, VethEnd};
use relapse_kernel::link::{self, LOOPBACK};
use relapse_kernel::route::{Route, Rule};
use relapse_kernel::socket::{Icmp, StreamOptions, tcp_listener, tcp_stream_socket, udp};
use relapse_kernel::sysctl::{apply, lab_settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

const NODES: usize = 16;

/// A router with `NODES` neighbours, each in a namespace of its own.
struct Star {
    router: NetNs,
    nodes: Vec<(NetNs, IpAddr)>,
}

async fn star() -> Star {
    let router = NetNs::create("router").expect("made");
    apply(&router, &lab_settings(true)).expect("settings");
    let mut nodes = Vec::new();
    for n in 0..NODES {
        nodes.push(node(&router, u8::try_from(n).expect("few")).await.expect("built"));
    }
    Star { router, nodes }
}

async fn node(router: &NetNs, n: u8) -> relapse_kernel::Result<(NetNs, IpAddr)> {
    let ns = NetNs::create(&format!("node-{n}"))?;
    apply(&ns, &lab_settings(false))?;
    let (node, router) = (Builder::open(&ns)?, Builder::open(router)?);
    node.set_up(LOOPBACK).await?;
    let (address, gateway) = (IpAddr::from([10, 1, n, 2]), IpAddr::from([10, 1, n, 1]));
    let (here, there) = ([2, 1, 0, 0, n, 2], [2, 1, 0, 0, n, 1]);
    let near = VethEnd { at: node.clone(), name: "eth0".into(), index: 2, mac: here, mtu: 1500 };
    let far = VethEnd { at: router, name: format!("to-node-{n}"), index: 100 + u32::from(n), mac: there, mtu: 1500 };
    near.make(&far).await?;
    node.add_address(near.index, address, 24).await?;
    far.at.add_address(far.index, gateway, 24).await?;
    near.knows(gateway, &far).await?;
    far.knows(address, &near).await?;
    far.at.add_route(&Route::to(address, 32).dev(far.index)).await?;
    let default = Route::default_via(gateway).dev(near.index).onlink();
    node.add_route(&default).await?;
    node.add_route(&default.table(2)).await?;
    node.add_rule(&Rule::ipv4(1000).from(address, 32).table(2)).await?;
    Ok((ns, address))
}

#[tokio::test]
async fn the_first_connection_works_at_once_everywhere() {
    if !common::namespaces() {
        return;
    }
    let start = Instant::now();
    let star = star().await;
    let built = start.elapsed();
    let mut slowest = Duration::ZERO;
    for n in 0..NODES {
        let (client, own) = &star.nodes[n];
        let (server, address) = &star.nodes[(n + 1) % NODES];
        slowest = slowest.max(exchange(client, *own, server, *address).await);
    }
    println!("{NODES} namespaces built in {built:?}, the slowest first exchange took {slowest:?}");
    // A packet that is lost to an unready link is sent again after a second.
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert_eq!(link::list(&star.router).expect("listed").iter().filter(|l| l.carrier).count(), NODES);
}

async fn exchange(client: &NetNs, own: IpAddr, server: &NetNs, address: IpAddr) -> Duration {
    let target = SocketAddr::new(address, 80);
    let listener = TcpListener::from_std(tcp_listener(server, target, 16).expect("listening")).expect("driven");
    let start = Instant::now();
    let options = StreamOptions { bind: Some(SocketAddr::new(own, 0)), nodelay: true, reset_on_close: true };
    let socket = tcp_stream_socket(client, address, options).expect("made");
    let socket = TcpSocket::from_std_stream(socket.into());
    let (connected, accepted) = tokio::join!(socket.connect(target), listener.accept());
    let (mut near, (mut far, from)) = (connected.expect("connected"), accepted.expect("accepted"));
    assert_eq!(from.ip(), own);
    near.write_all(b"ping").await.expect("sent");
    let mut read = [0; 4];
    far.read_exact(&mut read).await.expect("received");
    start.elapsed()
}

#[tokio::test]
async fn tcp_uses_cubic_whatever_the_machine_does() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let (_left, right) = pair::join(&a, &b, 1, 1500);
    let socket = tcp_stream_socket(&a, right.address, StreamOptions::default()).expect("made");
    let name = socket.tcp_congestion().expect("asked");
    assert!(name.starts_with(b"cubic"), "{}", String::from_utf8_lossy(&name));
    let listener = tcp_listener(&b, SocketAddr::new(right.address, 80), 16).expect("listening");
    let listener = TcpListener::from_std(listener).expect("driven");
    let stream = TcpSocket::from_std_stream(socket.into());
    let (near, far) = tokio::join!(stream.connect(SocketAddr::new(right.address, 80)), listener.accept());
    near.expect("connected");
    let far = far.expect("accepted").0;
    assert!(socket2::SockRef::from(&far).tcp_congestion().expect("asked").starts_with(b"cubic"), "inherited");
}

#[tokio::test]
async fn udp_reaches_the_other_side() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let (left, right) = pair::join(&a, &b, 1, 1500);
    let client = UdpSocket::from_std(udp(&a, SocketAddr::new(left.address, 0)).expect("bound")).expect("driven");
    let target = SocketAddr::new(right.address, 53);
    let server = UdpSocket::from_std(udp(&b, target).expect("bound")).expect("driven");
    client.send_to(b"question", target).await.expect("sent");
    let mut buffer = [0; 64];
    let (length, from) = server.recv_from(&mut buffer).await.expect("received");
    assert_eq!((&buffer[..length], from.ip()), (&b"question"[..], left.address));
}

#[tokio::test]
async fn echo_tells_open_ways_from_closed_ones() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let (left, right) = pair::join(&a, &b, 1, 1500);
    let icmp = Icmp::open(&a, Some(left.address)).expect("opened");
    for _ in 0..3 {
        let answer = icmp.echo(right.address, Duration::from_secs(1)).await.expect("sent");
        assert!(answer.is_some());
    }
    let none = icmp.echo("192.0.2.1".parse().expect("an address"), Duration::from_millis(50)).await;
    assert_eq!(none.expect_err("no way").raw_os_error(), Some(libc::ENETUNREACH));
    link::set_up(&b, right.index, false).expect("down");
    assert_eq!(icmp.echo(right.address, Duration::from_millis(50)).await.ok().flatten(), None);
    link::set_up(&b, right.index, true).expect("up");
    link::wait_running(&b, right.index).expect("running");
    link::wait_running(&a, left.index).expect("running");
    let builder = Builder::open(&b).expect("opened");
    builder.add_neighbour(right.index, left.address, [2, 0, 0, 0, 1, 1]).await.expect("written down again");
    builder.add_route(&Route::to(left.address, 32).dev(right.index)).await.expect("and the route");
    let open = icmp.echo(right.address, Duration::from_secs(1)).await.expect("sent");
    assert!(open.is_some());
}

#[tokio::test]
async fn echo_speaks_ipv6() {
    if !common::namespaces() {
        return;
    }
    let (a, b) = (pair::namespace("a", false), pair::namespace("b", false));
    let (left, right) = pair::join(&a, &b, 1, 1500);
    let address = |host: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host]);
    for (ns, index, own, other, mac) in [(&a, left.index, 1, 2, 2), (&b, right.index, 2, 1, 1)] {
        let builder = Builder::open(ns).expect("opened");
        builder.add_address(index, address(own), 64).await.expect("an address");
        builder.add_neighbour(index, address(other), [2, 0, 0, 0, 1, mac]).await.expect("a neighbour");
        builder.add_route(&Route::to(address(0), 64).dev(index)).await.expect("a route");
    }
    let icmp = Icmp::open(&a, Some(address(1))).expect("opened");
    let answer = icmp.echo(address(2), Duration::from_secs(1)).await.expect("sent");
    assert!(answer.is_some());
}
