//! Octets that both ends of a transfer can compute, so that every one of them is checked.
//!
//! A pattern is the little-endian output of SplitMix64 run as a counter: the octets at any offset
//! depend on the seed and the offset alone. A receiver therefore compares what arrives with what
//! must be at that offset, which finds loss, reordering, duplication and corruption, and says where.
//! That is stronger than a hash of the whole and needs no second pass.

/// The octets of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    seed: u64,
}

/// The first octet that is not what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where it is, counted from the start of the transfer.
    pub offset: u64,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "wrong octet at offset {}", self.offset)
    }
}

impl std::error::Error for Mismatch {}

impl Pattern {
    /// The pattern of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Eight octets of the pattern, those from `8 * index` on.
    const fn word(self, index: u64) -> u64 {
        let mut z = self.seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Fills `octets` with the pattern from `offset` on.
    pub fn fill(self, offset: u64, octets: &mut [u8]) {
        let mut index = offset / 8;
        let skip = (offset % 8) as usize;
        let head = octets.len().min((8 - skip) % 8);
        let (head, rest) = octets.split_at_mut(head);
        if !head.is_empty() {
            head.copy_from_slice(&self.word(index).to_le_bytes()[skip..skip + head.len()]);
            index += 1;
        }
        for chunk in rest.chunks_mut(8) {
            chunk.copy_from_slice(&self.word(index).to_le_bytes()[..chunk.len()]);
            index += 1;
        }
    }

    /// `length` octets of the pattern from its start.
    pub fn octets(self, length: usize) -> Vec<u8> {
        let mut octets = vec![0; length];
        self.fill(0, &mut octets);
        octets
    }
}

/// Compares a transfer with its pattern, piece by piece as it arrives.
#[derive(Debug)]
pub struct Verifier {
    pattern: Pattern,
    offset: u64,
    expected: Vec<u8>,
}

impl Verifier {
    /// Expects `pattern` from its first octet on.
    pub const fn new(pattern: Pattern) -> Self {
        Self { pattern, offset: 0, expected: Vec::new() }
    }

    /// Checks the next octets of the transfer.
    ///
    /// # Errors
    ///
    /// Names the first octet that differs.
    pub fn check(&mut self, octets: &[u8]) -> Result<(), Mismatch> {
        self.expected.resize(octets.len(), 0);
        self.pattern.fill(self.offset, &mut self.expected);
        if self.expected != octets {
            let same = self.expected.iter().zip(octets).take_while(|(a, b)| a == b).count();
            return Err(Mismatch { offset: self.offset + same as u64 });
        }
        self.offset += octets.len() as u64;
        Ok(())
    }

    /// How many octets have been right so far.
    pub const fn verified(&self) -> u64 {
        self.offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_depend_on_seed_and_offset_alone() {
        let whole = Pattern::new(7).octets(100);
        for start in 0..20_usize {
            for length in 0..20 {
                let mut piece = vec![0; length];
                Pattern::new(7).fill(start as u64, &mut piece);
                assert_eq!(piece, whole[start..start + length], "{length} octets from {start}");
            }
        }
        assert_ne!(Pattern::new(8).octets(100), whole);
    }

    #[test]
    fn transfer_in_uneven_pieces_is_verified() {
        let whole = Pattern::new(1).octets(1000);
        let mut verifier = Verifier::new(Pattern::new(1));
        for piece in whole.chunks(13) {
            verifier.check(piece).unwrap();
        }
        assert_eq!(verifier.verified(), 1000);
    }

    #[test]
    fn first_wrong_octet_is_named() {
        let mut whole = Pattern::new(1).octets(64);
        whole[42] ^= 1;
        let mut verifier = Verifier::new(Pattern::new(1));
        verifier.check(&whole[..30]).unwrap();
        assert_eq!(verifier.check(&whole[30..]), Err(Mismatch { offset: 42 }));
    }
}
