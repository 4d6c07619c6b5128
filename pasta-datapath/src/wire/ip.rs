//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers, reduced to what a packet is asked for.

use super::checksum::Sum;
use super::{Malformed, take_u16};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of the IPv4 header that we write: without options.
pub const IPV4_LEN: usize = 20;
/// Length of the IPv6 header that we write: without extension headers.
pub const IPV6_LEN: usize = 40;

/// Protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// Protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// Protocol number of the fragment header, and its length (RFC 8200, section 4.5).
pub const PROTOCOL_FRAGMENT: u8 = 44;
/// As [`PROTOCOL_FRAGMENT`].
pub const FRAGMENT_LEN: usize = 8;
/// Protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// Hop limit of the packets we make, for which neighbour discovery asks (RFC 4861, section 7.1.1).
pub const HOP_LIMIT: u8 = 255;

/// The bit that forbids fragmentation, beside the offset (RFC 791, section 3.1).
const DONT_FRAGMENT: u16 = 0x4000;

/// The bit that says that other fragments follow, in the same place.
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// Most extension headers skipped in one packet; chosen: more than any sender has a use for.
const MAX_EXTENSIONS: usize = 8;

/// The bits of a traffic class that say how a packet is to be treated; the others are for congestion (RFC 2474, section
/// 3).
pub const DSCP: u8 = 0xfc;

/// How a packet is to be carried, as its sender has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handling {
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// DSCP and ECN (RFC 2474, RFC 3168): type of service or traffic class.
    pub traffic_class: u8,
    /// Whether it may arrive in fragments.
    pub fragmentation: Fragmentation,
}

/// Whether a packet may be fragmented on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragmentation {
    /// By whoever needs to: of IPv6, by its sender.
    Allowed,
    /// By nobody: the sender learns the MTU that it exceeds.
    Forbidden,
}

impl Handling {
    /// What a socket of Linux sends with if its program sets nothing: 64 hops (`IPDEFTTL`,
    /// include/uapi/linux/ip.h; `IPV6_DEFAULT_HOPLIMIT`, include/linux/ipv6.h), best effort, path MTU discovery.
    pub const DEFAULT: Self =
        Self { hop_limit: 64, traffic_class: 0, fragmentation: Fragmentation::Forbidden };

    /// How what comes from the host's side is carried on where nothing else is known of it.
    pub const TO_NAMESPACE: Self =
        Self { hop_limit: HOP_LIMIT, traffic_class: 0, fragmentation: Fragmentation::Allowed };
}

/// A packet, read: addresses, protocol, and the transport's octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address; of the same family.
    pub destination: IpAddr,
    /// What `payload` is, extension headers skipped.
    pub protocol: u8,
    /// How it is to be carried.
    pub handling: Handling,
    /// The transport header and what follows, without link padding.
    pub payload: &'a [u8],
}

/// Which part of a larger packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The same for all fragments of a packet, beside the addresses, and in IPv4 the protocol.
    pub identification: u32,
    /// Where its octets belong.
    pub offset: usize,
    /// Whether others belong behind it.
    pub more: bool,
}

impl Piece {
    /// Offset in units of 8 octets with three flags below it, as IPv6 has it (RFC 8200, section 4.5).
    fn from_fields(identification: u32, fields: u16) -> Self {
        Self { identification, offset: usize::from(fields & !7), more: fields & 1 != 0 }
    }

    /// The header of IPv6 that says so, in front of what is of `protocol` (RFC 8200, section 4.5).
    pub fn header(&self, protocol: u8) -> [u8; FRAGMENT_LEN] {
        // A packet has no more octets.
        let [o0, o1] = (self.offset as u16 | u16::from(self.more)).to_be_bytes();
        let [i0, i1, i2, i3] = self.identification.to_be_bytes();
        [protocol, 0, o0, o1, i0, i1, i2, i3]
    }

    /// Whether the fragment is all of its packet (RFC 6946).
    fn is_whole(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// Why octets are not a packet we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// Lengths or checksum are wrong.
    Malformed,
    /// A fragment of a larger packet.
    Fragment,
    /// Too many extension headers.
    TooManyExtensions,
}

impl From<Malformed> for PacketError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Reads an IPv4 packet that is whole. Options are skipped, trailing padding is cut off.
///
/// # Errors
///
/// [`PacketError`].
pub fn parse_ipv4(octets: &[u8]) -> Result<Packet<'_>, PacketError> {
    whole(read_ipv4(octets)?)
}

/// A packet, and if it is a fragment, of what.
type Read<'a> = (Packet<'a>, Option<Piece>);

fn whole((packet, piece): Read<'_>) -> Result<Packet<'_>, PacketError> {
    if piece.is_none() { Ok(packet) } else { Err(PacketError::Fragment) }
}

/// As [`parse_ipv4`], of a packet that may be a fragment: its octets are the payload.
///
/// # Errors
///
/// [`PacketError`].
pub fn read_ipv4(octets: &[u8]) -> Result<Read<'_>, PacketError> {
    let (
        &[
            version_ihl,
            traffic_class,
            l0,
            l1,
            i0,
            i1,
            f0,
            f1,
            hop_limit,
            protocol,
            _,
            _,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ],
        _,
    ) = octets.split_first_chunk::<IPV4_LEN>().ok_or(PacketError::Malformed)?;
    let header_len = usize::from(version_ihl & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([l0, l1]));
    if version_ihl >> 4 != 4 || header_len < IPV4_LEN {
        return Err(PacketError::Malformed);
    }
    let packet = octets.get(..total).ok_or(PacketError::Malformed)?;
    let (header, payload) = packet.split_at_checked(header_len).ok_or(PacketError::Malformed)?;
    if Sum::default().octets(header).folded() != 0xffff {
        return Err(PacketError::Malformed);
    }
    let flags = u16::from_be_bytes([f0, f1]);
    // The offset is in the lower bits here, and the flags above it (RFC 791, section 3.1).
    let more = flags >> 13 & 1;
    let piece = Piece::from_fields(u16::from_be_bytes([i0, i1]).into(), flags << 3 | more);
    let fragmentation = match flags & DONT_FRAGMENT {
        0 => Fragmentation::Allowed,
        _ => Fragmentation::Forbidden,
    };
    let packet = Packet {
        source: Ipv4Addr::new(s0, s1, s2, s3).into(),
        destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        protocol,
        handling: Handling { hop_limit, traffic_class, fragmentation },
        payload,
    };
    Ok((packet, Some(piece).filter(|piece| !piece.is_whole())))
}

/// Reads an IPv6 packet that is whole. Extension headers are skipped, trailing padding is cut off.
///
/// # Errors
///
/// [`PacketError`].
pub fn parse_ipv6(octets: &[u8]) -> Result<Packet<'_>, PacketError> {
    whole(read_ipv6(octets)?)
}

/// As [`parse_ipv6`], of a packet that may be a fragment: what is behind its fragment header is the payload. One that
/// is all of its packet is no fragment (RFC 6946); it may be fragmented again.
///
/// # Errors
///
/// [`PacketError`].
pub fn read_ipv6(octets: &[u8]) -> Result<Read<'_>, PacketError> {
    let (header, rest) = octets.split_first_chunk::<IPV6_LEN>().ok_or(PacketError::Malformed)?;
    let (&[version, class, _, _, l0, l1, mut protocol, hop_limit], addresses) =
        header.split_first_chunk::<8>().ok_or(PacketError::Malformed)?;
    let (source, destination) =
        addresses.split_first_chunk::<16>().ok_or(PacketError::Malformed)?;
    let destination = <[u8; 16]>::try_from(destination).map_err(|_| PacketError::Malformed)?;
    if version >> 4 != 6 {
        return Err(PacketError::Malformed);
    }
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    let mut payload = rest.get(..len).ok_or(PacketError::Malformed)?;
    let traffic_class = version << 4 | class >> 4;
    let mut fragmentation = Fragmentation::Forbidden;
    let packet = |protocol, payload, fragmentation| Packet {
        source: Ipv6Addr::from(*source).into(),
        destination: Ipv6Addr::from(destination).into(),
        protocol,
        handling: Handling { hop_limit, traffic_class, fragmentation },
        payload,
    };
    for _ in 0..=MAX_EXTENSIONS {
        match protocol {
            // Hop-by-hop, routing, destination options: length in units of 8 octets, first not counted.
            0 | 43 | 60 => (protocol, payload) = skip_extension(payload, 8, 8)?,
            // Authentication header: units of 4 octets, two of them not counted (RFC 4302).
            51 => (protocol, payload) = skip_extension(payload, 4, 8)?,
            PROTOCOL_FRAGMENT => {
                let (header, rest) =
                    payload.split_first_chunk::<FRAGMENT_LEN>().ok_or(PacketError::Malformed)?;
                let [next, _, f0, f1, i0, i1, i2, i3] = *header;
                let identification = u32::from_be_bytes([i0, i1, i2, i3]);
                let piece = Piece::from_fields(identification, u16::from_be_bytes([f0, f1]));
                fragmentation = Fragmentation::Allowed;
                (protocol, payload) = (next, rest);
                if !piece.is_whole() {
                    return Ok((packet(protocol, payload, fragmentation), Some(piece)));
                }
            }
            _ => return Ok((packet(protocol, payload, fragmentation), None)),
        }
    }
    Err(PacketError::TooManyExtensions)
}

/// Takes one extension header off: next protocol, then a length in `unit`s beyond `base` octets.
fn skip_extension(octets: &[u8], unit: usize, base: usize) -> Result<(u8, &[u8]), PacketError> {
    let (&[next, len], _) = octets.split_first_chunk::<2>().ok_or(PacketError::Malformed)?;
    let len = usize::from(len) * unit + base;
    let (_, rest) = octets.split_at_checked(len).ok_or(PacketError::Malformed)?;
    Ok((next, rest))
}

/// An IPv4 header: don't fragment, identification 0 (RFC 6864), checksum complete.
pub fn ipv4_header(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    payload_len: u16,
) -> [u8; IPV4_LEN] {
    ipv4_header_with(source, destination, protocol, payload_len, OURS)
}

/// How packets that we make are carried.
const OURS: Handling = Handling { hop_limit: HOP_LIMIT, ..Handling::DEFAULT };

/// As [`ipv4_header`], of a packet that is carried as `handling` says.
pub fn ipv4_header_with(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    payload_len: u16,
    handling: Handling,
) -> [u8; IPV4_LEN] {
    let Handling { hop_limit, traffic_class, fragmentation } = handling;
    let [f0, f1] = match fragmentation {
        Fragmentation::Forbidden => DONT_FRAGMENT.to_be_bytes(),
        Fragmentation::Allowed => [0; 2],
    };
    let [l0, l1] = payload_len.saturating_add(IPV4_LEN as u16).to_be_bytes();
    let mut octets = [0; IPV4_LEN];
    let (head, addresses) = octets.split_at_mut(12);
    head.copy_from_slice(&[0x45, traffic_class, l0, l1, 0, 0, f0, f1, hop_limit, protocol, 0, 0]);
    let (from, to) = addresses.split_at_mut(4);
    from.copy_from_slice(&source.octets());
    to.copy_from_slice(&destination.octets());
    let [c0, c1] = Sum::default().octets(&octets).checksum().to_be_bytes();
    (octets[10], octets[11]) = (c0, c1);
    octets
}

/// An IPv6 header: traffic class and flow label 0.
pub fn ipv6_header(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: u8,
    payload_len: u16,
) -> [u8; IPV6_LEN] {
    ipv6_header_with(source, destination, protocol, payload_len, OURS)
}

/// As [`ipv6_header`], of a packet that is carried as `handling` says.
pub fn ipv6_header_with(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: u8,
    payload_len: u16,
    handling: Handling,
) -> [u8; IPV6_LEN] {
    let Handling { hop_limit, traffic_class, .. } = handling;
    let (c0, c1) = (0x60 | traffic_class >> 4, traffic_class << 4);
    let mut octets = [0; IPV6_LEN];
    let [l0, l1] = payload_len.to_be_bytes();
    let (head, addresses) = octets.split_at_mut(8);
    head.copy_from_slice(&[c0, c1, 0, 0, l0, l1, protocol, hop_limit]);
    let (from, to) = addresses.split_at_mut(16);
    from.copy_from_slice(&source.octets());
    to.copy_from_slice(&destination.octets());
    octets
}

/// The addresses and ports of the packet that an ICMP error quotes; `None` where too little of it is
/// quoted.
pub fn quoted_ports(transport: &[u8]) -> Option<(u16, u16)> {
    let (source, rest) = take_u16(transport)?;
    let (destination, _) = take_u16(rest)?;
    Some((source, destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
    const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

    fn v4(payload: &[u8]) -> Vec<u8> {
        let mut octets = ipv4_header(A, B, PROTOCOL_UDP, payload.len() as u16).to_vec();
        octets.extend(payload);
        octets
    }

    #[test]
    fn ipv4_header_reads_back_and_padding_is_cut_off() {
        let mut octets = v4(&[1, 2, 3]);
        octets.extend([0; 20]);
        let packet = parse_ipv4(&octets).unwrap();
        assert_eq!((packet.source, packet.destination), (A.into(), B.into()));
        assert_eq!((packet.protocol, packet.payload), (PROTOCOL_UDP, &[1, 2, 3][..]));
    }

    #[test]
    fn ipv4_with_any_header_bit_flipped_is_refused_or_a_fragment() {
        let good = v4(&[1, 2, 3]);
        for bit in 0..IPV4_LEN * 8 {
            let mut octets = good.clone();
            octets[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_ipv4(&octets).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn ipv4_fragments_say_which_part_they_are() {
        for (fields, offset, more) in
            [([0x20, 0], 0, true), ([0, 1], 8, false), ([0x3f, 0xff], 65528, true)]
        {
            let mut octets = v4(&[7, 7]);
            octets[4..8].copy_from_slice(&[0x12, 0x34, fields[0], fields[1]]);
            octets[10..12].fill(0);
            let sum = Sum::default().octets(&octets[..20]).checksum();
            octets[10..12].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(parse_ipv4(&octets), Err(PacketError::Fragment));
            let (packet, piece) = read_ipv4(&octets).unwrap();
            let expected = Piece { identification: 0x1234, offset, more };
            assert_eq!((packet.payload, piece), (&[7, 7][..], Some(expected)));
        }
    }

    #[test]
    fn handling_is_what_the_header_says() {
        let mut octets = v4(&[]);
        let expected = Handling { hop_limit: HOP_LIMIT, ..Handling::DEFAULT };
        assert_eq!(parse_ipv4(&octets).map(|it| it.handling), Ok(expected));
        (octets[1], octets[6], octets[8]) = (0xba, 0, 1);
        octets[10..12].fill(0);
        let sum = Sum::default().octets(&octets[..20]).checksum();
        octets[10..12].copy_from_slice(&sum.to_be_bytes());
        let fragmentation = Fragmentation::Allowed;
        let expected = Handling { hop_limit: 1, traffic_class: 0xba, fragmentation };
        assert_eq!(parse_ipv4(&octets).map(|it| it.handling), Ok(expected));

        let mut octets = ipv6_header(A6, B6, PROTOCOL_UDP, 0);
        (octets[0], octets[1], octets[7]) = (0x6b, 0xaf, 1);
        let expected = Handling { hop_limit: 1, traffic_class: 0xba, ..Handling::DEFAULT };
        assert_eq!(parse_ipv6(&octets).map(|it| it.handling), Ok(expected));
    }

    #[test]
    fn ipv4_options_are_skipped() {
        let mut octets = v4(&[9, 9]);
        octets[0] = 0x46;
        octets[3] += 4;
        octets.splice(20..20, [1, 1, 1, 0]);
        octets[10..12].fill(0);
        let sum = Sum::default().octets(&octets[..24]).checksum();
        octets[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(parse_ipv4(&octets).unwrap().payload, [9, 9]);
    }

    #[test]
    fn ipv6_header_reads_back_and_extensions_are_skipped() {
        let payload = [43, 0, 1, 4, 0, 0, 0, 0, 58, 0, 0, 0, 0, 0, 0, 0, 7, 7];
        let mut octets = ipv6_header(A6, B6, 0, payload.len() as u16).to_vec();
        octets.extend(payload);
        let packet = parse_ipv6(&octets).unwrap();
        assert_eq!((packet.protocol, packet.payload), (PROTOCOL_ICMPV6, &[7, 7][..]));
        assert_eq!((packet.source, packet.destination), (A6.into(), B6.into()));
    }

    #[test]
    fn ipv6_fragments_endless_extensions_and_cut_packets_are_refused() {
        let fragment = |fields: [u8; 2]| {
            let mut octets = ipv6_header(A6, B6, PROTOCOL_FRAGMENT, 10).to_vec();
            octets.extend(
                [&[PROTOCOL_UDP, 0, fields[0], fields[1], 1, 2, 3, 4], &[7; 2][..]].concat(),
            );
            octets
        };
        let piece = |offset, more| Piece { identification: 0x0102_0304, offset, more };
        for (fields, expected) in [
            ([0, 1], piece(0, true)),
            ([2, 8], piece(520, false)),
            ([0xff, 0xf9], piece(65528, true)),
        ] {
            let octets = fragment(fields);
            assert_eq!(parse_ipv6(&octets), Err(PacketError::Fragment));
            let (packet, piece) = read_ipv6(&octets).unwrap();
            assert_eq!((packet.payload, piece), (&[7, 7][..], Some(expected)));
            assert!(read_ipv6(&octets[..47]).is_err());
        }
        // All of its packet (RFC 6946); reserved bits are ignored.
        for fields in [[0, 0], [0, 6]] {
            let octets = fragment(fields);
            let packet = parse_ipv6(&octets).unwrap();
            assert_eq!((packet.protocol, packet.payload), (PROTOCOL_UDP, &[7, 7][..]));
            assert_eq!(packet.handling.fragmentation, Fragmentation::Allowed);
        }
        let mut octets = ipv6_header(A6, B6, 60, 128).to_vec();
        octets.extend([60, 0, 0, 0, 0, 0, 0, 0].repeat(16));
        assert_eq!(parse_ipv6(&octets), Err(PacketError::TooManyExtensions));
        octets.truncate(100);
        assert_eq!(parse_ipv6(&octets), Err(PacketError::Malformed));
        let cut = ipv6_header(A6, B6, 60, 0);
        assert_eq!(parse_ipv6(&cut), Err(PacketError::Malformed));
    }
}
