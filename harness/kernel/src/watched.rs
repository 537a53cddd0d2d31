//! Descriptors whose readiness the runtime waits for.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers what owns a descriptor with the runtime that the thread is in.
pub(crate) fn watched<T: AsFd + AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: whoever implements `AsFd` keeps its descriptor open while it lives, and only shared references to it are
    // handed out from here on, so it is neither replaced nor closed while it is registered.
    Ok(unsafe { AsyncFd::register_with_interest(owner, interest) }?)
}
