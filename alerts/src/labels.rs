//! Labels that a reader's Prometheus gives to targets (`job`, `instance`), which recordings do not have.
//!
//! They are templates: `{node}` is that part of a target's place. Those of [`defaults`] hold unless the reader's rules ask
//! for others (`infer`), or the reader sets them.

mod infer;

pub(crate) use infer::runs_as;

use std::collections::{BTreeMap, BTreeSet};

use crate::known;
use crate::recording::{Exporter, Target};

/// The labels of each exporter's targets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    of: BTreeMap<Exporter, BTreeMap<String, Label>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Label {
    template: String,
    origin: Origin,
}

/// Where a label comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// From the rules. Whether at least two thirds of the selectors that ask for the label agree.
    Inferred {
        agreed: bool,
    },
    /// By the reader.
    Set,
}

impl Labels {
    /// Sets labels of an exporter's targets to templates such as `{node}:9100`.
    pub fn set(&mut self, exporter: Exporter, labels: impl IntoIterator<Item = (String, String)>) {
        for (label, template) in labels {
            self.insert(exporter, &label, template, Origin::Set);
        }
    }

    fn insert(&mut self, exporter: Exporter, label: &str, template: String, origin: Origin) {
        self.of.entry(exporter).or_default().insert(label.to_owned(), Label { template, origin });
    }

    /// The labels of a target. A label whose template names a part that the place does not have is left out, except
    /// `instance`, which every target has.
    #[must_use]
    pub fn of(&self, target: &Target) -> BTreeMap<String, String> {
        self.at(target.exporter, &target.place)
    }

    /// The labels of an exporter's target at a place.
    #[must_use]
    pub fn at(&self, exporter: Exporter, place: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let known = self.of.get(&exporter);
        for (label, template) in defaults(exporter) {
            if !labels.contains_key(label) && known.is_none_or(|known| !known.contains_key(label)) {
                labels.extend(fill(template, place).map(|value| (label.to_owned(), value)));
            }
        }
        for (label, Label { template, .. }) in known.into_iter().flatten() {
            labels.extend(fill(template, place).map(|value| (label.clone(), value)));
        }
        labels.retain(|_, value| !value.is_empty());
        if !labels.contains_key("instance") {
            let parts = ["address", "target", "pod", "node"];
            let instance = parts.iter().find_map(|part| place.get(*part)).cloned();
            labels.insert("instance".to_owned(), instance.unwrap_or_else(|| known::jobs(exporter)[0].to_owned()));
        }
        labels
    }

    /// The labels of a series as its reader's Prometheus stores them: those of the target with the series' own, of which
    /// one that the target has too is called `exported_...`, unless the exporter's win (`honor_labels`).
    #[must_use]
    pub fn stored(&self, target: &Target, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut stored = self.of(target);
        for (label, value) in own {
            let label = match stored.contains_key(label) && !known::honors_labels(target.exporter) {
                true => format!("exported_{label}"),
                false => label.clone(),
            };
            stored.insert(label, value.clone());
        }
        stored
    }

    /// Where a label of an exporter's targets comes from; `None` if they have no such label.
    #[must_use]
    pub fn origin(&self, exporter: Exporter, label: &str) -> Option<Origin> {
        let of_exporter = self.of.get(&exporter).and_then(|labels| labels.get(label));
        let default = defaults(exporter).into_iter().any(|(name, _)| name == label).then_some(Origin::Default);
        of_exporter.map(|label| label.origin).or(default)
    }

    /// What was inferred, each once: `job=node-exporter`, `job=kube-dns (cluster DNS)`.
    #[must_use]
    pub fn inferred(&self) -> Vec<String> {
        let mut all: BTreeMap<(&str, &str), BTreeSet<Exporter>> = BTreeMap::new();
        for (exporter, labels) in &self.of {
            for (label, Label { template, origin }) in labels {
                if matches!(origin, Origin::Inferred { .. }) {
                    all.entry((label, template)).or_default().insert(*exporter);
                }
            }
        }
        let mut out: Vec<_> = all.into_iter().collect();
        // Jobs come first, in the order of exporters.
        out.sort_by_key(|((label, _), exporters)| (*label != "job", exporters.first().copied()));
        out.iter()
            .map(|((label, value), exporters)| match exporters.first() {
                Some(Exporter::Dns) if *label == "job" => format!("job={value} ({})", known::name(Exporter::Dns)),
                Some(first) if *label == "job" && *value != known::jobs(*first)[0] => {
                    format!("job={value} ({})", known::name(*first))
                }
                _ => format!("{label}={value}"),
            })
            .collect()
    }
}

/// Templates by label; of several for one label, the first that the place fills. All targets differ in them.
///
/// Labels as a Prometheus that finds its targets by Kubernetes' API has them, and `metrics_path` as kube-prometheus.
fn defaults(exporter: Exporter) -> Vec<(&'static str, &'static str)> {
    let job = ("job", known::jobs(exporter)[0]);
    let of_pod = [("namespace", "{namespace}"), ("pod", "{pod}"), ("instance", "{address}")];
    match exporter {
        Exporter::Node => vec![job, ("instance", "{node}:9100")],
        // Whoever has several probes of one target tells them apart by job or label; `from` is where the prober runs.
        Exporter::Blackbox => vec![
            job,
            ("instance", "{target}"),
            ("module", "{module}"),
            ("from", "{namespace}/{pod}"),
            ("from", "{node}"),
            ("from", "{office}"),
        ],
        Exporter::Mysqld | Exporter::KubeState => vec![job, ("instance", "{address}")],
        Exporter::Dns => std::iter::once(job).chain(of_pod).collect(),
        // Recorded as a part of its node, and found by its pod.
        Exporter::KubeProxy => vec![job, ("namespace", "kube-system"), ("instance", "{address}")],
        Exporter::Kubelet => {
            vec![job, ("instance", "{address}"), ("node", "{node}"), ("metrics_path", "/metrics")]
        }
        Exporter::Cadvisor => {
            vec![job, ("instance", "{address}"), ("node", "{node}"), ("metrics_path", "/metrics/cadvisor")]
        }
    }
}

/// Fills in a template; `None` if the place lacks a part of it.
fn fill(template: &str, place: &BTreeMap<String, String>) -> Option<String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (part, after) = after.split_once('}')?;
        out.push_str(before);
        out.push_str(place.get(part)?);
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests;
