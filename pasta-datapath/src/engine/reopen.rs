//! What is bound to something of the host's that has changed gets another socket: flows of datagrams when
//! something is to leave, listeners on an interface when one of that name is there again.

use super::{Engine, Flow, Kind};
use crate::counters::DropReason;
use crate::flow::source_check::SourceCheck;
use crate::flow::udp::Pending;
use crate::flow::{FlowId, FlowKey};
use crate::port_forward::listeners::ListenerSpec;
use crate::sys::socket::has_its_address;
use crate::time::Instant;
use nix::errno::Errno;
use pasta_ipc::types::{IfName, LogLevel, MacAddr};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Duration;

/// How often is looked whether an interface with listeners of its own is another one by now; nothing is
/// looked at where there are none. Chosen: who plugs in a cable waits longer for an address.
const INTERFACES_LOOKED_AT: Duration = Duration::from_secs(1);

impl Engine {
    /// Sees to it that the flow `id`, for which a datagram of `payload_len` octets waits, has a socket
    /// that it can leave by: one whose own address the host has, and to the resolver that is asked.
    pub(super) fn renew_udp(
        &mut self,
        now: Instant,
        mac: MacAddr,
        (id, key): (FlowId, FlowKey),
        payload_len: usize,
    ) -> Result<(), DropReason> {
        let revision = self.nat.revision();
        let Some(Flow { kind: Kind::Udp(flow), .. }) = self.flows.get_mut(id) else {
            return Ok(());
        };
        if !flow.source_check().is_due(now, revision) {
            return Ok(());
        }
        let resolver = self.nat.resolver_for(key.protocol, key.remote);
        let other = resolver.filter(|it| it != flow.target());
        let pending = if other.is_some() { Pending::Awaited } else { Pending::Lost };
        if other.is_none() && has_its_address(flow.socket()) {
            flow.source_check().confirm(now, revision);
            return Ok(());
        }
        let target = other.unwrap_or_else(|| flow.target().clone());
        let (socket, target) = self.udp_socket(now, mac, &key, Ok(target), payload_len)?;
        let watched = self.poller.add_reading(socket.as_fd(), id.as_token());
        watched.map_err(|_| DropReason::NoSocket)?;
        if let Some(Flow { kind: Kind::Udp(flow), .. }) = self.flows.get_mut(id) {
            let source_check = SourceCheck::good(now, revision);
            flow.replace_socket(now, socket, (target, source_check), pending);
        }
        self.supervisor.log(LogLevel::Debug, || format!("flow has a new socket: {key:?}"));
        Ok(())
    }

    /// As [`Engine::renew_udp`], for an echo request with `body`.
    pub(super) fn renew_echo(
        &mut self,
        now: Instant,
        mac: MacAddr,
        (id, key): (FlowId, FlowKey),
        body: &[u8],
    ) -> Result<(), DropReason> {
        let revision = self.nat.revision();
        let Some(Flow { kind: Kind::Echo(flow), .. }) = self.flows.get_mut(id) else {
            return Ok(());
        };
        if !flow.source_check().is_due(now, revision) {
            return Ok(());
        }
        if has_its_address(flow.socket()) {
            flow.source_check().confirm(now, revision);
            return Ok(());
        }
        let target = flow.target().clone();
        let (socket, _) = self.echo_socket(now, mac, &key, Ok(target), body)?;
        let watched = self.poller.add_reading(socket.as_fd(), id.as_token());
        watched.map_err(|_| DropReason::NoSocket)?;
        if let Some(Flow { kind: Kind::Echo(flow), .. }) = self.flows.get_mut(id) {
            flow.replace_socket(socket, SourceCheck::good(now, revision));
        }
        Ok(())
    }

    /// Listens anew on interfaces that were deleted and are there again: a socket is bound to the link that
    /// had the name (socket(7)), and receives nothing from another. The kernel shows it by allowing a second
    /// bind to the same address.
    pub(super) fn renew_on_interfaces(&mut self, now: Instant) {
        if self.ports.interfaces_due.take_if(|due| *due <= now).is_none() {
            return;
        }
        let mut anew: BTreeMap<IfName, bool> = BTreeMap::new();
        let bound: Vec<_> = self.ports.listeners.on_interfaces().collect();
        for (id, at, target) in bound {
            let Some(interface) = at.interface.clone() else { continue };
            let is_anew = anew.get(&interface).copied();
            if is_anew == Some(false) {
                continue;
            }
            let opened = match at.open(self.ports.families) {
                // One listener speaks for all of its interface.
                Err(Errno::EADDRINUSE | Errno::ENODEV) if is_anew.is_none() => {
                    anew.insert(interface, false);
                    continue;
                }
                // Says nothing of the interface: a low port is refused before that is looked at.
                Err(_) if is_anew.is_none() => continue,
                opened => opened,
            };
            anew.insert(interface, true);
            let spec = ListenerSpec::Host(at);
            let listens = opened.and_then(|socket| {
                self.close(id);
                self.listen(spec.clone(), target, socket)
            });
            self.note(spec, target, listens);
        }
        self.look_at_interfaces(now);
    }

    /// Has interfaces looked at before long, if there are listeners bound to any.
    pub(super) fn look_at_interfaces(&mut self, now: Instant) {
        if self.ports.listeners.on_interfaces().next().is_some() {
            self.ports.interfaces_due.get_or_insert(now + INTERFACES_LOOKED_AT);
        }
    }
}
