//! A status, put together a few entries in each turn, so that frames do not wait for it. Nothing is counted for it
//! beforehand: what flows have carried, the kernel knows of their sockets.

use super::parts::Parts;
use crate::counters::DropReason;
use crate::flow::Flow;
use crate::flow::splice::StreamSocket;
use crate::flow::tcp::relay::HostSocket;
use crate::nat::Protocol;
use crate::port_forward::listeners::Role;
use crate::sockets::Sockets;
use pasta_ipc::port_forward::Direction;
use pasta_ipc::status::{
    Counter, DatapathStatus, FlowCounts, FlowKind, FlowStatus, MAX_TOP, RuleStatus, Usage,
};
use pasta_ipc::types::{Bounded, Text};

/// Listeners or flows that are counted in one turn; chosen: some ten microseconds.
const COUNTED_A_TURN: usize = 1024;

/// Flows whose sockets are asked in one turn; chosen: a call for each, some hundred microseconds.
const ASKED_A_TURN: usize = 128;

/// A status that is being put together.
#[derive(Debug)]
pub(super) struct Survey {
    /// The next slot of the listeners, then of the flows.
    stage: Stage,
    rules: [Vec<RuleStatus>; 2],
    flows: FlowCounts,
    /// How many flows are listed.
    listed: usize,
    top: Vec<FlowStatus>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Listeners(usize),
    Flows(usize),
    Over,
}

impl Survey {
    /// Begins one that lists so many flows.
    pub(super) fn new<S: Sockets>(parts: &Parts<S>, listed: usize) -> Self {
        let [inbound, outbound] = parts.ports.rules().counts();
        let of = |direction, count: usize| {
            let places = (0..u16::MAX).take(count);
            places.map(|rule| RuleStatus::empty(direction, rule)).collect()
        };
        let mut survey = Self {
            stage: Stage::Listeners(0),
            rules: [of(Direction::Inbound, inbound), of(Direction::Outbound, outbound)],
            flows: FlowCounts::default(),
            listed: listed.min(MAX_TOP),
            top: Vec::new(),
        };
        for (spec, (errno, rule)) in parts.ports.report().refused() {
            if let Some(status) = survey.rule(spec.direction(), rule.0) {
                status.refused += 1;
                status.first_refused.get_or_insert((spec.port(), *errno as i32));
            }
        }
        survey
    }

    /// Whether all is counted.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    fn rule(&mut self, direction: Direction, rule: u16) -> Option<&mut RuleStatus> {
        let [inbound, outbound] = &mut self.rules;
        let rules = match direction {
            Direction::Inbound => inbound,
            Direction::Outbound => outbound,
        };
        rules.get_mut(usize::from(rule))
    }

    /// Counts some more.
    pub(super) fn go_on<S: Sockets>(&mut self, parts: &mut Parts<S>) {
        self.stage = match self.stage {
            Stage::Listeners(from) => {
                let listeners = &parts.ports.listeners;
                for listener in listeners.slice(from, COUNTED_A_TURN) {
                    let direction = listener.spec.direction();
                    if let Some(status) = self.rule(direction, listener.target.rule.0) {
                        status.open += u32::from(listener.role == Role::Listener);
                        status.accepted += listener.accepted;
                        status.failed += listener.failed;
                    }
                }
                match from + COUNTED_A_TURN < listeners.slots() {
                    true => Stage::Listeners(from + COUNTED_A_TURN),
                    false => Stage::Flows(0),
                }
            }
            Stage::Flows(from) => {
                let count = if self.listed > 0 { ASKED_A_TURN } else { COUNTED_A_TURN };
                self.count_flows(parts, from, count);
                match from + count < parts.flows.table.slots() {
                    true => Stage::Flows(from + count),
                    false => Stage::Over,
                }
            }
            Stage::Over => Stage::Over,
        };
    }

    fn count_flows<S: Sockets>(&mut self, parts: &Parts<S>, from: usize, count: usize) {
        let asks = self.listed > 0;
        for (key, entry) in parts.flows.table.slice(from, count) {
            let (kind, carried) = match &entry.flow {
                Flow::Tcp(flow) => {
                    self.flows.tcp += 1;
                    (FlowKind::Tcp, asks.then(|| flow.socket().carried()))
                }
                Flow::Splice(flow) => {
                    self.flows.spliced += 1;
                    (FlowKind::Spliced, asks.then(|| flow.initiating().carried()))
                }
                Flow::Datagram(flow) => {
                    self.flows.datagram += 1;
                    let echo = key.is_some_and(|key| key.protocol == Protocol::Echo);
                    let kind = if echo { FlowKind::Echo } else { FlowKind::Udp };
                    (kind, Some(Some(flow.carried())))
                }
            };
            if !asks {
                continue;
            }
            let [to_namespace, from_namespace] = match (carried.flatten(), &entry.flow) {
                // Of a connection that the namespace has opened, we have accepted its end.
                (Some([received, sent]), Flow::Splice(flow)) if flow.is_of_namespace() => {
                    [sent, received]
                }
                (Some(carried), _) => carried,
                (None, _) => [0, 0],
            };
            let (namespace, remote) = (key.map(|it| it.namespace), key.map(|it| it.remote));
            let status = FlowStatus { kind, namespace, remote, to_namespace, from_namespace };
            let octets = |it: &FlowStatus| it.to_namespace.saturating_add(it.from_namespace);
            let place = self.top.partition_point(|it| octets(it) >= octets(&status));
            if place < self.listed {
                self.top.insert(place, status);
                self.top.truncate(self.listed);
            }
        }
    }

    /// The status as it is.
    pub(super) fn finish<S: Sockets>(self, parts: &mut Parts<S>) -> DatapathStatus {
        let counter = |name: &str, value| Counter { name: Text::truncated(name), value };
        let counters = parts.counters.named().map(|(name, value)| counter(name, value));
        let drops = DropReason::ALL.iter();
        let drops = drops.map(|reason| counter(reason.name(), parts.counters.dropped(*reason)));
        let limit = u32::try_from(parts.flows.table.limit()).unwrap_or(u32::MAX);
        let budget = parts.limits.fd_budget;
        let used = budget.limit().saturating_sub(parts.descriptors_left());
        let [inbound, outbound] = self.rules;
        let (lent, most) = parts.flows.credit.credit();
        DatapathStatus {
            forwards: parts.ports.generation(),
            counters: Bounded::truncated(counters).0,
            drops: Bounded::truncated(drops).0,
            flows: FlowCounts { limit, ..self.flows },
            descriptors: Usage { used: used as u64, limit: budget.limit() as u64 },
            backlog: parts.flows.credit.backlog_total(),
            window_credit: Usage { used: lent, limit: most },
            rules: Bounded::truncated(inbound.into_iter().chain(outbound)).0,
            top: Bounded::truncated(self.top).0,
        }
    }
}
