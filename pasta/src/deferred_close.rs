//! Closes an inotify descriptor without blocking.
//!
//! Closing the last descriptor of an inotify instance blocks until an SRCU grace period has passed
//! (`fsnotify_destroy_group()`, fs/notify/group.c): 6 to 16 ms, most of the time between COMMAND's end
//! and ours. So the descriptor is sent in an `SCM_RIGHTS` message to a socket whose only descriptor is in
//! the same message. Nobody can receive it, and since Linux 6.9 the garbage collector of Unix sockets
//! (net/unix/garbage.c) closes its contents in a kernel worker. Before, closing the sender blocks as
//! well.

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use std::io::IoSlice;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A descriptor that is closed by the garbage collector of Unix sockets.
#[derive(Debug)]
pub(crate) struct DeferredClose<T: AsFd> {
    inner: T,
    /// Receiver and sender, made before this process is confined; none where they could not be. Fields
    /// are dropped in order: closing the sender, last, has the collector close them.
    ends: Option<(OwnedFd, OwnedFd)>,
}

impl<T: AsFd> DeferredClose<T> {
    /// Wraps `inner`.
    pub(crate) fn new(inner: T) -> Self {
        let pair = (AddressFamily::Unix, SockType::Datagram);
        let ends = socketpair(pair.0, pair.1, None, SockFlag::SOCK_CLOEXEC).ok();
        Self { inner, ends }
    }
}

impl<T: AsFd> Deref for DeferredClose<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: AsFd> Drop for DeferredClose<T> {
    fn drop(&mut self) {
        let Some((receiver, sender)) = &self.ends else { return };
        let inside = [self.inner.as_fd().as_raw_fd(), receiver.as_raw_fd()];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        // If it cannot be sent, closing blocks.
        let _ = sendmsg::<()>(
            sender.as_raw_fd(),
            &[IoSlice::new(&[0])],
            &[ControlMessage::ScmRights(&inside)],
            flags,
            None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::unistd::pipe;

    #[test]
    fn dropped_descriptor_is_closed_in_the_end() {
        let (read, write) = pipe().unwrap();
        let deferred = DeferredClose::new(write);
        assert!(deferred.ends.is_some());
        drop(deferred);
        // The last writer has gone.
        let mut fds = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(60_000_u16)), Ok(1));
        assert_eq!(fds[0].revents(), Some(PollFlags::POLLHUP));
    }
}
