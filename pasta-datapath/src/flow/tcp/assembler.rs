//! Reassembly of the stream: segments out of order, kept until the hole in front of them is filled (RFC
//! 9293, section 3.10.7.4), and the SACK blocks that report them (RFC 2018).
//!
//! The path from the namespace is one queue on one machine: a hole means that the tap's queue was full and
//! dropped a segment, and all that follows is the rest of the window. If it were dropped too, all of it
//! would have to be retransmitted. Holes are rare and short, so that octets are copied, into blocks that
//! are joined where they touch. The number of blocks and of octets is bounded; what does not fit is dropped.

use crate::wire::seq::Seq;
use crate::wire::tcp::{MAX_SACK_BLOCKS, SackBlocks};

/// Most blocks of one connection; chosen: each stands for a loss of its own.
const MAX_BLOCKS: usize = 16;

/// A block with more octets is not moved to be joined to one in front of it; chosen: the largest segment.
/// Otherwise segments in descending order would move all octets each time.
const MAX_MOVED: usize = 64 * 1024;

/// Octets out of order of one connection.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    /// In order, none overlapping. They touch only where the one behind is larger than [`MAX_MOVED`].
    blocks: Vec<Block>,
    /// Number of a FIN that arrived out of order.
    fin: Option<Seq>,
    /// First number of the block that the newest segment became part of (RFC 2018, section 4: it is
    /// reported first).
    newest: Option<Seq>,
}

/// Octets in order from `start`.
#[derive(Clone, Debug)]
pub struct Block {
    /// Number of the first octet.
    pub start: Seq,
    /// The octets.
    pub octets: Vec<u8>,
}

impl Block {
    fn end(&self) -> Seq {
        // Inside a window, which is less than 2^31.
        self.start + self.octets.len() as u32
    }
}

impl Assembler {
    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.fin.is_none()
    }

    /// Octets in all blocks.
    pub fn octets(&self) -> usize {
        self.blocks.iter().map(|block| block.octets.len()).sum()
    }

    /// Inserts a FIN with number `seq`.
    pub fn insert_fin(&mut self, seq: Seq) {
        self.fin = Some(seq);
    }

    /// Inserts `payload`, which starts at `seq`, as far as it is new; gives how many octets were added. None
    /// if there would be too many blocks.
    pub fn insert(&mut self, seq: Seq, payload: &[u8]) -> usize {
        let before = self.octets();
        let (mut payload, end) = (payload, seq + payload.len() as u32);
        // Those that it overlaps or touches.
        let mut first = self.blocks.partition_point(|block| block.end().before(seq));
        let mut behind = self.blocks.partition_point(|block| !block.start.after(end));
        // Only the last of them can be larger than a segment. To join it to what is in front would move it.
        let last = self.blocks.get(first..behind).and_then(<[Block]>::last);
        if let Some(last) = last.filter(|it| it.octets.len() > MAX_MOVED) {
            if last.start.after(seq) {
                let fits = last.start.distance_from(seq) as usize;
                payload = payload.split_at(fits.min(payload.len())).0;
                behind -= 1;
            } else {
                first = behind - 1;
            }
        }
        if payload.is_empty() {
            return 0;
        }
        if first >= behind {
            if self.blocks.len() >= MAX_BLOCKS {
                return 0;
            }
            self.blocks.insert(first, Block { start: seq, octets: payload.to_vec() });
            self.newest = Some(seq);
            return payload.len();
        }
        let mut joined: Vec<Block> = self.blocks.drain(first..behind).collect();
        let mut whole = joined.remove(0);
        if seq.before(whole.start) {
            let missing = whole.start.distance_from(seq) as usize;
            let head = payload.split_at(missing.min(payload.len())).0;
            whole.octets.splice(0..0, head.iter().copied());
            whole.start = seq;
        }
        append(&mut whole, seq, payload);
        for block in joined {
            append(&mut whole, block.start, &block.octets);
        }
        self.newest = Some(whole.start);
        self.blocks.insert(first, whole);
        self.octets() - before
    }

    /// Removes the first block if it begins at or before `next`.
    pub fn take_block(&mut self, next: Seq) -> Option<Block> {
        let due = self.blocks.first().is_some_and(|block| !block.start.after(next));
        due.then(|| self.blocks.remove(0))
    }

    /// Removes the FIN if everything before it was received.
    pub fn take_fin(&mut self, next: Seq) -> bool {
        self.fin.take_if(|fin| *fin == next).is_some()
    }

    /// Adds the SACK blocks to report: that of the newest segment, then the others.
    pub fn add_sack_blocks(&self, sack: &mut SackBlocks) {
        let is_newest = |block: &&Block| Some(block.start) == self.newest;
        let newest = self.blocks.iter().filter(is_newest);
        let others = self.blocks.iter().filter(|block| !is_newest(block));
        for block in newest.chain(others).take(MAX_SACK_BLOCKS) {
            sack.push(block.start, block.end());
        }
    }
}

/// Appends the part of `octets`, which start at `seq`, that is behind the end of `whole`.
fn append(whole: &mut Block, seq: Seq, octets: &[u8]) {
    let known = whole.end().distance_from(seq) as usize;
    whole.octets.extend_from_slice(octets.split_at(known.min(octets.len())).1);
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Seq = Seq::const_from(u32::MAX - 50);

    fn text(assembler: &Assembler) -> Vec<(u32, Vec<u8>)> {
        let blocks = assembler.blocks.iter();
        blocks.map(|b| (b.start.distance_from(START), b.octets.clone())).collect()
    }

    #[test]
    fn a_large_block_is_not_moved_and_nothing_is_lost() {
        let all: Vec<u8> = (0..3 * MAX_MOVED).map(|n| (n % 251) as u8).collect();
        let mut assembler = Assembler::default();
        let mut insert = |from: usize, to: usize| {
            let before = assembler.octets();
            let inserted = assembler.insert(START + from as u32, &all[from..to]);
            assert_eq!(assembler.octets() - before, inserted);
            (inserted, assembler.blocks.len())
        };
        for start in (1000..3 * MAX_MOVED).step_by(MAX_MOVED / 2) {
            insert(start, (start + MAX_MOVED / 2).min(all.len()));
        }
        assert_eq!(insert(900, 1100), (100, 2), "in front of it");
        assert_eq!(insert(800, 900), (100, 2), "and in front of that");
        assert_eq!(insert(850, 1300), (0, 2));
        assert_eq!(insert(1000, 1200), (0, 2));
        assert_eq!(insert(400, 500), (100, 3));
        assert_eq!(insert(300, 1050), (400, 2));
        for from in [300, 1000] {
            let block = assembler.take_block(START + from as u32).unwrap();
            assert_eq!(block.start, START + from as u32);
            let end = from + block.octets.len();
            assert_eq!(block.octets, &all[from..end]);
        }
        assert!(assembler.is_empty());
    }

    #[test]
    fn blocks_that_touch_or_overlap_become_one_whatever_the_order() {
        let all: Vec<u8> = (0..200).collect();
        let pieces = [(10, 20), (40, 60), (20, 30), (55, 80), (25, 45), (90, 91), (5, 100)];
        let mut assembler = Assembler::default();
        let mut inserted = 0;
        for (from, to) in pieces {
            inserted += assembler.insert(START + from, &all[from as usize..to as usize]);
            assert_eq!(inserted, assembler.octets());
            for (start, octets) in text(&assembler) {
                assert_eq!(octets, &all[start as usize..start as usize + octets.len()]);
            }
        }
        assert_eq!(text(&assembler), [(5, all[5..100].to_vec())]);
        assert_eq!(assembler.insert(START + 10, &all[10..90]), 0, "nothing new");
    }

    #[test]
    fn newest_block_is_reported_first_and_number_of_blocks_is_bounded() {
        let mut assembler = Assembler::default();
        for n in 0..MAX_BLOCKS as u32 {
            assert_eq!(assembler.insert(START + n * 10, &[0; 5]), 5);
        }
        assert_eq!(assembler.insert(START + 1000, &[0; 5]), 0);
        assembler.insert(START + 25, &[0; 2]);
        let mut sack = SackBlocks::NONE;
        assembler.add_sack_blocks(&mut sack);
        assert_eq!(sack.as_slice()[0], (START + 20, START + 27));
        assert_eq!(sack.as_slice().len(), MAX_SACK_BLOCKS);
        assert_eq!(sack.as_slice()[1], (START, START + 5));
    }

    #[test]
    fn block_and_fin_come_out_once_the_hole_is_filled() {
        let mut assembler = Assembler::default();
        assembler.insert(START + 10, &[1; 10]);
        assembler.insert_fin(START + 20);
        assert!(assembler.take_block(START + 9).is_none() && !assembler.take_fin(START + 19));
        assert_eq!(assembler.take_block(START + 15).unwrap().start, START + 10);
        assert!(assembler.take_fin(START + 20) && assembler.is_empty());
    }
}
