#![forbid(unsafe_code)]
//! Where a connection or datagram that came to a forwarded port goes in the namespace, and from whom it
//! comes there.
//!
//! **Destination**: the address that the rule names; else an address of the namespace that the monitor
//! read there: the one that the namespace itself used last, or the first of those it was given. What was
//! only seen in frames counts while nothing is known.
//!
//! Datagrams from a link-local source go to the namespace's link-local address.
//!
//! **Source** (through the tap): the real peer's, unchanged. Addresses that would mean the namespace
//! itself are replaced: the host's loopback by the address that leads there, the host's own by the one
//! of `--map-guest-addr`, where there are such; else by ours. So nobody but the namespace is 127.0.0.1 or
//! ::1 in there.
//!
//! **Splice**: only where the peer is the host's loopback and the rule names no address. Joining two
//! sockets needs no common family: where the namespace has no address of the peer's, or nobody listens on
//! it, the other family's serves. So it does through the tap where there is no address; one of a link counts there
//! if there is no other.

use super::{Family, Nat};
use pasta_ipc::port_forward::{LoopbackTarget, Splice};
use pasta_ipc::types::{Address, Family as AddressFamily, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the command line says of local connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPolicy {
    /// Whether they are joined socket to socket.
    pub splice: Splice,
    /// Where they go then.
    pub loopback: LoopbackTarget,
}

/// Something that came to a listener on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundFlow {
    /// What it is.
    pub transport: Transport,
    /// From where.
    pub peer: SocketAddr,
    /// The host's address that it came to.
    pub local: IpAddr,
    /// The address in the namespace that the rule names.
    pub target: Option<IpAddr>,
    /// The port in the namespace.
    pub port: u16,
}

/// Whether what came to a listener at `local` can be from `peer`. The kernel takes datagrams of IPv6 from `::` and
/// from IPv4 addresses mapped into IPv6, from anybody on its links (TCP, since Linux 5.4, not). Nobody is to be taken
/// for 127.0.0.1, or for a host of IPv4, by them: on a socket of both families IPv4 comes to a mapped address too.
pub fn is_possible(peer: IpAddr, local: IpAddr) -> bool {
    let (peer, local) = (peer.to_canonical(), local.to_canonical());
    let is_group = matches!(peer, IpAddr::V4(a) if a.is_broadcast()) || peer.is_multicast();
    peer.is_ipv4() == local.is_ipv4() && !peer.is_unspecified() && !is_group
}

/// How it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// As packets.
    Tap {
        /// From whom, as the namespace sees it.
        source: SocketAddr,
        /// Whether `source` is of our making, so that another port would do as well.
        translated: bool,
        /// To whom.
        destination: SocketAddr,
    },
    /// Socket to socket.
    Splice {
        /// To whom.
        destination: SocketAddr,
        /// To whom instead if that one refuses.
        otherwise: Option<SocketAddr>,
    },
}

/// Why it goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The family is not served.
    FamilyOff,
    /// The namespace has no address to send it to, or we none to send it from.
    NoAddress,
}

/// Decides what becomes of `arrival` under `nat` and `policy`.
pub(super) fn decide(
    nat: &Nat,
    policy: LocalPolicy,
    arrival: &InboundFlow,
) -> Result<Delivery, Refused> {
    let InboundFlow { transport, peer, local, target, port } = *arrival;
    let (from, local) = (peer.ip().to_canonical(), local.to_canonical());
    let is_local = from.is_loopback() && target.is_none();
    let reached = if is_local { reached(nat, from) } else { [None; 2] };
    if policy.splice == Splice::On && is_local {
        let [destination, otherwise] = spliced(nat, policy.loopback, local).unwrap_or(reached);
        if let Some(destination) = destination {
            let at = |address| SocketAddr::new(address, port);
            let (destination, otherwise) = (at(destination), otherwise.map(at));
            return Ok(Delivery::Splice { destination, otherwise });
        }
    }
    let of_family = |family| nat.namespace_address(family);
    let to = match (target, reached) {
        (Some(target), _) => Some(target),
        (None, [Some(reached), _]) => Some(reached),
        (None, _) if is_local => families(from).into_iter().find_map(of_family),
        (None, _) => of_family(AddressFamily::of(from)),
    };
    // A local client shows as one of the host's addresses anyway: those of the other family do as well.
    let from = match to {
        Some(to) if is_local && to.is_ipv4() != from.is_ipv4() => localhost(to),
        _ => from,
    };
    if !nat.serves(from) {
        return Err(Refused::FamilyOff);
    }
    let to = to.ok_or(Refused::NoAddress)?;
    let translation = match from {
        IpAddr::V4(from) => translated(&nat.ipv4, from, Ipv4Addr::LOCALHOST),
        IpAddr::V6(from) => translated(&nat.ipv6, from, Ipv6Addr::LOCALHOST),
    };
    let (source, translated) = match translation {
        Translation::Unchanged if from != to => (from, false),
        Translation::To(source) if source != to => (source, true),
        _ => (nat.our_address(from).filter(|ours| *ours != to).ok_or(Refused::NoAddress)?, true),
    };
    // A service on any address answers a link-local one from its own, wherever it was asked at;
    // a connection keeps its addresses.
    let to = match source {
        IpAddr::V6(source)
            if source.is_unicast_link_local()
                && transport == Transport::Udp
                && target.is_none() =>
        {
            link_local(&nat.ipv6).map_or(to, IpAddr::V6)
        }
        _ => to,
    };
    let (source, destination) = (SocketAddr::new(source, peer.port()), SocketAddr::new(to, port));
    Ok(Delivery::Tap { source, translated, destination })
}

/// The addresses at which a client on the host's loopback at `from` reaches the namespace: the one of its own family
/// first. One that is of a link is none: nobody can be connected to it who is not on that link.
fn reached(nat: &Nat, from: IpAddr) -> [Option<IpAddr>; 2] {
    let of_link = |it: &IpAddr| matches!(it, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let address = |family| nat.namespace_address(family).filter(|it| !of_link(it));
    match families(from).map(address) {
        [None, other] => [other, None],
        both => both,
    }
}

/// Both families, that of `from` first.
fn families(from: IpAddr) -> [AddressFamily; 2] {
    match from {
        IpAddr::V4(_) => [AddressFamily::V4, AddressFamily::V6],
        IpAddr::V6(_) => [AddressFamily::V6, AddressFamily::V4],
    }
}

/// Where a client that has asked at the host's `local` address is joined to if it is to be the namespace's loopback.
fn spliced(nat: &Nat, loopback: LoopbackTarget, local: IpAddr) -> Option<[Option<IpAddr>; 2]> {
    let leads_there = loopback == LoopbackTarget::Loopback && local.is_loopback();
    leads_there.then(|| [Some(local), other_localhost(nat, local)])
}

/// What else `localhost` means where `local` is one of its addresses, if that family is served.
pub fn other_localhost(nat: &Nat, local: IpAddr) -> Option<IpAddr> {
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    let other = if local == v4 { v6 } else { v4 };
    ((local == v4 || local == v6) && nat.serves(other)).then_some(other)
}

/// The loopback address of the family of `address`.
fn localhost(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Another source in place of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Translation {
    Unchanged,
    To(IpAddr),
    /// One of ours.
    Ours,
}

/// The namespace's link-local address.
fn link_local(family: &Family<Ipv6Addr>) -> Option<Ipv6Addr> {
    family.present.iter().find(|it| it.is_unicast_link_local()).copied()
}

/// What `from` is replaced by; `localhost` is the loopback address of its family.
fn translated<A: Address + Into<IpAddr>>(family: &Family<A>, from: A, localhost: A) -> Translation {
    let address: IpAddr = from.into();
    let map = if from == localhost {
        family.loopback_map()
    } else if Some(from) == family.host_primary {
        family.policy.guest_address
    } else if address.is_loopback() || address.is_unspecified() || family.present.contains(&from) {
        None
    } else {
        return Translation::Unchanged;
    };
    map.map_or(Translation::Ours, |map| Translation::To(map.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::start::{FamilyPolicy, HostLoopback};
    use pasta_ipc::types::{
        AddressLosses, Bounded, Completeness, FamilySnapshot, FamilyState, Generation,
        NetworkSnapshot, Prefix, Service,
    };

    const SPLICE: LocalPolicy =
        LocalPolicy { splice: Splice::On, loopback: LoopbackTarget::Address };
    const TAP: LocalPolicy = LocalPolicy { splice: Splice::Off, loopback: LoopbackTarget::Address };
    const TO_LOOPBACK: LocalPolicy =
        LocalPolicy { splice: Splice::On, loopback: LoopbackTarget::Loopback };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn source_that_only_looks_like_ipv4_is_impossible() {
        for (peer, local, one) in [
            ("192.0.2.1", "192.0.2.7", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.7", true),
            ("2001:db8::1", "2001:db8::7", true),
            ("::1", "::1", true),
            ("::ffff:127.0.0.1", "2001:db8::7", false),
            ("::ffff:192.0.2.1", "2001:db8::7", false),
            ("::ffff:127.0.0.1", "::1", false),
            ("2001:db8::1", "::ffff:192.0.2.7", false),
            ("::", "2001:db8::7", false),
            ("ff02::1", "2001:db8::7", false),
            ("0.0.0.0", "192.0.2.7", false),
            ("::ffff:255.255.255.255", "::ffff:192.0.2.7", false),
        ] {
            assert_eq!(is_possible(ip(peer), ip(local)), one, "{peer} to {local}");
        }
    }

    fn policy<A>(change: impl FnOnce(&mut FamilyPolicy<A>)) -> FamilyPolicy<A> {
        let mut policy = FamilyPolicy {
            service: Service::On,
            host_loopback: HostLoopback::Gateway,
            guest_address: None,
            dns_forward: None,
            dns_host: None,
            outbound: None,
            outbound_interface: None,
        };
        change(&mut policy);
        policy
    }

    fn family<A: Address + std::str::FromStr<Err: std::fmt::Debug>>(
        addresses: &[&str],
        gateway: &str,
        ours: &str,
    ) -> FamilySnapshot<A> {
        let all: Vec<A> = addresses.iter().map(|it| it.parse().unwrap()).collect();
        let host_primary = all.first().cloned();
        FamilySnapshot {
            state: FamilyState::Bound,
            assigned: Bounded::truncated(all.first().map(|it| Prefix::host(*it).into())).0,
            default_route: true,
            present: Bounded::truncated(all).0,
            gateway: Some(gateway.parse().unwrap()),
            our_address: Some(ours.parse().unwrap()),
            host_primary,
            leaving: Bounded::default(),
        }
    }

    fn bound() -> NetworkSnapshot {
        NetworkSnapshot {
            generation: Generation(1),
            ipv4: family(&["192.0.2.2", "203.0.113.5"], "192.0.2.1", "192.0.2.1"),
            ipv6: family(&["2001:db8::2", "fe80::77"], "fe80::1", "fe80::1"),
            mtu: None,
            offered_mtu: None,
            losses: AddressLosses(0),
            completeness: Completeness::Complete,
        }
    }

    fn nat(change: impl FnOnce(&mut FamilyPolicy<Ipv4Addr>)) -> Nat {
        let mut nat = Nat::new(policy(change), policy(|_| ()));
        nat.update_network(&bound());
        nat
    }

    fn way(nat: &Nat, policy: LocalPolicy, peer: &str, local: &str) -> String {
        let peer = SocketAddr::new(ip(peer), 40_000);
        let arrival = InboundFlow {
            transport: Transport::Tcp,
            peer,
            local: ip(local),
            target: None,
            port: 80,
        };
        match nat.inbound(policy, &arrival) {
            Ok(Delivery::Tap { source, destination, .. }) => {
                assert_eq!((source.port(), destination.port()), (40_000, 80));
                format!("{} > {}", source.ip(), destination.ip())
            }
            Ok(Delivery::Splice { destination, .. }) => format!("splice > {}", destination.ip()),
            Err(refused) => format!("{refused:?}"),
        }
    }

    #[test]
    fn local_peers_are_spliced_to_the_namespaces_address_or_its_loopback() {
        let f = nat(|_| ());
        for (peer, address, loopback) in [
            ("127.0.0.1", "192.0.2.2", "127.0.0.1"),
            ("127.0.0.2", "192.0.2.2", "127.0.0.2"),
            ("::1", "2001:db8::2", "::1"),
        ] {
            assert_eq!(way(&f, SPLICE, peer, peer), format!("splice > {address}"));
            assert_eq!(way(&f, TO_LOOPBACK, peer, peer), format!("splice > {loopback}"));
        }
        assert_eq!(way(&f, TO_LOOPBACK, "127.0.0.1", "198.51.100.7"), "splice > 192.0.2.2");
    }

    #[test]
    fn remote_peers_keep_their_address_and_are_never_spliced() {
        let f = nat(|_| ());
        for policy in [SPLICE, TAP, TO_LOOPBACK] {
            let v4 = way(&f, policy, "198.51.100.1", "192.0.2.2");
            assert_eq!(v4, "198.51.100.1 > 192.0.2.2");
            let mapped = way(&f, policy, "::ffff:198.51.100.1", "::ffff:192.0.2.2");
            assert_eq!(mapped, v4);
            let v6 = way(&f, policy, "2001:db8:1::1", "2001:db8::2");
            assert_eq!(v6, "2001:db8:1::1 > 2001:db8::2");
        }
    }

    #[test]
    fn hosts_own_addresses_show_as_what_leads_back_to_them() {
        let f = nat(|_| ());
        assert_eq!(way(&f, TAP, "127.0.0.1", "127.0.0.1"), "192.0.2.1 > 192.0.2.2");
        assert_eq!(way(&f, TAP, "127.0.0.2", "127.0.0.2"), "192.0.2.1 > 192.0.2.2");
        assert_eq!(way(&f, TAP, "::1", "::1"), "fe80::1 > 2001:db8::2");
        for policy in [TAP, SPLICE] {
            assert_eq!(way(&f, policy, "192.0.2.2", "192.0.2.2"), "192.0.2.1 > 192.0.2.2");
            let v6 = way(&f, policy, "2001:db8::2", "2001:db8::2");
            assert_eq!(v6, "fe80::1 > 2001:db8::2");
        }
        let none = nat(|policy| policy.host_loopback = HostLoopback::None);
        assert_eq!(way(&none, TAP, "127.0.0.1", "127.0.0.1"), "192.0.2.1 > 192.0.2.2");
        let mapped = nat(|policy| {
            policy.host_loopback = HostLoopback::Address("192.0.2.77".parse().unwrap());
            policy.guest_address = Some("192.0.2.78".parse().unwrap());
        });
        assert_eq!(way(&mapped, TAP, "127.0.0.1", "127.0.0.1"), "192.0.2.77 > 192.0.2.2");
        assert_eq!(way(&mapped, TAP, "127.0.0.9", "127.0.0.9"), "192.0.2.1 > 192.0.2.2");
        assert_eq!(way(&mapped, TAP, "192.0.2.2", "192.0.2.2"), "192.0.2.78 > 192.0.2.2");
    }

    #[test]
    fn datagrams_of_a_link_local_source_go_to_the_link_local_address() {
        let f = nat(|_| ());
        let peer = SocketAddr::new(ip("::1"), 4);
        let (transport, target, port) = (Transport::Udp, None, 53);
        let arrival = InboundFlow { transport, peer, local: ip("::1"), target, port };
        let Ok(Delivery::Tap { source, destination, .. }) = f.inbound(TAP, &arrival) else {
            panic!()
        };
        assert_eq!((source.ip(), destination.ip()), (ip("fe80::1"), ip("fe80::77")));
        let arrival = InboundFlow { peer: SocketAddr::new(ip("2001:db8:1::1"), 4), ..arrival };
        let Ok(Delivery::Tap { destination, .. }) = f.inbound(TAP, &arrival) else { panic!() };
        assert_eq!(destination.ip(), ip("2001:db8::2"));
    }

    #[test]
    fn namespace_is_reached_at_the_address_it_used_last_if_it_has_that() {
        let mut f = nat(|_| ());
        f.observe(ip("203.0.113.5"));
        assert_eq!(way(&f, TAP, "198.51.100.1", "192.0.2.2"), "198.51.100.1 > 203.0.113.5");
        f.observe(ip("10.9.9.9"));
        assert_eq!(way(&f, TAP, "198.51.100.1", "192.0.2.2"), "198.51.100.1 > 192.0.2.2");
        f.observe(ip("fe80::77"));
        assert_eq!(way(&f, TAP, "2001:db8:1::1", "::"), "2001:db8:1::1 > 2001:db8::2");
    }

    #[test]
    fn what_was_observed_counts_while_nothing_is_known() {
        let mut f = Nat::new(policy(|_| ()), policy(|_| ()));
        assert_eq!(way(&f, TAP, "198.51.100.1", "192.0.2.2"), "NoAddress");
        f.observe(ip("10.9.9.9"));
        assert_eq!(way(&f, TAP, "198.51.100.1", "192.0.2.2"), "198.51.100.1 > 10.9.9.9");
    }

    #[test]
    fn rule_with_an_address_goes_there_through_the_tap_whoever_asks() {
        let f = nat(|_| ());
        let target = Some(ip("10.89.0.7"));
        for (peer, source) in [("127.0.0.1", "192.0.2.1"), ("198.51.100.1", "198.51.100.1")] {
            let peer = SocketAddr::new(ip(peer), 4);
            let arrival = InboundFlow {
                transport: Transport::Tcp,
                peer,
                local: ip("192.0.2.2"),
                target,
                port: 80,
            };
            let way = f.inbound(TO_LOOPBACK, &arrival);
            let translated = source == "192.0.2.1";
            let (source, destination) =
                (SocketAddr::new(ip(source), 4), SocketAddr::new(ip("10.89.0.7"), 80));
            assert_eq!(way, Ok(Delivery::Tap { source, translated, destination }));
        }
    }

    #[test]
    fn splice_crosses_families_where_the_peers_has_no_address() {
        let mut f = Nat::new(policy(|_| ()), policy(|_| ()));
        let ipv6 = FamilySnapshot::off();
        f.update_network(&NetworkSnapshot { ipv6, ..bound() });
        assert_eq!(way(&f, SPLICE, "::1", "::1"), "splice > 192.0.2.2");
        let f = nat(|_| ());
        let peer = SocketAddr::new(ip("::1"), 4);
        let arrival = InboundFlow {
            transport: Transport::Tcp,
            peer,
            local: ip("::1"),
            target: None,
            port: 80,
        };
        let (destination, otherwise) =
            (SocketAddr::new(ip("2001:db8::2"), 80), Some(SocketAddr::new(ip("192.0.2.2"), 80)));
        assert_eq!(f.inbound(SPLICE, &arrival), Ok(Delivery::Splice { destination, otherwise }));
    }

    #[test]
    fn local_client_of_a_family_without_an_address_takes_the_other_one() {
        let mut f = Nat::new(policy(|_| ()), policy(|_| ()));
        for present in [&["fe80::77"][..], &[]] {
            let ipv6 = family(present, "fe80::1", "fe80::1");
            f.update_network(&NetworkSnapshot { ipv6, ..bound() });
            assert_eq!(way(&f, SPLICE, "::1", "::1"), "splice > 192.0.2.2", "{present:?}");
            assert_eq!(way(&f, TAP, "::1", "::1"), "192.0.2.1 > 192.0.2.2", "{present:?}");
            assert_eq!(way(&f, TO_LOOPBACK, "::1", "::1"), "splice > ::1");
        }
        let (ipv4, ipv6) = (FamilySnapshot::off(), family(&["fe80::77"], "fe80::1", "fe80::1"));
        f.update_network(&NetworkSnapshot { ipv4, ipv6, ..bound() });
        for policy in [SPLICE, TAP] {
            assert_eq!(way(&f, policy, "::1", "::1"), "fe80::1 > fe80::77");
            assert_eq!(way(&f, policy, "127.0.0.1", "127.0.0.1"), "fe80::1 > fe80::77");
        }
    }

    #[test]
    fn localhost_of_the_other_family_is_the_second_choice() {
        let otherwise = |nat: &Nat, policy, peer: &str| {
            let (peer, local) = (SocketAddr::new(ip(peer), 4), ip(peer));
            let (transport, target, port) = (Transport::Udp, None, 53);
            let arrival = InboundFlow { transport, peer, local, target, port };
            match nat.inbound(policy, &arrival) {
                Ok(Delivery::Splice { otherwise, .. }) => otherwise.map(|it| it.ip().to_string()),
                other => panic!("{other:?}"),
            }
        };
        let f = nat(|_| ());
        assert_eq!(otherwise(&f, TO_LOOPBACK, "::1").as_deref(), Some("127.0.0.1"));
        assert_eq!(otherwise(&f, TO_LOOPBACK, "127.0.0.1").as_deref(), Some("::1"));
        assert_eq!(otherwise(&f, TO_LOOPBACK, "127.0.0.2"), None, "that is not localhost");
        let off = nat(|policy| policy.service = Service::Off);
        assert_eq!(otherwise(&off, TO_LOOPBACK, "::1"), None);
    }

    #[test]
    fn family_that_is_off_takes_nothing() {
        let f = nat(|policy| policy.service = Service::Off);
        assert_eq!(way(&f, TAP, "198.51.100.1", "192.0.2.2"), "FamilyOff");
    }
}
