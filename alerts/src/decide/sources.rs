//! What each rule reads: recording rules, alerts, how far back; found once for all trials.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::schedule::milliseconds;
use super::{LONGEST, Settings};
use crate::expr::Selector;
use crate::promtool::WrittenRule;
use crate::rule::{Rule, RuleId, RuleSet, What};

/// The series of alerts that Prometheus itself writes.
const ALERTS: [&str; 2] = ["ALERTS", "ALERTS_FOR_STATE"];

pub struct Sources<'a> {
    pub rules: &'a RuleSet,
    of: Vec<Source>,
    /// The selectors of all rules: many rules have the same.
    pub selectors: Vec<&'a Selector>,
}

pub struct Source {
    /// Of each of its selectors the place in [`Sources::selectors`].
    pub selectors: Vec<usize>,
    /// The recording rules that it reads, those read by others first.
    pub records: Vec<RuleId>,
    /// The alerts whose series it reads, itself or through other rules.
    pub alerts: BTreeSet<RuleId>,
    /// How far back it looks, with a scrape and the evaluations of recording rules.
    back: Duration,
    pub evaluate: Duration,
    /// How old the data are that it sees. To see data of a minute ago is to be evaluated a minute ago and to fire a minute
    /// later: times are found without it, and it is added to them.
    pub offset: Duration,
    pub wait: Duration,
    pub keep_firing: Duration,
}

impl<'a> Sources<'a> {
    pub fn new(rules: &'a RuleSet, settings: &Settings) -> Self {
        let names = Names::of(rules);
        let mut selectors = Vec::new();
        let mut places = HashMap::new();
        let mut place = |selector: &'a Selector| {
            // As text: a regular expression is no key.
            let tests: Vec<String> = selector.tests.iter().map(ToString::to_string).collect();
            *places.entry((selector.metric.as_deref(), tests)).or_insert_with(|| {
                selectors.push(selector);
                selectors.len() - 1
            })
        };
        let of = rules.rules.iter().enumerate().map(|(index, rule)| {
            let mut reads =
                Reads { rules, names: &names, seen: BTreeSet::new(), records: Vec::new(), alerts: BTreeSet::new() };
            reads.append(RuleId(index));
            let Reads { mut records, alerts, .. } = reads;
            // The last is the rule itself.
            records.pop();
            let group = rules.groups.get(rule.group);
            let evaluate = group.and_then(|group| group.interval).unwrap_or(settings.evaluate);
            let (wait, keep_firing) = match rule.what {
                What::Alert { wait, keep_firing, .. } => (wait, keep_firing),
                What::Record { .. } => Default::default(),
            };
            let evaluations = evaluate.saturating_mul(u32::try_from(records.len()).unwrap_or(u32::MAX));
            Source {
                selectors: rule.selectors().iter().map(&mut place).collect(),
                records,
                alerts,
                back: rule.reach.saturating_add(settings.scrape).saturating_add(evaluations),
                evaluate,
                offset: group.map(|group| group.query_offset).unwrap_or_default(),
                wait,
                keep_firing,
            }
        });
        let mut of: Vec<Source> = of.collect();
        through_alerts(&mut of);
        Self { rules, of, selectors }
    }

    pub fn rule(&self, id: RuleId) -> &'a Rule {
        &self.rules.rules[id.0]
    }

    pub fn source(&self, id: RuleId) -> &Source {
        &self.of[id.0]
    }

    /// The rule with all recording rules that it reads, in the order of evaluation.
    pub fn with_records(&self, id: RuleId) -> impl Iterator<Item = RuleId> {
        self.source(id).records.iter().copied().chain([id])
    }

    /// Whether a selector of a rule reads the series of alerts.
    pub fn is_of_alerts(selector: &Selector) -> bool {
        ALERTS.iter().any(|name| selector.reads(name))
    }

    /// Why no trial can decide it.
    pub fn undecided(&self, id: RuleId) -> Option<String> {
        let source = self.source(id);
        if let Some(why) = self.with_records(id).find_map(|of| self.rule(of).read.clock) {
            return Some(why.to_owned());
        }
        let others = || source.alerts.iter().copied().filter(|of| *of != id);
        if source.records.iter().copied().chain(others()).any(|of| self.source(of).offset != source.offset) {
            return Some("it reads rules of a group with another `query_offset`".to_owned());
        }
        if others().any(|of| self.source(of).alerts.contains(&id)) {
            return Some("it reads an alert that reads it".to_owned());
        }
        if source.evaluate < Duration::from_secs(1) {
            return Some("its group is evaluated more often than once a second".to_owned());
        }
        let of = if source.alerts.is_empty() { "" } else { " and those of the alerts that it reads" };
        (self.needed(id, others(), true) > LONGEST)
            .then(|| format!("its ranges, offsets, `for` and interval{of} add up to more than 6h"))
    }

    /// How long a part of a timeline must be for a rule and the alerts that it reads; `waits` is whether alerts are waited
    /// for.
    pub fn needed(&self, id: RuleId, alerts: impl Iterator<Item = RuleId>, waits: bool) -> Duration {
        let wait = |id: RuleId| self.source(id).wait.saturating_add(self.source(id).keep_firing);
        let of_alert = |alert: RuleId| self.source(alert).back.saturating_add(wait(alert));
        let source = self.source(id);
        let back = alerts.map(of_alert).fold(source.back, Duration::max);
        let back = back.saturating_add(source.evaluate.saturating_mul(2));
        if waits { back.saturating_add(wait(id)) } else { back }
    }

    /// Whether it uses a family that was scaled down other than in a ratio of two such families.
    pub fn absolute<'b>(&self, id: RuleId, scaled: impl Iterator<Item = &'b str>) -> Option<&'b str> {
        let scaled: Vec<&str> = scaled.collect();
        let family = |selector: &Selector| {
            let metric = selector.metric.as_deref()?;
            scaled.iter().copied().find(|family| *family == metric)
        };
        self.with_records(id).find_map(|id| {
            let read = &self.rule(id).read;
            let in_ratio = |index: usize| {
                let with_scaled = |side: &std::ops::Range<usize>| {
                    read.selectors[side.clone()].iter().any(|selector| family(selector).is_some())
                };
                read.ratios.iter().any(|[left, right]| {
                    left.contains(&index) && with_scaled(right) || right.contains(&index) && with_scaled(left)
                })
            };
            let mut uses = read.selectors.iter().enumerate().filter(|(index, _)| !in_ratio(*index));
            uses.find_map(|(_, selector)| family(selector))
        })
    }

    pub fn written(&self, id: RuleId) -> WrittenRule {
        let (rule, source) = (self.rule(id), self.source(id));
        WrittenRule {
            alert: rule.is_alert(),
            name: rule.name().to_owned(),
            expr: rule.expr.clone(),
            wait: milliseconds(source.wait),
            keep_firing: milliseconds(source.keep_firing),
            labels: rule.labels.clone(),
        }
    }
}

/// Rules by what they produce.
#[derive(Default)]
struct Names<'a> {
    records: BTreeMap<&'a str, Vec<RuleId>>,
    alerts: BTreeMap<&'a str, Vec<RuleId>>,
}

impl<'a> Names<'a> {
    fn of(rules: &'a RuleSet) -> Self {
        let mut names = Self::default();
        for (index, rule) in rules.rules.iter().enumerate() {
            let of_kind = if rule.is_alert() { &mut names.alerts } else { &mut names.records };
            of_kind.entry(rule.name()).or_default().push(RuleId(index));
        }
        names
    }

    fn records(&self, selector: &Selector) -> Vec<RuleId> {
        match &selector.metric {
            Some(metric) => self.records.get(metric.as_str()).cloned().unwrap_or_default(),
            None => {
                let read = self.records.iter().filter(|(name, _)| selector.reads(name));
                read.flat_map(|(_, rules)| rules).copied().collect()
            }
        }
    }

    /// The alerts whose names a selector of their series asks for.
    fn alerts(&self, selector: &Selector) -> Vec<RuleId> {
        let passes = |name: &str| {
            let mut of_name = selector.tests.iter().filter(|test| test.name == "alertname");
            of_name.all(|test| test.is_match(name))
        };
        self.alerts.iter().filter(|(name, _)| passes(name)).flat_map(|(_, rules)| rules).copied().collect()
    }
}

/// What a rule reads, as it is found.
struct Reads<'a> {
    rules: &'a RuleSet,
    names: &'a Names<'a>,
    seen: BTreeSet<RuleId>,
    records: Vec<RuleId>,
    alerts: BTreeSet<RuleId>,
}

impl Reads<'_> {
    /// Appends the recording rules that `id` reads, each before its readers, then `id`.
    fn append(&mut self, id: RuleId) {
        if !self.seen.insert(id) {
            return;
        }
        for selector in self.rules.rules[id.0].selectors() {
            if Sources::is_of_alerts(selector) {
                self.alerts.extend(self.names.alerts(selector));
            }
            for record in self.names.records(selector) {
                self.append(record);
            }
        }
        self.records.push(id);
    }
}

/// Whoever reads an alert reads what that one reads.
fn through_alerts(of: &mut [Source]) {
    loop {
        let mut changed = false;
        for index in 0..of.len() {
            let direct = of[index].alerts.iter();
            let more: BTreeSet<RuleId> = direct.flat_map(|alert| &of[alert.0].alerts).copied().collect();
            let known = of[index].alerts.len();
            of[index].alerts.extend(more);
            changed |= of[index].alerts.len() > known;
        }
        if !changed {
            break;
        }
    }
}
