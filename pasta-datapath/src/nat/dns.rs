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
//! itself. A hard error of a socket leads to the next one for the queries that follow, and so does silence: datagrams
//! that were sent to it for [`SILENCE`], and none that came. The last is followed by the first. A query that is under way keeps its socket. Where the host names no resolver, programs ask the one on
//! 127.0.0.1 (resolv.conf(5)), and so do we; it is offered to nobody.

use crate::nat::Protocol;
use crate::time::Instant;
use pasta_ipc::start::FamilyPolicy;
use pasta_ipc::types::{Family, IfName, Resolver, Service};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The ports of DNS and of DNS over TLS.
const PORTS: [u16; 2] = [53, 853];

/// How long a resolver may be silent while it is asked. Chosen: less than any client waits before it asks again
/// (resolv.conf(5): 5 s), and longer than a name takes that has to be looked for.
const SILENCE: Duration = Duration::from_secs(3);

/// Queries with more time between have nothing to do with each other. Chosen: what clients try a name for.
const APART: Duration = Duration::from_secs(30);

/// Since when a resolver is asked without an answer, and when it was asked last.
#[derive(Clone, Copy, Debug)]
struct Unanswered {
    since: Instant,
    last: Instant,
}

/// Where queries of one family go. What can change at any time, the mapped address, comes in with each
/// question.
#[derive(Clone, Debug)]
pub(super) struct Dns<A> {
    forward: Option<A>,
    host: Option<A>,
    /// The host's resolvers for this family.
    resolvers: Vec<Resolver>,
    /// How many hard errors and silences there were with this list.
    failures: usize,
    unanswered: Option<Unanswered>,
}

impl<A: Copy + PartialEq + Into<IpAddr>> Dns<A> {
    pub(super) fn new(policy: &FamilyPolicy<A>) -> Self {
        let (forward, host) = (policy.dns_forward, policy.dns_host);
        Self { forward, host, resolvers: Vec::new(), failures: 0, unanswered: None }
    }

    /// Takes in the host's resolvers, of both families.
    pub(super) fn update(&mut self, family: Family, all: &[Resolver]) {
        let own = |it: &&Resolver| Family::of(it.address) == family;
        self.resolvers = all.iter().filter(own).cloned().collect();
        if self.resolvers.is_empty() {
            self.resolvers = all.to_vec();
        }
        (self.failures, self.unanswered) = (0, None);
    }

    /// The address at which queries are taken; `map` is the one that leads to the host's loopback.
    pub(super) fn address(&self, map: Option<A>) -> Option<A> {
        self.forward.or_else(|| map.filter(|_| self.resolvers.iter().any(|it| is_hidden(it, map))))
    }

    /// Whether a flow of `protocol` to `to` is one of queries.
    pub(super) fn takes(&self, map: Option<A>, protocol: Protocol, to: A, port: u16) -> bool {
        protocol != Protocol::Echo && Self::is_port(port) && self.address(map) == Some(to)
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
        if moves {
            self.unanswered = None;
        }
        moves
    }

    /// Takes in that a datagram is about to go to the present resolver. Asks the next one with it if the present one
    /// has been silent, and there is another.
    pub(super) fn ask(&mut self, now: Instant, map: Option<A>) -> bool {
        let known = self.unanswered.filter(|it| now - it.last < APART);
        let since = known.map_or(now, |it| it.since);
        self.unanswered = Some(Unanswered { since, last: now });
        let silent = self.target(map).filter(|_| now - since >= SILENCE);
        let moves = silent.is_some_and(|(address, _)| self.failed(map, address));
        if moves {
            self.unanswered = Some(Unanswered { since: now, last: now });
        }
        moves
    }

    /// A resolver has answered.
    pub(super) fn answered(&mut self) {
        self.unanswered = None;
    }

    /// Whether a port is one of queries.
    pub(super) fn is_port(port: u16) -> bool {
        PORTS.contains(&port)
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
