//! Transports, ports and sets of them.

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU16;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
