//! Received signals: their origin, and whether they are passed on to COMMAND.

use nix::libc::{self, signalfd_siginfo};
use nix::sys::signal::Signal;

/// The origin of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The kernel, for a key at the terminal or its hang-up: `SI_KERNEL`. It is sent to the whole
    /// foreground process group.
    Terminal,
    /// A process outside this PID namespace.
    Outside,
    /// A process of this PID namespace.
    Process,
}

/// A signal that was read from a signalfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReceivedSignal {
    /// Which one; none for a number without a name.
    pub(crate) signal: Option<Signal>,
    /// Who sent it.
    pub(crate) sender: Sender,
}

impl From<&signalfd_siginfo> for ReceivedSignal {
    fn from(info: &signalfd_siginfo) -> Self {
        Self::new(info.ssi_signo, info.ssi_code, info.ssi_pid)
    }
}

impl ReceivedSignal {
    fn new(number: u32, code: i32, pid: u32) -> Self {
        let sender = match (code, pid) {
            (libc::SI_KERNEL, _) => Sender::Terminal,
            (_, 0) => Sender::Outside,
            _ => Sender::Process,
        };
        let signal = i32::try_from(number).ok().and_then(|number| Signal::try_from(number).ok());
        Self { signal, sender }
    }

    /// The signal, if it is one of those that are passed on to COMMAND.
    pub(crate) fn for_command(self) -> Option<Signal> {
        self.signal.filter(|signal| {
            matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT)
        })
    }

    /// Whether it asks to stop until SIGCONT.
    pub(crate) fn is_stop(self) -> bool {
        self.signal == Some(Signal::SIGTSTP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(signal: i32, code: i32, pid: u32) -> ReceivedSignal {
        ReceivedSignal::new(signal.unsigned_abs(), code, pid)
    }

    #[test]
    fn sender_follows_from_code_and_pid() {
        let sender = |code, pid| received(libc::SIGTERM, code, pid).sender;
        assert_eq!(sender(libc::SI_KERNEL, 0), Sender::Terminal);
        assert_eq!(sender(libc::SI_USER, 0), Sender::Outside);
        assert_eq!(sender(libc::SI_USER, 77), Sender::Process);
        assert_eq!(sender(libc::SI_QUEUE, 77), Sender::Process);
    }

    #[test]
    fn four_signals_are_the_commands() {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
            assert!(received(signal, 0, 1).for_command().is_some());
        }
        for signal in [libc::SIGCHLD, libc::SIGUSR1, libc::SIGUSR2, 40] {
            assert_eq!(received(signal, 0, 1).for_command(), None);
        }
    }
}
