#![forbid(unsafe_code)]
//! [`Instant`]: moments as the core knows them, counted from the start of the process.
//!
//! The core reads no clock: moments come in as arguments and go out as deadlines. The shell turns the
//! runtime's clock into them.

use std::ops::Add;
use std::time::{Duration, SystemTime};

/// How often the clocks are compared at least, if there is nothing else to do.
const COMPARED: Duration = Duration::from_secs(15);
/// By how much the clock that counts sleep may have run ahead before it counts as sleep. Chosen: they are not
/// read at the same moment, and a look too many costs little.
const NAPPED: Duration = Duration::from_secs(1);
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

/// What other clocks show than ours, which stands still while the machine sleeps.
#[derive(Clone, Copy, Debug)]
pub struct OtherClocks {
    /// The time since the machine was started, with the time that it slept (`CLOCK_BOOTTIME`).
    pub boot: Duration,
    /// The wall clock: it alone shows that a virtual machine was stopped.
    pub wall: SystemTime,
}

/// The clocks as they were when they were compared last.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    ours: Instant,
    others: OtherClocks,
}

impl Clocks {
    /// What they show at the start.
    pub fn new(ours: Instant, others: OtherClocks) -> Self {
        Self { ours, others }
    }

    /// Compares what they show, and says whether the machine slept since the last time.
    pub fn have_parted(&mut self, ours: Instant, others: OtherClocks) -> bool {
        let awake = ours.since(self.ours);
        let passed = others.boot.saturating_sub(self.others.boot);
        // One that was set back has not run ahead.
        let wall = others.wall.duration_since(self.others.wall).unwrap_or_default();
        *self = Self { ours, others };
        passed > awake + NAPPED || wall > awake + SLEPT
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

    fn others(boot: u64, wall: u64) -> OtherClocks {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + wall);
        OtherClocks { boot: Duration::from_secs(boot), wall }
    }

    /// The wall clock alone; the other one does not know of sleep.
    fn wall(ours: u64, wall: u64) -> OtherClocks {
        others(ours, wall)
    }

    #[test]
    fn s22_a_sleep_shows_at_the_first_look_after_it_and_once() {
        let mut clocks = Clocks::new(at(0), wall(0, 0));
        assert!(!clocks.have_parted(at(15), wall(15, 15)));
        // Somebody wakes us long before the clocks are due.
        assert!(clocks.have_parted(at(16), wall(16, 76)));
        assert_eq!(clocks.due(), at(31));
        assert!(!clocks.have_parted(at(31), wall(31, 91)));
    }

    #[test]
    fn a_sleep_shows_whatever_becomes_of_the_wall_clock() {
        let mut clocks = Clocks::new(at(0), others(100, 100));
        assert!(!clocks.have_parted(at(3600), others(3700, 3700)));
        assert!(clocks.have_parted(at(3601), others(3704, 50)));
        assert!(!clocks.have_parted(at(3602), others(3705, 51)));
    }

    #[test]
    fn a_clock_that_is_set_right_or_set_back_is_no_sleep() {
        let mut clocks = Clocks::new(at(0), wall(0, 100));
        assert!(!clocks.have_parted(at(15), wall(15, 120)));
        assert!(!clocks.have_parted(at(30), wall(30, 50)));
        assert!(!clocks.have_parted(at(45), wall(45, 65)));
    }
}
