use super::*;
use crate::namespace::{FoundAddress, FoundRoute};
use crate::net::testing::{ip, mac, net};
use crate::record::{Link, LinkKind};
use pasta_ipc::types::{Mtu, Prefix};
use proptest::prelude::*;

fn wanted(prefix: &str) -> WantedAddress {
    WantedAddress::new(net(prefix))
}

fn to(destination: &str, gateway: &str, metric: u32) -> WantedRoute {
    WantedRoute {
        destination: net(destination),
        gateway: (!gateway.is_empty()).then(|| ip(gateway)),
        onlink: false,
        metric,
        mtu: None,
        advmss: None,
    }
}

fn desired(addresses: &[WantedAddress], routes: &[WantedRoute]) -> Desired {
    Desired {
        mtu: Some(Mtu::DEFAULT),
        ipv6: true,
        up: true,
        addresses: addresses.to_vec(),
        routes: routes.to_vec(),
        ..Desired::default()
    }
}

/// A namespace that holds operations to what the kernel would, and applies them to sets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fake(NamespaceView);

impl Fake {
    /// With a tap as it is right after it was made.
    fn fresh() -> Self {
        let tap = Link {
            index: 2,
            name: "tap0".into(),
            kind: LinkKind::Tunnel,
            mac: Some(mac([2, 0, 0, 0, 0, 1])),
            up: false,
            carrier: false,
            loopback: false,
            enslaved: false,
            mtu: 1500,
            promotes_secondaries: Some(false),
            address_generation: Some(AddressGeneration::EUI64),
            without_ipv6: false,
            alternatives: Vec::new(),
        };
        Self(NamespaceView { tap, addresses: Vec::new(), routes: Vec::new() })
    }

    /// With a tap that was set up before.
    fn configured() -> Self {
        let mut fake = Self::fresh();
        fake.run(&plan(&desired(&[], &[]), &fake.0).additions);
        fake
    }

    fn address(mut self, prefix: &str, owner: Owner) -> Self {
        self.0.addresses.push(FoundAddress { address: wanted(prefix), on_tap: true, owner });
        self
    }

    fn route(mut self, route: WantedRoute, owner: Owner) -> Self {
        self.0.routes.push(FoundRoute { route, owner, on_tap: true, of_kernel: false });
        self
    }

    fn run(&mut self, ops: &[NamespaceOp]) {
        for op in ops {
            self.apply(op);
        }
    }

    fn apply(&mut self, op: &NamespaceOp) {
        let owner = Owner::Ours;
        let NamespaceView { tap, addresses, routes } = &mut self.0;
        let key = |it: &WantedRoute| (it.destination, it.metric);
        match op {
            NamespaceOp::SetMtu(mtu) => tap.mtu = mtu.get().into(),
            NamespaceOp::PromoteSecondaries => tap.promotes_secondaries = Some(true),
            NamespaceOp::SetAddressGeneration(mode) => tap.address_generation = Some(*mode),
            NamespaceOp::RaiseTap => {
                assert_eq!(
                    tap.address_generation,
                    Some(AddressGeneration::NONE),
                    "DAD would start"
                );
                tap.up = true;
            }
            NamespaceOp::AddAddress(address) => {
                assert!(tap.up, "IPv6 addresses need the link up");
                let same = |it: &FoundAddress| {
                    same_object(&it.address, address) || exclude_each_other(&it.address, address)
                };
                assert!(!addresses.iter().any(same), "the kernel would refuse {address:?}");
                addresses.push(FoundAddress { address: *address, on_tap: true, owner });
            }
            NamespaceOp::AdjustAddress(address) => {
                let there = addresses.iter_mut().find(|it| same_object(&it.address, address));
                let there = there.unwrap();
                assert_eq!(there.owner, Owner::Ours);
                there.address = *address;
            }
            NamespaceOp::RemoveAddress(address) => {
                let place = addresses.iter().position(|it| it.address == *address).unwrap();
                assert_eq!(addresses.remove(place).owner, Owner::Ours);
            }
            NamespaceOp::AddRoute(route) => {
                assert!(!routes.iter().any(|it| key(&it.route) == key(route)), "{route} is there");
                routes.push(FoundRoute { route: *route, owner, on_tap: true, of_kernel: false });
            }
            NamespaceOp::ReplaceRoute(route) => {
                let there = routes.iter_mut().find(|it| key(&it.route) == key(route)).unwrap();
                assert_eq!(there.owner, Owner::Ours);
                there.route = *route;
            }
            NamespaceOp::RemoveRoute(route) => {
                let place = routes.iter().position(|it| it.route == *route).unwrap();
                assert_eq!(routes.remove(place).owner, Owner::Ours);
            }
        }
    }

    fn foreign(&self) -> (Vec<FoundAddress>, Vec<FoundRoute>) {
        let (mut addresses, mut routes) = (self.0.addresses.clone(), self.0.routes.clone());
        addresses.retain(|it| it.owner == Owner::Foreign);
        routes.retain(|it| it.owner == Owner::Foreign);
        (addresses, routes)
    }
}

#[test]
fn a_fresh_tap_is_set_up_in_the_order_in_which_nothing_waits() {
    let wish = desired(
        &[wanted("fe80::1/64"), wanted("192.0.2.7/24")],
        &[to("0.0.0.0/0", "192.0.2.1", 0)],
    );
    let plan = plan(&wish, &Fake::fresh().0);
    assert_eq!(
        plan.additions,
        [
            NamespaceOp::SetMtu(Mtu::DEFAULT),
            NamespaceOp::PromoteSecondaries,
            NamespaceOp::SetAddressGeneration(AddressGeneration::NONE),
            NamespaceOp::RaiseTap,
            NamespaceOp::AddAddress(wanted("fe80::1/64")),
            NamespaceOp::AddAddress(wanted("192.0.2.7/24")),
            NamespaceOp::SetAddressGeneration(AddressGeneration::EUI64),
            NamespaceOp::AddRoute(to("0.0.0.0/0", "192.0.2.1", 0)),
        ]
    );
    assert_eq!(plan.removals, []);
}

#[test]
fn without_ipv6_no_link_local_address_comes_about() {
    let mut wish = desired(&[], &[]);
    wish.ipv6 = false;
    let mut fake = Fake::fresh();
    fake.run(&plan(&wish, &fake.0).additions);
    assert_eq!(fake.0.address_generation(), Some(AddressGeneration::NONE));
    assert!(plan(&wish, &fake.0).is_empty());
}

#[test]
fn a_namespaces_own_way_of_making_addresses_is_set_back() {
    let private = AddressGeneration(2);
    let mut fake = Fake::fresh();
    fake.0.tap.address_generation = Some(private);
    fake.run(&plan(&desired(&[], &[]), &fake.0).additions);
    assert_eq!(fake.0.address_generation(), Some(private));
}

#[test]
fn new_address_comes_before_the_old_one_goes_and_the_next_plan_is_empty() {
    let (old, new) = ("192.0.2.7/24", "198.51.100.7/24");
    let mut fake = Fake::configured().address(old, Owner::Ours);
    let wish = desired(&[wanted(new)], &[]);
    let first = plan(&wish, &fake.0);
    assert_eq!(first.additions, [NamespaceOp::AddAddress(wanted(new))]);
    assert_eq!(first.removals, [NamespaceOp::RemoveAddress(wanted(old))]);
    fake.run(&first.additions);
    fake.run(&first.removals);
    assert!(plan(&wish, &fake.0).is_empty());
}

#[test]
fn superseded_routes_go_before_the_addresses_they_depend_on() {
    let old = to("0.0.0.0/0", "192.0.2.1", 600);
    let fake = Fake::configured().address("192.0.2.7/24", Owner::Ours).route(old, Owner::Ours);
    let plan = plan(&desired(&[], &[]), &fake.0);
    let expected =
        [NamespaceOp::RemoveRoute(old), NamespaceOp::RemoveAddress(wanted("192.0.2.7/24"))];
    assert_eq!(plan.removals, expected);
}

#[test]
fn an_address_that_users_have_counts_as_there_whatever_its_prefix() {
    let fake = Fake::configured().address("192.0.2.7/16", Owner::Foreign);
    assert!(plan(&desired(&[wanted("192.0.2.7/24")], &[]), &fake.0).is_empty());
}

#[test]
fn a_route_of_users_is_neither_shadowed_nor_replaced() {
    let theirs = to("198.51.100.0/24", "192.0.2.254", 100);
    let fake = Fake::configured().route(theirs, Owner::Foreign);
    let wish = |metric| desired(&[], &[to("198.51.100.0/24", "192.0.2.1", metric)]);
    assert!(plan(&wish(100), &fake.0).is_empty());
    assert_eq!(plan(&wish(200), &fake.0).additions.len(), 1);
}

#[test]
fn while_users_have_a_default_route_ours_is_neither_added_nor_updated() {
    let theirs = to("0.0.0.0/0", "192.0.2.254", 7);
    let defaults = [to("0.0.0.0/0", "192.0.2.1", 0), to("::/0", "fe80::1", 1024)];
    let wish = desired(&[wanted("192.0.2.7/24")], &defaults);
    let fake =
        Fake::configured().address("192.0.2.7/24", Owner::Ours).route(theirs, Owner::Foreign);
    let plan_v6_only = plan(&wish, &fake.0);
    assert_eq!(plan_v6_only.additions, [NamespaceOp::AddRoute(to("::/0", "fe80::1", 1024))]);

    let ours = to("0.0.0.0/0", "192.0.2.9", 0);
    let fake = fake.route(ours, Owner::Ours).route(to("::/0", "fe80::1", 1024), Owner::Ours);
    assert!(plan(&wish, &fake.0).is_empty());
    // When nothing wants it any more, it goes.
    let removals = plan(&desired(&[], &[]), &fake.0).removals;
    assert!(removals.contains(&NamespaceOp::RemoveRoute(ours)));
}

#[test]
fn a_default_route_that_users_have_superseded_stays_when_the_hosts_gets_another_metric() {
    let (ours, theirs) = (to("0.0.0.0/0", "192.0.2.1", 0), to("0.0.0.0/0", "192.0.2.77", 50));
    let fake = Fake::configured()
        .address("192.0.2.7/24", Owner::Ours)
        .route(ours, Owner::Ours)
        .route(theirs, Owner::Foreign);
    let of_host = |metric| desired(&[wanted("192.0.2.7/24")], &[WantedRoute { metric, ..ours }]);
    assert_eq!(plan(&of_host(200), &fake.0), Plan::default());
    let without = desired(&[wanted("192.0.2.7/24")], &[]);
    assert_eq!(plan(&without, &fake.0).removals, [NamespaceOp::RemoveRoute(ours)]);
}

#[test]
fn another_router_for_the_same_route_is_put_in_its_place_in_one_step() {
    let fake = Fake::configured().route(to("0.0.0.0/0", "192.0.2.1", 0), Owner::Ours);
    let new = to("0.0.0.0/0", "192.0.2.9", 0);
    let plan = plan(&desired(&[], &[new]), &fake.0);
    assert_eq!(plan.additions, [NamespaceOp::ReplaceRoute(new)]);
    assert_eq!(plan.removals, []);
}

#[test]
fn an_address_that_excludes_its_successor_goes_first() {
    let old = wanted("2001:db8::7/64");
    let fake = Fake::configured().address("2001:db8::7/64", Owner::Ours);
    let new = wanted("2001:db8::7/128");
    let plan = plan(&desired(&[new], &[]), &fake.0);
    assert_eq!(plan.additions, [NamespaceOp::RemoveAddress(old), NamespaceOp::AddAddress(new)]);
    assert_eq!(plan.removals, []);
}

#[test]
fn refused_operations_are_left_out() {
    let mut plan = plan(&desired(&[wanted("192.0.2.7/24")], &[]), &Fake::configured().0);
    plan.without(|op| matches!(op, NamespaceOp::AddAddress(_)));
    assert!(plan.is_empty());
}

#[test]
fn an_address_is_deprecated_in_place_after_what_replaces_it_was_added() {
    let old = wanted("192.0.2.7/24");
    let fake = Fake::configured().address("192.0.2.7/24", Owner::Ours);
    let new = wanted("198.51.100.7/24");
    let first = plan(&desired(&[new, old.with_deprecated(true)], &[]), &fake.0);
    assert_eq!(first.additions, [NamespaceOp::AddAddress(new)]);
    assert_eq!(first.removals, [NamespaceOp::AdjustAddress(old.with_deprecated(true))]);
}

#[test]
fn while_users_have_the_tap_down_nothing_is_done() {
    let mut fake = Fake::configured();
    fake.0.tap.up = false;
    let wish = |up| Desired { up, ..desired(&[wanted("192.0.2.7/24")], &[]) };
    assert!(plan(&wish(false), &fake.0).is_empty());
    assert!(!plan(&wish(true), &fake.0).is_empty());
}

#[test]
fn a_default_route_that_users_have_superseded_goes_with_its_subnet() {
    let theirs = to("0.0.0.0/0", "192.0.2.254", 7);
    let ours = to("0.0.0.0/0", "192.0.2.1", 0);
    let fake = Fake::configured().route(theirs, Owner::Foreign).route(ours, Owner::Ours);
    let new = to("0.0.0.0/0", "198.51.100.1", 0);
    let mut fake = fake.address("198.51.100.7/24", Owner::Ours);
    let wish = desired(&[wanted("198.51.100.7/24")], &[new]);
    let first = plan(&wish, &fake.0);
    assert_eq!(first.additions, []);
    assert_eq!(first.removals, [NamespaceOp::RemoveRoute(ours)]);
    fake.run(&first.removals);
    assert!(plan(&wish, &fake.0).is_empty());
}

fn any_address() -> impl Strategy<Value = WantedAddress> {
    // Few addresses and lengths, so that they meet.
    let prefix = prop_oneof![
        (0_u8..6, 23_u8..26).prop_map(|(host, len)| (ip(&format!("192.0.2.{host}")), len)),
        (0_u8..6, 63_u8..66).prop_map(|(host, len)| (ip(&format!("2001:db8::{host}")), len)),
    ];
    (prefix, any::<bool>(), any::<bool>()).prop_map(|((address, len), prefix_route, deprecated)| {
        WantedAddress { prefix: Prefix::new(address, len).unwrap(), prefix_route, deprecated }
    })
}

fn any_route() -> impl Strategy<Value = WantedRoute> {
    let destination = prop::sample::select(vec![
        "0.0.0.0/0",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "::/0",
        "2001:db8:1::/48",
    ]);
    (destination, 1_u8..4, 1_u32..4).prop_map(|(destination, router, metric)| {
        let v4 = net(destination).family() == Family::V4;
        let router = if v4 { format!("192.0.2.{router}") } else { format!("fe80::{router}") };
        to(destination, &router, metric)
    })
}

/// Keeps the first of those that the kernel could not hold together.
fn compatible(addresses: Vec<WantedAddress>, routes: Vec<WantedRoute>) -> Desired {
    let mut wish = desired(&[], &[]);
    for it in addresses {
        let meets =
            |there: &WantedAddress| same_object(there, &it) || exclude_each_other(there, &it);
        if !wish.addresses.iter().any(meets) {
            wish.addresses.push(it);
        }
    }
    for it in routes {
        let key = |it: &WantedRoute| (it.destination, it.metric);
        if !wish.routes.iter().any(|there| key(there) == key(&it)) {
            wish.routes.push(it);
        }
    }
    wish
}

fn any_desired() -> impl Strategy<Value = Desired> {
    let addresses = prop::collection::vec(any_address(), 0..6);
    (addresses, prop::collection::vec(any_route(), 0..6)).prop_map(|(a, r)| compatible(a, r))
}

/// A namespace with objects of ours and of users, such as the kernel could hold.
fn any_namespace() -> impl Strategy<Value = Fake> {
    (any_desired(), any_desired(), any::<bool>()).prop_map(|(ours, theirs, fresh)| {
        let mut fake = if fresh { Fake::fresh() } else { Fake::configured() };
        for (wish, owner) in [(theirs, Owner::Foreign), (ours, Owner::Ours)] {
            for address in wish.addresses {
                let mut there = fake.0.addresses.iter().map(|it| it.address);
                if !there.any(|it| it.prefix.address() == address.prefix.address()) {
                    fake.0.addresses.push(FoundAddress { address, on_tap: true, owner });
                }
            }
            for route in wish.routes {
                let mut there = fake.0.routes.iter().map(|it| it.route);
                let key = |it: &WantedRoute| (it.destination, it.metric);
                if !there.any(|it| key(&it) == key(&route)) {
                    fake.0.routes.push(FoundRoute { route, owner, on_tap: true, of_kernel: false });
                }
            }
        }
        fake
    })
}

proptest! {
    #[test]
    fn one_pass_converges_and_leaves_what_is_foreign(
        wishes in prop::collection::vec(any_desired(), 1..4),
        mut fake in any_namespace(),
    ) {
        let foreign = fake.foreign();
        for wish in wishes {
            let plan = plan(&wish, &fake.0);
            fake.run(&plan.additions);
            fake.run(&plan.removals);
            prop_assert!(super::plan(&wish, &fake.0).is_empty());
            prop_assert_eq!(&fake.foreign(), &foreign);
            // Nothing of ours is left that is not wanted.
            for ours in fake.0.our_addresses() {
                prop_assert!(wish.addresses.contains(&ours));
            }
        }
    }

    #[test]
    fn what_replaces_something_is_there_before_that_goes(
        wish in any_desired(),
        mut fake in any_namespace(),
    ) {
        let plan = plan(&wish, &fake.0);
        fake.run(&plan.additions);
        // At the turn of the two lists all that is wanted is there, and all that was there still is.
        for family in Family::BOTH {
            let has_default = |routes: &[WantedRoute]| {
                routes.iter().any(|it| it.destination == Prefix::everything(family))
            };
            let there: Vec<_> = fake.0.routes.iter().map(|it| it.route).collect();
            prop_assert!(!has_default(&wish.routes) || has_default(&there));
        }
        for address in &wish.addresses {
            let ip = address.prefix.address();
            prop_assert!(fake.0.addresses.iter().any(|it| it.ip() == ip));
        }
        let only_removals = plan.removals.iter().all(|op| {
            match op {
                NamespaceOp::RemoveAddress(_) | NamespaceOp::RemoveRoute(_) => true,
                NamespaceOp::AdjustAddress(address) => address.deprecated,
                _ => false,
            }
        });
        prop_assert!(only_removals);
    }
}

#[test]
fn address_of_local_mode_goes_before_the_default_route_changes() {
    let local = desired(&[wanted("169.254.2.1/16")], &[to("0.0.0.0/0", "169.254.2.2", 0)]);
    let bound = desired(&[wanted("192.0.2.7/24")], &[to("0.0.0.0/0", "192.0.2.1", 0)]);
    let mut fake = Fake::configured();
    fake.run(&plan(&local, &fake.0).additions);
    let plan = plan(&bound, &fake.0);
    let wanted_order = [
        NamespaceOp::AddAddress(wanted("192.0.2.7/24")),
        NamespaceOp::RemoveAddress(wanted("169.254.2.1/16")),
        NamespaceOp::ReplaceRoute(to("0.0.0.0/0", "192.0.2.1", 0)),
    ];
    assert_eq!(plan.additions, wanted_order);
    // An address of a network stays until the route has changed.
    let moved = desired(&[wanted("198.51.100.7/24")], &[to("0.0.0.0/0", "198.51.100.1", 0)]);
    fake.run(&wanted_order);
    let plan = super::plan(&moved, &fake.0);
    assert_eq!(plan.removals, [NamespaceOp::RemoveAddress(wanted("192.0.2.7/24"))]);
}
