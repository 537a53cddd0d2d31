//! A `relapse run` as a child process: its events, its processes, and the proof that nothing of it is left.
//!
//! Processes are found by a mark in their environment, which every process of a run inherits, so that orphans are
//! found, too.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use relapse::event::{RunEvent, TrialEvent, What};
use relapse_kernel::process::UserNs;
use relapse_lab::host::identity::Process;
use relapse_lab::host::{CONNTRACK_MAX, MachineLock, Mode, Site, lock};

const MARK: &str = "RELAPSE_TEST_MARK";
/// Time limit for all processes and namespaces to disappear.
const LEFT: Duration = Duration::from_secs(15);
/// Time limit for a guardian to restore after the death of its run.
pub const RESTORED_WITHIN: Duration = Duration::from_secs(1);
/// Longer than any trial takes, and any wait for the machine-wide lock.
const PATIENCE: Duration = Duration::from_secs(300);

/// The role of a process of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The command line.
    Relapse,
    /// The part of the lab that stays outside, its pid 1, and the lab itself.
    Outer,
    Init,
    Lab,
    Guardian,
}

/// A running `relapse run --json`.
pub struct Run {
    child: Child,
    mark: String,
    events: Receiver<RunEvent>,
    /// All events received so far.
    pub received: Vec<RunEvent>,
    run_id: Option<String>,
    errors: File,
    user_namespace: Option<UserNs>,
    _reports: tempfile::TempDir,
}

impl Run {
    /// Starts a run with these arguments after `run --json`.
    pub fn start(arguments: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let reports = tempfile::tempdir().expect("a temporary directory");
        let errors = tempfile::tempfile().expect("a temporary file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_relapse"))
            .args(["run", "--json", "--reports"])
            .arg(reports.path())
            .args(arguments)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .env(MARK, &mark)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors.try_clone().expect("a descriptor"))
            .spawn()
            .expect("relapse starts");
        let output = child.stdout.take().expect("it is piped");
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // The last line of a killed run may be cut.
                let Ok(event) = serde_json::from_str(&line) else { continue };
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            mark,
            events,
            received: Vec::new(),
            run_id: None,
            errors,
            user_namespace: None,
            _reports: reports,
        }
    }

    /// Receives events until one matches; false if the run ended first.
    pub fn until(&mut self, matches: impl FnMut(&RunEvent) -> bool) -> Result<bool, String> {
        self.until_or(Instant::now() + PATIENCE, matches)?.ok_or_else(|| format!("nothing for {PATIENCE:?}"))
    }

    /// The same, up to an instant; `None` if that came first.
    pub fn until_or(
        &mut self,
        end: Instant,
        mut matches: impl FnMut(&RunEvent) -> bool,
    ) -> Result<Option<bool>, String> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        loop {
            match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    if let What::RunStarted(started) = &event.what {
                        self.run_id = Some(started.run_id.clone());
                    }
                    let found = matches(&event);
                    self.received.push(event);
                    if found {
                        return Ok(Some(true));
                    }
                }
                Err(Disconnected) => return Ok(Some(false)),
                Err(Timeout) => return Ok(None),
            }
        }
    }

    /// Waits for the run to end on its own.
    pub fn end(&mut self) -> Result<ExitStatus, String> {
        self.until(|_| false)?;
        self.child.wait().map_err(|e| e.to_string())
    }

    /// The events of trials, in order.
    pub fn trial_events(&self) -> impl Iterator<Item = &TrialEvent> {
        self.received.iter().filter_map(|event| match &event.what {
            What::Trial { event, .. } => Some(event),
            _ => None,
        })
    }

    /// Why the trial was skipped, if it was.
    pub fn skipped(&self) -> Option<&str> {
        self.trial_events().find_map(|event| match event {
            TrialEvent::Skipped { reason } => Some(reason.as_str()),
            _ => None,
        })
    }

    /// Its standard error.
    pub fn errors(&mut self) -> String {
        let mut text = String::new();
        let _ = self.errors.rewind();
        let _ = self.errors.read_to_string(&mut text);
        text
    }

    /// The living processes of this run.
    pub fn processes(&self) -> Vec<(Role, Process)> {
        let marked: Vec<Marked> = marked(&self.mark);
        let role = |process: &Marked| {
            if process.pid == self.child.id() {
                return Some(Role::Relapse);
            }
            if process.arguments.iter().any(|argument| argument == "__guardian") {
                return Some(Role::Guardian);
            }
            // A chain of three; a helper forked by the command line has the command line's arguments, not the lab's.
            if !process.arguments.iter().any(|argument| argument == "__lab") {
                return None;
            }
            let parent = |pid: u32| marked.iter().find(|other| other.pid == pid).map(|other| other.parent);
            if process.parent == self.child.id() {
                Some(Role::Outer)
            } else if parent(process.parent) == Some(self.child.id()) {
                Some(Role::Init)
            } else {
                Some(Role::Lab)
            }
        };
        marked.iter().filter_map(|process| Some((role(process)?, Process::of(process.pid)?))).collect()
    }

    /// Holds the lab's user namespace, which is needed for the proof after all processes have died.
    pub fn hold_namespace(&mut self) {
        let own = fs::metadata("/proc/self/ns/user").map(|file| file.ino()).ok();
        let inner =
            self.processes().into_iter().filter(|(role, _)| matches!(role, Role::Outer | Role::Init | Role::Lab));
        for (_, process) in inner {
            let theirs = fs::metadata(format!("/proc/{}/ns/user", process.pid)).map(|file| file.ino()).ok();
            if theirs.is_some()
                && theirs != own
                && let Ok(held) = UserNs::of_process(process.pid)
            {
                self.user_namespace = Some(held);
                return;
            }
        }
    }

    /// Waits until no process or namespace of this run is left. Returns how long after `since` that was.
    pub fn prove_gone(&mut self, since: Instant) -> Result<Duration, String> {
        let end = Instant::now() + LEFT;
        loop {
            let left = marked(&self.mark);
            if left.is_empty() {
                break;
            }
            if Instant::now() >= end {
                return Err(format!("still there after {:?}: {left:?}", since.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Some(held) = &self.user_namespace {
            let rest = end.saturating_duration_since(Instant::now());
            held.all_released(rest).map_err(|e| format!("{e}, {:?} after the death", since.elapsed()))?;
        }
        Ok(since.elapsed())
    }

    /// Journals of this run on disk, without drafts, for which nothing has been changed yet.
    pub fn journals(&self) -> Vec<PathBuf> {
        let (Some(run_id), Ok(site)) = (&self.run_id, Site::host()) else { return Vec::new() };
        let prefix = format!("{run_id}-");
        let files = fs::read_dir(site.journals).into_iter().flatten().flatten().map(|file| file.path());
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&prefix) && name.ends_with(".json")
        };
        files.filter(is_ours).collect()
    }

    /// Waits until the guardian has restored everything: the journal is removed (last) and the limit is as before.
    pub fn prove_restored(&self, before: Option<&str>, since: Instant, within: Duration) -> Result<Duration, String> {
        while !self.journals().is_empty() {
            if since.elapsed() > within {
                return Err(format!("journal still there after {:?}: {:?}", since.elapsed(), self.journals()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = since.elapsed();
        before.map_or(Ok(()), unchanged)?;
        Ok(took)
    }
}

impl Drop for Run {
    /// A failed test leaves nothing either.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for (_, process) in self.processes() {
            if process.pid != self.child.id() {
                let guardian = fs::read_to_string(format!("/proc/{}/cmdline", process.pid));
                // A guardian ends on its own after the run, when its work is done.
                if !guardian.is_ok_and(|arguments| arguments.contains("__guardian")) {
                    send(process, "KILL");
                }
            }
        }
        if !self.journals().is_empty() {
            std::thread::sleep(RESTORED_WITHIN);
            let _ = recover();
        }
    }
}

/// `relapse recover`.
pub fn recover() -> Result<(), String> {
    let output = Command::new(env!("CARGO_BIN_EXE_relapse")).arg("recover").output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!("recover ended with {}: {}", output.status, String::from_utf8_lossy(&text)))
}

/// The limit while no run writes it; empty if this kernel has no connection tracking.
pub fn limit() -> String {
    let _steady = MachineLock::acquire(&lock::limit(), Mode::Shared, &|_| ()).expect("the lock can be taken");
    read_limit()
}

/// Asserts that the limit is as before, unless another run is writing it.
fn unchanged(before: &str) -> Result<(), String> {
    let lock = MachineLock::try_acquire(&lock::limit(), Mode::Shared).map_err(|e| e.to_string())?;
    let now = read_limit();
    if lock.is_some() && now != before { Err(format!("the limit is {now}, was {before}")) } else { Ok(()) }
}

fn read_limit() -> String {
    let path = format!("/proc/sys/{}", CONNTRACK_MAX.replace('.', "/"));
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Sends a signal to exactly this process. Returns whether it existed.
///
/// Uses a running shell, because starting `kill` would take longer than the moment to hit.
#[expect(clippy::zombie_processes, reason = "the shell ends with this program")]
pub fn send(process: Process, signal: &str) -> bool {
    static SHELL: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>> = Mutex::new(None);
    let mut shell = SHELL.lock().unwrap_or_else(PoisonError::into_inner);
    let (ask, answer) = shell.get_or_insert_with(|| {
        let script = "while read -r s p; do if kill -s \"$s\" \"$p\" 2>&-; then echo y; else echo n; fi; done";
        let mut command = Command::new("/bin/sh");
        let mut child =
            command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell starts");
        // It ends with this program, when its input closes.
        (child.stdin.take().expect("piped"), BufReader::new(child.stdout.take().expect("piped")))
    });
    if !process.is_alive() {
        return false;
    }
    writeln!(ask, "{signal} {}", process.pid).expect("the shell reads");
    let mut line = String::new();
    answer.read_line(&mut line).expect("the shell answers");
    line.trim() == "y"
}

/// A process with a mark.
#[derive(Debug)]
struct Marked {
    pid: u32,
    parent: u32,
    arguments: Vec<String>,
}

fn marked(mark: &str) -> Vec<Marked> {
    let sought = format!("{MARK}={mark}");
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        if !environment.split(|byte| *byte == 0).any(|variable| variable == sought.as_bytes()) {
            return None;
        }
        // A zombie has no environment, but the process may become one between the two reads.
        Process::of(pid)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let arguments = arguments.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
        Some(Marked { pid, parent, arguments: arguments.collect() })
    })
    .collect()
}
