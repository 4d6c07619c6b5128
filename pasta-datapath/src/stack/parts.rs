//! The parts of the stack, and how a flow runs with them: [`Parts::drive`] hands it an event, [`Parts::settle`] does
//! what follows from its outcome.

use super::leaving::Leaving;
use super::openings::Openings;
use crate::counters::{Counters, DropReason};
use crate::flow::datagram::{DatagramSocket, ListenerEnd};
use crate::flow::evict::{Opener, Takes};
use crate::flow::flows::{Entry, Flows};
use crate::flow::refuse::NoSocket;
use crate::flow::schedule::Cause;
use crate::flow::{
    Context, Facts, Flow, FlowEvent, FlowId, FlowKey, Next, Outcome, Side, TargetSocket,
};
use crate::link::Link;
use crate::link::reachability::Use;
use crate::link::writer::{self, Path, icmp_protocol};
use crate::log::Log;
use crate::nat::{Nat, Protocol, Target};
use crate::port_forward::mappings::Source;
use crate::port_forward::socket_pool::kind_for;
use crate::port_forward::{self, Ports};
use crate::sockets::{Connecting, Interest, Sockets};
use crate::sys::fd_budget::FdBudget;
use crate::time::Instant;
use crate::token::Token;
use crate::wire::ip::Handling;
use crate::wire::seq::Seq;
use nix::errno::Errno;
use pasta_ipc::types::{Family, LogLevel, MacAddr, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What is logged when there can be no more flows.
pub(super) const NO_MORE: &str = "new flows are refused";

/// Why, if it is for ports.
pub(super) const NO_PORT: &str = "the share of the host's UDP ports or echo identifiers is in use";

/// Other source ports that are tried where ours is taken by another flow; chosen.
const PORTS_TRIED: u16 = 64;

/// How much there may be of what the host gives.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Descriptors.
    pub fd_budget: FdBudget,
    /// Flows.
    pub flows: usize,
    /// UDP ports of the host that flows of the namespace take; as many identifiers of echo.
    pub ports: usize,
    /// The largest send buffer that a TCP socket can be given, in octets of kernel memory.
    pub send_buffer: u32,
}

/// The source port of a flow of the namespace at `end`.
pub(super) fn source_of(end: SocketAddr) -> Source {
    (Family::of(end.ip()), end.port())
}

/// The parts, each of which owns its state.
#[derive(Debug)]
pub(super) struct Parts<S: Sockets> {
    pub(super) link: Link<S::Tap>,
    pub(super) flows: Flows<S>,
    pub(super) nat: Nat,
    pub(super) ports: Ports<S::Socket>,
    pub(super) counters: Counters,
    pub(super) log: Log,
    pub(super) sockets: S,
    pub(super) limits: Limits,
    pub(super) scratch: Vec<u8>,
    pub(super) leaving: Leaving,
    pub(super) openings: Openings,
}

impl<S: Sockets> Parts<S> {
    /// Hands an event to a flow and settles what comes of it.
    #[inline]
    pub(super) fn drive(&mut self, now: Instant, id: FlowId, event: FlowEvent<'_, S::Socket>) {
        let facts = self.run(now, id, Cause::Event, event);
        if facts.socket_wanted {
            self.provide_socket(now, id, facts);
        }
    }

    #[inline]
    pub(super) fn run(
        &mut self,
        now: Instant,
        id: FlowId,
        cause: Cause,
        event: FlowEvent<'_, S::Socket>,
    ) -> Facts {
        let Self { link, flows, nat, ports, counters, sockets, scratch, limits, openings, .. } =
            self;
        let flow_fds = flows.held();
        let Flows { table, schedule, credit, pipes, .. } = flows;
        let Some(entry) = table.get_mut(id) else { return Facts::default() };
        let Entry { flow, scheduled, opened } = entry;
        let age = now.since(*opened);
        let carries = match event {
            FlowEvent::Payloads(payloads) => !payloads.is_empty(),
            FlowEvent::Datagrams(..) | FlowEvent::Arrived(..) => true,
            // Of a splice, what comes from either end.
            FlowEvent::Socket(..) => matches!(flow, Flow::Splice(_)),
            _ => false,
        };
        if let Flow::Splice(_) = flow {
            pipes.set_fd_budget(limits.fd_budget.left(flow_fds + ports.held()));
        }
        // What is sent while others wait for their turn counts.
        let counts = cause == Cause::Event && schedule.queued() > 0;
        let quantum = schedule.quantum(scheduled, cause);
        let mtu = link.mtu;
        let mut cx = Context {
            now,
            id,
            quantum,
            sockets,
            tap: link.writer(counters),
            mtu,
            nat,
            listeners: &ports.listeners,
            pipes,
            credit,
            scratch,
        };
        let frames = cx.tap.counters.to_tap;
        let outcome = flow.on_event(&mut cx, event);
        let answers = matches!(flow, Flow::Datagram(_)) && cx.tap.counters.to_tap != frames;
        if carries || outcome.sent > 0 || answers {
            openings.note_work(now, age);
        }
        let used = match flow {
            Flow::Tcp(_) if outcome.facts.retransmitted => Some(Use::Retransmitted),
            Flow::Tcp(_) => (outcome.sent > 0).then_some(Use::Sent),
            Flow::Datagram(flow) => {
                (counters.to_tap != frames).then_some(match flow.is_outbound() {
                    true => Use::Reply,
                    false => Use::Sent,
                })
            }
            Flow::Splice(_) => None,
        };
        if let (Some(used), Some(path)) = (used, flow.path_mut()) {
            let (address, mac) = (path.destination().ip(), path.mac());
            link.neighbours.reachability.used(now, address, mac, used);
        }
        if counts && quantum > 0 {
            schedule.count(scheduled, outcome.sent);
        }
        self.settle(id, outcome)
    }

    /// Does what follows from a flow's outcome: run queue, timer, another resolver, removal.
    #[inline]
    pub(super) fn settle(&mut self, id: FlowId, outcome: Outcome) -> Facts {
        let Flows { table, schedule, credit, .. } = &mut self.flows;
        let Some(Entry { flow, scheduled, .. }) = table.get_mut(id) else {
            return Facts::default();
        };
        if outcome.facts.target_failed {
            if let Some((remote, asked)) = flow.resolver(&self.nat) {
                self.nat.resolver_failed(remote, asked);
            }
        }
        if outcome.facts.answered {
            if let Flow::Datagram(flow) = flow {
                flow.remote().into_iter().for_each(|remote| self.nat.answered(remote));
            }
        }
        match outcome.next {
            Next::Wait | Next::More => {
                schedule.settle(id, scheduled, &outcome, credit);
                let group = flow.group();
                table.set_group(id, group);
                outcome.facts
            }
            Next::Over | Next::Reset => {
                self.remove(id);
                Facts::default()
            }
        }
    }

    pub(super) fn remove(&mut self, id: FlowId) {
        let Some(Flow::Datagram(flow)) = self.flows.remove(id) else { return };
        if let Some(listener) = flow.listener() {
            self.ports.arrivals.remove(&listener);
        }
        if let Some(source) = flow.opened_from() {
            self.ports.mappings.forget_single(source_of(source), id);
        }
        if let Some(ListenerEnd { id, addresses }) = flow.mapping() {
            self.ports.mappings.forget_shared(id, addresses.peer);
            self.ports.listeners.give_back(id);
        }
    }

    /// Gives a flow the socket of the namespace that its `facts` ask for, at once or when there is one.
    pub(super) fn provide_socket(&mut self, now: Instant, id: FlowId, mut facts: Facts) {
        while facts.socket_wanted {
            let Some(entry) = self.flows.table.get_mut(id) else { return };
            let transport = match entry.flow {
                Flow::Datagram(_) => Transport::Udp,
                Flow::Tcp(_) | Flow::Splice(_) => Transport::Tcp,
            };
            let Some(destination) = entry.flow.destination() else { return };
            match self.ports.requests.take(kind_for(destination, transport), id) {
                Ok(Some(socket)) => {
                    let target = FlowEvent::Target(TargetSocket::Namespace(socket));
                    facts = self.run(now, id, Cause::Event, target);
                }
                Ok(None) => return,
                Err(_) => return self.end_waiting(now, id),
            }
        }
    }

    /// Ends a flow for which there is no socket.
    pub(super) fn end_waiting(&mut self, now: Instant, id: FlowId) {
        self.counters.drop(DropReason::NoSocket);
        self.drive(now, id, FlowEvent::Abort);
    }

    pub(super) fn insert(
        &mut self,
        now: Instant,
        key: Option<FlowKey>,
        flow: Flow<S>,
    ) -> Option<FlowId> {
        let id = self.flows.insert(now, key, flow)?;
        self.counters.flows += 1;
        if let Some(FlowKey { protocol, namespace, remote }) = key {
            let line = || format!("flow opened: {protocol:?} {namespace} -> {remote}");
            self.log.add(LogLevel::Debug, line);
        }
        Some(id)
    }

    /// Has a socket of the flow that is inserted next watched.
    pub(super) fn watch_next(
        &mut self,
        socket: &S::Socket,
        interest: Interest,
    ) -> Result<(), Errno> {
        let token = Token::Flow(self.flows.table.next_id(), Side::Initiating);
        self.sockets.watch(socket, token, interest)
    }

    pub(super) fn path(&self, mac: MacAddr, key: &FlowKey) -> Path {
        let protocol = match key.protocol {
            Protocol::Tcp => writer::TCP,
            Protocol::Udp => writer::UDP,
            Protocol::Echo => icmp_protocol(key.remote.ip()),
        };
        Path::new(self.link.our_mac, mac, protocol, key.remote, key.namespace)
    }

    /// Growing in time for the same endpoints (RFC 6528, section 3).
    pub(super) fn initial_sequence_number(&self, now: Instant, key: &FlowKey) -> Seq {
        // The clock ticks each 64 ns, so that it wraps in less than five minutes; the cast cuts.
        let clock = (now.as_nanos() >> 6) as u32;
        Seq::from(clock.wrapping_add(self.sockets.isn_offset(key)))
    }

    /// Notes that the namespace has opened a flow from `source`: so it has that address.
    pub(super) fn observe(&mut self, now: Instant, source: IpAddr, mac: MacAddr) {
        self.nat.observe(source);
        self.link.neighbours.reachability.learn(now, source, mac);
        if self.nat.namespace_address(Family::of(source)) == Some(source) {
            self.link.neighbours.set_namespace_mac(now, mac);
        }
    }

    /// Takes in that a frame has come from `address` at `mac`; gives whether one was awaited.
    #[inline]
    pub(super) fn answered(&mut self, now: Instant, address: IpAddr, mac: MacAddr) -> bool {
        let reachability = &mut self.link.neighbours.reachability;
        if !reachability.awaits() || !reachability.answered(now, address, mac) {
            return false;
        }
        if self.nat.namespace_address(Family::of(address)) == Some(address) {
            self.link.neighbours.set_namespace_mac(now, mac);
        }
        self.move_flows(now);
        true
    }

    /// Has flows go to where their addresses in the namespace are by now.
    pub(super) fn move_flows(&mut self, now: Instant) {
        while let Some((address, mac)) = self.link.neighbours.reachability.next_move(now) {
            for entry in self.flows.table.values_mut() {
                if let Some(path) = entry.flow.path_mut() {
                    if path.destination().ip() == address {
                        path.set_mac(mac);
                    }
                }
            }
        }
    }

    /// What opening a listener may use, beside the ports.
    pub(super) fn ports(
        &mut self,
        now: Instant,
    ) -> (&mut Ports<S::Socket>, port_forward::Context<'_, S>) {
        let Self { ports, sockets, log, limits, .. } = self;
        let fd_budget = limits.fd_budget;
        (ports, port_forward::Context { now, sockets, log, fd_budget })
    }

    /// Where a new flow of the namespace goes, if there may be one.
    pub(super) fn target(&mut self, now: Instant, key: &FlowKey) -> Result<Target, NoSocket> {
        if !self.has_capacity(now, Opener::Namespace, 1) {
            self.log.exhausted(now, NO_MORE, &"there are as many as descriptors allow");
            return Err(NoSocket::Exhausted);
        }
        let target = self.nat.outbound(key.protocol, key.remote)?;
        Ok(self.with_source(key, target))
    }

    /// `target`, left by the address that the program of the namespace has picked among several, where the host has
    /// it and nothing else was asked for.
    pub(super) fn with_source(&mut self, key: &FlowKey, target: Target) -> Target {
        let (source, unchanged) = (key.namespace.ip(), target.address.ip() == key.remote.ip());
        let asked_for = self.nat.outbound(key.protocol, key.remote);
        let is_free = asked_for.is_ok_and(|target| target.source.is_none());
        if !unchanged || !is_free || !self.nat.is_chosen(source) {
            return target;
        }
        let source = Some(source).filter(|source| self.sockets.has_address(*source));
        Target { source, ..target }
    }

    /// Opens a socket to `target`, whose first packet is handled so if it is one of TCP; another flow may have to go
    /// for it.
    pub(super) fn connect(
        &mut self,
        now: Instant,
        key: &FlowKey,
        (target, handling): (&Target, Handling),
        port: Option<u16>,
    ) -> Result<Connecting<S::Socket>, NoSocket> {
        let takes = match key.protocol {
            Protocol::Tcp => Takes::Nothing,
            Protocol::Udp => Takes::Port,
            Protocol::Echo => Takes::Identifier,
        };
        if takes != Takes::Nothing && !self.has_port(now, takes) {
            self.log.exhausted(now, NO_MORE, &NO_PORT);
            return Err(NoSocket::Exhausted);
        }
        let mut opened = self.sockets.open(key.protocol, target, port, handling);
        if matches!(opened, Err(Errno::EMFILE | Errno::ENFILE))
            && (self.give_up_stock(1) || self.evict(now, Opener::Namespace))
        {
            opened = self.sockets.open(key.protocol, target, port, handling);
        }
        if key.protocol != Protocol::Tcp {
            opened = opened.and_then(|connecting| {
                let early = connecting.socket.discard_early()?;
                (0..early).for_each(|_| self.counters.drop(DropReason::NoFlow));
                Ok(connecting)
            });
        }
        opened.map_err(|errno| {
            if key.protocol == Protocol::Echo && errno == Errno::EACCES && !self.may_ping(key) {
                self.log.no_ping();
            }
            let why = NoSocket::from(errno);
            match why {
                NoSocket::Exhausted => self.log.exhausted(now, NO_MORE, &errno),
                _ => self.nat.resolver_failed(key.remote, target.address.ip()),
            }
            why
        })
    }

    /// Whether we may have a ping socket at all, of the family of `key`: a route may forbid what it leads to, too.
    fn may_ping(&mut self, key: &FlowKey) -> bool {
        let localhost = match key.remote {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
        };
        let address = SocketAddr::new(localhost, 0);
        let target = Target { address, source: None, interface: None };
        let opened = self.sockets.open(Protocol::Echo, &target, None, Handling::DEFAULT);
        !matches!(opened, Err(Errno::EACCES))
    }

    /// The key of a flow into the namespace. Where the source is of our making and its port is taken by
    /// another flow, another port does as well.
    pub(super) fn free_key(
        &self,
        protocol: Protocol,
        source: SocketAddr,
        translated: bool,
        destination: SocketAddr,
    ) -> Option<FlowKey> {
        let key = |port| {
            let remote = SocketAddr::new(source.ip(), port);
            FlowKey { protocol, namespace: destination, remote }
        };
        let is_free = |key: &FlowKey| self.flows.table.find(key).is_none();
        let wanted = key(source.port());
        if !translated || is_free(&wanted) {
            return Some(wanted);
        }
        let others = (1..=PORTS_TRIED).map(|n| source.port().wrapping_add(n)).filter(|it| *it != 0);
        others.map(key).find(is_free)
    }
}
