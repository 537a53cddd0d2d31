//! Runs clients: attempts started on schedule, and the connections a flow keeps.
//!
//! Flows are open-loop: an attempt starts when it is due, whether or not the last one was answered, as with users.
//! If connections are kept, each carries one attempt at a time.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use relapse_detectors::time::Time;
use relapse_kernel::NetNs;
use relapse_model::{Failure, FlowId, FlowPlan, PartId, Place, Target};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::errors::Errors;
use super::{namespace, stub};
use crate::cluster::{Cluster, ServerDelay};
use crate::job::{Job, now};

/// Maximum number of attempts of one flow under way; further ones wait.
const MOST_AT_ONCE: usize = 64;
/// The same for connections opened to be kept, at the flow's own pace.
const MOST_OPENING: usize = 256;
/// Delay before another attempt to open a connection, when opening as fast as possible.
const RETRY: Duration = Duration::from_millis(20);
/// The shortest interval between attempts.
const SHORTEST: Duration = Duration::from_micros(100);
/// A start later than this is not caught up.
const LATE: Duration = Duration::from_millis(5);

/// One of relapse's own servers.
#[derive(Debug, Clone, Copy)]
pub struct Serve {
    /// What it understands; `None` where a connection is all that is asked for.
    pub protocol: Option<&'static str>,
    /// Serves a listening socket forever.
    pub run: fn(TcpListener, Home) -> Job<'static, ()>,
}

/// Where a server runs, and the workload it serves.
#[derive(Clone)]
pub struct Home {
    pub cluster: Arc<dyn Cluster>,
    pub place: Place,
    /// The whole workload.
    pub flows: Arc<[FlowPlan]>,
    /// What it answers instead of what was asked for.
    pub errors: Errors,
}

impl Home {
    /// Delay of its responses.
    #[must_use]
    pub fn delay(&self) -> ServerDelay {
        match self.place {
            Place::Outside(id) => self.cluster.outside(id).delay.clone(),
            _ => ServerDelay::default(),
        }
    }
}

/// The client of a flow.
pub trait Client: fmt::Debug + Send + Sync {
    /// Makes one attempt, over a kept connection if there is one. Returns the connection the flow keeps from now on.
    /// An attempt that exceeds the flow's timeout is dropped.
    ///
    /// # Errors
    /// The failure as seen by the client.
    fn attempt<'a>(&'a self, site: Site<'a>, kept: Option<TcpStream>) -> Job<'a, Result<Option<TcpStream>, Failure>>;

    /// Time between the starts of two attempts once the flow has all its connections.
    fn pace(&self, flow: &FlowPlan) -> Duration {
        flow.every
    }

    /// The server it needs on the flow's port.
    fn server(&self) -> Option<Serve> {
        None
    }
}

/// Source and target of an attempt.
pub struct Site<'a> {
    pub cluster: &'a dyn Cluster,
    pub flow: &'a FlowPlan,
    pub ns: NetNs,
    /// The address of the target.
    pub address: IpAddr,
    /// Receives what the attempt found out.
    pub details: &'a mut Details,
}

impl Site<'_> {
    /// The socket address of the server.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.cluster.plan().entry(self.flow).port())
    }
}

/// A completed attempt of a flow.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub flow: FlowId,
    pub started: Time,
    pub ended: Time,
    /// `None` if it succeeded.
    pub failure: Option<Failure>,
    pub details: Details,
}

/// What an attempt found out, if it was to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Addresses of the name that it looked up.
    pub addresses: Vec<IpAddr>,
    /// Completed parts, if known.
    pub parts: Vec<PartTime>,
}

/// A completed part of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartTime {
    pub part: PartId,
    pub took: Duration,
    /// `None` if it succeeded.
    pub failure: Option<Failure>,
}

/// Controls one flow; shared with faults and with the run.
#[derive(Debug, Default)]
pub struct FlowSwitch {
    paused: AtomicBool,
    under_way: AtomicU32,
    held: AtomicU32,
}

impl FlowSwitch {
    /// Pauses or resumes the start of attempts.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
    }

    fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Attempts under way.
    #[must_use]
    pub fn under_way(&self) -> u32 {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Connections currently kept.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held.load(Ordering::SeqCst)
    }
}

/// A running flow.
pub(super) struct Running {
    pub id: FlowId,
    pub plan: FlowPlan,
    pub client: Arc<dyn Client>,
    pub cluster: Arc<dyn Cluster>,
    pub switch: Arc<FlowSwitch>,
    pub attempts: mpsc::UnboundedSender<Attempt>,
}

impl Running {
    /// Makes attempts forever. Until the flow has all its connections each attempt opens one, the first `at_once`
    /// as fast as possible; after that the connection idle for longest is used.
    pub async fn run(self, at_once: u32) {
        let (keeps, at_once) = (self.plan.keeps as usize, at_once as usize);
        let flow = Arc::new(self);
        let sources: Vec<Place> = std::iter::once(flow.plan.from).chain(flow.plan.in_turn.iter().copied()).collect();
        let mut turns = sources.iter().cycle();
        let mut idle = VecDeque::new();
        let mut in_use = 0;
        let mut under_way = JoinSet::new();
        let mut due = Instant::now();
        loop {
            let open = idle.len() + in_use;
            let opening = under_way.len() - in_use;
            flow.switch.held.store(u32::try_from(open).unwrap_or(u32::MAX), Ordering::SeqCst);
            let full = open + opening >= keeps;
            let hurry = !full && open + opening < at_once && !flow.switch.is_paused();
            let room = if full && keeps > 0 {
                !idle.is_empty()
            } else {
                opening < if keeps > 0 && !hurry { MOST_OPENING } else { MOST_AT_ONCE }
            };
            tokio::select! {
                Some(done) = under_way.join_next(), if !under_way.is_empty() => {
                    // A panic is a defect; end the flow, which does not go unnoticed.
                    let Ok((over_kept, kept)) = done else { return };
                    in_use -= usize::from(over_kept);
                    idle.extend(kept);
                }
                () = until(due, hurry), if room => {
                    let pace = if full { flow.client.pace(&flow.plan) } else { flow.plan.every };
                    let begin = if hurry || due.elapsed() > LATE { Instant::now() } else { due };
                    due = begin + pace.max(SHORTEST);
                    if flow.switch.is_paused() {
                        continue;
                    }
                    let kept = if full { idle.pop_front() } else { None };
                    in_use += usize::from(kept.is_some());
                    let source = turns.next().copied().unwrap_or(flow.plan.from);
                    flow.switch.under_way.fetch_add(1, Ordering::SeqCst);
                    under_way.spawn(Arc::clone(&flow).attempt(source, kept, hurry));
                }
            }
        }
    }

    /// Makes and reports one attempt. Returns whether it used a kept connection, and the connection kept now.
    async fn attempt(self: Arc<Self>, from: Place, kept: Option<TcpStream>, hurry: bool) -> (bool, Option<TcpStream>) {
        let over_kept = kept.is_some();
        let cluster = self.cluster.as_ref();
        let started = now();
        let mut details = Details::default();
        let deadline = Instant::now() + self.plan.timeout;
        let ns = namespace(cluster, from);
        // A kept connection needs no look-up.
        let address = match (&kept, self.plan.to) {
            (Some(_), _) | (None, Target::Place(_) | Target::Service(_)) => Ok(cluster.plan().entry(&self.plan).ip()),
            (None, Target::Name(_)) => {
                let found = stub::address(cluster, &ns, from, self.plan.to, self.plan.resolver);
                tokio::time::timeout_at(deadline, found).await.unwrap_or(Err(Failure::NameError))
            }
        };
        let outcome = match address {
            Ok(address) => {
                let site = Site { cluster, flow: &self.plan, ns, address, details: &mut details };
                let attempt = self.client.attempt(site, kept);
                tokio::time::timeout_at(deadline, attempt).await.unwrap_or(Err(self.plan.late))
            }
            Err(failure) => Err(failure),
        };
        self.switch.under_way.fetch_sub(1, Ordering::SeqCst);
        let failure = outcome.as_ref().err().copied();
        // The receiver is dropped when the trial ends.
        let _ = self.attempts.send(Attempt { flow: self.id, started, ended: now(), failure, details });
        if hurry && failure.is_some() {
            // Do not spin on connections that cannot be opened.
            tokio::time::sleep(self.plan.every.max(RETRY)).await;
        }
        (over_kept, outcome.ok().flatten())
    }
}

async fn until(due: Instant, hurry: bool) {
    if hurry {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep_until(due).await;
    }
}
