//! New flows of the namespace: from the first frame to a host socket, and what the namespace gets when there is
//! none.

use super::parts::{Parts, source_of};
use crate::counters::DropReason;
use crate::flow::datagram::{DatagramFlow, HostEnd, Pending};
use crate::flow::refuse::{NoSocket, refuse_datagram, refuse_syn};
use crate::flow::source_check::SourceCheck;
use crate::flow::tcp::connection::Connection;
use crate::flow::tcp::flow::TcpFlow;
use crate::flow::{Flow, FlowEvent, FlowId, FlowKey, Side};
use crate::nat::Target;
use crate::sockets::{Interest, Progress, Sockets};
use crate::time::Instant;
use crate::token::Token;
use crate::wire::ip::Handling;
use crate::wire::tcp::Header;
use pasta_ipc::types::{LogLevel, MacAddr};

/// Opens flows for frames from one link-layer address.
pub(super) struct Opener<'a, S: Sockets> {
    pub(super) parts: &'a mut Parts<S>,
    pub(super) now: Instant,
    pub(super) mac: MacAddr,
}

impl<'a, S: Sockets> Opener<'a, S> {
    pub(super) fn new(parts: &'a mut Parts<S>, now: Instant, mac: MacAddr) -> Self {
        Self { parts, now, mac }
    }

    /// Opens a TCP flow for the namespace's SYN `header`.
    pub(super) fn tcp(
        &mut self,
        key: FlowKey,
        header: &Header,
        handling: Handling,
    ) -> Result<(), DropReason> {
        let Self { parts, now, mac } = self;
        let (now, mac) = (*now, *mac);
        if parts.leaving.has(key.namespace.ip()) {
            return Err(self.refuse_syn(&key, header, NoSocket::Refused));
        }
        parts.observe(now, key.namespace.ip(), mac);
        let opened = parts
            .target(now, &key)
            .and_then(|target| parts.connect(now, &key, (&target, handling), None));
        let connecting = match opened {
            Ok(connecting) => connecting,
            Err(why) => return Err(self.refuse_syn(&key, header, why)),
        };
        let watched = parts.watch_next(&connecting.socket, Interest::Stream);
        let iss = parts.initial_sequence_number(now, &key);
        let our_mss = parts.link.mss(key.namespace.ip());
        let connection = Connection::from_syn(now, header, iss, our_mss);
        let socket = parts.sockets.tcp(connecting.socket, key.namespace);
        let mut flow = TcpFlow::new(
            connection,
            socket,
            parts.path(mac, &key),
            (Some(*header), handling.traffic_class),
        );
        if connecting.progress == Progress::Connected {
            flow.connected();
        }
        let inserted =
            watched.ok().and_then(|()| parts.insert(now, Some(key), Flow::Tcp(Box::new(flow))));
        match inserted {
            Some(id) => {
                parts.drive(now, id, FlowEvent::Opened);
                Ok(())
            }
            None => Err(self.refuse_syn(&key, header, NoSocket::Exhausted)),
        }
    }

    fn refuse_syn(&mut self, key: &FlowKey, header: &Header, why: NoSocket) -> DropReason {
        let Parts { link, nat, counters, .. } = &mut *self.parts;
        refuse_syn(&mut link.writer(counters), nat, self.mac, key, header, (why, None))
    }

    /// Opens a flow of datagrams, of which `payload` is the first.
    pub(super) fn datagram(&mut self, key: FlowKey, payload: &[u8]) -> Result<FlowId, DropReason> {
        self.parts.observe(self.now, key.namespace.ip(), self.mac);
        let target = self.parts.target(self.now, &key);
        let shares = self.may_share(&key);
        let shared = target.as_ref().ok().filter(|_| shares);
        if let Some(end) = shared.and_then(|target| self.shared_socket(&key, target)) {
            return self.mapped(key, end);
        }
        let port = self.own_port(&key, shares);
        let (socket, target) = self.host_socket(&key, target, port, payload)?;
        let Self { parts, now, mac } = self;
        let watched = parts.watch_next(&socket, Interest::Reading);
        let host = HostEnd::new(socket, target, SourceCheck::good(*now, parts.nat.revision()));
        let path = parts.path(*mac, &key);
        let flow = Box::new(DatagramFlow::outbound(*now, key.protocol, path, host));
        let inserted =
            watched.ok().and_then(|()| parts.insert(*now, Some(key), Flow::Datagram(flow)));
        let id = inserted.ok_or(DropReason::NoSocket)?;
        let source = source_of(key.namespace);
        if shares && parts.ports.mappings.single(source).is_none() {
            parts.ports.mappings.set_single(source, id);
        }
        parts.drive(*now, id, FlowEvent::Opened);
        Ok(id)
    }

    /// A socket for a flow of datagrams, for which `payload` waits.
    fn host_socket(
        &mut self,
        key: &FlowKey,
        target: Result<Target, NoSocket>,
        port: Option<u16>,
        payload: &[u8],
    ) -> Result<(S::Socket, Target), DropReason> {
        let (parts, now) = (&mut *self.parts, self.now);
        let opened = target.and_then(|target| {
            let connecting = parts.connect(now, key, (&target, Handling::DEFAULT), port)?;
            Ok((connecting.socket, target))
        });
        opened.map_err(|why| {
            let Parts { link, nat, counters, .. } = parts;
            refuse_datagram(&mut link.writer(counters), nat, self.mac, key, payload, why)
        })
    }

    /// Sees to it that the flow `id`, for which `payload` waits, has a socket that it can leave by: one whose own
    /// address the host has, and to the resolver that is asked.
    pub(super) fn renew_datagram(
        &mut self,
        (id, key): (FlowId, FlowKey),
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let now = self.now;
        let Parts { flows, nat, .. } = &mut *self.parts;
        let (revision, resolver) = (nat.revision(), nat.resolver_for(key.protocol, key.remote));
        let Some(Flow::Datagram(flow)) = flows.table.get_mut(id).map(|entry| &mut entry.flow)
        else {
            return Ok(());
        };
        let Some((target, pending)) = flow.check_source(now, revision, resolver) else {
            return Ok(());
        };
        let shares = self.may_share(&key);
        let source = source_of(key.namespace);
        if shares && pending == Pending::Lost && self.share_single(source, id).is_some() {
            return Ok(());
        }
        let port = self.own_port(&key, shares);
        let target = self.parts.with_source(&key, target);
        let (socket, target) = self.host_socket(&key, Ok(target), port, payload)?;
        let Parts { flows, sockets, log, .. } = &mut *self.parts;
        let token = Token::Flow(id, Side::Initiating);
        let watched = sockets.watch(&socket, token, Interest::Reading);
        watched.map_err(|_| DropReason::NoSocket)?;
        if let Some(Flow::Datagram(flow)) = flows.table.get_mut(id).map(|entry| &mut entry.flow) {
            let host = HostEnd::new(socket, target, SourceCheck::good(now, revision));
            flow.replace_socket(now, host, pending);
        }
        log.add(LogLevel::Debug, || format!("flow has a new socket: {key:?}"));
        Ok(())
    }
}
