#![forbid(unsafe_code)]
//! What is there for each of the address families, and link-local addresses.

use pasta_ipc::types::Family;
use std::net::IpAddr;

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

/// Whether `address` is of a link only: 169.254.0.0/16 or fe80::/10.
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use pasta_ipc::types::{MacAddr, Prefix};
    use std::net::IpAddr;

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
