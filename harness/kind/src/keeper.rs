//! The clusters of a run: created on demand, leased to one trial after another, replaced when a trial leaves something
//! behind, and removed at the end.
//!
//! A cluster is recorded in the journal before it is created, along with the settings that a kubelet writes on its
//! host. So the next start, or `relapse recover`, removes the clusters of a killed run.

mod pool;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};

use relapse_kernel::process::LabProcess;
use relapse_lab::cluster::backend::{self, Backend, Lease, Left, Places, Wanted};
use relapse_model::kind_config::Config;

use super::create;
use super::created::{Created, Names};
use super::docker::{docker, node_image, noted};
use super::failed;
use super::ground::{BACKEND, Ground};
use super::parts;
use super::proof::Standing;
use super::servers::{Served, Servers};
use crate::journal::ClusterJournal;
use pool::{Kept, Pool};

/// The backend of real clusters.
pub struct Kind {
    run_id: String,
    image: Option<String>,
    /// The folder for logs of nodes when a cluster cannot be created.
    logs: PathBuf,
    /// One place for each concurrent cluster.
    places: Places,
    pool: Mutex<Pool>,
    changed: Condvar,
    /// Checked once per run.
    unable: OnceLock<Option<String>>,
    number: AtomicU32,
}

impl Kind {
    /// Creates no cluster yet. At most `most` clusters run at a time.
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

    /// The first cluster of a run is named by the run's id, each further one with a number appended.
    fn names(&self) -> Result<Names, String> {
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let suffix = if number > 1 { format!("-{number}") } else { String::new() };
        let cluster = format!("relapse-{}{suffix}", self.run_id);
        let folder = relapse_lab::host::state_dir().map_err(failed)?.join("kind").join(&cluster);
        Ok(Names { cluster, folder })
    }

    fn make(&self, config: Config, report: &dyn Fn(String), stop: &dyn Fn() -> bool) -> Result<Kept, String> {
        let names = self.names()?;
        let workers = config.workers;
        report(format!("creating a kind cluster with {workers} workers and a control plane: about half a minute"));
        let journal = ClusterJournal::begin(&names).map_err(failed)?;
        let made = create::create(&names, &config, self.image.as_deref(), &self.logs, stop);
        if made.is_err() {
            // Remove a partial cluster. If that fails, it stays in the journal.
            if let Err(why) = journal.remove() {
                report(format!("a cluster that did not come up could not be removed: {why}"));
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
}

impl Backend for Kind {
    fn name(&self) -> &'static str {
        BACKEND
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
        report: &dyn Fn(String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Box<dyn Lease + 'a>, String> {
        let mut kept = self.take(wanted, report, stop)?;
        let cluster = match &kept.made {
            Ok(cluster) => cluster.clone(),
            Err(why) => {
                let why = why.clone();
                // A stopped creation may be retried later. Any other failure is kept, and each trial reports it.
                if why != "stopped" {
                    self.pool().at_rest.push(kept);
                }
                return Err(format!("no kind cluster: {why}"));
            }
        };
        let have = cluster.nodes.len();
        let mut usable = || {
            if have < wanted.nodes {
                return Err(format!(
                    "the kind configuration has {have} nodes, but the scenario needs {}",
                    wanted.nodes
                ));
            }
            let servers = kept.servers.serve(&cluster.names.cluster, &wanted.servers)?;
            if wanted.ingress && kept.nginx.is_none() {
                kept.nginx = Some(load_nginx(&cluster)?);
            }
            let before = Standing::take(&cluster, &servers);
            before.map(|before| (servers, before)).map_err(|why| {
                // The engine was stopped or a node died: the next trial gets another cluster.
                kept.spoilt = true;
                format!("the kind cluster is no longer there: {why}")
            })
        };
        let (servers, before) = match usable() {
            Ok(both) => both,
            Err(why) => {
                self.give_back(kept);
                return Err(why);
            }
        };
        let nginx = kept.nginx.clone().filter(|_| wanted.ingress);
        kept.scenario.clone_from(&wanted.scenario);
        Ok(Box::new(Leased { keeper: self, cluster, nginx, servers, before, kept: Some(kept) }))
    }

    fn close(&self) -> Vec<String> {
        let all = std::mem::take(&mut self.pool().at_rest);
        // In parallel: most of the time is spent in Docker.
        std::thread::scope(|scope| {
            let removed: Vec<_> = all.into_iter().map(|mut kept| scope.spawn(move || kept.remove().err())).collect();
            removed.into_iter().filter_map(|one| one.join().unwrap_or_else(|_| Some("a thread died".into()))).collect()
        })
    }
}

/// Requires a real nginx for the ingress. With another server the trial would prove something else.
fn load_nginx(cluster: &Created) -> Result<String, String> {
    let image = noted("nginx-image").ok_or("no nginx image for the ingress: run `make kind`")?;
    create::load_image(&cluster.names, &image).map_err(|why| format!("nginx could not be loaded: {why}"))?;
    Ok(image)
}

struct Leased<'a> {
    keeper: &'a Kind,
    cluster: Created,
    nginx: Option<String>,
    servers: Vec<Served>,
    before: Standing,
    /// Returned to the pool on drop.
    kept: Option<Kept>,
}

impl Lease for Leased<'_> {
    fn ground(&self) -> backend::Ground {
        let ground = Ground {
            run_id: self.keeper.run_id.clone(),
            cluster: self.cluster.clone(),
            nginx: self.nginx.clone(),
            servers: self.servers.clone(),
        };
        // Plain data: if serialization fails, the reader reports the error.
        let what = serde_json::to_value(ground).unwrap_or_default();
        backend::Ground { backend: BACKEND.to_owned(), is_real_cluster: true, is_closed: false, what }
    }

    fn end(&mut self, _: &LabProcess, whole: bool) -> Left {
        let left = match Standing::take(&self.cluster, &self.servers) {
            Ok(after) if whole => after.left_since(&self.before),
            // The rest is removed with the cluster.
            Ok(after) => after.escapes(),
            Err(why) => {
                self.spoil();
                return Left::NoGround(format!("the kind cluster is no longer there: {why}"));
            }
        };
        if left.is_empty() && whole {
            return Left::Nothing;
        }
        self.spoil();
        if left.is_empty() { Left::OnItsGround } else { Left::Something(left.join("; ")) }
    }

    fn spoil(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.spoilt = true;
        }
    }
}

impl Drop for Leased<'_> {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take() {
            self.keeper.give_back(kept);
        }
    }
}
