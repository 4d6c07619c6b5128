//! Carries out [`NamespaceOp`]s: each is one rtnetlink request.

use crate::desired::{WantedAddress, WantedRoute};
use crate::log::Log;
use crate::namespace::TAG;
use crate::netlink::{Netlink, NetlinkError};
use crate::op::NamespaceOp;
use crate::reconcile::{Attempt, Queue};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, InetDevConf, LinkAttribute, LinkMessage, Prop,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
};
use nix::errno::Errno;
use pasta_ipc::types::{Family, IfName, Mtu, TAP_QUEUE_FRAMES};
use rtnetlink::{AddressMessageBuilder, LinkUnspec, RouteMessageBuilder};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A lifetime without end (`INFINITY_LIFE_TIME`, `net/addrconf.h`).
const FOREVER: u32 = u32::MAX;

/// The namespace, to be changed: a socket in it, and which link is the tap.
#[derive(Debug)]
pub struct Namespace {
    netlink: Netlink,
    tap: u32,
    added: BTreeSet<WantedAddress>,
    /// What has been refused at any time, of which the log knows.
    logged: BTreeSet<NamespaceOp>,
}

impl Namespace {
    /// `netlink` is a socket in the namespace, `tap` the tap's index there.
    pub fn new(netlink: Netlink, tap: u32) -> Self {
        Self { netlink, tap, added: BTreeSet::new(), logged: BTreeSet::new() }
    }

    /// The socket.
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Index of the tap.
    pub fn tap(&self) -> u32 {
        self.tap
    }

    /// The addresses that we have added in this run.
    pub fn added(&self) -> &BTreeSet<WantedAddress> {
        &self.added
    }

    /// Gives the tap the name `new`, and keeps `old` as an alternative one, by which programs that
    /// know it reach the link and its addresses.
    ///
    /// # Errors
    ///
    /// What the kernel refused. Then the name is as before, and `new` is an alternative one if it can
    /// be.
    pub async fn rename(&self, old: &IfName, new: &IfName) -> Result<(), NetlinkError> {
        let link = LinkUnspec::new_with_index(self.tap).name(new.as_str().to_owned()).build();
        let renamed = self.netlink.change(set(link), 0).await;
        let added = self.add_name(if renamed.is_ok() { old } else { new }).await;
        renamed.and(added)
    }

    /// Gives the tap `name` as an alternative one.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub async fn add_name(&self, name: &IfName) -> Result<(), NetlinkError> {
        let mut message = LinkUnspec::new_with_index(self.tap).build();
        let name = Prop::AltIfName(name.as_str().to_owned());
        message.attributes.push(LinkAttribute::PropList(vec![name]));
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND;
        self.netlink.change(RouteNetlinkMessage::NewLinkProp(message), flags).await
    }

    /// Makes room for more frames in the tap than the kernel does by itself. This is a part of making
    /// the tap, which goes by netlink because the ioctl needs privilege on the host.
    pub async fn lengthen_queue(&self, log: &Log) {
        let link = LinkUnspec::new_with_index(self.tap).txqueuelen(TAP_QUEUE_FRAMES).build();
        if let Err(error) = self.netlink.change(set(link), 0).await {
            log.debug(&format!("cannot lengthen the tap's queue: {error}"));
        }
    }

    /// Gives the tap the MTU that clients in the namespace are offered: they set none that is larger than
    /// the link's. That it cannot be is no reason not to work.
    pub async fn set_mtu(&self, mtu: Mtu, log: &Log) {
        let (request, flags) = request(&NamespaceOp::SetMtu(mtu), self.tap);
        if let Err(error) = self.netlink.change(request, flags).await {
            log.warn(&format!("cannot set the tap's MTU to {}: {error}", mtu.get()));
        }
    }

    /// Carries out `ops` in the order of a [`Queue`], and gives those that the kernel refused, which are
    /// logged.
    pub async fn apply(&mut self, ops: Vec<NamespaceOp>, log: &Log) -> Vec<NamespaceOp> {
        let mut queue = Queue::new(ops);
        while let Some(op) = queue.front() {
            let result = self.carry_out(&op).await;
            queue.tried(match result {
                Ok(()) => {
                    log.debug(&format!("namespace: {op}: done"));
                    Attempt::Done
                }
                Err(NetlinkError::Refused(Errno::ENETUNREACH | Errno::EHOSTUNREACH)) => {
                    Attempt::TooEarly
                }
                Err(error) => {
                    self.log_refusal(&op, error, log);
                    Attempt::Refused
                }
            });
        }
        for op in queue.waiting() {
            self.log_refusal(op, NetlinkError::Refused(Errno::ENETUNREACH), log);
        }
        queue.into_refused()
    }

    fn log_refusal(&mut self, op: &NamespaceOp, error: NetlinkError, log: &Log) {
        // The kernel says "permission denied" for this, which would send people the wrong way.
        let disabled = error == NetlinkError::Refused(Errno::EACCES);
        let hint = if disabled { " (IPv6 is switched off there: disable_ipv6)" } else { "" };
        let text = format!("namespace: cannot {op}: {error}{hint}");
        match op {
            // Comforts: without them addresses take a second, or a removal needs another round.
            NamespaceOp::PromoteSecondaries | NamespaceOp::SetAddressGeneration(_) => {
                log.debug(&text);
            }
            _ if !self.logged.insert(*op) => log.debug(&text),
            _ => log.warn(&text),
        }
    }

    /// Carries out one operation; that there is nothing left to do is success.
    async fn carry_out(&mut self, op: &NamespaceOp) -> Result<(), NetlinkError> {
        let (request, flags) = request(op, self.tap);
        let result = self.netlink.change(request, flags).await;
        let removal = matches!(op, NamespaceOp::RemoveAddress(_) | NamespaceOp::RemoveRoute(_));
        match result {
            Err(NetlinkError::Refused(Errno::EEXIST)) => {}
            Err(NetlinkError::Refused(Errno::ESRCH | Errno::EADDRNOTAVAIL)) if removal => {}
            result => result?,
        }
        match op {
            NamespaceOp::AddAddress(address) => {
                self.added.insert(address.with_deprecated(false));
            }
            NamespaceOp::RemoveAddress(address) => {
                self.added.remove(&address.with_deprecated(false));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The request for `op`, and its flags.
fn request(op: &NamespaceOp, tap: u32) -> (RouteNetlinkMessage, u16) {
    let link = || LinkUnspec::new_with_index(tap);
    match op {
        NamespaceOp::SetMtu(mtu) => (set(link().mtu(mtu.get().into()).build()), 0),
        NamespaceOp::PromoteSecondaries => {
            let mut settings = InetDevConf::default();
            settings.promote_secondaries = 1;
            let inet = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(settings)]);
            (set_protocol_part(tap, inet), 0)
        }
        NamespaceOp::SetAddressGeneration(mode) => {
            let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode.0.into())]);
            (set_protocol_part(tap, inet6), 0)
        }
        NamespaceOp::RaiseTap => (set(link().up().build()), 0),
        NamespaceOp::AddAddress(wanted) => {
            (RouteNetlinkMessage::NewAddress(address(wanted, tap)), NLM_F_CREATE | NLM_F_EXCL)
        }
        NamespaceOp::AdjustAddress(wanted) => {
            (RouteNetlinkMessage::NewAddress(address(wanted, tap)), NLM_F_CREATE | NLM_F_REPLACE)
        }
        NamespaceOp::RemoveAddress(wanted) => {
            (RouteNetlinkMessage::DelAddress(address(wanted, tap)), 0)
        }
        NamespaceOp::AddRoute(wanted) => {
            (RouteNetlinkMessage::NewRoute(route(wanted, tap)), NLM_F_CREATE | NLM_F_EXCL)
        }
        NamespaceOp::ReplaceRoute(wanted) => {
            (RouteNetlinkMessage::NewRoute(route(wanted, tap)), NLM_F_CREATE | NLM_F_REPLACE)
        }
        NamespaceOp::RemoveRoute(wanted) => (RouteNetlinkMessage::DelRoute(route(wanted, tap)), 0),
    }
}

fn set(message: LinkMessage) -> RouteNetlinkMessage {
    RouteNetlinkMessage::SetLink(message)
}

fn set_protocol_part(tap: u32, part: AfSpecUnspec) -> RouteNetlinkMessage {
    let part = LinkAttribute::AfSpecUnspec(vec![part]);
    set(LinkUnspec::new_with_index(tap).append_extra_attribute(part).build())
}

fn address(wanted: &WantedAddress, tap: u32) -> AddressMessage {
    let len = wanted.prefix.bits();
    let mut message = match wanted.prefix.address() {
        IpAddr::V4(v4) => {
            AddressMessageBuilder::<Ipv4Addr>::new().address(v4, len).index(tap).build()
        }
        IpAddr::V6(v6) => {
            AddressMessageBuilder::<Ipv6Addr>::new().address(v6, len).index(tap).build()
        }
    };
    let mut flags = AddressFlags::empty();
    if wanted.prefix.family() == Family::V6 {
        flags |= AddressFlags::Nodad;
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    if !wanted.prefix_route {
        flags |= AddressFlags::Noprefixroute;
    }
    message.attributes.push(AddressAttribute::Flags(flags));
    let mut times = CacheInfo::default();
    times.ifa_valid = FOREVER;
    times.ifa_preferred = if wanted.deprecated { 0 } else { FOREVER };
    message.attributes.push(AddressAttribute::CacheInfo(times));
    message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(TAG)));
    message
}

fn route(wanted: &WantedRoute, tap: u32) -> RouteMessage {
    let len = wanted.destination.bits();
    let mut message = match wanted.destination.address() {
        IpAddr::V4(v4) => {
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, len).build()
        }
        IpAddr::V6(v6) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, len).build()
        }
    };
    let header = &mut message.header;
    header.protocol = RouteProtocol::Other(TAG);
    if wanted.onlink {
        header.flags |= RouteFlags::Onlink;
    }
    let v4 = wanted.destination.family() == Family::V4;
    if v4 && wanted.gateway.is_none() {
        header.scope = RouteScope::Link;
    }
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Oif(tap));
    attributes.push(RouteAttribute::Priority(wanted.metric));
    match wanted.gateway {
        Some(IpAddr::V6(router)) if v4 => attributes.push(RouteAttribute::Via(router.into())),
        Some(router) => attributes.push(RouteAttribute::Gateway(RouteAddress::from(router))),
        None => {}
    }
    let mut metrics: Vec<_> = wanted.mtu.map(RouteMetric::Mtu).into_iter().collect();
    metrics.extend(wanted.advmss.map(RouteMetric::Advmss));
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode;
    use crate::net::testing::{ip, net};
    use crate::record::Record;
    use netlink_packet_core::NetlinkSerializable;

    /// What a request says, read by our own decoder.
    fn read_back(op: NamespaceOp) -> Record {
        let (message, _) = request(&op, 7);
        let mut octets = vec![0; NetlinkSerializable::buffer_len(&message)];
        message.serialize(&mut octets);
        decode(message.message_type(), &octets).unwrap()
    }

    #[test]
    fn addresses_say_what_was_wanted_and_carry_our_tag() {
        for (text, prefix_route) in [("192.0.2.7/24", true), ("2001:db8::7/128", false)] {
            let deprecated = !prefix_route;
            let wanted = WantedAddress { prefix: net(text), prefix_route, deprecated };
            let Record::Address(found) = read_back(NamespaceOp::AddAddress(wanted)) else {
                panic!("not an address");
            };
            assert_eq!((found.link, found.prefix, found.peer), (7, net(text), None));
            assert_eq!((found.prefix_route, found.tag), (prefix_route, Some(TAG)));
            assert_eq!(found.deprecated, deprecated);
        }
    }

    #[test]
    fn routes_say_what_was_wanted_and_carry_our_tag() {
        for (to, via, onlink) in [
            ("0.0.0.0/0", "192.0.2.1", false),
            ("203.0.113.0/24", "fe80::1", true),
            ("2001:db8::/32", "fe80::1", false),
        ] {
            let wanted = WantedRoute {
                destination: net(to),
                gateway: Some(ip(via)),
                onlink,
                metric: 600,
                mtu: Some(1400),
                advmss: None,
            };
            let Record::Route(found) = read_back(NamespaceOp::AddRoute(wanted)) else {
                panic!("not a route");
            };
            let [hop] = &found.hops[..] else { panic!("not one hop") };
            assert_eq!((hop.link, hop.gateway, hop.onlink), (7, Some(ip(via)), onlink));
            assert_eq!((found.destination, found.metric), (net(to), 600));
            assert_eq!((found.mtu, found.advmss), (Some(1400), None));
            assert_eq!((found.table, found.protocol), (crate::host::TABLE_MAIN, TAG));
        }
    }
}
