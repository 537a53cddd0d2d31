//! Supervises one trial from outside its lab: locks and consent, the lab process, the guardian, and the proof that
//! nothing is left.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use relapse_kernel::host::{self, Snapshot, is_root};
use relapse_kernel::process::{LabCommand, LabProcess};
use relapse_kernel::{NetNs, nft};
use relapse_lab::cluster::backend::{LAB, Left};
use relapse_lab::host::protocol::send;
use relapse_lab::host::{self as machine, Restore};
use relapse_reports::event::{Outcome, TrialEnded, TrialEvent};

use super::claim::Hold;
use super::hold::Line;
use super::order::{FromLab, HoldEvent, Order, SeriesOrder, ToLab, ended};
use super::{Interrupt, Job, Options};
use crate::scenario::trial::Armed;

/// Polling interval of the stop request.
const LOOK: Duration = Duration::from_millis(50);
/// Time, in addition to its deadlines, for a trial to come up, heal and go down, also on a busy machine. A trial that
/// takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// One trial and its context outside the lab.
pub struct Supervisor<'a> {
    pub job: &'a Job,
    pub options: &'a Options,
    pub interrupt: &'a Interrupt,
    pub emit: &'a dyn Fn(TrialEvent),
    /// The visitor, if the trial is held.
    pub visitor: Option<Line<'a>>,
}

impl Supervisor<'_> {
    /// Runs it to its end. Always emits `Ended`.
    pub fn run(&self) {
        let skip = |reason: String| {
            (self.emit)(TrialEvent::Skipped { reason: reason.clone() });
            (self.emit)(TrialEvent::Ended(ended(Outcome::Skipped, vec![reason])));
        };
        if self.interrupt.is_asked() {
            return skip("the run was interrupted".into());
        }
        if let Some(reason) = self.job.needs.unmet(&self.job.backend, self.options.consent) {
            if !self.options.require.contains(&self.job.id.backend) {
                return skip(reason);
            }
            let reason = format!("required, but skipped: {reason}");
            return (self.emit)(TrialEvent::Ended(ended(Outcome::Fail, vec![reason])));
        }
        let hold = match Hold::wait(self.job, self.options, &self.waiting(), &|| self.interrupt.is_asked()) {
            Err(machine::Error::Stopped) => return skip("the run was interrupted while it waited".into()),
            hold => hold.map_err(|e| e.to_string()),
        };
        // Waiting for the machine does not count.
        let begin = Instant::now();
        (self.emit)(TrialEvent::Started);
        let mut ended = ended(Outcome::Skipped, Vec::new());
        if let Err(why) = hold.and_then(|hold| self.supervise(hold, &mut ended)) {
            ended.outcome = ended.outcome.max(Outcome::InternalError);
            ended.reasons.insert(0, why);
        }
        ended.took = begin.elapsed();
        (self.emit)(TrialEvent::Ended(ended));
    }

    fn waiting(&self) -> impl Fn(String) {
        |reason| (self.emit)(TrialEvent::Waiting { reason })
    }

    fn supervise(&self, mut hold: Hold, ended: &mut TrialEnded) -> Result<(), String> {
        let (job, options) = (self.job, self.options);
        for what in std::mem::take(&mut hold.recovered) {
            (self.emit)(TrialEvent::HostChanged { what });
        }
        if let Some(why) = job.needs.contradicted() {
            self.release(hold, ended);
            ended.outcome = Outcome::Inconclusive;
            ended.reasons.push(why);
            return Ok(());
        }
        let mut lease = match job.backend.lease(&job.wanted, &self.waiting(), &|| self.interrupt.is_asked()) {
            Ok(lease) => lease,
            Err(why) => {
                self.release(hold, ended);
                ended.outcome = Outcome::Inconclusive;
                ended.reasons.push(why);
                return Ok(());
            }
        };
        let before = look_at_host()?;
        let ground = lease.ground();
        let is_real = ground.is_real_cluster;
        let mut command = LabCommand::new([LAB]).user_namespace(ground.is_closed);
        if let Some(executable) = &options.executable {
            command = command.program(executable);
        }
        let mut lab = command.spawn().map_err(|e| format!("failed to {e}"))?;
        let mut control = lab.take_control().ok_or("the lab has no control pipe")?;
        let order = Order {
            trial: job.id.clone(),
            file: job.file.clone(),
            deadline_factor: options.deadline_factor,
            armed: job.armed,
            ground,
            host_writes: hold.guardian.is_some(),
            record: options
                .record
                .as_ref()
                .map(|folder| folder.join(recording_name(job, options.backends.len() > 1, "jsonl"))),
            series: options.series.as_ref().map(|series| SeriesOrder {
                file: series.folder.join(recording_name(job, is_real, "series.gz")),
                base: series.base.contains(&job.id.scenario),
            }),
            hold: options.hold,
            outside_detectors: options.config.detectors.iter().map(|detector| detector.exec.clone()).collect(),
            outside_expectations: match job.armed {
                Armed::Before => options.config.expectations_for(&job.incident, &job.id.scenario),
                Armed::AfterInjection | Armed::Restarted => Vec::new(),
            },
            sabotage: options.sabotage.clone(),
        };
        write(&mut control, &order)?;
        let done = self.relay(&mut lab, &mut control, &mut hold).map(|done| *ended = done);
        // Tear-down begins after the lab's last message.
        let down = Instant::now();
        if done.is_err() || self.interrupt.is_urgent() {
            let _ = lab.kill();
        }
        let status = lab.wait().map_err(|e| e.to_string())?;
        drop(control);
        match lease.end(&lab, done.is_ok() && ended.up.is_some()) {
            Left::Nothing => ended.down = Some(down.elapsed()),
            Left::Something(why) => self.dirty(ended, why),
            Left::OnItsGround => {}
            // The ground is gone, and any leftovers of the trial with it.
            Left::NoGround(why) => (ended.outcome, ended.reasons) = (Outcome::Inconclusive, vec![why]),
        }
        drop(lab);
        if ended.outcome == Outcome::Dirty {
            lease.spoil();
        }
        self.release(hold, ended);
        self.compare_host(&before, ended)?;
        if let Err(why) = done {
            let stopped = self.interrupt.is_asked();
            ended.outcome = ended.outcome.max(if stopped { Outcome::Inconclusive } else { Outcome::InternalError });
            ended.reasons.push(if stopped { "stopped at once".into() } else { format!("{why}, status {status}") });
        }
        Ok(())
    }

    /// Relays events, and requests to the guardian, until the lab is done.
    fn relay(&self, lab: &mut LabProcess, control: &mut File, hold: &mut Hold) -> Result<TrialEnded, String> {
        let begin = Instant::now();
        // A held trial has no time limit.
        let limit = (!self.options.hold).then(|| self.job.at_most + PATIENCE);
        let events = lab.take_events().ok_or("the lab has no event pipe")?;
        let (lines_sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(events).lines().map_while(Result::ok) {
                if lines_sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut healing = false;
        let mut holding = false;
        loop {
            if self.interrupt.is_urgent() {
                return Err("torn down at once".into());
            }
            if limit.is_some_and(|limit| begin.elapsed() > limit) {
                return Err(format!("the lab gave no verdict within {} s and was killed", begin.elapsed().as_secs()));
            }
            if self.interrupt.is_asked() && !healing {
                healing = true;
                // A held trial already has its verdicts, and recovers in order.
                write(control, if holding { &ToLab::Leave } else { &ToLab::Heal })?;
            }
            if let Some(visitor) = &self.visitor {
                visitor.requests().try_for_each(|request| write(control, &request))?;
                if let Some(why) = hold.guardian.as_mut().and_then(machine::Guardian::alarm) {
                    visitor.send(HoldEvent::LimitRestored { why });
                }
            }
            let line = match lines.recv_timeout(LOOK) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Err("the lab ended before its verdict".into()),
            };
            match serde_json::from_str(&line).map_err(|e| format!("unexpected message from the lab: {e}"))? {
                FromLab::Event { event, .. } => (self.emit)(event),
                FromLab::HostLimit(request) => {
                    let answer = match &mut hold.guardian {
                        Some(guardian) => guardian.ask(request).map_err(|e| e.to_string()),
                        None => Err("this trial does not hold the limit".into()),
                    };
                    write(control, &ToLab::HostLimit(answer))?;
                }
                FromLab::Up { inodes } => {
                    if let Some(guardian) = &mut hold.guardian {
                        guardian.declare_own(inodes);
                    }
                }
                FromLab::Hold(event) => {
                    holding = true;
                    if let Some(visitor) = &self.visitor {
                        visitor.send(event);
                    }
                }
                FromLab::Done(done) => return Ok(done),
            }
        }
    }

    fn release(&self, mut hold: Hold, ended: &mut TrialEnded) {
        let Some(guardian) = &mut hold.guardian else { return };
        if let Some(why) = guardian.alarm() {
            ended.outcome = ended.outcome.max(Outcome::Inconclusive);
            ended.reasons.push(format!("the guardian restored nf_conntrack_max early: {why}"));
        }
        match guardian.restore() {
            Ok(Restore::Restored { .. } | Restore::Nothing) => {}
            Ok(Restore::NotOurs { found, expected }) => {
                let what = format!("nf_conntrack_max is {found}, not the {expected} that was written");
                (self.emit)(TrialEvent::HostChanged { what });
            }
            Err(e) => self.dirty(ended, format!("nf_conntrack_max: {e}")),
        }
        if let Some(guardian) = hold.guardian {
            let _ = guardian.finish();
        }
    }

    fn compare_host(&self, before: &Snapshot, ended: &mut TrialEnded) -> Result<(), String> {
        let after = look_at_host()?;
        for difference in host::diff(before, &after) {
            if !difference.what.contains("nf_conntrack_max") {
                (self.emit)(TrialEvent::HostChanged { what: difference.to_string() });
            } else if self.job.needs.writes_limit() {
                self.dirty(ended, difference.to_string());
            }
            // Otherwise a concurrent trial holds the limit and is responsible for it.
        }
        Ok(())
    }

    fn dirty(&self, ended: &mut TrialEnded, what: String) {
        ended.outcome = ended.outcome.max(Outcome::Dirty);
        ended.reasons.push(format!("left behind: {what}"));
        (self.emit)(TrialEvent::LeftBehind { what });
    }
}

/// A snapshot of the machine outside the lab. Only root can list nft tables.
fn look_at_host() -> Result<Snapshot, String> {
    let tables =
        if is_root() { NetNs::own("this machine").and_then(|own| nft::list_tables(&own)) } else { Ok(Vec::new()) };
    tables.and_then(Snapshot::take).map_err(|e| format!("the host could not be read: {e}"))
}

fn write(control: &mut File, message: &impl serde::Serialize) -> Result<(), String> {
    send(control, message).map_err(|e| format!("failed to write to the lab: {e}"))
}

/// The file name of a recording, distinct for several backends.
fn recording_name(job: &Job, of_several: bool, ending: &str) -> String {
    let control = job.id.control.as_ref().map(|name| format!("--{name}")).unwrap_or_default();
    let repetition = if job.id.repetition > 1 { format!("-{}", job.id.repetition) } else { String::new() };
    let backend = if of_several { format!(".{}", job.id.backend) } else { String::new() };
    format!("{}{control}{repetition}{backend}.{ending}", job.id.scenario)
}
