#![forbid(unsafe_code)]
//! Octets of a netlink message → [`Record`], whole or not at all.
//!
//! Nothing of a message reaches any state before all that we use of it is known to be good: lengths,
//! family, sizes of attributes, prefix lengths. A message that fails here changes nothing and is
//! counted by whoever asked.
//!
//! Links are read by a decoder of our own: a link message has some seventy attributes, most of them
//! about hardware we have no interest in, and one of those that a library does not understand must not
//! cost us the host's only interface. So are addresses, whose label may be of any octets, and neighbours.

mod address;
mod link;
mod neighbour;
mod nexthop;
mod route;
mod rule;

use crate::record::Record;
use netlink_packet_core::DecodeError;
use netlink_packet_route::AddressFamily;
use pasta_ipc::types::{Family, MacAddr};
use std::fmt;
use std::net::IpAddr;

/// `RTM_NEWLINK` (`linux/rtnetlink.h`).
const NEW_LINK: u16 = 16;
/// `RTM_NEWADDR`.
const NEW_ADDRESS: u16 = 20;
/// `RTM_NEWROUTE`.
const NEW_ROUTE: u16 = 24;
/// `RTM_NEWNEIGH`.
const NEW_NEIGHBOUR: u16 = 28;
/// `RTM_NEWRULE`.
const NEW_RULE: u16 = 32;
/// `RTM_NEWNEXTHOP`.
const NEW_NEXTHOP: u16 = 104;

/// What an event says has happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It is there, as it is now.
    There(Record),
    /// It is gone; this is what it was.
    Gone(Record),
    /// Something that is not read object by object has changed: a rule, a nexthop.
    Other,
}

/// Why a message cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It ends too early, or a part of it has an impossible size.
    Malformed(String),
    /// It is well-formed and contradicts itself or what the kernel documents.
    Invalid(&'static str),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "malformed netlink message: {why}"),
            Self::Invalid(why) => write!(f, "invalid netlink message: {why}"),
        }
    }
}

impl std::error::Error for Unreadable {}

impl From<DecodeError> for Unreadable {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Reads the message of type `kind` whose payload is `octets`.
///
/// # Errors
///
/// [`Unreadable`] if any part that we use is not as it must be.
pub fn decode(kind: u16, octets: &[u8]) -> Result<Record, Unreadable> {
    match kind {
        NEW_LINK => link::decode(octets),
        NEW_ADDRESS => address::decode(octets),
        NEW_ROUTE => route::decode(octets),
        NEW_RULE => rule::decode(octets),
        NEW_NEIGHBOUR => neighbour::decode(octets),
        NEW_NEXTHOP => nexthop::decode(octets),
        _ => Ok(Record::Other),
    }
}

/// Reads an event: the message of type `kind` whose payload is `octets`; `None` if it is of no kind
/// that could ever be of interest.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_notice(kind: u16, octets: &[u8]) -> Result<Option<Notice>, Unreadable> {
    // Of each four numbers the first is the new or changed object's, the second the deleted one's.
    let gone = kind & 3 == 1;
    let notice = |record| match record {
        Record::Other => None,
        record if gone => Some(Notice::Gone(record)),
        record => Some(Notice::There(record)),
    };
    match kind & !3 {
        NEW_LINK | NEW_ADDRESS | NEW_ROUTE | NEW_NEIGHBOUR if kind & 3 < 2 => {
            decode(kind & !3, octets).map(notice)
        }
        NEW_RULE | NEW_NEXTHOP if kind & 3 < 2 => Ok(Some(Notice::Other)),
        _ => Ok(None),
    }
}

/// Our two families; none for bridges, MPLS and the like.
fn family(of: AddressFamily) -> Option<Family> {
    match of {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }
}

/// An address, whose family its length tells.
fn ip_address(octets: &[u8]) -> Result<IpAddr, Unreadable> {
    let v4 = || <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(octets).map(IpAddr::from);
    v4().or_else(|_| v6()).map_err(|_| Unreadable::Invalid("address of neither family's length"))
}

/// A link-layer address; none where it is not that of a single Ethernet interface.
fn mac_address(octets: &[u8]) -> Option<MacAddr> {
    <[u8; 6]>::try_from(octets).ok()?.try_into().ok()
}

#[cfg(test)]
pub(crate) mod testing {
    /// Attributes (`struct nlattr`) one after the other.
    pub(crate) fn attributes(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut octets = Vec::new();
        for (kind, value) in attributes {
            octets.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            octets.extend(kind.to_ne_bytes());
            octets.extend(*value);
            octets.resize(octets.len().next_multiple_of(4), 0);
        }
        octets
    }
}

#[cfg(test)]
mod tests;
