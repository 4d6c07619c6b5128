use super::*;
use crate::bind::testing::bind;
use crate::host::testing::{Host, hop};
use crate::net::testing::{ip, net};
use crate::policy::testing::{named, plain};

const MAC: MacAddr = MacAddr::OURS_BY_DEFAULT;

fn of(host: &Host, policy: &Policy) -> Desired {
    testing::desired(&host.0, policy, &bind(&host.0, policy), MAC)
}

/// The addresses of one family, as text, without the tap's link-local one.
fn addresses(desired: &Desired, family: Family) -> Vec<String> {
    let own = Prefix::link_local_of(MAC);
    let addresses = desired.addresses.iter().map(|it| it.prefix);
    let wanted = addresses.filter(|it| it.family() == family && *it != own);
    wanted.map(|it| it.to_string()).collect()
}

/// The routes of one family, as text.
fn routes(desired: &Desired, family: Family) -> Vec<String> {
    let of_family = desired.routes.iter().filter(|it| it.destination.family() == family);
    of_family.map(|it| format!("{it}{}", if it.onlink { " onlink" } else { "" })).collect()
}

/// A host with an ordinary IPv4 network.
fn ordinary() -> Host {
    Host::default()
        .link(2, "eth0")
        .address(2, "192.0.2.7/24")
        .route_with(2, "192.0.2.0/24", "", |route| route.protocol = BY_KERNEL)
        .route(2, "0.0.0.0/0", "192.0.2.1", 100)
}

/// A host with an ordinary IPv6 network.
fn ordinary_v6() -> Host {
    Host::default()
        .link(2, "eth0")
        .address(2, "fe80::7/64")
        .address(2, "2001:db8::7/64")
        .route_with(2, "2001:db8::/64", "", |route| route.protocol = BY_KERNEL)
        .route(2, "::/0", "fe80::1", 1024)
}

#[test]
fn without_a_host_network_there_is_local_mode() {
    let desired = of(&Host::default(), &plain());
    assert_eq!(addresses(&desired, Family::V4), ["169.254.2.1/16"]);
    assert_eq!(routes(&desired, Family::V4), ["0.0.0.0/0 via 169.254.2.2 metric 0"]);
    assert_eq!(addresses(&desired, Family::V6), [""; 0]);
    assert_eq!(routes(&desired, Family::V6), [""; 0]);
    assert!(desired.addresses.iter().any(|it| it.prefix == Prefix::link_local_of(MAC)));
    let v4 = desired.assigned.v4.unwrap();
    assert_eq!(v4.gateway, Some(ip("169.254.2.2")));
    assert_eq!((v4.our_address, v4.host_primary), (v4.gateway, None));
    let v6 = desired.assigned.v6.unwrap();
    assert_eq!((v6.gateway, v6.our_address), (Some(ip("fe80::1")), Some(ip("fe80::1"))));
    assert!(v6.addresses.is_empty());
}

#[test]
fn a_template_is_reproduced_without_what_the_kernel_makes_itself() {
    let desired = of(&ordinary(), &plain());
    assert_eq!(addresses(&desired, Family::V4), ["192.0.2.7/24"]);
    assert_eq!(routes(&desired, Family::V4), ["0.0.0.0/0 via 192.0.2.1 metric 100"]);
    let v4 = desired.assigned.v4.unwrap();
    assert_eq!((v4.gateway, v4.our_address), (Some(ip("192.0.2.1")), Some(ip("192.0.2.1"))));
    assert_eq!(v4.host_primary, Some(ip("192.0.2.7")));
}

#[test]
fn explicit_values_win_over_local_mode() {
    let mut policy = plain();
    policy.families.v4.addresses = vec![net("10.0.2.100/24")];
    policy.families.v4.gateway = Some(ip("10.0.2.2"));
    let desired = of(&Host::default(), &policy);
    assert_eq!(addresses(&desired, Family::V4), ["10.0.2.100/24"]);
    assert_eq!(routes(&desired, Family::V4), ["0.0.0.0/0 via 10.0.2.2 metric 0"]);
    assert_eq!(desired.assigned.v4.unwrap().gateway, Some(ip("10.0.2.2")));
}

#[test]
fn explicit_addresses_keep_their_order_and_the_routes_of_the_template() {
    let mut policy = plain();
    policy.families.v4.addresses = vec![net("203.0.113.9/24"), net("203.0.113.5/24")];
    let desired = of(&ordinary(), &policy);
    assert_eq!(addresses(&desired, Family::V4), ["203.0.113.9/24", "203.0.113.5/24"]);
    // The router is not among the addresses' neighbours any more.
    assert_eq!(routes(&desired, Family::V4), ["0.0.0.0/0 via 192.0.2.1 metric 100 onlink"]);
    assert_eq!(desired.assigned.v4.unwrap().host_primary, Some(ip("192.0.2.7")));
}

#[test]
fn an_explicit_gateway_replaces_all_routes_and_may_be_anywhere() {
    let mut policy = plain();
    policy.families.v4.gateway = Some(ip("203.0.113.1"));
    let host = ordinary().route(2, "198.51.100.0/24", "192.0.2.1", 0);
    let desired = of(&host, &policy);
    assert_eq!(routes(&desired, Family::V4), ["0.0.0.0/0 via 203.0.113.1 metric 0 onlink"]);
}

#[test]
fn ipv6_of_local_mode_gets_a_default_route_only_on_request() {
    let mut policy = plain();
    policy.families.v6.addresses = vec![net("2001:db8::99/64")];
    let desired = of(&Host::default(), &policy);
    assert_eq!(addresses(&desired, Family::V6), ["2001:db8::99/64"]);
    assert_eq!(routes(&desired, Family::V6), [""; 0]);
    policy.families.v6.gateway = Some(ip("2001:db8::1"));
    let on_request = of(&Host::default(), &policy);
    assert_eq!(routes(&on_request, Family::V6), ["::/0 via 2001:db8::1 metric 1024"]);
}

#[test]
fn a_family_that_is_off_gets_nothing() {
    let mut policy = plain();
    policy.families.v6.service = pasta_ipc::types::Service::Off;
    let desired = of(&ordinary_v6(), &policy);
    assert!(!desired.ipv6 && desired.assigned.v6.is_none());
    assert!(desired.addresses.iter().all(|it| it.prefix.family() == Family::V4));
}

#[test]
fn below_the_smallest_mtu_of_ipv6_there_is_no_ipv6() {
    let small = |octets| Policy { mtu: Some(Mtu::try_from(octets).unwrap()), ..plain() };
    assert!(!of(&ordinary_v6(), &small(1279)).ipv6);
    assert!(of(&ordinary_v6(), &small(1280)).ipv6);
}

#[test]
fn our_ipv6_address_is_the_gateways_or_the_templates_link_local_one() {
    let ours = |host: &Host| of(host, &plain()).assigned.v6.unwrap().our_address;
    assert_eq!(ours(&ordinary_v6()), Some(ip("fe80::1")));
    let bare = |host: Host| host.address(2, "2001:db8::7/64").route(2, "::/0", "2001:db8::1", 1024);
    let global_router = bare(Host::default().link(2, "eth0").address(2, "fe80::7/64"));
    assert_eq!(ours(&global_router), Some(ip("fe80::7")));
    assert_eq!(ours(&bare(Host::default().link(2, "tun0"))), Some(ip("fe80::1")));
}

#[test]
fn the_primary_is_added_first_for_ipv4_and_last_for_ipv6() {
    let host = ordinary()
        .address(2, "192.0.2.8/24")
        .address(2, "2001:db8::7/64")
        .address(2, "2001:db8::8/64")
        .route(2, "::/0", "fe80::1", 1024);
    let desired = of(&host, &plain());
    assert_eq!(addresses(&desired, Family::V4), ["192.0.2.7/24", "192.0.2.8/24"]);
    assert_eq!(addresses(&desired, Family::V6), ["2001:db8::8/64", "2001:db8::7/64"]);
    let assigned = desired.assigned.v6.unwrap().addresses;
    let assigned: Vec<_> = assigned.iter().map(|it| it.prefix).collect();
    assert_eq!(assigned, [net("2001:db8::7/64"), net("2001:db8::8/64")]);
}

#[test]
fn a_metric_of_zero_is_never_written_for_ipv6() {
    let host =
        Host::default().link(2, "eth0").address(2, "2001:db8::7/64").route(2, "::/0", "fe80::1", 0);
    assert_eq!(routes(&of(&host, &plain()), Family::V6), ["::/0 via fe80::1 metric 1"]);
}

#[test]
fn routes_come_in_an_order_in_which_each_finds_its_router() {
    let host = Host::default()
        .link(2, "eth0")
        .address(2, "192.0.2.7/32")
        .route(2, "0.0.0.0/0", "203.0.113.1", 0)
        .route(2, "198.51.100.0/24", "203.0.113.1", 0)
        .route(2, "203.0.113.1/32", "", 0);
    assert_eq!(
        routes(&of(&host, &plain()), Family::V4),
        [
            "203.0.113.1/32 metric 0",
            "198.51.100.0/24 via 203.0.113.1 metric 0",
            "0.0.0.0/0 via 203.0.113.1 metric 0",
        ]
    );
}

#[test]
fn a_router_outside_all_subnets_is_reached_on_the_link() {
    let host = Host::default().link(2, "eth0").address(2, "192.0.2.7/32").route(
        2,
        "0.0.0.0/0",
        "203.0.113.1",
        0,
    );
    let expected = ["0.0.0.0/0 via 203.0.113.1 metric 0 onlink"];
    assert_eq!(routes(&of(&host, &plain()), Family::V4), expected);
}

#[test]
fn a_point_to_point_address_stands_alone_and_its_peer_is_on_the_link() {
    let host = Host::default()
        .link(9, "tun0")
        .address_with(9, "10.8.0.6/32", |address| address.peer = Some(ip("10.8.0.5")))
        .route_with(9, "10.8.0.5/32", "", |route| route.protocol = BY_KERNEL)
        .route(9, "0.0.0.0/0", "10.8.0.5", 50);
    let desired = of(&host, &plain());
    assert_eq!(addresses(&desired, Family::V4), ["10.8.0.6/32"]);
    let expected = ["10.8.0.5/32 metric 0", "0.0.0.0/0 via 10.8.0.5 metric 50"];
    assert_eq!(routes(&desired, Family::V4), expected);
}

#[test]
fn connected_routes_are_reproduced_only_where_the_address_makes_none() {
    let host = Host::default()
        .link(2, "eth0")
        .address_with(2, "192.0.2.7/24", |address| address.prefix_route = false)
        .route_with(2, "192.0.2.0/24", "", |route| {
            (route.protocol, route.metric) = (BY_KERNEL, 100)
        })
        .route_with(2, "203.0.113.0/24", "", |route| route.protocol = BY_KERNEL)
        .route(2, "0.0.0.0/0", "192.0.2.1", 100);
    let desired = of(&host, &plain());
    assert!(
        !desired.addresses.iter().any(|it| it.prefix.family() == Family::V4 && it.prefix_route)
    );
    let expected = ["192.0.2.0/24 metric 100", "0.0.0.0/0 via 192.0.2.1 metric 100"];
    assert_eq!(routes(&desired, Family::V4), expected);
}

#[test]
fn what_cannot_be_reproduced_is_left_out_and_costs_nothing_else() {
    let host = ordinary()
        .link(3, "eth1")
        .route(2, "169.254.0.0/16", "", 1000)
        .route(2, "224.0.0.0/4", "", 0)
        .route(3, "198.51.100.0/24", "", 0)
        .route_with(2, "198.51.101.0/24", "192.0.2.1", |route| route.plain = false)
        .route_with(2, "198.51.102.0/24", "192.0.2.1", |route| route.protocol = BY_REDIRECT);
    assert_eq!(routes(&of(&host, &plain()), Family::V4), ["0.0.0.0/0 via 192.0.2.1 metric 100"]);
}

#[test]
fn of_several_hops_one_through_the_template_is_left() {
    let host = Host::default()
        .link(2, "eth0")
        .address(2, "192.0.2.7/24")
        .link(3, "eth1")
        .route_with(3, "0.0.0.0/0", "198.51.100.1", |route| {
            let mut dead = hop(2, "192.0.2.254");
            dead.live = false;
            route.hops.extend([dead, hop(2, "192.0.2.1")]);
        });
    assert_eq!(routes(&of(&host, &plain()), Family::V4), ["0.0.0.0/0 via 192.0.2.1 metric 0"]);
}

#[test]
fn of_routes_that_the_kernel_cannot_tell_apart_the_preferred_one_is_taken() {
    let host = Host::default()
        .link(2, "eth0")
        .address(2, "2001:db8::7/64")
        .route(2, "::/0", "fe80::1", 1024)
        .route_with(2, "::/0", "fe80::2", |route| (route.metric, route.preference) = (1024, 1));
    let desired = of(&host, &plain());
    assert_eq!(routes(&desired, Family::V6), ["::/0 via fe80::2 metric 1024"]);
    assert_eq!(desired.assigned.v6.unwrap().gateway, Some(ip("fe80::2")));
}

#[test]
fn a_host_that_finds_its_way_by_rules_gives_a_default_route_all_the_same() {
    let mut host = Host::default().link(2, "eth0").address(2, "192.0.2.7/24").route_with(
        2,
        "192.0.2.0/24",
        "",
        |route| route.protocol = BY_KERNEL,
    );
    host.0.routing.v4 = Routing::Asked(Some(hop(2, "192.0.2.1")));
    assert_eq!(routes(&of(&host, &plain()), Family::V4), ["0.0.0.0/0 via 192.0.2.1 metric 0"]);
}

#[test]
fn a_template_without_router_leaves_the_gateway_unknown() {
    let host = Host::default().link(2, "eth0").address(2, "192.0.2.7/24").route_with(
        2,
        "192.0.2.0/24",
        "",
        |route| route.protocol = BY_KERNEL,
    );
    let desired = of(&host, &plain());
    assert_eq!(routes(&desired, Family::V4), [""; 0]);
    let v4 = desired.assigned.v4.unwrap();
    assert_eq!((v4.gateway, v4.our_address), (None, None));
}

#[test]
fn a_named_template_without_carrier_keeps_its_gateway() {
    let host = |carrier| ordinary().link_with(3, "eth0", |link| link.carrier = carrier).0;
    let policy = crate::policy::testing::named("eth0");
    let gateway = |host: HostView| of(&Host(host), &policy).assigned.v4.unwrap();
    let with_carrier = gateway(host(true));
    assert_eq!(with_carrier.gateway, Some(ip("192.0.2.1")));
    assert_eq!(gateway(host(false)), with_carrier);
}

#[test]
fn too_many_routes_lose_ordinary_ones_first() {
    let mut host = ordinary();
    for n in 0..MAX_ROUTES_OF_LINK {
        host = host.route(2, &format!("10.{}.{}.0/24", n / 256, n % 256), "192.0.2.1", 0);
    }
    let host = host.route(2, "203.0.113.0/24", "", 0);
    let desired = of(&host, &plain());
    assert_eq!(desired.routes.len(), MAX_ROUTES_OF_LINK);
    assert_eq!(desired.left_out, 2);
    assert_eq!(desired.routes[0].destination, net("203.0.113.0/24"));
    assert!(desired.routes.last().unwrap().destination.is_everything());
}

#[test]
fn the_tap_is_named_by_option_then_template_then_constant() {
    let name =
        |host: &Host, policy: &Policy| tap_name(policy, &bind(&host.0, policy)).as_str().to_owned();
    let asked =
        |tap: &str| Policy { tap_name: named(tap).template(Family::V4).cloned(), ..plain() };
    assert_eq!(name(&ordinary(), &asked("foo0")), "foo0");
    assert_eq!(name(&ordinary(), &plain()), "eth0");
    assert_eq!(name(&ordinary_v6(), &plain()), "eth0");
    assert_eq!(name(&Host::default(), &plain()), "tap0");
    let both = ordinary().link(3, "wlan0").address(3, "2001:db8::7/64").route(3, "::/0", "", 1);
    assert_eq!(name(&both, &plain()), "eth0");
    let lo = Host::default().link(1, "lo").address(1, "192.0.2.7/32");
    assert_eq!(name(&lo, &named("lo")), "tap0");
    let odd = Host::default().link(2, "wl\u{e4}n").address(2, "192.0.2.7/24");
    assert_eq!(name(&odd.route(2, "0.0.0.0/0", "", 0), &plain()), "tap0");
}

#[test]
fn with_less_to_copy_there_is_one_address_and_one_default_route() {
    let host = ordinary().address(2, "192.0.2.8/24").route(2, "198.51.100.0/24", "192.0.2.9", 0);
    let all = of(&host, &plain());
    assert_eq!(addresses(&all, Family::V4), ["192.0.2.7/24", "192.0.2.8/24"]);
    assert_eq!(routes(&all, Family::V4).len(), 2);
    let mut policy = plain();
    policy.families.v4.copied = CopyAddresses::PrimaryOnly;
    policy.families.v4.routes = CopyRoutes::DefaultOnly;
    let less = of(&host, &policy);
    assert_eq!(addresses(&less, Family::V4), ["192.0.2.7/24"]);
    assert_eq!(routes(&less, Family::V4), ["0.0.0.0/0 via 192.0.2.1 metric 0"]);
}

#[test]
fn families_may_have_templates_of_their_own() {
    let host = ordinary()
        .link(3, "eth1")
        .address(3, "fe80::8/64")
        .address(3, "2001:db8:1::7/64")
        .route(3, "::/0", "fe80::2", 1024);
    let mut policy = plain();
    policy.families.v4.template = Some(IfName::try_from("eth1".to_owned()).unwrap());
    let desired = of(&host, &policy);
    // Which has no IPv4 address: local mode, although another interface would do.
    assert_eq!(addresses(&desired, Family::V4), ["169.254.2.1/16"]);
    assert_eq!(addresses(&desired, Family::V6), ["2001:db8:1::7/64"]);
}

#[test]
fn all_that_is_not_reproduced_is_counted_however_much_is_not_even_kept() {
    let mut host = Host::default()
        .link(3, "eth0")
        .link(4, "eth1")
        .address(3, "192.0.2.7/24")
        .route(3, "0.0.0.0/0", "192.0.2.1", 0);
    for n in 0..30_000_u32 {
        let to = format!("{}/32", std::net::Ipv4Addr::from(0x0a00_0000 + n));
        host = host.route(3, &to, "192.0.2.1", 0).route(4, &to, "198.51.100.1", 9);
    }
    let bindings = crate::bind::testing::bind(&host.0, &plain());
    let found = testing::desired(&host.0, &plain(), &bindings, MacAddr::OURS_BY_DEFAULT);
    let reproduced = found.routes.iter().filter(|it| it.destination.family() == Family::V4);
    assert_eq!(found.left_out + reproduced.count(), 30_001);
    // What is not asked for is not left out.
    let mut policy = plain();
    policy.families.v4.gateway = Some(crate::net::testing::ip("192.0.2.1"));
    let found = testing::desired(&host.0, &policy, &bindings, MacAddr::OURS_BY_DEFAULT);
    assert_eq!(found.left_out, 0);
}
