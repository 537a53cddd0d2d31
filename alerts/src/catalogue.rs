//! What recordings hold: exporters with their targets, metrics, label names and values.

use std::collections::{BTreeMap, BTreeSet};

use crate::recording::{Exporter, Header, Recording};

/// The contents of all recordings together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// The places of each exporter's targets.
    targets: BTreeMap<Exporter, BTreeSet<BTreeMap<String, String>>>,
    metrics: BTreeMap<String, BTreeMap<Exporter, Names>>,
}

/// Labels of a metric with all their values, without those of its target.
pub type Names = BTreeMap<String, BTreeSet<String>>;

impl Catalogue {
    #[must_use]
    pub fn of(recordings: &[Recording]) -> Self {
        let mut catalogue = Self::default();
        for recording in recordings {
            let series = recording.series.iter();
            catalogue.add(&recording.header, series.map(|series| (series.target, &*series.name, &series.labels)));
        }
        catalogue
    }

    /// Adds the series of a recording: index of the target, metric, labels.
    pub fn add<'a>(
        &mut self,
        header: &Header,
        series: impl IntoIterator<Item = (usize, &'a str, &'a BTreeMap<String, String>)>,
    ) {
        for target in &header.targets {
            self.targets.entry(target.exporter).or_default().insert(target.place.clone());
        }
        for (target, metric, labels) in series {
            let Some(target) = header.targets.get(target) else { continue };
            if !self.metrics.contains_key(metric) {
                self.metrics.insert(metric.to_owned(), BTreeMap::new());
            }
            let Some(of_metric) = self.metrics.get_mut(metric) else { continue };
            let names = of_metric.entry(target.exporter).or_default();
            for (label, value) in labels {
                let values = match names.get_mut(label) {
                    Some(values) => values,
                    None => names.entry(label.clone()).or_default(),
                };
                if !values.contains(value) {
                    values.insert(value.clone());
                }
            }
        }
    }

    /// The exporters that were recorded.
    pub fn exporters(&self) -> impl Iterator<Item = Exporter> {
        self.targets.keys().copied()
    }

    /// Where the targets of an exporter are.
    pub fn places(&self, exporter: Exporter) -> impl Iterator<Item = &BTreeMap<String, String>> {
        self.targets.get(&exporter).into_iter().flatten()
    }

    /// The exporters that have a metric, with its labels.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<&BTreeMap<Exporter, Names>> {
        self.metrics.get(name)
    }

    /// All metrics of an exporter.
    pub fn metrics_of(&self, exporter: Exporter) -> impl Iterator<Item = &str> {
        self.metrics.iter().filter(move |(_, of)| of.contains_key(&exporter)).map(|(name, _)| name.as_str())
    }
}
