//! Waiting for conditions, with a deadline that only a failure reaches.

use std::time::{Duration, Instant};

use crate::Outcome;

/// How long anything in a lab may take before it counts as failed. Chosen: far more than the
/// slowest step needs in a debug build on a busy machine of two cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at. Chosen: short against what tests wait for, long against the
/// cost of a look.
const INTERVAL: Duration = Duration::from_millis(2);

/// Looks until `look` finds something, and gives it.
///
/// # Errors
///
/// When nothing was found within [`PATIENCE`], an error that says what was waited for.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> Outcome<T> {
    until_within(PATIENCE, what, look)
}

/// [`until`], with a limit of its own: where something must happen soon to be right.
///
/// # Errors
///
/// As [`until`].
pub fn until_within<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> Outcome<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(format!("waited {limit:?} in vain for: {what}").into());
        }
        std::thread::sleep(INTERVAL);
    }
}
