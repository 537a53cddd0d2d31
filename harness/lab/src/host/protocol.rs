//! What a run and its guardian say to each other: one JSON object a line, over the guardian's
//! standard input and output.
//!
//! Each request has one reply; [`Reply::Waiting`] may come before the one to [`Request::Acquire`], and
//! [`Reply::Alarm`] at any time. The end of the input is a request too, the last one: restore and go.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::identity::Process;
use super::lock::Who;

/// From the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Take the lock, wait for it if need be, and undo what dead guardians left.
    Acquire { who: Who, run: Process },
    /// Write the limit. Network namespaces in `own` belong to the run and are not protected from it.
    Write {
        value: u32,
        #[serde(default)]
        own: Vec<u64>,
    },
    /// Somebody else is about to write the limit for the run: journal it and watch, write nothing.
    Expect {
        value: u32,
        #[serde(default)]
        own: Vec<u64>,
    },
    /// Set it back; the lock is kept.
    Restore,
    /// Set it back and end.
    Bye,
}

/// From the guardian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Somebody else has the lock; said again when it is another.
    Waiting {
        holder: String,
    },
    /// The lock is ours; `recovered` says what dead guardians had left, in words.
    Acquired {
        recovered: Vec<String>,
    },
    /// In force. `t0` is right before the write, `t1` after reading back: `CLOCK_MONOTONIC`, ns.
    Written {
        before: u32,
        t0: u64,
        t1: u64,
        read_back: u32,
    },
    /// Journalled and watched; it is still this.
    Expected {
        before: u32,
    },
    /// The limit has its old value again.
    Restored {
        value: u32,
    },
    /// Somebody else wrote it since; left as it is.
    NotOurs {
        found: String,
        expected: String,
    },
    /// Nothing had been written.
    Nothing,
    /// It would harm another network namespace; nothing was written.
    Refused {
        why: String,
    },
    Error {
        what: String,
    },
    /// Unasked: something threatens to go wrong; the limit was restored at once.
    Alarm {
        why: String,
    },
}

/// Writes one line and hands it over.
///
/// # Errors
/// When the other end is gone.
pub fn send(to: &mut dyn Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_each() {
        let who = Who { run: "r".into(), what: "two\nlines".into() };
        let request = Request::Acquire { who, run: Process { pid: 1, start: 2 } };
        let mut sent = Vec::new();
        send(&mut sent, &request).unwrap();
        let text = String::from_utf8(sent).unwrap();
        assert_eq!(
            text,
            "{\"acquire\":{\"who\":{\"run\":\"r\",\"what\":\"two\\nlines\"},\"run\":{\"pid\":1,\"start\":2}}}\n"
        );
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        assert_eq!(serde_json::from_str::<Request>("\"restore\"").unwrap(), Request::Restore);
        let plain = serde_json::from_str::<Request>(r#"{"write":{"value":5}}"#).unwrap();
        assert_eq!(plain, Request::Write { value: 5, own: Vec::new() });
    }
}
