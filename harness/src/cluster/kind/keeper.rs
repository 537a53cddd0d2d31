//! A run's clusters: made when trials want them, leased to one after another, made again where a trial left
//! something behind, removed at the end.
//!
//! It is in the journal before it exists, with the settings that a kubelet writes on its host: so the
//! next start, or `relapse recover`, removes what a run that was killed had made.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use relapse_kernel::process::LabProcess;

use super::create::{self, Created, Names};
use super::docker::{docker, nginx_image, node_image};
use super::proof::Still;
use super::servers::{Served, Servers};
use super::{Ground, parts};
use crate::cluster::backend::{self, Backend, Lease, Places, Wanted};
use crate::host::clusters::ClusterJournal;
use crate::plan::kind_config::Config;

/// The backend of real clusters.
pub struct Kind {
    run_id: String,
    image: Option<String>,
    /// Where logs of nodes go when a cluster cannot be made.
    logs: PathBuf,
    /// As many as there are clusters at a time.
    places: Places,
    pool: Mutex<Pool>,
    changed: Condvar,
    /// Looked at once a run.
    unable: OnceLock<Option<String>>,
    number: AtomicU32,
}

/// Clusters that no trial has, and how many are being made.
#[derive(Default)]
struct Pool {
    at_rest: Vec<Kept>,
    making: usize,
}

/// What was made, or why it could not be.
struct Kept {
    config: Config,
    /// Whose pods are there.
    scenario: String,
    made: Result<Created, String>,
    journal: ClusterJournal,
    spoilt: bool,
    /// nginx, once it is in the nodes; or that it cannot be.
    nginx: Option<Option<String>>,
    servers: Servers,
}

impl Kept {
    /// With what stands beside it.
    fn remove(self) -> Result<(), String> {
        drop(self.servers);
        self.journal.remove()
    }
}

impl Kind {
    /// Nothing is made before it is wanted; `most` clusters at a time.
    #[must_use]
    pub fn new(run_id: &str, image: Option<&str>, logs: &Path, most: usize) -> Self {
        Self {
            run_id: run_id.to_owned(),
            image: node_image(image),
            logs: logs.to_owned(),
            places: Places::new(most),
            pool: Mutex::default(),
            changed: Condvar::new(),
            unable: OnceLock::new(),
            number: AtomicU32::new(0),
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first cluster of a run bears its id, each further one a number besides.
    fn names(&self) -> Result<Names, String> {
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let suffix = if number > 1 { format!("-{number}") } else { String::new() };
        let cluster = format!("relapse-{}{suffix}", self.run_id);
        let folder = crate::host::state_dir().map_err(|e| format!("failed to {e}"))?.join("kind").join(&cluster);
        Ok(Names { cluster, folder })
    }

    fn make(&self, config: Config, tell: &dyn Fn(String), stop: &dyn Fn() -> bool) -> Result<Kept, String> {
        let names = self.names()?;
        let workers = config.workers;
        tell(format!("a kind cluster is made, {workers} workers and a control plane: half a minute or so"));
        let journal = ClusterJournal::begin(&names).map_err(|e| format!("failed to {e}"))?;
        let made = create::create(&names, &config, self.image.as_deref(), &self.logs, stop);
        if made.is_err() {
            // What there is of it; what cannot be removed now stays in the journal.
            if let Err(why) = journal.remove() {
                tell(format!("a cluster that did not come up could not be removed: {why}"));
            }
        }
        Ok(Kept {
            config,
            made,
            journal,
            scenario: String::new(),
            spoilt: false,
            nginx: None,
            servers: Servers::default(),
        })
    }

    /// A cluster for a trial: the one that has the scenario's pods, else any that fits, else a new one.
    fn take(&self, wanted: &Wanted, tell: &dyn Fn(String), stop: &dyn Fn() -> bool) -> Result<Kept, String> {
        let config = wanted.kind_config.as_deref().map(Config::read).transpose()?;
        let fits = |kept: &Kept| match &config {
            Some(config) => *config == kept.config,
            None => kept.config.nodes >= wanted.nodes && kept.config == Config::of_workers(kept.config.workers),
        };
        let mut pool = self.pool();
        let all = pool.at_rest.iter().enumerate();
        let effort = |kept: &Kept| (!fits(kept), kept.spoilt, kept.made.is_err(), kept.scenario != wanted.scenario);
        let best = all.min_by_key(|(_, kept)| effort(kept));
        let best = best.map(|(place, kept)| (place, fits(kept) && !kept.spoilt));
        let best = best.map(|(place, usable)| (pool.at_rest.swap_remove(place), usable));
        let kept = match best {
            Some((kept, true)) => kept,
            other => {
                pool.making += 1;
                drop(pool);
                // The control plane is the last node.
                let config = config.unwrap_or_else(|| Config::of_workers(wanted.nodes.saturating_sub(1).max(WORKERS)));
                let removed = other.map_or(Ok(()), |(old, _)| old.remove());
                let made = removed.and_then(|()| self.make(config, tell, stop));
                pool = self.pool();
                pool.making -= 1;
                self.changed.notify_all();
                made?
            }
        };
        // A cluster that comes up takes all of the machine, and changes what a trial compares.
        while pool.making > 0 {
            pool = self.changed.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(kept)
    }
}

impl Backend for Kind {
    fn name(&self) -> &'static str {
        "kind"
    }

    fn unable(&self) -> Option<String> {
        self.unable.get_or_init(|| parts::unable(self.image.as_deref())).clone()
    }

    fn is_real_cluster(&self) -> bool {
        true
    }

    fn is_away(&self) -> bool {
        docker(&["version", "--format", "{{.Server.Version}}"]).is_err()
    }

    fn places(&self) -> Option<&Places> {
        Some(&self.places)
    }

    fn lease<'a>(
        &'a self,
        wanted: &Wanted,
        tell: &dyn Fn(String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Box<dyn Lease + 'a>, String> {
        let mut kept = self.take(wanted, tell, stop)?;
        let cluster = match &kept.made {
            Ok(cluster) => cluster.clone(),
            Err(why) => {
                let why = why.clone();
                // Whoever stopped it may want it later; of others each trial says why.
                if why != "stopped" {
                    self.pool().at_rest.push(kept);
                }
                return Err(format!("no kind cluster: {why}"));
            }
        };
        let mut usable = || {
            let have = cluster.nodes.len();
            if have < wanted.nodes {
                return Err(format!("the kind configuration has {have} nodes, the scenario wants {}", wanted.nodes));
            }
            let servers = kept.servers.serve(&cluster.names.cluster, &wanted.servers, tell);
            let before = Still::take(&cluster, &servers);
            before.map(|before| (servers, before)).map_err(|why| format!("the kind cluster is no longer there: {why}"))
        };
        let (servers, before) = match usable() {
            Ok(both) => both,
            Err(why) => {
                // An engine that was stopped, a node that died: the next trial gets another one.
                kept.spoilt = true;
                self.pool().at_rest.push(kept);
                return Err(why);
            }
        };
        let nginx =
            if wanted.ingress { kept.nginx.get_or_insert_with(|| load_nginx(&cluster, tell)).clone() } else { None };
        kept.scenario.clone_from(&wanted.scenario);
        Ok(Box::new(Leased { keeper: self, cluster, nginx, servers, before, kept: Some(kept) }))
    }

    fn close(&self) -> Vec<String> {
        let all = std::mem::take(&mut self.pool().at_rest);
        // Side by side: what takes long is Docker's.
        std::thread::scope(|scope| {
            let removed: Vec<_> = all.into_iter().map(|kept| scope.spawn(|| kept.remove().err())).collect();
            removed.into_iter().filter_map(|one| one.join().unwrap_or_else(|_| Some("a thread died".into()))).collect()
        })
    }
}

/// Scenarios want one or two workers more often than not, and a cluster is slow to make.
const WORKERS: usize = 2;

/// Without it the harness's own proxy is the ingress, as in a lab.
fn load_nginx(cluster: &Created, tell: &dyn Fn(String)) -> Option<String> {
    let image = nginx_image();
    let loaded = image.as_ref().map(|image| create::load_image(&cluster.names, image));
    match loaded {
        Some(Ok(())) => image,
        Some(Err(why)) => {
            tell(format!("nginx could not be loaded, a proxy of relapse's own is the ingress: {why}"));
            None
        }
        None => {
            tell("there is no image of nginx, a proxy of relapse's own is the ingress: make kind".into());
            None
        }
    }
}

struct Leased<'a> {
    keeper: &'a Kind,
    cluster: Created,
    nginx: Option<String>,
    servers: Vec<Served>,
    before: Still,
    /// Goes back to the pool at the end.
    kept: Option<Kept>,
}

impl Lease for Leased<'_> {
    fn ground(&self) -> backend::Ground {
        backend::Ground::Kind(Ground {
            run_id: self.keeper.run_id.clone(),
            scenario: self.kept.as_ref().map(|kept| kept.scenario.clone()).unwrap_or_default(),
            cluster: self.cluster.clone(),
            nginx: self.nginx.clone(),
            servers: self.servers.clone(),
        })
    }

    fn lost(&mut self) -> Option<String> {
        let why = Still::take(&self.cluster, &self.servers).err()?;
        self.spoil();
        Some(format!("the kind cluster is no longer there: {why}"))
    }

    fn prove_gone(&mut self, _: &LabProcess) -> Result<(), String> {
        let after = Still::take(&self.cluster, &self.servers).inspect_err(|_| self.spoil())?;
        let left = after.left_since(&self.before);
        if left.is_empty() {
            return Ok(());
        }
        self.spoil();
        Err(left.join("; "))
    }

    fn spoil(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.spoilt = true;
        }
    }
}

impl Drop for Leased<'_> {
    fn drop(&mut self) {
        self.keeper.pool().at_rest.extend(self.kept.take());
    }
}
