//! Names, addresses and sizes of links.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Frames that may wait in the tap for the datapath. Chosen: one TCP window of 4 MiB in small frames is
/// 2800 of them, and the tap drops silently what does not fit. The monitor makes the queue so long; the
/// datapath advertises windows for no more than that.
pub const TAP_QUEUE_FRAMES: u32 = 4000;

/// The name of a network interface: 1 to 15 octets, no blank, no `/`, not `.` or `..`
/// (`dev_valid_name()` in `net/core/dev.c`; we also refuse `:` and non-ASCII as it does in effect).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

impl IfName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<IfName> for String {
    fn from(name: IfName) -> Self {
        name.0
    }
}

impl TryFrom<String> for IfName {
    type Error = InvalidIfName;

    fn try_from(name: String) -> Result<Self, InvalidIfName> {
        let octets_ok = name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        let ok = matches!(name.len(), 1..=15) && octets_ok && name != "." && name != "..";
        if ok { Ok(Self(name)) } else { Err(InvalidIfName) }
    }
}

/// Not a possible name of a network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidIfName;

impl fmt::Display for InvalidIfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an interface name (1 to 15 characters, no blank, '/' or ':')")
    }
}

impl std::error::Error for InvalidIfName {}

/// A unicast link-layer address: not a group address, not all zero (IEEE 802).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "[u8; 6]", into = "[u8; 6]")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// What our end of the link is called unless `-M` says otherwise; the C program's value, which
    /// users' firewall rules know.
    pub const OURS_BY_DEFAULT: Self = Self([0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55]);

    /// The address in the order it is sent.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl From<MacAddr> for [u8; 6] {
    fn from(mac: MacAddr) -> Self {
        mac.0
    }
}

impl TryFrom<[u8; 6]> for MacAddr {
    type Error = InvalidMac;

    fn try_from(octets: [u8; 6]) -> Result<Self, InvalidMac> {
        let group = octets[0] & 1 != 0;
        if group || octets == [0; 6] { Err(InvalidMac) } else { Ok(Self(octets)) }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A group address or zero where a unicast link-layer address belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMac;

impl fmt::Display for InvalidMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a unicast link-layer address")
    }
}

impl std::error::Error for InvalidMac {}

/// Largest packet on the tap, in octets without the Ethernet header: 68 (RFC 791) to 65521 (what an
/// Ethernet frame of 65535 octets can carry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Mtu(u16);

impl Mtu {
    /// What the tap gets unless `-m` says otherwise: the largest multiple of 16 below the maximum,
    /// as the C program has it.
    pub const DEFAULT: Self = Self(65520);
    /// Largest MTU.
    pub const MAX: u16 = 65521;
    /// Smallest MTU.
    pub const MIN: u16 = 68;

    /// The MTU in octets.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl From<Mtu> for u16 {
    fn from(mtu: Mtu) -> Self {
        mtu.0
    }
}

impl TryFrom<u16> for Mtu {
    type Error = InvalidMtu;

    fn try_from(octets: u16) -> Result<Self, InvalidMtu> {
        if (Self::MIN..=Self::MAX).contains(&octets) { Ok(Self(octets)) } else { Err(InvalidMtu) }
    }
}

/// Out of the range of [`Mtu`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMtu;

impl fmt::Display for InvalidMtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an MTU ({} to {})", Mtu::MIN, Mtu::MAX)
    }
}

impl std::error::Error for InvalidMtu {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_those_the_kernel_takes() {
        for good in ["eth0", "wlp0s20f3", "tap0", "a", "fifteen-chars-x"] {
            assert!(IfName::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "sixteen-chars-xx", "a\n"] {
            assert!(IfName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn groups_and_zero_are_no_station() {
        assert!(MacAddr::try_from([1, 0, 0x5e, 0, 0, 1]).is_err());
        assert!(MacAddr::try_from([0; 6]).is_err());
        assert!(MacAddr::try_from([0xff; 6]).is_err());
        assert!(MacAddr::try_from([2, 0, 0, 0, 0, 1]).is_ok());
    }
}
