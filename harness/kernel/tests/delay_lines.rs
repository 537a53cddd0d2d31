//! Packets that a router delivers late, or not at all, and what waits there while rules change.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use relapse_kernel::NetNs;
use relapse_kernel::delay::{Line, Shape};
use relapse_kernel::nft::{self, Chain, CtState, Hook, Policy, Rule, Table};
use relapse_kernel::route::Route;
use relapse_kernel::socket::{tcp_stream_socket, udp};
use rustix::time::{ClockId, clock_gettime};

use crate::common::{SHORT, Side, add_route, join, listen, namespace, namespaces};
use crate::needs::tests;

tests! {
    namespaces => [
        datagrams_are_late_and_in_order,
        all_are_lost_until_the_line_is_changed,
        what_waits_outlives_its_rule_and_its_line,
        a_queue_has_one_reader,
        a_transfer_arrives_whole_in_one_piece_and_in_segments,
        a_rate_takes_its_time,
    ],
}

const TABLE: &str = "relapse-test";
const PORT: u16 = 9;

/// Two hosts and the router between them, which hands over what goes forth and what comes back to two queues.
struct Path {
    near: NetNs,
    router: NetNs,
    far: NetNs,
    from: SocketAddr,
    to: SocketAddr,
}

impl Path {
    fn new() -> Self {
        let (near, router, far) = (namespace("near", false), namespace("router", true), namespace("far", false));
        let (here, port) = join(&near, &router, 1, 1500);
        let (there, other_port) = join(&far, &router, 2, 1500);
        let via = |ns, own: &Side, port: &Side, to: &Side| {
            add_route(ns, &Route::to(to.address, 32).via(port.address).dev(own.index)).expect("a route");
        };
        via(&near, &here, &port, &there);
        via(&far, &there, &other_port, &here);
        Self { from: (here.address, 0).into(), to: (there.address, PORT).into(), near, router, far }
    }

    fn rules(&self, forth: Option<u16>, back: Option<u16>) -> Table {
        let chain = |name, priority| Chain::filter(name, Hook::Forward, priority, Policy::Accept);
        // Flows are tracked, as in a lab's fabric: several packets of a new one wait unconfirmed.
        let mut table = Table::new(TABLE)
            .chain(chain("forth", 1))
            .chain(chain("back", 2))
            .chain(Chain::filter("mark", Hook::Prerouting, -150, Policy::Accept))
            .chain(Chain::nat("nat", Hook::Prerouting, -100))
            .rule("mark", Rule::new().ct_state(&[CtState::New]).ct_mark_set(7).comment("mark"));
        for (chain, queue, rule) in [
            ("forth", forth, Rule::new().ip_daddr((self.to.ip(), 32))),
            ("back", back, Rule::new().ip_saddr((self.to.ip(), 32))),
        ] {
            if let Some(queue) = queue {
                table = table.rule(chain, rule.queue(queue).comment(chain));
            }
        }
        table
    }

    /// One way only.
    fn line(&self, shape: Shape) -> Line {
        let line = Line::open(&self.router, 0, shape).expect("a line");
        self.rules(Some(0), None).refill(&self.router).expect("in force");
        line
    }

    fn datagrams(&self) -> (UdpSocket, UdpSocket) {
        let (sender, receiver) = (udp(&self.near, self.from).expect("bound"), udp(&self.far, self.to).expect("bound"));
        receiver.set_nonblocking(false).expect("blocking");
        receiver.set_read_timeout(Some(SHORT)).expect("bounded");
        (sender, receiver)
    }

    fn connected(&self) -> (TcpStream, TcpStream) {
        let server: TcpListener = listen(&self.far, self.to);
        let socket = tcp_stream_socket(&self.near, self.to.ip(), None).expect("a socket");
        socket.set_linger(Some(Duration::ZERO)).expect("resets");
        socket.connect_timeout(&self.to.into(), Duration::from_secs(2)).expect("connected");
        socket.set_nonblocking(false).expect("blocking");
        let accepted = server.accept().expect("arrived").0;
        accepted.set_read_timeout(Some(Duration::from_secs(10))).expect("bounded");
        (socket.into(), accepted)
    }
}

fn late(millis: u64) -> Shape {
    Shape { delay: Duration::from_millis(millis), ..Shape::default() }
}

fn send(socket: &UdpSocket, path: &Path, number: u8) {
    socket.send_to(&[number; 1000], path.to).expect("sent");
}

fn next(socket: &UdpSocket) -> Option<u8> {
    let mut datagram = [0; 1000];
    socket.recv(&mut datagram).ok().map(|_| datagram[0])
}

fn datagrams_are_late_and_in_order() {
    let path = Path::new();
    let (sender, receiver) = path.datagrams();
    let jitter = Duration::from_millis(10);
    let line = path.line(Shape { jitter, ..late(30) });
    let begin = Instant::now();
    (0..100).for_each(|number| send(&sender, &path, number));
    assert_eq!(next(&receiver), Some(0));
    assert!(begin.elapsed() >= Duration::from_millis(19), "{:?}", begin.elapsed());
    assert_eq!((1..100).map_while(|_| next(&receiver)).collect::<Vec<_>>(), (1..100).collect::<Vec<_>>());
    // What comes after a change does not overtake what came before it.
    line.set(late(100)).expect("set");
    send(&sender, &path, 1);
    line.set(Shape::default()).expect("set");
    send(&sender, &path, 2);
    assert_eq!([next(&receiver), next(&receiver)], [Some(1), Some(2)]);
}

fn all_are_lost_until_the_line_is_changed() {
    let path = Path::new();
    let (sender, receiver) = path.datagrams();
    let line = path.line(Shape { loss: 1.0, ..Shape::default() });
    (0..10).for_each(|number| send(&sender, &path, number));
    assert_eq!(next(&receiver), None);
    line.set(Shape::default()).expect("set");
    send(&sender, &path, 10);
    assert_eq!(next(&receiver), Some(10));
}

fn what_waits_outlives_its_rule_and_its_line() {
    let path = Path::new();
    let (sender, receiver) = path.datagrams();
    let line = path.line(late(150));
    send(&sender, &path, 1);
    path.rules(None, None).refill(&path.router).expect("in force");
    assert_eq!(nft::read(&path.router, TABLE).expect("there").len(), 1, "no rule but the mark");
    drop(line);
    assert_eq!(next(&receiver), Some(1));
}

fn a_queue_has_one_reader() {
    let path = Path::new();
    let line = Line::open(&path.router, 7, Shape::default()).expect("a line");
    let error = Line::open(&path.router, 7, Shape::default()).expect_err("it is read already");
    assert_eq!(error.errno(), Some(libc::EPERM), "{error}");
    let _other = Line::open(&path.far, 7, Shape::default()).expect("a namespace has its own");
    drop(line);
    let deadline = Instant::now() + Duration::from_secs(5);
    while Line::open(&path.router, 7, Shape::default()).is_err() {
        assert!(Instant::now() < deadline, "the reader has gone");
        std::thread::yield_now();
    }
}

fn a_transfer_arrives_whole_in_one_piece_and_in_segments() {
    let path = Path::new();
    let line = path.line(late(2));
    let (mut client, mut server) = path.connected();
    for shape in [late(2), Shape { loss: 0.01, ..late(2) }] {
        line.set(shape).expect("set");
        let sent: Vec<u8> = (0..2_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        let mut received = vec![0; sent.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| client.write_all(&sent).expect("sent"));
            server.read_exact(&mut received).expect("received");
        });
        assert!(received == sent, "{shape:?}");
    }
}

fn a_rate_takes_its_time() {
    let path = Path::new();
    let (sender, receiver) = path.datagrams();
    // 1028 bytes take 41 ms.
    let _line = path.line(Shape { rate: Some(200_000), ..Shape::default() });
    let begin = Instant::now();
    (0..3).for_each(|number| send(&sender, &path, number));
    assert_eq!([0; 3].map(|_| next(&receiver)), [Some(0), Some(1), Some(2)]);
    assert!(begin.elapsed() >= Duration::from_millis(122), "{:?}", begin.elapsed());
}

/// `cargo test -p relapse-kernel --test kernel -- --ignored --nocapture delay_table`
pub fn bench() -> Vec<Trial> {
    let table = || {
        delay_table();
        Ok(())
    };
    vec![Trial::test("delay_lines::delay_table", table).with_ignored_flag(true)]
}

/// Prints what delay, RTT, throughput and use of processors are; of the processors both ends' share is counted as well.
fn delay_table() {
    println!("delay each way | loss |   rate | rtt min / median / max, ms | Mbit/s | processors");
    let shapes = [0, 1, 10, 75, 150].map(late);
    let lossy = [10, 150].map(|millis| Shape { loss: 0.05, ..late(millis) });
    let limited = [100, 1000].map(|mbit| Shape { rate: Some(mbit * 1_000_000), ..late(10) });
    for shape in shapes.into_iter().chain(lossy).chain(limited) {
        let path = Path::new();
        let lines = (shape != Shape::default()).then(|| {
            let lines = [0, 1].map(|number| Line::open(&path.router, number, shape).expect("a line"));
            path.rules(Some(0), Some(1)).refill(&path.router).expect("in force");
            lines
        });
        let [min, median, max] = round_trips(&path);
        let (rate, processors) = throughput(&path);
        println!(
            "{:>11} ms | {:>3.0}% | {:>6} | {min:>7.2} / {median:>6.2} / {max:>6.2}  | {rate:>6.0} | {processors:.2}",
            shape.delay.as_millis(),
            shape.loss * 100.0,
            shape.rate.map_or_else(|| "-".to_owned(), |rate| format!("{}M", rate / 1_000_000)),
        );
        drop(lines);
    }
}

fn round_trips(path: &Path) -> [f64; 3] {
    let (sender, receiver) = path.datagrams();
    sender.set_nonblocking(false).expect("blocking");
    sender.set_read_timeout(Some(2 * SHORT)).expect("bounded");
    let mut times = Vec::new();
    while times.len() < 30 {
        let begin = Instant::now();
        send(&sender, path, 1);
        let Ok((_, from)) = receiver.recv_from(&mut [0; 1000]) else { continue };
        receiver.send_to(&[1], from).expect("sent");
        if sender.recv(&mut [0; 1000]).is_ok() {
            times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    [times[0], times[times.len() / 2], times[times.len() - 1]]
}

/// Megabits a second and processors, of one connection for some seconds.
fn throughput(path: &Path) -> (f64, f64) {
    const LASTS: Duration = Duration::from_secs(6);
    let (mut client, mut server) = path.connected();
    client.set_write_timeout(Some(Duration::from_secs(5))).expect("bounded");
    let processor = || {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
    };
    let (begin, used) = (Instant::now(), processor());
    let received = std::thread::scope(|scope| {
        scope.spawn(move || {
            let chunk = vec![0; 1 << 18];
            while begin.elapsed() < LASTS && client.write_all(&chunk).is_ok() {}
            // Closed, it is reset.
        });
        let (mut received, mut buffer) = (0, vec![0; 1 << 18]);
        while let Ok(bytes @ 1..) = server.read(&mut buffer) {
            received += bytes;
        }
        received
    });
    let took = begin.elapsed().as_secs_f64();
    (received as f64 * 8.0 / took / 1e6, (processor() - used) / took)
}
