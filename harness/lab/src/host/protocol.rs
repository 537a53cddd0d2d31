//! What a run and its guardian say to each other: one JSON object a line, over the guardian's
//! standard input and output. A lab asks for the limit, through its run, in the same words.
//!
//! Each request has one reply; [`Reply::Waiting`] may come before the one to [`Request::Acquire`], and
//! [`Reply::Alarm`] at any time. The end of the input is a request too, the last one: restore and go.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::identity::Process;
use super::restore::Undone;
use super::{CONNTRACK_MAX, Error, Result};

/// From the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Take the lock, wait for it if need be, and undo what dead guardians left.
    Acquire { run_id: String, run: Process },
    /// Network namespaces in `own` belong to the run and are not protected from it.
    Limit { ask: LimitRequest, own: Vec<u64> },
}

/// What is asked of the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitRequest {
    /// Write it.
    Write(u32),
    /// Somebody else is about to write it for the run: journal that and watch, write nothing.
    Expect(u32),
    /// Set it back; the lock is kept.
    Restore,
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
    Limit(LimitReply),
    /// It failed, or was refused because it would harm another network namespace.
    Error {
        what: String,
    },
    /// Unasked: something threatens to go wrong; the limit was restored at once.
    Alarm {
        why: String,
    },
}

/// What became of the limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitReply {
    /// In force.
    Written(LimitWrite),
    /// Journalled and watched; it is still this.
    Expected(u32),
    Restored(Restore),
}

/// The limit as written and read back. Times are `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitWrite {
    pub before: u32,
    /// Right before the write.
    pub t0: u64,
    /// After it was read back.
    pub t1: u64,
    pub read_back: u32,
}

/// What became of a limit that was to be set back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restore {
    /// It has its old value again.
    Restored { value: u32 },
    /// Somebody else wrote it since; left as it is.
    NotOurs { found: String, expected: String },
    /// Nothing was in force, or who got the lock after a dead guardian restored it already.
    Nothing,
}

impl Restore {
    /// From what was undone.
    ///
    /// # Errors
    /// When what was set back is no number.
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

/// Writes one line, in one write so that lines of several threads never mix, and hands it over.
///
/// # Errors
/// When the other end is gone.
pub fn send(to: &mut dyn Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}
