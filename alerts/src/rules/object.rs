//! Finds groups of rules in a document: a rule file of Prometheus, a PrometheusRule, a ConfigMap, a list of objects.

use std::collections::BTreeMap;

use relapse_model::yaml::{Value, YamlNode};

use super::config_map;
use super::group::{Reader, get};

/// Whether a document has groups of rules, judged by its words, without parsing it: dashboards are large. If not, it is
/// counted by its kind.
pub(super) fn may_have_rules(text: &str, skipped: &mut BTreeMap<String, usize>) -> bool {
    // Lists are parsed so that their items are counted.
    if ["groups", "items", "PrometheusRule"].iter().any(|word| text.contains(word)) {
        return true;
    }
    let lines = text.lines().map(|line| line.trim_end_matches([',', ' ', '\r']));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.trim_start().starts_with('#')).collect();
    let kind = lines.iter().find_map(|line| {
        let value = line.strip_prefix("kind:").or_else(|| line.trim_start().strip_prefix("\"kind\":"))?;
        Some(value.trim().trim_matches(['"', '\'']))
    });
    if !lines.is_empty() {
        *skipped.entry(kind.unwrap_or("other").to_owned()).or_default() += 1;
    }
    false
}

/// Reads the groups in a document, and counts objects of other kinds.
pub(super) fn read(node: &YamlNode, reader: &mut Reader<'_>) {
    match &node.value {
        Value::Map(_) => object(node, reader),
        Value::List(items) => items.iter().for_each(|item| read(item, reader)),
        _ => reader.skip("other"),
    }
}

fn object(node: &YamlNode, reader: &mut Reader<'_>) {
    let kind = get(node, "kind").and_then(|kind| reader.text(kind));
    match kind.as_deref() {
        Some("PrometheusRule") => {
            let groups = get(node, "spec").and_then(|spec| get(spec, "groups"));
            match groups {
                Some(groups) => reader.groups(groups),
                None => reader.skip("PrometheusRule without groups"),
            }
        }
        Some(kind) if kind.ends_with("List") && get(node, "items").is_some() => {
            if let Some(items) = get(node, "items") {
                read_items(items, reader);
            }
        }
        Some("ConfigMap") => config_map::read(node, reader),
        Some(kind) => {
            let kind = kind.to_owned();
            reader.skip(&kind);
        }
        None => match get(node, "groups") {
            Some(groups) => reader.groups(groups),
            None => named(node, reader),
        },
    }
}

fn read_items(items: &YamlNode, reader: &mut Reader<'_>) {
    match &items.value {
        Value::List(_) => read(items, reader),
        Value::Null => {}
        _ => reader.skip("other"),
    }
}

/// Objects or rule files by name, as `jsonnet` writes them: `{ "prometheusAlerts": { "groups": [...] } }`.
fn named(node: &YamlNode, reader: &mut Reader<'_>) {
    let Value::Map(entries) = &node.value else { return };
    let of_rules = |value: &YamlNode| get(value, "groups").is_some() || get(value, "kind").is_some();
    if !entries.iter().any(|(_, value)| of_rules(value)) {
        return reader.skip("other");
    }
    for (_, value) in entries.iter().filter(|(_, value)| of_rules(value)) {
        object(value, reader);
    }
}
