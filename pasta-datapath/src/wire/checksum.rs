//! The Internet checksum (RFC 1071): one's complement sum of 16-bit words.

use std::net::IpAddr;

/// A sum in progress. Sums of parts of even length add up to the sum of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds `octets`; an odd last one counts as the high half of a word.
    #[must_use]
    pub fn octets(self, octets: &[u8]) -> Self {
        // Words of 32 bits added into 64 cannot overflow below 2^32 words.
        let chunks = octets.chunks_exact(4);
        let (rest, mut sum) = (chunks.remainder(), self.0);
        for word in chunks.filter_map(<[u8]>::first_chunk) {
            sum += u64::from(u32::from_be_bytes(*word));
        }
        sum += match rest {
            [] => 0,
            [a] => u64::from(u16::from_be_bytes([*a, 0])),
            [a, b] => u64::from(u16::from_be_bytes([*a, *b])),
            [a, b, c, ..] => {
                u64::from(u16::from_be_bytes([*a, *b])) + u64::from(u16::from_be_bytes([*c, 0]))
            }
        };
        Self(sum)
    }

    /// Adds one word.
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// The sum folded to 16 bits, not complemented: what a checksum field holds while the kernel is
    /// to finish it.
    pub fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // Just folded to 16 bits.
        sum as u16
    }

    /// The checksum: the folded sum complemented.
    pub fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// Sum of the pseudo-header that TCP, UDP and ICMPv6 cover (RFC 9293 section 3.1, RFC 8200 section
/// 8.1). Addresses of different families cannot meet in a packet; if they did, the sum would be wrong
/// and nothing else.
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: u16) -> Sum {
    let sum = Sum::default().word(u16::from(protocol)).word(len);
    let add = |sum: Sum, address: IpAddr| match address {
        IpAddr::V4(a) => sum.octets(&a.octets()),
        IpAddr::V6(a) => sum.octets(&a.octets()),
    };
    add(add(sum, source), destination)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_of_rfc_1071_section_3_adds_up() {
        let sum = Sum::default().octets(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
        assert_eq!(sum.checksum(), !0xddf2);
    }

    #[test]
    fn every_tail_length_is_padded_with_zero() {
        for len in 0..9_u8 {
            let octets: Vec<u8> = (1..=len).collect();
            let mut padded = octets.clone();
            padded.resize(12, 0);
            assert_eq!(
                Sum::default().octets(&octets).folded(),
                Sum::default().octets(&padded).folded()
            );
        }
    }

    #[test]
    fn words_with_their_checksum_sum_to_all_ones() {
        let octets = [0x45, 0x00, 0x12, 0x34, 0xff, 0xff, 0xfe];
        let checksum = Sum::default().octets(&octets).checksum();
        assert_eq!(Sum::default().octets(&octets).word(checksum).folded(), 0xffff);
    }
}
