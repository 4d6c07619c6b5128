//! `RTM_NEWROUTE`.

use super::{Unreadable, family};
use crate::record::{Hop, Record, Route};
use netlink_packet_core::Parseable;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RoutePreference, RouteType, RouteVia,
};
use pasta_ipc::types::{Family, Prefix};
use std::net::IpAddr;

pub(super) fn decode(octets: &[u8]) -> Result<Record, Unreadable> {
    let message = RouteMessage::parse(octets)?;
    let header = &message.header;
    let Some(family) = family(header.address_family) else { return Ok(Record::Other) };
    let discards = match header.kind {
        RouteType::Unicast => false,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw => {
            true
        }
        _ => return Ok(Record::Other),
    };

    let mut table = u32::from(header.table);
    let (mut metric, mut preference) = (0, 0);
    let (mut mtu, mut advmss) = (None, None);
    let mut destination = None;
    let mut hops = Vec::new();
    let mut nexthop = None;
    let mut plain = header.tos == 0 && header.source_prefix_length == 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(value) => table = *value,
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Destination(value) => destination = Some(address(value, family)?),
            RouteAttribute::Preference(value) => preference = rank(*value),
            RouteAttribute::MultiPath(ways) => {
                for way in ways {
                    let (hop, whole) = of_multipath(way, family)?;
                    plain &= whole;
                    hops.push(hop);
                }
            }
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(value) => mtu = Some(*value),
                        RouteMetric::Advmss(value) => advmss = Some(*value),
                        _ => {}
                    }
                }
            }
            RouteAttribute::NhId(id) => nexthop = Some(*id),
            RouteAttribute::Encap(_)
            | RouteAttribute::EncapType(_)
            | RouteAttribute::Source(_)
            | RouteAttribute::NewDestination(_) => plain = false,
            _ => {}
        }
    }
    // IPv6 gives those that discard the loopback's index.
    if let Some(link) = oif(&message.attributes).filter(|_| !discards) {
        let dead = RouteFlags::Dead | RouteFlags::Linkdown;
        hops.push(Hop {
            link,
            gateway: gateway(&message.attributes, family)?,
            onlink: header.flags.contains(RouteFlags::Onlink),
            live: !header.flags.intersects(dead),
        });
    }

    let len = header.destination_prefix_length;
    let destination = match destination {
        Some(address) => Prefix::new(address, len).ok(),
        None if len == 0 => Some(Prefix::everything(family)),
        None => None,
    };
    let destination = destination.ok_or(Unreadable::Invalid("route with impossible prefix"))?;
    Ok(Record::Route(Route {
        table,
        destination: destination.network(),
        hops,
        metric,
        preference,
        protocol: header.protocol.into(),
        mtu,
        advmss,
        plain,
        discards,
        cached: header.flags.contains(RouteFlags::Cloned),
        nexthop,
    }))
}

/// One way of several, and whether the hop says all of it.
fn of_multipath(way: &RouteNextHop, family: Family) -> Result<(Hop, bool), Unreadable> {
    let encapsulated = way
        .attributes
        .iter()
        .any(|it| matches!(it, RouteAttribute::Encap(_) | RouteAttribute::EncapType(_)));
    let dead = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
    let hop = Hop {
        link: way.interface_index,
        gateway: gateway(&way.attributes, family)?,
        onlink: way.flags.contains(RouteNextHopFlags::Onlink),
        live: !way.flags.intersects(dead),
    };
    Ok((hop, !encapsulated))
}

fn oif(attributes: &[RouteAttribute]) -> Option<u32> {
    attributes.iter().find_map(|it| match it {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// The gateway; for an IPv4 route it may be an IPv6 one (RFC 5549).
fn gateway(attributes: &[RouteAttribute], family: Family) -> Result<Option<IpAddr>, Unreadable> {
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(value) => return address(value, family).map(Some),
            RouteAttribute::Via(RouteVia::Inet(v4)) => return Ok(Some((*v4).into())),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => return Ok(Some((*v6).into())),
            RouteAttribute::Via(_) => return Err(Unreadable::Invalid("gateway of odd family")),
            _ => {}
        }
    }
    Ok(None)
}

fn address(value: &RouteAddress, family: Family) -> Result<IpAddr, Unreadable> {
    match (value, family) {
        (RouteAddress::Inet(v4), Family::V4) => Ok((*v4).into()),
        (RouteAddress::Inet6(v6), Family::V6) => Ok((*v6).into()),
        _ => Err(Unreadable::Invalid("address of another family than its route")),
    }
}

/// Higher is better; what is reserved counts as medium (RFC 4191, section 2.2).
fn rank(preference: RoutePreference) -> i8 {
    match preference {
        RoutePreference::High => 1,
        RoutePreference::Low => -1,
        _ => 0,
    }
}
