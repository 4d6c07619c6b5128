//! When new flows of the namespace may be opened beside flows that exist.
//!
//! To open a flow takes as long as some dozens of frames, and an exchange of small messages meets that twice: the message
//! comes while a flow is opened, and so does the answer. One flow a turn is too many then. While flows that have been
//! there for a while are at work, a turn in which a connection was opened is followed by a pause of twice its length, so
//! that most messages find nobody in front of them; what we do not need of it is for the programs that exchange them.
//! Where none is at work, or nothing else waits to be opened, nobody waits; nor does the first datagram of a flow, of
//! which one a turn is opened: it may be a question to a resolver.

use crate::time::Instant;
use std::time::Duration;

/// Age from which a flow goes first. Chosen: a connection for one request to a machine nearby is over by then, and
/// whoever opens these does not hold up himself.
const SETTLED: Duration = Duration::from_millis(10);

/// How long after a flow has been at work it still is. Chosen: an exchange with a service on another machine of the
/// same network.
const AT_WORK: Duration = Duration::from_micros(300);

/// Pause after a turn in which a connection was opened, as a multiple of that turn. Chosen: three times as many exchanges beside
/// connections that are opened in a loop as without.
const PAUSE: u32 = 2;

/// The longest turn that is counted. Chosen: twice what opening takes on a slow machine.
const MOST: Duration = Duration::from_micros(100);

/// Remembers who was at work, and what opening has taken.
#[derive(Debug, Default)]
pub(super) struct Openings {
    /// When a settled flow was at work last.
    at_work: Option<Instant>,
    /// When the last turn began in which a connection was opened, if others waited to be.
    opening: Option<Instant>,
    /// When the pause after it ends.
    pause_until: Instant,
    pauses: bool,
}

impl Openings {
    /// A flow of this age carries something.
    #[inline]
    pub(super) fn note_work(&mut self, now: Instant, age: Duration) {
        if age >= SETTLED {
            self.at_work = Some(now);
        }
    }

    /// Whether the next connection may be opened; to be asked once in each turn, while some wait.
    pub(super) fn may_open(&mut self, now: Instant) -> bool {
        if let Some(start) = self.opening.take() {
            self.pause_until = now + now.since(start).min(MOST) * PAUSE;
        }
        let work = self.at_work.is_some_and(|at| now.since(at) < AT_WORK);
        self.pauses = work && now < self.pause_until;
        !self.pauses
    }

    /// Whether none may be opened in this turn.
    pub(super) fn pauses(&self) -> bool {
        self.pauses
    }

    /// A connection was opened in the turn that began at `now`; whether `more` are to be.
    pub(super) fn opened(&mut self, now: Instant, more: bool) {
        self.opening = more.then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_nanos(us * 1000)
    }

    /// Flows are opened as often as they may, in turns of 30 us; gives when, in the first 300 us.
    fn opened(age: Option<Duration>, more: bool) -> Vec<u64> {
        let mut openings = Openings::default();
        let mut all = Vec::new();
        for us in (0..300).step_by(30) {
            if let Some(age) = age {
                openings.note_work(at(us), age);
            }
            if openings.may_open(at(us)) {
                openings.opened(at(us), more);
                all.push(us);
            }
        }
        all
    }

    #[test]
    fn beside_settled_flows_a_third_of_the_time_goes_into_opening() {
        assert_eq!(opened(Some(SETTLED), true), [0, 90, 180, 270]);
        let each_turn: Vec<_> = (0..300).step_by(30).collect();
        assert_eq!(opened(None, true), each_turn);
        assert_eq!(opened(Some(SETTLED - Duration::from_nanos(1)), true), each_turn);
        assert_eq!(opened(Some(SETTLED), false), each_turn, "nobody else waits");
    }

    #[test]
    fn a_pause_is_bounded_and_only_for_who_is_at_work() {
        let mut openings = Openings::default();
        openings.note_work(at(0), SETTLED);
        openings.opened(at(0), true);
        // A turn of five milliseconds.
        openings.note_work(at(5000), SETTLED);
        assert!(!openings.may_open(at(5000)));
        assert!(!openings.may_open(at(5199)));
        assert!(openings.may_open(at(5200)));

        openings.opened(at(5200), true);
        openings.note_work(at(5300), SETTLED);
        assert!(!openings.may_open(at(5300)));
        openings.note_work(at(5301), Duration::ZERO);
        assert!(!openings.may_open(at(5499)), "at work at 5300");
        openings.opened(at(8000), true);
        assert!(openings.may_open(at(8100)), "nobody is at work");
    }
}
