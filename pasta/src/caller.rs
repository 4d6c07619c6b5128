//! What the caller of `pasta` gave this process and COMMAND shall have as if we were not there:
//! umask, signal mask, limits on core files and descriptors.

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

/// What was changed at the start, as the caller had it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    umask: Mode,
    mask: SigSet,
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
        sys::default_disposition(Signal::SIGCHLD)?;
        let mut mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched()), Some(&mut mask))?;
        Ok(Self { umask: umask(Mode::from_bits_truncate(0o077)), mask, core, descriptors })
    }

    /// Gives everything back, in the process that is about to become COMMAND.
    ///
    /// # Errors
    ///
    /// As [`Caller::take_over`].
    pub(crate) fn restore(&self) -> io::Result<()> {
        umask(self.umask);
        setrlimit(Resource::RLIMIT_CORE, self.core.0, self.core.1)?;
        setrlimit(Resource::RLIMIT_NOFILE, self.descriptors.0, self.descriptors.1)?;
        // Rust's runtime has ignored it since before `main`.
        sys::default_disposition(Signal::SIGPIPE)?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None)?;
        Ok(())
    }
}

/// [`WATCHED`] as a set.
pub(crate) fn watched() -> SigSet {
    WATCHED.into_iter().collect()
}
