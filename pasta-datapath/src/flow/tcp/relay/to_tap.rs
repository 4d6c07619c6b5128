//! To the namespace: output of the socket's queue as far as the namespace's window and the quantum allow,
//! retransmissions included, and FIN.

use super::{Context, HostSocket, TapWriter};
use crate::flow::Next;
use crate::flow::tcp::connection::{Connection, Push};
use crate::flow::tcp::receiver::Fin;
use crate::flow::tcp::sender::Numbers;
use crate::time::Instant;
use std::io::{self, ErrorKind};

/// The direction to the namespace: what is known of the socket's receive queue and of its peer.
#[derive(Debug, Default)]
pub(super) struct ToTap {
    /// The socket may have something to peek at.
    pub(super) readable: bool,
    /// The peer has ended its direction: all that it sent is in the queue.
    pub(super) ended: bool,
    /// The socket can only be read from; behind what is in its queue comes a reset.
    pub(super) failed: bool,
    /// The peer has sent urgent data: a short peek does not mean that the queue is empty.
    pub(super) urgent: bool,
}

impl ToTap {
    /// Sends what the namespace's window and the quantum allow.
    pub(super) fn send_window<S: HostSocket, T: TapWriter>(
        &mut self,
        connection: &mut Connection,
        cx: &mut Context<'_, S, T>,
    ) -> io::Result<Next> {
        let Context { now, mut quantum, ref mut socket, ref mut tap, ref mut scratch, .. } = *cx;
        if !connection.is_established() {
            return Ok(Next::Wait);
        }
        let size = connection.send_mss();
        loop {
            if connection.sender().fin_to_retransmit() {
                let header = connection.fin(now);
                tap.send(&header, size, &[]);
            }
            if !self.readable {
                connection.sender().unblocked();
                return Ok(Next::Wait);
            }
            let allowance = connection.sender().allowance(size) as usize;
            if allowance == 0 {
                let next = connection.sent();
                match connection.sender().fin() {
                    None => connection.sender().blocked(now),
                    // Our FIN was sent already.
                    Some(fin) if self.failed && !next.before(fin) => {
                        return Err(ErrorKind::ConnectionReset.into());
                    }
                    Some(_) => {}
                }
                return Ok(Next::Wait);
            }
            if quantum == 0 {
                return Ok(Next::More);
            }
            let mut wanted = allowance.min(scratch.len()).min(quantum);
            // Whole frames, unless one is not even full.
            let frame = tap.frame_payload(size).max(1);
            if connection.sender().numbers() == Numbers::First {
                wanted = wanted.min(usize::from(size));
            }
            if wanted > frame {
                wanted -= wanted % frame;
            }
            let into = scratch.split_at_mut(wanted).0;
            let offset = connection.sender().peek_offset();
            let peeked = match socket.peek(offset, into) {
                Ok(peeked) => peeked,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.failed && !self.ended {
                        self.readable = false;
                        continue;
                    }
                    // Octets behind urgent data can be read once that was consumed.
                    if self.urgent && offset > 0 {
                        return Ok(Next::Wait);
                    }
                    // The end of the stream may not show at a peek offset.
                    0
                }
                Err(error) if error.kind() == ErrorKind::ResourceBusy => return Ok(Next::Wait),
                Err(error) => return Err(error),
            };
            if peeked == 0 {
                if self.failed {
                    return Err(ErrorKind::ConnectionReset.into());
                }
                self.readable = false;
                if connection.sender().fin().is_none() {
                    let header = connection.fin(now);
                    tap.send(&header, size, &[]);
                }
                return Ok(Next::Wait);
            }
            let peeked = into.split_at(peeked.min(into.len())).0;
            let is_short = peeked.len() < wanted;
            // All has been read and fits the window: what is left of the stream is its end. What was sent
            // before is part of the stream, so a peek that ends in front of that was cut short.
            let sender = connection.sender();
            let end = sender.next() + u32::try_from(peeked.len()).unwrap_or(u32::MAX);
            let is_cut = end.before(sender.highest());
            let Self { ended, failed, urgent, .. } = *self;
            let is_last = is_short && ended && !urgent && !failed && !is_cut;
            let fin = if is_last { Fin::Follows } else { Fin::Absent };
            if !send_frames(connection, now, peeked, fin, *tap) {
                // The tap is full; the retransmission timeout sends the rest at the latest.
                return Ok(Next::Wait);
            }
            // What is left is for whole frames: a small one costs as much as a large one.
            let left = quantum.saturating_sub(peeked.len());
            quantum = if left < frame { 0 } else { left };
            self.readable = !is_last && (!is_short || self.ended || self.urgent || self.failed);
        }
    }
}

/// Sends `octets` in frames, and with the last one the FIN that follows them; `false` if the tap did not
/// take them all.
fn send_frames(
    connection: &mut Connection,
    now: Instant,
    octets: &[u8],
    fin: Fin,
    tap: &mut impl TapWriter,
) -> bool {
    let size = connection.send_mss();
    let frame = tap.frame_payload(size).max(1);
    let mut rest = octets;
    while !rest.is_empty() {
        let (payload, after) = rest.split_at(frame.min(rest.len()));
        let from = connection.sender().next();
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let is_last = after.is_empty();
        let header = match fin {
            Fin::Follows if is_last && connection.may_send_fin() => {
                connection.data_with_fin(now, len)
            }
            _ if is_last => connection.data(now, len, Push::Set),
            _ => connection.data(now, len, Push::Clear),
        };
        if !tap.send(&header, size, payload) {
            connection.sender().not_sent(from);
            return false;
        }
        rest = after;
    }
    true
}
