//! Cheats as detectors: each compares one number with a constant, or warns of whatever it sees, and each fails in some
//! drawn trial by its verdict, while the built-in detectors pass there.
//!
//! A cheat is this program itself, as an outside detector that reads signals.

mod support {
    pub mod in_process;
    pub mod shipped;
    pub mod skips;
}

use std::collections::BTreeSet;
use std::io::{BufReader, stdin};
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use relapse::config::Config;
use relapse::event::{Decided, Outcome, Verdict};
use relapse::plan::load;
use relapse::run::{self, Interrupt};
use relapse::scenario::Scenario;
use relapse::vary::{Drawn, Extent, Seed, draw};
use relapse_detectors::record::Recording;
use relapse_detectors::signal::{Change, Observed, Signal};
use relapse_model::diagnostics::Source;
use relapse_model::yaml::{self, Document};
use relapse_reports::block;
use relapse_reports::paint::Page;
use relapse_reports::summary::RunSummary;
use support::in_process::{labs, options};
use support::{shipped, skips};

/// The first argument of this program when it runs as a detector.
const DETECT: &str = "--detect-as";
const SEED: Seed = Seed(14);

/// A cheat in a drawn trial that it cannot pass.
struct Case {
    cheat: &'static str,
    /// What the cheat compares with.
    limit: u64,
    scenario: &'static str,
    control: Option<&'static str>,
    /// The number of the draw that defeats it, and its bounds.
    number: Option<(&'static str, u64, u64)>,
    fails: fn(&Verdict) -> bool,
}

const FALSE_ALARM: fn(&Verdict) -> bool = |verdict| matches!(verdict, Verdict::FalseAlarm { .. });
const MISSED: fn(&Verdict) -> bool = |verdict| *verdict == Verdict::Missed;

const CASES: [Case; 7] = [
    Case {
        cheat: "mss-above",
        limit: 1360,
        scenario: "mss-clamp-raised",
        control: Some("still-fits"),
        number: Some(("fits", 1361, 1379)),
        fails: FALSE_ALARM,
    },
    Case {
        cheat: "mss-above",
        limit: 1379,
        scenario: "mss-clamp-raised",
        control: None,
        number: Some(("raised", 1361, 1379)),
        fails: MISSED,
    },
    Case {
        cheat: "limit-below",
        limit: 4097,
        scenario: "conntrack-cap-reset",
        control: None,
        number: Some(("cores", 17, 20)),
        fails: MISSED,
    },
    Case {
        cheat: "limit-below",
        limit: 6145,
        scenario: "conntrack-cap-reset-small-node",
        control: Some("limit-lowered-far-above-load"),
        number: Some(("plenty", 5500, 6144)),
        fails: FALSE_ALARM,
    },
    Case {
        cheat: "changed",
        limit: 0,
        scenario: "policy-route-lost",
        control: Some("pod-deleted"),
        number: None,
        fails: FALSE_ALARM,
    },
    Case {
        cheat: "every-node",
        limit: 0,
        scenario: "policy-route-lost",
        control: None,
        number: None,
        fails: |verdict| matches!(verdict, Verdict::FalseAlarm { .. } | Verdict::PreExisting),
    },
    Case {
        cheat: "always-at-risk",
        limit: 0,
        scenario: "coredns-replica-killed",
        control: Some("one-of-two-replicas-lost"),
        number: None,
        fails: FALSE_ALARM,
    },
];

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    if arguments.nth(1).as_deref() == Some(DETECT) {
        let limit = arguments.nth(1).and_then(|limit| limit.parse().ok()).unwrap_or(0);
        detect(&std::env::args().nth(2).unwrap_or_default(), limit);
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(4);
    let trials = CASES.iter().map(|case| {
        let twin = case.control.map(|name| format!("::{name}")).unwrap_or_default();
        let name = format!("{} {} fails {}{twin}", case.cheat, case.limit, case.scenario);
        Trial::ignorable_test(name.clone(), move || run_case(&name, case))
    });
    skips::run(&arguments, trials.collect()).exit_code()
}

fn run_case(name: &str, case: &Case) -> Result<Completion, Failed> {
    let shipped = shipped::plans().into_iter().find(|plan| plan.name == case.scenario).ok_or("no such scenario")?;
    let source = yaml::read(&shipped.file, Scenario::NOUN).map_err(|wrong| wrong.message)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join(format!("{}.yaml", case.scenario));
    std::fs::write(&file, defeating(case, &source).ok_or("no draw has this number")?.text)?;
    let plans = load(&[file]).map_err(|wrong| wrong.plain())?;
    let mut options = options(Arc::new(labs()));
    options.config = config(case, &shipped.incident)?;
    options.only = vec![(case.scenario.to_owned(), case.control.map(str::to_owned))];
    if let Some(reason) = run::skip_reason(&plans[0], case.control, &options.backends[0], &options) {
        return skips::skip("netns", name, &reason);
    }
    let mut summary = RunSummary::default();
    run::run(&plans, &options, &Interrupt::default(), &mut |event| {
        summary.push(event);
    });
    let trial = summary.trials.first().ok_or("no trial ran")?;
    let lines = || block::lines(&summary, trial, Page::PLAIN).join("\n");
    if trial.outcome() == Outcome::Skipped {
        return skips::skip("netns", name, &trial.reasons().join("; "));
    }
    // Without permission to write the limit, nothing falls that a cheat could see.
    if let Some(part) = trial.reduced.first() {
        return skips::skip("netns", name, &format!("without {}: {}", part.what, part.why));
    }
    let is_cheat = |decided: &&Decided| decided.expectation.detector == "cheat";
    if trial.outcome() != Outcome::Fail || !trial.verdicts.iter().filter(is_cheat).any(|d| (case.fails)(&d.verdict)) {
        return Err(format!("the cheat does not fail\n{}", lines()).into());
    }
    let others = |verdict: &Verdict| matches!(verdict, Verdict::Detected { .. } | Verdict::Silent);
    if !trial.verdicts.iter().filter(|decided| !is_cheat(decided)).all(|decided| others(&decided.verdict)) {
        return Err(format!("another detector fails as well\n{}", lines()).into());
    }
    Ok(Completion::Completed)
}

/// The first draw with the number that defeats the cheat.
fn defeating(case: &Case, source: &Source) -> Option<Drawn> {
    let draws = (1..=200).filter_map(|repetition| draw(source, SEED, repetition, Extent::All).ok());
    let is = |drawn: &Drawn| {
        case.number.is_none_or(|(name, low, high)| {
            let text = drawn.numbers.iter().find(|(drawn, _)| drawn == name).map(|(_, text)| text);
            text.and_then(|text| text.parse().ok()).is_some_and(|value: u64| (low..=high).contains(&value))
        })
    };
    draws.into_iter().find(is)
}

fn config(case: &Case, incident: &str) -> Result<Config, Failed> {
    let program = std::env::current_exe()?;
    let text = format!(
        "apiVersion: relapse/v1\nkind: Config\ndetectors:\n  - name: cheat\n    exec: {{ command: [{program:?}, {DETECT}, {}, \
         \"{}\"], signals: true }}\n    expect:\n      - {{ incident: {incident}, level: cause, within: 3s }}\n",
        case.cheat, case.limit
    );
    let source = Source::new("relapse.yaml", text);
    Ok(Config::parse(&source, jiff::civil::date(2026, 1, 1)).map_err(|wrong| wrong.plain())?)
}

/// Reads signals and prints each finding once.
fn detect(cheat: &str, limit: u64) {
    let Ok(mut signals) = Recording::open(BufReader::new(stdin())) else { return };
    let mut found = BTreeSet::new();
    while let Ok(Some(signal)) = signals.next_signal() {
        let Some(subject) = subject(cheat, limit, &signal) else { continue };
        if found.insert(subject.clone()) {
            let level = if cheat == "always-at-risk" { "risk" } else { "cause" };
            println!(
                "{{\"level\":\"{level}\",\"severity\":\"warning\",\"subject\":\"{subject}\",\"evidence\":\"{cheat}\"}}"
            );
        }
    }
}

/// What a cheat warns about.
fn subject(cheat: &str, limit: u64, signal: &Signal) -> Option<String> {
    let node = format!("node/{}", signal.node);
    let changed = |change: Change| change != Change::Present;
    match (cheat, &signal.observed) {
        ("mss-above", Observed::Segment(segment)) => {
            let mss = segment.mss.filter(|_| segment.flags.syn && !segment.flags.ack)?;
            // The clients' own SYNs, not those of pods and nodes, whose MSS is that of their NIC.
            let source = segment.source.ip().to_string();
            let prefix = source.rsplit_once('.')?.0;
            (u64::from(mss) > limit && u64::from(mss) < 1460).then(|| format!("path/{prefix}.0/24"))
        }
        ("limit-below", Observed::ConntrackTable(table)) => (table.limit < limit).then_some(node),
        ("changed", Observed::Rule(rule)) => changed(rule.change).then_some(node),
        ("changed", Observed::Route(route)) => changed(route.change).then_some(node),
        ("every-node" | "always-at-risk", _) => Some(node),
        _ => None,
    }
}
