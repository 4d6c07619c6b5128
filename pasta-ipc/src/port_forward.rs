//! Port forwarding: the rules, and the listening ports that rules of `auto` depend on.
//!
//! The supervisor says what is to be forwarded ([`ForwardTable`]); the monitor says who listens where
//! ([`PortSnapshot`]); the datapath decides which listeners there are. Nothing here names a link, a path or
//! a process.

use crate::types::{Bounded, Family, Generation, IfName, PortRange, PortSet, Transport};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// Most rules of a table; what the C program allows.
pub const MAX_RULES: usize = 255;

/// Which way connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// From the host's side into the namespace (`-t`, `-u`).
    Inbound,
    /// From the namespace's loopback to the host's (`-T`, `-U`).
    Outbound,
}

/// How hard a rule is to be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Effort {
    /// Each port is listened on; the start fails where one cannot be.
    Explicit,
    /// Ports that cannot be listened on are left out (`all`, and lists of nothing but exclusions).
    BestEffort,
    /// As `BestEffort`, and only while somebody listens on the target's side (`auto`).
    Auto,
}

/// Which ports on one side lead where on the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawRule", into = "RawRule")]
pub struct ForwardRule {
    transport: Transport,
    listen: Option<IpAddr>,
    interface: Option<IfName>,
    ports: PortRange,
    target: Option<IpAddr>,
    target_first: u16,
    effort: Effort,
}

/// As it travels, before it is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawRule {
    /// What is forwarded.
    pub transport: Transport,
    /// Address listened on; none: all addresses of the families that are served.
    pub listen: Option<IpAddr>,
    /// Interface listened on; none: all.
    pub interface: Option<IfName>,
    /// Ports listened on.
    pub ports: PortRange,
    /// Address that is connected to, of the family of `listen`; none: the namespace's own (inbound), or
    /// the loopback address that was connected to (outbound).
    pub target: Option<IpAddr>,
    /// The port that the first of `ports` leads to; the others follow.
    pub target_first: u16,
    /// How hard the rule is to be followed.
    pub effort: Effort,
}

impl ForwardRule {
    /// What is forwarded.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Address listened on; none: all addresses of the families that are served.
    pub fn listen(&self) -> Option<IpAddr> {
        self.listen
    }

    /// Interface listened on; none: all.
    pub fn interface(&self) -> Option<&IfName> {
        self.interface.as_ref()
    }

    /// Ports listened on.
    pub fn ports(&self) -> PortRange {
        self.ports
    }

    /// Address that is connected to, if the rule names one.
    pub fn target(&self) -> Option<IpAddr> {
        self.target
    }

    /// The port that `port` leads to; none if it is not a port of this rule.
    pub fn target_port(&self, port: u16) -> Option<u16> {
        // `TryFrom` has checked that the last one is no higher than 65535.
        self.ports.contains(port).then(|| self.target_first + (port - self.ports.first()))
    }

    /// How hard the rule is to be followed.
    pub fn effort(&self) -> Effort {
        self.effort
    }
}

impl TryFrom<RawRule> for ForwardRule {
    type Error = InvalidRule;

    fn try_from(raw: RawRule) -> Result<Self, InvalidRule> {
        let RawRule { transport, listen, interface, ports, target, target_first, effort } = raw;
        let last = u32::from(target_first) + ports.count() - 1;
        if target_first == 0 || last > u32::from(u16::MAX) {
            return Err(InvalidRule::TargetPorts);
        }
        if let Some(target) = target {
            if listen.is_none_or(|listen| listen.is_ipv4() != target.is_ipv4()) {
                return Err(InvalidRule::TargetFamily);
            }
            if target.is_multicast() || target.is_unspecified() {
                return Err(InvalidRule::TargetAddress);
            }
        }
        Ok(Self { transport, listen, interface, ports, target, target_first, effort })
    }
}

impl From<ForwardRule> for RawRule {
    fn from(rule: ForwardRule) -> Self {
        let ForwardRule { transport, listen, interface, ports, target, target_first, effort } =
            rule;
        Self { transport, listen, interface, ports, target, target_first, effort }
    }
}

/// Why a rule is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidRule {
    /// Port 0, or one beyond 65535.
    TargetPorts,
    /// A target address without a listening address of the same family.
    TargetFamily,
    /// A target address that nobody can be reached at.
    TargetAddress,
}

impl fmt::Display for InvalidRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TargetPorts => "target ports are not all between 1 and 65535",
            Self::TargetFamily => {
                "a target address needs an address to listen on, of the same family"
            }
            Self::TargetAddress => "target address is unspecified or multicast",
        })
    }
}

impl std::error::Error for InvalidRule {}

/// All rules of one direction; replaces the table before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardTable {
    /// Strictly greater than that of the table before of the same direction.
    pub generation: Generation,
    /// Which way.
    pub direction: Direction,
    /// In the order of the command line.
    pub rules: Bounded<ForwardRule, MAX_RULES>,
}

/// The rules of both directions, which hold all or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardsChange {
    /// Strictly greater than that of any table or change before.
    pub generation: Generation,
    /// Into the namespace.
    pub inbound: Bounded<ForwardRule, MAX_RULES>,
    /// Out of it.
    pub outbound: Bounded<ForwardRule, MAX_RULES>,
}

/// A port of an explicit rule that cannot be listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenFailure {
    /// Which table of the change the rule is in.
    pub direction: Direction,
    /// Its place there.
    pub rule: u16,
    /// The first of its ports that failed.
    pub port: u16,
    /// Why, as the kernel has it.
    pub errno: i32,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardsChanged {
    /// Which one.
    pub generation: Generation,
    /// None: it holds. Otherwise the rules before hold, and these were why; each rule once.
    pub failures: Bounded<ListenFailure, 64>,
}

/// What may be opened in the namespace, and whose listening ports are watched; replaces what was said before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceForwards {
    /// Strictly greater than that of the one before.
    pub generation: Generation,
    /// What the datapath may listen on inside the namespace.
    pub outbound: Bounded<ForwardRule, { 2 * MAX_RULES }>,
    /// Whose listening ports are published.
    pub watch: PortWatch,
}

/// Where local connections that come in on a forwarded port go in the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoopbackTarget {
    /// To the namespace's address.
    Address,
    /// To the loopback address that was connected to (`--host-lo-to-ns-lo`).
    Loopback,
}

/// Whether local connections are joined socket to socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Splice {
    /// They are.
    On,
    /// They go through the tap, as all others (`--no-splice`).
    Off,
}

/// Whose listening ports the monitor publishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortWatch {
    /// Those of the namespace (`auto` of `-t` or `-u`).
    pub namespace: Watched,
    /// Those of the host (`auto` of `-T` or `-U`).
    pub host: Watched,
}

/// Whether a side's listening ports are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Watched {
    /// They are.
    Yes,
    /// They are not.
    #[default]
    No,
}

/// Whose ports a snapshot is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PortSide {
    /// The namespace's.
    Namespace,
    /// The host's.
    Host,
}

/// Who listens, for one side and one transport; replaces the one before of the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSnapshot {
    /// Strictly greater than that of the one before of the same side and transport.
    pub generation: Generation,
    /// Whose ports.
    pub side: PortSide,
    /// TCP: listening. UDP: bound and not connected.
    pub transport: Transport,
    /// The ports that can be reached from the other side.
    pub ports: FamilyPorts,
}

/// Ports, apart for each family: somebody who listens on one is not there for clients of the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyPorts {
    /// Those that take IPv4.
    pub ipv4: PortSet,
    /// Those that take IPv6.
    pub ipv6: PortSet,
}

impl FamilyPorts {
    /// Those of `family`.
    pub fn get(&self, family: Family) -> &PortSet {
        match family {
            Family::V4 => &self.ipv4,
            Family::V6 => &self.ipv6,
        }
    }

    /// As [`FamilyPorts::get`], to change them.
    pub fn get_mut(&mut self, family: Family) -> &mut PortSet {
        match family {
            Family::V4 => &mut self.ipv4,
            Family::V6 => &mut self.ipv6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> RawRule {
        RawRule {
            transport: Transport::Tcp,
            listen: None,
            interface: None,
            ports: PortRange::new(8000, 8009).unwrap(),
            target: None,
            target_first: 80,
            effort: Effort::Explicit,
        }
    }

    #[test]
    fn ports_lead_to_their_place_in_the_target_range() {
        let rule = ForwardRule::try_from(raw()).unwrap();
        assert_eq!(rule.target_port(8003), Some(83));
        assert_eq!(rule.target_port(8010), None);
        let beyond = RawRule { target_first: 65530, ..raw() };
        assert_eq!(ForwardRule::try_from(beyond), Err(InvalidRule::TargetPorts));
        let zero = RawRule { target_first: 0, ..raw() };
        assert_eq!(ForwardRule::try_from(zero), Err(InvalidRule::TargetPorts));
    }

    #[test]
    fn target_address_needs_a_listening_address_of_its_family() {
        let target = Some("192.0.2.9".parse().unwrap());
        for listen in [None, Some("::".parse().unwrap())] {
            let rule = ForwardRule::try_from(RawRule { listen, target, ..raw() });
            assert_eq!(rule, Err(InvalidRule::TargetFamily));
        }
        let listen = Some("0.0.0.0".parse().unwrap());
        assert!(ForwardRule::try_from(RawRule { listen, target, ..raw() }).is_ok());
        let target = Some("224.0.0.1".parse().unwrap());
        let rule = ForwardRule::try_from(RawRule { listen, target, ..raw() });
        assert_eq!(rule, Err(InvalidRule::TargetAddress));
    }
}
