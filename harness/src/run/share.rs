//! What a trial takes of the machine's one limit of connection tracking, and who may run beside whom.
//!
//! A lab cannot have a limit of its own: where one trial lowers it, every lab sees it fall. So those
//! with few entries go on beside a writer, with at most two fifths of what it writes; those with many, or
//! who need the limit to stay, wait. Within a run the queue ([`super::queue`]) sees to it, between runs two file
//! locks.
//!
//! Trials on real clusters have the machine for themselves: as many of a run as it has clusters, and no lab.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use relapse_lab::fault::Requirement;
use relapse_lab::host::{Guardian, MachineLock, Mode, Who, limit_is_closed, lock};
use relapse_reports::event::TrialEvent;

use super::spare::Spare;
use super::{Interrupt, Job, Options, processors};

/// A trial that holds no more entries than this on a node may run beside one that lowers the limit.
const FEW: u64 = 1_600;
/// Who writes less than this has no neighbours at all. It leaves those with few entries so much room that
/// the fall is no warning to them, and the guardian has no reason to refuse.
const LEAST_SHARED: u64 = FEW * 5 / 2;

/// How often a wish to stop is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// A trial's share in the limit; the order is the one in which a run begins with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// On a real cluster, with few entries: beside others of the run on clusters of their own.
    Cluster,
    /// Writes it, and so low that nobody else may be there; or, on a real cluster, holds many entries.
    Alone,
    /// Writes it, or reaches it.
    Writer,
    /// Needs it to stay as it is.
    Steady,
    /// Has so few entries that it does not mind.
    Light,
}

impl Share {
    /// The share of a trial with these requirements and so many entries on a node.
    pub fn of(requires: &[Requirement], entries: u64) -> Self {
        let written = requires.iter().find_map(|requirement| match requirement {
            Requirement::ConntrackLimit(value) => Some(*value),
            Requirement::ConntrackLimitSteady => None,
        });
        match written {
            // Who may not write fills the table up to the limit there is: one at a time, as well.
            Some(value) if value < LEAST_SHARED && limit_is_closed().is_none() => Self::Alone,
            Some(_) => Self::Writer,
            None if requires.is_empty() && entries <= FEW => Self::Light,
            None => Self::Steady,
        }
    }

    /// The share of a trial on a real cluster.
    pub fn on_cluster(requires: &[Requirement], entries: u64) -> Self {
        if requires.is_empty() && entries <= FEW { Self::Cluster } else { Self::Alone }
    }

    /// Whether trials with these shares may run side by side.
    pub fn beside(self, other: Self) -> bool {
        match self.min(other) {
            Self::Cluster => self == other,
            Self::Alone => false,
            Self::Writer => self.max(other) == Self::Light,
            Self::Steady | Self::Light => true,
        }
    }
}

/// What a trial holds of the machine while it runs; between runs, by file locks.
pub struct Hold {
    /// Writes the limit, where that is what the trial does.
    pub guardian: Option<Box<Guardian>>,
    /// What runs that died had left, and the guardian set back.
    pub recovered: Vec<String>,
    /// Keeps a writer away, where entries are many; a guardian has its own.
    _limit: Option<MachineLock>,
    /// Keeps away who must be alone, or everybody.
    _neighbours: Arc<MachineLock>,
}

impl Hold {
    /// Waits until the trial has what it needs; none once the user wants to stop.
    pub fn wait(
        job: &Job,
        options: &Options,
        interrupt: &Interrupt,
        tell: &dyn Fn(TrialEvent),
    ) -> Option<Result<Self, String>> {
        let (waiting, reasons) = mpsc::channel();
        let (done, taken) = mpsc::sync_channel(1);
        let (job, options) = (job.clone(), options.clone());
        // Left to itself on an interrupt: what it still gets is given back with this process at the latest.
        std::thread::spawn(move || {
            let _ = done.send(Self::take(&job, &options, &|reason| drop(waiting.send(reason))));
        });
        loop {
            if interrupt.is_asked() {
                return None;
            }
            let result = taken.recv_timeout(LOOK);
            for reason in reasons.try_iter() {
                tell(TrialEvent::Waiting { reason });
            }
            match result {
                Ok(hold) => return Some(hold),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Some(Err("the thread that takes the lock ended".into())),
            }
        }
    }

    /// Always the limit first: so nobody waits in a ring.
    fn take(job: &Job, options: &Options, waiting: &dyn Fn(String)) -> Result<Self, String> {
        let what = match &job.id.control {
            Some(control) => format!("{}/{control}", job.id.scenario),
            None => job.id.scenario.clone(),
        };
        let who = Who { run: options.run_id.clone(), what };
        let mut in_use = |holder: &str| waiting(format!("nf_conntrack_max is in use: {holder}"));
        let mut limit = None;
        let mut guardian = None;
        let mut recovered = Vec::new();
        match job.share {
            Share::Alone | Share::Writer if limit_is_closed().is_none() => {
                let watching = watch(options, &who, &mut in_use)?;
                (guardian, recovered) = (Some(Box::new(watching.0)), watching.1);
            }
            Share::Alone | Share::Writer => limit = Some(Mode::Exclusive),
            Share::Steady => limit = Some(Mode::Shared),
            Share::Light | Share::Cluster => {}
        }
        let limit =
            limit.map(|mode| MachineLock::acquire(mode, &who, &mut in_use)).transpose().map_err(|e| e.to_string())?;
        let take = || room(job.share, &who, waiting);
        let neighbours = match job.backend.places().filter(|_| job.share == Share::Cluster) {
            Some(places) => places.enter(take)?,
            None => Arc::new(take()?),
        };
        Ok(Self { guardian, recovered, _limit: limit, _neighbours: neighbours })
    }
}

/// The lock against neighbours, once the machine has room for the trial.
fn room(share: Share, who: &Who, waiting: &dyn Fn(String)) -> Result<MachineLock, String> {
    let mode = if matches!(share, Share::Alone | Share::Cluster) { Mode::Exclusive } else { Mode::Shared };
    // Looked at from when it is its turn.
    let mut spare = None;
    let mut room = |labs| labs < processors() || spare.get_or_insert_with(Spare::new).is_there();
    let taken = MachineLock::enter(&lock::neighbours(), mode, who, &mut room, &mut |holder| {
        waiting(format!("it runs without neighbours, or they do: {holder}"));
    });
    taken.map_err(|e| e.to_string())
}

fn watch(options: &Options, who: &Who, waiting: &mut dyn FnMut(&str)) -> Result<(Guardian, Vec<String>), String> {
    let exe = std::env::current_exe().map_err(|e| format!("this program's own file is not found: {e}"))?;
    let exe = options.executable.as_deref().unwrap_or(&exe);
    let mut guardian = Guardian::spawn(exe, &options.run_id).map_err(|e| e.to_string())?;
    let recovered = guardian.acquire(&who.what, waiting).map_err(|e| e.to_string())?;
    Ok((guardian, recovered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_entries_go_beside_a_writer_and_many_do_not() {
        assert!(Share::Light.beside(Share::Writer) && Share::Writer.beside(Share::Light));
        assert!(Share::Steady.beside(Share::Light) && Share::Steady.beside(Share::Steady));
        for (one, other) in [
            (Share::Writer, Share::Writer),
            (Share::Writer, Share::Steady),
            (Share::Alone, Share::Light),
            (Share::Alone, Share::Alone),
        ] {
            assert!(!one.beside(other) && !other.beside(one), "{one:?} beside {other:?}");
        }
    }

    #[test]
    fn trials_on_clusters_are_beside_their_like_only() {
        assert!(Share::Cluster.beside(Share::Cluster));
        for other in [Share::Alone, Share::Writer, Share::Steady, Share::Light] {
            assert!(!Share::Cluster.beside(other) && !other.beside(Share::Cluster), "{other:?}");
        }
        assert_eq!(Share::on_cluster(&[], FEW), Share::Cluster);
        assert_eq!(Share::on_cluster(&[], FEW + 1), Share::Alone);
        assert_eq!(Share::on_cluster(&[Requirement::ConntrackLimitSteady], 0), Share::Alone);
    }

    #[test]
    fn the_share_follows_what_is_written_and_held() {
        assert_eq!(Share::of(&[], FEW), Share::Light);
        assert_eq!(Share::of(&[], FEW + 1), Share::Steady);
        assert_eq!(Share::of(&[Requirement::ConntrackLimitSteady], 0), Share::Steady);
        if limit_is_closed().is_none() {
            assert_eq!(Share::of(&[Requirement::ConntrackLimit(LEAST_SHARED)], 0), Share::Writer);
            assert_eq!(Share::of(&[Requirement::ConntrackLimit(LEAST_SHARED - 1)], 0), Share::Alone);
        }
    }
}
