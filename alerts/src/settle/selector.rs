//! Whether a selector has series.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::{METRIC_NAME, MatchOp as Op, Matcher as Test};
use strsim::damerau_levenshtein;

use super::missing;
use super::status::Status;
use crate::catalogue::{Catalogue, Names};
use crate::expr::Selector;
use crate::known;
use crate::labels::{Labels, Origin, runs_as};
use crate::recording::Exporter;

/// All recorded targets with their labels.
pub(super) struct Targets<'a> {
    catalogue: &'a Catalogue,
    labels: &'a Labels,
    of: BTreeMap<Exporter, Vec<BTreeMap<String, String>>>,
}

impl<'a> Targets<'a> {
    pub(super) fn new(catalogue: &'a Catalogue, labels: &'a Labels) -> Self {
        let of = catalogue
            .exporters()
            .map(|exporter| (exporter, catalogue.places(exporter).map(|place| labels.at(exporter, place)).collect()));
        Self { catalogue, labels, of: of.collect() }
    }

    pub(super) fn status(&self, Selector { metric, tests }: &Selector) -> Status {
        let Some(metric) = metric.as_deref() else { return Status::Live };
        if matches!(metric, "ALERTS" | "ALERTS_FOR_STATE") {
            let name = tests.iter().find(|test| test.name == "alertname" && matches!(test.op, Op::Equal));
            return name.map_or(Status::Live, |name| Status::Alert(name.value.clone()));
        }
        let status = match self.catalogue.metric(metric) {
            Some(having) => self.recorded(metric, having, tests),
            None => missing::missing(metric, self.catalogue),
        };
        match status {
            Status::Live => Status::Live,
            // A rule of this name may have other labels.
            status => Status::Rule { name: metric.to_owned(), else_: Box::new(status) },
        }
    }

    /// Of a metric that was recorded.
    fn recorded(&self, metric: &str, having: &BTreeMap<Exporter, Names>, tests: &[Test]) -> Status {
        let mut reasons = Vec::new();
        for (exporter, own) in having {
            let Some(wrong) = self.first_wrong(*exporter, own, tests) else { return Status::Live };
            reasons.push((*exporter, own, wrong));
        }
        if known::exporter_of(metric).is_none() {
            // A metric of every target: which ones are meant, their job says.
            let of_job: Vec<_> = tests.iter().filter(|test| test.name == "job").collect();
            let asks = of_job.iter().any(|test| matches!(test.op, Op::Equal | Op::Re(_)));
            let runs = |exporter: Exporter| {
                let job = self.of[&exporter].first().and_then(|labels| labels.get("job"));
                job.is_some_and(|job| of_job.iter().all(|test| test.is_match(job)))
            };
            if asks {
                reasons.retain(|(exporter, ..)| runs(*exporter) || runs_as(*exporter, tests));
            }
            if reasons.is_empty() {
                let jobs: Vec<_> = of_job.iter().map(ToString::to_string).collect();
                return Status::Unseen(format!("{metric}{{{}}}", jobs.join(",")));
            }
        }
        let mut statuses: Vec<_> =
            reasons.into_iter().map(|(exporter, own, wrong)| self.why(metric, exporter, own, wrong)).collect();
        // One that is not certain makes the selector uncertain.
        let unsure = statuses.iter().position(|status| status.nowhere().is_none()).unwrap_or(0);
        statuses.swap_remove(unsure)
    }

    /// The first test that no target of the exporter passes.
    fn first_wrong<'t>(&self, exporter: Exporter, own: &Names, tests: &'t [Test]) -> Option<&'t Test> {
        let targets = &self.of[&exporter];
        let is_of_target = |label: &str| targets.iter().any(|labels| labels.contains_key(label));
        let is_own = |label: &str| match label.strip_prefix("exported_") {
            Some(exported) => own.contains_key(exported) && is_of_target(exported),
            None => own.contains_key(label) && (known::honors_labels(exporter) || !is_of_target(label)),
        };
        // Values of the series' own labels settle nothing.
        let passes = |test: &&Test| {
            let value = |labels: &'_ BTreeMap<String, String>| test.is_match(labels.get(&test.name).map_or("", |v| v));
            test.name == METRIC_NAME || is_own(&test.name) || targets.iter().any(value)
        };
        tests.iter().find(|test| !passes(test))
    }

    /// What no recorded series of a metric has among the values of its own labels, and the nearest value.
    pub(super) fn unknown_value(&self, Selector { metric, tests }: &Selector) -> Option<(String, String)> {
        let metric = metric.as_deref()?;
        let having = self.catalogue.metric(metric)?;
        let values = |label: &str| having.values().filter_map(|own| own.get(label)).flatten().collect::<BTreeSet<_>>();
        let mut wrong = tests.iter().map(|test| (test, values(&test.name)));
        let (test, values) = wrong.find(|(test, values)| {
            let of_target = having.keys().any(|of| self.of[of].iter().any(|labels| labels.contains_key(&test.name)));
            !of_target && !values.is_empty() && !values.iter().any(|value| test.is_match(value))
        })?;
        let nearest = values.into_iter().min_by_key(|value| damerau_levenshtein(value, &test.value))?;
        Some((format!("no recorded series of `{metric}` has `{test}`"), format!("{}={nearest:?}", test.name)))
    }

    /// What it means that no target of the exporter passes a test.
    fn why(&self, metric: &str, exporter: Exporter, own: &Names, test: &Test) -> Status {
        let label = test.name.as_str();
        let name = known::name(exporter);
        let has: Option<&String> = self.of[&exporter].iter().find_map(|labels| labels.get(label));
        match (label, has) {
            ("job", Some(job)) => self.other_job(exporter, job, test),
            // Exporters that are no part of what they describe.
            ("pod" | "container", _) if matches!(exporter, Exporter::Node | Exporter::Blackbox | Exporter::Mysqld) => {
                match known::own_pods(exporter).iter().any(|word| test.value.contains(word)) {
                    true => Status::Unsure(format!("it asks for the {label} of {name} itself: set it under `labels:`")),
                    false => Status::Nowhere {
                        why: format!(
                            "`{label}` is no label of `{metric}`: a Prometheus that adds one adds that of {name} itself, which is not `{test}`"
                        ),
                        nearest: None,
                    },
                }
            }
            (_, Some(has)) => Status::Unsure(format!(
                "no recorded target of {name} has `{test}`: theirs have values such as `{has}` (`labels:` sets them)"
            )),
            (_, None) => missing::label(metric, exporter, own, test),
        }
    }

    fn other_job(&self, exporter: Exporter, job: &str, test: &Test) -> Status {
        let name = known::name(exporter);
        // There is one job for these, and a set or agreed name excludes others.
        let only_one = !matches!(exporter, Exporter::Node | Exporter::Blackbox | Exporter::Mysqld);
        let usual = known::jobs(exporter).iter().any(|usual| test.is_match(usual));
        let certain = match self.labels.origin(exporter, "job") {
            Some(Origin::Set) => true,
            Some(Origin::Inferred { agreed }) => agreed && only_one && usual,
            _ => false,
        };
        if certain {
            return Status::Nowhere {
                why: format!("the job of {name} is `{job}`: no target has `{test}`"),
                nearest: Some(format!("job={job:?}")),
            };
        }
        Status::Unsure(format!(
            "it asks for `{test}`, and other rules for {name} with job `{job}`: set it under `labels:`"
        ))
    }
}
