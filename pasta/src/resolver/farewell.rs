//! Letting go of an inotify descriptor without waiting for it.
//!
//! Who closes the last descriptor of an inotify instance waits until nobody in the kernel looks at its
//! watches any more (`fsnotify_destroy_group()`, fs/notify/group.c): 6 to 16 ms, most of what was
//! between COMMAND's end and ours. So it goes into a message on its way to a socket whose only
//! descriptor is in that message too. Nobody can ever receive it, and since Linux 6.9 the kernel's
//! collector of such sockets (net/unix/garbage.c) closes what is in it in a thread of its own. Before,
//! whoever closes the sender waits as ever.

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use std::io::IoSlice;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A descriptor that the kernel closes when it has the time.
#[derive(Debug)]
pub(super) struct Unhurried<T: AsFd> {
    inner: T,
    /// Receiver and sender, made before this process is confined; none where they could not be. Fields
    /// are dropped in order: closing the sender, last, has the collector look.
    ends: Option<(OwnedFd, OwnedFd)>,
}

impl<T: AsFd> Unhurried<T> {
    /// Takes over `inner`.
    pub(super) fn new(inner: T) -> Self {
        let pair = (AddressFamily::Unix, SockType::Datagram);
        let ends = socketpair(pair.0, pair.1, None, SockFlag::SOCK_CLOEXEC).ok();
        Self { inner, ends }
    }
}

impl<T: AsFd> Deref for Unhurried<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: AsFd> Drop for Unhurried<T> {
    fn drop(&mut self) {
        let Some((receiver, sender)) = &self.ends else { return };
        let inside = [self.inner.as_fd().as_raw_fd(), receiver.as_raw_fd()];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        // Where it cannot be sent, closing takes its time.
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
    fn what_is_let_go_of_is_closed_in_the_end() {
        let (read, write) = pipe().unwrap();
        let unhurried = Unhurried::new(write);
        assert!(unhurried.ends.is_some());
        drop(unhurried);
        // The last writer has gone.
        let mut fds = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(60_000_u16)), Ok(1));
        assert_eq!(fds[0].revents(), Some(PollFlags::POLLHUP));
    }
}
