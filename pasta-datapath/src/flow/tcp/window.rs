//! What all flows together may have parked here and have been promised, and one flow's part of it.
//!
//! Parked octets are memory of ours. Promises are windows that were opened and not yet used: the tap's
//! queue has to hold what the namespace sends on them. Where they are used up, a flow waits until another
//! one's octets have come ([`CreditPool::may_lend`]); the caller keeps the order in which they wait.
//!
//! A window that nobody uses is a promise that costs nothing. So all promises are forgotten whenever the
//! tap's queue is seen empty, and those that are older than as many frames as it holds: what flows make use
//! of theirs shows soon.

use crate::sys::send_buffer::SendBuffer;
use pasta_ipc::types::TAP_QUEUE_FRAMES;

/// Windows, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// What a flow's socket should have room for when it is empty: flows that send at the same time would
    /// have windows as different as the buffers of their sockets, which the kernel makes larger only where
    /// they are filled.
    pub least: u32,
    /// The largest window of one flow.
    pub most: u32,
    /// Beyond so much that is promised no window grows.
    pub all: u64,
}

impl WindowLimits {
    /// The same where no send buffer can be made larger than `size` octets of kernel memory: to ask for more
    /// would make those smaller that the kernel has made larger than that.
    #[must_use]
    pub fn with_buffers_of(self, size: u32) -> Self {
        let largest = SendBuffer { size, queued: 0 };
        Self { least: self.least.min(largest.payload()), ..self }
    }
}

/// Octets parked and promised, and the bounds on them.
#[derive(Debug)]
pub struct CreditPool {
    backlog: usize,
    backlog_total: u64,
    backlog_soft_limit: usize,
    max_backlog: usize,
    /// Whether a flow had to end since that was asked.
    overflowed: bool,
    /// As in [`WindowLimits`].
    least: u32,
    most: u32,
    /// Promises of this epoch and the one before, by whether the epoch is odd; those of earlier ones are
    /// forgotten.
    lent: [u64; 2],
    credit_limit: u64,
    epoch: u32,
    /// Frames in this epoch.
    frames: u32,
    others_wait: bool,
}

/// What a flow was promised and has not made use of, as far as it counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct WindowCredit {
    epoch: u32,
    octets: u32,
}

impl CreditPool {
    /// With more than `backlog_soft_limit` octets parked, flows that park get no larger windows; beyond
    /// `max_backlog` none is taken. There is no bound on promises yet.
    pub const fn new(backlog_soft_limit: usize, max_backlog: usize) -> Self {
        Self {
            backlog: 0,
            backlog_total: 0,
            backlog_soft_limit,
            max_backlog,
            overflowed: false,
            least: 0,
            most: u32::MAX,
            lent: [0; 2],
            credit_limit: u64::MAX,
            epoch: 0,
            frames: 0,
            others_wait: false,
        }
    }

    /// These are the windows from now on; what was opened stays.
    pub fn set_limits(&mut self, windows: WindowLimits) {
        (self.least, self.most, self.credit_limit) = (windows.least, windows.most, windows.all);
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
    pub fn frame_received(&mut self) {
        self.frames += 1;
        if self.frames >= TAP_QUEUE_FRAMES {
            self.begin_epoch();
        }
    }

    fn begin_epoch(&mut self) {
        self.frames = 0;
        self.epoch = self.epoch.wrapping_add(1);
        *self.of_epoch(self.epoch) = 0;
    }

    fn of_epoch(&mut self, epoch: u32) -> &mut u64 {
        let [even, odd] = &mut self.lent;
        if epoch.is_multiple_of(2) { even } else { odd }
    }

    /// Whether promises of `epoch` still count.
    fn counts(&self, epoch: u32) -> bool {
        self.epoch.wrapping_sub(epoch) <= 1
    }

    /// Notes that the tap's queue is empty.
    pub fn queue_is_empty(&mut self) {
        self.begin_epoch();
        self.begin_epoch();
    }

    /// Octets parked now.
    pub fn backlog(&self) -> usize {
        self.backlog
    }

    /// Octets parked up to now, each as often as it was.
    pub fn backlog_total(&self) -> u64 {
        self.backlog_total
    }

    /// Whether more may be parked without need.
    pub fn may_add_backlog(&self) -> bool {
        self.backlog < self.backlog_soft_limit
    }

    /// Whether `octets` more can be parked that have come in order: if not, their flow has to end, since
    /// what was promised is not dropped. Flows whose windows are true to their sockets never come near that.
    #[must_use]
    pub fn backlog_fits(&mut self, octets: usize) -> bool {
        let can = self.backlog.saturating_add(octets) <= self.max_backlog;
        self.overflowed |= !can;
        can
    }

    /// Whether a flow had to end because of [`CreditPool::backlog_fits`]; asked once.
    pub fn take_overflowed(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    /// `octets` more are parked.
    pub fn add_backlog(&mut self, octets: usize) {
        self.backlog += octets;
        self.backlog_total += octets as u64;
    }

    /// `octets` are no longer parked.
    pub fn remove_backlog(&mut self, octets: usize) {
        self.backlog -= octets;
    }

    /// Whether there is room for promises.
    pub fn has_credit(&self) -> bool {
        self.lent.iter().sum::<u64>() < self.credit_limit
    }

    /// Whether a flow that does not wait for it may have a window.
    pub fn may_lend(&self) -> bool {
        self.has_credit() && !self.others_wait
    }

    /// A flow's window has grown by `octets`.
    pub fn lend(&mut self, flow: &mut WindowCredit, octets: u32) {
        let before = if self.counts(flow.epoch) { flow.octets } else { 0 };
        self.repay(flow, 0);
        *flow = WindowCredit { epoch: self.epoch, octets: before.saturating_add(octets) };
        *self.of_epoch(flow.epoch) += u64::from(flow.octets);
    }

    /// Of a flow's window `left` octets are left.
    pub fn repay(&mut self, flow: &mut WindowCredit, left: u32) {
        if self.counts(flow.epoch) && flow.octets > left {
            let sum = self.of_epoch(flow.epoch);
            *sum = sum.saturating_sub(u64::from(flow.octets - left));
            flow.octets = left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(most: u32, all: u64) -> WindowLimits {
        WindowLimits { least: 0, most, all }
    }

    #[test]
    fn octets_that_are_parked_again_are_counted_again() {
        let mut credit = CreditPool::new(0, 0);
        credit.add_backlog(1000);
        credit.remove_backlog(900);
        credit.add_backlog(500);
        assert_eq!((credit.backlog(), credit.backlog_total()), (600, 1500));
    }

    #[test]
    fn no_more_is_asked_for_than_a_buffer_can_have() {
        let wanted = WindowLimits { least: 1024 * 1024, most: 1, all: 1 };
        for size in [0, 1, 425_984, 1_000_000, 1_398_100] {
            let WindowLimits { least, .. } = wanted.with_buffers_of(size);
            assert!(SendBuffer::size_for(least) <= size, "{size}");
            assert!(SendBuffer::size_for(least) + 4 >= size, "{size}");
        }
        assert_eq!(wanted.with_buffers_of(u32::MAX), wanted);
    }

    #[test]
    fn nothing_is_parked_beyond_the_most() {
        let mut credit = CreditPool::new(100, 200);
        credit.add_backlog(150);
        assert!(!credit.may_add_backlog() && credit.backlog_fits(50) && !credit.take_overflowed());
        assert!(!credit.backlog_fits(51) && !credit.backlog_fits(usize::MAX));
        assert!(credit.take_overflowed() && !credit.take_overflowed());
    }

    #[test]
    fn promises_are_used_up_kept_and_forgotten() {
        let mut credit = CreditPool::new(0, 0);
        let (mut one, mut other) = (WindowCredit::default(), WindowCredit::default());
        credit.set_limits(windows(1000, 1500));
        credit.lend(&mut one, 1000);
        assert!(credit.may_lend());
        credit.lend(&mut other, 500);
        assert!(!credit.may_lend(), "all are lent");
        credit.repay(&mut one, 900);
        assert!(credit.may_lend());
        credit.lend(&mut one, 100);
        credit.queue_is_empty();
        credit.lend(&mut other, 1500);
        credit.repay(&mut one, 0);
        assert!(!credit.may_lend(), "what is forgotten is not given back");
        credit.repay(&mut other, 1499);
        assert!(credit.may_lend());
        credit.set_others_wait(true);
        assert!(!credit.may_lend() && credit.has_credit());
    }

    #[test]
    fn idle_promises_are_forgotten_though_the_queue_is_never_empty() {
        let mut credit = CreditPool::new(0, 0);
        credit.set_limits(windows(100, 100));
        credit.lend(&mut WindowCredit::default(), 100);
        for _ in 1..2 * TAP_QUEUE_FRAMES {
            credit.frame_received();
        }
        assert!(!credit.has_credit());
        credit.frame_received();
        assert!(credit.has_credit());
    }

    #[test]
    fn promises_are_renewed_when_they_grow() {
        let mut credit = CreditPool::new(0, 0);
        let mut flow = WindowCredit::default();
        credit.set_limits(windows(100, 100));
        credit.lend(&mut flow, 60);
        (0..TAP_QUEUE_FRAMES).for_each(|_| credit.frame_received());
        credit.lend(&mut flow, 40);
        (0..TAP_QUEUE_FRAMES).for_each(|_| credit.frame_received());
        assert!(!credit.has_credit());
        credit.repay(&mut flow, 50);
        assert!(credit.has_credit());
    }

    #[test]
    fn what_a_flow_had_before_counts_no_more_than_what_is_new() {
        let mut credit = CreditPool::new(0, 0);
        let mut flow = WindowCredit::default();
        credit.set_limits(windows(u32::MAX, 100));
        credit.lend(&mut flow, 5000);
        credit.queue_is_empty();
        credit.lend(&mut flow, 100);
        credit.repay(&mut flow, 4000);
        assert!(!credit.has_credit(), "as much as is new is still to come");
        credit.repay(&mut flow, 99);
        assert!(credit.has_credit());
    }
}
