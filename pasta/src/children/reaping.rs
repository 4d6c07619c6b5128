//! The end of a child.

use crate::sys::Child;
use crate::termination::Termination;
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use std::os::fd::AsFd;

/// Reaps `child` if it has ended.
pub(super) fn ended(child: &Child) -> Option<Termination> {
    reap(child, WaitPidFlag::WNOHANG)
}

/// As [`ended`], and drops it: epoll forgets its pidfd.
pub(super) fn take_ended(child: &mut Option<Child>) -> Option<Termination> {
    let termination = child.as_ref().and_then(ended)?;
    *child = None;
    Some(termination)
}

/// Reaps `child`; waits for its end unless `flags` say otherwise.
pub(super) fn reap(child: &Child, flags: WaitPidFlag) -> Option<Termination> {
    loop {
        match waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED | flags) {
            Ok(WaitStatus::StillAlive) => return None,
            Ok(status) => return Some(Termination::from(status)),
            Err(Errno::EINTR) => {}
            // Already reaped: its status is lost.
            Err(_) => return Some(Termination::Unknown),
        }
    }
}
