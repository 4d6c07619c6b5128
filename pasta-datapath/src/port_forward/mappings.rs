//! Which host socket carries the datagrams of a source port of the namespace (RFC 4787, REQ-1: all peers see one
//! port of the host).
//!
//! - A port that is forwarded has its listener, and before that is opened (`auto`) a socket in its place.
//! - The first flow of any other port has a connected socket of its own, with the same port where that can be had.
//!   With the second peer it gives way to one that they share.
//! - Flows to resolvers have sockets of their own, since another one may be asked next.
//!
//! A shared socket takes datagrams from everybody. Those of a peer that the namespace has sent nothing to are
//! counted drops, unless the socket is a listener. No socket is ever shared with another program of the host
//! (`SO_REUSEADDR`, `SO_REUSEPORT`), which could take what is meant for us: where one of ours is in the way of
//! another of ours it becomes that other one. One of IPv6, or bound to an address or an interface, is closed first, and
//! datagrams that come in between are lost.

use super::listeners::{Listener, ListenerId, ListenerSpec};
use crate::flow::FlowId;
use crate::nat::Target;
use pasta_ipc::socket::{ListenerAddress, SocketFamily};
use pasta_ipc::types::{Family, Transport};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

/// A source port of the namespace, in one family.
pub type Source = (Family, u16);

/// Flows that the namespace has opened, by what carries them.
#[derive(Debug, Default)]
pub struct Mappings {
    /// The flow of a source port that has a socket of its own.
    single: HashMap<Source, FlowId>,
    /// Flows by the socket that they share and their peer, in the form of the socket.
    shared: HashMap<(ListenerId, SocketAddr), FlowId>,
}

impl Mappings {
    /// The flow that has a socket of its own for `source`.
    pub fn single(&self, source: Source) -> Option<FlowId> {
        self.single.get(&source).copied()
    }

    /// Flow `id` has a socket of its own for `source`.
    pub fn set_single(&mut self, source: Source, id: FlowId) {
        self.single.insert(source, id);
    }

    /// Flow `id` has no socket of its own any more.
    pub fn forget_single(&mut self, source: Source, id: FlowId) {
        if self.single.get(&source) == Some(&id) {
            self.single.remove(&source);
        }
    }

    /// The flow of the namespace through `listener` to `peer`.
    #[inline]
    pub fn shared(&self, listener: ListenerId, peer: SocketAddr) -> Option<FlowId> {
        self.shared.get(&(listener, peer)).copied()
    }

    /// Flow `id` goes through `listener` to `peer`.
    pub fn set_shared(&mut self, listener: ListenerId, peer: SocketAddr, id: FlowId) {
        self.shared.insert((listener, peer), id);
    }

    /// The flow through `listener` to `peer` has ended.
    pub fn forget_shared(&mut self, listener: ListenerId, peer: SocketAddr) {
        self.shared.remove(&(listener, peer));
    }
}

/// The place of a socket for all peers of one family at `port` of the host.
pub fn place_for(family: Family, port: NonZeroU16) -> ListenerAddress {
    let any = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    ListenerAddress { transport: Transport::Udp, address: Some(any), interface: None, port }
}

/// Whether a socket at the place `at` can carry datagrams to `target`, as far as can be known: by its family, its
/// address and its interface. Without an address it takes `families`.
pub fn carries(at: &ListenerAddress, families: SocketFamily, target: &Target) -> bool {
    let to = target.address.ip();
    let has_family = match at.address {
        Some(address) => address.is_ipv4() == to.is_ipv4(),
        None => match families {
            SocketFamily::Both => true,
            SocketFamily::Ipv4 => to.is_ipv4(),
            SocketFamily::Ipv6 => to.is_ipv6(),
        },
    };
    let has_address = match at.address.filter(|address| !address.is_unspecified()) {
        None => true,
        Some(address) => {
            let is_source = target.source.is_none_or(|source| source == address);
            is_source && address.is_loopback() == to.is_loopback()
        }
    };
    // Nothing of an interface but lo leads to loopback, and the other way round.
    let has_interface = at.interface.as_ref().is_none_or(|interface| {
        let leaves_by_it = target.interface.as_ref().is_none_or(|it| it == interface);
        leaves_by_it && (interface.as_str() == "lo") == to.is_loopback()
    });
    has_family && has_address && has_interface
}

/// Whether `listener` is one for datagrams of the namespace's address `source` to `target`.
pub fn serves<K>(
    listener: &Listener<K>,
    families: SocketFamily,
    source: IpAddr,
    target: &Target,
) -> bool {
    let ListenerSpec::Host(at) = &listener.spec else { return false };
    let is_meant = listener.target.target.is_none_or(|it| it == source);
    is_meant && carries(at, families, target)
}

/// `address` in the form of the socket at the place `at`: one for both families has IPv4 mapped into IPv6.
pub fn form(at: &ListenerAddress, families: SocketFamily, address: IpAddr) -> IpAddr {
    match (address, at.address, families) {
        (IpAddr::V4(v4), None, SocketFamily::Both) => v4.to_ipv6_mapped().into(),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::types::IfName;

    fn at(address: Option<&str>, interface: Option<&str>) -> ListenerAddress {
        let interface = interface.map(|name| IfName::try_from(name.to_owned()).unwrap());
        let address = address.map(|it| it.parse().unwrap());
        let port = NonZeroU16::new(5060).unwrap();
        ListenerAddress { transport: Transport::Udp, address, interface, port }
    }

    fn to(address: &str, source: Option<&str>) -> Target {
        let address = SocketAddr::new(address.parse().unwrap(), 7);
        Target { address, source: source.map(|it| it.parse().unwrap()), interface: None }
    }

    #[test]
    fn socket_carries_what_its_family_address_and_interface_allow() {
        const V4: &str = "198.51.100.1";
        const V6: &str = "2001:db8:1::1";
        for (at, families, target, expected) in [
            (at(None, None), SocketFamily::Both, to(V4, None), true),
            (at(None, None), SocketFamily::Both, to(V6, None), true),
            (at(None, None), SocketFamily::Ipv4, to(V6, None), false),
            (at(None, None), SocketFamily::Ipv6, to(V4, None), false),
            (at(Some("0.0.0.0"), None), SocketFamily::Both, to(V4, None), true),
            (at(Some("0.0.0.0"), None), SocketFamily::Both, to(V6, None), false),
            (at(Some("192.0.2.2"), None), SocketFamily::Both, to(V4, None), true),
            (at(Some("192.0.2.2"), None), SocketFamily::Both, to("127.0.0.1", None), false),
            (at(Some("192.0.2.2"), None), SocketFamily::Both, to(V4, Some("192.0.2.3")), false),
            (at(Some("192.0.2.2"), None), SocketFamily::Both, to(V4, Some("192.0.2.2")), true),
            (at(Some("::1"), None), SocketFamily::Both, to(V6, None), false),
            (at(Some("::1"), None), SocketFamily::Both, to("::1", None), true),
            (at(None, Some("eth0")), SocketFamily::Both, to(V4, None), true),
            (at(None, Some("eth0")), SocketFamily::Both, to("127.0.0.1", None), false),
            (at(None, Some("lo")), SocketFamily::Both, to(V4, None), false),
            (at(None, Some("lo")), SocketFamily::Both, to("::1", None), true),
        ] {
            assert_eq!(carries(&at, families, &target), expected, "{at:?} {target:?}");
        }
    }

    #[test]
    fn addresses_are_mapped_on_a_socket_of_both_families_alone() {
        let v4: IpAddr = "192.0.2.2".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.2".parse().unwrap();
        assert_eq!(form(&at(None, None), SocketFamily::Both, v4), mapped);
        assert_eq!(form(&at(None, None), SocketFamily::Ipv4, v4), v4);
        assert_eq!(form(&at(Some("0.0.0.0"), None), SocketFamily::Both, v4), v4);
    }
}
