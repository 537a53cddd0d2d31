//! One trial from outside its lab: locks and consent, the lab process, the guardian, proof that all
//! is gone.

use std::io::{BufRead, BufReader, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use relapse_kernel::host::{self, Snapshot, is_root};
use relapse_kernel::process::{LabCommand, LabProcess};
use relapse_kernel::{NetNs, nft};
use relapse_lab::cluster::backend::{LAB, Left};
use relapse_lab::host::Restore;
use relapse_lab::host_limit::{HostLimitReply, HostLimitRequest};
use relapse_reports::event::{Outcome, TrialEnded, TrialEvent};

use super::hold::Line;
use super::order::{FromLab, HoldNews, Order, ToLab};
use super::share::Hold;
use super::{Interrupt, Job, Options};

/// How often a wish to stop is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// Beside its own deadlines a trial needs time to come up, to heal and to go down, on a busy machine too; one that takes
/// longer than that hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs one trial to its end; every exit tells `Ended`.
pub fn trial(
    job: &Job,
    options: &Options,
    interrupt: &Interrupt,
    tell: &(dyn Fn(TrialEvent) + Sync),
    line: Option<&Line<'_>>,
) {
    let mut ended = TrialEnded {
        outcome: Outcome::Skipped,
        reasons: Vec::new(),
        took: Duration::ZERO,
        up: None,
        down: None,
        peak_memory: None,
        cpu: None,
    };
    if let Some(reason) = job.needs.unmet(&job.backend, options.consent) {
        if options.require.contains(&job.id.backend) {
            ended.outcome = Outcome::Fail;
            ended.reasons = vec![format!("required, but skipped: {reason}")];
        } else {
            tell(TrialEvent::Skipped { reason: reason.clone() });
            ended.reasons = vec![reason];
        }
        tell(TrialEvent::Ended(ended));
        return;
    }
    let Some(hold) = Hold::wait(job, options, interrupt, tell) else {
        let reason = "the run was interrupted while it waited".to_owned();
        tell(TrialEvent::Skipped { reason: reason.clone() });
        ended.reasons = vec![reason];
        tell(TrialEvent::Ended(ended));
        return;
    };
    // Waiting for the machine is no part of the trial.
    let begin = Instant::now();
    tell(TrialEvent::Started);
    match hold.and_then(|hold| supervise(job, options, hold, interrupt, tell, line, &mut ended)) {
        Ok(()) => {}
        Err(why) => {
            ended.outcome = ended.outcome.max(Outcome::InternalError);
            ended.reasons.insert(0, why);
        }
    }
    ended.took = begin.elapsed();
    tell(TrialEvent::Ended(ended));
}

fn supervise(
    job: &Job,
    options: &Options,
    mut hold: Hold,
    interrupt: &Interrupt,
    tell: &(dyn Fn(TrialEvent) + Sync),
    line: Option<&Line<'_>>,
    ended: &mut TrialEnded,
) -> Result<(), String> {
    for what in std::mem::take(&mut hold.recovered) {
        tell(TrialEvent::HostChanged { what });
    }
    let waiting = |reason| tell(TrialEvent::Waiting { reason });
    let mut lease = match job.backend.lease(&job.wanted, &waiting, &|| interrupt.is_asked()) {
        Ok(lease) => lease,
        Err(why) => {
            release(hold, ended, tell);
            ended.outcome = Outcome::Inconclusive;
            ended.reasons.push(why);
            return Ok(());
        }
    };
    let before = look_at_host()?;
    let ground = lease.ground();
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
        ground,
        host_writes: hold.guardian.is_some(),
        record: options.record.as_ref().map(|folder| folder.join(recording_name(job, options.backends.len() > 1))),
        hold: options.hold,
        outside_detectors: options.config.detectors.iter().map(|detector| detector.exec.clone()).collect(),
        outside_expectations: options.config.expectations_for(&job.incident, &job.id.scenario),
        sabotage: options.sabotage.clone(),
    };
    say(&mut control, &order)?;
    // Held, it lasts as long as somebody looks around.
    let limit = (!options.hold).then(|| job.at_most + PATIENCE);
    let done = relay(&mut lab, &mut control, &mut hold, interrupt, tell, line, limit, ended);
    // Down begins when the lab has said its last word.
    let down = Instant::now();
    if done.is_err() || interrupt.is_urgent() {
        let _ = lab.kill();
    }
    let status = lab.wait().map_err(|e| e.to_string())?;
    drop(control);
    match lease.end(&lab, done.is_ok() && ended.up.is_some()) {
        Left::Nothing => ended.down = Some(down.elapsed()),
        Left::Something(why) => dirty(ended, tell, why),
        Left::OnItsGround => {}
        // What the trial missed of its own had gone with it.
        Left::NoGround(why) => (ended.outcome, ended.reasons) = (Outcome::Inconclusive, vec![why]),
    }
    drop(lab);
    if ended.outcome == Outcome::Dirty {
        lease.spoil();
    }
    release(hold, ended, tell);
    compare_host(job, &before, ended, tell)?;
    if let Err(why) = done {
        let stopped = interrupt.is_asked();
        ended.outcome = ended.outcome.max(if stopped { Outcome::Inconclusive } else { Outcome::InternalError });
        ended.reasons.push(if stopped { "stopped at once".into() } else { format!("{why}, status {status}") });
    }
    Ok(())
}

/// The machine from outside the lab. Names of nft tables are for root's eyes only.
fn look_at_host() -> Result<Snapshot, String> {
    let tables =
        if is_root() { NetNs::own("this machine").and_then(|own| nft::list_tables(&own)) } else { Ok(Vec::new()) };
    tables.and_then(Snapshot::take).map_err(|e| format!("the host could not be read: {e}"))
}

fn say(control: &mut impl Write, message: &impl serde::Serialize) -> Result<(), String> {
    let mut line = serde_json::to_vec(message).map_err(|e| e.to_string())?;
    line.push(b'\n');
    control.write_all(&line).map_err(|e| format!("the lab does not listen: {e}"))
}

/// Passes events on and requests to the guardian, until the lab is done.
#[expect(clippy::too_many_arguments, reason = "it stands between all who take part in a trial")]
fn relay(
    lab: &mut LabProcess,
    control: &mut std::fs::File,
    hold: &mut Hold,
    interrupt: &Interrupt,
    tell: &(dyn Fn(TrialEvent) + Sync),
    visitor: Option<&Line<'_>>,
    limit: Option<Duration>,
    ended: &mut TrialEnded,
) -> Result<(), String> {
    let begin = Instant::now();
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
        if interrupt.is_urgent() {
            return Err("torn down at once".into());
        }
        if limit.is_some_and(|limit| begin.elapsed() > limit) {
            return Err(format!("the lab gave no verdict within {} s and was ended", begin.elapsed().as_secs()));
        }
        if interrupt.is_asked() && !healing {
            healing = true;
            // Who is held has its verdicts already, and recovers in good order.
            say(control, if holding { &ToLab::Leave } else { &ToLab::Heal })?;
        }
        if let Some(visitor) = visitor {
            visitor.requests().try_for_each(|request| say(control, &request))?;
            if let Some(guardian) = &mut hold.guardian
                && let Some(why) = guardian.alarm()
            {
                visitor.tell(HoldNews::LimitRestored { why });
            }
        }
        let line = match lines.recv_timeout(LOOK) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => {
                return Err("the lab ended before its verdict".into());
            }
        };
        match serde_json::from_str(&line).map_err(|e| format!("the lab said something unexpected: {e}"))? {
            FromLab::Event { event, .. } => tell(event),
            FromLab::HostLimit(request) => {
                let reply = answer(hold, request);
                say(control, &ToLab::HostLimit(reply))?;
            }
            FromLab::Up { inodes } => {
                if let Some(guardian) = &mut hold.guardian {
                    guardian.declare_own(inodes);
                }
            }
            FromLab::Hold(news) => {
                holding = true;
                if let Some(visitor) = visitor {
                    visitor.tell(news);
                }
            }
            FromLab::Done { outcome, reasons, up_ns, peak_memory, cpu } => {
                ended.outcome = outcome;
                ended.reasons = reasons;
                ended.up = (up_ns > 0).then(|| Duration::from_nanos(up_ns));
                ended.peak_memory = peak_memory;
                ended.cpu = cpu;
                return Ok(());
            }
        }
    }
}

fn answer(hold: &mut Hold, request: HostLimitRequest) -> HostLimitReply {
    let Some(guardian) = &mut hold.guardian else {
        return HostLimitReply::Refused { why: "this trial does not hold the limit".into() };
    };
    match request {
        HostLimitRequest::Expect(value) => match u32::try_from(value).map(|value| guardian.expect_limit(value)) {
            Ok(Ok(before)) => HostLimitReply::Expected { before: before.into() },
            Ok(Err(e)) => HostLimitReply::Refused { why: e.to_string() },
            Err(_) => HostLimitReply::Refused { why: format!("{value} is larger than the kernel's limit can be") },
        },
        HostLimitRequest::Write(value) => match u32::try_from(value).map(|value| guardian.write_limit(value)) {
            Ok(Ok(written)) => HostLimitReply::Written {
                before: written.before.into(),
                t0: written.t0,
                t1: written.t1,
                read_back: written.read_back.into(),
            },
            Ok(Err(e)) => HostLimitReply::Refused { why: e.to_string() },
            Err(_) => HostLimitReply::Refused { why: format!("{value} is larger than the kernel's limit can be") },
        },
        HostLimitRequest::Restore => match guardian.restore() {
            Ok(Restore::Restored { .. } | Restore::Nothing) => HostLimitReply::Restored,
            Ok(Restore::NotOurs { found, expected }) => HostLimitReply::Refused {
                why: format!("somebody else wrote {found} where {expected} was ours; it is left as it is"),
            },
            Err(e) => HostLimitReply::Refused { why: e.to_string() },
        },
    }
}

fn release(mut hold: Hold, ended: &mut TrialEnded, tell: &dyn Fn(TrialEvent)) {
    let Some(guardian) = &mut hold.guardian else { return };
    if let Some(why) = guardian.alarm() {
        ended.outcome = ended.outcome.max(Outcome::Inconclusive);
        ended.reasons.push(format!("the guardian restored nf_conntrack_max early: {why}"));
    }
    match guardian.restore() {
        Ok(Restore::Restored { .. } | Restore::Nothing) => {}
        Ok(Restore::NotOurs { found, expected }) => {
            tell(TrialEvent::HostChanged {
                what: format!("nf_conntrack_max is {found}, not the {expected} that was written"),
            });
        }
        Err(e) => dirty(ended, tell, format!("nf_conntrack_max: {e}")),
    }
    if let Some(guardian) = hold.guardian {
        let _ = guardian.finish();
    }
}

fn compare_host(job: &Job, before: &Snapshot, ended: &mut TrialEnded, tell: &dyn Fn(TrialEvent)) -> Result<(), String> {
    let after = look_at_host()?;
    for difference in host::diff(before, &after) {
        let is_limit = difference.what.contains("nf_conntrack_max");
        if is_limit && !job.needs.writes_limit() {
            // Another trial, side by side, holds the limit; it answers for it.
            continue;
        }
        if is_limit {
            dirty(ended, tell, difference.to_string());
        } else {
            tell(TrialEvent::HostChanged { what: difference.to_string() });
        }
    }
    Ok(())
}

fn dirty(ended: &mut TrialEnded, tell: &dyn Fn(TrialEvent), what: String) {
    tell(TrialEvent::LeftBehind { what: what.clone() });
    ended.outcome = ended.outcome.max(Outcome::Dirty);
    ended.reasons.push(format!("left behind: {what}"));
}

/// Recordings of several backends lie beside each other.
fn recording_name(job: &Job, of_several: bool) -> String {
    let control = job.id.control.as_ref().map(|name| format!("--{name}")).unwrap_or_default();
    let repetition = if job.id.repetition > 1 { format!("-{}", job.id.repetition) } else { String::new() };
    let backend = if of_several { format!(".{}", job.id.backend) } else { String::new() };
    format!("{}{control}{repetition}{backend}.jsonl", job.id.scenario)
}
