//! Addresses that leave the namespace: what is open from them is reset while the reset still finds its way.
//!
//! A frame to an address that a kernel does not have is dropped, so that a program would wait for hours on a
//! connection whose end has gone. The monitor therefore says which addresses it is about to remove
//! ([`FamilySnapshot::leaving`](pasta_ipc::types::FamilySnapshot)), and removes them when it knows that their flows
//! were reset, or a moment later. Until then nothing new is opened from them.

use super::parts::Parts;
use crate::flow::FlowEvent;
use crate::sockets::Sockets;
use crate::time::Instant;
use pasta_ipc::DatapathToMonitor;
use pasta_ipc::types::{Generation, LogLevel, NetworkSnapshot};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Addresses that leave, and what the monitor is yet to know of that.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    addresses: BTreeSet<IpAddr>,
    reset: Option<Generation>,
}

impl Leaving {
    /// Takes in which addresses leave.
    pub(super) fn update(&mut self, snapshot: &NetworkSnapshot) {
        let ipv4 = snapshot.ipv4.leaving.as_slice().iter().copied().map(IpAddr::V4);
        let ipv6 = snapshot.ipv6.leaving.as_slice().iter().copied().map(IpAddr::V6);
        self.addresses = ipv4.chain(ipv6).collect();
        self.reset = None;
    }

    /// Whether `address` leaves.
    #[inline]
    pub(super) fn has(&self, address: IpAddr) -> bool {
        !self.addresses.is_empty() && self.addresses.contains(&address)
    }

    /// What the monitor is to be sent, if anything.
    pub(super) fn message(&mut self) -> Option<DatapathToMonitor> {
        self.reset.take().map(|generation| DatapathToMonitor::FlowsReset { generation })
    }

    /// Takes back a message that could not be sent.
    pub(super) fn not_sent(&mut self, generation: Generation) {
        self.reset.get_or_insert(generation);
    }
}

impl<S: Sockets> Parts<S> {
    /// Resets all flows of the addresses that leave.
    pub(super) fn reset_leaving(&mut self, now: Instant, generation: Generation) {
        if self.leaving.addresses.is_empty() {
            return;
        }
        let leaving = &self.leaving;
        let flows = self.flows.table.of_keys(|key| leaving.has(key.namespace.ip()));
        let count = flows.len();
        for id in flows {
            self.counters.left += 1;
            self.drive(now, id, FlowEvent::Abort);
        }
        if count > 0 {
            let line = || format!("{count} flows are reset: the namespace loses their address");
            self.log.add(LogLevel::Debug, line);
        }
        self.leaving.reset = Some(generation);
    }
}
