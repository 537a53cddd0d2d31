//! A recording as a reader's Prometheus would have it, and what its series alone settle.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use promql_parser::label::{METRIC_NAME, Matcher};

use super::sources::Sources;
use crate::expr::Gone;
use crate::labels::Labels;
use crate::recording::{Exporter, Recording, Series};
use crate::rule::RuleId;
use crate::timeline::is_counter;
use crate::verdict::OfTrial;

pub struct Trial<'a> {
    pub recording: &'a Recording,
    /// Of each series, those of its target included.
    labels: Vec<BTreeMap<String, String>>,
    /// Of each series: labels and samples.
    hashes: Vec<u64>,
    constant: Vec<bool>,
    by_name: HashMap<&'a str, Vec<usize>>,
}

/// Which exporters have a metric, in any trial.
pub type Exporters<'a> = HashMap<&'a str, BTreeSet<Exporter>>;

pub fn exporters<'a>(trials: &[Trial<'a>]) -> Exporters<'a> {
    let mut exporters = Exporters::new();
    for trial in trials {
        for (name, series) in &trial.by_name {
            let of = series.iter().filter_map(|&series| trial.exporter(series));
            exporters.entry(name).or_default().extend(of);
        }
    }
    exporters
}

impl<'a> Trial<'a> {
    pub fn new(recording: &'a Recording, labels: &Labels) -> Self {
        let mut trial =
            Self { recording, labels: Vec::new(), hashes: Vec::new(), constant: Vec::new(), by_name: HashMap::new() };
        for (index, series) in recording.series.iter().enumerate() {
            let target = recording.header.targets.get(series.target);
            let labels = target.map_or_else(|| series.labels.clone(), |target| labels.stored(target, &series.labels));
            let mut hash = DefaultHasher::new();
            (&series.name, &labels, is_counter(&recording.header, &series.name)).hash(&mut hash);
            let constant = constant(&series.samples);
            for sample in series.samples.iter().take(if constant { 1 } else { usize::MAX }) {
                sample.map(f64::to_bits).hash(&mut hash);
            }
            trial.constant.push(constant);
            trial.hashes.push(hash.finish());
            trial.labels.push(labels);
            trial.by_name.entry(&series.name).or_default().push(index);
        }
        trial
    }

    fn exporter(&self, series: usize) -> Option<Exporter> {
        let target = self.recording.series.get(series)?.target;
        Some(self.recording.header.targets.get(target)?.exporter)
    }

    pub fn series(&self, index: usize) -> (&'a Series, &BTreeMap<String, String>) {
        (&self.recording.series[index], &self.labels[index])
    }

    pub fn hash(&self, series: usize) -> u64 {
        self.hashes[series]
    }

    /// The series that a rule and the recording rules that it reads can see.
    pub fn relevant(&self, sources: &Sources<'_>, id: RuleId) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        for id in sources.with_records(id) {
            let selectors = 0..sources.source(id).expr.selectors.len();
            selectors.for_each(|selector| found.extend(self.matched(sources, id, selector)));
        }
        found
    }

    /// Whether nothing that the rule reads changes. Then it does not matter when the fault is, or in which trial.
    pub fn is_constant(&self, sources: &Sources<'_>, id: RuleId) -> bool {
        self.relevant(sources, id).into_iter().all(|series| self.constant[series])
    }

    fn matched<'b>(&'b self, sources: &'b Sources<'_>, id: RuleId, selector: usize) -> Vec<usize> {
        let expr = &sources.source(id).expr;
        let tests = expr.tests.get(selector).map_or(&[][..], Vec::as_slice);
        let matches = |series: &usize| {
            let value = |test: &Matcher| match &*test.name {
                METRIC_NAME => self.recording.series[*series].name.as_str(),
                label => self.labels[*series].get(label).map_or("", String::as_str),
            };
            tests.iter().all(|test| test.is_match(value(test)))
        };
        match expr.selectors.get(selector).and_then(|selector| selector.metric.as_deref()) {
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
        for id in sources.with_records(id) {
            let expr = &sources.source(id).expr;
            let missing = |selector: usize| self.missing(sources, id, selector);
            let elsewhere = |selector: usize| {
                let metric = expr.selectors.get(selector).and_then(|selector| selector.metric.as_deref());
                let of = metric.and_then(|metric| exporters.get(metric));
                missing(selector) && of.is_some_and(|of| of.is_disjoint(&here))
            };
            let names = expr.needs.gone(Gone::Unseen, &elsewhere).unwrap_or_default();
            unseen.extend(names.into_iter().filter_map(|selector| expr.selectors[selector].metric.clone()));
        }
        if !unseen.is_empty() {
            let names = unseen.into_iter().collect::<Vec<_>>().join(", ");
            return Some(OfTrial::Undecided { why: format!("not recorded in this trial: {names}") });
        }
        if self.gone(sources, id) {
            return Some(OfTrial::NeverTrue { close: None });
        }
        let family = sources.absolute(id, header.scaled.keys().map(String::as_str))?;
        Some(OfTrial::Undecided { why: format!("scaled: {family} is {} here", header.scaled[family]) })
    }

    /// Whether the rule has no result, for want of series.
    fn gone(&self, sources: &Sources<'_>, id: RuleId) -> bool {
        sources.source(id).expr.needs.gone(Gone::Nowhere, &|selector| self.missing(sources, id, selector)).is_some()
    }

    fn missing(&self, sources: &Sources<'_>, id: RuleId, selector: usize) -> bool {
        let source = sources.source(id);
        let Some(metric) = source.expr.selectors.get(selector).and_then(|selector| selector.metric.as_deref()) else {
            return source.records.is_empty() && self.matched(sources, id, selector).is_empty();
        };
        let of_alerts = metric.starts_with("ALERTS");
        let mut records = source.records.iter().map(|&record| RuleId(record));
        let recorded = records.any(|record| sources.rule(record).name() == metric && !self.gone(sources, record));
        !of_alerts && !recorded && self.matched(sources, id, selector).is_empty()
    }
}

fn constant(samples: &[Option<f64>]) -> bool {
    let first = samples.first().copied().flatten().map(f64::to_bits);
    first.is_some() && samples.iter().all(|sample| sample.map(f64::to_bits) == first)
}
