#![forbid(unsafe_code)]
//! Address families and prefixes, for both families in one type.

use pasta_ipc::types::MacAddr;
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
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
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

/// One value for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerFamily<T> {
    /// For IPv4.
    pub v4: T,
    /// For IPv6.
    pub v6: T,
}

impl<T> PerFamily<T> {
    /// Calls `make` for each family, IPv4 first.
    pub fn each(mut make: impl FnMut(Family) -> T) -> Self {
        Self { v4: make(Family::V4), v6: make(Family::V6) }
    }

    /// The value for `family`.
    pub fn get(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The value for `family`, to be changed.
    pub fn get_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// An address with a prefix length that its family allows; the host part is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// Joins an address and a prefix length; `None` if it is longer than the address.
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        (len <= Family::of(address).width()).then_some(Self { address, len })
    }

    /// `address` alone: the longest prefix.
    pub fn host(address: IpAddr) -> Self {
        Self { address, len: Family::of(address).width() }
    }

    /// The prefix that every address of `family` lies in.
    pub fn everything(family: Family) -> Self {
        Self { address: family.unspecified(), len: 0 }
    }

    /// The address, with its host part.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// The prefix length in bits.
    pub fn bits(self) -> u8 {
        self.len
    }

    /// Whether it covers all addresses of its family.
    pub fn is_everything(self) -> bool {
        self.len == 0
    }

    /// The family.
    pub fn family(self) -> Family {
        Family::of(self.address)
    }

    /// The same prefix with the host part cleared.
    #[must_use]
    pub fn network(self) -> Self {
        let cut = |bits: u128, width: u8| {
            let below = u32::from(width.saturating_sub(self.len));
            bits.checked_shr(below).and_then(|kept| kept.checked_shl(below)).unwrap_or(0)
        };
        let address = match self.address {
            IpAddr::V4(v4) => {
                // The upper 96 bits are zero, so the result fits.
                let kept = cut(u128::from(u32::from(v4)), 32);
                Ipv4Addr::from(u32::try_from(kept).unwrap_or(0)).into()
            }
            IpAddr::V6(v6) => Ipv6Addr::from(cut(u128::from(v6), 128)).into(),
        };
        Self { address, len: self.len }
    }

    /// Whether `other` lies in this prefix; an address of the other family does not.
    pub fn contains(self, other: IpAddr) -> bool {
        Self::new(other, self.len).is_some_and(|other| {
            other.family() == self.family() && other.network() == self.network()
        })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether `address` is of a link only: 169.254.0.0/16 or fe80::/10.
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The link-local address that an interface with this link-layer address takes (RFC 4291, appendix A).
pub fn link_local_of(mac: MacAddr) -> Prefix {
    let [a, b, c, d, e, f] = mac.octets();
    let address = Ipv6Addr::from([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0, //
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ]);
    Prefix { address: address.into(), len: 64 }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::{IpAddr, MacAddr, Prefix};

    /// Parses `address/length`.
    pub(crate) fn net(text: &str) -> Prefix {
        let (address, len) = text.split_once('/').unwrap();
        Prefix::new(address.parse().unwrap(), len.parse().unwrap()).unwrap()
    }

    /// Makes a link-layer address of its octets.
    pub(crate) fn mac(octets: [u8; 6]) -> MacAddr {
        octets.try_into().unwrap()
    }

    /// Parses an address.
    pub(crate) fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{ip, mac, net};
    use super::*;

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
        assert!(!net("192.0.2.7/32").contains(ip("192.0.2.1")));
    }

    #[test]
    fn too_long_a_prefix_does_not_exist() {
        assert_eq!(Prefix::new(ip("192.0.2.1"), 33), None);
        assert_eq!(Prefix::new(ip("::1"), 129), None);
    }

    #[test]
    fn link_local_address_flips_the_universal_bit() {
        let link_local = link_local_of(mac([0x02, 0, 0x5e, 0, 0x53, 1]));
        assert_eq!(link_local, net("fe80::5eff:fe00:5301/64"));
    }
}
