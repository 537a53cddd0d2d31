//! From a set of rules to its scorecard: reads, settles, decides, grades.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::time::Instant;

use relapse_alerts::catalogue::Catalogue;
use relapse_alerts::decide::{Settings, decide, decide_only};
use relapse_alerts::labels::Labels;
use relapse_alerts::parallel::each;
use relapse_alerts::promtool::{self, Promtool};
use relapse_alerts::recording::{Exporter, Recording, series_of};
use relapse_alerts::report::grade::{self, grade};
use relapse_alerts::report::scorecard::{Input, Scorecard};
use relapse_alerts::report::text;
use relapse_alerts::rule::{Rule, RuleId, RuleSet};
use relapse_alerts::rules;
use relapse_alerts::settle::{settle, unknown_values};
use relapse_alerts::verdict::Verdicts;
use relapse_reports::paint::Page;
use relapse_reports::units::count;
use relapse_reports::words::Tone;

use super::GradeOptions;
use super::recordings::{Packed, Recordings};
use super::set::Set;
use crate::cli::Refused;

/// What all sets of rules are graded with.
pub struct Grader {
    pub recordings: Recordings,
    /// What all recordings hold.
    pub catalogue: Catalogue,
    promtool: Result<Promtool, promtool::Error>,
}

/// A graded set, with what the scorecard was made from.
pub struct Graded {
    pub card: Scorecard,
    pub rules: RuleSet,
    pub labels: Labels,
    pub verdicts: Verdicts,
    /// With the series that the rules need.
    pub recordings: Vec<Recording>,
}

/// Reads the rules of a set.
pub fn read(set: &Set) -> Result<RuleSet, Refused> {
    rules::read(&set.inputs).map_err(Refused::Files)
}

fn catalogue(recordings: &Recordings) -> Result<Catalogue, Refused> {
    let mut catalogue = Catalogue::default();
    let read = each(recordings.all.len(), |n| series_of(recordings.all[n].bytes()));
    for (packed, series) in recordings.all.iter().zip(read) {
        let series = series.map_err(|e| format!("{}: {e}", packed.name))?;
        catalogue.add(&packed.header, series.iter().map(|(target, name, labels)| (*target, name.as_str(), labels)));
    }
    Ok(catalogue)
}

/// The labels of targets: inferred from the rules, and what the user has set.
pub fn labels(set: &Set, rules: &RuleSet, catalogue: &Catalogue) -> Labels {
    let mut labels = Labels::infer(rules, catalogue);
    for (exporter, of) in &set.labels {
        labels.set(*exporter, of.clone());
    }
    labels
}

/// The templates of each recorded exporter's labels.
pub fn templates(labels: &Labels, catalogue: &Catalogue) -> BTreeMap<Exporter, BTreeMap<String, String>> {
    // A place whose parts are named by themselves fills a template with itself.
    let place = |exporter: Exporter| -> BTreeMap<String, String> {
        let parts: BTreeSet<&String> = catalogue.places(exporter).flat_map(BTreeMap::keys).collect();
        parts.into_iter().map(|part| (part.clone(), format!("{{{part}}}"))).collect()
    };
    catalogue.exporters().map(|exporter| (exporter, labels.at(exporter, &place(exporter)))).collect()
}

impl Grader {
    pub fn new(options: &GradeOptions) -> Result<Self, Refused> {
        let recordings = Recordings::find(options.recordings.as_deref())?;
        let catalogue = catalogue(&recordings)?;
        Ok(Self { recordings, catalogue, promtool: Promtool::find() })
    }

    /// How a set is decided.
    pub fn settings(&self, set: &Set) -> Result<Settings, String> {
        let promtool = self.promtool.as_ref().map_err(|why| format!("failed to {why}"))?;
        Ok(Settings::new(promtool.clone(), set.scrape, set.evaluate))
    }

    fn version(&self) -> Option<String> {
        self.promtool.as_ref().ok().map(|promtool| promtool.version.to_string())
    }

    /// The line that can be printed before anything is decided.
    pub fn first_line(&self, rules: &RuleSet) -> String {
        let alerts = rules.rules.iter().filter(|rule| rule.is_alert()).count();
        let input = Input {
            alerts,
            recording_rules: rules.rules.len() - alerts,
            files: rules.files,
            skipped: rules.skipped.clone(),
        };
        text::first_line(&input, self.version().as_deref())
    }

    /// What to install, if there is no promtool.
    pub fn hint_promtool(&self, page: Page) {
        if let Err(why) = &self.promtool {
            let help = "install Prometheus 2.42 or later (Debian: `apt-get install prometheus`), or set PROMTOOL to a \
                        promtool";
            crate::cli::out::line(page.paint(Tone::Unsure, &format!("failed to {why}")));
            crate::cli::out::line(page.paint(Tone::Muted, &format!("  {help}")));
        }
    }

    /// Grades; without promtool, by what reading settles.
    pub fn grade(&self, set: &Set, rules: RuleSet, all: bool) -> Result<Graded, Refused> {
        let chosen: Vec<&Packed> = self.recordings.all.iter().filter(|packed| all || packed.header.base).collect();
        let chosen = if chosen.is_empty() { self.recordings.all.iter().collect() } else { chosen };
        self.against(set, rules, &chosen, None)
    }

    /// Grades against some of the recordings; `only` are the rules that are decided.
    pub fn against(
        &self,
        set: &Set,
        rules: RuleSet,
        chosen: &[&Packed],
        only: Option<&[RuleId]>,
    ) -> Result<Graded, Refused> {
        let started = Instant::now();
        let progress = Progress::new(format!(
            "grading {} against {}",
            count(only.map_or(rules.rules.len(), <[RuleId]>::len), "rule"),
            count(chosen.len(), "recording")
        ));
        let labels = labels(set, &rules, &self.catalogue);
        let settled = settle(&rules, &self.catalogue, &labels);
        let wanted: BTreeSet<&str> = rules.rules.iter().flat_map(|rule| rule.metrics()).collect();
        let by_pattern = rules.rules.iter().flat_map(Rule::selectors).any(|selector| selector.metric.is_none());
        let wanted = |name: &str| by_pattern || wanted.contains(name);
        let recordings = each(chosen.len(), |n| chosen[n].read(wanted)).into_iter().collect::<Result<Vec<_>, _>>()?;
        let verdicts = match (self.settings(set), only) {
            (Ok(settings), None) => decide(&rules, &recordings, &labels, &settings, settled),
            (Ok(settings), Some(only)) => decide_only(only, &rules, &recordings, &labels, &settings, settled),
            (Err(_), _) => Verdicts { rules: settled, trials: BTreeMap::new() },
        };
        drop(progress);
        let name =
            |exporter: Exporter| serde_json::to_value(exporter).ok().and_then(|name| Some(name.as_str()?.to_owned()));
        let named =
            templates(&labels, &self.catalogue).into_iter().filter_map(|(of, labels)| Some((name(of)?, labels)));
        let card = grade(&grade::Graded {
            name: set.name.clone(),
            rules: &rules,
            headers: recordings.iter().map(|recording| &recording.header).collect(),
            unknown_values: unknown_values(&rules, &self.catalogue, &labels),
            verdicts: &verdicts,
            labels: named.collect(),
            inferred: labels.inferred(),
            expect: &set.expect,
            promtool: self.version(),
            scrape: set.scrape,
            evaluate: set.evaluate,
            took: started.elapsed(),
        });
        Ok(Graded { card, rules, labels, verdicts, recordings })
    }
}

/// A line on standard error while something takes time, if that is a terminal.
struct Progress {
    shown: bool,
}

impl Progress {
    fn new(text: String) -> Self {
        let shown = std::io::stderr().is_terminal();
        if shown {
            let _ = write!(std::io::stderr(), "{text} ...");
        }
        Self { shown }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}
