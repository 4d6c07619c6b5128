//! How many flows send through the tap at present, and what window each may have for that.
//!
//! The tap's queue holds so many frames and drops what is beyond, without a word to the sender: it takes
//! each frame off the sender's account at once, so that nothing holds the sender back but our windows.
//! With many flows of small frames these together promise far more than the queue holds, and what is
//! lost then is repeated in smaller frames, of which even fewer octets fit. Measured: 128 flows with an
//! MTU of 1500 repeated 20,608 segments in two seconds without this bound, and 539 with it.
//!
//! Frames of several segments take one place each, so that windows grow with the frames that come. A
//! sender that goes over to smaller ones may lose some until the next period.

use crate::time::Instant;
use pasta_ipc::types::{Mtu, TAP_QUEUE_FRAMES};

/// Frames that windows may be promised for. The others are for acknowledgements and datagrams.
const FRAMES: u32 = TAP_QUEUE_FRAMES / 4 * 3;

/// Flows that send within such a time count together, in nanoseconds; chosen: some turns of each of many
/// flows.
const PERIOD_NANOS: u64 = 16_000_000;

/// What a flow notes of when it was counted; none yet in the first period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted(u32);

/// Counts the flows that send, and what.
#[derive(Debug, Default)]
pub(super) struct Active {
    period: u32,
    count: u32,
    /// How many there were in the period before.
    before: u32,
    /// Frames with payload in this period, and octets in them.
    frames: u32,
    octets: u32,
    /// Octets of payload in a frame of the period before; zero if there was none.
    mean: u32,
}

impl Active {
    /// Counts a flow that has sent a frame with so much payload at `now`, once in a period.
    pub(super) fn count(&mut self, now: Instant, flow: &mut Counted, octets: usize) {
        // Wraps after two years, and then one period is mistaken for another.
        let period = ((now.as_nanos() / PERIOD_NANOS) as u32).wrapping_add(1);
        if period != self.period {
            let follows = period == self.period.wrapping_add(1);
            self.before = if follows { self.count } else { 0 };
            (self.period, self.count) = (period, 0);
            self.mean = if follows { self.octets / self.frames.max(1) } else { 0 };
            (self.frames, self.octets) = (0, 0);
        }
        // One frame is less than 64 KiB: what a period may hold is far from the end.
        self.frames = self.frames.saturating_add(1);
        self.octets = self.octets.saturating_add(octets as u32);
        if flow.0 != period {
            flow.0 = period;
            self.count += 1;
        }
    }

    /// How many flows send, or have sent a moment ago; one at least.
    pub(super) fn flows(&self) -> usize {
        self.count.max(self.before).max(1) as usize
    }

    /// The largest window that a flow may have while the tap has this MTU, in octets: its part of what the
    /// queue holds in segments of that size, or in three quarters of what frames have held of late; two of
    /// the largest segments at least.
    pub(super) fn window(&self, mtu: Mtu) -> u32 {
        let mtu = u32::from(mtu.get());
        (FRAMES * mtu.max(self.mean / 4 * 3) / self.flows() as u32).max(2 * mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn mtu(octets: u16) -> Mtu {
        Mtu::try_from(octets).unwrap()
    }

    #[test]
    fn each_flow_counts_once_in_a_period_and_until_the_end_of_the_next() {
        let (mut active, mut flows) = (Active::default(), [Counted::default(); 30]);
        for flow in &mut flows {
            active.count(at(1), flow, 1);
            active.count(at(2), flow, 1);
        }
        assert_eq!(active.window(mtu(1500)), 150_000);
        active.count(at(17), &mut flows[0], 1);
        assert_eq!(active.window(mtu(1500)), 150_000, "they may go on");
        active.count(at(33), &mut flows[0], 1);
        assert_eq!(active.window(mtu(1500)), 4_500_000);
    }

    #[test]
    fn windows_grow_with_the_frames_that_come() {
        let (mut active, mut flow) = (Active::default(), Counted::default());
        active.count(at(1), &mut flow, 10_000);
        active.count(at(2), &mut flow, 30_000);
        assert_eq!(active.window(mtu(1500)), 4_500_000, "not before the next period");
        active.count(at(17), &mut flow, 1000);
        assert_eq!(active.window(mtu(1500)), 45_000_000, "three quarters of 20,000");
        active.count(at(33), &mut flow, 1000);
        assert_eq!(active.window(mtu(1500)), 4_500_000);
    }

    #[test]
    fn a_pause_is_forgotten_and_a_window_is_never_too_small_for_two_segments() {
        let (mut active, mut flows) = (Active::default(), [Counted::default(); 10_000]);
        for flow in &mut flows {
            active.count(at(1), flow, 1);
        }
        assert_eq!(active.window(mtu(1500)), 3000);
        active.count(at(1000), &mut flows[0], 1);
        assert_eq!(active.window(mtu(65520)), 196_560_000);
    }
}
