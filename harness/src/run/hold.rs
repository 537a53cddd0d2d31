//! A trial held with its fault in force, for somebody to look around.
//!
//! Two ends of one conversation. Outside, [`pair`] makes a [`Visitor`] for whoever talks to a person
//! and a [`Host`] for the run; inside the lab [`Visitors`] starts what the visitor asks for. News reach
//! the visitor in order with the run's events. Programs are the lab's: they end with it.
//!
//! Left out: prompts, and the terminal, which the visitor takes back when a program has ended.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use relapse_kernel::NetNs;
use relapse_kernel::process::{Inside, interactive};
use relapse_lab::cluster::Cluster;
use relapse_lab::workload::namespace;
use tokio::sync::{Mutex as AsyncMutex, mpsc as channel};

use super::order::{HoldNews, ToLab};
use super::running::Running;
use crate::plan::{ClusterPlan, OfficeId, OutsideId, Place};

/// The end of who looks around.
pub struct Visitor {
    requests: mpsc::Sender<ToLab>,
    news: mpsc::Receiver<HoldNews>,
}

impl Visitor {
    /// The next news; none when the run is over.
    #[must_use]
    pub fn next(&self) -> Option<HoldNews> {
        self.news.recv().ok()
    }

    /// The next news, where there is any now.
    #[must_use]
    pub fn pending(&self) -> Option<HoldNews> {
        self.news.try_recv().ok()
    }

    /// Starts a shell in a place, or one line in a shell. `Ended` follows.
    pub fn start(&self, place: &str, command: Option<&str>) {
        self.ask(ToLab::Shell { place: place.to_owned(), command: command.map(str::to_owned) });
    }

    /// Lets a chain heal one step; `Holding` follows at the next.
    pub fn next_stage(&self) {
        self.ask(ToLab::Next);
    }

    /// Lets the trial heal, recover and go down.
    pub fn leave(&self) {
        self.ask(ToLab::Leave);
    }

    fn ask(&self, request: ToLab) {
        // Nobody listens any more when the run is over, which `next` tells.
        let _ = self.requests.send(request);
    }
}

/// The run's end.
pub struct Host {
    requests: Mutex<mpsc::Receiver<ToLab>>,
    news: mpsc::Sender<HoldNews>,
}

/// The two ends.
#[must_use]
pub fn pair() -> (Visitor, Host) {
    let (request, requests) = mpsc::channel();
    let (tell, news) = mpsc::channel();
    (Visitor { requests: request, news }, Host { requests: Mutex::new(requests), news: tell })
}

impl Host {
    pub(super) fn tell(&self, news: &HoldNews) {
        let _ = self.news.send(news.clone());
    }

    pub(super) const fn line<'a>(&'a self, news: &'a dyn Fn(HoldNews)) -> Line<'a> {
        Line { host: self, news }
    }
}

/// The visitor as the thread of a trial reaches it.
pub(super) struct Line<'a> {
    host: &'a Host,
    news: &'a dyn Fn(HoldNews),
}

impl Line<'_> {
    /// What was asked for since the last look.
    pub(super) fn requests(&self) -> impl Iterator<Item = ToLab> + use<> {
        let requests = self.host.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.try_iter().collect::<Vec<_>>().into_iter()
    }

    pub(super) fn tell(&self, news: HoldNews) {
        (self.news)(news);
    }
}

/// What comes after a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    /// The next stage of a chain.
    Next,
    /// Healing of everything.
    Ended,
}

/// The visitor as the lab knows it.
pub(super) struct Visitors {
    visits: AsyncMutex<channel::UnboundedReceiver<ToLab>>,
    tell: Arc<dyn Fn(HoldNews) + Send + Sync>,
}

impl Visitors {
    pub(super) fn new(
        visits: channel::UnboundedReceiver<ToLab>,
        tell: impl Fn(HoldNews) + Send + Sync + 'static,
    ) -> Self {
        Self { visits: AsyncMutex::new(visits), tell: Arc::new(tell) }
    }

    /// Stays until the visitor has seen enough or the run is to stop. Findings and attempts are heard meanwhile.
    pub(super) async fn attend(&self, running: &mut Running<'_>, cluster: &dyn Cluster, plan: &ClusterPlan) -> Visit {
        let places = places(cluster, plan);
        (self.tell)(HoldNews::Holding { places: places.iter().map(|place| place.name.clone()).collect() });
        let mut visits = self.visits.lock().await;
        loop {
            tokio::select! {
                visit = visits.recv() => match visit {
                    Some(ToLab::Shell { place, command }) => self.open(&places, &place, command.as_deref()),
                    Some(ToLab::Next) => return Visit::Next,
                    Some(_) | None => return Visit::Ended,
                },
                went_on = running.step(|_, _, _| false) => if went_on.is_err() { return Visit::Ended },
            }
        }
    }

    fn open(&self, places: &[HeldPlace], name: &str, command: Option<&str>) {
        let started = match places.iter().find(|place| place.name == name) {
            Some(place) => place.start(command),
            None => Err(format!("there is no place {name}")),
        };
        let tell = Arc::clone(&self.tell);
        // A program may take as long as it likes, so it has a thread to wait for it.
        std::thread::spawn(move || {
            let ended = started.and_then(|mut child| child.wait().map_err(|e| e.to_string()));
            let status = ended.map(|status| status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap_or(-1));
            tell(HoldNews::Ended { status });
        });
    }
}

/// What a place is.
#[derive(Debug, Clone, Copy)]
enum At {
    Place(Place),
    Gateway(OfficeId),
    LoadBalancer(OutsideId),
    Fabric,
}

/// All places by name, in the order in which a person looks for them.
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

/// Names of the places in which programs can be started.
#[must_use]
pub fn place_names(plan: &ClusterPlan) -> Vec<String> {
    named(plan).into_iter().map(|(name, _)| name).collect()
}

/// Where a program can be started.
struct HeldPlace {
    name: String,
    ns: NetNs,
    /// What a pod's stub resolver is configured with.
    resolver: Option<String>,
}

fn places(cluster: &dyn Cluster, plan: &ClusterPlan) -> Vec<HeldPlace> {
    let resolver = plan.dns.as_ref().map(|dns| resolv_conf(plan.services[dns.service.0].address, &dns.search));
    let place = |(name, at)| {
        let ns = match at {
            At::Place(place) => Some(namespace(cluster, place)),
            At::Gateway(id) => Some(cluster.office(id).gateway.clone()),
            At::LoadBalancer(id) => cluster.outside(id).load_balancer.clone(),
            At::Fabric => Some(cluster.fabric().clone()),
        };
        let resolver = resolver.clone().filter(|_| matches!(at, At::Place(Place::Pod(_))));
        ns.map(|ns| HeldPlace { name, ns, resolver })
    };
    named(plan).into_iter().filter_map(place).collect()
}

/// As the kubelet writes it for a pod with the default DNS policy.
fn resolv_conf(server: IpAddr, search: &[String]) -> String {
    let mut text = format!("nameserver {server}\n");
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    text + "options ndots:5\n"
}

const RESOLV_CONF: &str = "/etc/resolv.conf";

impl HeldPlace {
    fn start(&self, command: Option<&str>) -> Result<Child, String> {
        let failed = |e: &dyn std::fmt::Display| format!("a shell in {} could not be started: {e}", self.name);
        let mut inside = Inside::new(&self.ns);
        // The file is seen through its mount once the program runs, and is needed no longer.
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
            // The prompt says where it is; a user's own start-up files would replace it.
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
