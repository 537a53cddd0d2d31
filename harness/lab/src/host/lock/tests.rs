//! The lock: waiting, and attacks through a world-writable directory.

use std::cell::RefCell;
use std::os::unix::fs::symlink;
use std::sync::mpsc::channel;

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn place(dir: &tempfile::TempDir) -> Vec<PathBuf> {
    vec![dir.path().join("limit.lock")]
}

fn take(places: &[PathBuf], mode: Mode) -> Result<Option<MachineLock>> {
    MachineLock::try_acquire(places, mode)
}

#[test]
fn those_who_need_the_limit_steady_share_it_and_keep_a_writer_out() {
    let dir = tempfile::tempdir().unwrap();
    let places = place(&dir);
    let one = take(&places, Mode::Shared).unwrap().expect("free");
    let two = take(&places, Mode::Shared).unwrap().expect("shared");
    assert!(take(&places, Mode::Exclusive).unwrap().is_none());
    drop((one, two));
    assert!(holders(&places).is_empty());
    let writer = take(&places, Mode::Exclusive).unwrap().expect("free");
    assert!(take(&places, Mode::Shared).unwrap().is_none());
    drop(writer);
}

#[test]
fn a_waiting_writer_names_who_is_inside_and_is_not_overtaken_by_new_readers() {
    let dir = tempfile::tempdir().unwrap();
    let places = place(&dir);
    let reader = take(&places, Mode::Shared).unwrap().expect("free");
    let (reports, reported) = channel();
    let (acquired, granted) = channel();
    let elsewhere = places.clone();
    std::thread::spawn(move || {
        let report = |holder: String| reports.send(holder).unwrap();
        acquired.send(MachineLock::acquire(&elsewhere, Mode::Exclusive, &report).unwrap()).unwrap();
    });
    let holder = reported.recv_timeout(SOON).unwrap();
    assert!(holder.starts_with(&format!("process {} (relapse_lab-", std::process::id())), "{holder}");
    assert!(reader.is_awaited());
    assert!(take(&places, Mode::Shared).unwrap().is_none());
    drop(reader);
    drop(granted.recv_timeout(SOON).unwrap());
    assert!(take(&places, Mode::Shared).unwrap().is_some());
}

#[test]
fn a_wait_can_be_given_up_and_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let places = place(&dir);
    let held = take(&places, Mode::Exclusive).unwrap().expect("free");
    let given_up = MachineLock::enter(&places, Mode::Shared, &|_| true, &|_| (), &|| true);
    assert!(matches!(given_up, Err(Error::Stopped)));
    drop(held);
    MachineLock::acquire(&places, Mode::Exclusive, &|_| ()).map(drop).unwrap();
}

#[test]
fn a_removed_lock_file_is_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    let places = place(&dir);
    let (path, orphan) = open_first(&places).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(!is_still_at(&orphan, &path));
    assert!(take(&places, Mode::Exclusive).unwrap().is_some());
}

#[test]
fn everyone_can_open_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let _held = take(&place(&dir), Mode::Shared).unwrap().unwrap();
    for name in ["limit.lock", "limit.gate"] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666, "{name}");
    }
}

#[test]
fn a_link_planted_in_an_open_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let places = place(&dir);
    symlink(dir.path().join("not-there"), &places[0]).unwrap();
    assert!(matches!(take(&places, Mode::Exclusive), Err(Error::Unsafe { .. })));
    assert!(!dir.path().join("not-there").exists());
}

#[test]
fn the_kernels_list_is_read_as_it_is_written() {
    assert_eq!(holder("3: FLOCK  ADVISORY  WRITE 3016 fe:00:780006 0 EOF", 780_006), Some((3016, Mode::Exclusive)));
    assert_eq!(holder("3: FLOCK  ADVISORY  READ  3016 fe:00:780006 0 EOF", 780_006), Some((3016, Mode::Shared)));
    assert_eq!(holder("3: FLOCK  ADVISORY  WRITE 3016 fe:00:780006 0 EOF", 6), None);
    assert_eq!(holder("3: -> FLOCK  ADVISORY  WRITE 3017 fe:00:780006 0 EOF", 780_006), None);
    assert_eq!(holder("2: OFDLCK ADVISORY  READ -1 00:06:3 0 EOF", 3), None);
}

#[test]
fn who_finds_no_room_waits_at_the_gate_and_is_told_how_many_are_inside() {
    let dir = tempfile::tempdir().unwrap();
    let places = place(&dir);
    let _first = take(&places, Mode::Shared).unwrap().expect("free");
    let calls = RefCell::new(Vec::new());
    let room = |inside| {
        calls.borrow_mut().push(inside);
        calls.borrow().len() == 3
    };
    let _second = MachineLock::enter(&places, Mode::Shared, &room, &|_| (), &|| false).unwrap();
    assert_eq!(*calls.borrow(), [1, 1, 1]);
}
