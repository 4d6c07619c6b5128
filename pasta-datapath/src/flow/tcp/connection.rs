//! One connection with the namespace: both halves, the handshake, simultaneous open, keepalive, and the end
//! by FIN, reset or timeout.

use super::WINDOW_SCALE;
use super::handshake::{Passed, Unconfirmed};
use super::receiver::{Fin, Receiver, Taken};
use super::sender::{Acknowledged, Expired, Numbers, Sender};
use crate::link::icmp_error::Unreachable;
use crate::time::Instant;
use crate::wire::seq::Seq;
use crate::wire::tcp::{Flags, Header, SackBlocks, SynOptions, ToSend};
use crate::wire::window::{Mss, Window, WindowScale, WireWindow};
use std::ops::Range;
use std::time::Duration;

/// Idle time before the first keepalive; chosen: well above what applications wait for an answer, well
/// below the two hours of RFC 9293.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(120);
/// Time between unanswered keepalives.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
/// This many unanswered keepalives end the connection.
const KEEPALIVE_PROBES: u8 = 5;

/// Smallest MSS that we accept from a peer; Linux has the same floor for its own (`TCP_MIN_MSS`).
const MIN_MSS: Mss = Mss::new(88);

const NO_SACK: SackBlocks = SackBlocks::NONE;

/// Which events a connection has seen. Its directions close apart, so there is no single state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// The namespace's SYN was received.
    syn_from_tap: bool,
    /// The host socket is connected and our SYN was sent.
    syn_sent: bool,
    /// The namespace has acknowledged our SYN.
    established: bool,
    /// The namespace's FIN arrived in order.
    fin_from_tap: bool,
    /// The host socket was shut down for writing.
    fin_to_socket: bool,
}

/// A connection with the namespace, opened by either side.
#[derive(Clone, Debug)]
pub struct Connection {
    seen: Seen,
    /// IRS: number of the namespace's SYN, once that was received.
    irs: Seq,
    receiver: Receiver,
    sender: Sender,
    /// Shift count of the namespace's windows; none if it does not scale.
    their_scale: Option<WindowScale>,
    /// Whether both ends understand SACK.
    sack: bool,
    /// Whether the namespace has sent a keepalive.
    keepalive_received: bool,
    /// Largest segment the namespace takes.
    their_mss: Mss,
    /// Largest segment we take.
    our_mss: Mss,
    /// While the namespace may not have the connection that it has answered.
    unconfirmed: Option<Unconfirmed>,
    keepalive_due: Instant,
    keepalives_sent: u8,
}

/// What to do with a segment's payload, or with the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentAction {
    /// This part of the payload is next in the stream; it may be empty.
    Take(Range<usize>),
    /// This part of the payload is out of order and may be kept, and a FIN behind it.
    OutOfOrder(Range<usize>, Option<Seq>),
    /// As `Take` of nothing; a segment of ours was lost and has to be retransmitted.
    Retransmit,
    /// The SYN of a new incarnation of the connection, between the same ends.
    NewIncarnation,
    /// The namespace has reset the connection.
    Reset,
    /// The acknowledgement of our SYN is unacceptable: both sides are to be reset.
    Unacceptable,
    /// An old duplicate, of an earlier incarnation, which this reset ends.
    OldDuplicate(ToSend),
    /// Simultaneous open: [`Connection::syn`] has to be sent again, as a SYN with ACK.
    SimultaneousOpen,
}

/// Whether a segment of ours pushes what the namespace has received (RFC 9293, section 3.9.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// The last one for now.
    Set,
    /// More follow at once.
    Clear,
}

/// What a passed deadline asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutAction {
    /// Nothing yet.
    Nothing,
    /// Retransmit [`Connection::syn`].
    RetransmitSyn,
    /// Retransmit from the front.
    Retransmit,
    /// Retransmit an acknowledgement.
    Acknowledge,
    /// Send [`Connection::probe`]: a zero-window probe or a keepalive.
    Probe,
    /// The namespace does not answer: reset both sides.
    Abort,
}

impl Connection {
    /// A connection that `syn` asks for. `iss` is our initial sequence number, `our_mss` what fits
    /// the tap.
    pub fn from_syn(now: Instant, syn: &Header, iss: Seq, our_mss: Mss) -> Self {
        let scale = if syn.window_scale.is_some() { WINDOW_SCALE } else { WindowScale::NONE };
        Self {
            seen: Seen { syn_from_tap: true, ..Seen::default() },
            irs: syn.seq,
            receiver: Receiver::new(syn.seq, scale, our_mss),
            sender: Sender::new(iss, syn.window.scaled(WindowScale::NONE)),
            their_scale: syn.window_scale,
            sack: syn.sack_permitted,
            keepalive_received: false,
            their_mss: effective_mss(syn, our_mss),
            our_mss,
            unconfirmed: None,
            keepalive_due: now + KEEPALIVE_AFTER,
            keepalives_sent: 0,
        }
    }

    /// A connection that we open to the namespace; what [`Connection::syn`] gives begins it. `iss` is
    /// our initial sequence number, `our_mss` what fits the tap.
    pub fn to_namespace(now: Instant, iss: Seq, our_mss: Mss) -> Self {
        let irs = Seq::default();
        Self {
            seen: Seen::default(),
            irs,
            receiver: Receiver::new(irs, WindowScale::NONE, our_mss),
            // Enough for the SYN; the answer brings the window.
            sender: Sender::new(iss, Window::new(1)),
            their_scale: None,
            sack: false,
            keepalive_received: false,
            their_mss: Mss::DEFAULT,
            our_mss,
            unconfirmed: None,
            keepalive_due: now + KEEPALIVE_AFTER,
            keepalives_sent: 0,
        }
    }

    /// Payload of the segments that the namespace is sent: no more than half of the largest window, or a
    /// receiver that waits for space for another such segment before it opens its window waits for good (Linux's
    /// sender has the same bound). That matters for windows that are not scaled and the MSS of a large MTU.
    pub fn send_mss(&self) -> Mss {
        let half = self.sender.largest_window().octets() / 2;
        let half = u16::try_from(half).map_or(Mss::MAX, Mss::new);
        self.their_mss.min(half.max(Mss::DEFAULT))
    }

    /// Whether the host socket is connected as far as this connection knows.
    pub fn is_syn_sent(&self) -> bool {
        self.seen.syn_sent
    }

    /// Whether data may flow.
    pub fn is_established(&self) -> bool {
        self.seen.established
    }

    /// Whether the namespace has sent its SYN and ours has left.
    pub fn has_begun(&self) -> bool {
        self.seen.syn_sent && self.seen.syn_from_tap
    }

    /// Whether both directions have ended and all is acknowledged.
    pub fn is_over(&self) -> bool {
        self.seen.fin_to_socket && self.sender.fin_acknowledged()
    }

    /// Whether the namespace has sent its FIN.
    pub fn is_fin_received(&self) -> bool {
        self.seen.fin_from_tap
    }

    /// Octets that the namespace may still send in its window.
    pub fn window_left(&self) -> u32 {
        if self.is_fin_received() { 0 } else { self.receiver.left() }
    }

    /// The sending half.
    pub fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// Number of the next octet that goes to the namespace.
    pub fn sent(&self) -> Seq {
        self.sender.next()
    }

    /// When octets that the namespace has acknowledged are to leave the socket's queue at the latest.
    pub fn consume_by(&self) -> Option<Instant> {
        self.sender.consume_by()
    }

    /// The receiving half.
    pub fn receiver(&mut self) -> &mut Receiver {
        &mut self.receiver
    }

    /// The socket is connected: our SYN, with ACK if the namespace's was received. Also to retransmit it.
    pub fn syn(&mut self, now: Instant) -> ToSend {
        self.seen.syn_sent = true;
        let seq = self.sender.unacknowledged();
        self.sender.syn_sent(now);
        let (ack, window) = self.receiver.advertise_in_syn();
        if !self.seen.syn_from_tap {
            let window_scale = Some(WINDOW_SCALE);
            let syn = SynOptions { mss: self.our_mss, window_scale, sack_permitted: true };
            let syn = Some(syn);
            return ToSend {
                seq,
                ack: Seq::default(),
                flags: Flags::SYN,
                window,
                syn,
                sack: NO_SACK,
            };
        }
        let window_scale = self.their_scale.map(|_| WINDOW_SCALE);
        let sack_permitted = self.sack;
        let syn = Some(SynOptions { mss: self.our_mss, window_scale, sack_permitted });
        ToSend { seq, ack, flags: Flags::SYN.with(Flags::ACK), window, syn, sack: NO_SACK }
    }

    /// Takes in a segment that carries `payload_len` octets.
    pub fn segment(&mut self, now: Instant, header: &Header, payload_len: usize) -> SegmentAction {
        self.keepalive_due = now + KEEPALIVE_AFTER;
        self.keepalives_sent = 0;
        let nothing = SegmentAction::Take(0..0);
        if !self.seen.syn_sent {
            // The host socket is still connecting: a retransmitted SYN waits too, a reset ends it.
            if header.flags.contains(Flags::RST) {
                return SegmentAction::Reset;
            }
            return if self.is_new_syn(header) { SegmentAction::NewIncarnation } else { nothing };
        }
        if !self.seen.syn_from_tap {
            return self.opening_segment(now, header);
        }
        // After its FIN the namespace sends nothing new: a SYN can only begin another connection, and
        // its port is free again although the host's side of this one has not ended.
        if self.seen.fin_from_tap && self.is_new_syn(header) {
            return SegmentAction::NewIncarnation;
        }
        let syn = header.flags.contains(Flags::SYN);
        if !syn {
            self.confirm();
        }
        let fin = if header.flags.contains(Flags::FIN) { Fin::Follows } else { Fin::Absent };
        let len = u32::try_from(payload_len).unwrap_or(u32::MAX);
        let len = len.saturating_add(u32::from(syn)).saturating_add(fin.numbers());
        if syn && !self.seen.established && header.seq == self.irs {
            // Our SYN with ACK was lost: the retransmission timeout sends it again.
            return nothing;
        }
        // An answer to a segment of ours has the number that we acknowledged, which is not RCV.NXT while
        // there is a backlog.
        let answers = header.seq == self.receiver.acknowledged();
        if header.flags.contains(Flags::RST) && answers {
            return SegmentAction::Reset;
        }
        // A keepalive: the last number that was acknowledged, and an octet or none (RFC 9293, section 3.8.4).
        self.keepalive_received |= len <= 1 && header.seq == self.receiver.acknowledged() - 1;
        if !self.receiver.acceptable(header.seq, len) {
            if !header.flags.contains(Flags::RST) {
                self.receiver.force_ack();
                self.receiver.note_duplicate(header.seq, len);
            }
            return nothing;
        }
        if header.flags.contains(Flags::RST) {
            // Only the exact number resets; others inside the window are challenged (RFC 5961, 3.2).
            if header.seq == self.receiver.next() {
                return SegmentAction::Reset;
            }
            self.receiver.force_ack();
            return nothing;
        }
        if syn {
            self.receiver.force_ack();
            return nothing;
        }
        if !header.flags.contains(Flags::ACK) {
            return nothing;
        }
        let lost = match self.acknowledge(now, header, len) {
            Acknowledged::Invalid if !self.seen.established => return SegmentAction::Unacceptable,
            Acknowledged::Invalid => {
                self.receiver.force_ack();
                return nothing;
            }
            Acknowledged::Loss => true,
            Acknowledged::Progress | Acknowledged::Nothing => false,
        };
        if !self.seen.established {
            return nothing;
        }
        match self.take(header.seq, payload_len, fin) {
            SegmentAction::Take(taken) if lost && taken.is_empty() => SegmentAction::Retransmit,
            action => action,
        }
    }

    /// Whether `header` is the SYN of a new incarnation.
    fn is_new_syn(&self, header: &Header) -> bool {
        header.is_opening() && header.seq != self.irs
    }

    /// Takes in a segment in state SYN-SENT (RFC 9293, section 3.10.7.3).
    fn opening_segment(&mut self, now: Instant, header: &Header) -> SegmentAction {
        let nothing = SegmentAction::Take(0..0);
        let has = |flags| header.flags.contains(flags);
        let answers = has(Flags::ACK) && header.ack == self.sender.highest();
        if has(Flags::ACK) && !answers {
            return reset_for(header, 0).map_or(nothing, SegmentAction::OldDuplicate);
        }
        if has(Flags::RST) {
            return if answers { SegmentAction::Reset } else { nothing };
        }
        if !has(Flags::SYN) {
            return nothing;
        }
        let scale = if header.window_scale.is_some() { WINDOW_SCALE } else { WindowScale::NONE };
        self.seen.syn_from_tap = true;
        self.irs = header.seq;
        self.receiver = Receiver::new(header.seq, scale, self.our_mss);
        self.their_scale = header.window_scale;
        self.sack = header.sack_permitted;
        self.their_mss = effective_mss(header, self.our_mss);
        if !answers {
            return SegmentAction::SimultaneousOpen;
        }
        // The window of a SYN is never scaled (RFC 7323, section 2.2).
        let window = header.window.scaled(WindowScale::NONE);
        self.sender.acknowledge(now, header.seq, 1, header.ack, window);
        self.sender.established(header.seq, window);
        self.seen.established = true;
        self.receiver.force_ack();
        self.unconfirmed = Some(Unconfirmed::new(now));
        self.sender.set_numbers(Numbers::First);
        nothing
    }

    /// The namespace has the connection, or never will have.
    fn confirm(&mut self) {
        if self.unconfirmed.take().is_some() {
            self.sender.set_numbers(Numbers::Any);
        }
    }

    fn acknowledge(&mut self, now: Instant, header: &Header, len: u32) -> Acknowledged {
        let window = header.window << self.their_scale.unwrap_or(WindowScale::NONE);
        let acknowledged = self.sender.acknowledge(now, header.seq, len, header.ack, window);
        if !self.seen.established && acknowledged == Acknowledged::Progress {
            self.seen.established = true;
            self.sender.established(header.seq, window);
        }
        acknowledged
    }

    fn take(&mut self, seq: Seq, payload_len: usize, fin: Fin) -> SegmentAction {
        let nothing = SegmentAction::Take(0..0);
        if payload_len == 0 && fin == Fin::Absent {
            return nothing;
        }
        if self.seen.fin_from_tap {
            // Nothing comes after FIN (RFC 9293, section 3.10.7.4, seventh step); a retransmission may.
            self.receiver.force_ack();
            return nothing;
        }
        match self.receiver.take(seq, payload_len, fin) {
            Taken::InOrder { payload, fin } => {
                self.seen.fin_from_tap |= fin == Fin::Follows;
                SegmentAction::Take(payload)
            }
            Taken::Duplicate => nothing,
            Taken::OutOfOrder => {
                let inside = self.receiver.out_of_order_len(seq, payload_len);
                let whole = fin == Fin::Follows && inside == payload_len;
                SegmentAction::OutOfOrder(0..inside, whole.then(|| seq + inside as u32))
            }
        }
    }

    /// Takes in `payload_len` octets at `seq` from the assembler, and a FIN behind them; says which part is
    /// next in the stream.
    pub fn take_assembled(&mut self, seq: Seq, payload_len: usize, fin: Fin) -> Range<usize> {
        match self.take(seq, payload_len, fin) {
            SegmentAction::Take(range) => range,
            _ => 0..0,
        }
    }

    /// Whether SACK and D-SACK blocks are sent to the namespace.
    pub fn uses_sack(&self) -> bool {
        self.sack
    }

    /// Whether the namespace has sent a keepalive: the host's peer should have one too.
    pub fn is_keepalive_received(&self) -> bool {
        self.keepalive_received
    }

    /// Sends no segments larger than `mss` from now on: what fits the tap has changed.
    pub fn limit_mss(&mut self, mss: Mss) {
        self.their_mss = self.their_mss.min(mss.max(MIN_MSS));
    }

    /// Whether an error for our segment at `seq` refuses the connection: of errors for our SYN, as Linux has it
    /// (`tcp_v4_err()`, net/ipv4/tcp_ipv4.c). Later the way may come back (RFC 5927, section 6.4).
    pub fn is_refused(&self, why: Unreachable, seq: Seq) -> bool {
        let opens = self.seen.syn_sent && !self.seen.syn_from_tap;
        let is_hop = why.is_of_packet();
        opens && !is_hop && self.sender.has_in_flight(seq)
    }

    /// Our segment at `seq` was too large, and one of `mss` is not: what is in flight is sent again in smaller ones.
    /// Gives whether that is news, of something that is in flight (RFC 5927, section 4.1).
    pub fn too_large(&mut self, seq: Seq, mss: Mss) -> bool {
        if !self.seen.established || !self.sender.has_in_flight(seq) || mss >= self.send_mss() {
            return false;
        }
        self.limit_mss(mss);
        self.sender.resend();
        true
    }

    /// The socket has accepted `octets` of the stream's payload.
    pub fn accepted(&mut self, octets: u32) {
        self.receiver.accept(octets);
    }

    /// Octets of payload taken and not yet accepted by the socket.
    pub fn backlog(&self) -> u32 {
        let fin = self.seen.fin_from_tap && !self.seen.fin_to_socket;
        self.receiver.backlog() - u32::from(fin)
    }

    /// Whether the socket is now to be shut down for writing: the namespace's FIN has come and all
    /// before it was accepted.
    pub fn shutdown_due(&self) -> bool {
        self.seen.fin_from_tap && !self.seen.fin_to_socket && self.backlog() == 0
    }

    /// The socket was shut down: the FIN may be acknowledged.
    pub fn shut_down(&mut self) {
        self.seen.fin_to_socket = true;
        self.receiver.accept(1);
        self.receiver.force_ack();
    }

    /// The header of a segment with the next `octets` of data; it counts as sent.
    pub fn data(&mut self, now: Instant, octets: u32, push: Push) -> ToSend {
        let seq = self.sender.next();
        self.sender.sent(now, octets);
        let flags = match push {
            Push::Set => Flags::ACK.with(Flags::PSH),
            Push::Clear => Flags::ACK,
        };
        self.header(seq, flags)
    }

    /// Whether no FIN of ours was sent yet.
    pub fn may_send_fin(&self) -> bool {
        self.sender.fin().is_none()
    }

    /// As [`Connection::data`], with our FIN behind it.
    pub fn data_with_fin(&mut self, now: Instant, octets: u32) -> ToSend {
        let mut header = self.data(now, octets, Push::Set);
        self.sender.fin_sent(now);
        header.flags = header.flags.with(Flags::FIN);
        header
    }

    /// Our FIN; it counts as sent.
    pub fn fin(&mut self, now: Instant) -> ToSend {
        let seq = self.sender.next();
        self.sender.fin_sent(now);
        self.header(seq, Flags::FIN.with(Flags::ACK))
    }

    /// An acknowledgement without data.
    pub fn acknowledgement(&mut self) -> ToSend {
        let seq = self.sender.pure_ack_seq();
        self.header(seq, Flags::ACK)
    }

    /// A zero-window probe or keepalive: its number was acknowledged before, so that the namespace has to
    /// answer (RFC 9293, sections 3.8.4 and 3.8.6.1).
    pub fn probe(&mut self) -> ToSend {
        let first = self.sender.unacknowledged();
        let seq = if self.unconfirmed.is_some() { first } else { first - 1 };
        self.header(seq, Flags::ACK)
    }

    /// The reset that ends the connection for the namespace.
    pub fn reset(&mut self) -> ToSend {
        let seq = self.sender.pure_ack_seq();
        let flags = Flags::RST.with(Flags::ACK);
        let ack = self.receiver.next();
        ToSend { seq, ack, flags, window: WireWindow::ZERO, syn: None, sack: NO_SACK }
    }

    fn header(&mut self, seq: Seq, flags: Flags) -> ToSend {
        let (ack, window) = self.receiver.advertise();
        ToSend { seq, ack, flags, window, syn: None, sack: NO_SACK }
    }

    /// When [`Connection::expire`] is due; never while the socket connects, which the host's kernel times
    /// out by itself.
    pub fn deadline(&self) -> Option<Instant> {
        if !self.seen.syn_sent {
            return None;
        }
        let others = [self.sender.deadline(), self.unconfirmed.map(Unconfirmed::deadline)];
        others.into_iter().flatten().chain([self.keepalive_due]).min()
    }

    /// Says what a passed deadline asks for; harmless to call early.
    pub fn expire(&mut self, now: Instant) -> TimeoutAction {
        if !self.seen.syn_sent {
            return TimeoutAction::Nothing;
        }
        match self.sender.expire(now) {
            Some(Expired::Abort) => return TimeoutAction::Abort,
            Some(Expired::Retransmit) if !self.seen.established => {
                return TimeoutAction::RetransmitSyn;
            }
            Some(Expired::Retransmit) => return TimeoutAction::Retransmit,
            Some(Expired::Probe) => return TimeoutAction::Probe,
            None => {}
        }
        match self.unconfirmed.as_mut().map(|unconfirmed| unconfirmed.expire(now)) {
            Some(Passed::Acknowledge) if self.sender.in_flight() == 0 => {
                return TimeoutAction::Acknowledge;
            }
            Some(Passed::Over) => self.confirm(),
            Some(Passed::Acknowledge | Passed::Nothing) | None => {}
        }
        if now < self.keepalive_due {
            return TimeoutAction::Nothing;
        }
        if self.keepalives_sent >= KEEPALIVE_PROBES {
            return TimeoutAction::Abort;
        }
        self.keepalives_sent += 1;
        // From now on, however late it is: a machine that slept has answers still to read.
        self.keepalive_due = now + KEEPALIVE_EVERY;
        TimeoutAction::Probe
    }
}

/// Effective send MSS: what the sender of `syn` takes, and what fits the tap (RFC 9293, section 3.7.1).
fn effective_mss(syn: &Header, our_mss: Mss) -> Mss {
    syn.mss.unwrap_or(Mss::DEFAULT).max(MIN_MSS).min(our_mss.max(MIN_MSS))
}

/// The answer to a segment that belongs to no connection (RFC 9293, section 3.10.7.1): a reset, or
/// nothing if it was one itself.
pub fn reset_for(header: &Header, payload_len: usize) -> Option<ToSend> {
    if header.flags.contains(Flags::RST) {
        return None;
    }
    if header.flags.contains(Flags::ACK) {
        let (ack, flags) = (Seq::default(), Flags::RST);
        return Some(ToSend {
            seq: header.ack,
            ack,
            flags,
            window: WireWindow::ZERO,
            syn: None,
            sack: NO_SACK,
        });
    }
    let len = u32::try_from(payload_len).unwrap_or(u32::MAX);
    let controls =
        u32::from(header.flags.contains(Flags::SYN)) + u32::from(header.flags.contains(Flags::FIN));
    let flags = Flags::RST.with(Flags::ACK);
    let ack = header.seq + len.wrapping_add(controls);
    Some(ToSend {
        seq: Seq::default(),
        ack,
        flags,
        window: WireWindow::ZERO,
        syn: None,
        sack: NO_SACK,
    })
}
