use super::*;
use crate::bind::testing::bind;
use crate::desired::testing::desired;
use crate::host::testing::Host;
use crate::namespace::{Collector, NamespaceView};
use crate::policy::Policy;
use crate::policy::testing::plain;
use crate::record::{Collect, Record};
use pasta_ipc::types::{MacAddr, Service};
use std::collections::BTreeSet;

const MAC: MacAddr = MacAddr::OURS_BY_DEFAULT;

/// A namespace with these addresses on the tap, which has index 2.
fn namespace(addresses: &[&str]) -> NamespaceView {
    let mut collector = Collector::default();
    let tap = Host::default().link_with(2, "tap0", |link| link.mtu = 65520).0;
    tap.links.into_values().for_each(|it| collector.take(Record::Link(Box::new(it))));
    for address in addresses {
        let one = Host::default().address(2, address).0;
        one.addresses.into_iter().for_each(|it| collector.take(Record::Address(it)));
    }
    collector.view(2, &BTreeSet::new()).unwrap()
}

fn published(host: &Host, policy: &Policy, namespace: &NamespaceView) -> NetworkSnapshot {
    let bindings = bind(&host.0, policy);
    let desired = desired(&host.0, policy, &bindings, MAC);
    let leaving = PerFamily { v4: vec!["192.0.2.9".parse().unwrap()], v6: Vec::new() };
    let wishes = Wishes { desired: &desired, losses: AddressLosses(2), leaving };
    snapshot(Generation(5), &bindings, &wishes, namespace)
}

/// The assigned IPv4 addresses of `snapshot`, with a mark where one is deprecated.
fn assigned(snapshot: &NetworkSnapshot) -> Vec<String> {
    let mark = |deprecated| if deprecated { " deprecated" } else { "" };
    let assigned = snapshot.ipv4.assigned.as_slice().iter();
    assigned.map(|it| format!("{}{}", it.prefix, mark(it.deprecated))).collect()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

#[test]
fn a_bound_family_is_told_whole() {
    let host = Host::default()
        .link(2, "eth0")
        .address(2, "192.0.2.7/24")
        .address(2, "192.0.2.8/24")
        .route(2, "0.0.0.0/0", "192.0.2.1", 0);
    let snapshot = published(&host, &plain(), &namespace(&["192.0.2.7/24", "203.0.113.5/24"]));
    assert_eq!(snapshot.generation, Generation(5));
    assert_eq!(snapshot.ipv4.state, FamilyState::Bound);
    assert_eq!(assigned(&snapshot), ["192.0.2.7/24", "192.0.2.8/24"]);
    assert!(snapshot.ipv4.default_route);
    assert_eq!(snapshot.offered_mtu, Some(Mtu::DEFAULT));
    assert_eq!(snapshot.ipv4.present.as_slice(), [v4("192.0.2.7"), v4("203.0.113.5")]);
    assert_eq!(snapshot.ipv4.leaving.as_slice(), [v4("192.0.2.9")]);
    assert_eq!(snapshot.ipv4.gateway, Some(v4("192.0.2.1")));
    assert_eq!(snapshot.ipv4.our_address, Some(v4("192.0.2.1")));
    assert_eq!(snapshot.ipv4.host_primary, Some(v4("192.0.2.7")));
    assert_eq!((snapshot.mtu, snapshot.losses), (Some(Mtu::DEFAULT), AddressLosses(2)));
    assert_eq!(snapshot.completeness, Completeness::Complete);
}

#[test]
fn local_mode_has_gateways_and_no_host_address() {
    let snapshot = published(&Host::default(), &plain(), &namespace(&[]));
    assert_eq!(snapshot.ipv4.state, FamilyState::Local);
    assert_eq!(snapshot.ipv4.gateway, Some(v4("169.254.2.2")));
    assert_eq!(assigned(&snapshot), ["169.254.2.1/16"]);
    assert!(snapshot.ipv4.default_route && !snapshot.ipv6.default_route);
    assert_eq!(snapshot.ipv4.host_primary, None);
    assert_eq!(snapshot.ipv6.state, FamilyState::Local);
    assert_eq!(snapshot.ipv6.gateway, Some("fe80::1".parse().unwrap()));
    assert!(snapshot.ipv6.assigned.as_slice().is_empty());
}

#[test]
fn a_family_that_is_off_says_nothing_even_if_the_namespace_uses_it() {
    let mut policy = plain();
    policy.families.v4.service = Service::Off;
    let snapshot = published(&Host::default(), &policy, &namespace(&["192.0.2.7/24"]));
    assert_eq!(snapshot.ipv4, FamilySnapshot::off());
}

#[test]
fn without_configuration_the_wish_is_published_all_the_same() {
    let mut policy = plain();
    policy.configure = pasta_ipc::start::Configure::LoopbackOnly;
    let snapshot = published(&Host::default(), &policy, &namespace(&[]));
    assert_eq!(assigned(&snapshot), ["169.254.2.1/16"]);
    assert!(snapshot.ipv4.present.as_slice().is_empty());
}

#[test]
fn lists_that_were_cut_are_marked() {
    let many: Vec<_> = (0..300).map(|n| format!("10.0.{}.{}/8", n / 256, n % 256)).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let snapshot = published(&Host::default(), &plain(), &namespace(&many));
    assert_eq!(snapshot.completeness, Completeness::Truncated);
    assert_eq!(snapshot.ipv4.present.as_slice().len(), 256);
}
