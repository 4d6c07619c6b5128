//! Whether to look again before sleeping.
//!
//! In an exchange of messages the two ends have their turns one after the other, and what comes next is
//! some microseconds away. To sleep and be woken costs several times that, twice for each exchange. So
//! after a small turn of the one end that followed one of the other not long before, the loop looks for
//! events for a moment before it sleeps. It does not in a stream of one end: there, what waits meanwhile
//! is handled together, which is worth more.
//!
//! The ends are the tap and the sockets behind it, or the two sockets of a spliced connection.
//!
//! Looking in vain costs others processor time. After each failure twice as many chances are left out as
//! after the one before, so that an idle or overloaded machine hardly notices.

use std::time::Duration;

/// How long to look; chosen: longer than an exchange with a service on this machine takes, shorter than
/// two wake-ups of a sleeping processor of a virtual machine.
pub(super) const BUSY_POLL_TIME: Duration = Duration::from_micros(50);

/// Chances left out after so many failures in a row are two to this power at most.
const MAX_FAILURES: u8 = 10;

/// Turns of one kind after which an exchange has become a stream; chosen: an acknowledgement, a request
/// and the end of a connection may come one by one.
const STREAM: u8 = 4;

/// What a turn of the loop was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// A frame or two from the namespace, both small, or little from who opened a spliced connection.
    Near,
    /// Little for the namespace from sockets, or from the target of a spliced connection.
    Far,
    /// Much of either, both, or neither.
    Other,
}

/// Remembers turns and failures.
#[derive(Debug)]
pub(super) struct BusyPoll {
    last: Turn,
    /// Turns since the last one of the near end, and of the far end.
    since: (u8, u8),
    alternates: bool,
    failures: u8,
    left_out: u32,
}

impl BusyPoll {
    pub(super) const fn new() -> Self {
        Self {
            last: Turn::Other,
            since: (STREAM, STREAM),
            alternates: false,
            failures: 0,
            left_out: 0,
        }
    }

    /// Whether the last turn was one of the far end.
    pub(super) fn follows_far(&self) -> bool {
        self.last == Turn::Far
    }

    /// Notes what a turn was about.
    pub(super) fn note(&mut self, turn: Turn) {
        let (near, far) = self.since;
        self.since = (near.saturating_add(1), far.saturating_add(1));
        let other = match turn {
            Turn::Near => {
                self.since.0 = 0;
                far
            }
            Turn::Far => {
                self.since.1 = 0;
                near
            }
            Turn::Other => STREAM,
        };
        self.alternates = other < STREAM;
        self.last = turn;
    }

    /// Whether to look for events before sleeping.
    pub(super) fn looks(&mut self) -> bool {
        if !self.alternates {
            return false;
        }
        if self.left_out > 0 {
            self.left_out -= 1;
            return false;
        }
        true
    }

    /// Notes that looking has found something.
    pub(super) fn found(&mut self) {
        self.failures = 0;
    }

    /// Notes that looking has found nothing.
    pub(super) fn failed(&mut self) {
        self.failures = (self.failures + 1).min(MAX_FAILURES);
        self.left_out = 1 << self.failures;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_turns_that_alternate_are_looked_behind() {
        let mut busy_poll = BusyPoll::new();
        let mut looks = |turn| {
            busy_poll.note(turn);
            busy_poll.looks()
        };
        assert!(!looks(Turn::Near) && !looks(Turn::Near));
        assert!(looks(Turn::Far) && looks(Turn::Near));
        assert!(looks(Turn::Near) && looks(Turn::Near) && looks(Turn::Near) && !looks(Turn::Near));
        assert!(looks(Turn::Far) && !looks(Turn::Other));
        for _ in 0..STREAM {
            looks(Turn::Far);
        }
        assert!(!looks(Turn::Far), "a stream in");
    }

    #[test]
    fn failures_are_repeated_ever_more_rarely_until_one_succeeds() {
        let mut busy_poll = BusyPoll::new();
        let mut chances = 0;
        for failures in 1..=20 {
            loop {
                chances += 1;
                busy_poll.note(if chances % 2 == 0 { Turn::Near } else { Turn::Far });
                if busy_poll.looks() {
                    break;
                }
            }
            busy_poll.failed();
            assert!(chances >= 1 << failures.min(10), "{failures} failures in {chances} chances");
        }
        busy_poll.left_out = 0;
        busy_poll.found();
        assert!(busy_poll.looks());
    }
}
