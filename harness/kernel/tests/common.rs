//! Helpers: namespaces, links between them, and traffic over them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use relapse_kernel::builder::{Builder, VethEnd};
use relapse_kernel::conntrack::Entry;
use relapse_kernel::link::{LOOPBACK, set_up};
use relapse_kernel::route::{Route, Rule};
use relapse_kernel::socket::{tcp_listener, tcp_stream_socket};
use relapse_kernel::sysctl::{apply, lab_settings};
use relapse_kernel::{Error, NetNs};

/// The requirement of most tests: network namespaces, created by root or in a user namespace.
pub fn namespaces() -> Result<(), String> {
    let made = NetNs::create("probe").map(drop);
    made.map_err(|e| format!("failed to {e}; run as root or under `unshare --user --map-root-user --net`"))
}

/// How long to wait for something that should arrive immediately or not at all.
pub const SHORT: Duration = Duration::from_millis(300);

/// A namespace configured as in a lab.
pub fn namespace(name: &str, forward: bool) -> NetNs {
    let ns = NetNs::create(name).expect("a namespace");
    apply(&ns, &lab_settings(forward)).expect("settings");
    set_up(&ns, LOOPBACK, true).expect("lo up");
    ns
}

pub struct Side {
    pub index: u32,
    pub address: IpAddr,
}

/// Runs `job` in its own runtime: a test may be running in another one.
pub fn build<T: Send>(job: impl AsyncFnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(job())
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("no panic"))
}

pub fn add_address(ns: &NetNs, index: u32, address: IpAddr, prefix_len: u8) -> Result<(), Error> {
    build(async || Builder::open(ns)?.add_address(index, address, prefix_len).await)
}

pub fn add_neighbour(ns: &NetNs, index: u32, address: IpAddr, mac: [u8; 6]) -> Result<(), Error> {
    build(async || Builder::open(ns)?.add_neighbour(index, address, mac).await)
}

pub fn add_route(ns: &NetNs, route: &Route) -> Result<(), Error> {
    build(async || Builder::open(ns)?.add_route(route).await)
}

pub fn add_rule(ns: &NetNs, rule: &Rule) -> Result<(), Error> {
    build(async || Builder::open(ns)?.add_rule(rule).await)
}

/// One end of a veth and its peer, by name, index and MAC.
pub fn add_veth(a: (&NetNs, &str, u32, [u8; 6]), b: (&NetNs, &str, u32, [u8; 6]), mtu: u32) -> Result<(), Error> {
    let end = |(ns, name, index, mac): (_, &str, _, _)| {
        Ok(VethEnd { at: Builder::open(ns)?, name: name.into(), index, mac, mtu })
    };
    build(async || end(a)?.make(&end(b)?).await)
}

/// Connects two namespaces with 10.0.`subnet`.0/24 and permanent neighbours: the first is .1, the second .2. Interface
/// indexes and MAC addresses are derived from `subnet`.
pub fn join(a: &NetNs, b: &NetNs, subnet: u8, mtu: u32) -> (Side, Side) {
    let name = format!("net{subnet}");
    let index = u32::from(subnet) * 2 + 10;
    let mac = |host| [2, 0, 0, 0, subnet, host];
    let address = |host| IpAddr::V4(Ipv4Addr::new(10, 0, subnet, host));
    add_veth((a, &name, index, mac(1)), (b, &name, index + 1, mac(2)), mtu).expect("a pair");
    let sides = [(a, index, 1, 2), (b, index + 1, 2, 1)].map(|(ns, index, host, other)| {
        add_address(ns, index, address(host), 24).expect("an address");
        add_route(ns, &Route::to(address(0), 24).dev(index)).expect("a route");
        add_neighbour(ns, index, address(other), mac(other)).expect("a neighbour");
        Side { index, address: address(host) }
    });
    sides.into()
}

/// Two directly connected hosts, 10.0.1.1 and 10.0.1.2 on `net1`.
pub fn hosts() -> (NetNs, NetNs, Side, Side) {
    let (a, b) = (namespace("a", false), namespace("b", false));
    let (left, right) = join(&a, &b, 1, 1500);
    (a, b, left, right)
}

/// A socket address on the loopback interface.
pub fn at(last: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, last), port).into()
}

/// A blocking listener with a timeout of two seconds.
pub fn listen(ns: &NetNs, address: SocketAddr) -> TcpListener {
    let listener = tcp_listener(ns, address, 64).expect("listening");
    listener.set_nonblocking(false).expect("blocking");
    socket2::SockRef::from(&listener).set_read_timeout(Some(Duration::from_secs(2))).expect("bounded");
    listener
}

/// A blocking connection with timeout [`SHORT`]; it is reset when closed, so that nothing keeps its namespace.
pub fn connect(ns: &NetNs, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = tcp_stream_socket(ns, to.ip(), None).expect("a socket");
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&to.into(), SHORT)?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(SHORT))?;
    Ok(socket.into())
}

/// A connection from 172.30.x.y, for more connections than one address has ports.
pub fn ballast(number: u32) -> Entry {
    let [_, high, middle, low] = number.to_be_bytes();
    let source = SocketAddr::from((Ipv4Addr::new(172, 30, high, middle), 20_000 + u16::from(low)));
    Entry::established(source, SocketAddr::from(([172, 31, 0, 1], 443)), 300)
}
