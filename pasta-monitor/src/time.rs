#![forbid(unsafe_code)]
//! [`Instant`]: moments as the core knows them, counted from the start of the process.
//!
//! The core reads no clock: moments come in as arguments and go out as deadlines. The shell turns the
//! runtime's clock into them.

use std::ops::Add;
use std::time::Duration;

/// A moment, counted from the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    /// The start of the process.
    pub const START: Self = Self(Duration::ZERO);

    /// The moment `elapsed` after the start.
    pub fn after_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How long after the start it is.
    pub fn since_start(self) -> Duration {
        self.0
    }

    /// How long after `earlier` it is; nothing if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

/// The earlier of two deadlines, where there are any.
pub fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
