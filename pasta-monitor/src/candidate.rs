#![forbid(unsafe_code)]
//! Which interfaces could be the template: host view and policy → [`Candidate`]s, for each family by
//! itself, best first.
//!
//! Without `-i` an interface is *eligible* if it is a plausible way out (not the loopback, up, with
//! carrier, not part of a bridge or bond; a bridge or dummy only with a default route), has a usable
//! address, and has a default route. Where no interface has a default route, any route that leaves the
//! link's own neighbourhood will do. With `-i` only that interface is eligible; it must be up and have
//! a usable address, and needs neither carrier nor default route.
//!
//! Of several, tunnels come last: when a VPN comes up, traffic goes through it anyway, because host
//! sockets follow the host's routes. Taking over its identity would renumber the namespace for nothing.
//! Then the lowest metric wins, then the higher router preference, then the kernel's order.

use crate::host::{HostView, Routing};
use crate::net::is_link_local;
use crate::policy::Policy;
use crate::record::{Address, Link, LinkKind, Route};
use pasta_ipc::start::Tunnels;
use pasta_ipc::types::{Family, Prefix};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An interface that could be the template now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The interface.
    pub link: &'a Link,
    /// The address that would stand for the family.
    pub primary: IpAddr,
    /// How good it is.
    pub rank: Rank,
}

/// How good a candidate is; the order is from best to worst. Equals are in the kernel's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Whether it leads nowhere in particular: there is no default route through it.
    pub without_default: bool,
    /// Whether it is a tunnel, where these are avoided.
    tunnel: bool,
    metric: u32,
    /// Router preference, turned round.
    reluctance: i8,
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "metric {}", self.metric)?;
        if self.without_default {
            f.write_str(" without default route")?;
        }
        if self.tunnel { f.write_str(" tunnel") } else { Ok(()) }
    }
}

/// A way to the rest of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The link it leaves through.
    pub link: u32,
    /// The router, if there is one.
    pub gateway: Option<IpAddr>,
    metric: u32,
    preference: i8,
}

/// Whether an address is taken although a better one of its link is about to be proven unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopgaps {
    /// No: that is waited for.
    Wait,
    /// Yes: there has been time enough.
    Take,
}

/// The interfaces that could be the template, best first.
pub fn candidates<'a>(
    host: &'a HostView,
    policy: &Policy,
    family: Family,
    stopgaps: Stopgaps,
) -> Vec<Candidate<'a>> {
    if let Some(name) = policy.template(family) {
        let named = host.links.values().find(|link| link.is_called(name.as_str()) && link.up);
        let rank = Rank { without_default: false, tunnel: false, metric: 0, reluctance: 0 };
        return named
            .and_then(|link| candidate(host, link, (family, Named::Yes, stopgaps), rank))
            .into_iter()
            .collect();
    }
    let eligible = |index: u32, rank: Rank, stopgaps: Stopgaps| {
        let link = host.links.get(&index).filter(|link| plausible(link))?;
        if link.kind == LinkKind::Tunnel && policy.following.tunnels == Tunnels::Never {
            return None;
        }
        let tunnel = link.kind == LinkKind::Tunnel && policy.following.tunnels == Tunnels::Avoid;
        candidate(host, link, (family, Named::No, stopgaps), Rank { tunnel, ..rank })
    };

    // Sorting keeps the order of equals: the kernel's order decides then.
    let with_default = |stopgaps| {
        let found = default_routes(host, family).into_iter().filter_map(move |route| {
            let (metric, reluctance) = (route.metric, -route.preference);
            let rank = Rank { without_default: false, tunnel: false, metric, reluctance };
            eligible(route.link, rank, stopgaps)
        });
        found.collect::<Vec<_>>()
    };
    let mut found = with_default(stopgaps);
    // One that waits for a better address of its own leads everywhere all the same.
    if found.is_empty() && with_default(Stopgaps::Take).is_empty() {
        found = host
            .routes
            .get(family)
            .iter()
            .filter(|route| !is_neighbourhood(route.destination))
            .flat_map(|route| route.hops.iter().map(move |hop| (hop.link, route.metric)))
            .filter_map(|(index, metric)| {
                let rank = Rank { without_default: true, tunnel: false, metric, reluctance: 0 };
                eligible(index, rank, stopgaps)
            })
            .filter(|it| !matches!(it.link.kind, LinkKind::Bridge | LinkKind::Dummy))
            .collect();
        found.sort_by_key(|it| it.link.index);
    }
    found.sort_by_key(|it| it.rank);
    let mut seen = BTreeSet::new();
    found.retain(|it| seen.insert(it.link.index));
    found
}

/// The rank of the interface `link`, which may be none of `candidates`.
pub fn rank_of(candidates: &[Candidate<'_>], link: u32) -> Rank {
    let worst = Rank { without_default: true, tunnel: true, metric: u32::MAX, reluctance: i8::MAX };
    candidates.iter().find(|it| it.link.index == link).map_or(worst, |it| it.rank)
}

fn candidate<'a>(
    host: &'a HostView,
    link: &'a Link,
    (family, named, stopgaps): (Family, Named, Stopgaps),
    rank: Rank,
) -> Option<Candidate<'a>> {
    let usable = usable(host, link.index, family, named, stopgaps);
    let primary = usable.first()?;
    let waits = stopgaps == Stopgaps::Wait
        && pending(host, link.index, family, named)
            .is_some_and(|better| preference(primary, named).is_none_or(|it| better < it));
    let primary = primary.prefix.address();
    (!waits).then_some(Candidate { link, primary, rank })
}

/// Whether a link is a way out as far as the link itself goes.
pub fn plausible(link: &Link) -> bool {
    !link.loopback && link.up && link.carrier && !link.enslaved
}

/// Whether a destination says nothing about where a link leads to: link-local and multicast.
pub fn is_neighbourhood(destination: Prefix) -> bool {
    !destination.is_everything()
        && (is_link_local(destination.address()) || destination.address().is_multicast())
}

/// The ways to the rest of the world, best first.
///
/// A way counts if its link has carrier, whether or not a router is named. Of several hops each that
/// lives counts. Where no route covers everything, two halves through one link do, or IPv6's
/// 2000::/3, as VPNs install them.
///
/// Where policy rules exist, table main alone misleads, and the kernel's own answer counts. Only if
/// that is a tunnel, table main is watched too: rules that lead traffic into a VPN leave it as it was
/// before, so it still names the interface below.
fn default_routes(host: &HostView, family: Family) -> Vec<DefaultRoute> {
    let mut found = match host.routing.get(family) {
        Routing::MainTable => of_main_table(host, family),
        Routing::Asked(answer) => {
            let Some(hop) = answer.as_ref().filter(|hop| host.carries(hop.link)) else {
                return Vec::new();
            };
            let (link, gateway) = (hop.link, hop.gateway);
            let mut found = vec![DefaultRoute { link, gateway, metric: 0, preference: 0 }];
            if host.links.get(&link).is_some_and(|link| link.kind == LinkKind::Tunnel) {
                found.extend(of_main_table(host, family));
            }
            found
        }
    };
    found.sort_by_key(|route| (route.metric, -route.preference));
    found
}

/// The link of the best way to the rest of the world that could be a template, and its index.
pub fn default_link(host: &HostView, family: Family) -> Option<(u32, &Link)> {
    let routes = default_routes(host, family);
    let links = routes.iter().filter_map(|route| host.links.get_key_value(&route.link));
    links.map(|(index, link)| (*index, link)).find(|(_, link)| plausible(link))
}

/// The way to the rest of the world through `link`, if there is one.
pub fn default_route_through(host: &HostView, family: Family, link: u32) -> Option<DefaultRoute> {
    let through = |routes: Vec<DefaultRoute>| routes.into_iter().find(|it| it.link == link);
    through(default_routes(host, family)).or_else(|| through(of_main_table(host, family)))
}

fn of_main_table(host: &HostView, family: Family) -> Vec<DefaultRoute> {
    let routes = host.routes.get(family);
    let to = |prefix: Prefix| routes.iter().filter(move |route| route.destination == prefix);
    let ways = |route: &Route| {
        let (metric, preference) = (route.metric, route.preference);
        let live = route.hops.iter().filter(|hop| hop.live && host.carries(hop.link));
        live.map(|hop| DefaultRoute { link: hop.link, gateway: hop.gateway, metric, preference })
            .collect::<Vec<_>>()
    };

    let whole: Vec<_> = to(Prefix::everything(family)).flat_map(ways).collect();
    if !whole.is_empty() {
        return whole;
    }
    let [lower, upper] = halves(family);
    let uppers: Vec<_> = to(upper).flat_map(ways).collect();
    let mut found: Vec<_> = to(lower)
        .flat_map(ways)
        .filter(|lower| uppers.iter().any(|upper| upper.link == lower.link))
        .collect();
    if family == Family::V6 {
        found.extend(to(global_unicast()).flat_map(ways));
    }
    found
}

/// The two prefixes that cover a family together.
fn halves(family: Family) -> [Prefix; 2] {
    let (lower, upper): (IpAddr, IpAddr) = match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(128, 0, 0, 0).into()),
        Family::V6 => {
            (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0).into())
        }
    };
    [lower, upper].map(|it| Prefix::new(it, 1).expect("1 is within the width of both families"))
}

/// All global IPv6 addresses there are so far (RFC 4291, section 2.4).
fn global_unicast() -> Prefix {
    let first = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0);
    Prefix::new(first.into(), 3).expect("3 is within the width of IPv6")
}

/// Whether the template was named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// By `-i`.
    Yes,
    /// It is chosen by the state of the host.
    No,
}

impl Named {
    /// Whether the template of `family` was named.
    pub fn of(policy: &Policy, family: Family) -> Self {
        if policy.template(family).is_some() { Self::Yes } else { Self::No }
    }
}

/// How good an address is as primary; the order is from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Preference {
    /// Nothing to be said against it.
    Full,
    /// IPv4: not the first of its subnet.
    Secondary,
    /// IPv6: a privacy address, where nothing else is global.
    Temporary,
    /// IPv6: reaches only the own site (fc00::/7).
    UniqueLocal,
    /// Both of the above.
    TemporaryUniqueLocal,
    /// IPv4: 169.254.0.0/16 on an interface that was named, where there is nothing else.
    LinkLocal,
}

/// The addresses of `link` that the namespace can have, primary first, then in the kernel's order.
///
/// Deprecated addresses are left to run out; those that are not proven unique wait until they are. An
/// interface that has just been configured by its router often has a privacy address some time before the
/// stable one.
pub fn usable(
    host: &HostView,
    link: u32,
    family: Family,
    named: Named,
    stopgaps: Stopgaps,
) -> Vec<&Address> {
    let mut found: Vec<_> = host
        .addresses_of(link, family)
        .filter_map(|address| Some((preference(address, named)?, address)))
        .collect();
    let best = found.iter().map(|(preference, _)| *preference).min();
    let waits = stopgaps == Stopgaps::Wait
        && pending(host, link, family, named).is_some_and(|it| best.is_none_or(|best| it < best));
    found.retain(|(preference, _)| match preference {
        Preference::Full | Preference::Secondary | Preference::UniqueLocal => true,
        // Stopgaps, each only where there is nothing better.
        Preference::Temporary | Preference::TemporaryUniqueLocal | Preference::LinkLocal => {
            Some(*preference) == best && !waits
        }
    });
    let primary = found.iter().position(|(preference, _)| Some(*preference) == best);
    if let Some(head) = primary.and_then(|place| found.get_mut(..=place)) {
        head.rotate_right(1);
    }
    found.into_iter().map(|(_, address)| address).collect()
}

/// How good the best stable address of `link` will be of those that are about to be proven unique.
fn pending(host: &HostView, link: u32, family: Family, named: Named) -> Option<Preference> {
    let all = host.addresses_of(link, family).filter(|it| it.pending && !it.temporary);
    let proven = |it: &Address| Address { unproven: false, ..it.clone() };
    all.filter_map(|it| preference(&proven(it), named)).min()
}

fn preference(address: &Address, named: Named) -> Option<Preference> {
    if address.unproven || address.deprecated {
        return None;
    }
    match address.prefix.address() {
        it if it.is_loopback() || it.is_multicast() || it.is_unspecified() => None,
        IpAddr::V4(v4) if v4.is_link_local() => {
            (named == Named::Yes).then_some(Preference::LinkLocal)
        }
        IpAddr::V4(_) if address.secondary => Some(Preference::Secondary),
        IpAddr::V4(v4) => (!v4.is_broadcast()).then_some(Preference::Full),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() || v6.is_unicast_link_local() => None,
        IpAddr::V6(v6) => Some(match (v6.is_unique_local(), address.temporary) {
            (false, false) => Preference::Full,
            (false, true) => Preference::Temporary,
            (true, false) => Preference::UniqueLocal,
            (true, true) => Preference::TemporaryUniqueLocal,
        }),
    }
}

#[cfg(test)]
mod tests;
