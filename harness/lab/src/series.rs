//! Records what exporters export during a trial: real ones, started inside the namespaces of the lab and scraped once a
//! second over loopback.
//!
//! A node exporter runs in the namespace of each node, and a blackbox exporter in each place from which some flow speaks
//! ([`probes`]). They end with the recorder, and with the lab in any case. Scrapes start on schedule, whether or not the
//! last one was answered; each counts for the second in which it started. That a Prometheus could reach an exporter is
//! not part of a recording: `up` is 0 only where the exporter itself does not answer.
//!
//! Left out: series about the machine that records ([`exporters`]), and those that a Prometheus adds to each scrape
//! except `up`.

mod exporters;
mod exposition;
mod probes;
mod programs;
mod table;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use relapse_detectors::time::Time;
use relapse_kernel::NetNs;
use relapse_model::FlowPlan;
use relapse_series::{Series, Target};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use self::exporters::Running;
use self::table::Table;
use crate::cluster::Cluster;
use crate::job::now;
use crate::workload::servers::http::Connection;
use crate::workload::sockets;

pub use self::programs::Programs;

/// Between two scrapes.
const EVERY: Duration = Duration::from_secs(1);
/// `scrape_timeout` of a Prometheus by default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An exporter that does not answer its first scrape within this time does not run.
const START: Duration = Duration::from_secs(60);
/// Between two attempts to reach an exporter that starts.
const AGAIN: Duration = Duration::from_millis(50);

/// One target, and how its text is fetched.
struct Scrape {
    target: Target,
    ns: NetNs,
    port: u16,
    path: String,
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
    /// Seconds in which none started, because the machine was too busy: they have no samples.
    pub missed: u32,
}

/// Exporters that run, and their scrapes once [`Recorder::begin`] was called.
#[must_use = "dropped, its exporters end"]
pub struct Recorder {
    exporters: Vec<Running>,
    scrapes: Arc<Vec<Scrape>>,
    table: Arc<Mutex<Table>>,
    over: watch::Sender<bool>,
    schedule: Mutex<Option<(Time, JoinHandle<Schedule>)>>,
}

struct Schedule {
    seconds: u32,
    missed: u32,
}

impl Recorder {
    /// Starts all exporters; each has answered when this returns.
    ///
    /// # Errors
    /// Why one of them does not run.
    pub async fn start(cluster: &dyn Cluster, flows: &[FlowPlan], programs: &Programs) -> Result<Self, String> {
        let (mut exporters, scrapes) = exporters::start(cluster, flows, programs)?;
        for exporter in &mut exporters {
            exporter.answers(START).await?;
        }
        let (over, _) = watch::channel(false);
        let (scrapes, table) = (Arc::new(scrapes), Arc::default());
        Ok(Self { exporters, scrapes, table, over, schedule: Mutex::default() })
    }

    /// Starts to scrape. Later calls have no effect.
    pub fn begin(&self) {
        let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        schedule.get_or_insert_with(|| {
            let (scrapes, table, over) = (Arc::clone(&self.scrapes), Arc::clone(&self.table), self.over.subscribe());
            (now(), tokio::spawn(scrape_until(over, scrapes, table)))
        });
    }

    /// Ends the scrapes, then the exporters. `None` if nothing was recorded.
    pub async fn end(self) -> Option<Recorded> {
        self.over.send_replace(true);
        let schedule = self.schedule.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (began, task) = schedule?;
        let Schedule { seconds, missed } = task.await.ok()?;
        drop(self.exporters);
        let targets = self.scrapes.iter().map(|scrape| scrape.target.clone()).collect();
        let table = std::mem::take(&mut *self.table.lock().unwrap_or_else(PoisonError::into_inner));
        let (series, counters) = table.finish(seconds as usize);
        Some(Recorded { began, targets, counters, series, seconds, missed })
    }
}

/// Starts a scrape of each target each second until it is over, then waits for those under way.
async fn scrape_until(
    mut over: watch::Receiver<bool>,
    scrapes: Arc<Vec<Scrape>>,
    table: Arc<Mutex<Table>>,
) -> Schedule {
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
        (seconds, missed) = (seconds + late, missed + late);
        for number in 0..scrapes.len() {
            let (scrapes, table) = (Arc::clone(&scrapes), Arc::clone(&table));
            under_way.spawn(async move {
                let text = timeout(TIMEOUT, scrapes[number].fetch()).await.ok().flatten();
                let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
                table.scraped(number, seconds as usize, text.as_deref());
            });
        }
        seconds += 1;
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
    Schedule { seconds, missed }
}

impl Scrape {
    /// The text of the target; `None` if it does not answer with status 200.
    async fn fetch(&self) -> Option<String> {
        // Not held meanwhile: a scrape that takes longer than a second delays no other.
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut connection = match kept.filter(Connection::is_open) {
            Some(kept) => kept,
            None => connect(&self.ns, self.port).await?,
        };
        let response = connection.send(Method::GET, &self.path, Bytes::new()).await.ok()?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        let text = std::str::from_utf8(response.body()).ok()?;
        (response.status() == StatusCode::OK).then(|| text.to_owned())
    }
}

async fn connect(ns: &NetNs, port: u16) -> Option<Connection> {
    let stream = sockets::connect(ns, (std::net::Ipv4Addr::LOCALHOST, port).into()).await.ok()?;
    Connection::open(stream).await.ok()
}
