//! `relapse run`: replays scenarios and judges what detectors report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use relapse_detectors::operator::Knowledge;
use relapse_lab::cluster::backend::{self, Backend, For};
use relapse_lab::host::{self, Consent, Site};
use relapse_lab::series::Programs;
use relapse_model::diagnostics::did_you_mean;
use relapse_reports::folder::RunFolder;
use relapse_reports::terminal::{Mode, Terminal};

use super::{Refused, out};
use crate::config::Config;
use crate::drawn;
use crate::event::{RunEvent, What};
use crate::nightly;
use crate::plan::{Plan, load};
use crate::run::{self, Interrupt, Options, Series};
use crate::scenario::trial::Armed;
use crate::shipped;
use crate::vary::{Extent, Seed};

/// Value of `--backend` for all backends, one after the other.
const ALL: &str = "all";

/// The chosen backend: one by name, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen(String);

impl Chosen {
    /// The parser of the argument.
    pub fn parser() -> impl TypedValueParser<Value = Self> {
        let backends = backend::registered().into_iter().map(|one| PossibleValue::new(one.name).help(one.help));
        let all = PossibleValue::new(ALL).help("All backends, one after the other, with a comparison");
        PossibleValuesParser::new(backends.chain([all])).map(Self)
    }

    /// The backends, ready to bring up clusters.
    pub fn backends(
        &self,
        run_id: &str,
        image: Option<&str>,
        reports: &Path,
        clusters: usize,
    ) -> Vec<Arc<dyn Backend>> {
        let folder = reports.join("runs").join(run_id);
        let run = For { run_id, image, folder: &folder, clusters };
        let chosen = backend::registered().into_iter().filter(|one| self.0 == ALL || self.0 == one.name);
        chosen.map(|one| (one.make)(&run)).collect()
    }
}

/// Replay scenarios.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  relapse run
  relapse run policy-route-lost --only incident --repeat 20
  relapse run conntrack-cap-reset --allow-host-writes --record recordings
  relapse run --config relapse.yaml --json > events.jsonl
  relapse run --shard 2/4
  relapse run --only incident --operator none
  relapse run --vary --repeat 3 --jobs 3
  sudo relapse run --backend kind policy-route-lost

Reports: FOLDER/latest/report.html, summary.md, junit.xml, matrix.txt, events.jsonl.")]
pub struct RunArguments {
    /// Names, files or folders (default: everything in scenarios/).
    scenarios: Vec<String>,
    /// Replay each trial this many times; reports p50, p95, max and flakes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeat: u32,
    /// Maximum number of trials at once; fewer while the machine is busy. On kind, one per cluster, with a second
    /// cluster from a dozen trials on. Default: six per processor, or 1 with --repeat for undisturbed times.
    #[arg(long, short, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Multiply every deadline by this factor, for slow machines such as emulated ones.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = deadline_factor)]
    deadline_factor: f64,
    /// Where trials run.
    #[arg(long, value_parser = Chosen::parser(), default_value = "netns")]
    backend: Chosen,
    /// Node image for kind clusters (default: the one from `make kind`). Also set by RELAPSE_KIND_IMAGE.
    #[arg(long, value_name = "IMAGE")]
    kind_image: Option<String>,
    /// Allow scenarios to write machine-wide settings (nf_conntrack_max); they are journaled and restored.
    #[arg(long)]
    allow_host_writes: bool,
    /// Backends that must run: a skipped trial there fails the run. Also set by RELAPSE_REQUIRE.
    #[arg(long, value_delimiter = ',')]
    require: Vec<String>,
    /// What detectors get of the operator's facts: all, none, or a fixed wrong copy. With none or stale facts a miss
    /// counts as a miss, and the exit status says so; it shows what each detector depends on (docs/operator.md).
    #[arg(long, value_parser = knowledge(), default_value = "right")]
    operator: Knowledge,
    /// Run only the incident of each scenario (`incident`), or only this control.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Arm the detectors of every trial then, whatever its scenario says: late and restarted agents. Deadlines count from
    /// the late start.
    #[arg(long, value_name = "WHEN")]
    armed: Option<Armed>,
    /// Vary each trial: draw its numbers (`vary:` of the scenario) and, in labs, names, addresses and the like anew.
    /// Prints the seed, which draws the same again. Drawn scenarios are written to FOLDER/runs/RUN/drawn.
    #[arg(long, value_name = "SEED", num_args = 0..=1)]
    vary: Option<Option<Seed>>,
    /// Run nightly scenarios as well, which otherwise run only if they are named. Also set by RELAPSE_NIGHTLY=1.
    #[arg(long)]
    nightly: bool,
    /// Run only this part of all trials, such as 2/4. Each trial is in exactly one part, on every machine.
    #[arg(long, value_name = "N/OF")]
    shard: Option<Shard>,
    /// Record all signals to this folder, one file per trial.
    #[arg(long, value_name = "FOLDER")]
    record: Option<PathBuf>,
    /// Record what Prometheus exporters export to this folder, one file per trial, for `relapse alerts`. Trials then take four
    /// minutes: 60 s before the fault, 120 s with it, 60 s after healing. Needs the programs of scripts/prometheus.sh.
    #[arg(long, value_name = "FOLDER", conflicts_with = "repeat")]
    record_series: Option<PathBuf>,
    /// Outside detectors and what they must report (default: relapse.yaml, if it exists).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for reports.
    #[arg(long, value_name = "FOLDER", default_value = "reports")]
    reports: PathBuf,
    /// Show everything of every trial, not only of those that did not pass.
    #[arg(long, short)]
    verbose: bool,
    /// One column per scenario in the matrix, instead of one per incident.
    #[arg(long)]
    wide: bool,
    /// Print events as JSON lines instead of text.
    #[arg(long)]
    json: bool,
    /// A deliberate defect of the harness, as JSON, for its own tests.
    #[arg(long, hide = true)]
    sabotage: Option<String>,
}

pub fn main(arguments: &RunArguments) -> Result<ExitCode, Refused> {
    let require = required(&arguments.require)?;
    let config = Config::load(arguments.config.as_deref(), jiff::Zoned::now().date())?;
    let plans = super::find(&arguments.scenarios)?;
    let (mut plans, left_out) = nightly::select(plans, "--nightly", |plan| {
        arguments.nightly || nightly::requested() || is_named(plan, &arguments.scenarios)
    });
    if plans.is_empty()
        && let Some(notice) = left_out
    {
        out::line(notice);
        return Ok(ExitCode::SUCCESS);
    }
    let sabotage = arguments.sabotage.as_deref().map(serde_json::from_str).transpose();
    let sabotage = sabotage.map_err(|e| format!("--sabotage: {e}"))?;
    if let Some(folder) = &arguments.record {
        std::fs::create_dir_all(folder).map_err(|e| format!("--record {}: {e}", folder.display()))?;
    }
    let mut only = arguments.only.as_ref().map(|name| select(&plans, name)).transpose()?.unwrap_or_default();
    if let Some(shard) = arguments.shard {
        if only.is_empty() {
            only = plans.iter().flat_map(|p| p.trials().map(|t| (p.name.clone(), t.control.clone()))).collect();
        }
        only.retain(|trial| shard.holds(trial));
        if only.is_empty() {
            out::line(format_args!("shard {}/{} has no trials", shard.number, shard.of));
            return Ok(ExitCode::SUCCESS);
        }
    }
    let series = arguments.record_series.as_deref().map(|folder| series(folder, &plans)).transpose()?;
    let run_id = run_id();
    let jobs = arguments.jobs.map_or_else(|| default_jobs(arguments.repeat), usize::from);
    let clusters = clusters(jobs, trials(&plans, &only) * arguments.repeat as usize);
    let options = Options {
        backends: arguments.backend.backends(&run_id, arguments.kind_image.as_deref(), &arguments.reports, clusters),
        run_id,
        jobs,
        repeat: arguments.repeat,
        operator: arguments.operator,
        deadline_factor: arguments.deadline_factor,
        consent: Consent::from_environment(arguments.allow_host_writes),
        require,
        record: arguments.record.clone(),
        series,
        config,
        sabotage,
        only,
        hold: false,
        executable: None,
    };
    super::able(&options.backends)?;
    let folder = RunFolder::create(&arguments.reports, &options.run_id);
    let folder = folder.map_err(|e| format!("--reports: failed to {}", super::chain(&e)))?;
    let mut notices: Vec<String> = left_out.into_iter().collect();
    if let Some(seed) = arguments.vary {
        let seed = seed.unwrap_or_else(Seed::fresh);
        let is_real = options.backends.iter().any(|backend| backend.is_real_cluster());
        let extent = if is_real { Extent::Numbers } else { Extent::All };
        let files = folder.path().join("drawn");
        plans = drawn::plans(&plans, seed, arguments.repeat, extent, &files)?;
        notices.push(format!("drawn by --vary {seed}; each scenario is in {}", files.display()));
    }
    if let Some(armed) = arguments.armed {
        plans.iter_mut().for_each(|plan| plan.arm(armed));
    }
    if options.series.is_some() {
        plans.iter_mut().for_each(Plan::record_series);
    }
    plans.iter_mut().for_each(|plan| plan.stretch_deadlines(arguments.deadline_factor));
    let terminal =
        (!arguments.json).then(|| Terminal::new(Mode::detect()).verbose(arguments.verbose).wide(arguments.wide));
    Ok(perform(&plans, &options, notices, terminal, folder))
}

/// Prepares to record series.
fn series(folder: &Path, plans: &[Plan]) -> Result<Series, Refused> {
    let failed = |e: &dyn std::fmt::Display| format!("--record-series {}: {e}", folder.display());
    Programs::find().map_err(|e| failed(&e))?;
    std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
    let shipped = load(&shipped::scenarios()).unwrap_or_default();
    let all = shipped.iter().chain(plans).map(|plan| (plan.incident.clone(), plan.name.clone()));
    Ok(Series { folder: folder.to_owned(), base: bases(&all.collect()) })
}

/// The base scenario of each incident: the one with whose name most others begin, as variants add to it; of several, the
/// first.
fn bases(all: &BTreeSet<(String, String)>) -> BTreeSet<String> {
    let variants = |(incident, base): &(String, String)| {
        all.iter().filter(|(other, name)| other == incident && name.starts_with(base.as_str())).count()
    };
    let mut best: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for scenario in all {
        let entry = best.entry(&scenario.0).or_default();
        if variants(scenario) > entry.0 {
            *entry = (variants(scenario), &scenario.1);
        }
    }
    best.into_values().map(|(_, name)| name.to_owned()).collect()
}

/// Whether an argument is the scenario's name or file, and not only its folder.
fn is_named(plan: &Plan, arguments: &[String]) -> bool {
    arguments.iter().any(|argument| {
        plan.name == *argument || plan.file == Path::new(argument) || plan.file.file_stem() == Some(argument.as_ref())
    })
}

/// One of several parts of all trials.
#[derive(Debug, Clone, Copy)]
struct Shard {
    /// From 1.
    number: u64,
    of: u64,
}

impl Shard {
    /// Depends only on the trial's name (FNV-1a), so that a new scenario moves no other trial.
    fn holds(self, (scenario, control): &(String, Option<String>)) -> bool {
        let name = scenario.bytes().chain([b'/']).chain(control.iter().flat_map(|name| name.bytes()));
        let hash =
            name.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        (hash >> 32) % self.of == self.number - 1
    }
}

impl FromStr for Shard {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        let parts = parts.filter(|(number, of)| (1..=*of).contains(number));
        parts.map(|(number, of)| Self { number, of }).ok_or("expected N/OF, such as 2/4 for the second of four parts")
    }
}

fn knowledge() -> impl TypedValueParser<Value = Knowledge> {
    PossibleValuesParser::new(Knowledge::ALL.map(Knowledge::name))
        .map(|name| Knowledge::ALL.into_iter().find(|one| one.name() == name).unwrap_or_default())
}

/// At least 1: meeting a deadline other than the scenario's proves nothing.
fn deadline_factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (1.0..=1000.0).contains(factor));
    factor.ok_or_else(|| "expected a number from 1 to 1000".to_owned())
}

/// `incident`, or the name of a control.
fn select(plans: &[Plan], name: &str) -> Result<Vec<(String, Option<String>)>, String> {
    if name == "incident" {
        return Ok(plans.iter().map(|plan| (plan.name.clone(), None)).collect());
    }
    let has = |plan: &&Plan| plan.controls.iter().any(|control| control.control.as_deref() == Some(name));
    let found: Vec<_> = plans.iter().filter(has).map(|plan| (plan.name.clone(), Some(name.to_owned()))).collect();
    if found.is_empty() {
        let all = plans.iter().flat_map(|plan| plan.controls.iter().filter_map(|c| c.control.as_deref()));
        let meant = did_you_mean(name, "trials", std::iter::once("incident").chain(all));
        return Err(format!("--only {name}: no scenario has this control\n  {meant}"));
    }
    Ok(found)
}

/// One job for undisturbed time measurements; several for verdicts only.
fn default_jobs(repeat: u32) -> usize {
    if repeat > 1 { 1 } else { 6 * run::processors() }
}

/// Number of trials on a backend, without repetitions.
fn trials(plans: &[Plan], only: &[(String, Option<String>)]) -> usize {
    if only.is_empty() { plans.iter().map(|plan| 1 + plan.controls.len()).sum() } else { only.len() }
}

/// Number of concurrent real clusters. A second one costs twenty seconds and 750 MB, and halves the time for the
/// trials. With a third, kubelets and API servers would leave no CPU time for trials.
fn clusters(jobs: usize, trials: usize) -> usize {
    const WORTH_IT: usize = 12;
    if trials < WORTH_IT { 1 } else { jobs.min(run::processors()).min(2) }
}

/// Required backends. An unknown name is an error, because requiring it would have no effect.
fn required(flags: &[String]) -> Result<Vec<String>, String> {
    let variable = std::env::var("RELAPSE_REQUIRE").unwrap_or_default();
    let named = flags.iter().map(String::as_str).chain(variable.split(','));
    let required: Vec<String> = named.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let known: Vec<&str> = backend::registered().into_iter().map(|one| one.name).collect();
    match required.iter().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(format!("--require {unknown}: {}", did_you_mean(unknown, "backends", known))),
        None => Ok(required),
    }
}

pub(super) fn run_id() -> String {
    let now = jiff::Timestamp::now();
    format!("{}-{:04x}", now.strftime("%Y%m%d-%H%M%S"), std::process::id() & 0xffff)
}

/// Runs the trials and writes events to the terminal, or as JSON to standard output, and to the run's folder.
fn perform(
    plans: &[Plan],
    options: &Options,
    notices: Vec<String>,
    mut text: Option<Terminal>,
    folder: RunFolder,
) -> ExitCode {
    let mut folder = Some(folder);
    let interrupt = Interrupt::default();
    catch_signals(&interrupt);
    let mut sink = |event: &RunEvent| {
        match &mut text {
            Some(terminal) => terminal.on_event(event),
            // A closed pipe must not end a run that has faults to heal.
            None => {
                out::line(serde_json::to_string(event).unwrap_or_default());
            }
        }
        if let Some(open) = &mut folder
            && let Err(e) = open.record(event)
        {
            eprintln!("relapse: failed to {}; the run continues without report files", super::chain(&e));
            folder = None;
        }
    };
    let with_facts = match options.operator {
        Knowledge::Right => None,
        Knowledge::None => Some("operator none: detectors get no declared fact; what they then miss counts as missed"),
        Knowledge::Stale => {
            Some("operator stale: detectors get a wrong copy of the facts; misses and false alarms count as such")
        }
    };
    for text in left_by_others().into_iter().chain(notices).chain(with_facts.map(str::to_owned)) {
        sink(&RunEvent { at: relapse_lab::fault::now(), what: What::Notice { text } });
    }
    let outcome = run::run(plans, options, &interrupt, &mut sink);
    let finished = folder.map(RunFolder::finish).transpose();
    match &finished {
        Ok(path) => {
            if let Some(terminal) = &mut text {
                terminal.finish(path.as_deref());
            }
        }
        Err(e) => eprintln!("relapse: failed to {}", super::chain(&e)),
    }
    ExitCode::from(outcome.exit_code())
}

/// Restores what killed runs left on this machine.
pub(super) fn left_by_others() -> Vec<String> {
    let recovered = Site::host().and_then(|site| host::recover_quietly(&site));
    match recovered {
        Ok(recovered) => recovered.iter().map(ToString::to_string).collect(),
        Err(e) => vec![format!("failed to look for leftovers of earlier runs: {e}")],
    }
}

/// Installs handlers for SIGINT and SIGTERM: the first signal heals and tears down, a second one tears down
/// immediately. They are installed when this returns.
pub(super) fn catch_signals(interrupt: &Interrupt) {
    let interrupt = interrupt.clone();
    let (ready, is_ready) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
                return;
            };
            drop(ready);
            loop {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
                interrupt.ask();
                let text = if interrupt.is_urgent() {
                    "tearing down at once"
                } else {
                    "healing and tearing down; interrupt again to stop at once"
                };
                eprintln!("relapse: {text}");
            }
        });
    });
    // The channel closes when the handlers are installed or have failed.
    let _ = is_ready.recv();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_scenarios_are_those_of_the_readme() {
        shipped::register();
        let plans = load(&shipped::scenarios()).unwrap_or_else(|wrong| panic!("{wrong}"));
        let bases = bases(&plans.iter().map(|plan| (plan.incident.clone(), plan.name.clone())).collect());
        let readme = include_str!("../../../README.md");
        let rows = readme.lines().filter(|line| line.starts_with("| I") || line.starts_with("| W"));
        let named: BTreeSet<_> = rows.filter_map(|line| Some(line.split('`').nth(1)?.to_owned())).collect();
        assert!(named.len() == 13 && named.is_subset(&bases), "{named:?} {bases:?}");
    }

    #[test]
    fn each_trial_is_in_exactly_one_shard_and_none_is_far_too_full() {
        let trials: Vec<_> =
            (0..240).map(|n| (format!("scenario-{}", n / 4), (n % 4 > 0).then(|| format!("twin-{n}")))).collect();
        for of in 1..=5 {
            let shards = (1..=of).map(|number| Shard { number, of });
            let held: Vec<usize> =
                shards.map(|shard| trials.iter().filter(|trial| shard.holds(trial)).count()).collect();
            assert_eq!(held.iter().sum::<usize>(), trials.len());
            assert!(held.iter().all(|held| *held * (of as usize) < 2 * trials.len()), "{held:?}");
        }
        for text in ["0/4", "5/4", "4", "a/b", "-1/2", "1/0"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
