//! The guardian in a thread, over pipes, with a setting in memory.

use std::io::{PipeReader, PipeWriter};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::stand_in::{NEIGHBOUR, StandIn, site};
use super::*;
use crate::host::journal;
use crate::host::settings::Settings as _;

struct Session {
    dir: tempfile::TempDir,
    settings: Arc<StandIn>,
    requests: PipeWriter,
    replies: io::Lines<BufReader<PipeReader>>,
    guardian: JoinHandle<ExitCode>,
}

fn start(value: &str) -> Session {
    let dir = tempfile::tempdir().unwrap();
    let settings = Arc::new(StandIn::with(value));
    let site = site(&settings, dir.path());
    let (input, requests) = io::pipe().unwrap();
    let (replies, output) = io::pipe().unwrap();
    let guardian = std::thread::spawn(move || serve(site, input, output));
    Session { dir, settings, requests, replies: BufReader::new(replies).lines(), guardian }
}

impl Session {
    fn receive(&mut self) -> Reply {
        serde_json::from_str(&self.replies.next().expect("a reply").unwrap()).unwrap()
    }

    fn ask(&mut self, request: &Request) -> Reply {
        send(&mut self.requests, request).unwrap();
        self.receive()
    }

    fn acquire(&mut self) -> Reply {
        self.ask(&Request::Acquire { run_id: "r1".into(), run: Process::own().unwrap() })
    }

    fn limit(&mut self, ask: LimitRequest) -> Reply {
        self.ask(&Request::Limit { ask, own: Vec::new() })
    }

    fn write(&mut self, value: u32) -> Reply {
        self.limit(LimitRequest::Write(value))
    }

    fn restore(&mut self) -> Reply {
        self.limit(LimitRequest::Restore)
    }

    fn value(&self) -> String {
        self.settings.read("").unwrap()
    }

    fn journals(&self) -> usize {
        journal::list(&self.dir.path().join("journal")).unwrap().len()
    }

    /// Closes the pipe, as when the run ends.
    fn close(self) -> (tempfile::TempDir, Arc<StandIn>) {
        drop(self.requests);
        assert_eq!(self.guardian.join().unwrap(), ExitCode::SUCCESS);
        (self.dir, self.settings)
    }
}

fn restored(value: u32) -> Reply {
    Reply::Limit(LimitReply::Restored(Restore::Restored { value }))
}

/// The result of a successful write.
fn written(reply: &Reply) -> Option<LimitWrite> {
    if let Reply::Limit(LimitReply::Written(written)) = reply { Some(*written) } else { None }
}

#[test]
fn writes_restores_and_leaves_nothing() {
    let mut session = start("1000");
    assert_eq!(session.acquire(), Reply::Acquired { recovered: vec![] });
    let LimitWrite { before, t0, t1, read_back } = written(&session.write(500)).expect("written");
    assert_eq!((before, read_back), (1000, 500));
    assert!(t0 > 0 && t1 > t0);
    assert_eq!((session.value().as_str(), session.journals()), ("500", 1));
    assert_eq!(session.restore(), restored(1000));
    assert_eq!((session.value().as_str(), session.journals()), ("1000", 0));
    assert_eq!(session.restore(), Reply::Limit(LimitReply::Restored(Restore::Nothing)));
    session.close();
}

#[test]
fn the_end_of_the_run_restores_the_first_of_several_values() {
    let mut session = start("1000");
    session.acquire();
    session.write(500);
    session.write(400);
    let (dir, settings) = session.close();
    assert_eq!(settings.read("").unwrap(), "1000");
    assert!(journal::list(&dir.path().join("journal")).unwrap().is_empty());
    assert!(MachineLock::try_acquire(&[dir.path().join("lock")], Mode::Exclusive).unwrap().is_some());
}

#[test]
fn nothing_is_written_without_the_lock() {
    let mut session = start("1000");
    assert!(matches!(session.write(500), Reply::Error { .. }));
    assert_eq!((session.value().as_str(), session.journals()), ("1000", 0));
    send(&mut session.requests, &"no such request").unwrap();
    assert!(matches!(session.receive(), Reply::Error { .. }));
    session.close();
}

#[test]
fn nothing_is_written_without_a_journal() {
    let mut session = start("1000");
    session.acquire();
    let journals = session.dir.path().join("journal");
    std::fs::write(&journals, "in the way").unwrap();
    let reply = session.write(500);
    assert!(matches!(&reply, Reply::Error { what } if what.contains("journal")), "{reply:?}");
    assert_eq!(session.value(), "1000");
    std::fs::remove_file(&journals).unwrap();
    assert!(written(&session.write(500)).is_some());
    session.close();
}

#[test]
fn journals_that_cannot_be_read_are_no_ground_to_write_on() {
    let mut session = start("1000");
    let journals = session.dir.path().join("journal");
    std::fs::write(&journals, "in the way").unwrap();
    assert!(matches!(session.acquire(), Reply::Error { .. }));
    assert!(matches!(session.write(500), Reply::Error { .. }));
    std::fs::remove_file(&journals).unwrap();
    assert!(matches!(session.acquire(), Reply::Acquired { .. }));
    session.close();
}

#[test]
fn a_lower_limit_is_refused_where_another_namespace_holds_more_than_half_of_it() {
    let mut session = start("1000");
    session.acquire();
    session.settings.set_entries(Some(251));
    let Reply::Error { what } = session.write(500) else { panic!("not refused") };
    assert_eq!(
        what,
        "write net.netfilter.nf_conntrack_max = 500: network namespace net:[4242] (process 7 nginx) holds 251 entries, more than half of 500"
    );
    assert_eq!((session.value().as_str(), session.journals()), ("1000", 0));
    // Exactly half, a higher limit, no limit, and the run's own namespace.
    assert!(written(&session.write(502)).is_some());
    assert!(written(&session.write(1100)).is_some());
    assert!(written(&session.write(0)).is_some());
    let own = Request::Limit { ask: LimitRequest::Write(10), own: vec![NEIGHBOUR] };
    assert!(written(&session.ask(&own)).is_some());
    // A namespace that cannot be counted may be harmed.
    session.settings.set_entries(None);
    assert_eq!(session.write(5), Reply::Error { what: "count entries: failed".into() });
    assert_eq!(session.value(), "10");
    let (_dir, settings) = session.close();
    assert_eq!(settings.read("").unwrap(), "1000");
}

#[test]
fn a_namespace_that_fills_while_it_lasts_ends_it_at_once() {
    let mut session = start("1000");
    session.acquire();
    session.write(500);
    session.settings.set_entries(Some(251));
    let Reply::Alarm { why } = session.receive() else { panic!("no alarm") };
    assert!(why.contains("holds 251 entries") && why.ends_with("the limit was restored to 1000"), "{why}");
    assert_eq!((session.value().as_str(), session.journals()), ("1000", 0));
    assert_eq!(session.restore(), restored(1000));
    session.close();
}

#[test]
fn a_limit_above_the_machines_own_harms_nobody() {
    let mut session = start("1000");
    session.acquire();
    session.settings.set_entries(Some(900));
    assert!(written(&session.write(1200)).is_some());
    // Lower than the current value, but not lower than the machine's own.
    assert!(written(&session.write(1100)).is_some());
    std::thread::sleep(COUNT_EVERY * 3);
    assert_eq!(session.restore(), restored(1000));
    session.close();
}

#[test]
fn a_watch_that_fails_for_good_ends_it_too() {
    let mut session = start("1000");
    session.acquire();
    session.write(500);
    session.settings.set_entries(None);
    let Reply::Alarm { why } = session.receive() else { panic!("no alarm") };
    assert!(why.starts_with("other namespaces can no longer be watched"), "{why}");
    assert_eq!(session.value(), "1000");
    session.close();
}

#[test]
fn a_write_that_does_not_hold_leaves_nothing_behind() {
    let mut session = start("1000");
    session.acquire();
    session.settings.ignore_writes(true);
    assert!(matches!(session.write(500), Reply::Error { what } if what.ends_with("read back 1000")));
    assert_eq!((session.value().as_str(), session.journals()), ("1000", 0));
    session.close();
}

#[test]
fn leftovers_of_a_dead_guardian_are_undone_before_the_old_value_is_read() {
    let mut session = start("500");
    let mut left = Journal::new("dead", Process::own().unwrap()).unwrap();
    left.owner.start += 1;
    let entry = Entry::Sysctl { key: CONNTRACK_MAX.into(), old: "1000".into(), new: "500".into() };
    left.entries.push(Stored::Known(entry));
    left.save(&session.dir.path().join("journal")).unwrap();
    let Reply::Acquired { recovered } = session.acquire() else { panic!("not acquired") };
    assert_eq!(recovered, ["run dead was killed: net.netfilter.nf_conntrack_max was restored to 1000"]);
    assert_eq!(written(&session.write(400)).map(|written| written.before), Some(1000));
    session.close();
}

#[test]
fn no_limit_is_the_highest() {
    assert!(is_lower(5, 10) && is_lower(5, 0));
    assert!(!is_lower(10, 5) && !is_lower(0, 5) && !is_lower(0, 0) && !is_lower(5, 5));
}
