//! How a process ended, and the exit status that follows.

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::fmt;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Termination {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Killed(Signal),
    /// Not known.
    Unknown,
}

impl From<WaitStatus> for Termination {
    fn from(status: WaitStatus) -> Self {
        match status {
            WaitStatus::Exited(_, status) => Self::Exited(status),
            WaitStatus::Signaled(_, signal, _) => Self::Killed(signal),
            _ => Self::Unknown,
        }
    }
}

impl Termination {
    /// The exit status as a shell reports it: the status, or 128 plus the signal.
    pub(crate) fn as_exit_status(self) -> i32 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => interrupted(signal),
            Self::Unknown => 1,
        }
    }
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "ended with status {status}"),
            Self::Killed(Signal::SIGSYS) => {
                f.write_str("was killed by SIGSYS (a system call that its filter does not allow)")
            }
            Self::Killed(signal) => write!(f, "was killed by {signal}"),
            Self::Unknown => f.write_str("ended in an unknown way"),
        }
    }
}

/// The exit status of a process that `signal` has ended.
pub(crate) fn interrupted(signal: Signal) -> i32 {
    128 + signal as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::Pid;

    #[test]
    fn status_is_the_commands_own_or_128_and_its_signal() {
        let pid = Pid::from_raw(7);
        let status = |status| Termination::from(status).as_exit_status();
        assert_eq!(status(WaitStatus::Exited(pid, 0)), 0);
        assert_eq!(status(WaitStatus::Exited(pid, 255)), 255);
        assert_eq!(status(WaitStatus::Signaled(pid, Signal::SIGTERM, false)), 143);
        assert_eq!(status(WaitStatus::Signaled(pid, Signal::SIGSEGV, true)), 139);
        assert_eq!(status(WaitStatus::StillAlive), 1);
    }

    #[test]
    fn filter_is_named_where_it_killed() {
        assert!(Termination::Killed(Signal::SIGSYS).to_string().contains("filter"));
        assert_eq!(Termination::Killed(Signal::SIGKILL).to_string(), "was killed by SIGKILL");
        assert_eq!(Termination::Exited(3).to_string(), "ended with status 3");
    }
}
