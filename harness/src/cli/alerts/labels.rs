//! `relapse alerts --labels`: the labels of targets, as `relapse.yaml` takes them.

use std::collections::BTreeMap;

use relapse_alerts::catalogue::Catalogue;
use relapse_alerts::labels::{Labels, Origin};
use relapse_alerts::recording::Exporter;
use relapse_alerts::rule::RuleSet;
use serde_json::Value;

use super::graded;
use super::set::Set;
use crate::cli::out;

pub fn print(rules: &RuleSet, set: &Set, catalogue: &Catalogue) {
    let labels = graded::labels(set, rules, catalogue);
    out::lines(yaml(&labels, &graded::templates(&labels, catalogue), 0));
}

/// `labels:` with a line an exporter, and where its labels are from.
pub fn yaml(labels: &Labels, templates: &BTreeMap<Exporter, BTreeMap<String, String>>, indent: usize) -> Vec<String> {
    let indent = " ".repeat(indent);
    let mut lines = vec![format!("{indent}labels:")];
    for (exporter, of) in templates {
        let Ok(Value::String(name)) = serde_json::to_value(exporter) else { continue };
        let pairs = of.iter().map(|(label, template)| format!("{label}: {}", Value::String(template.clone())));
        let pairs: Vec<String> = pairs.collect();
        let mut notes = Vec::new();
        for label in of.keys() {
            match labels.origin(*exporter, label) {
                Some(Origin::Inferred { agreed: true }) => notes.push(format!("{label} inferred from the rules")),
                Some(Origin::Inferred { agreed: false }) => {
                    notes.push(format!("{label} inferred, though not all rules agree"));
                }
                Some(Origin::Set) => notes.push(format!("{label} as set")),
                Some(Origin::Default) | None => {}
            }
        }
        let note = if notes.is_empty() { String::new() } else { format!("  # {}", notes.join(", ")) };
        lines.push(format!("{indent}  {name}: {{ {} }}{note}", pairs.join(", ")));
    }
    lines
}
