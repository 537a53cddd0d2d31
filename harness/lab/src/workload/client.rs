//! Clients at work: attempts started by the clock, and the connections that a flow keeps.
//!
//! Flows are open-loop: an attempt starts when its time has come, whether the last one answered or not, as users do.
//! Where connections are kept, each carries one attempt at a time.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use relapse_detectors::time::Time;
use relapse_kernel::NetNs;
use relapse_model::{Failure, FlowId, FlowPlan, PartId, Place};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::servers::Home;
use super::{names, namespace};
use crate::cluster::Cluster;
use crate::job::{Job, now};

/// Attempts of one flow that may be under way at once; a further one waits.
const MOST_AT_ONCE: usize = 64;
/// The same of connections that are opened to be kept, at the flow's own pace.
const MOST_OPENING: usize = 256;
/// How long a connection that could not be opened at once is left alone.
const RETRY: Duration = Duration::from_millis(20);
/// The clock does not run faster.
const SHORTEST: Duration = Duration::from_micros(100);
/// A start that is later than this is not made up for.
const LATE: Duration = Duration::from_millis(5);

/// One of relapse's own servers: answers on a listening socket for ever.
pub type Serve = fn(TcpListener, Home) -> Job<'static, ()>;

/// What the client of a flow does.
pub trait Client: fmt::Debug + Send + Sync {
    /// One attempt; over a connection that the flow keeps, where there is one. Returns what the flow keeps from now on.
    /// What takes longer than the flow's timeout is dropped.
    ///
    /// # Errors
    /// How it failed, as the one who tried sees it.
    fn attempt<'a>(&'a self, site: Site<'a>, kept: Option<TcpStream>) -> Job<'a, Result<Option<TcpStream>, Failure>>;

    /// Time between the starts of two attempts once the flow keeps all its connections.
    fn pace(&self, flow: &FlowPlan) -> Duration {
        flow.every
    }

    /// The server that it needs on the flow's port.
    fn server(&self) -> Option<Serve> {
        None
    }
}

/// Where an attempt comes from and where it goes.
pub struct Site<'a> {
    pub cluster: &'a dyn Cluster,
    pub flow: &'a FlowPlan,
    pub ns: NetNs,
    /// Of what it talks to.
    pub address: IpAddr,
    /// The times of its parts, where it has some.
    pub parts: &'a mut Vec<PartTime>,
}

impl Site<'_> {
    /// The server that is asked.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.flow.port.unwrap_or_default())
    }
}

/// One attempt of a flow, when it ended.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub flow: FlowId,
    pub started: Time,
    pub ended: Time,
    /// `None` when it worked.
    pub failure: Option<Failure>,
    /// Parts that ended, where that is known.
    pub parts: Vec<PartTime>,
}

/// A part of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartTime {
    pub part: PartId,
    pub took: Duration,
    /// `None` when it worked.
    pub failure: Option<Failure>,
}

/// A switch of one flow, shared with faults and with the run.
#[derive(Debug, Default)]
pub struct FlowSwitch {
    paused: AtomicBool,
    under_way: AtomicU32,
    held: AtomicU32,
}

impl FlowSwitch {
    /// Starts no further attempts, or does again.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
    }

    fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Attempts that were started and have not ended.
    #[must_use]
    pub fn under_way(&self) -> u32 {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Connections kept now.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held.load(Ordering::SeqCst)
    }
}

/// A flow that runs.
pub(super) struct Running {
    pub id: FlowId,
    pub plan: FlowPlan,
    pub client: Arc<dyn Client>,
    pub cluster: Arc<dyn Cluster>,
    pub switch: Arc<FlowSwitch>,
    pub attempts: mpsc::UnboundedSender<Attempt>,
}

impl Running {
    /// Attempts for ever. While the flow does not keep all its connections, an attempt opens one, and so many of them
    /// `at_once` as fast as they come; then the one that rested longest is used.
    pub async fn run(self, at_once: u32) {
        let (keeps, at_once) = (self.plan.keeps as usize, at_once as usize);
        let flow = Arc::new(self);
        let homes: Vec<Place> = std::iter::once(flow.plan.from).chain(flow.plan.in_turn.iter().copied()).collect();
        let mut turns = homes.iter().cycle();
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
                    // One that panicked is a defect, and a flow that ends does not go unnoticed.
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
                    let home = turns.next().copied().unwrap_or(flow.plan.from);
                    flow.switch.under_way.fetch_add(1, Ordering::SeqCst);
                    under_way.spawn(Arc::clone(&flow).attempt(home, kept, hurry));
                }
            }
        }
    }

    /// One attempt, reported: whether it was over a kept connection, and what is kept now.
    async fn attempt(self: Arc<Self>, from: Place, kept: Option<TcpStream>, hurry: bool) -> (bool, Option<TcpStream>) {
        let over_kept = kept.is_some();
        let cluster = self.cluster.as_ref();
        let started = now();
        let mut parts = Vec::new();
        let deadline = Instant::now() + self.plan.timeout;
        let ns = namespace(cluster, from);
        // An open connection needs no address.
        let address = match kept {
            Some(_) => Ok(cluster.plan().target_address(self.plan.to)),
            None => {
                let found = names::address(cluster, &ns, from, self.plan.to, self.plan.resolver);
                tokio::time::timeout_at(deadline, found).await.unwrap_or(Err(Failure::NameError))
            }
        };
        let outcome = match address {
            Ok(address) => {
                let site = Site { cluster, flow: &self.plan, ns, address, parts: &mut parts };
                let attempt = self.client.attempt(site, kept);
                tokio::time::timeout_at(deadline, attempt).await.unwrap_or(Err(self.plan.late))
            }
            Err(failure) => Err(failure),
        };
        self.switch.under_way.fetch_sub(1, Ordering::SeqCst);
        let failure = outcome.as_ref().err().copied();
        // Nobody listens any more once the trial is over.
        let _ = self.attempts.send(Attempt { flow: self.id, started, ended: now(), failure, parts });
        if hurry && failure.is_some() {
            // Whoever opens as fast as it goes must not spin on what cannot be opened.
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
