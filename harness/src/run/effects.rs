//! Whether the stated effects were seen in the workload: neither too little nor too much of them.
//!
//! Pure but for the packets, which [`PacketWatch`] counts beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use relapse_detectors::time::Time;
use relapse_kernel::packet::{Capture, Filter, Packet};
use relapse_lab::cluster::Cluster;
use relapse_lab::workload::{Attempt, namespace};
use relapse_reports::event::EffectSeen;
use tokio::task::JoinSet;

use crate::plan::{ClusterPlan, EffectPlan, Failure, FlowPlan};

/// Attempts that must have failed, or worked, before it is said that a flow fails, or works.
const ENOUGH: u32 = 3;
/// Attempts before a share can be told.
const ENOUGH_FOR_A_SHARE: u32 = 8;
/// A packet that was under way when the fault came into force may still arrive.
const IN_FLIGHT: Duration = Duration::from_millis(20);

/// Follows the stated effects of one trial.
pub struct Effects {
    stated: Vec<Stated>,
}

struct Stated {
    plan: EffectPlan,
    text: String,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    attempts: u32,
    failures: u32,
    wrong_kind: u32,
    failures_in_a_row: u32,
    most_in_a_row: u32,
    first_failure: Option<Time>,
    /// Starts of attempts that worked while no failure was known: failures by timeout are told later.
    worked_before: Vec<Time>,
    packets: Option<Arc<AtomicU64>>,
}

impl Effects {
    /// Prepares to follow `plans`; captures for packet effects run in `tasks`.
    ///
    /// # Errors
    /// When a capture cannot be opened.
    pub fn prepare(
        plans: &[EffectPlan],
        flows: &[FlowPlan],
        cluster: &Arc<dyn Cluster>,
        after: &Arc<AtomicU64>,
        tasks: &mut JoinSet<()>,
    ) -> relapse_kernel::Result<Self> {
        let mut stated = Vec::with_capacity(plans.len());
        for plan in plans {
            let mut seen = Seen::default();
            if let EffectPlan::Packet { .. } = plan {
                seen.packets = Some(watch_packets(plan, cluster, after, tasks)?);
            }
            stated.push(Stated { plan: plan.clone(), text: text(plan, flows, cluster.plan()), seen });
        }
        Ok(Self { stated })
    }

    /// Takes an attempt into account that started after t0.
    pub fn attempt(&mut self, attempt: &Attempt) {
        for stated in &mut self.stated {
            match stated.plan {
                EffectPlan::Fails { flow, how, share } if flow == attempt.flow => {
                    stated.seen.failing(attempt, how, share);
                }
                EffectPlan::Works { flow } if flow == attempt.flow => stated.seen.working(attempt),
                _ => {}
            }
        }
    }

    /// All stated effects are seen, as far as can be told now.
    #[must_use]
    pub fn all_hold(&self) -> bool {
        self.stated.iter().all(|stated| stated.judge().0)
    }

    /// What was stated has begun and nothing speaks against it, but too few attempts have ended to say that
    /// it is there: a busy machine makes fewer of them.
    #[must_use]
    pub fn want_attempts(&self) -> bool {
        self.stated.iter().any(Stated::wants_attempts)
    }

    /// Each effect with its evidence.
    #[must_use]
    pub fn results(&self) -> Vec<EffectSeen> {
        let result = |stated: &Stated| {
            let (holds, evidence) = stated.judge();
            let fails = matches!(stated.plan, EffectPlan::Fails { .. });
            EffectSeen { effect: stated.text.clone(), holds, t2: stated.seen.first_failure.filter(|_| fails), evidence }
        };
        self.stated.iter().map(result).collect()
    }
}

impl Seen {
    /// Counts from the first failure on: before it, the effect had not begun.
    fn failing(&mut self, attempt: &Attempt, how: Failure, share: (f64, f64)) {
        match attempt.failure {
            Some(failure) => {
                // Attempts end in another order than they began.
                let first = self.first_failure.map_or(attempt.started, |t| t.min(attempt.started));
                self.first_failure = Some(first);
                let since = self.worked_before.extract_if(.., |started| *started > first).count();
                // A flow that fails altogether does so from the first failure that is told.
                if share.0 < 1.0 {
                    self.attempts += u32::try_from(since).unwrap_or(u32::MAX);
                }
                self.attempts += 1;
                self.failures += 1;
                if how != Failure::Any && failure != how {
                    self.wrong_kind += 1;
                }
            }
            None if self.first_failure.is_some_and(|first| attempt.started > first) => self.attempts += 1,
            None => self.worked_before.push(attempt.started),
        }
    }

    fn working(&mut self, attempt: &Attempt) {
        self.attempts += 1;
        if attempt.failure.is_some() {
            self.failures += 1;
            self.failures_in_a_row += 1;
            self.most_in_a_row = self.most_in_a_row.max(self.failures_in_a_row);
        } else {
            self.failures_in_a_row = 0;
        }
    }
}

impl Stated {
    fn wants_attempts(&self) -> bool {
        let seen = &self.seen;
        match self.plan {
            EffectPlan::Fails { share: (low, _), .. } if low >= 1.0 => {
                seen.failures > 0 && seen.failures == seen.attempts && seen.attempts < ENOUGH
            }
            EffectPlan::Fails { .. } => seen.failures > 0 && seen.attempts < ENOUGH_FOR_A_SHARE,
            EffectPlan::Works { .. } => seen.attempts - seen.failures < ENOUGH && seen.most_in_a_row < 2,
            EffectPlan::Packet { .. } => false,
        }
    }

    fn judge(&self) -> (bool, String) {
        let seen = &self.seen;
        match self.plan {
            EffectPlan::Fails { share: (low, high), .. } => {
                let share = f64::from(seen.failures) / f64::from(seen.attempts.max(1));
                let enough = if low >= 1.0 { ENOUGH } else { ENOUGH_FOR_A_SHARE };
                let holds = seen.attempts >= enough
                    && seen.failures > 0
                    && share >= low
                    && share <= high
                    && seen.wrong_kind * 2 <= seen.failures;
                let kind = match seen.wrong_kind {
                    0 => String::new(),
                    n => format!(", {n} of them in another way"),
                };
                let of = if seen.failures > 0 { seen.attempts as usize } else { seen.worked_before.len() };
                (holds, format!("{} of {of} attempts failed{kind}", seen.failures))
            }
            EffectPlan::Works { .. } => {
                let worked = seen.attempts - seen.failures;
                // One lost attempt on a busy machine is noise; two in a row are an effect.
                (worked >= ENOUGH && seen.most_in_a_row < 2, format!("{worked} of {} attempts worked", seen.attempts))
            }
            EffectPlan::Packet { seen: wanted, .. } => {
                let packets = seen.packets.as_ref().map_or(0, |count| count.load(Ordering::Relaxed));
                ((packets > 0) == wanted, format!("{packets} seen"))
            }
        }
    }
}

fn text(plan: &EffectPlan, flows: &[FlowPlan], cluster: &ClusterPlan) -> String {
    match plan {
        EffectPlan::Fails { flow, how, share } => {
            let how = match how {
                Failure::Any => "",
                Failure::Timeout => ": timeout",
                Failure::Refused => ": refused",
                Failure::NameError => ": name not resolved",
            };
            let often = if share.0 >= 1.0 { "fails" } else { "fails now and then" };
            format!("{} {often}{how}", flows[flow.0].name)
        }
        EffectPlan::Works { flow } => format!("{} works", flows[flow.0].name),
        EffectPlan::Packet { at, from, to, syn_ack, seen } => format!(
            "{} from {} to {} {} at {}",
            if *syn_ack { "SYN-ACK" } else { "SYN" },
            cluster.place_name(*from),
            cluster.place_name(*to),
            if *seen { "seen" } else { "never seen" },
            cluster.place_name(*at)
        ),
    }
}

/// Counts the packets of an effect from the instant in `after` on (0: not yet).
fn watch_packets(
    plan: &EffectPlan,
    cluster: &Arc<dyn Cluster>,
    after: &Arc<AtomicU64>,
    tasks: &mut JoinSet<()>,
) -> relapse_kernel::Result<Arc<AtomicU64>> {
    let EffectPlan::Packet { at, from, to, syn_ack, .. } = *plan else { return Ok(Arc::default()) };
    let mut capture = Capture::open(&namespace(cluster.as_ref(), at), &Filter::syn())?;
    let (source, destination) = (cluster.plan().address(from), cluster.plan().address(to));
    let count = Arc::new(AtomicU64::new(0));
    let (counter, after) = (Arc::clone(&count), Arc::clone(after));
    tasks.spawn(async move {
        let mut frames = Vec::new();
        while capture.next_batch(&mut frames).await.is_ok() {
            let begin = after.load(Ordering::Relaxed);
            let counted = frames.drain(..).filter(|frame| {
                let Packet::Tcp(tcp) = &frame.packet else { return false };
                begin > 0
                    && Time(frame.at) > Time(begin) + IN_FLIGHT
                    && tcp.source.ip() == source
                    && tcp.destination.ip() == destination
                    && tcp.flags.ack == syn_ack
            });
            counter.fetch_add(counted.count() as u64, Ordering::Relaxed);
        }
    });
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::FlowId;

    const FLOW: FlowId = FlowId(0);

    fn stated(plan: EffectPlan) -> Effects {
        Effects { stated: vec![Stated { plan, text: "the effect".into(), seen: Seen::default() }] }
    }

    fn fails(how: Failure, low: f64, high: f64) -> Effects {
        stated(EffectPlan::Fails { flow: FLOW, how, share: (low, high) })
    }

    fn play(effects: Effects, attempts: &str) -> bool {
        played(effects, attempts).all_hold()
    }

    /// Attempts one after another: `.` worked, `t` timed out, `r` was refused.
    fn played(mut effects: Effects, attempts: &str) -> Effects {
        for (number, outcome) in (1..).zip(attempts.chars()) {
            let failure = match outcome {
                't' => Some(Failure::Timeout),
                'r' => Some(Failure::Refused),
                _ => None,
            };
            effects.attempt(&Attempt { flow: FLOW, started: Time(number * 10), ended: Time(number * 10 + 5), failure });
        }
        effects
    }

    #[test]
    fn a_flow_fails_when_three_in_a_row_did_and_all_after() {
        assert!(play(fails(Failure::Any, 1.0, 1.0), "..ttt"));
        assert!(!play(fails(Failure::Any, 1.0, 1.0), "..tt"), "too few to tell");
        assert!(!play(fails(Failure::Any, 1.0, 1.0), "..tttt."), "it came back by itself");
        assert!(!play(fails(Failure::Any, 1.0, 1.0), "........"));
    }

    #[test]
    fn the_way_it_fails_counts() {
        assert!(play(fails(Failure::Timeout, 1.0, 1.0), "ttt"));
        assert!(!play(fails(Failure::Timeout, 1.0, 1.0), "rrr"));
        assert!(play(fails(Failure::Any, 1.0, 1.0), "rrr"));
    }

    #[test]
    fn a_share_is_told_from_eight_attempts_on_and_neither_too_little_nor_too_much() {
        assert!(play(fails(Failure::Any, 0.1, 0.5), "..t....t.."));
        assert!(!play(fails(Failure::Any, 0.1, 0.5), "..t...."), "too few to tell");
        assert!(!play(fails(Failure::Any, 0.1, 0.5), "tttttttt"), "too much of it");
        assert!(!play(fails(Failure::Any, 0.3, 0.9), "t............"), "too little of it");
    }

    #[test]
    fn a_flow_works_though_one_attempt_was_lost_but_not_two_in_a_row() {
        let works = || stated(EffectPlan::Works { flow: FLOW });
        assert!(play(works(), "..."));
        assert!(play(works(), "...t.."));
        assert!(!play(works(), "...tt.."));
        assert!(!play(works(), ".."), "too few to tell");
    }

    #[test]
    fn more_attempts_are_wanted_only_where_nothing_else_is_wrong() {
        let wanted = |effects: Effects, attempts: &str| played(effects, attempts).want_attempts();
        for attempts in ["t", "tt", "..t"] {
            assert!(wanted(fails(Failure::Any, 1.0, 1.0), attempts), "{attempts}");
        }
        for attempts in ["", "..", "ttt", "...", "tt."] {
            assert!(!wanted(fails(Failure::Any, 1.0, 1.0), attempts), "{attempts}");
        }
        assert!(wanted(fails(Failure::Any, 0.1, 0.9), "...t..") && !wanted(fails(Failure::Any, 0.1, 0.9), "........"));
        let works = || stated(EffectPlan::Works { flow: FLOW });
        assert!(wanted(works(), "..") && !wanted(works(), "...") && !wanted(works(), ".tt"));
    }

    #[test]
    fn a_packet_is_seen_or_never_seen() {
        let packet = |seen| EffectPlan::Packet {
            at: crate::plan::Place::Pod(crate::plan::PodId(0)),
            from: crate::plan::Place::Pod(crate::plan::PodId(0)),
            to: crate::plan::Place::Pod(crate::plan::PodId(1)),
            syn_ack: false,
            seen,
        };
        for (wanted, count, holds) in [(true, 1, true), (true, 0, false), (false, 0, true), (false, 1, false)] {
            let mut effects = stated(packet(wanted));
            effects.stated[0].seen.packets = Some(Arc::new(AtomicU64::new(count)));
            assert_eq!(effects.all_hold(), holds, "wanted {wanted}, {count} seen");
        }
    }

    #[test]
    fn the_first_failure_is_the_one_that_began_first() {
        let mut effects = fails(Failure::Any, 1.0, 1.0);
        for started in [30, 10, 20] {
            let failure = Some(Failure::Timeout);
            effects.attempt(&Attempt { flow: FLOW, started: Time(started), ended: Time(started + 100), failure });
        }
        assert_eq!(effects.results()[0].t2, Some(Time(10)));
    }
}
