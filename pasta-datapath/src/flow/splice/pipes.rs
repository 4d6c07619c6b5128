//! Pipes for splicing, borrowed by flows and given back when they are empty.
//!
//! The kernel lets a user have 64 MiB of pipe buffers in all (`fs.pipe-user-pages-soft`, pipe(7)), so a
//! pipe for each direction of each flow would be the end at 128 flows. A flow holds one only while its
//! output is blocked.

use nix::errno::Errno;

/// Pipes that exist at once; chosen: what the kernel's limit for a user allows.
const MOST: usize = 256;

/// Empty pipes that are kept; chosen: flows of one turn use one after the other.
const KEPT: usize = 8;

/// How often nothing is tried after the kernel has refused a pipe; chosen: what a refusal costs (three
/// calls) is then nothing beside what is moved meanwhile.
const LEFT_OUT: u32 = 1000;

/// A pipe that octets go through from one socket `K` to another, and that knows how many are in it.
pub trait Splicing<K>: Sized {
    /// A pipe that is worth having; none where the kernel gives no such.
    fn make() -> Option<Self>;

    /// How many octets are in it.
    fn octets(&self) -> usize;

    /// Moves what a socket has into the pipe, without a copy; 0 is the end of the stream.
    ///
    /// # Errors
    ///
    /// As splice(2): `EAGAIN` if the socket has nothing or the pipe is full.
    fn fill(&mut self, from: &K) -> Result<usize, Errno>;

    /// Moves what is in the pipe to a socket.
    ///
    /// # Errors
    ///
    /// As splice(2): `EAGAIN` if the socket is full.
    fn drain(&mut self, to: &K) -> Result<usize, Errno>;

    /// Puts octets into the empty pipe; all of at most a page fit.
    ///
    /// # Errors
    ///
    /// As write(2).
    fn put(&mut self, octets: &[u8]) -> Result<usize, Errno>;
}

/// The pipes there are.
#[derive(Debug)]
pub struct Pipes<P> {
    free: Vec<P>,
    made: usize,
    /// Descriptors that new ones may take.
    fd_budget: usize,
    /// How often nothing is tried yet.
    left_out: u32,
}

impl<P> Pipes<P> {
    /// None yet; new ones may take so many descriptors.
    pub fn new(fd_budget: usize) -> Self {
        Self { free: Vec::new(), made: 0, fd_budget, left_out: 0 }
    }

    /// New ones may take so many descriptors from now on.
    pub fn set_fd_budget(&mut self, fd_budget: usize) {
        self.fd_budget = fd_budget;
    }

    /// An empty pipe; none where there can be no more.
    pub fn borrow<K>(&mut self) -> Option<P>
    where
        P: Splicing<K>,
    {
        if let Some(pipe) = self.free.pop() {
            return Some(pipe);
        }
        if self.made >= MOST || self.fd_budget < 2 {
            return None;
        }
        if self.left_out > 0 {
            self.left_out -= 1;
            return None;
        }
        let made = P::make();
        match made {
            Some(_) => {
                self.made += 1;
                self.fd_budget -= 2;
            }
            None => self.left_out = LEFT_OUT,
        }
        made
    }

    /// Takes a pipe back; one that is not empty belonged to a flow that has ended.
    pub fn give_back<K>(&mut self, pipe: P)
    where
        P: Splicing<K>,
    {
        if pipe.octets() == 0 && self.free.len() < KEPT {
            self.free.push(pipe);
        } else {
            self.made -= 1;
            // What it took may be had again.
            self.left_out = 0;
        }
    }

    /// Closes pipes that nobody has borrowed, up to so many; gives how many those were.
    pub fn shrink(&mut self, count: usize) -> usize {
        let kept = self.free.len().saturating_sub(count);
        let closed = self.free.drain(kept..).count();
        self.made -= closed;
        closed
    }

    /// How many exist.
    pub fn made(&self) -> usize {
        self.made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pipe(usize);

    impl Splicing<()> for Pipe {
        fn make() -> Option<Self> {
            Some(Self(0))
        }

        fn octets(&self) -> usize {
            self.0
        }

        fn fill(&mut self, (): &()) -> Result<usize, Errno> {
            Err(Errno::EAGAIN)
        }

        fn drain(&mut self, (): &()) -> Result<usize, Errno> {
            Err(Errno::EAGAIN)
        }

        fn put(&mut self, octets: &[u8]) -> Result<usize, Errno> {
            self.0 += octets.len();
            Ok(octets.len())
        }
    }

    #[test]
    fn empty_pipes_are_lent_again_and_full_ones_are_not() {
        let mut pipes = Pipes::<Pipe>::new(4);
        let mut first = pipes.borrow().unwrap();
        let second = pipes.borrow().unwrap();
        assert!(pipes.borrow().is_none(), "beyond the budget");
        first.put(b"left over").unwrap();
        pipes.give_back(first);
        pipes.give_back(second);
        assert_eq!(pipes.made(), 1);
        assert_eq!(pipes.borrow().unwrap().octets(), 0);
        assert_eq!((pipes.made(), pipes.shrink(1)), (1, 0), "that one is lent");
        pipes.give_back(Pipe(0));
        assert_eq!((pipes.shrink(9), pipes.made()), (1, 0));
    }
}
