//! A `relapse run` on real clusters as a child process, with a state folder of its own: its events, and what it leaves
//! on this machine.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use relapse::event::{Outcome, RunEvent, TrialEvent, What};
use tempfile::TempDir;

/// Longer than creating a cluster, a trial on it and its removal take together.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(20);

/// State and reports of the runs of one test.
pub struct Home {
    folder: TempDir,
    /// Additional variables for every command.
    pub environment: Vec<(&'static str, String)>,
}

impl Home {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), environment: Vec::new() }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The built program, without requirements and consent from the environment.
    pub fn relapse(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relapse"));
        command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).stdin(Stdio::null());
        command.env_remove("RELAPSE_REQUIRE").env_remove("RELAPSE_ALLOW_HOST_WRITES").env_remove("SUDO_UID");
        command.env("RELAPSE_STATE_DIR", self.path().join("state"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn reports(&self) -> PathBuf {
        self.path().join("reports")
    }

    /// Writes a stub program.
    pub fn program(&self, file: &Path, script: &str) -> Result<(), String> {
        let write = || {
            std::fs::create_dir_all(file.parent().unwrap_or(self.path()))?;
            std::fs::write(file, script)?;
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755))
        };
        write().map_err(|e: std::io::Error| format!("{}: {e}", file.display()))
    }

    /// Starts `relapse run --json --backend kind` of one scenario, in a process group of its own.
    pub fn start(&self, arguments: &[&str]) -> Run {
        self.start_with(arguments, &[])
    }

    /// The same, with these variables.
    pub fn start_with(&self, arguments: &[&str], variables: &[(&str, String)]) -> Run {
        self.start_of("policy-route-lost", arguments, variables)
    }

    /// The same, with another scenario.
    pub fn start_of(&self, scenario: &str, arguments: &[&str], variables: &[(&str, String)]) -> Run {
        let errors = tempfile::tempfile().expect("a temporary file");
        let mut command = self.relapse(&["run", "--json", "--backend", "kind", scenario]);
        command.args(arguments).arg("--reports").arg(self.reports()).process_group(0);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::piped()).stderr(errors.try_clone().expect("a descriptor"));
        let mut child = command.spawn().expect("relapse starts");
        let output = child.stdout.take().expect("it is piped");
        let (sender, events) = channel();
        std::thread::spawn(move || {
            // The last line of a killed run may be cut.
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.filter_map(|line| serde_json::from_str(&line).ok()).try_for_each(|event| sender.send(event).ok())
        });
        Run { child, events, received: Vec::new(), errors }
    }

    /// Runs `relapse recover`, which must succeed, and returns its output.
    pub fn recover(&self) -> Result<String, String> {
        let output = self.relapse(&["recover"]).output().map_err(|e| e.to_string())?;
        let text = printed(&output);
        if output.status.success() { Ok(text) } else { Err(format!("recover ended with {}: {text}", output.status)) }
    }

    /// Everything of a run on this machine, by the exact name of its clusters: containers, networks, folders, journals.
    pub fn left(&self, run_id: &str) -> Result<Vec<String>, String> {
        let name = format!("relapse-{run_id}");
        let of_it = |found: &String| *found == name || found.starts_with(&format!("{name}-"));
        let mut left: Vec<String> =
            docker(&["ps", "--all", "--format", "{{.Names}}"])?.lines().map(str::to_owned).collect();
        left.extend(docker(&["network", "ls", "--format", "{{.Name}}"])?.lines().map(str::to_owned));
        left.extend(["state/kind", "state/journal"].iter().flat_map(|folder| files(&self.path().join(folder))));
        left.retain(of_it);
        Ok(left)
    }

    /// Asserts that nothing of the run is left.
    pub fn nothing_left(&self, run_id: &str) -> Result<(), String> {
        let left = self.left(run_id)?;
        if left.is_empty() { Ok(()) } else { Err(format!("left behind: {}", left.join(", "))) }
    }
}

fn files(folder: &Path) -> Vec<String> {
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
    found.map(|file| file.file_name().to_string_lossy().into_owned()).collect()
}

/// The standard output and standard error of a command.
pub fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

/// Finds a program on the path.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Runs Docker and returns its output without the trailing newline.
pub fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(arguments).output().map_err(|e| format!("docker: {e}"))?;
    let text = printed(&output).trim().to_owned();
    if output.status.success() { Ok(text) } else { Err(format!("docker {}: {text}", arguments.join(" "))) }
}

/// Polls until `look` returns a value.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<Option<T>, String>,
) -> Result<T, String> {
    let end = Instant::now() + within;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(format!("{what}: not within {within:?}"));
        }
        std::thread::sleep(LOOK);
    }
}

/// A running `relapse run --json`.
pub struct Run {
    child: Child,
    events: Receiver<RunEvent>,
    /// All events received so far.
    pub received: Vec<RunEvent>,
    errors: std::fs::File,
}

impl Run {
    /// Receives events until one matches.
    pub fn until(&mut self, what: &str, matches: impl Fn(&RunEvent) -> bool) -> Result<(), String> {
        match self.next(matches)? {
            true => Ok(()),
            false => Err(format!("the run ended without {what}\n{}", self.log())),
        }
    }

    fn next(&mut self, matches: impl Fn(&RunEvent) -> bool) -> Result<bool, String> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    let found = matches(&event);
                    self.received.push(event);
                    if found {
                        return Ok(true);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
                Err(RecvTimeoutError::Timeout) => return Err(format!("nothing for {PATIENCE:?}\n{}", self.log())),
            }
        }
    }

    /// The run's id, which is part of the names of its clusters.
    pub fn id(&mut self) -> Result<String, String> {
        if self.received.is_empty() {
            self.until("having begun", |event| matches!(event.what, What::RunStarted(_)))?;
        }
        let id = self.received.iter().find_map(|event| match &event.what {
            What::RunStarted(started) => Some(started.run_id.clone()),
            _ => None,
        });
        id.ok_or_else(|| "the run has no id".into())
    }

    /// Waits for the run to end on its own.
    pub fn end(&mut self) -> Result<ExitStatus, String> {
        self.next(|_| false)?;
        self.child.wait().map_err(|e| e.to_string())
    }

    /// Asserts that the run ends with the exit status of this outcome.
    pub fn ends_in(&mut self, wanted: Outcome) -> Result<(), String> {
        let status = self.end()?;
        if status.code() == Some(wanted.exit_code().into()) {
            return Ok(());
        }
        Err(format!("it ended with {status}, not as {wanted:?}\n{}", self.log()))
    }

    /// The events of trials, in order.
    pub fn trial_events(&self) -> impl Iterator<Item = &TrialEvent> {
        self.received.iter().filter_map(|event| match &event.what {
            What::Trial { event, .. } => Some(event),
            _ => None,
        })
    }

    /// Why trials ended as they did.
    pub fn reasons(&self) -> String {
        let ended = self.trial_events().filter_map(|event| match event {
            TrialEvent::Ended(ended) => Some(format!("{:?}: {}", ended.outcome, ended.reasons.join("; "))),
            _ => None,
        });
        ended.collect::<Vec<_>>().join("\n")
    }

    /// A log of the run, for error messages.
    pub fn log(&mut self) -> String {
        let mut errors = String::new();
        let _ = self.errors.rewind();
        let _ = self.errors.read_to_string(&mut errors);
        let short = |event: &RunEvent| format!("{:?}", event.what).chars().take(300).collect::<String>();
        let quiet = |event: &&RunEvent| !matches!(&event.what, What::Trial { event: TrialEvent::Flow(_), .. });
        let received: Vec<String> = self.received.iter().filter(quiet).map(short).collect();
        format!("standard error: {errors}\nevents: {}", received.join("\n        "))
    }

    /// Sends a signal to the run's process only.
    pub fn send(&self, signal: &str) -> Result<(), String> {
        send(signal, &self.child.id().to_string())
    }

    /// Sends SIGKILL to the run's process or to its whole process group.
    pub fn kill(&mut self, group: bool) -> Result<(), String> {
        if group {
            send("KILL", &format!("-{}", self.child.id()))?;
        } else {
            self.child.kill().map_err(|e| e.to_string())?;
        }
        self.child.wait().map(drop).map_err(|e| e.to_string())
    }
}

fn send(signal: &str, to: &str) -> Result<(), String> {
    let sent = Command::new("kill").args(["-s", signal, "--", to]).status().map_err(|e| e.to_string())?;
    if sent.success() { Ok(()) } else { Err(format!("SIG{signal} could not be sent")) }
}

impl Drop for Run {
    /// A failed test leaves no process; its cluster is in the journal.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.kill(true);
        }
    }
}

impl Drop for Home {
    /// A failed test leaves no cluster.
    fn drop(&mut self) {
        if !files(&self.path().join("state/journal")).is_empty() {
            let _ = self.recover();
        }
    }
}
