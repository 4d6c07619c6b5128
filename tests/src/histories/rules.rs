//! What a namespace must have when all is quiet, by the rules of `docs/following.md`, written without a look at how
//! they are carried out.
//!
//! Where the rules leave a choice to what was before (a template is kept among equals, an address that runs out
//! stays), each choice is right.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::reading::{Address, OF_KERNEL, OURS, Reading, Route};
use crate::lab::Family;

/// What is known beside both readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The interface that was named (`-i`).
    pub named: Option<String>,
    /// Index of the tap.
    pub tap: u32,
    /// What users of the namespace have put there.
    pub users: Users,
    /// Addresses and destinations of ours that users have deleted at some time.
    pub declined: BTreeSet<IpAddr>,
}

/// What is not ours and not the kernel's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Addresses, each with its link.
    pub addresses: BTreeSet<(u32, (IpAddr, u8))>,
    /// Routes.
    pub routes: BTreeSet<Route>,
}

impl Users {
    /// What users have, in a reading of the namespace.
    pub fn of(inside: &Reading) -> Self {
        let addresses = inside.addresses.iter().filter(|it| !it.ours);
        let routes = inside.routes.iter();
        let routes = routes.filter(|it| it.protocol != OURS && it.protocol != OF_KERNEL);
        Self {
            addresses: addresses.map(|it| (it.link, it.ip)).collect(),
            // A hop of theirs is shown as ours as long as ours is there.
            routes: routes.map(|it| Route { protocol: 0, ..*it }).collect(),
        }
    }
}

/// Whether what the namespace has is right.
///
/// # Errors
///
/// What is wrong.
pub fn check(host: &Reading, inside: &Reading, known: &Known) -> Result<(), String> {
    let found = Users::of(inside);
    if found != known.users {
        return Err(format!("users' objects: {found:?} instead of {:?}", known.users));
    }
    for family in [Family::V4, Family::V6] {
        let allowed = templates(host, known, family);
        let wrong = |template: &Option<u32>| {
            wrong_with(host, inside, known, (family, *template)).map(|it| (*template, it))
        };
        let reasons: Vec<_> = allowed.iter().filter_map(wrong).collect();
        if reasons.len() == allowed.len() {
            return Err(format!("{family:?} fits no template: {reasons:#?}"));
        }
    }
    Ok(())
}

fn is_of(family: Family, ip: IpAddr) -> bool {
    (family == Family::V4) == ip.is_ipv4()
}

fn of_link(host: &Reading, link: u32, family: Family) -> impl Iterator<Item = &Address> {
    let of_link = move |it: &&Address| it.link == link && is_of(family, it.ip.0);
    host.addresses.iter().filter(of_link).filter(|it| it.proven)
}

/// The interfaces that may be template; none is local mode.
fn templates(host: &Reading, known: &Known, family: Family) -> Vec<Option<u32>> {
    let usable = |link: u32| of_link(host, link, family).any(|it| !it.deprecated);
    let running_out = |link: u32| of_link(host, link, family).any(|it| it.deprecated);
    if let Some(name) = &known.named {
        let Some(link) = host.links.iter().find(|it| it.name == *name && it.up) else {
            return vec![None];
        };
        return match (usable(link.index), running_out(link.index)) {
            (true, _) => vec![Some(link.index)],
            // It stays if it was.
            (false, true) => vec![Some(link.index), None],
            (false, false) => vec![None],
        };
    }
    let works: Vec<u32> =
        host.links.iter().filter(|it| it.running && it.index != 1).map(|it| it.index).collect();
    let routes = |link: u32| {
        let of_link = move |it: &&Route| it.link == link && is_of(family, it.to.0);
        host.routes.iter().filter(of_link)
    };
    let best = |link: &u32| routes(*link).filter(|it| it.is_default()).map(|it| it.metric).min();
    let with_default: Vec<_> = works.iter().filter(|it| usable(**it)).collect();
    if let Some(least) = with_default.iter().filter_map(|it| best(it)).min() {
        let equal = with_default.into_iter().filter(|it| best(it) == Some(least));
        return equal.map(|it| Some(*it)).collect();
    }
    let mut some: Vec<_> =
        works.iter().filter(|it| usable(**it) && routes(**it).next().is_some()).collect();
    let certain = !some.is_empty();
    // Whose last address runs out stays if it was.
    some.extend(works.iter().filter(|it| !usable(**it) && running_out(**it)));
    let some = some.into_iter().map(|it| Some(*it));
    if certain { some.collect() } else { some.chain([None]).collect() }
}

/// What is wrong if `template` is the template.
fn wrong_with(
    host: &Reading,
    inside: &Reading,
    known: &Known,
    (family, template): (Family, Option<u32>),
) -> Option<String> {
    let declined = |ip: IpAddr| known.declined.contains(&ip);
    let theirs = |ip: IpAddr| known.users.addresses.iter().any(|it| it.1.0 == ip);
    let ours: Vec<_> =
        inside.addresses.iter().filter(|it| it.ours && is_of(family, it.ip.0)).collect();
    let local: IpAddr = Ipv4Addr::new(169, 254, 2, 1).into();
    let wanted: Vec<(IpAddr, u8)> = match template {
        Some(link) => {
            of_link(host, link, family).filter(|it| !it.deprecated).map(|it| it.ip).collect()
        }
        None if family == Family::V4 => vec![(local, 16)],
        None => Vec::new(),
    };
    for (ip, bits) in &wanted {
        let there = ours.iter().any(|it| it.ip == (*ip, *bits) && !it.deprecated);
        if !there && !declined(*ip) && !theirs(*ip) {
            return Some(format!("{ip}/{bits} is not there"));
        }
    }
    for address in &ours {
        let of_host = host.addresses.iter().any(|it| it.ip == address.ip);
        let stays = address.deprecated && of_host;
        if !wanted.contains(&address.ip) && !stays {
            return Some(format!("{} is there", address.ip.0));
        }
        if address.link != known.tap {
            return Some(format!("{} is not on the tap", address.ip.0));
        }
    }
    routes_wrong(host, inside, known, (family, template))
}

fn routes_wrong(
    host: &Reading,
    inside: &Reading,
    known: &Known,
    (family, template): (Family, Option<u32>),
) -> Option<String> {
    let users_default =
        known.users.routes.iter().any(|it| it.is_default() && is_of(family, it.to.0));
    let any_declined = known.declined.iter().any(|it| is_of(family, *it));
    let wanted: Vec<Route> = match template {
        Some(link) => {
            let of_link = |it: &&Route| it.link == link && is_of(family, it.to.0);
            let made = host.routes.iter().filter(of_link).filter(|it| it.protocol != OF_KERNEL);
            let here = |it: &Route| Route {
                link: known.tap,
                protocol: OURS,
                metric: if family == Family::V6 { it.metric.max(1) } else { it.metric },
                ..*it
            };
            made.map(here).collect()
        }
        None if family == Family::V4 => vec![Route {
            to: (Ipv4Addr::UNSPECIFIED.into(), 0),
            via: Some(Ipv4Addr::new(169, 254, 2, 2).into()),
            metric: 0,
            link: known.tap,
            protocol: OURS,
        }],
        None => Vec::new(),
    };
    let is_ours = |it: &&Route| it.protocol == OURS && is_of(family, it.to.0);
    let ours: Vec<_> = inside.routes.iter().filter(is_ours).collect();
    for route in &wanted {
        let alike = |it: &Route| (it.to, it.metric) == (route.to, route.metric);
        let given_up = any_declined
            || (route.is_default() && users_default)
            || known.users.routes.iter().any(alike);
        // The kernel keeps one for a destination and metric.
        if !given_up && !ours.iter().any(|it| alike(it) && wanted.contains(it)) {
            return Some(format!("{route:?} is not there"));
        }
    }
    let left = |it: &Route| it.is_default() && users_default;
    let surplus = ours.into_iter().find(|it| !wanted.contains(it) && !left(it));
    surplus.map(|it| format!("{it:?} is there"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Link;

    fn link(index: u32, name: &str) -> Link {
        let (name, mac) = (name.to_owned(), Vec::new());
        Link { index, name, up: true, running: true, mtu: 1500, mac }
    }

    fn address(link: u32, text: &str, ours: bool) -> Address {
        let (deprecated, proven) = (false, true);
        Address { link, ip: (text.parse().unwrap(), 24), deprecated, proven, ours }
    }

    fn default(link: u32, via: &str, metric: u32, protocol: u8) -> Route {
        let to = (Ipv4Addr::UNSPECIFIED.into(), 0);
        Route { to, via: Some(via.parse().unwrap()), metric, link, protocol }
    }

    /// Two uplinks, of which the second is better, and a namespace that has what it has.
    fn example() -> (Reading, Reading, Known) {
        let host = Reading {
            links: vec![link(2, "eth0"), link(3, "eth1")],
            addresses: vec![address(2, "192.0.2.7", false), address(3, "198.51.100.7", false)],
            routes: vec![default(2, "192.0.2.1", 600, 4), default(3, "198.51.100.1", 100, 4)],
        };
        let inside = Reading {
            links: vec![link(2, "eth1")],
            addresses: vec![address(2, "198.51.100.7", true)],
            routes: vec![default(2, "198.51.100.1", 100, OURS)],
        };
        (host, inside, Known { tap: 2, ..Known::default() })
    }

    #[test]
    fn what_the_best_uplink_has_is_right() {
        let (host, inside, known) = example();
        assert_eq!(check(&host, &inside, &known), Ok(()));
    }

    #[test]
    fn each_thing_that_is_wrong_is_found() {
        let (host, inside, known) = example();
        let wrong = |change: &dyn Fn(&mut Reading, &mut Reading, &mut Known)| {
            let (mut host, mut inside, mut known) = (host.clone(), inside.clone(), known.clone());
            change(&mut host, &mut inside, &mut known);
            check(&host, &inside, &known).is_err()
        };
        assert!(wrong(&|_, inside, _| inside.addresses.clear()));
        assert!(wrong(&|_, inside, _| inside.routes.clear()));
        assert!(wrong(&|_, inside, _| inside.addresses[0].deprecated = true));
        assert!(wrong(&|_, inside, _| inside.addresses.push(address(2, "192.0.2.7", true))));
        assert!(wrong(&|_, inside, _| inside.addresses.push(address(2, "192.0.2.9", false))));
        assert!(wrong(&|_, inside, _| inside.routes.push(default(2, "192.0.2.1", 600, OURS))));
        assert!(wrong(&|_, inside, _| inside.routes[0].metric = 7));
        assert!(wrong(&|host, _, _| host.links[1].running = false));
        assert!(wrong(&|host, _, _| host.routes[0].metric = 50));
        assert!(wrong(&|host, _, _| host.addresses[1].deprecated = true));
        assert!(wrong(&|_, _, known| known.named = Some("eth0".into())));
        let theirs = default(2, "198.51.100.9", 5, 0);
        assert!(wrong(&|_, _, known| _ = known.users.routes.insert(theirs)));
    }

    #[test]
    fn what_was_left_may_stay_deprecated_as_long_as_the_host_has_it() {
        let (mut host, mut inside, known) = example();
        inside.addresses.push(Address { deprecated: true, ..address(2, "192.0.2.7", true) });
        assert_eq!(check(&host, &inside, &known), Ok(()));
        host.addresses.remove(0);
        assert!(check(&host, &inside, &known).is_err());
    }
}
