//! Eviction: which flow ends when descriptors or places in the table have run out.
//!
//! The flow that nothing was last_seen of for longest goes, if that is long enough; flows in use go on
//! whatever asks for more, and the one that asks is refused. What counts as long is the least that a
//! translator may give up without a need (RFC 5382, REQ-5: 4 minutes for a TCP connection that is being
//! opened or closed; RFC 4787, REQ-5: 2 minutes for UDP); an established TCP connection is entitled to 2
//! hours as long as there is room.

use super::{Engine, Kind};
use crate::flow::FlowId;
use crate::time::Instant;
use pasta_ipc::types::LogLevel;
use std::fmt::Display;
use std::time::Duration;

/// Idle time after which a flow may have to go.
const TCP_IDLE: Duration = Duration::from_secs(240);
const DATAGRAM_IDLE: Duration = Duration::from_secs(120);

/// Of the flows that were idle longest, how many are looked at: the first may be entitled to more time
/// than the next. Chosen: bounds what a refused flow costs.
const LOOKED_AT: usize = 16;

/// Time between two lines about the same lack.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A line that is not to be said too often.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    last: Option<Instant>,
    withheld: u64,
}

impl RateLimit {
    /// Whether the line is due; if so, how often it was withheld.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.since(last) < LOG_INTERVAL) {
            self.withheld += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.withheld))
    }
}

impl Engine {
    /// Descriptors that nothing holds and nothing is on its way for.
    pub(super) fn descriptors_left(&self) -> usize {
        let held = self.flows.len() + self.ports.held();
        self.fd_budget.left(held)
    }

    /// Whether there is no place, or no descriptor, for a flow that needs so many.
    pub(super) fn lacks_capacity(&self, needed: usize) -> bool {
        self.flows.is_full() || self.descriptors_left() < needed
    }

    /// Ends the flow that was idle longest; `false` if none may go.
    pub(super) fn evict(&mut self, now: Instant) -> bool {
        let Self { flows, .. } = self;
        let candidates: Vec<(FlowId, Instant)> = flows.oldest().take(LOOKED_AT).collect();
        let idle_enough = |(id, last_seen): &(FlowId, Instant)| {
            let least = match flows.get_mut(*id).map(|flow| &flow.kind) {
                Some(Kind::Tcp(_) | Kind::Splice(_)) => TCP_IDLE,
                Some(Kind::Udp(_) | Kind::Echo(_) | Kind::Forwarded(_)) => DATAGRAM_IDLE,
                None => return false,
            };
            now.since(*last_seen) >= least
        };
        let Some((id, _)) = candidates.into_iter().find(idle_enough) else { return false };
        self.counters.evicted += 1;
        match self.flows.get_mut(id).map(|flow| &mut flow.kind) {
            Some(Kind::Tcp(tcp)) => {
                // Both ends get a reset.
                tcp.relay.abort();
                self.run_tcp(now, id, &[]);
            }
            _ => self.remove(id),
        }
        true
    }

    /// Says, at most once a minute, that new flows cannot be served.
    pub(super) fn log_exhausted(&mut self, now: Instant, what: &str, why: &dyn Display) {
        if let Some(withheld) = self.said.exhausted.due(now) {
            self.supervisor.log(LogLevel::Warn, || match withheld {
                0 => format!("{what}: {why}"),
                more => format!("{what}: {why} (and {more} times more since this was said last)"),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_said_once_a_minute_with_how_often_it_was_not() {
        let mut line = RateLimit::default();
        let start = Instant::START;
        assert_eq!(line.due(start), Some(0));
        assert_eq!(line.due(start + Duration::from_secs(1)), None);
        assert_eq!(line.due(start + Duration::from_secs(59)), None);
        assert_eq!(line.due(start + Duration::from_secs(60)), Some(2));
        assert_eq!(line.due(start + Duration::from_secs(120)), Some(0));
    }
}
