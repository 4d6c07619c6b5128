//! All flows, and what they share: the table, the schedule, window credit and pipes.

use super::schedule::{Schedule, Scheduled};
use super::splice::pipes::Pipes;
use super::table::FlowTable;
use super::tcp::window::CreditPool;
use super::{Flow, FlowId, FlowKey};
use crate::link::tx_window::Active;
use crate::sockets::Sockets;
use crate::time::Instant;

/// Backlog of all TCP flows beyond which windows of flows with a backlog no longer grow; chosen: a quarter of
/// a per cent of an ordinary machine's memory, and far more than flows whose windows match their sockets use.
const BACKLOG_OCTETS: usize = 64 * 1024 * 1024;
/// Backlog of all TCP flows beyond which a flow that would add to it is reset; chosen: windows that are
/// advertised already may still be used beyond the bound above, but not by all flows that there can be.
const MAX_BACKLOG: usize = 4 * BACKLOG_OCTETS;

/// Of the flows that were idle longest, how many are looked at for eviction: the first may be entitled to more
/// time than the next. Chosen: bounds what a refused flow costs.
const LOOKED_AT: usize = 16;

/// A flow in the table.
#[derive(Debug)]
pub struct Entry<S: Sockets> {
    /// The flow.
    pub flow: Flow<S>,
    /// When it runs again.
    pub scheduled: Scheduled,
}

/// All flows.
#[derive(Debug)]
pub struct Flows<S: Sockets> {
    /// The flows by name and by key.
    pub table: FlowTable<Entry<S>>,
    /// When they run again.
    pub schedule: Schedule,
    /// The limits that all TCP connections share.
    pub credit: CreditPool,
    /// Which of them send, and what.
    pub active: Active,
    /// Pipes for splices.
    pub pipes: Pipes<S::Pipe>,
    /// Flows that hold two sockets each.
    spliced: usize,
}

impl<S: Sockets> Flows<S> {
    /// None yet, and at most `limit`.
    pub fn new(limit: usize) -> Self {
        Self {
            table: FlowTable::new(limit),
            schedule: Schedule::default(),
            credit: CreditPool::new(BACKLOG_OCTETS, MAX_BACKLOG),
            active: Active::default(),
            pipes: Pipes::new(0),
            spliced: 0,
        }
    }

    /// Descriptors that flows and pipes hold.
    pub fn held(&self) -> usize {
        self.table.len() + self.spliced + 2 * self.pipes.made()
    }

    /// Adds a flow, with frames if it has a key; none if the table is full.
    pub fn insert(&mut self, now: Instant, key: Option<FlowKey>, flow: Flow<S>) -> Option<FlowId> {
        if let Some(old) = key.and_then(|key| self.table.find(&key)) {
            self.remove(old);
        }
        let is_splice = matches!(flow, Flow::Splice(_));
        let entry = Entry { flow, scheduled: Scheduled::default() };
        let inserted = match key {
            Some(key) => self.table.insert(key, entry).map(|(id, _old)| id),
            None => self.table.insert_nameless(entry),
        };
        let id = inserted.ok()?;
        self.spliced += usize::from(is_splice);
        self.table.touch(now, id);
        Some(id)
    }

    /// Takes a flow out that has ended, with all that it was lent.
    pub fn remove(&mut self, id: FlowId) -> Option<Flow<S>> {
        let Entry { mut flow, scheduled } = self.table.remove(id)?;
        self.schedule.forget(id, &scheduled);
        match &mut flow {
            Flow::Tcp(tcp) => tcp.release(&mut self.credit),
            Flow::Datagram(_) => {}
            Flow::Splice(splice) => {
                splice.release(&mut self.pipes);
                self.spliced = self.spliced.saturating_sub(1);
            }
        }
        Some(flow)
    }

    /// The flow that was idle longest, if that is long enough for it to end for another. Flows in use go on
    /// whatever asks for more, and the one that asks is refused. An established TCP connection is entitled to
    /// 2 hours as long as there is room.
    pub fn evictable(&mut self, now: Instant) -> Option<FlowId> {
        let candidates = self.table.oldest().take(LOOKED_AT);
        let mut idle = candidates.map(|(id, entry, last_seen)| {
            (id, now.since(last_seen) >= entry.flow.evictable_after())
        });
        idle.find_map(|(id, is_long)| is_long.then_some(id))
    }
}
