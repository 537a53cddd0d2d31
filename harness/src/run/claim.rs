//! A trial's claim on shared resources of the machine, and how it waits for them.
//!
//! A lab cannot have a conntrack limit of its own: if one trial lowers it, all labs are affected. So trials with few
//! entries run beside a writer, with at most two fifths of the limit it writes; those with many, or that need the limit
//! to stay, wait. Within a run this is ensured by the queue ([`super::queue`]), between runs by two file locks.
//!
//! Trials on real clusters need exclusive use of the machine: as many of one run as it has clusters, and no lab.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relapse_detectors::conntrack_limit::NARROW;
use relapse_lab::fault::Requirement;
use relapse_lab::host::{self, Guardian, MachineLock, Mode, limit_is_closed, lock};

use super::{Job, Options, processors};

/// A trial with at most this many entries on a node may run beside one that lowers the limit.
const FEW: u64 = 1_600;
/// On a busy machine trials in labs take longer: `database-slow` had 2,200 entries where 1,100 are estimated for an idle
/// one. On clusters no lab runs beside them.
const BUSY: (u64, u64) = (3, 2);
/// A trial that writes less than this runs alone. At or above it, trials with few entries have enough room that the
/// fall is no warning to them, and the guardian has no reason to refuse.
const LEAST_SHARED: u64 = FEW * NARROW.0 / NARROW.1;

/// Minimum idle CPU time, in percent, to start more labs than there are processors.
const IDLE: u64 = 10;
/// Measurement period of idle time. The kernel counts in ticks of 1 to 10 ms.
const SPAN: Duration = Duration::from_millis(50);
/// A wait for idle time is reported after this.
const PATIENCE: Duration = Duration::from_secs(10);

/// A trial's claim on the limit and on the machine. Larger claims are harder to satisfy, so a run begins with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Exclusive for trials that write or reach the limit, shared for those that need it to stay.
    limit: Option<Mode>,
    /// Exclusive for trials that must run alone.
    machine: Mode,
}

impl Claim {
    /// The claim of a trial with these requirements and this many entries on a node.
    pub fn of(requires: &[Requirement], entries: u64, on_cluster: bool) -> Self {
        let written = requires.iter().find_map(|requirement| match requirement {
            Requirement::ConntrackLimit(value) => Some(*value),
            Requirement::ConntrackLimitSteady | Requirement::SlowPaths => None,
        });
        let entries = if on_cluster { entries } else { entries * BUSY.0 / BUSY.1 };
        let steady = requires.contains(&Requirement::ConntrackLimitSteady);
        let limit = match written {
            // Without permission to write, it fills the table up to the existing limit: also one at a time.
            Some(_) => Some(Mode::Exclusive),
            None if !steady && entries <= FEW => None,
            None => Some(Mode::Shared),
        };
        let is_low = written.is_some_and(|value| value < LEAST_SHARED) && limit_is_closed().is_none();
        let alone = is_low || on_cluster && limit.is_some();
        Self { limit, machine: if alone { Mode::Exclusive } else { Mode::Shared } }
    }

    /// Whether a trial with this claim runs alone.
    pub fn is_alone(self) -> bool {
        self.machine == Mode::Exclusive
    }

    /// Whether trials with these claims may run concurrently.
    pub fn beside(self, other: Self) -> bool {
        let limit = self.limit.zip(other.limit).is_none_or(|(one, other)| one.beside(other));
        limit && self.machine.beside(other.machine)
    }
}

/// The resources that a trial holds while it runs, protected by file locks between runs.
pub struct Hold {
    /// Writes the limit, if the trial does.
    pub guardian: Option<Guardian>,
    /// Leftovers of killed runs that the guardian restored.
    pub recovered: Vec<String>,
    /// `None` with a guardian, which holds its own lock.
    _limit: Option<MachineLock>,
    _machine: Arc<MachineLock>,
}

impl Hold {
    /// Waits until the claim is satisfied. Always takes the limit first, which prevents deadlocks.
    ///
    /// # Errors
    /// If a lock cannot be taken; [`host::Error::Stopped`] if `stop` returns true.
    pub fn wait(job: &Job, options: &Options, report: &dyn Fn(String), stop: &dyn Fn() -> bool) -> host::Result<Self> {
        let (mut guardian, mut recovered) = (None, Vec::new());
        let in_use = |holder| report(format!("waiting for nf_conntrack_max (held by {holder})"));
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
        let (begin, told) = (Instant::now(), Cell::new(false));
        // Where series are recorded, labs mostly wait.
        let room = |labs| {
            let there = options.series.is_some() || labs < processors() || is_idle();
            if !there && begin.elapsed() > PATIENCE && !told.replace(true) {
                report(format!("waiting for idle processor time (beside {labs} labs)"));
            }
            there
        };
        let in_the_way = |holder| report(format!("waiting for exclusive use of the machine (held by {holder})"));
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

/// Whether there is idle CPU time: concurrent labs must not starve each other, nor be starved by other load. True if
/// the kernel does not report it.
fn is_idle() -> bool {
    let before = ticks();
    std::thread::sleep(SPAN);
    let (Some(before), Some(after)) = (before, ticks()) else { return true };
    after.0.saturating_sub(before.0) * 100 >= after.1.saturating_sub(before.1) * IDLE
}

/// Idle and total time of all processors since boot, in ticks: `cpu  user nice system idle iowait irq softirq steal
/// guest guest_nice` (proc_stat(5)).
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
            let few = if on_cluster { FEW } else { FEW * BUSY.1 / BUSY.0 };
            assert_eq!(Claim::of(&[], few, on_cluster), claim(None, shared));
            assert_eq!(Claim::of(&[], FEW + 1, on_cluster), claim(Some(shared), machine));
            assert_eq!(Claim::of(&steady, 0, on_cluster), claim(Some(shared), machine));
            assert_eq!(Claim::of(&write(LEAST_SHARED), 0, on_cluster), claim(Some(exclusive), machine));
        }
        if limit_is_closed().is_none() {
            assert_eq!(Claim::of(&write(LEAST_SHARED - 1), 0, false), claim(Some(exclusive), exclusive));
        }
    }
}
