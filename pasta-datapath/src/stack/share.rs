//! Which host socket a new flow of the namespace's datagrams goes through, where it need not be one of its own
//! ([`crate::port_forward::mappings`]).

use super::open::Opener;
use super::parts::{Parts, source_of};
use crate::counters::DropReason;
use crate::flow::datagram::{DatagramFlow, HostEnd, ListenerEnd};
use crate::flow::evict::Takes;
use crate::flow::splice::StreamSocket;
use crate::flow::{Flow, FlowEvent, FlowId, FlowKey};
use crate::nat::{Protocol, Target};
use crate::port_forward::listeners::{DatagramAddresses, ListenerId, ListenerSpec};
use crate::port_forward::mappings::{Source, carries, form, place_for, serves};
use crate::port_forward::rules::{ForwardTarget, RuleIndex};
use crate::sockets::Sockets;
use pasta_ipc::port_forward::Effort;
use pasta_ipc::socket::{ListenerAddress, SocketFamily};
use pasta_ipc::types::Family;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};

/// The end of a flow at a socket that it shares, and the number of the interface that it has to leave by.
pub(super) type SharedEnd = (ListenerEnd, Option<NonZeroU32>);

impl<S: Sockets> Opener<'_, S> {
    /// Whether a flow may go through a socket that it shares.
    pub(super) fn may_share(&self, key: &FlowKey) -> bool {
        // Which resolver is asked may change.
        key.protocol == Protocol::Udp
            && self.parts.nat.resolver_for(key.protocol, key.remote).is_none()
    }

    /// The port of the host that a flow with a socket of its own tries to get. None for one that has to keep out of
    /// the way of a listener: where the port leads elsewhere, or is for flows that may share it.
    pub(super) fn own_port(&self, key: &FlowKey, shares: bool) -> Option<u16> {
        let port = key.namespace.port();
        let (rules, family) = (self.parts.ports.rules(), Family::of(key.namespace.ip()));
        let keeps_out = key.protocol == Protocol::Udp
            && (rules.leads_elsewhere(port)
                || !shares && rules.places_of(family, port).next().is_some());
        (!keeps_out).then_some(port)
    }

    /// The end of a new flow at a socket that others use too, if it is to have one.
    pub(super) fn shared_socket(&mut self, key: &FlowKey, target: &Target) -> Option<SharedEnd> {
        let interface = self.parts.interface_of(target)?;
        let id = self.existing(key, target);
        let id = id.or_else(|| self.in_place_of_listener(key, target));
        let id = id.or_else(|| self.in_place_of_single(key, target))?;
        let end = self.parts.end_at(id, target)?;
        // From another address of the namespace, and the same port, to the same peer.
        let is_taken = self.parts.ports.mappings.shared(id, end.addresses.peer).is_some();
        (!is_taken).then_some((end, interface))
    }

    /// A listener that leads to the flow's source, or a socket that serves its port already.
    fn existing(&self, key: &FlowKey, target: &Target) -> Option<ListenerId> {
        let ports = &self.parts.ports;
        let (source, families) = (key.namespace, ports.families());
        let mut leading = ports.listeners.leading_to(source.port());
        leading.find(|(_, it)| serves(it, families, source.ip(), target)).map(|(id, _)| id)
    }

    /// A socket where a listener will be as soon as the program that sends is seen to listen.
    fn in_place_of_listener(&mut self, key: &FlowKey, target: &Target) -> Option<ListenerId> {
        let (families, source) = (self.parts.ports.families(), key.namespace);
        let places =
            self.parts.ports.rules().places_of(Family::of(target.address.ip()), source.port());
        let mut fitting = places.filter(|(at, to)| {
            // Of the others there is a listener, or there can be none.
            to.effort == Effort::Auto
                && to.target.is_none_or(|it| it == source.ip())
                && carries(at, families, target)
        });
        let (at, to) = fitting.next()?;
        drop(fitting);
        if !self.parts.has_port(self.now, Takes::Port) {
            return None;
        }
        self.open_mapping(at, to)
    }

    /// A socket in place of the one that the first flow of this port has; that flow goes on through it.
    fn in_place_of_single(&mut self, key: &FlowKey, target: &Target) -> Option<ListenerId> {
        let source = source_of(key.namespace);
        let first = self.parts.ports.mappings.single(source)?;
        let entry = self.parts.flows.table.get_mut(first)?;
        let Flow::Datagram(flow) = &entry.flow else { return None };
        // From another address of the namespace, and the same port, to the same peer.
        if flow.own_socket()?.1.address == target.address {
            return None;
        }
        self.share_single(source, first)
    }

    /// Makes the socket of its own that flow `first` of a source port has one that others can use too, or replaces it
    /// by one at the same port of the host; the flow goes on through that.
    pub(super) fn share_single(&mut self, source: Source, first: FlowId) -> Option<ListenerId> {
        // What it has received is not lost.
        self.parts.drive(self.now, first, FlowEvent::Turn);
        let entry = self.parts.flows.table.get_mut(first)?;
        let Flow::Datagram(flow) = &entry.flow else { return None };
        let (socket, target) = flow.own_socket()?;
        let port = NonZeroU16::new(StreamSocket::local_address(socket)?.port())?;
        let (at, target) = (place_for(source.0, port), target.clone());
        let namespace = flow.opened_from()?;
        let remote = flow.remote()?;
        let key = FlowKey { protocol: Protocol::Udp, namespace, remote };
        let target = self.parts.with_source(&key, target);
        let id = self.parts.ports.listeners.next_id();
        let families = self.parts.ports.families();
        let interface = self.parts.interface_of(&target)?;
        let end = end_at(id, &at, families, &target);
        let Flow::Datagram(flow) = &mut self.parts.flows.table.get_mut(first)?.flow else {
            return None;
        };
        let socket = flow.share((end, interface)).and_then(HostEnd::into_shared);
        self.parts.ports.mappings.forget_single(source, first);
        let (effort, rule) = (Effort::Auto, RuleIndex::NONE);
        let to = ForwardTarget { target: None, port: source.1, effort, rule };
        let adopted = socket.and_then(|socket| {
            let (ports, mut cx) = self.parts.ports(self.now);
            ports.adopt_mapping(&mut cx, socket, at.clone(), to).ok()
        });
        if adopted.or_else(|| self.open_mapping(at, to)).is_none() {
            // Its port went to somebody else: it begins anew with its next datagram.
            self.parts.remove(first);
            return None;
        }
        self.parts.lend(end, first);
        Some(id)
    }

    fn open_mapping(&mut self, at: ListenerAddress, to: ForwardTarget) -> Option<ListenerId> {
        if self.parts.descriptors_left() < 2 {
            return None;
        }
        let (ports, mut cx) = self.parts.ports(self.now);
        ports.open_mapping(&mut cx, at, to).ok()
    }

    /// Opens a flow through a socket that it shares.
    pub(super) fn mapped(&mut self, key: FlowKey, shared: SharedEnd) -> Result<FlowId, DropReason> {
        let path = self.parts.path(self.mac, &key);
        let flow = Flow::Datagram(Box::new(DatagramFlow::mapped(self.now, path, shared)));
        let (end, _) = shared;
        let Some(id) = self.parts.insert(self.now, Some(key), flow) else {
            self.parts.ports.listeners.lend(end.id);
            self.parts.ports.listeners.give_back(end.id);
            return Err(DropReason::TableFull);
        };
        self.parts.lend(end, id);
        self.parts.drive(self.now, id, FlowEvent::Opened);
        Ok(id)
    }
}

impl<S: Sockets> Parts<S> {
    /// Notes that flow `id` goes through a socket that it shares.
    fn lend(&mut self, end: ListenerEnd, id: FlowId) {
        self.ports.listeners.lend(end.id);
        self.ports.mappings.set_shared(end.id, end.addresses.peer, id);
    }

    /// The number of the interface that a flow to `target` has to leave by, if it has to by one; none at all if
    /// there is no such interface.
    fn interface_of(&mut self, target: &Target) -> Option<Option<NonZeroU32>> {
        match &target.interface {
            None => Some(None),
            Some(interface) => self.sockets.interface_index(interface).map(Some),
        }
    }

    /// The end of a flow to `target` at the socket `id`.
    fn end_at(&self, id: ListenerId, target: &Target) -> Option<ListenerEnd> {
        match &self.ports.listeners.get(id)?.spec {
            ListenerSpec::Host(at) => Some(end_at(id, at, self.ports.families(), target)),
            ListenerSpec::Namespace(_) => None,
        }
    }
}

/// The end of a flow to `target` at the socket `id`, which is at the place `at`.
fn end_at(
    id: ListenerId,
    at: &ListenerAddress,
    families: SocketFamily,
    target: &Target,
) -> ListenerEnd {
    let to = target.address;
    let any = match to {
        SocketAddr::V4(_) => IpAddr::from([0; 4]),
        SocketAddr::V6(_) => IpAddr::from([0; 16]),
    };
    let form = |address| form(at, families, address);
    let peer = SocketAddr::new(form(to.ip()), to.port());
    // A socket that has an address sends from that one, by whatever interface.
    let local = target.source.or(at.address).unwrap_or(any);
    let local = form(local);
    ListenerEnd { id, addresses: DatagramAddresses { peer, local } }
}
