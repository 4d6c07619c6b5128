#![forbid(unsafe_code)]
//! What forwarding rules make of a helper's privileges: ports that it may bind, and whether it needs
//! a capability for that.

use pasta_ipc::port_forward::{Effort, ForwardRule};
use pasta_ipc::types::Transport;
use std::collections::BTreeSet;

/// With this many ports and more they are not distinguished; a rule of the kernel's costs memory that
/// cannot be swapped. Chosen: more than anybody writes down by hand.
const MANY: usize = 1000;

/// Ports below this are bound with `CAP_NET_BIND_SERVICE` only.
const FIRST_FREE: u16 = 1024;

/// Ports of one transport, beside port 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// All of them: which ones will be needed is not known beforehand, or they are too many.
    Any,
    /// These.
    Only(BTreeSet<u16>),
}

/// Which ports a process may bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindPorts {
    /// Those of TCP.
    pub tcp: Ports,
    /// Those of UDP; they count for the monitor, the datapath binds what the namespace binds.
    pub udp: Ports,
}

impl BindPorts {
    /// None but port 0.
    pub fn none() -> Self {
        Self { tcp: Ports::Only(BTreeSet::new()), udp: Ports::Only(BTreeSet::new()) }
    }

    /// What a process needs that listens for `rules`.
    pub fn of(rules: &[ForwardRule]) -> Self {
        Self { tcp: ports(rules, Transport::Tcp), udp: ports(rules, Transport::Udp) }
    }
}

fn ports(rules: &[ForwardRule], transport: Transport) -> Ports {
    let mut named = BTreeSet::new();
    for rule in rules.iter().filter(|rule| rule.transport() == transport) {
        if rule.effort() != Effort::Explicit || rule.ports().count() as usize >= MANY {
            return Ports::Any;
        }
        named.extend(rule.ports().iter());
        if named.len() >= MANY {
            return Ports::Any;
        }
    }
    Ports::Only(named)
}

/// Whether a rule has a port that only the privileged may bind; `auto` and `all` do.
pub fn name_low_port(rules: &[ForwardRule]) -> bool {
    rules.iter().any(|rule| rule.ports().first() < FIRST_FREE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::port_forward::RawRule;
    use pasta_ipc::types::PortRange;

    fn rule(transport: Transport, first: u16, last: u16, effort: Effort) -> ForwardRule {
        let raw = RawRule {
            transport,
            listen: None,
            interface: None,
            ports: PortRange::new(first, last).unwrap(),
            target: None,
            target_first: first,
            effort,
        };
        ForwardRule::try_from(raw).unwrap()
    }

    #[test]
    fn ports_that_rules_name_are_told_apart_by_transport() {
        let rules = [
            rule(Transport::Tcp, 80, 81, Effort::Explicit),
            rule(Transport::Tcp, 81, 82, Effort::Explicit),
            rule(Transport::Udp, 53, 53, Effort::Explicit),
        ];
        let bind = BindPorts::of(&rules);
        assert_eq!(bind.tcp, Ports::Only([80, 81, 82].into()));
        assert_eq!(bind.udp, Ports::Only([53].into()));
        assert_eq!(BindPorts::of(&[]), BindPorts::none());
    }

    #[test]
    fn ports_that_are_not_named_or_are_many_are_all_free() {
        for effort in [Effort::BestEffort, Effort::Auto] {
            let rules = [rule(Transport::Tcp, 80, 80, effort)];
            let bind = BindPorts::of(&rules);
            assert_eq!(bind.tcp, Ports::Any);
            assert_eq!(bind.udp, Ports::Only(BTreeSet::new()));
        }
        let named = |last| BindPorts::of(&[rule(Transport::Tcp, 1, last, Effort::Explicit)]).tcp;
        assert!(matches!(named(999), Ports::Only(ports) if ports.len() == 999));
        assert_eq!(named(1000), Ports::Any);
        assert_eq!(named(65535), Ports::Any);
    }

    #[test]
    fn low_port_counts_however_it_is_named() {
        let low = |first, effort| name_low_port(&[rule(Transport::Udp, first, 2000, effort)]);
        for effort in [Effort::Explicit, Effort::BestEffort, Effort::Auto] {
            assert!(low(1023, effort) && low(1, effort));
            assert!(!low(1024, effort));
        }
        assert!(!name_low_port(&[]));
    }
}
