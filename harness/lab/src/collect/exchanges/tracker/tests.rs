use relapse_kernel::packet::{Flags, TCP_HEAD};

use super::*;

const POD: &str = "10.176.98.29";
const NODE: &str = "10.176.64.12";
const NODE_AS_SOURCE: &str = "10.176.64.12:61000";
const APP: &str = "10.176.98.29:40001";
const DATABASE: &str = "10.176.46.4:3306";

/// Segments at the link of a pod, or where they are said to be seen; times in milliseconds.
struct Scene {
    tracker: Tracker,
    reports: Vec<Exchange>,
    /// The first bytes of the next segments.
    head: [u8; TCP_HEAD],
}

impl Scene {
    fn new() -> Self {
        Self { tracker: Tracker::new(NODE.parse().unwrap()), reports: Vec::new(), head: [0; TCP_HEAD] }
    }

    /// Flags, sequence number, acknowledgment, bytes of payload.
    fn segment(&mut self, at: u64, (from, to): (&str, &str), flags: &str, [sequence, acknowledgment, bytes]: [u32; 3]) {
        let outgoing = !from.starts_with(POD);
        self.seen(at, Place::Pod, outgoing, (from, to), flags, [sequence, acknowledgment, bytes]);
    }

    fn seen(&mut self, at: u64, place: Place, outgoing: bool, ends: (&str, &str), flags: &str, numbers: [u32; 3]) {
        let has = |flag| flags.contains(flag);
        let tcp = Tcp {
            source: ends.0.parse().unwrap(),
            destination: ends.1.parse().unwrap(),
            flags: Flags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') },
            sequence: numbers[0],
            acknowledgment: numbers[1],
            payload_len: numbers[2],
            gso_size: None,
            mss: None,
            tsval: None,
            head: self.head,
        };
        self.reports.extend(self.tracker.segment(ms(at), place, outgoing, &tcp));
    }

    fn opens(&mut self, at: u64, client: &str, server: &str) {
        self.segment(at, (client, server), "S", [100, 0, 0]);
        self.segment(at + 1, (server, client), "SA", [500, 101, 0]);
    }

    fn tick(&mut self, at: u64) {
        self.reports.extend(self.tracker.tick(ms(at)));
    }

    /// Takes the reports: whether it was answered, and milliseconds.
    fn took(&mut self) -> Vec<(bool, u64)> {
        self.reports.drain(..).map(|exchange| (exchange.answered, exchange.took_us / 1000)).collect()
    }
}

const fn ms(at: u64) -> Time {
    Time(1_000_000_000 + at * 1_000_000)
}

const FORTH: (&str, &str) = (APP, DATABASE);
const BACK: (&str, &str) = (DATABASE, APP);

#[test]
fn from_the_last_byte_of_a_request_to_the_first_of_its_answer() {
    let mut scene = Scene::new();
    scene.opens(0, APP, DATABASE);
    scene.segment(10, FORTH, "A", [101, 501, 1000]);
    scene.segment(12, FORTH, "A", [1101, 501, 200]);
    scene.segment(52, BACK, "A", [501, 1301, 0]);
    scene.segment(412, BACK, "A", [501, 1301, 900]);
    scene.segment(413, BACK, "A", [1401, 1301, 900]);
    let exchange = scene.reports.remove(0);
    let expected = Exchange {
        client: APP.parse().unwrap(),
        server: DATABASE.parse().unwrap(),
        seen_at: End::Client,
        request: 1200,
        took_us: 400_000,
        answered: true,
        acked_us: Some(40_000),
        waited_us: 0,
        connect_us: Some(1000),
        sent_again: false,
        after_greeting: false,
        status: None,
    };
    assert_eq!(exchange, expected);
    // The next on the same connection; the acknowledgment comes with the answer.
    scene.segment(500, FORTH, "A", [1301, 2301, 100]);
    scene.segment(503, BACK, "A", [2301, 1401, 900]);
    assert_eq!(scene.reports, [Exchange { request: 100, took_us: 3000, acked_us: None, connect_us: None, ..expected }]);
}

#[test]
fn the_status_of_http_is_read_from_the_first_bytes_of_the_answer() {
    let status = |head: &[u8; TCP_HEAD], sequence: u32| {
        let mut scene = Scene { head: *b"GET /bytes/1", ..Scene::new() };
        scene.opens(0, APP, DATABASE);
        scene.segment(10, FORTH, "A", [101, 501, 100]);
        scene.head = *head;
        scene.segment(12, BACK, "A", [sequence, 201, 300]);
        scene.reports.remove(0).status
    };
    assert_eq!(status(b"HTTP/1.1 500", 501), Some(500));
    assert_eq!(status(b"HTTP/1.0 404", 501), Some(404));
    assert_eq!(status(b"HTTP/1.1 200", 511), None, "what comes before it is missing");
    assert_eq!(status(b"HTTP/1.1 20\0", 501), None, "cut within the status");
    assert_eq!(status(b"HTTP/2.0 200", 501), None);
}

#[test]
fn a_greeting_is_no_answer() {
    let mut scene = Scene::new();
    scene.opens(0, APP, DATABASE);
    scene.segment(300, BACK, "A", [501, 101, 80]);
    scene.segment(301, FORTH, "A", [101, 581, 100]);
    scene.segment(303, BACK, "A", [581, 201, 10]);
    scene.segment(304, FORTH, "A", [201, 591, 100]);
    scene.segment(306, BACK, "A", [591, 301, 10]);
    assert_eq!(scene.reports.iter().map(|exchange| exchange.after_greeting).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn what_is_sent_again_or_missing_is_reported() {
    let again = |numbers: [u32; 3], back: bool| {
        let mut scene = Scene::new();
        scene.opens(0, APP, DATABASE);
        scene.segment(10, FORTH, "A", [101, 501, 100]);
        scene.segment(250, if back { BACK } else { FORTH }, "A", numbers);
        scene.segment(260, BACK, "A", [501, 301, 100]);
        scene.reports.iter().map(|exchange| (exchange.took_us / 1000, exchange.sent_again)).collect::<Vec<_>>()
    };
    assert_eq!(again([101, 501, 100], false), [(250, true)]);
    assert_eq!(again([201, 501, 100], false), [(10, false)], "more of the request");
    assert_eq!(again([211, 501, 90], false), [(10, true)], "something before it is lost");
    assert_eq!(again([601, 201, 100], true), [(240, true)], "the beginning of the answer is lost");
}

#[test]
fn a_syn_that_is_lost_is_the_connects_time_and_not_the_servers() {
    let mut scene = Scene::new();
    scene.segment(0, FORTH, "S", [100, 0, 0]);
    scene.segment(1000, FORTH, "S", [100, 0, 0]);
    scene.opens(3000, APP, DATABASE);
    scene.segment(3002, FORTH, "A", [101, 501, 100]);
    scene.segment(3005, BACK, "A", [501, 201, 100]);
    let exchange = &scene.reports[0];
    assert_eq!((exchange.took_us, exchange.connect_us, exchange.sent_again), (3000, Some(3_001_000), true));
}

#[test]
fn requests_that_may_overlap_are_not_reported() {
    let mut scene = Scene::new();
    scene.opens(0, APP, DATABASE);
    // The answer to the first crosses the second.
    scene.segment(10, FORTH, "A", [101, 501, 100]);
    scene.segment(20, FORTH, "A", [201, 501, 100]);
    scene.segment(21, BACK, "A", [501, 201, 100]);
    scene.segment(500, BACK, "A", [601, 301, 100]);
    assert_eq!(scene.took(), []);
    // The client sends more although the server has what it sent before, as in a one-way protocol.
    for at in [1000, 1500, 2000] {
        let sequence = 301 + (at - 1000) / 5;
        scene.segment(u64::from(at), FORTH, "A", [sequence, 701, 100]);
        scene.segment(u64::from(at) + 40, BACK, "A", [701, sequence + 100, 0]);
    }
    scene.tick(5000);
    scene.segment(6000, BACK, "A", [701, 601, 10]);
    assert_eq!(scene.took(), []);
    // Then one after the other again.
    scene.segment(7000, FORTH, "A", [601, 711, 100]);
    scene.segment(7003, BACK, "A", [711, 701, 10]);
    assert_eq!(scene.took(), [(true, 3)]);
}

#[test]
fn a_request_without_an_answer_is_reported_now_and_then() {
    let mut scene = Scene::new();
    scene.opens(0, APP, DATABASE);
    scene.tick(10_000);
    assert_eq!(scene.took(), [], "a connection that rests");
    scene.segment(10_000, FORTH, "A", [101, 501, 100]);
    for at in [10_900, 11_000, 11_100, 15_000, 15_100, 30_000] {
        scene.tick(at);
    }
    assert_eq!(scene.took(), [(false, 1000), (false, 5000)]);
    scene.segment(40_000, BACK, "A", [501, 201, 100]);
    assert_eq!(scene.took(), [(true, 30_000)]);
    scene.segment(50_000, FORTH, "A", [201, 601, 5]);
    scene.segment(50_001, BACK, "FA", [601, 206, 0]);
    scene.tick(60_000);
    assert_eq!(scene.took(), [], "a server that ends the connection does not answer");
}

#[test]
fn connections_that_were_there_before_are_known_by_their_ports() {
    let mut scene = Scene::new();
    for (from, to, count) in [(APP, DATABASE, 1), (APP, "10.176.46.4:50051", 0), ("10.176.98.29:80", "10.1.1.1:81", 0)]
    {
        scene.segment(10, (from, to), "A", [101, 501, 100]);
        scene.segment(13, (to, from), "A", [501, 201, 100]);
        assert_eq!(scene.took().len(), count, "{from} {to}");
    }
    // Not the end of one.
    scene.segment(20, (APP, "10.176.46.5:3306"), "FA", [101, 501, 10]);
    assert_eq!(scene.tracker.connections.len(), 1);
}

#[test]
fn the_nodes_own_connections_are_not_those_that_pass() {
    let own = (NODE_AS_SOURCE, DATABASE);
    let back = (DATABASE, NODE_AS_SOURCE);
    let exchange = |scene: &mut Scene| {
        scene.seen(2, Place::Uplink, false, back, "SA", [500, 101, 0]);
        scene.seen(3, Place::Uplink, true, own, "A", [101, 501, 100]);
        scene.seen(6, Place::Uplink, false, back, "A", [501, 201, 100]);
        scene.took().len()
    };
    let mut scene = Scene::new();
    scene.seen(1, Place::Uplink, true, own, "S", [100, 0, 0]);
    assert_eq!(exchange(&mut scene), 1);
    // A pod's, translated.
    let mut scene = Scene::new();
    scene.segment(0, (APP, DATABASE), "S", [100, 0, 0]);
    scene.seen(1, Place::Uplink, true, own, "S", [100, 0, 0]);
    assert_eq!(exchange(&mut scene), 0);
    // To the node's port of a Service, and on to a pod of this node.
    let mut scene = Scene::new();
    let (office, node_port, pod) = ("192.168.40.10:50000", "10.176.64.12:30080", "10.176.98.29:80");
    scene.seen(0, Place::Uplink, false, (office, node_port), "S", [100, 0, 0]);
    scene.segment(1, (office, pod), "S", [100, 0, 0]);
    assert_eq!(scene.tracker.connections.len(), 1);
    // Packets of pods on the uplink are copies.
    scene.seen(5, Place::Uplink, true, (APP, DATABASE), "S", [7, 0, 0]);
    assert_eq!(scene.tracker.connections.len(), 1);
}

/// What the pod, asked from 10 ms on and answering at 510 ms, waited itself in `own`.
fn waited(own: impl Fn(&mut Scene)) -> u64 {
    let mut scene = Scene::new();
    let (office, pod) = ("192.168.40.10:50000", "10.176.98.29:80");
    scene.opens(0, office, pod);
    scene.segment(10, (office, pod), "A", [101, 501, 100]);
    own(&mut scene);
    scene.tick(505);
    scene.segment(510, (pod, office), "A", [501, 201, 100]);
    let exchange = scene.reports.pop().unwrap();
    assert_eq!((exchange.seen_at, exchange.took_us), (End::Server, 500_000));
    exchange.waited_us / 1000
}

#[test]
fn a_server_waits_for_answers_connects_names_and_transfers_of_its_own() {
    let dns = |at: u64, scene: &mut Scene, answer: bool| {
        let dns = Dns {
            client: "10.176.98.29:5353".parse().unwrap(),
            server: "192.168.0.10:53".parse().unwrap(),
            id: 7,
            name: "example-api.com.".to_owned(),
            record: "A".to_owned(),
            response: answer.then(|| "NOERROR".to_owned()),
            answers: Vec::new(),
            ttl: None,
        };
        scene.tracker.dns(ms(at), &dns);
    };
    assert_eq!(waited(|_| {}), 0);
    // Queries one after the other, the first under way before.
    let queries = |scene: &mut Scene| {
        for n in 0..4 {
            let at = 20 + 100 * u64::from(n);
            scene.segment(at, FORTH, "A", [101 + n * 10, 501 + n * 10, 10]);
            scene.segment(at + 90, BACK, "A", [501 + n * 10, 111 + n * 10, 10]);
        }
    };
    assert_eq!(waited(queries), 360);
    assert_eq!(waited(|scene| scene.opens(100, APP, DATABASE)), 1);
    assert_eq!(waited(|scene| scene.segment(110, FORTH, "S", [100, 0, 0])), 400, "a connect that is still open");
    let asks = |scene: &mut Scene| {
        dns(50, scene, false);
        dns(350, scene, true);
    };
    assert_eq!(waited(asks), 300);
    // A file of many bytes sent, and one received; side by side they count once.
    let sends = |scene: &mut Scene| {
        for n in 0..10 {
            scene.segment(20 + u64::from(n) * 40, FORTH, "A", [101 + n * 1000, 501, 1000]);
            scene.segment(50 + u64::from(n) * 40, BACK, "A", [501, 1101 + n * 1000, 0]);
        }
        scene.segment(420, BACK, "A", [501, 10_101, 10]);
    };
    let receives = |scene: &mut Scene| {
        let store = ("10.176.98.29:40002", "10.176.46.9:443");
        scene.segment(20, store, "A", [101, 501, 100]);
        for n in 0..10 {
            scene.segment(30 + u64::from(n) * 40, (store.1, store.0), "A", [501 + n * 1000, 201, 1000]);
        }
    };
    assert_eq!(waited(sends), 400);
    assert_eq!(waited(receives), 370);
    // A one-way protocol waits for nothing.
    let one_way = |scene: &mut Scene| {
        for n in 0..2 {
            scene.segment(20 + u64::from(n) * 100, FORTH, "A", [101 + n * 10, 501, 10]);
            scene.segment(30 + u64::from(n) * 100, BACK, "A", [501, 111 + n * 10, 0]);
        }
    };
    assert_eq!(waited(one_way), 100);
}

#[test]
fn what_is_over_is_forgotten() {
    let mut scene = Scene::new();
    scene.opens(0, APP, DATABASE);
    scene.segment(5, FORTH, "FA", [101, 501, 0]);
    scene.segment(6, BACK, "FA", [501, 102, 0]);
    scene.opens(10, "10.176.98.29:40002", DATABASE);
    scene.segment(15, ("10.176.98.29:40002", DATABASE), "R", [101, 0, 0]);
    // This one is not answered, and its client gives up.
    scene.segment(20, ("10.176.98.29:40003", "10.1.1.1:80"), "S", [100, 0, 0]);
    scene.tick(1500);
    assert_eq!(scene.tracker.connections.len(), 1);
    scene.tick(1600);
    assert_eq!(scene.tracker.connections.len(), 0);
    scene.tracker.forget_gone();
    assert!(scene.tracker.waits.is_empty());
}
