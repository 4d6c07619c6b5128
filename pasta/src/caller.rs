//! What the caller of `pasta` gave this process, and what of it COMMAND gets.
//!
//! Umask and the limits on core files and descriptors are COMMAND's as if we were not there. Signals
//! are not: it starts with none blocked, and with the default meaning of each. A caller that blocks or
//! ignores some does so for itself, and a COMMAND that cannot be ended by TERM or by a closed pipe is
//! the usual result. Three are ignored on purpose, HUP by nohup(1), INT and QUIT by a shell for what it
//! runs in the background of a script: where the caller ignores these, COMMAND does.

use crate::sys;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, umask};
use std::io;

/// Signals that the supervisor and process 1 read from a descriptor instead of taking them.
pub(crate) const WATCHED: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGCHLD,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Signals that COMMAND ignores where the caller does.
const LEFT_IGNORED: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];

/// What was changed at the start, as the caller had it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    umask: Mode,
    core: (rlim_t, rlim_t),
    descriptors: (rlim_t, rlim_t),
}

impl Caller {
    /// Takes this process over from the caller: closes the descriptors that are not ours to have,
    /// makes it non-dumpable, and notes what it changes.
    ///
    /// Only the soft limit on core files is lowered: the hard one could not be given back to
    /// COMMAND, and the supervisor gives it up once COMMAND has been started.
    ///
    /// # Errors
    ///
    /// Where one of these is refused, which no kernel that we know does.
    pub(crate) fn take_over() -> io::Result<Self> {
        prctl::set_dumpable(false)?;
        sys::close_from(3)?;
        let core = getrlimit(Resource::RLIMIT_CORE)?;
        setrlimit(Resource::RLIMIT_CORE, 0, core.1)?;
        // Listeners and flows are descriptors, and the helpers get this limit from us.
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, descriptors.1, descriptors.1)?;
        // Ignored, as a careless caller leaves it, it would reap our children for us.
        sys::default_disposition(libc::SIGCHLD)?;
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched()), None)?;
        Ok(Self { umask: umask(Mode::from_bits_truncate(0o077)), core, descriptors })
    }

    /// Gives back what is COMMAND's, in the process that is about to become it, and lets signals
    /// through.
    ///
    /// # Errors
    ///
    /// As [`Caller::take_over`].
    pub(crate) fn restore(&self) -> io::Result<()> {
        umask(self.umask);
        setrlimit(Resource::RLIMIT_CORE, self.core.0, self.core.1)?;
        setrlimit(Resource::RLIMIT_NOFILE, self.descriptors.0, self.descriptors.1)?;
        // PIPE among them, which Rust's runtime has ignored since before `main`. The C library keeps
        // two for itself, and KILL and STOP cannot mean anything else.
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

/// [`WATCHED`] as a set.
pub(crate) fn watched() -> SigSet {
    WATCHED.into_iter().collect()
}
