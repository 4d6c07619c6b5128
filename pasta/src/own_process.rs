//! Ending and stopping this process by a signal, once it is confined.

use crate::sys;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::getpid;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// This process, as one to signal.
#[derive(Clone, Debug)]
pub(crate) struct OwnProcess(Rc<OwnedFd>);

impl OwnProcess {
    /// Opens it: a confined process cannot.
    ///
    /// # Errors
    ///
    /// As pidfd_open(2).
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self(Rc::new(sys::pidfd_open(getpid())?)))
    }

    /// Ends this process by `signal`, one of those that are blocked here, unless the caller ignores it.
    pub(crate) fn die_of(&self, signal: Signal) {
        let blocked: SigSet = [signal].into_iter().collect();
        // If one of these fails, the exit status says it.
        let _ = sys::pidfd_send_signal(&*self.0, signal);
        let _ = blocked.thread_unblock();
    }

    /// Stops this process by `signal`, as COMMAND was, and returns when it was continued. In a process group
    /// that nobody could continue only SIGSTOP stops it (setpgid(2), orphaned process groups).
    pub(crate) fn stop_by(&self, signal: Signal) {
        let stopping: SigSet = [signal].into_iter().collect();
        // If one of these fails, we go on, and COMMAND with us.
        let _ = sys::pidfd_send_signal(&*self.0, signal);
        let _ = stopping.thread_unblock();
        if signal != Signal::SIGSTOP {
            let _ = stopping.thread_block();
        }
    }
}
