//! Address families, and prefixes: an address and how many of its bits name the network.

use super::MacAddr;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which decisions are made.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of `address`.
    pub fn of(address: impl Address) -> Self {
        address.family()
    }

    /// Length of an address in bits.
    pub fn width(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The address that is all zero.
    pub fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// An IP address, whether its type says its family or not.
pub trait Address: Copy + Eq {
    /// Its family.
    fn family(self) -> Family;

    /// The address with all bits after the first `len` cleared; all of them are kept where it has no
    /// more.
    #[must_use]
    fn masked(self, len: u8) -> Self;
}

impl Address for Ipv4Addr {
    fn family(self) -> Family {
        Family::V4
    }

    fn masked(self, len: u8) -> Self {
        let host = u32::MAX.checked_shr(len.into()).unwrap_or(0);
        (u32::from(self) & !host).into()
    }
}

impl Address for Ipv6Addr {
    fn family(self) -> Family {
        Family::V6
    }

    fn masked(self, len: u8) -> Self {
        let host = u128::MAX.checked_shr(len.into()).unwrap_or(0);
        (u128::from(self) & !host).into()
    }
}

impl Address for IpAddr {
    fn family(self) -> Family {
        if self.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    fn masked(self, len: u8) -> Self {
        match self {
            Self::V4(v4) => v4.masked(len).into(),
            Self::V6(v6) => v6.masked(len).into(),
        }
    }
}

/// An address with a prefix length that its family allows; the host part is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(
    try_from = "(A, u8)",
    into = "(A, u8)",
    bound(serialize = "A: Address + Serialize", deserialize = "A: Address + Deserialize<'de>")
)]
pub struct Prefix<A = IpAddr> {
    address: A,
    len: u8,
}

/// An IPv4 address with its prefix length.
pub type Ipv4Net = Prefix<Ipv4Addr>;

/// An IPv6 address with its prefix length.
pub type Ipv6Net = Prefix<Ipv6Addr>;

impl<A: Address> Prefix<A> {
    /// Joins an address and a prefix length.
    ///
    /// # Errors
    ///
    /// [`InvalidPrefix`] if it is longer than the address.
    pub fn new(address: A, len: u8) -> Result<Self, InvalidPrefix> {
        if len <= address.family().width() { Ok(Self { address, len }) } else { Err(InvalidPrefix) }
    }

    /// `address` alone: the longest prefix.
    pub fn host(address: A) -> Self {
        Self { address, len: address.family().width() }
    }

    /// The address, with its host part.
    pub fn address(self) -> A {
        self.address
    }

    /// The prefix length in bits.
    pub fn bits(self) -> u8 {
        self.len
    }

    /// The family.
    pub fn family(self) -> Family {
        self.address.family()
    }

    /// Whether it covers all addresses of its family.
    pub fn is_everything(self) -> bool {
        self.len == 0
    }

    /// The same prefix with the host part cleared.
    #[must_use]
    pub fn network(self) -> Self {
        Self { address: self.address.masked(self.len), len: self.len }
    }

    /// Whether `other` lies in this prefix; an address of the other family does not.
    pub fn contains(self, other: A) -> bool {
        // Masked addresses keep their family.
        other.masked(self.len) == self.network().address
    }
}

impl Prefix {
    /// The prefix that every address of `family` lies in.
    pub fn everything(family: Family) -> Self {
        Self { address: family.unspecified(), len: 0 }
    }

    /// The link-local address that an interface with this link-layer address takes (RFC 4291,
    /// appendix A).
    pub fn link_local_of(mac: MacAddr) -> Self {
        let [a, b, c, d, e, f] = mac.octets();
        let interface_id = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        let address = (0xfe80 << 112) | u128::from(u64::from_be_bytes(interface_id));
        Self { address: Ipv6Addr::from(address).into(), len: 64 }
    }
}

impl From<Ipv4Net> for Prefix {
    fn from(net: Ipv4Net) -> Self {
        Self { address: net.address.into(), len: net.len }
    }
}

impl From<Ipv6Net> for Prefix {
    fn from(net: Ipv6Net) -> Self {
        Self { address: net.address.into(), len: net.len }
    }
}

impl<A: Address> TryFrom<(A, u8)> for Prefix<A> {
    type Error = InvalidPrefix;

    fn try_from((address, len): (A, u8)) -> Result<Self, InvalidPrefix> {
        Self::new(address, len)
    }
}

impl<A> From<Prefix<A>> for (A, u8) {
    fn from(prefix: Prefix<A>) -> Self {
        (prefix.address, prefix.len)
    }
}

impl<A: fmt::Display> fmt::Display for Prefix<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl<A: fmt::Debug> fmt::Debug for Prefix<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.address, self.len)
    }
}

/// A prefix length beyond the address's width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPrefix;

impl fmt::Display for InvalidPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("prefix length longer than the address")
    }
}

impl std::error::Error for InvalidPrefix {}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn net(text: &str) -> Prefix {
        let (address, len) = text.split_once('/').unwrap();
        Prefix::new(ip(address), len.parse().unwrap()).unwrap()
    }

    #[test]
    fn network_clears_the_host_part_at_the_edges_too() {
        for (prefix, network) in [
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("192.0.2.77/32", "192.0.2.77/32"),
            ("255.255.255.255/0", "0.0.0.0/0"),
            ("2001:db8::7/64", "2001:db8::/64"),
            ("2001:db8::7/128", "2001:db8::7/128"),
            ("ffff::/0", "::/0"),
        ] {
            assert_eq!(net(prefix).network(), net(network));
        }
    }

    #[test]
    fn a_prefix_contains_only_its_own_family() {
        assert!(net("0.0.0.0/0").contains(ip("192.0.2.1")));
        assert!(!net("0.0.0.0/0").contains(ip("2001:db8::1")));
        assert!(!net("::/0").contains(ip("192.0.2.1")));
        assert!(!net("2001:db8::/64").contains(ip("192.0.2.1")));
        assert!(net("192.0.2.7/24").contains(ip("192.0.2.1")));
        assert!(!net("192.0.2.7/24").contains(ip("192.0.3.7")));
        assert!(!net("192.0.2.7/32").contains(ip("192.0.2.1")));
    }

    #[test]
    fn link_local_address_flips_the_universal_bit() {
        let mac = [0x02, 0, 0x5e, 0, 0x53, 1].try_into().unwrap();
        assert_eq!(Prefix::link_local_of(mac), net("fe80::5eff:fe00:5301/64"));
        let mac = [0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x56].try_into().unwrap();
        assert_eq!(Prefix::link_local_of(mac), net("fe80::9855:9aff:fe55:9a56/64"));
    }

    #[test]
    fn too_long_a_prefix_does_not_exist() {
        assert_eq!(Prefix::new(ip("192.0.2.1"), 33), Err(InvalidPrefix));
        assert_eq!(Prefix::new(ip("::1"), 129), Err(InvalidPrefix));
        assert_eq!(Ipv4Net::new(Ipv4Addr::LOCALHOST, 33), Err(InvalidPrefix));
        assert_eq!(Ipv6Net::new(Ipv6Addr::LOCALHOST, 129), Err(InvalidPrefix));
    }
}
