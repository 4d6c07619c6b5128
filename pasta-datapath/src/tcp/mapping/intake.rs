//! From the namespace: what is in order goes to the socket or is parked, and the window tells what more
//! may come.

use super::{HostSocket, MAX_SLICES, Mapping};
use crate::tcp::budget::Budget;
use crate::tcp::to_socket::Room;
use crate::time::Instant;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::time::Duration;

/// First and longest wait before looking again at a send buffer that drains without an event.
const RECHECK_FIRST: Duration = Duration::from_millis(1);
const RECHECK_LONGEST: Duration = Duration::from_millis(128);

impl Mapping {
    /// Gives the socket what is for it, and looks what more may come.
    pub(super) fn take_in(
        &mut self,
        now: Instant,
        socket: &mut impl HostSocket,
        payloads: &[IoSlice<'_>],
        budget: &mut Budget,
    ) -> io::Result<()> {
        self.write(socket, payloads, budget)?;
        self.fill_gap(socket, budget)?;
        self.shut_down_if_due(socket);
        self.refresh_window(now, socket, budget);
        Ok(())
    }

    /// Writes parked octets, then `payloads`; parks what the socket does not accept.
    fn write(
        &mut self,
        socket: &mut impl HostSocket,
        payloads: &[IoSlice<'_>],
        budget: &mut Budget,
    ) -> io::Result<()> {
        if (!self.parked.is_empty() && self.room_changed) || !payloads.is_empty() {
            let accepted = self.write_once(socket, payloads)?;
            // Room is asked for again when the namespace may come to need more of it.
            self.room_changed |= self.connection.receiver().is_used_up();
            self.connection.accepted(u32::try_from(accepted).unwrap_or(u32::MAX));
            let from_parked = accepted.min(self.parked.len());
            self.parked.drain(..from_parked);
            budget.unpark(from_parked);
            self.park(payloads, accepted - from_parked, budget)?;
            if self.parked.is_empty() && self.parked.capacity() > 0 {
                self.parked = VecDeque::new();
            }
        }
        Ok(())
    }

    /// Writes what came before its turn and is due now.
    fn fill_gap(&mut self, socket: &mut impl HostSocket, budget: &mut Budget) -> io::Result<()> {
        // Octets of this batch that the next call brings come before what was kept behind them.
        if self.connection.parked() as usize > self.parked.len() {
            return Ok(());
        }
        let Some(mut gaps) = self.gaps.take() else { return Ok(()) };
        while let Some(block) = gaps.take_block(self.connection.receiver().next()) {
            budget.unpark(block.octets.len());
            // At once, whatever else could carry it (RFC 5681, section 4.2).
            self.connection.receiver().force();
            let range = self.connection.take_kept(block.start, block.octets.len(), false);
            let payload = block.octets.get(range).unwrap_or_default();
            if !payload.is_empty()
                && let Err(error) = self.write(socket, &[IoSlice::new(payload)], budget)
            {
                self.gaps = Some(gaps);
                return Err(error);
            }
        }
        let next = self.connection.receiver().next();
        if gaps.take_fin(next) {
            self.connection.take_kept(next, 0, true);
        }
        if !gaps.is_empty() {
            self.gaps = Some(gaps);
        }
        Ok(())
    }

    fn shut_down_if_due(&mut self, socket: &mut impl HostSocket) {
        if self.connection.shutdown_due() {
            socket.shut_down_write();
            self.connection.shut_down();
        }
    }

    fn write_once(
        &mut self,
        socket: &mut impl HostSocket,
        payloads: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let (first, second) = self.parked.as_slices();
        let parked = [IoSlice::new(first), IoSlice::new(second)];
        let all = parked.iter().chain(payloads).filter(|slice| !slice.is_empty());
        let mut count = 0;
        let mut offered = 0;
        for (slot, slice) in slices.iter_mut().zip(all) {
            *slot = *slice;
            count += 1;
            offered += slice.len();
        }
        let accepted = match socket.send(slices.get(..count).unwrap_or_default()) {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        // A write that came up short makes the kernel tell when there is room.
        self.write_event_armed |= accepted < offered;
        Ok(accepted)
    }

    /// Parks what of `payloads` comes after the first `skip` octets.
    ///
    /// # Errors
    ///
    /// Where there is no room.
    fn park(
        &mut self,
        payloads: &[IoSlice<'_>],
        mut skip: usize,
        budget: &mut Budget,
    ) -> io::Result<()> {
        for payload in payloads {
            let rest = payload.get(skip.min(payload.len())..).unwrap_or_default();
            skip -= skip.min(payload.len());
            if !budget.can_park(rest.len()) {
                return Err(ErrorKind::OutOfMemory.into());
            }
            budget.park(rest.len());
            self.parked.extend(rest);
        }
        Ok(())
    }

    fn refresh_window(&mut self, now: Instant, socket: &mut impl HostSocket, budget: &mut Budget) {
        budget.kept(&mut self.promise, self.connection.window_left());
        if !std::mem::take(&mut self.room_changed) {
            return;
        }
        let room = socket.room(budget.least());
        // While too much is parked by all flows together, no window opens further.
        if budget.may_park() || self.parked.is_empty() {
            let finished = self.connection.is_finished();
            self.window_wanted = !finished && !budget.may_promise();
            if !finished && !self.window_wanted {
                self.open_window(room, u32::MAX, budget);
            }
        }
        self.recheck = match (self.write_event_armed, room.is_writable()) {
            (true, _) => None,
            (false, false) => {
                self.write_event_wanted = true;
                self.write_event_armed = true;
                None
            }
            // The buffer drains without an event while the kernel calls it writable; look again if
            // the namespace may be waiting for more.
            (false, true) if self.window_wanted => None,
            (false, true) if room.queued > 0 && self.connection.receiver().is_tight() => {
                let wait = self.recheck.map_or(RECHECK_FIRST, |(_, wait)| wait * 2);
                let wait = wait.min(RECHECK_LONGEST);
                Some((now + wait, wait))
            }
            (false, true) => None,
        };
    }

    /// Opens the window; no more than `told` of that can be made use of now.
    pub(super) fn open_window(&mut self, room: Room, told: u32, budget: &mut Budget) {
        let receiver = self.connection.receiver();
        let growth = receiver.made_room(room.at_most(budget.most()));
        budget.promise(&mut self.promise, growth.min(told));
    }
}
