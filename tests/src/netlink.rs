//! Links, addresses and routes of the calling thread's network namespace, over rtnetlink.
//!
//! One blocking socket, one request at a time. The lab builds its networks with it, and
//! `lab-client` shows with it what a namespace has.

use std::fmt::{self, Display};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::Outcome;
use crate::lab::wait;

/// Index and name of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in the namespace.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it can carry packets: up, and the other end too.
    pub running: bool,
    /// Largest packet, in octets.
    pub mtu: u32,
    /// Hardware address, empty where the link has none.
    pub mac: Vec<u8>,
}

/// An address on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link it is on.
    pub link: u32,
    /// The address itself.
    pub address: IpAddr,
    /// Length of the prefix, in bits.
    pub prefix: u8,
    /// Whether duplicate address detection has not ended.
    pub tentative: bool,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to; `None` is the default route.
    pub destination: Option<(IpAddr, u8)>,
    /// Next hop, if it is not on the link itself.
    pub gateway: Option<IpAddr>,
    /// Outgoing link.
    pub link: Option<u32>,
    /// Which family it belongs to (a default route names no address).
    pub ipv6: bool,
}

/// What a route does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Refuses them, with an ICMP error for host unreachable.
    Unreachable,
    /// Refuses them, with an ICMP error for a prohibited destination.
    Prohibited,
    /// Discards them and says nothing.
    BlackHole,
}

/// A MAC address as text.
#[derive(Debug)]
pub struct Mac<'a>(pub &'a [u8]);

impl Display for Mac<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, octet) in self.0.iter().enumerate() {
            write!(f, "{}{octet:02x}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

/// An rtnetlink socket.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace, where it stays.
    ///
    /// # Errors
    ///
    /// What `socket(2)` and `connect(2)` report.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Makes a pair of connected Ethernet links, `name` here and `peer` in the network namespace
    /// `peer_namespace`.
    ///
    /// # Errors
    ///
    /// What the kernel reports, for instance `EOPNOTSUPP` without the veth module.
    pub fn add_veth(
        &self,
        name: &str,
        peer: &str,
        peer_namespace: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut there = LinkMessage::default();
        there.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        there.attributes.push(LinkAttribute::NetNsFd(peer_namespace.as_raw_fd()));
        let mut here = LinkMessage::default();
        here.attributes.push(LinkAttribute::IfName(name.to_owned()));
        here.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(there))),
        ]));
        self.create(RouteNetlinkMessage::NewLink(here))
    }

    /// Brings link `index` up or down.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn set_up(&self, index: u32, up: bool) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.change_mask = LinkFlags::Up;
        link.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.request(RouteNetlinkMessage::SetLink(link), NLM_F_REQUEST | NLM_F_ACK).map(drop)
    }

    /// Gives link `index` an MTU.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_REQUEST | NLM_F_ACK).map(drop)
    }

    /// Waits until link `index` can carry packets. The kernel finds out some time after both ends
    /// were brought up, and until then whoever looks sees a link without a carrier.
    ///
    /// # Errors
    ///
    /// What the kernel reports, and when it takes longer than the lab's patience.
    pub fn wait_until_running(&self, index: u32) -> Outcome {
        wait::until("a carrier", || match self.links() {
            Ok(links) => {
                let running = links.iter().any(|link| link.index == index && link.running);
                running.then_some(Ok(()))
            }
            Err(error) => Some(Err(error.into())),
        })?
    }

    /// Removes link `index`.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn delete_link(&self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.request(RouteNetlinkMessage::DelLink(link), NLM_F_REQUEST | NLM_F_ACK).map(drop)
    }

    /// Moves link `index` to another network namespace.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn move_link(&self, index: u32, namespace: &impl AsFd) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()));
        self.request(RouteNetlinkMessage::SetLink(link), NLM_F_REQUEST | NLM_F_ACK).map(drop)
    }

    /// Gives link `index` an address, at once and without duplicate address detection.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        self.create(RouteNetlinkMessage::NewAddress(address_message(index, address, prefix)))
    }

    /// Adds a default route by way of `gateway` on link `index`.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add_default_route(&self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let mut message = route_message(gateway, 0, RouteType::Unicast);
        message.attributes.push(RouteAttribute::Gateway(route_address(gateway)));
        message.attributes.push(RouteAttribute::Oif(index));
        self.create(RouteNetlinkMessage::NewRoute(message))
    }

    /// Adds a route to one host that does not lead there.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add_dead_end(&self, host: IpAddr, fate: Fate) -> io::Result<()> {
        let kind = match fate {
            Fate::Unreachable => RouteType::Unreachable,
            Fate::Prohibited => RouteType::Prohibit,
            Fate::BlackHole => RouteType::BlackHole,
        };
        let prefix = if host.is_ipv6() { 128 } else { 32 };
        let mut message = route_message(host, prefix, kind);
        message.attributes.push(RouteAttribute::Destination(route_address(host)));
        self.create(RouteNetlinkMessage::NewRoute(message))
    }

    /// All links.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn links(&self) -> io::Result<Vec<Link>> {
        let replies = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(replies.into_iter().filter_map(link_from).collect())
    }

    /// The link called `name`.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is none, and what the kernel reports.
    pub fn link(&self, name: &str) -> io::Result<Link> {
        self.links()?
            .into_iter()
            .find(|link| link.name == name)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no link {name}")))
    }

    /// All addresses of both families.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn addresses(&self) -> io::Result<Vec<Address>> {
        let replies = self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        Ok(replies.into_iter().filter_map(address_from).collect())
    }

    /// The unicast routes of the main table, of both families.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn routes(&self) -> io::Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut wanted = RouteMessage::default();
            wanted.header.address_family = family;
            let replies = self.dump(RouteNetlinkMessage::GetRoute(wanted))?;
            routes.extend(replies.into_iter().filter_map(route_from));
        }
        Ok(routes)
    }

    fn create(&self, message: RouteNetlinkMessage) -> io::Result<()> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request(message, flags).map(drop)
    }

    fn dump(&self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.request(message, NLM_F_REQUEST | NLM_F_DUMP)
    }

    /// Sends one request and collects its answers, up to the acknowledgement or the end of the dump.
    pub(crate) fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        request.finalize();
        let mut octets = vec![0; request.buffer_len()];
        request.serialize(&mut octets);
        self.socket.send(&octets, 0)?;

        let mut answers = Vec::new();
        loop {
            for payload in receive(&self.socket)? {
                match payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    _ => {}
                }
            }
        }
    }
}

/// The messages of one datagram.
pub(crate) fn receive(socket: &Socket) -> io::Result<Vec<NetlinkPayload<RouteNetlinkMessage>>> {
    let (datagram, _) = socket.recv_from_full()?;
    let mut payloads = Vec::new();
    let mut rest = datagram.as_slice();
    while !rest.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
        rest = &rest[length..];
        payloads.push(message.payload);
    }
    Ok(payloads)
}

/// An address on link `index`, without duplicate address detection.
pub(crate) fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = prefix;
    message.header.family = family(address);
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

pub(crate) const fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

pub(crate) const fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn route_message(of_family: IpAddr, prefix: u8, kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(of_family);
    message.header.destination_prefix_length = prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = kind;
    message
}

fn link_from(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        running: message.header.flags.contains(LinkFlags::Running),
        mtu: 0,
        mac: Vec::new(),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(mac) => link.mac = mac,
            _ => {}
        }
    }
    Some(link)
}

fn address_from(message: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    // IFA_LOCAL is the address itself where it is there (IPv4); IFA_ADDRESS is then the peer's.
    let mut own = None;
    let mut other = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            _ => {}
        }
    }
    Some(Address {
        link: message.header.index,
        address: own.or(other)?,
        prefix: message.header.prefix_len,
        tentative: message.header.flags.contains(AddressHeaderFlags::Tentative),
    })
}

fn route_from(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route {
        destination: None,
        gateway: None,
        link: None,
        ipv6: header.address_family == AddressFamily::Inet6,
    };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                route.destination =
                    ip_address(to).map(|address| (address, header.destination_prefix_length));
            }
            RouteAttribute::Gateway(via) => route.gateway = ip_address(via),
            RouteAttribute::Oif(index) => route.link = Some(index),
            _ => {}
        }
    }
    Some(route)
}

fn ip_address(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(address)),
        _ => None,
    }
}
