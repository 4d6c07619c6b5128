//! Port forwarding between the processes: rules, listeners, listening ports, and sockets that live
//! inside the namespace.
//!
//! The supervisor says what is to be forwarded ([`ForwardTable`]); the monitor says who listens where
//! ([`PortSnapshot`]) and makes sockets inside the namespace; the datapath decides which listeners
//! there are. Nothing here names a link, a path or a process.

use crate::types::{Bounded, Generation, IfName, Service};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

/// Most rules of a table; what the C program allows.
pub const MAX_RULES: usize = 255;

/// Most listeners in one message; the kernel passes 253 descriptors at most.
pub const MAX_LISTENERS: usize = 64;

/// Most sockets in one message, as a pool is filled.
pub const MAX_SOCKETS: u8 = 32;

/// Which way connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// From the host's side into the namespace (`-t`, `-u`).
    Inbound,
    /// From the namespace's loopback to the host's (`-T`, `-U`).
    Outbound,
}

/// What is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// TCP connections.
    Tcp,
    /// UDP datagrams.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// One or more ports in a row, none of them 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u16, u16)", into = "(u16, u16)")]
pub struct PortRange {
    first: NonZeroU16,
    last: NonZeroU16,
}

impl PortRange {
    /// The ports from `first` to `last`, both included.
    ///
    /// # Errors
    ///
    /// If that is none, or port 0 is one of them.
    pub fn new(first: u16, last: u16) -> Result<Self, InvalidPorts> {
        match (NonZeroU16::new(first), NonZeroU16::new(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(InvalidPorts),
        }
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first.get()
    }

    /// The highest port.
    pub fn last(self) -> u16 {
        self.last.get()
    }

    /// How many ports there are; at least one.
    pub fn count(self) -> u32 {
        u32::from(self.last() - self.first()) + 1
    }

    /// Whether `port` is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first()..=self.last()).contains(&port)
    }

    /// Whether any port is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first() <= other.last() && other.first() <= self.last()
    }

    /// The ports, from the lowest up.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.first()..=self.last()
    }
}

impl From<PortRange> for (u16, u16) {
    fn from(range: PortRange) -> Self {
        (range.first(), range.last())
    }
}

impl TryFrom<(u16, u16)> for PortRange {
    type Error = InvalidPorts;

    fn try_from((first, last): (u16, u16)) -> Result<Self, InvalidPorts> {
        Self::new(first, last)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Not a range of ports: empty, reversed, or with port 0; or a target beyond port 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPorts;

impl fmt::Display for InvalidPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a range of ports (1 to 65535, the lower one first)")
    }
}

impl std::error::Error for InvalidPorts {}

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

/// What a listening socket of the host is bound to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListenerAddress {
    /// TCP or UDP.
    pub transport: Transport,
    /// Its address; none: every address of the families that are served, by one socket.
    pub address: Option<IpAddr>,
    /// The interface it is bound to.
    pub interface: Option<IfName>,
    /// Its port.
    pub port: NonZeroU16,
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

/// A set of ports, a bit for each.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u8; Self::OCTETS]>);

impl PortSet {
    const OCTETS: usize = 65536 / 8;

    /// Whether `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0.get(usize::from(port >> 3)).is_some_and(|octet| octet & 1 << (port & 7) != 0)
    }

    /// Adds `port`.
    pub fn insert(&mut self, port: u16) {
        if let Some(octet) = self.0.get_mut(usize::from(port >> 3)) {
            *octet |= 1 << (port & 7);
        }
    }

    /// Takes `port` out.
    pub fn remove(&mut self, port: u16) {
        if let Some(octet) = self.0.get_mut(usize::from(port >> 3)) {
            *octet &= !(1 << (port & 7));
        }
    }

    /// The ports, from the lowest up.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        let octets = (0_u16..=u16::MAX).step_by(8).zip(self.0.iter());
        octets.filter(|(_, octet)| **octet != 0).flat_map(|(first, octet)| {
            (0..8).filter(move |bit| octet & 1 << bit != 0).map(move |bit| first + bit)
        })
    }

    /// How many ports there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|octet| octet.count_ones() as usize).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|octet| *octet == 0)
    }
}

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; Self::OCTETS]))
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut set = Self::default();
        ports.into_iter().for_each(|port| set.insert(port));
        set
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for PortSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_slice())
    }
}

impl<'de> Deserialize<'de> for PortSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Octets;

        impl<'de> Visitor<'de> for Octets {
            type Value = PortSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} octets", PortSet::OCTETS)
            }

            fn visit_bytes<E: de::Error>(self, octets: &[u8]) -> Result<PortSet, E> {
                let wrong = |_| E::invalid_length(octets.len(), &self);
                let octets: [u8; PortSet::OCTETS] = octets.try_into().map_err(wrong)?;
                Ok(PortSet(Box::new(octets)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<PortSet, A::Error> {
                let mut set = PortSet::default();
                for (n, octet) in set.0.iter_mut().enumerate() {
                    *octet =
                        seq.next_element()?.ok_or_else(|| de::Error::invalid_length(n, &self))?;
                }
                Ok(set)
            }
        }

        deserializer.deserialize_byte_buf(Octets)
    }
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
    pub ports: PortSet,
}

/// Names a request until it is answered.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RequestId(pub u32);

/// The family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SocketFamily {
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both, by one IPv6 socket; for listeners.
    Both,
}

impl SocketFamily {
    /// The family of a listener for what is served; at least one family is.
    pub const fn served(ipv4: Service, ipv6: Service) -> Self {
        match (ipv4, ipv6) {
            (Service::On, Service::On) => Self::Both,
            (Service::On, Service::Off) => Self::Ipv4,
            (Service::Off, _) => Self::Ipv6,
        }
    }
}

/// A kind of socket that connects from inside the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SocketKind {
    /// Whether it is of IPv6; these sockets are of one family.
    pub ipv6: bool,
    /// TCP or UDP.
    pub transport: Transport,
}

/// A listener on the loopback interface of the namespace, on every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamespaceListener {
    /// TCP or UDP.
    pub transport: Transport,
    /// Which connections it takes.
    pub family: SocketFamily,
    /// Its port.
    pub port: NonZeroU16,
}

/// How many sockets are asked for at once: 1 to [`MAX_SOCKETS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct SocketCount(u8);

impl SocketCount {
    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl From<SocketCount> for u8 {
    fn from(count: SocketCount) -> Self {
        count.0
    }
}

impl TryFrom<u8> for SocketCount {
    type Error = InvalidCount;

    fn try_from(count: u8) -> Result<Self, InvalidCount> {
        if (1..=MAX_SOCKETS).contains(&count) { Ok(Self(count)) } else { Err(InvalidCount) }
    }
}

/// Not a number of sockets that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCount;

impl fmt::Display for InvalidCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a number of sockets (1 to {MAX_SOCKETS})")
    }
}

impl std::error::Error for InvalidCount {}

/// Why a request got no socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Too many were asked for in too short a time; it can be asked again later.
    Busy,
    /// No rule allows it.
    Denied,
    /// The kernel refused, with this errno.
    Failed(i32),
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
    fn ranges_are_of_real_ports_in_order() {
        assert!(PortRange::new(0, 5).is_err());
        assert!(PortRange::new(6, 5).is_err());
        let all = PortRange::new(1, 65535).unwrap();
        assert_eq!((all.count(), all.iter().count()), (65535, 65535));
        assert!(all.overlaps(PortRange::new(65535, 65535).unwrap()));
        assert!(!PortRange::new(1, 9).unwrap().overlaps(PortRange::new(10, 11).unwrap()));
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

    #[test]
    fn port_set_holds_every_port_by_itself() {
        let ports = [1, 7, 8, 1023, 1024, 65534, 65535];
        let set: PortSet = ports.into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), ports);
        assert_eq!(set.len(), ports.len());
        assert!(set.contains(65535) && !set.contains(65533) && !set.contains(9));
        let mut less = PortSet::from_iter([0_u16, 7, 8]);
        less.remove(7);
        assert_eq!(less.iter().collect::<Vec<_>>(), [0, 8]);
        assert!(PortSet::default().is_empty());
    }

    #[test]
    fn socket_counts_are_bounded() {
        assert!(SocketCount::try_from(0).is_err());
        assert!(SocketCount::try_from(MAX_SOCKETS + 1).is_err());
        assert_eq!(SocketCount::try_from(MAX_SOCKETS).map(SocketCount::get), Ok(MAX_SOCKETS));
    }
}
