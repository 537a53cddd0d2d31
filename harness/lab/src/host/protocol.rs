//! The protocol between a run and its guardian: one JSON object per line, over the guardian's
//! standard input and output. A lab's requests for the limit are relayed by its run in the same format.
//!
//! Each request has one reply; [`Reply::Waiting`] may precede the one to [`Request::Acquire`], and
//! [`Reply::Alarm`] may arrive at any time. The end of the input is the last request: restore and exit.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::identity::Process;
use super::restore::Undone;
use super::{CONNTRACK_MAX, Error, Result};

/// Sent by the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Take the lock, wait for it if need be, and undo what dead guardians left.
    Acquire { run_id: String, run: Process },
    /// Network namespaces in `own` belong to the run and are not protected from it.
    Limit { ask: LimitRequest, own: Vec<u64> },
}

/// A request about the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitRequest {
    /// Write the limit.
    Write(u32),
    /// Another process is about to write it for the run: journal and watch the value, write nothing.
    Expect(u32),
    /// Restore it; the lock is kept.
    Restore,
}

/// Sent by the guardian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Other processes hold the lock; sent again when they change.
    Waiting {
        holder: String,
    },
    /// The lock is taken; `recovered` describes what dead guardians had left.
    Acquired {
        recovered: Vec<String>,
    },
    Limit(LimitReply),
    /// The request failed, or was refused because it would harm another network namespace.
    Error {
        what: String,
    },
    /// Not a reply: another namespace was about to be harmed, and the limit was restored.
    Alarm {
        why: String,
    },
}

/// The reply to a [`LimitRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitReply {
    /// In force.
    Written(LimitWrite),
    /// Journalled and watched; the current value.
    Expected(u32),
    Restored(Restore),
}

/// The limit as written and read back. Times are `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitWrite {
    pub before: u32,
    /// Immediately before the write.
    pub t0: u64,
    /// After it was read back.
    pub t1: u64,
    pub read_back: u32,
}

/// The result of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restore {
    /// It has its old value again.
    Restored { value: u32 },
    /// Another process has written it since; left unchanged.
    NotOurs { found: String, expected: String },
    /// Nothing was in force, or the process that got the lock after a dead guardian has restored it already.
    Nothing,
}

impl Restore {
    /// From what was undone.
    ///
    /// # Errors
    /// When the restored value is not a number.
    pub(super) fn of(undone: Vec<Undone>) -> Result<Self> {
        Ok(match undone.into_iter().next() {
            Some(Undone::Restored { value, .. } | Undone::Already { value, .. }) => {
                Self::Restored { value: number(&value)? }
            }
            Some(Undone::NotOurs { found, expected, .. }) => Self::NotOurs { found, expected },
            Some(Undone::Removed { .. }) | None => Self::Nothing,
        })
    }
}

pub(super) fn number(text: &str) -> Result<u32> {
    text.parse()
        .map_err(|_| Error::Unsafe { what: format!("read {CONNTRACK_MAX}"), why: format!("{text:?} is not a number") })
}

/// Writes one line in a single write, so that lines of several threads never mix, and flushes.
///
/// # Errors
/// When the other end is gone.
pub fn send(to: &mut dyn Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}
