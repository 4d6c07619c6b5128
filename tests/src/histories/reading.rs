//! What a network namespace has, as the rules look at it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::Outcome;
use crate::netlink::{Link, Netlink};

/// What marks an object as ours, in either of the protocols.
pub const OURS: u8 = 112;
/// `RTPROT_KERNEL` (linux/rtnetlink.h).
pub const OF_KERNEL: u8 = 2;

/// All that a namespace has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Its links.
    pub links: Vec<Link>,
    /// Its addresses, without loopback and link-local ones.
    pub addresses: Vec<Address>,
    /// Its unicast routes of table main.
    pub routes: Vec<Route>,
}

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Index of its link.
    pub link: u32,
    /// It and the length of its prefix.
    pub ip: (IpAddr, u8),
    /// Whether it is not for new connections.
    pub deprecated: bool,
    /// Whether it is proven unique.
    pub proven: bool,
    /// Whether it carries our tag.
    pub ours: bool,
}

/// A route; one of several hops is as many routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where it leads.
    pub to: (IpAddr, u8),
    /// The router.
    pub via: Option<IpAddr>,
    /// The metric.
    pub metric: u32,
    /// Index of the link.
    pub link: u32,
    /// Who made it.
    pub protocol: u8,
}

impl Route {
    /// Whether it leads everywhere.
    pub fn is_default(&self) -> bool {
        self.to.1 == 0
    }
}

impl Reading {
    /// Reads the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn here() -> Outcome<Self> {
        let netlink = Netlink::open()?;
        let mut reading = Self { links: netlink.links()?, ..Self::default() };
        let dump = |what| netlink.request(what, NLM_F_REQUEST | NLM_F_DUMP);
        for message in dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            if let RouteNetlinkMessage::NewAddress(message) = message {
                reading.addresses.extend(address(&message));
            }
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut all = RouteMessage::default();
            all.header.address_family = family;
            for message in dump(RouteNetlinkMessage::GetRoute(all))? {
                if let RouteNetlinkMessage::NewRoute(message) = message {
                    reading.routes.extend(routes(&message));
                }
            }
        }
        reading.addresses.sort();
        reading.routes.sort();
        Ok(reading)
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    let (mut ip, mut flags, mut ours) = (None, AddressFlags::empty(), false);
    let mut preferred = u32::MAX;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(it) => ip = Some(*it),
            AddressAttribute::Address(it) if ip.is_none() => ip = Some(*it),
            AddressAttribute::Flags(it) => flags = *it,
            AddressAttribute::CacheInfo(it) => preferred = it.ifa_preferred,
            AddressAttribute::Protocol(it) => ours = *it == AddressProtocol::Other(OURS),
            _ => {}
        }
    }
    let ip = ip.filter(|it| match it {
        IpAddr::V4(it) => !it.is_loopback(),
        IpAddr::V6(it) => !it.is_loopback() && !it.is_unicast_link_local(),
    })?;
    let unproven = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Optimistic;
    let deprecated = message.header.flags.contains(AddressHeaderFlags::Deprecated);
    Some(Address {
        link: message.header.index,
        ip: (ip, message.header.prefix_len),
        deprecated: deprecated || preferred == 0,
        proven: ip.is_ipv4() || !flags.intersects(unproven),
        ours,
    })
}

fn routes(message: &RouteMessage) -> Vec<Route> {
    let header = &message.header;
    let v6 = header.address_family == AddressFamily::Inet6;
    if header.kind != RouteType::Unicast || header.table != RouteHeader::RT_TABLE_MAIN {
        return Vec::new();
    }
    let everything = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let mut route = Route {
        to: (everything, header.destination_prefix_length),
        via: None,
        metric: 0,
        link: 0,
        protocol: header.protocol.into(),
    };
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(it) => route.to.0 = ip(it).unwrap_or(everything),
            RouteAttribute::Gateway(it) => route.via = ip(it),
            RouteAttribute::Oif(it) => route.link = *it,
            RouteAttribute::Priority(it) => route.metric = *it,
            RouteAttribute::MultiPath(ways) => hops = ways.clone(),
            _ => {}
        }
    }
    let link_local = matches!(route.to.0, IpAddr::V6(it) if it.is_unicast_link_local());
    if link_local || route.to.0.is_multicast() {
        return Vec::new();
    }
    if hops.is_empty() {
        return vec![route];
    }
    let hop = |(place, hop): (usize, &netlink_packet_route::route::RouteNextHop)| {
        let via = hop.attributes.iter().find_map(|it| match it {
            RouteAttribute::Gateway(it) => ip(it),
            _ => None,
        });
        // Whoever appends a hop to another's route has it shown as that one's.
        let protocol = if place == 0 { route.protocol } else { 0 };
        Route { via, link: hop.interface_index, protocol, ..route }
    };
    hops.iter().enumerate().map(hop).collect()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(it) => Some((*it).into()),
        RouteAddress::Inet6(it) => Some((*it).into()),
        _ => None,
    }
}
