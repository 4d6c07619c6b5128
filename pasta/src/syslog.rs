//! The system log: the datagram socket `/dev/log`, connected at start.
//!
//! A confined supervisor can open no socket, so a logger that is started again is not reached any more;
//! lines are counted then, and the number is part of the next line that arrives.

use nix::unistd::Pid;
use pasta_ipc::types::LogLevel;
use std::os::unix::net::UnixDatagram;

/// The socket of the logger.
const PATH: &str = "/dev/log";

/// The facility `LOG_DAEMON` (syslog(3)), shifted as it is in a message.
const FACILITY: u8 = 3 << 3;

/// A connection to the logger.
#[derive(Debug)]
pub(crate) struct Syslog {
    socket: UnixDatagram,
    pid: Pid,
    lost: u64,
}

impl Syslog {
    /// Connects to the logger; none if there is none.
    pub(crate) fn connect(pid: Pid) -> Option<Self> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(PATH).ok()?;
        Self::of(socket, pid)
    }

    fn of(socket: UnixDatagram, pid: Pid) -> Option<Self> {
        socket.set_nonblocking(true).ok()?;
        Some(Self { socket, pid, lost: 0 })
    }

    /// Sends a line without its end, without blocking.
    pub(crate) fn write(&mut self, level: LogLevel, text: &str) {
        let priority = FACILITY | severity(level);
        let head = format!("<{priority}>pasta[{}]: ", self.pid);
        let line = match self.lost {
            0 => format!("{head}{text}"),
            lost => format!("{head}[{lost} lines lost] {text}"),
        };
        match self.socket.send(line.as_bytes()) {
            Ok(_) => self.lost = 0,
            Err(_) => self.lost += 1,
        }
    }
}

/// The number of a level (syslog(3)).
fn severity(level: LogLevel) -> u8 {
    match level {
        LogLevel::Error => 3,
        LogLevel::Warn => 4,
        LogLevel::Notice => 5,
        LogLevel::Info => 6,
        LogLevel::Debug | LogLevel::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_priority_name_and_process() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut log = Syslog::of(ours, Pid::from_raw(42)).unwrap();
        log.write(LogLevel::Warn, "something");
        let mut buffer = [0; 100];
        let count = theirs.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"<28>pasta[42]: something");
    }

    #[test]
    fn lines_that_the_logger_does_not_take_are_counted() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut log = Syslog::of(ours, Pid::from_raw(42)).unwrap();
        for _ in 0..10_000 {
            log.write(LogLevel::Info, "one");
        }
        assert!(log.lost > 0);
        let lost = log.lost;
        theirs.set_nonblocking(true).unwrap();
        let mut buffer = [0; 100];
        while theirs.recv(&mut buffer).is_ok() {}
        log.write(LogLevel::Info, "last");
        let count = theirs.recv(&mut buffer).unwrap();
        let wanted = format!("<30>pasta[42]: [{lost} lines lost] last");
        assert_eq!(std::str::from_utf8(&buffer[..count]), Ok(wanted.as_str()));
    }
}
