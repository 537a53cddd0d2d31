//! Lines of an exposition, and what several kinds of objects have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// Lines by metric.
#[derive(Default)]
pub struct Families(BTreeMap<String, BTreeSet<String>>);

impl Families {
    /// The series of one object, which all have these labels.
    pub fn of<'a>(&'a mut self, labels: &[(&'a str, Option<&'a str>)]) -> Object<'a> {
        let labels = labels.iter().map(|&(name, value)| (name, value.unwrap_or_default())).collect();
        Object { families: self, labels }
    }

    pub fn text(self) -> String {
        let mut text = String::new();
        for (name, lines) in self.0 {
            // Of the metrics derived here, those of type counter are named like one.
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            let _ = writeln!(text, "# TYPE {name} {kind}");
            text.extend(lines);
        }
        text
    }
}

pub struct Object<'a> {
    families: &'a mut Families,
    labels: Vec<(&'a str, &'a str)>,
}

impl Object<'_> {
    /// A label without a value is none, as for a Prometheus that scrapes one.
    pub fn put(&mut self, metric: &str, labels: &[(&str, &str)], value: impl Into<f64>) {
        let labels = self.labels.iter().chain(labels).filter(|(_, value)| !value.is_empty()).map(|(name, value)| {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            format!("{name}=\"{value}\"")
        });
        let line = format!("{metric}{{{}}} {}\n", labels.collect::<Vec<_>>().join(","), value.into());
        self.families.0.entry(metric.to_owned()).or_default().insert(line);
    }

    /// Nothing for a field that is not set.
    pub fn put_some(&mut self, metric: &str, value: Option<impl Into<f64>>) {
        if let Some(value) = value {
            self.put(metric, &[], value);
        }
    }

    /// A generation; 0 if it is not set.
    pub fn put_generation(&mut self, metric: &str, value: Option<i64>) {
        self.put(metric, &[], value.unwrap_or_default() as f64);
    }

    /// One series for each of `values`; the current one is 1, the others 0.
    pub fn put_state(&mut self, metric: &str, labels: &[(&str, &str)], name: &str, values: &[&str], current: &str) {
        for value in values {
            self.put(metric, &[labels, &[(name, value)]].concat(), *value == current);
        }
    }

    /// The status of a condition: `True`, `False` or `Unknown`, in lower case as values of the label `name`.
    pub fn put_condition(&mut self, metric: &str, labels: &[(&str, &str)], name: &str, status: &str) {
        self.put_state(metric, labels, name, &["true", "false", "unknown"], &status.to_lowercase());
    }

    /// One series for each owner; one with empty labels for an object without owners.
    pub fn put_owners(&mut self, metric: &str, owners: Option<&Vec<OwnerReference>>) {
        let name =
            |kind, name, controls| [("owner_kind", kind), ("owner_name", name), ("owner_is_controller", controls)];
        match owners.filter(|owners| !owners.is_empty()) {
            None => self.put(metric, &name("", "", ""), 1),
            Some(owners) => {
                for owner in owners {
                    let controls = if owner.controller == Some(true) { "true" } else { "false" };
                    self.put(metric, &name(&owner.kind, &owner.name, controls), 1);
                }
            }
        }
    }

    /// Amounts of resources, with the unit of each: cores, bytes, or a number.
    pub fn put_amounts(&mut self, metric: &str, labels: &[(&str, &str)], amounts: Option<&BTreeMap<String, Quantity>>) {
        for (resource, amount) in amounts.into_iter().flatten() {
            let unit = match resource.as_str() {
                "cpu" => "core",
                "memory" | "storage" | "ephemeral-storage" => "byte",
                "pods" => "integer",
                _ if resource.starts_with("hugepages-") || resource.starts_with("attachable-volumes-") => "byte",
                _ if resource.contains('/') && !resource.contains("kubernetes.io/") => "integer",
                _ => continue,
            };
            let resource = resource.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            if let Some(amount) = number(amount) {
                self.put(metric, &[labels, &[("resource", &resource), ("unit", unit)]].concat(), amount);
            }
        }
    }

    /// What a container requests and is limited to.
    pub fn put_resources(&mut self, prefix: &str, labels: &[(&str, &str)], resources: Option<&ResourceRequirements>) {
        let resources = resources.cloned().unwrap_or_default();
        self.put_amounts(&format!("{prefix}_resource_requests"), labels, resources.requests.as_ref());
        self.put_amounts(&format!("{prefix}_resource_limits"), labels, resources.limits.as_ref());
    }
}

/// A quantity as a number: `100m` is 0.1, `1Ki` is 1024, `1e3` is 1000 (`apimachinery/pkg/api/resource`).
fn number(quantity: &Quantity) -> Option<f64> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [(&str, i8); 9] =
        [("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
    let text = quantity.0.as_str();
    let binary = |(suffix, power)| Some(text.strip_suffix(suffix)?.parse::<f64>().ok()? * 1024_f64.powi(power));
    let decimal = |(suffix, exponent)| format!("{}e{exponent}", text.strip_suffix(suffix)?).parse().ok();
    let binary = || BINARY.into_iter().zip(1..).find_map(binary);
    text.parse().ok().or_else(binary).or_else(|| DECIMAL.into_iter().find_map(decimal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_numbers() {
        let read = |text: &str| number(&Quantity(text.to_owned()));
        assert_eq!(read("4"), Some(4.0));
        assert_eq!(read("1900m"), Some(1.9));
        assert_eq!(read("1.5Gi"), Some(1_610_612_736.0));
        assert_eq!(read("2E"), Some(2e18));
        assert_eq!(read("12e3"), Some(12_000.0));
        assert_eq!(read("129M"), Some(129_000_000.0));
        assert_eq!(read("a lot"), None);
    }
}
