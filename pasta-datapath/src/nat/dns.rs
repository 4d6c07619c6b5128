//! DNS: at which address queries are taken, which of the host's resolvers they go to, and which resolvers
//! clients in the namespace are offered.
//!
//! Queries are datagrams and connections to port 53 or 853 of one address of the namespace's view: that of
//! `--dns-forward`, else the one that leads to the host's loopback, where one of the resolvers can be
//! reached from the host only. So can one on the host's loopback, as the stub of systemd-resolved is; one
//! with a link-local address, which means another neighbour in the namespace; and one that has the mapped
//! address itself. The stub is asked, and not the resolvers that it knows: names of a VPN are found by it
//! alone.
//!
//! They go to the resolver of `--dns-host`, else to the host's: those of the family, in the order of
//! resolv.conf, and where the family has none, those of the other. Where the address is the one that is
//! mapped, those come first that can be reached from the host only: the namespace reaches the others by
//! itself. A hard error of a socket leads to the next one for the queries that follow, the last is followed
//! by the first. A query that is under way keeps its socket. Where the host names no resolver, programs ask the one on
//! 127.0.0.1 (resolv.conf(5)), and so do we; it is offered to nobody.

use crate::nat::Protocol;
use pasta_ipc::start::FamilyPolicy;
use pasta_ipc::types::{Family, IfName, Resolver, Service};
use std::net::{IpAddr, Ipv4Addr};

/// The ports of DNS and of DNS over TLS.
const PORTS: [u16; 2] = [53, 853];

/// Where queries of one family go. What can change at any time, the mapped address, comes in with each
/// question.
#[derive(Clone, Debug)]
pub(super) struct Dns<A> {
    forward: Option<A>,
    host: Option<A>,
    /// The host's resolvers for this family.
    resolvers: Vec<Resolver>,
    /// How many hard errors there were with this list.
    failures: usize,
}

impl<A: Copy + PartialEq + Into<IpAddr>> Dns<A> {
    pub(super) fn new(policy: &FamilyPolicy<A>) -> Self {
        let (forward, host) = (policy.dns_forward, policy.dns_host);
        Self { forward, host, resolvers: Vec::new(), failures: 0 }
    }

    /// Takes in the host's resolvers, of both families.
    pub(super) fn update(&mut self, family: Family, all: &[Resolver]) {
        let own = |it: &&Resolver| Family::of(it.address) == family;
        self.resolvers = all.iter().filter(own).cloned().collect();
        if self.resolvers.is_empty() {
            self.resolvers = all.to_vec();
        }
        self.failures = 0;
    }

    /// The address at which queries are taken; `map` is the one that leads to the host's loopback.
    pub(super) fn address(&self, map: Option<A>) -> Option<A> {
        self.forward.or_else(|| map.filter(|_| self.resolvers.iter().any(|it| is_hidden(it, map))))
    }

    /// Whether a flow of `protocol` to `to` is one of queries.
    pub(super) fn takes(&self, map: Option<A>, protocol: Protocol, to: A, port: u16) -> bool {
        protocol != Protocol::Echo && PORTS.contains(&port) && self.address(map) == Some(to)
    }

    /// Where a query goes, and by which interface of the host if it is only there.
    pub(super) fn target(&self, map: Option<A>) -> Option<(IpAddr, Option<IfName>)> {
        if let Some(pinned) = self.host {
            return Some((pinned.into(), None));
        }
        let is_first = |it: &&Resolver| self.forward.is_none() && is_hidden(it, map);
        let first = self.resolvers.iter().filter(is_first);
        let rest = self.resolvers.iter().filter(|it| !is_first(it));
        let asked = match self.failures.checked_rem(self.resolvers.len()) {
            Some(turn) => first.chain(rest).nth(turn)?,
            None => return Some((Ipv4Addr::LOCALHOST.into(), None)),
        };
        Some((asked.address, asked.interface.clone()))
    }

    /// Asks the next resolver if it was `asked` that failed, and there is another.
    pub(super) fn failed(&mut self, map: Option<A>, asked: IpAddr) -> bool {
        let present = self.target(map).map(|(address, _)| address);
        let moves = self.host.is_none() && present == Some(asked) && self.resolvers.len() > 1;
        self.failures = self.failures.wrapping_add(usize::from(moves));
        moves
    }

    /// The resolvers that clients are offered where they are the host's, as the namespace reaches them.
    /// One that is of the other family is offered at our address if the namespace has this family only.
    pub(super) fn offered(&self, family: Family, map: Option<A>, other: Service) -> Vec<IpAddr> {
        if let Some(ours) = self.forward {
            return vec![ours.into()];
        }
        let mut offered = Vec::new();
        for resolver in &self.resolvers {
            let is_own = Family::of(resolver.address) == family;
            let reached = match is_hidden(resolver, map) {
                true => map.map(Into::into).filter(|_| is_own || other == Service::Off),
                false => Some(resolver.address).filter(|_| is_own),
            };
            offered.extend(reached.filter(|it| !offered.contains(it)));
        }
        offered
    }
}

/// Whether the namespace means another by the resolver's address: itself, a neighbour, or the host.
fn is_hidden<A: Copy + Into<IpAddr>>(resolver: &Resolver, map: Option<A>) -> bool {
    let link_local = match resolver.address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let is_map = map.map(Into::into) == Some(resolver.address);
    resolver.address.is_loopback() || link_local || is_map
}
