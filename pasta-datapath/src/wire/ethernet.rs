//! Ethernet II headers.

use super::Malformed;
use pasta_ipc::types::MacAddr;
use std::net::Ipv6Addr;

/// Length of the header: two addresses and a type.
pub const LEN: usize = 14;

/// EtherType of ARP.
pub const TYPE_ARP: u16 = 0x0806;
/// EtherType of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;

/// Destination of what is for everybody on the link.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// A header, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Destination; may be a group.
    pub destination: [u8; 6],
    /// Source: a unicast address, or the frame is refused.
    pub source: MacAddr,
    /// What the payload is.
    pub ether_type: u16,
}

/// Splits `frame` into header and payload.
///
/// # Errors
///
/// [`Malformed`] if it is too short or comes from a group address.
pub fn split(frame: &[u8]) -> Result<(Header, &[u8]), Malformed> {
    let (&[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1], payload) =
        frame.split_first_chunk::<LEN>().ok_or(Malformed)?;
    let source = MacAddr::try_from([s0, s1, s2, s3, s4, s5]).map_err(|_| Malformed)?;
    let destination = [d0, d1, d2, d3, d4, d5];
    Ok((Header { destination, source, ether_type: u16::from_be_bytes([t0, t1]) }, payload))
}

/// The header's octets.
pub fn header(destination: [u8; 6], source: MacAddr, ether_type: u16) -> [u8; LEN] {
    let mut octets = [0; LEN];
    let (addresses, kind) = octets.split_at_mut(12);
    let (to, from) = addresses.split_at_mut(6);
    to.copy_from_slice(&destination);
    from.copy_from_slice(&source.octets());
    kind.copy_from_slice(&ether_type.to_be_bytes());
    octets
}

/// Where frames for the group `address` go: to its last four octets behind 33-33 (RFC 2464, section 7).
pub fn multicast(address: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = address.octets();
    [0x33, 0x33, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_reads_back() {
        let source = MacAddr::OURS_BY_DEFAULT;
        let octets = header([0xff; 6], source, TYPE_ARP);
        let (read, rest) = split(&octets).unwrap();
        assert_eq!(read, Header { destination: [0xff; 6], source, ether_type: TYPE_ARP });
        assert!(rest.is_empty());
    }

    #[test]
    fn group_source_and_short_frame_are_refused() {
        let mut octets = header([0; 6], MacAddr::OURS_BY_DEFAULT, TYPE_IPV4);
        assert_eq!(split(&octets[..13]), Err(Malformed));
        octets[6] |= 1;
        assert_eq!(split(&octets), Err(Malformed));
    }
}
