//! Waiting without a runtime, for what nobody announces.

use std::time::{Duration, Instant};

/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// Looks again and again until there is something; `late` says what there is instead, once it took too long.
///
/// # Errors
/// What could not be looked at; that it took too long, or is no longer wanted ("stopped").
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
