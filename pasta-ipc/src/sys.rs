#![allow(unsafe_code)]
//! Taking ownership of descriptors that the kernel has just made for us.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes ownership of descriptors that `recvmsg` delivered in one `SCM_RIGHTS` record.
pub(crate) fn own_received(fds: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: the kernel has installed each number in our table for this very message and nobody
    // else has seen it, so we are its only owner; each is wrapped exactly once.
    fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}
