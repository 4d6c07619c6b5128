//! All flows, and what they share: the table, the schedule, window credit and pipes.

use super::evict::{Group, Need, Opener, Stage, Takes};
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

/// A flow in the table.
#[derive(Debug)]
pub struct Entry<S: Sockets> {
    /// The flow.
    pub flow: Flow<S>,
    /// When it runs again.
    pub scheduled: Scheduled,
    /// When it was added.
    pub opened: Instant,
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
    /// Flows that hold two sockets each, those of the namespace first.
    spliced: [usize; 2],
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
            spliced: [0; 2],
        }
    }

    /// Descriptors that flows and pipes hold.
    pub fn held(&self) -> usize {
        self.table.len() + self.spliced.iter().sum::<usize>() + 2 * self.pipes.made()
    }

    /// Adds a flow, with frames if it has a key; none if the table is full.
    pub fn insert(&mut self, now: Instant, key: Option<FlowKey>, flow: Flow<S>) -> Option<FlowId> {
        if let Some(old) = key.and_then(|key| self.table.find(&key)) {
            self.remove(old);
        }
        let (is_splice, group) = (matches!(flow, Flow::Splice(_)), flow.group());
        let entry = Entry { flow, scheduled: Scheduled::default(), opened: now };
        let inserted = match key {
            Some(key) => self.table.insert(key, entry).map(|(id, _old)| id),
            None => self.table.insert_nameless(entry),
        };
        let id = inserted.ok()?;
        if is_splice {
            *self.spliced_of(group.opener) += 1;
        }
        self.table.set_group(id, group);
        self.table.touch(now, id);
        Some(id)
    }

    fn spliced_of(&mut self, opener: Opener) -> &mut usize {
        let [namespace, host] = &mut self.spliced;
        if opener == Opener::Namespace { namespace } else { host }
    }

    /// Takes a flow out that has ended, with all that it was lent.
    pub fn remove(&mut self, id: FlowId) -> Option<Flow<S>> {
        let Entry { mut flow, scheduled, .. } = self.table.remove(id)?;
        self.schedule.forget(id, &scheduled);
        match &mut flow {
            Flow::Tcp(tcp) => tcp.release(&mut self.credit),
            Flow::Datagram(_) => {}
            Flow::Splice(splice) => {
                splice.release(&mut self.pipes);
                let spliced = self.spliced_of(splice.opener());
                *spliced = spliced.saturating_sub(1);
            }
        }
        Some(flow)
    }

    /// Descriptors of flows that `opener` has opened.
    pub fn held_by(&self, opener: Opener) -> usize {
        let stages = [Stage::Opening, Stage::OneWay, Stage::TwoWay, Stage::Stream];
        let groups = stages.into_iter().flat_map(|stage| Group::at(opener, stage));
        let flows: usize = groups.map(|group| self.table.count_of(group)).sum();
        let [namespace, host] = self.spliced;
        flows + if opener == Opener::Namespace { namespace } else { host }
    }

    /// How many flows take `what`.
    pub fn taking(&self, what: Takes) -> usize {
        let all = [Opener::Namespace, Opener::Host].into_iter().flat_map(|opener| {
            let stages = [Stage::Opening, Stage::OneWay, Stage::TwoWay, Stage::Stream];
            stages.map(|stage| Group { opener, stage, takes: what })
        });
        all.map(|group| self.table.count_of(group)).sum()
    }

    /// The flow of `opener` that is the first to go.
    pub fn evictable(&self, now: Instant, opener: Opener, need: Need) -> Option<FlowId> {
        let [opening, one_way, two_way, stream] =
            [Stage::Opening, Stage::OneWay, Stage::TwoWay, Stage::Stream]
                .map(|stage| Group::at(opener, stage));
        let idle = [two_way, stream];
        let first =
            self.first_of(now, &opening, need).or_else(|| self.first_of(now, &one_way, need));
        first.or_else(|| self.first_of(now, idle.as_flattened(), need))
    }

    /// As [`Flows::evictable`], among flows of the namespace that take `what`, or share what others take.
    pub fn evictable_taking(&self, now: Instant, what: Takes) -> Option<FlowId> {
        let opener = Opener::Namespace;
        let or_share = if what == Takes::Port { Takes::Nothing } else { what };
        let at = |stage| {
            let groups = [what, or_share].map(|takes| Group { opener, stage, takes });
            self.first_of(now, &groups, Need::Own)
        };
        at(Stage::OneWay).or_else(|| at(Stage::TwoWay))
    }

    /// The flow that was idle longest of `groups`, if that is long enough.
    fn first_of(&self, now: Instant, groups: &[Group], need: Need) -> Option<FlowId> {
        let oldest = groups.iter().filter_map(|group| {
            let (id, touched) = self.table.oldest_of(*group)?;
            let may_go = need == Need::Share || now.since(touched) >= group.evictable_after();
            may_go.then_some((touched, id))
        });
        oldest.min().map(|(_, id)| id)
    }
}
