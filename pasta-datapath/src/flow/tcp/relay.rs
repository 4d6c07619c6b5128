//! One connection of the namespace joined to one host socket.
//!
//! Events of a flow (segments of a batch, socket readiness, a deadline) are noted first. One function,
//! [`Relay::run`], then acts on them, once for each batch: consume what was acknowledged, write payload and
//! backlog to the socket, update the advertised window, send what the namespace's window allows, and
//! acknowledge if that is still due.
//!
//! Timers: retransmission and keepalive ([`Connection`]), delayed acknowledgement, retransmission of a window
//! update, and polling of a send buffer that drains without an event.

mod to_socket;
mod to_tap;

use super::connection::{Connection, SegmentAction, TimeoutAction};
use super::sender::Consume;
use super::window::CreditPool;
use crate::flow::Next;
use crate::flow::datagram::QueuedError;
use crate::link::icmp_error::Unreachable;
use crate::part::part;
use crate::sys::send_buffer::SendBuffer;
use crate::time::Instant;
use crate::wire::seq::Seq;
use crate::wire::tcp::{Header, ToSend};
use crate::wire::window::Mss;
use nix::errno::Errno;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;
use to_socket::ToSocket;
use to_tap::ToTap;

/// Quantum: octets that one flow may send to the namespace in a turn before others have theirs.
pub const QUANTUM: usize = 512 * 1024;

/// Most slices given to one write: the backlog (two) and the payloads of a batch.
pub const MAX_SLICES: usize = 66;

/// Delayed acknowledgement: that of one segment with less than this many octets is delayed, for an answer
/// to carry it, by this much at most (RFC 9293, section 3.8.6.3, allows 500 ms). Chosen: a service on this
/// machine or its network answers sooner, and a sender that waits for the acknowledgement hardly notices.
const DELAYED_OCTETS: usize = 1024;
const DELAYED_ACK: Duration = Duration::from_micros(500);
/// The delay once so many such segments in a row had an answer each (request/response). A near deadline
/// needs a timer for each sleep, a far one does not: `docs/decisions/0014-delayed-acknowledgements.md`.
const DELAYED_ACK_EXCHANGE: Duration = Duration::from_millis(40);
const EXCHANGES: u8 = 3;

/// First timeout before a window update that opens a zero window is retransmitted, and how often; chosen:
/// what a lost acknowledgement costs anyway. After that the sender's zero-window probes have to do.
const WINDOW_UPDATE_RTO: Duration = Duration::from_millis(200);
const WINDOW_UPDATE_RETRIES: u8 = 5;

/// Duplicate acknowledgements that make a sender without SACK retransmit (RFC 5681, section 3.2).
const DUPLICATE_ACKS: u8 = 3;

/// A host socket, connected or connecting. None of the calls blocks.
pub trait HostSocket {
    /// Appends to the send buffer; a short count means that it is full.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing fits; others end the connection.
    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// The state of the send buffer. One that is too small for `least` octets of payload is enlarged first,
    /// where that is possible.
    fn send_buffer(&mut self, least: u32) -> SendBuffer;

    /// Copies from the receive queue, `offset` octets behind its front, and leaves it as it is. Zero
    /// is the end of the stream.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing is there, which an implementation may also give at the end of the stream;
    /// `ResourceBusy` if that cannot be said before what is in front of it was consumed; others end the
    /// connection.
    fn peek(&mut self, offset: u32, into: &mut [u8]) -> io::Result<usize>;

    /// Takes `octets` off the front of the receive queue; they have been peeked at before.
    ///
    /// # Errors
    ///
    /// Any ends the connection.
    fn consume(&mut self, octets: u32) -> io::Result<()>;

    /// Sends FIN behind what the send buffer holds.
    fn shut_down_write(&mut self);

    /// The error that the socket has come to, if any; asking clears it.
    fn take_error(&mut self) -> Option<Errno>;

    /// What the network says of a connection that it did not let through; none unless the socket was to queue it.
    fn take_queued_error(&mut self) -> Option<QueuedError> {
        None
    }

    /// Marks what is sent to `remote` from now on with this DSCP, in its place in a traffic class.
    fn mark(&mut self, remote: IpAddr, dscp: u8);

    /// Makes the kernel ask an idle peer whether it is still there, in the intervals that the host is set up for.
    fn keep_alive(&mut self);

    /// Makes closing the socket send a reset.
    fn reset_on_close(&mut self);

    /// The address that it is bound to.
    fn local_address(&self) -> Option<SocketAddr>;

    /// Octets that it has received, and that it has sent and its peer has acknowledged; none where nobody knows.
    fn carried(&self) -> Option<[u64; 2]> {
        None
    }
}

/// Writes the segments of one flow to the tap.
pub trait TapWriter {
    /// Writes a segment; the kernel cuts payload that is larger than the segment size into several. `false`:
    /// the tap did not take it, and it counts as lost.
    fn send(&mut self, header: &ToSend, segment_size: Mss, payload: &[u8]) -> bool;

    /// Most octets of payload that one call of [`TapWriter::send`] takes.
    fn frame_payload(&self, segment_size: Mss) -> usize;
}

/// What the caller is to do with a flow that was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// Whether it waits, has more to do, or is over.
    pub next: Next,
    /// When [`Relay::tick`] is due.
    pub deadline: Option<Instant>,
    /// What else has become known.
    pub facts: Facts,
}

/// Facts for others than the flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The window is to grow when window credit is free; then [`Relay::grow_window`].
    pub credit_wanted: bool,
    /// An event has to be requested for when the send buffer is writable.
    pub write_event_wanted: bool,
    /// The namespace has sent a keepalive: the host's peer should have one too.
    pub keepalive_received: bool,
    /// The connection was reset because octets in order did not fit the backlog.
    pub backlog_overflowed: bool,
}

/// A connection and the state that joins it to its socket.
#[derive(Debug)]
pub struct Relay {
    connection: Connection,
    /// The direction to the host socket.
    to_socket: ToSocket,
    /// The direction to the namespace.
    to_tap: ToTap,
    /// Delayed acknowledgement.
    delayed: DelayedAck,
    /// Retransmission of the window update that opened a zero window: when, how long after the last time,
    /// and how often still.
    window_update: Option<(Instant, Duration, u8)>,
    /// Noted until the next `run`.
    pending: Pending,
}

/// Whether an acknowledgement is delayed, and what speaks for it.
#[derive(Debug, Default)]
struct DelayedAck {
    /// Its deadline, while it is.
    due: Option<Instant>,
    /// Segments with payload, or batches of them, since an answer was sent.
    unanswered: u8,
    /// How often in a row one segment had one answer.
    exchanges: u8,
}

impl DelayedAck {
    /// Notes that payload was sent: it distinguishes request/response from bulk.
    fn note_sent(&mut self) {
        let single = self.unanswered == 1;
        self.exchanges = if single { self.exchanges.saturating_add(1) } else { 0 };
        self.unanswered = 0;
    }

    /// Notes that payload was received.
    fn note_received(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
    }
}

/// Whether `error` says that the peer has ended the connection, so that what it sent before can still be
/// read.
fn is_end_by_peer(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// What a segment means for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noted {
    /// This part of its payload, which may be none, is to be given to the next [`Relay::run`].
    Take(Range<usize>),
    /// It is the SYN of another connection between the same ends; the next [`Relay::run`] ends this one.
    NewConnection,
}

/// What one [`Relay::run`] may use; lent by the caller.
#[derive(Debug)]
pub struct Context<'a, S, T> {
    /// The time.
    pub now: Instant,
    /// Most octets that may go to the namespace.
    pub quantum: usize,
    /// The host socket.
    pub socket: &'a mut S,
    /// Where segments go.
    pub tap: &'a mut T,
    /// Where peeked octets go; its contents are of no use afterwards.
    pub scratch: &'a mut [u8],
    /// The limits that all connections share.
    pub credit: &'a mut CreditPool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    None,
    Syn,
    RetransmitSyn,
    Probe,
    OldDuplicate(ToSend),
    ResetReceived,
    NewIncarnation,
    Abort,
}

impl Relay {
    /// A connection whose socket has begun to connect.
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            to_socket: ToSocket::default(),
            to_tap: ToTap::default(),
            delayed: DelayedAck::default(),
            window_update: None,
            pending: Pending::None,
        }
    }

    /// The connection, for inspection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether the socket is still connecting.
    pub fn is_connecting(&self) -> bool {
        !self.connection.is_syn_sent() && self.pending != Pending::Syn
    }

    /// Notes that the socket is connected and may be read.
    pub fn connected(&mut self) {
        self.pending = Pending::Syn;
        self.to_tap.readable = true;
    }

    /// Notes that the socket is connected; an event comes when it is readable.
    pub fn connected_and_empty(&mut self) {
        self.pending = Pending::Syn;
    }

    /// Notes that the socket may be read.
    pub fn readable(&mut self) {
        self.to_tap.readable = true;
    }

    /// Notes that the peer has sent FIN.
    pub fn ended(&mut self) {
        self.to_tap.readable = true;
        self.to_tap.ended = true;
    }

    /// Notes that the peer has sent urgent data: reads stop in front of its last octet and behind it.
    pub fn urgent(&mut self) {
        self.to_tap.readable = true;
        self.to_tap.urgent = true;
    }

    /// Notes that the send buffer is writable.
    pub fn writable(&mut self) {
        // Every event says so while there is space: it matters only where that was not known.
        let asked = std::mem::take(&mut self.to_socket.buffer.event_armed);
        let short =
            self.to_socket.buffer.recheck.is_some() || self.connection.receiver().is_used_up();
        self.to_socket.buffer.changed |= asked || short || !self.to_socket.backlog.is_empty();
    }

    /// Notes that the socket has failed: the namespace is to be reset, once it has what the peer sent
    /// before.
    pub fn failed(&mut self) {
        self.to_tap.readable = true;
        self.to_tap.failed = true;
        // The send buffer does not matter any more.
        self.to_socket.buffer.recheck = None;
    }

    /// Notes that this connection is to be reset, for both ends.
    pub fn abort(&mut self) {
        self.pending = Pending::Abort;
    }

    /// Notes a segment from the namespace. What is out of order is kept, as far as the backlog allows; what is
    /// in order is for the next [`Relay::run`], in the order of these calls.
    pub fn segment(
        &mut self,
        now: Instant,
        header: &Header,
        payload: &[u8],
        credit: &mut CreditPool,
    ) -> Noted {
        if self.pending == Pending::ResetReceived && header.is_opening() {
            return Noted::NewConnection;
        }
        let was_established = self.connection.is_established();
        let action = self.connection.segment(now, header, payload.len());
        if !was_established
            && self.connection.is_established()
            && self.connection.receiver().edge() == self.connection.receiver().next()
        {
            // Active open: no window was open in either direction.
            self.to_socket.buffer.changed = true;
            self.to_tap.readable = true;
        }
        if !payload.is_empty() {
            self.window_update = None;
        }
        match action {
            SegmentAction::Take(range) => return Noted::Take(range),
            SegmentAction::OutOfOrder(range, fin) => {
                let octets = part(payload, range);
                self.to_socket.keep_out_of_order(header.seq, octets, fin, credit);
            }
            SegmentAction::NewIncarnation => {
                self.pending = Pending::NewIncarnation;
                return Noted::NewConnection;
            }
            SegmentAction::OldDuplicate(answer) => self.pending = Pending::OldDuplicate(answer),
            SegmentAction::SimultaneousOpen => self.pending = Pending::RetransmitSyn,
            SegmentAction::Retransmit => self.to_tap.readable = true,
            SegmentAction::Reset => self.pending = Pending::ResetReceived,
            SegmentAction::Unacceptable => self.pending = Pending::Abort,
        }
        Noted::Take(0..0)
    }

    /// Notes that a segment of ours at `seq` did not arrive because of `why`.
    pub fn unreachable(&mut self, why: Unreachable, seq: Seq) {
        if self.connection.is_refused(why, seq) {
            self.pending = Pending::ResetReceived;
        }
    }

    /// Notes that a segment of ours at `seq` was too large for the way, and one of `mss` is not; gives whether that
    /// is believed.
    pub fn too_large(&mut self, seq: Seq, mss: Mss) -> bool {
        let is_news = self.connection.too_large(seq, mss);
        self.to_tap.readable |= is_news;
        is_news
    }

    /// Sends no segments larger than `mss` from now on.
    pub fn limit_mss(&mut self, mss: Mss) {
        self.connection.limit_mss(mss);
    }

    /// Notes that time has passed; gives what that asks of the connection with the namespace.
    pub fn tick(&mut self, now: Instant) -> TimeoutAction {
        if self.to_socket.buffer.recheck.is_some_and(|(due, _)| due <= now) {
            self.to_socket.buffer.changed = true;
        }
        if let Some((_, wait, left)) = self.window_update.filter(|&(due, _, _)| due <= now) {
            self.connection.receiver().force_ack();
            let wait = wait * 2;
            self.window_update = (left > 1).then(|| (now + wait, wait, left - 1));
        }
        let action = self.connection.expire(now);
        match action {
            TimeoutAction::Nothing => {}
            TimeoutAction::RetransmitSyn => self.pending = Pending::RetransmitSyn,
            TimeoutAction::Retransmit => self.to_tap.readable = true,
            TimeoutAction::Acknowledge => self.connection.receiver().force_ack(),
            TimeoutAction::Probe => {
                self.pending = Pending::Probe;
                self.to_tap.readable = true;
            }
            TimeoutAction::Abort => self.pending = Pending::Abort,
        }
        action
    }

    /// When [`Relay::tick`] wants to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        let recheck = self.to_socket.buffer.recheck.map(|(due, _)| due);
        let window_update = self.window_update.map(|(due, ..)| due);
        let others = [recheck, self.delayed.due, self.connection.consume_by(), window_update];
        others.into_iter().chain([self.connection.deadline()]).flatten().min()
    }

    /// Notes that it is this flow's turn to have window credit.
    pub fn grow_window(&mut self) {
        self.to_socket.buffer.changed = true;
    }

    /// Acts on what was noted. `payloads` is what [`Relay::segment`] said to take, in one call or in
    /// several one after the other.
    pub fn run<S: HostSocket, T: TapWriter>(
        &mut self,
        cx: &mut Context<'_, S, T>,
        payloads: &[IoSlice<'_>],
    ) -> Outcome {
        self.to_socket.facts = Facts::default();
        let next = self.act(cx, payloads);
        let keepalive_received = self.connection.is_keepalive_received();
        Outcome {
            next,
            deadline: self.deadline(),
            facts: Facts { keepalive_received, ..self.to_socket.facts },
        }
    }

    fn act<S: HostSocket, T: TapWriter>(
        &mut self,
        cx: &mut Context<'_, S, T>,
        payloads: &[IoSlice<'_>],
    ) -> Next {
        match std::mem::replace(&mut self.pending, Pending::None) {
            Pending::None => {}
            Pending::ResetReceived | Pending::NewIncarnation => return self.leave(cx.credit),
            Pending::Abort => return self.abort_now(cx),
            Pending::Syn | Pending::RetransmitSyn => {
                if cx.credit.may_lend() {
                    // The window of a SYN is not scaled; the next acknowledgement advertises the rest.
                    self.to_socket.open_window(
                        &mut self.connection,
                        cx.socket.send_buffer(0),
                        u16::MAX.into(),
                        cx.credit,
                    );
                }
                let header = self.connection.syn(cx.now);
                cx.tap.send(&header, self.connection.send_mss(), &[]);
            }
            Pending::OldDuplicate(header) => {
                cx.tap.send(&header, self.connection.send_mss(), &[]);
            }
            Pending::Probe => {
                let header = self.connection.probe();
                cx.tap.send(&header, self.connection.send_mss(), &[]);
            }
        }
        // Before the handshake nobody can be sent what is still in the queue.
        if self.to_tap.failed && !self.connection.has_begun() {
            return self.abort_now(cx);
        }
        if !self.connection.is_syn_sent() {
            return Next::Wait;
        }
        let before = self.connection.sender().next();
        if self.consume(cx.now, cx.socket).is_err() {
            return self.abort_now(cx);
        }
        if !self.to_tap.failed {
            match self.to_socket.feed(&mut self.connection, cx, payloads) {
                Err(error) if is_end_by_peer(&error) => self.failed(),
                Err(_) => return self.abort_now(cx),
                Ok(()) => {}
            }
        }
        let Ok(next) = self.to_tap.send_window(&mut self.connection, cx) else {
            return self.abort_now(cx);
        };
        if self.connection.sender().next() != before {
            self.delayed.note_sent();
        }
        if !payloads.is_empty() {
            self.delayed.note_received();
        }
        if self.connection.is_established() {
            self.acknowledge(cx.now, payloads, cx.tap);
        }
        if self.connection.is_over() { self.leave_in_order(cx.credit) } else { next }
    }

    /// Sends the acknowledgements that are due: one, or as many duplicates as make a sender without SACK
    /// retransmit.
    fn acknowledge(&mut self, now: Instant, payloads: &[IoSlice<'_>], tap: &mut impl TapWriter) {
        let sack = self.connection.uses_sack();
        let duplicate = sack && self.connection.receiver().has_duplicate();
        // A segment with data may have carried the number; D-SACK needs one without.
        let due = self.acknowledge_now(now, payloads) || duplicate;
        let out_of_order = std::mem::take(&mut self.to_socket.out_of_order.segments);
        let count = if sack { out_of_order.min(1) } else { out_of_order.min(DUPLICATE_ACKS) };
        for _ in 0..count.max(u8::from(due)) {
            let mut header = self.connection.acknowledgement();
            if sack {
                if let Some((from, to)) = self.connection.receiver().take_duplicate() {
                    header.sack.push(from, to);
                }
                if let Some(assembler) = &self.to_socket.out_of_order.assembler {
                    assembler.add_sack_blocks(&mut header.sack);
                }
            }
            tap.send(&header, self.connection.send_mss(), &[]);
        }
        if self.connection.receiver().take_window_opened() {
            self.window_update =
                Some((now + WINDOW_UPDATE_RTO, WINDOW_UPDATE_RTO, WINDOW_UPDATE_RETRIES));
        }
    }

    /// Whether an acknowledgement without data is to leave in this run, or is delayed.
    fn acknowledge_now(&mut self, now: Instant, payloads: &[IoSlice<'_>]) -> bool {
        if !self.connection.receiver().ack_due() {
            self.delayed.due = None;
            return false;
        }
        let octets: usize = payloads.iter().map(|payload| payload.len()).sum();
        let lone =
            payloads.len() == 1 && octets < DELAYED_OCTETS && self.to_socket.backlog.is_empty();
        match self.delayed.due {
            None if lone && self.connection.receiver().may_wait() => {
                let exchange = self.delayed.exchanges >= EXCHANGES;
                let wait = if exchange { DELAYED_ACK_EXCHANGE } else { DELAYED_ACK };
                self.delayed.due = Some(now + wait);
                false
            }
            Some(due) if now < due && payloads.is_empty() => !self.connection.receiver().may_wait(),
            _ => {
                // Nothing has carried it.
                self.delayed.exchanges = 0;
                self.delayed.due = None;
                true
            }
        }
    }

    fn consume(&mut self, now: Instant, socket: &mut impl HostSocket) -> io::Result<()> {
        let over = self.connection.is_over() || self.connection.sender().fin().is_some();
        let bulk = Consume::InBulk { whole_queue_seen: !self.to_tap.readable };
        let when = if over { Consume::All } else { bulk };
        match self.connection.sender().take_consumable(now, when) {
            0 => Ok(()),
            octets => socket.consume(octets),
        }
    }

    fn abort_now<S, T: TapWriter>(&mut self, cx: &mut Context<'_, S, T>) -> Next {
        let header = self.connection.reset();
        cx.tap.send(&header, self.connection.send_mss(), &[]);
        self.leave(cx.credit)
    }

    fn leave(&mut self, credit: &mut CreditPool) -> Next {
        self.leave_in_order(credit);
        Next::Reset
    }

    fn leave_in_order(&mut self, credit: &mut CreditPool) -> Next {
        self.release(credit);
        Next::Over
    }

    /// Releases what this flow has of the common budget; its end.
    pub fn release(&mut self, credit: &mut CreditPool) {
        self.to_socket.release(credit);
    }
}
