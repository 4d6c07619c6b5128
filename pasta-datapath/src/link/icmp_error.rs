//! Errors of the host's side, sent to the namespace as ICMP or ICMPv6.
//!
//! The quoted packet is made anew from what is known of the flow and of the datagram: its network header, the first
//! octets of its transport header, which is what a host finds its socket by (RFC 792; RFC 1122, section 3.2.2; RFC
//! 4443, section 3), and as much of its payload as is known, up to what a router sends back (RFC 1812, section
//! 4.3.2.3). Where all of the payload is known, the quoted checksum is that of the datagram: some programs tell
//! their probes apart by it.

use crate::link::writer::{FrameDevice, FrameWriter, Path, icmp_protocol};
use crate::part::part;
use crate::wire::icmp::{self, Error, error_head};
use crate::wire::ip::{
    HOP_LIMIT, Handling, IPV4_LEN, IPV6_LEN, PROTOCOL_ICMP, PROTOCOL_ICMPV6, ipv4_header_with,
    ipv6_header_with,
};
use nix::errno::Errno;
use pasta_ipc::types::{Family, MacAddr};
use std::net::{IpAddr, SocketAddr};

/// Octets of the transport header that are quoted: enough for ports, and for TCP's sequence number.
pub const QUOTED_TRANSPORT: usize = 8;

/// Most octets that are quoted of a payload in IPv6: with them the error has 1280 octets, which every link carries (RFC
/// 4443, section 2.4, c).
pub const QUOTED_PAYLOAD: usize = 1280 - 2 * IPV6_LEN - icmp::LEN - QUOTED_TRANSPORT;

/// The same in IPv4, where the error has 576 (RFC 1812, section 4.3.2.3).
pub const QUOTED_PAYLOAD_V4: usize = 576 - 2 * IPV4_LEN - icmp::LEN - QUOTED_TRANSPORT;

/// What is wrong with the way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No route.
    Network,
    /// The last hop does not find the host.
    Host,
    /// Nobody listens at the port.
    Port,
    /// Nobody there takes what the packet carries.
    Protocol,
    /// Refused by policy, the host's or ours.
    Prohibited,
    /// Packets must not be larger than this MTU.
    TooBig(u32),
    /// No hop is left, or fragments did not come in time: the code of the error.
    TimeExceeded(u8),
    /// The field of the packet's headers at this octet makes no sense.
    Field(u8),
    /// What only the error itself says.
    Verbatim(Error),
}

impl Unreachable {
    /// Fragments did not come in time (RFC 792; RFC 4443, section 3.3).
    pub const FRAGMENTS_LATE: Self = Self::TimeExceeded(1);

    /// No hop was left.
    const HOPS_EXCEEDED: Self = Self::TimeExceeded(0);

    /// What a host socket's error means for the namespace; `None` if it does not concern the way.
    pub fn from_errno(errno: Errno, mtu: u32) -> Option<Self> {
        match errno {
            // An outbound address or interface that is missing has no way out either.
            Errno::ENETUNREACH | Errno::EADDRNOTAVAIL | Errno::ENODEV | Errno::ENETDOWN => {
                Some(Self::Network)
            }
            Errno::EHOSTUNREACH | Errno::EHOSTDOWN => Some(Self::Host),
            Errno::ECONNREFUSED => Some(Self::Port),
            Errno::EACCES | Errno::EPERM | Errno::EINVAL => Some(Self::Prohibited),
            Errno::EMSGSIZE if mtu > 0 => Some(Self::TooBig(mtu)),
            _ => None,
        }
    }

    /// What an ICMP or ICMPv6 error of this type and code means, with the MTU that it names or the octet that it points
    /// to; `None` if it does not concern the way (RFC 792, RFC 1122 section 3.2.2.1, RFC 1812 section 5.2.7.1; RFC 4443
    /// section 3). Programs tell codes apart, so each is kept (RFC 5508, section 4.2).
    pub fn from_icmp(family: Family, (kind, code): (u8, u8), info: u32) -> Option<Self> {
        let verbatim = |value| Self::Verbatim(Error { kind, code, value });
        Some(match (family, kind, code) {
            (Family::V4, 3, 0) | (Family::V6, 1, 0) => Self::Network,
            (Family::V4, 3, 1) | (Family::V6, 1, 3) => Self::Host,
            (Family::V4, 3, 3) | (Family::V6, 1, 4) => Self::Port,
            (Family::V4, 3, 2) | (Family::V6, 4, 1) => Self::Protocol,
            (Family::V4, 3, 4) | (Family::V6, 2, _) if info > 0 => Self::TooBig(info),
            (Family::V4, 3, 13) | (Family::V6, 1, 1) => Self::Prohibited,
            (Family::V4, 11, _) | (Family::V6, 3, _) => Self::TimeExceeded(code),
            (Family::V4, 3, 5..=15) | (Family::V6, 1, _) => verbatim(0),
            (Family::V4, 12, _) => verbatim(info << 24),
            (Family::V6, 4, _) => verbatim(info),
            _ => return None,
        })
    }

    /// The same for the other family, from this one: a resolver may be of another than the one that the namespace asks
    /// (RFC 7915, sections 4.2 and 5.2).
    pub fn across(self, from: Family) -> Option<Self> {
        let headers = (IPV6_LEN - IPV4_LEN) as u32;
        Some(match (self, from) {
            (Self::TooBig(mtu), Family::V4) => Self::TooBig(mtu.saturating_add(headers)),
            (Self::TooBig(mtu), Family::V6) => Self::TooBig(mtu.saturating_sub(headers)),
            (Self::Verbatim(Error { kind: 3, code: 6 | 11, .. }), Family::V4)
            | (Self::Verbatim(Error { kind: 1, code: 2, .. }), Family::V6) => Self::Network,
            (Self::Verbatim(Error { kind: 3, code: 5 | 7 | 8 | 12, .. }), Family::V4) => Self::Host,
            (Self::Verbatim(Error { kind: 3, .. }), Family::V4)
            | (Self::Verbatim(Error { kind: 1, .. }), Family::V6) => Self::Prohibited,
            (Self::Field(_) | Self::Verbatim(_), _) => return None,
            (why, _) => why,
        })
    }

    /// Whether the packet was wrong for the way, and not the target.
    pub fn is_of_packet(self) -> bool {
        match self {
            Self::TooBig(_) | Self::TimeExceeded(_) | Self::Field(_) => true,
            Self::Verbatim(Error { kind, .. }) => matches!(kind, 4 | 12),
            Self::Network | Self::Host | Self::Port | Self::Protocol | Self::Prohibited => false,
        }
    }

    /// Type, code and value (RFC 792, RFC 1191, RFC 1812 section 5.2.7.1; RFC 4443 sections 3.1, 3.2).
    fn error(self, family: Family) -> Error {
        let error = |kind, code, value| Error { kind, code, value };
        match (self, family) {
            (Self::Network, Family::V4) => error(3, 0, 0),
            (Self::Host, Family::V4) => error(3, 1, 0),
            (Self::Port, Family::V4) => error(3, 3, 0),
            (Self::Protocol, Family::V4) => error(3, 2, 0),
            (Self::Prohibited, Family::V4) => error(3, 13, 0),
            (Self::TooBig(mtu), Family::V4) => error(3, 4, mtu.min(0xffff)),
            (Self::Network, Family::V6) => error(1, 0, 0),
            (Self::Prohibited, Family::V6) => error(1, 1, 0),
            (Self::Host, Family::V6) => error(1, 3, 0),
            (Self::Port, Family::V6) => error(1, 4, 0),
            // Where the packet says what it carries.
            (Self::Protocol, Family::V6) => error(4, 1, 6),
            (Self::TooBig(mtu), Family::V6) => error(2, 0, mtu),
            (Self::TimeExceeded(code), Family::V4) => error(11, code, 0),
            (Self::TimeExceeded(code), Family::V6) => error(3, code, 0),
            (Self::Field(at), Family::V4) => error(12, 0, u32::from(at) << 24),
            (Self::Field(at), Family::V6) => error(4, 0, at.into()),
            (Self::Verbatim(error), _) => error,
        }
    }
}

/// Who reports an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reporter {
    /// The address.
    pub address: IpAddr,
    /// What is left of the hops that the report had, where it is known: how far away its sender is.
    pub hop_limit: u8,
}

impl Reporter {
    /// One who is next door, or of whom nobody knows how far away it is.
    pub fn near(address: IpAddr) -> Self {
        Self { address, hop_limit: HOP_LIMIT }
    }
}

/// The packet an error is about, as the namespace sent it.
#[derive(Clone, Copy, Debug)]
pub struct Offending<'a> {
    /// Its sender.
    pub source: SocketAddr,
    /// Its receiver, before translation.
    pub destination: SocketAddr,
    /// What it carried.
    pub protocol: u8,
    /// The front of its transport header.
    pub transport: [u8; QUOTED_TRANSPORT],
    /// Length of transport header and payload, as far as known.
    pub transport_len: u16,
    /// What follows the front of the transport header; of much, the front is quoted.
    pub payload: &'a [u8],
}

impl Offending<'_> {
    /// Whether it is an ICMP or ICMPv6 error, about which there is none (RFC 1122, section 3.2.2; RFC 4443, section 2.4,
    /// e.1).
    fn is_error(&self) -> bool {
        let [kind, ..] = self.transport;
        match self.protocol {
            PROTOCOL_ICMP => icmp::is_error(Family::V4, kind),
            PROTOCOL_ICMPV6 => icmp::is_error(Family::V6, kind),
            _ => false,
        }
    }
}

/// Tells the sender of `offending`, at `mac`, that `why`; the error comes from `reporter`, which is of
/// the same family.
pub fn send<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    mac: MacAddr,
    reporter: Reporter,
    offending: &Offending<'_>,
    why: Unreachable,
) -> bool {
    let Offending { source, destination, protocol, transport, transport_len, payload } = *offending;
    if offending.is_error() {
        return false;
    }
    let most = if source.is_ipv4() { QUOTED_PAYLOAD_V4 } else { QUOTED_PAYLOAD };
    let mut quote = [0; IPV6_LEN + QUOTED_TRANSPORT + QUOTED_PAYLOAD];
    let mut fill = |header: &[u8]| {
        let parts = header.iter().chain(&transport).chain(payload.iter().take(most));
        quote.iter_mut().zip(parts).map(|(to, from)| *to = *from).count()
    };
    // As it was when its time was over; else as it began, about.
    let hop_limit = if why == Unreachable::HOPS_EXCEEDED { 1 } else { HOP_LIMIT };
    let handling = Handling { hop_limit, ..Handling::DEFAULT };
    let len = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            fill(&ipv4_header_with(from, to, protocol, transport_len, handling))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            fill(&ipv6_header_with(from, to, protocol, transport_len, handling))
        }
        _ => return false,
    };
    let quote = part(&quote, ..len);
    let Reporter { address, hop_limit } = reporter;
    let head = error_head(address, source.ip(), why.error(Family::of(source.ip())), quote);
    let (from, to) = (SocketAddr::new(address, 0), SocketAddr::new(source.ip(), 0));
    let path = Path::new(tap.our_mac, mac, icmp_protocol(address), from, to);
    let carried = Handling { hop_limit, ..Handling::TO_NAMESPACE };
    tap.write_icmp(&path.carried(carried), &head, quote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_host_become_those_that_a_native_socket_would_see() {
        let (v4, v6) = (Family::V4, Family::V6);
        for (family, icmp, mtu, expected) in [
            (v4, (3, 0), 0, Some((3, 0, 0))),
            (v4, (3, 1), 0, Some((3, 1, 0))),
            (v4, (3, 3), 0, Some((3, 3, 0))),
            (v4, (3, 2), 0, Some((3, 2, 0))),
            (v4, (3, 4), 1280, Some((3, 4, 1280))),
            (v4, (3, 4), 0, None),
            (v4, (3, 6), 0, Some((3, 6, 0))),
            (v4, (3, 9), 0, Some((3, 9, 0))),
            (v4, (3, 10), 0, Some((3, 10, 0))),
            (v4, (3, 15), 0, Some((3, 15, 0))),
            (v4, (3, 16), 0, None),
            (v4, (3, 13), 0, Some((3, 13, 0))),
            (v4, (11, 0), 0, Some((11, 0, 0))),
            (v4, (12, 0), 20, Some((12, 0, 20 << 24))),
            (v4, (5, 1), 0, None),
            (v6, (1, 0), 0, Some((1, 0, 0))),
            (v6, (1, 1), 0, Some((1, 1, 0))),
            (v6, (1, 3), 0, Some((1, 3, 0))),
            (v6, (1, 4), 0, Some((1, 4, 0))),
            (v6, (1, 2), 0, Some((1, 2, 0))),
            (v6, (1, 5), 0, Some((1, 5, 0))),
            (v6, (2, 0), 1300, Some((2, 0, 1300))),
            (v6, (3, 1), 0, Some((3, 1, 0))),
            (v6, (4, 0), 42, Some((4, 0, 42))),
            (v6, (137, 0), 0, None),
            (v6, (4, 1), 0, Some((4, 1, 6))),
        ] {
            let why = Unreachable::from_icmp(family, icmp, mtu);
            let error = why.map(|why| why.error(family));
            let error = error.map(|Error { kind, code, value }| (kind, code, value));
            assert_eq!(error, expected, "{family:?} {icmp:?}");
        }
    }

    #[test]
    fn errors_of_the_other_family_become_the_like_of_this_one() {
        let (v4, v6) = (Family::V4, Family::V6);
        for (family, icmp, info, expected) in [
            (v4, (3, 3), 0, Some((1, 4, 0))),
            (v4, (3, 1), 0, Some((1, 3, 0))),
            (v4, (3, 6), 0, Some((1, 0, 0))),
            (v4, (3, 12), 0, Some((1, 3, 0))),
            (v4, (3, 10), 0, Some((1, 1, 0))),
            (v4, (3, 4), 1400, Some((2, 0, 1420))),
            (v4, (11, 0), 0, Some((3, 0, 0))),
            (v4, (12, 0), 20, None),
            (v6, (1, 4), 0, Some((3, 3, 0))),
            (v6, (1, 2), 0, Some((3, 0, 0))),
            (v6, (1, 5), 0, Some((3, 13, 0))),
            (v6, (2, 0), 1400, Some((3, 4, 1380))),
            (v6, (3, 0), 0, Some((11, 0, 0))),
            (v6, (4, 0), 40, None),
        ] {
            let why = Unreachable::from_icmp(family, icmp, info).and_then(|why| why.across(family));
            let to = if family == v4 { v6 } else { v4 };
            let error = why.map(|why| why.error(to));
            let error = error.map(|Error { kind, code, value }| (kind, code, value));
            assert_eq!(error, expected, "{family:?} {icmp:?}");
        }
    }
}
