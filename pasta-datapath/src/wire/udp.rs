//! UDP headers (RFC 768).

use super::checksum::pseudo_header;
use super::ip::PROTOCOL_UDP;
use super::{Malformed, take_u16};
use std::net::SocketAddr;

/// Length of the header.
pub const LEN: usize = 8;
/// Where the checksum is in the header.
pub const CHECKSUM_OFFSET: u16 = 6;

/// A header, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// The checksum field; zero (IPv4 only): none was made.
    pub checksum: u16,
}

/// Splits a datagram into header and payload. Octets after the length it claims are cut off.
///
/// # Errors
///
/// [`Malformed`] if it is shorter than it claims.
pub fn split(octets: &[u8]) -> Result<(Header, &[u8]), Malformed> {
    let (source, rest) = take_u16(octets).ok_or(Malformed)?;
    let (destination, rest) = take_u16(rest).ok_or(Malformed)?;
    let (len, rest) = take_u16(rest).ok_or(Malformed)?;
    let (checksum, payload) = take_u16(rest).ok_or(Malformed)?;
    let payload_len = usize::from(len).checked_sub(LEN).ok_or(Malformed)?;
    let payload = payload.get(..payload_len).ok_or(Malformed)?;
    Ok((Header { source, destination, checksum }, payload))
}

/// The checksum of a datagram, as it is sent: never zero, which would mean that there is none (RFC 768; RFC 8200, section
/// 8.1). `source` and `destination` are of one family.
pub fn checksum(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> u16 {
    let len = u16::try_from(LEN + payload.len()).unwrap_or(u16::MAX);
    let sum = pseudo_header(source.ip(), destination.ip(), PROTOCOL_UDP, len);
    let sum = sum.word(source.port()).word(destination.port()).word(len).octets(payload);
    match sum.checksum() {
        0 => 0xffff,
        checksum => checksum,
    }
}

/// The header's octets for `payload_len` octets of payload.
pub fn header(header: &Header, payload_len: u16) -> [u8; LEN] {
    let len = payload_len.saturating_add(LEN as u16);
    let [s0, s1] = header.source.to_be_bytes();
    let [d0, d1] = header.destination.to_be_bytes();
    let [l0, l1] = len.to_be_bytes();
    let [c0, c1] = header.checksum.to_be_bytes();
    [s0, s1, d0, d1, l0, l1, c0, c1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_reads_back_and_padding_is_cut_off() {
        let written = Header { source: 1024, destination: 53, checksum: 0xabcd };
        let mut octets = header(&written, 2).to_vec();
        octets.extend([1, 2, 0, 0]);
        assert_eq!(split(&octets), Ok((written, &[1, 2][..])));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let written = Header { source: 1, destination: 2, checksum: 0 };
        assert_eq!(split(&header(&written, 1)), Err(Malformed));
        let mut octets = header(&written, 0);
        octets[5] = 7;
        assert_eq!(split(&octets), Err(Malformed));
    }
}
