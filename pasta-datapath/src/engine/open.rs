//! New flows: from the first frame to a host socket, and what the namespace gets when there is
//! none.

use super::{Engine, Flow, Kind};
use crate::counters::DropReason;
use crate::flow::echo::EchoFlow;
use crate::flow::source_check::SourceCheck;
use crate::flow::tcp::connection::{Connection, reset_for};
use crate::flow::udp::UdpFlow;
use crate::flow::{FlowId, FlowKey};
use crate::link::icmp_error::{self, Offending, QUOTED_TRANSPORT, Unreachable};
use crate::link::writer::{self, Path, icmp_protocol};
use crate::nat::{Denied, Protocol, Target};
use crate::sys::epoll::Event;
use crate::sys::socket::{Connecting, open};
use crate::time::Instant;
use crate::wire::seq::Seq;
use crate::wire::tcp::{Header, LEN as TCP_LEN};
use crate::wire::udp;
use nix::errno::Errno;
use pasta_ipc::types::{LogLevel, MacAddr, Mtu};
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

/// What is said when there can be no more flows.
const NO_MORE: &str = "new flows are refused";

/// Why a flow has no socket.
pub(super) enum NoSocket {
    /// There is no way there; the namespace gets an ICMP error.
    Unreachable(Unreachable),
    /// The destination itself refused.
    Refused,
    /// Nobody answered: the namespace's own time-out tells it.
    Silent,
    /// Descriptors or memory have run out.
    Exhausted,
}

impl NoSocket {
    /// The ICMP error for the sender of a datagram, and the counter.
    fn icmp_reason(self) -> (Unreachable, DropReason) {
        match self {
            Self::Unreachable(why) => (why, DropReason::Unreachable),
            Self::Refused | Self::Silent => (Unreachable::Host, DropReason::Unreachable),
            Self::Exhausted => (Unreachable::Host, DropReason::NoSocket),
        }
    }
}

impl From<Errno> for NoSocket {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ECONNREFUSED | Errno::ECONNRESET => Self::Refused,
            Errno::ETIMEDOUT => Self::Silent,
            errno => match Unreachable::from_errno(errno, 0) {
                Some(why) => Self::Unreachable(why),
                None => Self::Exhausted,
            },
        }
    }
}

impl From<Denied> for NoSocket {
    fn from(denied: Denied) -> Self {
        Self::Unreachable(match denied {
            Denied::FamilyOff | Denied::Destination => Unreachable::Prohibited,
            Denied::NothingMapped => Unreachable::Host,
        })
    }
}

impl Engine {
    /// Opens a TCP flow for the namespace's SYN `header`.
    pub(super) fn open_tcp(
        &mut self,
        now: Instant,
        mac: MacAddr,
        key: FlowKey,
        header: &Header,
    ) -> Result<(), DropReason> {
        self.observe(key.namespace.ip(), mac);
        let opened =
            self.target(now, &key).and_then(|target| self.connect(now, &key, &target, None));
        let connecting = match opened {
            Ok(connecting) => connecting,
            Err(why) => return Err(self.refuse_tcp(mac, key, header, why)),
        };
        let iss = self.initial_sequence_number(now, &key);
        let connection = Connection::from_syn(now, header, iss, self.our_mss(key.namespace));
        let mut flow = self.tcp_flow(connection, connecting.fd, mac, &key, Some(*header));
        if connecting.done {
            flow.relay.connected();
        }
        let token = self.flows.next_id().as_token();
        let watched = self.poller.add(flow.socket.as_fd(), token);
        match watched.ok().and_then(|()| self.insert(now, key, Kind::Tcp(flow))) {
            Some(id) => {
                self.run_tcp(now, id, &[]);
                Ok(())
            }
            None => Err(self.refuse_tcp(mac, key, header, NoSocket::Exhausted)),
        }
    }

    /// The socket of a flow that connects has something to say.
    pub(super) fn connect_event(&mut self, now: Instant, id: FlowId, event: Event) {
        let Some(Flow { kind: Kind::Tcp(flow), .. }) = self.flows.get_mut(id) else { return };
        if event.is_failed()
            && let Some(errno) = flow.socket.take_error()
        {
            let (mac, Some(syn)) = (flow.mac, flow.syn) else { return self.remove(id) };
            let (namespace, remote) = (flow.path.destination(), flow.path.source());
            let key = FlowKey { protocol: Protocol::Tcp, namespace, remote };
            self.remove(id);
            if let Some(asked) = self.nat.resolver_for(Protocol::Tcp, remote) {
                self.nat.resolver_failed(remote, asked.address.ip());
            }
            let reason = self.refuse_tcp(mac, key, &syn, errno.into());
            self.counters.drop(reason);
            return;
        }
        if event.is_writable() {
            flow.relay.connected_and_empty();
            if event.is_readable() {
                flow.relay.readable();
            }
            if event.is_ended() {
                flow.relay.ended();
            }
            if event.is_urgent() {
                flow.relay.urgent();
            }
            self.run_tcp(now, id, &[]);
        }
    }

    /// Tells the sender of a SYN why there is no connection, as natively as the protocol allows.
    fn refuse_tcp(
        &mut self,
        mac: MacAddr,
        key: FlowKey,
        syn: &Header,
        why: NoSocket,
    ) -> DropReason {
        match why {
            NoSocket::Silent => DropReason::Unreachable,
            NoSocket::Refused | NoSocket::Exhausted => {
                if let Some(reset) = reset_for(syn, 0) {
                    self.send_reset(mac, key, &reset);
                }
                match why {
                    NoSocket::Refused => DropReason::Unreachable,
                    _ => DropReason::NoSocket,
                }
            }
            NoSocket::Unreachable(why) => {
                let [s0, s1] = syn.source.to_be_bytes();
                let [d0, d1] = syn.destination.to_be_bytes();
                let [q0, q1, q2, q3] = u32::from(syn.seq).to_be_bytes();
                let transport = [s0, s1, d0, d1, q0, q1, q2, q3];
                self.send_unreachable(mac, &key, writer::TCP, transport, TCP_LEN as u16, why);
                DropReason::Unreachable
            }
        }
    }

    /// Opens a UDP flow for a datagram of `payload_len` octets.
    pub(super) fn open_udp(
        &mut self,
        now: Instant,
        mac: MacAddr,
        key: FlowKey,
        payload_len: usize,
    ) -> Result<FlowId, DropReason> {
        self.observe(key.namespace.ip(), mac);
        let target = self.target(now, &key);
        let (socket, target) = self.udp_socket(now, mac, &key, target, payload_len)?;
        let path = Path::new(self.link.our_mac, mac, writer::UDP, key.remote, key.namespace);
        let token = self.flows.next_id().as_token();
        let watched = self.poller.add_reading(socket.as_fd(), token);
        let source_check = SourceCheck::good(now, self.nat.revision());
        let flow = UdpFlow::new(now, socket, (target, source_check), path, mac);
        let deadline = flow.deadline();
        let inserted = watched.ok().and_then(|()| self.insert(now, key, Kind::Udp(Box::new(flow))));
        let id = inserted.ok_or(DropReason::NoSocket)?;
        self.arm(id, Some(deadline));
        Ok(id)
    }

    /// A socket for a UDP flow, for which a datagram of `payload_len` octets waits.
    pub(super) fn udp_socket(
        &mut self,
        now: Instant,
        mac: MacAddr,
        key: &FlowKey,
        target: Result<Target, NoSocket>,
        payload_len: usize,
    ) -> Result<(OwnedFd, Target), DropReason> {
        let port = key.namespace.port();
        let opened = target.and_then(|target| {
            let connecting = self.connect(now, key, &target, Some(port))?;
            Ok((connecting.fd, target))
        });
        opened.map_err(|why| match why {
            NoSocket::Unreachable(_) | NoSocket::Exhausted => {
                let (why, reason) = why.icmp_reason();
                let len = u16::try_from(payload_len).unwrap_or(u16::MAX);
                let (source, destination) = (port, key.remote.port());
                let transport = udp::header(&udp::Header { source, destination, checksum: 0 }, len);
                let len = len.saturating_add(udp::LEN as u16);
                self.send_unreachable(mac, key, writer::UDP, transport, len, why);
                reason
            }
            _ => DropReason::NoSocket,
        })
    }

    /// Carries an echo request out, over its flow or a new one.
    pub(super) fn handle_echo(
        &mut self,
        now: Instant,
        mac: MacAddr,
        (source, destination): (IpAddr, IpAddr),
        id: u16,
        body: &[u8],
    ) -> Result<(), DropReason> {
        let key = FlowKey {
            protocol: Protocol::Echo,
            namespace: SocketAddr::new(source, id),
            remote: SocketAddr::new(destination, 0),
        };
        let flow_id = match self.flows.find(&key) {
            Some(flow_id) => {
                self.renew_echo(now, mac, (flow_id, key), body)?;
                flow_id
            }
            None => self.open_echo(now, mac, key, body)?,
        };
        self.flows.touch(now, flow_id);
        let Some(Flow { kind: Kind::Echo(flow), .. }) = self.flows.get_mut(flow_id) else {
            return Err(DropReason::NoFlow);
        };
        let Err(errno) = flow.send(now, mac, body) else { return Ok(()) };
        // The socket's own address has gone: the next request gets another socket.
        if errno == Errno::EINVAL {
            flow.source_check().doubt();
            return Err(DropReason::Unreachable);
        }
        let offending = flow.offending();
        match Unreachable::from_errno(errno, 0) {
            Some(why) => {
                self.send_icmp_error(mac, &offending, why);
                Err(DropReason::Unreachable)
            }
            None => Err(DropReason::SocketFull),
        }
    }

    fn open_echo(
        &mut self,
        now: Instant,
        mac: MacAddr,
        key: FlowKey,
        body: &[u8],
    ) -> Result<FlowId, DropReason> {
        self.observe(key.namespace.ip(), mac);
        let target = self.target(now, &key);
        let (socket, target) = self.echo_socket(now, mac, &key, target, body)?;
        let (protocol, id) = (icmp_protocol(key.remote.ip()), key.namespace.port());
        let path = Path::new(self.link.our_mac, mac, protocol, key.remote, key.namespace);
        let token = self.flows.next_id().as_token();
        let watched = self.poller.add_reading(socket.as_fd(), token);
        let source_check = SourceCheck::good(now, self.nat.revision());
        let flow = EchoFlow::new(now, socket, (target, source_check), path, mac, id);
        let deadline = flow.deadline();
        let inserted =
            watched.ok().and_then(|()| self.insert(now, key, Kind::Echo(Box::new(flow))));
        let flow_id = inserted.ok_or(DropReason::NoSocket)?;
        self.arm(flow_id, Some(deadline));
        Ok(flow_id)
    }

    /// A socket for an echo flow, for which a request with `body` waits.
    pub(super) fn echo_socket(
        &mut self,
        now: Instant,
        mac: MacAddr,
        key: &FlowKey,
        target: Result<Target, NoSocket>,
        body: &[u8],
    ) -> Result<(OwnedFd, Target), DropReason> {
        let id = key.namespace.port();
        let opened = target.and_then(|target| {
            let connecting = self.connect(now, key, &target, Some(id))?;
            Ok((connecting.fd, target))
        });
        opened.map_err(|why| match why {
            NoSocket::Unreachable(why) => {
                let [i0, i1] = id.to_be_bytes();
                let [s0, s1] = body.first_chunk().copied().unwrap_or_default();
                let kind = if key.remote.is_ipv4() { 8 } else { 128 };
                let transport = [kind, 0, 0, 0, i0, i1, s0, s1];
                let protocol = icmp_protocol(key.remote.ip());
                self.send_unreachable(mac, key, protocol, transport, 8, why);
                DropReason::Unreachable
            }
            _ => DropReason::NoSocket,
        })
    }

    pub(super) fn insert(&mut self, now: Instant, key: FlowKey, kind: Kind) -> Option<FlowId> {
        let flow = Flow { kind, armed: None, queued: false, waits: false };
        let (id, _old) = self.flows.insert(key, flow).ok()?;
        self.flows.touch(now, id);
        self.counters.flows += 1;
        let FlowKey { protocol, namespace, remote } = key;
        self.supervisor
            .log(LogLevel::Debug, || format!("flow opened: {protocol:?} {namespace} -> {remote}"));
        Some(id)
    }

    /// As [`Engine::insert`], for a flow that has no frames.
    pub(super) fn insert_nameless(&mut self, now: Instant, kind: Kind) -> Option<FlowId> {
        let id = self
            .flows
            .insert_nameless(Flow { kind, armed: None, queued: false, waits: false })
            .ok()?;
        self.flows.touch(now, id);
        self.counters.flows += 1;
        Some(id)
    }

    fn target(&mut self, now: Instant, key: &FlowKey) -> Result<Target, NoSocket> {
        if self.lacks_capacity(1) && !self.evict(now) {
            self.log_exhausted(now, NO_MORE, &"there are as many as descriptors allow");
            return Err(NoSocket::Exhausted);
        }
        Ok(self.nat.outbound(key.protocol, key.remote)?)
    }

    fn connect(
        &mut self,
        now: Instant,
        key: &FlowKey,
        target: &Target,
        port: Option<u16>,
    ) -> Result<Connecting, NoSocket> {
        let mut opened = open(key.protocol, target, port);
        if matches!(opened, Err(Errno::EMFILE | Errno::ENFILE)) && self.evict(now) {
            opened = open(key.protocol, target, port);
        }
        opened.map_err(|errno| {
            let is_ping = key.protocol == Protocol::Echo && errno == Errno::EACCES;
            if is_ping && !std::mem::replace(&mut self.said.no_ping, true) {
                self.supervisor.log(LogLevel::Warn, || {
                    "echo requests are not forwarded: this group is not in \
                     net.ipv4.ping_group_range of the host"
                        .to_owned()
                });
            }
            let why = NoSocket::from(errno);
            match why {
                NoSocket::Exhausted => self.log_exhausted(now, NO_MORE, &errno),
                _ => self.nat.resolver_failed(key.remote, target.address.ip()),
            }
            why
        })
    }

    fn send_unreachable(
        &mut self,
        mac: MacAddr,
        key: &FlowKey,
        protocol: u8,
        transport: [u8; QUOTED_TRANSPORT],
        transport_len: u16,
        why: Unreachable,
    ) {
        let (source, destination) = (key.namespace, key.remote);
        let offending = Offending { source, destination, protocol, transport, transport_len };
        self.send_icmp_error(mac, &offending, why);
    }

    fn send_icmp_error(&mut self, mac: MacAddr, offending: &Offending, why: Unreachable) {
        let remote = offending.destination.ip();
        let reporter = super::reporter(&self.nat, remote, why, None);
        icmp_error::send(&mut self.link.writer(&mut self.counters), mac, reporter, offending, why);
    }

    /// Unpredictable for others, growing in time for the same endpoints (RFC 6528, section 3).
    pub(super) fn initial_sequence_number(&self, now: Instant, key: &FlowKey) -> Seq {
        // The clock ticks each 64 ns, so that it wraps in less than five minutes; both casts cut.
        let clock = (now.as_nanos() >> 6) as u32;
        Seq::from(clock.wrapping_add(self.isn_key.hash_one(key) as u32))
    }

    /// The tap carries larger or smaller packets than before.
    pub(super) fn set_mtu(&mut self, mtu: Mtu) {
        if mtu == self.mtu {
            return;
        }
        self.mtu = mtu;
        let (v4, v6) = (mtu.get().saturating_sub(40), mtu.get().saturating_sub(60));
        for flow in self.flows.values_mut() {
            if let Kind::Tcp(tcp) = &mut flow.kind {
                tcp.relay.limit_mss(if tcp.path.source().is_ipv4() { v4 } else { v6 });
            }
        }
    }

    /// The largest segment that fits the tap, for a family.
    pub(super) fn our_mss(&self, peer: SocketAddr) -> u16 {
        let headers = if peer.is_ipv4() { 40 } else { 60 };
        self.mtu.get().saturating_sub(headers)
    }
}
