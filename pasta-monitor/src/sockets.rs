#![forbid(unsafe_code)]
//! Which sockets inside the namespace the datapath gets: the decision, without the sockets.
//!
//! The datapath counts as hostile here. It gets sockets that connect, of the families that are served;
//! and listeners on the ports that the rules name which the supervisor has sent, on loopback, nowhere else. How
//! often it may ask is limited, so that it cannot keep the monitor from its other work.

use crate::time::Instant;
use pasta_ipc::DatapathToMonitor;
use pasta_ipc::port_forward::ForwardRule;
use pasta_ipc::socket::{
    NamespaceListener, Refusal, RequestId, SocketCount, SocketFamily, SocketKind,
};
use pasta_ipc::start::MonitorStart;
use pasta_ipc::types::{Service, Transport};
use std::time::Duration;

/// Sockets for each second; chosen: a tenth of a core at 2 us for each.
const RATE: u32 = 50_000;

/// Sockets at once after a quiet time; chosen: two full messages for each request that may be out.
const BURST: u32 = 4096;

/// The time in which one socket more may be made.
const PERIOD: Duration = Duration::from_nanos(1_000_000_000 / RATE as u64);

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Names the request.
    pub request: RequestId,
    /// What to make for it, or why nothing is made.
    pub outcome: Result<Order, Refusal>,
}

/// Sockets to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Some that connect.
    Sockets(SocketKind, SocketCount),
    /// One that listens.
    Listener(NamespaceListener),
}

/// Decides about the requests of the datapath.
#[derive(Clone, Debug)]
pub struct Gate {
    ipv4: Service,
    ipv6: Service,
    rules: Vec<ForwardRule>,
    bucket: Bucket,
}

impl Gate {
    /// A gate that lets through what `start` allows.
    pub fn new(start: &MonitorStart) -> Self {
        let rules = start.ports.outbound.as_slice().to_vec();
        Self {
            ipv4: start.ipv4.service,
            ipv6: start.ipv6.service,
            rules,
            bucket: Bucket::default(),
        }
    }

    /// From now on listeners are allowed on the ports of `rules`.
    pub fn allow(&mut self, rules: &[ForwardRule]) {
        self.rules = rules.to_vec();
    }

    /// Decides about `message`; none if it asks for nothing.
    pub fn decide(&mut self, now: Instant, message: &DatapathToMonitor) -> Option<Verdict> {
        let (request, outcome) = match *message {
            DatapathToMonitor::Hello(_) | DatapathToMonitor::FlowsReset { .. } => return None,
            DatapathToMonitor::SocketsWanted { request, kind, count } => {
                (request, self.sockets(now, kind, count))
            }
            DatapathToMonitor::ListenerWanted { request, listener } => {
                (request, self.listener(now, listener))
            }
        };
        Some(Verdict { request, outcome })
    }

    fn sockets(
        &mut self,
        now: Instant,
        kind: SocketKind,
        count: SocketCount,
    ) -> Result<Order, Refusal> {
        let family = if kind.ipv6 { SocketFamily::Ipv6 } else { SocketFamily::Ipv4 };
        if !self.serves(family) {
            return Err(Refusal::Denied);
        }
        let granted = self.bucket.take(now, count.get().into());
        let granted = u8::try_from(granted).map_err(|_| Refusal::Busy)?;
        let count = SocketCount::try_from(granted).map_err(|_| Refusal::Busy)?;
        Ok(Order::Sockets(kind, count))
    }

    fn listener(&mut self, now: Instant, wanted: NamespaceListener) -> Result<Order, Refusal> {
        let NamespaceListener { transport, family, port } = wanted;
        if !self.serves(family) || !self.covers(transport, port.get()) {
            return Err(Refusal::Denied);
        }
        if self.bucket.take(now, 1) == 0 {
            return Err(Refusal::Busy);
        }
        Ok(Order::Listener(wanted))
    }

    fn serves(&self, family: SocketFamily) -> bool {
        let (v4, v6) = (self.ipv4 == Service::On, self.ipv6 == Service::On);
        match family {
            SocketFamily::Ipv4 => v4,
            SocketFamily::Ipv6 => v6,
            SocketFamily::Both => v4 && v6,
        }
    }

    /// Whether a rule has `port`.
    fn covers(&self, transport: Transport, port: u16) -> bool {
        self.rules.iter().any(|rule| rule.transport() == transport && rule.ports().contains(port))
    }
}

/// Limits how many sockets are made: one for each [`PERIOD`], and [`BURST`] that were not used before.
///
/// What is counted is the moment up to which everything is used up, so that nothing has to be filled.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    used_until: Instant,
}

impl Bucket {
    /// Takes up to `wanted`, and says how many.
    fn take(&mut self, now: Instant, wanted: u32) -> u32 {
        let from = self.used_until.max(now);
        let left = (now + PERIOD * BURST).since(from).as_nanos() / PERIOD.as_nanos();
        let taken = u32::try_from(left).unwrap_or(BURST).min(wanted);
        self.used_until = from + PERIOD * taken;
        taken
    }
}

#[cfg(test)]
mod tests;
