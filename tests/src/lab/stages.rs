//! The start of a program, stopped at each call by which it gives up power (seccomp_unotify(2)). Nobody traces it.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::wait::PATIENCE;
use crate::sys::{self, HeldCall};
use crate::{Outcome, lab::process::Process};

/// Calls by which a process changes what it may do, or becomes another program.
pub const CALLS: [libc::c_long; 12] = [
    libc::SYS_execveat,
    libc::SYS_prctl,
    libc::SYS_capset,
    libc::SYS_setsid,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_landlock_restrict_self,
    libc::SYS_seccomp,
    libc::SYS_setresuid,
];

/// Number of the listener in the program: one that nothing else has.
const LISTENER: i32 = 200;

/// A program that starts, with all that it starts. Killed when dropped.
#[derive(Debug)]
pub struct Stages {
    child: Child,
    listener: OwnedFd,
}

impl Stages {
    /// Starts `command`.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or `EPERM` for who may not look at it.
    pub fn start(mut command: Command) -> Outcome<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        sys::hold_calls(&mut command, &CALLS, LISTENER);
        let child = command.spawn()?;
        let listener = sys::descriptor_of(child.id() as i32, LISTENER)?;
        Ok(Self { child, listener })
    }

    /// Goes through the start to the end of the program: `look` is called with each process that waits in a call, and
    /// what the call is.
    ///
    /// # Errors
    ///
    /// What `look` gives; when it does not end.
    pub fn each(
        mut self,
        mut look: impl FnMut(&Process, HeldCall) -> Outcome,
    ) -> Outcome<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(20_u8))? == 0 {
                continue;
            }
            // One that was killed in the call is no more.
            let Ok(held) = sys::next_held(&self.listener) else { continue };
            if let Some(process) = Process::read(held.pid) {
                look(&process, held)?;
            }
            let _ = sys::go_on(&self.listener, held);
        }
        Err("the program does not end".into())
    }
}

impl Drop for Stages {
    fn drop(&mut self) {
        // Both fail only for a process that was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
