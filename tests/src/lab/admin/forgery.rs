//! Messages that look like the kernel's, sent to whoever listens to it.
//!
//! An administrator of a network namespace may send to the netlink sockets of others there
//! (netlink(7)); only the sender's number, which is 0 for the kernel, tells one from the other.

use std::fs;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::Way;
use crate::Outcome;
use crate::netlink::address_message;

/// Numbers of the sockets in the calling thread's network namespace that subscribe to changes.
///
/// # Errors
///
/// When the kernel's list of them cannot be read.
pub fn listeners() -> Outcome<Vec<u32>> {
    let list = fs::read_to_string("/proc/thread-self/net/netlink")?;
    // Address, protocol, number, groups, and more.
    let of_routes = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, protocol, number, groups, ..] = fields[..] else { return None };
        let subscribed =
            protocol.parse() == Ok(NETLINK_ROUTE) && u32::from_str_radix(groups, 16) != Ok(0);
        number.parse().ok().filter(|_| subscribed)
    };
    Ok(list.lines().filter_map(of_routes).collect())
}

/// Tells `listener` that link `link` is gone, and with it an address and its default route; then
/// that there is `other` instead. Gives how many messages that were.
///
/// # Errors
///
/// What the kernel reports.
pub fn tell_of_a_loss(
    listener: u32,
    (link, name): (u32, &str),
    (address, prefix): (IpAddr, u8),
    router: IpAddr,
    other: IpAddr,
) -> io::Result<usize> {
    let mut gone = LinkMessage::default();
    gone.header.index = link;
    gone.attributes.push(LinkAttribute::IfName(name.to_owned()));
    gone.attributes.push(LinkAttribute::Mtu(1500));
    let forged = [
        RouteNetlinkMessage::DelRoute(Way::default(link, router, 0).message()),
        RouteNetlinkMessage::DelAddress(address_message(link, address, prefix)),
        RouteNetlinkMessage::DelLink(gone),
        RouteNetlinkMessage::NewAddress(address_message(link, other, prefix)),
    ];
    let socket = Socket::new(NETLINK_ROUTE)?;
    for message in &forged {
        let mut message = NetlinkMessage::from(message.clone());
        message.finalize();
        let mut octets = vec![0; message.buffer_len()];
        message.serialize(&mut octets);
        socket.send_to(&octets, &SocketAddr::new(listener, 0), 0)?;
    }
    Ok(forged.len())
}
