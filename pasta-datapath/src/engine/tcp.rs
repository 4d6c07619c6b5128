//! TCP flows in the engine: a relay with its socket and its tap writer, the run queue and its round robin.
//!
//! The reasoning behind the quanta is in `docs/decisions/0015-round-robin.md`.

use super::tx_window::Counted;
use super::{Engine, Kind};
use crate::counters::DropReason;
use crate::flow::Next;
use crate::flow::tcp::connection::Connection;
use crate::flow::tcp::relay::{Context, Outcome, QUANTUM, Relay, TapWriter};
use crate::flow::{FlowId, FlowKey};
use crate::link::classify::Framing;
use crate::link::writer::{self, FrameWriter, Path};
use crate::sys::socket::TcpSocket;
use crate::sys::tap::Tap;
use crate::time::Instant;
use crate::wire::tcp::{Header, LEN, ToSend};
use pasta_ipc::types::MacAddr;
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};

/// Quantum of a flow outside the run queue, for each round of it, while others are in it; chosen: one
/// super-frame, for request/response.
const INTERACTIVE_QUANTUM: usize = 64 * 1024;

/// Octets of a round of the run queue, and the smallest quantum. With more flows the quantum is smaller, so
/// that a round does not take long, but never so small that a turn costs more than it moves. Chosen: a round
/// of 512 flows, which is some tenths of a second.
const ROUND_OCTETS: usize = 512 * QUANTUM;
const MIN_QUANTUM: usize = 128 * 1024;

/// How many flows of the run queue have their turn before tap and sockets are polled again.
const FLOWS_A_TURN: usize = 1;

/// How many flows that wait for window credit have their turn at once; chosen: some milliseconds.
const WAITING_A_TURN: usize = 512;

/// Ids of ended flows that may be in the queue for window credit, beside twice the number of flows; chosen.
const NAMES_KEPT: usize = 64;

/// Rounds of the run queue: one ends when all flows that were in it at the start have had their turn.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    number: u32,
    /// Flows that have yet to have their turn.
    left: usize,
}

impl RoundRobin {
    /// One more has had its turn, and `waiting` are in the queue.
    fn turn(&mut self, waiting: usize) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.number = self.number.wrapping_add(1);
            self.left = waiting;
        }
    }
}

/// Octets that a flow has sent outside the run queue, and in which round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    round: u32,
    octets: u32,
}

impl Moved {
    fn in_round(self, round_robin: &RoundRobin) -> usize {
        if self.round == round_robin.number { self.octets as usize } else { 0 }
    }

    fn add(&mut self, octets: u32, round_robin: &RoundRobin) {
        let before = self.in_round(round_robin) as u32;
        *self = Self { round: round_robin.number, octets: before.saturating_add(octets) };
    }
}

/// Quantum of each of `flows` in the run queue, in octets.
pub(super) fn quantum_for(flows: usize) -> usize {
    (ROUND_OCTETS / flows.max(1)).clamp(MIN_QUANTUM, QUANTUM)
}

/// A TCP connection of the namespace's with its socket.
#[derive(Debug)]
pub(super) struct TcpFlow {
    pub(super) relay: Relay,
    pub(super) socket: TcpSocket,
    pub(super) path: Path,
    pub(super) mac: MacAddr,
    /// When it was counted as active.
    pub(super) counted: Counted,
    moved: Moved,
    /// The namespace's SYN, for an error to quote; none where we opened it.
    pub(super) syn: Option<Header>,
}

/// The tap with the headers of one flow.
struct FlowTap<'a> {
    tap: FrameWriter<'a, Tap>,
    path: &'a Path,
}

impl TapWriter for FlowTap<'_> {
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
    /// A flow of `connection` and the socket `fd`, not yet registered with epoll.
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
            relay: Relay::new(connection),
            socket: TcpSocket::new(fd, method),
            path: Path::new(self.link.our_mac, mac, writer::TCP, key.remote, key.namespace),
            mac,
            counted: Counted::default(),
            moved: Moved::default(),
            syn,
        })
    }

    /// Answers a segment for which there is no flow.
    pub(super) fn send_reset(&mut self, mac: MacAddr, key: FlowKey, reset: &ToSend) {
        let our_mac = self.link.our_mac;
        let path = Path::new(our_mac, mac, writer::TCP, key.remote, key.namespace);
        self.link.writer(&mut self.counters).write_tcp(&path, reset, u16::MAX, &[]);
    }

    /// Runs a flow with events. While others are in the run queue it moves little: enough for
    /// request/response to go first, and no more than that for a bulk flow, whose turn comes with
    /// [`Engine::serve_run_queue`].
    pub(super) fn run_tcp(&mut self, now: Instant, id: FlowId, payloads: &[IoSlice<'_>]) {
        if self.run_queue.is_empty() {
            return self.run_tcp_for(QUANTUM, now, id, payloads);
        }
        let Some(flow) = self.flows.get_mut(id) else { return };
        let Kind::Tcp(tcp) = &flow.kind else { return };
        let (queued, before) = (flow.queued, tcp.relay.connection().sent());
        let moved = tcp.moved.in_round(&self.round_robin);
        let quantum = if queued { 0 } else { INTERACTIVE_QUANTUM.saturating_sub(moved) };
        self.run_tcp_for(quantum, now, id, payloads);
        if quantum > 0
            && let Some(flow) = self.flows.get_mut(id)
            && let Kind::Tcp(tcp) = &mut flow.kind
        {
            let after = tcp.relay.connection().sent();
            // It goes back for a retransmission.
            let moved = if after.after(before) { after.distance_from(before) } else { 0 };
            tcp.moved.add(moved, &self.round_robin);
        }
    }

    /// Serves the run queue in round robin: only flows that were in it at the start, and only so many that
    /// events do not wait long.
    pub(super) fn serve_run_queue(&mut self, now: Instant) {
        let (waiting, mut served) = (self.run_queue.len(), 0);
        for _ in 0..waiting {
            if served == FLOWS_A_TURN {
                return;
            }
            let Some(id) = self.run_queue.pop_front() else { return };
            self.round_robin.turn(self.run_queue.len());
            // Ids of flows that have ended do not take the turn of others.
            if self.flows.get_mut(id).is_some() {
                served += 1;
                self.feed(now, id);
            }
        }
    }

    /// Lets windows grow, in the order in which flows came to wait for window credit, as long as some is left.
    pub(super) fn serve_waiting(&mut self, now: Instant) {
        if self.waiting.len() > 2 * self.flows.len() + NAMES_KEPT {
            self.waiting.retain(|id| self.flows.get_mut(*id).is_some());
        }
        for _ in 0..self.waiting.len().min(WAITING_A_TURN) {
            if !self.credit.has_credit() {
                break;
            }
            let Some(id) = self.waiting.pop_front() else { break };
            let Some(flow) = self.flows.get_mut(id) else { continue };
            flow.waits = false;
            if let Kind::Tcp(tcp) = &mut flow.kind {
                tcp.relay.grow_window();
                self.credit.set_others_wait(false);
                self.run_tcp(now, id, &[]);
            }
        }
        self.credit.set_others_wait(!self.waiting.is_empty());
    }

    pub(super) fn run_tcp_for(
        &mut self,
        quantum: usize,
        now: Instant,
        id: FlowId,
        payloads: &[IoSlice<'_>],
    ) {
        let Self { link, counters, flows, poller, scratch, credit, run_queue, waiting, .. } = self;
        let Some(flow) = flows.get_mut(id) else { return };
        let Kind::Tcp(tcp) = &mut flow.kind else { return };
        let TcpFlow { relay, socket, path, .. } = &mut **tcp;
        let mut to_tap = FlowTap { tap: link.writer(counters), path };
        let Outcome { next, deadline, facts } = relay.run(
            &mut Context { now, quantum, socket, tap: &mut to_tap, scratch, credit },
            payloads,
        );
        if facts.backlog_overflowed {
            counters.drop(DropReason::BacklogFull);
        }
        match next {
            Next::Wait => {}
            Next::More if flow.queued => {}
            Next::More => {
                flow.queued = true;
                run_queue.push_back(id);
            }
            Next::Over => return self.remove(id),
            Next::Reset => {
                tcp.socket.reset_on_close();
                return self.remove(id);
            }
        }
        if facts.credit_wanted && !flow.waits {
            flow.waits = true;
            waiting.push_back(id);
            credit.set_others_wait(true);
        }
        if facts.keepalive_received {
            tcp.socket.ask_peer();
        }
        // If it fails, the send buffer is polled.
        if facts.write_event_wanted && poller.rearm(tcp.socket.as_fd(), id.as_token()).is_err() {
            tcp.relay.writable();
        }
        self.arm(id, deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantum_shrinks_with_the_number_of_flows_down_to_a_bound() {
        assert_eq!([0, 1, 512].map(quantum_for), [QUANTUM; 3]);
        assert_eq!(quantum_for(1024), QUANTUM / 2);
        assert_eq!([2048, 100_000].map(quantum_for), [MIN_QUANTUM; 2]);
    }

    #[test]
    fn a_round_ends_when_all_that_were_queued_at_its_start_have_had_their_turn() {
        let (mut round_robin, mut moved) = (RoundRobin::default(), Moved::default());
        round_robin.turn(3);
        moved.add(1000, &round_robin);
        for waiting in [5, 9] {
            moved.add(1000, &round_robin);
            round_robin.turn(waiting);
        }
        assert_eq!(moved.in_round(&round_robin), 3000);
        round_robin.turn(2);
        assert_eq!(moved.in_round(&round_robin), 0);
        moved.add(u32::MAX, &round_robin);
        moved.add(1000, &round_robin);
        assert_eq!(moved.in_round(&round_robin), u32::MAX as usize);
    }
}
