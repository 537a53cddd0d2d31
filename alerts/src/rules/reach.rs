//! An alert looks as far back as the recording rules that it reads.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::expr::Selector;
use crate::rule::{RuleSet, What};

/// Adds to the reach of each rule that of the recording rules it reads, through any number of them.
pub(super) fn through_recording_rules(set: &mut RuleSet) {
    let mut recorded: BTreeMap<String, Duration> = BTreeMap::new();
    for rule in &set.rules {
        if let What::Record { name } = &rule.what {
            let reach = recorded.entry(name.clone()).or_default();
            *reach = rule.reach.max(*reach);
        }
    }
    let own: Vec<Duration> = set.rules.iter().map(|rule| rule.reach).collect();
    // Each pass follows one more rule; more than this many in a row are a circle.
    const MOST: usize = 16;
    for _ in 0..MOST {
        let mut changed = false;
        for (rule, own) in set.rules.iter_mut().zip(&own) {
            let reads = |selector: &Selector| match &selector.metric {
                Some(metric) => recorded.get(metric).copied(),
                None => recorded.iter().filter(|(name, _)| selector.reads(name)).map(|(_, reach)| *reach).max(),
            };
            let behind = rule.selectors().iter().filter_map(reads).max();
            let reach = own.saturating_add(behind.unwrap_or_default());
            if reach > rule.reach {
                rule.reach = reach;
                changed = true;
            }
            if let What::Record { name } = &rule.what
                && let Some(recorded) = recorded.get_mut(name)
            {
                *recorded = reach.max(*recorded);
            }
        }
        if !changed {
            break;
        }
    }
}
