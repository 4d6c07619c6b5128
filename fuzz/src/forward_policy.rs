//! Address policy: no destination leads where the host alone may go, unless a mapping says so.

use crate::input::Input;
use pasta_datapath::nat::{Nat, Protocol, Target};
use pasta_ipc::start::{FamilyPolicy, HostLoopback};
use pasta_ipc::types::{
    AddressLosses, Bounded, Completeness, FamilySnapshot, FamilyState, Generation, IfName,
    NetworkSnapshot, Resolver, ResolverSnapshot, Service,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Destinations asked for with one policy.
const QUESTIONS: usize = 32;

/// One family's part of what a decision depends on.
#[derive(Clone, Copy)]
struct Family {
    policy: Policy,
    gateway: Option<IpAddr>,
    our_address: Option<IpAddr>,
    host_primary: Option<IpAddr>,
}

/// [`FamilyPolicy`] without its family.
#[derive(Clone, Copy)]
struct Policy {
    service: Service,
    host_loopback: HostLoopback<IpAddr>,
    guest_address: Option<IpAddr>,
    dns_forward: Option<IpAddr>,
    dns_host: Option<IpAddr>,
    outbound: Option<IpAddr>,
}

/// Reads `octets` as options, what netlink and resolv.conf say, and destinations.
///
/// # Panics
///
/// If a flow is let to where neither its destination nor a mapping leads.
pub fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    let (v4, ipv4, ipv4_snapshot) = family(&mut input, |input| input.ipv4());
    let (v6, ipv6, ipv6_snapshot) = family(&mut input, |input| input.ipv6());
    let resolvers: Vec<Resolver> = (0..input.octet() % 4).map(|_| resolver(&mut input)).collect();

    let mut nat = Nat::new(ipv4, ipv6);
    nat.update_network(&NetworkSnapshot {
        generation: Generation(1),
        ipv4: ipv4_snapshot,
        ipv6: ipv6_snapshot,
        mtu: None,
        offered_mtu: None,
        losses: AddressLosses(0),
        completeness: Completeness::Complete,
    });
    let servers = Bounded::truncated(resolvers.iter().cloned()).0;
    nat.update_resolvers(&ResolverSnapshot {
        generation: Generation(1),
        servers,
        search: Bounded::default(),
    });

    for _ in 0..QUESTIONS {
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Echo];
        let protocol = protocol[usize::from(input.octet() % 3)];
        let port = [53, 853, 80, input.u16()][usize::from(input.octet() % 4)];
        let ask = |address: IpAddr| {
            let family = if address.is_ipv4() { &v4 } else { &v6 };
            // Those of the other family serve where there is none of this one.
            let of_family = |r: &&Resolver| r.address.is_ipv4() == address.is_ipv4();
            let own: Vec<&Resolver> = resolvers.iter().filter(of_family).collect();
            let asked = if own.is_empty() { resolvers.iter().collect() } else { own };
            let destination = SocketAddr::new(address, port);
            let target = nat.outbound(protocol, destination);
            assert_eq!(target, nat.outbound(protocol, destination));
            assert_eq!(nat.serves(address), family.policy.service == Service::On);
            if let Ok(target) = target {
                check_target(family, &asked, destination, &target);
            }
        };
        ask(input.ip());
        if input.is_empty() {
            break;
        }
    }
}

/// A target is the destination itself, and then harmless, or one that a mapping of exactly this
/// destination leads to.
fn check_target(
    family: &Family,
    resolvers: &[&Resolver],
    destination: SocketAddr,
    target: &Target,
) {
    let Family { policy, gateway, our_address, host_primary } = *family;
    assert!(policy.service == Service::On, "the family is off");
    assert_eq!(target.address.port(), destination.port());
    let (to, from) = (target.address.ip(), destination.ip());
    if matches!(to, IpAddr::V6(a) if a.is_unicast_link_local()) {
        assert!(target.interface.is_some(), "{to} is of no link");
    }
    let loopback = match policy.host_loopback {
        HostLoopback::Gateway => gateway.or(our_address),
        HostLoopback::Address(address) => Some(address),
        HostLoopback::None => None,
    };
    let is = |address: Option<IpAddr>| address == Some(from);
    let direct = to == from && !is_forbidden(to) && target.source == policy.outbound;
    let to_loopback = is(loopback) && to == loopback_of(from) && target.source.is_none();
    let to_guest = is(policy.guest_address) && Some(to) == host_primary;
    // The loopback's mapping serves DNS too, where the host's resolver is hidden by it.
    let is_server = match policy.dns_host {
        Some(pinned) => to == pinned,
        // Where the host names none, that of the host itself (resolv.conf(5)).
        None if resolvers.is_empty() => to == IpAddr::V4(Ipv4Addr::LOCALHOST),
        None => resolvers.iter().any(|resolver| resolver.address == to),
    };
    let to_dns = (is(policy.dns_forward) || is(loopback)) && is_server;
    assert!(
        direct || to_loopback || to_guest || to_dns,
        "{destination} leads to {target:?}: forbidden {}",
        is_forbidden(to)
    );
    if target.interface.is_some() {
        assert!(to_dns, "only resolvers have an interface: {target:?}");
    }
}

fn loopback_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// What a flow must not reach by its own destination, in words of this file.
fn is_forbidden(address: IpAddr) -> bool {
    let v4 = |a: Ipv4Addr| {
        a.octets()[0] == 127 || a.octets()[0] == 0 || a.is_multicast() || a.is_broadcast()
    };
    match address {
        IpAddr::V4(a) => v4(a),
        IpAddr::V6(a) => {
            a == Ipv6Addr::LOCALHOST
                || a == Ipv6Addr::UNSPECIFIED
                || a.octets()[0] == 0xff
                || (a.octets()[0] == 0xfe && a.octets()[1] & 0xc0 == 0x80)
                || a.to_ipv4_mapped().is_some()
        }
    }
}

fn family<A: Copy + Into<IpAddr>>(
    input: &mut Input<'_>,
    address: fn(&mut Input<'_>) -> A,
) -> (Family, FamilyPolicy<A>, FamilySnapshot<A>) {
    let maybe = |input: &mut Input<'_>| input.bit().then(|| address(input));
    let policy = FamilyPolicy {
        service: if input.octet() % 8 == 7 { Service::Off } else { Service::On },
        host_loopback: match input.octet() % 3 {
            0 => HostLoopback::Gateway,
            1 => HostLoopback::Address(address(input)),
            _ => HostLoopback::None,
        },
        guest_address: maybe(input),
        dns_forward: maybe(input),
        dns_host: maybe(input),
        outbound: maybe(input),
        outbound_interface: None,
    };
    let snapshot = FamilySnapshot {
        state: FamilyState::Bound,
        gateway: maybe(input),
        our_address: maybe(input),
        host_primary: maybe(input),
        ..FamilySnapshot::off()
    };
    let ip = |address: Option<A>| address.map(Into::into);
    let family = Family {
        policy: Policy {
            service: policy.service,
            host_loopback: match policy.host_loopback {
                HostLoopback::Gateway => HostLoopback::Gateway,
                HostLoopback::Address(address) => HostLoopback::Address(address.into()),
                HostLoopback::None => HostLoopback::None,
            },
            guest_address: ip(policy.guest_address),
            dns_forward: ip(policy.dns_forward),
            dns_host: ip(policy.dns_host),
            outbound: ip(policy.outbound),
        },
        gateway: ip(snapshot.gateway),
        our_address: ip(snapshot.our_address),
        host_primary: ip(snapshot.host_primary),
    };
    (family, policy, snapshot)
}

fn resolver(input: &mut Input<'_>) -> Resolver {
    let address = input.ip();
    let interface = input.bit().then(|| IfName::try_from("eth0".to_owned()).ok()).flatten();
    Resolver { address, interface }
}
