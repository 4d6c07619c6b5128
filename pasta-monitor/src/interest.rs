#![forbid(unsafe_code)]
//! Which events of the host can matter at present: bindings and what the host has → [`Interest`].
//!
//! While a family has its template, only the template and the links that could take its place matter:
//! a host with hundreds of containers has thousands of events in a second that concern none of them.

use crate::bind::Binding;
use crate::candidate::{default_route_through, plausible};
use crate::host::{HostView, WIDE};
use crate::net::PerFamily;
use crate::policy::Policy;
use crate::record::{Link, LinkKind, Route};
use pasta_ipc::start::Follow;
use pasta_ipc::types::Family;
use std::collections::BTreeSet;

/// Most links that one list holds. Chosen: a filter of four such lists is accepted by every kernel; a
/// host with more uplinks than that receives events of all of them.
pub const MAX_LISTED: usize = 128;

/// Events that can matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Of each family.
    pub families: PerFamily<Wanted>,
    /// Links of which everything is of interest; none: of all of them.
    pub links: Option<BTreeSet<u32>>,
    /// Other links whose messages say nothing that matters; none of them if there are too many.
    pub ignored: BTreeSet<u32>,
    /// The templates, whose neighbours are of interest.
    pub templates: BTreeSet<u32>,
    /// Whether nexthop objects matter: a route of interest uses one.
    pub nexthops: bool,
    /// Whether ways to everything matter whatever their table: rules decide between tables.
    pub every_table: bool,
}

/// Which addresses and routes of a family can matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None: it is not served.
    Nothing,
    /// Those of the links of interest.
    OfLinks,
    /// All: it has no template, and any could become one.
    All,
}

impl Interest {
    /// What matters, by the present state of the host and the bindings to it; links whose addresses stay in
    /// the namespace are `left`.
    pub fn of(
        host: &HostView,
        policy: &Policy,
        bindings: &PerFamily<Binding>,
        left: &BTreeSet<u32>,
    ) -> Self {
        let families = PerFamily::each(|family| match bindings.get(family) {
            Binding::Off => Wanted::Nothing,
            Binding::Local | Binding::Held(..) => Wanted::All,
            Binding::Bound(_) => Wanted::OfLinks,
        });
        let templates = templates(bindings);
        let names: Vec<_> =
            Family::BOTH.into_iter().filter_map(|family| policy.template(family)).collect();
        let named = |link: &Link| names.iter().any(|name| link.is_called(name.as_str()));
        let sticks = policy.following.follow != Follow::Roam || !names.is_empty();
        let is_bound = Family::BOTH.into_iter().all(|family| *families.get(family) != Wanted::All);
        let matters = |link: &Link| {
            let counts = || match link.kind {
                LinkKind::Bridge | LinkKind::Dummy => leads_out(host, link.index),
                LinkKind::Tunnel | LinkKind::Ordinary => true,
            };
            templates.contains(&link.index)
                || left.contains(&link.index)
                || named(link)
                || (!sticks && plausible(link) && counts())
        };
        let links: BTreeSet<u32> =
            host.links.values().filter(|link| matters(link)).map(|link| link.index).collect();
        let out = |link: &&Link| {
            let inside = matches!(link.kind, LinkKind::Bridge | LinkKind::Dummy);
            let by_kind = link.loopback || (inside && !leads_out(host, link.index));
            !links.contains(&link.index) && (by_kind || (sticks && is_bound))
        };
        let ignored: BTreeSet<u32> =
            host.links.values().filter(out).map(|link| link.index).collect();
        let uses_nexthop = |family: Family| {
            let routes = host.routes.get(family);
            routes.iter().any(|route| route.nexthop.is_some())
        };
        Self {
            families,
            nexthops: Family::BOTH.into_iter().any(uses_nexthop),
            every_table: Family::BOTH.into_iter().any(|it| host.has_rules(it)),
            templates,
            ignored: if ignored.len() > MAX_LISTED { BTreeSet::new() } else { ignored },
            links: Some(links).filter(|links| links.len() <= MAX_LISTED),
        }
    }
}

/// The links that are template, or were before they were lost.
pub fn templates(bindings: &PerFamily<Binding>) -> BTreeSet<u32> {
    let index = |family| match bindings.get(family) {
        Binding::Bound(template) | Binding::Held(template, ..) => Some(template.index),
        Binding::Off | Binding::Local => None,
    };
    Family::BOTH.into_iter().filter_map(index).collect()
}

/// Whether a way to everything leads through `link`, or would if the link had carrier: that may come later
/// than the route.
fn leads_out(host: &HostView, link: u32) -> bool {
    let through = |route: &Route| {
        route.destination.bits() <= WIDE && route.hops.iter().any(|hop| hop.link == link)
    };
    let in_main = |family: Family| host.routes.get(family).iter().any(through);
    let answered = |family| default_route_through(host, family, link).is_some();
    Family::BOTH.into_iter().any(|family| in_main(family) || answered(family))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bind::testing::bind;
    use crate::host::testing::Host;
    use crate::policy::testing::{named, plain};

    fn host() -> Host {
        Host::default()
            .link_with(1, "lo", |link| link.loopback = true)
            .link(2, "eth0")
            .link(3, "wlan0")
            .link_with(4, "docker0", |link| link.kind = LinkKind::Bridge)
            .link_with(5, "veth1", |link| link.enslaved = true)
            .link_with(6, "dummy0", |link| link.kind = LinkKind::Dummy)
            .link_with(7, "down0", |link| link.up = false)
            .address(2, "192.0.2.7/24")
            .route(2, "0.0.0.0/0", "192.0.2.1", 0)
            .address(2, "2001:db8::7/64")
            .route(2, "::/0", "fe80::1", 1024)
    }

    fn of(host: &Host, policy: &Policy) -> Interest {
        Interest::of(&host.0, policy, &bind(&host.0, policy), &BTreeSet::new())
    }

    #[test]
    fn bound_the_template_and_what_could_replace_it_matter() {
        let interest = of(&host(), &plain());
        assert_eq!(interest.families, PerFamily { v4: Wanted::OfLinks, v6: Wanted::OfLinks });
        assert_eq!(interest.links, Some([2, 3].into()));
        assert_eq!(interest.ignored, [1, 4, 6].into());
        assert_eq!(interest.templates, [2].into());
        assert!(!interest.nexthops && !interest.every_table);
    }

    #[test]
    fn a_link_whose_addresses_stay_matters_whatever_its_state() {
        let (host, policy) = (host(), plain());
        let of = |left| Interest::of(&host.0, &policy, &bind(&host.0, &policy), &left);
        assert_eq!(of([7].into()).links, Some([2, 3, 7].into()));
        assert_eq!(of([4].into()).ignored, [1, 6].into());
    }

    #[test]
    fn a_bridge_with_a_default_route_matters() {
        let host = host().address(4, "198.51.100.7/24").route(4, "0.0.0.0/0", "198.51.100.1", 9);
        assert_eq!(of(&host, &plain()).links, Some([2, 3, 4].into()));
    }

    #[test]
    fn a_bridge_whose_carrier_comes_later_than_its_default_route_passes() {
        let host = host()
            .link_with(4, "br0", |link| {
                link.kind = LinkKind::Bridge;
                link.carrier = false;
            })
            .route(4, "0.0.0.0/0", "198.51.100.1", 9);
        assert_eq!(of(&host, &plain()).ignored, [1, 6].into());
    }

    #[test]
    fn without_a_template_all_of_the_family_matters() {
        let host = Host::default().link(2, "eth0").address(2, "192.0.2.7/24").route(
            2,
            "0.0.0.0/0",
            "192.0.2.1",
            0,
        );
        let interest = of(&host, &plain());
        assert_eq!(interest.families, PerFamily { v4: Wanted::OfLinks, v6: Wanted::All });
    }

    #[test]
    fn stuck_to_a_template_no_other_link_matters_once_it_is_there() {
        let interest = of(&host(), &named("eth0"));
        assert_eq!(interest.links, Some([2].into()));
        assert_eq!(interest.ignored, [1, 3, 4, 5, 6, 7].into());
        // While it is waited for, any link may get its name.
        let interest = of(&host(), &named("usb0"));
        assert_eq!(interest.ignored, [1, 4, 6].into());
    }

    #[test]
    fn more_links_than_a_list_holds_all_pass() {
        let mut host = host();
        for index in 100..300 {
            host = host.link(index, &format!("eth{index}"));
        }
        assert_eq!(of(&host, &plain()).links, None);
    }
}
