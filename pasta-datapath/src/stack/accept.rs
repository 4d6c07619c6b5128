//! What comes to listeners: connections and datagrams, each listener in its turn, and the flows that begin so.

use super::new_flows::NEW_A_TURN;
use super::parts::{NO_MORE, NO_PORT, Parts};
use crate::counters::DropReason;
use crate::flow::datagram::batch::ReadBatch;
use crate::flow::datagram::errors::ERRORS_A_TURN;
use crate::flow::datagram::local::{LocalEnd, Place};
use crate::flow::datagram::{DatagramFlow, ListenerEnd, MAX_GROUP, ReadDatagrams};
use crate::flow::evict::{Opener, Takes};
use crate::flow::splice::{SpliceFlow, StreamSocket};
use crate::flow::tcp::connection::Connection;
use crate::flow::tcp::flow::TcpFlow;
use crate::flow::tcp::relay::HostSocket;
use crate::flow::{Flow, FlowEvent, FlowId, FlowKey, TargetSocket};
use crate::nat::inbound::{Delivery, InboundFlow, is_possible, other_localhost};
use crate::nat::{Protocol, Target};
use crate::port_forward::Ports;
use crate::port_forward::listeners::{DatagramAddresses, Fate, ListenSocket, ListenerId, Role};
use crate::port_forward::rules::ForwardTarget;
use crate::sockets::{Interest, Sockets};
use crate::time::Instant;
use crate::wire::ip::Handling;
use nix::errno::Errno;
use nix::libc;
use pasta_ipc::port_forward::Direction;
use pasta_ipc::types::Transport;
use std::io;
use std::net::SocketAddr;

/// Listeners that hand on in a turn; the others wait, so that the tap does not. Chosen.
const LISTENERS_A_TURN: usize = 8;

/// Datagrams that one listener hands on in a turn; chosen: as many as one call can stand for.
const DATAGRAMS_A_TURN: usize = MAX_GROUP;

/// What came to a listener could not be opened; why is counted.
#[derive(Clone, Copy, Debug)]
struct NotOpened;

/// Takes what has come to listeners.
pub(super) struct Acceptor<'a, S: Sockets> {
    parts: &'a mut Parts<S>,
    now: Instant,
}

impl<'a, S: Sockets> Acceptor<'a, S> {
    pub(super) fn new(parts: &'a mut Parts<S>, now: Instant) -> Self {
        Self { parts, now }
    }

    /// Hands on what has come to listeners, up to a bound in a turn.
    pub(super) fn serve(&mut self) {
        let (ports, mut cx) = self.parts.ports(self.now);
        ports.tick(&mut cx);
        if let Some(id) = self.parts.ports.turns.next_erroneous() {
            self.take_errors(id);
        }
        let mut new = 0;
        for _ in 0..LISTENERS_A_TURN {
            if new >= NEW_A_TURN {
                return;
            }
            let Some(id) = self.parts.ports.turns.next_ready() else { return };
            let Some(listener) = self.parts.ports.listeners.get(id) else { continue };
            let more = match listener.spec.transport() {
                Transport::Tcp => {
                    let more = self.accept(id);
                    new += usize::from(more);
                    more
                }
                Transport::Udp => self.receive(id),
            };
            if more {
                self.parts.ports.turns.make_ready(id);
            }
        }
    }

    /// Accepts a connection; whether there may be more.
    fn accept(&mut self, id: ListenerId) -> bool {
        if self.parts.ports.requests.pool.is_full(Transport::Tcp) {
            self.parts.ports.turns.starve(self.now, id);
            return false;
        }
        let Some(listener) = self.parts.ports.listeners.get(id) else { return false };
        let opener = opener_of(listener.spec.direction());
        let has_capacity = self.parts.has_capacity(self.now, opener, 2);
        let Some(listener) = self.parts.ports.listeners.socket(id) else { return false };
        let accepted = if has_capacity {
            listener.accept()
        } else {
            Err(io::Error::from_raw_os_error(libc::EMFILE))
        };
        match accepted {
            Ok((socket, peer)) => {
                let fate = match self.accepted(id, socket, peer) {
                    Ok(()) => Fate::Accepted,
                    Err(NotOpened) => Fate::Failed,
                };
                self.parts.ports.listeners.count(id, fate);
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return false,
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    let what = "connections wait to be accepted, no descriptor can be had";
                    self.parts.log.exhausted(self.now, what, &error);
                    self.parts.ports.turns.starve(self.now, id);
                    return false;
                }
                // It does not listen (any more), and never will.
                Some(libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EOPNOTSUPP) => {
                    let Parts { ports, log, .. } = &mut *self.parts;
                    ports.give_up(log, id, &error);
                    return false;
                }
                // Connections that have ended already report their own errors (accept(2)).
                _ => {}
            },
        }
        true
    }

    fn accepted(
        &mut self,
        id: ListenerId,
        socket: S::Socket,
        peer: SocketAddr,
    ) -> Result<(), NotOpened> {
        let listener = self.parts.ports.listeners.get(id).ok_or(NotOpened)?;
        let (direction, forward_target) = (listener.spec.direction(), listener.target);
        // Asked only where it matters: it is a call for each connection.
        let local = match (direction, peer.ip().to_canonical().is_loopback()) {
            (_, true) => StreamSocket::local_address(&socket)
                .map(|local| local.ip())
                .filter(|local| is_possible(peer.ip(), *local)),
            (Direction::Inbound, false) => Some(peer.ip()),
            (Direction::Outbound, false) => None,
        };
        let Some(local) = local else {
            StreamSocket::reset_on_close(&socket);
            return Err(NotOpened);
        };
        match direction {
            Direction::Outbound => {
                let local = local.to_canonical();
                if !local.is_loopback() {
                    StreamSocket::reset_on_close(&socket);
                    return Err(NotOpened);
                }
                self.splice_to_host(socket, SocketAddr::new(local, forward_target.port))
            }
            Direction::Inbound => {
                let (transport, ForwardTarget { target, port, .. }) =
                    (Transport::Tcp, forward_target);
                let arrival = InboundFlow { transport, peer, local, target, port };
                match self.parts.nat.inbound(self.parts.ports.local(), &arrival) {
                    Ok(Delivery::Tap { source, translated, destination }) => {
                        self.open_tcp(socket, (source, translated), destination)
                    }
                    Ok(Delivery::Splice { destination, otherwise }) => {
                        let flow = SpliceFlow::new(socket, destination, otherwise);
                        self.open_splice(flow, FlowEvent::Opened)
                    }
                    Err(_) => self.refuse(&socket, DropReason::NoAddress),
                }
            }
        }
    }

    /// Closes a connection with a reset: its peer learns at once that it leads nowhere.
    fn refuse(&mut self, socket: &S::Socket, reason: DropReason) -> Result<(), NotOpened> {
        StreamSocket::reset_on_close(socket);
        self.not_opened(reason)
    }

    fn not_opened(&mut self, reason: DropReason) -> Result<(), NotOpened> {
        self.parts.counters.drop(reason);
        Err(NotOpened)
    }

    /// Opens a connection to the namespace for an accepted one.
    fn open_tcp(
        &mut self,
        socket: S::Socket,
        (source, translated): (SocketAddr, bool),
        destination: SocketAddr,
    ) -> Result<(), NotOpened> {
        let Some(key) = self.parts.free_key(Protocol::Tcp, source, translated, destination) else {
            return self.refuse(&socket, DropReason::NoSocket);
        };
        if let Some(old) = self.parts.flows.table.find(&key) {
            // From one port to two of ours that lead to the same: in the namespace they would be one.
            if self.is_elsewhere(old, &socket) {
                return self.refuse(&socket, DropReason::NoSocket);
            }
            // The same peer has come again: it knows nothing of the connection that was there.
            self.parts.drive(self.now, old, FlowEvent::Abort);
        }
        if self.parts.watch_next(&socket, Interest::Stream).is_err() {
            return self.refuse(&socket, DropReason::NoSocket);
        }
        let Self { parts, now } = self;
        let iss = parts.initial_sequence_number(*now, &key);
        let our_mss = parts.link.mss(key.namespace.ip());
        let connection = Connection::to_namespace(*now, iss, our_mss);
        let socket = parts.sockets.tcp(socket, key.namespace);
        let mac = parts.link.neighbours.namespace_mac(key.namespace.ip());
        let path = parts.path(mac, &key);
        let mut flow = TcpFlow::new(connection, socket, path, (None, 0));
        flow.connected();
        match parts.insert(*now, Some(key), Flow::Tcp(Box::new(flow))) {
            Some(id) => {
                parts.drive(*now, id, FlowEvent::Opened);
                Ok(())
            }
            None => self.not_opened(DropReason::TableFull),
        }
    }

    /// Whether the TCP flow `id` came in at another address or port of the host than `socket`.
    fn is_elsewhere(&mut self, id: FlowId, socket: &S::Socket) -> bool {
        let entry = self.parts.flows.table.get_mut(id);
        let Some(Flow::Tcp(flow)) = entry.map(|entry| &entry.flow) else { return false };
        match (flow.socket().local_address(), StreamSocket::local_address(socket)) {
            (Some(old), Some(new)) => old != new && flow.is_inbound(),
            _ => false,
        }
    }

    /// Joins a connection that was accepted inside the namespace to a service of the host's loopback.
    fn splice_to_host(
        &mut self,
        socket: S::Socket,
        destination: SocketAddr,
    ) -> Result<(), NotOpened> {
        let target = Target { address: destination, source: None, interface: None };
        match self.parts.sockets.open(Protocol::Tcp, &target, None, Handling::DEFAULT) {
            Ok(connecting) => {
                let flow = SpliceFlow::new(socket, destination, None).of_namespace();
                self.open_splice(flow, FlowEvent::Target(TargetSocket::Host(connecting)))
            }
            Err(_) => self.refuse(&socket, DropReason::Unreachable),
        }
    }

    fn open_splice(
        &mut self,
        flow: SpliceFlow<S::Socket, S::Pipe>,
        first: FlowEvent<'_, S::Socket>,
    ) -> Result<(), NotOpened> {
        let watched = self.parts.watch_next(flow.initiating(), Interest::Stream);
        let Some(id) = self.parts.insert(self.now, None, Flow::Splice(Box::new(flow))) else {
            return self.not_opened(DropReason::TableFull);
        };
        let event = if watched.is_ok() { first } else { FlowEvent::Abort };
        self.parts.drive(self.now, id, event);
        Ok(())
    }

    /// Hands on datagrams of a listener; whether there may be more.
    fn receive(&mut self, id: ListenerId) -> bool {
        let mut scratch = std::mem::take(&mut self.parts.scratch);
        let mut more = true;
        // What is there already and of one peer goes on in one call; nothing waits for more.
        let mut batch = ReadBatch::new(usize::MAX);
        for _ in 0..DATAGRAMS_A_TURN {
            let Some(listener) = self.parts.ports.listeners.socket(id) else { break };
            match listener.receive_from(batch.free(&mut scratch)) {
                Ok((read, addresses)) => {
                    self.parts.counters.datagrams_in += 1;
                    batch.add(addresses, read, &mut scratch, |addresses, read, octets| {
                        self.arrived(ListenerEnd { id, addresses }, read, octets);
                    });
                }
                Err(Errno::EAGAIN) => {
                    more = false;
                    break;
                }
                // An error that was queued for a datagram of ours; reading has cleared it, and the queue says whose.
                Err(_) => {}
            }
        }
        batch.flush(&scratch, |addresses: DatagramAddresses, read, octets| {
            self.arrived(ListenerEnd { id, addresses }, read, octets);
        });
        self.parts.scratch = scratch;
        more
    }

    fn arrived(&mut self, listener: ListenerEnd, read: ReadDatagrams, octets: &[u8]) {
        let DatagramAddresses { peer, local } = listener.addresses;
        if !is_possible(peer.ip(), local) {
            self.parts.counters.drop(DropReason::ImpossibleSource);
            return;
        }
        let Ports { arrivals, mappings, .. } = &self.parts.ports;
        let begun_here = arrivals.get(&listener).copied();
        let known = begun_here.or_else(|| mappings.shared(listener.id, listener.addresses.peer));
        let id = known.map_or_else(
            || {
                let opened = self.open_datagram(listener);
                let fate = if opened.is_ok() { Fate::Accepted } else { Fate::Failed };
                self.parts.ports.listeners.count(listener.id, fate);
                opened
            },
            Ok,
        );
        match id {
            Ok(id) => {
                self.parts.flows.table.touch(self.now, id);
                self.parts.drive(self.now, id, FlowEvent::Arrived(read, octets));
            }
            Err(reason) => self.parts.counters.drop(reason),
        }
    }

    /// Hands errors that came back for datagrams of a listener to the flows that have sent these.
    pub(super) fn take_errors(&mut self, id: ListenerId) {
        for _ in 0..ERRORS_A_TURN {
            let Some(socket) = self.parts.ports.listeners.socket(id) else { return };
            let Some((error, to)) = socket.take_error_of() else { return };
            let Some(peer) = to else { continue };
            let opened = self.parts.ports.mappings.shared(id, peer);
            if let Some(flow) = opened.or_else(|| self.begun_by(id, peer)) {
                self.parts.drive(self.now, flow, FlowEvent::Error(&error));
            }
        }
        self.parts.ports.turns.leave_errors(id);
    }

    /// The flow with frames that `peer` has begun at the listener `id`.
    fn begun_by(&mut self, id: ListenerId, peer: SocketAddr) -> Option<FlowId> {
        let Parts { ports, nat, flows, .. } = &mut *self.parts;
        let ForwardTarget { target, port, .. } = ports.listeners.get(id)?.target;
        // To which address it came matters only for those that have no frames.
        let (transport, local) = (Transport::Udp, peer.ip());
        let arrival = InboundFlow { transport, peer, local, target, port };
        let Ok(Delivery::Tap { source, destination, .. }) = nat.inbound(ports.local(), &arrival)
        else {
            return None;
        };
        let key = FlowKey { protocol: Protocol::Udp, namespace: destination, remote: source };
        let (flow_id, entry) = flows.table.look_up(&key, None)?;
        let Flow::Datagram(flow) = &entry.flow else { return None };
        let end = flow.listener()?;
        (end.id == id && end.addresses.peer == peer).then_some(flow_id)
    }

    /// Opens a flow for a listener's first datagram of a peer.
    fn open_datagram(&mut self, listener: ListenerEnd) -> Result<FlowId, DropReason> {
        let Self { parts, now } = self;
        let now = *now;
        // Nobody is served here but those that the namespace has sent something to.
        if parts.ports.listeners.get(listener.id).is_some_and(|it| it.role == Role::Mapping) {
            return Err(DropReason::NoFlow);
        }
        let at = parts.ports.listeners.get(listener.id).ok_or(DropReason::NoFlow)?;
        let (direction, ForwardTarget { target, port, .. }) = (at.spec.direction(), at.target);
        // Anybody can send datagrams under any name: they take half of the table at most.
        let many = parts.ports.arrivals.len() >= parts.flows.table.limit() / 2;
        let opener = opener_of(direction);
        let has_capacity =
            if many { parts.evict(now, opener) } else { parts.has_capacity(now, opener, 1) };
        if !has_capacity {
            return Err(DropReason::TableFull);
        }
        if direction == Direction::Outbound && !parts.has_port(now, Takes::Port) {
            parts.log.exhausted(now, NO_MORE, &NO_PORT);
            return Err(DropReason::NoSocket);
        }
        let DatagramAddresses { peer, local } = listener.addresses;
        let way = match direction {
            Direction::Inbound => {
                let arrival = InboundFlow { transport: Transport::Udp, peer, local, target, port };
                let way = parts.nat.inbound(parts.ports.local(), &arrival);
                way.map_err(|_| DropReason::NoAddress)?
            }
            Direction::Outbound => {
                let (peer, local) = (peer.ip().to_canonical(), local.to_canonical());
                if !peer.is_loopback() || !local.is_loopback() {
                    return Err(DropReason::ImpossibleSource);
                }
                let at = |address| SocketAddr::new(address, port);
                let otherwise = other_localhost(&parts.nat, local).map(at);
                Delivery::Splice { destination: at(local), otherwise }
            }
        };
        let (key, flow) = match way {
            Delivery::Splice { destination, otherwise } => {
                let place = match direction {
                    Direction::Inbound => Place::Namespace,
                    Direction::Outbound => Place::Host,
                };
                let end = LocalEnd::new(place, destination, otherwise, peer.port());
                (None, DatagramFlow::local(now, listener, end))
            }
            Delivery::Tap { source, translated, destination } => {
                let key = parts.free_key(Protocol::Udp, source, translated, destination);
                let key = key.ok_or(DropReason::NoSocket)?;
                if let Some((old, entry)) = parts.flows.table.look_up(&key, None) {
                    // The namespace has opened this very flow.
                    if matches!(&entry.flow, Flow::Datagram(flow) if flow.is_outbound()) {
                        return Ok(old);
                    }
                    parts.remove(old);
                }
                let mac = parts.link.neighbours.namespace_mac(key.namespace.ip());
                let path = parts.path(mac, &key);
                (Some(key), DatagramFlow::inbound(now, listener, path))
            }
        };
        let inserted = parts.insert(now, key, Flow::Datagram(Box::new(flow)));
        let id = inserted.ok_or(DropReason::TableFull)?;
        parts.ports.arrivals.insert(listener, id);
        parts.drive(now, id, FlowEvent::Opened);
        // One that waits for a socket of the namespace in vain is counted where it gives up.
        match direction {
            Direction::Outbound if parts.flows.table.get_mut(id).is_none() => {
                Err(DropReason::NoSocket)
            }
            _ => Ok(id),
        }
    }
}

/// The side that opens what comes to a listener.
fn opener_of(direction: Direction) -> Opener {
    match direction {
        Direction::Inbound => Opener::Host,
        Direction::Outbound => Opener::Namespace,
    }
}
