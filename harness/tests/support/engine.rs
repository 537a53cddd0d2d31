//! Docker engines that a test may do with as it likes: the machine's, where `.ci/docker.sh` started it by hand
//! and nobody else's container runs in it; and a small one of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::real_run::{docker, on_path, said, until};

/// Where `.ci/docker.sh` writes down what it started, and dockerd itself what runs.
const STARTED: &str = "/run/relapse-docker/dockerd.pid";
const RUNS: &str = "/var/run/docker.pid";
const CONTAINERD: &str = "/var/run/docker/containerd/containerd.pid";
/// Containers get some fifteen seconds to end.
const STOPS: Duration = Duration::from_secs(40);
const STARTS: Duration = Duration::from_secs(20);

/// The machine's engine. It is started again at the latest when this is dropped.
pub struct Engine {
    pid: u32,
    script: PathBuf,
    stopped: bool,
}

impl Engine {
    /// The engine, or why it is not ours to stop.
    pub fn ours() -> Result<Self, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/docker.sh");
        if !script.is_file() {
            return Err("there is no .ci/docker.sh to start it again".into());
        }
        match (pid_in(STARTED), pid_in(RUNS)) {
            (Some(started), Some(pid)) if started == pid && runs(pid) == Some("dockerd".into()) => {
                Ok(Self { pid, script, stopped: false })
            }
            _ => Err("the engine was not started by .ci/docker.sh".into()),
        }
    }

    /// Whether nobody's container would go with it.
    pub fn is_idle(&self) -> Result<bool, String> {
        Ok(docker(&["ps", "--quiet"])?.is_empty())
    }

    /// As an init system stops it; its containers end, and its containerd.
    pub fn stop(&mut self) -> Result<(), String> {
        let containerd = pid_in(CONTAINERD);
        let ended = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().map_err(|e| e.to_string())?;
        if !ended.success() {
            return Err("dockerd could not be told to end".into());
        }
        self.stopped = true;
        let all = [Some(self.pid), containerd];
        until("the engine stopped", STOPS, || Ok(all.iter().flatten().all(|pid| runs(*pid).is_none()).then_some(())))
    }

    pub fn start(&mut self) -> Result<(), String> {
        self.stopped = false;
        let output = Command::new(&self.script).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.stopped {
            let _ = self.start();
        }
    }
}

fn pid_in(file: &str) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// What a process runs; nothing, once it has ended and waits to be reaped.
fn runs(pid: u32) -> Option<String> {
    Some(fs::read_link(format!("/proc/{pid}/exe")).ok()?.file_name()?.to_string_lossy().into_owned())
}

/// An engine whose disk is in memory and has little room. It touches no firewall and has no bridge of its own; it
/// ends with whoever made it, and its disk with it.
pub struct SmallEngine {
    folder: TempDir,
    process: Child,
}

impl SmallEngine {
    /// What it takes is not everywhere.
    pub fn unable() -> Option<String> {
        let missing = ["dockerd", "unshare", "setpriv"].into_iter().find(|program| on_path(program).is_none());
        missing.map(|program| format!("there is no {program} for an engine of the test's own"))
    }

    /// Its disk holds so many bytes.
    pub fn with_room(bytes: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let at = |name: &str| folder.path().join(name);
        for name in ["data", "run", "temporary"] {
            fs::create_dir(at(name)).map_err(|e| e.to_string())?;
        }
        fs::write(at("daemon.json"), "{}").map_err(|e| e.to_string())?;
        let log = fs::File::create(at("log")).map_err(|e| e.to_string())?;
        let errors = log.try_clone().map_err(|e| e.to_string())?;
        // Mounted where only the engine sees it: the mount goes with it.
        let script = "mount -t tmpfs -o size=$1 tmpfs data && exec dockerd --config-file daemon.json \
            --data-root \"$PWD/data\" --exec-root \"$PWD/run\" --pidfile \"$PWD/pid\" --host \"unix://$PWD/socket\" \
            --bridge none --iptables=false --ip6tables=false";
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", script, "sh", &bytes.to_string()]);
        // What it unpacks is not on its disk.
        command.env("DOCKER_TMPDIR", at("temporary")).current_dir(folder.path());
        let process = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().map_err(|e| e.to_string())?;
        let engine = Self { folder, process };
        let host = engine.host();
        until("an engine of the test's own", STARTS, || Ok(docker(&["--host", &host, "version"]).ok())).map_err(
            |why| format!("{why}\n{}", fs::read_to_string(engine.folder.path().join("log")).unwrap_or_default()),
        )?;
        Ok(engine)
    }

    /// As `DOCKER_HOST` names it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("socket").display())
    }

    /// Takes an image of the machine's engine.
    pub fn take(&self, image: &str) -> Result<(), String> {
        let mut copy = Command::new("sh");
        copy.args(["-c", "docker save \"$1\" | docker --host \"$2\" load", "sh", image, &self.host()]);
        let output = copy.output().map_err(|e| e.to_string())?;
        docker(&["--host", &self.host(), "image", "inspect", image]).map(drop).map_err(|_| said(&output))
    }

    /// Containers, volumes and networks in it, besides the two every engine has.
    pub fn left(&self) -> Result<Vec<String>, String> {
        let ask = |words: &[&str]| docker(&[&["--host", self.host().as_str()], words].concat());
        let mut left: Vec<String> = Vec::new();
        for words in [["ps", "--all", "--quiet"], ["volume", "ls", "--quiet"], ["network", "ls", "--format={{.Name}}"]]
        {
            left.extend(ask(&words)?.lines().map(|line| format!("{} {line}", words[0])));
        }
        left.retain(|what| what != "network host" && what != "network none");
        Ok(left)
    }
}

impl Drop for SmallEngine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
