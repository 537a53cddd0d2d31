//! The machine-wide conntrack limit as a lab sees it: it asks, the guardian writes.
//!
//! Synchronous: an undo asks too, and must work without a runtime.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use relapse_kernel::{Error, Result};
use serde::{Deserialize, Serialize};

/// A way to the guardian, or none.
#[derive(Clone)]
pub struct HostLimit {
    line: Option<Arc<Mutex<Line>>>,
}

struct Line {
    ask: Box<dyn Fn(HostLimitRequest) -> io::Result<()> + Send>,
    replies: mpsc::Receiver<HostLimitReply>,
}

/// A limit that was written and read back.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    pub before: u64,
    pub t0: u64,
    pub t1: u64,
    pub read_back: u64,
}

impl HostLimit {
    /// No consent, or no right, to write it.
    #[must_use]
    pub const fn unavailable() -> Self {
        Self { line: None }
    }

    /// Asks by `ask` and waits for the reply.
    #[must_use]
    pub fn through(
        ask: impl Fn(HostLimitRequest) -> io::Result<()> + Send + 'static,
        replies: mpsc::Receiver<HostLimitReply>,
    ) -> Self {
        Self { line: Some(Arc::new(Mutex::new(Line { ask: Box::new(ask), replies }))) }
    }

    /// Whether the limit may be written.
    #[must_use]
    pub const fn is_available(&self) -> bool {
        self.line.is_some()
    }

    /// Writes the limit, journalled by the guardian.
    ///
    /// # Errors
    /// The guardian's refusal.
    pub fn write(&self, value: u64) -> Result<Written> {
        match self.ask(HostLimitRequest::Write(value))? {
            HostLimitReply::Written { before, t0, t1, read_back } => Ok(Written { before, t0, t1, read_back }),
            other => Err(refused(format!("write nf_conntrack_max = {value}"), &other)),
        }
    }

    /// Lets the guardian journal and watch what somebody else is about to write; what it is until then.
    ///
    /// # Errors
    /// The guardian's refusal.
    pub fn expect(&self, value: u64) -> Result<u64> {
        match self.ask(HostLimitRequest::Expect(value))? {
            HostLimitReply::Expected { before } => Ok(before),
            other => Err(refused(format!("let nf_conntrack_max = {value} be written"), &other)),
        }
    }

    /// Puts the value back that was there before.
    ///
    /// # Errors
    /// When it is no longer ours, or could not be written.
    pub fn restore(&self) -> Result<()> {
        match self.ask(HostLimitRequest::Restore)? {
            HostLimitReply::Restored => Ok(()),
            other => Err(refused("set nf_conntrack_max back".into(), &other)),
        }
    }

    fn ask(&self, request: HostLimitRequest) -> Result<HostLimitReply> {
        let what = || "ask the guardian for nf_conntrack_max".to_owned();
        let Some(line) = &self.line else {
            return Err(Error::kernel(what(), io::Error::from(io::ErrorKind::PermissionDenied)));
        };
        let line = line.lock().unwrap_or_else(PoisonError::into_inner);
        (line.ask)(request).map_err(|e| Error::kernel(what(), e))?;
        line.replies.recv().map_err(|_| Error::kernel(what(), io::Error::from(io::ErrorKind::BrokenPipe)))
    }
}

fn refused(what: String, reply: &HostLimitReply) -> Error {
    let why = match reply {
        HostLimitReply::Refused { why } => why.clone(),
        other => format!("{other:?}"),
    };
    Error::Refused { what, why }
}

/// What a fault asks of the machine-wide limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostLimitRequest {
    Write(u64),
    /// Somebody else is about to write it: journal that, and watch.
    Expect(u64),
    Restore,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostLimitReply {
    Expected { before: u64 },
    Written { before: u64, t0: u64, t1: u64, read_back: u64 },
    Restored,
    Refused { why: String },
}
