#![forbid(unsafe_code)]
//! [`HostView`]: what the host has, made of complete dumps.

use crate::decode::Notice;
use crate::net::{PerFamily, is_link_local};
use crate::record::{Address, Collect, Hop, Link, Nexthop, Record, Route, Ways};
use pasta_ipc::types::Family;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Most links that are kept.
pub const MAX_LINKS: usize = 4096;
/// Most addresses of one family that are kept of one link.
pub const MAX_ADDRESSES: usize = 64;
/// Most addresses that are kept of all links. Chosen: four for each of the most links.
pub const MAX_ADDRESSES_IN_ALL: usize = 4 * MAX_LINKS;
/// Most routes of one shape (default, on the link, through a gateway) kept of one link and family.
pub const MAX_ROUTES_OF_LINK: usize = 256;
/// Most routes of one family that are kept of all links.
pub const MAX_ROUTES: usize = 4096;

/// Most nexthop objects that are kept.
pub const MAX_NEXTHOPS: usize = 4096;

/// Number of the table that ordinary routes are in (`RT_TABLE_MAIN`).
pub const TABLE_MAIN: u32 = 254;

/// `RTPROT_KERNEL` (`linux/rtnetlink.h`): made along with an address.
const BY_KERNEL: u8 = 2;

/// What the host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostView {
    /// Links by index.
    pub links: BTreeMap<u32, Link>,
    /// Addresses of all links, in the kernel's order.
    pub addresses: Vec<Address>,
    /// Configured unicast routes of table main, in the kernel's order.
    pub routes: PerFamily<Vec<Route>>,
    /// How the host finds its way to the rest of the world.
    pub routing: PerFamily<Routing>,
    /// Nexthop objects by number; they are read before the routes that use them.
    pub nexthops: BTreeMap<u32, Nexthop>,
    /// How many objects were left out for want of room.
    pub left_out: usize,
    /// How many are kept of each link and sort.
    kept: BTreeMap<(u32, Sort), usize>,
    /// How many addresses and routes were left out of each link, where there were any.
    left_out_of: BTreeMap<(u32, Family), usize>,
}

/// What is counted apart when there is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    /// Addresses.
    Address(Family),
    /// Routes to everything.
    DefaultRoute(Family),
    /// Routes to what is on the link.
    OnLinkRoute(Family),
    /// All other routes.
    Route(Family),
}

/// How the host finds its way to the rest of the world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Routing {
    /// Only the standard rules exist, so table main says it all.
    #[default]
    MainTable,
    /// There are other rules. This is what the kernel answered when asked for the way to a global
    /// address; none if there is no way.
    Asked(Option<Hop>),
}

impl Collect for HostView {
    fn take(&mut self, record: Record) {
        let record = match record {
            Record::Route(route) => Record::Route(self.with_hops(route)),
            other => other,
        };
        let of_link = match &record {
            Record::Address(address) => Some((address.link, address.prefix.family())),
            // The kernel makes its own again, for the addresses.
            Record::Route(route) if route.protocol != BY_KERNEL => {
                route.hops.first().map(|hop| (hop.link, route.family()))
            }
            _ => None,
        };
        let kept = match record {
            Record::Link(link) => {
                let room = self.links.len() < MAX_LINKS;
                if room {
                    self.links.insert(link.index, *link);
                }
                room
            }
            Record::Address(address) => {
                let sort = Sort::Address(address.prefix.family());
                let room = self.addresses.len() < MAX_ADDRESSES_IN_ALL
                    && self.has_room(address.link, sort, MAX_ADDRESSES);
                if room {
                    self.addresses.push(address);
                }
                room
            }
            Record::Route(route) if !is_of_interest(&route) => return,
            Record::Route(route) => {
                let link = route.hops.first().map_or(0, |hop| hop.link);
                let room = self.routes.get(route.family()).len() < MAX_ROUTES
                    && self.has_room(link, sort_of(&route), MAX_ROUTES_OF_LINK);
                if room {
                    self.routes.get_mut(route.family()).push(route);
                }
                room
            }
            Record::Nexthop(nexthop) => {
                let room = self.nexthops.len() < MAX_NEXTHOPS;
                if room {
                    self.nexthops.insert(nexthop.id, nexthop);
                }
                room
            }
            Record::Rule(_) | Record::Neighbour(_) | Record::Other => return,
        };
        if !kept {
            self.left_out += 1;
            if let Some(link) = of_link.filter(|it| self.links.contains_key(&it.0)) {
                *self.left_out_of.entry(link).or_default() += 1;
            }
        }
    }
}

impl HostView {
    /// Whether what an event says is not in this view already.
    ///
    /// Lifetimes and counters are in no view, so an event about these alone changes nothing.
    pub fn is_change(&self, notice: &Notice) -> bool {
        match notice {
            Notice::There(Record::Link(link)) => {
                self.links.get(&link.index) != Some(link) || self.has_dead_hops(link)
            }
            Notice::There(Record::Address(address)) => !self.addresses.contains(address),
            Notice::There(Record::Route(route)) if is_of_interest(route) => {
                !self.routes.get(route.family()).contains(&self.with_hops(route.clone()))
            }
            // What the kernel answers may be another way now.
            Notice::There(Record::Route(route)) => self.may_decide(route),
            Notice::Gone(Record::Route(route)) => is_of_interest(route) || self.may_decide(route),
            // These are a table of their own.
            Notice::There(Record::Neighbour(_)) | Notice::Gone(Record::Neighbour(_)) => false,
            _ => true,
        }
    }

    /// Whether policy rules decide which table is looked at.
    pub fn has_rules(&self, family: Family) -> bool {
        matches!(self.routing.get(family), Routing::Asked(_))
    }

    /// Whether a way through `link` was read as dead although the link carries. The kernel has a link run a moment
    /// before its routes do, and of the second it says only that something about the link has changed.
    fn has_dead_hops(&self, link: &Link) -> bool {
        let dead = |it: &Hop| it.link == link.index && !it.live;
        let mut routes = Family::BOTH.into_iter().flat_map(|family| self.routes.get(family));
        link.up && link.carrier && routes.any(|route| route.hops.iter().any(dead))
    }

    /// Whether a route of another table may be the way to everything.
    fn may_decide(&self, route: &Route) -> bool {
        !route.cached && route.destination.bits() <= WIDE && self.has_rules(route.family())
    }

    /// Adds what `before` had and this view, of dumps that were interrupted, lacks. Nothing may be
    /// thought gone on the strength of such dumps.
    pub fn completed_by(&mut self, before: &Self) {
        for (index, link) in &before.links {
            self.links.entry(*index).or_insert_with(|| link.clone());
        }
        for (id, nexthop) in &before.nexthops {
            self.nexthops.entry(*id).or_insert_with(|| nexthop.clone());
        }
        let missing = |it: &&Address| {
            let same = |there: &Address| (there.link, there.prefix) == (it.link, it.prefix);
            !self.addresses.iter().any(same)
        };
        let addresses: Vec<_> = before.addresses.iter().filter(missing).cloned().collect();
        self.addresses.extend(addresses);
        for family in Family::BOTH {
            let routes = self.routes.get_mut(family);
            let missing = |it: &&Route| {
                // Two links may each have a route of one destination and metric.
                let links = |it: &Route| it.hops.iter().map(|hop| hop.link).collect::<Vec<_>>();
                let key = |it: &Route| (it.destination, it.metric, links(it));
                !routes.iter().any(|there| key(there) == key(it))
            };
            let more: Vec<_> = before.routes.get(family).iter().filter(missing).cloned().collect();
            routes.extend(more);
        }
    }

    /// The route with the hops of its nexthop object. Whether the kernel names them with the route too is a
    /// setting (`net.ipv4.nexthop_compat_mode`).
    fn with_hops(&self, mut route: Route) -> Route {
        if let Some(id) = route.nexthop.filter(|_| route.hops.is_empty() && !route.discards) {
            let of = |id: &u32| self.nexthops.get(id);
            let members = match of(&id).map(|it| &it.ways) {
                Some(Ways::Group(members)) => members.iter().filter_map(of).collect(),
                Some(Ways::One(_) | Ways::None) | None => of(&id).into_iter().collect(),
            };
            let members: Vec<&Nexthop> = members;
            route.plain &= members.iter().all(|it| it.plain);
            route.hops = members
                .iter()
                .filter_map(|it| match &it.ways {
                    Ways::One(hop) => Some(hop.clone()),
                    // Groups have no groups as members.
                    Ways::Group(_) | Ways::None => None,
                })
                .collect();
        }
        route
    }

    /// Counts one more of a link and sort; false if there are `most` already.
    fn has_room(&mut self, link: u32, sort: Sort, most: usize) -> bool {
        let kept = self.kept.entry((link, sort)).or_default();
        let room = *kept < most;
        *kept += usize::from(room);
        room
    }

    /// Addresses of one family on one link, in the kernel's order.
    pub fn addresses_of(&self, link: u32, family: Family) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |it| it.link == link && it.prefix.family() == family)
    }

    /// How many addresses and routes of `family` were left out of `link` for want of room.
    pub fn left_out_of(&self, link: u32, family: Family) -> usize {
        self.left_out_of.get(&(link, family)).copied().unwrap_or(0)
    }

    /// Whether any link has this address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|it| it.prefix.address() == address)
    }

    /// A link-local IPv6 address of `link` that is fit for use.
    pub fn link_local_of(&self, link: u32) -> Option<IpAddr> {
        self.addresses_of(link, Family::V6)
            .find(|it| is_link_local(it.prefix.address()) && !it.unproven)
            .map(|it| it.prefix.address())
    }

    /// Whether `link` exists, is up and has carrier.
    pub fn carries(&self, link: u32) -> bool {
        self.links.get(&link).is_some_and(|link| link.up && link.carrier)
    }
}

/// Longest destination of a route that can be a part of a way to everything: `2000::/3`.
pub const WIDE: u8 = 3;

/// Whether a route is one that a view would hold.
fn is_of_interest(route: &Route) -> bool {
    route.table == TABLE_MAIN && !route.cached && !route.discards
}

fn sort_of(route: &Route) -> Sort {
    let family = route.family();
    if route.destination.is_everything() {
        Sort::DefaultRoute(family)
    } else if route.hops.iter().all(|hop| hop.gateway.is_none()) {
        Sort::OnLinkRoute(family)
    } else {
        Sort::Route(family)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::net::testing::{ip, mac, net};
    use crate::record::LinkKind;

    /// Builds host views in the way `ip` commands would.
    #[derive(Default)]
    pub(crate) struct Host(pub(crate) HostView);

    impl Host {
        /// Adds a link that is up, has carrier and is of no special kind.
        pub(crate) fn link(self, index: u32, name: &str) -> Self {
            self.link_with(index, name, |_| {})
        }

        /// As `link`, changed by `change`.
        pub(crate) fn link_with(
            mut self,
            index: u32,
            name: &str,
            change: impl FnOnce(&mut Link),
        ) -> Self {
            let mut link = Link {
                index,
                name: name.into(),
                kind: LinkKind::Ordinary,
                mac: Some(mac([2, 0, 0, 0, 0, index as u8])),
                up: true,
                carrier: true,
                loopback: false,
                enslaved: false,
                mtu: 1500,
                promotes_secondaries: Some(false),
                address_generation: Some(crate::record::AddressGeneration::EUI64),
                without_ipv6: false,
                alternatives: Vec::new(),
            };
            change(&mut link);
            self.0.take(Record::Link(Box::new(link)));
            self
        }

        /// Adds an ordinary address.
        pub(crate) fn address(self, link: u32, prefix: &str) -> Self {
            self.address_with(link, prefix, |_| {})
        }

        /// As `address`, changed by `change`.
        pub(crate) fn address_with(
            mut self,
            link: u32,
            prefix: &str,
            change: impl FnOnce(&mut Address),
        ) -> Self {
            let mut address = Address {
                link,
                prefix: net(prefix),
                peer: None,
                secondary: false,
                temporary: false,
                deprecated: false,
                unproven: false,
                pending: false,
                prefix_route: true,
                tag: None,
            };
            change(&mut address);
            self.0.take(Record::Address(address));
            self
        }

        /// Adds a route; an empty `gateway` is one on the link.
        pub(crate) fn route(self, link: u32, to: &str, gateway: &str, metric: u32) -> Self {
            self.route_with(link, to, gateway, |route| route.metric = metric)
        }

        /// As `route`, changed by `change`.
        pub(crate) fn route_with(
            mut self,
            link: u32,
            to: &str,
            gateway: &str,
            change: impl FnOnce(&mut Route),
        ) -> Self {
            let mut route = Route {
                table: TABLE_MAIN,
                destination: net(to),
                hops: vec![hop(link, gateway)],
                metric: 0,
                preference: 0,
                protocol: 16,
                mtu: None,
                advmss: None,
                plain: true,
                cached: false,
                discards: false,
                nexthop: None,
            };
            change(&mut route);
            self.0.take(Record::Route(route));
            self
        }
    }

    /// A live way through `link`; an empty `gateway` is none.
    pub(crate) fn hop(link: u32, gateway: &str) -> Hop {
        let gateway = (!gateway.is_empty()).then(|| ip(gateway));
        Hop { link, gateway, onlink: false, live: true }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Host;
    use super::*;

    #[test]
    fn a_route_has_the_hops_of_its_nexthop_object_whether_the_kernel_repeats_them_or_not() {
        let way = |link, gateway| Ways::One(testing::hop(link, gateway));
        let objects = [
            (7, way(2, "192.0.2.1")),
            (8, way(3, "198.51.100.1")),
            (9, Ways::Group(vec![8, 7, 99])),
            (10, Ways::None),
        ];
        let mut host = Host::default().link(2, "eth0").link(3, "eth1").0;
        for (id, ways) in objects {
            host.take(Record::Nexthop(Nexthop { id, ways, plain: id != 8 }));
        }
        let by = |id, metric| {
            let mut host = Host::default().route(2, "0.0.0.0/0", "192.0.2.1", metric).0;
            let mut route = host.routes.v4.remove(0);
            (route.nexthop, route.hops) = (Some(id), Vec::new());
            route
        };
        for (metric, id) in [(1, 7), (2, 9), (3, 10), (4, 98)] {
            host.take(Record::Route(by(id, metric)));
        }
        let hops = |n: usize| &host.routes.v4[n].hops[..];
        let (one, other) = (testing::hop(2, "192.0.2.1"), testing::hop(3, "198.51.100.1"));
        assert_eq!((hops(0), hops(1)), (&[one.clone()][..], &[other, one][..]));
        assert_eq!((hops(2), hops(3)), (&[][..], &[][..]));
        assert!(host.routes.v4[0].plain && !host.routes.v4[1].plain);
        let event = |id, metric| Notice::There(Record::Route(by(id, metric)));
        assert!(!host.is_change(&event(7, 1)), "it is as it was read");
        assert!(host.is_change(&event(8, 1)));
    }

    #[test]
    fn a_link_that_runs_before_its_routes_do_is_looked_at_again() {
        let host = |live: bool| {
            Host::default().link(2, "eth0").route_with(2, "::/0", "fe80::1", |route| {
                route.hops[0].live = live;
            })
        };
        let event = Notice::There(Record::Link(Box::new(host(true).0.links[&2].clone())));
        assert!(host(false).0.is_change(&event));
        assert!(!host(true).0.is_change(&event));
        // While it has no carrier, its ways are dead for good reason.
        let down = host(false).link_with(2, "eth0", |link| link.carrier = false);
        let event = Notice::There(Record::Link(Box::new(down.0.links[&2].clone())));
        assert!(!down.0.is_change(&event));
    }

    #[test]
    fn default_and_connected_routes_are_kept_however_many_others_there_are() {
        let mut host = Host::default().link(2, "eth0");
        for n in 0..600_u32 {
            let to = format!("{}/32", std::net::Ipv4Addr::from(0x0a00_0000 + n));
            host = host.route(2, &to, "192.0.2.1", 0);
        }
        let host = host.route(2, "0.0.0.0/0", "192.0.2.1", 0).route(2, "192.0.2.0/24", "", 0).0;
        assert_eq!(host.routes.v4.len(), MAX_ROUTES_OF_LINK + 2);
        assert_eq!(host.left_out, 600 - MAX_ROUTES_OF_LINK);
    }

    #[test]
    fn addresses_of_one_link_are_bounded_and_leave_space_for_others() {
        let mut host = Host::default().link(2, "eth0").link(3, "eth1");
        for n in 0..100 {
            host = host.address(2, &format!("192.0.2.{n}/24"));
        }
        let host = host.address(3, "198.51.100.1/24").address(2, "2001:db8::1/64").0;
        assert_eq!(host.addresses_of(2, Family::V4).count(), MAX_ADDRESSES);
        assert_eq!(host.addresses_of(3, Family::V4).count(), 1);
        assert_eq!(host.addresses_of(2, Family::V6).count(), 1);
    }

    #[test]
    fn what_an_interrupted_reading_lacks_is_still_there() {
        let before = Host::default()
            .link(2, "eth0")
            .link(3, "wlan0")
            .address(2, "2001:db8::7/64")
            .address(3, "2001:db8:5::7/64")
            .route(2, "::/0", "fe80::1", 1024)
            .route(3, "::/0", "fe80::1", 1024)
            .0;
        let part = || Host::default().link(3, "wlan0").address(3, "2001:db8:5::7/64");
        let mut read = part().route(3, "::/0", "fe80::1", 1024).0;
        read.completed_by(&before);
        for index in [2, 3] {
            assert!(read.carries(index));
            assert_eq!(read.addresses_of(index, Family::V6).count(), 1);
            let through = |route: &&Route| route.hops[0].link == index;
            assert_eq!(read.routes.v6.iter().filter(through).count(), 1, "through {index}");
        }
        // What was read is as it was read: another router took the place of the one before.
        let mut read = part().route(3, "::/0", "fe80::9", 1024).0;
        read.completed_by(&before);
        assert_eq!(read.routes.v6.len(), 2);
        assert_eq!(read.routes.v6[0].hops, [super::testing::hop(3, "fe80::9")]);
    }

    #[test]
    fn routes_of_other_tables_and_cache_entries_are_not_kept() {
        let host = Host::default()
            .route_with(2, "0.0.0.0/0", "192.0.2.1", |route| route.table = 100)
            .route_with(2, "0.0.0.0/0", "192.0.2.1", |route| route.cached = true)
            .0;
        assert_eq!(host, HostView::default());
    }
}
