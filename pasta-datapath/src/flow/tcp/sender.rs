//! The sending half: data from the host socket to the namespace, what is in flight, what the window allows,
//! and retransmission.
//!
//! There is no retransmission queue: octets stay in the receive queue of the host socket and are peeked at,
//! at an offset, until the namespace has acknowledged them. To retransmit is to peek from the front again,
//! hence go-back-N. It starts with the third duplicate acknowledgement (fast retransmit, RFC 5681) or the
//! retransmission timeout (RFC 6298). A zero window is probed without end (RFC 9293, section 3.8.6.1).

use super::rto::RetransmissionTimeout;
use crate::time::Instant;
use crate::wire::seq::Seq;
use crate::wire::window::{Mss, Window};
use std::time::Duration;

/// Duplicate acknowledgements that start a fast retransmit (RFC 5681, section 3.2).
const DUPLICATES_FOR_LOSS: u8 = 3;

/// Acknowledged octets, acknowledgements, and time after which octets are consumed from the socket's queue;
/// chosen so that an exchange of small messages does without the call. More must not be deferred, and none
/// for good: the kernel counts whole buffers, and a few octets left of one can hold the peer's window
/// closed.
const CONSUME_OCTETS: u32 = 2048;
const CONSUME_EVENTS: u8 = 8;
const CONSUME_WITHIN: Duration = Duration::from_millis(20);

/// How often a segment is retransmitted before the connection is aborted: with a floor of 200 ms that takes 102 s,
/// for a SYN 367 s (R2 of RFC 9293, section 3.8.3: at least 100 s, and 3 minutes for a SYN).
const MAX_EXPIRATIONS: u32 = 8;

/// The sending half of a connection with the namespace.
#[derive(Clone, Debug)]
pub struct Sender {
    /// SND.UNA: the oldest number not acknowledged; the front of the host socket's queue.
    unacknowledged: Seq,
    /// Next number to send; before `highest` during a retransmission.
    next: Seq,
    /// SND.NXT of RFC 9293: the first number never sent.
    highest: Seq,
    /// The namespace's window, counted from `unacknowledged`.
    window: SendWindow,
    /// The number of our FIN, once it was sent.
    fin: Option<Seq>,
    /// Whether segments may have other numbers than the oldest that is not acknowledged.
    numbers: Numbers,
    /// Payload acknowledged that is still in the socket's queue.
    consumable: Consumable,
    /// Duplicate acknowledgements in a row.
    duplicates: u8,
    /// Loss recovery ends when all before this is acknowledged; duplicates mean nothing until then.
    recovery_point: Option<Seq>,
    /// The segment whose round trip is measured: the number that acknowledges it, and when it was sent.
    timed: Option<(Seq, Instant)>,
    rto: RetransmissionTimeout,
    /// When to retransmit, or to probe a zero window.
    deadline: Option<Instant>,
}

/// The window that the namespace advertises.
#[derive(Clone, Copy, Debug)]
struct SendWindow {
    /// SND.WND.
    size: Window,
    /// The largest seen, to judge what is a small one.
    largest: Window,
    /// SND.WL1 and SND.WL2: the segment that last updated it.
    updated_by: (Seq, Seq),
}

/// Payload that the namespace has acknowledged and that was not consumed yet.
#[derive(Clone, Copy, Debug)]
struct Consumable {
    octets: u32,
    /// Acknowledgements since octets were last consumed.
    acknowledgements: u8,
    /// When consuming is deferred no longer.
    by: Option<Instant>,
    /// Consuming left nothing behind the last time, so that the octets deferred are whole small buffers and
    /// not the rest of a large one.
    queue_was_emptied: bool,
}

/// Whether acknowledged octets may stay in the socket's queue for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consume {
    /// They may, until there are enough to be worth a call, or time has passed. `whole_queue_seen`: nothing
    /// is in the queue behind what was sent.
    InBulk {
        /// As far as known.
        whole_queue_seen: bool,
    },
    /// They may not: a socket that is closed with octets in its queue resets its connection.
    All,
}

/// Which numbers segments may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Any in the window.
    Any,
    /// Only the oldest that is not acknowledged: so that each could be the first that arrives.
    First,
}

/// What an acknowledgement meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// Something new.
    Progress,
    /// Nothing new.
    Nothing,
    /// A segment was lost: fast retransmit.
    Loss,
    /// Numbers that were never sent.
    Invalid,
}

/// What a passed deadline asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// Retransmit from the front.
    Retransmit,
    /// Send a zero-window probe.
    Probe,
    /// The namespace does not answer: abort.
    Abort,
}

impl Sender {
    /// Before our SYN with number `iss` is sent.
    pub fn new(iss: Seq, window: Window) -> Self {
        Self {
            unacknowledged: iss,
            next: iss,
            highest: iss,
            window: SendWindow { size: window, largest: window, updated_by: (Seq::default(), iss) },
            fin: None,
            numbers: Numbers::Any,
            consumable: Consumable {
                octets: 0,
                acknowledgements: 0,
                by: None,
                queue_was_emptied: true,
            },
            duplicates: 0,
            recovery_point: None,
            timed: None,
            rto: RetransmissionTimeout::default(),
            deadline: None,
        }
    }

    /// Our SYN is sent or retransmitted. Nothing else is in flight.
    pub fn syn_sent(&mut self, now: Instant) {
        let first = self.highest == self.unacknowledged;
        self.next = self.unacknowledged + 1;
        self.highest = self.next;
        self.timed = first.then_some((self.next, now));
        self.deadline = Some(now + self.rto.current());
    }

    /// The namespace has answered our SYN with the window `window`, in a segment at `seq`.
    pub fn established(&mut self, seq: Seq, window: Window) {
        let updated_by = (seq, self.highest);
        self.window = SendWindow { size: window, largest: window, updated_by };
        // The SYN is not in the socket's queue.
        self.consumable.octets = 0;
    }

    /// The first number never sent.
    pub fn highest(&self) -> Seq {
        self.highest
    }

    /// The sequence number for a segment without data: never before what the namespace expects, and never
    /// beyond its window, even if that has shrunk. It would ignore the segment and with it the
    /// acknowledgement.
    pub fn pure_ack_seq(&self) -> Seq {
        if self.numbers == Numbers::First {
            return self.unacknowledged;
        }
        let edge = self.unacknowledged + self.window.size;
        if self.highest.after(edge) { edge } else { self.highest }
    }

    /// The largest window that the namespace has advertised.
    pub fn largest_window(&self) -> Window {
        self.window.largest
    }

    /// Says which numbers segments may have from now on.
    pub fn set_numbers(&mut self, numbers: Numbers) {
        self.numbers = numbers;
    }

    /// Which numbers segments may have.
    pub fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// Whether a segment may have the next number.
    pub fn may_send_next(&self) -> bool {
        self.numbers == Numbers::Any || self.next == self.unacknowledged
    }

    /// The oldest number not acknowledged.
    pub fn unacknowledged(&self) -> Seq {
        self.unacknowledged
    }

    /// The number the next data gets.
    pub fn next(&self) -> Seq {
        self.next
    }

    /// Whether anything awaits acknowledgement.
    pub fn in_flight(&self) -> u32 {
        self.highest.distance_from(self.unacknowledged)
    }

    /// Whether our FIN was acknowledged.
    pub fn fin_acknowledged(&self) -> bool {
        self.fin.is_some_and(|fin| self.unacknowledged.after(fin))
    }

    /// The number of our FIN, once it was sent.
    pub fn fin(&self) -> Option<Seq> {
        self.fin
    }

    /// How far into the socket's queue the next octet to send is.
    pub fn peek_offset(&self) -> u32 {
        self.next.distance_from(self.unacknowledged) + self.consumable.octets
    }

    /// How many octets may be sent now; zero also while a small rest of the window would make a
    /// needlessly small segment (RFC 9293, section 3.8.6.2.1).
    pub fn allowance(&self, mss: Mss) -> u32 {
        if !self.may_send_next() || self.fin.is_some_and(|fin| !self.next.before(fin)) {
            return 0;
        }
        let edge = self.unacknowledged + self.window.size;
        let left = edge.distance_from(self.next);
        let worthwhile = u32::from(mss).min(self.window.largest.octets() / 2);
        // Counted up to what is next, not to the highest: a retransmission has to leave even if the window
        // has become small.
        let before = self.next.distance_from(self.unacknowledged);
        let left = if left < worthwhile && before > 0 { 0 } else { left };
        // Nothing is sent behind our FIN.
        self.fin.map_or(left, |fin| left.min(fin.distance_from(self.next)))
    }

    /// `octets` of data have left, starting at [`Sender::next`].
    pub fn sent(&mut self, now: Instant, octets: u32) {
        self.starts_flight();
        let fresh = self.next == self.highest;
        self.next += octets;
        self.highest = self.highest.latest(self.next);
        if fresh && self.timed.is_none() && octets > 0 {
            self.timed = Some((self.next, now));
        }
        self.arm(now);
    }

    /// Our FIN has left, at [`Sender::next`].
    pub fn fin_sent(&mut self, now: Instant) {
        self.starts_flight();
        self.fin = Some(self.next);
        self.next += 1;
        self.highest = self.highest.latest(self.next);
        self.arm(now);
    }

    /// The first octet in flight after a pause: unanswered zero-window probes do not count as losses.
    fn starts_flight(&mut self) {
        if self.in_flight() == 0 {
            self.rto.progressed();
            self.deadline = None;
        }
    }

    /// Whether everything up to our FIN was sent and the FIN is to be retransmitted.
    pub fn fin_to_retransmit(&self) -> bool {
        self.fin == Some(self.next) && self.may_send_next()
    }

    /// Takes in the acknowledgement number `ack` and window `window` of a segment at `seq` that
    /// occupies `len` numbers.
    pub fn acknowledge(
        &mut self,
        now: Instant,
        seq: Seq,
        len: u32,
        ack: Seq,
        window: Window,
    ) -> Acknowledged {
        if ack.after(self.highest) {
            return Acknowledged::Invalid;
        }
        let same_window = window == self.window.size;
        let (by_seq, by_ack) = self.window.updated_by;
        // An old segment must not bring back an old window (RFC 9293, section 3.10.7.4).
        if seq.after(by_seq) || (seq == by_seq && !ack.before(by_ack)) {
            let largest = self.window.largest.max(window);
            self.window = SendWindow { size: window, largest, updated_by: (seq, ack) };
        }
        if !ack.after(self.unacknowledged) {
            let duplicate = ack == self.unacknowledged && len == 0 && same_window;
            if !duplicate || self.in_flight() == 0 || self.recovery_point.is_some() {
                return Acknowledged::Nothing;
            }
            self.duplicates = self.duplicates.saturating_add(1);
            if self.duplicates < DUPLICATES_FOR_LOSS {
                return Acknowledged::Nothing;
            }
            self.recovery_point = Some(self.highest);
            self.go_back_n();
            return Acknowledged::Loss;
        }
        let mut octets = ack.distance_from(self.unacknowledged);
        if self.fin.is_some_and(|fin| ack.after(fin)) {
            octets -= 1;
        }
        let consumable = &mut self.consumable;
        consumable.octets = consumable.octets.saturating_add(octets);
        consumable.acknowledgements = consumable.acknowledgements.saturating_add(1);
        self.unacknowledged = ack;
        self.next = self.next.latest(ack);
        self.duplicates = 0;
        if self.recovery_point.is_some_and(|until| !ack.before(until)) {
            self.recovery_point = None;
        }
        if let Some((_, left)) = self.timed.filter(|&(until, _)| !ack.before(until)) {
            self.rto.measured(now - left);
            self.timed = None;
        }
        self.rto.progressed();
        self.deadline = None;
        self.arm(now);
        Acknowledged::Progress
    }

    /// Payload octets to consume from the socket; the next call gives zero. While they are few and `when`
    /// allows it, the answer is zero and they are deferred: the peek offset passes over them.
    pub fn take_consumable(&mut self, now: Instant, when: Consume) -> u32 {
        let mut emptied = self.in_flight() == 0;
        let consumable = &mut self.consumable;
        if consumable.octets == 0 {
            return 0;
        }
        let few =
            consumable.octets < CONSUME_OCTETS && consumable.acknowledgements < CONSUME_EVENTS;
        let by = *consumable.by.get_or_insert(now + CONSUME_WITHIN);
        if let Consume::InBulk { whole_queue_seen } = when {
            if few && consumable.queue_was_emptied && now < by {
                return 0;
            }
            emptied &= whole_queue_seen;
        }
        consumable.acknowledgements = 0;
        consumable.by = None;
        consumable.queue_was_emptied = emptied;
        std::mem::take(&mut consumable.octets)
    }

    /// When deferred octets are to be consumed.
    pub fn consume_by(&self) -> Option<Instant> {
        self.consumable.by
    }

    /// Retransmits from the front.
    fn go_back_n(&mut self) {
        self.next = self.unacknowledged;
        self.timed = None;
    }

    /// Whether something at `seq` was sent and is not acknowledged.
    pub fn has_in_flight(&self, seq: Seq) -> bool {
        !seq.before(self.unacknowledged) && seq.before(self.highest)
    }

    /// Sends again all that is in flight, which is no sign that the namespace is gone.
    pub fn resend(&mut self) {
        self.recovery_point = Some(self.highest);
        self.go_back_n();
    }

    /// The tap did not take a frame at `from` and those after it.
    pub fn not_sent(&mut self, from: Seq) {
        self.next = from;
        self.timed = None;
    }

    /// Data waits but the window is zero and nothing is in flight: zero-window probes are due.
    pub fn blocked(&mut self, now: Instant) {
        if self.in_flight() == 0 && self.deadline.is_none() {
            self.deadline = Some(now + self.rto.current());
        }
    }

    /// Nothing waits: no probes.
    pub fn unblocked(&mut self) {
        if self.in_flight() == 0 {
            self.deadline = None;
        }
    }

    fn arm(&mut self, now: Instant) {
        if self.in_flight() == 0 {
            self.deadline = None;
        } else if self.deadline.is_none() {
            self.deadline = Some(now + self.rto.current());
        }
    }

    /// When [`Sender::expire`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Says what the passing of the deadline asks for; `None` if it has not passed.
    pub fn expire(&mut self, now: Instant) -> Option<Expired> {
        if now < self.deadline? {
            return None;
        }
        let expired = if self.in_flight() == 0 {
            Expired::Probe
        } else if self.window.size == Window::ZERO {
            // The window has shrunk to zero with octets in flight, which is no sign that the namespace is
            // gone. They are retransmitted when the window opens.
            self.go_back_n();
            Expired::Probe
        } else if self.rto.expirations() >= MAX_EXPIRATIONS {
            Expired::Abort
        } else {
            self.go_back_n();
            self.recovery_point = Some(self.highest);
            Expired::Retransmit
        };
        self.rto.expired();
        self.deadline = Some(now + self.rto.current());
        Some(expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BULK: Consume = Consume::InBulk { whole_queue_seen: true };

    const THEIRS: Seq = Seq::const_from(1000);

    fn open(window: u32) -> Sender {
        let mut sender = Sender::new(Seq::from(u32::MAX - 5), Window::new(window));
        sender.syn_sent(Instant::START);
        let ack = sender.highest();
        assert_eq!(
            sender.acknowledge(Instant::START, THEIRS, 0, ack, Window::new(window)),
            Acknowledged::Progress
        );
        sender.established(THEIRS, Window::new(window));
        sender
    }

    fn ack(sender: &mut Sender, octets: u32, window: u32) -> Acknowledged {
        let number = sender.unacknowledged() + octets;
        sender.acknowledge(Instant::START, THEIRS, 0, number, Window::new(window))
    }

    #[test]
    fn allowance_is_the_rest_of_the_window_and_small_rests_wait() {
        let mut s = open(10_000);
        assert_eq!(s.allowance(Mss::new(1460)), 10_000);
        s.sent(Instant::START, 9_000);
        assert_eq!(s.allowance(Mss::new(1460)), 0, "1000 left are less than a segment");
        ack(&mut s, 9_000, 1_000);
        assert_eq!(s.allowance(Mss::new(1460)), 1_000, "but nothing is in flight any more");
    }

    #[test]
    fn acknowledged_octets_are_consumable_once_and_fin_is_not_an_octet() {
        let mut s = open(10_000);
        s.sent(Instant::START, 500);
        s.fin_sent(Instant::START);
        ack(&mut s, 501, 10_000);
        assert_eq!(s.take_consumable(Instant::START, BULK), 0, "deferred");
        assert_eq!(s.take_consumable(Instant::START, Consume::All), 500);
        assert_eq!(s.take_consumable(Instant::START, Consume::All), 0);
        assert!(s.fin_acknowledged());
        assert_eq!(s.deadline(), None);
    }

    #[test]
    fn third_duplicate_starts_one_fast_retransmit_for_each_loss() {
        let mut s = open(100_000);
        s.sent(Instant::START, 50_000);
        let start = s.unacknowledged();
        assert_eq!(ack(&mut s, 0, 100_000), Acknowledged::Nothing);
        assert_eq!(ack(&mut s, 0, 100_000), Acknowledged::Nothing);
        assert_eq!(ack(&mut s, 0, 100_000), Acknowledged::Loss);
        assert_eq!((s.next(), s.peek_offset()), (start, 0));
        for _ in 0..10 {
            assert_eq!(ack(&mut s, 0, 100_000), Acknowledged::Nothing);
        }
        s.sent(Instant::START, 50_000);
        assert_eq!(ack(&mut s, 50_000, 100_000), Acknowledged::Progress);
    }

    #[test]
    fn window_update_and_data_are_no_duplicates() {
        let mut s = open(100_000);
        s.sent(Instant::START, 50_000);
        for n in 0..5 {
            assert_eq!(ack(&mut s, 0, 90_000 + n), Acknowledged::Nothing);
            let number = s.unacknowledged();
            let data = s.acknowledge(Instant::START, THEIRS, 10, number, Window::new(90_000 + n));
            assert_eq!(data, Acknowledged::Nothing);
        }
        assert_eq!(s.peek_offset(), 50_000);
    }

    #[test]
    fn acknowledgement_beyond_what_was_sent_is_invalid() {
        let mut s = open(1000);
        assert_eq!(ack(&mut s, 1, 1000), Acknowledged::Invalid);
    }

    #[test]
    fn acknowledgement_during_retransmission_of_all_that_was_sent_moves_on() {
        let mut s = open(100_000);
        s.sent(Instant::START, 30_000);
        let due = s.deadline().unwrap();
        assert_eq!(s.expire(due), Some(Expired::Retransmit));
        assert_eq!(s.peek_offset(), 0);
        assert_eq!(ack(&mut s, 30_000, 100_000), Acknowledged::Progress);
        assert_eq!((s.take_consumable(Instant::START, BULK), s.peek_offset()), (30_000, 0));
        assert_eq!(s.in_flight(), 0);
    }

    #[test]
    fn connection_with_a_silent_namespace_is_aborted_after_exponential_backoff() {
        let mut s = open(1000);
        s.sent(Instant::START, 100);
        let mut retransmissions = 0;
        loop {
            match s.expire(s.deadline().unwrap()).unwrap() {
                Expired::Retransmit => retransmissions += 1,
                Expired::Abort => break,
                Expired::Probe => panic!("something is in flight"),
            }
            s.sent(Instant::START, 100);
        }
        assert_eq!(retransmissions, MAX_EXPIRATIONS);
    }

    #[test]
    fn rest_of_a_large_buffer_is_never_left_in_the_queue() {
        let mut s = open(100_000);
        s.sent(Instant::START, 65_000);
        ack(&mut s, 60_000, 100_000);
        assert_eq!(s.take_consumable(Instant::START, BULK), 60_000);
        ack(&mut s, 1000, 100_000);
        assert_eq!(s.take_consumable(Instant::START, BULK), 1000);
        ack(&mut s, 4000, 100_000);
        assert_eq!(s.take_consumable(Instant::START, BULK), 4000);
        s.sent(Instant::START, 100);
        ack(&mut s, 100, 100_000);
        assert_eq!(s.take_consumable(Instant::START, BULK), 0, "a small message of its own");
    }

    #[test]
    fn deferred_octets_are_consumed_in_time() {
        let mut s = open(100_000);
        s.sent(Instant::START, 100);
        ack(&mut s, 100, 100_000);
        assert_eq!(s.take_consumable(Instant::START, BULK), 0);
        let by = s.consume_by().unwrap();
        assert_eq!(by, Instant::START + CONSUME_WITHIN);
        assert_eq!(s.take_consumable(by, BULK), 100);
        assert_eq!(s.consume_by(), None);
    }

    #[test]
    fn nothing_is_deferred_while_more_may_be_in_the_queue() {
        let mut s = open(100_000);
        s.sent(Instant::START, 60_000);
        ack(&mut s, 60_000, 100_000);
        let partly = Consume::InBulk { whole_queue_seen: false };
        assert_eq!(s.take_consumable(Instant::START, partly), 60_000);
        s.sent(Instant::START, 1000);
        ack(&mut s, 1000, 100_000);
        assert_eq!(s.take_consumable(Instant::START, BULK), 1000, "the rest of a large buffer");
    }

    #[test]
    fn segment_without_data_stays_inside_a_window_that_has_shrunk() {
        let mut s = open(100_000);
        s.sent(Instant::START, 50_000);
        assert_eq!(s.pure_ack_seq(), s.highest());
        ack(&mut s, 10_000, 5000);
        assert_eq!(s.pure_ack_seq(), s.unacknowledged() + 5000);
        ack(&mut s, 0, 0);
        assert_eq!(s.pure_ack_seq(), s.unacknowledged());
    }

    #[test]
    fn nothing_follows_the_first_number_before_that_is_acknowledged() {
        let mut s = open(100_000);
        s.set_numbers(Numbers::First);
        assert_eq!((s.pure_ack_seq(), s.allowance(Mss::new(1460))), (s.next(), 100_000));
        s.sent(Instant::START, 2);
        assert_eq!((s.pure_ack_seq(), s.allowance(Mss::new(1460))), (s.unacknowledged(), 0));
        s.fin = Some(s.next());
        assert!(!s.fin_to_retransmit());
        assert_eq!(s.expire(s.deadline().unwrap()), Some(Expired::Retransmit));
        assert_eq!(s.allowance(Mss::new(1460)), 2, "the same again");
        s.sent(Instant::START, 2);
        ack(&mut s, 2, 100_000);
        assert!(s.fin_to_retransmit());
    }

    #[test]
    fn retransmission_leaves_into_a_small_window() {
        let mut s = open(100_000);
        s.sent(Instant::START, 90_000);
        ack(&mut s, 0, 1000);
        assert_eq!(s.expire(s.deadline().unwrap()), Some(Expired::Retransmit));
        assert_eq!(s.allowance(Mss::new(65_480)), 1000);
    }

    #[test]
    fn window_that_shrinks_to_zero_is_probed_and_not_aborted() {
        let mut s = open(1000);
        s.sent(Instant::START, 1000);
        ack(&mut s, 0, 0);
        for _ in 0..50 {
            assert_eq!(s.expire(s.deadline().unwrap()), Some(Expired::Probe));
        }
        ack(&mut s, 0, 1000);
        assert_eq!((s.allowance(Mss::new(1460)), s.peek_offset()), (1000, 0));
    }

    #[test]
    fn zero_window_is_probed_without_end() {
        let mut s = open(1000);
        s.sent(Instant::START, 1000);
        ack(&mut s, 1000, 0);
        let mut now = Instant::START;
        s.blocked(now);
        for _ in 0..50 {
            now = s.deadline().unwrap();
            assert_eq!(s.expire(now), Some(Expired::Probe));
        }
        assert!(now.since(Instant::START) > Duration::from_secs(600));
    }
}
