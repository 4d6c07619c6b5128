#![forbid(unsafe_code)]
//! Forward rules and the state of both sides → the listeners that are wanted.
//!
//! A rule of `Explicit` or `BestEffort` wants its ports always; one of `Auto` wants those on whose
//! target somebody listens, and by the families that somebody listens for: a client of the other family is to
//! be refused, as it would be there, and not accepted and reset. A port that we ourselves listen on is nobody's service: on either side our
//! own listeners are taken out, or each direction would forward what the other one has opened.
//!
//! For UDP, ports of TCP services count as well: programs like iperf3 agree on a UDP port over TCP, and
//! bind it only then.

use pasta_ipc::port_forward::{
    Direction, Effort, FamilyPorts, ForwardRule, ForwardTable, ForwardsChange, PortSide,
    PortSnapshot,
};
use pasta_ipc::socket::{ListenerAddress, NamespaceListener, SocketFamily};
use pasta_ipc::types::{Family, Transport};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

/// Where a listener leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardTarget {
    /// The address that the rule names, if it does.
    pub target: Option<IpAddr>,
    /// The port there.
    pub port: u16,
    /// How hard the rule is to be followed.
    pub effort: Effort,
    /// Which rule of its direction it is.
    pub rule: RuleIndex,
}

/// The place of a rule in the table of its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleIndex(pub u16);

impl RuleIndex {
    /// Of what follows from no rule.
    pub const NONE: Self = Self(u16::MAX);

    /// Of the rule at this place.
    pub fn at(place: usize) -> Self {
        Self(u16::try_from(place).unwrap_or(u16::MAX))
    }
}

/// One value for TCP and one for UDP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerTransport<T> {
    /// For TCP.
    pub tcp: T,
    /// For UDP.
    pub udp: T,
}

impl<T> PerTransport<T> {
    /// The one for `transport`.
    pub fn get(&self, transport: Transport) -> &T {
        match transport {
            Transport::Tcp => &self.tcp,
            Transport::Udp => &self.udp,
        }
    }

    /// As [`PerTransport::get`], to change it.
    pub fn get_mut(&mut self, transport: Transport) -> &mut T {
        match transport {
            Transport::Tcp => &mut self.tcp,
            Transport::Udp => &mut self.udp,
        }
    }
}

/// Ports by number; those of ours on one side, or those that are listened on.
pub type Ports = PerTransport<FamilyPorts>;

/// The rules as they are, and who listens.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    inbound: Vec<ForwardRule>,
    outbound: Vec<ForwardRule>,
    /// Who listens in the namespace.
    namespace: Ports,
    /// Who listens on the host.
    host: Ports,
}

impl Rules {
    /// Takes in the rules of one direction.
    pub fn update(&mut self, table: &ForwardTable) {
        let rules = table.rules.as_slice().to_vec();
        match table.direction {
            Direction::Inbound => self.inbound = rules,
            Direction::Outbound => self.outbound = rules,
        }
    }

    /// With the rules of `change`, and who listens as before.
    #[must_use]
    pub fn with(&self, change: &ForwardsChange) -> Self {
        let (namespace, host) = (self.namespace.clone(), self.host.clone());
        let [inbound, outbound] = [&change.inbound, &change.outbound];
        let (inbound, outbound) = (inbound.as_slice().to_vec(), outbound.as_slice().to_vec());
        Self { inbound, outbound, namespace, host }
    }

    /// Takes the rules of `other`, and keeps who listens.
    pub fn replace(&mut self, other: Self) {
        (self.inbound, self.outbound) = (other.inbound, other.outbound);
    }

    /// How many rules each direction has, inbound first.
    pub fn counts(&self) -> [usize; 2] {
        [self.inbound.len(), self.outbound.len()]
    }

    /// Takes in who listens.
    pub fn update_ports(&mut self, snapshot: PortSnapshot) {
        let side = match snapshot.side {
            PortSide::Namespace => &mut self.namespace,
            PortSide::Host => &mut self.host,
        };
        *side.get_mut(snapshot.transport) = snapshot.ports;
    }

    /// The listeners on the host that are wanted, for connections of `families`; `ours` are the ports that we
    /// listen on in the namespace. Where rules overlap, the first one counts, and one that is for both families
    /// before those for one.
    pub fn on_host(
        &self,
        families: SocketFamily,
        ours: &Ports,
    ) -> BTreeMap<ListenerAddress, ForwardTarget> {
        let address = |wanted: &Wanted<'_>| address_of(wanted.rule, wanted.port);
        let mut listeners = BTreeMap::new();
        let mut automatic = Vec::new();
        for wanted in targets(&self.inbound, &self.namespace, ours) {
            match wanted.families {
                Families::AsServed => {
                    listeners.entry(address(&wanted)).or_insert(wanted.target);
                }
                Families::One(_) => automatic.push(wanted),
            }
        }
        for wanted in automatic {
            let (at, Families::One(family)) = (address(&wanted), wanted.families) else { continue };
            let is_served = families.takes(family);
            let is_wanted = match at.address {
                Some(address) => Family::of(address) == family,
                None => !listeners.contains_key(&at),
            };
            if is_served && is_wanted {
                let address = Some(at.address.unwrap_or(any_of(family)));
                listeners.entry(ListenerAddress { address, ..at }).or_insert(wanted.target);
            }
        }
        listeners
    }

    /// Where on the host UDP of `family` is to be listened on for `port` of the namespace, now or once somebody
    /// listens there.
    pub fn places_of(
        &self,
        family: Family,
        port: u16,
    ) -> impl Iterator<Item = (ListenerAddress, ForwardTarget)> {
        self.inbound_udp().filter_map(move |(index, rule)| {
            // `port` is that many behind the first one that the rule leads to, and so on the host.
            let first = rule.target_port(rule.ports().first())?;
            let place = rule.ports().first().checked_add(port.checked_sub(first)?)?;
            let target = rule.target_port(place).filter(|target| *target == port)?;
            let target = target_of(index, rule, target);
            let mut at = address_of(rule, NonZeroU16::new(place)?);
            if rule.effort() == Effort::Auto {
                at.address = at.address.or(Some(any_of(family)));
            }
            Some((at, target))
        })
    }

    /// Whether `place`, a UDP port of the host, is to lead to another port of the namespace.
    pub fn leads_elsewhere(&self, place: u16) -> bool {
        self.inbound_udp().any(|(_, it)| it.target_port(place).is_some_and(|port| port != place))
    }

    fn inbound_udp(&self) -> impl Iterator<Item = (RuleIndex, &ForwardRule)> {
        let rules = self.inbound.iter().enumerate();
        let rules = rules.map(|(place, rule)| (RuleIndex::at(place), rule));
        rules.filter(|(_, rule)| rule.transport() == Transport::Udp)
    }

    /// The listeners in the namespace that are wanted, for connections of `families`; `ours` are the
    /// ports that we listen on on the host. Rules overlap as in [`Rules::on_host`].
    pub fn in_namespace(
        &self,
        families: SocketFamily,
        ours: &Ports,
    ) -> BTreeMap<NamespaceListener, ForwardTarget> {
        let listener = |wanted: &Wanted<'_>, family| {
            let (transport, port) = (wanted.rule.transport(), wanted.port);
            NamespaceListener { transport, family, port }
        };
        let mut listeners = BTreeMap::new();
        let mut automatic = Vec::new();
        for wanted in targets(&self.outbound, &self.host, ours) {
            match wanted.families {
                Families::AsServed => {
                    listeners.entry(listener(&wanted, families)).or_insert(wanted.target);
                }
                Families::One(family) => automatic.push((wanted, family)),
            }
        }
        for (wanted, family) in automatic {
            let one = match family {
                Family::V4 => SocketFamily::Ipv4,
                Family::V6 => SocketFamily::Ipv6,
            };
            let is_wanted = !listeners.contains_key(&listener(&wanted, families));
            if families.takes(family) && (is_wanted || families == one) {
                listeners.entry(listener(&wanted, one)).or_insert(wanted.target);
            }
        }
        listeners
    }
}

fn target_of(index: RuleIndex, rule: &ForwardRule, port: u16) -> ForwardTarget {
    ForwardTarget { target: rule.target(), port, effort: rule.effort(), rule: index }
}

/// Where on the host `port` of an inbound rule is listened on.
fn address_of(rule: &ForwardRule, port: NonZeroU16) -> ListenerAddress {
    let (address, interface) = (rule.listen(), rule.interface().cloned());
    ListenerAddress { transport: rule.transport(), address, interface, port }
}

/// The address that stands for all of one family.
fn any_of(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A port that a rule wants, with where it leads.
#[derive(Debug)]
struct Wanted<'a> {
    rule: &'a ForwardRule,
    port: NonZeroU16,
    target: ForwardTarget,
    families: Families,
}

/// For whom a port is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Families {
    /// For connections of all families that are served.
    AsServed,
    /// For those of one.
    One(Family),
}

/// Every port that a rule wants; one of `Auto` once for each family that somebody listens for.
fn targets<'a>(
    rules: &'a [ForwardRule],
    listening: &'a Ports,
    ours: &'a Ports,
) -> impl Iterator<Item = Wanted<'a>> {
    rules.iter().enumerate().flat_map(move |(place, rule)| {
        let index = RuleIndex::at(place);
        let wanted = move |port, families| {
            let (number, target) = (NonZeroU16::new(port)?, rule.target_port(port)?);
            let is_wanted = match families {
                Families::AsServed => true,
                Families::One(family) => serves(rule.transport(), family, target, listening, ours),
            };
            let target = target_of(index, rule, target);
            is_wanted.then_some(Wanted { rule, port: number, target, families })
        };
        let families: &[Families] = match rule.effort() {
            Effort::Auto => &[Families::One(Family::V4), Families::One(Family::V6)],
            Effort::Explicit | Effort::BestEffort => &[Families::AsServed],
        };
        let ports = rule.ports().iter();
        ports.flat_map(move |port| families.iter().filter_map(move |it| wanted(port, *it)))
    })
}

/// Whether somebody else than we listens on `port` for `family`.
fn serves(
    transport: Transport,
    family: Family,
    port: u16,
    listening: &Ports,
    ours: &Ports,
) -> bool {
    let on = |transport| {
        let is_on = |ports: &Ports| ports.get(transport).get(family).contains(port);
        is_on(listening) && !is_on(ours)
    };
    on(transport) || (transport == Transport::Udp && on(Transport::Tcp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::port_forward::RawRule;
    use pasta_ipc::types::{Bounded, Generation, PortRange};

    fn rule(transport: Transport, first: u16, last: u16, to: u16, effort: Effort) -> ForwardRule {
        ForwardRule::try_from(RawRule {
            transport,
            listen: None,
            interface: None,
            ports: PortRange::new(first, last).unwrap(),
            target: None,
            target_first: to,
            effort,
        })
        .unwrap()
    }

    fn rules(direction: Direction, rules: Vec<ForwardRule>) -> Rules {
        let mut all = Rules::default();
        let rules = Bounded::try_from(rules).unwrap();
        all.update(&ForwardTable { generation: Generation(1), direction, rules });
        all
    }

    /// On both families.
    fn snapshot(side: PortSide, transport: Transport, ports: &[u16]) -> PortSnapshot {
        snapshot_of(side, transport, ports, ports)
    }

    fn snapshot_of(
        side: PortSide,
        transport: Transport,
        ipv4: &[u16],
        ipv6: &[u16],
    ) -> PortSnapshot {
        let [ipv4, ipv6] = [ipv4, ipv6].map(|ports| ports.iter().copied().collect());
        let ports = FamilyPorts { ipv4, ipv6 };
        PortSnapshot { generation: Generation(1), side, transport, ports }
    }

    const BOTH: SocketFamily = SocketFamily::Both;

    fn host_ports(rules: &Rules, ours: &Ports) -> Vec<(u16, u16)> {
        let wanted = rules.on_host(SocketFamily::Ipv4, ours);
        wanted.iter().map(|(at, target)| (at.port.get(), target.port)).collect()
    }

    #[test]
    fn explicit_ports_are_wanted_whoever_listens() {
        let rules =
            rules(Direction::Inbound, vec![rule(Transport::Tcp, 8000, 8002, 80, Effort::Explicit)]);
        let wanted = host_ports(&rules, &Ports::default());
        assert_eq!(wanted, [(8000, 80), (8001, 81), (8002, 82)]);
        assert!(rules.in_namespace(BOTH, &Ports::default()).is_empty());
    }

    #[test]
    fn automatic_ports_follow_who_listens_on_the_target() {
        let auto = rule(Transport::Tcp, 8000, 8010, 9000, Effort::Auto);
        let mut rules = rules(Direction::Inbound, vec![auto]);
        assert_eq!(host_ports(&rules, &Ports::default()), []);
        rules.update_ports(snapshot(
            PortSide::Namespace,
            Transport::Tcp,
            &[8001, 9001, 9010, 9011],
        ));
        assert_eq!(host_ports(&rules, &Ports::default()), [(8001, 9001), (8010, 9010)]);
        rules.update_ports(snapshot(PortSide::Namespace, Transport::Tcp, &[]));
        assert_eq!(host_ports(&rules, &Ports::default()), []);
    }

    #[test]
    fn automatic_ports_are_opened_for_the_families_that_somebody_listens_for() {
        let auto = rule(Transport::Tcp, 1, 65535, 1, Effort::Auto);
        for (direction, side) in
            [(Direction::Inbound, PortSide::Namespace), (Direction::Outbound, PortSide::Host)]
        {
            let mut rules = rules(direction, vec![auto.clone()]);
            rules.update_ports(snapshot_of(side, Transport::Tcp, &[4, 46], &[6, 46]));
            for (served, expected) in [
                (BOTH, &[(4, 4), (46, 4), (46, 6), (6, 6)][..]),
                (SocketFamily::Ipv4, &[(4, 4), (46, 4)]),
                (SocketFamily::Ipv6, &[(46, 6), (6, 6)]),
            ] {
                let host = rules.on_host(served, &Ports::default());
                let host = host.keys().map(|it| (it.port.get(), it.address.unwrap()));
                let host = host.map(|(port, any)| (port, if any.is_ipv4() { 4 } else { 6 }));
                let inside = rules.in_namespace(served, &Ports::default());
                let inside = inside.keys().map(|it| match it.family {
                    SocketFamily::Ipv4 => (it.port.get(), 4),
                    SocketFamily::Ipv6 => (it.port.get(), 6),
                    SocketFamily::Both => panic!("one listener for both"),
                });
                let mut all: Vec<_> = host.chain(inside).collect();
                all.sort_by_key(|(port, family)| (port.to_string(), *family));
                assert_eq!(all, expected, "{direction:?} {served:?}");
            }
        }
    }

    #[test]
    fn automatic_port_of_an_address_is_opened_if_somebody_listens_for_its_family() {
        let at = |address: &str| {
            ForwardRule::try_from(RawRule {
                listen: Some(address.parse().unwrap()),
                ..RawRule::from(rule(Transport::Udp, 53, 53, 53, Effort::Auto))
            })
        };
        let both = vec![at("192.0.2.1").unwrap(), at("2001:db8::1").unwrap()];
        let mut rules = rules(Direction::Inbound, both);
        rules.update_ports(snapshot_of(PortSide::Namespace, Transport::Udp, &[], &[53]));
        let wanted = rules.on_host(BOTH, &Ports::default());
        let wanted: Vec<_> = wanted.keys().map(|it| it.address.unwrap().to_string()).collect();
        assert_eq!(wanted, ["2001:db8::1"]);
    }

    #[test]
    fn port_that_is_named_is_not_opened_again_for_one_family() {
        let auto = rule(Transport::Tcp, 1, 65535, 1, Effort::Auto);
        let named = rule(Transport::Tcp, 80, 80, 8080, Effort::Explicit);
        for all in [vec![auto.clone(), named.clone()], vec![named, auto]] {
            for (direction, side) in
                [(Direction::Inbound, PortSide::Namespace), (Direction::Outbound, PortSide::Host)]
            {
                let mut rules = rules(direction, all.clone());
                rules.update_ports(snapshot(side, Transport::Tcp, &[80]));
                let host = rules.on_host(BOTH, &Ports::default());
                let inside = rules.in_namespace(BOTH, &Ports::default());
                let targets: Vec<_> = host.values().chain(inside.values()).collect();
                assert_eq!(targets.iter().map(|it| it.port).collect::<Vec<_>>(), [8080]);
            }
        }
    }

    #[test]
    fn what_we_listen_on_ourselves_is_nobodys_service() {
        let auto = rule(Transport::Tcp, 1, 65535, 1, Effort::Auto);
        let mut rules = rules(Direction::Outbound, vec![auto]);
        rules.update_ports(snapshot(PortSide::Host, Transport::Tcp, &[22, 8080]));
        let mut ours = Ports::default();
        ours.tcp.ipv4.insert(8080);
        let wanted = rules.in_namespace(BOTH, &ours);
        let wanted: Vec<_> = wanted.keys().map(|it| (it.family, it.port.get())).collect();
        let (v4, v6) = (SocketFamily::Ipv4, SocketFamily::Ipv6);
        assert_eq!(wanted, [(v4, 22), (v6, 22), (v6, 8080)]);
    }

    #[test]
    fn tcp_service_makes_the_udp_port_count_and_not_the_other_way_round() {
        let auto = |transport| rule(transport, 1, 65535, 1, Effort::Auto);
        let mut rules = rules(Direction::Inbound, vec![auto(Transport::Tcp), auto(Transport::Udp)]);
        rules.update_ports(snapshot(PortSide::Namespace, Transport::Tcp, &[5201]));
        rules.update_ports(snapshot(PortSide::Namespace, Transport::Udp, &[53]));
        let wanted = rules.on_host(SocketFamily::Ipv6, &Ports::default());
        let wanted: Vec<_> = wanted.keys().map(|it| (it.transport, it.port.get())).collect();
        assert_eq!(wanted, [(Transport::Tcp, 5201), (Transport::Udp, 53), (Transport::Udp, 5201)]);
    }

    #[test]
    fn first_of_two_rules_for_a_port_counts() {
        let first = rule(Transport::Tcp, 80, 80, 8080, Effort::Explicit);
        let second = rule(Transport::Tcp, 1, 100, 1, Effort::BestEffort);
        let rules = rules(Direction::Inbound, vec![first, second]);
        let wanted = host_ports(&rules, &Ports::default());
        assert_eq!(wanted.len(), 100);
        assert!(wanted.contains(&(80, 8080)) && wanted.contains(&(81, 81)));
    }
}
