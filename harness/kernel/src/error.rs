//! The error type of this crate: what was attempted, where, and the error reported by the kernel.

use std::io;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Messages are fragments that follow "failed to ...".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel returned an error.
    #[error("{what}: {source}")]
    Kernel {
        what: String,
        #[source]
        source: io::Error,
    },
    /// The kernel's answer does not follow the protocol.
    #[error("{what}: unexpected answer from the kernel: {answer}")]
    Answer { what: String, answer: String },
    /// The value read back differs from the value written.
    #[error("{what}: read back {read_back}")]
    NotInForce { what: String, read_back: String },
    /// Something other than the kernel refused the request or could not be reached.
    #[error("{what}: {why}")]
    Refused { what: String, why: String },
    /// The requested object does not exist.
    #[error("{what}: not found")]
    NotFound { what: String },
}

impl Error {
    /// An operating system error together with the operation attempted.
    pub fn kernel(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Kernel { what: what.into(), source: source.into() }
    }

    /// The `errno`, if the kernel returned one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// Adds the operation attempted to an operating system error.
pub trait Context<T> {
    /// # Errors
    /// The original error, with the operation attempted.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::kernel(what(), source))
    }
}
