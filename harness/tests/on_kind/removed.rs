//! However a run ends, exactly its own parts are removed: containers, network, folder, journal; settings written by its
//! nodes are restored; the cluster of another owner beside it does not change.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use relapse::event::{Outcome, Phase, RunEvent, TrialEvent, What};
use relapse_kind::NODE_WRITES;

use super::super::Tested;
use super::contained;
use crate::support::engine::Engine;
use crate::support::real_run::{Home, Run, docker, on_path, printed, until};
use crate::support::skips;
use crate::support::stranger::Stranger;

/// Time limit for the first container of a cluster.
const FIRST_CONTAINER: Duration = Duration::from_secs(60);
/// Time limit for processes of a killed run to end or to be ended.
const ENDED: Duration = Duration::from_secs(60);
/// Time limit for a run without nodes to give up, including the removal.
const GIVEN_UP: Duration = Duration::from_secs(120);

static STRANGER: Mutex<Option<Stranger>> = Mutex::new(None);

fn strangers() -> MutexGuard<'static, Option<Stranger>> {
    STRANGER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test beside the cluster of another owner, which is the current context of KUBECONFIG, and checks that cluster
/// afterwards.
fn beside_stranger(test: impl FnOnce(&Home) -> Tested) -> Tested {
    let mut slot = strangers();
    let stranger = match &mut *slot {
        Some(stranger) => stranger,
        None => slot.insert(Stranger::new()?),
    };
    let home = Home::new().with("KUBECONFIG", stranger.kubeconfig().display().to_string());
    test(&home).and_then(|()| stranger.is_untouched())
}

/// Checks the other cluster after all tests beside it.
pub fn stranger_untouched() -> Tested {
    beside_stranger(|_| Ok(()))
}

/// Removes the other cluster.
pub fn end() {
    drop(strangers().take());
}

fn injected(event: &RunEvent) -> bool {
    matches!(&event.what, What::Trial { event: TrialEvent::Injected(_), .. })
}

fn baseline(event: &RunEvent) -> bool {
    matches!(&event.what, What::Trial { event: TrialEvent::Phase { phase: Phase::Baseline, .. }, .. })
}

/// A step of a chain is being healed.
fn healing(event: &RunEvent) -> bool {
    let heals = |event: &TrialEvent| matches!(event, TrialEvent::Phase { phase: Phase::Heal, step: Some(_) });
    matches!(&event.what, What::Trial { event, .. } if heals(event))
}

fn ended(event: &RunEvent) -> bool {
    matches!(&event.what, What::Trial { event: TrialEvent::Ended(_), .. })
}

fn containers(id: &str) -> Result<Vec<String>, String> {
    let all = docker(&["ps", "--all", "--format", "{{.Names}}"])?;
    Ok(all.lines().filter(|name| name.starts_with(&format!("relapse-{id}-"))).map(str::to_owned).collect())
}

/// Command lines of living processes that name the run's cluster.
fn processes(id: &str) -> Vec<String> {
    let name = format!("relapse-{id}");
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    // Processes of a node end with its container.
    lines.filter(|line| line.contains(&name) && (line.contains("kind ") || line.starts_with("docker "))).collect()
}

/// Recovers once; then nothing of the run is left or reappears.
fn recovered(home: &Home, id: &str) -> Tested {
    let text = home.recover()?;
    let removed = format!("kind cluster relapse-{id} was removed");
    if !text.contains(&removed) {
        return Err(format!("recover did not print {removed:?}: {text}"));
    }
    home.nothing_left(id)?;
    until("the processes of the run have ended", ENDED, || Ok(processes(id).is_empty().then_some(())))?;
    home.nothing_left(id).map_err(|e| format!("it reappeared: {e}"))
}

/// Kills only the run, not its child processes.
pub fn coming_up() -> Tested {
    beside_stranger(|home| {
        let mut run = home.start(&["--only", "incident"]);
        let id = run.id()?;
        until("its first container", FIRST_CONTAINER, || Ok((!containers(&id)?.is_empty()).then_some(())))?;
        run.kill(false)?;
        recovered(home, &id)
    })
}

/// Kills a chain while its second step is being healed: changes that heal, and faults of later steps, are in force.
pub fn chain_healing() -> Tested {
    beside_stranger(|home| {
        let mut run = home.start_of("four-twists", &["--only", "incident"], &[]);
        let id = run.id()?;
        for which in ["the healing of a step", "the healing of a second step"] {
            run.until(which, healing)?;
        }
        let left = home.left(&id)?;
        if !left.iter().any(|one| one.ends_with("-outside-database")) {
            return Err(format!("no database among the parts to remove: {left:#?}"));
        }
        run.kill(true)?;
        recovered(home, &id)
    })
}

/// A packet tried to leave during the trial, so the trial is dirty and its cluster is removed.
pub fn going_down() -> Tested {
    beside_stranger(|home| {
        let mut run = home.start(&["--only", "incident"]);
        let id = run.id()?;
        run.until("a baseline", baseline)?;
        contained::try_to_leave(&id)?;
        run.until("an end of its trial", ended)?;
        packet_is_reported(&run)?;
        until("docker removes its containers", Duration::from_secs(20), || {
            Ok(processes(&id).iter().any(|line| line.starts_with("docker rm ")).then_some(()))
        })?;
        run.kill(true)?;
        recovered(home, &id)
    })
}

/// Torn down immediately, with the trial's parts still in the cluster: the packet is still reported.
pub fn cut_off() -> Tested {
    let home = Home::new();
    let mut run = home.start(&["--only", "incident"]);
    let id = run.id()?;
    run.until("a baseline", baseline)?;
    contained::try_to_leave(&id)?;
    // A single signal would heal first. Two equal signals could be merged.
    ["INT", "TERM"].iter().try_for_each(|signal| run.send(signal))?;
    run.ends_in(Outcome::Dirty)?;
    packet_is_reported(&run)?;
    home.nothing_left(&id)
}

fn packet_is_reported(run: &Run) -> Tested {
    let reasons = run.reasons();
    if reasons.starts_with("Dirty: ") && reasons.contains(contained::REASON) {
        return Ok(());
    }
    Err(format!("no reason contains {:?}: {reasons}", contained::REASON))
}

/// Two clusters with a fault in force on each, each with a server outside in a container that is not kind's: all are
/// removed. Runs before any other cluster exists, so settings are restored, too.
pub fn in_force() -> Tested {
    let settings = Settings::look("killed with the fault in force")?;
    let home = Home::new();
    let dozen = ["--only", "incident", "--repeat", "12", "--jobs", "2"];
    let mut run = home.start_of("coredns-single-replica-loss", &dozen, &[]);
    let id = run.id()?;
    for which in ["a fault", "a fault on another cluster"] {
        run.until(which, injected)?;
    }
    let left = home.left(&id)?;
    run.kill(true)?;
    // Of each cluster: its nodes, the server, a network, a folder, a journal.
    let is = |name: &str| left.iter().filter(|one| one.ends_with(name)).count();
    if left.len() != 14 || is("-outside-example-api") != 2 || is("-control-plane") != 2 {
        return Err(format!("unexpected parts to remove: {left:#?}\n{}", run.log()));
    }
    let reports = home.reports().display().to_string();
    let next = ["run", "policy-route-lost", "--only", "incident", "--reports", &reports];
    // A starting run does not wait for the lock of another run's trial; if trials follow each other without a gap, only
    // waiting processes get it.
    let started = until("the next start gets the lock", Duration::from_secs(60), || {
        let text = printed(&home.relapse(&next).output().map_err(|e| e.to_string())?);
        Ok((!text.contains("another run holds the lock")).then_some(()))
    });
    if let Err(why) = started {
        skips::note("killed with the fault in force", &format!("{why}: relapse recover in its place"));
        recovered(&home, &id)?;
    }
    home.nothing_left(&id)?;
    settings.are_as_before()
}

/// Each run creates a cluster in turn, while the other's is removed. Settings written by the nodes of both are restored
/// with the last one.
pub fn two_at_once() -> Tested {
    let settings = Settings::look("two runs at once")?;
    let home = Home::new();
    let mut runs: Vec<Run> = (0..2).map(|_| home.start(&["--only", "incident"])).collect();
    for run in &mut runs {
        run.ends_in(Outcome::Pass)?;
    }
    runs.iter_mut().try_for_each(|run| home.nothing_left(&run.id()?))?;
    settings.are_as_before()
}

/// Stops the real engine if the test owns it; otherwise simulates that with nodes and `docker`.
pub fn engine_stopped() -> Tested {
    match Engine::ours() {
        Ok(engine) => {
            // The other cluster would end with the engine.
            end();
            if engine.is_idle()? {
                stopped_for_real(engine)
            } else {
                as_if_stopped("other containers run in the engine")
            }
        }
        Err(why) => as_if_stopped(&why),
    }
}

fn stopped_for_real(mut engine: Engine) -> Tested {
    let home = Home::new();
    // The engine is restarted before the home removes leftovers.
    let engine = &mut engine;
    let mut run = home.start(&["--only", "incident"]);
    let id = run.id()?;
    run.until("a fault", injected)?;
    let others = docker(&["ps", "--format", "{{.Names}}"])?;
    if let Some(other) = others.lines().find(|name| !name.starts_with(&format!("relapse-{id}"))) {
        return Err(format!("{other} was started meanwhile and would end with the engine: not tested"));
    }
    let begin = Instant::now();
    engine.stop()?;
    gives_up(&mut run, begin)?;
    engine.start()?;
    recovered(&home, &id)
}

/// All nodes of the cluster are killed while the fault is in force, and `docker` fails until it is back.
fn as_if_stopped(why: &str) -> Tested {
    skips::note(
        "the engine stopped during a trial",
        &format!("the real engine, {why}: killed nodes and a stub for docker are used"),
    );
    beside_stranger(|home| {
        let stopped = home.path().join("stopped");
        let real_docker = on_path("docker").ok_or("there is no docker on the path")?;
        let script = format!(
            "#!/bin/sh\nif [ -e '{}' ]; then echo 'Cannot connect to the Docker daemon' >&2; exit 1; fi\nexec '{}' \"$@\"\n",
            stopped.display(),
            real_docker.display()
        );
        let programs = home.path().join("bin");
        home.program(&programs.join("docker"), &script)?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut run = home.start_with(&["--only", "incident"], &[("PATH", format!("{}:{path}", programs.display()))]);
        let id = run.id()?;
        run.until("a fault", injected)?;
        let nodes = containers(&id)?;
        fs::write(&stopped, "").map_err(|e| e.to_string())?;
        let kill: Vec<&str> = std::iter::once("kill").chain(nodes.iter().map(String::as_str)).collect();
        docker(&kill)?;
        gives_up(&mut run, Instant::now())?;
        // Later, after the engine is back.
        recovered(home, &id)
    })
}

/// Asserts that the run gives up in time, with one line about the lost cluster and how to remove its leftovers.
fn gives_up(run: &mut Run, begin: Instant) -> Tested {
    run.ends_in(Outcome::Inconclusive)?;
    if begin.elapsed() > GIVEN_UP {
        return Err(format!("it went on for {:?}", begin.elapsed()));
    }
    let reasons = run.reasons();
    if !reasons.contains("no longer there") || reasons.lines().count() != 1 {
        return Err(format!("expected one line with \"no longer there\": {reasons}"));
    }
    let names_recover =
        |event: &RunEvent| matches!(&event.what, What::Notice { text } if text.contains("relapse recover"));
    if run.received.iter().any(names_recover) {
        return Ok(());
    }
    Err(format!("no notice explains how to remove the cluster\n{}", run.log()))
}

/// Settings of this machine that a node writes, and that may be 0 while there is none.
struct Settings {
    /// The values before the test; different from a node's, if this program may write them.
    before: Vec<String>,
    /// The original values.
    own: Vec<String>,
}

impl Settings {
    /// An earlier node may have left its values, which would hide a missing restoration: with consent they are changed
    /// first.
    fn look(name: &str) -> Result<Self, String> {
        let own = Self::read();
        let mut settings = Self { before: own.clone(), own };
        let others = docker(&["ps", "--quiet", "--filter", "label=io.x-k8s.kind.cluster"])?;
        let written = |((_, new), now): (&(&str, &str), &String)| now == new;
        if !others.is_empty() {
            skips::note(name, "settings of the machine: running kind clusters depend on them");
        } else if std::env::var("RELAPSE_ALLOW_HOST_WRITES").is_ok_and(|value| value == "1") {
            settings.before = vec!["0".to_owned(); settings.own.len()];
            write(&settings.before);
        } else if Self::all().zip(&settings.own).any(written) {
            skips::note(
                name,
                "settings of the machine: some already have a node's values (RELAPSE_ALLOW_HOST_WRITES=1)",
            );
        }
        Ok(settings)
    }

    fn all() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        let may_be_0 = |key: &str| !key.starts_with("kernel.keys.") && key != "kernel.pid_max";
        NODE_WRITES.iter().filter(move |(key, new)| may_be_0(key) && *new != "0")
    }

    fn read() -> Vec<String> {
        Self::all().map(|(key, _)| fs::read_to_string(path(key)).unwrap_or_default().trim().to_owned()).collect()
    }

    fn are_as_before(&self) -> Tested {
        let now = Self::read();
        if now == self.before { Ok(()) } else { Err(format!("settings are {now:?}, were {:?}", self.before)) }
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        if self.own != self.before {
            write(&self.own);
        }
    }
}

fn path(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}

fn write(values: &[String]) {
    for ((key, _), value) in Settings::all().zip(values) {
        let _ = fs::write(path(key), value);
    }
}
