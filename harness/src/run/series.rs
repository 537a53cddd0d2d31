//! Records the series of a trial: its header from the plan, its phases from the trial's events.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use relapse_detectors::time::Time;
use relapse_lab::cluster::Cluster;
use relapse_lab::fault::now;
use relapse_lab::series::{Programs, Recorder};
use relapse_model::yaml;
use relapse_reports::event::{Outcome, Phase, TrialEvent};
use relapse_reports::words;
use relapse_series::{Header, Made, Phases, Recording, VERSION, digest};

use super::order::{Order, SeriesOrder};
use crate::plan::{Plan, TrialPlan};

/// One second in so many may be without a scrape.
const ONE_IN: u32 = 20;

/// Metrics whose values depend on the scale of a fault.
const SCALED: [&str; 2] = ["node_nf_conntrack_entries", "node_nf_conntrack_entries_limit"];

/// Exporters of a trial.
pub struct SeriesRecorder<'a> {
    order: &'a SeriesOrder,
    recorder: Recorder,
    /// Faults are made at the size of their originals.
    full_size: bool,
    marks: Mutex<Marks>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    /// t0 of the first mutation.
    fault: Option<Time>,
    /// Before the last step was healed.
    heal: Option<Time>,
}

impl<'a> SeriesRecorder<'a> {
    /// Starts all exporters.
    ///
    /// # Errors
    /// Why one of them does not run.
    pub async fn start(
        order: &'a SeriesOrder,
        cluster: &Arc<dyn Cluster>,
        plan: &Plan,
        full_size: bool,
    ) -> Result<Self, String> {
        let recorder = Recorder::start(cluster, &plan.workload, &Programs::find()?).await?;
        Ok(Self { order, recorder, full_size, marks: Mutex::default() })
    }

    /// Follows the trial: recording begins with its baseline.
    pub fn event(&self, event: &TrialEvent) {
        if matches!(event, TrialEvent::Phase { phase: Phase::Heal, .. }) {
            self.recorder.heals();
        }
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            TrialEvent::Phase { phase: Phase::Baseline, .. } => self.recorder.begin(),
            TrialEvent::Injected(injected) => drop(marks.fault.get_or_insert(injected.t0)),
            TrialEvent::Phase { phase: Phase::Heal, step: Some(_) } => marks.heal = Some(now()),
            TrialEvent::Phase { phase: Phase::Heal, step: None } => drop(marks.heal.get_or_insert_with(now)),
            _ => {}
        }
    }

    /// Ends the exporters and writes the file, unless the trial proved nothing.
    ///
    /// # Errors
    /// Why there is no recording.
    pub async fn end(self, outcome: Outcome, order: &Order, plan: &Plan, trial: &TrialPlan) -> Result<(), String> {
        let recorded = self.recorder.end().await;
        let Marks { fault: Some(fault), heal: Some(heal) } =
            self.marks.into_inner().unwrap_or_else(PoisonError::into_inner)
        else {
            return Ok(());
        };
        if !matches!(outcome, Outcome::Pass | Outcome::Fail) {
            return Ok(());
        }
        let recorded = recorded.ok_or("nothing was scraped")?;
        if recorded.missed > recorded.seconds / ONE_IN {
            return Err(format!(
                "this machine is too busy: {} of {} scrapes are missing",
                recorded.missed, recorded.seconds
            ));
        }
        // The first scrape that saw the change, or its undo.
        let second = |at: Time| u32::try_from(at.since(recorded.began).as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        let heal_at = second(heal);
        let end = recorded.seconds.min(heal_at + u32::try_from(plan.at_least.healthy.as_secs()).unwrap_or(u32::MAX));
        let scale = trial.changes().find_map(|fault| fault.scale()).filter(|_| !self.full_size);
        let scaled = scale.map(|(over, under)| SCALED.map(|metric| (metric.to_owned(), format!("{over}/{under}"))));
        let scaled = scaled.into_iter().flatten().collect();
        let expected = trial.expected(order.ground.is_real_cluster).iter();
        let mut header = Header {
            version: VERSION,
            scenario: plan.name.clone(),
            control: trial.control.clone(),
            incident: plan.incident.clone(),
            title: if trial.why.is_empty() { plan.title.clone() } else { trial.why.clone() },
            base: self.order.base,
            backend: order.trial.backend.clone(),
            made: Made {
                at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                relapse: env!("CARGO_PKG_VERSION").to_owned(),
                kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
                scenario: yaml::read(&order.file, "scenario").map(|source| digest(&source.text)).unwrap_or_default(),
            },
            phases: Phases { fault: second(fault), heal: heal_at, end },
            lasted: trial.lasted,
            expected: expected
                .filter_map(|e| Some((words::level(e.level).to_owned(), e.subject.as_ref()?.to_string())))
                .collect(),
            scaled,
            counters: recorded.counters,
            targets: recorded.targets,
        };
        let mut series = recorded.series;
        series.iter_mut().for_each(|series| series.samples.truncate(end as usize));
        series.retain(|series| series.samples.iter().any(Option::is_some));
        header.counters.retain(|name| series.iter().any(|series| series.name == *name));
        write(&self.order.file, &Recording { header, series })
            .map_err(|e| format!("{} could not be written: {e}", self.order.file.display()))
    }
}

/// Complete or not at all.
fn write(file: &Path, recording: &Recording) -> std::io::Result<()> {
    let mut text = Vec::new();
    recording.write(&mut text)?;
    let part = file.with_extension("part");
    File::create(&part)?.write_all(&text)?;
    std::fs::rename(&part, file)
}
