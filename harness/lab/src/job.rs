//! Work on a cluster that takes its time and may fail.

use std::future::Future;
use std::pin::Pin;

use relapse_detectors::time::Time;

/// Why a fault could not be made, read back or undone.
pub type FaultError = relapse_kernel::Error;

/// The instant now, as every part of a run counts it.
#[must_use]
pub fn now() -> Time {
    Time(relapse_kernel::clock::now())
}

/// Waits for a job of the cluster from an undo, which has no runtime of its own to wait in.
///
/// # Errors
/// The job's own.
pub fn wait_for<T>(job: Job<'_, T>) -> T {
    tokio::runtime::Handle::current().block_on(job)
}

/// A boxed future, as trait objects need it.
pub type Job<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
