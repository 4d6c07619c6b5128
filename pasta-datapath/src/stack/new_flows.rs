//! Frames that ask for a new flow, in front of what that costs.
//!
//! A frame of a flow costs a microsecond or two, a new flow several calls of the kernel: a socket made, connected and
//! watched. A program that opens connections in a loop fills the tap's queue, and with each flow opened as its frame is
//! read, whoever exchanges small messages waits behind all of them, or loses a frame in the tap's queue. So frames are
//! read as fast as they come, flows that exist have theirs at once, and frames for new ones wait here, copied: first
//! come first served, a few each turn, connections apart from datagrams. What comes meanwhile for a flow that is yet to
//! be opened waits behind its first frame, so that order is kept and no segment of it is taken for one of no flow.
//!
//! A frame that finds the queue full is a counted drop; the namespace retransmits it as it would one that the network
//! lost.

use super::Stack;
use crate::counters::DropReason;
use crate::flow::datagram::{MAX_GROUP, Sender};
use crate::flow::{FlowId, FlowKey};
use crate::nat::Protocol;
use crate::sockets::Sockets;
use crate::time::Instant;
use crate::wire::tcp::Header;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

/// How many connections and flows of datagrams each are opened, and how many connections accepted, before tap and
/// sockets are polled again: flows that exist go first. Chosen: each takes as long as some dozens of frames, and a poll
/// that finds nothing as one or two.
pub(super) const NEW_A_TURN: usize = 1;

/// Flows of one kind that may wait; chosen: as many as frames fit the tap's queue.
const MAX_FLOWS: usize = 4096;
/// Octets of their frames; chosen: the first frames of that many flows, or some dozen of the largest.
const MAX_OCTETS: usize = 1024 * 1024;

/// Frames of one flow; chosen: as many as are handled before others have a turn.
const MAX_FRAMES: usize = MAX_GROUP;

/// What becomes of a frame that asks for a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// It waits for its turn.
    Waits,
    /// The flow is opened.
    Now,
}

/// When and from whom a frame came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) now: Instant,
    pub(super) sender: Sender,
    /// The frame.
    pub(super) octets: &'a [u8],
    /// All frames of its batch, of which it is a part.
    pub(super) batch: &'a [u8],
    pub(super) opening: Opening,
}

/// The frames of one flow, in order.
#[derive(Debug, Default)]
struct Frames {
    octets: Vec<u8>,
    /// Where each begins and ends.
    places: Vec<(usize, usize)>,
}

/// Frames of one kind of flow.
#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<FlowKey>,
    frames: HashMap<FlowKey, Frames>,
    octets: usize,
}

/// Frames for flows that are yet to be opened.
#[derive(Debug, Default)]
pub(super) struct NewFlows {
    connections: Queue,
    datagrams: Queue,
}

/// As many wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Full;

impl NewFlows {
    fn queue(&mut self, protocol: Protocol) -> &mut Queue {
        match protocol {
            Protocol::Tcp => &mut self.connections,
            Protocol::Udp | Protocol::Echo => &mut self.datagrams,
        }
    }

    /// Whether frames wait for the flow with `key`.
    #[inline]
    pub(super) fn contains(&mut self, key: &FlowKey) -> bool {
        let frames = &self.queue(key.protocol).frames;
        !frames.is_empty() && frames.contains_key(key)
    }

    /// Has a frame for the flow with `key` wait.
    ///
    /// # Errors
    ///
    /// [`Full`].
    fn push(&mut self, key: FlowKey, frame: &[u8]) -> Result<(), Full> {
        let queue = self.queue(key.protocol);
        if queue.octets + frame.len() > MAX_OCTETS {
            return Err(Full);
        }
        let frames = match queue.frames.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if queue.order.len() >= MAX_FLOWS => return Err(Full),
            Entry::Vacant(entry) => {
                queue.order.push_back(key);
                entry.insert(Frames::default())
            }
        };
        if frames.places.len() >= MAX_FRAMES {
            return Err(Full);
        }
        let start = frames.octets.len();
        frames.octets.extend_from_slice(frame);
        frames.places.push((start, frames.octets.len()));
        queue.octets += frame.len();
        Ok(())
    }

    /// The frames of the connection, or of the flow of datagrams, that has waited longest.
    fn next(&mut self, protocol: Protocol) -> Option<Frames> {
        let queue = self.queue(protocol);
        let key = queue.order.pop_front()?;
        let frames = queue.frames.remove(&key)?;
        queue.octets -= frames.octets.len();
        Some(frames)
    }

    /// Whether connections are yet to be opened.
    pub(super) fn has_connections(&self) -> bool {
        !self.connections.order.is_empty()
    }

    /// How many flows are yet to be opened.
    pub(super) fn len(&self) -> usize {
        self.connections.order.len() + self.datagrams.order.len()
    }
}

impl<S: Sockets> Stack<S> {
    /// Has a frame wait until the flow with `key` is opened.
    pub(super) fn wait_for_turn(
        &mut self,
        origin: &Origin<'_>,
        key: FlowKey,
    ) -> Result<(), DropReason> {
        self.new_flows.push(key, origin.octets).map_err(|Full| DropReason::NewFlowsFull)
    }

    /// Opens the connection that a SYN asks for, when it is its turn.
    pub(super) fn open_connection(
        &mut self,
        origin: &Origin<'_>,
        key: FlowKey,
        header: &Header,
    ) -> Result<(), DropReason> {
        match origin.opening {
            Opening::Waits => self.wait_for_turn(origin, key),
            Opening::Now => {
                let Sender { mac, handling } = origin.sender;
                self.opener(origin.now, mac).tcp(key, header, handling)
            }
        }
    }

    /// Opens the flow of a datagram, when it is its turn; none if it is not.
    pub(super) fn open_datagram(
        &mut self,
        origin: &Origin<'_>,
        key: FlowKey,
        payload: &[u8],
    ) -> Result<Option<FlowId>, DropReason> {
        match origin.opening {
            Opening::Waits => self.wait_for_turn(origin, key).map(|()| None),
            Opening::Now => {
                self.opener(origin.now, origin.sender.mac).datagram(key, payload).map(Some)
            }
        }
    }

    /// Opens the flows that have waited longest; connections if flows that exist leave the time for it.
    pub(super) fn open_new_flows(&mut self, now: Instant) {
        if self.new_flows.has_connections() && self.parts.openings.may_open(now) {
            self.open_next(now, Protocol::Tcp);
            self.parts.openings.opened(now, self.new_flows.has_connections());
        }
        self.open_next(now, Protocol::Udp);
    }

    fn open_next(&mut self, now: Instant, protocol: Protocol) {
        for _ in 0..NEW_A_TURN {
            let Some(frames) = self.new_flows.next(protocol) else { break };
            self.handle_batch(now, Opening::Now, &frames.octets, &frames.places);
        }
    }
}
