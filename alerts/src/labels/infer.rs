//! Infers labels of targets from the matchers of rules.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::{MatchOp as Op, Matcher as Test};

use super::{Labels, Origin, defaults};
use crate::catalogue::Catalogue;
use crate::expr::Selector;
use crate::known;
use crate::recording::Exporter;
use crate::rule::RuleSet;

/// Values that are tried for one label.
const MOST_CANDIDATES: usize = 64;

/// What selectors ask of one label: the tests of one selector by their text, and how many selectors have them.
#[derive(Default)]
struct Wishes {
    tests: BTreeMap<String, (Vec<Test>, usize)>,
    /// A selector of `up` or another metric of every target asks for it.
    of_any_target: bool,
}

impl Labels {
    /// Infers labels for the exporters of the recordings: for each, the value that most selectors of its metrics ask for.
    /// A label is one of targets if no series of the metric has it by itself and installations are known to add it, or
    /// rules ask for it on several exporters.
    #[must_use]
    pub fn infer(rules: &RuleSet, catalogue: &Catalogue) -> Self {
        let wishes = wishes(rules, catalogue);
        let mut asked: BTreeMap<&str, BTreeSet<Exporter>> = BTreeMap::new();
        for (exporter, label) in wishes.keys() {
            asked.entry(label).or_default().insert(*exporter);
        }
        let mut labels = Self::default();
        for ((exporter, label), wished) in &wishes {
            let known_for = known::OF_TARGETS.contains(&label.as_str());
            let shared = wished.of_any_target || asked.get(label.as_str()).is_some_and(|by| by.len() > 1);
            let own = matches!(label.as_str(), "pod" | "container");
            let has_default = defaults(*exporter).iter().any(|(name, _)| name == label);
            let may = label == "job" || own || !has_default && (known_for || shared);
            let fits = |value: &str| !own || known::own_pods(*exporter).iter().any(|word| value.contains(word));
            if may
                && label != "instance"
                && let Some((value, agreed)) = wished.best(*exporter, label, fits)
            {
                labels.insert(*exporter, label, value, Origin::Inferred { agreed });
            }
        }
        labels
    }
}

fn wishes(rules: &RuleSet, catalogue: &Catalogue) -> BTreeMap<(Exporter, String), Wishes> {
    let recorded: BTreeSet<Exporter> = catalogue.exporters().collect();
    let mut wishes: BTreeMap<(Exporter, String), Wishes> = BTreeMap::new();
    for rule in &rules.rules {
        for Selector { metric, tests } in rule.selectors() {
            let Some(metric) = metric else { continue };
            let having = catalogue.metric(metric);
            let (exporters, of_any_target) = match (known::exporter_of(metric), having) {
                (Some(exporter), _) => (vec![exporter], false),
                (None, Some(having)) => (having.keys().copied().filter(|e| runs_as(*e, tests)).collect(), true),
                (None, None) => continue,
            };
            for exporter in exporters.into_iter().filter(|exporter| recorded.contains(exporter)) {
                let own = having.and_then(|having| having.get(&exporter));
                for (label, tests) in by_label(tests) {
                    let is_own = own.is_none_or(|own| own.contains_key(label));
                    if tests.iter().all(|test| test.is_match("")) || is_own && label != "job" {
                        continue;
                    }
                    let wished = wishes.entry((exporter, label.to_owned())).or_default();
                    wished.of_any_target |= of_any_target;
                    let text = tests.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                    wished.tests.entry(text).or_insert((tests, 0)).1 += 1;
                }
            }
        }
    }
    wishes
}

fn by_label(tests: &[Test]) -> BTreeMap<&str, Vec<Test>> {
    let mut labels: BTreeMap<&str, Vec<Test>> = BTreeMap::new();
    for test in tests {
        labels.entry(&test.name).or_default().push(test.clone());
    }
    labels
}

/// Whether an exporter usually runs as a job that the selector asks for by name.
pub(crate) fn runs_as(exporter: Exporter, tests: &[Test]) -> bool {
    let of_job: Vec<_> = tests.iter().filter(|test| test.name == "job").collect();
    let asks = of_job.iter().any(|test| matches!(test.op, Op::Equal | Op::Re(_)));
    asks && known::jobs(exporter).iter().any(|job| of_job.iter().all(|test| test.is_match(job)))
}

impl Wishes {
    /// The value that meets most wishes, and whether these are two thirds.
    fn best(&self, exporter: Exporter, label: &str, fits: impl Fn(&str) -> bool) -> Option<(String, bool)> {
        let usual = if label == "job" { known::jobs(exporter) } else { &[] };
        let mut candidates: Vec<String> = usual.iter().map(|job| (*job).to_owned()).collect();
        let mut frequent: Vec<_> = self.tests.values().collect();
        frequent.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (tests, _) in frequent.into_iter().take(MOST_CANDIDATES) {
            candidates.extend(tests.iter().flat_map(values));
        }
        let met = |value: &str| {
            let met = self.tests.values().filter(|(tests, _)| tests.iter().all(|test| test.is_match(value)));
            met.map(|(_, count)| count).sum::<usize>()
        };
        let all: usize = self.tests.values().map(|(_, count)| count).sum();
        let mut best = None;
        for candidate in candidates.into_iter().filter(|candidate| fits(candidate)) {
            let met = met(&candidate);
            // Of several that are equally good, the first: the most usual.
            if met > best.as_ref().map_or(0, |(_, most)| *most) {
                best = Some((candidate, met));
            }
        }
        best.map(|(value, met)| (value, met * 3 >= all * 2))
    }
}

/// Values that a matcher accepts, as far as they can be read from it.
fn values(test: &Test) -> Vec<String> {
    match test.op {
        Op::Equal => vec![test.value.clone()],
        Op::Re(_) => {
            let inner = test.value.trim_start_matches(['^', '(']).trim_end_matches(['$', ')']);
            let literal = |part: &str| part.replace(".*", "").replace(".+", "1").replace('\\', "");
            let alternatives = inner.split('|').map(literal);
            // Something is better than nothing for `cluster=~".+"`.
            let named = std::iter::once(test.name.clone());
            alternatives.chain(named).filter(|value| !value.is_empty() && test.is_match(value)).collect()
        }
        Op::NotEqual | Op::NotRe(_) => Vec::new(),
    }
}
