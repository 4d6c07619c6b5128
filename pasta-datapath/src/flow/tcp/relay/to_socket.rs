//! To the host socket: payload in order is written or added to the backlog, octets that were out of order
//! follow, and the advertised window is updated.

use super::{Context, Facts, HostSocket, MAX_SLICES};
use crate::flow::tcp::assembler::Assembler;
use crate::flow::tcp::connection::Connection;
use crate::flow::tcp::receiver::Fin;
use crate::flow::tcp::window::{CreditPool, WindowCredit};
use crate::part::part;
use crate::sys::send_buffer::SendBuffer;
use crate::time::Instant;
use crate::wire::seq::Seq;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::time::Duration;

/// First and longest interval of polling a send buffer that drains without an event.
const RECHECK_FIRST: Duration = Duration::from_millis(1);
const RECHECK_LONGEST: Duration = Duration::from_millis(128);

/// The direction to the host socket.
#[derive(Debug, Default)]
pub(super) struct ToSocket {
    /// Octets received in order and not yet accepted by the socket.
    pub(super) backlog: VecDeque<u8>,
    /// The socket's send buffer.
    pub(super) buffer: BufferState,
    /// Octets received out of order.
    pub(super) out_of_order: OutOfOrder,
    /// Window credit lent to this flow.
    lent: WindowCredit,
    /// Of the present run, for its outcome.
    pub(super) facts: Facts,
}

/// What is known of a socket's send buffer.
#[derive(Debug, Default)]
pub(super) struct BufferState {
    /// Its free space may have changed.
    pub(super) changed: bool,
    /// An event comes when it is writable.
    pub(super) event_armed: bool,
    /// When it is polled, and how long after the last time.
    pub(super) recheck: Option<(Instant, Duration)>,
}

/// What has arrived out of order.
#[derive(Debug, Default)]
pub(super) struct OutOfOrder {
    /// Its octets.
    pub(super) assembler: Option<Box<Assembler>>,
    /// Segments since the last `run`.
    pub(super) segments: u8,
}

impl ToSocket {
    /// Keeps octets that arrived out of order, and a FIN behind them, as far as the backlog allows.
    pub(super) fn keep_out_of_order(
        &mut self,
        seq: Seq,
        octets: &[u8],
        fin: Option<Seq>,
        credit: &mut CreditPool,
    ) {
        self.out_of_order.segments = self.out_of_order.segments.saturating_add(1);
        if !credit.may_add_backlog() {
            return;
        }
        let assembler = self.out_of_order.assembler.get_or_insert_default();
        credit.add_backlog(assembler.insert(seq, octets));
        if let Some(fin) = fin {
            assembler.insert_fin(fin);
        }
    }

    /// Writes to the socket and updates the window.
    pub(super) fn feed<S: HostSocket, T>(
        &mut self,
        connection: &mut Connection,
        cx: &mut Context<'_, S, T>,
        payloads: &[IoSlice<'_>],
    ) -> io::Result<()> {
        self.write(connection, cx.socket, payloads, cx.credit)?;
        self.write_assembled(connection, cx.socket, cx.credit)?;
        self.shut_down_if_due(connection, cx.socket);
        self.refresh_window(connection, cx.now, cx.socket, cx.credit);
        Ok(())
    }

    /// Writes the backlog, then `payloads`; what the socket does not accept is added to the backlog.
    fn write(
        &mut self,
        connection: &mut Connection,
        socket: &mut impl HostSocket,
        payloads: &[IoSlice<'_>],
        credit: &mut CreditPool,
    ) -> io::Result<()> {
        if (!self.backlog.is_empty() && self.buffer.changed) || !payloads.is_empty() {
            let accepted = self.write_once(socket, payloads)?;
            // The send buffer is read again when the namespace may come to need a larger window.
            self.buffer.changed |= connection.receiver().is_used_up();
            connection.accepted(u32::try_from(accepted).unwrap_or(u32::MAX));
            let accepted_backlog = accepted.min(self.backlog.len());
            self.backlog.drain(..accepted_backlog);
            credit.remove_backlog(accepted_backlog);
            self.add_backlog(payloads, accepted - accepted_backlog, credit)?;
            if self.backlog.is_empty() && self.backlog.capacity() > 0 {
                self.backlog = VecDeque::new();
            }
        }
        Ok(())
    }

    /// Writes octets received out of order that are in order by now.
    fn write_assembled(
        &mut self,
        connection: &mut Connection,
        socket: &mut impl HostSocket,
        credit: &mut CreditPool,
    ) -> io::Result<()> {
        // Octets of this batch that the next call brings are in front of those.
        if connection.backlog() as usize > self.backlog.len() {
            return Ok(());
        }
        let Some(mut assembler) = self.out_of_order.assembler.take() else { return Ok(()) };
        while let Some(block) = assembler.take_block(connection.receiver().next()) {
            credit.remove_backlog(block.octets.len());
            // Not delayed (RFC 5681, section 4.2).
            connection.receiver().force_ack();
            let range = connection.take_assembled(block.start, block.octets.len(), Fin::Absent);
            let payload = part(&block.octets, range);
            if !payload.is_empty() {
                if let Err(error) = self.write(connection, socket, &[IoSlice::new(payload)], credit)
                {
                    self.out_of_order.assembler = Some(assembler);
                    return Err(error);
                }
            }
        }
        let next = connection.receiver().next();
        if assembler.take_fin(next) {
            connection.take_assembled(next, 0, Fin::Follows);
        }
        if !assembler.is_empty() {
            self.out_of_order.assembler = Some(assembler);
        }
        Ok(())
    }

    fn shut_down_if_due(&mut self, connection: &mut Connection, socket: &mut impl HostSocket) {
        if connection.shutdown_due() {
            socket.shut_down_write();
            connection.shut_down();
        }
    }

    fn write_once(
        &mut self,
        socket: &mut impl HostSocket,
        payloads: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let (first, second) = self.backlog.as_slices();
        let backlog = [IoSlice::new(first), IoSlice::new(second)];
        let all = backlog.iter().chain(payloads).filter(|slice| !slice.is_empty());
        let mut count = 0;
        let mut offered = 0;
        for (slot, slice) in slices.iter_mut().zip(all) {
            *slot = *slice;
            count += 1;
            offered += slice.len();
        }
        let accepted = match socket.send(slices.split_at(count).0) {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        // After a short write the kernel sends an event when there is space.
        self.buffer.event_armed |= accepted < offered;
        Ok(accepted)
    }

    /// Adds `payloads` to the backlog, without the first `skip` octets.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if they do not fit.
    fn add_backlog(
        &mut self,
        payloads: &[IoSlice<'_>],
        mut skip: usize,
        credit: &mut CreditPool,
    ) -> io::Result<()> {
        for payload in payloads {
            let rest = payload.split_at(skip.min(payload.len())).1;
            skip -= skip.min(payload.len());
            if !credit.backlog_fits(rest.len()) {
                self.facts.backlog_overflowed = true;
                return Err(ErrorKind::OutOfMemory.into());
            }
            credit.add_backlog(rest.len());
            self.backlog.extend(rest);
        }
        Ok(())
    }

    fn refresh_window(
        &mut self,
        connection: &mut Connection,
        now: Instant,
        socket: &mut impl HostSocket,
        credit: &mut CreditPool,
    ) {
        credit.repay(&mut self.lent, connection.window_left());
        if !std::mem::take(&mut self.buffer.changed) {
            return;
        }
        let buffer = socket.send_buffer(credit.least());
        // While the backlog of all flows is too large, those of flows with one do not grow.
        if credit.may_add_backlog() || self.backlog.is_empty() {
            let finished = connection.is_fin_received();
            self.facts.credit_wanted = !finished && !credit.may_lend();
            if !finished && !self.facts.credit_wanted {
                self.open_window(connection, buffer, u32::MAX, credit);
            }
        }
        self.buffer.recheck = match (self.buffer.event_armed, buffer.is_writable()) {
            (true, _) => None,
            (false, false) => {
                self.facts.write_event_wanted = true;
                self.buffer.event_armed = true;
                None
            }
            // The buffer drains without an event while the kernel calls it writable; poll it if the
            // namespace may be waiting for the window.
            (false, true) if self.facts.credit_wanted => None,
            (false, true) if buffer.queued > 0 && connection.receiver().is_tight() => {
                let wait = self.buffer.recheck.map_or(RECHECK_FIRST, |(_, wait)| wait * 2);
                let wait = wait.min(RECHECK_LONGEST);
                Some((now + wait, wait))
            }
            (false, true) => None,
        };
    }

    /// Opens the window; no more than `usable` of its growth can be used by the namespace yet.
    pub(super) fn open_window(
        &mut self,
        connection: &mut Connection,
        buffer: SendBuffer,
        usable: u32,
        credit: &mut CreditPool,
    ) {
        let receiver = connection.receiver();
        let growth = receiver.update_window(buffer.at_most(credit.most()));
        credit.lend(&mut self.lent, growth.min(usable));
    }

    /// Releases what this flow has of the common budget; its end.
    pub(super) fn release(&mut self, credit: &mut CreditPool) {
        credit.remove_backlog(self.backlog.len());
        credit.remove_backlog(
            self.out_of_order.assembler.take().map_or(0, |assembler| assembler.octets()),
        );
        credit.repay(&mut self.lent, 0);
        self.backlog = VecDeque::new();
    }
}
