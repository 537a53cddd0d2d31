//! TCP sockets of a namespace: listing and closing them.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use relapse_kernel::NetNs;
use relapse_kernel::link::{LOOPBACK, set_mtu, set_up};
use relapse_kernel::sockdiag::{ALL, SockDiag, TcpSocket, destroy_all, mask, state};

use crate::common::namespaces;
use crate::needs::tests;

tests! {
    namespaces => [
        both_families_are_listed_with_their_numbers,
        only_those_that_say_something_are_asked_for_their_numbers,
        timeouts_are_told_apart_from_retransmissions,
        a_destroyed_connection_is_aborted_at_both_ends,
        destroy_all_ends_what_no_process_holds,
    ],
}

fn namespace() -> NetNs {
    let ns = NetNs::create("sockdiag").expect("a namespace");
    set_mtu(&ns, LOOPBACK, 1500).expect("set");
    set_up(&ns, LOOPBACK, true).expect("lo up");
    ns
}

struct Pair {
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

fn pair(ns: &NetNs, address: &str) -> Pair {
    ns.run(|| {
        let listener = TcpListener::bind(address)?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        std::io::Result::Ok(Pair { listener, client, server })
    })
    .expect("entered")
    .expect("a connection")
}

/// Drops everything that arrives for `socket` from here on.
fn deafen(socket: &impl std::os::fd::AsFd) {
    socket2::SockRef::from(socket).attach_filter(&[socket2::SockFilter::new(0x06, 0, 0, 0)]).expect("attached");
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn client_of(diag: &SockDiag, pair: &Pair) -> Option<TcpSocket> {
    let local = pair.client.local_addr().expect("connected");
    diag.tcp_sockets(ALL).expect("listed").into_iter().find(|socket| socket.local == local)
}

fn both_families_are_listed_with_their_numbers() {
    let ns = namespace();
    let diag = SockDiag::open(&ns).expect("opened");
    assert_eq!(diag.tcp_sockets(ALL).expect("listed"), [], "only this namespace's");
    for (address, mss) in [("127.0.0.1:0", 1448), ("[::1]:0", 1428), ("[::]:0", 1448)] {
        let mut pair = pair(&ns, address);
        pair.client.write_all(&[1; 5000]).expect("written");
        // The SYN counts as one byte.
        let info = wait_for(|| client_of(&diag, &pair)?.info.filter(|info| info.bytes_acked == 5001));
        assert_eq!((info.unacked, info.retransmits, info.total_retrans), (0, 0, 0));
        if address != "[::]:0" {
            assert_eq!(info.snd_mss, mss);
        }
        assert!(info.rto_us >= 200_000 && info.rtt_us > 0, "{info:?}");
        let all = diag.tcp_sockets(ALL).expect("listed");
        let server = all
            .iter()
            .find(|socket| socket.remote == pair.client.local_addr().expect("connected"))
            .expect("the other end");
        assert_eq!((server.state, server.info.expect("tcp_info").bytes_received), (state::ESTABLISHED, 5000));
        assert_eq!(server.remote.is_ipv4(), address.starts_with("127"));
        let listening = diag.tcp_sockets(mask(&[state::LISTEN])).expect("listed");
        assert_eq!(
            listening.iter().map(|one| one.local).collect::<Vec<_>>(),
            [pair.listener.local_addr().expect("bound")]
        );
        destroy_all(&ns).expect("ended");
    }
}

fn only_those_that_say_something_are_asked_for_their_numbers() {
    let ns = namespace();
    let diag = SockDiag::open(&ns).expect("opened");
    let (_quiet, mut stuck) = (pair(&ns, "127.0.0.1:0"), pair(&ns, "[::1]:0"));
    deafen(&stuck.server);
    stuck.client.write_all(&[1; 1000]).expect("written");
    let found = diag.tcp_sockets_that(mask(&[state::ESTABLISHED]), |socket| socket.send_queue > 0).expect("listed");
    let [socket] = &found[..] else { panic!("{found:?}") };
    assert_eq!(socket.local, stuck.client.local_addr().expect("connected"));
    assert_eq!(socket.info.map(|info| info.unacked), Some(1));
    destroy_all(&ns).expect("ended");
}

fn timeouts_are_told_apart_from_retransmissions() {
    let ns = namespace();
    let diag = SockDiag::open(&ns).expect("opened");
    let mut pair = pair(&ns, "127.0.0.1:0");
    deafen(&pair.server);
    pair.client.write_all(&[1; 3000]).expect("written");
    let (socket, info) = wait_for(|| {
        let socket = client_of(&diag, &pair)?;
        let info = socket.info.filter(|info| info.retransmits >= 2)?;
        Some((socket, info))
    });
    assert_eq!(socket.send_queue, 3000);
    assert!(info.unacked > 0 && info.total_retrans > u32::from(info.retransmits));
    destroy_all(&ns).expect("ended");
}

fn a_destroyed_connection_is_aborted_at_both_ends() {
    let ns = namespace();
    let diag = SockDiag::open(&ns).expect("opened");
    let mut pair = pair(&ns, "[::1]:0");
    let socket = client_of(&diag, &pair).expect("listed");
    diag.destroy(&socket).expect("ended");
    diag.destroy(&socket).expect("closing it twice is not an error");
    assert_eq!(pair.client.write(b"x").expect_err("aborted").kind(), ErrorKind::ConnectionAborted);
    assert_eq!(std::io::Read::read(&mut pair.server, &mut [0]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
    assert_eq!(diag.tcp_sockets(ALL).expect("listed").len(), 1, "only the listener is left");
}

fn destroy_all_ends_what_no_process_holds() {
    let ns = namespace();
    let diag = SockDiag::open(&ns).expect("opened");
    // An orphan with unacknowledged data.
    let mut stuck = pair(&ns, "127.0.0.1:0");
    deafen(&stuck.server);
    stuck.client.write_all(&[1; 1000]).expect("written");
    drop(stuck.client);
    // TIME_WAIT at the end that closed first.
    let waiting = pair(&ns, "[::1]:0");
    waiting.client.shutdown(Shutdown::Both).expect("shut down");
    drop((waiting.server, waiting.client));
    // SYN_SENT: the listener receives nothing, otherwise the half-open connection would be SYN_RECV.
    let deaf = ns.run(|| TcpListener::bind("127.0.0.1:0")).expect("entered").expect("bound");
    deafen(&deaf);
    let calling = ns
        .run(move || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            let _ = socket.connect(&deaf.local_addr()?.into());
            std::io::Result::Ok((socket, deaf))
        })
        .expect("entered")
        .expect("a socket");
    let wanted = [state::FIN_WAIT_1, state::TIME_WAIT, state::SYN_SENT, state::LISTEN];
    wait_for(|| {
        let present = diag.tcp_sockets(ALL).expect("listed");
        wanted.iter().all(|state| present.iter().any(|socket| socket.state == *state)).then_some(())
    });
    assert!(destroy_all(&ns).expect("ended") >= wanted.len());
    assert_eq!(diag.tcp_sockets(ALL).expect("listed"), []);
    drop(calling);
}
