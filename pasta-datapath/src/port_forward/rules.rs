#![forbid(unsafe_code)]
//! Forward rules and the state of both sides → the listeners that are wanted.
//!
//! A rule of `Explicit` or `BestEffort` wants its ports always; one of `Auto` wants those on whose
//! target somebody listens. A port that we ourselves listen on is nobody's service: on either side our
//! own listeners are taken out, or each direction would forward what the other one has opened.
//!
//! For UDP, ports of TCP services count as well: programs like iperf3 agree on a UDP port over TCP, and
//! bind it only then.

use pasta_ipc::port_forward::{
    Direction, Effort, ForwardRule, ForwardTable, PortSide, PortSnapshot,
};
use pasta_ipc::socket::{ListenerAddress, NamespaceListener, SocketFamily};
use pasta_ipc::types::{PortSet, Transport};
use std::collections::BTreeMap;
use std::net::IpAddr;
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
pub type Ports = PerTransport<PortSet>;

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

    /// Takes in who listens.
    pub fn update_ports(&mut self, snapshot: PortSnapshot) {
        let side = match snapshot.side {
            PortSide::Namespace => &mut self.namespace,
            PortSide::Host => &mut self.host,
        };
        *side.get_mut(snapshot.transport) = snapshot.ports;
    }

    /// The listeners on the host that are wanted; `ours` are the ports that we listen on in the
    /// namespace. Where rules overlap, the first one counts.
    pub fn on_host(&self, ours: &Ports) -> BTreeMap<ListenerAddress, ForwardTarget> {
        let mut wanted = BTreeMap::new();
        for (rule, port, target) in targets(&self.inbound, &self.namespace, ours) {
            wanted.entry(address_of(rule, port)).or_insert(target);
        }
        wanted
    }

    /// Where on the host UDP is to be listened on for `port` of the namespace, now or once somebody listens there.
    pub fn places_of(&self, port: u16) -> impl Iterator<Item = (ListenerAddress, ForwardTarget)> {
        self.inbound_udp().filter_map(move |rule| {
            // `port` is that many behind the first one that the rule leads to, and so on the host.
            let first = rule.target_port(rule.ports().first())?;
            let place = rule.ports().first().checked_add(port.checked_sub(first)?)?;
            let target = rule.target_port(place).filter(|target| *target == port)?;
            let target =
                ForwardTarget { target: rule.target(), port: target, effort: rule.effort() };
            Some((address_of(rule, NonZeroU16::new(place)?), target))
        })
    }

    /// Whether `place`, a UDP port of the host, is to lead to another port of the namespace.
    pub fn leads_elsewhere(&self, place: u16) -> bool {
        self.inbound_udp().any(|it| it.target_port(place).is_some_and(|port| port != place))
    }

    fn inbound_udp(&self) -> impl Iterator<Item = &ForwardRule> {
        self.inbound.iter().filter(|rule| rule.transport() == Transport::Udp)
    }

    /// The listeners in the namespace that are wanted, for connections of `family`; `ours` are the
    /// ports that we listen on on the host.
    pub fn in_namespace(
        &self,
        family: SocketFamily,
        ours: &Ports,
    ) -> BTreeMap<NamespaceListener, ForwardTarget> {
        let mut wanted = BTreeMap::new();
        for (rule, port, target) in targets(&self.outbound, &self.host, ours) {
            let listener = NamespaceListener { transport: rule.transport(), family, port };
            wanted.entry(listener).or_insert(target);
        }
        wanted
    }
}

/// Where on the host `port` of an inbound rule is listened on.
fn address_of(rule: &ForwardRule, port: NonZeroU16) -> ListenerAddress {
    let (address, interface) = (rule.listen(), rule.interface().cloned());
    ListenerAddress { transport: rule.transport(), address, interface, port }
}

/// Every port that a rule wants, with where it leads.
fn targets<'a>(
    rules: &'a [ForwardRule],
    listening: &'a Ports,
    ours: &'a Ports,
) -> impl Iterator<Item = (&'a ForwardRule, NonZeroU16, ForwardTarget)> {
    rules.iter().flat_map(move |rule| {
        rule.ports().iter().filter_map(move |port| {
            let (number, target) = (NonZeroU16::new(port)?, rule.target_port(port)?);
            let wanted =
                rule.effort() != Effort::Auto || serves(rule.transport(), target, listening, ours);
            let target =
                ForwardTarget { target: rule.target(), port: target, effort: rule.effort() };
            wanted.then_some((rule, number, target))
        })
    })
}

/// Whether somebody else than we listens on `port`.
fn serves(transport: Transport, port: u16, listening: &Ports, ours: &Ports) -> bool {
    let on =
        |transport| listening.get(transport).contains(port) && !ours.get(transport).contains(port);
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

    fn snapshot(side: PortSide, transport: Transport, ports: &[u16]) -> PortSnapshot {
        let ports = ports.iter().copied().collect();
        PortSnapshot { generation: Generation(1), side, transport, ports }
    }

    fn host_ports(rules: &Rules, ours: &Ports) -> Vec<(u16, u16)> {
        rules.on_host(ours).iter().map(|(at, target)| (at.port.get(), target.port)).collect()
    }

    #[test]
    fn explicit_ports_are_wanted_whoever_listens() {
        let rules =
            rules(Direction::Inbound, vec![rule(Transport::Tcp, 8000, 8002, 80, Effort::Explicit)]);
        let wanted = host_ports(&rules, &Ports::default());
        assert_eq!(wanted, [(8000, 80), (8001, 81), (8002, 82)]);
        assert!(rules.in_namespace(SocketFamily::Both, &Ports::default()).is_empty());
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
    fn what_we_listen_on_ourselves_is_nobodys_service() {
        let auto = rule(Transport::Tcp, 1, 65535, 1, Effort::Auto);
        let mut rules = rules(Direction::Outbound, vec![auto]);
        rules.update_ports(snapshot(PortSide::Host, Transport::Tcp, &[22, 8080]));
        let mut ours = Ports::default();
        ours.tcp.insert(8080);
        let wanted = rules.in_namespace(SocketFamily::Both, &ours);
        assert_eq!(wanted.keys().map(|it| it.port.get()).collect::<Vec<_>>(), [22]);
    }

    #[test]
    fn tcp_service_makes_the_udp_port_count_and_not_the_other_way_round() {
        let auto = |transport| rule(transport, 1, 65535, 1, Effort::Auto);
        let mut rules = rules(Direction::Inbound, vec![auto(Transport::Tcp), auto(Transport::Udp)]);
        rules.update_ports(snapshot(PortSide::Namespace, Transport::Tcp, &[5201]));
        rules.update_ports(snapshot(PortSide::Namespace, Transport::Udp, &[53]));
        let wanted = rules.on_host(&Ports::default());
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
