//! Registers descriptors with the tokio runtime.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers the owner of a descriptor with the current runtime.
pub(crate) fn watched<T: AsFd + AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: an implementor of `AsFd` keeps its descriptor open for its lifetime, and only shared references to the
    // owner are given out from here on, so the descriptor is neither replaced nor closed while it is registered.
    Ok(unsafe { AsyncFd::register_with_interest(owner, interest) }?)
}
