//! Listeners and what comes to them: opened and closed by difference, accepted from in turns.

use super::token::Token;
use super::{Engine, Flow, Kind};
use crate::counters::DropReason;
use crate::flow::tcp::connection::Connection;
use crate::flow::udp::Datagram;
use crate::flow::udp::coalesce::{Coalesced, write_to_tap};
use crate::flow::udp::forwarded::ForwardedFlow;
use crate::flow::{FlowId, FlowKey};
use crate::link::writer::{self, Path};
use crate::nat::Protocol;
use crate::nat::inbound::{Delivery, InboundFlow};
use crate::port_forward::listeners::{ListenerId, ListenerSpec};
use crate::port_forward::rules::ForwardTarget;
use crate::sys;
use crate::sys::listen_socket;
use crate::sys::pktinfo::{DatagramAddresses, receive_from};
use crate::sys::socket::{ReadDatagrams, TcpSocket};
use crate::time::Instant;
use nix::errno::Errno;
use pasta_ipc::forward::{
    Direction, Effort, ForwardTable, ListenerAddress, PortSide, PortSnapshot, Transport,
};
use pasta_ipc::types::{LogLevel, MacAddr};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Connections that one listener hands on in a turn before others go first; chosen.
const SHARE: usize = 32;

/// Listeners that hand on in a turn; the others wait, so that the tap does not. Chosen.
const LISTENERS_A_TURN: usize = 8;

/// Datagrams that one listener hands on in a turn; chosen: as many as one call can stand for.
const DATAGRAMS: usize = crate::flow::udp::MAX_GROUP;

/// How long listeners wait for descriptors before they are looked at again; chosen: a storm of
/// connections that cannot be accepted then costs ten looks a second.
const STARVED_FOR: Duration = Duration::from_millis(100);

/// Other source ports that are tried where ours is taken by another flow; chosen.
const PORTS_TRIED: u16 = 64;

impl Engine {
    pub(super) fn rules_changed(&mut self, table: &ForwardTable) {
        self.ports.rules.update(table);
        self.reconcile(table.direction);
    }

    pub(super) fn ports_changed(&mut self, snapshot: PortSnapshot) {
        let direction = match snapshot.side {
            PortSide::Namespace => Direction::Inbound,
            PortSide::Host => Direction::Outbound,
        };
        self.ports.rules.update_ports(snapshot);
        self.reconcile(direction);
    }

    /// Takes over listeners that the launcher has bound.
    pub(super) fn listeners_came(&mut self, listeners: Vec<(ListenerAddress, OwnedFd)>) {
        for (at, socket) in listeners {
            self.ports.listeners.hand_over(at, socket);
        }
    }

    /// Closes the listeners that nobody wants and opens those that are missing.
    fn reconcile(&mut self, direction: Direction) {
        let ports = &mut self.ports;
        let (rules, listeners) = (&ports.rules, &mut ports.listeners);
        let wanted: BTreeMap<ListenerSpec, ForwardTarget> = match direction {
            Direction::Inbound => {
                let wanted = rules.on_host(listeners.ours(Direction::Outbound));
                wanted
                    .into_iter()
                    .map(|(at, forward_target)| (ListenerSpec::Host(at), forward_target))
                    .collect()
            }
            Direction::Outbound => {
                let wanted = rules.in_namespace(ports.families, listeners.ours(Direction::Inbound));
                wanted
                    .into_iter()
                    .map(|(at, forward_target)| (ListenerSpec::Namespace(at), forward_target))
                    .collect()
            }
        };
        ports.refused.retain(|spec, _| spec.direction() != direction || wanted.contains_key(spec));
        if direction == Direction::Outbound {
            // What comes for those that nobody wants any more is closed as it comes.
            ports.asked.retain(|at, _| wanted.contains_key(&ListenerSpec::Namespace(*at)));
        }
        let difference = listeners.compare(direction, wanted);
        for id in difference.surplus {
            self.close(id);
        }
        let mut counts = Counts::default();
        if direction == Direction::Outbound {
            self.ports.to_ask.clear();
        }
        for (spec, forward_target) in difference.missing {
            match &spec {
                ListenerSpec::Host(at) => {
                    let opened = self
                        .open_on_host(at)
                        .and_then(|it| self.listen(spec.clone(), forward_target, it));
                    counts.add(forward_target.effort, opened);
                    self.note(spec, forward_target, opened);
                }
                ListenerSpec::Namespace(at) => {
                    if let Some(asked) = self.ports.asked.get_mut(at) {
                        *asked = forward_target;
                    } else if self.fd_budget.allows_listener(self.ports.listener_count()) {
                        self.ports.to_ask.push_back((*at, forward_target));
                    } else {
                        counts.add(forward_target.effort, Err(Errno::EMFILE));
                        self.note(spec, forward_target, Err(Errno::EMFILE));
                    }
                }
            }
        }
        self.say_counts(direction, &counts);
        self.ask();
        self.look_at_interfaces(self.now());
    }

    /// Says what became of ports of rules that are followed as far as possible, unless that was said last.
    fn say_counts(&mut self, direction: Direction, counts: &Counts) {
        let [inbound, outbound] = &mut self.ports.said;
        let (side, said) = match direction {
            Direction::Inbound => ("host", inbound),
            Direction::Outbound => ("namespace", outbound),
        };
        if let Some((level, line)) = counts.line(side)
            && *said != line
        {
            said.clone_from(&line);
            self.supervisor.log(level, || line);
        }
    }

    fn open_on_host(&mut self, at: &ListenerAddress) -> Result<OwnedFd, Errno> {
        if let Some(socket) = self.ports.listeners.take_spare(at) {
            return Ok(socket);
        }
        if !self.fd_budget.allows_listener(self.ports.listener_count()) {
            return Err(Errno::EMFILE);
        }
        at.open(self.ports.families)
    }

    /// Makes a socket that is bound a listener of ours.
    pub(super) fn listen(
        &mut self,
        spec: ListenerSpec,
        forward_target: ForwardTarget,
        socket: OwnedFd,
    ) -> Result<(), Errno> {
        listen_socket::prepare(&socket, spec.transport())?;
        let token = Token::Listener(self.ports.listeners.next_id().index());
        let added = self.poller.add_reading(socket.as_fd(), token.into());
        added.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        self.supervisor.log(LogLevel::Debug, || format!("listening on {spec}"));
        self.ports.listeners.insert(spec, forward_target, socket);
        Ok(())
    }

    pub(super) fn close(&mut self, id: ListenerId) {
        if let Some(listener) = self.ports.listeners.remove(id) {
            self.supervisor
                .log(LogLevel::Debug, || format!("no longer listening on {}", listener.spec));
        }
    }

    /// Logs once for each listener why it cannot be opened; where ports are many, the summary does.
    pub(super) fn note(
        &mut self,
        spec: ListenerSpec,
        forward_target: ForwardTarget,
        opened: Result<(), Errno>,
    ) {
        let Err(errno) = opened else {
            self.ports.refused.remove(&spec);
            return;
        };
        let level = match forward_target.effort {
            Effort::Explicit => LogLevel::Warn,
            Effort::Auto => LogLevel::Info,
            Effort::BestEffort => LogLevel::Debug,
        };
        if self.ports.refused.get(&spec) != Some(&errno) {
            let reason = errno.desc();
            self.supervisor.log(level, || format!("cannot listen on {spec}: {reason}"));
            self.ports.refused.insert(spec, errno);
        }
    }

    /// Hands on what has come to listeners, each up to its bound in a turn.
    pub(super) fn serve_listeners(&mut self, now: Instant) {
        self.ports.try_starved_at(now);
        self.renew_on_interfaces(now);
        if self.ports.ask_again.is_some_and(|due| due <= now) {
            self.ports.ask_again = None;
            self.ask();
        }
        for _ in 0..LISTENERS_A_TURN {
            let Some(id) = self.ports.next_ready() else { return };
            let Some(listener) = self.ports.listeners.get(id) else { continue };
            let more = match listener.spec.transport() {
                Transport::Tcp => self.accept(now, id),
                Transport::Udp => self.receive(now, id),
            };
            if more {
                self.ports.make_ready(id);
            }
        }
    }

    /// Accepts connections; whether there may be more.
    fn accept(&mut self, now: Instant, id: ListenerId) -> bool {
        for _ in 0..SHARE {
            if self.ports.pool.is_full(Transport::Tcp) {
                self.ports.starve(now + STARVED_FOR, id);
                return false;
            }
            let full = self.lacks_capacity(2) && !self.evict(now);
            let Some(listener) = self.ports.listener(id) else { return false };
            let accepted = if full {
                Err(io::Error::from_raw_os_error(libc::EMFILE))
            } else {
                sys::accept(listener)
            };
            match accepted {
                Ok((socket, peer)) => self.accepted(now, id, socket, peer),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return false,
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        self.starve(now, id, &error);
                        return false;
                    }
                    // It does not listen (any more), and never will.
                    Some(libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EOPNOTSUPP) => {
                        self.give_up_listener(id, &error);
                        return false;
                    }
                    // Connections that have ended already report their own errors (accept(2)).
                    _ => {}
                },
            }
        }
        true
    }

    fn give_up_listener(&mut self, id: ListenerId, error: &io::Error) {
        if let Some(listener) = self.ports.listeners.remove(id) {
            let spec = listener.spec;
            let line = || format!("no longer listening on {spec}: {error}");
            self.supervisor.log(LogLevel::Warn, line);
        }
    }

    /// What waits in the listener goes on waiting there: nothing is lost, and nothing spins.
    fn starve(&mut self, now: Instant, id: ListenerId, error: &io::Error) {
        self.log_exhausted(now, "connections wait to be accepted, no descriptor can be had", error);
        self.ports.starve(now + STARVED_FOR, id);
    }

    fn accepted(&mut self, now: Instant, id: ListenerId, socket: OwnedFd, peer: SocketAddr) {
        let Some(listener) = self.ports.listeners.get(id) else { return };
        let (direction, forward_target) = (listener.spec.direction(), listener.target);
        // Asked only where it matters: it is a call for each connection.
        let local = match (direction, peer.ip().to_canonical().is_loopback()) {
            (_, true) => sys::local_address(&socket).map(|local| local.ip()),
            (Direction::Inbound, false) => Ok(peer.ip()),
            (Direction::Outbound, false) => return reset(socket),
        };
        let Ok(local) = local else { return reset(socket) };
        match direction {
            Direction::Outbound => {
                let local = local.to_canonical();
                if !local.is_loopback() {
                    return reset(socket);
                }
                self.open_splice_to_host(now, socket, SocketAddr::new(local, forward_target.port));
            }
            Direction::Inbound => {
                let (transport, ForwardTarget { target, port, .. }) =
                    (Transport::Tcp, forward_target);
                let arrival = InboundFlow { transport, peer, local, target, port };
                match self.nat.inbound(self.ports.local, &arrival) {
                    Ok(Delivery::Tap { source, translated, destination }) => {
                        self.open_inbound_tcp(now, socket, (source, translated), destination);
                    }
                    Ok(Delivery::Splice { destination, otherwise }) => {
                        self.open_splice_to_namespace(now, socket, destination, otherwise);
                    }
                    Err(_) => {
                        self.counters.drop(DropReason::NoAddress);
                        reset(socket);
                    }
                }
            }
        }
    }

    /// Opens a connection to the namespace for an accepted one.
    fn open_inbound_tcp(
        &mut self,
        now: Instant,
        socket: OwnedFd,
        (source, translated): (SocketAddr, bool),
        destination: SocketAddr,
    ) {
        let Some(key) = self.free_key(Protocol::Tcp, source, translated, destination) else {
            self.counters.drop(DropReason::NoSocket);
            return reset(socket);
        };
        if let Some(old) = self.flows.find(&key) {
            // From one port to two of ours that lead to the same: in the namespace they would be one.
            if self.is_elsewhere(old, &socket) {
                self.counters.drop(DropReason::NoSocket);
                return reset(socket);
            }
            // The same peer has come again: it knows nothing of the connection that was there.
            self.break_off(now, old);
        }
        let iss = self.initial_sequence_number(now, &key);
        let connection = Connection::to_namespace(now, iss, self.our_mss(key.namespace));
        let mut flow =
            self.tcp_flow(connection, socket, self.neighbours.namespace_mac(), &key, None);
        flow.relay.connected();
        let token = Token::Flow(self.flows.next_id(), crate::flow::splice::Side::Initiating);
        if self.poller.add(flow.socket.as_fd(), token.into()).is_err() {
            self.counters.drop(DropReason::NoSocket);
            return flow.socket.reset_on_close();
        }
        match self.insert(now, key, Kind::Tcp(flow)) {
            Some(id) => self.run_tcp(now, id, &[]),
            None => self.counters.drop(DropReason::TableFull),
        }
    }

    /// Whether the TCP flow `id` came in at another address or port of the host than `socket`.
    fn is_elsewhere(&mut self, id: FlowId, socket: &OwnedFd) -> bool {
        let Some(Flow { kind: Kind::Tcp(flow), .. }) = self.flows.get_mut(id) else { return false };
        match (sys::local_address(flow.socket.as_fd()), sys::local_address(socket)) {
            (Ok(old), Ok(new)) => old != new && flow.syn.is_none(),
            _ => false,
        }
    }

    /// The key of a flow into the namespace. Where the source is of our making and its port is taken by
    /// another flow, another port does as well.
    fn free_key(
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
        let wanted = key(source.port());
        if !translated || self.flows.find(&wanted).is_none() {
            return Some(wanted);
        }
        let others = (1..=PORTS_TRIED).map(|n| source.port().wrapping_add(n)).filter(|it| *it != 0);
        others.map(key).find(|key| self.flows.find(key).is_none())
    }

    fn break_off(&mut self, now: Instant, id: FlowId) {
        match self.flows.get_mut(id) {
            Some(Flow { kind: Kind::Tcp(flow), .. }) => {
                flow.relay.abort();
                self.run_tcp(now, id, &[]);
            }
            _ => self.remove(id),
        }
    }

    /// Hands on datagrams of a listener; whether there may be more.
    fn receive(&mut self, now: Instant, id: ListenerId) -> bool {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut more = true;
        // What is there already and of one peer goes on in one call; nothing waits for more.
        let mut joined: Option<Coalesced<DatagramAddresses>> = None;
        for _ in 0..DATAGRAMS {
            let Some(listener) = self.ports.listener(id) else { break };
            let start = joined.map_or(0, |joined| joined.len());
            let free = scratch.get_mut(start..).unwrap_or_default();
            match receive_from(listener, free) {
                Ok((read, addresses)) => {
                    if joined.as_mut().is_some_and(|joined| joined.join(addresses, read)) {
                        continue;
                    }
                    self.hand_on(now, id, joined.take(), &scratch);
                    scratch.copy_within(start..start + read.len, 0);
                    joined = Coalesced::first(addresses, read);
                    if joined.is_none() {
                        let octets = scratch.get(..read.len).unwrap_or_default();
                        self.arrived(now, id, addresses, read, octets);
                    }
                }
                Err(Errno::EAGAIN) => {
                    more = false;
                    break;
                }
                // An error that was queued for a datagram of ours; reading has cleared it.
                Err(_) => {}
            }
        }
        self.hand_on(now, id, joined, &scratch);
        self.scratch = scratch;
        more
    }

    /// Hands on the datagrams at the front of `octets` that were joined.
    fn hand_on(
        &mut self,
        now: Instant,
        id: ListenerId,
        joined: Option<Coalesced<DatagramAddresses>>,
        octets: &[u8],
    ) {
        if let Some(joined) = joined {
            let front = octets.get(..joined.len()).unwrap_or_default();
            self.arrived(now, id, joined.of, joined.read(), front);
        }
    }

    fn arrived(
        &mut self,
        now: Instant,
        listener: ListenerId,
        addresses: DatagramAddresses,
        read: ReadDatagrams,
        octets: &[u8],
    ) {
        let known = self.ports.arrivals.get(&(listener, addresses)).copied();
        let id = match known {
            Some(id) => Ok(id),
            None => self.open_forwarded(now, listener, addresses),
        };
        if let Ok(id) = id {
            self.flows.touch(now, id);
        }
        let Self { link, counters, flows, mtu, .. } = self;
        let tap = &mut link.writer(counters);
        let deadline = match id {
            Err(reason) => return tap.counters.drop(reason),
            Ok(id) => match flows.get_mut(id).map(|flow| &mut flow.kind) {
                Some(Kind::Forwarded(flow)) => {
                    flow.arrived(now, tap, *mtu, read, octets);
                    flow.deadline()
                }
                // The namespace has opened this very flow.
                Some(Kind::Udp(flow)) => {
                    flow.received(now);
                    return write_to_tap(tap, flow.path(), *mtu, read, octets);
                }
                _ => return,
            },
        };
        if let (Ok(id), None) = (id, known) {
            self.arm(id, Some(deadline));
            self.give_datagram_socket(id);
        }
    }

    /// Opens a flow for a listener's first datagram of a peer.
    fn open_forwarded(
        &mut self,
        now: Instant,
        id: ListenerId,
        addresses: DatagramAddresses,
    ) -> Result<FlowId, DropReason> {
        // Anybody can send datagrams under any name: they take half of the table at most.
        let many = self.ports.arrivals.len() >= self.flows.limit() / 2;
        if (many || self.lacks_capacity(1)) && !self.evict(now) {
            return Err(DropReason::TableFull);
        }
        let listener = self.ports.listeners.get(id).ok_or(DropReason::NoFlow)?;
        let (direction, forward_target) = (listener.spec.direction(), listener.target);
        let (peer, local) = (addresses.peer, addresses.local);
        let way = match direction {
            Direction::Inbound => {
                let (transport, ForwardTarget { target, port, .. }) =
                    (Transport::Udp, forward_target);
                let arrival = InboundFlow { transport, peer, local, target, port };
                let way = self.nat.inbound(self.ports.local, &arrival);
                way.map_err(|_| DropReason::NoAddress)?
            }
            Direction::Outbound => {
                let (peer, local) = (peer.ip().to_canonical(), local.to_canonical());
                if !peer.is_loopback() || !local.is_loopback() {
                    return Err(DropReason::ImpossibleSource);
                }
                Delivery::Splice {
                    destination: SocketAddr::new(local, forward_target.port),
                    otherwise: None,
                }
            }
        };
        let flow_id = match way {
            Delivery::Splice { destination, .. } => {
                let flow = ForwardedFlow::to_socket(now, id, addresses, destination);
                let inserted = self.insert_nameless(now, Kind::Forwarded(Box::new(flow)));
                inserted.ok_or(DropReason::TableFull)?
            }
            Delivery::Tap { source, translated, destination } => {
                let key = self.free_key(Protocol::Udp, source, translated, destination);
                let key = key.ok_or(DropReason::NoSocket)?;
                match self.flows.find(&key) {
                    Some(old)
                        if matches!(
                            self.flows.get_mut(old),
                            Some(Flow { kind: Kind::Udp(_), .. })
                        ) =>
                    {
                        return Ok(old);
                    }
                    Some(old) => self.remove(old),
                    None => {}
                }
                let mac = self.neighbours.namespace_mac();
                let path =
                    Path::new(self.link.our_mac, mac, writer::UDP, key.remote, key.namespace);
                let flow = ForwardedFlow::to_tap(now, id, addresses, path, mac);
                let inserted = self.insert(now, key, Kind::Forwarded(Box::new(flow)));
                inserted.ok_or(DropReason::TableFull)?
            }
        };
        self.ports.arrivals.insert((id, addresses), flow_id);
        Ok(flow_id)
    }

    /// Sends what the namespace answered to a flow that began at a listener.
    pub(super) fn answer_forwarded(
        &mut self,
        now: Instant,
        id: FlowId,
        mac: MacAddr,
        group: &[(FlowId, MacAddr, Datagram<'_>)],
    ) {
        let Self { counters, flows, ports, .. } = self;
        let Some(Flow { kind: Kind::Forwarded(flow), .. }) = flows.get_mut(id) else { return };
        let Some(listener) = ports.listener(flow.listener()) else { return self.remove(id) };
        let empty = Datagram { payload: &[], segment_size: None };
        let mut datagrams = [empty; super::BATCH];
        datagrams.iter_mut().zip(group).for_each(|(slot, (_, _, datagram))| *slot = *datagram);
        let datagrams = datagrams.get(..group.len()).unwrap_or_default();
        flow.answer(now, mac, listener, datagrams, |reason| counters.drop(reason));
    }

    /// Notes that the namespace has opened a flow from `source`: so it has that address.
    pub(super) fn observe(&mut self, source: IpAddr, mac: MacAddr) {
        self.nat.observe(source);
        if self.nat.namespace_address(source.is_ipv4()) == Some(source) {
            self.neighbours.set_namespace_mac(mac);
        }
    }
}

/// Closes a connection with a reset: its peer learns at once that it leads nowhere.
pub(super) fn reset(socket: OwnedFd) {
    TcpSocket::new(socket, crate::sys::socket::PeekMethod::Discard).reset_on_close();
}

/// Ports of rules that are followed as far as possible.
#[derive(Debug, Default)]
struct Counts {
    opened: usize,
    /// By errno.
    refused: BTreeMap<i32, usize>,
}

impl Counts {
    fn add(&mut self, effort: Effort, opened: Result<(), Errno>) {
        match (effort, opened) {
            (Effort::BestEffort, Ok(())) => self.opened += 1,
            (Effort::BestEffort, Err(errno)) => *self.refused.entry(errno as i32).or_default() += 1,
            _ => {}
        }
    }

    /// One line for all of them; none if there are none.
    fn line(&self, side: &str) -> Option<(LogLevel, String)> {
        let refused: usize = self.refused.values().sum();
        if self.opened + refused == 0 {
            return None;
        }
        let mut line = format!("listening on {} more ports of the {side}", self.opened);
        if refused > 0 {
            line.push_str(&format!(", not on {refused}:"));
            for (errno, count) in &self.refused {
                let reason = match Errno::from_raw(*errno) {
                    Errno::EMFILE => "limit of descriptors",
                    errno => errno.desc(),
                };
                line.push_str(&format!(" {reason} ({count})"));
            }
        }
        let level = if refused > 0 { LogLevel::Warn } else { LogLevel::Info };
        Some((level, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_ports_are_one_line_with_the_reasons() {
        let mut counts = Counts::default();
        assert_eq!(counts.line("host"), None);
        counts.add(Effort::Explicit, Err(Errno::EADDRINUSE));
        counts.add(Effort::Auto, Ok(()));
        assert_eq!(counts.line("host"), None);
        for _ in 0..5 {
            counts.add(Effort::BestEffort, Ok(()));
        }
        counts.add(Effort::BestEffort, Err(Errno::EADDRINUSE));
        counts.add(Effort::BestEffort, Err(Errno::EMFILE));
        let (level, line) = counts.line("host").unwrap();
        assert_eq!(level, LogLevel::Warn);
        assert!(line.starts_with("listening on 5 more ports of the host, not on 2:"), "{line}");
        assert!(line.contains("limit of descriptors (1)"), "{line}");
    }
}
