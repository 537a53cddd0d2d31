//! Writes and reads events as JSON lines.
//!
//! Job: the format of `events.jsonl`. Invariants: one event per line, written in one call and flushed, so that a killed
//! run loses at most the line being written; such an incomplete last line becomes a notice, any other bad line is an
//! error that names its number. Left out: the location of the file.

use std::io::{self, BufRead, Write};

use relapse_detectors::time::Time;

use crate::event::{RunEvent, What};

/// Why an event was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("turn an event into JSON")]
    Json(#[source] serde_json::Error),
    #[error("write an event")]
    Io(#[source] io::Error),
}

/// Why events were not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("read line {line}")]
    Io {
        line: usize,
        #[source]
        source: io::Error,
    },
    #[error("parse line {line}, which begins {begins:?}")]
    Json {
        line: usize,
        begins: String,
        #[source]
        source: serde_json::Error,
    },
}

/// Appends one event and flushes.
///
/// # Errors
/// The event cannot be serialized, or the writer fails.
pub fn append(out: &mut impl Write, event: &RunEvent) -> Result<(), WriteError> {
    let mut line = serde_json::to_vec(event).map_err(WriteError::Json)?;
    line.push(b'\n');
    out.write_all(&line).map_err(WriteError::Io)?;
    out.flush().map_err(WriteError::Io)
}

/// Reads all events. Empty lines are ignored; an incomplete last line becomes a notice, which every report shows.
///
/// # Errors
/// A line cannot be read, or is not an event.
pub fn read(mut from: impl BufRead) -> Result<Vec<RunEvent>, ReadError> {
    let mut all: Vec<RunEvent> = Vec::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let n = from.read_until(b'\n', &mut bytes).map_err(|source| ReadError::Io { line, source })?;
        if n == 0 {
            break;
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(&bytes) {
            Ok(event) => all.push(event),
            // Only the last line can be incomplete.
            Err(_) if !bytes.ends_with(b"\n") => {
                let text = format!("line {line} breaks off after {n} bytes: the run was killed while writing it");
                let at = all.last().map_or(Time(0), |event| event.at);
                all.push(RunEvent { at, what: What::Notice { text } });
            }
            Err(source) => {
                let begins = String::from_utf8_lossy(&bytes).chars().take(60).collect();
                return Err(ReadError::Json { line, begins, source });
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn written(events: &[RunEvent]) -> Vec<u8> {
        let mut file = Vec::new();
        for event in events {
            append(&mut file, event).expect("written");
        }
        file
    }

    #[test]
    fn events_survive_the_file() {
        for events in [sample::run(), sample::cached::cached(&[4_200])] {
            assert_eq!(read(written(&events).as_slice()).expect("readable"), events);
        }
    }

    #[test]
    fn what_no_cache_hid_is_written_as_by_earlier_versions() {
        let file = String::from_utf8(written(&sample::run())).expect("text");
        assert!(!file.contains("visible"), "nothing new in the file");
    }

    #[test]
    fn a_last_line_that_breaks_off_is_forgiven() {
        let events = sample::run();
        let file = written(&events[..5]);
        let back = read(&file[..file.len() - 30]).expect("readable");
        let (last, complete) = back.split_last().expect("a notice");
        assert_eq!(complete, &events[..4]);
        assert!(matches!(&last.what, What::Notice { text } if text.starts_with("line 5 breaks off")), "{last:?}");
    }

    #[test]
    fn a_bad_line_is_named() {
        let mut file = written(&sample::run()[..2]);
        file.extend_from_slice(b"{\"at\":1,\"what\":{\"invented\":{}}}\n");
        file.extend_from_slice(&written(&sample::run()[..1]));
        let error = read(file.as_slice()).expect_err("line 3 is no event");
        assert!(error.to_string().starts_with("parse line 3"), "{error}");
    }
}
