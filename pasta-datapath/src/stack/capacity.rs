//! Whether there may be another flow, and which has to go for it ([`crate::flow::evict`]).

use super::parts::Parts;
use crate::flow::evict::{Need, Opener, Takes};
use crate::flow::{FlowEvent, FlowId};
use crate::sockets::Sockets;
use crate::time::Instant;

/// Flows that may go for one; chosen: one has two descriptors at most, but a port is free only when the last of those
/// that share it has gone. Bounds what a refused flow costs.
const MOST_EVICTED: usize = 64;

impl<S: Sockets> Parts<S> {
    /// Descriptors that nothing holds and nothing is on its way for.
    pub(super) fn descriptors_left(&self) -> usize {
        self.limits.fd_budget.left(self.flows.held() + self.ports.held())
    }

    /// Whether there is a place, and as many descriptors, for a flow of `opener` that needs so many. What is only held
    /// for flows to come goes first, then others may have to.
    pub(super) fn has_capacity(&mut self, now: Instant, opener: Opener, needed: usize) -> bool {
        let lacking = needed.saturating_sub(self.descriptors_left());
        if lacking > 0 {
            self.give_up_stock(lacking);
        }
        let has = |parts: &Self| !parts.flows.table.is_full() && parts.descriptors_left() >= needed;
        self.makes_room(now, has, |parts| parts.first_to_go(now, opener))
    }

    /// Closes so many descriptors that are held for flows to come; gives whether there were any.
    pub(super) fn give_up_stock(&mut self, count: usize) -> bool {
        let sockets = self.ports.requests.pool.shrink(count);
        let pipes = self.flows.pipes.shrink((count - sockets).div_ceil(2));
        sockets + pipes > 0
    }

    /// Ends a flow for another one of `opener`; `false` if none may go.
    pub(super) fn evict(&mut self, now: Instant, opener: Opener) -> bool {
        let first = self.first_to_go(now, opener);
        first.map(|id| self.evict_flow(now, id)).is_some()
    }

    /// Whether the namespace may take another UDP port or identifier of echo of the host; others may have to go.
    pub(super) fn has_port(&mut self, now: Instant, takes: Takes) -> bool {
        let has = |parts: &Self| {
            let mappings = if takes == Takes::Port { parts.ports.listeners.mappings() } else { 0 };
            parts.flows.taking(takes) + mappings < parts.limits.ports
        };
        self.makes_room(now, has, |parts| parts.flows.evictable_taking(now, takes))
    }

    /// Evicts what `first` gives until there is room, a few flows at most.
    fn makes_room(
        &mut self,
        now: Instant,
        has: impl Fn(&Self) -> bool,
        first: impl Fn(&Self) -> Option<FlowId>,
    ) -> bool {
        for _ in 0..MOST_EVICTED {
            if has(self) {
                return true;
            }
            let Some(id) = first(self) else { return false };
            self.evict_flow(now, id);
        }
        has(self)
    }

    /// The flow that goes first for another one of `opener`.
    fn first_to_go(&self, now: Instant, opener: Opener) -> Option<FlowId> {
        let (flows, other) = (&self.flows, opener.other());
        let descriptors = self.limits.fd_budget.left(self.ports.held());
        let share = descriptors.min(flows.table.limit()) / 2;
        if flows.held_by(opener) >= share {
            return flows.evictable(now, opener, Need::Own);
        }
        let is_over = flows.held_by(other) > share;
        let given_back = if is_over { flows.evictable(now, other, Need::Share) } else { None };
        given_back
            .or_else(|| flows.evictable(now, opener, Need::Own))
            .or_else(|| flows.evictable(now, other, Need::Own))
    }

    fn evict_flow(&mut self, now: Instant, id: FlowId) {
        self.counters.evicted += 1;
        self.drive(now, id, FlowEvent::Evicted);
    }
}
