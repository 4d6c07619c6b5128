//! The packet that an ICMP or ICMPv6 error quotes, as far as it is there (RFC 792; RFC 4443, section 3).

use super::ip::{FRAGMENT_LEN, IPV4_LEN, PROTOCOL_FRAGMENT};
use super::{Malformed, take_u16};
use pasta_ipc::types::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of the transport header that every error quotes (RFC 1122, section 3.2.2): ports, and TCP's sequence
/// number.
pub const TRANSPORT: usize = 8;

/// A packet of which the front is quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// What it carried.
    pub protocol: u8,
    /// The front of the transport header.
    pub transport: [u8; TRANSPORT],
}

impl Quoted {
    /// The two ports that TCP and UDP begin with.
    pub fn ports(&self) -> [u16; 2] {
        let [s0, s1, d0, d1, ..] = self.transport;
        [u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])]
    }
}

/// Reads the front of a packet of `family`. Of fragments, the first can be read; of extension headers, we send none
/// but that of a fragment.
///
/// # Errors
///
/// [`Malformed`] if it is too short, or does not begin with a transport header.
pub fn parse(family: Family, octets: &[u8]) -> Result<Quoted, Malformed> {
    match family {
        Family::V4 => parse_v4(octets),
        Family::V6 => parse_v6(octets),
    }
    .ok_or(Malformed)
}

fn parse_v4(octets: &[u8]) -> Option<Quoted> {
    let (header, _) = octets.split_first_chunk::<IPV4_LEN>()?;
    let [version_and_len, _, _, _, _, _, f0, f1, _, protocol, _, _, a, b, c, d, e, f, g, h] =
        *header;
    let is_first = u16::from_be_bytes([f0, f1]) & 0x1fff == 0;
    let len = usize::from(version_and_len & 0xf) * 4;
    if version_and_len >> 4 != 4 || len < IPV4_LEN || !is_first {
        return None;
    }
    let transport = *octets.get(len..)?.first_chunk()?;
    let source = Ipv4Addr::new(a, b, c, d).into();
    let destination = Ipv4Addr::new(e, f, g, h).into();
    Some(Quoted { source, destination, protocol, transport })
}

fn parse_v6(octets: &[u8]) -> Option<Quoted> {
    let (fixed, rest) = octets.split_first_chunk::<8>()?;
    let (source, rest) = rest.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    let [version, _, _, _, _, _, next_header, _] = *fixed;
    if version >> 4 != 6 {
        return None;
    }
    let (protocol, transport) = match next_header {
        PROTOCOL_FRAGMENT => {
            let (&[protocol, _, o0, o1, ..], rest) = rest.split_first_chunk::<FRAGMENT_LEN>()?;
            let (offset, _) = take_u16(&[o0, o1])?;
            (offset & !7 == 0).then_some((protocol, rest))?
        }
        protocol => (protocol, rest),
    };
    let transport = *transport.first_chunk()?;
    let source = Ipv6Addr::from(*source).into();
    let destination = Ipv6Addr::from(*destination).into();
    Some(Quoted { source, destination, protocol, transport })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::{PROTOCOL_TCP, PROTOCOL_UDP, ipv4_header, ipv6_header};

    const PORTS: [u8; TRANSPORT] = [0x30, 0x39, 0, 53, 1, 2, 3, 4];
    const A4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

    fn v4() -> Vec<u8> {
        [&ipv4_header(A4, B4, PROTOCOL_TCP, 1000)[..], &PORTS].concat()
    }

    fn v6(next_header: u8, between: &[u8]) -> Vec<u8> {
        [&ipv6_header(A6, B6, next_header, 1000)[..], between, &PORTS].concat()
    }

    #[test]
    fn front_of_a_packet_reads_back() {
        let quoted = parse(Family::V4, &v4()).unwrap();
        assert_eq!((quoted.source, quoted.destination), (A4.into(), B4.into()));
        assert_eq!((quoted.protocol, quoted.transport), (PROTOCOL_TCP, PORTS));
        assert_eq!(quoted.ports(), [12345, 53]);
        let quoted = parse(Family::V6, &v6(PROTOCOL_UDP, &[])).unwrap();
        assert_eq!((quoted.source, quoted.destination), (A6.into(), B6.into()));
        assert_eq!((quoted.protocol, quoted.transport), (PROTOCOL_UDP, PORTS));
    }

    #[test]
    fn options_and_the_header_of_a_first_fragment_are_passed_over() {
        let mut options = v4();
        options[0] = 0x46;
        options.splice(20..20, [1; 4]);
        assert_eq!(parse(Family::V4, &options).unwrap().transport, PORTS);
        let first = v6(PROTOCOL_FRAGMENT, &[PROTOCOL_UDP, 0, 0, 1, 9, 9, 9, 9]);
        let quoted = parse(Family::V6, &first).unwrap();
        assert_eq!((quoted.protocol, quoted.transport), (PROTOCOL_UDP, PORTS));
    }

    #[test]
    fn later_fragments_other_versions_and_short_ones_are_refused() {
        let mut later = v4();
        later[7] = 1;
        assert_eq!(parse(Family::V4, &later), Err(Malformed));
        let later = v6(PROTOCOL_FRAGMENT, &[PROTOCOL_UDP, 0, 0, 8, 9, 9, 9, 9]);
        assert_eq!(parse(Family::V6, &later), Err(Malformed));
        assert_eq!(parse(Family::V6, &v4()), Err(Malformed));
        assert_eq!(parse(Family::V4, &v6(PROTOCOL_UDP, &[])), Err(Malformed));
        let mut short = v4();
        short[0] = 0x44;
        assert_eq!(parse(Family::V4, &short), Err(Malformed));
        for (family, whole) in [(Family::V4, v4()), (Family::V6, v6(PROTOCOL_UDP, &[]))] {
            for len in 0..whole.len() {
                assert_eq!(parse(family, &whole[..len]), Err(Malformed), "{len}");
            }
        }
    }
}
