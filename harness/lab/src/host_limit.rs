//! The machine-wide conntrack limit from inside a lab, which sends requests that the guardian carries out.
//!
//! Synchronous, because undos use it too and must work without a runtime.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use relapse_kernel::{Error, Result};

use crate::host::protocol::{LimitReply, LimitRequest, LimitWrite, Restore};

/// A connection to the guardian, if there is one.
#[derive(Clone)]
pub struct HostLimit {
    line: Option<Arc<Mutex<Line>>>,
}

/// The guardian's reply, or why it refused.
pub type Answer = std::result::Result<LimitReply, String>;

struct Line {
    ask: Box<dyn Fn(LimitRequest) -> io::Result<()> + Send>,
    replies: mpsc::Receiver<Answer>,
}

impl HostLimit {
    /// Without a guardian: there is no consent or no permission to write the limit.
    #[must_use]
    pub const fn unavailable() -> Self {
        Self { line: None }
    }

    /// Sends requests through `ask` and receives `replies`.
    #[must_use]
    pub fn through(
        ask: impl Fn(LimitRequest) -> io::Result<()> + Send + 'static,
        replies: mpsc::Receiver<Answer>,
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
    pub fn write(&self, value: u64) -> Result<LimitWrite> {
        let what = || format!("write nf_conntrack_max = {value}");
        match self.ask(LimitRequest::Write(fitting(value, what)?), what)? {
            LimitReply::Written(written) => Ok(written),
            other => Err(refused(what(), format!("{other:?}"))),
        }
    }

    /// Lets the guardian journal and watch a value about to be written by another process; returns the current value.
    ///
    /// # Errors
    /// The guardian's refusal.
    pub fn expect(&self, value: u64) -> Result<u64> {
        let what = || format!("let nf_conntrack_max = {value} be written");
        match self.ask(LimitRequest::Expect(fitting(value, what)?), what)? {
            LimitReply::Expected(before) => Ok(before.into()),
            other => Err(refused(what(), format!("{other:?}"))),
        }
    }

    /// Restores the previous value.
    ///
    /// # Errors
    /// When another process has changed it, or it could not be written.
    pub fn restore(&self) -> Result<()> {
        let what = || "restore nf_conntrack_max".to_owned();
        match self.ask(LimitRequest::Restore, what)? {
            LimitReply::Restored(Restore::NotOurs { found, expected }) => {
                let why = format!("another process changed it from {expected} to {found}; left as it is");
                Err(refused(what(), why))
            }
            _ => Ok(()),
        }
    }

    fn ask(&self, request: LimitRequest, what: impl Fn() -> String) -> Result<LimitReply> {
        let unreachable = |error| Error::kernel("ask the guardian for nf_conntrack_max", error);
        let Some(line) = &self.line else { return Err(unreachable(io::ErrorKind::PermissionDenied.into())) };
        let line = line.lock().unwrap_or_else(PoisonError::into_inner);
        (line.ask)(request).map_err(unreachable)?;
        let answer = line.replies.recv().map_err(|_| unreachable(io::ErrorKind::BrokenPipe.into()))?;
        answer.map_err(|why| refused(what(), why))
    }
}

fn fitting(value: u64, what: impl Fn() -> String) -> Result<u32> {
    u32::try_from(value).map_err(|_| refused(what(), format!("{value} is larger than the kernel's limit can be")))
}

const fn refused(what: String, why: String) -> Error {
    Error::Refused { what, why }
}
