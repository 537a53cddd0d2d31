//! Clusters that cannot be created: the reason is reported in one line and in time, and nothing is left.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use relapse::event::{Outcome, RunEvent, TrialEvent, What};
use relapse_kind::noted;

use super::super::Tested;
use crate::support::engine::SmallEngine;
use crate::support::real_run::{Home, Run, docker, on_path, until};
use crate::support::skips;

/// Time limit for a run that cannot create a cluster.
const SOON: Duration = Duration::from_secs(20);
/// Asserts that the trial is skipped with these words in its reason, and fails if the backend is required.
fn skipped(home: &Home, image: &[&str], words: &[&str]) -> Tested {
    let begin = Instant::now();
    let with = |more: &[&str]| home.start(&[&["--only", "incident"], image, more].concat());
    let mut run = with(&[]);
    run.ends_in(Outcome::Skipped)?;
    let matches_all = |reason: &str| words.iter().all(|word| reason.contains(word));
    let is_skipped = |run: &Run| {
        run.trial_events().any(|event| matches!(event, TrialEvent::Skipped { reason } if matches_all(reason)))
    };
    if !is_skipped(&run) {
        return Err(format!("no skip contains {words:?}\n{}", run.log()));
    }
    let mut required = with(&["--require", "kind"]);
    required.ends_in(Outcome::Fail)?;
    let reasons = required.reasons();
    if !reasons.contains("required, but skipped") || !matches_all(&reasons) {
        return Err(format!("no failure contains {words:?}: {reasons}"));
    }
    soon(begin, SOON)
}

fn soon(begin: Instant, limit: Duration) -> Tested {
    let took = begin.elapsed();
    if took < limit { Ok(()) } else { Err(format!("it took {took:?}")) }
}

/// Waits until the run has exclusive use of the machine, and returns the time.
fn its_turn(run: &mut Run) -> Result<Instant, String> {
    let starts = |event: &RunEvent| matches!(&event.what, What::Trial { event: TrialEvent::Started, .. });
    run.until("its turn", starts)?;
    Ok(Instant::now())
}

pub fn no_docker() -> Tested {
    let home = Home::new().with("DOCKER_HOST", "unix:///nonexistent.sock");
    skipped(&home, &[], &["Docker does not answer", "/nonexistent.sock", "make kind"])
}

pub fn no_kind() -> Tested {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    symlink(on_path("docker").ok_or("there is no docker on the path")?, folder.path().join("docker"))
        .map_err(|e| e.to_string())?;
    let only = folder.path().display().to_string();
    let home = Home::new().with("PATH", &only).with("XDG_CACHE_HOME", &only);
    skipped(&home, &[], &["kind is not installed", "make kind"])
}

/// Asserts that the run is inconclusive, with one line that contains these words, and leaves nothing.
fn inconclusive(home: &Home, mut run: Run, words: &[&str]) -> Tested {
    let id = run.id()?;
    run.ends_in(Outcome::Inconclusive)?;
    let reasons = run.reasons();
    if !words.iter().all(|word| reasons.contains(word)) || reasons.lines().count() != 1 {
        return Err(format!("expected one line with {words:?}: {reasons}"));
    }
    home.nothing_left(&id)
}

pub fn no_image() -> Tested {
    let image = "relapse/no-such-image:v0";
    skipped(&Home::new(), &["--kind-image", image], &[image, "is not on this machine", "docker pull"])
}

/// A home in which `kind` is a script.
fn with_kind(script: &str) -> Result<Home, String> {
    let home = Home::new();
    let cache = home.path().join("cache");
    let notes = cache.join("relapse/kind-node");
    let program = home.path().join("kind");
    let version = "if [ \"$1\" = version ]; then echo 'kind v0 of a test'; exit; fi";
    home.program(&program, &format!("#!/bin/sh\n{version}\n{script}"))?;
    home.program(&notes.join("image"), &noted("image").ok_or("make kind stored no image")?)?;
    home.program(&notes.join("kind"), &program.display().to_string())?;
    Ok(home.with("XDG_CACHE_HOME", cache.display().to_string()))
}

/// A script that takes the name from `--name NAME` and creates the container of a node without starting it.
fn a_node() -> Result<String, String> {
    let image = noted("image").ok_or("make kind stored no image")?;
    Ok(format!(
        r#"while [ "$1" != --name ]; do shift; done
docker create --name "$2-control-plane" --label "io.x-k8s.kind.cluster=$2" {image} >/dev/null || exit 9
"#
    ))
}

pub fn fails() -> Tested {
    let script = a_node()? + "echo 'Creating cluster ...'\necho 'ERROR: failed to create cluster: no luck' >&2\nexit 1";
    let home = with_kind(&script)?;
    let mut run = home.start(&["--only", "incident"]);
    let begin = its_turn(&mut run)?;
    inconclusive(&home, run, &["no kind cluster", "ERROR: failed to create cluster: no luck"])?;
    soon(begin, SOON)
}

/// In a Docker engine of the test, whose disk has room for little more than the node image.
pub fn disk_full() -> Tested {
    if let Some(why) = SmallEngine::unable() {
        return as_if_full(&why);
    }
    let image = noted("image").ok_or("make kind stored no image")?;
    let size = docker(&["image", "inspect", "--format", "{{.Size}}", &image])?;
    let size: u64 = size.parse().map_err(|e| format!("{size}: {e}"))?;
    let engine = SmallEngine::with_room(size + size / 8)?;
    engine.take(&image)?;
    let home = Home::new().with("DOCKER_HOST", engine.host());
    let mut run = home.start(&["--only", "incident"]);
    let begin = its_turn(&mut run)?;
    inconclusive(&home, run, &["no kind cluster", "no space left on device"])?;
    soon(begin, SOON)?;
    let left = engine.left()?;
    if left.is_empty() { Ok(()) } else { Err(format!("left behind: {}", left.join(", "))) }
}

/// Simulates kind and Docker with a script that prints their messages. Tests that the message is reported and that
/// everything created is removed.
fn as_if_full(why: &str) -> Tested {
    skips::note("a full disk", &format!("a real disk, {why}: a script prints kind's message"));
    let error = "ERROR: failed to create cluster: command \"docker run\" failed with error: exit status 125; \
        docker: Error response from daemon: mkdir /var/lib/docker/overlay2/x: no space left on device";
    let home = with_kind(&format!("{}echo '{error}' >&2\nexit 1", a_node()?))?;
    let run = home.start(&["--only", "incident"]);
    inconclusive(&home, run, &["no kind cluster", "no space left on device"])
}

/// A real creation in which the first node loses its kubelet: kubeadm waits for it for minutes.
pub fn hangs() -> Tested {
    const LIMIT: u64 = 20;
    let home = Home::new().with("RELAPSE_KIND_CREATE_WITHIN", LIMIT.to_string());
    let mut run = home.start(&["--only", "incident"]);
    let id = run.id()?;
    let begin = its_turn(&mut run)?;
    let node = format!("relapse-{id}-control-plane");
    let once_it_logs = "journalctl --quiet --unit kubelet | grep -q . && systemctl mask --runtime --now kubelet";
    until("the first node's kubelet runs", Duration::from_secs(LIMIT), || {
        Ok(docker(&["exec", &node, "sh", "-c", once_it_logs]).ok())
    })?;
    inconclusive(&home, run, &["no kind cluster", &format!("did not end within {LIMIT} s"), "logs of its nodes"])?;
    soon(begin, Duration::from_secs(LIMIT) + SOON)?;
    let logs = home.reports().join("runs").join(&id).join("kind");
    has_lines(&logs.join(&node).join("journal.log"), "systemd")?;
    has_lines(&logs.join(&node).join("kubelet.log"), "kubelet")
}

fn has_lines(file: &Path, word: &str) -> Tested {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    if text.contains(word) { Ok(()) } else { Err(format!("{} does not contain {word:?}: {text}", file.display())) }
}
