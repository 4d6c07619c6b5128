#![allow(unsafe_code)]
//! System calls that no dependency wraps, and taking ownership of descriptors fresh from the
//! kernel.

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The two returns of [`clone_process`].
#[derive(Debug)]
pub(crate) enum Cloned {
    /// In the process that called; the descriptor is a pidfd of the child.
    Parent(Child),
    /// In the new process.
    Child,
}

/// A child process that has not been reaped.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its number in our pid namespace; stays its own until it is reaped.
    pub(crate) pid: Pid,
    /// Becomes readable when it ends.
    pub(crate) pidfd: OwnedFd,
}

/// Makes a copy of this process, as fork(2) does, in the new namespaces that `namespaces` names
/// (`CLONE_NEW*`, see clone(2)).
///
/// The C library does not know of the child: its cached thread id is stale, so the child must not
/// call `raise` or `abort`. It must leave by [`exit_now`] or exec.
///
/// # Errors
///
/// What clone(2) reports: `ENOSPC` over a limit of namespaces, `EPERM` where user namespaces are
/// switched off.
pub(crate) fn clone_process(namespaces: libc::c_int) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let flags = namespaces | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the child runs on a copy of our memory and stack, so a null stack is
    // right; both sides go on from here with valid frames. The kernel writes one int to `pidfd`
    // (third argument on x86_64 and aarch64 alike), which is alive across the call; the pointers of
    // the last two arguments are unused without the flags for them. This process has one thread,
    // so no lock can be held by a thread that the child lacks.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags),
            std::ptr::null_mut::<libc::c_void>(),
            &raw mut pidfd,
            std::ptr::null_mut::<libc::c_void>(),
            std::ptr::null_mut::<libc::c_void>(),
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => {
            let pid = Pid::from_raw(libc::pid_t::try_from(pid).unwrap_or(-1));
            // SAFETY: with CLONE_PIDFD a successful clone has put a new descriptor there, which
            // nobody else knows of.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent(Child { pid, pidfd }))
        }
    }
}

/// A pidfd of an existing process (pidfd_open(2)).
///
/// # Errors
///
/// `ESRCH` if there is no such process.
pub(crate) fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = RawFd::try_from(check(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends `signal` to the process behind `pidfd` (pidfd_send_signal(2)): never to a stranger that
/// has got its number.
///
/// # Errors
///
/// `ESRCH` if it has been reaped.
pub(crate) fn pidfd_send_signal(pidfd: impl AsFd, signal: Signal) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks the kernel to fill in what kill(2) would; no memory of ours is
    // touched. `fd` stays open for as long as `pidfd` is borrowed.
    let rc =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as libc::c_int, info, 0) };
    check(rc).map(drop)
}

/// Closes every descriptor from `first` on.
///
/// Only for descriptors that no live value owns: those inherited from the caller, before we open
/// anything, or all of them in a process that will never run a destructor.
///
/// # Errors
///
/// `ENOSYS` before Linux 5.9.
pub(crate) fn close_from(first: libc::c_uint) -> io::Result<()> {
    // SAFETY: closing touches no memory. The callers (start of `main`, process 1 and COMMAND's
    // process before its exec) own no descriptor in that range that they would use or drop later.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) }).map(drop)
}

/// Makes `number` a duplicate of `fd` that survives exec, closing what `number` was.
///
/// Only in a process that is about to exec and owns nothing at `number`.
///
/// # Errors
///
/// What dup2(2) reports.
pub(crate) fn place(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: dup2 touches no memory. The caller is a fresh child whose own descriptors have been
    // moved above the numbers used here, so nothing that a value owns is closed.
    check(libc::c_long::from(unsafe { libc::dup2(fd.as_raw_fd(), number) })).map(drop)
}

/// Takes ownership of descriptors that `recvmsg` delivered in one `SCM_RIGHTS` record.
pub(crate) fn own_received(fds: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: the kernel has installed each number in our table for this very message and nobody
    // else has seen it, so we are its only owner; each is wrapped exactly once.
    fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

/// Takes ownership of a descriptor that fcntl(2) has just made.
///
/// # Errors
///
/// `EBADF` for a negative number.
pub(crate) fn own_new(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the caller got this number from F_DUPFD_CLOEXEC just now, so it is open and nobody
    // else owns it; -1, which an OwnedFd may not hold, has been excluded.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Sets the disposition of the signal `number` back to its default.
///
/// # Errors
///
/// `EINVAL` for `SIGKILL` and `SIGSTOP`, those that the C library keeps for itself, and what is none.
pub(crate) fn default_disposition(number: libc::c_int) -> io::Result<()> {
    // SAFETY: SIG_DFL installs no handler, so there is no code whose safety is in question.
    let before = unsafe { libc::signal(number, libc::SIG_DFL) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ends this process at once: no destructor, no exit handler, no flushing.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

fn check(rc: libc::c_long) -> io::Result<libc::c_long> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}
