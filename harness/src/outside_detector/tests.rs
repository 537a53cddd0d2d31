//! Small programs and the events they cause.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use relapse_detectors::operator::Operator;
use relapse_detectors::prefix::Prefix;
use relapse_detectors::signal::{KernelLog, Observed, Signal};
use relapse_detectors::time::Time;
use tempfile::TempDir;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::{ExecSpec, OutsideDetector, OutsideEvent, QUEUE};

/// Time limit of each wait, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    detector: OutsideDetector,
    events: UnboundedReceiver<OutsideEvent>,
    _directory: TempDir,
}

fn operator() -> Operator {
    let address = "192.168.0.10".parse().expect("an address");
    Operator {
        pod_prefixes: vec![Prefix::host(address)],
        pod_nic: "eth1".to_owned(),
        pod_table: 2,
        node_nic: "eth0".to_owned(),
        dns_service: "kube-dns".to_owned(),
        dns_address: address,
        paths: Vec::new(),
        time_wait: Duration::from_mins(1),
        peers: Vec::new(),
        peer_prefix_length: 24,
        names: Vec::new(),
        servers: Vec::new(),
        entries: Vec::new(),
        conntrack_limit: None,
        seen_pods: std::collections::BTreeSet::new(),
    }
}

fn signal() -> Signal {
    Signal {
        at: Time(7),
        node: "worker-1".into(),
        observed: Observed::KernelLog(KernelLog { line: "x".repeat(100), netns: None }),
    }
}

/// A shell script as a detector.
fn run(script: &str, signals: bool) -> Running {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("agent");
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let spec = ExecSpec {
        strict: false,
        name: "agent".to_owned(),
        // Through the shell: a file just written may be busy (ETXTBSY) in a child that another test forks.
        command: vec!["sh".to_owned(), "./agent".to_owned(), "--json".to_owned()],
        directory: directory.path().to_owned(),
        env: [("NODE".to_owned(), "worker-2".to_owned())].into(),
        signals,
    };
    let (sender, events) = mpsc::unbounded_channel();
    let detector = OutsideDetector::spawn(&spec, &operator(), sender).expect("started");
    Running { detector, events, _directory: directory }
}

impl Running {
    /// The next event.
    fn next(&mut self) -> OutsideEvent {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            match self.events.try_recv() {
                Ok(event) => return event,
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        panic!("no event came");
    }

    fn why(&mut self) -> String {
        match self.next() {
            OutsideEvent::Blind { detector, why } if detector == "agent" => why,
            other => panic!("{other:?}"),
        }
    }

    fn evidence(&mut self) -> String {
        match self.next() {
            OutsideEvent::Finding(finding) => finding.evidence,
            OutsideEvent::Blind { why, .. } => panic!("blind: {why}"),
            OutsideEvent::Triage(_) => panic!("programs have no triage"),
        }
    }

    /// Ends the program; returns the remaining events and how long that took.
    fn end(self) -> (Vec<OutsideEvent>, Duration) {
        let Self { detector, mut events, _directory } = self;
        let begin = Instant::now();
        detector.end();
        let took = begin.elapsed();
        (std::iter::from_fn(|| events.try_recv().ok()).collect(), took)
    }
}

/// A command that prints a finding with this evidence.
fn finding(evidence: &str) -> String {
    format!(
        r#"echo '{{"incident":"I4","level":"cause","severity":"warning","subject":"node/worker-2","evidence":"'"{evidence}"'"}}'"#
    )
}

#[test]
fn findings_carry_the_name_of_the_configuration() {
    let mut running = run(&format!("{}\nexec sleep 60", finding("$NODE $1")), false);
    let OutsideEvent::Finding(finding) = running.next() else { panic!("a finding") };
    assert_eq!(finding.detector, "agent");
    assert_eq!(finding.evidence, "worker-2 --json");
    assert!(finding.since > Time(0));
    let (rest, took) = running.end();
    assert_eq!(rest, []);
    assert!(took < Duration::from_millis(450), "without input there is no grace: {took:?}");
}

#[test]
fn signals_arrive_after_the_header_and_at_once() {
    let script = format!(
        r#"read header; case $header in *'"relapse":"signals"'*'"pod_table":2'*) ;; *) exit 9;; esac
        while read line; do case $line in *worker-1*kernel-log*) {};; *) exit 8;; esac; done
        {}"#,
        finding("read"),
        finding("closed").replace("cause", "symptom"),
    );
    let mut running = run(&script, true);
    running.detector.signal(&signal());
    assert_eq!(running.evidence(), "read");
    running.detector.signal(&signal());
    let (rest, took) = running.end();
    let [OutsideEvent::Finding(last)] = rest.as_slice() else { panic!("{rest:?}") };
    assert_eq!(last.evidence, "closed", "it may finish after its input is closed");
    assert!(took < Duration::from_millis(450), "{took:?}");
}

#[test]
fn what_is_not_a_finding_is_said_once() {
    let script = format!("echo starting up; echo again; {}; exec sleep 60", finding("fine"));
    let mut running = run(&script, false);
    let why = running.why();
    assert_eq!(why, "line 1 of its output is not a finding: expected value: starting up");
    assert_eq!(running.evidence(), "fine");
    assert_eq!(running.end().0, []);
}

#[test]
fn an_early_end_is_said_with_its_reason() {
    let mut running = run(&format!("{}; echo first >&2; echo 'no route' >&2; exit 3", finding("last")), true);
    assert_eq!(running.evidence(), "last");
    let why = running.why();
    assert!(why.starts_with("exited with status 3 after ") && why.ends_with("ms: no route"), "{why}");
    running.detector.signal(&signal());
    assert_eq!(running.end().0, [], "reported once");

    let mut running = run("kill -9 $$", false);
    assert!(running.why().starts_with("was killed by signal 9 after "));
    assert!(run("exit 0", false).why().starts_with("exited with status 0 after "));
}

#[test]
fn a_program_that_does_not_read_loses_signals_and_never_blocks() {
    let mut running = run("exec sleep 60", true);
    let begin = Instant::now();
    // More than the queue and any pipe can hold.
    for _ in 0..QUEUE * 3 {
        running.detector.signal(&signal());
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let why = running.why();
    assert!(why.starts_with("did not keep up, ") && why.contains(" signals lost"), "{why}");
    let (_, took) = running.end();
    assert!(took >= Duration::from_millis(480) && took < Duration::from_secs(3), "grace, then killed: {took:?}");
}

#[test]
fn a_closed_input_is_said() {
    let mut running = run("exec <&-; exec sleep 60", true);
    let begin = Instant::now();
    // A few go into the pipe before it is closed.
    while begin.elapsed() < PATIENCE && running.events.is_empty() {
        running.detector.signal(&signal());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(running.why(), "closed its input before the end");
    assert_eq!(running.end().0, []);
}

#[test]
fn dropped_it_is_gone_at_once() {
    let script = format!("{}; exec sleep 60", finding("$$"));
    let mut running = run(&script, true);
    let pid = running.evidence();
    let begin = Instant::now();
    drop(running.detector);
    assert!(begin.elapsed() < Duration::from_millis(450), "{:?}", begin.elapsed());
    assert!(!std::path::Path::new("/proc").join(pid).exists());
}

#[test]
fn a_grandchild_that_holds_the_pipes_is_not_waited_for() {
    // The grandchild ends on its own; until then it keeps the output open.
    let mut running = run(&format!("sleep 3 & {}; exit 4", finding("out")), false);
    assert_eq!(running.evidence(), "out");
    let begin = Instant::now();
    assert!(running.why().starts_with("exited with status 4"));
    let (rest, _) = running.end();
    assert_eq!(rest, []);
    assert!(begin.elapsed() < Duration::from_millis(2500), "{:?}", begin.elapsed());
}

#[test]
fn what_cannot_be_run_is_refused() {
    let (events, _) = mpsc::unbounded_channel();
    let spec =
        ExecSpec { name: "agent".to_owned(), command: vec!["./no-such-program".to_owned()], ..ExecSpec::default() };
    let refused = OutsideDetector::spawn(&spec, &operator(), events).expect_err("there is no such program").to_string();
    assert!(refused.starts_with("run detector agent: ./no-such-program: No such file"), "{refused}");
}
