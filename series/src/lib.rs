//! What exporters exported during a trial, once a second.
//!
//! A file is text under gzip: a line of JSON ([`Header`]), then a line for each series: the index of its target, the
//! metric with its labels, and its values in the notation of promtool's test files, one for each second from the start
//! (`1+2x4` is 1, 3, 5, 7, 9; `_x3` are three seconds without the series). Labels that a reader's Prometheus adds (`job`,
//! `instance`) are not part of it: a target says what it is, and the reader's configuration decides how it is labelled.

pub mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Version of the format.
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    pub header: Header,
    pub series: Vec<Series>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub version: u32,
    pub scenario: String,
    /// The benign twin; `None` for the incident.
    pub control: Option<String>,
    /// `I2`.
    pub incident: String,
    pub title: String,
    /// Of the scenario's first variant, by which the incident is graded without `--all`.
    pub base: bool,
    /// `netns` or `kind`.
    pub backend: String,
    /// When and with what it was made.
    pub made: Made,
    pub phases: Phases,
    /// For how long the original went on.
    pub lasted: Option<Duration>,
    /// What the scenario expects detectors to find: level and subject (`cause`, `node/worker-1`).
    pub expected: Vec<(String, String)>,
    /// Families whose absolute values are scaled down, with how: `node_nf_conntrack_entries`, `1/128`.
    pub scaled: BTreeMap<String, String>,
    /// Metrics that only grow: those that their exporters declare as counters, the buckets, sums and counts of histograms
    /// and summaries, and what the node exporter passes on of the kernel's counters. All others are gauges.
    #[serde(default)]
    pub counters: BTreeSet<String>,
    pub targets: Vec<Target>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// RFC 3339.
    pub at: String,
    pub relapse: String,
    pub kernel: String,
    /// [`digest`] of the scenario file.
    pub scenario: String,
}

/// Seconds from the start of the recording. The baseline is before `fault`, the fault in force until `heal`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phases {
    pub fault: u32,
    pub heal: u32,
    pub end: u32,
}

/// What a Prometheus scrapes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub exporter: Exporter,
    /// Where it is: `node`, and where they apply `namespace`, `pod`, `service`, `address` (IP address and port) and, for
    /// probes of a blackbox exporter, `target` and `module`.
    pub place: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exporter {
    Node,
    Blackbox,
    Mysqld,
    Dns,
    Kubelet,
    Cadvisor,
    KubeProxy,
    KubeState,
}

/// One series. `up` is one of each target's.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Index of [`Header::targets`].
    pub target: usize,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub samples: Samples,
}

/// A value for each second, `None` where there is no such series. NaN and infinities are values.
pub type Samples = Vec<Option<f64>>;

/// SHA-256 of a scenario file without its comment lines, in hexadecimal digits. If it differs from the recorded one, the
/// recording may be older than the scenario.
#[must_use]
pub fn digest(scenario: &str) -> String {
    let mut hash = Sha256::new();
    for line in scenario.lines().filter(|line| !line.trim_start().starts_with('#')) {
        hash.update(line);
        hash.update("\n");
    }
    format!("{:x}", hash.finalize())
}

/// A recording that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read the recording: {0}")]
    Io(#[from] io::Error),
    #[error("its first line is not the header of a recording: {0}")]
    Header(#[from] serde_json::Error),
    #[error("its format is {0}; this relapse reads {VERSION}")]
    Version(u32),
    #[error("line {0}: not a series")]
    Line(usize),
}

impl Header {
    /// Reads the header of a recording alone.
    ///
    /// # Errors
    /// If it cannot be read, or is not that of a recording of this version.
    pub fn read(from: impl Read) -> Result<Self, Error> {
        first_line(&mut BufReader::new(GzDecoder::new(BufReader::new(from))))
    }
}

fn first_line(lines: &mut impl BufRead) -> Result<Header, Error> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let header: Header = serde_json::from_str(&line)?;
    if header.version == VERSION { Ok(header) } else { Err(Error::Version(header.version)) }
}

/// Target, metric and labels of a series.
pub type Named = (usize, String, BTreeMap<String, String>);

/// Reads which series a recording has, without their values.
///
/// # Errors
/// As [`Recording::read`].
pub fn series_of(from: impl Read) -> Result<Vec<Named>, Error> {
    let mut lines = BufReader::new(GzDecoder::new(BufReader::new(from)));
    first_line(&mut lines)?;
    let mut series = Vec::new();
    let mut line = String::new();
    for number in 2.. {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            break;
        }
        let read = line.split_once(' ').and_then(|(target, rest)| {
            let name = rest.split(['{', ' ']).next()?;
            Some((target.parse().ok()?, name.to_owned(), labels_of(rest)?.0))
        });
        series.push(read.ok_or(Error::Line(number))?);
    }
    Ok(series)
}

impl Recording {
    /// # Errors
    /// If writing fails.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let mut out = GzEncoder::new(to, Compression::best());
        serde_json::to_writer(&mut out, &self.header)?;
        writeln!(out)?;
        for series in &self.series {
            writeln!(out, "{} {} {}", series.target, selector(&series.name, &series.labels), values(&series.samples))?;
        }
        out.finish()?.flush()
    }

    /// Reads a recording; of its series only those that `wanted` keeps by metric name.
    ///
    /// # Errors
    /// If it cannot be read, or is not a recording of this version.
    pub fn read(from: impl Read, wanted: impl Fn(&str) -> bool) -> Result<Self, Error> {
        let mut lines = BufReader::new(GzDecoder::new(BufReader::new(from)));
        let header = first_line(&mut lines)?;
        let mut line = String::new();
        let mut series = Vec::new();
        for number in 2.. {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                break;
            }
            let (target, rest) = line.trim_end().split_once(' ').ok_or(Error::Line(number))?;
            let name = rest.split(['{', ' ']).next().unwrap_or_default();
            if wanted(name) {
                let read = parse(rest).and_then(|(labels, samples)| {
                    Some(Series { target: target.parse().ok()?, name: name.to_owned(), labels, samples })
                });
                series.push(read.ok_or(Error::Line(number))?);
            }
        }
        Ok(Self { header, series })
    }
}

/// A metric with its labels, as promtool's test files write it.
#[must_use]
pub fn selector(name: &str, labels: &BTreeMap<String, String>) -> String {
    if labels.is_empty() {
        return name.to_owned();
    }
    let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
    format!("{name}{{{}}}", labels.join(","))
}

/// Samples in the notation of promtool's test files.
#[must_use]
pub fn values(samples: &[Option<f64>]) -> String {
    let mut words = Vec::new();
    let mut rest = samples;
    while let Some(first) = rest.first() {
        let (word, length) = match first {
            None => {
                let length = rest.iter().take_while(|sample| sample.is_none()).count();
                (format!("_x{length}"), length)
            }
            Some(value) => row(*value, rest),
        };
        words.push(word);
        rest = rest.get(length..).unwrap_or_default();
    }
    words.join(" ")
}

/// The longest row of equal steps that is exact, and its length.
fn row(first: f64, samples: &[Option<f64>]) -> (String, usize) {
    let step = match samples.get(1) {
        Some(Some(second)) if first.is_finite() && second.is_finite() => second - first,
        _ => return (number(first), 1),
    };
    // promtool adds the step again and again; so does this, to be exact about what it reads.
    let mut next = first;
    let mut length = 0;
    for sample in samples {
        if sample.map(f64::to_bits) != Some(next.to_bits()) {
            break;
        }
        length += 1;
        next += step;
    }
    // Two numbers are shorter than a row, unless they are equal.
    if length < 2 || length == 2 && step != 0.0 {
        return (number(first), 1);
    }
    let sign = if step < 0.0 { "-" } else { "+" };
    (format!("{}{sign}{}x{}", number(first), number(step.abs()), length - 1), length)
}

pub fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Inf".to_owned() } else { "-Inf".to_owned() };
    }
    format!("{value}")
}

/// `name{label="value"} VALUES`, without the name.
fn parse(line: &str) -> Option<(BTreeMap<String, String>, Samples)> {
    let (labels, rest) = labels_of(line)?;
    let mut samples = Vec::new();
    for word in rest.split_ascii_whitespace() {
        expand(word, &mut samples)?;
    }
    Some((labels, samples))
}

/// The labels of `name{label="value"} VALUES`, and what follows them.
fn labels_of(line: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    let start = line.find(['{', ' '])?;
    let mut rest = line.get(start..)?;
    if rest.starts_with('{') {
        while !rest.starts_with('}') {
            let (label, after) = rest.get(1..)?.split_once('=')?;
            let mut value = serde_json::Deserializer::from_str(after).into_iter::<String>();
            labels.insert(label.to_owned(), value.next()?.ok()?);
            rest = after.get(value.byte_offset()..)?;
        }
        rest = rest.get(1..)?;
    }
    Some((labels, rest))
}

/// `1`, `1+2x3`, `_`, `_x3`.
fn expand(word: &str, samples: &mut Samples) -> Option<()> {
    let (start, times) = match word.split_once('x') {
        Some((start, times)) => (start, times.parse::<usize>().ok()?),
        None if word == "_" => ("_", 1),
        None => (word, 0),
    };
    if start == "_" {
        samples.extend(std::iter::repeat_n(None, times));
        return Some(());
    }
    // A sign that is neither the first of the word nor of an exponent separates value and step.
    let is_step = |(at, c): &(usize, char)| {
        *at > 0 && matches!(c, '+' | '-') && !start.get(..*at).is_some_and(|before| before.ends_with('e'))
    };
    let (mut value, step) = match start.char_indices().find(is_step) {
        Some((at, _)) => (start.get(..at)?.parse::<f64>().ok()?, start.get(at..)?.parse::<f64>().ok()?),
        None => (start.parse().ok()?, 0.0),
    };
    for _ in 0..=times {
        samples.push(Some(value));
        value += step;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            version: VERSION,
            scenario: "policy-route-lost".into(),
            incident: "I4".into(),
            title: "A policy table is empty".into(),
            base: true,
            backend: "netns".into(),
            made: Made {
                at: "2026-11-26T18:00:00Z".into(),
                relapse: "0.1.0".into(),
                kernel: "6.18".into(),
                scenario: String::new(),
            },
            phases: Phases { fault: 60, heal: 180, end: 240 },
            expected: vec![("cause".into(), "node/worker-2".into())],
            targets: vec![Target { exporter: Exporter::Node, place: BTreeMap::new() }],
            ..Header::default()
        }
    }

    #[test]
    fn a_recording_is_read_as_it_was_written() {
        let label = |value: &str| BTreeMap::from([("device".to_owned(), value.to_owned())]);
        let samples = |text: &str| {
            let mut samples = Samples::new();
            text.split(' ').for_each(|word| expand(word, &mut samples).unwrap());
            samples
        };
        let series =
            |labels, text| Series { target: 0, name: "node_network_up".into(), labels, samples: samples(text) };
        let written = Recording {
            header: header(),
            series: vec![
                series(label("eth1"), "1x59 _x120 1"),
                series(label("a \"quoted\"\\ name,}="), "0.1+0.1x5 1e300 -5-3x2 -Inf 1e-7 1e-7"),
                series(BTreeMap::new(), "3 5 9 2"),
            ],
        };
        let mut file = Vec::new();
        written.write(&mut file).unwrap();
        assert_eq!(Recording::read(&*file, |_| true).unwrap(), written);
        assert_eq!(Recording::read(&*file, |name| name == "up").unwrap().series, []);
        assert_eq!(Header::read(&*file).unwrap(), written.header);
        let named = written.series.iter().map(|series| (series.target, series.name.clone(), series.labels.clone()));
        assert_eq!(series_of(&*file).unwrap(), named.collect::<Vec<_>>());
    }

    #[test]
    fn nan_survives() {
        let mut samples = Samples::new();
        for word in values(&[Some(f64::NAN), Some(f64::NAN), None, Some(f64::INFINITY)]).split(' ') {
            expand(word, &mut samples).unwrap();
        }
        assert!(samples[0].unwrap().is_nan() && samples[1].unwrap().is_nan());
        assert_eq!(samples[2..], [None, Some(f64::INFINITY)]);
    }

    #[test]
    fn rows_are_short() {
        assert_eq!(values(&[Some(1.0), Some(1.0), Some(1.0), None, Some(2.0), Some(4.0)]), "1+0x2 _x1 2 4");
        assert_eq!(values(&[Some(5.0), Some(4.0), Some(3.0)]), "5-1x2");
        assert_eq!(values(&[Some(7.0)]), "7");
    }
}
