//! How much a helper may say to the supervisor.
//!
//! A helper that is taken over by somebody has a channel to us, and every message costs us more than it costs
//! the helper. So a few are taken in a turn, and a token bucket bounds how many in the long run; when it is
//! empty we receive nothing for a while, the channel fills, and a helper of ours counts the lines that it could
//! not send. At the usual levels of the log no helper comes near the rate: one that holds it for
//! [`LASTING`] breaks the protocol, as does one that sends lines of a level that was not asked for. With
//! `--debug` there is a line for each flow; the rate is higher then, and holding it no violation.
//!
//! Pure: times come in.

use pasta_ipc::rate::TokenBucket;
use pasta_ipc::types::LogLevel;
use std::time::Duration;

/// Messages that are taken in a turn. Chosen: others have their turn within a millisecond.
pub(crate) const IN_A_TURN: usize = 16;

/// Messages in a second, and at once. Chosen: some times what start-up and a storm of changes of the host's
/// network make, and below one percent of a processor.
const USUAL: (u32, u32) = (100, 500);

/// The same with a line for each flow or frame. Chosen: some ten percent of a processor.
const TALKATIVE: (u32, u32) = (10_000, 10_000);

/// For how long a helper may have more to say than is taken. Chosen: far longer than any burst of ours.
const LASTING: Duration = Duration::from_secs(5);

/// What a helper has said lately.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intake {
    level: LogLevel,
    bucket: TokenBucket,
    /// Since when the bucket has been empty each time that it was looked at.
    exceeds_since: Option<Duration>,
    /// When the next message may be taken.
    closed_until: Option<Duration>,
}

/// What is to be done before a message is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Receive it.
    Receive,
    /// Receive nothing until then.
    Wait(Duration),
    /// It has said too much for too long.
    Excess,
}

impl Intake {
    /// For a helper whose log has this level.
    pub(crate) fn new(level: LogLevel) -> Self {
        let (per_second, burst) = if level >= LogLevel::Debug { TALKATIVE } else { USUAL };
        let bucket = TokenBucket::new(per_second, burst);
        Self { level, bucket, exceeds_since: None, closed_until: None }
    }

    /// Whether a message may be received; [`Intake::took`] and [`Intake::is_drained`] say what came of it.
    pub(crate) fn next(&mut self, now: Duration) -> Verdict {
        // Of a copy: there may be none.
        match { self.bucket }.take(now) {
            Ok(()) => Verdict::Receive,
            Err(ready) => {
                let since = *self.exceeds_since.get_or_insert(now);
                if self.level < LogLevel::Debug && now.saturating_sub(since) >= LASTING {
                    return Verdict::Excess;
                }
                // Not for a single message.
                let until = ready + self.bucket.depth() / 10;
                self.closed_until = Some(until);
                Verdict::Wait(until)
            }
        }
    }

    /// A message was received.
    pub(crate) fn took(&mut self, now: Duration) {
        // It was looked at before.
        let _ = self.bucket.take(now);
    }

    /// Nothing more is there: it does not say more than is taken.
    pub(crate) fn is_drained(&mut self) {
        self.exceeds_since = None;
    }

    /// When messages are received again, if they are not now.
    pub(crate) fn closed_until(&self) -> Option<Duration> {
        self.closed_until
    }

    /// Messages are received again.
    pub(crate) fn reopen(&mut self) {
        self.closed_until = None;
    }

    /// Whether a line of this level was asked for. Until a helper knows better it takes `Info`.
    pub(crate) fn allows(&self, level: LogLevel) -> bool {
        level <= self.level.max(LogLevel::Info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receives from a helper that always has more to say, for `time`; how many, and whether it lasted.
    fn flood(level: LogLevel, time: Duration) -> (usize, Option<Duration>) {
        let mut intake = Intake::new(level);
        let (mut now, mut taken) = (Duration::ZERO, 0);
        while now < time {
            match intake.next(now) {
                Verdict::Receive => {
                    intake.took(now);
                    taken += 1;
                }
                Verdict::Wait(until) => {
                    assert!(until > now);
                    now = until;
                }
                Verdict::Excess => return (taken, Some(now)),
            }
        }
        (taken, None)
    }

    #[test]
    fn flood_costs_the_rate_and_then_the_helper() {
        let (taken, excess) = flood(LogLevel::Info, Duration::from_secs(60));
        let excess = excess.expect("a flood of a minute");
        assert!(excess >= LASTING && excess < LASTING + Duration::from_secs(2), "{excess:?}");
        assert!((900..1_300).contains(&taken), "{taken}");
    }

    #[test]
    fn lines_for_each_flow_are_no_violation_where_they_were_asked_for() {
        for level in [LogLevel::Debug, LogLevel::Trace] {
            let (taken, excess) = flood(level, Duration::from_secs(60));
            assert_eq!(excess, None);
            assert!((600_000..=610_100).contains(&taken), "{taken}");
        }
    }

    #[test]
    fn helper_that_pauses_has_not_said_too_much() {
        let mut intake = Intake::new(LogLevel::Info);
        let mut now = Duration::ZERO;
        for _ in 0..100 {
            for _ in 0..300 {
                match intake.next(now) {
                    Verdict::Receive => intake.took(now),
                    Verdict::Wait(until) => now = until,
                    Verdict::Excess => panic!("after {now:?}"),
                }
            }
            intake.is_drained();
            now += Duration::from_secs(1);
        }
    }

    #[test]
    fn lines_that_nobody_asked_for_are_told_apart() {
        assert!(Intake::new(LogLevel::Warn).allows(LogLevel::Info));
        assert!(!Intake::new(LogLevel::Info).allows(LogLevel::Debug));
        assert!(Intake::new(LogLevel::Debug).allows(LogLevel::Debug));
        assert!(!Intake::new(LogLevel::Debug).allows(LogLevel::Trace));
    }
}
