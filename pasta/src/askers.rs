//! Who has asked the monitor for its status, until it answers, which it does in order.
//!
//! A monitor that is stopped, or hangs, answers nothing, and nothing else tells of that: nobody asks it anything while
//! all is well. So an answer that does not come in time is a line of the log.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long an answer may take. Chosen: thousands of times as long as it does take, and short enough for who waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many may wait. Chosen: more than there are clients, whom the control socket bounds.
const MOST: usize = 64;

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// SIGUSR1: to the log.
    Log,
    /// To a client of the control socket.
    Control,
}

/// Those who wait, the first one first.
#[derive(Debug, Default)]
pub(crate) struct Askers {
    waiting: VecDeque<(Asker, Instant)>,
    /// It was said that the first one waits for long.
    is_said: bool,
}

impl Askers {
    /// Whether another one may ask.
    pub(crate) fn have_room(&self) -> bool {
        self.waiting.len() < MOST
    }

    /// `asker` has asked at `now`.
    pub(crate) fn add(&mut self, asker: Asker, now: Instant) {
        self.waiting.push_back((asker, now));
    }

    /// An answer has come; whose it is. None: that of the start, for which nobody asks.
    pub(crate) fn answered(&mut self) -> Option<Asker> {
        self.is_said = false;
        self.waiting.pop_front().map(|(asker, _)| asker)
    }

    /// There is nobody who would answer.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When the first one has waited for too long.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let (_, since) = self.waiting.front().filter(|_| !self.is_said)?;
        Some(*since + PATIENCE)
    }

    /// Whether it is to be said at `now` that the first one waits for too long; once for each time that it is so.
    pub(crate) fn is_late(&mut self, now: Instant) -> bool {
        let is_late = self.next_deadline().is_some_and(|at| at <= now);
        self.is_said |= is_late;
        is_late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_for_those_who_asked_in_order() {
        let (mut askers, now) = (Askers::default(), Instant::now());
        assert_eq!(askers.answered(), None);
        askers.add(Asker::Log, now);
        askers.add(Asker::Control, now);
        assert_eq!(
            [askers.answered(), askers.answered()],
            [Some(Asker::Log), Some(Asker::Control)]
        );
        assert_eq!((askers.answered(), askers.next_deadline()), (None, None));
    }

    #[test]
    fn late_answer_is_said_once_and_again_when_the_next_is_late() {
        let (mut askers, now) = (Askers::default(), Instant::now());
        askers.add(Asker::Log, now);
        askers.add(Asker::Log, now + Duration::from_secs(1));
        assert!(!askers.is_late(now + PATIENCE - Duration::from_millis(1)));
        assert_eq!(askers.next_deadline(), Some(now + PATIENCE));
        assert!(askers.is_late(now + PATIENCE));
        // Once said, nobody is woken for it.
        assert_eq!(askers.next_deadline(), None);
        assert!(!askers.is_late(now + 2 * PATIENCE));
        askers.answered();
        assert!(askers.is_late(now + 2 * PATIENCE));
        askers.clear();
        assert!(!askers.is_late(now + 9 * PATIENCE));
    }

    #[test]
    fn few_may_wait() {
        let (mut askers, now) = (Askers::default(), Instant::now());
        for _ in 0..MOST {
            assert!(askers.have_room());
            askers.add(Asker::Log, now);
        }
        assert!(!askers.have_room());
        askers.answered();
        assert!(askers.have_room());
    }
}
