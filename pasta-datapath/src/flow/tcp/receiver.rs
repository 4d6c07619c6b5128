//! The receiving half: data from the namespace to the host socket, acknowledgements, and the advertised
//! window.
//!
//! An octet is acknowledged when the host socket has accepted it. Octets in order that do not fit the
//! socket go to the backlog of the relay and are never dropped, so that no octet inside the window has to
//! be retransmitted. The advertised window is the free space of the send buffer, less the backlog; its
//! right edge never moves left (RFC 9293, section 3.8.6).

use crate::sys::send_buffer::SendBuffer;
use crate::wire::seq::Seq;
use crate::wire::window::{Mss, Window, WindowScale, WireWindow};
use std::ops::Range;

/// Largest window we advertise: the largest that the scale we offer can express.
const MAX_WINDOW: Window = WireWindow::MAX.scaled(super::WINDOW_SCALE);

/// The free space of the send buffer is read again when less than this is left of the window (half of the
/// largest window, if that is less), or half of that was used since.
const UPDATE_BELOW: u32 = 32 * 1024;

/// Whether a FIN comes behind octets of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fin {
    /// More may follow.
    Absent,
    /// They are the last.
    Follows,
}

impl Fin {
    /// How many sequence numbers it takes.
    pub fn numbers(self) -> u32 {
        u32::from(self == Self::Follows)
    }
}

/// The part of a segment that is new, in order, and inside the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Take these octets of the payload, and the FIN behind them.
    InOrder {
        /// Part of the payload.
        payload: Range<usize>,
        /// The sender's FIN.
        fin: Fin,
    },
    /// Nothing new: a duplicate.
    Duplicate,
    /// Octets in front of it are missing.
    OutOfOrder,
}

/// The receiving half of a connection with the namespace.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// RCV.NXT: the socket has accepted all before it, or it is in the backlog.
    next: Seq,
    /// The socket has accepted all before it; the acknowledgement number we send.
    accepted: Seq,
    /// Right edge of the window: the first number beyond it. Never moves left.
    edge: Seq,
    /// Shift count of the windows we send; 0 if the peer does not scale.
    scale: WindowScale,
    /// The largest segment the namespace may send us.
    mss: Mss,
    /// RCV.NXT when the free space of the send buffer was last read.
    updated_at: Seq,
    /// Acknowledgement number and edge of the last segment we sent.
    advertised: (Seq, Seq),
    /// The largest window advertised so far.
    largest_window: Window,
    /// Whether an acknowledgement is due even if it carries nothing new.
    ack_forced: bool,
    /// Whether a segment of ours has said how large the window is.
    window_known: bool,
    /// Whether a segment of ours has opened a zero window.
    window_opened: bool,
    /// Duplicate range to report in a D-SACK block (RFC 2883); empty if none.
    duplicate: (Seq, Seq),
}

impl Receiver {
    /// After a SYN with number `irs`. No window is open until [`Receiver::update_window`].
    pub fn new(irs: Seq, scale: WindowScale, mss: Mss) -> Self {
        let next = irs + 1;
        Self {
            next,
            accepted: next,
            edge: next,
            scale,
            mss,
            updated_at: next,
            advertised: (next, next),
            largest_window: Window::ZERO,
            ack_forced: false,
            window_known: false,
            window_opened: false,
            duplicate: (next, next),
        }
    }

    /// RCV.NXT: the next number expected in order.
    pub fn next(&self) -> Seq {
        self.next
    }

    /// Right edge of the window.
    pub fn edge(&self) -> Seq {
        self.edge
    }

    /// The number to acknowledge.
    pub fn acknowledged(&self) -> Seq {
        self.accepted
    }

    /// Octets taken from segments and not yet accepted by the socket.
    pub fn backlog(&self) -> u32 {
        self.next.distance_from(self.accepted)
    }

    /// Whether a segment at `seq` that occupies `len` numbers touches the window (RFC 9293, section
    /// 3.10.7.4, first step).
    pub fn acceptable(&self, seq: Seq, len: u32) -> bool {
        let ends_in_or_after = !(seq + len).before(self.next);
        let starts_before_edge = !seq.after(self.edge);
        ends_in_or_after && starts_before_edge
    }

    /// Says what to take of a segment and advances RCV.NXT past it. Overlap is trimmed on both sides.
    pub fn take(&mut self, seq: Seq, payload_len: usize, fin: Fin) -> Taken {
        let len = u32::try_from(payload_len).unwrap_or(u32::MAX);
        if seq.after(self.next) {
            self.ack_forced = true;
            return Taken::OutOfOrder;
        }
        self.note_duplicate(seq, len);
        let skip = self.next.distance_from(seq);
        let keep = len.min(self.edge.distance_from(seq));
        // FIN counts only if nothing before it was cut off.
        let fin = if keep == len && skip <= len { fin } else { Fin::Absent };
        if skip >= keep && fin == Fin::Absent {
            self.ack_forced = true;
            return Taken::Duplicate;
        }
        self.next = seq + keep + fin.numbers();
        // A FIN needs no buffer space: one behind a full window is taken and moves the edge.
        self.edge = self.edge.latest(self.next);
        Taken::InOrder { payload: skip as usize..keep.max(skip) as usize, fin }
    }

    /// The socket has accepted `octets` more, those of the backlog first.
    pub fn accept(&mut self, octets: u32) {
        self.accepted += octets.min(self.backlog());
    }

    /// Octets of the window that are left.
    pub fn left(&self) -> u32 {
        self.edge.distance_from(self.next)
    }

    /// Recomputes the window from the free space of the send buffer; gives by how many octets it has grown.
    pub fn update_window(&mut self, buffer: SendBuffer) -> u32 {
        self.updated_at = self.next;
        let free = Window::new(buffer.payload().saturating_sub(self.backlog()));
        let whole = free.min(MAX_WINDOW).whole(self.scale);
        let before = self.edge;
        self.edge = before.latest(self.next + whole);
        self.edge.distance_from(before)
    }

    /// Whether the acknowledgement that is due may be delayed, for a segment with data to carry it.
    pub fn may_wait(&self) -> bool {
        !self.ack_forced && self.left() >= UPDATE_BELOW
    }

    /// Whether so much of the window is used that the send buffer should be read again.
    pub fn is_used_up(&self) -> bool {
        let left = self.left();
        let enough = UPDATE_BELOW.min(self.largest_window.octets() / 2);
        left < enough
            || self.backlog() > 0
            || self.next.distance_from(self.updated_at) >= enough / 2
    }

    /// Notes the part of `len` octets from `seq` on that is before RCV.NXT as a duplicate, and forces an
    /// acknowledgement. Of several duplicates the last is reported.
    pub fn note_duplicate(&mut self, seq: Seq, len: u32) {
        if len > 0 && seq.before(self.next) {
            let end = seq + len;
            self.duplicate = (seq, if end.before(self.next) { end } else { self.next });
            self.ack_forced = true;
        }
    }

    /// Whether there is a duplicate to report. Not before it is acknowledged: until then the sender would
    /// read the block as a SACK block, of octets received out of order.
    pub fn has_duplicate(&self) -> bool {
        self.duplicate.0 != self.duplicate.1 && !self.duplicate.1.after(self.accepted)
    }

    /// The D-SACK block to report: left and right edge (RFC 2883, section 4). It counts as reported. Without
    /// it the sender takes a spurious retransmission for a loss and reduces its congestion window.
    pub fn take_duplicate(&mut self) -> Option<(Seq, Seq)> {
        let (from, to) = self.duplicate;
        self.has_duplicate().then(|| {
            self.duplicate.0 = to;
            (from, to)
        })
    }

    /// Makes an acknowledgement due, whatever it carries.
    pub fn force_ack(&mut self) {
        self.ack_forced = true;
    }

    /// Whether an acknowledgement or a window update is due.
    pub fn ack_due(&self) -> bool {
        let (ack, edge) = self.advertised;
        if self.ack_forced || self.acknowledged().after(ack) {
            return true;
        }
        // A window update is sent when the sender may be waiting for it, in whole segments: a duplicate
        // acknowledgement looks like a sign of loss to the sender. A sender makes no segment larger than
        // half of the largest window it was given (RFC 9293, section 3.8.6.2.2).
        let left = edge.distance_from(self.next);
        let growth = self.edge.distance_from(edge);
        let step = u32::from(self.mss).min(self.largest_window.octets() / 2).max(1);
        growth > 0 && left < step * 2 && (growth >= step || left == 0)
    }

    /// Whether the window is so small that it may be all that the namespace waits for.
    pub fn is_tight(&self) -> bool {
        self.left() < u32::from(self.mss) * 2
    }

    /// Acknowledgement number and window field of the segment that is about to be sent.
    pub fn advertise(&mut self) -> (Seq, WireWindow) {
        let (ack, field) = (self.acknowledged(), self.field(self.scale));
        let window = field << self.scale;
        let (_, old_edge) = self.advertised;
        self.advertised = (ack, old_edge.latest(ack + window));
        self.largest_window = self.largest_window.max(window);
        let was_zero = self.window_known && !old_edge.after(self.next);
        self.window_opened |= was_zero && self.advertised.1.after(self.next);
        self.window_known = true;
        self.ack_forced = false;
        (ack, field)
    }

    /// As [`Receiver::advertise`] for a SYN, whose window is never scaled (RFC 7323, section 2.2).
    pub fn advertise_in_syn(&mut self) -> (Seq, WireWindow) {
        let (ack, field) = (self.acknowledged(), self.field(WindowScale::NONE));
        let window = field << WindowScale::NONE;
        self.advertised = (ack, ack + window);
        self.window_known = true;
        self.largest_window = window;
        self.ack_forced = false;
        (ack, field)
    }

    /// Whether a zero window was opened since the last call: that window update has to be retransmitted if
    /// it is lost. The first window of a connection opens none: it comes with the handshake.
    pub fn take_window_opened(&mut self) -> bool {
        std::mem::take(&mut self.window_opened)
    }

    /// How many of `payload_len` octets at `seq`, out of order, are inside the window.
    pub fn out_of_order_len(&self, seq: Seq, payload_len: usize) -> usize {
        payload_len.min(self.edge.distance_from(seq) as usize)
    }

    /// The window counts from the acknowledgement number, so that the backlog is inside it.
    fn field(&self, scale: WindowScale) -> WireWindow {
        Window::new(self.edge.distance_from(self.acknowledged())) >> scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER: SendBuffer = SendBuffer { size: 400_000, queued: 0 };

    fn receiver() -> Receiver {
        let mut receiver =
            Receiver::new(Seq::from(u32::MAX - 10), super::super::WINDOW_SCALE, Mss::new(1460));
        receiver.update_window(BUFFER);
        receiver
    }

    #[test]
    fn overlap_is_trimmed_in_front_and_behind() {
        let mut r = receiver();
        let first = r.next();
        assert_eq!(
            r.take(first, 100, Fin::Absent),
            Taken::InOrder { payload: 0..100, fin: Fin::Absent }
        );
        assert_eq!(
            r.take(first + 40, 100, Fin::Absent),
            Taken::InOrder { payload: 60..100, fin: Fin::Absent }
        );
        let left = r.edge().distance_from(r.next()) as usize;
        let range = 0..left;
        assert_eq!(
            r.take(r.next(), left + 50, Fin::Follows),
            Taken::InOrder { payload: range, fin: Fin::Absent }
        );
        assert_eq!(r.next(), r.edge());
    }

    #[test]
    fn duplicate_and_gap_force_an_acknowledgement_and_take_nothing() {
        let mut r = receiver();
        let first = r.next();
        r.take(first, 100, Fin::Absent);
        r.accept(100);
        r.advertise();
        assert_eq!(r.take(first, 100, Fin::Absent), Taken::Duplicate);
        assert!(r.ack_due());
        r.advertise();
        assert!(!r.ack_due());
        assert_eq!(r.take(first + 200, 100, Fin::Absent), Taken::OutOfOrder);
        assert!(r.ack_due());
    }

    #[test]
    fn fin_takes_a_number_and_comes_only_in_order() {
        let mut r = receiver();
        let first = r.next();
        assert_eq!(r.take(first + 1, 0, Fin::Follows), Taken::OutOfOrder);
        assert_eq!(
            r.take(first, 10, Fin::Follows),
            Taken::InOrder { payload: 0..10, fin: Fin::Follows }
        );
        assert_eq!(r.next(), first + 11);
        assert_eq!(r.take(first, 10, Fin::Follows), Taken::Duplicate);
    }

    #[test]
    fn only_what_the_socket_accepted_is_acknowledged() {
        let mut r = receiver();
        let first = r.next();
        r.take(first, 1000, Fin::Absent);
        r.accept(300);
        assert_eq!(r.advertise().0, first + 300);
        assert_eq!(r.backlog(), 700);
    }

    #[test]
    fn right_edge_never_moves_left_and_full_socket_closes_the_window() {
        let mut r = receiver();
        let edge = r.edge();
        r.update_window(SendBuffer { size: 400_000, queued: 400_000 });
        assert_eq!(r.edge(), edge);
        r.take(r.next(), edge.distance_from(r.next()) as usize, Fin::Absent);
        r.accept(u32::MAX);
        r.update_window(SendBuffer { size: 400_000, queued: 400_000 });
        assert_eq!(r.advertise().1, WireWindow::ZERO);
        r.update_window(BUFFER);
        assert!(r.ack_due());
        assert!(r.advertise().1 > WireWindow::ZERO);
    }

    #[test]
    fn growth_by_half_the_largest_window_is_advertised_to_a_sender_of_large_segments() {
        let mut r = Receiver::new(Seq::from(0), super::super::WINDOW_SCALE, Mss::new(65_480));
        r.update_window(SendBuffer { size: 80_000, queued: 0 });
        r.advertise();
        r.take(r.next(), 50_000, Fin::Absent);
        r.accept(50_000);
        r.update_window(SendBuffer { size: 80_000, queued: 80_000 });
        r.advertise();
        assert!(!r.ack_due());
        r.update_window(SendBuffer { size: 80_000, queued: 0 });
        assert!(r.ack_due(), "less than a segment, but all there ever is");
    }

    #[test]
    fn opening_of_a_zero_window_is_noticed_once() {
        let mut r = receiver();
        r.advertise();
        r.take_window_opened();
        r.take(r.next(), r.edge().distance_from(r.next()) as usize, Fin::Absent);
        r.accept(u32::MAX);
        r.advertise();
        assert!(!r.take_window_opened());
        r.update_window(SendBuffer { size: 4_000_000, queued: 0 });
        r.advertise();
        assert!(r.take_window_opened() && !r.take_window_opened());
    }

    #[test]
    fn growth_is_not_advertised_while_the_sender_has_plenty() {
        let mut r = receiver();
        r.advertise();
        r.update_window(SendBuffer { size: 4_000_000, queued: 0 });
        assert!(!r.ack_due());
    }
}
