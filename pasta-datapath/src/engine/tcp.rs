//! TCP flows: one connection of the namespace's, its socket, and the way to the tap.

use super::active::Counted;
use super::{Engine, Kind};
use crate::classify::Framing;
use crate::flow::Fate;
use crate::flow::{FlowId, FlowKey};
use crate::io::sockets::TcpSocket;
use crate::io::tap::{self, Path, Tap};
use crate::tcp::connection::Connection;
use crate::tcp::mapping::{Mapping, SHARE, ToTap};
use crate::time::Instant;
use crate::wire::tcp::{Header, LEN, ToSend};
use pasta_ipc::types::MacAddr;
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};

/// What a flow moves at once while others wait; chosen: one super-frame.
const SHARE_OF_MANY: usize = 64 * 1024;

/// How many waiting flows move their whole share before the tap and the sockets are looked at again.
/// Measured beside eight bulk flows: with one the slowest of a hundred small exchanges take a quarter of
/// the time that they take with four, and the eight move a seventh less.
const HUNGRY_A_TURN: usize = 1;

/// How many flows that wait for a window have a look at their socket in a turn; chosen: some milliseconds.
const WAITING_A_TURN: usize = 512;

/// Names of ended flows that may be among those that wait, beside twice as many as there are flows; chosen.
const NAMES_KEPT: usize = 64;

/// A TCP connection of the namespace's with its socket.
#[derive(Debug)]
pub(super) struct TcpFlow {
    pub(super) mapping: Mapping,
    pub(super) socket: TcpSocket,
    pub(super) path: Path,
    pub(super) mac: MacAddr,
    /// When it was counted as one that sends.
    pub(super) counted: Counted,
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
        let waits = self.flows.get_mut(id).is_some_and(|flow| flow.queued);
        let share = match (waits, self.hungry.is_empty()) {
            (true, _) => 0,
            (false, true) => SHARE,
            (false, false) => SHARE_OF_MANY,
        };
        self.run_tcp_for(share, now, id, payloads);
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
