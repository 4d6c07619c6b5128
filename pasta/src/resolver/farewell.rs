//! Letting go of an inotify descriptor without waiting for it.
//!
//! Who closes the last descriptor of an inotify instance waits until nobody in the kernel looks at its
//! watches any more (`fsnotify_destroy_group()`, fs/notify/group.c): 6 to 16 ms, most of what was
//! between COMMAND's end and ours. So it goes into a message on its way to a socket whose only
//! descriptor is in that message too. Nobody can ever receive it, and since Linux 6.9 the kernel's
//! collector of such sockets (net/unix/garbage.c) closes what is in it in a thread of its own. Before,
//! whoever closes the sender waits as ever.

use nix::sys::inotify::{InitFlags, Inotify};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use std::io::IoSlice;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// An inotify instance that is closed by the kernel when it has the time.
#[derive(Debug)]
pub(super) struct Unhurried {
    inotify: Inotify,
    /// Receiver and sender, made before this process is confined; none where they could not be. Fields
    /// are dropped in order: closing the sender, last, has the collector look.
    ends: Option<(OwnedFd, OwnedFd)>,
}

impl Unhurried {
    /// A new instance.
    pub(super) fn init(flags: InitFlags) -> nix::Result<Self> {
        let inotify = Inotify::init(flags)?;
        let pair = (AddressFamily::Unix, SockType::Datagram);
        let ends = socketpair(pair.0, pair.1, None, SockFlag::SOCK_CLOEXEC).ok();
        Ok(Self { inotify, ends })
    }
}

impl Deref for Unhurried {
    type Target = Inotify;

    fn deref(&self) -> &Inotify {
        &self.inotify
    }
}

impl Drop for Unhurried {
    fn drop(&mut self) {
        let Some((receiver, sender)) = &self.ends else { return };
        let inside = [self.inotify.as_fd().as_raw_fd(), receiver.as_raw_fd()];
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
    use nix::sys::inotify::AddWatchFlags;
    use std::time::{Duration, Instant};

    /// How many inotify instances this user may have, and so whether those let go of are closed.
    const ROUNDS: usize = 300;

    #[test]
    fn what_is_let_go_of_is_closed_in_the_end() {
        let deadline = Instant::now() + Duration::from_secs(60);
        for round in 0..ROUNDS {
            // The kernel allows a user 128 of them by default: those before must have gone.
            let made = loop {
                match Unhurried::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK) {
                    Ok(made) => break made,
                    Err(errno) => {
                        assert!(Instant::now() < deadline, "{errno} in round {round}");
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            };
            made.add_watch("/", AddWatchFlags::IN_CREATE).unwrap();
        }
    }
}
