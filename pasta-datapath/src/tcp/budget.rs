//! What all flows together may have parked here and have been promised, and one flow's part of it.
//!
//! Parked octets are memory of ours. Promises are windows that were opened and not yet used: the tap's
//! queue has to hold what the namespace sends on them. Where they are used up, a flow waits until another
//! one's octets have come ([`Budget::may_promise`]); the caller keeps the order in which they wait.
//!
//! A window that nobody uses is a promise that costs nothing. So all promises are forgotten whenever the
//! tap's queue is seen empty, and those that are older than as many frames as it holds: what flows make use
//! of theirs shows soon.

use super::to_socket::Room;
use pasta_ipc::types::TAP_QUEUE_FRAMES;

/// Windows, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// What a flow's socket should have room for when it is empty: flows that send at the same time would
    /// have windows as different as the buffers of their sockets, which the kernel makes larger only where
    /// they are filled.
    pub least: u32,
    /// The largest window of one flow.
    pub most: u32,
    /// Beyond so much that is promised no window grows.
    pub all: u64,
}

impl Windows {
    /// The same where no send buffer can be made larger than `size` octets of kernel memory: to ask for more
    /// would make those smaller that the kernel has made larger than that.
    #[must_use]
    pub fn with_buffers_of(self, size: u32) -> Self {
        let largest = Room { size, queued: 0 };
        Self { least: self.least.min(largest.payload()), ..self }
    }
}

/// Octets parked and promised, and the bounds on them.
#[derive(Debug)]
pub struct Budget {
    parked: usize,
    parked_in_all: u64,
    parking_limit: usize,
    most_parked: usize,
    /// Whether a flow had to end since that was asked.
    overflowed: bool,
    /// As in [`Windows`].
    least: u32,
    most: u32,
    /// Promises of this round and the one before, by whether the round is odd; those of earlier ones are
    /// forgotten.
    promised: [u64; 2],
    promise_limit: u64,
    round: u32,
    /// Frames in this round.
    frames: u32,
    others_wait: bool,
}

/// What a flow was promised and has not made use of, as far as it counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Promise {
    round: u32,
    octets: u32,
}

impl Budget {
    /// With more than `parking_limit` octets parked, flows that park get no larger windows; beyond
    /// `most_parked` none is taken. There is no bound on promises yet.
    pub const fn new(parking_limit: usize, most_parked: usize) -> Self {
        Self {
            parked: 0,
            parked_in_all: 0,
            parking_limit,
            most_parked,
            overflowed: false,
            least: 0,
            most: u32::MAX,
            promised: [0; 2],
            promise_limit: u64::MAX,
            round: 0,
            frames: 0,
            others_wait: false,
        }
    }

    /// These are the windows from now on; what was opened stays.
    pub fn set_windows(&mut self, windows: Windows) {
        (self.least, self.most, self.promise_limit) = (windows.least, windows.most, windows.all);
    }

    /// What a flow's socket should have room for when it is empty, in octets of payload.
    pub fn least(&self) -> u32 {
        self.least
    }

    /// The largest window of one flow, in octets.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// Notes whether other flows wait for a window, which then go first.
    pub fn set_others_wait(&mut self, yes: bool) {
        self.others_wait = yes;
    }

    /// Notes that a frame has come out of the tap's queue. When all that were in it have, promises that are
    /// not kept are idle, however long the queue is held full by what needs no window.
    pub fn frame_came(&mut self) {
        self.frames += 1;
        if self.frames >= TAP_QUEUE_FRAMES {
            self.begin_round();
        }
    }

    fn begin_round(&mut self) {
        self.frames = 0;
        self.round = self.round.wrapping_add(1);
        *self.of_round(self.round) = 0;
    }

    fn of_round(&mut self, round: u32) -> &mut u64 {
        let [even, odd] = &mut self.promised;
        if round.is_multiple_of(2) { even } else { odd }
    }

    /// Whether promises of `round` still count.
    fn counts(&self, round: u32) -> bool {
        self.round.wrapping_sub(round) <= 1
    }

    /// Notes that the tap's queue is empty.
    pub fn queue_is_empty(&mut self) {
        self.begin_round();
        self.begin_round();
    }

    /// Octets parked now.
    pub fn parked(&self) -> usize {
        self.parked
    }

    /// Octets parked up to now, each as often as it was.
    pub fn parked_in_all(&self) -> u64 {
        self.parked_in_all
    }

    /// Whether more may be parked without need.
    pub fn may_park(&self) -> bool {
        self.parked < self.parking_limit
    }

    /// Whether `octets` more can be parked that have come in order: if not, their flow has to end, since
    /// what was promised is not dropped. Flows whose windows are true to their sockets never come near that.
    #[must_use]
    pub fn can_park(&mut self, octets: usize) -> bool {
        let can = self.parked.saturating_add(octets) <= self.most_parked;
        self.overflowed |= !can;
        can
    }

    /// Whether a flow had to end because of [`Budget::can_park`]; asked once.
    pub fn take_overflowed(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    /// `octets` more are parked.
    pub fn park(&mut self, octets: usize) {
        self.parked += octets;
        self.parked_in_all += octets as u64;
    }

    /// `octets` are no longer parked.
    pub fn unpark(&mut self, octets: usize) {
        self.parked -= octets;
    }

    /// Whether there is room for promises.
    pub fn has_promises(&self) -> bool {
        self.promised.iter().sum::<u64>() < self.promise_limit
    }

    /// Whether a flow that does not wait for it may have a window.
    pub fn may_promise(&self) -> bool {
        self.has_promises() && !self.others_wait
    }

    /// A flow's window has grown by `octets`.
    pub fn promise(&mut self, flow: &mut Promise, octets: u32) {
        let before = if self.counts(flow.round) { flow.octets } else { 0 };
        self.kept(flow, 0);
        *flow = Promise { round: self.round, octets: before.saturating_add(octets) };
        *self.of_round(flow.round) += u64::from(flow.octets);
    }

    /// Of a flow's window `left` octets are left.
    pub fn kept(&mut self, flow: &mut Promise, left: u32) {
        if self.counts(flow.round) && flow.octets > left {
            let sum = self.of_round(flow.round);
            *sum = sum.saturating_sub(u64::from(flow.octets - left));
            flow.octets = left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(most: u32, all: u64) -> Windows {
        Windows { least: 0, most, all }
    }

    #[test]
    fn octets_that_are_parked_again_are_counted_again() {
        let mut budget = Budget::new(0, 0);
        budget.park(1000);
        budget.unpark(900);
        budget.park(500);
        assert_eq!((budget.parked(), budget.parked_in_all()), (600, 1500));
    }

    #[test]
    fn no_more_is_asked_for_than_a_buffer_can_have() {
        let wanted = Windows { least: 1024 * 1024, most: 1, all: 1 };
        for size in [0, 1, 425_984, 1_000_000, 1_398_100] {
            let Windows { least, .. } = wanted.with_buffers_of(size);
            assert!(Room::buffer_for(least) <= size, "{size}");
            assert!(Room::buffer_for(least) + 4 >= size, "{size}");
        }
        assert_eq!(wanted.with_buffers_of(u32::MAX), wanted);
    }

    #[test]
    fn nothing_is_parked_beyond_the_most() {
        let mut budget = Budget::new(100, 200);
        budget.park(150);
        assert!(!budget.may_park() && budget.can_park(50) && !budget.take_overflowed());
        assert!(!budget.can_park(51) && !budget.can_park(usize::MAX));
        assert!(budget.take_overflowed() && !budget.take_overflowed());
    }

    #[test]
    fn promises_are_used_up_kept_and_forgotten() {
        let mut budget = Budget::new(0, 0);
        let (mut one, mut other) = (Promise::default(), Promise::default());
        budget.set_windows(windows(1000, 1500));
        budget.promise(&mut one, 1000);
        assert!(budget.may_promise());
        budget.promise(&mut other, 500);
        assert!(!budget.may_promise(), "all are promised");
        budget.kept(&mut one, 900);
        assert!(budget.may_promise());
        budget.promise(&mut one, 100);
        budget.queue_is_empty();
        budget.promise(&mut other, 1500);
        budget.kept(&mut one, 0);
        assert!(!budget.may_promise(), "what is forgotten is not given back");
        budget.kept(&mut other, 1499);
        assert!(budget.may_promise());
        budget.set_others_wait(true);
        assert!(!budget.may_promise() && budget.has_promises());
    }

    #[test]
    fn idle_promises_are_forgotten_though_the_queue_is_never_empty() {
        let mut budget = Budget::new(0, 0);
        budget.set_windows(windows(100, 100));
        budget.promise(&mut Promise::default(), 100);
        for _ in 1..2 * TAP_QUEUE_FRAMES {
            budget.frame_came();
        }
        assert!(!budget.has_promises());
        budget.frame_came();
        assert!(budget.has_promises());
    }

    #[test]
    fn promises_are_renewed_when_they_grow() {
        let mut budget = Budget::new(0, 0);
        let mut flow = Promise::default();
        budget.set_windows(windows(100, 100));
        budget.promise(&mut flow, 60);
        (0..TAP_QUEUE_FRAMES).for_each(|_| budget.frame_came());
        budget.promise(&mut flow, 40);
        (0..TAP_QUEUE_FRAMES).for_each(|_| budget.frame_came());
        assert!(!budget.has_promises());
        budget.kept(&mut flow, 50);
        assert!(budget.has_promises());
    }

    #[test]
    fn what_a_flow_had_before_counts_no_more_than_what_is_new() {
        let mut budget = Budget::new(0, 0);
        let mut flow = Promise::default();
        budget.set_windows(windows(u32::MAX, 100));
        budget.promise(&mut flow, 5000);
        budget.queue_is_empty();
        budget.promise(&mut flow, 100);
        budget.kept(&mut flow, 4000);
        assert!(!budget.has_promises(), "as much as is new is still to come");
        budget.kept(&mut flow, 99);
        assert!(budget.has_promises());
    }
}
