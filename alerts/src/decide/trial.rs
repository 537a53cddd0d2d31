//! A recording as a reader's Prometheus would have it, and what its series alone settle.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use promql_parser::label::{METRIC_NAME, Matcher};

use super::sources::Sources;
use crate::expr::{Gone, Selector};
use crate::known;
use crate::labels::Labels;
use crate::recording::{Exporter, Recording, Series};
use crate::rule::RuleId;
use crate::timeline::{Extended, Timeline, is_counter};
use crate::verdict::OfTrial;

pub struct Trial<'a> {
    pub recording: &'a Recording,
    /// Of each series, those of its target included.
    labels: Vec<BTreeMap<String, String>>,
    /// Of each series: labels and samples.
    hashes: Vec<u64>,
    constant: Vec<bool>,
    trends: Vec<OnceLock<bool>>,
    by_name: HashMap<&'a str, Vec<usize>>,
    /// The series that each of the rules' selectors matches.
    matched: Vec<Vec<usize>>,
}

/// Which exporters have a metric, in any trial; of `up`, which all have, with the labels of their targets.
pub type Exporters<'a> = HashMap<&'a str, BTreeMap<Exporter, BTreeSet<BTreeMap<String, String>>>>;

pub fn exporters<'a>(trials: &[Trial<'a>]) -> Exporters<'a> {
    let mut exporters = Exporters::new();
    for trial in trials {
        for (name, all) in &trial.by_name {
            let of_metric = exporters.entry(*name).or_default();
            for &series in all {
                let Some(exporter) = trial.exporter(series) else { continue };
                let labels = of_metric.entry(exporter).or_default();
                if *name == "up" {
                    labels.insert(trial.labels[series].clone());
                }
            }
        }
    }
    exporters
}

impl<'a> Trial<'a> {
    pub fn new(recording: &'a Recording, labels: &Labels, selectors: &[&Selector]) -> Self {
        let mut trial = Self {
            recording,
            labels: Vec::new(),
            hashes: Vec::new(),
            constant: Vec::new(),
            trends: vec![OnceLock::new(); recording.series.len()],
            by_name: HashMap::new(),
            matched: Vec::new(),
        };
        let end = recording.header.phases.end as usize;
        for (index, series) in recording.series.iter().enumerate() {
            let target = recording.header.targets.get(series.target);
            let labels = target.map_or_else(|| series.labels.clone(), |target| labels.stored(target, &series.labels));
            let mut hash = DefaultHasher::new();
            (&series.name, &labels, is_counter(&recording.header, &series.name)).hash(&mut hash);
            let constant = series.samples.len() >= end && constant(&series.samples);
            for sample in series.samples.iter().take(if constant { 1 } else { usize::MAX }) {
                sample.map(f64::to_bits).hash(&mut hash);
            }
            trial.constant.push(constant);
            trial.hashes.push(hash.finish());
            trial.labels.push(labels);
            trial.by_name.entry(&series.name).or_default().push(index);
        }
        trial.matched = selectors.iter().map(|selector| trial.matching(selector)).collect();
        trial
    }

    fn exporter(&self, series: usize) -> Option<Exporter> {
        let target = self.recording.series.get(series)?.target;
        Some(self.recording.header.targets.get(target)?.exporter)
    }

    pub fn series(&self, index: usize) -> (&'a Series, &BTreeMap<String, String>) {
        (&self.recording.series[index], &self.labels[index])
    }

    pub fn extended<'b>(&'b self, index: usize, timeline: &'b Timeline) -> Extended<'b> {
        let series = &self.recording.series[index];
        Extended::new(is_counter(&self.recording.header, &series.name), &series.samples, timeline)
    }

    /// Whether a series still rises or falls when the fault ends, seen in windows of a `period`.
    pub fn trends(&self, index: usize, period: u32) -> bool {
        let phases = self.recording.header.phases;
        let timeline = Timeline { phases, history: 0, hold: 0, healthy: 0, period };
        !self.constant[index] && *self.trends[index].get_or_init(|| self.extended(index, &timeline).trends)
    }

    pub fn hash(&self, series: usize) -> u64 {
        self.hashes[series]
    }

    /// Whether it is the name of a node, or its name with a domain.
    pub fn is_node(&self, name: &str) -> bool {
        let nodes = self.recording.header.targets.iter().filter_map(|target| target.place.get("node"));
        nodes
            .into_iter()
            .any(|node| name.strip_prefix(&**node).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    }

    /// The series that a rule and the recording rules that it reads can see.
    pub fn relevant(&self, sources: &Sources<'_>, id: RuleId) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        for id in sources.with_records(id) {
            found.extend(sources.source(id).selectors.iter().flat_map(|&selector| &self.matched[selector]));
        }
        found
    }

    /// Those of which more matters than the latest value.
    pub fn ranges(&self, sources: &Sources<'_>, id: RuleId) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        for id in sources.with_records(id) {
            let ranges = &sources.rule(id).read.ranges;
            found.extend(ranges.iter().flat_map(|&selector| self.matched(sources, id, selector)));
        }
        found
    }

    /// Whether nothing that the rule reads changes. Then it does not matter when the fault is, or in which trial.
    pub fn is_constant(&self, sources: &Sources<'_>, id: RuleId) -> bool {
        let constant = |&selector: &usize| self.matched[selector].iter().all(|&series| self.constant[series]);
        let mut of = sources.with_records(id);
        of.all(|id| !sources.rule(id).read.timed && sources.source(id).selectors.iter().all(constant))
    }

    /// The series that a selector of a rule matches.
    pub fn matched(&self, sources: &Sources<'_>, id: RuleId, selector: usize) -> &[usize] {
        &self.matched[sources.source(id).selectors[selector]]
    }

    fn matching(&self, selector: &Selector) -> Vec<usize> {
        let matches = |series: &usize| {
            let value = |test: &Matcher| match &*test.name {
                METRIC_NAME => self.recording.series[*series].name.as_str(),
                label => self.labels[*series].get(label).map_or("", String::as_str),
            };
            selector.tests.iter().all(|test| test.is_match(value(test)))
        };
        match selector.metric.as_deref() {
            Some(metric) => {
                let named = self.by_name.get(metric).map_or(&[][..], Vec::as_slice);
                named.iter().copied().filter(|series| matches(series)).collect()
            }
            None => (0..self.labels.len()).filter(matches).collect(),
        }
    }

    /// What follows without evaluation: nothing that the rule needs was recorded here, or its values are scaled.
    pub fn settle(&self, sources: &Sources<'_>, id: RuleId, exporters: &Exporters<'_>) -> Option<OfTrial> {
        let header = &self.recording.header;
        let here: BTreeSet<Exporter> = header.targets.iter().map(|target| target.exporter).collect();
        let mut unseen = BTreeSet::new();
        let mut gone = BTreeSet::new();
        for id in sources.with_records(id) {
            let expr = &sources.rule(id).read;
            let missing = |selector: usize| self.missing(sources, id, selector, &gone);
            let elsewhere = |selector: usize| {
                let Selector { metric, tests } = &expr.selectors[selector];
                let Some(metric) = metric.as_deref().filter(|_| missing(selector)) else { return false };
                // Those of whose targets some would pass; of a metric that none has at present, the one it belongs to.
                let some =
                    |targets: &BTreeSet<_>| targets.is_empty() || targets.iter().any(|labels| pass(tests, labels));
                let meant: BTreeSet<Exporter> = match exporters.get(metric) {
                    Some(of) => of.iter().filter(|(_, targets)| some(targets)).map(|(exporter, _)| *exporter).collect(),
                    None => known::exporter_of(metric).filter(|_| known::is_occasional(metric)).into_iter().collect(),
                };
                !meant.is_empty() && meant.is_disjoint(&here)
            };
            let names = expr.needs.gone(Gone::Unseen, &elsewhere).unwrap_or_default();
            unseen.extend(names.into_iter().filter_map(|selector| expr.selectors[selector].metric.clone()));
            if expr.needs.gone(Gone::Nowhere, &missing).is_some() {
                gone.insert(id);
            }
        }
        if !unseen.is_empty() {
            return Some(OfTrial::NotRecorded { metrics: unseen.into_iter().collect() });
        }
        if let Some(why) = self.blind(sources, id) {
            return Some(OfTrial::Undecided { why });
        }
        if gone.contains(&id) {
            return Some(OfTrial::NeverTrue { close: None });
        }
        let family = sources.absolute(id, header.scaled.keys().map(String::as_str))?;
        Some(OfTrial::Undecided { why: format!("scaled: {family} is {} here", header.scaled[family]) })
    }

    /// What the rule needs that the kernel did not show.
    fn blind(&self, sources: &Sources<'_>, id: RuleId) -> Option<String> {
        let file = |rule: RuleId, selector: usize| {
            let metric = sources.rule(rule).read.selectors.get(selector)?.metric.as_deref()?;
            let exporter = known::exporter_of(metric)?;
            self.recording.header.targets.iter().find(|target| target.exporter == exporter)?;
            known::blind(metric, self.by_name.keys().copied())
        };
        sources.with_records(id).find_map(|rule| {
            let hidden = |selector: usize| file(rule, selector).is_some();
            let selector = *sources.rule(rule).read.needs.gone(Gone::Unseen, &hidden)?.first()?;
            file(rule, selector)
        })
    }

    /// Whether a selector of a rule has no series. A recording rule has none if it is `gone`; in a circle, that is not
    /// known.
    fn missing(&self, sources: &Sources<'_>, id: RuleId, selector: usize, gone: &BTreeSet<RuleId>) -> bool {
        let reads = &sources.rule(id).selectors()[selector];
        let records = &sources.source(id).records;
        let recorded = records.iter().any(|record| reads.reads(sources.rule(*record).name()) && !gone.contains(record));
        !recorded && !Sources::is_of_alerts(reads) && self.matched(sources, id, selector).is_empty()
    }
}

fn pass(tests: &[Matcher], labels: &BTreeMap<String, String>) -> bool {
    let value = |test: &Matcher| labels.get(&test.name).map_or("", String::as_str);
    tests.iter().filter(|test| test.name != METRIC_NAME).all(|test| test.is_match(value(test)))
}

fn constant(samples: &[Option<f64>]) -> bool {
    let first = samples.first().copied().flatten().map(f64::to_bits);
    first.is_some() && samples.iter().all(|sample| sample.map(f64::to_bits) == first)
}
