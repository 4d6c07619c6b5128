//! Writes lines to standard error without blocking.
//!
//! COMMAND shares our open file description of standard error. `O_NONBLOCK` is a flag of the
//! description, so setting it would make COMMAND's own writes fail. There are three modes:
//!
//! | standard error is | a line is written |
//! | --- | --- |
//! | a pipe or a terminal | through a second, non-blocking open file description |
//! | another pollable file, or one of these that we may not open | if epoll(7) reports it writable |
//! | a regular file | directly: writes do not block |
//!
//! In the second mode COMMAND can fill the buffer between the poll and the write; only then does the
//! write block.
//!
//! A line for which the buffer has no space is dropped and counted. The next line that can be written
//! follows one that reports the count.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{isatty, write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Largest single write, in octets: what a writable pipe takes as a whole (`PIPE_BUF`, `linux/limits.h`; pipe(7)).
const CHUNK: usize = 4096;

/// A line writer and the number of lines it dropped.
#[derive(Debug)]
pub(crate) struct LogWriter<F> {
    fd: F,
    mode: WriteMode,
    lost: u64,
    /// The last line was written in part and has no line end.
    truncated: bool,
}

/// How a write is kept from blocking.
#[derive(Debug)]
enum WriteMode {
    /// Through this non-blocking descriptor of an open file description of our own.
    OwnDescription(OwnedFd),
    /// Directly, if this reports `EPOLLOUT`.
    Polled(Epoll),
    /// Directly: the file never blocks.
    Direct,
}

/// The write would block, or failed for good.
#[derive(Debug)]
struct WouldBlock;

impl<F: AsFd> LogWriter<F> {
    /// Chooses the mode for `fd`.
    pub(crate) fn new(fd: F) -> Self {
        let mode = reopen(&fd).map(WriteMode::OwnDescription).unwrap_or_else(|_| polled(&fd));
        Self { fd, mode, lost: 0, truncated: false }
    }

    /// Writes `line`, which includes its line end, or counts it as lost. `lost_line` makes the line that
    /// reports the count.
    pub(crate) fn write(&mut self, line: &str, lost_line: impl FnOnce(u64) -> String) {
        if self.lost > 0 && self.write_line(&lost_line(self.lost)).is_ok() {
            self.lost = 0;
        }
        // Lines stay in order: none is written before the report of those lost earlier.
        if self.lost > 0 || self.write_line(line).is_err() {
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn write_line(&mut self, line: &str) -> Result<(), WouldBlock> {
        if self.truncated {
            self.write_all(b"\n")?;
            self.truncated = false;
        }
        self.write_all(line.as_bytes())
    }

    fn write_all(&mut self, octets: &[u8]) -> Result<(), WouldBlock> {
        let mut rest = octets;
        while let Some(chunk) = rest.chunks(CHUNK).next() {
            let count = self
                .write_once(chunk)
                .inspect_err(|_| self.truncated |= rest.len() < octets.len())?;
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    fn write_once(&self, chunk: &[u8]) -> Result<usize, WouldBlock> {
        loop {
            let result = match &self.mode {
                WriteMode::OwnDescription(own) => write(own, chunk),
                WriteMode::Polled(epoll) if !is_writable(epoll) => return Err(WouldBlock),
                WriteMode::Polled(_) | WriteMode::Direct => write(&self.fd, chunk),
            };
            match result {
                Ok(0) => return Err(WouldBlock),
                Ok(count) => return Ok(count),
                Err(Errno::EINTR) => {}
                // There is nowhere to report the error.
                Err(_) => return Err(WouldBlock),
            }
        }
    }
}

/// Opens a second description of a pipe or a terminal. Another device could have side effects when
/// opened, and a regular file would get a second file position.
fn reopen(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    let is_pipe = SFlag::from_bits_truncate(fstat(&fd)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO;
    if !is_pipe && !isatty(&fd)? {
        return Err(Errno::EOPNOTSUPP);
    }
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    open(path.as_str(), flags, Mode::empty())
}

fn polled(fd: impl AsFd) -> WriteMode {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).and_then(|epoll| {
        epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLOUT, 0))?;
        Ok(epoll)
    });
    // A file that cannot be polled (EPERM) never blocks.
    epoll.map_or(WriteMode::Direct, WriteMode::Polled)
}

/// Whether a write of a [`CHUNK`] would not block; a write that would fail does not.
fn is_writable(epoll: &Epoll) -> bool {
    let mut event = [EpollEvent::empty()];
    matches!(epoll.wait(&mut event, EpollTimeout::ZERO), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use nix::unistd::{pipe, read};

    fn lost_line(count: u64) -> String {
        format!("{count} lost\n")
    }

    /// Writes lines until one is lost, and returns how many were written.
    fn fill(writer: &mut LogWriter<OwnedFd>, line: &str) -> usize {
        let mut written = 0;
        loop {
            writer.write(line, lost_line);
            if writer.lost > 0 {
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

    /// Hangs if a write blocks.
    #[test]
    fn lines_that_would_block_are_lost_and_reported_before_the_next() {
        let flags = SockFlag::empty();
        let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap();
        let refused = |(reader, writer): (OwnedFd, OwnedFd)| {
            let mode = polled(&writer);
            (reader, LogWriter { fd: writer, mode, lost: 0, truncated: false })
        };
        let found = |(reader, writer): (OwnedFd, OwnedFd)| (reader, LogWriter::new(writer));
        for (reader, mut writer) in [found(pipe().unwrap()), refused(pipe().unwrap()), found(pair)]
        {
            let written = fill(&mut writer, "a line\n");
            assert!(written > 4, "{written} {writer:?}");
            writer.write("another\n", lost_line);
            assert_eq!(writer.lost, 2);
            assert_eq!(drain(&reader), "a line\n".repeat(written));

            writer.write("the next\n", lost_line);
            writer.write("and one more\n", lost_line);
            assert_eq!(drain(&reader), "2 lost\nthe next\nand one more\n");
        }
    }

    #[test]
    fn a_line_that_was_cut_is_ended_before_the_next() {
        let (reader, writer) = pipe().unwrap();
        let mut writer = LogWriter::new(writer);
        // Three pages each, of which a pipe has sixteen.
        let long = format!("{}\n", "x".repeat(2 * CHUNK));
        let written = fill(&mut writer, &long);
        let text = drain(&reader);
        assert!(text.len() > written * long.len(), "none was cut");

        writer.write("the next\n", lost_line);
        assert_eq!(drain(&reader), "\n1 lost\nthe next\n");
    }

    #[test]
    fn a_pipe_has_a_description_of_its_own_and_that_of_others_still_blocks() {
        let (_reader, writer) = pipe().unwrap();
        let writer = LogWriter::new(writer);
        assert!(matches!(writer.mode, WriteMode::OwnDescription(_)), "{writer:?}");
        let flags = OFlag::from_bits_retain(fcntl(&writer.fd, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
    }

    #[test]
    fn a_file_is_written_to_where_others_write_too() {
        let path = std::env::temp_dir().join(format!("pasta-writer-{}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        let mut other = file.try_clone().unwrap();
        let mut writer = LogWriter::new(file);
        assert!(matches!(writer.mode, WriteMode::Direct), "{writer:?}");
        writer.write("one\n", lost_line);
        std::io::Write::write_all(&mut other, b"two\n").unwrap();
        writer.write("three\n", lost_line);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_nobody_reads_any_more_is_lost_without_an_end() {
        let (reader, writer) = pipe().unwrap();
        let mut writer = LogWriter::new(writer);
        drop(reader);
        writer.write("one\n", lost_line);
        writer.write("two\n", lost_line);
        assert_eq!(writer.lost, 2);
    }
}
