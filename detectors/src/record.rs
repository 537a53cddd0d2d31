//! Writes and reads recordings of signals, and replays them through all detectors.
//!
//! Format: JSON lines. The first line is a header (kind of file, version, the operator's configuration), every other
//! line one signal, in the order in which they reached the detectors.
//! Invariants: reading never panics, and every error names its line. A replay gives the same findings as a live run
//! that feeds signals at the time they were observed and ticks every 50 ms.
//! Left out: scenarios. A recording may come from any cluster; the comment is for people.

use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::operator::Operator;
use crate::registry::DetectorSet;
use crate::signal::Signal;
use crate::time::Time;
use crate::triage::Access;

/// The version this crate writes, and the only one it reads.
pub const VERSION: u32 = 1;
/// The interval between ticks of the detectors.
pub const TICK: Duration = Duration::from_millis(50);
/// The kind of file in the header.
const KIND: &str = "signals";
/// The longest line of a recording.
const LONGEST_LINE: u64 = 1 << 20;
/// The longest time between signals; a larger gap is a damaged recording.
const LONGEST_GAP: Duration = Duration::from_hours(1);

/// The first line of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The kind of file: "signals".
    pub relapse: String,
    pub version: u32,
    pub operator: Operator,
    /// A note for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The ways in of the flows that users may complain about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accesses: Vec<Access>,
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the recording is empty: line 1 should be its header")]
    Empty,
    #[error("line 1 is not the header of a recording of signals")]
    Header(#[source] serde_json::Error),
    #[error("line 1 says the file holds {0:?}, not signals")]
    Kind(String),
    #[error("line 1 says version {0}; supported is version {VERSION}")]
    Version(u64),
    #[error("line {line} is not a signal")]
    Signal { line: usize, source: serde_json::Error },
    #[error("line {line}, the last, is cut off")]
    Truncated { line: usize },
    #[error("line {line} is longer than {LONGEST_LINE} bytes")]
    Long { line: usize },
    #[error("line {line} is more than {} s after the signals before it", LONGEST_GAP.as_secs())]
    Gap { line: usize },
    #[error("line {line} cannot be read")]
    Read { line: usize, source: io::Error },
}

impl Header {
    /// The header of a recording of a cluster.
    #[must_use]
    pub fn of(operator: &Operator) -> Self {
        Self {
            relapse: KIND.to_owned(),
            version: VERSION,
            operator: operator.clone(),
            comment: None,
            accesses: Vec::new(),
        }
    }
}

/// Writes signals to a recording.
#[derive(Debug)]
pub struct Recorder<W: Write> {
    writer: W,
}

impl<W: Write> Recorder<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn new(writer: W, operator: &Operator, comment: Option<&str>) -> io::Result<Self> {
        Self::with(writer, &Header { comment: comment.map(str::to_owned), ..Header::of(operator) })
    }

    /// Writes this header.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn with(writer: W, header: &Header) -> io::Result<Self> {
        let mut recorder = Self { writer };
        recorder.line(header)?;
        Ok(recorder)
    }

    /// Writes one signal.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write(&mut self, signal: &Signal) -> io::Result<()> {
        self.line(signal)
    }

    /// Flushes and returns the writer.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.writer.flush()?;
        Ok(self.writer)
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.writer.write_all(&line)
    }
}

/// A recording being read: its header, then its signals.
#[derive(Debug)]
pub struct Recording<R: BufRead> {
    header: Header,
    reader: R,
    line: usize,
}

impl<R: BufRead> Recording<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// When there is none, or it is of another kind or version.
    pub fn open(mut reader: R) -> Result<Self, RecordError> {
        let line = read_line(&mut reader, 1)?.ok_or(RecordError::Empty)?;
        // Kind and version first: another version may have another header.
        let value: serde_json::Value = serde_json::from_slice(&line.bytes).map_err(RecordError::Header)?;
        if let Some(kind) = value.get("relapse").and_then(|kind| kind.as_str()).filter(|kind| *kind != KIND) {
            return Err(RecordError::Kind(kind.to_owned()));
        }
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if let Some(version) = version.filter(|version| *version != u64::from(VERSION)) {
            return Err(RecordError::Version(version));
        }
        let header = serde_json::from_value(value).map_err(RecordError::Header)?;
        Ok(Self { header, reader, line: 1 })
    }

    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The number of the last line read.
    #[must_use]
    pub const fn line(&self) -> usize {
        self.line
    }

    /// The next signal, `None` at the end.
    ///
    /// # Errors
    /// When the line is not a signal, is cut off, or cannot be read.
    pub fn next_signal(&mut self) -> Result<Option<Signal>, RecordError> {
        loop {
            let number = self.line + 1;
            let Some(line) = read_line(&mut self.reader, number)? else { return Ok(None) };
            self.line = number;
            if line.bytes.trim_ascii().is_empty() {
                continue;
            }
            return match serde_json::from_slice(&line.bytes) {
                Ok(signal) => Ok(Some(signal)),
                Err(_) if !line.complete => Err(RecordError::Truncated { line: number }),
                Err(source) => Err(RecordError::Signal { line: number, source }),
            };
        }
    }
}

struct Line {
    bytes: Vec<u8>,
    /// It ends with a line feed.
    complete: bool,
}

fn read_line(reader: &mut impl BufRead, line: usize) -> Result<Option<Line>, RecordError> {
    let mut bytes = Vec::new();
    let mut limited = Read::take(reader, LONGEST_LINE + 1);
    limited.read_until(b'\n', &mut bytes).map_err(|source| RecordError::Read { line, source })?;
    let complete = bytes.pop_if(|last| *last == b'\n').is_some();
    if bytes.is_empty() && !complete {
        return Ok(None);
    }
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST_LINE) {
        return Err(RecordError::Long { line });
    }
    Ok(Some(Line { bytes, complete }))
}

/// Feeds a set of detectors with signals and the ticks between them.
pub struct Feed {
    set: DetectorSet,
    now: Option<Time>,
    next_tick: Time,
}

impl Feed {
    #[must_use]
    pub const fn new(set: DetectorSet) -> Self {
        Self { set, now: None, next_tick: Time(0) }
    }

    /// Feeds a signal that reached the detectors at `now`, after all ticks due by then.
    pub fn signal(&mut self, now: Time, signal: &Signal) -> Vec<(Time, Finding)> {
        let mut findings = self.advance(now);
        let now = self.now.map_or(now, |latest| latest.max(now));
        findings.extend(self.set.observe(now, signal).into_iter().map(|finding| (now, finding)));
        findings
    }

    /// Advances time to `now`. The first call starts the clock; ticks follow every 50 ms.
    pub fn advance(&mut self, now: Time) -> Vec<(Time, Finding)> {
        let mut findings = Vec::new();
        match self.now {
            None => self.next_tick = now + TICK,
            Some(latest) if now <= latest => return findings,
            Some(_) => {}
        }
        self.now = Some(now);
        while self.next_tick <= now {
            let tick = self.next_tick;
            findings.extend(self.set.tick(tick).into_iter().map(|finding| (tick, finding)));
            self.next_tick = tick + TICK;
        }
        findings
    }

    /// The set of detectors.
    #[must_use]
    pub const fn set(&self) -> &DetectorSet {
        &self.set
    }
}

/// Replays a recording through all built-in detectors.
///
/// A signal is fed at the time it was observed, or at the latest time before it if it is late. There are no ticks after
/// the last signal, since the recording ends there.
///
/// # Errors
/// When the recording cannot be read.
pub fn replay(reader: impl BufRead) -> Result<Vec<(Time, Finding)>, RecordError> {
    let mut recording = Recording::open(reader)?;
    let mut feed = Feed::new(DetectorSet::new(&recording.header().operator));
    let mut findings = Vec::new();
    while let Some(signal) = recording.next_signal()? {
        if feed.now.is_some_and(|now| signal.at.since(now) > LONGEST_GAP) {
            return Err(RecordError::Gap { line: recording.line() });
        }
        findings.extend(feed.signal(signal.at, &signal));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;
    use crate::testing::{Scene, incidents, operator};

    fn recorded(scene: &Scene) -> Vec<u8> {
        let mut recorder = Recorder::new(Vec::new(), &operator(), Some("a test")).unwrap();
        for signal in &scene.signals {
            recorder.write(signal).unwrap();
        }
        recorder.finish().unwrap()
    }

    #[test]
    fn a_replay_says_what_the_live_feed_said() {
        for (name, scene) in incidents() {
            let last = scene.signals.iter().map(|signal| signal.at).max().unwrap();
            let live: Vec<_> = scene.timed.iter().filter(|(at, _)| *at <= last).cloned().collect();
            assert!(live.iter().any(|(_, finding)| finding.severity >= Severity::Warning), "{name}");
            assert_eq!(replay(&*recorded(&scene)).unwrap(), live, "{name}");
        }
    }

    #[test]
    fn errors_name_the_line_and_what_is_wrong() {
        let error = |bytes: &[u8]| replay(bytes).unwrap_err().to_string();
        let (_, scene) = incidents().remove(0);
        let good = recorded(&scene);
        let header = good.split_inclusive(|byte| *byte == b'\n').next().unwrap();
        let with = |rest: &str| [header, rest.as_bytes()].concat();

        assert_eq!(error(b""), "the recording is empty: line 1 should be its header");
        assert_eq!(error(b"\xff\n"), "line 1 is not the header of a recording of signals");
        assert_eq!(error(b"{}\n"), "line 1 is not the header of a recording of signals");
        assert_eq!(
            error(b"{\"relapse\":\"signals\",\"version\":2}\n"),
            "line 1 says version 2; supported is version 1"
        );
        assert_eq!(error(b"{\"relapse\":\"events\"}\n"), "line 1 says the file holds \"events\", not signals");
        assert_eq!(error(&with("\n{\"at\":1}\n")), "line 3 is not a signal");
        let lines = scene.signals.len() + 1;
        let cut = &good[..good.len() - 5];
        assert_eq!(error(cut), format!("line {lines}, the last, is cut off"));
        assert!(replay(&good[..good.len() - 1]).is_ok(), "a last line without its line feed is complete");
        let ahead = "{\"at\":18446744073709551615,\"node\":\"n\",\"observed\":{\"kernel-log\":{\"line\":\"\"}}}\n";
        let twice = format!("{}{ahead}", ahead.replace("18446744073709551615", "0"));
        assert_eq!(error(&with(&twice)), "line 3 is more than 3600 s after the signals before it");
        let long = "x".repeat(1 << 21);
        assert_eq!(error(&with(&long)), "line 2 is longer than 1048576 bytes");
    }

    #[test]
    fn any_damage_is_an_error_or_harmless_but_never_a_panic() {
        let (_, scene) = incidents().remove(0);
        let good = recorded(&scene);
        for position in (0..good.len()).step_by(997) {
            let mut damaged = good.clone();
            damaged[position] ^= 0x15;
            let _ = replay(&*damaged);
            let _ = replay(&good[..position]);
        }
    }
}
