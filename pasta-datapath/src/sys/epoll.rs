//! Readiness, by token.

use crate::flow::Readiness;
use crate::sys;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

/// Events taken from the kernel at once; chosen: a turn of the loop then has an end.
pub const CAPACITY: usize = 256;

/// What happened to a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it was registered with.
    pub token: u64,
    /// What happened.
    pub readiness: Readiness,
}

/// A set of descriptors to wait for. All are edge-triggered and registered for everything.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    ///
    /// As epoll_create1(2).
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; CAPACITY] })
    }

    fn interest(token: u64) -> EpollEvent {
        let flags = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLPRI
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        EpollEvent::new(flags, token)
    }

    /// Adds `fd`; closing it takes it out again.
    ///
    /// # Errors
    ///
    /// As epoll_ctl(2): `ENOSPC` or `ENOMEM` where limits are reached.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, Self::interest(token))?)
    }

    /// Adds `fd` for reading and errors; a datagram socket's every sent datagram would be an event.
    ///
    /// # Errors
    ///
    /// As [`Poller::add`].
    pub fn add_reading(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        Ok(self.epoll.add(fd, EpollEvent::new(flags, token))?)
    }

    /// Has `fd`, which was added for reading, reported under another token, and at once if it can be read.
    ///
    /// # Errors
    ///
    /// As epoll_ctl(2).
    pub fn watch_reading(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        Ok(self.epoll.modify(fd, &mut EpollEvent::new(flags, token))?)
    }

    /// Adds `fd` for reading only, reported for as long as there is something to read.
    ///
    /// # Errors
    ///
    /// As [`Poller::add`].
    pub fn add_level(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Asks for what is ready now to be reported again, and for an event when the send buffer of a
    /// socket that the kernel calls full has room.
    ///
    /// # Errors
    ///
    /// As epoll_ctl(2).
    pub fn rearm(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut Self::interest(token))?)
    }

    /// Waits at most `timeout` (none: for ever) and gives what happened; nothing after a signal.
    ///
    /// # Errors
    ///
    /// As epoll_wait(2).
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<impl Iterator<Item = Event>> {
        let count = match sys::epoll_wait(self.epoll.0.as_fd(), &mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            other => other?,
        };
        Ok(self.events.iter().take(count).map(|event| {
            let (token, bits) = (event.u64, event.events);
            Event { token, readiness: readiness(EpollFlags::from_bits_truncate(bits as i32)) }
        }))
    }

    /// The descriptor itself.
    pub fn into_fd(self) -> OwnedFd {
        self.epoll.0
    }
}

fn readiness(flags: EpollFlags) -> Readiness {
    Readiness::default()
        .with(Readiness::READABLE, flags.contains(EpollFlags::EPOLLIN))
        .with(Readiness::WRITABLE, flags.contains(EpollFlags::EPOLLOUT))
        .with(Readiness::ENDED, flags.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP))
        .with(Readiness::URGENT, flags.contains(EpollFlags::EPOLLPRI))
        .with(Readiness::FAILED, flags.contains(EpollFlags::EPOLLERR))
}
