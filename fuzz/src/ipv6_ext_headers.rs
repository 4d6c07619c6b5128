//! Chains of IPv6 extension headers, against a second reading of RFC 8200 and RFC 4302.

use pasta_datapath::wire::ip::{
    Fragmentation, Handling, IPV6_LEN, Packet, PacketError, ipv6_header, parse_ipv6,
};
use std::net::Ipv6Addr;

const SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
const DESTINATION: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

/// More headers than this are refused.
const MOST: usize = 8;

/// Reads the first octet of `octets` as the protocol of a packet that carries the others, and all of
/// them as a packet.
///
/// # Panics
///
/// If the packet is read otherwise than by [`transport`], or any octets are read beyond their end.
pub fn check(octets: &[u8]) {
    if let Ok(packet) = parse_ipv6(octets) {
        let behind = octets.get(IPV6_LEN..).unwrap_or_default();
        assert!(behind.len() >= packet.payload.len());
        assert!(packet.source.is_ipv6() && packet.destination.is_ipv6());
    }
    let Some((&first, carried)) = octets.split_first() else { return };
    let Ok(len) = u16::try_from(carried.len()) else { return };
    let packet = [&ipv6_header(SOURCE, DESTINATION, first, len), carried].concat();
    let read = parse_ipv6(&packet);
    let expected = transport(first, carried).map(|(protocol, payload, fragmentation)| Packet {
        source: SOURCE.into(),
        destination: DESTINATION.into(),
        protocol,
        handling: Handling { hop_limit: 255, fragmentation, ..Handling::DEFAULT },
        payload,
    });
    assert_eq!(read, expected);
    let truncated = packet.split_last().map_or(&[][..], |(_, all_but_last)| all_but_last);
    assert_eq!(parse_ipv6(truncated), Err(PacketError::Malformed), "claims more than there is");
}

/// A protocol, its octets, and whether these may be fragmented.
type Transport<'a> = (u8, &'a [u8], Fragmentation);

/// What the chain that begins with a header of type `kind` ends in.
fn transport(mut kind: u8, octets: &[u8]) -> Result<Transport<'_>, PacketError> {
    let mut at = 0;
    let mut fragmentation = Fragmentation::Forbidden;
    for _ in 0..=MOST {
        let len_at = |at: usize| octets.get(at + 1).copied().map(usize::from);
        let len = match kind {
            0 | 43 | 60 => len_at(at).map(|units| (units + 1) * 8),
            51 => len_at(at).map(|units| (units + 2) * 4),
            44 => {
                fragmentation = Fragmentation::Allowed;
                match octets.get(at..at + 8) {
                    // Of the second octet of the offset, two bits are reserved.
                    Some([_, _, high, low, ..]) if *high != 0 || *low & !6 != 0 => {
                        return Err(PacketError::Fragment);
                    }
                    _ => Some(8),
                }
            }
            _ => return Ok((kind, octets.get(at..).unwrap_or_default(), fragmentation)),
        };
        let end = len.map(|len| at + len).filter(|end| *end <= octets.len());
        let (Some(&next), Some(end)) = (octets.get(at), end) else {
            return Err(PacketError::Malformed);
        };
        (kind, at) = (next, end);
    }
    Err(PacketError::TooManyExtensions)
}
