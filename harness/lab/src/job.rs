//! Asynchronous work on a cluster that may fail.

use std::future::Future;
use std::pin::Pin;

use relapse_detectors::time::Time;

/// Why a fault could not be injected, read back or undone.
pub type FaultError = relapse_kernel::Error;

/// The current time on the clock used by every part of a run.
#[must_use]
pub fn now() -> Time {
    Time(relapse_kernel::clock::now())
}

/// Blocks on a job of the cluster. For undos, which are synchronous.
///
/// # Errors
/// The error of the job.
pub fn wait_for<T>(job: Job<'_, T>) -> T {
    tokio::runtime::Handle::current().block_on(job)
}

/// A boxed future, for use in trait objects.
pub type Job<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
