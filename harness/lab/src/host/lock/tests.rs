//! The lock: who waits for whom, and what an open directory must not be able to do.

use std::os::unix::fs::symlink;
use std::sync::mpsc::channel;

use super::record::flock_holder;
use super::*;

const SOON: Duration = Duration::from_secs(5);

fn who(run: &str) -> Who {
    Who { run: run.into(), what: "conntrack-cap-reset".into() }
}

fn place(dir: &tempfile::TempDir) -> Vec<PathBuf> {
    vec![dir.path().join("limit.lock")]
}

fn take(places: &[PathBuf], mode: Mode, run: &str) -> Result<Option<MachineLock>> {
    MachineLock::try_acquire_at(places, mode, &who(run))
}

#[test]
fn a_waiter_names_the_holder_and_gets_the_lock_when_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let places = place(&dir);
    let first = take(&places, Mode::Exclusive, "first").unwrap().expect("free");
    let (said, heard) = channel();
    let waiter = std::thread::spawn(move || {
        MachineLock::acquire_at(&places, Mode::Exclusive, &who("second"), &mut |holder| {
            said.send(holder.to_owned()).unwrap();
        })
        .map(drop)
    });
    let holder = heard.recv_timeout(SOON).unwrap();
    assert!(holder.contains(&format!("process {}", std::process::id())), "{holder}");
    assert!(holder.contains("run first: conntrack-cap-reset"), "{holder}");
    assert!(!waiter.is_finished());
    drop(first);
    waiter.join().unwrap().unwrap();
}

#[test]
fn those_who_need_the_limit_steady_share_it_and_keep_a_writer_out() {
    let dir = tempfile::tempdir().unwrap();
    let places = place(&dir);
    let one = take(&places, Mode::Shared, "one").unwrap().expect("free");
    let two = take(&places, Mode::Shared, "two").unwrap().expect("shared");
    assert!(take(&places, Mode::Exclusive, "writer").unwrap().is_none());
    let names = holders(&places[0], Mode::Exclusive);
    assert!(names.contains("run one") && names.contains("run two"), "{names}");
    drop(one);
    assert!(!holders(&places[0], Mode::Exclusive).contains("run one"));
    drop(two);
    assert_eq!(holders(&places[0], Mode::Exclusive), "");
    let writer = take(&places, Mode::Exclusive, "writer").unwrap().expect("free");
    assert!(take(&places, Mode::Shared, "late").unwrap().is_none());
    drop(writer);
}

#[test]
fn a_waiting_writer_is_not_overtaken_by_new_readers() {
    let dir = tempfile::tempdir().unwrap();
    let places = place(&dir);
    let reader = take(&places, Mode::Shared, "reader").unwrap().expect("free");
    let (said, heard) = channel();
    let (got, granted) = channel();
    let elsewhere = places.clone();
    std::thread::spawn(move || {
        let mut tell = |_: &str| said.send(()).unwrap();
        got.send(MachineLock::acquire_at(&elsewhere, Mode::Exclusive, &who("writer"), &mut tell).unwrap()).unwrap();
    });
    heard.recv_timeout(SOON).unwrap();
    assert!(take(&places, Mode::Shared, "late").unwrap().is_none());
    drop(reader);
    drop(granted.recv_timeout(SOON).unwrap());
    assert!(take(&places, Mode::Shared, "late").unwrap().is_some());
}

#[test]
fn a_removed_lock_file_is_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    let places = place(&dir);
    let (path, orphan) = open_first(&places).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(!is_still_at(&orphan, &path));
    assert!(take(&places, Mode::Exclusive, "a").unwrap().is_some());
}

#[test]
fn everyone_can_open_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let _held = take(&place(&dir), Mode::Shared, "a").unwrap().unwrap();
    for name in ["limit.lock", "limit.gate"] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666, "{name}");
    }
}

#[test]
fn links_planted_in_an_open_directory_are_refused_and_their_targets_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let places = place(&dir);

    symlink(&victim, &places[0]).unwrap();
    assert!(matches!(take(&places, Mode::Exclusive, "a"), Err(Error::Unsafe { .. })));
    fs::remove_file(&places[0]).unwrap();

    symlink(dir.path().join("not-there"), &places[0]).unwrap();
    assert!(matches!(take(&places, Mode::Exclusive, "a"), Err(Error::Unsafe { .. })));
    assert!(!dir.path().join("not-there").exists());
    fs::remove_file(&places[0]).unwrap();

    fs::hard_link(&victim, &places[0]).unwrap();
    assert!(matches!(take(&places, Mode::Exclusive, "a"), Err(Error::Unsafe { .. })));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn the_kernels_list_is_read_as_it_is_written() {
    assert_eq!(flock_holder("3: FLOCK  ADVISORY  WRITE 3016 fe:00:780006 0 EOF", 780_006), Some(3016));
    assert_eq!(flock_holder("3: FLOCK  ADVISORY  WRITE 3016 fe:00:780006 0 EOF", 6), None);
    assert_eq!(flock_holder("3: -> FLOCK  ADVISORY  WRITE 3017 fe:00:780006 0 EOF", 780_006), None);
    assert_eq!(flock_holder("2: OFDLCK ADVISORY  READ -1 00:06:3 0 EOF", 3), None);
}

#[test]
fn who_finds_no_room_waits_at_the_gate_and_is_told_how_many_are_inside() {
    let dir = tempfile::tempdir().unwrap();
    let places = place(&dir);
    let _first = take(&places, Mode::Shared, "first").unwrap().expect("free");
    let mut asked = Vec::new();
    let mut room = |inside| {
        asked.push(inside);
        asked.len() == 3
    };
    let _second = MachineLock::enter(&places, Mode::Shared, &who("second"), &mut room, &mut |_| ()).unwrap();
    assert_eq!(asked, [1, 1, 1]);
}
