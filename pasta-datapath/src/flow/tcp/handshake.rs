//! The end of a handshake that we began: from our acknowledgement of the namespace's SYN to the first sign that
//! the namespace has the connection.
//!
//! A listener with too many of them answers SYNs with cookies (RFC 4987, section 3.6) and keeps nothing. Whatever
//! segment comes next is checked against the cookie, with its sequence and acknowledgement number less one each
//! as the two initial ones. Linux adds to the cookie an index of few MSS values (`net/ipv4/syncookies.c`), so
//! that a segment a few numbers further on is taken for one with another index: the connection begins there, and
//! what was in front is missing for good. One still further on is reset. And while the queue of connections to
//! accept is full, segments are dropped, of which the first is not the last.
//!
//! So until the namespace has sent more than its SYN,
//!
//! - every segment of ours has the first number behind our SYN: data are one segment, and what follows it (more
//!   data, FIN) waits until that was acknowledged; a retransmission is the same again;
//! - the acknowledgement is retransmitted, since nobody else does it where the namespace is to speak first.
//!
//! After the age at which Linux takes no cookie any more, segments are as always.

use crate::time::Instant;
use std::time::Duration;

/// How long a cookie may be taken: between one and two periods of a minute (`MAX_SYNCOOKIE_AGE` and
/// `TCP_SYNCOOKIE_PERIOD` in Linux's `include/net/tcp.h`).
const COOKIE_AGE: Duration = Duration::from_secs(120);

/// Until the acknowledgement is first retransmitted, doubled each time; chosen: as any segment (`TCP_RTO_MIN`).
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// A connection that the namespace may not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unconfirmed {
    /// When no cookie is taken any more.
    until: Instant,
    /// When the acknowledgement is retransmitted, and how long after the last time.
    due: Instant,
    wait: Duration,
}

/// What the passing of time asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// Nothing yet.
    Nothing,
    /// Retransmit the acknowledgement, unless data are in flight, which carry it.
    Acknowledge,
    /// There is no cookie to be mindful of any more.
    Over,
}

impl Unconfirmed {
    /// The namespace's SYN is acknowledged at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { until: now + COOKIE_AGE, due: now + FIRST_WAIT, wait: FIRST_WAIT }
    }

    /// When [`Unconfirmed::expire`] is due.
    pub(super) fn deadline(self) -> Instant {
        self.due.min(self.until)
    }

    /// Says what a passed deadline asks for.
    pub(super) fn expire(&mut self, now: Instant) -> Passed {
        if now >= self.until {
            return Passed::Over;
        }
        if now < self.due {
            return Passed::Nothing;
        }
        self.wait *= 2;
        self.due = now + self.wait;
        Passed::Acknowledge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgement_is_retransmitted_less_and_less_often_while_a_cookie_may_be_taken() {
        let mut unconfirmed = Unconfirmed::new(Instant::START);
        assert_eq!(unconfirmed.expire(Instant::START), Passed::Nothing);
        let mut acknowledgements = 0;
        loop {
            let due = unconfirmed.deadline();
            match unconfirmed.expire(due) {
                Passed::Acknowledge => acknowledgements += 1,
                Passed::Over => break assert_eq!(due, Instant::START + COOKIE_AGE),
                Passed::Nothing => panic!("called in time"),
            }
        }
        assert_eq!(acknowledgements, 9);
    }
}
