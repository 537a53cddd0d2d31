//! Tests the harness with itself: one deliberate defect per trial, each of which must change the verdict accordingly.
//! Runs one quick scenario in real labs.

mod support {
    pub mod in_process;
    pub mod shipped;
    pub mod skips;
}

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use relapse::config::Config;
use relapse::event::{Decided, Outcome, Phase, RunEvent, TrialEvent, Verdict, What};
use relapse::plan::{Plan, load};
use relapse::run::{self, Interrupt, Options, Sabotage};
use relapse_detectors::finding::Subject;
use relapse_detectors::signal::CollectorKind;
use relapse_kernel::NetNs;
use relapse_kernel::builder::{Builder, VethEnd};
use relapse_kernel::error::Context;
use relapse_kernel::link;
use relapse_model::diagnostics::Source;
use relapse_reports::block;
use relapse_reports::paint::Page;
use relapse_reports::summary::{RunSummary, TrialSummary};
use support::in_process::{labs, options};
use support::{shipped, skips};

const SCENARIO: &str = "policy-route-lost";
const TWIN: &str = "table-rebuilt";
const LINKS: &str = "links changed by others are reported and never fail a run";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(8);
    let test = |name: &str, run: fn() -> Result<(), Failed>| Trial::test(name, run);
    let trials = vec![
        test("without a defect both pass", sound),
        test("a skipped injection is inconclusive", injection_skipped),
        test("a removed detector is missed", detector_removed),
        test("a twin under the incident's expectations is missed", twin_as_incident),
        test("the incident under a control is a false alarm", incident_as_twin),
        test("a detector that warns about every node is unexpected", every_node),
        test("a detector that names another node first has a wrong subject", wrong_node_first),
        test("a removed collector is blind", collector_removed),
        test("a read-back that lies is inconclusive", lying_read_back),
        test("an undo that fails is dirty", failing_undo),
        test("a chain passes stage by stage", chain),
        test("in a chain a removed detector is missed at its stage", chain_without_detector),
        test("in a chain an undo that fails is dirty", chain_with_failing_undo),
        Trial::ignorable_test(LINKS, links_of_others),
    ];
    let without = CAUSES.iter().map(|(scenario, cause)| {
        let name = format!("without {cause}, triage of {scenario} leads to the same step");
        Trial::test(name, move || triage_without(scenario, cause))
    });
    skips::run(&arguments, trials.into_iter().chain(without).collect()).exit_code()
}

/// Incidents, each with the detector of its cause.
const CAUSES: &[(&str, &str)] = &[
    ("mss-clamp-raised", "mss-change"),
    ("coredns-single-replica-loss", "pod-nic"),
    ("policy-route-lost", "policy-route"),
    ("database-slow", "server-slow"),
    ("dns-record-wrong", "dns-answer"),
    ("snat-port-collision", "snat-port-reuse"),
    ("service-rules-loss", "service-rules"),
    ("kube-proxy-stopped", "kube-proxy"),
    ("ingress-misroute", "ingress-route"),
    ("backend-errors", "backend-errors"),
    ("pod-crash", "pod-crash"),
    ("external-dns-loss", "external-dns"),
];

fn triage_without(scenario: &str, cause: &str) -> Result<(), Failed> {
    let plan = shipped::plans().into_iter().find(|plan| plan.name == scenario).expect("it is shipped");
    let mut options = options(Arc::new(labs()));
    options.sabotage = Some(Sabotage::RemoveDetector(cause.to_owned()));
    let ran = run_one(&plan, None, options, &mut |_| {});
    check(&ran, all_verdicts(&ran, cause, |verdict| *verdict == Verdict::Missed), "the cause missed")?;
    let [decided] = ran.trial().triage.as_slice() else { return check(&ran, false, "one verdict of triage") };
    check(&ran, decided.expected.is_some() && decided.wrong.is_none(), "the step of the scenario")
}

fn plan() -> Plan {
    shipped::plans().into_iter().find(|plan| plan.name == SCENARIO).expect("it is shipped")
}

fn with(sabotage: Sabotage, control: Option<&str>) -> Ran {
    let mut options = options(Arc::new(labs()));
    options.sabotage = Some(sabotage);
    run_one(&plan(), control, options, &mut |_| {})
}

/// Three steps, in force at once and healed one after another.
fn chain_plan() -> Plan {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chains/three-steps.yaml");
    load(&[file]).unwrap_or_else(|wrong| panic!("{wrong}")).remove(0)
}

fn chain() -> Result<(), Failed> {
    for control in [None, Some("three-twins")] {
        let ran = run_one(&chain_plan(), control, options(Arc::new(labs())), &mut |_| {});
        check(&ran, ran.outcome == Outcome::Pass, "pass")?;
        check(&ran, left_nothing(&ran), "everything healed")?;
        let stages: Vec<Option<&str>> = ran.trial().stages().iter().map(|stage| stage.step).collect();
        let all = [Some("dns"), Some("route"), Some("clamp"), None];
        check(&ran, stages == if control.is_some() { &[][..] } else { &all[..] }, "each stage")?;
    }
    Ok(())
}

fn chain_without_detector() -> Result<(), Failed> {
    let mut options = options(Arc::new(labs()));
    options.sabotage = Some(Sabotage::RemoveDetector("pod-nic".into()));
    let ran = run_one(&chain_plan(), None, options, &mut |_| {});
    check(&ran, ran.outcome == Outcome::Fail, "fail")?;
    let stages = ran.trial().stages();
    let missed = |decided: &&Decided| decided.expectation.detector == "pod-nic" && decided.verdict == Verdict::Missed;
    check(&ran, stages[0].verdicts.iter().any(missed), "pod-nic missed at the first stage")?;
    check(&ran, stages.len() == 4 && left_nothing(&ran), "all stages and nothing left behind")
}

fn chain_with_failing_undo() -> Result<(), Failed> {
    let mut options = options(Arc::new(labs()));
    options.sabotage = Some(Sabotage::FailUndo);
    let ran = run_one(&chain_plan(), None, options, &mut |_| {});
    check(&ran, ran.outcome == Outcome::Dirty, "dirty")?;
    let nic = ran.trial().left_behind.iter().any(|what| what.contains("eth1"));
    check(&ran, nic, "the lost NIC named")
}

/// The result of one trial.
struct Ran {
    outcome: Outcome,
    summary: RunSummary,
}

impl Ran {
    /// The only trial.
    fn trial(&self) -> &TrialSummary {
        self.summary.trials.first().expect("one trial")
    }

    /// The trial as shown on the terminal: verdicts, and why it is not a pass.
    fn lines(&self) -> String {
        block::lines(&self.summary, self.trial(), Page::PLAIN).join("\n")
    }
}

/// Runs one trial; `on_event` receives all events as they happen.
fn run_one(plan: &Plan, control: Option<&str>, mut options: Options, on_event: &mut dyn FnMut(&RunEvent)) -> Ran {
    options.only = vec![(plan.name.clone(), control.map(str::to_owned))];
    let mut summary = RunSummary::default();
    let outcome = run::run(std::slice::from_ref(plan), &options, &Interrupt::default(), &mut |event| {
        summary.push(event);
        on_event(event);
    });
    Ran { outcome, summary }
}

/// Asserts a condition, and shows the trial if it fails.
fn check(ran: &Ran, holds: bool, what: &str) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("expected: {what}\n{}", ran.lines()).into()) }
}

/// Whether all verdicts on one detector match, and there is at least one.
fn all_verdicts(ran: &Ran, detector: &str, is: impl Fn(&Verdict) -> bool) -> bool {
    let mut verdicts =
        ran.trial().verdicts.iter().filter(|decided| decided.expectation.detector == detector).peekable();
    verdicts.peek().is_some() && verdicts.all(|decided| is(&decided.verdict))
}

fn reason(ran: &Ran, words: &str) -> bool {
    ran.trial().reasons().iter().any(|reason| reason.contains(words))
}

/// Whether everything was healed and nothing was left behind.
fn left_nothing(ran: &Ran) -> bool {
    let trial = ran.trial();
    trial.left_behind.is_empty() && trial.healed.iter().all(|healed| healed.error.is_none())
}

fn sound() -> Result<(), Failed> {
    for control in [None, Some(TWIN)] {
        let ran = run_one(&plan(), control, options(Arc::new(labs())), &mut |_| {});
        check(&ran, ran.outcome == Outcome::Pass, "pass")?;
        check(&ran, !ran.trial().injected.is_empty() && left_nothing(&ran), "injected and healed")?;
    }
    Ok(())
}

fn injection_skipped() -> Result<(), Failed> {
    let ran = with(Sabotage::SkipInject, None);
    check(&ran, ran.outcome == Outcome::Inconclusive, "inconclusive")?;
    check(&ran, ran.trial().injected.is_empty(), "nothing injected")?;
    check(&ran, reason(&ran, "the expected effect was not seen"), "that the effect was not seen")
}

fn detector_removed() -> Result<(), Failed> {
    let ran = with(Sabotage::RemoveDetector("policy-route".into()), None);
    check(&ran, ran.outcome == Outcome::Fail, "fail")?;
    check(&ran, all_verdicts(&ran, "policy-route", |v| *v == Verdict::Missed), "policy-route missed")?;
    let detected = |v: &Verdict| matches!(v, Verdict::Detected { .. });
    check(&ran, all_verdicts(&ran, "wrong-nic", detected), "wrong-nic detected")?;
    check(&ran, left_nothing(&ran), "nothing left behind")
}

fn twin_as_incident() -> Result<(), Failed> {
    let ran = with(Sabotage::TwinAsIncident(TWIN.into()), None);
    check(&ran, ran.outcome == Outcome::Fail, "fail")?;
    check(&ran, all_verdicts(&ran, "wrong-nic", |v| *v == Verdict::Missed), "wrong-nic missed")?;
    check(&ran, left_nothing(&ran), "nothing left behind")
}

fn incident_as_twin() -> Result<(), Failed> {
    let ran = with(Sabotage::IncidentAsTwin, Some(TWIN));
    check(&ran, ran.outcome == Outcome::Fail, "fail")?;
    let false_alarm = |v: &Verdict| matches!(v, Verdict::FalseAlarm { .. });
    check(&ran, all_verdicts(&ran, "policy-route", false_alarm), "a false alarm of policy-route")?;
    check(&ran, left_nothing(&ran), "nothing left behind")
}

/// A detector that reads signals and, when a route is lost, reports these nodes one after another. It is held to the
/// rules of built-in detectors.
fn cheat(nodes: &str) -> Result<Ran, Failed> {
    let text = format!(
        r#"
apiVersion: relapse/v1
kind: Config
detectors:
  - name: cheat
    strict: true
    exec:
      signals: true
      env: {{ NODES: {nodes} }}
      command:
        - sh
        - -c
        - |
          grep -q -m1 '"route":{{"change":"removed"'
          for node in $NODES; do
            printf '{{"level":"cause","severity":"warning","subject":"node/%s"}}\n' "$node"
            sleep 0.05
          done
          cat > /dev/null
    expect: [ {{ scenario: {SCENARIO}, level: cause, subject: node/worker-2, within: 3s }} ]
"#
    );
    let config = Config::parse(&Source::new("relapse.yaml", text), jiff::civil::date(2026, 1, 1));
    let config = config.map_err(|wrong| wrong.plain())?;
    let options = Options { config, ..options(Arc::new(labs())) };
    Ok(run_one(&plan(), None, options, &mut |_| {}))
}

fn every_node() -> Result<(), Failed> {
    let ran = cheat("worker-2 worker-1")?;
    check(&ran, ran.outcome == Outcome::Fail, "fail")?;
    let is = |found: fn(&Verdict) -> bool| {
        ran.trial().verdicts.iter().any(|d| d.expectation.detector == "cheat" && found(&d.verdict))
    };
    check(&ran, is(|verdict| matches!(verdict, Verdict::Detected { .. })), "the right node detected")?;
    check(&ran, is(|verdict| matches!(verdict, Verdict::Unexpected { .. })), "the other one unexpected")
}

fn wrong_node_first() -> Result<(), Failed> {
    let ran = cheat("worker-1 worker-2")?;
    check(&ran, ran.outcome == Outcome::Fail, "fail")?;
    let expected =
        |decided: &&Decided| decided.expectation.detector == "cheat" && decided.expectation.subject.is_some();
    let mut verdicts = ran.trial().verdicts.iter().filter(expected).map(|decided| &decided.verdict);
    let wrong = Verdict::WrongSubject { said: Subject::node("worker-1") };
    check(&ran, verdicts.next() == Some(&wrong), "a wrong subject, though the right one followed")
}

fn collector_removed() -> Result<(), Failed> {
    let ran = with(Sabotage::KillCollector(CollectorKind::Rtnetlink), None);
    check(&ran, ran.outcome == Outcome::Inconclusive, "inconclusive")?;
    let reported = ran.trial().blind.iter().any(|blind| blind.detector == "policy-route");
    check(&ran, reported, "that policy-route is blind")?;
    let blind = |v: &Verdict| matches!(v, Verdict::Blind { .. });
    check(&ran, all_verdicts(&ran, "policy-route", blind), "policy-route blind")
}

fn lying_read_back() -> Result<(), Failed> {
    let ran = with(Sabotage::LyingReadBack, None);
    check(&ran, ran.outcome == Outcome::Inconclusive, "inconclusive")?;
    check(&ran, reason(&ran, "is not in force"), "that it is not in force")?;
    // The mutation was still made.
    check(&ran, !ran.trial().healed.is_empty() && left_nothing(&ran), "healed")
}

fn failing_undo() -> Result<(), Failed> {
    let ran = with(Sabotage::FailUndo, None);
    check(&ran, ran.outcome == Outcome::Dirty, "dirty")?;
    let route = ran.trial().left_behind.iter().any(|what| what.contains("table 2"));
    check(&ran, route, "the lost route named")
}

/// Adds a pair of links, and removes another, in this machine's own namespace while a trial runs.
fn links_of_others() -> Result<Completion, Failed> {
    if !relapse_kernel::host::is_root() {
        return skips::skip("netns", LINKS, "makes links on this machine, which only root may");
    }
    let mut early = Some(Links::add(0).map_err(|e| e.to_string())?);
    let mut late = None;
    let mut meddle = |event: &RunEvent| {
        if let What::Trial { event: TrialEvent::Phase { phase: Phase::Baseline, .. }, .. } = event.what {
            early = None;
            late = Some(Links::add(1));
        }
    };
    let ran = run_one(&plan(), None, options(Arc::new(labs())), &mut meddle);
    let late = late.ok_or("there was no baseline")?.map_err(|e| e.to_string())?;
    let reported = |name: &str| ran.trial().host_changed.iter().any(|what| what.contains(name));
    check(&ran, reported(&Links::name(0, 'a')) && reported(&late.near), "both reported")?;
    check(&ran, ran.outcome == Outcome::Pass, "pass")?;
    check(&ran, left_nothing(&ran), "nothing left behind")?;
    Ok(Completion::Completed)
}

/// A pair of links in this machine's own namespace, removed when dropped.
struct Links {
    ns: NetNs,
    near: String,
}

impl Links {
    fn name(number: u32, end: char) -> String {
        format!("rlps{end}{number}-{}", std::process::id() % 1_000_000)
    }

    fn add(number: u32) -> relapse_kernel::Result<Self> {
        let ns = NetNs::own("this machine")?;
        let (near, far) = (Self::name(number, 'a'), Self::name(number, 'b'));
        // High enough to be unused, and different from those of a concurrent test.
        let index = 100_000_000 + std::process::id() * 8 + number * 2;
        let last = u8::try_from(number * 2).unwrap_or(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context(|| "start a runtime".into())?.block_on(async {
            let at = Builder::open(&ns)?;
            let end = |name: &str, index, last| {
                let (at, name, mac) = (at.clone(), name.to_owned(), [2, 0x72, 0x6c, 0x70, 0x73, last]);
                VethEnd { at, name, index, mac, mtu: 1500 }
            };
            end(&near, index, last).make(&end(&far, index + 1, last + 1)).await
        })?;
        Ok(Self { ns, near })
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Ok(Some(link)) = link::find(&self.ns, &self.near) {
            let _ = link::delete(&self.ns, link.index);
        }
    }
}
