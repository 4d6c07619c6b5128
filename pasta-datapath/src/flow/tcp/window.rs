//! The limits that all TCP connections share: the backlog and the window credit.
//!
//! The backlog is memory of ours: octets taken and not yet written. Window credit is the part of the tap's
//! queue that is lent to flows: advertised windows that are not yet used, since the queue has to hold what
//! the namespace sends into them. When no credit is left, a flow waits until another one's octets have
//! arrived ([`CreditPool::may_lend`]); the caller serves the waiting flows in round robin.
//!
//! A window that is not used costs nothing. So all credit expires whenever the tap's queue is seen empty,
//! and credit that is older than as many frames as the queue holds: a flow that uses its window does so
//! sooner.

use crate::link::tx_window::WindowLimits;
use pasta_ipc::types::TAP_QUEUE_FRAMES;

/// Backlog and window credit of all flows, and the bounds on them.
#[derive(Debug)]
pub struct CreditPool {
    backlog: usize,
    backlog_total: u64,
    backlog_soft_limit: usize,
    max_backlog: usize,
    /// As in [`WindowLimits`].
    least: u32,
    most: u32,
    /// Credit lent in this epoch and the one before, by whether the epoch is odd; older credit has expired.
    lent: [u64; 2],
    credit_limit: u64,
    epoch: u32,
    /// Frames received in this epoch.
    frames: u32,
    /// Whether flows wait for credit.
    queue: CreditQueue,
}

/// The queue of flows that wait for window credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreditQueue {
    /// Nobody waits.
    Empty,
    /// Who is in it goes first.
    Waiting,
}

/// The window credit of one flow that it has not used yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct WindowCredit {
    epoch: u32,
    octets: u32,
}

impl CreditPool {
    /// With a backlog of `backlog_soft_limit` octets in all, windows of flows with a backlog no longer grow;
    /// more than `max_backlog` is refused. Window credit is not bounded yet.
    pub const fn new(backlog_soft_limit: usize, max_backlog: usize) -> Self {
        Self {
            backlog: 0,
            backlog_total: 0,
            backlog_soft_limit,
            max_backlog,
            least: 0,
            most: u32::MAX,
            lent: [0; 2],
            credit_limit: u64::MAX,
            epoch: 0,
            frames: 0,
            queue: CreditQueue::Empty,
        }
    }

    /// Sets the limits for windows from now on; those that are open stay.
    pub fn set_limits(&mut self, limits: WindowLimits) {
        (self.least, self.most, self.credit_limit) = (limits.least, limits.most, limits.all);
    }

    /// Smallest send buffer of a flow's socket, in octets of payload.
    pub fn least(&self) -> u32 {
        self.least
    }

    /// The largest window of one flow, in octets.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// Notes whether flows wait for credit, which then go first.
    pub fn set_queue(&mut self, queue: CreditQueue) {
        self.queue = queue;
    }

    /// Notes that a frame was read from the tap's queue. Once all that were in it have been read, unused
    /// credit is idle, even if traffic that needs no window keeps the queue full.
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
        if epoch % 2 == 0 { even } else { odd }
    }

    /// Whether credit of `epoch` still counts.
    fn counts(&self, epoch: u32) -> bool {
        self.epoch.wrapping_sub(epoch) <= 1
    }

    /// Notes that the tap's queue is empty.
    pub fn queue_is_empty(&mut self) {
        self.begin_epoch();
        self.begin_epoch();
    }

    /// Octets in the backlogs of all flows.
    pub fn backlog(&self) -> usize {
        self.backlog
    }

    /// Octets added to a backlog since start, each time it was.
    pub fn backlog_total(&self) -> u64 {
        self.backlog_total
    }

    /// Whether the backlog may grow by what could also be dropped, or by what a larger window invites.
    pub fn may_add_backlog(&self) -> bool {
        self.backlog < self.backlog_soft_limit
    }

    /// Whether `octets` more that arrived in order fit the backlog. If not, their flow has to end, since
    /// octets inside an advertised window are not dropped. A window that matches its socket never gets there.
    #[must_use]
    pub fn backlog_fits(&self, octets: usize) -> bool {
        self.backlog.saturating_add(octets) <= self.max_backlog
    }

    /// Adds `octets` to the backlog.
    pub fn add_backlog(&mut self, octets: usize) {
        self.backlog += octets;
        self.backlog_total += octets as u64;
    }

    /// Removes `octets` from the backlog.
    pub fn remove_backlog(&mut self, octets: usize) {
        self.backlog -= octets;
    }

    /// Octets of windows that are lent, and how many may be.
    pub fn credit(&self) -> (u64, u64) {
        (self.lent.iter().sum(), self.credit_limit)
    }

    /// Whether window credit is left.
    pub fn has_credit(&self) -> bool {
        self.lent.iter().sum::<u64>() < self.credit_limit
    }

    /// Whether a flow may have credit without waiting for its turn.
    pub fn may_lend(&self) -> bool {
        self.has_credit() && self.queue == CreditQueue::Empty
    }

    /// Lends credit to a flow whose window has grown by `octets`.
    pub fn lend(&mut self, flow: &mut WindowCredit, octets: u32) {
        let before = if self.counts(flow.epoch) { flow.octets } else { 0 };
        self.repay(flow, 0);
        *flow = WindowCredit { epoch: self.epoch, octets: before.saturating_add(octets) };
        *self.of_epoch(flow.epoch) += u64::from(flow.octets);
    }

    /// Takes back the credit of a flow of whose window `left` octets are unused.
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
    use crate::sys::send_buffer::SendBuffer;

    fn limits(most: u32, all: u64) -> WindowLimits {
        WindowLimits { least: 0, most, all }
    }

    #[test]
    fn backlog_total_counts_octets_each_time_they_are_added() {
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
    fn backlog_is_bounded() {
        let mut credit = CreditPool::new(100, 200);
        credit.add_backlog(150);
        assert!(!credit.may_add_backlog() && credit.backlog_fits(50));
        assert!(!credit.backlog_fits(51) && !credit.backlog_fits(usize::MAX));
    }

    #[test]
    fn credit_is_used_up_repaid_and_expires() {
        let mut credit = CreditPool::new(0, 0);
        let (mut one, mut other) = (WindowCredit::default(), WindowCredit::default());
        credit.set_limits(limits(1000, 1500));
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
        assert!(!credit.may_lend(), "what has expired is not repaid");
        credit.repay(&mut other, 1499);
        assert!(credit.may_lend());
        credit.set_queue(CreditQueue::Waiting);
        assert!(!credit.may_lend() && credit.has_credit());
    }

    #[test]
    fn idle_credit_expires_though_the_queue_is_never_empty() {
        let mut credit = CreditPool::new(0, 0);
        credit.set_limits(limits(100, 100));
        credit.lend(&mut WindowCredit::default(), 100);
        for _ in 1..2 * TAP_QUEUE_FRAMES {
            credit.frame_received();
        }
        assert!(!credit.has_credit());
        credit.frame_received();
        assert!(credit.has_credit());
    }

    #[test]
    fn credit_is_renewed_when_it_grows() {
        let mut credit = CreditPool::new(0, 0);
        let mut flow = WindowCredit::default();
        credit.set_limits(limits(100, 100));
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
        credit.set_limits(limits(u32::MAX, 100));
        credit.lend(&mut flow, 5000);
        credit.queue_is_empty();
        credit.lend(&mut flow, 100);
        credit.repay(&mut flow, 4000);
        assert!(!credit.has_credit(), "as much as is new is still to come");
        credit.repay(&mut flow, 99);
        assert!(credit.has_credit());
    }
}
