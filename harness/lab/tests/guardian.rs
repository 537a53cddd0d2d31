//! The guardian as a process of its own: killed, outlived, waited for.
//!
//! The guardian and the run are this test program again, started as `child_entry_point`. Most work on
//! a setting that is a file, with lock and journal beside it, and need no rights; the last ones on the
//! real `nf_conntrack_max`, under the machine's own lock, where that may be written.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use relapse_kernel::NetNs;
use relapse_kernel::conntrack::{Conntrack, Entry};
use relapse_lab::host::client::{Guardian, Restore, deaf};
use relapse_lab::host::lock::{MachineLock, Mode, Who};
use relapse_lab::host::recover::{Outcome, recover};
use relapse_lab::host::restore::Undone;
use relapse_lab::host::settings::{Namespace, Settings};
use relapse_lab::host::{CONNTRACK_MAX, Error, Result, Site, guardian, journal};

const ROLE: &str = "RELAPSE_TEST_ROLE";
const SCENE: &str = "RELAPSE_TEST_SCENE";
const DIE: &str = "RELAPSE_TEST_DIE";
const VALUE: &str = "RELAPSE_TEST_VALUE";
const SOON: Duration = Duration::from_secs(10);
/// What is promised for the death of a run.
const RESTORED_WITHIN: Duration = Duration::from_secs(1);

/// A setting that is a file, and a process that dies at a chosen point of writing it.
#[derive(Debug)]
struct FileSetting {
    dir: PathBuf,
    die: Option<String>,
}

impl Settings for FileSetting {
    fn read(&self, _key: &str) -> Result<String> {
        Ok(fs::read_to_string(self.dir.join("limit")).expect("the setting is there"))
    }

    fn write(&self, _key: &str, value: &str) -> Result<()> {
        if self.die.as_deref() == Some("before") {
            kill_self();
        }
        // Whole at any time, as a setting is.
        fs::write(self.dir.join("limit.new"), value).expect("writable");
        fs::rename(self.dir.join("limit.new"), self.dir.join("limit")).expect("writable");
        if self.die.as_deref() == Some("after") {
            kill_self();
        }
        Ok(())
    }

    fn namespaces(&self) -> Result<Vec<Namespace>> {
        Ok(Vec::new())
    }

    fn entries(&self, _namespace: &Namespace) -> Result<Option<u64>> {
        Ok(None)
    }
}

fn kill_self() -> ! {
    signal("KILL", std::process::id());
    unreachable!("killed")
}

fn signal(name: &str, pid: u32) {
    let kill = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(kill.expect("kill runs").success());
}

fn site(dir: &Path) -> Site {
    let die = std::env::var(DIE).ok();
    Site {
        settings: Arc::new(FileSetting { dir: dir.into(), die }),
        locks: vec![dir.join("lock")],
        journals: dir.join("journal"),
        removers: Vec::new(),
    }
}

/// A scene on disk: a limit of 1000.
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

    fn guardian(&self, run: &str, die: Option<&str>) -> Guardian {
        guardian_child(Some(self.path()), run, die)
    }

    /// A run in a process of its own that has written 500 and goes on for ever.
    fn run_that_wrote(&self) -> Child {
        run_child(Some(self.path()), 500)
    }

    /// The last thing a guardian does.
    fn wait_for_release(&self) {
        let who = Who { run: "next".into(), what: "test".into() };
        drop(MachineLock::acquire_at(&site(self.path()).locks, Mode::Exclusive, &who, &mut |_| ()).unwrap());
    }

    fn recover(&self) -> Vec<Outcome> {
        let all = recover(&site(self.path()), &mut |holder| panic!("waits for {holder}")).unwrap();
        all.into_iter().map(|recovered| recovered.outcome).collect()
    }
}

/// This program as a child: descriptor 3 is what else would be standard output, which belongs to the
/// test harness.
fn child(role: &str, scene: Option<&Path>, die: Option<&str>) -> Command {
    let exe = std::env::current_exe().unwrap();
    let script = "exec \"$0\" --exact child_entry_point --ignored --nocapture 3>&1 >/dev/null";
    let mut command = deaf(Path::new("/bin/sh"), ["-c", script]);
    command.arg(exe).env(ROLE, role);
    for (name, value) in [(SCENE, scene.map(Path::as_os_str)), (DIE, die.map(AsRef::as_ref))] {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn guardian_child(scene: Option<&Path>, run: &str, die: Option<&str>) -> Guardian {
    let site = scene.map_or_else(|| Site::host().unwrap(), site);
    Guardian::over(child("guardian", scene, die), site, run).unwrap()
}

/// Returns when the value is in force.
fn run_child(scene: Option<&Path>, value: u32) -> Child {
    let mut command = child("run", scene, None);
    let mut run = command.env(VALUE, value.to_string()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 1];
    std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut said).expect("the run got as far as writing");
    run
}

#[test]
#[ignore = "not a test: what the other tests start as a process of its own"]
fn child_entry_point() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut output = File::options().write(true).open("/proc/self/fd/3").unwrap();
    let scene = std::env::var_os(SCENE).map(PathBuf::from);
    if role == "guardian" {
        let site = scene.map_or_else(|| Site::host().unwrap(), |dir| site(&dir));
        let code = guardian::serve(site, std::io::stdin(), output);
        std::process::exit(i32::from(code != ExitCode::SUCCESS));
    }
    let mut guardian = guardian_child(scene.as_deref(), "child-run", None);
    guardian.acquire("a run that is killed", &mut |_| ()).unwrap();
    guardian.write_limit(std::env::var(VALUE).unwrap().parse().unwrap()).unwrap();
    output.write_all(b".").unwrap();
    loop {
        std::thread::park();
    }
}

/// Polls until it holds, and says how long that took.
fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "{what} did not come about");
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

fn replayed(undone: Undone) -> Outcome {
    Outcome::Replayed { run_id: "r1".into(), undone: vec![undone], unknown: Vec::new() }
}

fn wait_for_death(guardian: &mut Guardian) {
    until("the guardian's death", || !guardian.is_alive());
}

#[test]
fn a_guardian_writes_restores_and_goes() {
    let scene = Scene::new();
    let mut guardian = scene.guardian("r1", None);
    assert!(guardian.acquire("test", &mut |_| ()).unwrap().is_empty());
    let written = guardian.write_limit(500).unwrap();
    assert_eq!((written.before, written.read_back), (1000, 500));
    assert!(written.t0 < written.t1);
    assert_eq!((scene.limit().as_str(), scene.journals()), ("500", 1));
    assert_eq!(guardian.restore().unwrap(), Restore::Restored { value: 1000 });
    assert_eq!((scene.limit().as_str(), scene.journals()), ("1000", 0));
    assert!(guardian.finish().unwrap().success());
}

#[test]
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

#[test]
fn a_guardian_is_deaf_to_signals_that_ask_it_to_end() {
    let scene = Scene::new();
    let mut run = scene.run_that_wrote();
    let pid = guardian_pid(&scene.path().join("journal"));
    for name in ["INT", "TERM", "HUP", "QUIT"] {
        signal(name, pid);
    }
    // What would have ended it has been delivered by the time it has been asked something else.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((scene.limit().as_str(), scene.journals()), ("500", 1));
    run.kill().unwrap();
    scene.wait_for_release();
    assert_eq!((scene.limit().as_str(), scene.journals()), ("1000", 0));
    run.wait().unwrap();
}

#[test]
fn killed_between_journal_and_write_nothing_has_changed() {
    let scene = Scene::new();
    let mut guardian = scene.guardian("r1", Some("before"));
    guardian.acquire("test", &mut |_| ()).unwrap();
    assert!(matches!(guardian.write_limit(500), Err(Error::GuardianGone { .. })));
    wait_for_death(&mut guardian);
    assert_eq!((scene.limit().as_str(), scene.journals()), ("1000", 1));
    let key = CONNTRACK_MAX.to_owned();
    assert_eq!(scene.recover(), [replayed(Undone::Already { key, value: "1000".into() })]);
    assert_eq!((scene.limit().as_str(), scene.journals()), ("1000", 0));
}

#[test]
fn killed_after_the_write_recovery_sets_it_back() {
    let scene = Scene::new();
    let mut guardian = scene.guardian("r1", Some("after"));
    guardian.acquire("test", &mut |_| ()).unwrap();
    assert!(matches!(guardian.write_limit(500), Err(Error::GuardianGone { .. })));
    wait_for_death(&mut guardian);
    assert_eq!((scene.limit().as_str(), scene.journals()), ("500", 1));
    let key = CONNTRACK_MAX.to_owned();
    assert_eq!(scene.recover(), [replayed(Undone::Restored { key, value: "1000".into() })]);
    assert_eq!((scene.limit().as_str(), scene.journals()), ("1000", 0));
}

#[test]
fn a_run_restores_in_the_place_of_its_killed_guardian() {
    for by_request in [true, false] {
        let scene = Scene::new();
        let mut guardian = scene.guardian("r1", None);
        guardian.acquire("test", &mut |_| ()).unwrap();
        guardian.write_limit(500).unwrap();
        signal("KILL", guardian_pid(&scene.path().join("journal")));
        wait_for_death(&mut guardian);
        assert_eq!(scene.limit(), "500");
        if by_request {
            assert_eq!(guardian.restore().unwrap(), Restore::Restored { value: 1000 });
        }
        drop(guardian);
        assert_eq!((scene.limit().as_str(), scene.journals()), ("1000", 0));
    }
}

#[test]
fn the_next_writer_undoes_first_what_a_killed_run_and_guardian_left() {
    let scene = Scene::new();
    let mut run = scene.run_that_wrote();
    signal("STOP", run.id());
    signal("KILL", guardian_pid(&scene.path().join("journal")));
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(scene.limit(), "500");
    let mut next = scene.guardian("r2", None);
    let recovered = next.acquire("test", &mut |_| ()).unwrap();
    assert!(recovered[0].contains("was set back to 1000"), "{recovered:?}");
    assert_eq!(next.write_limit(400).unwrap().before, 1000);
    drop(next);
    assert_eq!((scene.limit().as_str(), scene.journals()), ("1000", 0));
}

#[test]
fn a_second_writer_waits_and_names_the_first() {
    let scene = Scene::new();
    let mut first = scene.guardian("first", None);
    first.acquire("conntrack-cap-reset", &mut |_| ()).unwrap();
    first.write_limit(500).unwrap();
    let first_pid = guardian_pid(&scene.path().join("journal"));
    let mut second = scene.guardian("second", None);
    let (said, heard) = channel();
    let waiter = std::thread::spawn(move || {
        second.acquire("test", &mut |holder| said.send(holder.to_owned()).unwrap()).unwrap();
        second.write_limit(400).unwrap().before
    });
    let holder = heard.recv_timeout(SOON).unwrap();
    let expected = format!("process {first_pid} (run first: conntrack-cap-reset) since ");
    assert!(holder.starts_with(&expected), "{holder}");
    assert!(!waiter.is_finished());
    drop(first);
    assert_eq!(waiter.join().unwrap(), 1000);
    assert_eq!(scene.limit(), "1000");
}

#[test]
fn a_run_that_is_killed_while_it_waits_leaves_no_waiter() {
    let scene = Scene::new();
    let who = Who { run: "holder".into(), what: "test".into() };
    let locks = site(scene.path()).locks;
    let held = MachineLock::acquire_at(&locks, Mode::Shared, &who, &mut |_| ()).unwrap();
    let mut command = child("run", Some(scene.path()), None);
    let mut run = command.env(VALUE, "500").stdout(Stdio::piped()).spawn().unwrap();
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

/// Whether the real limit may be written here; a skip says why, and is a failure where it is required.
fn may_write_the_host() -> bool {
    let writable = |path: &str| File::options().write(true).open(path).err();
    let Some(error) = writable("/proc/sys/net/netfilter/nf_conntrack_max") else { return true };
    let reason = format!("nf_conntrack_max cannot be written here: {error}");
    let required = std::env::var("RELAPSE_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == "netns"), "required, but {reason}");
    println!("skipped: {reason}");
    false
}

#[test]
fn the_real_limit_is_written_and_restored() {
    if !may_write_the_host() {
        return;
    }
    let (mut guardian, before) = host_guardian("write and restore");
    for value in [200_000, 300_000] {
        let written = guardian.write_limit(value).unwrap();
        assert_eq!((written.read_back, host_limit()), (value, value));
        println!("{value} in force {} us after t0", (written.t1 - written.t0) / 1000);
    }
    // Long enough for the watch to have counted several times.
    std::thread::sleep(Duration::from_millis(350));
    assert_eq!(guardian.alarm(), None);
    assert_eq!(guardian.restore().unwrap(), Restore::Restored { value: before });
    assert_eq!(host_limit(), before);
    assert!(guardian.finish().unwrap().success());
}

#[test]
fn the_real_limit_is_restored_within_a_second_of_the_runs_death() {
    if !may_write_the_host() {
        return;
    }
    let mut run = run_child(None, 300_000);
    assert_eq!(host_limit(), 300_000);
    run.kill().unwrap();
    let took = until("the restore", || host_limit() != 300_000);
    println!("restored {took:?} after the run was killed");
    assert!(took < RESTORED_WITHIN, "{took:?}");
    run.wait().unwrap();
}

#[test]
fn the_real_limit_is_restored_by_the_run_when_its_guardian_is_killed() {
    if !may_write_the_host() {
        return;
    }
    let (mut guardian, before) = host_guardian("a guardian that is killed");
    guardian.write_limit(300_000).unwrap();
    signal("KILL", guardian.pid());
    wait_for_death(&mut guardian);
    // Nothing, where another run got the lock first and restored it.
    let restored = guardian.restore().unwrap();
    assert!(matches!(restored, Restore::Restored { value } if value == before) || restored == Restore::Nothing);
}

#[test]
fn a_real_namespace_that_would_be_harmed_is_protected() {
    if !may_write_the_host() {
        return;
    }
    let (neighbour, ns) = neighbour();
    let (mut guardian, before) = host_guardian("a neighbour");
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
    // Gone before the lock is free for others who write.
    drop(neighbour);
    assert!(guardian.finish().unwrap().success());
}

/// A guardian that has the machine's own lock, and the limit it found.
fn host_guardian(what: &str) -> (Guardian, u32) {
    let mut guardian = guardian_child(None, "guardian-test", None);
    let recovered = guardian.acquire(what, &mut |holder| println!("waits for {holder}")).unwrap();
    println!("recovered: {recovered:?}");
    (guardian, host_limit())
}

fn host_limit() -> u32 {
    Site::host().unwrap().settings.read(CONNTRACK_MAX).unwrap().parse().unwrap()
}

/// Ends with the test, and its network namespace with it.
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
