//! Dumps → [`HostView`] and [`NamespaceReading`].

use crate::desired::WantedAddress;
use crate::far::{self, Wanted};
use crate::host::{HostView, MAX_ADDRESSES, MAX_ROUTES_OF_LINK, Routing};
use crate::log::Log;
use crate::namespace::{Collector, NamespaceReading, Near, TAG};
use crate::neighbours::Neighbours;
use crate::netlink::{Netlink, NetlinkError, Quality};
use crate::record::{Collect, Record, Route, Rule};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use pasta_ipc::types::Family;
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

/// An address that only a way to the whole world leads to: a root server's (`a.root-servers.net`).
/// The kernel is asked for the way there; nothing is sent.
const FAR_V4: Ipv4Addr = Ipv4Addr::new(198, 41, 0, 4);
/// As [`FAR_V4`].
const FAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30);

/// A reading of the host.
#[derive(Clone, Debug)]
pub struct HostReading {
    /// What it has.
    pub view: HostView,
    /// Whether all of it was read, at one moment. If not, nothing may be thought gone.
    pub complete: bool,
    /// Why something could not be read at all.
    pub failure: Option<String>,
}

/// Reads what the host has. What cannot be read is left out; how it finds its way is then as `before`.
pub async fn host(netlink: &Netlink, before: &HostView, log: &Log) -> HostReading {
    let mut view = HostView::default();
    let mut complete = true;
    let mut failure = None;
    let read = netlink.dump_nexthops(&mut view).await;
    complete &= read.as_ref().is_ok_and(|it| it.consistent);
    match read {
        Err(error) => failure = Some(format!("host: cannot read nexthops: {error}")),
        read => drop(report(read, "host", "nexthops", log)),
    }
    for (name, what, family) in [
        ("links", links as fn() -> RouteNetlinkMessage, None),
        ("addresses", addresses, None),
        ("IPv4 routes", routes_v4, Some(Family::V4)),
        ("IPv6 routes", routes_v6, Some(Family::V6)),
    ] {
        let mut only = Only { family, into: std::mem::take(&mut view) };
        let read = netlink.dump(what, &mut only).await;
        view = only.into;
        complete &= read.as_ref().is_ok_and(|it| it.consistent);
        match read {
            Err(error) => failure = Some(format!("host: cannot read {name}: {error}")),
            read => drop(report(read, "host", name, log)),
        }
    }
    for family in Family::BOTH {
        let found = routing(netlink, family, log).await;
        complete &= found.is_some();
        let kept = || before.routing.get(family).clone();
        *view.routing.get_mut(family) = found.unwrap_or_else(kept);
    }
    if view.left_out > 0 {
        let text = format!(
            "host has more than we look at: {} objects left out; of an interface {MAX_ADDRESSES} addresses of \
             a family and {MAX_ROUTES_OF_LINK} routes are copied",
            view.left_out
        );
        log.warn_once(("host", "left out"), &text);
    }
    HostReading { view, complete, failure }
}

/// Reads the neighbours on `links`, and says whether all of them were read, at one moment; if not, the log does
/// at debug.
pub async fn neighbours(netlink: &Netlink, links: BTreeSet<u32>, log: &Log) -> (Neighbours, bool) {
    let mut found = Neighbours::of(links);
    let all = || RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let complete = match netlink.dump(all, &mut found).await {
        Ok(quality) => quality.consistent,
        Err(error) => {
            log.debug(&format!("host: cannot read neighbours: {error}"));
            false
        }
    };
    (found, complete)
}

/// Reads what of the namespace is ours, or on the tap, which has index `tap`; `None` if not all of it can be read.
/// The rest is as it was read before: `far`. `added` are the addresses that we have added in this run.
///
/// The tap itself is read first and last. That is answered under the lock that all changes hold
/// (`rtnl_lock()`), so that afterwards the events of all that the dumps show have been queued.
pub async fn namespace(
    netlink: &Netlink,
    tap: u32,
    added: &BTreeSet<WantedAddress>,
    far: &Collector,
    log: &Log,
) -> Option<NamespaceReading> {
    let mut near = Near::of(tap);
    let tap_before = the_tap(netlink, tap, log).await?;
    let mut complete = true;
    for (name, family) in
        [("addresses", None), ("IPv4 routes", Some(Family::V4)), ("IPv6 routes", Some(Family::V6))]
    {
        let what = || match family {
            None => addresses_of(tap),
            Some(family) => our_routes(family, tap),
        };
        let mut only = Only { family, into: near };
        let read = netlink.dump(what, &mut only).await;
        near = only.into;
        complete &= read.as_ref().is_ok_and(|it| it.consistent);
        report(read, "namespace", name, log)?;
    }
    complete &= tap_before == the_tap(netlink, tap, log).await?;
    near.take(tap_before);
    let all = near.with(far);
    if all.left_out() > 0 {
        let text = format!("namespace has more than we look at: {} left out", all.left_out());
        log.warn_once(("namespace", "left out"), &text);
    }
    Some(NamespaceReading { view: all.view(tap, added)?, complete })
}

/// Reads the rest of the namespace, as far as it is `wanted`, through `socket`; `before` is what was read before.
/// What could not be read, or not at one moment, stays. False then.
pub async fn far(socket: impl AsFd, wanted: &Wanted, before: &Collector) -> (Collector, bool) {
    let mut found = Collector::default();
    let mut complete = true;
    for request in [addresses(), all_routes_v4(), all_routes_v6()] {
        complete &= far::dump(&socket, request, wanted, &mut found).await.unwrap_or(false);
    }
    found.forget_near(wanted.tap);
    if !complete {
        found.completed_by(before);
    }
    (found, complete)
}

/// Reads the tap; `None` if that is not possible, or it is not there.
async fn the_tap(netlink: &Netlink, tap: u32, log: &Log) -> Option<Record> {
    netlink
        .get(link(tap))
        .await
        .inspect_err(|error| log.warn(&format!("cannot read the tap: {error}")))
        .ok()
        .flatten()
}

/// Logs what is wrong with a dump; `None` if there is none.
fn report(
    read: Result<Quality, NetlinkError>,
    side: &'static str,
    name: &'static str,
    log: &Log,
) -> Option<()> {
    match read {
        Ok(quality) => {
            if let Some(why) = quality.why {
                let count = quality.unreadable;
                let text = format!("{side}: skipped {count} unreadable {name}, the first: {why}");
                log.warn_once((side, name), &text);
            }
            if !quality.consistent {
                log.debug(&format!("{side}: {name} kept changing while they were read"));
            }
            Some(())
        }
        Err(error) => {
            log.warn(&format!("{side}: cannot read {name}: {error}"));
            None
        }
    }
}

/// How the host finds its way to the rest of the world; `None` if that cannot be found out at present.
/// Asking is needed only where rules decide.
async fn routing(netlink: &Netlink, family: Family, log: &Log) -> Option<Routing> {
    let mut rules = Rules { family, others: false };
    let request = move || {
        let mut message = RuleMessage::default();
        message.header.family = address_family(family);
        RouteNetlinkMessage::GetRule(message)
    };
    let read = netlink.dump(request, &mut rules).await;
    let consistent = read.as_ref().is_ok_and(|it| it.consistent);
    // A kernel without policy routing has no rules to tell of.
    if !matches!(read, Err(NetlinkError::Refused(_))) {
        report(read, "host", "rules", log)?;
        if !consistent {
            return None;
        }
    }
    if !rules.others {
        return Some(Routing::MainTable);
    }
    match netlink.get(way_to_far(family)).await {
        Ok(Some(Record::Route(route))) => Some(Routing::Asked(route.hops.into_iter().next())),
        // A refusal is an answer: there is no way.
        Ok(_) | Err(NetlinkError::Refused(_)) => Some(Routing::Asked(None)),
        Err(error) => {
            log.warn(&format!("host: cannot ask for the way out: {error}"));
            None
        }
    }
}

/// Whether there are rules beside the standard ones.
#[derive(Clone, Debug)]
struct Rules {
    family: Family,
    others: bool,
}

impl Collect for Rules {
    fn take(&mut self, record: Record) {
        if let Record::Rule(Rule { family, standard }) = record {
            self.others |= family == self.family && !standard;
        }
    }
}

/// Takes the routes of one family only, where one is asked for. A kernel that lacks it answers with
/// those of all that it has (`rtnl_dump_all()`, `net/core/rtnetlink.c`), which are read by
/// themselves.
#[derive(Clone, Debug)]
struct Only<C> {
    family: Option<Family>,
    into: C,
}

impl<C: Collect> Collect for Only<C> {
    fn take(&mut self, record: Record) {
        let other = |route: &Route| self.family.is_some_and(|asked| asked != route.family());
        if !matches!(&record, Record::Route(route) if other(route)) {
            self.into.take(record);
        }
    }
}

/// Asks for the way to an address far away. The header of a lookup names nothing but that.
fn way_to_far(family: Family) -> RouteNetlinkMessage {
    let mut message = match family {
        Family::V4 => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(FAR_V4, 32).build(),
        Family::V6 => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(FAR_V6, 128).build()
        }
    };
    let header = &mut message.header;
    header.table = RouteHeader::RT_TABLE_UNSPEC;
    (header.protocol, header.kind) = (RouteProtocol::Unspec, RouteType::Unspec);
    RouteNetlinkMessage::GetRoute(message)
}

fn links() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    // Counters are most of a link message and of no interest.
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

fn link(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkUnspec::new_with_index(index).build())
}

fn addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

fn addresses_of(link: u32) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.index = link;
    RouteNetlinkMessage::GetAddress(message)
}

/// Our routes of one family through `link`, as far as the kernel filters.
fn our_routes(family: Family, link: u32) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(TAG);
    message.header.kind = RouteType::Unspec;
    message.attributes.push(RouteAttribute::Oif(link));
    RouteNetlinkMessage::GetRoute(message)
}

fn routes_v4() -> RouteNetlinkMessage {
    routes(Family::V4, RouteType::Unicast)
}

fn routes_v6() -> RouteNetlinkMessage {
    routes(Family::V6, RouteType::Unicast)
}

fn all_routes_v4() -> RouteNetlinkMessage {
    routes(Family::V4, RouteType::Unspec)
}

fn all_routes_v6() -> RouteNetlinkMessage {
    routes(Family::V6, RouteType::Unspec)
}

/// Routes of one kind in table main, as far as the kernel filters.
fn routes(family: Family, kind: RouteType) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = kind;
    RouteNetlinkMessage::GetRoute(message)
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Host;

    #[test]
    fn s59_routes_of_a_family_that_was_not_asked_for_are_not_read_twice() {
        let host = Host::default().route(2, "0.0.0.0/0", "192.0.2.1", 0).0;
        let route = host.routes.v4[0].clone();
        let mut view = HostView::default();
        for family in Family::BOTH {
            let mut only = Only { family: Some(family), into: std::mem::take(&mut view) };
            only.take(Record::Route(route.clone()));
            view = only.into;
        }
        assert_eq!(view, host);
    }
}
