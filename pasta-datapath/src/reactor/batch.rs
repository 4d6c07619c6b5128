//! Batches of frames: read one after the other into one buffer.

use crate::link::writer::{MAX_FRAME, ReadError};
use nix::errno::Errno;

/// A batch of large frames ends with so many octets: eight of the largest frames. Measured with a
/// second-level cache of 1 MiB: with four, one flow and eight move 0.84 as much, for an eighth more
/// processor time.
const LARGE_OCTETS: usize = 8 * (MAX_FRAME + 64);
/// Frames are large if they are no smaller than this on average; chosen: where the octets of a frame cost
/// about as much as its calls.
const LARGE_FRAME: usize = 16 * 1024;
/// A batch of frames of middle size ends with so many octets: they are datagrams that exceed the MTU of the host's link,
/// of which a default receive buffer (`net.core.rmem_default`) holds a dozen. Measured with 8,900 octets: 64 frames in a
/// batch and then its receiver's turn are 0.7 to 0.8 times as many that arrive.
const MIDDLE_OCTETS: usize = 96 * 1024;
/// Frames are of middle size if they are no smaller than this on average; chosen: more than two fragments each.
const MIDDLE_FRAME: usize = 4 * 1024;
/// What a batch is read into.
const BATCH_OCTETS: usize = 2 * 1024 * 1024;
/// A frame below this may be one of an exchange of small messages.
const LONE_FRAME: usize = 2048;
/// Frames begin at multiples of this: a line of the processor's cache.
const ALIGNMENT: usize = 64;

/// The buffer, and where in it the frames of a batch are.
#[derive(Debug)]
pub(super) struct FrameBuffer {
    octets: Vec<u8>,
    places: Vec<(usize, usize)>,
}

/// What is likely to be in the tap's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// One frame, if that is small.
    LoneFrame,
    /// Any number of them.
    Frames,
}

/// What reading a batch came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// Whether there may be more frames.
    pub(super) may_have_more: bool,
    /// Whether these were a frame or two, both small.
    pub(super) is_small: bool,
    /// Why there will be no more.
    pub(super) gone: Option<Errno>,
}

/// Whether frames of middle size are a batch.
fn is_enough(count: usize, octets: usize) -> bool {
    octets >= MIDDLE_OCTETS && (count * MIDDLE_FRAME..count * LARGE_FRAME).contains(&octets)
}

impl FrameBuffer {
    pub(super) fn new() -> Self {
        Self { octets: vec![0; BATCH_OCTETS], places: Vec::new() }
    }

    /// The buffer.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Where each frame begins and ends.
    pub(super) fn places(&self) -> &[(usize, usize)] {
        &self.places
    }

    /// Reads a batch of at most `most` frames by `read`.
    pub(super) fn fill(
        &mut self,
        most: usize,
        expected: Expected,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, ReadError>,
    ) -> Read {
        self.places.clear();
        let (mut may_have_more, mut gone) = (true, None);
        let mut start = 0;
        while self.places.len() < most
            && (start + MAX_FRAME <= LARGE_OCTETS || start < self.places.len() * LARGE_FRAME)
            && !is_enough(self.places.len(), start)
        {
            let Some(free) = self.octets.get_mut(start..start + MAX_FRAME) else { break };
            match read(free) {
                Ok(len) => {
                    self.places.push((start, start + len));
                    start += len.next_multiple_of(ALIGNMENT);
                    // One small frame is most likely the only one, if sockets had something to say
                    // since the last: an exchange of messages. The kernel says so if it is not, for the
                    // price of the read that is saved.
                    if len < LONE_FRAME && self.places.len() == 1 && expected == Expected::LoneFrame
                    {
                        may_have_more = false;
                        break;
                    }
                }
                Err(ReadError::WouldBlock | ReadError::Lost) => {
                    may_have_more = false;
                    break;
                }
                Err(ReadError::Gone(errno)) => {
                    gone = Some(errno);
                    break;
                }
            }
        }
        let is_small = matches!(self.places.len(), 1 | 2) && start < LONE_FRAME;
        Read { may_have_more, is_small, gone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads frames of these sizes, then none.
    fn fill(most: usize, expected: Expected, sizes: &[usize]) -> (Read, Vec<(usize, usize)>) {
        let (mut buffer, mut sizes) = (FrameBuffer::new(), sizes.iter());
        let read = buffer.fill(most, expected, |free| {
            assert_eq!(free.len(), MAX_FRAME);
            sizes.next().copied().ok_or(ReadError::WouldBlock)
        });
        (read, buffer.places().to_vec())
    }

    #[test]
    fn a_batch_ends_when_the_tap_is_empty_or_there_are_enough() {
        let (read, places) = fill(64, Expected::Frames, &[60, 100]);
        assert_eq!(places, [(0, 60), (64, 164)]);
        assert!(!read.may_have_more && read.is_small);
        let (read, places) = fill(2, Expected::Frames, &[60; 3]);
        assert!(places.len() == 2 && read.may_have_more);
    }

    #[test]
    fn large_frames_end_a_batch_by_their_octets_and_small_ones_by_their_number() {
        assert_eq!(fill(512, Expected::Frames, &[MAX_FRAME; 100]).1.len(), 8);
        assert_eq!(fill(512, Expected::Frames, &[1514; 600]).1.len(), 512);
        assert_eq!(fill(512, Expected::Frames, &[8942; 100]).1.len(), 11);
    }

    #[test]
    fn one_small_frame_is_not_read_behind_where_more_is_unlikely() {
        let (read, places) = fill(64, Expected::LoneFrame, &[60, 60]);
        assert!(places.len() == 1 && !read.may_have_more && read.is_small);
        assert_eq!(fill(64, Expected::LoneFrame, &[3000, 60]).1.len(), 2);
    }

    #[test]
    fn end_of_the_tap_comes_behind_what_was_read() {
        let mut buffer = FrameBuffer::new();
        let mut count = 0;
        let read = buffer.fill(64, Expected::Frames, |_| {
            count += 1;
            if count == 1 { Ok(60) } else { Err(ReadError::Gone(Errno::EBADFD)) }
        });
        assert_eq!((read.gone, buffer.places()), (Some(Errno::EBADFD), &[(0, 60)][..]));
    }
}
