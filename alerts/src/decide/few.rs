//! Alerts on shares of targets, which fire easily in a small cluster.

use std::collections::BTreeMap;

use super::run::Run;
use crate::rule::RuleId;

/// The size of a cluster to compare with.
const MANY: usize = 100;

/// "1 of 3 targets down is enough here; of 100 it takes 11": about the targets that an alert with these labels counts.
/// `None` where the expression does not tell.
pub fn note(run: &Run<'_>, id: RuleId, labels: &BTreeMap<String, String>) -> Option<String> {
    let share = run.sources.rule(id).read.share.as_ref()?;
    let set = &run.sources.rule(id).labels;
    // All selectors of such an expression are one.
    let targets = run.trial.matched(run.sources, id, 0).iter().map(|&series| run.trial.series(series).1);
    let is_counted = |of: &&BTreeMap<String, String>| {
        labels.iter().all(|(label, value)| set.contains_key(label) || of.get(label) == Some(value))
    };
    let targets: Vec<_> = targets.filter(is_counted).collect();
    // What the rule overwrites is not known.
    if targets.iter().any(|of| set.keys().any(|label| of.contains_key(label))) {
        return None;
    }
    let (here, many) = (share.least(targets.len())?, share.least(MANY)?);
    let verb = if here == 1 { "is" } else { "are" };
    (here < many)
        .then(|| format!("{here} of {} targets down {verb} enough here; of {MANY} it takes {many}", targets.len()))
}
