//! Netlink messages, as a kernel that has gone mad may send them.

use pasta_ipc::types::{Family, Prefix};
use pasta_monitor::decode::decode;
use pasta_monitor::record::{Address, Hop, Record, Route};
use std::net::IpAddr;

/// Types of the messages that are decoded: links, addresses, routes, neighbours, rules
/// (`linux/rtnetlink.h`).
const KINDS: [u16; 5] = [16, 20, 24, 32, 28];

/// Reads the first octet of `octets` as a type and the others as a message of it.
///
/// # Panics
///
/// If a record breaks an invariant of its type, or equal octets give different answers.
pub fn check(octets: &[u8]) {
    let Some((&kind, payload)) = octets.split_first() else { return };
    let kind = KINDS.get(usize::from(kind)).copied().unwrap_or(kind.into());
    let decoded = decode(kind, payload);
    assert_eq!(decoded, decode(kind, payload));
    match decoded {
        Ok(Record::Link(link)) => assert!(link.index != 0 && !link.name.is_empty()),
        Ok(Record::Address(address)) => check_address(&address),
        Ok(Record::Route(route)) => check_route(&route),
        Ok(Record::Neighbour(neighbour)) => assert_ne!(neighbour.link, 0),
        Ok(Record::Nexthop(_) | Record::Rule(_) | Record::Other) => {}
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}

fn check_address(address: &Address) {
    assert_ne!(address.link, 0);
    check_prefix(address.prefix);
    let family = address.prefix.family();
    assert!(address.peer.is_none_or(|peer| Family::of(peer) == family && peer != ours(address)));
    assert!(!(address.secondary && address.temporary), "one bit with both meanings");
    assert!(!address.secondary || family == Family::V4);
    assert!(!(address.temporary || address.unproven) || family == Family::V6);
}

fn ours(address: &Address) -> IpAddr {
    address.prefix.address()
}

fn check_route(route: &Route) {
    check_prefix(route.destination);
    assert_eq!(route.destination, route.destination.network(), "the host part is not clear");
    let family = route.family();
    // An IPv4 route may lead through an IPv6 router; the other way round there is none.
    let fits = |hop: &Hop| hop.gateway.is_none_or(|by| family == Family::V4 || by.is_ipv6());
    assert!(route.hops.iter().all(fits), "{route:?}");
}

fn check_prefix(prefix: Prefix) {
    assert!(prefix.bits() <= prefix.family().width());
    assert!(prefix.contains(prefix.address()));
    assert_eq!(prefix.network().network(), prefix.network());
}
