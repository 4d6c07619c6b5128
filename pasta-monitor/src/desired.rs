#![forbid(unsafe_code)]
//! What the namespace should look like: host view, policy and template → [`Wanted`] of each family, and
//! both joined → [`Desired`].
//!
//! Addresses: those of `-a`; else all usable ones of the template, primary first; else, without a
//! template, 169.254.2.1/16. IPv6 has no address of local mode, but always a link-local one on the tap.
//!
//! Routes: with `-g` one default route; else those of table main through the template; else, without a
//! template, a default route for IPv4 and none for IPv6, so that nothing waits for IPv6 in vain. Not
//! reproduced are routes the kernel makes by itself for the addresses, link-local and multicast
//! destinations, redirects, and routes that say more than a destination, a router and a metric.
//! Preferred sources, lifetimes and nexthop objects are left out. Of a route with several ways one
//! through the template is taken.

use crate::bind::{Binding, Template};
use crate::candidate::{Named, Stopgaps, default_route_through, is_neighbourhood, usable};
use crate::host::{HostView, MAX_ADDRESSES, MAX_ROUTES_OF_LINK, Routing};
use crate::net::{PerFamily, is_link_local};
use crate::policy::{FamilyPolicy, Policy};
use crate::record::{Address, Route};
use pasta_ipc::start::{CopyAddresses, CopyRoutes};
use pasta_ipc::types::{Family, IfName, MacAddr, Mtu, Prefix};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The namespace's IPv4 address in local mode.
pub(crate) const LOCAL_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 1);
/// Length of its prefix: the whole link-local network (RFC 3927).
const LOCAL_PREFIX: u8 = 16;
/// The IPv4 gateway in local mode.
const LOCAL_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 2);
/// The IPv6 router in local mode, and our address where the template offers none.
const LOCAL_ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The kernel's metric for IPv6 routes that name none (`IP6_RT_PRIO_USER`, `net/ip6_route.h`).
const USUAL_METRIC_V6: u32 = 1024;
/// Smallest MTU at which the kernel lets a link have IPv6 (RFC 8200, section 5).
const MIN_MTU_V6: u16 = 1280;
/// `RTPROT_REDIRECT` (`linux/rtnetlink.h`): made by an ICMP redirect.
const BY_REDIRECT: u8 = 1;
/// `RTPROT_KERNEL`: made along with an address, or by a program that makes the kernel's part itself.
const BY_KERNEL: u8 = 2;
/// Name of the tap where nothing else names it.
const TAP_NAME: &str = "tap0";

/// What the namespace should look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// MTU of the tap; none leaves it.
    pub mtu: Option<Mtu>,
    /// MTU that clients in the namespace are to set; none leaves the tap's.
    pub offered_mtu: Option<Mtu>,
    /// Whether IPv6 is to be in use on the tap.
    pub ipv6: bool,
    /// Whether the tap is to be brought up.
    pub up: bool,
    /// Families of which the users' default route counts as there although it was not read.
    pub leave_default: PerFamily<bool>,
    /// Addresses of the tap, in the order they are added.
    pub addresses: Vec<WantedAddress>,
    /// Routes through the tap, in an order in which each finds those it depends on.
    pub routes: Vec<WantedRoute>,
    /// What the datapath needs to know of each family; none where the family is off.
    pub assigned: PerFamily<Option<Assigned>>,
    /// How many addresses and routes were left out for want of room.
    pub left_out: usize,
}

impl Desired {
    /// Whether the tap is to have this address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|it| it.prefix.address() == address)
    }
}

/// An address that the tap should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedAddress {
    /// The address and its prefix length.
    pub prefix: Prefix,
    /// Whether the kernel is to make a route for the prefix.
    pub prefix_route: bool,
    /// Whether new flows shall not use it (preferred lifetime 0).
    pub deprecated: bool,
}

impl WantedAddress {
    /// An ordinary one.
    pub fn new(prefix: Prefix) -> Self {
        Self { prefix, prefix_route: true, deprecated: false }
    }

    /// The same, deprecated or not.
    #[must_use]
    pub fn with_deprecated(self, deprecated: bool) -> Self {
        Self { deprecated, ..self }
    }
}

/// A route that should lead through the tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedRoute {
    /// Where it leads.
    pub destination: Prefix,
    /// The router; none if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Whether the router is on the link whatever the addresses say.
    pub onlink: bool,
    /// Metric; never 0 for IPv6, where the kernel would make it 1024.
    pub metric: u32,
    /// MTU for its destinations in octets.
    pub mtu: Option<u32>,
    /// TCP's advertised segment size for its destinations in octets.
    pub advmss: Option<u32>,
}

/// What one family of the tap should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Addresses, the primary first.
    pub addresses: Vec<WantedAddress>,
    /// Routes, in an order in which each finds those it depends on.
    pub routes: Vec<WantedRoute>,
    /// What the datapath needs to know.
    pub assigned: Assigned,
    /// How many addresses and routes were left out for want of room.
    pub left_out: usize,
}

/// What one family of the namespace is configured to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// Addresses, the primary first.
    pub addresses: Vec<WantedAddress>,
    /// The default router.
    pub gateway: Option<IpAddr>,
    /// Whether there is a way to everything else. The gateway of local mode is none for IPv6.
    pub has_default: bool,
    /// Source of what we ourselves send on the link.
    pub our_address: Option<IpAddr>,
    /// The template's primary address on the host.
    pub host_primary: Option<IpAddr>,
}

/// The name the tap should have: `-I`; else the name of the template, IPv4's first; else `tap0`.
pub fn tap_name(policy: &Policy, bindings: &PerFamily<Binding>) -> IfName {
    let of_template = || {
        let names = Family::BOTH.into_iter().find_map(|family| match bindings.get(family) {
            Binding::Bound(template) | Binding::Held(template, ..) => Some(template.name.clone()),
            Binding::Off | Binding::Local => None,
        });
        // The namespace has a `lo` of its own.
        names.filter(|name| name != "lo").and_then(|name| IfName::try_from(name).ok())
    };
    policy.tap_name.clone().or_else(of_template).unwrap_or_else(|| {
        IfName::try_from(TAP_NAME.to_owned()).expect("the constant is a possible name")
    })
}

/// Whether IPv6 is to be in use on the tap.
pub fn uses_ipv6(policy: &Policy, mtu: Option<Mtu>) -> bool {
    policy.serves(Family::V6) && mtu.is_none_or(|mtu| mtu.get() >= MIN_MTU_V6)
}

/// The MTU of a tap that follows its template's, of `octets`.
pub fn mtu_like(octets: u32, ipv6: bool) -> Mtu {
    let least = if ipv6 { MIN_MTU_V6 } else { Mtu::MIN };
    let octets = u16::try_from(octets).unwrap_or(u16::MAX).clamp(least, Mtu::MAX);
    Mtu::try_from(octets).unwrap_or(Mtu::DEFAULT)
}

/// What the tap should have of `family`, by the present state of the host; without a template, what
/// local mode has. Of the template's addresses that are deprecated only those are taken that
/// `before` had.
pub fn wanted(
    host: &HostView,
    policy: &Policy,
    family: Family,
    template: Option<&Template>,
    before: Option<&Wanted>,
) -> Wanted {
    let asked = policy.families.get(family);
    let before = before.map_or(&[][..], |it| &it.addresses);
    let sources =
        Sources { host, asked, template, family, named: Named::of(policy, family), before };
    let mut addresses = sources.addresses();
    let mut left_out = addresses.len().saturating_sub(MAX_ADDRESSES);
    addresses.truncate(MAX_ADDRESSES);

    let gateway = sources.gateway();
    let mut routes = sources.routes(gateway, &addresses);
    left_out += order(&mut routes);
    if let Some(template) = template.filter(|_| sources.is_copied()) {
        left_out += host.left_out_of(template.index, family);
    }
    let is_everything = |it: &WantedRoute| it.destination.is_everything();
    let has_default = routes.iter().any(is_everything);
    let assigned = Assigned {
        addresses: addresses.clone(),
        gateway,
        has_default: has_default || (template.is_some() && gateway.is_some()),
        our_address: sources.our_address(gateway),
        host_primary: template.map(|template| template.primary),
    };
    Wanted { addresses, routes, assigned, left_out }
}

impl Wanted {
    /// Whether it has a route to everything.
    pub fn has_default(&self) -> bool {
        self.routes.iter().any(|it| it.destination.is_everything())
    }

    /// Takes over the default routes of `before`, and who the gateway is.
    pub fn keep_default(&mut self, before: &Self) {
        let defaults = before.routes.iter().filter(|it| it.destination.is_everything());
        self.routes.extend(defaults);
        self.assigned.gateway = before.assigned.gateway;
        self.assigned.has_default = before.assigned.has_default;
        self.assigned.our_address = before.assigned.our_address;
    }
}

/// What the namespace should look like: what its families want, on a tap of the link-layer address
/// `tap_mac`.
pub fn joined(wanted: PerFamily<Option<Wanted>>, ipv6: bool, tap_mac: MacAddr) -> Desired {
    let mut desired = Desired { ipv6, up: true, ..Desired::default() };
    let PerFamily { v4, v6 } = wanted;
    for (family, wanted) in [(Family::V4, v4), (Family::V6, v6.filter(|_| ipv6))] {
        let Some(Wanted { mut addresses, mut routes, assigned, left_out }) = wanted else {
            continue;
        };
        let on_link: Vec<_> = neighbourhood(&addresses, &routes).collect();
        for route in &mut routes {
            route.onlink |= route.gateway.is_some_and(|it| !is_neighbour(it, &on_link));
        }
        *desired.assigned.get_mut(family) = Some(assigned);
        desired.left_out += left_out;
        if family == Family::V6 {
            desired.addresses.push(WantedAddress::new(Prefix::link_local_of(tap_mac)));
            // The kernel puts the newest first, and prefers what is first among equals as source.
            addresses.reverse();
        }
        desired.addresses.extend(addresses);
        desired.routes.extend(routes);
    }
    desired
}

/// What one family is made of.
struct Sources<'a> {
    host: &'a HostView,
    asked: &'a FamilyPolicy,
    template: Option<&'a Template>,
    family: Family,
    named: Named,
    before: &'a [WantedAddress],
}

impl Sources<'_> {
    /// The template's addresses, the primary first and those that run out last.
    fn of_template(&self) -> Vec<&Address> {
        let Some(template) = self.template else { return Vec::new() };
        let had = |it: &Address| {
            self.before.iter().any(|had| had.prefix.address() == it.prefix.address())
        };
        let running_out = |it: &&Address| {
            let is_primary = it.prefix.address() == template.primary;
            it.deprecated && !it.unproven && (is_primary || had(it))
        };
        let of_link =
            |stopgaps| usable(self.host, template.index, self.family, self.named, stopgaps);
        // One that is the primary is no stopgap any more.
        let mut found = of_link(Stopgaps::Take);
        if !found.iter().any(|it| it.prefix.address() == template.primary) {
            found = of_link(Stopgaps::Wait);
        }
        found.extend(self.host.addresses_of(template.index, self.family).filter(running_out));
        found.sort_by_key(|it| it.prefix.address() != template.primary);
        found
    }

    /// Whether all that the template has is wanted.
    fn is_copied(&self) -> bool {
        let FamilyPolicy { addresses, gateway, routes, copied, .. } = self.asked;
        addresses.is_empty()
            && gateway.is_none()
            && *routes == CopyRoutes::All
            && *copied == CopyAddresses::All
    }

    fn addresses(&self) -> Vec<WantedAddress> {
        if !self.asked.addresses.is_empty() {
            return self.asked.addresses.iter().copied().map(WantedAddress::new).collect();
        }
        match (self.template, self.family) {
            (Some(_), _) => {
                let most = match self.asked.copied {
                    CopyAddresses::All => usize::MAX,
                    CopyAddresses::PrimaryOnly => 1,
                };
                self.of_template().into_iter().take(most).map(reproduced).collect()
            }
            (None, Family::V4) => {
                let prefix = Prefix::new(LOCAL_ADDRESS.into(), LOCAL_PREFIX)
                    .expect("the constant is within the width of IPv4");
                vec![WantedAddress::new(prefix)]
            }
            (None, Family::V6) => Vec::new(),
        }
    }

    fn gateway(&self) -> Option<IpAddr> {
        let of_local = match self.family {
            Family::V4 => LOCAL_GATEWAY.into(),
            Family::V6 => LOCAL_ROUTER.into(),
        };
        self.asked.gateway.or_else(|| match self.template {
            None => Some(of_local),
            Some(template) => default_route_through(self.host, self.family, template.index)
                .map_or_else(|| self.gateway_of_idle_route(template.index), |it| it.gateway),
        })
    }

    /// The router of a default route that the host cannot use at present, as without carrier.
    fn gateway_of_idle_route(&self, link: u32) -> Option<IpAddr> {
        let all = self.host.routes.get(self.family).iter();
        let defaults = all.filter(|route| route.destination.is_everything());
        let routes = defaults.filter_map(|route| through(route, link));
        routes.min_by_key(|route| route.metric)?.gateway
    }

    fn our_address(&self, gateway: Option<IpAddr>) -> Option<IpAddr> {
        let on_host = || self.host.link_local_of(self.template?.index);
        match self.family {
            Family::V4 => gateway.filter(IpAddr::is_ipv4),
            Family::V6 => gateway
                .filter(|it| is_link_local(*it))
                .or_else(on_host)
                .or(Some(LOCAL_ROUTER.into())),
        }
    }

    fn routes(&self, gateway: Option<IpAddr>, addresses: &[WantedAddress]) -> Vec<WantedRoute> {
        let on_request =
            self.asked.gateway.is_some() || self.asked.routes == CopyRoutes::DefaultOnly;
        let Some(template) = self.template.filter(|_| !on_request) else {
            let wanted = on_request || self.family == Family::V4;
            let default = |_| WantedRoute { gateway, ..self.usual_route() };
            return gateway.filter(|_| wanted).map(default).into_iter().collect();
        };
        let mut routes = self.peers();
        let mut of_host: Vec<_> = self.host.routes.get(self.family).iter().collect();
        // The kernel keeps one route for a destination and metric; of several the best is taken.
        of_host.sort_by_key(|route| -route.preference);
        let wanted = of_host
            .into_iter()
            .filter(|route| is_reproduced(route, addresses))
            .filter_map(|route| through(route, template.index));
        routes.extend(wanted);
        // A host that finds its way by rules may have no default route in table main.
        if let Routing::Asked(Some(hop)) = self.host.routing.get(self.family) {
            let has_default = routes.iter().any(|it| it.destination.is_everything());
            if hop.link == template.index && !has_default {
                routes.push(WantedRoute { gateway: hop.gateway, ..self.usual_route() });
            }
        }
        let mut seen = BTreeSet::new();
        routes.retain(|it| seen.insert((it.destination, it.metric)));
        routes
    }

    /// A default route without router, of the metric that the kernel gives where none is named.
    fn usual_route(&self) -> WantedRoute {
        let metric = match self.family {
            Family::V4 => 0,
            Family::V6 => USUAL_METRIC_V6,
        };
        WantedRoute {
            destination: Prefix::everything(self.family),
            gateway: None,
            onlink: false,
            metric,
            mtu: None,
            advmss: None,
        }
    }

    /// Routes to the other ends of point-to-point addresses, which the namespace has without peer.
    fn peers(&self) -> Vec<WantedRoute> {
        if !self.asked.addresses.is_empty() {
            return Vec::new();
        }
        let peer = |it: &Address| Prefix::new(it.peer?, it.prefix.bits()).ok().map(Prefix::network);
        let peers = self.of_template().into_iter().filter_map(peer);
        peers.map(|destination| WantedRoute { destination, ..self.usual_route() }).collect()
    }
}

/// Puts `routes` into the order in which they can be added: neighbours of routers, then routes through
/// routers, then the way to everything else. Cuts what is too much, ordinary ones first, and says how
/// many that were.
fn order(routes: &mut Vec<WantedRoute>) -> usize {
    let ordinary = |it: &WantedRoute| it.gateway.is_some() && !it.destination.is_everything();
    routes.sort_by_key(ordinary);
    let surplus = routes.len().saturating_sub(MAX_ROUTES_OF_LINK);
    routes.truncate(MAX_ROUTES_OF_LINK);
    routes.sort_by_key(|it| (it.gateway.is_some(), it.destination.is_everything()));
    surplus
}

/// The prefixes whose addresses are reached on the link itself.
pub fn neighbourhood(
    addresses: &[WantedAddress],
    routes: &[WantedRoute],
) -> impl Iterator<Item = Prefix> {
    let connected = addresses.iter().filter(|it| it.prefix_route).map(|it| it.prefix);
    connected.chain(routes.iter().filter(|it| it.gateway.is_none()).map(|it| it.destination))
}

/// Whether the kernel will find `router` on the link. A link-local IPv6 one it always does.
pub fn is_neighbour(router: IpAddr, on_link: &[Prefix]) -> bool {
    (router.is_ipv6() && is_link_local(router)) || on_link.iter().any(|it| it.contains(router))
}

/// The namespace's form of a host address. A point-to-point one stands for itself alone.
fn reproduced(address: &Address) -> WantedAddress {
    let deprecated = address.deprecated;
    match address.peer {
        Some(_) => WantedAddress {
            prefix: Prefix::host(address.prefix.address()),
            prefix_route: true,
            deprecated,
        },
        None => {
            WantedAddress { prefix: address.prefix, prefix_route: address.prefix_route, deprecated }
        }
    }
}

fn is_reproduced(route: &Route, addresses: &[WantedAddress]) -> bool {
    let ours_to_make =
        || addresses.iter().any(|it| !it.prefix_route && it.prefix.network() == route.destination);
    route.plain
        && !is_neighbourhood(route.destination)
        && match route.protocol {
            BY_REDIRECT => false,
            // The kernel makes them again, unless the address says that it shall not.
            BY_KERNEL => ours_to_make(),
            _ => true,
        }
}

/// The route as one through the tap: its first live hop through `link`, or any if none lives.
fn through(route: &Route, link: u32) -> Option<WantedRoute> {
    let hops = || route.hops.iter().filter(|hop| hop.link == link);
    let hop = hops().find(|hop| hop.live).or_else(|| hops().next())?;
    let metric = match route.family() {
        Family::V6 => route.metric.max(1),
        Family::V4 => route.metric,
    };
    Some(WantedRoute {
        destination: route.destination,
        gateway: hop.gateway,
        onlink: hop.onlink && hop.gateway.is_some(),
        metric,
        mtu: route.mtu,
        advmss: route.advmss,
    })
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// What the namespace should look like at start.
    pub(crate) fn desired(
        host: &HostView,
        policy: &Policy,
        bindings: &PerFamily<Binding>,
        tap_mac: MacAddr,
    ) -> Desired {
        let of_family = |family| match bindings.get(family) {
            Binding::Off => None,
            Binding::Local => Some(wanted(host, policy, family, None, None)),
            Binding::Bound(template) | Binding::Held(template, ..) => {
                Some(wanted(host, policy, family, Some(template), None))
            }
        };
        let ipv6 = uses_ipv6(policy, policy.mtu);
        let joined = joined(PerFamily::each(of_family), ipv6, tap_mac);
        Desired { mtu: policy.mtu, offered_mtu: policy.mtu, ..joined }
    }
}

#[cfg(test)]
mod tests;
