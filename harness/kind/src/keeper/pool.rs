//! Idle clusters of a run: which one a trial gets, and when another one is created.

use std::sync::{MutexGuard, PoisonError};

use relapse_lab::cluster::backend::Wanted;
use relapse_model::kind_config::{Config, WORKERS};

use super::super::created::Created;
use super::super::servers::Servers;
use super::Kind;
use crate::journal::ClusterJournal;

/// Idle clusters, and the number of leased clusters and of clusters being created.
#[derive(Default)]
pub(super) struct Pool {
    pub(super) at_rest: Vec<Kept>,
    leased: usize,
    making: usize,
}

/// A cluster, or why it could not be created.
pub(super) struct Kept {
    pub(super) config: Config,
    /// The scenario whose pods are in the cluster.
    pub(super) scenario: String,
    pub(super) made: Result<Created, String>,
    pub(super) journal: ClusterJournal,
    pub(super) spoilt: bool,
    /// The nginx image, once loaded into the nodes.
    pub(super) nginx: Option<String>,
    pub(super) servers: Servers,
}

impl Kept {
    /// Removes the cluster and its servers outside.
    pub(super) fn remove(&mut self) -> Result<(), String> {
        self.servers = Servers::default();
        self.journal.remove()
    }
}

impl Kind {
    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a cluster for a trial: one with the scenario's pods, otherwise any that fits, otherwise a new one.
    pub(super) fn take(
        &self,
        wanted: &Wanted,
        report: &dyn Fn(String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Kept, String> {
        let config = wanted.kind_config.as_deref().map(Config::read).transpose()?;
        let fits = |kept: &Kept| match &config {
            Some(config) => *config == kept.config,
            None => kept.config.nodes >= wanted.nodes && kept.config == Config::of_workers(kept.config.workers),
        };
        let effort = |kept: &Kept| (!fits(kept), kept.spoilt, kept.made.is_err(), kept.scenario != wanted.scenario);
        let mut pool = self.pool();
        let best = loop {
            let all = pool.at_rest.iter().enumerate();
            let best = all.min_by_key(|(_, kept)| effort(kept)).map(|(place, _)| place);
            // Do not use a cluster that failed to come up while others exist.
            if pool.leased == 0 || best.is_none_or(|place| pool.at_rest[place].made.is_ok()) {
                break best.map(|place| pool.at_rest.swap_remove(place));
            }
            pool = self.wait(pool);
        };
        let kept = match best {
            Some(kept) if fits(&kept) && !kept.spoilt => kept,
            old => {
                drop(pool);
                // The control plane is the last node.
                let workers = || Config::of_workers(wanted.nodes.saturating_sub(1).max(WORKERS));
                let config = config.clone().unwrap_or_else(workers);
                let made = self.make_alone(old, config, report, stop)?;
                pool = self.pool();
                made
            }
        };
        while pool.making > 0 {
            pool = self.wait(pool);
        }
        pool.leased += usize::from(kept.made.is_ok());
        Ok(kept)
    }

    /// Creates a cluster, replacing `old`. This uses the whole machine and would distort running trials, so it waits
    /// until no trial runs, and no trial starts meanwhile.
    fn make_alone(
        &self,
        old: Option<Kept>,
        config: Config,
        report: &dyn Fn(String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Kept, String> {
        let _making = Making::begin(self);
        if let Some(mut old) = old
            && let Err(why) = old.remove()
        {
            // The next trial retries the removal, and so does the end of the run.
            old.spoilt = true;
            self.pool().at_rest.push(old);
            return Err(why);
        }
        self.make(config, report, stop)
    }

    fn wait<'a>(&self, pool: MutexGuard<'a, Pool>) -> MutexGuard<'a, Pool> {
        self.changed.wait(pool).unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a trial's cluster to the pool.
    pub(super) fn give_back(&self, kept: Kept) {
        let mut pool = self.pool();
        pool.leased -= 1;
        pool.at_rest.push(kept);
        drop(pool);
        self.changed.notify_all();
    }
}

/// Marks that a cluster is being created, until dropped.
struct Making<'a>(&'a Kind);

impl<'a> Making<'a> {
    fn begin(kind: &'a Kind) -> Self {
        let mut pool = kind.pool();
        pool.making += 1;
        while pool.leased > 0 {
            pool = kind.wait(pool);
        }
        Self(kind)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.pool().making -= 1;
        self.0.changed.notify_all();
    }
}
