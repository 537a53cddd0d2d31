//! What a trial takes of what this machine has one of, and how it waits for it.
//!
//! A lab cannot have a limit of connection tracking of its own: where one trial lowers it, every lab sees it fall. So
//! those with few entries go on beside a writer, with at most two fifths of what it writes; those with many, or
//! who need the limit to stay, wait. Within a run the queue ([`super::queue`]) sees to it, between runs two file
//! locks do.
//!
//! Trials on real clusters have the machine for themselves: as many of a run as it has clusters, and no lab.

use std::sync::Arc;
use std::time::Duration;

use relapse_detectors::conntrack_limit::NARROW;
use relapse_lab::fault::Requirement;
use relapse_lab::host::{self, Guardian, MachineLock, Mode, limit_is_closed, lock};

use super::{Job, Options, processors};

/// A trial that holds no more entries than this on a node may run beside one that lowers the limit.
const FEW: u64 = 1_600;
/// Who writes less than this has no neighbours at all. It leaves those with few entries so much room that
/// the fall is no warning to them, and the guardian has no reason to refuse.
const LEAST_SHARED: u64 = FEW * NARROW.0 / NARROW.1;

/// Another lab starts beside as many as there are processors only while so much of their time is idle, percent.
const IDLE: u64 = 10;
/// How long that is looked at: the kernel counts in ticks of 1 to 10 ms.
const SPAN: Duration = Duration::from_millis(50);

/// A trial's part in the limit and in the machine. The larger is harder to have: a run begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Exclusive for who writes the limit or reaches it, shared for who needs it to stay.
    limit: Option<Mode>,
    /// Exclusive for who can have no neighbours.
    machine: Mode,
}

impl Claim {
    /// Of a trial with these requirements and so many entries on a node.
    pub fn of(requires: &[Requirement], entries: u64, on_cluster: bool) -> Self {
        let written = requires.iter().find_map(|requirement| match requirement {
            Requirement::ConntrackLimit(value) => Some(*value),
            Requirement::ConntrackLimitSteady | Requirement::SlowPaths => None,
        });
        let steady = requires.contains(&Requirement::ConntrackLimitSteady);
        let limit = match written {
            // Who may not write fills the table up to the limit there is: one at a time, as well.
            Some(_) => Some(Mode::Exclusive),
            None if !steady && entries <= FEW => None,
            None => Some(Mode::Shared),
        };
        let is_low = written.is_some_and(|value| value < LEAST_SHARED) && limit_is_closed().is_none();
        let alone = is_low || on_cluster && limit.is_some();
        Self { limit, machine: if alone { Mode::Exclusive } else { Mode::Shared } }
    }

    /// Whether trials with these claims may run side by side.
    pub fn beside(self, other: Self) -> bool {
        let limit = self.limit.zip(other.limit).is_none_or(|(one, other)| one.beside(other));
        limit && self.machine.beside(other.machine)
    }
}

/// What a trial holds of the machine while it runs; between runs, by file locks.
pub struct Hold {
    /// Writes the limit, where that is what the trial does.
    pub guardian: Option<Guardian>,
    /// What runs that died had left, and the guardian set back.
    pub recovered: Vec<String>,
    /// A guardian has its own.
    _limit: Option<MachineLock>,
    _machine: Arc<MachineLock>,
}

impl Hold {
    /// Waits until the trial has what it claims. Always the limit first: so nobody waits in a ring.
    ///
    /// # Errors
    /// When a lock cannot be taken; [`host::Error::Stopped`] once `stop` says so.
    pub fn wait(job: &Job, options: &Options, tell: &dyn Fn(String), stop: &dyn Fn() -> bool) -> host::Result<Self> {
        let (mut guardian, mut recovered) = (None, Vec::new());
        let in_use = |holder| tell(format!("waiting for nf_conntrack_max (held by {holder})"));
        let limit = match job.claim.limit {
            Some(Mode::Exclusive) if limit_is_closed().is_none() => {
                let mut writer = spawn_guardian(job, options)?;
                recovered = writer.acquire(&in_use, stop)?;
                guardian = Some(writer);
                None
            }
            Some(mode) => Some(MachineLock::enter(&lock::limit(), mode, &|_| true, &in_use, stop)?),
            None => None,
        };
        let room = |labs| labs < processors() || is_idle();
        let in_the_way = |holder| tell(format!("waiting for exclusive use of the machine (held by {holder})"));
        let machine = |mode| MachineLock::enter(&lock::neighbours(), mode, &room, &in_the_way, stop);
        let machine = match job.backend.places().filter(|_| job.claim.machine == Mode::Shared) {
            Some(places) => places.enter(|| machine(Mode::Exclusive))?,
            None => Arc::new(machine(job.claim.machine)?),
        };
        Ok(Self { guardian, recovered, _limit: limit, _machine: machine })
    }
}

fn spawn_guardian(job: &Job, options: &Options) -> host::Result<Guardian> {
    let own = || {
        std::env::current_exe()
            .map_err(|e| host::Error::Guardian { what: format!("find this program's own file: {e}") })
    };
    let exe = options.executable.clone().map_or_else(own, Ok)?;
    let control = job.id.control.as_ref().map(|control| format!("/{control}")).unwrap_or_default();
    Guardian::spawn(&exe, &options.run_id, &format!("{}{control}", job.id.scenario))
}

/// Whether processors have time to spare: labs side by side must not starve each other, nor be starved by what else
/// runs here. Always where the kernel does not tell.
fn is_idle() -> bool {
    let before = ticks();
    std::thread::sleep(SPAN);
    let (Some(before), Some(after)) = (before, ticks()) else { return true };
    after.0.saturating_sub(before.0) * 100 >= after.1.saturating_sub(before.1) * IDLE
}

/// Idle time and all time of all processors since the start of the machine, in ticks:
/// `cpu  user nice system idle iowait irq softirq steal guest guest_nice` (proc_stat(5)).
fn ticks() -> Option<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.split_whitespace().skip(1).take(8);
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    Some((ticks.get(3)? + ticks.get(4)?, ticks.iter().sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(limit: Option<Mode>, machine: Mode) -> Claim {
        Claim { limit, machine }
    }

    #[test]
    fn few_entries_go_beside_a_writer_and_many_do_not() {
        let light = claim(None, Mode::Shared);
        let steady = claim(Some(Mode::Shared), Mode::Shared);
        let writer = claim(Some(Mode::Exclusive), Mode::Shared);
        let alone = claim(Some(Mode::Exclusive), Mode::Exclusive);
        for (one, other) in [(light, light), (light, steady), (light, writer), (steady, steady)] {
            assert!(one.beside(other) && other.beside(one), "{one:?} beside {other:?}");
        }
        for (one, other) in [(writer, writer), (writer, steady), (alone, light), (alone, alone)] {
            assert!(!one.beside(other) && !other.beside(one), "{one:?} beside {other:?}");
        }
    }

    #[test]
    fn the_claim_follows_what_is_written_and_held() {
        let (shared, exclusive) = (Mode::Shared, Mode::Exclusive);
        let write = |value| [Requirement::ConntrackLimit(value)];
        let steady = [Requirement::ConntrackLimitSteady];
        for on_cluster in [false, true] {
            let machine = if on_cluster { exclusive } else { shared };
            assert_eq!(Claim::of(&[], FEW, on_cluster), claim(None, shared));
            assert_eq!(Claim::of(&[], FEW + 1, on_cluster), claim(Some(shared), machine));
            assert_eq!(Claim::of(&steady, 0, on_cluster), claim(Some(shared), machine));
            assert_eq!(Claim::of(&write(LEAST_SHARED), 0, on_cluster), claim(Some(exclusive), machine));
        }
        if limit_is_closed().is_none() {
            assert_eq!(Claim::of(&write(LEAST_SHARED - 1), 0, false), claim(Some(exclusive), exclusive));
        }
    }
}
