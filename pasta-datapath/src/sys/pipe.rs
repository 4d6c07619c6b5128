//! Pipes for splicing, borrowed by flows and given back when they are empty.
//!
//! The kernel lets a user have 64 MiB of pipe buffers in all (`fs.pipe-user-pages-soft`, pipe(7)), so a
//! pipe for each direction of each flow would be the end at 128 flows. A flow holds one only while its
//! output is blocked.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Octets that a pipe holds. Measured: as fast as 1 MiB, and 64 KiB costs a quarter of the throughput.
pub const PIPE_OCTETS: usize = 256 * 1024;

/// Pipes that exist at once; chosen: what the kernel's limit for a user allows.
const MOST: usize = 256;

/// Empty pipes that are kept; chosen: flows of one turn use one after the other.
const KEPT: usize = 8;

/// How often nothing is tried after the kernel has refused a pipe; chosen: what a refusal costs (three
/// calls) is then nothing beside what is moved meanwhile.
const LEFT_OUT: u32 = 1000;

/// A pipe, and how many octets are in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    octets: usize,
}

impl Pipe {
    /// How many octets are in it.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Moves what a socket has into the pipe, without a copy; 0 is the end of the stream.
    ///
    /// # Errors
    ///
    /// As splice(2): `EAGAIN` if the socket has nothing or the pipe is full.
    pub fn fill(&mut self, from: BorrowedFd<'_>) -> Result<usize, Errno> {
        let moved = transfer(from, self.write.as_fd(), PIPE_OCTETS)?;
        self.octets += moved;
        Ok(moved)
    }

    /// Moves what is in the pipe to a socket.
    ///
    /// # Errors
    ///
    /// As splice(2): `EAGAIN` if the socket is full.
    pub fn drain(&mut self, to: BorrowedFd<'_>) -> Result<usize, Errno> {
        let moved = transfer(self.read.as_fd(), to, self.octets)?;
        self.octets -= moved.min(self.octets);
        Ok(moved)
    }

    /// Puts octets into the empty pipe; all of at most a page fit.
    ///
    /// # Errors
    ///
    /// As write(2).
    pub fn put(&mut self, octets: &[u8]) -> Result<usize, Errno> {
        let put = nix::unistd::write(&self.write, octets)?;
        self.octets += put;
        Ok(put)
    }
}

fn transfer(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> Result<usize, Errno> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    loop {
        match splice(from, None, to, None, len, flags) {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

/// The pipes there are.
#[derive(Debug, Default)]
pub struct Pipes {
    free: Vec<Pipe>,
    made: usize,
    /// Descriptors that new ones may take.
    fd_budget: usize,
    /// How often nothing is tried yet.
    left_out: u32,
}

impl Pipes {
    /// None yet; new ones may take so many descriptors.
    pub fn new(fd_budget: usize) -> Self {
        Self { fd_budget, ..Self::default() }
    }

    /// New ones may take so many descriptors from now on.
    pub fn set_fd_budget(&mut self, fd_budget: usize) {
        self.fd_budget = fd_budget;
    }

    /// An empty pipe; none where there can be no more.
    pub fn borrow(&mut self) -> Option<Pipe> {
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
        let made = make();
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
    pub fn give_back(&mut self, pipe: Pipe) {
        if pipe.octets == 0 && self.free.len() < KEPT {
            self.free.push(pipe);
        } else {
            self.made -= 1;
            // What it took may be had again.
            self.left_out = 0;
        }
    }

    /// How many exist.
    pub fn made(&self) -> usize {
        self.made
    }
}

/// A pipe of the size that is worth it. A user beyond the limit gets pipes of a page or two, which are
/// slower than none.
fn make() -> Option<Pipe> {
    let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
    let size = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_OCTETS as i32)).ok()?;
    let is_large = usize::try_from(size).is_ok_and(|size| size >= PIPE_OCTETS);
    is_large.then_some(Pipe { read, write, octets: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_pipes_are_lent_again_and_full_ones_are_not() {
        let mut pipes = Pipes::new(2 * MOST);
        let mut first = pipes.borrow().unwrap();
        let second = pipes.borrow().unwrap();
        first.put(b"left over").unwrap();
        pipes.give_back(first);
        pipes.give_back(second);
        assert_eq!(pipes.made(), 1);
        assert_eq!(pipes.borrow().unwrap().octets(), 0);
        assert_eq!(pipes.made(), 1);
    }
}
