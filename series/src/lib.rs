//! What exporters exported during a trial, once a second.
//!
//! A file is text under gzip: a line of JSON ([`Header`]), then a line for each series: the index of its target, the
//! metric with its labels, and its values in the notation of promtool's test files, one for each second from the start
//! (`1+2x4` is 1, 3, 5, 7, 9; `_x3` are three seconds without the series). Labels that a reader's Prometheus adds (`job`,
//! `instance`) are not part of it: a target says what it is, and the reader's configuration decides how it is labelled.

mod notation;
pub mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use notation::{number, selector, values};

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
    let mut all = Vec::new();
    read(from, |target, name, rest| {
        all.push((target, name.to_owned(), notation::labels_of(rest)?.0));
        Some(())
    })?;
    Ok(all)
}

/// Gives target, metric, and what follows the target, of each series to `each`, which returns `None` for what it cannot
/// read.
fn read(from: impl Read, mut each: impl FnMut(usize, &str, &str) -> Option<()>) -> Result<Header, Error> {
    let mut lines = BufReader::new(GzDecoder::new(BufReader::new(from)));
    let header = first_line(&mut lines)?;
    let mut line = String::new();
    for number in 2.. {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            break;
        }
        let read = line
            .trim_end()
            .split_once(' ')
            .and_then(|(target, rest)| each(target.parse().ok()?, rest.split(['{', ' ']).next()?, rest));
        read.ok_or(Error::Line(number))?;
    }
    Ok(header)
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
        let mut series = Vec::new();
        let header = read(from, |target, name, rest| {
            if wanted(name) {
                let (labels, samples) = notation::parse(rest)?;
                series.push(Series { target, name: name.to_owned(), labels, samples });
            }
            Some(())
        })?;
        Ok(Self { header, series })
    }
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
        let samples = |text: &str| notation::parse(&format!(" {text}")).unwrap().1;
        let series =
            |labels, text| Series { target: 0, name: "node_network_up".into(), labels, samples: samples(text) };
        let written = Recording {
            header: header(),
            series: vec![
                series(label("eth1"), "1x59 _x120 1"),
                series(
                    label("a \"quoted\"\\ name,}= soft\u{ad}hyphen, zero\0, tab\t"),
                    "0.1+0.1x5 1e300 -5-3x2 -Inf 1e-7 1e-7",
                ),
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
}
