//! Docker engines that a test may stop or fill: the machine's, if `.ci/docker.sh` started it without an init system and
//! no other containers run in it; and a small one of the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::real_run::{docker, on_path, printed, until};

/// PID files of `.ci/docker.sh` and of dockerd.
const STARTED: &str = "/run/relapse-docker/dockerd.pid";
const RUNS: &str = "/var/run/docker.pid";
const CONTAINERD: &str = "/var/run/docker/containerd/containerd.pid";
/// Time limit to stop; containers get about fifteen seconds.
const STOPS: Duration = Duration::from_secs(40);
const STARTS: Duration = Duration::from_secs(20);

/// The machine's engine, restarted on drop at the latest.
pub struct Engine {
    pid: u32,
    script: PathBuf,
    stopped: bool,
}

impl Engine {
    /// The engine, or why the test may not stop it.
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

    /// Whether no container runs in it.
    pub fn is_idle(&self) -> Result<bool, String> {
        Ok(docker(&["ps", "--quiet"])?.is_empty())
    }

    /// Stops it like an init system does, along with its containers and its containerd.
    pub fn stop(&mut self) -> Result<(), String> {
        let containerd = pid_in(CONTAINERD);
        let ended = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().map_err(|e| e.to_string())?;
        if !ended.success() {
            return Err("SIGTERM could not be sent to dockerd".into());
        }
        self.stopped = true;
        let all = [Some(self.pid), containerd];
        until("the engine stopped", STOPS, || Ok(all.iter().flatten().all(|pid| runs(*pid).is_none()).then_some(())))
    }

    pub fn start(&mut self) -> Result<(), String> {
        self.stopped = false;
        let output = Command::new(&self.script).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
        if output.status.success() { Ok(()) } else { Err(printed(&output)) }
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

/// The executable of a process; `None` for a zombie.
fn runs(pid: u32) -> Option<String> {
    Some(fs::read_link(format!("/proc/{pid}/exe")).ok()?.file_name()?.to_string_lossy().into_owned())
}

/// An engine with a small disk in memory. It changes no firewall rules and has no bridge. It ends with its parent
/// process, and its disk with it.
pub struct SmallEngine {
    folder: TempDir,
    process: Child,
}

impl SmallEngine {
    /// Why it cannot run here, if so.
    pub fn unable() -> Option<String> {
        let missing = ["dockerd", "unshare", "setpriv"].into_iter().find(|program| on_path(program).is_none());
        missing.map(|program| format!("there is no {program} for the test's own engine"))
    }

    /// Starts an engine with a disk of this many bytes.
    pub fn with_room(bytes: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let at = |name: &str| folder.path().join(name);
        for name in ["data", "run", "temporary"] {
            fs::create_dir(at(name)).map_err(|e| e.to_string())?;
        }
        fs::write(at("daemon.json"), "{}").map_err(|e| e.to_string())?;
        let log = fs::File::create(at("log")).map_err(|e| e.to_string())?;
        let errors = log.try_clone().map_err(|e| e.to_string())?;
        // Mounted in the engine's own mount namespace, so the mount ends with it.
        let script = "mount -t tmpfs -o size=$1 tmpfs data && exec dockerd --config-file daemon.json \
            --data-root \"$PWD/data\" --exec-root \"$PWD/run\" --pidfile \"$PWD/pid\" --host \"unix://$PWD/socket\" \
            --bridge none --iptables=false --ip6tables=false";
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", script, "sh", &bytes.to_string()]);
        // Temporary files are not on its disk.
        command.env("DOCKER_TMPDIR", at("temporary")).current_dir(folder.path());
        let process = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().map_err(|e| e.to_string())?;
        let engine = Self { folder, process };
        let host = engine.host();
        until("the test's own engine", STARTS, || Ok(docker(&["--host", &host, "version"]).ok())).map_err(|why| {
            format!("{why}\n{}", fs::read_to_string(engine.folder.path().join("log")).unwrap_or_default())
        })?;
        Ok(engine)
    }

    /// Value of `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("socket").display())
    }

    /// Copies an image from the machine's engine.
    pub fn take(&self, image: &str) -> Result<(), String> {
        let mut copy = Command::new("sh");
        copy.args(["-c", "docker save \"$1\" | docker --host \"$2\" load", "sh", image, &self.host()]);
        let output = copy.output().map_err(|e| e.to_string())?;
        docker(&["--host", &self.host(), "image", "inspect", image]).map(drop).map_err(|_| printed(&output))
    }

    /// Containers, volumes and networks in it, except the two built-in networks.
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
