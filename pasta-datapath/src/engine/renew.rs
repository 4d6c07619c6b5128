//! Flows of datagrams whose host socket is no longer good get another one, when something is to leave.

use super::{Engine, Flow, Kind};
use crate::counters::DropReason;
use crate::flow::{FlowId, FlowKey};
use crate::io::sockets::has_its_address;
use crate::standing::Standing;
use crate::time::Instant;
use crate::udp::Pending;
use pasta_ipc::types::{LogLevel, MacAddr};
use std::os::fd::AsFd;

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
        let revision = self.forwarding.revision();
        let Some(Flow { kind: Kind::Udp(flow), .. }) = self.flows.get_mut(id) else {
            return Ok(());
        };
        if !flow.standing().is_doubtful(now, revision) {
            return Ok(());
        }
        let resolver = self.forwarding.resolver_for(key.protocol, key.remote);
        let other = resolver.filter(|it| it != flow.target());
        let pending = if other.is_some() { Pending::Awaited } else { Pending::Lost };
        if other.is_none() && has_its_address(flow.socket()) {
            flow.standing().confirm(now, revision);
            return Ok(());
        }
        let target = other.unwrap_or_else(|| flow.target().clone());
        let (socket, target) = self.udp_socket(now, mac, &key, Ok(target), payload_len)?;
        let watched = self.poller.add_reading(socket.as_fd(), id.as_token());
        watched.map_err(|_| DropReason::NoSocket)?;
        if let Some(Flow { kind: Kind::Udp(flow), .. }) = self.flows.get_mut(id) {
            let standing = Standing::good(now, revision);
            flow.replace_socket(now, socket, (target, standing), pending);
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
        let revision = self.forwarding.revision();
        let Some(Flow { kind: Kind::Echo(flow), .. }) = self.flows.get_mut(id) else {
            return Ok(());
        };
        if !flow.standing().is_doubtful(now, revision) {
            return Ok(());
        }
        if has_its_address(flow.socket()) {
            flow.standing().confirm(now, revision);
            return Ok(());
        }
        let target = flow.target().clone();
        let (socket, _) = self.echo_socket(now, mac, &key, Ok(target), body)?;
        let watched = self.poller.add_reading(socket.as_fd(), id.as_token());
        watched.map_err(|_| DropReason::NoSocket)?;
        if let Some(Flow { kind: Kind::Echo(flow), .. }) = self.flows.get_mut(id) {
            flow.replace_socket(socket, Standing::good(now, revision));
        }
        Ok(())
    }
}
