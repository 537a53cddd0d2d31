//! The guardian as a separate process: killed, outliving its run, holding the lock.
//!
//! The guardian and the run are this test program again, with the role given by `RELAPSE_TEST_ROLE`. Most tests use
//! a setting that is a file, with lock and journal beside it, and need no privileges; the last one uses the
//! real `nf_conntrack_max`, under the machine's own lock, if it can be written.

#[path = "../../kernel/tests/needs.rs"]
mod needs;
#[path = "../../tests/support/skips.rs"]
mod skips;

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use needs::tests;
use relapse_kernel::NetNs;
use relapse_kernel::conntrack::{Conntrack, Entry};
use relapse_lab::host::client::{Guardian, ignoring_signals};
use relapse_lab::host::identity::Process;
use relapse_lab::host::settings::{Namespace, Settings};
use relapse_lab::host::{CONNTRACK_MAX, MachineLock, Mode, Restore, Result, Site, guardian as process, journal};

const ROLE: &str = "RELAPSE_TEST_ROLE";
const SCENE: &str = "RELAPSE_TEST_SCENE";
const SOON: Duration = Duration::from_secs(10);
/// The guaranteed time of the restore after the death of a run.
const RESTORED_WITHIN: Duration = Duration::from_secs(1);

/// A setting that is a file.
#[derive(Debug)]
struct FileSetting(PathBuf);

impl Settings for FileSetting {
    fn read(&self, _key: &str) -> Result<String> {
        Ok(fs::read_to_string(self.0.join("limit")).expect("the setting exists"))
    }

    fn write(&self, _key: &str, value: &str) -> Result<()> {
        // Written atomically, like a setting.
        fs::write(self.0.join("limit.new"), value).expect("writable");
        fs::rename(self.0.join("limit.new"), self.0.join("limit")).expect("writable");
        Ok(())
    }

    fn namespaces(&self) -> Result<Vec<Namespace>> {
        Ok(Vec::new())
    }

    fn entries(&self, _namespace: &Namespace) -> Result<Option<u64>> {
        Ok(None)
    }
}

fn signal(name: &str, pid: u32) {
    let kill = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(kill.expect("kill runs").success());
}

fn site(dir: &Path) -> Site {
    Site {
        settings: Arc::new(FileSetting(dir.into())),
        locks: vec![dir.join("lock")],
        journals: dir.join("journal"),
        removers: Vec::new(),
    }
}

/// A test directory with a limit of 1000.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("limit"), "1000").unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn limit(&self) -> String {
        site(self.path()).settings.read("").unwrap()
    }

    fn journals(&self) -> usize {
        journal::list(&self.path().join("journal")).unwrap().len()
    }

    /// Starts a run in a separate process that writes 500 and continues forever.
    fn run(&self) -> Child {
        child("run", Some(self.path())).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// The same, once the value is in force.
    fn run_that_wrote(&self) -> Child {
        let mut run = self.run();
        let mut output = [0; 1];
        std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut output).expect("the run has written");
        run
    }

    /// Waits until the guardian releases the lock, its last action.
    fn wait_for_release(&self) {
        drop(MachineLock::acquire(&site(self.path()).locks, Mode::Exclusive, &|_| ()).unwrap());
    }
}

/// This program as a child with this role.
fn child(role: &str, scene: Option<&Path>) -> Command {
    let mut command = ignoring_signals(&std::env::current_exe().unwrap(), [""; 0]);
    command.env(ROLE, role).env_remove(SCENE);
    command.envs(scene.map(|scene| (SCENE, scene)));
    command
}

/// A guardian that holds the lock, for this scene or for this machine.
fn guardian(scene: Option<&Path>) -> Guardian {
    let site = scene.map_or_else(|| Site::host().unwrap(), site);
    let mut guardian = Guardian::over(child("guardian", scene), site, "guardian-test").unwrap();
    let recovered = guardian.acquire(&|holder| eprintln!("waiting for {holder}"), &|| false).unwrap();
    eprintln!("recovered: {recovered:?}");
    guardian
}

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        return play(&role, std::env::var_os(SCENE).map(PathBuf::from).as_deref());
    }
    skips::run(&libtest_mimic::Arguments::from_args(), tests()).exit_code()
}

/// Runs a child; a run prints a byte once it has written.
fn play(role: &str, scene: Option<&Path>) -> ExitCode {
    if role == "guardian" {
        let site = scene.map_or_else(|| Site::host().unwrap(), site);
        return process::serve(site, std::io::stdin(), std::io::stdout());
    }
    let mut guardian = guardian(scene);
    guardian.write_limit(500).unwrap();
    std::io::stdout().write_all(b".").unwrap();
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

/// Polls until the condition holds, and returns how long that took.
fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

/// The pid in the journal: the guardian's.
fn guardian_pid(journals: &Path) -> u32 {
    let found = journal::list(journals).unwrap();
    let [(_, journal::Found::Journal(journal))] = &found[..] else { panic!("{found:?}") };
    journal.owner.pid
}

fn a_run_that_is_killed_has_its_value_restored_within_a_second() {
    let scene = Scene::new();
    let mut run = scene.run_that_wrote();
    assert_eq!(scene.limit(), "500");
    run.kill().unwrap();
    let took = until("the restore", || scene.limit() == "1000");
    assert!(took < RESTORED_WITHIN, "{took:?}");
    scene.wait_for_release();
    assert_eq!(scene.journals(), 0);
    run.wait().unwrap();
}

fn a_guardian_is_deaf_to_signals_that_ask_it_to_end() {
    let scene = Scene::new();
    let mut run = scene.run_that_wrote();
    let pid = guardian_pid(&scene.path().join("journal"));
    for name in ["INT", "TERM", "HUP", "QUIT"] {
        signal(name, pid);
    }
    // By the end of this sleep the signals have been delivered.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((scene.limit().as_str(), scene.journals()), ("500", 1));
    run.kill().unwrap();
    scene.wait_for_release();
    assert_eq!((scene.limit().as_str(), scene.journals()), ("1000", 0));
    run.wait().unwrap();
}

fn a_run_restores_in_the_place_of_its_killed_guardian() {
    for by_request in [true, false] {
        let scene = Scene::new();
        let mut guardian = guardian(Some(scene.path()));
        guardian.write_limit(500).unwrap();
        let pid = guardian_pid(&scene.path().join("journal"));
        signal("KILL", pid);
        until("the guardian's death", || Process::of(pid).is_none());
        assert_eq!(scene.limit(), "500");
        if by_request {
            assert_eq!(guardian.restore().unwrap(), Restore::Restored { value: 1000 });
        }
        drop(guardian);
        assert_eq!((scene.limit().as_str(), scene.journals()), ("1000", 0));
    }
}

fn a_run_that_is_killed_while_it_waits_leaves_no_waiter() {
    let scene = Scene::new();
    let locks = site(scene.path()).locks;
    let held = MachineLock::acquire(&locks, Mode::Shared, &|_| ()).unwrap();
    let mut run = scene.run();
    let waits = || fs::read_to_string("/proc/locks").unwrap().lines().any(|line| waits_for(line, &locks[0]));
    until("a waiter", waits);
    run.kill().unwrap();
    run.wait().unwrap();
    until("its end", || !waits());
    drop(held);
    assert_eq!((scene.limit().as_str(), scene.journals()), ("1000", 0));
}

fn waits_for(line: &str, lock: &Path) -> bool {
    line.contains("->") && line.contains(&format!(":{} ", fs::metadata(lock).unwrap().ino()))
}

/// The requirement that the machine's own limit can be written.
fn writable_limit() -> std::result::Result<(), String> {
    let opened = File::options().write(true).open("/proc/sys/net/netfilter/nf_conntrack_max");
    opened.map(drop).map_err(|error| format!("nf_conntrack_max cannot be written here: {error}"))
}

fn nothing() -> std::result::Result<(), String> {
    Ok(())
}

tests! {
    nothing => [
        a_run_that_is_killed_has_its_value_restored_within_a_second,
        a_guardian_is_deaf_to_signals_that_ask_it_to_end,
        a_run_restores_in_the_place_of_its_killed_guardian,
        a_run_that_is_killed_while_it_waits_leaves_no_waiter,
    ],
    writable_limit => [a_real_namespace_that_would_be_harmed_is_protected],
}

fn a_real_namespace_that_would_be_harmed_is_protected() {
    let (neighbour, ns) = neighbour();
    let mut guardian = guardian(None);
    let before = host_limit();
    fill(&ns, 0..100_001);
    let refused = guardian.write_limit(200_000).unwrap_err().to_string();
    let who = format!(
        "net:[{}] (process {} sleep) holds 100001 entries, more than half of 200000",
        ns.inode(),
        neighbour.0.id()
    );
    assert!(refused.ends_with(&who), "{refused}");
    assert_eq!(host_limit(), before);
    assert_eq!(guardian.write_limit(300_000).unwrap().read_back, 300_000);
    assert_eq!(guardian.write_limit(210_000).unwrap().read_back, 210_000);
    assert_eq!(guardian.alarm(), None);

    fill(&ns, 100_001..106_000);
    let filled = Instant::now();
    let mut alarm = None;
    until("an alarm", || {
        alarm = guardian.alarm();
        alarm.is_some()
    });
    println!("alarm after {:?}: {}", filled.elapsed(), alarm.unwrap_or_default());
    assert_eq!(host_limit(), before);
    assert_eq!(guardian.restore().unwrap(), Restore::Restored { value: before });

    guardian.declare_own([ns.inode()]);
    assert_eq!(guardian.write_limit(200_000).unwrap().read_back, 200_000);
    // Gone before other processes can take the lock and write.
    drop(neighbour);
    assert!(guardian.finish().unwrap().success());
}

fn host_limit() -> u32 {
    Site::host().unwrap().settings.read(CONNTRACK_MAX).unwrap().parse().unwrap()
}

/// A process with its own network namespace; both end with the test.
struct Neighbour(Child);

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn neighbour() -> (Neighbour, NetNs) {
    let child = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().expect("unshare starts");
    let pid = child.id();
    let neighbour = Neighbour(child);
    let settled = || fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep");
    until("another namespace", settled);
    (neighbour, NetNs::of_process("neighbour", pid).unwrap())
}

fn fill(ns: &NetNs, flows: Range<u32>) {
    let destination = SocketAddr::from(([10, 0, 0, 1], 80));
    let mut entries = flows.map(|n| {
        let [_, high, middle, low] = n.to_be_bytes();
        Entry::established(SocketAddr::from(([10, high + 1, middle, low], 40_000)), destination, 600)
    });
    Conntrack::open(ns).unwrap().insert(&mut entries).unwrap();
}
