//! The one error of this crate: what was attempted, where, and what the kernel said.

use std::io;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Fragments that fit after "failed to ...".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error("{what}: {source}")]
    Kernel {
        what: String,
        #[source]
        source: io::Error,
    },
    /// The kernel's answer was not what the protocol promises.
    #[error("{what}: unexpected answer from the kernel: {answer}")]
    Answer { what: String, answer: String },
    /// What was written is not what is read back.
    #[error("{what}: read back {read_back}")]
    NotInForce { what: String, read_back: String },
    /// Somebody other than the kernel refused, or was not to be reached.
    #[error("{what}: {why}")]
    Refused { what: String, why: String },
    /// The thing asked for is not there.
    #[error("{what}: not found")]
    NotFound { what: String },
}

impl Error {
    /// An error of the operating system, with what was attempted.
    pub fn kernel(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Kernel { what: what.into(), source: source.into() }
    }

    /// The `errno`, where the kernel gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// Adds what was attempted to an error of the operating system.
pub trait Context<T> {
    /// # Errors
    /// The same error, told with what was attempted.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::kernel(what(), source))
    }
}
