//! All samples so far, by series, one for each second.

use std::collections::{BTreeMap, BTreeSet};

use relapse_series::{Exporter, Samples, Series};

use super::exposition::{Line, lines};
use super::families::{grows, is_recorded, is_time};

/// Steps of a second in which times are recorded.
const STEPS: f64 = 1e5;

/// Target, metric and labels.
type Key = (usize, String, BTreeMap<String, String>);

#[derive(Default)]
pub struct Table {
    series: BTreeMap<Key, Samples>,
    counters: BTreeSet<String>,
    /// Seconds and targets that repeat the second before.
    repeated: BTreeSet<(usize, usize)>,
}

impl Table {
    /// Adds what a target exported; `None` if the scrape failed. A text that cannot be parsed is a failed scrape, as for
    /// a Prometheus.
    pub fn scraped(&mut self, (target, exporter): (usize, Exporter), second: usize, text: Option<&str>) {
        let read = text.and_then(|text| lines(text).collect::<Result<Vec<_>, _>>().ok());
        let up = if read.is_some() { 1.0 } else { 0.0 };
        self.put((target, "up".to_owned(), BTreeMap::new()), second, up);
        for line in read.into_iter().flatten() {
            match line {
                Line::Type(name, _) if !is_recorded(exporter, name) => {}
                Line::Type(name, kind) if kind == "counter" || grows(name) => {
                    self.counters.insert(name.to_owned());
                }
                Line::Type(name, "histogram") => self.grow(name, &["_bucket", "_sum", "_count"]),
                Line::Type(name, "summary") => self.grow(name, &["_sum", "_count"]),
                Line::Type(..) => {}
                Line::Sample((name, _, _)) if !is_recorded(exporter, name) => {}
                Line::Sample((name, labels, value)) if is_time(name) => {
                    self.put((target, name.to_owned(), labels), second, (value * STEPS).round() / STEPS);
                }
                Line::Sample((name, labels, value)) => self.put((target, name.to_owned(), labels), second, value),
            }
        }
    }

    /// A target counts as it was in the second before.
    pub fn repeat(&mut self, target: usize, second: usize) {
        self.repeated.insert((second, target));
    }

    fn grow(&mut self, family: &str, endings: &[&str]) {
        self.counters.extend(endings.iter().map(|ending| format!("{family}{ending}")));
    }

    fn put(&mut self, key: Key, second: usize, value: f64) {
        let samples = self.series.entry(key).or_default();
        if samples.len() <= second {
            samples.resize(second + 1, None);
        }
        samples[second] = Some(value);
    }

    /// All series, each with this number of samples, and the metrics that are counters.
    pub fn finish(self, seconds: usize) -> (Vec<Series>, BTreeSet<String>) {
        let series = self.series.into_iter().map(|((target, name, labels), mut samples)| {
            samples.resize(seconds, None);
            for (second, _) in
                self.repeated.iter().filter(|(second, of)| *of == target && (1..seconds).contains(second))
            {
                samples[*second] = samples[second - 1];
            }
            Series { target, name, labels, samples }
        });
        (series.collect(), self.counters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_scraped_is_missing_and_up_says_so() {
        let mut table = Table::default();
        table.scraped((0, Exporter::Node), 0, Some("# TYPE a counter\na 1\ngo_threads 5\nprobe_dns_lookup_time_seconds 0.000123456\n# TYPE node_netstat_TcpExt_TCPTimeouts untyped\n"));
        table.scraped((0, Exporter::Node), 2, Some("# TYPE h histogram\nh_bucket{le=\"+Inf\"} 3\na 2\n"));
        table.scraped((0, Exporter::Node), 1, None);
        table.scraped((0, Exporter::Node), 3, Some("a\n"));
        table.repeat(0, 4);
        table.repeat(1, 1);
        let (series, counters) = table.finish(6);
        let found: Vec<_> = series.iter().map(|series| (series.name.as_str(), series.samples.as_slice())).collect();
        assert_eq!(
            found,
            [
                ("a", &[Some(1.0), None, Some(2.0), None, None, None][..]),
                ("h_bucket", &[None, None, Some(3.0), None, None, None]),
                ("probe_dns_lookup_time_seconds", &[Some(0.00012), None, None, None, None, None]),
                ("up", &[Some(1.0), Some(0.0), Some(1.0), Some(0.0), Some(0.0), None]),
            ]
        );
        assert_eq!(
            counters.into_iter().collect::<Vec<_>>(),
            ["a", "h_bucket", "h_count", "h_sum", "node_netstat_TcpExt_TCPTimeouts"]
        );
    }
}
