//! Nexthop objects (ip-nexthop(8)), and routes that use them.

use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteProtocol, RouteType};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{Admin, all_routes};
use crate::Outcome;
use crate::netlink::family;

// linux/rtnetlink.h, linux/nexthop.h.
const NEW_NEXTHOP: u16 = 104;
const DELETE_NEXTHOP: u16 = 105;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;

/// `struct nhmsg` and attributes.
#[derive(Debug)]
struct Nexthop {
    kind: u16,
    octets: Vec<u8>,
}

impl Nexthop {
    fn new(kind: u16, family: u8, id: u32) -> Self {
        let mut octets = vec![family, 0, 0, 0];
        octets.extend([0; 4]);
        Self { kind, octets }.with(NHA_ID, &id.to_ne_bytes())
    }

    fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.octets.extend((4 + value.len() as u16).to_ne_bytes());
        self.octets.extend(kind.to_ne_bytes());
        self.octets.extend(value);
        self
    }
}

impl NetlinkSerializable for Nexthop {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.octets.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.octets);
    }
}

impl From<Nexthop> for NetlinkPayload<Nexthop> {
    fn from(nexthop: Nexthop) -> Self {
        Self::InnerMessage(nexthop)
    }
}

impl Admin {
    /// Makes nexthop object `id`, or changes it: the way through `link` by `gateway`.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn set_nexthop(&self, id: u32, link: u32, gateway: IpAddr) -> Outcome {
        let (family, octets) = match gateway {
            IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
            IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
        };
        let object = Nexthop::new(NEW_NEXTHOP, family as u8, id);
        request(object.with(NHA_OIF, &link.to_ne_bytes()).with(NHA_GATEWAY, &octets))
    }

    /// Makes nexthop object `id` of others.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn set_nexthop_group(&self, id: u32, members: &[u32]) -> Outcome {
        let member = |id: &u32| [id.to_ne_bytes(), [0; 4]].concat();
        let members: Vec<_> = members.iter().flat_map(member).collect();
        request(Nexthop::new(NEW_NEXTHOP, 0, id).with(NHA_GROUP, &members))
    }

    /// Deletes nexthop object `id`, and with it the routes that use it.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn delete_nexthop(&self, id: u32) -> Outcome {
        request(Nexthop::new(DELETE_NEXTHOP, 0, id))
    }

    /// Adds a default route of the family of `of` by nexthop object `id`.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add_default_by_nexthop(&self, of: IpAddr, id: u32, metric: u32) -> Outcome {
        let mut message = all_routes(family(of));
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::NhId(id));
        message.attributes.push(RouteAttribute::Priority(metric));
        let flags = NLM_F_ACK | NLM_F_CREATE;
        self.request(RouteNetlinkMessage::NewRoute(message), flags).map(drop)
    }
}

/// Sends a request in the calling thread's network namespace, and waits for the kernel's answer.
fn request(nexthop: Nexthop) -> Outcome {
    let socket = Socket::new(NETLINK_ROUTE)?;
    let mut header = NetlinkHeader::default();
    let creates = if nexthop.kind == NEW_NEXTHOP { NLM_F_CREATE | NLM_F_REPLACE } else { 0 };
    header.flags = NLM_F_REQUEST | NLM_F_ACK | creates;
    let text = format!("{nexthop:?}");
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(nexthop));
    message.finalize();
    let mut octets = vec![0; message.buffer_len()];
    message.serialize(&mut octets);
    socket.send(&octets, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    // struct nlmsghdr, then a negative errno or 0.
    let code = answer.get(16..20).and_then(|it| <[u8; 4]>::try_from(it).ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        code => Err(format!("{text}: {code:?}").into()),
    }
}
