use super::*;
use crate::host::testing::{Host, hop};
use crate::net::testing::ip;
use crate::policy::testing::{named, plain};
use crate::record::LinkKind;

/// Name and primary of the best candidate, or what there is without one.
fn chosen(host: &HostView, policy: &Policy, family: Family) -> String {
    let found = candidates(host, policy, family, Stopgaps::Wait);
    found.first().map_or("local".into(), |it| format!("{} {}", it.link.name, it.primary))
}

fn v4(host: Host) -> String {
    chosen(&host.0, &plain(), Family::V4)
}

fn v6(host: Host) -> String {
    chosen(&host.0, &plain(), Family::V6)
}

/// A link with an address and a default route of a metric.
fn way_out(host: Host, index: u32, metric: u32, change: impl FnOnce(&mut Link)) -> Host {
    host.link_with(index, &format!("l{index}"), change)
        .address(index, &format!("192.0.{index}.7/24"))
        .route(index, "0.0.0.0/0", &format!("192.0.{index}.1"), metric)
}

fn tunnel(link: &mut Link) {
    link.kind = LinkKind::Tunnel;
}

#[test]
fn nothing_is_local() {
    assert_eq!(v4(Host::default()), "local");
    assert_eq!(v6(Host::default()), "local");
}

#[test]
fn links_that_lead_nowhere_are_no_candidates() {
    type Case = (&'static str, fn(&mut Link));
    let cases: [Case; 4] = [
        ("loopback", |link| link.loopback = true),
        ("down", |link| link.up = false),
        ("without carrier", |link| link.carrier = false),
        ("enslaved", |link| link.enslaved = true),
    ];
    for (case, change) in cases {
        assert_eq!(v4(way_out(Host::default(), 2, 0, change)), "local", "{case}");
    }
    assert_eq!(v4(way_out(Host::default(), 2, 0, |_| {})), "l2 192.0.2.7");
}

#[test]
fn lowest_metric_wins_then_the_order_of_the_kernel() {
    let two =
        |first, second| v4(way_out(way_out(Host::default(), 3, first, |_| {}), 2, second, |_| {}));
    assert_eq!(two(600, 100), "l2 192.0.2.7");
    assert_eq!(two(100, 600), "l3 192.0.3.7");
    assert_eq!(two(100, 100), "l3 192.0.3.7");
}

#[test]
fn higher_router_preference_wins_among_equal_metrics() {
    let route = |host: Host, index: u32, preference| {
        host.link(index, &format!("l{index}"))
            .address(index, &format!("2001:db8:{index}::7/64"))
            .route_with(index, "::/0", "fe80::1", |route| {
                (route.metric, route.preference) = (1024, preference);
            })
    };
    assert_eq!(v6(route(route(Host::default(), 2, 0), 3, 1)), "l3 2001:db8:3::7");
    assert_eq!(v6(route(route(Host::default(), 2, -1), 3, 0)), "l3 2001:db8:3::7");
}

#[test]
fn tunnels_come_last_and_are_taken_if_there_is_nothing_else() {
    let vpn = || way_out(Host::default(), 9, 50, tunnel);
    assert_eq!(v4(way_out(vpn(), 2, 600, |_| {})), "l2 192.0.2.7");
    assert_eq!(v4(vpn()), "l9 192.0.9.7");
}

#[test]
fn bridges_and_dummies_need_a_default_route() {
    for kind in [LinkKind::Bridge, LinkKind::Dummy] {
        let special = |link: &mut Link| link.kind = kind;
        let connected = Host::default()
            .link_with(5, "docker0", special)
            .address(5, "172.17.0.1/16")
            .route(5, "172.17.0.0/16", "", 0);
        assert_eq!(v4(connected), "local");
        assert_eq!(v4(way_out(Host::default(), 5, 0, special)), "l5 192.0.5.7");
    }
}

#[test]
fn without_any_default_route_a_route_beyond_the_link_will_do() {
    let connected = |metric2, metric3| {
        Host::default()
            .link(2, "eth0")
            .address(2, "192.0.2.7/24")
            .route(2, "192.0.2.0/24", "", metric2)
            .link(3, "eth1")
            .address(3, "198.51.100.7/24")
            .route(3, "198.51.100.0/24", "", metric3)
    };
    assert_eq!(v4(connected(0, 0)), "eth0 192.0.2.7");
    assert_eq!(v4(connected(100, 50)), "eth1 198.51.100.7");
    let link_local_only = Host::default()
        .link(2, "eth0")
        .address(2, "2001:db8::7/128")
        .route(2, "fe80::/64", "", 256)
        .route(2, "ff00::/8", "", 256);
    assert_eq!(v6(link_local_only), "local");
}

#[test]
fn a_default_route_anywhere_makes_interfaces_without_one_ineligible() {
    let host =
        Host::default().link(2, "eth0").address(2, "192.0.2.7/24").route(2, "192.0.2.0/24", "", 0);
    assert_eq!(v4(way_out(host, 3, 600, |_| {})), "l3 192.0.3.7");
}

#[test]
fn a_default_route_on_a_link_without_usable_address_does_not_count() {
    let host = Host::default().link(3, "bare").route(3, "0.0.0.0/0", "", 0);
    assert_eq!(v4(way_out(host, 2, 600, |_| {})), "l2 192.0.2.7");
}

#[test]
fn both_halves_of_the_world_through_one_link_are_a_default_route() {
    let halves = |upper| {
        Host::default()
            .link_with(2, "eth0", |_| {})
            .address(2, "192.0.2.7/24")
            .link(3, "eth1")
            .address(3, "198.51.100.7/24")
            .route(3, "0.0.0.0/1", "198.51.100.1", 0)
            .route(upper, "128.0.0.0/1", "198.51.100.1", 0)
            .route(2, "192.0.2.0/24", "", 0)
    };
    assert_eq!(v4(halves(3)), "eth1 198.51.100.7");
    // One half is an ordinary route: no interface has a default route, the lower index wins.
    assert_eq!(v4(halves(2)), "eth0 192.0.2.7");
    let v6_host = Host::default()
        .link(3, "tun0")
        .address(3, "2001:db8::7/64")
        .route(3, "2000::/3", "", 1024)
        .link(2, "eth0")
        .address(2, "2001:db8:1::7/64")
        .route(2, "2001:db8:1::/64", "", 256);
    assert_eq!(v6(v6_host), "tun0 2001:db8::7");
}

#[test]
fn a_vpn_by_halves_does_not_take_over_from_a_whole_default_route() {
    let host = way_out(Host::default(), 2, 600, |_| {})
        .link(9, "tun0")
        .address(9, "10.8.0.6/32")
        .route(9, "0.0.0.0/1", "", 0)
        .route(9, "128.0.0.0/1", "", 0);
    assert_eq!(v4(host), "l2 192.0.2.7");
}

#[test]
fn a_prefix_of_length_zero_and_not_only_its_first_address_makes_a_default_route() {
    let host = Host::default().link(3, "eth1").address(3, "198.51.100.7/24").route(
        3,
        "0.0.0.0/8",
        "198.51.100.1",
        0,
    );
    assert_eq!(v4(way_out(host, 2, 600, |_| {})), "l2 192.0.2.7");
}

#[test]
fn the_first_live_hop_of_several_counts() {
    let multipath = |first_lives| {
        Host::default()
            .link(2, "eth0")
            .address(2, "192.0.2.7/24")
            .link(3, "eth1")
            .address(3, "198.51.100.7/24")
            .route_with(2, "0.0.0.0/0", "192.0.2.1", |route| {
                route.hops[0].live = first_lives;
                route.hops.push(hop(3, "198.51.100.1"));
            })
    };
    assert_eq!(v4(multipath(true)), "eth0 192.0.2.7");
    assert_eq!(v4(multipath(false)), "eth1 198.51.100.7");
}

#[test]
fn a_named_interface_is_the_only_one_and_needs_neither_carrier_nor_route() {
    let host = way_out(Host::default(), 2, 0, |_| {})
        .link_with(3, "wlan0", |link| link.carrier = false)
        .address(3, "198.51.100.7/24")
        .link_with(4, "off", |link| link.up = false)
        .address(4, "203.0.113.7/24")
        .0;
    for (name, expected) in [
        ("wlan0", "wlan0 198.51.100.7"),
        ("l2", "l2 192.0.2.7"),
        ("off", "local"),
        ("missing", "local"),
    ] {
        assert_eq!(chosen(&host, &named(name), Family::V4), expected, "{name}");
    }
}

#[test]
fn the_name_of_the_tap_has_no_influence() {
    let host = way_out(way_out(Host::default(), 2, 0, |_| {}), 3, 100, |_| {}).0;
    let policy = Policy { tap_name: named("l3").template(Family::V4).cloned(), ..plain() };
    assert_eq!(chosen(&host, &policy, Family::V4), "l2 192.0.2.7");
}

#[test]
fn families_are_bound_each_by_itself() {
    let host = way_out(Host::default(), 2, 0, |_| {})
        .link(3, "v6only")
        .address(3, "2001:db8::7/64")
        .route(3, "::/0", "fe80::1", 1024)
        .0;
    assert_eq!(chosen(&host, &plain(), Family::V4), "l2 192.0.2.7");
    assert_eq!(chosen(&host, &plain(), Family::V6), "v6only 2001:db8::7");
}

#[test]
fn where_rules_decide_the_kernels_answer_counts() {
    let mut host = way_out(way_out(Host::default(), 2, 0, |_| {}), 3, 600, |_| {}).0;
    host.routing.v4 = Routing::Asked(Some(hop(3, "192.0.3.254")));
    assert_eq!(chosen(&host, &plain(), Family::V4), "l3 192.0.3.7");
    let through = default_route_through(&host, Family::V4, 3).unwrap();
    assert_eq!(through.gateway, Some(ip("192.0.3.254")));
    // An interface that was named keeps what table main says of it.
    let through = default_route_through(&host, Family::V4, 2).unwrap();
    assert_eq!(through.gateway, Some(ip("192.0.2.1")));
}

#[test]
fn rules_that_lead_into_a_tunnel_leave_the_interface_below_as_template() {
    let mut host = way_out(Host::default(), 2, 600, |_| {})
        .link_with(9, "wg0", tunnel)
        .address(9, "10.8.0.6/32");
    host.0.routing.v4 = Routing::Asked(Some(hop(9, "")));
    assert_eq!(v4(host), "l2 192.0.2.7");
}

/// An address, and how it differs from an ordinary one.
type Changed = (&'static str, fn(&mut Address));

/// Which of some addresses are usable, in order.
fn usable_of(addresses: &[Changed], named: Named) -> Vec<String> {
    let mut host = Host::default().link(2, "eth0");
    for (prefix, change) in addresses {
        host = host.address_with(2, prefix, change);
    }
    let family = host.0.addresses.first().unwrap().prefix.family();
    usable(&host.0, 2, family, named, Stopgaps::Wait)
        .iter()
        .map(|it| it.prefix.to_string())
        .collect()
}

fn as_is(_: &mut Address) {}

fn deprecated(address: &mut Address) {
    address.deprecated = true;
}

fn secondary(address: &mut Address) {
    address.secondary = true;
}

fn temporary(address: &mut Address) {
    address.temporary = true;
}

fn unproven(address: &mut Address) {
    address.unproven = true;
}

#[test]
fn addresses_that_nobody_can_use_are_never_usable() {
    for prefix in [
        "127.0.0.2/8",
        "224.0.0.1/4",
        "0.0.0.0/32",
        "255.255.255.255/32",
        "::1/128",
        "::/128",
        "ff02::1/128",
        "::ffff:192.0.2.1/128",
        "fe80::1/64",
    ] {
        for named in [Named::Yes, Named::No] {
            assert!(usable_of(&[(prefix, as_is)], named).is_empty(), "{prefix}");
        }
    }
}

#[test]
fn unproven_and_deprecated_addresses_are_not_taken_on() {
    assert!(usable_of(&[("2001:db8::1/64", unproven)], Named::No).is_empty());
    assert!(usable_of(&[("2001:db8::1/64", deprecated)], Named::Yes).is_empty());
    assert!(usable_of(&[("192.0.2.1/24", deprecated)], Named::No).is_empty());
}

#[test]
fn ipv4_link_local_needs_a_named_interface_with_nothing_better() {
    let alone: &[Changed] = &[("169.254.7.7/16", as_is)];
    assert!(usable_of(alone, Named::No).is_empty());
    assert_eq!(usable_of(alone, Named::Yes), ["169.254.7.7/16"]);
    let both: &[Changed] = &[("169.254.7.7/16", as_is), ("192.0.2.1/24", as_is)];
    assert_eq!(usable_of(both, Named::Yes), ["192.0.2.1/24"]);
}

#[test]
fn the_primary_comes_first_and_the_rest_in_the_kernels_order() {
    let v4: &[Changed] = &[
        ("192.0.2.2/24", secondary),
        ("192.0.2.3/24", secondary),
        ("192.0.2.1/24", as_is),
        ("198.51.100.1/32", as_is),
    ];
    assert_eq!(
        usable_of(v4, Named::No),
        ["192.0.2.1/24", "192.0.2.2/24", "192.0.2.3/24", "198.51.100.1/32"]
    );
    assert_eq!(usable_of(&v4[..2], Named::No), ["192.0.2.2/24", "192.0.2.3/24"]);
}

#[test]
fn a_long_prefix_does_not_make_a_primary() {
    let addresses: &[Changed] = &[("192.0.2.7/24", as_is), ("203.0.113.80/32", as_is)];
    assert_eq!(usable_of(addresses, Named::No)[0], "192.0.2.7/24");
}

#[test]
fn privacy_addresses_are_stopgaps_and_unique_local_ones_come_after_global_ones() {
    type Row = (&'static [Changed], &'static [&'static str]);
    let rows: [Row; 5] = [
        (&[("2001:db8::9/64", temporary), ("2001:db8::1/64", as_is)], &["2001:db8::1/64"]),
        (&[("2001:db8::9/64", temporary)], &["2001:db8::9/64"]),
        (&[("fd00::1/64", as_is), ("2001:db8::1/64", as_is)], &["2001:db8::1/64", "fd00::1/64"]),
        (
            &[("fd00::1/64", as_is), ("2001:db8::9/64", temporary)],
            &["2001:db8::9/64", "fd00::1/64"],
        ),
        (&[("fd00::9/64", temporary), ("fd00::1/64", as_is)], &["fd00::1/64"]),
    ];
    for (addresses, expected) in rows {
        assert_eq!(usable_of(addresses, Named::No), expected);
    }
}
