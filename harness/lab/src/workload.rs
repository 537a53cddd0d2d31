//! What pods, nodes, outside hosts and offices do: real servers and clients over the cluster's network.
//!
//! Job: start every server that some flow needs, then every flow, and report each attempt's outcome.
//! Flows are open-loop: an attempt starts when its time has come, whether the last one answered or
//! not, as users do. Sockets are made in the namespace of the place; one runtime drives them all.

pub mod churn;
pub mod dns;
pub mod http;
pub mod ping;
pub mod servers;
pub mod sockets;
pub mod tcp;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use relapse_detectors::time::Time;
use relapse_kernel::{NetNs, clock};
use relapse_model::{Failure, FlowId, FlowKind, FlowPlan, Place, Target};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::cluster::Cluster;
use crate::job::FaultError;

/// Attempts of one flow that may be under way at once; a further one waits.
const MOST_AT_ONCE: u32 = 64;

/// How long a connection that could not be opened to be held is left alone.
const RETRY: Duration = Duration::from_millis(20);

/// A flow that holds all its connections exchanges something over one of them this often.
const EXERCISE: Duration = Duration::from_millis(100);

/// One attempt of a flow, when it ended.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    pub flow: FlowId,
    pub started: Time,
    pub ended: Time,
    /// `None` when it worked.
    pub failure: Option<Failure>,
}

/// A switch of one flow, shared with faults and with the run.
#[derive(Debug, Default)]
pub struct FlowSwitch {
    paused: AtomicBool,
    under_way: AtomicU32,
    /// Connections held right now, for flows that hold them.
    held: AtomicU32,
    /// Opens held connections as fast as they come, until this many.
    hold_at_once: AtomicU32,
}

impl FlowSwitch {
    /// Starts no further attempts, or does again.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
    }

    /// Attempts that were started and have not ended.
    #[must_use]
    pub fn under_way(&self) -> u32 {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Connections held now.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held.load(Ordering::SeqCst)
    }
}

/// The running workload. Dropping it ends every client and server.
pub struct Workload {
    tasks: JoinSet<()>,
    switches: Vec<Arc<FlowSwitch>>,
}

impl Workload {
    /// Starts servers, then flows. `held` is how many connections each holding flow opens at once,
    /// before it goes on at its own pace.
    ///
    /// # Errors
    /// When a socket cannot be made or bound.
    pub fn start(
        cluster: &Arc<dyn Cluster>,
        flows: &[FlowPlan],
        held: u32,
        attempts: &mpsc::UnboundedSender<Attempt>,
    ) -> Result<Self, FaultError> {
        let mut tasks = JoinSet::new();
        servers::start(cluster, flows, &mut tasks)?;
        let mut switches = Vec::with_capacity(flows.len());
        for (number, flow) in flows.iter().enumerate() {
            let switch = Arc::new(FlowSwitch::default());
            switch.hold_at_once.store(held, Ordering::SeqCst);
            switches.push(Arc::clone(&switch));
            let client = Client {
                id: FlowId(number),
                homes: std::iter::once(flow.from).chain(flow.in_turn.iter().copied()).collect(),
                turns: AtomicUsize::new(0),
                plan: flow.clone(),
                cluster: Arc::clone(cluster),
                switch,
                attempts: attempts.clone(),
            };
            tasks.spawn(client.run());
        }
        Ok(Self { tasks, switches })
    }

    /// The switch of a flow.
    #[must_use]
    pub fn switch(&self, flow: FlowId) -> &Arc<FlowSwitch> {
        &self.switches[flow.0]
    }

    /// All switches, in the order of the flows.
    #[must_use]
    pub fn switches(&self) -> &[Arc<FlowSwitch>] {
        &self.switches
    }

    /// Ends every client and server now.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// The namespace of a place.
#[must_use]
pub fn namespace(cluster: &dyn Cluster, place: Place) -> NetNs {
    match place {
        Place::Pod(id) => cluster.pod(id).ns,
        Place::Node(id) => cluster.node(id).ns.clone(),
        Place::Outside(id) => cluster.outside(id).ns.clone(),
        Place::Office(id) => cluster.office(id).client.clone(),
    }
}

struct Client {
    id: FlowId,
    /// Where attempts come from, in turn; never empty.
    homes: Vec<Place>,
    turns: AtomicUsize,
    plan: FlowPlan,
    cluster: Arc<dyn Cluster>,
    switch: Arc<FlowSwitch>,
    attempts: mpsc::UnboundedSender<Attempt>,
}

impl Client {
    async fn run(self) {
        let client = Arc::new(self);
        match &client.plan.kind {
            FlowKind::Hold { connections, .. } => client.hold(*connections).await,
            FlowKind::Tcp { kept: true, .. } => client.keep().await,
            _ => client.repeat().await,
        }
    }

    /// One attempt after another, each on its own, started by the clock.
    async fn repeat(self: &Arc<Self>) {
        let mut clock = self.clock();
        let mut under_way = JoinSet::new();
        loop {
            clock.tick().await;
            while under_way.try_join_next().is_some() {}
            if self.switch.paused.load(Ordering::SeqCst) || self.switch.under_way() >= MOST_AT_ONCE {
                continue;
            }
            let client = Arc::clone(self);
            self.switch.under_way.fetch_add(1, Ordering::SeqCst);
            under_way.spawn(async move {
                let started = now();
                let failure = client.attempt().await.err();
                client.switch.under_way.fetch_sub(1, Ordering::SeqCst);
                client.report(started, failure);
            });
        }
    }

    /// Requests over one connection, which is made anew after a failure.
    async fn keep(&self) {
        let FlowKind::Tcp { to, port, request, response, .. } = self.plan.kind else { return };
        let peer = (self.address(to), port).into();
        let mut clock = self.clock();
        let mut connection = None;
        loop {
            clock.tick().await;
            if self.switch.paused.load(Ordering::SeqCst) {
                continue;
            }
            let started = now();
            let exchange = async {
                let mut stream = match connection.take() {
                    Some(stream) => stream,
                    None => tcp::connect(&self.home(0), peer).await?,
                };
                tcp::exchange(&mut stream, request, response, false).await?;
                Ok(stream)
            };
            let outcome = self.in_time(exchange).await;
            match outcome {
                Ok(stream) => {
                    connection = Some(stream);
                    self.report(started, None);
                }
                Err(failure) => self.report(started, Some(failure)),
            }
        }
    }

    /// Connections opened and held. Once all are open, an attempt is an exchange over one of them: what
    /// holds must still work.
    async fn hold(self: &Arc<Self>, connections: u32) {
        let FlowKind::Hold { to, port, .. } = self.plan.kind else { return };
        let peer = SocketAddr::new(self.address(to), port);
        let mut clock = self.clock();
        let mut held = VecDeque::new();
        let mut opening = JoinSet::new();
        let mut exercised = JoinSet::new();
        let mut exercise = tokio::time::interval(EXERCISE);
        exercise.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let at_once = self.switch.hold_at_once.load(Ordering::SeqCst);
            let open = held.len() + exercised.len();
            self.switch.held.store(u32::try_from(open).unwrap_or(u32::MAX), Ordering::SeqCst);
            let count = u32::try_from(open + opening.len()).unwrap_or(u32::MAX);
            let paused = self.switch.paused.load(Ordering::SeqCst);
            let full = count >= connections;
            let room = if count < at_once { 64 } else { MOST_AT_ONCE as usize * 4 };
            let may_open = !paused && !full && opening.len() < room;
            tokio::select! {
                Some(done) = opening.join_next(), if !opening.is_empty() => {
                    held.extend(done.ok().and_then(Result::ok));
                }
                Some(done) = exercised.join_next(), if !exercised.is_empty() => {
                    held.extend(done.ok().and_then(Result::ok));
                }
                _ = exercise.tick(), if full => {
                    // The one that rested longest.
                    if !paused && let Some(stream) = held.pop_front() {
                        exercised.spawn(Arc::clone(self).exercise(stream));
                    }
                }
                () = tick_or_now(&mut clock, may_open && count < at_once), if !full => {
                    if may_open {
                        opening.spawn(Arc::clone(self).open_to_hold(peer));
                    }
                }
            }
        }
    }

    /// Something small over a held connection.
    async fn exercise(self: Arc<Self>, mut stream: TcpStream) -> Result<TcpStream, Failure> {
        let started = now();
        let done = self.in_time(tcp::exchange(&mut stream, 1, 1, false)).await;
        self.report(started, done.err());
        done.map(|()| stream)
    }

    async fn open_to_hold(self: Arc<Self>, peer: SocketAddr) -> Result<TcpStream, Failure> {
        let started = now();
        let opened = self
            .in_time(async {
                let mut stream = tcp::connect(&self.home(0), peer).await?;
                tcp::exchange(&mut stream, 1, 1, false).await?;
                Ok(stream)
            })
            .await;
        self.report(started, opened.as_ref().err().copied());
        if opened.is_err() {
            // Whoever opens as fast as it goes must not spin on what cannot be opened.
            tokio::time::sleep(self.plan.every.max(RETRY)).await;
        }
        opened
    }

    async fn attempt(&self) -> Result<(), Failure> {
        let ns = &self.home(self.turns.fetch_add(1, Ordering::Relaxed));
        let attempt = async {
            match &self.plan.kind {
                FlowKind::Tcp { to, port, request, response, server_closes, .. } => {
                    let mut stream = tcp::connect(ns, (self.address(*to), *port).into()).await?;
                    tcp::exchange(&mut stream, *request, *response, *server_closes).await
                }
                FlowKind::Http { to, port, response } => {
                    http::get(ns, (self.address(*to), *port).into(), *response).await
                }
                FlowKind::Dns { name, server } => {
                    let search = self.cluster.plan().dns.as_ref().map_or(&[][..], |d| &d.search);
                    dns::lookup(ns, self.address(*server), name, search).await
                }
                FlowKind::Ping { to } => ping::echo(ns, self.address(*to), self.plan.timeout).await,
                FlowKind::Hold { .. } => Ok(()),
            }
        };
        self.in_time(attempt).await
    }

    async fn in_time<T>(&self, attempt: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let late = if matches!(self.plan.kind, FlowKind::Dns { .. }) { Failure::NameError } else { Failure::Timeout };
        tokio::time::timeout(self.plan.timeout, attempt).await.unwrap_or(Err(late))
    }

    /// Where the attempt of this number comes from.
    fn home(&self, turn: usize) -> NetNs {
        namespace(self.cluster.as_ref(), self.homes[turn % self.homes.len()])
    }

    fn address(&self, target: Target) -> IpAddr {
        self.cluster.plan().target_address(target)
    }

    fn report(&self, started: Time, failure: Option<Failure>) {
        // Nobody listens any more once the trial is over.
        let _ = self.attempts.send(Attempt { flow: self.id, started, ended: now(), failure });
    }

    fn clock(&self) -> tokio::time::Interval {
        let mut clock = tokio::time::interval(self.plan.every.max(Duration::from_micros(100)));
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        clock
    }
}

async fn tick_or_now(clock: &mut tokio::time::Interval, at_once: bool) {
    if at_once {
        tokio::task::yield_now().await;
    } else {
        clock.tick().await;
    }
}

fn now() -> Time {
    Time(clock::now())
}

/// What an error of a socket means to the one who tried.
#[must_use]
pub fn failure_of(error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::TimedOut => Failure::Timeout,
        std::io::ErrorKind::ConnectionRefused
        | std::io::ErrorKind::ConnectionReset
        | std::io::ErrorKind::HostUnreachable
        | std::io::ErrorKind::NetworkUnreachable => Failure::Refused,
        _ => Failure::Any,
    }
}
