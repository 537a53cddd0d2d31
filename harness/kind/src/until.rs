//! Polling without an async runtime.

use std::time::{Duration, Instant};

/// Polling interval.
const LOOK: Duration = Duration::from_millis(20);

/// Calls `look` until it returns a value. `late` describes the state in the timeout error.
///
/// # Errors
/// The error of `look`, a timeout, or "stopped".
pub fn until<T>(
    limit: Duration,
    stop: &dyn Fn() -> bool,
    late: impl Fn() -> String,
    mut look: impl FnMut() -> Result<Option<T>, String>,
) -> Result<T, String> {
    let begin = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if stop() {
            return Err("stopped".into());
        }
        if begin.elapsed() > limit {
            return Err(format!("{} within {} s", late(), limit.as_secs()));
        }
        std::thread::sleep(LOOK);
    }
}
