#![forbid(unsafe_code)]
//! [`Instant`]: moments as the core knows them, counted from the start of the process.
//!
//! The core reads no clock: moments come in as arguments and go out as deadlines. The shell turns the
//! runtime's clock into them.

use std::ops::Add;
use std::time::{Duration, SystemTime};

/// How often the clocks are compared at least, if there is nothing else to do.
const COMPARED: Duration = Duration::from_secs(15);
/// By how much the wall clock may have run ahead before it counts as sleep. Chosen: far more than it
/// is ever set right by while the machine is awake.
const SLEPT: Duration = Duration::from_secs(5);

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

/// Two clocks as they were when they were compared last: ours, which stands still while the machine
/// sleeps, and the wall clock, which does not.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    ours: Instant,
    wall: SystemTime,
}

impl Clocks {
    /// What both show at the start.
    pub fn new(ours: Instant, wall: SystemTime) -> Self {
        Self { ours, wall }
    }

    /// Compares what both show, and says whether the machine slept since the last time.
    pub fn have_parted(&mut self, ours: Instant, wall: SystemTime) -> bool {
        let awake = ours.since(self.ours);
        // One that was set back has not run ahead.
        let passed = wall.duration_since(self.wall).unwrap_or_default();
        *self = Self { ours, wall };
        passed > awake + SLEPT
    }

    /// When to compare them again, if nothing happens before.
    pub fn due(&self) -> Instant {
        self.ours + COMPARED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::after_start(Duration::from_secs(seconds))
    }

    fn wall(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn s22_a_sleep_shows_at_the_first_look_after_it_and_once() {
        let mut clocks = Clocks::new(at(0), wall(0));
        assert!(!clocks.have_parted(at(15), wall(15)));
        // Somebody wakes us long before the clocks are due.
        assert!(clocks.have_parted(at(16), wall(76)));
        assert_eq!(clocks.due(), at(31));
        assert!(!clocks.have_parted(at(31), wall(91)));
    }

    #[test]
    fn a_clock_that_is_set_right_or_set_back_is_no_sleep() {
        let mut clocks = Clocks::new(at(0), wall(100));
        assert!(!clocks.have_parted(at(15), wall(120)));
        assert!(!clocks.have_parted(at(30), wall(50)));
        assert!(!clocks.have_parted(at(45), wall(65)));
    }
}
