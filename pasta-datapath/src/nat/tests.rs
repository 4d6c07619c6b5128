use super::*;
use pasta_ipc::types::{AddressLosses, Bounded, Completeness, FamilyState, Generation, Resolver};
use std::time::Duration;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PRIMARY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const SPECIAL: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

fn policy<A>(host_loopback: HostLoopback<A>) -> FamilyPolicy<A> {
    FamilyPolicy {
        service: Service::On,
        host_loopback,
        guest_address: None,
        dns_forward: None,
        dns_host: None,
        outbound: None,
        outbound_interface: None,
    }
}

fn snapshot() -> NetworkSnapshot {
    let ipv4 = FamilySnapshot {
        state: FamilyState::Bound,
        assigned: Bounded::default(),
        default_route: true,
        present: Bounded::default(),
        gateway: Some(GATEWAY),
        our_address: Some(GATEWAY),
        host_primary: Some(PRIMARY),
        leaving: Bounded::default(),
    };
    NetworkSnapshot {
        generation: Generation(1),
        ipv4,
        ipv6: FamilySnapshot::off(),
        mtu: None,
        offered_mtu: None,
        losses: AddressLosses(0),
        completeness: Completeness::Complete,
    }
}

fn nat(change: impl FnOnce(&mut FamilyPolicy<Ipv4Addr>)) -> Nat {
    let mut ipv4 = policy(HostLoopback::Gateway);
    change(&mut ipv4);
    let mut nat = Nat::new(ipv4, policy(HostLoopback::Gateway));
    nat.update_network(&snapshot());
    nat
}

fn resolve_at(nat: &mut Nat, addresses: &[IpAddr]) {
    let server = |address: &IpAddr| Resolver { address: *address, interface: None };
    let servers = Bounded::truncated(addresses.iter().map(server)).0;
    nat.update_resolvers(&ResolverSnapshot {
        generation: Generation(1),
        servers,
        search: Bounded::default(),
    });
}

fn tcp(nat: &Nat, to: impl Into<IpAddr>, port: u16) -> Result<IpAddr, Denied> {
    let target = nat.outbound(Protocol::Tcp, SocketAddr::new(to.into(), port))?;
    assert_eq!(target.address.port(), port);
    Ok(target.address.ip())
}

const HOST_LOOPBACK: Result<IpAddr, Denied> = Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));

#[test]
fn gateway_leads_to_host_loopback_unless_switched_off() {
    assert_eq!(tcp(&nat(|_| {}), GATEWAY, 80), HOST_LOOPBACK);
    let off = nat(|p| p.host_loopback = HostLoopback::None);
    assert_eq!(tcp(&off, GATEWAY, 80), Ok(GATEWAY.into()));
    let other = nat(|p| p.host_loopback = HostLoopback::Address(SPECIAL));
    assert_eq!(tcp(&other, GATEWAY, 80), Ok(GATEWAY.into()));
    assert_eq!(tcp(&other, SPECIAL, 80), HOST_LOOPBACK);
}

#[test]
fn loopback_multicast_broadcast_and_unspecified_are_never_reached_directly() {
    let f = nat(|_| {});
    for to in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255"] {
        let to: Ipv4Addr = to.parse().unwrap();
        assert_eq!(tcp(&f, to, 80), Err(Denied::Destination), "{to}");
    }
    for to in ["::1", "::", "::ffff:127.0.0.1", "::ffff:192.0.2.9", "ff02::1", "fe80::5"] {
        let to: Ipv6Addr = to.parse().unwrap();
        assert_eq!(tcp(&f, to, 80), Err(Denied::Destination), "{to}");
    }
}

#[test]
fn guest_address_leads_to_the_hosts_primary_from_itself() {
    let f = nat(|p| p.guest_address = Some(SPECIAL));
    let target = f.outbound(Protocol::Udp, (SPECIAL, 9).into()).unwrap();
    assert_eq!((target.address, target.source), ((PRIMARY, 9).into(), Some(PRIMARY.into())));
}

#[test]
fn dns_forward_takes_dns_ports_of_tcp_and_udp_only() {
    let mut f = nat(|p| p.dns_forward = Some(SPECIAL));
    assert_eq!(tcp(&f, SPECIAL, 53), Ok("127.0.0.1".parse().unwrap()), "none is named");
    resolve_at(&mut f, &[ELSEWHERE.into()]);
    assert_eq!(tcp(&f, SPECIAL, 53), Ok(ELSEWHERE.into()));
    assert_eq!(tcp(&f, SPECIAL, 853), Ok(ELSEWHERE.into()));
    assert_eq!(tcp(&f, SPECIAL, 80), Ok(SPECIAL.into()));
    let echo = f.outbound(Protocol::Echo, (SPECIAL, 53).into()).unwrap();
    assert_eq!(echo.address.ip(), IpAddr::from(SPECIAL));
}

#[test]
fn pinned_dns_host_wins_over_the_resolvers() {
    let mut f = nat(|p| {
        p.dns_forward = Some(SPECIAL);
        p.dns_host = Some(Ipv4Addr::LOCALHOST);
    });
    resolve_at(&mut f, &[ELSEWHERE.into()]);
    assert_eq!(tcp(&f, SPECIAL, 53), HOST_LOOPBACK);
}

#[test]
fn resolver_on_host_loopback_is_reached_at_the_mapped_address() {
    let mut f = nat(|_| {});
    let stub = Ipv4Addr::new(127, 0, 0, 53);
    resolve_at(&mut f, &[stub.into()]);
    assert_eq!(tcp(&f, GATEWAY, 53), Ok(stub.into()));
    assert_eq!(tcp(&f, GATEWAY, 80), HOST_LOOPBACK);
}

#[test]
fn outbound_address_is_the_source_except_towards_loopback() {
    let f = nat(|p| p.outbound = Some(PRIMARY));
    let target = f.outbound(Protocol::Tcp, (ELSEWHERE, 80).into()).unwrap();
    assert_eq!(target.source, Some(PRIMARY.into()));
    let target = f.outbound(Protocol::Tcp, (GATEWAY, 80).into()).unwrap();
    assert_eq!(target.source, None);
}

#[test]
fn family_that_is_off_reaches_nothing() {
    let f = nat(|p| p.service = Service::Off);
    assert_eq!(tcp(&f, ELSEWHERE, 80), Err(Denied::FamilyOff));
    assert!(!f.serves(ELSEWHERE.into()));
}

#[test]
fn the_next_resolver_is_asked_after_a_hard_error_of_the_present_one() {
    let servers: [IpAddr; 3] =
        [[198, 51, 100, 53].into(), [198, 51, 100, 54].into(), Ipv6Addr::LOCALHOST.into()];
    let mut f = nat(|policy| policy.dns_forward = Some(SPECIAL));
    resolve_at(&mut f, &servers);
    let query = SocketAddr::new(SPECIAL.into(), 53);
    let revision = f.revision();
    assert_eq!(tcp(&f, SPECIAL, 53), Ok(servers[0]));

    f.resolver_failed(SocketAddr::new(ELSEWHERE.into(), 53), servers[0]);
    assert_eq!((tcp(&f, SPECIAL, 53), f.revision()), (Ok(servers[0]), revision), "no query");
    f.resolver_failed(query, servers[0]);
    assert_eq!(tcp(&f, SPECIAL, 53), Ok(servers[1]));
    assert_ne!(f.revision(), revision, "flows are to look");
    // The error of a query that was under way says nothing about the one that is asked now.
    f.resolver_failed(query, servers[0]);
    assert_eq!(tcp(&f, SPECIAL, 53), Ok(servers[1]));
    f.resolver_failed(query, servers[1]);
    assert_eq!(
        tcp(&f, SPECIAL, 53),
        Ok(servers[0]),
        "the family's last one is followed by its first"
    );
    // Another list begins at its first.
    f.resolver_failed(query, servers[0]);
    resolve_at(&mut f, &servers[..1]);
    assert_eq!(tcp(&f, SPECIAL, 53), Ok(servers[0]));
}

#[test]
fn the_next_resolver_is_asked_where_the_present_one_is_silent() {
    let servers: [IpAddr; 2] = [[198, 51, 100, 53].into(), [198, 51, 100, 54].into()];
    let mut f = nat(|policy| policy.dns_forward = Some(SPECIAL));
    resolve_at(&mut f, &servers);
    let query = SocketAddr::new(SPECIAL.into(), 53);
    let at = |seconds| Instant::START + Duration::from_secs(seconds);
    let ask = |f: &mut Nat, seconds| {
        f.ask(at(seconds), query);
        tcp(f, SPECIAL, 53).unwrap()
    };
    // A client that asks again at once, others, and one that had to wait.
    assert_eq!(
        (ask(&mut f, 0), ask(&mut f, 1), ask(&mut f, 2)),
        (servers[0], servers[0], servers[0])
    );
    f.ask(at(2), SocketAddr::new(SPECIAL.into(), 54));
    assert_eq!(ask(&mut f, 3), servers[1]);
    // It has its time too; the last is followed by the first.
    assert_eq!((ask(&mut f, 5), ask(&mut f, 6)), (servers[1], servers[0]));
    // One that answers now and then is not silent, nor one that was not asked for long.
    ask(&mut f, 8);
    f.answered(SocketAddr::new(ELSEWHERE.into(), 53));
    f.answered(query);
    assert_eq!((ask(&mut f, 9), ask(&mut f, 11)), (servers[0], servers[0]));
    assert_eq!(ask(&mut f, 41), servers[0]);
    let revision = f.revision();
    assert_eq!(ask(&mut f, 44), servers[1]);
    assert_ne!(f.revision(), revision, "flows are to look");
    // With one alone there is nothing to choose.
    resolve_at(&mut f, &servers[..1]);
    assert_eq!((ask(&mut f, 50), ask(&mut f, 60)), (servers[0], servers[0]));
}

#[test]
fn a_pinned_dns_host_is_asked_whatever_it_answers() {
    let pinned = Ipv4Addr::new(198, 51, 100, 99);
    let mut f = nat(|policy| {
        (policy.dns_forward, policy.dns_host) = (Some(SPECIAL), Some(pinned));
    });
    resolve_at(&mut f, &[[198, 51, 100, 53].into(), [198, 51, 100, 54].into()]);
    f.resolver_failed(SocketAddr::new(SPECIAL.into(), 53), pinned.into());
    assert_eq!(tcp(&f, SPECIAL, 53), Ok(pinned.into()));
}

#[test]
fn where_dns_is_taken_does_not_depend_on_which_resolver_is_asked() {
    let mut f = nat(|_| {});
    resolve_at(&mut f, &[[127, 0, 0, 53].into(), [198, 51, 100, 54].into()]);
    let query = SocketAddr::new(GATEWAY.into(), 53);
    f.resolver_failed(query, [127, 0, 0, 53].into());
    assert_eq!(tcp(&f, GATEWAY, 53), Ok([198, 51, 100, 54].into()));
    assert!(f.resolver_for(Protocol::Udp, query).is_some());
    assert!(f.resolver_for(Protocol::Echo, query).is_none());
}

#[test]
fn what_a_mapping_leads_to_the_host_is_known_and_nothing_else() {
    let mut f = nat(|policy| policy.guest_address = Some(ELSEWHERE));
    for (address, mapped) in [(GATEWAY, true), (ELSEWHERE, true), (PRIMARY, false)] {
        assert_eq!(f.is_mapped(address.into()), mapped, "{address}");
    }
    assert_eq!(f.gateway(ELSEWHERE.into()), Some(GATEWAY.into()));
    f = nat(|policy| policy.host_loopback = HostLoopback::None);
    assert!(!f.is_mapped(GATEWAY.into()));
}

fn scoped(text: &str) -> Resolver {
    let (address, interface) = text.split_once('%').map_or((text, None), |(a, i)| (a, Some(i)));
    let interface = interface.map(|it| IfName::try_from(it.to_owned()).unwrap());
    Resolver { address: address.parse().unwrap(), interface }
}

/// What clients are offered where the host has these resolvers.
fn offered(nat: &mut Nat, resolvers: &[&str]) -> Vec<String> {
    let servers = Bounded::truncated(resolvers.iter().map(|it| scoped(it))).0;
    let generation = Generation(1);
    nat.update_resolvers(&ResolverSnapshot { generation, servers, search: Bounded::default() });
    nat.offered_resolvers().iter().map(ToString::to_string).collect()
}

/// The first three resolvers that queries to `to` are led to, one after the other's failure.
fn asked(nat: &mut Nat, to: impl Into<IpAddr>) -> Vec<String> {
    let query = SocketAddr::new(to.into(), 53);
    let mut asked = Vec::new();
    for _ in 0..3 {
        let target = nat.outbound(Protocol::Udp, query).unwrap();
        let interface = target.interface.map_or_else(String::new, |it| format!("%{it}"));
        asked.push(format!("{}{interface}", target.address.ip()));
        nat.resolver_failed(query, target.address.ip());
    }
    asked
}

#[test]
fn resolvers_are_offered_as_the_namespace_reaches_them() {
    let gateway = GATEWAY.to_string();
    let mut f = nat(|_| {});
    let hosts = ["198.51.100.53", "2001:db8::53"];
    assert_eq!(offered(&mut f, &hosts), hosts);
    assert_eq!(offered(&mut f, &["127.0.0.53"]), [gateway.as_str()]);
    let two = ["198.51.100.53", "127.0.0.53", "127.0.0.54"];
    assert_eq!(offered(&mut f, &two), ["198.51.100.53", gateway.as_str()]);
    assert_eq!(offered(&mut f, &[&gateway]), [gateway.as_str()]);
    assert_eq!(offered(&mut f, &[]), [""; 0]);
    let mut unmapped = nat(|policy| policy.host_loopback = HostLoopback::None);
    assert_eq!(offered(&mut unmapped, &["127.0.0.53", "198.51.100.53"]), ["198.51.100.53"]);
    let mut forward = nat(|policy| policy.dns_forward = Some(SPECIAL));
    assert_eq!(offered(&mut forward, &two), [SPECIAL.to_string()]);
}

#[test]
fn at_the_mapped_address_those_are_asked_first_that_only_the_host_reaches() {
    let mut f = nat(|_| {});
    offered(&mut f, &["198.51.100.53", "127.0.0.53"]);
    let wanted = ["127.0.0.53", "198.51.100.53", "127.0.0.53"];
    assert_eq!(asked(&mut f, GATEWAY), wanted);
    // With an address for nothing but DNS, the host's order counts.
    let mut f = nat(|policy| policy.dns_forward = Some(SPECIAL));
    offered(&mut f, &["198.51.100.53", "127.0.0.53"]);
    assert_eq!(asked(&mut f, SPECIAL), ["198.51.100.53", "127.0.0.53", "198.51.100.53"]);
    // Where the namespace reaches all, the mapped address leads to the host.
    let mut f = nat(|_| {});
    offered(&mut f, &["198.51.100.53"]);
    assert_eq!(tcp(&f, GATEWAY, 53), HOST_LOOPBACK);
}

#[test]
fn a_family_without_resolvers_is_led_to_those_of_the_other() {
    let mut f = nat(|policy| {
        (policy.dns_forward, policy.outbound) = (Some(SPECIAL), Some(PRIMARY));
    });
    assert_eq!(offered(&mut f, &["fe80::53%eth0", "2001:db8::53"])[0], SPECIAL.to_string());
    assert_eq!(asked(&mut f, SPECIAL)[..2], ["fe80::53%eth0", "2001:db8::53"]);
    // What was asked for towards IPv4 is no way to an IPv6 address.
    f.resolver_failed((SPECIAL, 53).into(), "fe80::53".parse().unwrap());
    let target = f.outbound(Protocol::Tcp, (SPECIAL, 53).into()).unwrap();
    assert_eq!(target.source, None);
    // Its own are taken as soon as there is one.
    offered(&mut f, &["2001:db8::53", "198.51.100.53"]);
    assert_eq!(asked(&mut f, SPECIAL), ["198.51.100.53"; 3]);
    let target = f.outbound(Protocol::Tcp, (SPECIAL, 53).into()).unwrap();
    assert_eq!(target.source, Some(PRIMARY.into()));
}

#[test]
fn a_stub_of_the_other_family_is_offered_to_a_namespace_that_has_this_one_only() {
    let map = HostLoopback::Address("2001:db8::1".parse().unwrap());
    for (service, wanted) in [(Service::On, vec![]), (Service::Off, vec!["2001:db8::1"])] {
        let mut ipv4 = policy(HostLoopback::None);
        ipv4.service = service;
        let mut nat = Nat::new(ipv4, policy(map));
        assert_eq!(offered(&mut nat, &["127.0.0.53"]), wanted);
    }
}
