//! Networks: an address and the length of its prefix.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// An IPv4 address with its prefix length (0 to 32): an address on a link, not a masked network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(Ipv4Addr, u8)", into = "(Ipv4Addr, u8)")]
pub struct Ipv4Net {
    address: Ipv4Addr,
    prefix: u8,
}

/// An IPv6 address with its prefix length (0 to 128): an address on a link, not a masked network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(Ipv6Addr, u8)", into = "(Ipv6Addr, u8)")]
pub struct Ipv6Net {
    address: Ipv6Addr,
    prefix: u8,
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

macro_rules! net {
    ($net:ty, $address:ty, $bits:ty, $width:literal) => {
        impl $net {
            /// Joins an address and a prefix length.
            ///
            /// # Errors
            ///
            /// [`InvalidPrefix`] if it is longer than the address.
            pub fn new(address: $address, prefix: u8) -> Result<Self, InvalidPrefix> {
                if prefix <= $width { Ok(Self { address, prefix }) } else { Err(InvalidPrefix) }
            }

            /// The address, with its host part.
            pub fn address(self) -> $address {
                self.address
            }

            /// The length of the prefix in bits.
            pub fn prefix(self) -> u8 {
                self.prefix
            }

            /// The first address of the network: the host part cleared.
            pub fn network(self) -> $address {
                (<$bits>::from(self.address) & self.mask()).into()
            }

            /// Whether `other` lies in this network.
            pub fn contains(self, other: $address) -> bool {
                (<$bits>::from(self.address) ^ <$bits>::from(other)) & self.mask() == 0
            }

            fn mask(self) -> $bits {
                <$bits>::MAX.checked_shl($width - u32::from(self.prefix)).unwrap_or(0)
            }
        }

        impl TryFrom<($address, u8)> for $net {
            type Error = InvalidPrefix;

            fn try_from((address, prefix): ($address, u8)) -> Result<Self, InvalidPrefix> {
                Self::new(address, prefix)
            }
        }

        impl From<$net> for ($address, u8) {
            fn from(net: $net) -> Self {
                (net.address, net.prefix)
            }
        }

        impl fmt::Display for $net {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.address, self.prefix)
            }
        }
    };
}

net!(Ipv4Net, Ipv4Addr, u32, 32);
net!(Ipv6Net, Ipv6Addr, u128, 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_clears_the_host_part_at_every_width() {
        let net = |p| Ipv4Net::new(Ipv4Addr::new(192, 0, 2, 77), p).unwrap();
        assert_eq!(net(24).network(), Ipv4Addr::new(192, 0, 2, 0));
        assert_eq!(net(32).network(), Ipv4Addr::new(192, 0, 2, 77));
        assert_eq!(net(0).network(), Ipv4Addr::UNSPECIFIED);
        assert!(net(0).contains(Ipv4Addr::BROADCAST));
        assert!(!net(24).contains(Ipv4Addr::new(192, 0, 3, 77)));
        assert!(Ipv4Net::new(Ipv4Addr::LOCALHOST, 33).is_err());
        assert!(Ipv6Net::new(Ipv6Addr::LOCALHOST, 129).is_err());
    }
}
