//! Address policy: where a new flow of the namespace's goes on the host.
//!
//! Every destination passes [`Nat::outbound`], TCP, UDP and echo alike, and nothing else
//! decides. What comes out is either an address that a mapping of the command line made, or the
//! namespace's own destination after [`is_impossible`] refused what is not to be reached that way:
//! loopback in all its spellings, unspecified, multicast, broadcast, and link-local IPv6, which
//! means nothing outside its link. Flows that come from the host's side pass [`inbound`] in the same
//! way.

mod dns;
pub mod inbound;

use crate::link::classify::is_impossible;
use crate::time::Instant;
use dns::Dns;
use inbound::{Delivery, InboundFlow, LocalPolicy, Refused};
use pasta_ipc::start::{FamilyPolicy, HostLoopback, Protocols};
use pasta_ipc::types::{
    Address, Family as AddressFamily, FamilySnapshot, IfName, NetworkSnapshot, ResolverSnapshot,
    Service,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What kind of flow asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or ICMPv6 echo.
    Echo,
}

/// Where a flow goes on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What the host socket connects to.
    pub address: SocketAddr,
    /// What it is bound to first; none: the kernel picks.
    pub source: Option<IpAddr>,
    /// The host interface it is bound to: that of a scoped resolver, or the one that was asked for.
    pub interface: Option<IfName>,
}

/// Why a flow goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The family is not served.
    FamilyOff,
    /// The destination is not to be reached from the namespace.
    Destination,
    /// It was addressed to a mapping that leads nowhere at the time.
    NothingMapped,
}

/// Policy of one family, and what it depends on.
#[derive(Clone, Debug)]
struct Family<A> {
    policy: FamilyPolicy<A>,
    gateway: Option<A>,
    host_primary: Option<A>,
    our_address: Option<A>,
    dns: Dns<A>,
    /// What the namespace was given, primary first.
    assigned: Vec<A>,
    /// All addresses that were read there.
    present: Vec<A>,
    /// The last source address of a flow that the namespace opened.
    observed: Option<A>,
}

/// The address policy of both families as it is at the moment.
#[derive(Clone, Debug)]
pub struct Nat {
    ipv4: Family<Ipv4Addr>,
    ipv6: Family<Ipv6Addr>,
    protocols: Protocols,
    revision: u64,
}

impl Nat {
    /// The policy of the command line; nothing is known of the network yet.
    pub fn new(ipv4: FamilyPolicy<Ipv4Addr>, ipv6: FamilyPolicy<Ipv6Addr>) -> Self {
        let protocols = Protocols::default();
        Self { ipv4: Family::new(ipv4), ipv6: Family::new(ipv6), protocols, revision: 0 }
    }

    /// Number of the present state of all this: another one means that anything may have changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes in what netlink knows; flows that exist keep their target. This is a new revision, after
    /// which the source address of each socket is checked: addresses have changed, or the host has lost
    /// some ([`NetworkSnapshot::losses`]).
    pub fn update_network(&mut self, snapshot: &NetworkSnapshot) {
        self.revision += 1;
        self.ipv4.update(&snapshot.ipv4);
        self.ipv6.update(&snapshot.ipv6);
    }

    /// Takes in the host's resolvers.
    pub fn update_resolvers(&mut self, snapshot: &ResolverSnapshot) {
        self.revision += 1;
        let all = snapshot.servers.as_slice();
        self.ipv4.dns.update(AddressFamily::V4, all);
        self.ipv6.dns.update(AddressFamily::V6, all);
    }

    /// A query for `destination` that went to the resolver `asked` has met a hard error: the next
    /// one of the list is asked from now on. An error of one that is no longer asked says nothing.
    pub fn resolver_failed(&mut self, destination: SocketAddr, asked: IpAddr) {
        let port = destination.port();
        let moved = match destination.ip() {
            IpAddr::V4(a) => self.ipv4.resolver_failed(a, port, asked),
            IpAddr::V6(a) => self.ipv6.resolver_failed(a, port, asked),
        };
        self.revision += u64::from(moved);
    }

    /// Takes in that a datagram is about to go to `destination`: where it is a query, and the resolver has been silent,
    /// it is the next one that is asked.
    #[inline]
    pub fn ask(&mut self, now: Instant, destination: SocketAddr) {
        if !Self::is_dns_port(destination.port()) {
            return;
        }
        let moved = match destination.ip() {
            IpAddr::V4(a) => self.ipv4.ask(now, a, destination.port()),
            IpAddr::V6(a) => self.ipv6.ask(now, a, destination.port()),
        };
        self.revision += u64::from(moved);
    }

    /// A datagram has come from `source`, as the namespace has it: if that is where DNS is taken, a resolver has
    /// answered.
    pub fn answered(&mut self, source: SocketAddr) {
        match source.ip() {
            IpAddr::V4(a) => self.ipv4.answered(a, source.port()),
            IpAddr::V6(a) => self.ipv6.answered(a, source.port()),
        }
    }

    /// Whether `port` is one of queries.
    pub fn is_dns_port(port: u16) -> bool {
        Dns::<Ipv4Addr>::is_port(port)
    }

    /// The resolvers that clients in the namespace are offered where they are the host's. Those that only
    /// the host can reach are offered at the address at which DNS is taken for them, if there is one.
    pub fn offered_resolvers(&self) -> Vec<IpAddr> {
        let Self { ipv4, ipv6, .. } = self;
        let (four, six) = (ipv4.policy.service, ipv6.policy.service);
        let mut offered = ipv4.dns.offered(AddressFamily::V4, ipv4.loopback_map(), six);
        offered.extend(ipv6.dns.offered(AddressFamily::V6, ipv6.loopback_map(), four));
        offered
    }

    /// Where queries to `destination` go, if it is an address at which DNS is taken.
    pub fn resolver_for(&self, protocol: Protocol, destination: SocketAddr) -> Option<Target> {
        let port = destination.port();
        let is_dns = match destination.ip() {
            IpAddr::V4(a) => self.ipv4.is_dns(protocol, a, port),
            IpAddr::V6(a) => self.ipv6.is_dns(protocol, a, port),
        };
        self.outbound(protocol, destination).ok().filter(|_| is_dns)
    }

    /// Whether the family of `address` is served.
    pub fn serves(&self, address: IpAddr) -> bool {
        let service = match address {
            IpAddr::V4(_) => self.ipv4.policy.service,
            IpAddr::V6(_) => self.ipv6.policy.service,
        };
        service == Service::On
    }

    /// Whether `address`, as the namespace has it, leads to the host by a mapping, or to a resolver.
    pub fn is_mapped(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => self.ipv4.is_mapped(a),
            IpAddr::V6(a) => self.ipv6.is_mapped(a),
        }
    }

    /// The namespace's default router, of the family of `peer`.
    pub fn gateway(&self, peer: IpAddr) -> Option<IpAddr> {
        match peer {
            IpAddr::V4(_) => self.ipv4.gateway.map(IpAddr::V4),
            IpAddr::V6(_) => self.ipv6.gateway.map(IpAddr::V6),
        }
    }

    /// Our own address on the link, of the family of `peer`: where errors of our making come from.
    pub fn our_address(&self, peer: IpAddr) -> Option<IpAddr> {
        match peer {
            IpAddr::V4(_) => self.ipv4.our_address.map(IpAddr::V4),
            IpAddr::V6(_) => self.ipv6.our_address.map(IpAddr::V6),
        }
    }

    /// Our link-local address, from which neighbours are answered; there always is one.
    pub fn our_link_local(&self) -> Ipv6Addr {
        let fallback = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        self.ipv6.our_address.filter(Ipv6Addr::is_unicast_link_local).unwrap_or(fallback)
    }

    /// Decides where a flow to `destination` (as the namespace has it) goes.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn outbound(&self, protocol: Protocol, destination: SocketAddr) -> Result<Target, Denied> {
        let port = destination.port();
        let decision = match destination.ip() {
            IpAddr::V4(a) => self.ipv4.outbound(protocol, a, port, Ipv4Addr::LOCALHOST)?.into_ip(),
            IpAddr::V6(a) => self.ipv6.outbound(protocol, a, port, Ipv6Addr::LOCALHOST)?.into_ip(),
        };
        let (address, source, interface) = match decision {
            Decision::Loopback(address) => (address, None, None),
            // The host's own address, reached from itself.
            Decision::HostPrimary(address) => (address, Some(address), None),
            Decision::Resolver { address, interface } if address.is_loopback() => {
                (address, None, interface)
            }
            Decision::Resolver { address, interface } => {
                let (source, outbound) = self.leaves_by(address);
                (address, source, interface.or(outbound))
            }
            Decision::Unchanged(address) => {
                let (source, outbound) = self.leaves_by(address);
                (address, source, outbound)
            }
        };
        let link_local = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
        if link_local && interface.is_none() {
            return Err(Denied::Destination);
        }
        Ok(Target { address: SocketAddr::new(address, port), source, interface })
    }

    /// The source address and interface that were asked for towards `address` of the host's network.
    fn leaves_by(&self, address: IpAddr) -> (Option<IpAddr>, Option<IfName>) {
        match address {
            IpAddr::V4(_) => self.ipv4.leaves_by(),
            IpAddr::V6(_) => self.ipv6.leaves_by(),
        }
    }

    /// Notes that the namespace has opened a flow from `source`.
    pub fn observe(&mut self, source: IpAddr) {
        match source {
            IpAddr::V4(address) => self.ipv4.observed = Some(address),
            IpAddr::V6(address) => self.ipv6.observed = Some(address),
        }
    }

    /// The address of the namespace at which it is reached.
    pub fn namespace_address(&self, family: AddressFamily) -> Option<IpAddr> {
        match family {
            AddressFamily::V4 => self.ipv4.namespace_address(|_| false).map(IpAddr::V4),
            AddressFamily::V6 => {
                self.ipv6.namespace_address(Ipv6Addr::is_unicast_link_local).map(IpAddr::V6)
            }
        }
    }

    /// Whether `address` is one of several that the namespace has from the host, and not the first: that is what the
    /// host's kernel sends from as a rule, and to bind to it would cost each flow some calls, and TCP its choice of ports.
    pub fn is_chosen(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => self.ipv4.assigned.iter().skip(1).any(|it| *it == a),
            IpAddr::V6(a) => self.ipv6.assigned.iter().skip(1).any(|it| *it == a),
        }
    }

    /// Whether the namespace has `address`.
    pub fn is_of_namespace(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => self.ipv4.present.contains(&a),
            IpAddr::V6(a) => self.ipv6.present.contains(&a),
        }
    }

    /// Decides what becomes of `arrival`, which came to a listener on the host.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn inbound(&self, policy: LocalPolicy, arrival: &InboundFlow) -> Result<Delivery, Refused> {
        inbound::decide(self, policy, arrival)
    }

    /// Whether flows of `protocol` are carried at all.
    #[inline]
    pub fn carries(&self, protocol: Protocol) -> bool {
        let service = match protocol {
            Protocol::Tcp => self.protocols.tcp,
            Protocol::Udp => self.protocols.udp,
            Protocol::Echo => self.protocols.icmp,
        };
        service == Service::On
    }

    /// Switches protocols off.
    pub fn limit_to(&mut self, protocols: Protocols) {
        self.protocols = protocols;
    }
}

/// Where a flow goes, before it is said how it leaves.
enum Decision<A> {
    /// The host's loopback.
    Loopback(A),
    /// A resolver, which may be of the other family, by this interface if it is only there.
    Resolver { address: IpAddr, interface: Option<IfName> },
    /// The host's own address.
    HostPrimary(A),
    /// Where the namespace wants to go.
    Unchanged(A),
}

impl<A: Into<IpAddr>> Decision<A> {
    fn into_ip(self) -> Decision<IpAddr> {
        match self {
            Self::Loopback(address) => Decision::Loopback(address.into()),
            Self::Resolver { address, interface } => Decision::Resolver { address, interface },
            Self::HostPrimary(address) => Decision::HostPrimary(address.into()),
            Self::Unchanged(address) => Decision::Unchanged(address.into()),
        }
    }
}

impl<A: Address + Into<IpAddr>> Family<A> {
    fn new(policy: FamilyPolicy<A>) -> Self {
        Self {
            dns: Dns::new(&policy),
            policy,
            gateway: None,
            host_primary: None,
            our_address: None,
            assigned: Vec::new(),
            present: Vec::new(),
            observed: None,
        }
    }

    fn update(&mut self, snapshot: &FamilySnapshot<A>) {
        self.gateway = snapshot.gateway;
        self.host_primary = snapshot.host_primary;
        self.our_address = snapshot.our_address;
        self.assigned = snapshot.assigned.as_slice().iter().map(|it| it.address()).collect();
        self.present = snapshot.present.as_slice().to_vec();
    }

    /// The address that leads to the host's loopback.
    fn loopback_map(&self) -> Option<A> {
        match self.policy.host_loopback {
            HostLoopback::Gateway => self.gateway.or(self.our_address),
            HostLoopback::Address(address) => Some(address),
            HostLoopback::None => None,
        }
    }

    /// Whether anything of what is sent `to` goes where a mapping says.
    fn is_mapped(&self, to: A) -> bool {
        let mapped =
            [self.loopback_map(), self.dns.address(self.loopback_map()), self.policy.guest_address];
        mapped.contains(&Some(to))
    }

    /// Whether a flow of `protocol` to `to` is taken as one of queries.
    fn is_dns(&self, protocol: Protocol, to: A, port: u16) -> bool {
        self.dns.takes(self.loopback_map(), protocol, to, port)
    }

    /// `is_last_choice` are those that are taken only where there is no other.
    fn namespace_address(&self, is_last_choice: impl Fn(&A) -> bool) -> Option<A> {
        if self.policy.service == Service::Off {
            return None;
        }
        let observed = self.observed.filter(|it| self.present.contains(it) && !is_last_choice(it));
        let assigned = self.assigned.iter().find(|it| self.present.contains(it)).copied();
        let present = self.present.iter().find(|it| !is_last_choice(it)).copied();
        let seen = self.observed.filter(|_| self.present.is_empty());
        let last = self.present.first().copied();
        observed.or(assigned).or(present).or(seen).or(last)
    }

    /// Asks the next resolver if it was `asked` that failed a query to `to`.
    fn resolver_failed(&mut self, to: A, port: u16, asked: IpAddr) -> bool {
        let map = self.loopback_map();
        self.is_dns(Protocol::Udp, to, port) && self.dns.failed(map, asked)
    }

    /// Asks the next resolver if the present one is silent and `to` is where DNS is taken.
    fn ask(&mut self, now: Instant, to: A, port: u16) -> bool {
        let map = self.loopback_map();
        self.is_dns(Protocol::Udp, to, port) && self.dns.ask(now, map)
    }

    fn answered(&mut self, from: A, port: u16) {
        if self.is_dns(Protocol::Udp, from, port) {
            self.dns.answered();
        }
    }

    fn leaves_by(&self) -> (Option<IpAddr>, Option<IfName>) {
        let FamilyPolicy { outbound, outbound_interface, .. } = &self.policy;
        (outbound.map(Into::into), outbound_interface.clone())
    }

    /// `localhost` is the loopback address of the family.
    fn outbound(
        &self,
        protocol: Protocol,
        to: A,
        port: u16,
        localhost: A,
    ) -> Result<Decision<A>, Denied> {
        if self.policy.service == Service::Off {
            return Err(Denied::FamilyOff);
        }
        if self.is_dns(protocol, to, port) {
            let target = self.dns.target(self.loopback_map());
            let (address, interface) = target.ok_or(Denied::NothingMapped)?;
            return Ok(Decision::Resolver { address, interface });
        }
        if self.loopback_map() == Some(to) {
            return Ok(Decision::Loopback(localhost));
        }
        if self.policy.guest_address == Some(to) {
            return self.host_primary.map(Decision::HostPrimary).ok_or(Denied::NothingMapped);
        }
        if is_impossible(to.into()) {
            return Err(Denied::Destination);
        }
        // One without a scope leads to no link that the namespace could mean.
        let link_local = matches!(to.into(), IpAddr::V6(a) if a.is_unicast_link_local());
        if link_local {
            return Err(Denied::Destination);
        }
        Ok(Decision::Unchanged(to))
    }
}

#[cfg(test)]
mod tests;
