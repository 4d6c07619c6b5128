//! Going to the background: the caller's process waits until the supervisor is ready.
//!
//! The process is copied before anything is started, because the helpers are tied to the life of their
//! parent. The copy becomes the supervisor, in a session of its own. The caller's process ends with status
//! 0 when the supervisor reports that it is ready, and else with the error on standard error and status 1.

use crate::sys::{self, Child, Cloned};
use crate::termination::Termination;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use pasta_ipc::types::Text;
use pasta_ipc::{CallerToSupervisor, Channel, ReceiveError, SendError, SupervisorToCaller};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The supervisor's end of the channel to the caller's process.
#[derive(Debug)]
pub(crate) struct Caller(Channel<SupervisorToCaller, CallerToSupervisor>);

/// The two processes after [`split`].
#[derive(Debug)]
pub(crate) enum Split {
    /// The caller's process, with the exit status that follows from the supervisor's start, and what is
    /// to be printed.
    Caller(i32, Option<String>),
    /// The supervisor.
    Supervisor(Caller),
}

/// Copies this process. The original waits for the result of the start.
///
/// # Errors
///
/// What clone(2) and socketpair(2) report.
pub(crate) fn split() -> io::Result<Split> {
    let (ours, theirs) = Channel::<SupervisorToCaller, CallerToSupervisor>::pair()?;
    match sys::clone_process(0)? {
        Cloned::Parent(supervisor) => {
            drop(ours);
            // Signals end the waiting, and with it the start: the supervisor watches the channel.
            SigSet::empty().thread_set_mask()?;
            Ok(wait(&theirs, &supervisor))
        }
        Cloned::Child(_) => {
            drop(theirs);
            setsid()?;
            Ok(Split::Supervisor(Caller(ours)))
        }
    }
}

/// Waits for the message of the supervisor, or its end.
fn wait(channel: &Channel<CallerToSupervisor, SupervisorToCaller>, supervisor: &Child) -> Split {
    loop {
        match channel.receive() {
            Ok(received) => {
                return match received.message {
                    SupervisorToCaller::Ready => Split::Caller(0, None),
                    SupervisorToCaller::Failed(why) => {
                        // It has ended all that it started, and is about to end: nothing of it is left
                        // when the caller continues. If this fails, nobody has to be waited for.
                        let _ = wait_for_end(supervisor);
                        Split::Caller(1, Some(why.to_string()))
                    }
                };
            }
            Err(ReceiveError::WouldBlock) => {
                let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Split::Caller(1, Some(errno.desc().to_owned())),
                }
            }
            Err(ReceiveError::Closed) => return ended(supervisor),
            Err(error) => return Split::Caller(1, Some(error.to_string())),
        }
    }
}

/// The supervisor has ended without a message.
fn ended(supervisor: &Child) -> Split {
    match wait_for_end(supervisor) {
        // It has printed the reason.
        Ok(Termination::Exited(status)) if status != 0 => Split::Caller(status, None),
        Ok(termination) => Split::Caller(1, Some(format!("{termination} before it was ready"))),
        Err(errno) => Split::Caller(1, Some(errno.desc().to_owned())),
    }
}

fn wait_for_end(supervisor: &Child) -> nix::Result<Termination> {
    waitid(Id::PIDFd(supervisor.pidfd.as_fd()), WaitPidFlag::WEXITED).map(Termination::from)
}

impl AsFd for Caller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Caller {
    /// Reports that everything is ready.
    ///
    /// # Errors
    ///
    /// If the caller's process has ended: it was interrupted, so nobody wants the result.
    pub(crate) fn ready(&self) -> Result<(), SendError> {
        self.0.send(&SupervisorToCaller::Ready)
    }

    /// Reports why the supervisor is about to end.
    pub(crate) fn failed(&self, why: &str) {
        // If it has ended, nobody wants to know.
        let _ = self.0.send(&SupervisorToCaller::Failed(Text::truncated(why)));
    }
}

/// Leaves what is the caller's. Standard input, output and error become `/dev/null`: the caller reads its
/// own to their end. The working directory becomes the root: a file system that we are in could not be
/// unmounted.
///
/// # Errors
///
/// What open(2), dup2(2) and chdir(2) report.
pub(crate) fn leave_caller() -> io::Result<()> {
    chdir("/")?;
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}
