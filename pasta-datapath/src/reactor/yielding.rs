//! Whether to yield the processor after a turn (`sched_yield(2)`).
//!
//! Datagrams have no window: what comes faster than its receiver takes it is lost, and where processors are full
//! the receiver may be waiting for ours. It needs it for a moment only, and would get it when our time slice is over,
//! some milliseconds later: after dozens of times what its buffer holds. So whoever waits goes first after a turn that
//! has read several datagrams from sockets, or a batch of them from a tap that has more. Where nobody waits, it is a
//! system call that does nothing. Likewise in a pause between new flows, which is for who uses those that exist.
//!
//! Who keeps the processor for long is no such receiver. After each of them twice as many chances are left out as after
//! the one before, and after each that gave it back soon half as many, so that we keep our share of a machine that is busy with other things.

use std::time::Duration;

/// Reads of sockets that are worth it; chosen: a frame for fewer costs as much as waking its receiver.
const SEVERAL: u64 = 4;

/// Frames of datagrams that are a batch; chosen: what a batch of the largest has.
const BATCH: u64 = 8;

/// How long a receiver may take; chosen: to read a default receive buffer (`net.core.rmem_default`) of small
/// datagrams.
const SOON: Duration = Duration::from_micros(500);

/// What the call takes at most where nobody waits; chosen: several times what it does.
const NOBODY: Duration = Duration::from_micros(5);

/// Chances left out after so many failures in a row are two to this power at most. Measured beside two threads that
/// never sleep: with four instead of 64, a third fewer datagrams.
const MAX_FAILURES: u8 = 6;

/// Datagrams that a turn of the loop has read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    /// From sockets, as many as there were reads.
    pub(super) inwards: u64,
    /// From the tap, as many as there were frames.
    pub(super) outwards: u64,
}

/// Remembers who did not give the processor back soon.
#[derive(Debug, Default)]
pub(super) struct Yielding {
    failures: u8,
    left_out: u32,
}

impl Yielding {
    /// Whether others go first after a turn that has moved so much, while the tap has more frames or not, and new flows
    /// wait for those that exist or not.
    pub(super) fn is_due(&mut self, moved: Moved, tap_has_more: bool, pauses: bool) -> bool {
        let is_flood = tap_has_more && moved.outwards >= BATCH;
        if moved.inwards < SEVERAL && !is_flood && !pauses {
            return false;
        }
        if self.left_out > 0 {
            self.left_out -= 1;
            return false;
        }
        true
    }

    /// Notes how long others had the processor.
    pub(super) fn yielded(&mut self, time: Duration) {
        if time <= NOBODY {
            return;
        }
        if time <= SOON {
            self.failures = self.failures.saturating_sub(1);
            return;
        }
        self.failures = (self.failures + 1).min(MAX_FAILURES);
        self.left_out = 1 << self.failures;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Moved = Moved { inwards: 0, outwards: 0 };
    const FLOOD: Moved = Moved { inwards: SEVERAL, ..NOTHING };

    #[test]
    fn several_reads_or_a_batch_of_a_tap_that_has_more_are_worth_it() {
        let is_due = |inwards, outwards, more| {
            Yielding::default().is_due(Moved { inwards, outwards }, more, false)
        };
        assert!(is_due(SEVERAL, 0, false) && is_due(0, BATCH, true));
        assert!(!is_due(SEVERAL - 1, BATCH - 1, true) && !is_due(0, 64, false));
        assert!(Yielding::default().is_due(NOTHING, false, true), "a pause");
    }

    #[test]
    fn who_keeps_the_processor_gets_it_ever_more_rarely_until_somebody_gives_it_back() {
        let mut yielding = Yielding::default();
        for failures in 1..=20 {
            while !yielding.is_due(FLOOD, false, false) {
                assert!(!yielding.is_due(NOTHING, true, false), "nothing is no chance");
            }
            yielding.yielded(2 * SOON);
            assert_eq!(yielding.left_out, 1 << failures.min(6), "{failures}");
        }
        // Each that gives it back soon makes up for one that did not; that nobody waited says nothing.
        for (time, left_out) in [(NOBODY, 64), (SOON, 64), (2 * SOON, 64)] {
            yielding.left_out = 64;
            yielding.yielded(time);
            assert_eq!(yielding.left_out, left_out);
        }
        for _ in 0..6 {
            yielding.yielded(SOON);
        }
        yielding.yielded(NOBODY);
        yielding.yielded(2 * SOON);
        assert_eq!(yielding.left_out, 2);
    }
}
