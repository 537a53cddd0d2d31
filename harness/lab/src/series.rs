//! Records what exporters export during a trial: real ones, started inside the namespaces of the lab and scraped once a
//! second over loopback.
//!
//! A node exporter runs in the namespace of each node, a blackbox exporter in each place from which some flow speaks
//! ([`probes`]), and a mysqld exporter beside each database that is a real one. They end with the recorder, and with the
//! lab in any case. A real cluster adds what its own components export ([`Cluster::exports`]); those come and go with
//! pods, as does what runs in a pod. Scrapes start on schedule, whether or not the last one was answered; each counts for the second in which it
//! started. One that is under way when the fault is healed would show what comes after as if it had been before: it counts
//! as the one before.
//!
//! That a Prometheus could reach a node is not part of a recording: what runs on a node's own network is asked over
//! loopback, and `up` is 0 only where it does not answer.
//!
//! Left out: series about the machine that records ([`families`]), and those that a Prometheus adds to each scrape
//! except `up`.

mod exporters;
mod exposition;
mod families;
mod probes;
mod programs;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use relapse_detectors::time::Time;
use relapse_kernel::NetNs;
use relapse_model::{FlowPlan, PodId};
use relapse_series::{Series, Target};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use self::exporters::Running;
use self::table::Table;
use crate::cluster::{Cluster, Export, Exports, Origin};
use crate::job::now;
use crate::workload::servers::http::Connection;
use crate::workload::sockets;

pub use self::programs::Programs;

/// Between two scrapes.
const EVERY: Duration = Duration::from_secs(1);
/// `scrape_timeout` of a Prometheus by default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For a connection: less than the second after which the kernel repeats a SYN.
const CONNECTED: Duration = Duration::from_millis(900);
/// An exporter that does not answer its first scrape within this time does not run.
const START: Duration = Duration::from_secs(60);
/// Between two attempts to reach an exporter that starts.
const AGAIN: Duration = Duration::from_millis(50);

/// One target, and how its text is fetched.
struct Scrape {
    target: Target,
    ns: NetNs,
    address: SocketAddr,
    path: String,
    /// The pod whose namespace this is: while the API server does not list it, no Prometheus scrapes it.
    pod: Option<PodId>,
    /// As a Prometheus keeps its connections.
    kept: Mutex<Option<Connection>>,
}

/// What was recorded.
pub struct Recorded {
    /// When the first scrape started; one follows each second.
    pub began: Time,
    pub targets: Vec<Target>,
    pub counters: BTreeSet<String>,
    pub series: Vec<Series>,
    /// Number of scrapes of each target.
    pub seconds: u32,
    /// Seconds in which none started, because the machine was too busy: they repeat the one before.
    pub missed: u32,
}

/// Exporters that run, and their scrapes once [`Recorder::begin`] was called.
#[must_use = "dropped, its exporters end"]
pub struct Recorder {
    cluster: Arc<dyn Cluster>,
    exporters: Vec<Running>,
    scrapes: Vec<Arc<Scrape>>,
    table: Arc<Mutex<Table>>,
    over: watch::Sender<bool>,
    healed: Arc<Mutex<Option<Instant>>>,
    schedule: Mutex<Option<(Time, JoinHandle<Schedule>)>>,
}

struct Schedule {
    /// By number of target.
    targets: Vec<Target>,
    seconds: u32,
    missed: u32,
}

impl Recorder {
    /// Starts all exporters; each has answered when this returns.
    ///
    /// # Errors
    /// Why one of them does not run.
    pub async fn start(cluster: &Arc<dyn Cluster>, flows: &[FlowPlan], programs: &Programs) -> Result<Self, String> {
        let (mut exporters, scrapes) = exporters::start(cluster.as_ref(), flows, programs)?;
        for exporter in &mut exporters {
            exporter.answers(START).await?;
        }
        exporters::set_thresholds(cluster.as_ref(), flows).await?;
        let scrapes = scrapes.into_iter().map(Arc::new).collect();
        // From the first call on, a cluster collects what it will export.
        drop(cluster.exports());
        let (cluster, (over, _), table) = (Arc::clone(cluster), watch::channel(false), Arc::default());
        Ok(Self { cluster, exporters, scrapes, table, over, healed: Arc::default(), schedule: Mutex::default() })
    }

    /// Starts to scrape. Later calls have no effect.
    pub fn begin(&self) {
        let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        schedule.get_or_insert_with(|| {
            let (cluster, healed) = (Arc::clone(&self.cluster), Arc::clone(&self.healed));
            let (scrapes, table) = (self.scrapes.clone(), Arc::clone(&self.table));
            (now(), tokio::spawn(scrape_until(self.over.subscribe(), cluster, scrapes, table, healed)))
        });
    }

    /// To be called before a fault is healed.
    pub fn heals(&self) {
        *self.healed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Ends the scrapes, then the exporters. `None` if nothing was recorded.
    pub async fn end(self) -> Option<Recorded> {
        self.over.send_replace(true);
        let schedule = self.schedule.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (began, task) = schedule?;
        let Schedule { targets, seconds, missed } = task.await.ok()?;
        drop(self.exporters);
        let table = std::mem::take(&mut *self.table.lock().unwrap_or_else(PoisonError::into_inner));
        let (series, counters) = table.finish(seconds as usize);
        Some(Recorded { began, targets, counters, series, seconds, missed })
    }
}

/// Starts a scrape of each target each second until it is over, then waits for those under way.
async fn scrape_until(
    mut over: watch::Receiver<bool>,
    cluster: Arc<dyn Cluster>,
    always: Vec<Arc<Scrape>>,
    table: Arc<Mutex<Table>>,
    healed: Arc<Mutex<Option<Instant>>>,
) -> Schedule {
    let mut targets: Vec<Target> = always.iter().map(|scrape| scrape.target.clone()).collect();
    let mut exported: BTreeMap<usize, Arc<Scrape>> = BTreeMap::new();
    let begin = Instant::now();
    let mut under_way = JoinSet::new();
    let (mut seconds, mut missed) = (0, 0);
    loop {
        let due = begin + EVERY * seconds;
        tokio::select! {
            biased;
            _ = over.wait_for(|over| *over) => break,
            () = sleep_until(due) => {}
        }
        let late = u32::try_from(due.elapsed().as_secs()).unwrap_or(u32::MAX);
        for second in seconds..seconds + late {
            (0..targets.len()).for_each(|target| lock(&table).repeat(target, second as usize));
        }
        (seconds, missed) = (seconds + late, missed + late);
        let Exports { all, names } = cluster.exports();
        let renamed = move |text: String| names.iter().fold(text, |text, (name, ours)| text.replace(name, ours));
        let renamed = Arc::new(renamed);
        let inventory = cluster.inventory().borrow().clone();
        let listed = |scrape: &Scrape| {
            scrape.pod.is_none_or(|id| {
                let name = &cluster.plan().pods[id.0].name;
                cluster.pod(id).ns.inode() == scrape.ns.inode() && inventory.pods.iter().any(|pod| pod.name == *name)
            })
        };
        let mut now: Vec<_> = always.iter().cloned().enumerate().filter(|(_, scrape)| listed(scrape)).collect();
        for Export { target, from } in all {
            let known = targets.iter().position(|known| *known == target);
            let number = known.unwrap_or_else(|| {
                targets.push(target.clone());
                targets.len() - 1
            });
            match from {
                Origin::Server { ns, address, path } => {
                    let kept = Mutex::default();
                    let fresh = || Arc::new(Scrape { target, ns, address, path: path.to_owned(), pod: None, kept });
                    now.push((number, Arc::clone(exported.entry(number).or_insert_with(fresh))));
                }
                Origin::Text(text) => {
                    lock(&table).scraped((number, target.exporter), seconds as usize, Some(&renamed(text)));
                }
            }
        }
        for (number, scrape) in now {
            let (table, renamed, healed) = (Arc::clone(&table), Arc::clone(&renamed), Arc::clone(&healed));
            under_way.spawn(async move {
                let begun = Instant::now();
                let text = timeout(TIMEOUT, scrape.fetch()).await.ok().flatten().map(&*renamed);
                let healed = *healed.lock().unwrap_or_else(PoisonError::into_inner);
                let mut table = lock(&table);
                if healed.is_some_and(|healed| begun < healed) {
                    table.repeat(number, seconds as usize);
                } else {
                    table.scraped((number, scrape.target.exporter), seconds as usize, text.as_deref());
                }
            });
        }
        seconds += 1;
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
    Schedule { targets, seconds, missed }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scrape {
    /// Of an exporter that listens on loopback.
    fn local(target: Target, ns: NetNs, port: u16, path: impl Into<String>) -> Self {
        Self { target, ns, address: loopback(port), path: path.into(), pod: None, kept: Mutex::default() }
    }

    /// The text of the target; `None` if it does not answer with status 200.
    async fn fetch(&self) -> Option<String> {
        // Not held meanwhile: a scrape that takes longer than a second delays no other.
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut connection = match kept.filter(Connection::is_open) {
            Some(kept) => kept,
            None => connect(&self.ns, self.address).await?,
        };
        let response = connection.send(Method::GET, &self.path, Bytes::new()).await.ok()?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        let text = std::str::from_utf8(response.body()).ok()?;
        (response.status() == StatusCode::OK).then(|| text.to_owned())
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

async fn connect(ns: &NetNs, address: SocketAddr) -> Option<Connection> {
    let stream = timeout(CONNECTED, sockets::connect(ns, address)).await.ok()?.ok()?;
    Connection::open(stream).await.ok()
}
