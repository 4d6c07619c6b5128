//! Process state inherited through exec, and the part of it that COMMAND gets back.
//!
//! COMMAND gets the umask and the limits on core files and descriptors as we got them. Signals are reset:
//! COMMAND starts with none blocked and with default dispositions, because a caller that blocks or ignores
//! TERM or PIPE means itself. Three exceptions are ignored on purpose, HUP by nohup(1), INT and QUIT by a
//! shell for background jobs of a script: if they are ignored when we start, COMMAND ignores them too.

use crate::sys;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, umask};
use std::io;

/// Signals that the supervisor and process 1 block and read from a signalfd.
pub(crate) const HANDLED_SIGNALS: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGCHLD,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
];

/// Signals that they only block: they stop when COMMAND is stopped, and may write to the terminal.
const BLOCKED_SIGNALS: [Signal; 2] = [Signal::SIGTTIN, Signal::SIGTTOU];

/// Signals that COMMAND ignores if we inherited them ignored.
const LEFT_IGNORED: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];

/// What this process changes at start, with the inherited values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InheritedState {
    umask: Mode,
    core: (rlim_t, rlim_t),
    descriptors: (rlim_t, rlim_t),
}

impl InheritedState {
    /// Records the inherited state and changes it to ours: clears the dumpable flag, disables
    /// core files, raises the limit of descriptors, blocks signals. A limit on file sizes becomes an error
    /// of write(2) instead of our end. Opens no descriptor.
    ///
    /// Only the soft limit on core files is lowered: the hard one could not be raised again for COMMAND.
    /// The supervisor lowers it once COMMAND has been started.
    ///
    /// # Errors
    ///
    /// If a system call fails, which no supported kernel does.
    pub(crate) fn take() -> io::Result<Self> {
        prctl::set_dumpable(false)?;
        let core = getrlimit(Resource::RLIMIT_CORE)?;
        setrlimit(Resource::RLIMIT_CORE, 0, core.1)?;
        // Listeners and flows need descriptors, and the helpers inherit this limit.
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, descriptors.1, descriptors.1)?;
        // If it were ignored, the kernel would reap our children.
        sys::default_disposition(libc::SIGCHLD)?;
        sys::ignore_signal(libc::SIGXFSZ)?;
        let blocked = handled_signals().into_iter().chain(BLOCKED_SIGNALS).collect();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None)?;
        Ok(Self { umask: umask(Mode::from_bits_truncate(0o077)), core, descriptors })
    }

    /// Restores the inherited state and unblocks signals, in the process that is about to exec COMMAND.
    ///
    /// # Errors
    ///
    /// As [`InheritedState::take`].
    pub(crate) fn restore(&self) -> io::Result<()> {
        umask(self.umask);
        setrlimit(Resource::RLIMIT_CORE, self.core.0, self.core.1)?;
        setrlimit(Resource::RLIMIT_NOFILE, self.descriptors.0, self.descriptors.1)?;
        // This includes PIPE, which Rust's runtime ignores before `main`. The C library reserves two
        // signals, and KILL and STOP cannot be changed.
        let left = LEFT_IGNORED.map(|signal| signal as libc::c_int);
        for number in (1..=libc::SIGRTMAX()).filter(|number| !left.contains(number)) {
            match sys::default_disposition(number) {
                Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
                _ => {}
            }
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        Ok(())
    }
}

/// [`HANDLED_SIGNALS`] as a set.
pub(crate) fn handled_signals() -> SigSet {
    HANDLED_SIGNALS.into_iter().collect()
}
