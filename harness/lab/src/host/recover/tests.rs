//! Journals left by dead guardians.

use std::sync::Arc;

use super::super::guardian::stand_in::{self, StandIn};
use super::super::journal::{Entry, Stored};
use super::super::removers::{Removed, Remover};
use super::super::settings::Settings as _;
use super::*;

/// A pid above the kernel's maximum, which no process has.
const DEAD: Process = Process { pid: 4_194_305, start: 1 };

struct Scene {
    dir: tempfile::TempDir,
    settings: Arc<StandIn>,
    site: Site,
}

fn scene(value: &str) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let settings = Arc::new(StandIn::with(value));
    let site = stand_in::site(&settings, dir.path());
    Scene { dir, settings, site }
}

fn journal(owner: Process) -> Journal {
    let mut journal = Journal::new("r1", owner).unwrap();
    journal.owner = owner;
    let entry = Entry::Sysctl { key: "k".into(), old: "100".into(), new: "5".into() };
    journal.entries.push(Stored::Known(entry));
    journal
}

impl Scene {
    fn leave(&self, journal: &Journal) -> PathBuf {
        journal.save(&self.site.journals).unwrap();
        journal.path(&self.site.journals)
    }

    fn recover(&self) -> Vec<JournalOutcome> {
        let all = recover(&self.site, &|holder| panic!("waiting for {holder}")).unwrap();
        all.into_iter().map(|recovered| recovered.outcome).collect()
    }

    fn value(&self) -> String {
        self.settings.read("k").unwrap()
    }
}

fn replayed(undone: Undone) -> JournalOutcome {
    JournalOutcome::Replayed { run_id: "r1".into(), undone: vec![undone], unknown: Vec::new() }
}

#[test]
fn what_a_dead_guardian_wrote_is_set_back() {
    let scene = scene("5");
    let path = scene.leave(&journal(DEAD));
    assert_eq!(scene.recover(), [replayed(Undone::Restored { key: "k".into(), value: "100".into() })]);
    assert_eq!((scene.value().as_str(), path.exists()), ("100", false));
    assert!(scene.recover().is_empty());
}

#[test]
fn what_was_journaled_and_never_written_needs_nothing() {
    let scene = scene("100");
    let path = scene.leave(&journal(DEAD));
    assert_eq!(scene.recover(), [replayed(Undone::Already { key: "k".into(), value: "100".into() })]);
    assert_eq!((scene.value().as_str(), path.exists()), ("100", false));
}

#[test]
fn what_somebody_else_wrote_since_is_left_and_reported() {
    let scene = scene("77");
    scene.leave(&journal(DEAD));
    let expected = Undone::NotOurs { key: "k".into(), found: "77".into(), expected: "5".into() };
    let outcomes = scene.recover();
    assert_eq!(outcomes, [replayed(expected)]);
    assert!(outcomes[0].is_open());
    assert_eq!(scene.value(), "77");
}

#[test]
fn a_living_owner_is_left_alone_and_no_lock_is_taken() {
    let scene = scene("5");
    let path = scene.leave(&journal(Process::own().unwrap()));
    assert!(matches!(scene.recover()[..], [JournalOutcome::InUse { .. }]));
    assert!(recover_quietly(&scene.site).unwrap().is_empty());
    assert_eq!((scene.value().as_str(), path.exists()), ("5", true));
    assert!(!scene.dir.path().join("lock").exists());
}

#[test]
fn a_reboot_made_it_void_though_the_pid_lives_again() {
    let scene = scene("5");
    let before = Journal { boot_id: "another boot".into(), ..journal(Process::own().unwrap()) };
    let path = scene.leave(&before);
    assert_eq!(scene.recover(), [JournalOutcome::Void { run_id: "r1".into() }]);
    assert_eq!((scene.value().as_str(), path.exists()), ("5", false));
}

#[test]
fn a_truncated_journal_is_reported_and_set_aside_and_does_not_stop_the_others() {
    let scene = scene("5");
    let whole = scene.leave(&journal(DEAD));
    let cut = scene.site.journals.join("cut.json");
    let text = fs::read(&whole).unwrap();
    for _ in 0..2 {
        fs::write(&cut, &text[..text.len() / 2]).unwrap();
        let outcomes = scene.recover();
        assert!(outcomes.iter().any(|outcome| matches!(outcome, JournalOutcome::Unreadable { .. })), "{outcomes:?}");
    }
    assert_eq!(scene.value(), "100");
    assert!(!cut.exists());
    assert_eq!(fs::read(scene.site.journals.join("cut.unreadable")).unwrap(), text[..text.len() / 2]);
    assert!(scene.site.journals.join("cut.2.unreadable").exists());
}

#[test]
fn what_only_a_newer_version_can_undo_is_kept_and_reported_each_time() {
    let scene = scene("5");
    let mut newer = journal(DEAD);
    newer.entries.push(Stored::Unknown(serde_json::json!({"what": "container", "id": "4f2a"})));
    let path = scene.leave(&newer);
    for _ in 0..2 {
        let outcomes = scene.recover();
        let [JournalOutcome::Replayed { unknown, .. }] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert_eq!(unknown, &["container"]);
        assert!(path.exists() && outcomes[0].is_open());
        assert_eq!(scene.value(), "100");
    }
    let later = scene.site.journals.join("later.json");
    fs::write(&later, r#"{"version": 9}"#).unwrap();
    assert!(scene.recover().contains(&JournalOutcome::Newer { version: 9 }));
    assert!(later.exists());
}

#[test]
fn a_draft_of_a_dead_process_is_removed() {
    let scene = scene("100");
    fs::create_dir(&scene.site.journals).unwrap();
    let dead = scene.site.journals.join(format!("r1-{}.tmp", DEAD.pid));
    let alive = scene.site.journals.join(format!("r1-{}.tmp", std::process::id()));
    fs::write(&dead, "{").unwrap();
    fs::write(&alive, "{").unwrap();
    assert_eq!(scene.recover(), [JournalOutcome::NeverMade]);
    assert!(!dead.exists() && alive.exists());
}

#[test]
fn a_start_does_not_wait_for_the_lock() {
    let scene = scene("5");
    scene.leave(&journal(DEAD));
    let held = MachineLock::try_acquire(&scene.site.locks, Mode::Exclusive).unwrap().expect("free");
    let quiet = recover_quietly(&scene.site).unwrap();
    assert!(matches!(quiet[..], [Recovered { outcome: JournalOutcome::Locked { .. }, .. }]), "{quiet:?}");
    assert_eq!(scene.value(), "5");
    drop(held);
    assert_eq!(recover_quietly(&scene.site).unwrap().len(), 1);
    assert_eq!(scene.value(), "100");
}

#[test]
fn what_cannot_be_undone_keeps_its_journal() {
    let scene = scene("5");
    let path = scene.leave(&journal(DEAD));
    scene.settings.ignore_writes(true);
    assert!(
        matches!(&scene.recover()[..], [JournalOutcome::Failed { why, .. }] if why == "restore k = 100: read back 5")
    );
    assert!(path.exists());
    scene.settings.ignore_writes(false);
    scene.recover();
    assert_eq!((scene.value().as_str(), path.exists()), ("100", false));
}

/// A journal with an object created by a backend and a related setting.
fn of_a_backend() -> Journal {
    let mut made = journal(DEAD);
    let what = super::super::journal::entry("cluster", "cluster remove c1", serde_json::json!({"name": "c1"}));
    made.entries.push(Stored::Unknown(what));
    made
}

#[test]
fn what_a_backend_made_that_is_not_here_is_kept_and_nothing_of_it_is_touched() {
    let scene = scene("5");
    let path = scene.leave(&of_a_backend());
    for _ in 0..2 {
        let outcomes = scene.recover();
        assert_eq!(outcomes, [JournalOutcome::Kept { run_id: "r1".into(), clear: vec!["cluster remove c1".into()] }]);
        assert!(outcomes[0].is_open() && path.exists());
        assert_eq!(scene.value(), "5");
    }
}

#[test]
fn what_a_backend_made_goes_by_its_remover_and_its_settings_follow() {
    for (settings_needed, value) in [(false, "100"), (true, "5")] {
        let mut scene = scene("5");
        let remove: fn(&serde_json::Value) -> _ = if settings_needed {
            |entry| Ok(Removed { what: entry["name"].to_string(), settings_needed: true })
        } else {
            |entry| Ok(Removed { what: entry["name"].to_string(), settings_needed: false })
        };
        scene.site.removers.push(Remover { kind: "cluster", settings: &[], remove });
        let path = scene.leave(&of_a_backend());
        let outcomes = scene.recover();
        let [JournalOutcome::Replayed { undone, .. }] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert_eq!(undone[0].to_string(), "\"c1\" was removed");
        assert!(!path.exists());
        assert_eq!(scene.value(), value);
    }
}
