//! Holds a trial with its fault in force for manual inspection.
//!
//! Outside the lab, [`pair`] makes a [`Visitor`] for the prompt and a [`Host`] for the run; inside the lab,
//! [`Visitors`] starts the requested programs. Events reach the visitor in order with the run's events. Programs run in
//! the lab and end with it. The prompt restores the terminal when a program has ended.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use relapse_kernel::NetNs;
use relapse_kernel::process::{Inside, interactive};
use relapse_lab::cluster::Cluster;
use relapse_lab::workload::namespace;
use relapse_lab::workload::stub::resolv_conf;
use tokio::sync::{Mutex as AsyncMutex, mpsc as channel};

use super::order::{HoldEvent, ToLab};
use super::running::Running;
use crate::plan::{ClusterPlan, OfficeId, OutsideId, Place};

/// The prompt's end of the connection.
pub struct Visitor {
    requests: mpsc::Sender<ToLab>,
    events: mpsc::Receiver<HoldEvent>,
}

impl Visitor {
    /// Waits for the next event; `None` when the run has ended.
    #[must_use]
    pub fn next(&self) -> Option<HoldEvent> {
        self.events.recv().ok()
    }

    /// The next event, if there is one.
    #[must_use]
    pub fn pending(&self) -> Option<HoldEvent> {
        self.events.try_recv().ok()
    }

    /// Starts an interactive shell in a place, or runs a shell command there. `Ended` follows.
    pub fn start(&self, place: &str, command: Option<&str>) {
        self.ask(ToLab::Shell { place: place.to_owned(), command: command.map(str::to_owned) });
    }

    /// Lets a chain heal one step. `Holding` follows at the next one.
    pub fn next_stage(&self) {
        self.ask(ToLab::Next);
    }

    /// Lets the trial heal, recover and go down.
    pub fn leave(&self) {
        self.ask(ToLab::Leave);
    }

    fn ask(&self, request: ToLab) {
        // The receiver is dropped when the run ends, and `next` then returns `None`.
        let _ = self.requests.send(request);
    }
}

/// The run's end of the connection.
pub struct Host {
    requests: Mutex<mpsc::Receiver<ToLab>>,
    events: mpsc::Sender<HoldEvent>,
}

/// Creates both ends.
#[must_use]
pub fn pair() -> (Visitor, Host) {
    let (request, requests) = mpsc::channel();
    let (sender, events) = mpsc::channel();
    (Visitor { requests: request, events }, Host { requests: Mutex::new(requests), events: sender })
}

impl Host {
    pub(super) fn send(&self, event: &HoldEvent) {
        let _ = self.events.send(event.clone());
    }

    pub(super) const fn line<'a>(&'a self, notify: &'a dyn Fn(HoldEvent)) -> Line<'a> {
        Line { host: self, notify }
    }
}

/// Connection of a trial's thread to the visitor.
pub(super) struct Line<'a> {
    host: &'a Host,
    notify: &'a dyn Fn(HoldEvent),
}

impl Line<'_> {
    /// Requests since the last call.
    pub(super) fn requests(&self) -> impl Iterator<Item = ToLab> + use<> {
        let requests = self.host.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.try_iter().collect::<Vec<_>>().into_iter()
    }

    pub(super) fn send(&self, event: HoldEvent) {
        (self.notify)(event);
    }
}

/// How a visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    /// A chain continues with its next stage.
    Next,
    /// Everything is healed.
    Ended,
}

/// Connection of the lab to the visitor.
pub(super) struct Visitors {
    visits: AsyncMutex<channel::UnboundedReceiver<ToLab>>,
    notify: Arc<dyn Fn(HoldEvent) + Send + Sync>,
}

impl Visitors {
    pub(super) fn new(
        visits: channel::UnboundedReceiver<ToLab>,
        notify: impl Fn(HoldEvent) + Send + Sync + 'static,
    ) -> Self {
        Self { visits: AsyncMutex::new(visits), notify: Arc::new(notify) }
    }

    /// Holds the trial until the visitor continues or leaves, or the run is stopped. Findings and attempts are processed
    /// meanwhile.
    pub(super) async fn attend(&self, running: &mut Running<'_>, cluster: &dyn Cluster, plan: &ClusterPlan) -> Visit {
        let places = places(cluster, plan);
        (self.notify)(HoldEvent::Holding { places: places.iter().map(|place| place.name.clone()).collect() });
        let mut visits = self.visits.lock().await;
        loop {
            tokio::select! {
                visit = visits.recv() => match visit {
                    Some(ToLab::Shell { place, command }) => self.open(&places, &place, command.as_deref()),
                    Some(ToLab::Next) => return Visit::Next,
                    Some(_) | None => return Visit::Ended,
                },
                step = running.step(|_, _, _| false) => if step.is_err() { return Visit::Ended },
            }
        }
    }

    fn open(&self, places: &[HeldPlace], name: &str, command: Option<&str>) {
        let started = match places.iter().find(|place| place.name == name) {
            Some(place) => place.start(command),
            None => Err(format!("there is no place {name}")),
        };
        let notify = Arc::clone(&self.notify);
        // A thread waits for the program, which may run for any time.
        std::thread::spawn(move || {
            let ended = started.and_then(|mut child| child.wait().map_err(|e| e.to_string()));
            let status = ended.map(|status| status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap_or(-1));
            notify(HoldEvent::Ended { status });
        });
    }
}

/// The kind of a place.
#[derive(Debug, Clone, Copy)]
enum At {
    Place(Place),
    Gateway(OfficeId),
    LoadBalancer(OutsideId),
    Fabric,
}

/// All places by name, in display order.
fn named(plan: &ClusterPlan) -> Vec<(String, At)> {
    let mut all = Vec::new();
    for place in plan.places() {
        all.push((plan.place_name(place), At::Place(place)));
        match place {
            Place::Office(id) => all.push((format!("gateway/{}", plan.offices[id.0].name), At::Gateway(id))),
            Place::Outside(id) if plan.outside[id.0].load_balancer => {
                all.push((format!("load-balancer/{}", plan.outside[id.0].name), At::LoadBalancer(id)));
            }
            _ => {}
        }
    }
    all.push(("fabric".into(), At::Fabric));
    all
}

/// Names of the places where programs can be started.
#[must_use]
pub fn place_names(plan: &ClusterPlan) -> Vec<String> {
    named(plan).into_iter().map(|(name, _)| name).collect()
}

/// A place where a program can be started.
struct HeldPlace {
    name: String,
    ns: NetNs,
    /// The `resolv.conf` of a pod.
    resolver: Option<String>,
}

fn places(cluster: &dyn Cluster, plan: &ClusterPlan) -> Vec<HeldPlace> {
    let place = |(name, at)| {
        let ns = match at {
            At::Place(place) => Some(namespace(cluster, place)),
            At::Gateway(id) => Some(cluster.office(id).gateway.clone()),
            At::LoadBalancer(id) => cluster.outside(id).load_balancer.clone(),
            At::Fabric => Some(cluster.fabric().clone()),
        };
        let resolver = match at {
            At::Place(pod @ Place::Pod(_)) if plan.dns.is_some() => resolv_conf(plan, pod),
            _ => None,
        };
        ns.map(|ns| HeldPlace { name, ns, resolver })
    };
    named(plan).into_iter().filter_map(place).collect()
}

const RESOLV_CONF: &str = "/etc/resolv.conf";

impl HeldPlace {
    fn start(&self, command: Option<&str>) -> Result<Child, String> {
        let failed = |e: &dyn std::fmt::Display| format!("a shell in {} could not be started: {e}", self.name);
        let mut inside = Inside::new(&self.ns);
        // Once the program runs, the bind mount keeps the file alive.
        let mut file = None;
        if let Some(text) = self.resolver.as_ref().filter(|_| Path::new(RESOLV_CONF).exists()) {
            let mut made = tempfile::NamedTempFile::new().map_err(|e| failed(&e))?;
            made.write_all(text.as_bytes()).map_err(|e| failed(&e))?;
            inside = inside.bind(made.path(), RESOLV_CONF).map_err(|e| failed(&e))?;
            file = Some(made);
        }
        let shell = if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
        let mut program = inside.command(shell);
        match command {
            Some(line) => program.args(["-c", line]),
            // The prompt shows the place; the user's start-up files would replace it.
            None if shell.ends_with("bash") => program.args(["--norc", "--noprofile", "-i"]),
            None => program.arg("-i"),
        };
        program.env("PS1", format!("{} \\w# ", self.name)).env("RELAPSE_PLACE", &self.name);
        if command.is_some() && !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            program.stdin(Stdio::null());
        }
        let child = interactive(&mut program).spawn().map_err(|e| failed(&e));
        drop(file);
        child
    }
}
