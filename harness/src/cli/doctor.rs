//! `relapse doctor`: what this machine can and cannot run, and how to fix it.
//!
//! Changes nothing. Requirements of labs are tested in a lab; everything else is only inspected.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use relapse_kernel::kmsg::KernelLog;
use relapse_kernel::{host, process};
use relapse_lab::cluster::backend::{self, Backend, Part};
use relapse_lab::host::identity;
use relapse_lab::host::journal::{self, Found};
use relapse_lab::host::{Consent, Site, limit_is_closed, lock};
use relapse_lab::netns::Labs;
use relapse_lab::netns::probe::{Attempt, NeededBy};
use relapse_reports::paint::Page;
use relapse_reports::units;
use relapse_reports::words::Tone;

use super::out;
use crate::run::needs::Needs;

/// Programs for manual inspection. relapse itself needs none of them.
const TOOLS: [&str; 6] = ["ip", "ss", "tcpdump", "nft", "conntrack", "dig"];

/// Severity of a check's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    /// Runs leave something out and report it.
    Less,
    /// Nothing runs without it.
    Missing,
    /// Worth knowing.
    Note,
}

/// Prints results and collects the verdict.
struct Findings {
    page: Page,
    able: bool,
}

impl Findings {
    fn head(&self, title: &str) {
        out::line(self.page.strong(title));
    }

    fn report(&mut self, state: State, what: &str, detail: &str) {
        let (tone, word) = match state {
            State::Ok => (Tone::Good, "ok"),
            State::Less => (Tone::Unsure, "limited"),
            State::Missing => (Tone::Bad, "missing"),
            State::Note => (Tone::Note, "note"),
        };
        self.able &= state != State::Missing;
        let pad = " ".repeat(9_usize.saturating_sub(word.len()));
        let mut lines = detail.lines();
        out::line(format!("  {}{pad}{what:<22} {}", self.page.paint(tone, word), lines.next().unwrap_or_default()));
        out::lines(lines.map(|line| format!("{:34}{line}", "")));
    }

    fn need<T, E: ToString>(&mut self, what: &str, result: Result<T, E>, ok: impl FnOnce(T) -> String) -> bool {
        match result {
            Ok(value) => self.report(State::Ok, what, &ok(value)),
            Err(why) => {
                self.report(State::Missing, what, &why.to_string());
                return false;
            }
        }
        true
    }
}

pub fn main() -> ExitCode {
    let mut found = Findings { page: out::page(), able: true };
    let user = if host::is_root() { "root" } else { "an ordinary user" };
    out::line(format!("relapse {} on Linux {}, as {user}", env!("CARGO_PKG_VERSION"), release()));
    found.head("labs in network namespaces (netns)");
    let labs = Labs::default();
    lab(&mut found, &labs);
    for backend in backend::registered() {
        let parts = (backend.parts)();
        if !parts.is_empty() {
            found.head(&format!("real clusters ({})", backend.name));
            real_clusters(&mut found, parts);
        }
    }
    found.head("other sources of signals");
    match KernelLog::file() {
        Ok(_) => found.report(State::Ok, "kernel log", "/dev/kmsg is readable"),
        Err(e) => {
            found.report(State::Less, "kernel log", &format!("failed to {e}\noptional: nothing depends on it alone"))
        }
    }
    found.head("the machine-wide conntrack limit");
    limit(&mut found);
    left_over(&mut found);
    found.head("scenarios in this folder, in labs");
    scenarios(&mut found, labs);
    found.head("tools for relapse reproduce");
    let missing: Vec<&str> = TOOLS.into_iter().filter(|tool| !is_installed(tool)).collect();
    if missing.is_empty() {
        found.report(State::Ok, "tools", &TOOLS.join(", "));
    } else {
        found.report(State::Note, "tools", &format!("not installed: {}", missing.join(", ")));
    }
    let (tone, verdict) = if found.able {
        (Tone::Good, "this machine can run labs")
    } else {
        (Tone::Bad, "this machine cannot run labs; see what is missing above")
    };
    out::line(found.page.paint(tone, verdict));
    ExitCode::from(u8::from(!found.able))
}

fn lab(found: &mut Findings, labs: &Labs) {
    let allowed = process::diagnose_user_namespaces();
    if !found.need("user namespaces", allowed, |()| "allowed".into()) {
        return;
    }
    found.report(State::Ok, "open files", &format!("at most {}", host::nofile().hard));
    for Attempt { what, result, needed_by } in labs.attempts() {
        match (result, needed_by) {
            (Ok(seen), _) => found.report(State::Ok, what, seen),
            (Err(why), NeededBy::Labs) => found.report(State::Missing, what, why),
            (Err(why), NeededBy::Collectors(_) | NeededBy::SlowPaths) => found.report(State::Less, what, why),
            (Err(why), NeededBy::People) => found.report(State::Note, what, why),
        }
    }
}

/// Lists the trials in this folder that cannot run in labs because of missing parts, by the same check as a run, with
/// all consent given.
fn scenarios(found: &mut Findings, labs: Labs) {
    if !Path::new(super::SCENARIOS).is_dir() {
        return found.report(State::Note, "scenarios/", "no such folder here");
    }
    let Ok(plans) = super::find(&[]) else {
        return found.report(State::Note, "scenarios/", "invalid: run `relapse check` for details");
    };
    let labs: Arc<dyn Backend> = Arc::new(labs);
    let (mut all, mut skipped) = (0, BTreeMap::<String, BTreeMap<&str, usize>>::new());
    for (plan, trial) in plans.iter().flat_map(|plan| plan.trials().map(move |trial| (plan, trial))) {
        all += 1;
        if let Some(why) = Needs::of(plan, trial).unmet(&labs, Consent::Granted) {
            *skipped.entry(why).or_default().entry(&plan.name).or_default() += 1;
        }
    }
    let left: usize = skipped.values().flat_map(BTreeMap::values).sum();
    found.report(
        if left == 0 { State::Ok } else { State::Less },
        "trials",
        &format!("{} of {all} can run", all - left),
    );
    for (why, of) in skipped {
        let (trials, names) = (of.values().sum::<usize>(), of.into_keys().collect::<Vec<_>>().join(", "));
        found.report(State::Less, &units::count(trials, "trial"), &format!("{why}\nskipped trials of: {names}"));
    }
}

/// Parts of real clusters. Labs need none of them.
fn real_clusters(found: &mut Findings, parts: Vec<Part>) {
    for (part, result) in parts {
        match result {
            Ok(seen) => found.report(State::Ok, part, &seen),
            Err(why) => found.report(State::Less, part, &why),
        }
    }
}

fn limit(found: &mut Findings) {
    match host::conntrack_max() {
        Ok(value) => found.report(State::Ok, "nf_conntrack_max", &value.to_string()),
        Err(e) => {
            return found.report(State::Less, "nf_conntrack_max", &format!("failed to {e}\nmodprobe nf_conntrack"));
        }
    }
    match limit_is_closed() {
        None if Consent::from_environment(false).is_granted() => {
            found.report(State::Ok, "writable", "yes: RELAPSE_ALLOW_HOST_WRITES=1 is set");
        }
        None => found.report(State::Ok, "writable", "yes, with --allow-host-writes"),
        Some(why) => {
            let detail = format!(
                "{why}\nconntrack-cap-reset and its variants (I2) run without lowering the limit; controls that write it are skipped"
            );
            found.report(State::Less, "writable", &detail);
        }
    }
}

fn left_over(found: &mut Findings) {
    match lock::holders(&lock::limit()) {
        holders if holders.is_empty() => found.report(State::Ok, "lock", "free"),
        holders => found.report(State::Note, "lock", &format!("held by {}", holders.join(", "))),
    }
    let journals = Site::host().and_then(|site| journal::list(&site.journals));
    let journals = match journals {
        Ok(journals) => journals,
        Err(e) => return found.report(State::Note, "journals", &format!("failed to {e}")),
    };
    let this_boot = identity::boot_id().unwrap_or_default();
    let mut dead = 0;
    for (path, what) in &journals {
        let path = path.display();
        match what {
            Found::Journal(journal) if journal.boot_id == this_boot && journal.owner.is_alive() => {
                let owner = journal.owner.pid;
                found.report(
                    State::Note,
                    "journals",
                    &format!("run {} is in progress, guarded by process {owner}", journal.run_id),
                );
            }
            Found::Journal(journal) => {
                dead += 1;
                found.report(
                    State::Note,
                    "journals",
                    &format!("run {} was killed: run `relapse recover`", journal.run_id),
                );
            }
            Found::Newer { version } => {
                found.report(
                    State::Note,
                    "journals",
                    &format!("{path} was written by a newer relapse (version {version})"),
                );
            }
            Found::Unreadable { why } | Found::Closed { why } => {
                dead += 1;
                found.report(State::Note, "journals", &format!("{path} cannot be read ({why}): run `relapse recover`"));
            }
            Found::Draft => {}
        }
    }
    if dead == 0 {
        found.report(State::Ok, "journals", "nothing was left behind");
    }
}

fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Whether a program is on the path or in the `sbin` folders.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).to_owned());
    std::env::split_paths(&path).chain(more).any(|folder| folder.join(program).is_file())
}
