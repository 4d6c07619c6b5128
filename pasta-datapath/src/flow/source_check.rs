//! Whether the host socket of a flow of datagrams is still good, and when to look.
//!
//! A connected socket keeps the source address that it has got, also when the host no longer has it:
//! IPv4 refuses to send then, and IPv6 sends from an address that no answer finds. So it is looked at
//! before a datagram leaves, but only if there is a reason: the network has changed since, sending was
//! refused, or nothing has come back for a while. The look costs three system calls.

use crate::time::Instant;
use std::time::Duration;

/// How long nothing may come back before it is looked at, and how often then. Chosen: what a program
/// of the namespace waits for an answer before it tries again, and no cost to those that expect none.
const SILENCE: Duration = Duration::from_secs(5);

/// When it was last known that a socket is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceCheck {
    /// State of the network at that time; none: it is to be looked at.
    revision: Option<u64>,
    looked: Instant,
    /// First datagram that nothing came back for.
    unanswered: Option<Instant>,
}

impl SourceCheck {
    /// It is good now, at this state of the network.
    pub fn good(now: Instant, revision: u64) -> Self {
        Self { revision: Some(revision), looked: now, unanswered: None }
    }

    /// Whether it is time to look at the socket.
    pub fn is_due(&self, now: Instant, revision: u64) -> bool {
        let silent = |since: Instant| now >= since.max(self.looked) + SILENCE;
        self.revision != Some(revision) || self.unanswered.is_some_and(silent)
    }

    /// It was looked at, and is good.
    pub fn confirm(&mut self, now: Instant, revision: u64) {
        (self.revision, self.looked) = (Some(revision), now);
    }

    /// Sending was refused for a reason that may be the socket's own.
    pub fn doubt(&mut self) {
        self.revision = None;
    }

    /// A datagram leaves.
    pub fn sent(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
    }

    /// Something has come back.
    pub fn answered(&mut self) {
        self.unanswered = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn another_state_of_the_network_is_a_reason_once() {
        let mut source_check = SourceCheck::good(at(0), 1);
        assert!(!source_check.is_due(at(0), 1));
        assert!(source_check.is_due(at(0), 2));
        source_check.confirm(at(0), 2);
        assert!(!source_check.is_due(at(0), 2));
    }

    #[test]
    fn a_refusal_is_a_reason_whatever_the_network() {
        let mut source_check = SourceCheck::good(at(0), 1);
        source_check.doubt();
        assert!(source_check.is_due(at(0), 1));
    }

    #[test]
    fn silence_is_a_reason_every_five_seconds() {
        let mut source_check = SourceCheck::good(at(0), 1);
        source_check.sent(at(10));
        source_check.sent(at(14));
        assert!(!source_check.is_due(at(14), 1));
        assert!(source_check.is_due(at(15), 1));
        source_check.confirm(at(15), 1);
        assert!(!source_check.is_due(at(19), 1));
        assert!(source_check.is_due(at(20), 1));
        source_check.answered();
        assert!(!source_check.is_due(at(100), 1));
    }
}
