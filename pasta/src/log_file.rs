//! The log file (`-l`): created or emptied at start, and kept below a size.
//!
//! ```text
//! pasta 0.1.0: /usr/bin/pasta (1234)
//! 0.0012: info:    host: IPv4 bound eth0(2): 192.0.2.7/24 via 192.0.2.1
//! ```
//!
//! Each line begins with the seconds since the start. Before a line that would exceed the size, the oldest
//! 30 % of the lines are removed, and the first line says so. A line that cannot be written (full disk, a
//! limit on file sizes) is counted, and the file is tried again after a minute.

use crate::pid_file::open_regular;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{Pid, ftruncate};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Octets copied at once when old lines are removed. Chosen.
const BLOCK: usize = 64 * 1024;

/// How long the file is left alone after an error.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The log file.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: OwnedFd,
    /// The first line, without its end.
    header: String,
    /// Its length, in octets.
    length: u64,
    /// Its largest length.
    size: u64,
    lost: u64,
    retry_at: Option<Instant>,
}

/// The file cannot be opened.
#[derive(Debug)]
pub(crate) struct LogFileError {
    path: PathBuf,
    cause: io::Error,
}

impl fmt::Display for LogFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write log file {} (-l)", self.path.display())
    }
}

impl std::error::Error for LogFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// What came of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is in the file.
    Yes,
    /// It is lost, as others were before.
    Lost,
    /// It is the first one that is lost, for this reason.
    FirstLost(Errno),
}

impl LogFile {
    /// Creates or empties the file; it holds `size` octets at most. `pid` is the process that writes it.
    ///
    /// # Errors
    ///
    /// [`LogFileError`].
    pub(crate) fn create(path: &Path, size: u64, pid: Pid) -> Result<Self, LogFileError> {
        let failed = |cause| LogFileError { path: path.to_owned(), cause };
        let file = open_regular(path, OFlag::O_RDWR).map_err(failed)?;
        ftruncate(&file, 0).map_err(|errno| failed(errno.into()))?;
        let program = std::env::current_exe().unwrap_or_else(|_| "pasta".into());
        let version = env!("CARGO_PKG_VERSION");
        let header = format!("pasta {version}: {} ({pid})", program.display());
        let mut log = Self { file, header, length: 0, size, lost: 0, retry_at: None };
        let first = format!("{}\n", log.header);
        log.append(first.as_bytes()).map_err(|errno| failed(errno.into()))?;
        Ok(log)
    }

    /// Writes `line`, which includes its end, at the time `now`.
    pub(crate) fn write(&mut self, line: &str, now: Instant) -> Written {
        if self.retry_at.is_some_and(|at| now < at) {
            self.lost += 1;
            return Written::Lost;
        }
        let result = match self.lost {
            0 => Ok(()),
            lost => self
                .append(format!("{lost} lines lost: the file could not be written\n").as_bytes()),
        };
        match result.and_then(|()| self.append(line.as_bytes())) {
            Ok(()) => {
                self.lost = 0;
                self.retry_at = None;
                Written::Yes
            }
            Err(errno) => {
                let first = self.lost == 0;
                self.lost += 1;
                self.retry_at = Some(now + RETRY_AFTER);
                if first { Written::FirstLost(errno) } else { Written::Lost }
            }
        }
    }

    /// Appends `octets`, after removing old lines if they do not fit.
    fn append(&mut self, octets: &[u8]) -> Result<(), Errno> {
        if self.length + octets.len() as u64 > self.size {
            self.shorten()?;
        }
        // A line longer than the file is cut.
        let room = usize::try_from(self.size.saturating_sub(self.length)).unwrap_or(usize::MAX);
        let octets = octets.get(..octets.len().min(room)).unwrap_or_default();
        self.write_at(octets, self.length)?;
        self.length += octets.len() as u64;
        Ok(())
    }

    /// Removes the oldest lines, three tenths of the size, and writes the first line again.
    fn shorten(&mut self) -> Result<(), Errno> {
        let header = format!("{} [older lines were removed]\n", self.header);
        let mut from = self.next_line(self.size / 10 * 3)?;
        self.write_at(header.as_bytes(), 0)?;
        let mut to = header.len() as u64;
        let mut block = vec![0; BLOCK];
        while from < self.length {
            let count = self.read_at(&mut block, from)?;
            if count == 0 {
                break;
            }
            // `to` stays below `from`: three tenths of the smallest size are longer than the header.
            self.write_at(block.get(..count).unwrap_or_default(), to)?;
            from += count as u64;
            to += count as u64;
        }
        ftruncate(&self.file, i64::try_from(to).unwrap_or(i64::MAX))?;
        self.length = to;
        Ok(())
    }

    /// The beginning of the first line that begins at `offset` or after it.
    fn next_line(&self, offset: u64) -> Result<u64, Errno> {
        let mut block = vec![0; BLOCK];
        let mut at = offset;
        while at < self.length {
            let count = self.read_at(&mut block, at)?;
            let read = block.get(..count).unwrap_or_default();
            if let Some(end) = read.iter().position(|octet| *octet == b'\n') {
                return Ok(at + end as u64 + 1);
            }
            if count == 0 {
                break;
            }
            at += count as u64;
        }
        Ok(self.length)
    }

    fn read_at(&self, block: &mut [u8], offset: u64) -> Result<usize, Errno> {
        loop {
            match pread(&self.file, block, i64::try_from(offset).unwrap_or(i64::MAX)) {
                Err(Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    fn write_at(&self, octets: &[u8], offset: u64) -> Result<(), Errno> {
        let (mut rest, mut offset) = (octets, offset);
        while !rest.is_empty() {
            match pwrite(&self.file, rest, i64::try_from(offset).unwrap_or(i64::MAX)) {
                Ok(0) => return Err(Errno::ENOSPC),
                Ok(count) => {
                    rest = rest.get(count..).unwrap_or_default();
                    offset += count as u64;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn created(name: &str, size: u64) -> (PathBuf, LogFile) {
        let path = std::env::temp_dir().join(format!("pasta-log-{name}-{}", std::process::id()));
        fs::write(&path, "what was there before\n").unwrap();
        let log = LogFile::create(&path, size, Pid::from_raw(42)).unwrap();
        (path, log)
    }

    #[test]
    fn file_is_emptied_and_begins_with_program_and_process() {
        let (path, mut log) = created("header", 40_960);
        assert_eq!(log.write("0.1: one\n", Instant::now()), Written::Yes);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("pasta ") && lines[0].ends_with(" (42)"), "{text}");
        assert_eq!(lines[1], "0.1: one");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn size_is_kept_and_the_newest_lines_stay_whole() {
        let (path, mut log) = created("size", 40_960);
        for number in 0..5000 {
            log.write(&format!("line {number} {}\n", "x".repeat(number % 90)), Instant::now());
            assert!(fs::metadata(&path).unwrap().len() <= 40_960);
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() > 40_960 / 2, "{} octets", text.len());
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].contains("older lines were removed"), "{}", lines[0]);
        let first: usize = lines[1].split(' ').nth(1).unwrap().parse().unwrap();
        for (line, number) in lines[1..].iter().zip(first..) {
            assert_eq!(*line, format!("line {number} {}", "x".repeat(number % 90)));
        }
        assert!(lines.last().unwrap().starts_with("line 4999"));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn after_an_error_lines_are_counted_and_the_file_is_tried_again_later() {
        let (path, log) = created("full", 40_960);
        let full = OwnedFd::from(fs::File::options().write(true).open("/dev/full").unwrap());
        let mut broken = LogFile { file: full, ..log };
        let start = Instant::now();
        assert_eq!(broken.write("one\n", start), Written::FirstLost(Errno::ENOSPC));
        assert_eq!(broken.write("two\n", start), Written::Lost);
        let file = OwnedFd::from(fs::File::options().write(true).open(&path).unwrap());
        let mut mended = LogFile { file, ..broken };
        assert_eq!(mended.write("three\n", start + RETRY_AFTER / 2), Written::Lost);
        assert_eq!(mended.write("four\n", start + RETRY_AFTER), Written::Yes);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("\n3 lines lost: the file could not be written\nfour\n"), "{text}");
        fs::remove_file(path).unwrap();
    }
}
