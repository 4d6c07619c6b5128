use super::*;
use crate::host::HostView;
use crate::net::testing::{ip, mac, net};
use crate::record::{AddressGeneration, Collect, LinkKind};
use netlink_packet_core::{DefaultNla, NLA_F_NESTED, Nla};
use proptest::prelude::*;

/// One attribute.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    octets(&DefaultNla::new(kind, value.to_vec()))
}

fn octets(nla: &impl Nla) -> Vec<u8> {
    use netlink_packet_core::Emitable;
    let mut octets = vec![0; nla.buffer_len()];
    nla.emit(&mut octets);
    octets
}

fn link_message(flags: u32, layer: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut message = vec![0, 0];
    message.extend(layer.to_ne_bytes());
    message.extend(7_u32.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(attributes.concat());
    message
}

fn eth0() -> Vec<Vec<u8>> {
    let mut settings = [0; 4 * 33];
    settings[4 * 19] = 1;
    let inet = attribute(2, &attribute(1, &settings));
    let inet6 = attribute(10, &[attribute(2, &settings), attribute(8, &[1])].concat());
    vec![
        attribute(3, b"eth0\0"),
        attribute(4, &1500_u32.to_ne_bytes()),
        attribute(1, &[2, 0, 0, 0, 0, 1]),
        attribute(16, &[6]),
        attribute(26 | NLA_F_NESTED, &[inet, inet6].concat()),
    ]
}

/// UP, RUNNING, LOWER_UP.
const IN_OPERATION: u32 = 1 | 1 << 6 | 1 << 16;
const ETHERNET: u16 = 1;

fn link(octets: &[u8]) -> crate::record::Link {
    match decode(NEW_LINK, octets) {
        Ok(Record::Link(link)) => *link,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_link_is_read_with_all_that_decisions_need() {
    let link = link(&link_message(IN_OPERATION, ETHERNET, &eth0()));
    assert_eq!((link.index, link.name.as_str(), link.mtu), (7, "eth0", 1500));
    assert_eq!(link.mac, Some(mac([2, 0, 0, 0, 0, 1])));
    assert!(link.up && link.carrier && !link.enslaved && !link.loopback);
    assert_eq!(link.kind, LinkKind::Ordinary);
    assert_eq!(link.promotes_secondaries, Some(true));
    assert_eq!(link.address_generation, Some(AddressGeneration::NONE));
}

#[test]
fn a_link_goes_by_its_alternative_names_too() {
    let names = [attribute(53, b"enp99s0\0"), attribute(53, b"lan\0")].concat();
    let list = attribute(52 | NLA_F_NESTED, &names);
    let link = link(&link_message(IN_OPERATION, ETHERNET, &[eth0(), vec![list]].concat()));
    assert_eq!(
        (link.name.as_str(), &link.alternatives[..]),
        ("eth0", &["enp99s0", "lan"].map(String::from)[..])
    );
    assert!(link.is_called("eth0") && link.is_called("lan") && !link.is_called("lan0"));
}

#[test]
fn carrier_needs_both_flags_and_an_operational_state() {
    let with = |flags, state| {
        let attributes = [eth0(), vec![attribute(16, &[state])]].concat();
        link(&link_message(flags, ETHERNET, &attributes)).carrier
    };
    assert!(with(IN_OPERATION, 6));
    assert!(with(IN_OPERATION, 0));
    assert!(!with(IN_OPERATION, 5));
    assert!(!with(1 | 1 << 6, 6));
    assert!(!with(1 | 1 << 16, 6));
}

#[test]
fn tunnels_are_known_by_flag_layer_or_kind_and_not_by_name() {
    let kind = |flags, layer, kind: &str| {
        let info = attribute(18, &attribute(1, format!("{kind}\0").as_bytes()));
        link(&link_message(flags, layer, &[eth0(), vec![info]].concat())).kind
    };
    assert_eq!(kind(IN_OPERATION, ETHERNET, "veth"), LinkKind::Ordinary);
    assert_eq!(kind(IN_OPERATION, ETHERNET, "wireguard"), LinkKind::Tunnel);
    assert_eq!(kind(IN_OPERATION | 1 << 4, ETHERNET, "veth"), LinkKind::Tunnel);
    assert_eq!(kind(IN_OPERATION, 0xfffe, "veth"), LinkKind::Tunnel);
    assert_eq!(kind(IN_OPERATION, ETHERNET, "bridge"), LinkKind::Bridge);
    assert_eq!(kind(IN_OPERATION, ETHERNET, "dummy"), LinkKind::Dummy);
}

#[test]
fn attributes_of_no_interest_do_not_cost_the_link_whatever_they_contain() {
    let odd = [attribute(22, b"x"), attribute(43, &[1]), attribute(200, &[0; 64])].concat();
    let message = link_message(IN_OPERATION, ETHERNET, &[eth0(), vec![odd]].concat());
    assert_eq!(link(&message).name, "eth0");
}

#[test]
fn ipv6_that_is_switched_off_or_not_there_is_told() {
    let without_ipv6 = |inet6: &[Vec<u8>]| {
        let mut attributes = eth0();
        attributes[4] = attribute(26 | NLA_F_NESTED, &inet6.concat());
        link(&link_message(IN_OPERATION, ETHERNET, &attributes)).without_ipv6
    };
    let settings = |disabled| {
        let mut settings = [0; 4 * 30];
        settings[4 * 26] = disabled;
        attribute(10, &[attribute(2, &settings), attribute(8, &[0])].concat())
    };
    assert!(without_ipv6(&[]));
    assert!(without_ipv6(&[settings(1)]));
    assert!(!without_ipv6(&[settings(0)]));
}

#[test]
fn a_link_without_index_name_or_mtu_is_refused() {
    let mut no_index = link_message(IN_OPERATION, ETHERNET, &eth0());
    no_index[4..8].fill(0);
    let without = |place: usize| {
        let mut attributes = eth0();
        attributes.remove(place);
        link_message(IN_OPERATION, ETHERNET, &attributes)
    };
    for message in [no_index, without(0), without(1)] {
        assert!(decode(NEW_LINK, &message).is_err());
    }
}

fn address_message(family: u8, bits: u8, flags: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut message = vec![family, bits, flags, 0];
    message.extend(7_u32.to_ne_bytes());
    message.extend(attributes.concat());
    message
}

fn address(octets: &[u8]) -> crate::record::Address {
    match decode(NEW_ADDRESS, octets) {
        Ok(Record::Address(address)) => address,
        other => panic!("{other:?}"),
    }
}

const LOCAL: u16 = 2;
const ADDRESS: u16 = 1;

#[test]
fn the_local_address_is_ours_and_another_one_is_the_peer() {
    let (a, b) = ([10, 8, 0, 6], [10, 8, 0, 5]);
    let both = [attribute(ADDRESS, &b), attribute(LOCAL, &a)];
    let found = address(&address_message(2, 32, 0, &both));
    assert_eq!((found.prefix, found.peer), (net("10.8.0.6/32"), Some(ip("10.8.0.5"))));
    let same = [attribute(ADDRESS, &a), attribute(LOCAL, &a)];
    assert_eq!(address(&address_message(2, 24, 0, &same)).peer, None);
    let v6 = attribute(ADDRESS, &std::net::Ipv6Addr::LOCALHOST.octets());
    assert_eq!(address(&address_message(10, 128, 0, &[v6])).prefix, net("::1/128"));
}

#[test]
fn flags_come_from_the_attribute_where_there_is_one() {
    let it = attribute(LOCAL, &[192, 0, 2, 7]);
    let long = |flags: u32| attribute(8, &flags.to_ne_bytes());
    let found = address(&address_message(2, 24, 0x20, std::slice::from_ref(&it)));
    assert!(found.deprecated && found.prefix_route && !found.secondary);
    let found = address(&address_message(2, 24, 0x20, &[it, long(0x201)]));
    assert!(!found.deprecated && !found.prefix_route && found.secondary && !found.temporary);
}

#[test]
fn preferred_time_zero_is_deprecated_without_the_flag() {
    let it = attribute(LOCAL, &[192, 0, 2, 7]);
    let times = |preferred: u32| {
        let mut value = preferred.to_ne_bytes().to_vec();
        value.extend([0xff; 12]);
        attribute(6, &value)
    };
    assert!(address(&address_message(2, 24, 0, &[it.clone(), times(0)])).deprecated);
    assert!(!address(&address_message(2, 24, 0, &[it, times(60)])).deprecated);
}

#[test]
fn the_first_flag_means_secondary_or_temporary_by_family() {
    let v6 = attribute(ADDRESS, &net("2001:db8::1/64").address().to_string().into_bytes());
    assert!(decode(NEW_ADDRESS, &address_message(10, 64, 1, &[v6])).is_err());
    let octets = match ip("2001:db8::1") {
        std::net::IpAddr::V6(v6) => v6.octets(),
        std::net::IpAddr::V4(_) => panic!(),
    };
    let found = address(&address_message(10, 64, 0x41, &[attribute(ADDRESS, &octets)]));
    assert!(found.temporary && !found.secondary && found.unproven);
}

#[test]
fn labels_and_names_of_any_octets_cost_nothing() {
    let v4 = attribute(LOCAL, &[192, 0, 2, 1]);
    // IFA_LABEL.
    let label = attribute(3, b"x\xffy\0");
    let found = address(&address_message(2, 24, 0, &[label, v4.clone()]));
    assert_eq!(found, address(&address_message(2, 24, 0, &[v4])));
    let mut named = eth0();
    named[0] = attribute(3, b"x\xffy\0");
    let message = link_message(IN_OPERATION, ETHERNET, &named);
    assert_eq!(link(&message).name, "x\u{fffd}y");
}

#[test]
fn addresses_that_contradict_themselves_are_refused() {
    let v4 = attribute(LOCAL, &[192, 0, 2, 7]);
    let mut no_link = address_message(2, 24, 0, std::slice::from_ref(&v4));
    no_link[4..8].fill(0);
    for (case, message) in [
        ("no address", address_message(2, 24, 0, &[])),
        ("wrong size", address_message(2, 24, 0, &[attribute(LOCAL, &[192, 0, 2])])),
        ("other family", address_message(10, 24, 0, std::slice::from_ref(&v4))),
        ("long prefix", address_message(2, 33, 0, &[v4])),
        ("no link", no_link),
    ] {
        assert!(decode(NEW_ADDRESS, &message).is_err(), "{case}");
    }
}

/// An IPv4 route to 198.51.100.0/24 through link 7.
fn route_message(bits: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    // Family, lengths, tos, table main, protocol static, scope, type unicast, flags.
    let mut message = vec![2, bits, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
    message.extend(attributes.concat());
    message
}

fn route(octets: &[u8]) -> crate::record::Route {
    match decode(NEW_ROUTE, octets) {
        Ok(Record::Route(route)) => route,
        other => panic!("{other:?}"),
    }
}

fn oif() -> Vec<u8> {
    attribute(4, &7_u32.to_ne_bytes())
}

#[test]
fn a_route_is_read_with_metric_router_and_size_limits() {
    let mtu = attribute(2, &1400_u32.to_ne_bytes());
    let found = route(&route_message(
        24,
        &[
            attribute(1, &[198, 51, 100, 77]),
            oif(),
            attribute(5, &[192, 0, 2, 1]),
            attribute(6, &600_u32.to_ne_bytes()),
            attribute(8, &mtu),
        ],
    ));
    assert_eq!((found.destination, found.metric), (net("198.51.100.0/24"), 600));
    assert_eq!((found.mtu, found.advmss, found.protocol), (Some(1400), None, 4));
    assert!(found.plain && !found.cached);
    let [hop] = &found.hops[..] else { panic!() };
    assert_eq!((hop.link, hop.gateway, hop.live), (7, Some(ip("192.0.2.1")), true));
}

#[test]
fn hops_of_a_multipath_route_are_read_each() {
    let way = |link: u32, flags: u8, last: u8| {
        let gateway = attribute(5, &[192, 0, 2, last]);
        let mut way = (8 + gateway.len() as u16).to_ne_bytes().to_vec();
        way.extend([flags, 0]);
        way.extend(link.to_ne_bytes());
        way.extend(gateway);
        way
    };
    let ways = [way(2, 1, 1), way(3, 4, 2)].concat();
    let found = route(&route_message(0, &[attribute(9, &ways)]));
    assert_eq!(found.destination, net("0.0.0.0/0"));
    let [dead, onlink] = &found.hops[..] else { panic!() };
    assert_eq!((dead.link, dead.live, dead.onlink), (2, false, false));
    assert_eq!((onlink.link, onlink.live, onlink.onlink), (3, true, true));
}

#[test]
fn an_ipv4_route_may_have_an_ipv6_router() {
    let mut via = 10_u16.to_ne_bytes().to_vec();
    via.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let found = route(&route_message(0, &[oif(), attribute(18, &via)]));
    assert_eq!(found.hops[0].gateway, Some(ip("fe80::1")));
}

#[test]
fn routes_that_say_more_than_we_can_are_marked() {
    let mut with_tos = route_message(0, &[oif()]);
    with_tos[3] = 0x10;
    assert!(!route(&with_tos).plain);
    assert!(!route(&route_message(0, &[oif(), attribute(21, &1_u16.to_ne_bytes())])).plain);
}

#[test]
fn a_length_without_destination_is_refused() {
    assert!(decode(NEW_ROUTE, &route_message(24, &[oif()])).is_err());
    assert!(decode(NEW_ROUTE, &route_message(33, &[attribute(1, &[1, 2, 3, 4])])).is_err());
}

#[test]
fn routes_that_discard_lead_nowhere() {
    // Blackhole, unreachable, prohibit, throw (rtnetlink(7)).
    for kind in 6..10 {
        let mut message = route_message(0, &[oif()]);
        message[7] = kind;
        let Ok(Record::Route(route)) = decode(NEW_ROUTE, &message) else { panic!("{kind}") };
        assert!(route.discards && route.hops.is_empty(), "{route:?}");
    }
}

#[test]
fn local_routes_and_other_families_are_of_no_interest() {
    let mut local = route_message(0, &[oif()]);
    local[7] = 2;
    assert_eq!(decode(NEW_ROUTE, &local), Ok(Record::Other));
    let mut mpls = route_message(0, &[]);
    mpls[0] = 28;
    assert_eq!(decode(NEW_ROUTE, &mpls), Ok(Record::Other));
    assert_eq!(decode(17, &[]), Ok(Record::Other));
}

#[test]
fn only_the_three_rules_that_every_namespace_has_are_standard() {
    let standard = |table: u8, priority: u32, extra: &[u8]| {
        // Family, lengths, tos, table, reserved, action "to table", flags.
        let mut message = vec![2, 0, 0, 0, table, 0, 0, 1, 0, 0, 0, 0];
        message.extend(attribute(6, &priority.to_ne_bytes()));
        message.extend(attribute(14, &u32::MAX.to_ne_bytes()));
        message.extend(extra);
        match decode(NEW_RULE, &message) {
            Ok(Record::Rule(rule)) => rule.standard,
            other => panic!("{other:?}"),
        }
    };
    assert!(standard(255, 0, &[]));
    assert!(standard(254, 32766, &[]));
    assert!(standard(253, 32767, &[]));
    assert!(!standard(254, 1000, &[]));
    assert!(!standard(100, 32766, &[]));
    assert!(!standard(254, 32766, &attribute(10, &1_u32.to_ne_bytes())));
}

fn good_messages() -> Vec<(u16, Vec<u8>)> {
    let local = attribute(LOCAL, &[192, 0, 2, 7]);
    vec![
        (NEW_LINK, link_message(IN_OPERATION, ETHERNET, &eth0())),
        (NEW_ADDRESS, address_message(2, 24, 0, &[local])),
        (NEW_ROUTE, route_message(24, &[attribute(1, &[198, 51, 100, 0]), oif()])),
    ]
}

#[test]
fn a_message_cut_anywhere_is_refused_or_says_nothing_new() {
    for (kind, message) in good_messages() {
        let whole = decode(kind, &message).unwrap();
        for end in 0..message.len() {
            let mut view = HostView::default();
            if let Ok(record) = decode(kind, &message[..end]) {
                // Cut between two attributes it is a message of its own, which holds for itself.
                assert_ne!(record, whole);
                view.take(record);
            } else {
                assert_eq!(view, HostView::default());
            }
        }
    }
}

proptest! {
    #[test]
    fn any_octets_are_refused_or_read(kind in 16_u16..36, octets: Vec<u8>) {
        let _ = decode(kind, &octets);
    }

    #[test]
    fn messages_with_changed_octets_are_refused_or_read(
        which in 0_usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (kind, mut message) = good_messages().swap_remove(which);
        for (place, value) in changes {
            let place = place.index(message.len());
            message[place] = value;
        }
        let _ = decode(kind, &message);
    }
}
