//! A recording as a reader's Prometheus would have it, and what its series alone settle.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use promql_parser::label::{METRIC_NAME, Matcher};

use super::sources::{Selected, Sources};
use crate::expr::Gone;
use crate::known;
use crate::labels::Labels;
use crate::recording::{Exporter, Recording, Samples, Series};
use crate::rule::RuleId;
use crate::timeline::is_counter;
use crate::verdict::OfTrial;

pub struct Trial<'a> {
    pub recording: &'a Recording,
    /// Of each series, those of its target included.
    labels: Vec<BTreeMap<String, String>>,
    /// Of each series, without gaps.
    samples: Vec<Cow<'a, Samples>>,
    /// Of each series: labels and samples.
    hashes: Vec<u64>,
    constant: Vec<bool>,
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
    pub fn new(recording: &'a Recording, labels: &Labels, selectors: &[Selected]) -> Self {
        let targets = 0..recording.header.targets.len();
        let gaps: Vec<BTreeSet<usize>> = targets.map(|target| gaps(recording, target)).collect();
        let mut trial = Self {
            recording,
            labels: Vec::new(),
            samples: Vec::new(),
            hashes: Vec::new(),
            constant: Vec::new(),
            by_name: HashMap::new(),
            matched: Vec::new(),
        };
        let end = recording.header.phases.end as usize;
        for (index, series) in recording.series.iter().enumerate() {
            let target = recording.header.targets.get(series.target);
            let labels = target.map_or_else(|| series.labels.clone(), |target| labels.stored(target, &series.labels));
            let mut hash = DefaultHasher::new();
            (&series.name, &labels, is_counter(&recording.header, &series.name)).hash(&mut hash);
            let samples = match gaps.get(series.target).filter(|gaps| !gaps.is_empty()) {
                Some(gaps) => Cow::Owned(filled(&series.samples, gaps)),
                None => Cow::Borrowed(&series.samples),
            };
            let constant = samples.len() >= end && constant(&samples);
            for sample in samples.iter().take(if constant { 1 } else { usize::MAX }) {
                sample.map(f64::to_bits).hash(&mut hash);
            }
            trial.samples.push(samples);
            trial.constant.push(constant);
            trial.hashes.push(hash.finish());
            trial.labels.push(labels);
            trial.by_name.entry(&series.name).or_default().push(index);
        }
        trial.matched = selectors.iter().map(|selected| trial.matching(selected)).collect();
        trial
    }

    fn exporter(&self, series: usize) -> Option<Exporter> {
        let target = self.recording.series.get(series)?.target;
        Some(self.recording.header.targets.get(target)?.exporter)
    }

    pub fn series(&self, index: usize) -> (&'a Series, &BTreeMap<String, String>) {
        (&self.recording.series[index], &self.labels[index])
    }

    pub fn samples(&self, index: usize) -> &Samples {
        &self.samples[index]
    }

    pub fn hash(&self, series: usize) -> u64 {
        self.hashes[series]
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
            let source = sources.source(id);
            found.extend(source.expr.ranges.iter().flat_map(|&index| &self.matched[source.selectors[index]]));
        }
        found
    }

    /// Whether nothing that the rule reads changes. Then it does not matter when the fault is, or in which trial.
    pub fn is_constant(&self, sources: &Sources<'_>, id: RuleId) -> bool {
        let mut of = sources.with_records(id).map(|id| sources.source(id));
        let constant = |&selector: &usize| self.matched[selector].iter().all(|&series| self.constant[series]);
        of.all(|source| !source.timed && source.selectors.iter().all(constant))
    }

    /// The series that a selector of a rule matches.
    pub fn matched(&self, sources: &Sources<'_>, id: RuleId, selector: usize) -> &[usize] {
        &self.matched[sources.source(id).selectors[selector]]
    }

    fn matching(&self, selected: &Selected) -> Vec<usize> {
        let matches = |series: &usize| {
            let value = |test: &Matcher| match &*test.name {
                METRIC_NAME => self.recording.series[*series].name.as_str(),
                label => self.labels[*series].get(label).map_or("", String::as_str),
            };
            selected.tests.iter().all(|test| test.is_match(value(test)))
        };
        match selected.metric.as_deref() {
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
                let Some(metric) = metric.filter(|_| missing(selector)) else { return false };
                let tests = expr.tests.get(selector).map_or(&[][..], Vec::as_slice);
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
        }
        if !unseen.is_empty() {
            return Some(OfTrial::NotRecorded { metrics: unseen.into_iter().collect() });
        }
        if let Some(why) = self.blind(sources, id) {
            return Some(OfTrial::Undecided { why });
        }
        if self.gone(sources, id) {
            return Some(OfTrial::NeverTrue { close: None });
        }
        let family = sources.absolute(id, header.scaled.keys().map(String::as_str))?;
        Some(OfTrial::Undecided { why: format!("scaled: {family} is {} here", header.scaled[family]) })
    }

    /// What the rule needs that the kernel did not show.
    fn blind(&self, sources: &Sources<'_>, id: RuleId) -> Option<String> {
        let file = |rule: RuleId, selector: usize| {
            let metric = sources.source(rule).expr.selectors.get(selector)?.metric.as_deref()?;
            let exporter = known::exporter_of(metric)?;
            self.recording.header.targets.iter().find(|target| target.exporter == exporter)?;
            known::blind(metric, self.by_name.keys().copied())
        };
        sources.with_records(id).find_map(|rule| {
            let hidden = |selector: usize| file(rule, selector).is_some();
            let selector = *sources.source(rule).expr.needs.gone(Gone::Unseen, &hidden)?.first()?;
            file(rule, selector)
        })
    }

    /// Whether the rule has no result, for want of series.
    fn gone(&self, sources: &Sources<'_>, id: RuleId) -> bool {
        sources.source(id).expr.needs.gone(Gone::Nowhere, &|selector| self.missing(sources, id, selector)).is_some()
    }

    fn missing(&self, sources: &Sources<'_>, id: RuleId, selector: usize) -> bool {
        let source = sources.source(id);
        let none = self.matched(sources, id, selector).is_empty();
        let Some(metric) = source.expr.selectors.get(selector).and_then(|selector| selector.metric.as_deref()) else {
            return source.records.is_empty() && none;
        };
        let of_alerts = metric.starts_with("ALERTS");
        let mut records = source.records.iter().map(|&record| RuleId(record));
        let recorded = records.any(|record| sources.rule(record).name() == metric && !self.gone(sources, record));
        !of_alerts && !recorded && none
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

/// Seconds in which a target was up and is not recorded at all: the recording machine was busy.
fn gaps(recording: &Recording, target: usize) -> BTreeSet<usize> {
    let of_target = || recording.series.iter().filter(|series| series.target == target);
    let others: Vec<&Series> = of_target().filter(|series| series.name != "up").collect();
    let at = |series: &Series, second: usize| series.samples.get(second).copied().flatten();
    let up = |second: &usize| of_target().any(|series| series.name == "up" && at(series, *second) == Some(1.0));
    let empty = |second: &usize| !others.is_empty() && others.iter().all(|series| at(series, *second).is_none());
    (0..recording.header.phases.end as usize).filter(empty).filter(up).collect()
}

/// With the value before in each gap.
fn filled(samples: &Samples, gaps: &BTreeSet<usize>) -> Samples {
    let mut filled = samples.clone();
    for &second in gaps {
        if let Some(before) = second.checked_sub(1).and_then(|before| filled.get(before).copied())
            && let Some(sample) = filled.get_mut(second)
        {
            *sample = before;
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::super::tests::{labels, recording, samples};
    use super::*;

    #[test]
    fn a_second_that_was_not_recorded_is_no_absence() {
        let gap = |second: u32| [100, 101].contains(&second);
        let series = |name: &'static str, of: Samples| (name, "eth0", of);
        let all = |up: f64| {
            recording(vec![
                series("up", samples(|_| Some(up))),
                series("x", samples(|second| (!gap(second)).then(|| f64::from(second)))),
                series("y", samples(|second| (!gap(second) && second != 150).then_some(1.0))),
            ])
        };
        let up = all(1.0);
        let trial = Trial::new(&up, &labels(), &[]);
        assert_eq!(trial.samples(1)[99..103], [Some(99.0), Some(99.0), Some(99.0), Some(102.0)]);
        assert_eq!(trial.samples(2)[150], None);
        let down = all(0.0);
        assert_eq!(Trial::new(&down, &labels(), &[]).samples(1)[100], None);
    }
}
