#![forbid(unsafe_code)]
//! The listeners there are, and the difference to those that are wanted.
//!
//! A listener that is wanted before and after a change of rules is never touched: connections that
//! wait in it are kept, and so is the port. Listeners that the launcher has bound wait until a rule
//! wants them.
//!
//! A UDP socket of the host also carries flows that the namespace opens from the port that it leads to, so that
//! they leave from the host's port of the rule. One that serves these alone is a [`Role::Mapping`]: it lives as long
//! as they do, and becomes a listener, or a listener becomes it, without its socket being touched.

use crate::flow::datagram::send_options::{Oversize, SendOption, wanted};
use crate::flow::datagram::{DatagramSocket, QueuedError, ReadDatagrams};
use crate::port_forward::rules::{ForwardTarget, Ports};
use crate::wire::ip::Handling;
use nix::errno::Errno;
use pasta_ipc::port_forward::Direction;
use pasta_ipc::socket::{ListenerAddress, NamespaceListener, SocketFamily};
use pasta_ipc::types::{Family, Transport};
use std::cell::Cell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

/// A listening socket, or of UDP a bound one. None of the calls blocks.
pub trait ListenSocket: Sized {
    /// Accepts a connection; gives its socket and from where it comes.
    ///
    /// # Errors
    ///
    /// As accept(2).
    fn accept(&self) -> io::Result<(Self, SocketAddr)>;

    /// Reads one datagram, or several of one size that the kernel has joined, and says from where it came and to
    /// which address.
    ///
    /// # Errors
    ///
    /// As recvmsg(2), `EAGAIN` if nothing is waiting; `EPROTO` where the kernel does not say.
    fn receive_from(&self, buffer: &mut [u8]) -> Result<(ReadDatagrams, DatagramAddresses), Errno>;

    /// Sends one datagram, gathered from `slices`, on its `way`; with `segment_size`, several of that size at once.
    ///
    /// # Errors
    ///
    /// As sendmsg(2); `EINVAL` or `EIO` where the path cannot segment.
    fn send_from(
        &self,
        way: &Way,
        slices: &[IoSlice<'_>],
        segment_size: Option<u16>,
    ) -> Result<(), Errno>;

    /// Takes one error of a datagram off the socket's queue (`IP_RECVERR`, ip(7)), with where that went; if it says
    /// so; `None` if there is none.
    fn take_error_of(&self) -> Option<(QueuedError, Option<SocketAddr>)>;
}

/// The two ends of a datagram on an unconnected socket, in the form of the socket: on one that takes
/// both families, IPv4 is mapped into IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DatagramAddresses {
    /// The other end.
    pub peer: SocketAddr,
    /// Our address.
    pub local: IpAddr,
}

/// How a datagram leaves an unconnected socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Its ends; a local address that is unspecified is picked by the kernel.
    pub addresses: DatagramAddresses,
    /// The number of the interface that it has to leave by, if it has to by one.
    pub interface: Option<NonZeroU32>,
    /// Hop limit and traffic class.
    pub handling: Handling,
}

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerSpec {
    /// On the host, for connections into the namespace.
    Host(ListenerAddress),
    /// On the namespace's loopback, for connections to the host's.
    Namespace(NamespaceListener),
}

impl ListenerSpec {
    /// What is listened for.
    pub fn transport(&self) -> Transport {
        match self {
            Self::Host(at) => at.transport,
            Self::Namespace(at) => at.transport,
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Host(at) => at.port.get(),
            Self::Namespace(at) => at.port.get(),
        }
    }

    /// Whether it is for connections of `family`, as far as that is served.
    pub fn takes(&self, family: Family) -> bool {
        match self {
            Self::Host(at) => at.address.is_none_or(|address| Family::of(address) == family),
            Self::Namespace(at) => at.family.takes(family),
        }
    }

    /// Which way its connections go.
    pub fn direction(&self) -> Direction {
        match self {
            Self::Host(_) => Direction::Inbound,
            Self::Namespace(_) => Direction::Outbound,
        }
    }
}

impl fmt::Display for ListenerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, port) = (self.transport(), self.port());
        match self {
            Self::Host(ListenerAddress { address, interface, .. }) => {
                write!(f, "{transport} port {port} of the host")?;
                if let Some(address) = address {
                    write!(f, " at {address}")?;
                }
                interface.as_ref().map_or(Ok(()), |interface| write!(f, " on {interface}"))
            }
            Self::Namespace(at) => {
                write!(f, "{transport} port {port} of the namespace")?;
                match at.family {
                    SocketFamily::Ipv4 => f.write_str(" for IPv4"),
                    SocketFamily::Ipv6 => f.write_str(" for IPv6"),
                    SocketFamily::Both => Ok(()),
                }
            }
        }
    }
}

/// The name of a listener. It outlives the listener harmlessly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId {
    index: u32,
    life: u32,
}

impl ListenerId {
    /// The part of it that the kernel gives back with an event: the event of a listener
    /// whose slot was reused counts for the one that is there.
    pub fn index(self) -> u32 {
        self.index
    }
}

/// Whom a socket serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everybody.
    Listener,
    /// Those that the namespace has sent something to, through it (a mapping of RFC 4787, section 4.1).
    Mapping,
}

/// A listening socket, or of UDP a bound one.
#[derive(Debug)]
pub struct Listener<K> {
    /// Where it is.
    pub spec: ListenerSpec,
    /// Where what comes in goes.
    pub target: ForwardTarget,
    /// Whom it serves.
    pub role: Role,
    /// Flows that the namespace has opened through it.
    flows: usize,
    /// What it does with datagrams of IPv4 that are too large, and with those of IPv6.
    oversize: Cell<(Oversize, Oversize)>,
    /// Connections and UDP flows that came to it and were opened.
    pub accepted: u64,
    /// Those that could not be.
    pub failed: u64,
    socket: K,
}

/// What became of a connection or UDP flow that came to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was opened.
    Accepted,
    /// It could not be.
    Failed,
}

/// All listeners.
#[derive(Debug)]
pub struct Listeners<K> {
    slots: Vec<(u32, Option<Listener<K>>)>,
    free: Vec<u32>,
    by_spec: BTreeMap<ListenerSpec, ListenerId>,
    /// Bound by the launcher, or for a change of rules, and not wanted by a rule yet.
    spare: BTreeMap<ListenerAddress, K>,
    /// As that, in the namespace.
    spare_inside: BTreeMap<NamespaceListener, K>,
    ours: [Ports; 2],
    /// How many listeners a port of ours has, at different addresses.
    shared: HashMap<(Direction, Transport, Family, u16), u32>,
    /// UDP sockets of the host by the port of the namespace that they lead to.
    leading: HashMap<u16, Vec<ListenerId>>,
    /// How many are mappings.
    mappings: usize,
}

/// What is to be done to have the wanted listeners.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Those that nobody wants.
    pub surplus: Vec<ListenerId>,
    /// Those that are missing, in order.
    pub missing: Vec<(ListenerSpec, ForwardTarget)>,
}

impl<K> Default for Listeners<K> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_spec: BTreeMap::new(),
            spare: BTreeMap::new(),
            spare_inside: BTreeMap::new(),
            ours: Default::default(),
            shared: HashMap::new(),
            leading: HashMap::new(),
            mappings: 0,
        }
    }
}

impl<K> Listeners<K> {
    /// Keeps a listener that was bound for us.
    pub fn hand_over(&mut self, at: ListenerAddress, socket: K) {
        self.spare.insert(at, socket);
    }

    /// The socket that the launcher bound to this address, if there is one.
    pub fn take_spare(&mut self, at: &ListenerAddress) -> Option<K> {
        self.spare.remove(at)
    }

    /// Keeps a listener of the namespace that a change of rules wants.
    pub fn keep_inside(&mut self, at: NamespaceListener, socket: K) {
        self.spare_inside.insert(at, socket);
    }

    /// The socket that was kept for this place in the namespace, if there is one.
    pub fn take_inside(&mut self, at: &NamespaceListener) -> Option<K> {
        self.spare_inside.remove(at)
    }

    /// The socket at `spec`, if there is one.
    pub fn find(&self, spec: &ListenerSpec) -> Option<(ListenerId, &Listener<K>)> {
        let id = *self.by_spec.get(spec)?;
        Some((id, self.get(id)?))
    }

    /// Listeners of the host for `port` of `transport`, at any address.
    pub fn at_port(&self, transport: Transport, port: u16) -> Vec<ListenerId> {
        let of_port = self.by_spec.iter().filter(|(spec, _)| {
            spec.direction() == Direction::Inbound
                && spec.transport() == transport
                && spec.port() == port
        });
        let listens = |id: &ListenerId| self.get(*id).is_some_and(|it| it.role == Role::Listener);
        of_port.map(|(_, id)| *id).filter(listens).collect()
    }

    /// Listeners from slot `from` on, up to `most` slots; none is left after those.
    pub fn slice(&self, from: usize, most: usize) -> impl Iterator<Item = &Listener<K>> {
        let slots = self.slots.iter().skip(from).take(most);
        slots.filter_map(|(_, listener)| listener.as_ref())
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Counts what came to a listener and what became of it.
    pub fn count(&mut self, id: ListenerId, fate: Fate) {
        let Some(listener) = self.get_mut(id) else { return };
        match fate {
            Fate::Accepted => listener.accepted += 1,
            Fate::Failed => listener.failed += 1,
        }
    }

    /// Compares what is there in one direction with what is wanted; where those that stay lead is
    /// changed at once.
    pub fn compare(
        &mut self,
        direction: Direction,
        wanted: BTreeMap<ListenerSpec, ForwardTarget>,
    ) -> Difference {
        let mut difference = Difference::default();
        for (spec, id) in &self.by_spec {
            let listens = self.get(*id).is_some_and(|it| it.role == Role::Listener);
            if listens && spec.direction() == direction && !wanted.contains_key(spec) {
                difference.surplus.push(*id);
            }
        }
        for (spec, target) in wanted {
            let id = self.by_spec.get(&spec).copied();
            let listens =
                |id: &ListenerId| self.get(*id).is_some_and(|it| it.role == Role::Listener);
            match id.filter(listens) {
                None => difference.missing.push((spec, target)),
                Some(id) => self.redirect(id, target),
            }
        }
        difference
    }

    /// Has the listener `id` lead to `target`.
    fn redirect(&mut self, id: ListenerId, target: ForwardTarget) {
        let Some(listener) = self.get_mut(id) else { return };
        let before = std::mem::replace(&mut listener.target, target);
        if before.port != target.port && is_udp_of_host(&listener.spec) {
            self.forget_leading(before.port, id);
            self.leading.entry(target.port).or_default().push(id);
        }
    }

    fn forget_leading(&mut self, port: u16, id: ListenerId) {
        if let Entry::Occupied(mut leading) = self.leading.entry(port) {
            leading.get_mut().retain(|it| *it != id);
            if leading.get().is_empty() {
                leading.remove();
            }
        }
    }

    /// Makes the mapping with this `spec`, if there is one, a listener that leads to `target`.
    pub fn promote(&mut self, spec: &ListenerSpec, target: ForwardTarget) -> bool {
        let Some(id) = self.by_spec.get(spec).copied() else { return false };
        self.redirect(id, target);
        self.set_role(id, Role::Listener)
    }

    /// How many are mappings.
    pub fn mappings(&self) -> usize {
        self.mappings
    }

    fn set_role(&mut self, id: ListenerId, role: Role) -> bool {
        let Some(listener) = self.get_mut(id) else { return false };
        match (std::mem::replace(&mut listener.role, role), role) {
            (Role::Listener, Role::Mapping) => self.mappings += 1,
            (Role::Mapping, Role::Listener) => self.mappings -= 1,
            _ => {}
        }
        true
    }

    /// Makes a listener a mapping, if there are flows through it.
    pub fn demote(&mut self, id: ListenerId) -> bool {
        self.get(id).is_some_and(|it| it.flows > 0) && self.set_role(id, Role::Mapping)
    }

    /// The UDP sockets of the host that lead to `port` of the namespace, listeners first.
    pub fn leading_to(&self, port: u16) -> impl Iterator<Item = (ListenerId, &Listener<K>)> {
        let all = || {
            let ids = self.leading.get(&port).into_iter().flatten();
            ids.filter_map(|id| Some((*id, self.get(*id)?)))
        };
        let of = move |role| all().filter(move |(_, it)| it.role == role);
        of(Role::Listener).chain(of(Role::Mapping))
    }

    /// A flow of the namespace goes through this socket.
    pub fn lend(&mut self, id: ListenerId) {
        if let Some(listener) = self.get_mut(id) {
            listener.flows += 1;
        }
    }

    /// A flow of the namespace through this socket has ended; a mapping without any is gone, and given.
    pub fn give_back(&mut self, id: ListenerId) -> Option<Listener<K>> {
        let listener = self.get_mut(id)?;
        listener.flows = listener.flows.saturating_sub(1);
        let unused = listener.flows == 0 && listener.role == Role::Mapping;
        unused.then(|| self.remove(id)).flatten()
    }

    /// The name that the next [`Listeners::insert`] gives.
    pub fn next_id(&self) -> ListenerId {
        let index = self.free.last().copied();
        let index = index.unwrap_or_else(|| u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        let life = self.slots.get(index as usize).map_or(0, |(life, _)| *life);
        ListenerId { index, life }
    }

    /// Adds a listener; there is none with this `spec`.
    pub fn insert(
        &mut self,
        spec: ListenerSpec,
        target: ForwardTarget,
        role: Role,
        socket: K,
    ) -> ListenerId {
        let id = self.next_id();
        if is_udp_of_host(&spec) {
            self.leading.entry(target.port).or_default().push(id);
        }
        let (direction, transport, port) = (spec.direction(), spec.transport(), spec.port());
        for family in Family::BOTH.into_iter().filter(|it| spec.takes(*it)) {
            self.ours_of(direction).get_mut(transport).get_mut(family).insert(port);
            *self.shared.entry((direction, transport, family, port)).or_default() += 1;
        }
        self.by_spec.insert(spec.clone(), id);
        self.mappings += usize::from(role == Role::Mapping);
        let (flows, accepted, failed) = (0, 0, 0);
        let listener = Some(Listener {
            spec,
            target,
            role,
            flows,
            accepted,
            failed,
            oversize: Cell::default(),
            socket,
        });
        match self.free.pop().and_then(|index| self.slots.get_mut(index as usize)) {
            Some((_, slot)) => *slot = listener,
            None => self.slots.push((0, listener)),
        }
        id
    }

    /// Takes a listener out.
    pub fn remove(&mut self, id: ListenerId) -> Option<Listener<K>> {
        let (life, slot) = self.slots.get_mut(id.index as usize)?;
        if *life != id.life {
            return None;
        }
        let listener = slot.take()?;
        *life = life.wrapping_add(1);
        self.free.push(id.index);
        self.by_spec.remove(&listener.spec);
        self.mappings -= usize::from(listener.role == Role::Mapping);
        let spec = &listener.spec;
        if is_udp_of_host(spec) {
            self.forget_leading(listener.target.port, id);
        }
        let (direction, transport, port) = (spec.direction(), spec.transport(), spec.port());
        // Another address may have the same port.
        for family in Family::BOTH.into_iter().filter(|it| spec.takes(*it)) {
            let key = (direction, transport, family, port);
            if let Entry::Occupied(mut count) = self.shared.entry(key) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                    self.ours_of(direction).get_mut(transport).get_mut(family).remove(port);
                }
            }
        }
        Some(listener)
    }

    /// The listener `id`, unless it is gone.
    pub fn get(&self, id: ListenerId) -> Option<&Listener<K>> {
        let (life, listener) = self.slots.get(id.index as usize)?;
        listener.as_ref().filter(|_| *life == id.life)
    }

    fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listener<K>> {
        let (life, listener) = self.slots.get_mut(id.index as usize)?;
        listener.as_mut().filter(|_| *life == id.life)
    }

    /// The socket of the listener `id`.
    pub fn socket(&self, id: ListenerId) -> Option<&K> {
        self.get(id).map(|listener| &listener.socket)
    }

    /// Has the socket of the listener `id` send a packet with `octets` behind its network header to `peer` as `handling`
    /// says about fragments; the rest of that goes with the datagram.
    pub fn prepare_to_send(&self, id: ListenerId, peer: IpAddr, handling: Handling, octets: usize)
    where
        K: DatagramSocket,
    {
        let Some(Listener { oversize, socket, .. }) = self.get(id) else { return };
        let (peer, (mut v4, mut v6)) = (peer.to_canonical(), oversize.get());
        let set = if peer.is_ipv4() { &mut v4 } else { &mut v6 };
        let wanted = wanted(*set, handling.fragmentation, peer, octets);
        if *set != wanted {
            socket.set_send_option(peer, SendOption::Oversize(wanted));
            *set = wanted;
            oversize.set((v4, v6));
        }
    }

    /// The name of the listener that an event is about.
    pub fn by_index(&self, index: u32) -> Option<ListenerId> {
        let (life, listener) = self.slots.get(index as usize)?;
        listener.as_ref().map(|_| ListenerId { index, life: *life })
    }

    /// Those of the host that are bound to an interface, and where they lead.
    pub fn on_interfaces(
        &self,
    ) -> impl Iterator<Item = (ListenerId, ListenerAddress, ForwardTarget)> + '_ {
        self.by_spec.iter().filter_map(|(spec, id)| match spec {
            ListenerSpec::Host(at) if at.interface.is_some() => {
                Some((*id, at.clone(), self.get(*id)?.target))
            }
            _ => None,
        })
    }

    /// The ports that we listen on for connections of one direction.
    pub fn ours(&self, direction: Direction) -> &Ports {
        let [inbound, outbound] = &self.ours;
        match direction {
            Direction::Inbound => inbound,
            Direction::Outbound => outbound,
        }
    }

    fn ours_of(&mut self, direction: Direction) -> &mut Ports {
        let [inbound, outbound] = &mut self.ours;
        match direction {
            Direction::Inbound => inbound,
            Direction::Outbound => outbound,
        }
    }

    /// How many descriptors are held: with those that wait for a rule.
    pub fn held(&self) -> usize {
        self.by_spec.len() + self.spare.len() + self.spare_inside.len()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_spec.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_spec.is_empty()
    }
}

fn is_udp_of_host(spec: &ListenerSpec) -> bool {
    matches!(spec, ListenerSpec::Host(at) if at.transport == Transport::Udp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port_forward::rules::RuleIndex;
    use pasta_ipc::port_forward::{Effort, FamilyPorts};

    fn spec(port: u16) -> ListenerSpec {
        let at = ListenerAddress {
            transport: Transport::Tcp,
            address: None,
            interface: None,
            port: port.try_into().unwrap(),
        };
        ListenerSpec::Host(at)
    }

    fn target(port: u16) -> ForwardTarget {
        ForwardTarget { target: None, port, effort: Effort::Explicit, rule: RuleIndex(0) }
    }

    fn wanted(ports: &[u16]) -> BTreeMap<ListenerSpec, ForwardTarget> {
        ports.iter().map(|port| (spec(*port), target(*port))).collect()
    }

    /// Stands for a socket.
    #[derive(Debug)]
    struct Socket;

    #[test]
    fn what_stays_wanted_is_not_touched() {
        let mut listeners = Listeners::default();
        let first = listeners.insert(spec(1), target(1), Role::Listener, Socket);
        let second = listeners.insert(spec(2), target(2), Role::Listener, Socket);
        let difference = listeners.compare(Direction::Inbound, wanted(&[2, 3]));
        assert_eq!(difference.surplus, [first]);
        assert_eq!(difference.missing, [(spec(3), target(3))]);
        assert!(listeners.get(second).is_some());
        let other = listeners.compare(Direction::Outbound, BTreeMap::new());
        assert_eq!(other, Difference::default());
    }

    #[test]
    fn changed_goal_changes_the_listener_in_place() {
        let mut listeners = Listeners::default();
        let id = listeners.insert(spec(1), target(1), Role::Listener, Socket);
        let moved = BTreeMap::from([(spec(1), target(80))]);
        assert_eq!(listeners.compare(Direction::Inbound, moved), Difference::default());
        assert_eq!(listeners.get(id).unwrap().target, target(80));
    }

    #[test]
    fn old_name_does_not_find_the_next_listener_in_its_place() {
        let mut listeners = Listeners::default();
        let id = listeners.insert(spec(1), target(1), Role::Listener, Socket);
        assert!(listeners.ours(Direction::Inbound).tcp.ipv6.contains(1));
        assert!(listeners.remove(id).is_some());
        assert!(listeners.ours(Direction::Inbound).tcp == FamilyPorts::default());
        let next = listeners.next_id();
        assert_eq!(listeners.insert(spec(2), target(2), Role::Listener, Socket), next);
        assert_eq!(next.index(), id.index());
        assert!(listeners.get(id).is_none() && listeners.remove(id).is_none());
        assert_eq!(listeners.by_index(id.index()), Some(next));
    }

    #[test]
    fn port_of_two_addresses_is_ours_until_the_last_is_gone() {
        let mut listeners = Listeners::default();
        let at = |address: &str| {
            ListenerSpec::Host(ListenerAddress {
                transport: Transport::Udp,
                address: Some(address.parse().unwrap()),
                interface: None,
                port: 53.try_into().unwrap(),
            })
        };
        let first = listeners.insert(at("192.0.2.1"), target(53), Role::Listener, Socket);
        let second = listeners.insert(at("192.0.2.2"), target(53), Role::Listener, Socket);
        listeners.remove(first);
        assert!(listeners.ours(Direction::Inbound).udp.ipv4.contains(53));
        assert!(listeners.ours(Direction::Inbound).udp.ipv6.is_empty(), "of the other family");
        listeners.remove(second);
        assert!(
            listeners.is_empty()
                && listeners.ours(Direction::Inbound).udp == FamilyPorts::default()
        );
    }
}
