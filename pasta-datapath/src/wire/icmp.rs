//! ICMP (RFC 792), ICMPv6 (RFC 4443) and neighbour solicitation (RFC 4861): the messages we take
//! and those we make.

use super::checksum::{Sum, pseudo_header};
use super::ip::PROTOCOL_ICMPV6;
use super::{Malformed, take_u16};
use pasta_ipc::types::MacAddr;
use std::net::{IpAddr, Ipv6Addr};

/// Length of the part that every message has: type, code, checksum and four octets more.
pub const LEN: usize = 8;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// A message from the namespace, as far as we act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Someone pings.
    EchoRequest {
        /// Which program's.
        id: u16,
        /// Sequence number and payload: all that follows the identifier.
        body: &'a [u8],
    },
    /// Someone asks for the link-layer address of `target`.
    NeighbourSolicitation {
        /// The address asked for.
        target: Ipv6Addr,
    },
    /// Anything else.
    Other,
}

/// Reads an ICMP message and verifies its checksum.
///
/// # Errors
///
/// [`Malformed`].
pub fn parse_v4(octets: &[u8]) -> Result<Message<'_>, Malformed> {
    if Sum::default().octets(octets).folded() != 0xffff {
        return Err(Malformed);
    }
    let (&[kind, code, _, _], rest) = octets.split_first_chunk::<4>().ok_or(Malformed)?;
    match (kind, code) {
        (ECHO_REQUEST, 0) => echo_request(rest),
        _ => Ok(Message::Other),
    }
}

/// Reads an ICMPv6 message and verifies its checksum.
///
/// # Errors
///
/// [`Malformed`]; also for a solicitation that was forwarded or has options that do not fit
/// (RFC 4861, section 7.1.1).
pub fn parse_v6(
    octets: &[u8],
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
) -> Result<Message<'_>, Malformed> {
    let len = u16::try_from(octets.len()).map_err(|_| Malformed)?;
    if pseudo_header(source, destination, PROTOCOL_ICMPV6, len).octets(octets).folded() != 0xffff {
        return Err(Malformed);
    }
    let (&[kind, code, _, _], rest) = octets.split_first_chunk::<4>().ok_or(Malformed)?;
    match (kind, code) {
        (ECHO_REQUEST_V6, 0) => echo_request(rest),
        (NEIGHBOUR_SOLICITATION, 0) if hop_limit == 255 => {
            let (_reserved, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
            let (target, mut options) = rest.split_first_chunk::<16>().ok_or(Malformed)?;
            while let Some((_, len_and_more)) = options.split_first() {
                let (&units, _) = len_and_more.split_first().ok_or(Malformed)?;
                let len = usize::from(units).checked_mul(8).filter(|len| *len > 0);
                (_, options) = options.split_at_checked(len.ok_or(Malformed)?).ok_or(Malformed)?;
            }
            let target = Ipv6Addr::from(*target);
            if target.is_multicast() {
                Err(Malformed)
            } else {
                Ok(Message::NeighbourSolicitation { target })
            }
        }
        (NEIGHBOUR_SOLICITATION, _) => Err(Malformed),
        _ => Ok(Message::Other),
    }
}

fn echo_request(rest: &[u8]) -> Result<Message<'_>, Malformed> {
    let (id, body) = take_u16(rest).ok_or(Malformed)?;
    if body.len() < 2 { Err(Malformed) } else { Ok(Message::EchoRequest { id, body }) }
}

/// Whether `octets` are an echo reply as a ping socket delivers it; gives all after the identifier.
pub fn echo_reply_body(octets: &[u8]) -> Option<&[u8]> {
    let (&[kind, 0, _, _, _, _], body) = octets.split_first_chunk::<6>()? else { return None };
    matches!(kind, ECHO_REPLY | ECHO_REPLY_V6).then_some(body)
}

/// The head of an echo request for a ping socket; the kernel fills in identifier and checksum.
pub fn echo_request_head(destination: IpAddr) -> [u8; 6] {
    let kind = if destination.is_ipv4() { ECHO_REQUEST } else { ECHO_REQUEST_V6 };
    [kind, 0, 0, 0, 0, 0]
}

/// Sum that an ICMP message of `len` octets starts from: the pseudo-header for ICMPv6, else nothing.
fn start_sum(source: IpAddr, destination: IpAddr, len: usize) -> Sum {
    match (source, u16::try_from(len)) {
        (IpAddr::V6(_), Ok(len)) => pseudo_header(source, destination, PROTOCOL_ICMPV6, len),
        _ => Sum::default(),
    }
}

/// The first six octets of the echo reply that carries `id` and `body`, checksum complete.
pub fn echo_reply_head(source: IpAddr, destination: IpAddr, id: u16, body: &[u8]) -> [u8; 6] {
    let kind = if source.is_ipv4() { ECHO_REPLY } else { ECHO_REPLY_V6 };
    let sum = start_sum(source, destination, 6 + body.len());
    let sum = sum.word(u16::from(kind) << 8).word(id).octets(body);
    let [c0, c1] = sum.checksum().to_be_bytes();
    let [i0, i1] = id.to_be_bytes();
    [kind, 0, c0, c1, i0, i1]
}

/// Length of [`neighbour_advertisement`].
pub const ADVERTISEMENT_LEN: usize = 32;

/// A solicited advertisement: `target` is at `mac`; router and override flags set, target link-layer
/// address option (RFC 4861, sections 4.4 and 7.2.4).
pub fn neighbour_advertisement(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    mac: MacAddr,
) -> [u8; ADVERTISEMENT_LEN] {
    let mut octets = [0; ADVERTISEMENT_LEN];
    let parts: [&[u8]; 4] = [
        &[NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, 0xe0, 0, 0, 0],
        &target.octets(),
        &[2, 1],
        &mac.octets(),
    ];
    let filled = octets.iter_mut().zip(parts.into_iter().flatten());
    filled.for_each(|(octet, value)| *octet = *value);
    let sum = start_sum(source.into(), destination.into(), ADVERTISEMENT_LEN).octets(&octets);
    (octets[2], octets[3]) = sum.checksum().to_be_bytes().into();
    octets
}

/// What an error of ours says, for both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four octets after the checksum: an MTU in some, else zero.
    pub value: u32,
}

/// The first eight octets of an error that quotes `quote`, checksum complete.
pub fn error_head(source: IpAddr, destination: IpAddr, error: Error, quote: &[u8]) -> [u8; LEN] {
    let [v0, v1, v2, v3] = error.value.to_be_bytes();
    let mut octets = [error.kind, error.code, 0, 0, v0, v1, v2, v3];
    let sum = start_sum(source, destination, LEN + quote.len()).octets(&octets).octets(quote);
    (octets[2], octets[3]) = sum.checksum().to_be_bytes().into();
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    const A6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
    const B6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn solicitation(target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        let mut octets = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        octets.extend(target.octets());
        octets.extend(options);
        let sum = start_sum(A6.into(), B6.into(), octets.len()).octets(&octets).checksum();
        octets[2..4].copy_from_slice(&sum.to_be_bytes());
        octets
    }

    #[test]
    fn echo_reply_reads_back_as_one_with_a_valid_checksum() {
        let body = [0, 1, 0xaa, 0xbb, 0xcc];
        let mut octets = echo_reply_head(B6.into(), A6.into(), 77, &body).to_vec();
        octets.extend(body);
        assert_eq!(parse_v6(&octets, B6.into(), A6.into(), 64), Ok(Message::Other));
        assert_eq!(echo_reply_body(&octets), Some(&body[..]));
    }

    #[test]
    fn solicitation_is_read_and_options_that_do_not_fit_are_refused() {
        let parse = |octets: &[u8], hops| {
            parse_v6(octets, A6.into(), B6.into(), hops)
                .map(|m| m == Message::NeighbourSolicitation { target: B6 })
        };
        assert_eq!(parse(&solicitation(B6, &[1, 1, 2, 0, 0, 0, 0, 1]), 255), Ok(true));
        assert_eq!(parse(&solicitation(B6, &[]), 64), Err(Malformed));
        assert_eq!(parse(&solicitation(B6, &[1, 0, 0, 0, 0, 0, 0, 0]), 255), Err(Malformed));
        assert_eq!(parse(&solicitation(B6, &[1, 2, 0, 0, 0, 0, 0, 0]), 255), Err(Malformed));
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        assert_eq!(parse(&solicitation(group, &[]), 255), Err(Malformed));
    }

    #[test]
    fn broken_checksum_is_refused() {
        let mut octets = solicitation(B6, &[]);
        octets[9] ^= 1;
        assert_eq!(parse_v6(&octets, A6.into(), B6.into(), 255), Err(Malformed));
        assert_eq!(parse_v4(&[8, 0, 0, 0, 0, 1, 0, 1]), Err(Malformed));
    }

    #[test]
    fn advertisement_carries_target_and_address_and_a_valid_checksum() {
        let octets = neighbour_advertisement(B6, A6, B6, MacAddr::OURS_BY_DEFAULT);
        assert_eq!(parse_v6(&octets, B6.into(), A6.into(), 255), Ok(Message::Other));
        assert_eq!(&octets[8..24], &B6.octets());
        assert_eq!(&octets[26..], &MacAddr::OURS_BY_DEFAULT.octets());
    }
}
