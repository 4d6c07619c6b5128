//! TCP flows: one connection of the namespace's, its socket, and the way to the tap.

use super::tx_window::Counted;
use super::{Engine, Kind};
use crate::counters::DropReason;
use crate::flow::Fate;
use crate::flow::{FlowId, FlowKey};
use crate::link::classify::Framing;
use crate::sys::socket::TcpSocket;
use crate::sys::tap::{self, Path, Tap};
use crate::tcp::connection::Connection;
use crate::tcp::mapping::{Mapping, SHARE, ToTap};
use crate::time::Instant;
use crate::wire::tcp::{Header, LEN, ToSend};
use pasta_ipc::types::MacAddr;
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};

/// What a flow moves without waiting for its turn, in each round of those that wait; chosen: one
/// super-frame, for exchanges of messages.
const SHARE_OF_MANY: usize = 64 * 1024;

/// What a flow moves in its turn, where several wait: less where there are so many that a round of all of
/// them would take long, but never so little that each turn costs more than what it moves. Chosen: a round
/// is some tenths of a second, which is one of 512 flows.
const SHARE_OF_ALL: usize = 512 * SHARE;
const SMALLEST_SHARE: usize = 128 * 1024;

/// How many waiting flows move their whole share before the tap and the sockets are looked at again.
/// Measured beside eight bulk flows: with one the slowest of a hundred small exchanges take a quarter of
/// the time that they take with four, and the eight move a seventh less.
const HUNGRY_A_TURN: usize = 1;

/// How many flows that wait for a window have a look at their socket in a turn; chosen: some milliseconds.
const WAITING_A_TURN: usize = 512;

/// Names of ended flows that may be among those that wait, beside twice as many as there are flows; chosen.
const NAMES_KEPT: usize = 64;

/// Rounds of those flows that wait for their turn: one ends when all have had it that waited when it
/// began.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    number: u32,
    /// Flows that have yet to have their turn.
    left: usize,
}

impl Rounds {
    /// One more has had its turn, and now so many wait.
    fn turn(&mut self, waiting: usize) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.number = self.number.wrapping_add(1);
            self.left = waiting;
        }
    }
}

/// What a flow has moved without waiting for its turn: in which round, and how many octets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    round: u32,
    octets: u32,
}

impl Moved {
    fn in_round(self, rounds: &Rounds) -> usize {
        if self.round == rounds.number { self.octets as usize } else { 0 }
    }

    fn add(&mut self, octets: u32, rounds: &Rounds) {
        let before = self.in_round(rounds) as u32;
        *self = Self { round: rounds.number, octets: before.saturating_add(octets) };
    }
}

/// What each of `flows` that have more to do moves in a turn, in octets.
pub(super) fn share_among(flows: usize) -> usize {
    (SHARE_OF_ALL / flows.max(1)).clamp(SMALLEST_SHARE, SHARE)
}

/// A TCP connection of the namespace's with its socket.
#[derive(Debug)]
pub(super) struct TcpFlow {
    pub(super) mapping: Mapping,
    pub(super) socket: TcpSocket,
    pub(super) path: Path,
    pub(super) mac: MacAddr,
    /// When it was counted as one that sends.
    pub(super) counted: Counted,
    moved: Moved,
    /// The namespace's SYN, for an error to quote; none where we opened it.
    pub(super) syn: Option<Header>,
}

/// One flow's way to the tap.
struct FlowTap<'a> {
    tap: &'a mut Tap,
    path: &'a Path,
}

impl ToTap for FlowTap<'_> {
    fn send(&mut self, header: &ToSend, segment_size: u16, payload: &[u8]) -> bool {
        self.tap.write_tcp(self.path, header, segment_size, payload)
    }

    fn frame_payload(&self, segment_size: u16) -> usize {
        let size = usize::from(segment_size).max(1);
        match self.tap.framing() {
            Framing::Plain => size,
            Framing::Vnet => {
                let room = self.path.max_transport() - LEN;
                (room - room % size).max(size)
            }
        }
    }
}

impl Engine {
    /// A flow of `connection` and the socket `fd`, which nothing waits for yet.
    pub(super) fn tcp_flow(
        &self,
        connection: Connection,
        fd: OwnedFd,
        mac: MacAddr,
        key: &FlowKey,
        syn: Option<Header>,
    ) -> Box<TcpFlow> {
        let method = if key.namespace.is_ipv4() { self.peek.0 } else { self.peek.1 };
        Box::new(TcpFlow {
            mapping: Mapping::new(connection),
            socket: TcpSocket::new(fd, method),
            path: Path::new(self.tap.our_mac(), mac, tap::TCP, key.remote, key.namespace),
            mac,
            counted: Counted::default(),
            moved: Moved::default(),
            syn,
        })
    }

    /// Tells the sender of a segment for which there is no flow.
    pub(super) fn send_reset(&mut self, mac: MacAddr, key: FlowKey, reset: &ToSend) {
        let our_mac = self.tap.our_mac();
        let path = Path::new(our_mac, mac, tap::TCP, key.remote, key.namespace);
        self.tap.write_tcp(&path, reset, u16::MAX, &[]);
    }

    /// Carries on a flow of which something was noted. While others wait for their turn it moves little:
    /// enough for an exchange of messages to go first, and no more than that for a bulk flow, whose turn
    /// comes with [`Engine::serve_hungry`].
    pub(super) fn run_tcp(&mut self, now: Instant, id: FlowId, payloads: &[IoSlice<'_>]) {
        if self.hungry.is_empty() {
            return self.run_tcp_for(SHARE, now, id, payloads);
        }
        let Some(flow) = self.flows.get_mut(id) else { return };
        let Kind::Tcp(tcp) = &flow.kind else { return };
        let (queued, before) = (flow.queued, tcp.mapping.connection().sent());
        let moved = tcp.moved.in_round(&self.rounds);
        let share = if queued { 0 } else { SHARE_OF_MANY.saturating_sub(moved) };
        self.run_tcp_for(share, now, id, payloads);
        if share > 0
            && let Some(flow) = self.flows.get_mut(id)
            && let Kind::Tcp(tcp) = &mut flow.kind
        {
            let after = tcp.mapping.connection().sent();
            // It goes back to repeat what was lost.
            let moved = if after.after(before) { after.distance_from(before) } else { 0 };
            tcp.moved.add(moved, &self.rounds);
        }
    }

    /// Gives flows that have more to do a turn: only those that were in the queue when it began, and
    /// only so many that what arrives meanwhile does not wait long.
    pub(super) fn serve_hungry(&mut self, now: Instant) {
        let (waiting, mut served) = (self.hungry.len(), 0);
        for _ in 0..waiting {
            if served == HUNGRY_A_TURN {
                return;
            }
            let Some(id) = self.hungry.pop_front() else { return };
            self.rounds.turn(self.hungry.len());
            // Names of flows that have ended do not take the turn of those that live.
            if self.flows.get_mut(id).is_some() {
                served += 1;
                self.feed(now, id);
            }
        }
    }

    /// Lets windows grow, in the order in which flows have come to wait for that, as long as the tap's queue
    /// has room for what is sent on them.
    pub(super) fn serve_waiting(&mut self, now: Instant) {
        if self.waiting.len() > 2 * self.flows.len() + NAMES_KEPT {
            self.waiting.retain(|id| self.flows.get_mut(*id).is_some());
        }
        for _ in 0..self.waiting.len().min(WAITING_A_TURN) {
            if !self.budget.has_promises() {
                break;
            }
            let Some(id) = self.waiting.pop_front() else { break };
            let Some(flow) = self.flows.get_mut(id) else { continue };
            flow.waits = false;
            if let Kind::Tcp(tcp) = &mut flow.kind {
                tcp.mapping.grow_window();
                self.budget.set_others_wait(false);
                self.run_tcp(now, id, &[]);
            }
        }
        self.budget.set_others_wait(!self.waiting.is_empty());
    }

    pub(super) fn run_tcp_for(
        &mut self,
        share: usize,
        now: Instant,
        id: FlowId,
        payloads: &[IoSlice<'_>],
    ) {
        let Self { tap, flows, poller, scratch, budget, hungry, waiting, .. } = self;
        let Some(flow) = flows.get_mut(id) else { return };
        let Kind::Tcp(tcp) = &mut flow.kind else { return };
        let TcpFlow { mapping, socket, path, .. } = &mut **tcp;
        let mut to_tap = FlowTap { tap, path };
        let fate = mapping.run_for(share, now, socket, payloads, &mut to_tap, scratch, budget);
        if budget.take_overflowed() {
            tap.counters.drop(DropReason::ParkingFull);
        }
        match fate {
            Fate::Alive => {}
            Fate::Hungry if flow.queued => {}
            Fate::Hungry => {
                flow.queued = true;
                hungry.push_back(id);
            }
            Fate::Over => return self.remove(id),
            Fate::BrokenOff => {
                tcp.socket.reset_on_close();
                return self.remove(id);
            }
        }
        if tcp.mapping.take_window_wanted() && !flow.waits {
            flow.waits = true;
            waiting.push_back(id);
            budget.set_others_wait(true);
        }
        if tcp.mapping.connection().was_probed() {
            tcp.socket.ask_peer();
        }
        // Where asking fails, the recheck of the send buffer does the same more slowly.
        if tcp.mapping.take_write_event_wanted()
            && poller.rearm(tcp.socket.as_fd(), id.as_token()).is_err()
        {
            tcp.mapping.writable();
        }
        let deadline = tcp.mapping.deadline();
        self.arm(id, deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_smaller_with_the_number_of_flows_down_to_a_bound() {
        assert_eq!([0, 1, 512].map(share_among), [SHARE; 3]);
        assert_eq!(share_among(1024), SHARE / 2);
        assert_eq!([2048, 100_000].map(share_among), [SMALLEST_SHARE; 2]);
    }

    #[test]
    fn a_round_ends_when_all_that_waited_at_its_begin_have_had_their_turn() {
        let (mut rounds, mut moved) = (Rounds::default(), Moved::default());
        rounds.turn(3);
        moved.add(1000, &rounds);
        for waiting in [5, 9] {
            moved.add(1000, &rounds);
            rounds.turn(waiting);
        }
        assert_eq!(moved.in_round(&rounds), 3000);
        rounds.turn(2);
        assert_eq!(moved.in_round(&rounds), 0);
        moved.add(u32::MAX, &rounds);
        moved.add(1000, &rounds);
        assert_eq!(moved.in_round(&rounds), u32::MAX as usize);
    }
}
