//! Bridges, the two ends of point-to-point links, and routes that need no router.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope};

use super::{Admin, Way};
use crate::Outcome;
use crate::netlink::address_message;

impl Admin {
    /// Makes a bridge without ports.
    ///
    /// # Errors
    ///
    /// What the kernel reports, for instance `EOPNOTSUPP` if it has no bridges.
    pub fn add_bridge(&self, name: &str) -> Outcome {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_ACK | NLM_F_CREATE).map(drop)
    }

    /// Makes `port` a port of `bridge`.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add_port(&self, bridge: u32, port: u32) -> Outcome {
        let mut message = LinkMessage::default();
        message.header.index = port;
        message.attributes.push(LinkAttribute::Controller(bridge));
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Gives a link another hardware address, whether it is up or not.
    ///
    /// # Errors
    ///
    /// What the kernel reports, for instance `EBUSY` for a kind of link that has to be down.
    pub fn set_mac(&self, link: u32, mac: [u8; 6]) -> Outcome {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.attributes.push(LinkAttribute::Address(mac.to_vec()));
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Adds an address whose link has `peer`, and nobody else, at its other end.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add_address_with_peer(&self, link: u32, address: IpAddr, peer: IpAddr) -> Outcome {
        let mut message = address_message(link, address, host_length(address));
        message.attributes.retain(|it| !matches!(it, AddressAttribute::Address(_)));
        message.attributes.push(AddressAttribute::Address(peer));
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_ACK | NLM_F_CREATE).map(drop)
    }

    /// Adds a route of table main to what is reached on `link` itself.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add_link_route(&self, link: u32, to: (IpAddr, u8), metric: u32) -> Outcome {
        let message = through(link, to, metric);
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_ACK | NLM_F_CREATE).map(drop)
    }

    /// Removes such a route.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn delete_link_route(&self, link: u32, to: (IpAddr, u8), metric: u32) -> Outcome {
        let mut message = through(link, to, metric);
        message.header.protocol = RouteProtocol::Unspec;
        self.request(RouteNetlinkMessage::DelRoute(message), NLM_F_ACK).map(drop)
    }
}

fn through(link: u32, (to, len): (IpAddr, u8), metric: u32) -> RouteMessage {
    let to_some = (len != 0).then_some((to, len));
    // Who is named as the router tells the family, and is taken out again.
    let mut message = Way { to: to_some, ..Way::default(link, to, metric) }.message();
    message.attributes.retain(|it| !matches!(it, RouteAttribute::Gateway(_)));
    // The kernel looks for a router where the scope is wider than that (ip-route(8)).
    if to.is_ipv4() {
        message.header.scope = RouteScope::Link;
    }
    message
}

const fn host_length(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}
