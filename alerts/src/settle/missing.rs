//! Metrics and labels that no recording has: renamed, misspelt, or not known.

use promql_parser::label::Matcher as Test;
use strsim::damerau_levenshtein;

use super::status::Status;
use crate::catalogue::{Catalogue, Names};
use crate::known::{self, Renamed};
use crate::recording::Exporter;

/// Of a metric that was not recorded.
pub(super) fn missing(metric: &str, catalogue: &Catalogue) -> Status {
    let unseen = Status::Unseen(metric.to_owned());
    if metric.contains(':') {
        return Status::Unsure(format!("it reads `{metric}`, which no rule among these records"));
    }
    let Some(exporter) = known::exporter_of(metric) else { return unseen };
    if known::is_left_out(metric) || !catalogue.exporters().any(|recorded| recorded == exporter) {
        return unseen;
    }
    if let Some(Renamed { to, since }) = known::renamed(metric) {
        let nearest = histogram_suffix(metric, to);
        return Status::Nowhere { why: format!("`{metric}` was renamed in {since}"), nearest: Some(nearest) };
    }
    if let Some(why) = known::blind(metric, catalogue.metrics_of(exporter)) {
        return Status::Unsure(why);
    }
    if exporter == Exporter::Node {
        let with_unit = known::UNITS_SINCE_016.iter().map(|unit| format!("{metric}{unit}"));
        if let Some(new) = with_unit.into_iter().find(|name| catalogue.metric(name).is_some()) {
            return Status::Nowhere {
                why: format!("`{metric}` was renamed in node_exporter 0.16"),
                nearest: Some(new),
            };
        }
    }
    match catalogue.metrics_of(exporter).find(|recorded| !is_partly_recorded(exporter) && is_misspelt(metric, recorded))
    {
        Some(meant) => Status::Nowhere {
            why: format!("{} has no metric `{metric}`", known::name(exporter)),
            nearest: Some(meant.to_owned()),
        },
        None => unseen,
    }
}

/// Recordings hold only some families of these, or some labels.
const fn is_partly_recorded(exporter: Exporter) -> bool {
    matches!(exporter, Exporter::Kubelet | Exporter::Cadvisor | Exporter::KubeProxy | Exporter::KubeState)
}

/// The new name with the old one's suffix of a histogram.
fn histogram_suffix(old: &str, new: &str) -> String {
    let suffix = ["_bucket", "_sum", "_count"].into_iter().find(|suffix| old.ends_with(suffix));
    suffix.filter(|suffix| !new.ends_with(suffix)).map_or_else(|| new.to_owned(), |suffix| format!("{new}{suffix}"))
}

/// Whether a name is another with a slip in one of its words. A digit too many, another beginning or end, or a short word
/// that differs make another metric: `Udp6`, `unavailable`, `nfsd`.
fn is_misspelt(name: &str, meant: &str) -> bool {
    let (name, meant): (Vec<_>, Vec<_>) = (name.split('_').collect(), meant.split('_').collect());
    if name.len() != meant.len() {
        return false;
    }
    let mut differ = name.iter().zip(&meant).filter(|(a, b)| a != b);
    match (differ.next(), differ.next()) {
        (Some((a, b)), None) => is_slip(a, b),
        _ => false,
    }
}

fn is_slip(word: &str, meant: &str) -> bool {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let ends = |text: &str| (text.chars().next(), text.chars().next_back());
    let long = word.len().min(meant.len()) >= 6 && word.len() < 100;
    long && ends(word) == ends(meant) && digits(word) == digits(meant) && damerau_levenshtein(word, meant) <= 2
}

/// Of a label that neither the metric nor the target has.
pub(super) fn label(metric: &str, exporter: Exporter, own: &Names, test: &Test) -> Status {
    let label = test.name.as_str();
    if let Some(Renamed { to, since }) = known::renamed_label(exporter, label) {
        let why = format!("the label `{label}` of `{metric}` was renamed in {since}");
        return Status::Nowhere { why, nearest: Some(to.to_owned()) };
    }
    // Not all of these are recorded as they are. A Prometheus without `honor_labels` adds `exported_`. `up` has the labels
    // of its target alone.
    let variable = is_partly_recorded(exporter);
    let of_target = known::OF_TARGETS.contains(&label) || label.starts_with("exported_") || own.is_empty();
    let slip = own.keys().find(|own| is_slip(label, own));
    if variable {
        return Status::Unsure(format!("`{metric}` was recorded without a label `{label}`"));
    }
    if slip.is_none() && of_target {
        return Status::Unsure(format!(
            "no recorded series has `{test}`: set it under `labels:` if your targets have it"
        ));
    }
    let nearest = slip.or_else(|| match own.len() {
        1 => own.keys().next(),
        _ => own.keys().min_by_key(|own| damerau_levenshtein(own, label)),
    });
    Status::Nowhere { why: format!("no series of `{metric}` has a label `{label}`"), nearest: nearest.cloned() }
}
