//! Changing a network as its administrator does, and hearing what changes in it.

mod devices;
pub mod forgery;
mod nexthops;
mod rules;

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use super::Session;
use super::process::{self, Process};
use crate::Outcome;
use crate::netlink::{Netlink, address_message, family, receive, route_address};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

/// Groups of links, addresses and routes (`RTNLGRP_*`, linux/rtnetlink.h).
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];

/// What a network namespace has, or an event in it: one line each.
///
/// ```text
/// address 192.0.2.2/24 deprecated on 2
/// route 0.0.0.0/0 via 192.0.2.1 metric 100 on 2
/// ```
pub type Line = String;

/// The network namespace of the client, as its administrator sees it.
#[derive(Debug)]
pub struct Inside(File);

impl Inside {
    /// The namespace that `session`'s client runs in.
    ///
    /// # Errors
    ///
    /// When there is no client, or more than one below the `pasta` of the session.
    pub fn of(session: &mut Session) -> Outcome<Self> {
        let pasta = session.running().pid();
        let all = process::all()?;
        let is_below = |process: &&Process| {
            let mut at = process.pid;
            while at != pasta {
                match all.iter().find(|it| it.pid == at) {
                    Some(it) => at = it.parent,
                    None => return false,
                }
            }
            true
        };
        let mut clients = all.iter().filter(|it| it.name == "lab-client").filter(is_below);
        let client = clients.next().ok_or("no client below pasta")?;
        Ok(Self(File::open(format!("/proc/{}/ns/net", client.pid))?))
    }

    /// Runs `step` there.
    ///
    /// # Errors
    ///
    /// What `step` gives, and when the namespace cannot be entered.
    pub fn run<T: Send>(&self, step: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
        let entered = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            step()
        };
        thread::scope(|scope| scope.spawn(entered).join())
            .unwrap_or_else(|_| Err("a step in the namespace panicked".into()))
    }

    /// All addresses and routes of table main, without those of the loopback and link-local ones.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn show(&self) -> Outcome<Vec<Line>> {
        self.run(|| Admin::open()?.show())
    }

    /// Subscribes to changes of the network there.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn listen(&self) -> Outcome<Log> {
        self.run(Log::open)
    }
}

/// Changes what the calling thread's network namespace has.
#[derive(Debug)]
pub struct Admin(Netlink);

/// A route to be added or removed: default if `to` is none.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Destination and its length; none: everything.
    pub to: Option<(IpAddr, u8)>,
    /// The router.
    pub via: IpAddr,
    /// Index of the link.
    pub link: u32,
    /// Metric.
    pub metric: u32,
    /// Number of the table.
    pub table: u8,
}

impl Way {
    /// A default route of table main.
    pub fn default(link: u32, via: IpAddr, metric: u32) -> Self {
        Self { to: None, via, link, metric, table: RouteHeader::RT_TABLE_MAIN }
    }
}

impl Admin {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn open() -> io::Result<Self> {
        Netlink::open().map(Self)
    }

    /// Adds an address, without duplicate address detection.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add_address(&self, link: u32, address: IpAddr, prefix: u8) -> Outcome {
        let message = address_message(link, address, prefix);
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_ACK | NLM_F_CREATE).map(drop)
    }

    /// Adds an address that lives for so many seconds, or changes how long one lives. Duplicate
    /// address detection is as the link has it.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn lend_address(
        &self,
        link: u32,
        (address, prefix): (IpAddr, u8),
        (preferred, valid): (u32, u32),
    ) -> Outcome {
        let mut message = address_message(link, address, prefix);
        message.header.flags = AddressHeaderFlags::empty();
        message.attributes.retain(|it| !matches!(it, AddressAttribute::Flags(_)));
        let mut times = CacheInfo::default();
        (times.ifa_preferred, times.ifa_valid) = (preferred, valid);
        message.attributes.push(AddressAttribute::CacheInfo(times));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewAddress(message), flags).map(drop)
    }

    /// Has the kernel make privacy addresses beside an IPv6 address, or no longer: those that it has
    /// made go then (`IFA_F_MANAGETEMPADDR`, linux/if_addr.h). The link has to allow it, by its
    /// setting `use_tempaddr`.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn manage_privacy_of(
        &self,
        link: u32,
        (address, prefix): (IpAddr, u8),
        on: bool,
    ) -> Outcome {
        let mut message = address_message(link, address, prefix);
        if on {
            let flags = AddressFlags::Nodad | AddressFlags::Managetempaddr;
            message.attributes.retain(|it| !matches!(it, AddressAttribute::Flags(_)));
            message.attributes.push(AddressAttribute::Flags(flags));
        }
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewAddress(message), flags).map(drop)
    }

    /// Says where a neighbour is, for good.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn set_neighbour(&self, link: u32, address: IpAddr, mac: [u8; 6]) -> Outcome {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = link;
        message.header.state = NeighbourState::Permanent;
        let to = match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        };
        message.attributes.push(NeighbourAttribute::Destination(to));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewNeighbour(message), flags).map(drop)
    }

    /// Gives a link another name.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn rename(&self, link: u32, name: &str) -> Outcome {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Adds a route to everything by two routers, each on a link of its own.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add_default_of_two(&self, ways: [(u32, IpAddr); 2], metric: u32) -> Outcome {
        let [(link, router), _] = ways;
        let mut message = Way::default(link, router, metric).message();
        let single =
            |it: &RouteAttribute| matches!(it, RouteAttribute::Gateway(_) | RouteAttribute::Oif(_));
        message.attributes.retain(|it| !single(it));
        let hops = ways.map(|(link, router)| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = link;
            hop.attributes.push(RouteAttribute::Gateway(route_address(router)));
            hop
        });
        message.attributes.push(RouteAttribute::MultiPath(hops.to_vec()));
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_ACK | NLM_F_CREATE).map(drop)
    }

    /// Adds a route that prefers `source`.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add_default_from(&self, way: Way, source: IpAddr) -> Outcome {
        let mut message = way.message();
        message.attributes.push(RouteAttribute::PrefSource(route_address(source)));
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_ACK | NLM_F_CREATE).map(drop)
    }

    /// Adds a route to everything that no subnet says anything about.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add_onlink_default(&self, way: Way) -> Outcome {
        let mut message = way.message();
        message.header.flags |= RouteFlags::Onlink;
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_ACK | NLM_F_CREATE).map(drop)
    }

    /// Makes a pair of Ethernet links, the near one of number `index`.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add_veth_at(&self, index: u32, name: &str, peer: &str) -> Outcome {
        let mut there = LinkMessage::default();
        there.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        let mut here = LinkMessage::default();
        here.header.index = index;
        here.attributes.push(LinkAttribute::IfName(name.to_owned()));
        here.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(there))),
        ]));
        self.request(RouteNetlinkMessage::NewLink(here), NLM_F_ACK | NLM_F_CREATE).map(drop)
    }

    /// Removes an address.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn delete_address(&self, link: u32, address: IpAddr, prefix: u8) -> Outcome {
        let message = address_message(link, address, prefix);
        self.request(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK).map(drop)
    }

    /// Adds a route.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add_route(&self, way: Way) -> Outcome {
        self.request(RouteNetlinkMessage::NewRoute(way.message()), NLM_F_ACK | NLM_F_CREATE)
            .map(drop)
    }

    /// Adds a default route that throws packets away.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add_blackhole(&self, ipv6: bool, metric: u32) -> Outcome {
        let family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let mut message = all_routes(family);
        let header = &mut message.header;
        header.table = RouteHeader::RT_TABLE_MAIN;
        header.protocol = RouteProtocol::Static;
        header.scope = RouteScope::Universe;
        header.kind = RouteType::BlackHole;
        message.attributes.push(RouteAttribute::Priority(metric));
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_ACK | NLM_F_CREATE).map(drop)
    }

    /// Removes a route, whoever put it there.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn delete_route(&self, way: Way) -> Outcome {
        let mut message = way.message();
        // Whoever put it there.
        message.header.protocol = RouteProtocol::Unspec;
        message.header.scope = RouteScope::NoWhere;
        self.request(RouteNetlinkMessage::DelRoute(message), NLM_F_ACK).map(drop)
    }

    /// All addresses and routes of table main, as [`Inside::show`].
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn show(&self) -> Outcome<Vec<Line>> {
        let mut lines = Vec::new();
        for what in [
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            RouteNetlinkMessage::GetRoute(all_routes(AddressFamily::Inet)),
            RouteNetlinkMessage::GetRoute(all_routes(AddressFamily::Inet6)),
        ] {
            let found = self.request(what, NLM_F_DUMP)?;
            lines.extend(found.iter().filter_map(describe));
        }
        Ok(lines)
    }

    fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Outcome<Vec<RouteNetlinkMessage>> {
        let text = format!("{message:?}");
        let answers = self.0.request(message, NLM_F_REQUEST | flags);
        Ok(answers.map_err(|error| format!("{text}: {error}"))?)
    }
}

/// What has changed in a network namespace since it was opened.
#[derive(Debug)]
pub struct Log {
    socket: Socket,
    lines: Vec<Line>,
}

impl Log {
    fn open() -> Outcome<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket, lines: Vec::new() })
    }

    /// Waits until something may have changed since the last look.
    ///
    /// # Errors
    ///
    /// When nothing does within `limit`.
    pub fn wait(&self, limit: Duration) -> Outcome {
        let fd = self.socket.as_fd();
        let mut polled = [PollFd::new(fd, PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::try_from(limit)?)? {
            0 => Err("nothing changes".into()),
            _ => Ok(()),
        }
    }

    /// All changes so far, in order: `+` or `-` and what it is about.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn lines(&mut self) -> Outcome<&[Line]> {
        loop {
            let payloads = match receive(&self.socket) {
                Ok(payloads) => payloads,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(&self.lines),
                Err(error) => return Err(error.into()),
            };
            for payload in payloads {
                let NetlinkPayload::InnerMessage(message) = payload else { continue };
                let gone = matches!(
                    message,
                    RouteNetlinkMessage::DelAddress(_) | RouteNetlinkMessage::DelRoute(_)
                );
                if let Some(line) = describe(&message) {
                    self.lines.push(format!("{} {line}", if gone { "-" } else { "+" }));
                }
            }
        }
    }
}

fn describe(message: &RouteNetlinkMessage) -> Option<Line> {
    match message {
        RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message) => {
            let own = message.attributes.iter().find_map(|it| match it {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let any = message.attributes.iter().find_map(|it| match it {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            let address = own.or(any)?;
            let link_local = matches!(address, IpAddr::V6(it) if it.is_unicast_link_local());
            if address.is_loopback() || link_local {
                return None;
            }
            let deprecated = message.header.flags.contains(AddressHeaderFlags::Deprecated);
            let deprecated = if deprecated { " deprecated" } else { "" };
            let header = &message.header;
            Some(format!("address {address}/{}{deprecated} on {}", header.prefix_len, header.index))
        }
        RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
            let header = &message.header;
            let ordinary = header.kind == RouteType::Unicast
                && header.table == RouteHeader::RT_TABLE_MAIN
                && header.protocol != RouteProtocol::Kernel;
            if !ordinary {
                return None;
            }
            let v6 = header.address_family == AddressFamily::Inet6;
            let (mut to, mut via, mut metric, mut link) = (None, String::new(), 0, 0);
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Destination(address) => to = ip_address(address),
                    RouteAttribute::Gateway(address) => {
                        via = ip_address(address).map(|it| format!(" via {it}"))?;
                    }
                    RouteAttribute::Priority(value) => metric = *value,
                    RouteAttribute::Oif(index) => link = *index,
                    _ => {}
                }
            }
            let all = if v6 { "::" } else { "0.0.0.0" };
            let to = to.map_or_else(|| all.to_owned(), |it| it.to_string());
            let len = header.destination_prefix_length;
            Some(format!("route {to}/{len}{via} metric {metric} on {link}"))
        }
        _ => None,
    }
}

impl Way {
    fn message(self) -> RouteMessage {
        let mut message = all_routes(family(self.via));
        let header = &mut message.header;
        header.destination_prefix_length = self.to.map_or(0, |(_, len)| len);
        header.table = self.table;
        header.protocol = RouteProtocol::Static;
        header.scope = RouteScope::Universe;
        header.kind = RouteType::Unicast;
        let attributes = &mut message.attributes;
        attributes.extend(self.to.map(|(to, _)| RouteAttribute::Destination(route_address(to))));
        attributes.push(RouteAttribute::Gateway(route_address(self.via)));
        attributes.push(RouteAttribute::Oif(self.link));
        attributes.push(RouteAttribute::Priority(self.metric));
        message
    }
}

fn all_routes(family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message
}

fn ip_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// Index of the link called `name` in the calling thread's network namespace.
///
/// # Errors
///
/// When there is none.
pub fn index_of(name: &str) -> Outcome<u32> {
    Ok(Netlink::open()?.link(name)?.index)
}
