#![forbid(unsafe_code)]
//! When the counters are to be shown (`--stats`): at most once in an interval, and only if they have changed.

use crate::time::Instant;
use std::num::NonZeroU32;
use std::time::Duration;

/// The interval, and what was shown last.
#[derive(Debug)]
pub(super) struct Statistics {
    interval: Duration,
    next: Instant,
    shown: String,
    /// Whether something has happened since the last look.
    active: bool,
}

impl Statistics {
    /// Every `seconds` at most, for the first time that long after `now`.
    pub(super) fn new(seconds: NonZeroU32, now: Instant) -> Self {
        let interval = Duration::from_secs(seconds.get().into());
        Self { interval, next: now + interval, shown: String::new(), active: false }
    }

    /// Notes that something has happened, and gives what is to be shown at `now`; `line` makes the present
    /// line.
    pub(super) fn due(&mut self, now: Instant, line: impl FnOnce() -> String) -> Option<&str> {
        self.active = now < self.next;
        if self.active {
            return None;
        }
        self.next = now + self.interval;
        let line = line();
        if line == self.shown {
            return None;
        }
        self.shown = line;
        Some(&self.shown)
    }

    /// When to look again although nothing else happens: after traffic, so that its end shows; an idle
    /// system is not woken.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.active.then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_shown_once_an_interval_and_only_if_it_has_changed() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let mut statistics = Statistics::new(NonZeroU32::new(2).unwrap(), at(0));
        let mut due = |now, line: &str| statistics.due(at(now), || line.to_owned()).is_some();
        assert!(!due(1, "a"));
        assert!(due(2, "a"));
        assert!(!due(3, "b"));
        assert!(due(4, "b"));
        assert!(!due(6, "b"));
        assert!(due(8, "c"));
    }

    #[test]
    fn idle_system_is_not_woken() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let mut statistics = Statistics::new(NonZeroU32::new(2).unwrap(), at(0));
        assert_eq!(statistics.deadline(), None);
        statistics.due(at(1), || "a".into());
        assert_eq!(statistics.deadline(), Some(at(2)));
        // The wake-up itself is no activity.
        statistics.due(at(2), || "a".into());
        assert_eq!(statistics.deadline(), None);
    }
}
