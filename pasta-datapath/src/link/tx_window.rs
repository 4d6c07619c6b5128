//! How many flows send through the tap, and which windows they may advertise.
//!
//! The tap's queue (`tx_queue_len` of the tap) holds a fixed number of frames and drops the rest without
//! a word to the sender: TCP in the namespace counts a frame as sent once it is in the queue, so only our
//! advertised windows limit it. The windows of many flows together exceed the queue by far. Dropped
//! segments are retransmitted in smaller frames, of which the queue holds even fewer octets, and of
//! thousands of flows some lose every time. `docs/decisions/0012-window-credit.md` has the measurements.
//!
//! A frame of several segments takes one slot of the queue as any other, so windows grow with the frames
//! that arrive. A sender that changes to smaller frames may lose some until the next period.

use crate::sys::send_buffer::SendBuffer;
use crate::time::Instant;
use pasta_ipc::types::{Mtu, TAP_QUEUE_FRAMES};

/// Frames of the queue that windows may be advertised for. The others are for acknowledgements and
/// datagrams.
const FRAMES: u32 = TAP_QUEUE_FRAMES / 4 * 3;

/// The largest window of one of several flows, and of all of them, in octets. What goes through one queue is
/// shared in proportion to windows, so that these are to be of one size, and what waits in the queue is no
/// longer in a cache. Measured with cubic: eight flows move 0.83 as much with 256 KiB each, and as much with
/// 1 MiB, which fewer sockets have room for; 128 flows move a third less with 8 MiB for all of them.
const SHARE: u32 = 512 * 1024;
const SHARED: u32 = 24 * 1024 * 1024;
/// Send buffers are to hold so many windows. Measured: with one, which leaves no room for what is on its way,
/// the slowest of 128 flows moves 0.25 to 0.98 of the mean, and 0.98 to 0.99 with two.
const BUFFERED: u32 = 2;

/// Frames of bulk traffic are taken to be no smaller than this, or the MTU where that is; chosen: what
/// messages may have.
const SMALL_FRAME: u32 = 4096;

/// Flows that send within such a time count together, in nanoseconds; chosen: some turns of each of many
/// flows.
const PERIOD_NANOS: u64 = 16_000_000;

/// Limits on advertised windows, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Smallest send buffer of a flow's socket, as payload: without it flows that send at the same time
    /// have windows as different as their send buffers, which the kernel enlarges only where they are filled.
    pub least: u32,
    /// The largest window of one flow.
    pub most: u32,
    /// Window credit of all flows; with more than that lent, no window grows.
    pub all: u64,
}

impl WindowLimits {
    /// The same where `SO_SNDBUF` accepts no more than `size` octets of kernel memory: asking for more
    /// would shrink a buffer that the kernel has enlarged beyond that.
    #[must_use]
    pub fn with_buffers_of(self, size: u32) -> Self {
        let largest = SendBuffer { size, queued: 0 };
        Self { least: self.least.min(largest.payload()), ..self }
    }
}

/// What a flow notes of when it was counted; none yet in the first period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted(u32);

/// Counts the flows that send, and what.
#[derive(Debug, Default)]
pub struct Active {
    period: u32,
    count: u32,
    /// How many there were in the period before.
    before: u32,
    /// Octets of payload in this period, and the sum of squares of those of a frame.
    octets: u64,
    squares: u64,
    /// Octets of the frame that an octet of the period before came in, on average; zero if none came. Small
    /// frames hardly count.
    frame: u32,
}

impl Active {
    /// Begins the period of `now`, if that is another one.
    pub fn roll(&mut self, now: Instant) {
        // Wraps after two years, and then one period is mistaken for another.
        let period = ((now.as_nanos() / PERIOD_NANOS) as u32).wrapping_add(1);
        if period != self.period {
            let follows = period == self.period.wrapping_add(1);
            self.before = if follows { self.count } else { 0 };
            (self.period, self.count) = (period, 0);
            // No larger than a frame.
            self.frame = if follows { (self.squares / self.octets.max(1)) as u32 } else { 0 };
            (self.octets, self.squares) = (0, 0);
        }
    }

    /// Counts a flow that has sent a frame with so much payload at `now`, once in a period.
    pub fn count(&mut self, now: Instant, flow: &mut Counted, octets: usize) {
        self.roll(now);
        let octets = octets as u64;
        self.octets += octets;
        self.squares += octets * octets;
        if flow.0 != self.period {
            flow.0 = self.period;
            self.count += 1;
        }
    }

    /// How many flows send, or have sent a moment ago; one at least.
    pub fn flows(&self) -> usize {
        self.count.max(self.before).max(1) as usize
    }

    /// The windows that flows may have while the tap has this MTU and `waiting` flows wait for one: what the
    /// queue holds in segments of that size, or in three quarters of what frames have held of late.
    pub fn windows(&self, mtu: Mtu, waiting: usize) -> WindowLimits {
        let mtu = u32::from(mtu.get());
        let frame = if self.frame == 0 { mtu } else { self.frame / 4 * 3 };
        // Who waits long asks what has become of the window, in frames of its own.
        let frames = if waiting > 0 { FRAMES / 2 } else { FRAMES };
        let all = frames * frame.max(mtu.min(SMALL_FRAME));
        let flows = (self.flows() + waiting) as u32;
        let each = all / flows;
        let (least, each) = if flows == 1 {
            (0, each)
        } else {
            let share = SHARE.min(SHARED / flows).min(each);
            (BUFFERED * share, share)
        };
        // Where not all flows can have as much as two of the largest segments, they have it in turn.
        WindowLimits { least, most: each.max(2 * mtu), all: u64::from(all) }
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
        assert_eq!(active.windows(mtu(1500), 0).most, 150_000);
        active.count(at(17), &mut flows[0], 1);
        assert_eq!(active.windows(mtu(1500), 0).most, 150_000, "they may go on");
        active.count(at(33), &mut flows[0], 1);
        assert_eq!(active.windows(mtu(1500), 0).most, 4_500_000);
    }

    #[test]
    fn windows_grow_with_the_frames_that_come() {
        let (mut active, mut flow) = (Active::default(), Counted::default());
        for _ in 0..1000 {
            active.count(at(1), &mut flow, 20_000);
            active.count(at(2), &mut flow, 100);
        }
        assert_eq!(active.windows(mtu(1500), 0).most, 4_500_000, "not before the next period");
        active.count(at(17), &mut flow, 1000);
        let expected = 3000 * (19_900 / 4 * 3);
        let windows = WindowLimits { least: 0, most: expected, all: expected.into() };
        assert_eq!(active.windows(mtu(1500), 0), windows, "small ones hardly count");
        active.count(at(33), &mut flow, 1000);
        assert_eq!(active.windows(mtu(1500), 0).most, 4_500_000);
    }

    #[test]
    fn several_flows_have_windows_of_one_size_that_their_sockets_hold_twice() {
        let (mut active, mut flows) = (Active::default(), [Counted::default(); 1000]);
        for (count, least, most) in
            [(1, 0, 196_560_000), (8, 1_048_576, 524_288), (128, 393_216, 196_608)]
        {
            for flow in &mut flows[..count] {
                active.count(at(1), flow, 1);
            }
            let windows = active.windows(mtu(65520), 0);
            assert_eq!((windows.least, windows.most), (least, most), "{count}");
        }
        // So many that the kernel's own size is enough.
        for flow in &mut flows {
            active.count(at(1), flow, 1);
        }
        assert!(active.windows(mtu(65520), 0).least < 64 * 1024);
    }

    #[test]
    fn a_pause_is_forgotten_and_a_window_is_never_too_small_for_two_segments() {
        let (mut active, mut flows) = (Active::default(), [Counted::default(); 10_000]);
        for flow in &mut flows {
            active.count(at(1), flow, 1);
        }
        assert_eq!(active.windows(mtu(1500), 0).most, 3000);
        active.count(at(1000), &mut flows[0], 1);
        assert_eq!(active.windows(mtu(65520), 0).most, 196_560_000);
    }
}
