//! Writing to standard error without ever waiting for whoever reads it.
//!
//! COMMAND writes there too, through the same open file description, so that it cannot be made
//! non-blocking: COMMAND would find its own writes refused. There are three ways round that:
//!
//! | standard error is | a line is written |
//! | --- | --- |
//! | a pipe or a terminal | through another description of the same thing, ours alone and non-blocking |
//! | another thing that can be waited for, or one of these that we may not open | if epoll(7) says that there is room |
//! | a file | at once: it takes everything, or refuses it at once |
//!
//! In the second way COMMAND may take the room between the question and the write; only then is
//! there something to wait for.
//!
//! A line that finds no room is lost and counted. The next one that finds some comes after a line
//! that tells how many were lost.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{isatty, write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Most that is written in one call, in octets: what a pipe with any room takes as a whole
/// (`PIPE_BUF`, `linux/limits.h`; pipe(7)).
const PIECE: usize = 4096;

/// Where lines go, and those that did not get there.
#[derive(Debug)]
pub(crate) struct Outlet<F> {
    fd: F,
    way: Way,
    lost: u64,
    /// The last line was cut: its end would be taken for the beginning of the next.
    torn: bool,
}

/// How a write is kept from waiting.
#[derive(Debug)]
enum Way {
    /// It goes through this descriptor, which does not block.
    Own(OwnedFd),
    /// This says whether there is room.
    Asked(Epoll),
    /// It never waits.
    Free,
}

/// There is no room, or there never will be again.
#[derive(Debug)]
struct Full;

impl<F: AsFd> Outlet<F> {
    /// Finds out how to write to `fd`.
    pub(crate) fn new(fd: F) -> Self {
        let way = own(&fd).map(Way::Own).unwrap_or_else(|_| asked(&fd));
        Self { fd, way, lost: 0, torn: false }
    }

    /// Writes `line`, which has its end, or counts it as lost. `told` makes the line that tells how
    /// many were.
    pub(crate) fn write(&mut self, line: &str, told: impl FnOnce(u64) -> String) {
        if self.lost > 0 && self.put(&told(self.lost)).is_ok() {
            self.lost = 0;
        }
        // In the order of what happened: not before what tells of earlier ones.
        if self.lost > 0 || self.put(line).is_err() {
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn put(&mut self, line: &str) -> Result<(), Full> {
        if self.torn {
            self.put_all(b"\n")?;
            self.torn = false;
        }
        self.put_all(line.as_bytes())
    }

    fn put_all(&mut self, octets: &[u8]) -> Result<(), Full> {
        let mut rest = octets;
        while let Some(piece) = rest.chunks(PIECE).next() {
            let count =
                self.put_some(piece).inspect_err(|_| self.torn |= rest.len() < octets.len())?;
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    fn put_some(&self, piece: &[u8]) -> Result<usize, Full> {
        loop {
            let result = match &self.way {
                Way::Own(own) => write(own, piece),
                Way::Asked(epoll) if !has_room(epoll) => return Err(Full),
                Way::Asked(_) | Way::Free => write(&self.fd, piece),
            };
            match result {
                Ok(0) => return Err(Full),
                Ok(count) => return Ok(count),
                Err(Errno::EINTR) => {}
                // Nobody is left to be told why.
                Err(_) => return Err(Full),
            }
        }
    }
}

/// Another description of what `fd` leads to. Opening a file or a device again could do something,
/// and a position in it would not be shared.
fn own(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    let is_pipe = SFlag::from_bits_truncate(fstat(&fd)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO;
    if !is_pipe && !isatty(&fd)? {
        return Err(Errno::EOPNOTSUPP);
    }
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    open(path.as_str(), flags, Mode::empty())
}

fn asked(fd: impl AsFd) -> Way {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).and_then(|epoll| {
        epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLOUT, 0))?;
        Ok(epoll)
    });
    // What cannot be waited for (EPERM) makes nobody wait.
    epoll.map_or(Way::Free, Way::Asked)
}

/// Whether a write of a [`PIECE`] would not wait. Where it would fail, it does not.
fn has_room(epoll: &Epoll) -> bool {
    let mut event = [EpollEvent::empty()];
    matches!(epoll.wait(&mut event, EpollTimeout::ZERO), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use nix::unistd::{pipe, read};

    fn told(count: u64) -> String {
        format!("{count} lost\n")
    }

    /// Writes lines until one is lost; how many got through.
    fn fill(outlet: &mut Outlet<OwnedFd>, line: &str) -> usize {
        let mut written = 0;
        loop {
            outlet.write(line, told);
            if outlet.lost > 0 {
                return written;
            }
            written += 1;
        }
    }

    /// Reads all that is there.
    fn drain(reader: &OwnedFd) -> String {
        fcntl(reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut text = Vec::new();
        let mut octets = [0; 4096];
        while let Ok(count @ 1..) = read(reader, &mut octets) {
            text.extend_from_slice(&octets[..count]);
        }
        String::from_utf8(text).unwrap()
    }

    /// What cannot be waited for is not: this hangs where a write does.
    #[test]
    fn lines_without_room_are_lost_and_told_of_before_the_next() {
        let flags = SockFlag::empty();
        let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap();
        let refused = |(reader, writer): (OwnedFd, OwnedFd)| {
            let way = asked(&writer);
            (reader, Outlet { fd: writer, way, lost: 0, torn: false })
        };
        let found = |(reader, writer): (OwnedFd, OwnedFd)| (reader, Outlet::new(writer));
        for (reader, mut outlet) in [found(pipe().unwrap()), refused(pipe().unwrap()), found(pair)]
        {
            let written = fill(&mut outlet, "a line\n");
            assert!(written > 4, "{written} {outlet:?}");
            outlet.write("another\n", told);
            assert_eq!(outlet.lost, 2);
            assert_eq!(drain(&reader), "a line\n".repeat(written));

            outlet.write("the next\n", told);
            outlet.write("and one more\n", told);
            assert_eq!(drain(&reader), "2 lost\nthe next\nand one more\n");
        }
    }

    #[test]
    fn a_line_that_was_cut_is_ended_before_the_next() {
        let (reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::new(writer);
        // Three pages each, of which a pipe has sixteen.
        let long = format!("{}\n", "x".repeat(2 * PIECE));
        let written = fill(&mut outlet, &long);
        let text = drain(&reader);
        assert!(text.len() > written * long.len(), "none was cut");

        outlet.write("the next\n", told);
        assert_eq!(drain(&reader), "\n1 lost\nthe next\n");
    }

    #[test]
    fn a_pipe_has_a_description_of_its_own_and_that_of_others_still_blocks() {
        let (_reader, writer) = pipe().unwrap();
        let outlet = Outlet::new(writer);
        assert!(matches!(outlet.way, Way::Own(_)), "{outlet:?}");
        let flags = OFlag::from_bits_retain(fcntl(&outlet.fd, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
    }

    #[test]
    fn a_file_is_written_to_where_others_write_too() {
        let path = std::env::temp_dir().join(format!("pasta-outlet-{}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        let mut other = file.try_clone().unwrap();
        let mut outlet = Outlet::new(file);
        assert!(matches!(outlet.way, Way::Free), "{outlet:?}");
        outlet.write("one\n", told);
        std::io::Write::write_all(&mut other, b"two\n").unwrap();
        outlet.write("three\n", told);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_nobody_reads_any_more_is_lost_without_an_end() {
        let (reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::new(writer);
        drop(reader);
        outlet.write("one\n", told);
        outlet.write("two\n", told);
        assert_eq!(outlet.lost, 2);
    }
}
