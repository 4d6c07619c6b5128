#![forbid(unsafe_code)]
//! [`NamespaceView`]: what the namespace has, and which parts of it are ours.
//!
//! Ours is what carries [`TAG`] and belongs to the tap; all else is foreign, the kernel's own objects
//! included. Kernels before 5.18 do not store a tag with addresses: there, ours are those that we added
//! in this run and that still have the shape we gave them.

use crate::desired::{WantedAddress, WantedRoute};
use crate::host::TABLE_MAIN;
use crate::net::is_link_local;
use crate::record::{Address, AddressGeneration, Collect, Link, Record, Route};
use pasta_ipc::types::{Family, Prefix};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What marks addresses (`IFA_PROTO`) and routes (`rtm_protocol`) as ours. Neither the kernel nor the
/// tables of iproute2 use this number.
pub const TAG: u8 = 112;

/// `RTPROT_KERNEL` (`linux/rtnetlink.h`): made along with an address.
const BY_KERNEL: u8 = 2;

/// Most addresses and most routes that are looked at.
const MAX_OBJECTS: usize = 16 * 1024;

/// Whose an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// We put it there.
    Ours,
    /// The kernel or a user of the namespace did.
    Foreign,
}

/// What the namespace has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceView {
    /// The tap.
    pub tap: Link,
    /// Addresses of all links, in the kernel's order.
    pub addresses: Vec<FoundAddress>,
    /// Routes of table main through all links, in the kernel's order.
    pub routes: Vec<FoundRoute>,
}

/// A reading of the namespace.
#[derive(Clone, Debug)]
pub struct NamespaceReading {
    /// What it has.
    pub view: NamespaceView,
    /// Whether all of it was read, at one moment. If not, nothing may be thought gone.
    pub complete: bool,
}

/// An address in the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundAddress {
    /// The address, in the form in which it would be wanted.
    pub address: WantedAddress,
    /// Whether it is on the tap.
    pub on_tap: bool,
    /// Whose it is.
    pub owner: Owner,
}

/// A route in the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundRoute {
    /// The route, in the form in which it would be wanted. One of several hops is as many routes.
    pub route: WantedRoute,
    /// Whether it leads through the tap.
    pub on_tap: bool,
    /// Whether the kernel made it by itself.
    pub of_kernel: bool,
    /// Whose it is.
    pub owner: Owner,
}

/// Collects the records of the dumps that make a [`NamespaceView`].
#[derive(Clone, Debug, Default)]
pub struct Collector {
    links: Vec<Link>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    left_out: usize,
}

impl Collect for Collector {
    fn take(&mut self, record: Record) {
        let room = |len: usize| len < MAX_OBJECTS;
        match record {
            Record::Link(link) if room(self.links.len()) => self.links.push(*link),
            Record::Address(address) if room(self.addresses.len()) => self.addresses.push(address),
            Record::Route(route) if route.table != TABLE_MAIN || route.cached => {}
            Record::Route(route) if room(self.routes.len()) => self.routes.push(route),
            Record::Rule(_) | Record::Neighbour(_) | Record::Nexthop(_) | Record::Other => {}
            Record::Link(_) | Record::Address(_) | Record::Route(_) => self.left_out += 1,
        }
    }
}

/// Takes what is on the tap, and routes only if they are ours: a kernel that filters dumps sends no others.
#[derive(Clone, Debug)]
pub struct Near {
    tap: u32,
    found: Collector,
}

impl Near {
    /// Nothing yet of the link with index `tap`.
    pub fn of(tap: u32) -> Self {
        Self { tap, found: Collector::default() }
    }

    /// What was found, and with it what is `far` from the tap.
    pub fn with(self, far: &Collector) -> Collector {
        let mut all = self.found;
        all.addresses.extend(far.addresses.iter().cloned());
        all.routes.extend(far.routes.iter().cloned());
        all.left_out += far.left_out;
        all
    }
}

impl Collect for Near {
    fn take(&mut self, record: Record) {
        let is_near = match &record {
            Record::Link(link) => link.index == self.tap,
            Record::Address(address) => address.link == self.tap,
            Record::Route(route) => is_ours(route, self.tap),
            _ => false,
        };
        if is_near {
            self.found.take(record);
        }
    }
}

/// Whether the first hop of a route is one that we made.
fn is_ours(route: &Route, tap: u32) -> bool {
    route.protocol == TAG && route.hops.first().is_some_and(|hop| hop.link == tap)
}

impl Collector {
    /// Leaves out routes that are read with what is on the tap, which has index `tap`.
    pub fn forget_near(&mut self, tap: u32) {
        self.routes.retain(|route| !is_ours(route, tap));
    }

    /// Adds what `before` had and this one, of dumps that were interrupted, lacks.
    pub fn completed_by(&mut self, before: &Self) {
        let addresses = before.addresses.iter().filter(|it| !self.addresses.contains(it));
        let routes = before.routes.iter().filter(|it| !self.routes.contains(it));
        let (addresses, routes): (Vec<_>, Vec<_>) = (addresses.collect(), routes.collect());
        self.addresses.extend(addresses.into_iter().cloned());
        self.routes.extend(routes.into_iter().cloned());
        self.addresses.truncate(MAX_OBJECTS);
        self.routes.truncate(MAX_OBJECTS);
    }

    /// How many routes there are.
    pub fn routes(&self) -> usize {
        self.routes.len()
    }

    /// One more was left out.
    pub fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// How many objects were left out for want of room.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The view; `None` if the link with index `tap` was not among the records. `added` are the
    /// addresses that we have added in this run.
    pub fn view(self, tap: u32, added: &BTreeSet<WantedAddress>) -> Option<NamespaceView> {
        // The kernel tags addresses of its own too, so any tag at all shows that it stores them.
        let stores_tags = self.addresses.iter().any(|it| it.tag.is_some());
        let address = |it: &Address| {
            let address = WantedAddress {
                prefix: it.prefix,
                prefix_route: it.prefix_route,
                deprecated: it.deprecated,
            };
            let on_tap = it.link == tap;
            let tagged = if stores_tags {
                it.tag == Some(TAG)
            } else {
                added.contains(&address.with_deprecated(false))
            };
            let ours = on_tap && tagged && it.peer.is_none();
            FoundAddress { address, on_tap, owner: if ours { Owner::Ours } else { Owner::Foreign } }
        };
        let route = |it: &Route, place: usize| {
            let hop = it.hops.get(place);
            // What users append to one of ours the kernel of IPv6 shows as more hops of ours, which is the first.
            let mixed = it.hops.len() > 1 && it.family() == Family::V4;
            let on_tap = hop.is_some_and(|hop| hop.link == tap);
            let ours = it.protocol == TAG && !it.discards && on_tap && place == 0 && !mixed;
            FoundRoute {
                // What a nexthop object that is not read leads to may be the tap.
                on_tap: on_tap || (hop.is_none() && it.nexthop.is_some()),
                of_kernel: it.protocol == BY_KERNEL,
                route: WantedRoute {
                    destination: it.destination,
                    gateway: hop.and_then(|hop| hop.gateway),
                    onlink: hop.is_some_and(|hop| hop.onlink),
                    metric: it.metric,
                    mtu: it.mtu,
                    advmss: it.advmss,
                },
                owner: if ours { Owner::Ours } else { Owner::Foreign },
            }
        };
        let routes = |it: &Route| {
            (0..it.hops.len().max(1)).map(|place| route(it, place)).collect::<Vec<_>>()
        };
        Some(NamespaceView {
            addresses: self.addresses.iter().map(address).collect(),
            routes: self.routes.iter().flat_map(routes).collect(),
            tap: self.links.into_iter().find(|link| link.index == tap)?,
        })
    }
}

impl NamespaceView {
    /// Addresses of `family` at which the namespace can be reached: no loopback, and link-local ones
    /// only of the tap.
    pub fn reachable_at(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        let of_family = self.addresses.iter().filter(move |it| it.family() == family);
        of_family
            .filter(|it| it.on_tap || !is_link_local(it.ip()))
            .map(FoundAddress::ip)
            .filter(|it| !it.is_loopback())
    }

    /// Whether there is this address, on any link.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|it| it.ip() == address)
    }

    /// Whether users of the namespace have a default route of `family`, through any link.
    pub fn has_foreign_default(&self, family: Family) -> bool {
        let everything = Prefix::everything(family);
        self.routes
            .iter()
            .any(|it| it.owner == Owner::Foreign && it.route.destination == everything)
    }

    /// Whether users of the namespace have put an address or a route on the tap.
    pub fn tap_is_in_use(&self) -> bool {
        let foreign = |owner| owner == Owner::Foreign;
        let address = |it: &FoundAddress| it.on_tap && foreign(it.owner) && !is_link_local(it.ip());
        let route = |it: &FoundRoute| it.on_tap && foreign(it.owner) && !it.of_kernel;
        self.addresses.iter().any(address) || self.routes.iter().any(route)
    }

    /// Our addresses.
    pub fn our_addresses(&self) -> impl Iterator<Item = WantedAddress> {
        self.addresses.iter().filter(|it| it.owner == Owner::Ours).map(|it| it.address)
    }

    /// Our routes.
    pub fn our_routes(&self) -> impl Iterator<Item = WantedRoute> {
        self.routes.iter().filter(|it| it.owner == Owner::Ours).map(|it| it.route)
    }

    /// How the kernel makes link-local addresses on the tap, if it has IPv6 there.
    pub fn address_generation(&self) -> Option<AddressGeneration> {
        self.tap.address_generation
    }
}

impl FoundAddress {
    /// The address without its prefix length.
    pub fn ip(&self) -> IpAddr {
        self.address.prefix.address()
    }

    fn family(&self) -> Family {
        self.address.prefix.family()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::op::NamespaceOp;
    use crate::record::LinkKind;
    use pasta_ipc::types::MacAddr;

    /// A namespace with a tap as it is right after it was made.
    pub(crate) fn fresh() -> NamespaceView {
        let tap = Link {
            index: 2,
            name: "tap0".into(),
            kind: LinkKind::Ordinary,
            mac: Some(MacAddr::OURS_BY_DEFAULT),
            up: false,
            carrier: true,
            loopback: false,
            enslaved: false,
            mtu: 1500,
            promotes_secondaries: Some(false),
            address_generation: Some(AddressGeneration::EUI64),
            without_ipv6: false,
            alternatives: Vec::new(),
        };
        NamespaceView { tap, addresses: Vec::new(), routes: Vec::new() }
    }

    /// Carries out `op`, without holding it to what the kernel would.
    pub(crate) fn apply(view: &mut NamespaceView, op: &NamespaceOp) {
        let NamespaceView { tap, addresses, routes } = view;
        let key = |it: &WantedRoute| (it.destination, it.metric);
        let ours = |route| FoundRoute { route, on_tap: true, of_kernel: false, owner: Owner::Ours };
        match *op {
            NamespaceOp::SetMtu(mtu) => tap.mtu = mtu.get().into(),
            NamespaceOp::PromoteSecondaries => tap.promotes_secondaries = Some(true),
            NamespaceOp::SetAddressGeneration(mode) => tap.address_generation = Some(mode),
            NamespaceOp::RaiseTap => tap.up = true,
            // What is there is so already.
            NamespaceOp::AddAddress(address)
                if addresses.iter().any(|it| it.address.prefix == address.prefix) => {}
            NamespaceOp::AddAddress(address) => {
                addresses.push(FoundAddress { address, on_tap: true, owner: Owner::Ours });
            }
            NamespaceOp::AdjustAddress(address) => {
                let there = addresses.iter_mut().find(|it| it.address.prefix == address.prefix);
                there.unwrap().address = address;
            }
            NamespaceOp::RemoveAddress(address) => addresses.retain(|it| it.address != address),
            NamespaceOp::AddRoute(route) => routes.push(ours(route)),
            NamespaceOp::ReplaceRoute(route) => {
                *routes.iter_mut().find(|it| key(&it.route) == key(&route)).unwrap() = ours(route);
            }
            NamespaceOp::RemoveRoute(route) => routes.retain(|it| it.route != route),
        }
    }

    /// What is not ours.
    pub(crate) fn foreign(view: &NamespaceView) -> (Vec<FoundAddress>, Vec<FoundRoute>) {
        let (mut addresses, mut routes) = (view.addresses.clone(), view.routes.clone());
        addresses.retain(|it| it.owner == Owner::Foreign);
        routes.retain(|it| it.owner == Owner::Foreign);
        (addresses, routes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::{Host, hop};
    use crate::net::testing::ip;

    /// Feeds what a [`Host`] would hold into a collector: the records are the same.
    fn collect(host: Host) -> Collector {
        let host = host.0;
        let mut collector = Collector::default();
        host.links.into_values().for_each(|it| collector.take(Record::Link(Box::new(it))));
        host.addresses.into_iter().for_each(|it| collector.take(Record::Address(it)));
        let routes = host.routes.v4.into_iter().chain(host.routes.v6);
        routes.for_each(|it| collector.take(Record::Route(it)));
        collector
    }

    fn tagged(address: &mut Address) {
        address.tag = Some(TAG);
    }

    #[test]
    fn only_tagged_objects_of_the_tap_are_ours() {
        let view = collect(
            Host::default()
                .link(2, "tap0")
                .link(3, "other")
                .address_with(2, "192.0.2.7/24", tagged)
                .address(2, "192.0.2.8/24")
                .address_with(3, "192.0.2.9/24", tagged)
                .route_with(2, "0.0.0.0/0", "192.0.2.1", |route| route.protocol = TAG)
                .route(2, "198.51.100.0/24", "192.0.2.1", 0)
                .route_with(3, "203.0.113.0/24", "192.0.2.1", |route| route.protocol = TAG)
                .route_with(2, "233.252.0.0/24", "192.0.2.1", |route| {
                    route.protocol = TAG;
                    route.hops.push(hop(3, ""));
                }),
        )
        .view(2, &BTreeSet::new())
        .unwrap();
        let ours: Vec<_> = view.our_addresses().map(|it| it.prefix.address()).collect();
        assert_eq!(ours, [ip("192.0.2.7")]);
        assert_eq!(view.our_routes().count(), 1);
        assert!(!view.has_foreign_default(Family::V4));
    }

    #[test]
    fn hops_that_users_append_to_a_route_of_ours_are_theirs() {
        let appended = |to: &str, first: &str, second: &str| {
            let host = Host::default().link(2, "tap0").route_with(2, to, first, |route| {
                route.protocol = TAG;
                route.hops.push(hop(2, second));
            });
            collect(host).view(2, &BTreeSet::new()).unwrap()
        };
        for to in ["::/0", "2001:db8:1::/48"] {
            let view = appended(to, "fe80::1", "fe80::99");
            let gateways = |owner| {
                let of = view.routes.iter().filter(move |it| it.owner == owner);
                of.map(|it| it.route.gateway.unwrap()).collect::<Vec<_>>()
            };
            assert_eq!(gateways(Owner::Ours), [ip("fe80::1")]);
            assert_eq!(gateways(Owner::Foreign), [ip("fe80::99")]);
            assert_eq!(view.has_foreign_default(Family::V6), to == "::/0");
        }
        // Of IPv4 a route has several hops only if it was made with them.
        assert_eq!(appended("0.0.0.0/0", "192.0.2.1", "192.0.2.9").our_routes().count(), 0);
    }

    #[test]
    fn without_tags_ours_are_those_we_added_and_that_kept_their_shape() {
        let (kept, changed) = ("192.0.2.7/24", "192.0.2.8/24");
        let view = |tag| {
            let host = Host::default()
                .link(2, "tap0")
                .address_with(1, "127.0.0.1/8", |it| it.tag = tag)
                .address(2, kept)
                .address_with(2, changed, |it| it.prefix_route = false);
            let wanted = |text| WantedAddress::new(crate::net::testing::net(text));
            let added = [wanted(kept), wanted(changed)].into();
            collect(host).view(2, &added).unwrap().our_addresses().count()
        };
        assert_eq!(view(None), 1);
        // A kernel that stores tags says so on its own addresses; then only the tag counts.
        assert_eq!(view(Some(1)), 0);
    }

    #[test]
    fn link_local_addresses_count_only_on_the_tap() {
        let view = collect(
            Host::default()
                .link(2, "tap0")
                .address(1, "::1/128")
                .address(2, "fe80::1/64")
                .address(3, "fe80::2/64")
                .address(3, "2001:db8::3/64"),
        )
        .view(2, &BTreeSet::new())
        .unwrap();
        let at: Vec<_> = view.reachable_at(Family::V6).collect();
        assert_eq!(at, [ip("fe80::1"), ip("2001:db8::3")]);
    }

    #[test]
    fn a_namespace_without_the_tap_has_no_view() {
        let collector = collect(Host::default().link(3, "other"));
        assert_eq!(collector.view(2, &BTreeSet::new()), None);
    }
}
