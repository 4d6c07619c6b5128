//! Which signals are COMMAND's, and where a signal came from.

use nix::libc::{self, signalfd_siginfo};
use nix::sys::signal::Signal;

/// Who sent a signal, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The kernel, for a key at the terminal or its loss: `SI_KERNEL`. The whole foreground process
    /// group has got it.
    Terminal,
    /// A process that this PID namespace does not see.
    Outside,
    /// A process of this PID namespace.
    Process,
}

/// A signal that was read from a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// Which one; none for a number without a name.
    pub(crate) signal: Option<Signal>,
    /// Who sent it.
    pub(crate) sender: Sender,
}

impl From<&signalfd_siginfo> for Arrived {
    fn from(info: &signalfd_siginfo) -> Self {
        Self::new(info.ssi_signo, info.ssi_code, info.ssi_pid)
    }
}

impl Arrived {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(signal: i32, code: i32, pid: u32) -> Arrived {
        Arrived::new(signal.unsigned_abs(), code, pid)
    }

    #[test]
    fn sender_is_told_by_code_and_pid() {
        let sender = |code, pid| arrived(libc::SIGTERM, code, pid).sender;
        assert_eq!(sender(libc::SI_KERNEL, 0), Sender::Terminal);
        assert_eq!(sender(libc::SI_USER, 0), Sender::Outside);
        assert_eq!(sender(libc::SI_USER, 77), Sender::Process);
        assert_eq!(sender(libc::SI_QUEUE, 77), Sender::Process);
    }

    #[test]
    fn four_signals_are_the_commands() {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
            assert!(arrived(signal, 0, 1).for_command().is_some());
        }
        for signal in [libc::SIGCHLD, libc::SIGUSR1, libc::SIGUSR2, 40] {
            assert_eq!(arrived(signal, 0, 1).for_command(), None);
        }
    }
}
