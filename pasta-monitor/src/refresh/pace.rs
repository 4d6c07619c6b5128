//! How often something may be done that others can make dear.

use crate::time::Instant;
use std::time::Duration;

/// Of the time, what is spent is at most one part in so many. Chosen: what a storm costs is below five per cent with what
/// is not counted here. Measured, routes and addresses: 2.2 and 3.0 %, and 4.5 and 6.9 with 25.
const SHARE: u32 = 50;
/// What is dear. Chosen: a tenth of the time in which the host's changes are followed.
const DEAR: Duration = Duration::from_millis(10);
/// Longest pause. Chosen: what a namespace's users change is noticed then, whatever else they do.
const LONGEST: Duration = Duration::from_secs(5);

/// Says when something that costs processor time may be done again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace {
    next: Instant,
    /// What it has cost the last time.
    cost: Duration,
}

impl Pace {
    /// When it may be done.
    pub(super) fn next(self) -> Instant {
        self.next
    }

    /// Whether it cost so much that who is in a hurry does without.
    pub(super) fn is_dear(self) -> bool {
        self.cost > DEAR
    }

    /// It was done until `now`, which took so much. What was done before its time is paid for with the next.
    pub(super) fn spent(&mut self, now: Instant, cost: Duration) {
        self.cost = cost;
        let pause = cost.saturating_mul(SHARE - 1).min(LONGEST);
        self.next = (self.next.max(now) + pause).min(now + LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::START + Duration::from_millis(ms)
    }

    #[test]
    fn what_is_dear_is_done_seldom() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(), at(0));
        pace.spent(at(100), Duration::from_millis(1));
        assert_eq!(pace.next(), at(149));
        assert!(!pace.is_dear());
        pace.spent(at(120), Duration::from_millis(2));
        assert_eq!(pace.next(), at(149 + 98), "in the pause");
        pace.spent(at(100), Duration::from_secs(60));
        assert_eq!(pace.next(), at(5100));
        assert!(pace.is_dear());
    }
}
